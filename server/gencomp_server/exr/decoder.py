# SPDX-License-Identifier: Apache-2.0
"""The decoder process: the one place where a file that somebody sent is opened.

``python -m gencomp_server.exr.decoder MEMORY_BYTES SECONDS LIMITS PLACES`` reads one task
per line (JSON) from standard input and answers one line each::

    {"ready": true}                  once, at the start
    {"source": path, "target": stem, "kind": "exr" | "image", "role": …, "channel": …, …}
    {"header": {…}, "stats": {…}}    or    {"error": {"code": …, "message": …, …}}

It works on one thread, in a bounded address space and a bounded time for each picture, without
network and without other programs, and for a server with no files but those sent
(``exr/fence.py``). What it does not know how to answer kills it, and the pool that asked
(``exr/decode.py``) refuses the picture and starts another. It leaves when its input closes.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gencomp_protocol import disk
from gencomp_protocol.errors import BadPicture, DiskFull, GencompError, UnwritableOutput
from gencomp_protocol.transfer import digest_of_file
from gencomp_server.contract import PictureHeader
from gencomp_server.exr import carry, fence, images, look, pixels
from gencomp_server.exr.decode import (
    EXR,
    LOOK,
    SPOILT,
    DecodeTask,
    PictureStats,
    header_to_plain,
)
from gencomp_server.exr.header import (
    LIMITS,
    PictureLimits,
    choose_colour,
    choose_data,
    choose_matte,
    parse_exr,
    refuse,
)
from gencomp_server.exr.rest import rest_to_plain

_STRIP_ROWS = 128
_SPARE_BYTES = 16 << 20  # What a file of pixels may have beyond its pixels.
_Blocks = Iterable[tuple[int, Any]]


def main() -> int:
    """Answer tasks until standard input closes."""
    memory_bytes, seconds = int(sys.argv[1]), int(sys.argv[2])
    limits = limits_from_plain(json.loads(sys.argv[3]))
    # Libraries print; only answers may reach the pipe that the pool reads.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    pixels.limit_library(limits)
    fence.close_in(memory_bytes, max(limits.picture_bytes, carry.MAX_REST_BYTES) + _SPARE_BYTES)
    places = json.loads(sys.argv[4])
    if places is not None:
        fence.keep_to(*places)
    answers.write(b'{"ready": true}\n')
    for line in sys.stdin.buffer:
        # The pool is quicker to kill; these are for a picture that hangs after the pool is gone.
        signal.alarm(seconds)
        fence.allow_seconds(seconds)
        found = answer(task_from_plain(json.loads(line)), limits)
        answers.write(json.dumps(found).encode() + b"\n")
        signal.alarm(0)
    return 0


def limits_from_plain(data: dict[str, Any]) -> PictureLimits:
    """Return the limits that the pool wrote."""
    return PictureLimits(**{**data, "compressions": tuple(data["compressions"])})


def task_from_plain(data: dict[str, Any]) -> DecodeTask:
    """Return the task of one line."""
    return DecodeTask(**{**data, "source": Path(data["source"]), "target": Path(data["target"])})


def answer(task: DecodeTask, limits: PictureLimits = LIMITS) -> dict[str, Any]:
    """Decode one picture to disk and return what goes back: header and figures, or the refusal."""
    try:
        check_digest(task)
        if task.role == LOOK:
            facts, seen = look.look_at(task, limits)
            header, stats = describe(seen)
            return {"header": header_to_plain(header), "stats": vars(stats), "look": facts}
        if task.role == "rest":
            return answer_rest(task, limits)
        found = read_picture(task, limits)
        header, stats = describe(found)
        made: dict[str, Any] = {"header": header_to_plain(header), "stats": vars(stats)}
        if found.no_alpha:
            made["no_alpha"] = True
        samples = np.ascontiguousarray(found.pixels)
        save(task.target, [(0, samples.data)], made, samples.nbytes)
    except GencompError as error:
        return {"error": _located(error, task).to_wire()}
    except MemoryError:
        return {"error": _located(_no_memory(task), task).to_wire()}
    except OSError as error:
        if error.errno == errno.ENOMEM:  # so a file too large to be mapped is told
            return {"error": _located(_no_memory(task), task).to_wire()}
        refused = refuse(task.label, f"cannot be read ({error.strerror})", "Check the file.")
        return {"error": _located(refused, task).to_wire()}
    return made


def _no_memory(task: DecodeTask) -> BadPicture:
    cure = "Write it smaller, or with fewer channels."
    return refuse(task.label, "needs too much memory", cure)


def check_digest(task: DecodeTask) -> None:
    """Refuse a file whose bytes are not those that arrived.

    Raises:
        BadPicture: They are not; its details say so.
    """
    if task.digest is None or digest_of_file(task.source) == task.digest:
        return
    error = refuse(
        task.label,
        "changed on the server's disk after it arrived",
        "Send it again; if that goes on, check the disk.",
    )
    error.details[SPOILT] = True
    raise error


def read_picture(task: DecodeTask, limits: PictureLimits = LIMITS) -> pixels.Samples:
    """Read the samples that a task asks for.

    Raises:
        BadPicture: The file is damaged, is not what it claims, or is of a kind that is not taken.
    """
    if task.kind == EXR:
        parts = parse_exr(task.source, task.label, limits)
        if task.role == "matte":
            number, names = choose_matte(parts, task.channel, task.label, limits)
        elif task.role == "data":
            number, names = choose_data(parts, task.channel, task.label, limits)
        else:
            number, names = choose_colour(parts, task.label, limits)
        with pixels.suffixed(task.source, task.target, "exr") as path:
            found = pixels.read_exr(path, parts[number], number, names, task.label)
        held = [channel.name for channel in parts[number].channels]
        is_matte = task.role == images.MATTE and task.channel is None
        return replace(found, no_alpha=is_matte and pixels.is_of_colour(names[0], held))
    data = task.source.read_bytes()
    suffix = images.image_suffix(data[:16], task.label)
    images.check_whole(data, suffix, task.label)
    del data
    srgb = task.colourspace == "srgb"
    with pixels.suffixed(task.source, task.target, suffix) as path:
        return images.read_image(path, task.role, task.channel, srgb, task.label, limits)


def answer_rest(task: DecodeTask, limits: PictureLimits = LIMITS) -> dict[str, Any]:
    """Decode all of an EXR but R, G and B to disk and return what it is.

    Raises:
        BadPicture: It is damaged, or has no R, G and B itself.
        DiskFull: There is no room for it.
    """
    parts = parse_exr(task.source, task.label, limits)
    number, _ = choose_colour(parts, task.label, limits)
    colour = parts[number]
    header = PictureHeader(
        (), "half", colour.display_window, colour.data_window, colour.pixel_aspect
    )
    with pixels.suffixed(task.source, task.target, "exr") as path:
        rest, numbers = carry.find_rest(path, parts, number, task.label)
        made = {
            "header": header_to_plain(header),
            "stats": vars(PictureStats(0, 0, None, None, 0)),
            "rest": rest_to_plain(rest),
        }
        strips = carry.read_rest(path, rest, numbers, task.label)
        save(task.target, ((one.at, one.samples.data) for one in strips), made, rest.bytes)
    return made


def describe(found: pixels.Samples) -> tuple[PictureHeader, PictureStats]:
    """Return header and figures of a picture."""
    stats = measure(found.pixels)
    header = PictureHeader(
        channels=found.channels,
        pixel_type="half" if found.pixels.dtype == np.float16 else "float",
        display_window=found.display_window,
        data_window=found.data_window,
        pixel_aspect=found.pixel_aspect,
        metadata=found.metadata,
        nan_count=stats.nan + stats.inf,
    )
    return header, stats


def measure(samples: NDArray[Any]) -> PictureStats:
    """Count and bound the samples of a picture, some rows at a time.

    Args:
        samples: [H,W,C] float16 or float32, unbounded, NaN included.
    """
    nan = inf = nonzero = 0
    low, high = np.inf, -np.inf
    for top in range(0, samples.shape[0], _STRIP_ROWS):
        # numpy compares half one sample at a time; float32 takes a tenth of that.
        strip = samples[top : top + _STRIP_ROWS].astype(np.float32)
        finite = np.isfinite(strip)
        odd = strip.size - int(np.count_nonzero(finite))
        if odd:
            bad = int(np.count_nonzero(np.isnan(strip)))
            nan, inf = nan + bad, inf + odd - bad
            strip = strip[finite]
        if strip.size:
            low, high = min(low, float(strip.min())), max(high, float(strip.max()))
            nonzero += int(np.count_nonzero(strip))
    known = low <= high
    return PictureStats(nan, inf, low if known else None, high if known else None, nonzero)


def save(target: Path, blocks: _Blocks, made: dict[str, Any], size: int) -> None:
    """Write pixels, then what they are, each beside its place and renamed.

    Args:
        target: Path without suffix.
        blocks: Bytes and where in the file they go.
        made: What the pixels are, as plain data.
        size: Bytes of the whole file; what no block fills is zero.

    Raises:
        DiskFull: There is no room for them.
        UnwritableOutput: They cannot be written.
    """
    try:
        _write(target.with_name(f"{target.name}.raw"), blocks, size)
        words = json.dumps(made).encode()
        _write(target.with_name(f"{target.name}.json"), [(0, words)], len(words))
    except OSError as error:
        facts = disk.facts(error, f"{target.parent.parent.name}/{target.parent.name}")
        if error.errno in disk.FULL:
            cure = "Free some space and run the job again."
            said = "The disk that holds the server's spool is full."
            raise DiskFull(said, hint=cure, **facts) from error
        raise UnwritableOutput(
            f"The server cannot write into its folder '{target.parent.name}': {error.strerror}.",
            hint="Check who owns the spool folder and whether its disk is mounted read-only.",
            **facts,
        ) from error


def _write(path: Path, blocks: _Blocks, size: int) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _private(beside) as file:
            for at, data in blocks:
                file.seek(at)
                file.write(data)
            file.flush()
            os.ftruncate(file.fileno(), size)
            os.fdatasync(file.fileno())
        os.replace(beside, path)
    except (OSError, GencompError, MemoryError):
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _private(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _located(error: GencompError, task: DecodeTask) -> GencompError:
    error.details.update(input=task.name, frame=task.frame)
    return error


if __name__ == "__main__":
    sys.exit(main())
