# SPDX-License-Identifier: Apache-2.0
"""Jobs of real systems on tiny procedural shots, run in this process through the real stages."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gencomp_protocol.errors import Cancelled
from gencomp_protocol.frames import Box, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.contract import LayerFrame, check_request, find_system
from gencomp_server.engine.context import JobContext
from gencomp_server.engine.shot import PictureShelf, SpoolShot
from gencomp_server.engine.spool import Spool
from gencomp_server.engine.stages import StageStore
from gencomp_server.exr.decode import DecodePool
from gencomp_server.exr.write import write_layer
from gencomp_server.systems import REGISTRY
from gencomp_server.training.shots import ProceduralShot, ShotSpec


@dataclass
class Made:
    """What a run delivered: pictures by (layer, frame) in order, its context, its messages."""

    pictures: dict
    ctx: JobContext
    said: list

    def layer(self, name):
        """Return a layer's pixels by frame."""
        return {n: one.pixels for (layer, n), one in self.pictures.items() if layer == name}


@dataclass
class Job:
    """Inputs of a job, put into a spool as if they had been sent."""

    folder: Path
    pool: DecodePool
    frames: FrameRange
    system: str = "omnimatte"
    pictures: dict = field(default_factory=dict)
    entries: dict = field(default_factory=dict)
    sent: dict = field(default_factory=dict)

    def __post_init__(self):
        self.spool = Spool(self.folder / "spool")

    def add(self, name, frame, pixels, *, cover="sequence", **windows):
        """Add one picture; pixels [H,W,C], half unless they are float32."""
        kept = pixels if pixels.dtype == np.float32 else pixels.astype(np.float16)
        channels = {1: ("A",), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}[kept.shape[2]]
        window = Box(0, 0, kept.shape[1] - 1, kept.shape[0] - 1)
        boxes = {"display_window": window, "data_window": window, **windows}
        path = self.folder / "sent.exr"
        write_layer(path, LayerFrame(name, frame, kept, channels, **boxes))
        data = path.read_bytes()
        digest = hashlib.blake2b(data, digest_size=32).hexdigest()
        self.spool.picture(digest).write_bytes(data)
        self.pictures.setdefault(name, {})[frame] = digest
        self.entries[name] = InputHeader(name, tuple(sorted(self.pictures[name])), cover)
        self.sent[name, frame] = kept

    def remove(self, name):
        """Take an input away."""
        del self.pictures[name], self.entries[name]

    def run(self, *, cancel_after=None, **knobs):
        """Run the job to its end; cancelled after so many messages where told."""
        system = find_system(REGISTRY, self.system)
        request = Request(self.system, self.frames, tuple(self.entries.values()), knobs)
        params = check_request(system, request)
        shelf = PictureShelf(self.spool, system, request, self.pictures, self.pool)
        said = []
        ctx = JobContext(
            "job",
            system.name,
            params.seed,
            "cpu",
            StageStore(self.spool.stages),
            said.append,
            lambda: cancel_after is not None and len(said) >= cancel_after,
        )
        made = {}
        for picture in system.run(SpoolShot(request, shelf), params, ctx):
            ctx.check_cancelled()
            assert (picture.layer, picture.frame) not in made
            made[picture.layer, picture.frame] = picture
        shelf.close()
        return Made(made, ctx, said)


@pytest.fixture(scope="session")
def decode_pool():
    pool = DecodePool(1)
    yield pool
    pool.close()


@pytest.fixture
def cancelled():
    return Cancelled


@pytest.fixture
def new_job(tmp_path, decode_pool):
    """Return a maker of jobs: ``new_job(spec_overrides, clean=True)`` -> (Job, ProceduralShot)."""

    def make(*, clean=True, half=True, **overrides):
        spec = ShotSpec(**{"width": 160, "height": 96, "frames": 3, "seed": 5, **overrides})
        shot = ProceduralShot(spec)
        kind = np.float16 if half else np.float32
        job = Job(tmp_path, decode_pool, shot.frames)
        for n in shot.frames:
            job.add("plate", n, shot.plate(n).astype(kind))
            for name in shot.names:
                job.add(f"matte.{name}", n, shot.matte(name, n))
            if clean:
                job.add("clean_plate", n, shot.clean_plate(n).astype(kind))
        return job, shot

    return make
