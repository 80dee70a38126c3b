# SPDX-License-Identifier: Apache-2.0
"""A small shot on disk, and the ``gencomp`` command as a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gencomp_protocol.frames import Box
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer

HERE = Path(__file__).resolve().parent
ROOTS = [HERE, *(HERE.parent.parent / room for room in ("protocol", "server"))]
FRAMES = (1001, 1002, 1003)
WIDTH, HEIGHT = 48, 32
TIMEOUT_S = 120


def write_picture(path, pixels, channels):
    """Write one EXR over its own whole window."""
    path.parent.mkdir(parents=True, exist_ok=True)
    window = Box(0, 0, pixels.shape[1] - 1, pixels.shape[0] - 1)
    write_layer(path, LayerFrame("x", 0, pixels, channels, window, window))


def plate_of(frame, width=WIDTH, height=HEIGHT):
    """Return a plate whose every frame and pixel differ. [H,W,3] float16."""
    ramp = np.arange(width * height * 3, dtype=np.float32).reshape(height, width, 3)
    return (ramp / ramp.size + (frame - 1000)).astype(np.float16)


def matte_of(width=WIDTH, height=HEIGHT):
    """Return a matte that covers the middle. [H,W,1] float16."""
    matte = np.zeros((height, width, 1), np.float16)
    matte[height // 4 : -height // 4, width // 4 : -width // 4] = 1.0
    return matte


@dataclass(frozen=True)
class Shot:
    """A shot on disk and the folder that a run fills."""

    folder: Path

    @property
    def out(self):
        return self.folder / "out"

    def plate(self, frame):
        return self.folder / "plate" / f"plate.{frame}.exr"

    def matte(self, frame):
        return self.folder / "matte" / f"matte.{frame}.exr"

    @property
    def words(self):
        return [
            *("run", "cutout", "--out", str(self.out)),
            *("--input", f"plate={self.folder}/plate/plate.%04d.exr"),
            *("--input", f"matte.ball={self.folder}/matte/matte.####.exr"),
        ]


def environment(registry="stub_systems:REGISTRY"):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(root) for root in ROOTS),
        "GENCOMP_REGISTRY": registry,
        "OMP_NUM_THREADS": "1",
    }


def start(*words):
    """Start the command; the caller ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "gencomp_server", *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def events(self):
        return [json.loads(line) for line in self.out.splitlines()]

    def named(self, event):
        return [entry for entry in self.events if entry["event"] == event]


def finish(process):
    """Wait for a command that was started."""
    out, err = process.communicate(timeout=TIMEOUT_S)
    return Ended(process.returncode, out, err)
