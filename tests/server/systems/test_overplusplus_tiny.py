# SPDX-License-Identifier: Apache-2.0
"""Over++ on the real classes at small size: windows, forwards, checkpoints."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from gencomp_protocol.frames import Format, FrameRange
from gencomp_server.backbones import TINY
from gencomp_server.contract import Machine
from gencomp_server.parts.denoising import encode_clean, sample
from gencomp_server.systems.overplusplus import SYSTEM

QUICK = {"backbone": TINY, "steps": 2, "model_size": "48x32"}


@pytest.fixture
def job(new_job, brief_tiny):
    made, _ = new_job(system="overplusplus", frames=2)
    made.backbone = brief_tiny
    return made


def stretched(job, frames):
    """Return the job with its two frames shown in turn, so that few pictures are written."""
    job.frames = FrameRange(1001, 1000 + frames)
    for name, entry in job.entries.items():
        own = [job.pictures[name][n] for n in (1001, 1002)]
        job.pictures[name] = {n: own[n % 2] for n in job.frames}
        job.entries[name] = replace(entry, frames=tuple(job.frames), format=Format(160, 96))
    return job


@pytest.mark.parametrize("mode", ["every frame", "keyframes only", "no mask"])
def test_when_tiny_paints_then_where_it_may_not_not_one_bit_changes(job, mode):
    keep = np.zeros((96, 160, 1), np.float16)
    keep[60:] = 1
    job.add("keep", 1001, keep, cover="still")
    keyframes = "1001" if mode == "keyframes only" else ""
    made = job.run(**QUICK, guidance=1.0, mask_frames=mode, keyframes=keyframes)
    for n in job.frames:
        result, plate = made.layer("result")[n][..., :3], job.sent["plate", n]
        assert result[60:].tobytes() == plate[60:].tobytes()
        assert not np.array_equal(result, plate)


@pytest.mark.parametrize(
    ("frames", "windows", "guidance", "forwards"),
    [
        (2, 1, 1.0, 2),
        (2, 1, 6.0, 4),
        pytest.param(100, 2, 6.0, 8, marks=pytest.mark.slow),
    ],
)
def test_when_a_job_runs_then_all_frames_come_from_as_many_forwards_as_planned(
    job, tiny, frames, windows, guidance, forwards
):
    knobs = {**QUICK, "guidance": guidance}
    job = stretched(job, frames)
    job.backbone = tiny
    planned = SYSTEM.plan(job.request(**knobs), Machine())
    made = job.run(**knobs)
    assert list(made.layer("result")) == list(job.frames)
    assert made.ctx.figures["windows"] == windows
    assert made.ctx.figures["forwards"] == forwards
    assert (made.forwards, planned.forwards, planned.backbone) == (forwards, forwards, TINY)
    assert planned.bytes_in == frames * 160 * 96 * 2 * 4
    assert planned.bytes_out == frames * 160 * 96 * 2 * 13


def test_when_sampling_breaks_off_then_it_goes_on_and_gives_the_same_bits(job, cancelled):
    before = job.backbone.forwards
    with pytest.raises(cancelled):
        job.run(**QUICK, guidance=1.0, cancel_when=lambda _: job.backbone.forwards > before)
    assert job.backbone.forwards == before + 1
    resumed = job.run(**QUICK, guidance=1.0)
    shutil.rmtree(job.spool.stages)
    job.spool.stages.mkdir()
    whole = job.run(**QUICK, guidance=1.0)
    assert (resumed.forwards, whole.forwards) == (1, 2)
    for place, picture in whole.pictures.items():
        assert picture.pixels.tobytes() == resumed.pictures[place].pixels.tobytes()


def test_when_one_window_or_three_are_run_then_what_only_the_first_sees_is_the_same(job, tiny):
    job.backbone = tiny
    rng = np.random.default_rng(4)
    video = rng.uniform(-1, 1, (229, 32, 32, 3)).astype(np.float32)
    trimask = rng.integers(0, 3, (229, 32, 32, 1)).astype(np.uint8)
    text = job.backbone.text("wake").numpy()
    ctx = job.context()

    def latents(frames):
        plate = ctx.stage("encode", encode_clean, video[:frames], backbone="tiny")
        classes = trimask[:frames]
        knobs = {"backbone": "tiny", "steps": 1, "guidance": 1.0, "rescale": 0.0}
        return ctx.stage("sample", sample, (plate,), (classes,), (text, None), **knobs)[0]

    one, three = latents(85), latents(229)
    assert (one.shape[1], three.shape[1]) == (22, 58)
    assert one[:, :18].tobytes() == three[:, :18].tobytes()
    assert one[:, 18:].tobytes() != three[:, 18:22].tobytes()


def test_when_the_seed_changes_then_the_effect_does(job):
    one, other = (job.run(**QUICK, guidance=1.0, seed=seed) for seed in (1, 2))
    assert one.layer("effect")[1001].tobytes() != other.layer("effect")[1001].tobytes()
