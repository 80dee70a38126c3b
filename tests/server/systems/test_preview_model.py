# SPDX-License-Identifier: Apache-2.0
"""The model that ships in its two systems: what it is given, and what of it is delivered.

Its network is here a function that a test writes, behind the real backbone, sampler and windows.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from gencomp_server.backbones import PREVIEW, spec_named
from gencomp_server.colour.modelrange import ModelRange
from gencomp_server.models.preview import PreviewBackbone
from gencomp_server.models.preview_network import picture
from gencomp_server.models.preview_words import VOCABULARY
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.pictures import to_model_range
from gencomp_server.parts.stack import stack_error


@dataclass
class Network:
    """In the place of the network: the base, with what a test makes of it.

    ``paint`` takes the conditions and returns a picture, [B,T,H,W,13] to [B,T,H,W,3]; what was
    given is kept.
    """

    paint: Any = None
    given: list = field(default_factory=list)
    words: list = field(default_factory=list)

    def __call__(self, noisy, conditions, words, timestep):
        self.given.append(conditions.clone())
        self.words.append(tuple(VOCABULARY[int(i)] for i in words[0] if i))
        if self.paint is None:
            return picture(conditions, "base")
        return self.paint(conditions)

    def channel(self, name, at=0):
        """Return a condition of a forward. [T,H,W,C]."""
        return picture(self.given[at], name)[0].numpy()


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def preview(network):
    """Return the preview as a backbone, its network the test's."""
    spec = replace(spec_named(PREVIEW), model_size=(160, 96))  # The size of the plates here.
    return PreviewBackbone(spec, network, identity="preview of a test", device=torch.device("cpu"))


@pytest.fixture
def job_of(new_job, preview):
    """Return a maker of jobs whose backbone is the preview."""

    def make(**overrides):
        job, shot = new_job(clean=False, **overrides)
        job.backbone = preview
        return job, shot

    return make


def psnr(a, b, where):
    error = (np.asarray(a, np.float64)[where] - np.asarray(b, np.float64)[where]) ** 2
    return 10 * math.log10(1 / max(float(error.mean()), 1e-12))


def touched_of(shot, n, grow=31):
    """Return where figures and effects are, and a margin around. [H,W] bool."""
    alphas = [shot.layer(name, n)[..., 3] > 0.005 for name in shot.names]
    mattes = [shot.matte(name, n)[..., 0] > 0 for name in shot.names]
    there = np.any([*alphas, *mattes], axis=0).astype(np.uint8)
    return cv2.dilate(there, np.ones((grow, grow), np.uint8)) > 0


# --- removal -------------------------------------------------------------------------------------


def test_a_model_that_changes_nothing_leaves_what_was_gathered_and_else_the_plate(job_of):
    job, shot = job_of()
    made = job.run()
    job.backbone = None
    gathered = job.run()
    for n, clean in made.layer("clean").items():
        own = job.sent["plate", n]
        away = ~touched_of(shot, n)
        assert away.any()
        assert np.array_equal(clean[away][:, :3], own[away])
        inside = np.max([shot.matte(name, n) for name in shot.names], axis=0)[..., 0] == 1
        assert inside.any()
        behind = gathered.layer("clean")[n]
        # Both are gathered alike; what is noise to either solver is the plate's own sample.
        assert psnr(clean[..., :3], behind[..., :3], inside) > 30
    assert made.ctx.figures["clean_plate_from"] == "model"
    assert gathered.ctx.figures["clean_plate_from"] == "temporal"


def truth_at(shot, size):
    """Return the clean plate as the model would see it. [1,T,h,w,3] tensor."""
    light = [to_model_frame(shot.clean_plate(n), size) for n in shot.frames]
    return torch.from_numpy(to_model_range(np.stack(light), ModelRange()))[None]


def test_what_the_model_takes_off_beside_the_objects_is_taken_off_the_plates_own_samples(
    job_of, network
):
    job, shot = job_of()
    network.paint = lambda conditions: truth_at(shot, (conditions.shape[3], conditions.shape[2]))
    made = job.run()
    won = []
    for n, clean in made.layer("clean").items():
        plate, truth = job.sent["plate", n].astype(np.float32), shot.clean_plate(n)
        inside = np.max([shot.matte(name, n) for name in shot.names], axis=0)[..., 0] > 0
        effect = (np.abs(plate - truth).max(axis=2) > 0.01) & ~inside
        assert effect.sum() > 100
        won.append(psnr(clean[..., :3], truth, effect) - psnr(plate, truth, effect))
    assert min(won) > 10


def test_a_shadow_that_no_frame_is_without_is_left_to_the_model(job_of, network):
    job, shot = job_of(speed=0.0, objects=1)
    network.paint = lambda conditions: truth_at(shot, (conditions.shape[3], conditions.shape[2]))
    made = job.run()
    job.backbone = None
    alone = job.run()
    won = []
    for n, clean in made.layer("clean").items():
        truth, plate = shot.clean_plate(n), job.sent["plate", n].astype(np.float32)
        inside = shot.matte(shot.names[0], n)[..., 0] > 0
        effect = (np.abs(plate - truth).max(axis=2) > 0.01) & ~inside
        found, gathered = clean[..., :3], alone.layer("clean")[n][..., :3]
        won.append(psnr(found, truth, effect) - psnr(gathered, truth, effect))
    assert min(won) > 3


def test_layers_over_one_another_are_the_plate_bit_for_bit(job_of, network):
    job, shot = job_of()
    network.paint = lambda conditions: truth_at(shot, (conditions.shape[3], conditions.shape[2]))
    made = job.run()
    for n in shot.frames:
        fronts = [made.layer(name)[n] for name in shot.names]
        error = stack_error(job.sent["plate", n], made.layer("background")[n], fronts)
        assert (error.max_ulp <= 1, error.beyond, error.differing) == (True, 0, 0)


def test_the_model_is_given_a_plate_whose_objects_are_gathered_and_told_where_they_are(
    job_of, network
):
    job, _ = job_of()
    job.run()
    plate, base, gathered = (network.channel(name) for name in ("plate", "base", "gathered"))
    remove, subject = network.channel("remove"), network.channel("subject")
    assert network.words == [("remove",)]
    assert set(np.unique(remove)) == {0, 1}
    assert (remove[subject > 0.1] == 1).all()
    inside, away = (subject == 1)[..., 0], np.broadcast_to(remove == 0, remove.shape)[..., 0]
    assert inside.any()
    assert np.allclose(base[inside], gathered[inside], atol=2e-3)
    far = away & (np.abs(base - plate).max(axis=-1) == 0)
    assert far.sum() > 0.9 * away.sum()
    assert (network.channel("keep") == 0).all()
    assert 0.5 < network.channel("seen").mean() <= 1


def test_a_roto_of_effects_is_asked_to_go_and_keep_stays_the_plate_bit_for_bit(job_of, network):
    job, shot = job_of()
    frames = tuple(shot.frames)
    roto, stays = np.zeros((2, 96, 160, 1), np.float16)
    roto[70:90, 100:150] = 1
    stays[0:40] = 1
    for n in frames:
        job.add(f"effects.{shot.names[0]}", n, roto)
        job.add("keep", n, stays)
    network.paint = lambda conditions: torch.full_like(picture(conditions, "base"), 0.9)
    made = job.run()
    remove, keep = network.channel("remove"), network.channel("keep")
    assert (remove[:, 72:88, 102:148] == 1).all()
    assert (keep[:, :39] == 1).all()
    assert (remove[keep == 1] == 0).all()
    for n, clean in made.layer("clean").items():
        own = job.sent["plate", n]
        assert np.array_equal(clean[:40, :, :3], own[:40])
        assert not np.array_equal(clean[60:, :, :3], own[60:])


def test_a_drawn_trimask_says_what_goes_and_its_white_stays_the_plate(job_of, network):
    job, shot = job_of()
    drawn = np.full((96, 160, 1), 0.5, np.float16)
    drawn[:48], drawn[60:80, 40:80] = 1, 0
    for n in shot.frames:
        job.add("trimask", n, drawn)
    network.paint = lambda conditions: torch.full_like(picture(conditions, "base"), 0.9)
    made = job.run()
    assert (network.channel("keep")[:, :48] == 1).all()
    assert (network.channel("remove")[:, 60:80, 40:80] == 1).all()
    assert network.channel("remove").mean() == pytest.approx(20 * 40 / (96 * 160), rel=1e-5)
    for n, clean in made.layer("clean").items():
        own = job.sent["plate", n]
        bare = ~touched_of(shot, n, grow=5)
        bare[48:] = False
        assert bare.sum() > 1000
        assert np.array_equal(clean[bare][:, :3], own[bare])
        assert not np.array_equal(clean[60:80, 40:80, :3], own[60:80, 40:80])


def test_a_clip_longer_than_a_window_is_seen_in_windows_that_agree(job_of, network):
    job, _ = job_of(frames=12)
    job.run()
    assert [one.shape[1] for one in network.given] == [9, 9]
    assert np.array_equal(network.channel("plate")[3:], network.channel("plate", 1)[:6])


def test_origin_sums_to_one_and_is_the_plates_where_the_plate_is_bit_for_bit(job_of, network):
    job, shot = job_of()
    network.paint = lambda conditions: truth_at(shot, (conditions.shape[3], conditions.shape[2]))
    made = job.run(origin=True, grain="match")
    for n, origin in made.layer("origin").items():
        own, clean = job.sent["plate", n], made.layer("clean")[n][..., :3]
        assert (origin[..., :4].sum(axis=2) == 1).all()
        assert np.array_equal(origin[..., 0] == 1, (clean == own).all(axis=2))
        inside = np.max([shot.matte(name, n) for name in shot.names], axis=0)[..., 0] == 1
        assert origin[inside][:, 2:4].sum(axis=1).mean() > 0.9


def test_solos_are_left_to_the_shares_of_one_alpha(job_of, network):
    job, _ = job_of(objects=2)
    made = job.run()
    assert len(network.given) == 1
    assert made.ctx.figures["passes"] == ["clean plate"]
    assert made.ctx.figures["solos_from"] == {}
    assert all(count == [] for count in made.ctx.figures["completed_frames"].values())


# --- effects -------------------------------------------------------------------------------------


def darkened(conditions):
    base, remove = picture(conditions, "base"), picture(conditions, "remove")
    return base - 0.4 * remove * (base + 1)


def test_an_effect_is_delivered_inside_its_mask_and_all_else_is_the_plate(job_of, network):
    job, _ = job_of(system="overplusplus")
    network.paint = darkened
    made = job.run(prompt="soft shadow", mask_grow=0)
    for n, result in made.layer("result").items():
        own, mask = job.sent["plate", n], job.sent["effect_mask", n][..., 0]
        bare = mask < 0.5
        assert np.array_equal(result[bare][:, :3], own[bare])
        inside = mask == 1
        share = result[inside][:, :3].astype(np.float32).sum() / own[inside].astype(float).sum()
        assert 0.2 < share < 0.9
    asked, away = sorted(set(network.words), key=len, reverse=True)
    assert (asked, away) == (("add", "soft", "shadow"), ("add",))


def test_what_it_may_grow_beyond_a_mask_is_meant_for_large_pixels(job_of):
    job, _ = job_of(system="overplusplus")
    made = job.run(prompt="soft shadow")
    assert "grown by 3 model pixels" in made.ctx.figures["bounds"]


def test_a_frame_without_a_mask_is_unknown_to_the_model(job_of, network):
    job, shot = job_of(system="overplusplus")
    first = shot.frames.first
    knobs = {"mask_frames": "keyframes only", "keyframes": str(first)}
    job.run(prompt="shadow", **knobs, unknown_bound="whole frame")
    remove, keep = network.channel("remove"), network.channel("keep")
    assert remove[0].any()
    assert (remove[0] + keep[0] == 1).all()
    assert not remove[1:].any()
    assert not keep[1:].any()
    assert (network.channel("subject") == 0).all()


def test_between_keyframes_the_effect_is_asked_for_where_the_mask_is_interpolated(job_of, network):
    job, shot = job_of(system="overplusplus")
    keys = f"{shot.frames.first},{shot.frames.last}"
    network.paint = darkened
    made = job.run(prompt="shadow", mask_frames="keyframes only", keyframes=keys)
    remove, keep = network.channel("remove"), network.channel("keep")
    middle = shot.frames.first + 1
    roto = job.sent["effect_mask", middle][..., 0] > 0.5
    assert remove[1].any()
    assert (remove[1] + keep[1] == 1).all()
    overlap = (remove[1, ..., 0] > 0) & roto
    assert overlap.sum() > 0.6 * roto.sum()
    changed = (made.layer("result")[middle][..., :3] != job.sent["plate", middle]).any(axis=2)
    assert changed.sum() > 0.5 * roto.sum()


def test_the_alpha_of_a_foreground_tells_where_the_subject_is(job_of, network):
    job, shot = job_of(system="overplusplus")
    job.remove("plate")
    for n in shot.frames:
        job.add("bg", n, shot.clean_plate(n).astype(np.float16))
        job.add("fg", n, shot.object_layer(shot.names[0], n).astype(np.float16))
    network.paint = darkened
    job.run(prompt="shadow")
    alpha = np.stack([job.sent["fg", n][..., 3:] for n in shot.frames]).astype(np.float32)
    assert network.channel("subject").shape == alpha.shape
    assert np.allclose(network.channel("subject"), alpha, atol=2e-3)


def test_words_that_the_model_does_not_know_are_named(job_of):
    job, _ = job_of(system="overplusplus")
    made = job.run(prompt="a soft baroque shadow")
    assert "Not among the words of preview: baroque." in made.ctx.warnings
    assert made.ctx.figures["caption"] == "add soft shadow"
    silent = job.run(prompt="baroque")
    assert "Of the prompt preview reads nothing." in silent.ctx.warnings


def test_one_step_unless_few_are_asked_for(job_of, network):
    job, _ = job_of(system="overplusplus")
    job.run(prompt="shadow", guidance=1)
    assert len(network.given) == 1
    job.run(prompt="shadow", guidance=1, steps=4)
    assert len(network.given) == 5
