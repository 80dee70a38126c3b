# SPDX-License-Identifier: Apache-2.0
"""What a server would say of picture files: size, windows, channels, or the sentence of refusal.

A file is read as a job's picture is, in a decoder process with the same limits, and nothing of it
is kept. What a file is called is bytes from somebody else, as its content is: whatever is shown has
control characters spelt out.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import BadPicture, GencompError, MissingFrame
from gencomp_protocol.frames import Box
from gencomp_server.exr.decode import EXR, IMAGE, DecodePool, DecodeTask, Looked
from gencomp_server.exr.header import RENDER_AGAIN, on_a_line, sniff
from gencomp_server.exr.layout import EXR_MAGIC

_IMAGES = frozenset({"a PNG", "a JPEG", "a TIFF", "a DPX"})
_IMAGE_SUFFIXES = frozenset({".dpx", ".png", ".tif", ".tiff", ".jpg", ".jpeg"})
_HEAD_BYTES = 16
_AHEAD = 8  # Files that wait for the decoders; a folder may hold any number.
_SHOWN_CHANNELS = 12


@dataclass(frozen=True)
class Probed:
    """What became of one file.

    Attributes:
        path: The file.
        looked: What it is; None where it is refused.
        error: Why it is refused; None where it is not.
    """

    path: Path
    looked: Looked | None = None
    error: GencompError | None = None

    def line(self) -> str:
        """Return one line for people."""
        if self.error is not None:
            return f"{spelt(self.path)}: refused: {on_a_line(str(self.error))}"
        assert self.looked is not None
        return f"{spelt(self.path)}: {on_a_line(_words(self.looked))}"

    def plain(self) -> dict[str, Any]:
        """Return one map for programs."""
        made: dict[str, Any] = {"file": spelt(self.path), "ok": self.error is None}
        if self.error is not None:
            wire = self.error.to_wire()
            return {**made, **{key: wire[key] for key in ("code", "message", "hint")}}
        assert self.looked is not None
        return {**made, **_facts(self.looked)}


def find_files(places: Iterable[Path]) -> Iterator[Path]:
    """Return the files that are named, and all in the folders that are, in order.

    A link to a folder inside a folder is not followed.
    """
    for place in places:
        if not place.is_dir():
            yield place
            continue
        for folder, inner, names in os.walk(place):
            inner.sort()
            yield from (Path(folder, name) for name in sorted(names))


def probe_files(paths: Iterable[Path], pool: DecodePool) -> Iterator[Probed]:
    """Yield what a server would say of each file, in order.

    Args:
        paths: The files; any may be missing, or be no file.
        pool: Reads them.
    """
    waiting: deque[tuple[Path, Future[Looked] | GencompError]] = deque()
    with tempfile.TemporaryDirectory(prefix="gencomp-probe-") as scratch:
        try:
            for number, path in enumerate(paths):
                waiting.append((path, _begin(path, Path(scratch, str(number)), pool)))
                if len(waiting) > _AHEAD:
                    yield _ended(*waiting.popleft())
            while waiting:
                yield _ended(*waiting.popleft())
        finally:
            for _, future in waiting:
                if isinstance(future, Future):
                    future.cancel()


def _begin(path: Path, target: Path, pool: DecodePool) -> Future[Looked] | GencompError:
    try:
        kind = _kind(path)
    except GencompError as error:
        return error
    return pool.look(DecodeTask(path.absolute(), target, kind, name=spelt(Path(path.name))))


def _ended(path: Path, found: Future[Looked] | GencompError) -> Probed:
    if isinstance(found, GencompError):
        return Probed(path, error=found)
    error = found.exception()
    if error is None:
        return Probed(path, looked=found.result())
    if not isinstance(error, GencompError):
        raise error
    return Probed(path, error=error)


def _kind(path: Path) -> str:
    """Return whether a file is read as EXR or as another picture.

    Raises:
        BadPicture: It is no file, or cannot be read.
        MissingFrame: It is not there.
    """
    label = spelt(Path(path.name))
    try:
        # A pipe that nobody writes to would be waited for.
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadPicture(f"{label} is not a file.", hint="Name a picture file or a folder.")
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise MissingFrame(f"{label} is not there.", hint="Check the path.") from error
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise BadPicture(f"{label} cannot be read ({words}).", hint=RENDER_AGAIN) from error
    suffix = path.suffix.lower()
    if suffix in _IMAGE_SUFFIXES:
        return IMAGE
    is_other = suffix != ".exr" and not head.startswith(EXR_MAGIC) and sniff(head) in _IMAGES
    return IMAGE if is_other else EXR


# --- words ---------------------------------------------------------------------------------------


def _words(looked: Looked) -> str:
    header, stats = looked.header, looked.stats
    display, data = header.display_window, header.data_window
    names = " ".join(looked.channels[:_SHOWN_CHANNELS])
    more = len(looked.channels) - _SHOWN_CHANNELS
    found = [
        f"{display.width}x{display.height}",
        "data window as the display window" if data == display else f"data window {_corners(data)}",
        f"{names} and {more} more" if more > 0 else names,
        header.pixel_type,
    ]
    if looked.compression is not None:
        found.append(looked.compression + (" in tiles" if looked.tiled else ""))
    if looked.parts > 1:
        found.append(f"{looked.parts} parts")
    if header.pixel_aspect != 1.0:
        found.append(f"pixel aspect {header.pixel_aspect:g}")
    found.extend(f"leaves out {phrase}" for phrase in looked.left_out)
    bad = stats.nan + stats.inf
    if bad:
        samples = "1 sample that is" if bad == 1 else f"{bad} samples that are"
        found.append(f"{samples} NaN or infinite")
    return f"{', '.join(found)}; as {' or '.join(_ROLES[role] for role in looked.roles)}"


_ROLES = {"rgb": "picture", "matte": "matte", "data": "data"}


def _facts(looked: Looked) -> dict[str, Any]:
    header, stats = looked.header, looked.stats
    return {
        "width": header.display_window.width,
        "height": header.display_window.height,
        "display_window": _plain(header.display_window),
        "data_window": _plain(header.data_window),
        "pixel_aspect": header.pixel_aspect,
        "channels": [on_a_line(name) for name in looked.channels],
        "pixel_type": header.pixel_type,
        "compression": looked.compression,
        "tiled": looked.tiled,
        "parts": looked.parts,
        "left_out": [on_a_line(phrase) for phrase in looked.left_out],
        "nan": stats.nan,
        "inf": stats.inf,
        "minimum": stats.minimum,
        "maximum": stats.maximum,
        "roles": list(looked.roles),
    }


def _plain(box: Box) -> list[int]:
    return [box.x0, box.y0, box.x1, box.y1]


def _corners(box: Box) -> str:
    return f"{box.width}x{box.height} from ({box.x0}, {box.y0}) to ({box.x1}, {box.y1})"


def spelt(path: Path) -> str:
    """Return a path as text: what is no UTF-8 and what would move a cursor is spelt out."""
    return on_a_line(os.fsencode(path).decode("utf-8", "backslashreplace"))
