# SPDX-License-Identifier: Apache-2.0
"""VMAF by the tool of that name: pictures to a raw video, the tool run once, its answer read.

The pictures are written as they come, 10 bits, 4:2:0, BT.709 at video levels, so that memory does
not grow with the shot; the disk does, by 6 MB a frame of 1080p and side.
"""

from __future__ import annotations

import errno
import json
import subprocess
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.errors import BadPicture, DiskFull

Codes = NDArray[np.float32]

# BT.709: weights of red and blue in luma; video levels of 10 bits.
_RED, _BLUE = 0.2126, 0.0722
_BLACK, _RANGE, _MIDDLE, _CHROMA_RANGE = 64.0, 876.0, 512.0, 896.0
_TIMEOUT_S = 6 * 3600


class RawVideo:
    """A YUV4MPEG2 file that is written frame by frame.

    Args:
        path: File to make.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def write(self, codes: Codes) -> None:
        """Add a picture. [H,W,3] float32, sRGB 0..1, all of one size.

        Raises:
            DiskFull: There is no room.
        """
        try:
            if self._file is None:
                self._file = self.path.open("wb")
                height, width = codes.shape[:2]
                head = f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420p10\n"
                self._file.write(head.encode())
            self._file.write(b"FRAME\n")
            for plane in planes(codes):
                self._file.write(plane.astype("<u2").tobytes())
        except OSError as error:
            raise _no_room(error, self.path) from error

    def close(self) -> None:
        """Finish the file.

        Raises:
            DiskFull: There is no room.
        """
        try:
            if self._file is not None:
                self._file.close()
        except OSError as error:
            raise _no_room(error, self.path) from error


def _no_room(error: OSError, path: Path) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    return DiskFull(
        f"The disk of {path.parent} is full: vmaf reads raw video.",
        hint="Set TMPDIR to a disk with room, or measure fewer frames.",
    )


def planes(codes: Codes) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]:
    """Return luma and the two chroma planes of a picture, chroma halved both ways, odd sizes up.

    Args:
        codes: [H,W,3] float32, 0..1.

    Returns:
        [H,W], [⌈H/2⌉,⌈W/2⌉] and again, uint16, 10 bits at video levels: luma 64..940.
    """
    red, green, blue = (codes[..., channel] for channel in range(3))
    luma = _RED * red + (1.0 - _RED - _BLUE) * green + _BLUE * blue
    blueness = (blue - luma) / (2.0 * (1.0 - _BLUE))
    redness = (red - luma) / (2.0 * (1.0 - _RED))
    return (
        _rounded(_BLACK + _RANGE * luma),
        _rounded(_MIDDLE + _CHROMA_RANGE * _halved(blueness)),
        _rounded(_MIDDLE + _CHROMA_RANGE * _halved(redness)),
    )


def _rounded(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    made: NDArray[np.uint16] = np.clip(np.rint(values), 0, 1023).astype(np.uint16)
    return made


def _halved(plane: NDArray[np.floating]) -> NDArray[np.floating]:
    height, width = plane.shape
    even = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    fours = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
    made: NDArray[np.floating] = fours.mean(axis=(1, 3))
    return made


def run_vmaf(tool: str, reference: Path, distorted: Path, answer: Path) -> list[float]:
    """Run the tool on two raw videos and return its score of every frame.

    Args:
        tool: The executable.
        reference: What it should look like.
        distorted: What is judged.
        answer: File for the tool's answer.

    Raises:
        BadPicture: The tool fails or says nothing that can be read.
    """
    command = [tool, "--reference", str(reference), "--distorted", str(distorted)]
    command += ["--json", "--output", str(answer), "--quiet"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(tool, str(error)) from error
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        raise _failed(tool, f"code {done.returncode}: {told[-1] if told else 'no word'}")
    try:
        said = json.loads(answer.read_text(encoding="utf-8"))
        found = [float(one["metrics"]["vmaf"]) for one in said["frames"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _failed(tool, f"its answer makes no sense: {error!r}") from error
    if not found:
        raise _failed(tool, "its answer has no frames")
    return found


def _failed(tool: str, why: str) -> BadPicture:
    return BadPicture(
        f"{tool} did not give a score ({why}).", hint="Run it by hand on two pictures of this size."
    )
