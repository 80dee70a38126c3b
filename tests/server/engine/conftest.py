# SPDX-License-Identifier: Apache-2.0
"""A spool with a tiny job in it: a plate of two frames, a matte, a still."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gencomp_protocol.frames import Box, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.contract import CommonParams, Input, LayerFrame, Plan, System
from gencomp_server.engine.spool import Spool
from gencomp_server.exr.write import write_layer

FRAMES = FrameRange(1001, 1002)
WINDOW = Box(0, 0, 3, 1)


def no_layers(request):
    return ()


def no_plan(request, machine):
    return Plan()


def no_run(shot, params, ctx):
    return iter(())


SYSTEM = System(
    name="nothing",
    title="Nothing",
    doc="Takes pictures and makes none.",
    inputs=(
        Input("plate", "rgb", "The plate."),
        Input("matte.*", "matte", "Mattes.", most=8, covers=("sequence", "still")),
        Input(
            "clean_plate", "rgb", "Clean.", optional=True, covers=("sequence", "still", "stills")
        ),
    ),
    params=CommonParams,
    layers=no_layers,
    plan=no_plan,
    run=no_run,
)


@dataclass
class TinyJob:
    """What a job of the tests is made of."""

    spool: Spool
    folder: Path
    pictures: dict = field(default_factory=dict)
    entries: dict = field(default_factory=dict)
    system: System = SYSTEM

    def add(self, name, frame, pixels, channels=("R", "G", "B"), *, cover="sequence", **facts):
        """Put one picture into the spool as if it had been sent."""
        height, width = pixels.shape[:2]
        window = Box(0, 0, width - 1, height - 1)
        boxes = {"display_window": window, "data_window": window, **facts}
        path = self.folder / "sent.exr"
        write_layer(path, LayerFrame(name, frame, pixels, channels, **boxes))
        data = path.read_bytes()
        digest = hashlib.blake2b(data, digest_size=32).hexdigest()
        self.spool.picture(digest).write_bytes(data)
        self.pictures.setdefault(name, {})[frame] = digest
        frames = tuple(sorted(self.pictures[name]))
        self.entries[name] = InputHeader(name, frames, cover)
        return digest

    def request(self, **facts):
        """Return the request for what was added."""
        return Request(self.system.name, FRAMES, tuple(self.entries.values()), **facts)


@pytest.fixture
def tiny_job(tmp_path):
    job = TinyJob(Spool(tmp_path / "spool"), tmp_path)
    for n in FRAMES:
        job.add("plate", n, np.full((2, 4, 3), n - 1000.5, np.float16))
        job.add("matte.a", n, np.full((2, 4, 1), 0.25 * (n - 1000), np.float16), ("A",))
    job.add("clean_plate", 1, np.full((2, 4, 3), 7.0, np.float16), cover="still")
    return job
