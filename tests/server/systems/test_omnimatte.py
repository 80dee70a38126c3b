# SPDX-License-Identifier: Apache-2.0
"""Omnimatte as a whole: what a compositor gets for tiny shots whose layers are known."""

import cv2
import numpy as np
import pytest

from gencomp_protocol.frames import Box, FrameRange
from gencomp_server.parts.stack import stack_error
from gencomp_server.training.shots import ProceduralShot, ShotSpec

# A tiny figure is a handful of pixels wide; the full-size figures are in the benchmark.
TINY_ALPHA_ERROR = 0.06


def error_of(made, job, n, order=("a",), residual=None):
    layers = made.layer
    return stack_error(
        job.sent["plate", n],
        layers("background")[n],
        [layers(name)[n] for name in order],
        None if residual is None else layers(residual)[n],
    )


def changed_error(layer, truth):
    """Mean absolute alpha error over the pixels that the true layer covers."""
    covered = truth[..., 3] > 0.02
    return float(np.abs(layer[..., 3].astype(np.float32) - truth[..., 3])[covered].mean())


def test_when_the_clean_plate_is_exact_then_alpha_is_near_the_truth_and_zero_outside(new_job):
    job, shot = new_job(width=320, height=192, frames=2)
    made = job.run()
    for n in job.frames:
        layer, truth = made.layer("a")[n], shot.layer("a", n)
        assert changed_error(layer, truth) < TINY_ALPHA_ERROR
        assert not layer[(truth == 0).all(axis=2)].any()


@pytest.mark.parametrize("half", [True, False], ids=["half", "float"])
def test_when_layers_are_stacked_then_they_are_the_plate_in_its_own_type(new_job, half):
    job, _ = new_job(objects=2, frames=2, half=half)
    made = job.run()
    for n in job.frames:
        error = error_of(made, job, n, ("a", "b"))
        assert (error.max_ulp <= 1, error.beyond, error.differing) == (True, 0, 0)
        assert error.covered > 100
        assert made.layer("a")[n].dtype == job.sent["plate", n].dtype


def test_when_the_residual_is_a_layer_then_adding_it_gives_the_plate(new_job):
    job, _ = new_job(frames=1)
    made = job.run(residual="layer")
    error = error_of(made, job, 1001, residual="residual")
    assert (error.max_ulp <= 1, error.beyond, error.differing) == (True, 0, 0)
    assert not made.layer("residual")[1001][..., 3].any()


@pytest.mark.fault("F08")
def test_when_the_plate_has_nan_and_infinity_then_its_samples_survive_where_nothing_covers(new_job):
    job, shot = new_job(frames=1)
    plate = shot.plate(1001).astype(np.float16)
    plate[2, 3, 0], plate[4, 150, 1], plate[5, 5, 2] = np.nan, np.inf, -0.0
    clean = shot.clean_plate(1001)
    clean[5, 5, 2] = 0.0
    job.add("plate", 1001, plate)
    job.add("clean_plate", 1001, clean)
    made = job.run()
    background = made.layer("background")[1001]
    assert background[2:6, 3:151, :3].tobytes() == plate[2:6, 3:151].tobytes()
    assert np.isfinite(made.layer("a")[1001]).all()


def test_when_the_plate_has_overscan_then_layers_have_its_windows_and_the_rim_is_kept(new_job):
    job, shot = new_job(frames=1)
    display, data = Box(0, 0, 159, 95), Box(-8, -4, 167, 99)
    wide = np.full((104, 176, 3), 0.125, np.float16)
    wide[4:100, 8:168] = shot.plate(1001)
    job.add("plate", 1001, wide, display_window=display, data_window=data)
    made = job.run()
    picture = made.pictures["background", 1001]
    assert (picture.display_window, picture.data_window) == (display, data)
    assert (picture.pixels[:4] == np.array([0.125, 0.125, 0.125, 1.0], np.float16)).all()
    assert not made.layer("a")[1001][:, :8].any()
    assert made.layer("a")[1001].any()


def test_when_the_data_window_is_smaller_then_layers_are_no_larger(new_job):
    job, shot = new_job(frames=1)
    display, data = Box(0, 0, 159, 95), Box(10, 6, 149, 89)
    cut = shot.plate(1001)[6:90, 10:150].astype(np.float16)
    job.add("plate", 1001, cut, display_window=display, data_window=data)
    made = job.run()
    assert made.layer("a")[1001].shape == (84, 140, 4)
    error = error_of(made, job, 1001)
    assert (error.beyond, error.differing) == (0, 0)


@pytest.mark.parametrize("frames", [1, 2])
def test_when_a_shot_is_one_or_two_frames_long_then_layers_come(new_job, frames):
    job, _ = new_job(frames=frames, clean=False)
    made = job.run()
    assert len(made.layer("background")) == frames
    for n in job.frames:
        assert error_of(made, job, n).beyond == 0
    assert any("never seen" in one["sentence"] for one in made.said if one["is"] == "warning")


def test_when_keep_protects_a_half_then_no_layer_reaches_into_it(new_job):
    job, _ = new_job(frames=1)
    keep = np.zeros((96, 160, 1), np.float16)
    keep[:48] = 1
    job.add("keep", 1001, keep, cover="still")
    made = job.run()
    assert not made.layer("a")[1001][:48].any()
    assert made.layer("a")[1001][48:].any()


def test_when_a_roto_names_an_effect_then_it_goes_to_that_object(new_job):
    job, shot = new_job(objects=2, frames=1)
    effect = (shot.layer("b", 1001)[..., 3:] > 0.02) & (shot.object_layer("b", 1001)[..., 3:] == 0)
    effect &= shot.layer("a", 1001)[..., 3:] == 0
    job.add("effects.a", 1001, effect.astype(np.float16))
    made = job.run()
    inside = effect[..., 0]
    taken, left = made.layer("a")[1001][inside, 3].sum(), made.layer("b")[1001][inside, 3].sum()
    assert taken > 0
    assert left < 0.05 * taken


def test_when_the_order_turns_then_the_other_object_is_in_front(new_job):
    job, _ = new_job(objects=2, frames=1)
    block = np.zeros((96, 160, 1), np.float16)
    block[40:60, 60:90] = 1
    job.add("matte.a", 1001, block)
    job.add("matte.b", 1001, block)
    plate = job.sent["plate", 1001].copy()
    plate[40:60, 60:90] = 0.9
    job.add("plate", 1001, plate)
    middle = (slice(46, 54), slice(66, 84))
    for order, front, behind in (("a,b", "a", "b"), ("b,a", "b", "a")):
        made = job.run(order=order)
        assert (made.layer(front)[1001][middle][..., 3] == 1).mean() > 0.9
        assert not made.layer(behind)[1001][middle].any()
        assert made.ctx.figures["hidden_frames"] == {front: [], behind: [1001]}


def test_when_solos_are_given_then_each_object_is_solved_against_its_own(new_job):
    job, shot = new_job(width=320, height=192, objects=2, frames=1)
    for name in shot.names:
        job.add(f"solo.{name}", 1001, shot.solo(name, 1001))
    made = job.run()
    for name in shot.names:
        error = changed_error(made.layer(name)[1001], shot.layer(name, 1001))
        assert error < TINY_ALPHA_ERROR, name
    error = error_of(made, job, 1001, ("a", "b"))
    assert (error.beyond, error.differing) == (0, 0)


# The figures cross: b walks behind a, and the roto of b ends where a hides it.
CROSSING = 1027
# Of the hidden part, whose true alpha is 0.64 in the mean; without solos it is lost altogether.
HIDDEN_ALPHA_ERROR, HIDDEN_COLOUR_ERROR = 0.13, 0.035


@pytest.fixture
def crossing(tmp_path, decode_pool, new_job):
    """Return a job of the frame on which one figure hides a part of the other, and its shot."""
    spec = ShotSpec(width=320, height=192, frames=CROSSING - 1000, objects=2, seed=5)
    shot, n = ProceduralShot(spec), CROSSING
    job = type(new_job(frames=1)[0])(tmp_path, decode_pool, FrameRange(n, n))
    job.add("plate", n, shot.plate(n))
    job.add("clean_plate", n, shot.clean_plate(n))
    front = shot.matte("a", n)
    job.add("matte.a", n, front)
    job.add("matte.b", n, shot.matte("b", n) * (1 - front))
    return job, shot


def test_when_the_occluder_moves_away_then_what_it_hid_is_there(crossing):
    job, shot = crossing
    n = CROSSING
    for name in shot.names:
        job.add(f"solo.{name}", n, shot.solo(name, n))
    made = job.run(order="a,b")
    truth, layer = shot.layer("b", n), made.layer("b")[n].astype(np.float32)
    hidden = (shot.object_layer("a", n)[..., 3] > 0.98) & (truth[..., 3] > 0.02)
    assert hidden.sum() > 500
    miss = np.abs(layer - truth)[hidden]
    assert miss[:, 3].mean() < HIDDEN_ALPHA_ERROR
    assert miss[:, :3].mean() < HIDDEN_COLOUR_ERROR
    assert (made.layer("a")[n][hidden, 3] > 0.98).mean() > 0.75
    error = error_of(made, job, n, ("a", "b"))
    assert (error.max_ulp <= 1, error.beyond, error.differing) == (True, 0, 0)
    assert made.ctx.figures["completed_frames"] == {"a": [], "b": [n]}
    assert made.ctx.figures["hidden_frames"] == {"a": [], "b": []}


def test_when_nothing_tells_what_is_hidden_then_the_manifest_names_the_frame(crossing):
    job, shot = crossing
    made = job.run(order="a,b")
    solid = cv2.erode(shot.matte("a", CROSSING), np.ones((9, 9), np.uint8)) > 0
    assert not made.layer("b")[CROSSING][solid].any()
    assert made.ctx.figures["hidden_frames"] == {"a": [], "b": [CROSSING]}


@pytest.mark.slow
def test_when_a_clean_frame_is_painted_then_it_beats_what_was_guessed(new_job):
    job, shot = new_job(width=320, height=192, frames=3, clean=False, pan=[0.0, 0.0])
    n = 1002
    hidden = shot.layer("a", n)[..., 3] > 0.5
    truth = shot.clean_plate(n)

    def miss(made):
        return float(np.abs(made.layer("background")[n][..., :3] - truth)[hidden].mean())

    guessed = miss(job.run())
    job.add("clean_plate", n, truth, cover="stills")
    assert miss(job.run()) < 0.5 * guessed


def test_when_the_clean_plate_lies_a_pixel_off_then_registering_it_mends_that(new_job):
    job, shot = new_job(width=320, height=192, frames=1)
    job.add("clean_plate", 1001, np.roll(shot.clean_plate(1001), 1, axis=1))
    truth = shot.layer("a", 1001)
    outside = (truth == 0).all(axis=2)
    registered, left = job.run(), job.run(register_clean_plate=False)

    def spill(made):
        return float(made.layer("a")[1001][outside, 3].astype(np.float32).mean())

    assert spill(registered) < 0.25 * spill(left)
    assert changed_error(registered.layer("a")[1001], truth) < 0.1


def test_when_effects_are_split_then_object_over_effects_gives_the_plate_too(new_job):
    job, shot = new_job(width=320, height=192, objects=2, frames=1)
    made = job.run(split_effects=True)
    order = ("a_object", "a_effects", "b_object", "b_effects")
    error = error_of(made, job, 1001, order)
    assert (error.max_ulp <= 1, error.beyond, error.differing) == (True, 0, 0)
    away = shot.object_layer("a", 1001)[..., 3] == 0
    far = cv2.erode(away.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    body = made.layer("a_object")[1001][..., 3].astype(np.float32)
    assert body[far].sum() < 0.005 * body.sum()
    assert made.layer("a_effects")[1001][far, 3].astype(np.float32).sum() > 100
