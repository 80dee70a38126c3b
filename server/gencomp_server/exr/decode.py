# SPDX-License-Identifier: Apache-2.0
"""Asking for a picture to be decoded: the pool of decoder processes, seen from outside.

A picture that somebody sent is opened in a process of its own (``exr/decoder.py``) and nowhere
else. That process may crash, hang or run out of memory; here that is one refused picture. The
answer is a :class:`Decoded`: a header, a few figures, and two files on disk, ``<target>.raw`` with
the pixels and ``<target>.json`` with what they are.

This module imports neither numpy nor OpenImageIO: the server's front process uses it.
"""

import contextlib
import json
import math
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gencomp_protocol import disk
from gencomp_protocol.errors import BadPicture, GencompError, error_from_wire
from gencomp_protocol.frames import Box
from gencomp_server.contract import PictureHeader
from gencomp_server.exr.header import LIMITS, PictureLimits
from gencomp_server.exr.rest import Rest, metadata_from_plain, rest_from_plain

EXR = "exr"
IMAGE = "image"
LOOK = "look"  # The role of a file that is to be described and not kept.
SPOILT = "spoilt"  # The detail of a refusal: the file is not the one that arrived.
# One 8K RGBA float picture is 0.53 GB; the decoder holds it twice while it converts, over about
# 0.7 GB of address space for the libraries themselves.
MEMORY_BYTES = 3 << 30
# Importing the libraries takes 0.5 s, and many times that on a machine that is busy elsewhere.
_START_S = 60
Places = tuple[Path, Path]
"""The folder beneath which the pictures lie, and the one in which they are decoded."""
_PICTURES = 1000  # After so many a process makes room for a fresh one, whatever it has gathered.


@dataclass(frozen=True)
class DecodeTask:
    """One picture to decode.

    Attributes:
        source: The file as it arrived; must exist.
        target: Path without suffix; ``.raw`` and ``.json`` will be made.
        kind: ``exr``, or ``image`` for DPX, PNG, TIFF and JPEG.
        role: ``rgb`` or ``rgba`` (R, G, B and A where there is one, by name), ``matte`` or ``data``
            (one channel), or ``rest`` (all but R, G and B, as they are).
        channel: For a matte or data: which channel; None means the alpha (of data: the depth), else
            the first.
        colourspace: ``srgb`` where an image holds sRGB codes that become scene-linear light.
            A matte is coverage and an EXR is scene-linear: for both it changes nothing.
        name: Name of the input, for sentences.
        frame: Frame of the input, for sentences.
        digest: BLAKE2b-256 of the file in hex, where it is known: bytes that changed since they
            arrived are refused.
    """

    source: Path
    target: Path
    kind: str = EXR
    role: str = "rgb"
    channel: str | None = None
    colourspace: str = "scene_linear"
    name: str = "picture"
    frame: int | None = None
    digest: str | None = None

    @property
    def label(self) -> str:
        """Return what a sentence calls this picture; a file that is looked at has its name."""
        return self.name if self.role == LOOK else picture_label(self.name, self.frame)


def picture_label(name: str, frame: int | None) -> str:
    """Return what a sentence calls a picture: ``Input 'plate' frame 1001``."""
    return f"Input '{name}'" if frame is None else f"Input '{name}' frame {frame}"


@dataclass(frozen=True)
class PictureStats:
    """Figures of one decoded picture, over all its kept channels.

    Attributes:
        nan: Samples that are not a number.
        inf: Samples that are infinite.
        minimum: Least finite sample; None where there is none.
        maximum: Greatest finite sample; None where there is none.
        nonzero: Finite samples that are not zero.
    """

    nan: int
    inf: int
    minimum: float | None
    maximum: float | None
    nonzero: int


@dataclass(frozen=True)
class Decoded:
    """A picture that was opened and found whole.

    Attributes:
        path: Path without suffix of its ``.raw`` and ``.json``.
        header: What it is; ``channels`` are the channels kept, in the order of the pixels.
        stats: Figures of its samples; none are taken of a rest.
        rest: What the pixels are where all but R, G and B was asked for.
        no_alpha: Whether one channel of a colour picture was read, for want of an alpha.
    """

    path: Path
    header: PictureHeader
    stats: PictureStats
    rest: Rest | None = None
    no_alpha: bool = False

    @property
    def bytes(self) -> int:
        """Size of the pixels."""
        if self.rest is not None:
            return self.rest.bytes
        window, header = self.header.data_window, self.header
        return window.width * window.height * len(header.channels) * sample_bytes(header)


@dataclass(frozen=True)
class Looked:
    """What a picture file is.

    Attributes:
        header: What it is; ``channels`` are those that a job would read as colour, else as matte.
        stats: Figures of those samples.
        roles: What it can be in a job: ``rgb``, ``matte``, ``data``.
        channels: All its channels.
        parts: Number of its parts.
        compression: How it is packed; None where it is no EXR.
        tiled: Whether it is stored in tiles.
        left_out: What of it a job leaves out, as phrases.
    """

    header: PictureHeader
    stats: PictureStats
    roles: tuple[str, ...]
    channels: tuple[str, ...]
    parts: int
    compression: str | None
    tiled: bool
    left_out: tuple[str, ...]


def _looked(data: Mapping[str, Any]) -> Looked:
    facts = data["look"]
    return Looked(
        header=header_from_plain(data["header"]),
        stats=PictureStats(**data["stats"]),
        roles=tuple(facts["roles"]),
        channels=tuple(facts["channels"]),
        parts=facts["parts"],
        compression=facts["compression"],
        tiled=facts["tiled"],
        left_out=tuple(facts["left_out"]),
    )


def sample_bytes(header: PictureHeader) -> int:
    """Return the bytes of one sample: 2 for half, 4 for float."""
    return 2 if header.pixel_type == "half" else 4


def header_to_plain(header: PictureHeader) -> dict[str, Any]:
    """Return a header as plain data for JSON."""
    return {
        "channels": list(header.channels),
        "pixel_type": header.pixel_type,
        "display_window": _plain_box(header.display_window),
        "data_window": _plain_box(header.data_window),
        "pixel_aspect": header.pixel_aspect,
        "metadata": dict(header.metadata),
        "nan_count": header.nan_count,
    }


def header_from_plain(data: Mapping[str, Any]) -> PictureHeader:
    """Return the header that :func:`header_to_plain` wrote."""
    return PictureHeader(
        channels=tuple(data["channels"]),
        pixel_type=data["pixel_type"],
        display_window=Box(*data["display_window"]),
        data_window=Box(*data["data_window"]),
        pixel_aspect=data["pixel_aspect"],
        metadata=metadata_from_plain(data["metadata"]),
        nan_count=data["nan_count"],
    )


def _plain_box(box: Box) -> list[int]:
    return [box.x0, box.y0, box.x1, box.y1]


def read_decoded(target: Path) -> Decoded | None:
    """Return what was decoded to ``target``, or None where it is not (or no longer) there.

    Being asked for makes it the most recently used.
    """
    raw = target.with_name(f"{target.name}.raw")
    try:
        data = json.loads(target.with_name(f"{target.name}.json").read_bytes())
        found = _decoded(target, data)
        if raw.stat().st_size != found.bytes:
            return None
        os.utime(raw)
    except FileNotFoundError:
        return None
    return found


def _decoded(target: Path, data: Mapping[str, Any]) -> Decoded:
    rest = rest_from_plain(data["rest"]) if "rest" in data else None
    header, stats = header_from_plain(data["header"]), PictureStats(**data["stats"])
    return Decoded(target, header, stats, rest, bool(data.get("no_alpha")))


class DecodePool:
    """Decoder processes and the pictures that wait for them.

    Each process is started when it is first needed and kept. One that dies or is late is killed,
    its picture is refused, and the next picture gets a fresh one. One that somebody else ends by
    SIGKILL, such as a kernel that is short of memory, costs its picture one more try.

    Args:
        processes: How many pictures are decoded at a time.
        memory_bytes: Address space of each process.
        timeout_s: How long one picture may take.
        limits: What a picture may be at most.
        places: What a process keeps to, where the kernel has rules for folders; None for no such
            bounds.
    """

    def __init__(
        self,
        processes: int = 2,
        *,
        memory_bytes: int = MEMORY_BYTES,
        timeout_s: float = 60.0,
        limits: PictureLimits = LIMITS,
        places: Places | None = None,
    ) -> None:
        self._waiting: queue.SimpleQueue[tuple[DecodeTask, Future[Any]] | None]
        self._waiting = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._decoders = [
            _Decoder(memory_bytes, timeout_s, limits, places) for _ in range(processes)
        ]
        self._threads = [
            threading.Thread(target=self._serve, args=(decoder,), name="decode", daemon=True)
            for decoder in self._decoders
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: DecodeTask) -> "Future[Decoded]":
        """Decode a picture in the background.

        Returns:
            A future of its :class:`Decoded`. It fails with BadPicture where the picture is damaged
            or of a kind that is not taken, and with DiskFull where there is no room for it.
        """
        future: Future[Decoded] = Future()
        self._waiting.put((task, future))
        return future

    def look(self, task: DecodeTask) -> "Future[Looked]":
        """Have a file read and described in the background, without keeping any of it.

        Args:
            task: The file and its kind; in the folder of its target a name is made and removed.

        Returns:
            A future of what it is. It fails as that of :meth:`submit` does.
        """
        future: Future[Looked] = Future()
        self._waiting.put((replace(task, role=LOOK), future))
        return future

    def close(self, timeout_s: float | None = None) -> None:
        """Finish what waits, then end every process.

        Args:
            timeout_s: After so long, drop what still waits and kill the processes; None waits.
        """
        for _ in self._threads:
            self._waiting.put(None)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        self._hurry.set()
        for decoder, thread in zip(self._decoders, self._threads, strict=True):
            decoder.is_leaving = True
            while thread.is_alive():
                decoder.kill()
                thread.join(0.1)

    def _serve(self, decoder: "_Decoder") -> None:
        while (entry := self._waiting.get()) is not None:
            task, future = entry
            if self._hurry.is_set():
                future.cancel()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if task.role == LOOK:
                    future.set_result(_looked(decoder.ask(task)))
                else:
                    found = read_decoded(task.target)
                    future.set_result(found or _decoded(task.target, decoder.ask(task)))
            except BaseException as error:  # the future carries it to whoever waits
                future.set_exception(error)
        decoder.stop()


class _Decoder:
    """One decoder process, started on demand."""

    def __init__(
        self, memory_bytes: int, timeout_s: float, limits: PictureLimits, places: Places | None
    ) -> None:
        self._memory_bytes, self._timeout_s, self._limits = memory_bytes, timeout_s, limits
        self._places = None if places is None else [[str(one.absolute())] for one in places]
        self._process: subprocess.Popen[bytes] | None = None
        self._seen = 0  # Pictures of this process.
        self.is_leaving = False  # Its death is our doing from then on.

    def ask(self, task: DecodeTask) -> dict[str, Any]:
        """Have one picture read and return the answer, or say in one sentence why not."""
        try:
            answer = self._ask_again(task)
        except (OSError, EOFError, TimeoutError) as error:
            self.kill()
            self.stop()
            if isinstance(error, OSError) and error.errno in disk.NO_HANDLES:
                raise  # That is not the picture's.
            raise _refusal(task, error, self._timeout_s) from error
        if "error" in answer:
            raise error_from_wire(answer["error"])
        return answer

    def _ask_again(self, task: DecodeTask) -> dict[str, Any]:
        """Ask; once more where the process was killed from outside: that is not the picture's."""
        try:
            return self._ask(task)
        except EOFError:
            if self.is_leaving or not self._was_killed():
                raise
        self.stop()
        return self._ask(task)

    def _was_killed(self) -> bool:
        """Tell whether the process that has just closed its pipe ended by SIGKILL."""
        process = self._process
        return process is not None and process.wait() == -signal.SIGKILL

    def kill(self) -> None:
        """End the process at once; any thread may."""
        process = self._process
        if process is not None:
            process.kill()

    def stop(self) -> None:
        """End the process; its end of the pipe closing is what tells it to leave."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what it never read is lost anyway
                    pipe.close()
        process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        # A source tree or a test finds the package through sys.path, which a child does not have.
        roots = os.pathsep.join(path for path in sys.path if os.path.isabs(path))
        keep = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gencomp_server.exr.decoder"),
                *(str(self._memory_bytes), str(math.ceil(self._timeout_s) + _START_S)),
                json.dumps(vars(self._limits)),
                json.dumps(self._places),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**keep, "PYTHONPATH": roots, "OMP_NUM_THREADS": "1"},
            cwd="/",
            start_new_session=True,
        )
        _read_line(self._process, _START_S)
        self._seen = 0
        return self._process

    def _ask(self, task: DecodeTask) -> dict[str, Any]:
        if self._seen >= _PICTURES:
            self.stop()
        self._seen += 1
        process = self._process or self._start()
        try:
            _write_line(process, _task_to_plain(task))
        except BrokenPipeError:  # it died before it saw this picture, which is not to blame
            self.stop()
            process = self._start()
            _write_line(process, _task_to_plain(task))
        return _read_line(process, self._timeout_s)


def _write_line(process: "subprocess.Popen[bytes]", data: dict[str, Any]) -> None:
    """Send a decoder one task.

    Raises:
        BrokenPipeError: It is dead.
    """
    assert process.stdin is not None
    process.stdin.write(json.dumps(data).encode() + b"\n")
    process.stdin.flush()


def _read_line(process: "subprocess.Popen[bytes]", timeout_s: float) -> dict[str, Any]:
    """Return the next line that a decoder writes.

    Raises:
        EOFError: It died.
        TimeoutError: It wrote none in time.
    """
    assert process.stdout is not None
    deadline, line = time.monotonic() + timeout_s, b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise TimeoutError
        block = os.read(process.stdout.fileno(), 1 << 16)
        if not block:
            raise EOFError("the decoder died")
        line += block
    return dict(json.loads(line))


def _task_to_plain(task: DecodeTask) -> dict[str, Any]:
    return {
        "source": os.fspath(task.source.absolute()),
        "target": os.fspath(task.target.absolute()),
        "kind": task.kind,
        "role": task.role,
        "channel": task.channel,
        "colourspace": task.colourspace,
        "name": task.name,
        "frame": task.frame,
        "digest": task.digest,
    }


def _refusal(task: DecodeTask, error: BaseException, timeout_s: float) -> GencompError:
    happened = "could not be decoded: the decoder died on it"
    if isinstance(error, TimeoutError):
        happened = f"could not be decoded within {timeout_s:g} s"
    return BadPicture(
        f"{task.label} {happened}.",
        hint="The file is probably damaged; render it again.",
        input=task.name,
        frame=task.frame,
    )
