# SPDX-License-Identifier: Apache-2.0
"""A segmenter of one's own: a command that draws mattes of what words name in a shot.

gencomp has none. Whoever has one names it in the settings, once for the server::

    segmenter = "my-tool --clip {frames} --text {words} --masks {out}"

``{frames}`` is a folder of 8-bit PNG pictures ``000000.png``, ``000001.png``, …; ``{words}`` is
what to look for, several things with commas between; ``{out}`` is an empty folder that the command
fills with one 8-bit PNG matte of the same name and size for every picture, white where it is.
The command runs without a shell, in a process group of its own, which is ended when it takes too
long or the job is cancelled. Whatever goes wrong is a sentence that names the command.

Source: DynVFX §4 and app. A.1 use a segmentation model named by words, once on the shot and once a
round on what was made; which one is nothing that the method depends on.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob, DiskFull, ToolFailed
from gencomp_server import pulse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float32]

log = logging.getLogger(__name__)

PLACES = ("{frames}", "{words}", "{out}")
_PLACE = re.compile(r"\{(?:frames|words|out)\}")
_POLL_S = 0.05
_SAID_CHARACTERS = 200
_CURE = "Run the command by hand on a folder of PNG pictures, or connect a matte instead."


def check_command(command: str) -> tuple[str, ...]:
    """Return the arguments of a segmenter's command, its places still in them.

    Raises:
        BadKnob: It is no command line, or one of the three places is not in it.
    """
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise BadKnob(f"Setting 'segmenter' is no command line ({error}).") from error
    lacking = [place for place in PLACES if not any(place in word for word in words[1:])]
    if lacking:
        raise BadKnob(
            f"Setting 'segmenter' is '{command}', which lacks {' and '.join(lacking)}.",
            hint='Write it as "my-tool {frames} {words} {out}".',
        )
    return words


def check_words(words: str) -> None:
    """Refuse words that a command would not take for words; none at all are fine here.

    Raises:
        BadKnob: They begin with a dash, as an option does, or hold what no text holds.
    """
    if words.strip().startswith("-"):
        raise BadKnob(
            f"The words for the segmenter, '{words.strip()}', begin with a dash, so that a command "
            "would take them for an option.",
            hint="Begin with a letter.",
        )
    if not " ".join(words.split()).isprintable():
        raise BadKnob("The words for the segmenter hold characters that no text holds.")


@dataclass(frozen=True)
class Segmenter:
    """A command that draws mattes of what words name.

    Attributes:
        command: The command with its three places.
        timeout_s: How long it may take for one shot.
    """

    command: str
    timeout_s: float = 900.0

    @property
    def name(self) -> str:
        """Return what runs, for sentences: ``python find-it.py``, without folders and options."""
        words = itertools.takewhile(lambda word: not _PLACE.search(word), self._words)
        return " ".join(Path(word).name for word in words if not word.startswith("-"))

    @property
    def _words(self) -> tuple[str, ...]:
        return check_command(self.command)

    @property
    def identity(self) -> str:
        """Return what its mattes depend on beside the pictures and the words, for a stage's key."""
        return self.command

    def check_there(self) -> None:
        """Refuse a command that is nowhere, before hours are spent on what it would look at.

        Raises:
            ToolFailed: It cannot be found, or not be run.
        """
        if shutil.which(self._words[0]) is None:
            raise self._not_started("it is not there, or may not be run")

    def mattes(
        self, pictures: Iterable[Bytes], words: str, *, check: Callable[[], None] | None = None
    ) -> Floats:
        """Return a matte of what words name on every picture.

        Args:
            pictures: [h,w,3] uint8 RGB each, as a monitor shows them (sRGB), all of one size.
            words: What to look for; several things with commas between.
            check: Called again and again meanwhile; what it raises ends the command.

        Returns:
            [T,h,w,1] float32, 0..1.

        Raises:
            BadKnob: There are no words to look for, or they are none.
            ToolFailed: The command is not there, failed, took too long, or what it left is no
                matte of each picture.
            DiskFull: There is no room for the pictures.
        """
        if not words.strip():
            raise BadKnob(
                f"There are no words that the segmenter '{self.name}' could look for.",
                hint="Say in a word or two what it should find.",
            )
        check_words(words)
        with _folder() as folder:
            frames, out = folder / "frames", folder / "out"
            frames.mkdir()
            out.mkdir()
            sizes = _write_pictures(frames, pictures)
            self._run(frames, words.strip(), out, folder / "said.txt", check)
            return self._read(out, sizes)

    def _run(
        self,
        frames: Path,
        words: str,
        out: Path,
        said: Path,
        check: Callable[[], None] | None,
    ) -> None:
        """Run the command to its end."""
        given = dict(zip(PLACES, (str(frames), words, str(out)), strict=True))
        arguments = [_filled(word, given) for word in self._words]
        started = time.monotonic()
        with said.open("wb") as sink:
            try:
                child = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise self._not_started(str(error.strerror)) from error
            try:
                self._wait(child, started, check)
            finally:
                _end(child)
        if child.returncode:
            log.warning("segmenter %s said: %s", self.name, _said(said, 20_000))
            raise ToolFailed(
                f"The segmenter '{self.name}' ended with {child.returncode}: {_last_words(said)}",
                hint=_CURE,
                tool=self.name,
            )
        log.info("segmenter %s took %.1f s", self.name, time.monotonic() - started)

    def _wait(
        self,
        child: subprocess.Popen[bytes],
        started: float,
        check: Callable[[], None] | None,
    ) -> None:
        while child.poll() is None:
            if check is not None:
                check()
            pulse.beat()  # It has a limit of its own.
            if time.monotonic() - started > self.timeout_s:
                raise ToolFailed(
                    f"The segmenter '{self.name}' was ended after {self.timeout_s:g} seconds "
                    "without being done.",
                    hint="Raise the setting segmenter_timeout_s, or connect a matte instead.",
                    tool=self.name,
                )
            time.sleep(_POLL_S)

    def _read(self, out: Path, sizes: list[tuple[int, int]]) -> Floats:
        """Read the mattes that the command left."""
        import cv2
        import numpy as np

        if not sizes:
            return np.zeros((0, 0, 0, 1), np.float32)
        mattes = np.zeros((len(sizes), *sizes[0], 1), np.float32)
        for i, size in enumerate(sizes):
            path = out / _name(i)
            if not path.is_file():
                raise self._useless(f"left no matte {path.name}")
            try:
                data = np.frombuffer(path.read_bytes(), np.uint8)
                found = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
            except OSError as error:
                raise self._useless(f"left {path.name}, which is not readable") from error
            except cv2.error:  # a header that tells of more pixels than anybody has
                found = None
            if found is None:
                raise self._useless(f"left {path.name}, which is no PNG picture")
            if found.shape != size:
                left, want = (f"{s[1]}x{s[0]}" for s in (found.shape, size))
                raise self._useless(f"left {path.name} at {left} instead of {want}")
            mattes[i, ..., 0] = found.astype(np.float32) / np.float32(255)
        return mattes

    def _not_started(self, why: str) -> ToolFailed:
        return ToolFailed(
            f"The segmenter '{self.name}' cannot be started ({why}).",
            hint="Put the setting segmenter right, or connect a matte instead.",
            tool=self.name,
        )

    def _useless(self, what: str) -> ToolFailed:
        return ToolFailed(f"The segmenter '{self.name}' {what}.", hint=_CURE, tool=self.name)


def pictures_of(video: Any) -> Iterable[Bytes]:
    """Yield the pictures of a sequence in model range as a segmenter takes them.

    Args:
        video: [T,h,w,3], -1..1, display-coded.
    """
    import numpy as np

    for frame in video:
        code = np.clip(np.asarray(frame, np.float32) * 0.5 + 0.5, 0, 1)
        yield np.rint(code * 255).astype(np.uint8)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards, as far as what the command left there lets it be.

    Raises:
        DiskFull: It cannot be made.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="gencomp-segmenter-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room(error) from error
    with made as name:
        yield Path(name)


def _no_room(error: OSError) -> DiskFull:
    return DiskFull(
        f"The pictures for the segmenter cannot be written ({error.strerror}).",
        hint="Free some space in the folder of temporary files.",
    )


def _name(i: int) -> str:
    return f"{i:06d}.png"


def _filled(word: str, given: dict[str, str]) -> str:
    """Put values into an argument's places; what the values hold is not looked at again."""
    return _PLACE.sub(lambda found: given[found[0]], word)


def _write_pictures(folder: Path, pictures: Iterable[Bytes]) -> list[tuple[int, int]]:
    """Write pictures as PNG; return the height and width of each."""
    import cv2
    import numpy as np

    sizes: list[tuple[int, int]] = []
    for i, picture in enumerate(pictures):
        done, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
        assert done, picture.shape
        try:
            (folder / _name(i)).write_bytes(data.tobytes())
        except OSError as error:
            raise _no_room(error) from error
        sizes.append((picture.shape[0], picture.shape[1]))
    return sizes


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a command and whatever it started, and wait for it."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # the latter is how macOS says the former
        log.debug("the segmenter's group is gone already")
    child.wait()


def _said(path: Path, size: int) -> str:
    """Return the end of what a command said, which may be a long story."""
    with path.open("rb") as source:
        source.seek(max(0, path.stat().st_size - size))
        return source.read(size).decode("utf-8", "replace").strip()


def _last_words(path: Path) -> str:
    lines = [line.strip() for line in _said(path, 4000).splitlines() if line.strip()]
    if not lines:
        return "it said nothing."
    return "".join(one for one in lines[-1] if one.isprintable())[:_SAID_CHARACTERS]
