# SPDX-License-Identifier: Apache-2.0
"""From a plate to its noise: what is computed and kept, how often, and that it can go on."""

import errno
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from gencomp_protocol.errors import Cancelled, DiskFull
from gencomp_server.backbones import spec_named
from gencomp_server.engine.context import JobContext
from gencomp_server.engine.stages import StageStore
from gencomp_server.parts.inversion import (
    Inverted,
    count_forwards,
    invert,
    inverted_from,
    way_there,
)
from gencomp_server.parts.schedule import DdimInversion, DdimSchedule, signal_levels
from gencomp_server.parts.windows import Window

SPEC = replace(spec_named("tiny-text-to-video"), window_frames=49, overlap_frames=16)
PLATE = np.random.default_rng(1).standard_normal((1, 13, 2, 2, 2)).astype(np.float32)
LONG_PLATE = np.random.default_rng(2).standard_normal((1, 22, 2, 2, 2)).astype(np.float32)
NO_WORDS = np.zeros((1, 2, 4), np.float32)
HALF = 2**-11
# Of latents of size 1: what the first step leaves out, and steps of a first-order method.
THERE_AND_BACK = 0.1


class Toy:
    """A model of one line. It counts, and breaks off where it is told to."""

    device, spec, batch, identity = torch.device("cpu"), SPEC, 1, "toy"

    def __init__(self, dies_at=math.inf):
        self.forwards, self.dies_at, self.asked = 0, dies_at, []

    def predict(self, latents, timestep, text, condition):
        if self.forwards >= self.dies_at:
            raise RuntimeError("the machine went down")
        self.forwards += 1
        self.asked.append((timestep, latents.shape[1], condition.shape[2]))
        return 0.3 * torch.cos(latents) + timestep / 5000


@pytest.fixture
def new_context(tmp_path):
    """Return a maker of contexts on one folder of stages."""

    def make(model, *, seed=0, is_cancelled=lambda: False):
        store = StageStore(tmp_path / "stages")
        ctx = JobContext("job", "dynvfx", seed, "cpu", store, lambda said: None, is_cancelled)
        ctx.backbone = model
        return ctx

    return make


def inversion(ctx, plate=PLATE, *, frames=49, steps=5, inversion_steps=25):
    return ctx.stage(
        "invert",
        invert,
        plate,
        NO_WORDS,
        seeded=False,
        backbone="toy",
        frames=frames,
        steps=steps,
        inversion_steps=inversion_steps,
    )


# --- what it computes ----------------------------------------------------------------------------


def test_where_the_model_says_nothing_the_plate_only_shrinks_by_what_the_levels_say():
    way, levels = DdimInversion((199, 599, 799)), signal_levels()
    found = inverted_from(
        torch.ones(1, 1, 1, 1, 1),
        0,
        way,
        (Window(0, 1),),
        lambda now, index, window: torch.zeros_like(now),
        lambda index, now: None,
    )
    angles = [math.acos(math.sqrt(levels[t])) for t in (199, 599, 799)]
    turned = math.cos(angles[1] - angles[0]) * math.cos(angles[2] - angles[1])
    assert float(found) == pytest.approx(math.cos(angles[0]) * turned, abs=1e-6)


def test_a_plate_that_is_inverted_and_sampled_with_the_same_words_comes_back():
    model, plate = Toy(), torch.from_numpy(PLATE)
    way, schedule = DdimInversion(way_there(250, 250)), DdimSchedule(250)
    latents = inverted_from(
        plate,
        0,
        way,
        (Window(0, 13),),
        lambda now, index, window: model.predict(now, way.timesteps[index], None, now[:, :, :0]),
        lambda index, now: None,
    )
    for index, timestep in enumerate(schedule.timesteps):
        predicted = model.predict(latents, timestep, None, latents[:, :, :0])
        latents = schedule.step(predicted, index, latents)
    assert float((latents - plate).abs().max()) < THERE_AND_BACK


def test_the_model_is_told_where_a_step_ends_and_is_given_nothing_beside_the_noise(new_context):
    model = Toy()
    inversion(new_context(model))
    assert model.asked[0] == (79, 13, 0)
    assert model.asked[-1] == (999, 13, 0)


def test_the_plate_is_kept_at_the_timesteps_of_sampling_in_half_precision(new_context):
    found = inversion(new_context(Toy()))
    assert found.timesteps == (199, 399, 599, 799, 999)
    assert (found.latents.shape, found.latents.dtype) == ((5, 13, 2, 2, 2), np.float16)


def test_what_is_kept_is_what_was_there_on_the_way(new_context):
    model, there = Toy(), {}
    way = DdimInversion(way_there(5, 25))
    inverted_from(
        torch.from_numpy(PLATE),
        0,
        way,
        (Window(0, 13),),
        lambda now, index, window: model.predict(now, way.timesteps[index], None, now[:, :, :0]),
        lambda index, now: there.update({way.timesteps[index]: now.numpy()}),
    )
    found = inversion(new_context(Toy()))
    for timestep in found.timesteps:
        np.testing.assert_allclose(found.at(timestep), there[timestep], rtol=HALF, atol=1e-6)


def test_a_level_that_was_not_kept_is_told():
    with pytest.raises(ValueError, match="nothing was kept at timestep 500"):
        Inverted((999,), np.zeros((1, 1, 1, 1, 1), np.float16)).at(500)


# --- how often -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "plate"), [(49, PLATE), (85, LONG_PLATE)])
def test_as_many_forwards_are_computed_as_were_announced(new_context, frames, plate):
    model = Toy()
    inversion(new_context(model), plate, frames=frames)
    assert model.forwards == count_forwards(SPEC, frames, steps=5, inversion_steps=25)


def test_a_second_edit_of_the_same_plate_computes_no_inversion_whatever_its_seed(new_context):
    first = inversion(new_context(Toy(), seed=1))
    model = Toy()
    again = inversion(new_context(model, seed=2))
    assert model.forwards == 0
    assert np.array_equal(first.latents, again.latents)


# --- windows, interruptions, full disks ----------------------------------------------------------


def test_beyond_a_window_every_frame_is_inverted_as_in_one_where_frames_do_not_see_each_other(
    new_context,
):
    model = Toy()
    found = inversion(new_context(model), LONG_PLATE, frames=85)
    assert {frames for _, frames, _ in model.asked} == {13}
    alone = inversion(new_context(Toy()), LONG_PLATE[:, 5:18])
    np.testing.assert_allclose(found.latents[:, 5:18], alone.latents, atol=4 * HALF)


def test_an_interrupted_inversion_goes_on_with_the_same_bits(new_context, tmp_path):
    with pytest.raises(RuntimeError, match="went down"):
        inversion(new_context(Toy(dies_at=10)))
    model = Toy()
    found = inversion(new_context(model))
    assert model.forwards == 24 - 10
    (tmp_path / "stages").rename(tmp_path / "before")
    unbroken = inversion(new_context(Toy()))
    assert np.array_equal(found.latents, unbroken.latents)


def test_a_cancelled_inversion_stops_before_its_next_forward(new_context):
    model = Toy()
    ctx = new_context(model, is_cancelled=lambda: model.forwards >= 3)
    with pytest.raises(Cancelled):
        inversion(ctx)
    assert model.forwards == 3


def test_a_disk_that_fills_up_while_latents_are_written_is_told_and_what_was_kept_is_used(
    new_context, monkeypatch
):
    model, real = Toy(), os.replace

    def replaced(source, target):
        if model.forwards >= 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(os, "replace", replaced)
    with pytest.raises(DiskFull, match="disk that holds the server's spool is full"):
        inversion(new_context(model))
    monkeypatch.undo()
    again = Toy()
    inversion(new_context(again))
    assert again.forwards == 24 - 11


def test_a_backbone_that_reuses_steps_reuses_none_of_an_inversion(new_context):
    class Reusing(Toy):
        reuses_steps = True

        def __init__(self):
            super().__init__()
            self.steps, self.released = [], 0

        def cache_scope(self, owner, step):
            self.steps.append(step)
            return torch.no_grad()

        def release(self):
            self.released += 1

    model = Reusing()
    inversion(new_context(model))
    assert 1 not in np.diff(model.steps)
    assert model.released == 1
