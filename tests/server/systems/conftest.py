# SPDX-License-Identifier: Apache-2.0
"""Jobs of real systems on tiny procedural shots, run in this process through the real stages.

``tiny`` is the real classes at small size; a :class:`Painter` is no model at all, but paints what a
test wants to be painted, through the real sampler and windows. A model pads every shot to its
window, 85 frames of most: where windows are not what a test is about, it sees fewer at once.
"""

import copy
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gencomp_protocol.errors import Cancelled
from gencomp_protocol.frames import Box, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.backbones import TINY, choose, spec_named
from gencomp_server.contract import LayerFrame, Machine, check_request, find_system
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
    """What a run delivered: pictures by (layer, frame) in order, its context, its messages.

    ``forwards`` are those that the backbone computed meanwhile.
    """

    pictures: dict
    ctx: JobContext
    said: list
    forwards: int = 0

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
    backbone: Any = None
    working_space: str = "scene_linear"

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

    def request(self, **knobs):
        """Return what is asked, without running it."""
        entries, space = tuple(self.entries.values()), self.working_space
        return Request(self.system, self.frames, entries, knobs, working_space=space)

    def context(self, seed=0, say=lambda message: None, is_cancelled=lambda: False):
        """Return a context as a run of this job gets it."""
        store = StageStore(self.spool.stages)
        ctx = JobContext("job", self.system, seed, "cpu", store, say, is_cancelled)
        ctx.backbone = self.backbone
        return ctx

    def run(self, *, cancel_after=None, cancel_when=None, **knobs):
        """Run the job to its end; cancelled after so many messages, or on one, where told."""
        system = find_system(REGISTRY, self.system)
        request = self.request(**knobs)
        params = check_request(system, request)
        shelf = PictureShelf(self.spool, system, request, self.pictures, self.pool)
        said = []

        def is_cancelled():
            if cancel_when is not None and any(cancel_when(one) for one in said):
                return True
            return cancel_after is not None and len(said) >= cancel_after

        ctx = self.context(params.seed, said.append, is_cancelled)
        before = 0 if self.backbone is None else self.backbone.forwards
        made = {}
        for picture in system.run(SpoolShot(request, shelf), params, ctx):
            ctx.check_cancelled()
            assert (picture.layer, picture.frame) not in made
            made[picture.layer, picture.frame] = picture
        shelf.close()
        after = 0 if self.backbone is None else self.backbone.forwards
        return Made(made, ctx, said, after - before)


# --- backbones -----------------------------------------------------------------------------------

# Six latent frames: as even as 85 frames are, and more than two windows share.
SHORT_WINDOW = 21


def seeing_less(spec, window=SHORT_WINDOW):
    """Return a backbone's facts with a window no longer than that, in frames."""
    return replace(spec, window_frames=min(spec.window_frames, window))


class _Last:
    """A schedule whose step takes the prediction for the latents."""

    def __init__(self, steps):
        self.timesteps = tuple(range(steps, 0, -1))

    def step(self, prediction, index, latents):
        return prediction


@dataclass
class Painter:
    """A backbone that gives the plate back, with ``paint`` added to its latents.

    Its VAE keeps the mean of 8x8 pixels of every fourth frame. ``paint`` takes the plate's latents
    and the trimask's classes at latent size, [1,T',3,h,w] and [T',h,w], and returns what is added;
    of a model of layers it takes those by name and returns the picture. ``of`` names the backbone
    whose facts it has; its window is no longer than ``window`` frames.
    """

    paint: Callable[[Any, Any], Any] | None = None
    identity: str = "painter"
    forwards: int = 0
    batch: int = 1
    encoded: int = 0
    prompts: list = field(default_factory=list)
    pixel_noise: float = 0.0
    of: str = TINY
    window: int = SHORT_WINDOW

    def __post_init__(self):
        few = replace(spec_named(self.of).architecture, latent_channels=3)
        seen = seeing_less(spec_named(self.of), self.window)
        self.spec = replace(seen, pixel_noise=self.pixel_noise, architecture=few)
        self.trimask = None

    @property
    def encode_identity(self):
        return self.identity

    @property
    def vae_identity(self):
        return self.identity

    @property
    def device(self):
        import torch

        return torch.device("cpu")

    def encode(self, video, progress=None):
        import torch

        self.encoded += 1
        length, height, width, _ = video.shape
        assert (length - 1) % 4 == 0
        shape = ((length + 3) // 4, height // 8, 8, width // 8, 8, 3)
        means = np.asarray(video)[::4].reshape(shape).mean(axis=(2, 4))
        return torch.from_numpy(means.astype(np.float32)).permute(0, 3, 1, 2)[None]

    def decode(self, latents, progress=None):
        frames = latents[0].permute(0, 2, 3, 1).numpy()
        wide = frames.repeat(8, axis=1).repeat(8, axis=2)
        return np.concatenate([wide[:1], wide[1:].repeat(4, axis=0)])

    def text(self, prompt):
        import torch

        self.prompts.append(prompt)
        return torch.full((1, 2, 4), float(len(prompt)))

    def count_text_tokens(self, prompt):
        return len(prompt.split()) + 1

    def condition(self, plate_latents, trimask):
        self.trimask = np.array(trimask)
        if self.paint is None:
            return plate_latents
        classes = self.trimask[::4, 4::8, 4::8, 0]
        return plate_latents + self.paint(plate_latents, classes)

    def join(self, layers):
        """Of a model of layers: what ``paint`` makes of them; without it the last of them."""
        self.layers = {name: one.clone() for name, one in layers.items()}
        return layers[self.spec.layers[-1]] if self.paint is None else self.paint(layers)

    def predict(self, latents, timestep, text, condition):
        self.forwards += len(latents)
        return condition

    def schedule(self, steps):
        return _Last(steps)


@pytest.fixture
def painter():
    """Return the class of backbones that paint what a test says."""
    return Painter


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return the backbone ``tiny``, loaded once for all tests."""
    from gencomp_server.models import load
    from gencomp_server.models.loading import LoadSettings

    log = logging.getLogger("tests.tiny")
    cache = tmp_path_factory.mktemp("embeddings")
    return load(spec_named(TINY), None, settings=LoadSettings(), cache=cache, log=log)


@pytest.fixture
def brief_tiny(tiny):
    """Return ``tiny`` with a short window."""
    return shortened(tiny)


def shortened(backbone):
    """Return a backbone that shares its weights and sees fewer frames at once."""
    made = copy.copy(backbone)
    made.spec = seeing_less(backbone.spec)
    return made


@pytest.fixture(scope="session")
def brief_tiny_of(tiny_of):
    """Return a function: a system, to the tiny backbone that serves it, with a short window."""
    return lambda system: shortened(tiny_of(system))


@pytest.fixture(scope="session")
def tiny_of(tiny, tmp_path_factory):
    """Return a function: a system, to the tiny backbone that serves it, loaded once."""
    from gencomp_server.models import load
    from gencomp_server.models.loading import LoadSettings

    made = {TINY: tiny}

    def find(system):
        spec = choose(system, system.params(backbone=TINY), Machine())
        if spec.name not in made:
            cache = tmp_path_factory.mktemp("embeddings")
            log = logging.getLogger("tests.tiny")
            made[spec.name] = load(spec, None, settings=LoadSettings(), cache=cache, log=log)
        return made[spec.name]

    return find


# --- jobs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def decode_pool():
    pool = DecodePool(1)
    yield pool
    pool.close()


@pytest.fixture
def cancelled():
    return Cancelled


@pytest.fixture(scope="session")
def new_job_in(decode_pool):
    """Return a maker of jobs in a folder: ``new_job_in(folder, ...)``; see ``new_job``."""

    def make(folder, *, clean=True, half=True, system="omnimatte", **overrides):
        spec = ShotSpec(**{"width": 160, "height": 96, "frames": 3, "seed": 5, **overrides})
        shot = ProceduralShot(spec)
        kind = np.float16 if half else np.float32
        job = Job(folder, decode_pool, shot.frames, system=system)
        fill = {"gencomposite": add_element, "splitthenmerge": add_layers, "dynvfx": add_plate}
        for at, n in enumerate(shot.frames):
            if system in fill:
                fill[system](job, shot, n, at, kind)
                continue
            if system == "overplusplus":
                job.add("plate", n, over_composite(shot, n).astype(kind))
                job.add("effect_mask", n, effect_roto(shot, n))
                continue
            job.add("plate", n, shot.plate(n).astype(kind))
            for name in shot.names:
                job.add(f"matte.{name}", n, shot.matte(name, n))
            if clean:
                job.add("clean_plate", n, shot.clean_plate(n).astype(kind))
        return job, shot

    return make


@pytest.fixture
def new_job(tmp_path, new_job_in):
    """Return a maker of jobs: ``new_job(spec_overrides, clean=True)`` -> (Job, ProceduralShot).

    ``system="overplusplus"`` gives the figures without their effects as plate, and a roto of where
    the effects belong.
    """
    return partial(new_job_in, tmp_path)


def add_element(job, shot, n, at, kind):
    """Add a clean plate as bg, and as fg a figure in a smaller picture and a time of its own."""
    job.add("bg", n, shot.clean_plate(n).astype(kind))
    figure = shot.object_layer(shot.names[0], n)[16:80, 32:128]
    job.add("fg", 1 + at, figure.astype(kind))


def add_layers(job, shot, n, at, kind):
    """Add a clean plate as bg and a figure of the same size, premultiplied, as fg."""
    job.add("bg", n, shot.clean_plate(n).astype(kind))
    job.add("fg", n, shot.object_layer(shot.names[0], n).astype(kind))


def add_plate(job, shot, n, at, kind):
    """Add a plate alone."""
    job.add("plate", n, shot.plate(n).astype(kind))


def over_composite(shot, n):
    """Return the figures over the clean plate, without what they do to it. [H,W,3] float32."""
    picture = shot.clean_plate(n)
    for name in reversed(shot.names):
        own = shot.object_layer(name, n)
        picture = own[..., :3] + picture * (1 - own[..., 3:])
    return picture


def effect_roto(shot, n):
    """Return where the figures' effects are, as a roto would be drawn. [H,W,1] float16."""
    covered = np.zeros((*shot.clean_plate(n).shape[:2], 1), bool)
    for name in shot.names:
        covered |= shot.layer(name, n)[..., 3:] > 0.02
    return covered.astype(np.float16)
