# SPDX-License-Identifier: Apache-2.0
"""What omnimatte hands over: the removal, its bounds, the order over time, grain and origin."""

import cv2
import numpy as np
import pytest

from gencomp_protocol.frames import Box
from gencomp_server.parts.stack import stack_error

HEIGHT, WIDTH = 96, 160


def covered(made, n, names=("a",)):
    """Return where some object has alpha. [H,W] bool."""
    return np.any([made.layer(name)[n][..., 3] > 0 for name in names], axis=0)


def over(patch, plate):
    """Put the patch on the plate in float32, rounded once."""
    front, back = patch.astype(np.float32), plate.astype(np.float32)
    return (front[..., :3] + back[..., :3] * (np.float32(1) - front[..., 3:])).astype(plate.dtype)


def exact(made, job, n, order):
    layers = [made.layer(name)[n] for name in order]
    error = stack_error(job.sent["plate", n], made.layer("background")[n], layers)
    return (error.max_ulp <= 1, error.beyond, error.differing) == (True, 0, 0)


# --- clean and patch -----------------------------------------------------------------------------


@pytest.mark.parametrize("half", [True, False], ids=["half", "float"])
def test_clean_is_the_plate_where_no_object_is_and_the_patch_over_the_plate_elsewhere(
    new_job, half
):
    job, shot = new_job(objects=2, frames=1, half=half)
    made = job.run()
    plate, clean = job.sent["plate", 1001], made.layer("clean")[1001]
    free = ~covered(made, 1001, shot.names)
    assert clean.dtype == plate.dtype
    assert clean[free][:, :3].tobytes() == plate[free].tobytes()
    assert (over(made.layer("patch")[1001], plate) == clean[..., :3]).all()
    assert not made.layer("patch")[1001][free].any()
    truth, solid = shot.clean_plate(1001), shot.object_layer("a", 1001)[..., 3] == 1
    assert np.abs(clean[solid][:, :3] - truth[solid]).max() < 0.002


def test_what_cannot_be_computed_and_what_lies_outside_the_frame_is_the_plates_in_clean(new_job):
    job, shot = new_job(frames=1)
    display, data = Box(0, 0, 159, 95), Box(-8, -4, 167, 99)
    wide = np.full((104, 176, 4), 0.125, np.float16)
    wide[4:100, 8:168, :3] = shot.plate(1001)
    wide[5, 9:12, 0], wide[6, 9, 3] = [np.nan, np.inf, -0.0], np.nan
    job.add("plate", 1001, wide, display_window=display, data_window=data)
    made = job.run()
    clean = made.layer("clean")[1001]
    free = ~covered(made, 1001)
    assert clean.shape == wide.shape
    assert clean[free].tobytes() == wide[free].tobytes()
    assert not made.layer("patch")[1001][:4].any()


# --- limit and protect ---------------------------------------------------------------------------


@pytest.fixture
def halves(new_job):
    """Return a job and a matte of its upper half."""
    job, _ = new_job(frames=1)
    upper = np.zeros((HEIGHT, WIDTH, 1), np.float16)
    upper[:48] = 1
    return job, upper


@pytest.mark.parametrize("name", ["protect", "limit", "keep"])
def test_outside_the_bounds_every_layer_is_empty_and_both_pictures_are_the_plate(halves, name):
    job, upper = halves
    job.add(name, 1001, 1 - upper if name == "limit" else upper, cover="still")
    made, plate = job.run(split_effects=True), job.sent["plate", 1001]
    for picture in ("background", "clean"):
        assert made.layer(picture)[1001][:48, :, :3].tobytes() == plate[:48].tobytes()
    for layer in ("a", "a_object", "a_effects", "patch"):
        assert not made.layer(layer)[1001][:48].any()
    assert made.layer("a")[1001][48:].any()
    assert exact(made, job, 1001, ("a",))


def test_a_limit_of_one_everywhere_changes_no_bit(halves):
    job, upper = halves
    free = job.run()
    job.add("limit", 1001, upper * 0 + 1, cover="still")
    job.add("protect", 1001, upper * 0, cover="still")
    bound = job.run()
    for place, picture in free.pictures.items():
        assert picture.pixels.tobytes() == bound.pictures[place].pixels.tobytes()


def test_a_soft_limit_fades_the_removal_out_without_a_hard_edge(new_job):
    job, _ = new_job(frames=1)
    block = np.zeros((HEIGHT, WIDTH, 1), np.float16)
    block[20:80, 20:140] = 1
    job.add("matte.a", 1001, block)
    job.add("clean_plate", 1001, np.full((HEIGHT, WIDTH, 3), 0.25, np.float16))
    plate = np.full((HEIGHT, WIDTH, 3), 0.25, np.float16)
    plate[20:80, 20:140] = 1.0
    job.add("plate", 1001, plate)
    ramp = np.zeros((HEIGHT, WIDTH, 1), np.float16)
    ramp[:] = np.clip((np.arange(WIDTH)[None, :, None] - 48) / 64, 0, 1)
    job.add("limit", 1001, ramp, cover="still")
    made = job.run(register_clean_plate=False)
    row = made.layer("clean")[1001][50, 40:120, 0].astype(np.float32)
    assert row[0] == 1.0
    assert row[-1] == pytest.approx(0.25, abs=0.002)
    assert np.abs(np.diff(row)).max() < 0.03
    assert exact(made, job, 1001, ("a",))


def test_the_model_is_told_nothing_of_limit_and_protect(new_job, painter):
    job, _ = new_job(frames=1, clean=False)
    told = []

    def note(plate, classes):
        told.append(np.array(job.backbone.trimask))
        return plate * 0

    job.backbone = painter(paint=note)
    job.run(steps=1, model_size="80x48")
    matte = np.ones((HEIGHT, WIDTH, 1), np.float16)
    job.add("protect", 1001, matte, cover="still")
    job.add("limit", 1001, matte * 0, cover="still")
    again = job.run(steps=1, model_size="80x48")
    assert len(told) == 1
    assert again.forwards == 0
    assert not again.layer("patch")[1001].any()


# --- opaque, and the order over time -------------------------------------------------------------


@pytest.fixture
def crossed(new_job):
    """Return a job of two rotos that are the same block, over four frames."""
    job, _ = new_job(objects=2, frames=4)
    block = np.zeros((HEIGHT, WIDTH, 1), np.float16)
    block[40:60, 60:90] = 1
    for n in job.frames:
        job.add("matte.a", n, block)
        job.add("matte.b", n, block)
        plate = job.sent["plate", n].copy()
        plate[40:60, 60:90] = 0.9
        plate[46, 66] = [-0.25, 0.9, 1.5]
        job.add("plate", n, plate)
    return job


MIDDLE = (slice(46, 54), slice(66, 84))


def in_front(made, n):
    """Return who is opaque where both rotos are."""
    shown = [name for name in "ab" if (made.layer(name)[n][MIDDLE][..., 3] == 1).mean() > 0.9]
    assert len(shown) == 1
    return shown[0]


def test_the_order_changes_at_its_frame_and_every_frame_is_exact_in_its_own(crossed):
    made = crossed.run(order="a,b; 1003: b,a")
    assert [in_front(made, n) for n in crossed.frames] == ["a", "a", "b", "b"]
    for n in crossed.frames:
        assert exact(made, crossed, n, ("a", "b") if n < 1003 else ("b", "a"))
    assert made.ctx.figures["order_from_frame"] == {"1001": ["a", "b"], "1003": ["b", "a"]}
    assert made.ctx.figures["hidden_frames"] == {"a": [1003, 1004], "b": [1001, 1002]}


def test_where_an_object_is_opaque_its_colour_is_the_plates_own_sample(crossed):
    made = crossed.run()
    for n in crossed.frames:
        layer, plate = made.layer("a")[n], crossed.sent["plate", n]
        solid = layer[..., 3] == 1
        assert solid.sum() > 400
        assert layer[solid][:, :3].tobytes() == plate[solid].tobytes()


@pytest.mark.parametrize(("near", "fronts"), [("small", "abba"), ("large", "baab")])
def test_depth_orders_each_frame_and_the_knob_decides_between_equals(crossed, near, fronts):
    for n, (left, right) in zip(
        crossed.frames, [(1.0, 70000.0), (3.0, -2.0), (3.0, 2.5), (1.0, 2.0)], strict=True
    ):
        depth = np.full((HEIGHT, WIDTH, 1), left, np.float32)
        depth[40:60, 75:90] = right
        matte_a, matte_b = np.zeros((2, HEIGHT, WIDTH, 1), np.float16)
        matte_a[40:60, 60:90], matte_b[40:60, 60:90] = 1, 1
        matte_a[40:60, 86:90], matte_b[40:60, 60:64] = 0, 0  # a lies left of b, by a little
        crossed.add("matte.a", n, matte_a)
        crossed.add("matte.b", n, matte_b)
        crossed.add("depth", n, depth)
    made = crossed.run(depth_near=near)
    assert "".join(in_front(made, n) for n in crossed.frames) == fronts


def test_equal_depths_keep_the_knobs_order(crossed):
    crossed.add("depth", 1001, np.full((HEIGHT, WIDTH, 1), 7.0, np.float32), cover="still")
    made = crossed.run(order="b,a; 1004: a,b")
    assert "".join(in_front(made, n) for n in crossed.frames) == "bbba"


def test_depth_that_says_nothing_of_an_object_is_told(crossed):
    crossed.add("depth", 1001, np.full((HEIGHT, WIDTH, 1), np.nan, np.float32), cover="still")
    said = [one for one in crossed.run().ctx.warnings if "'depth'" in one]
    assert said == [
        f"Input 'depth' says nothing of '{name}', which keeps its place in the order."
        for name in "ab"
    ]


# --- grain and origin ----------------------------------------------------------------------------


def still_scene():
    """Return a scene with enough in it for registration. [160,240,3], 0.3..0.5."""
    coarse = np.random.default_rng(0).uniform(0.3, 0.5, (40, 60, 3))
    return cv2.resize(coarse, (240, 160), interpolation=cv2.INTER_LINEAR)


@pytest.fixture
def grainy(new_job):
    """Return a job of a still scene with grain of sigma 0.02, and a white block that moves on."""
    job, _ = new_job(frames=3, clean=False, width=240, height=160)
    for i, n in enumerate(job.frames):
        grain = np.random.default_rng(n).normal(0, 0.02, (160, 240, 3))
        block = np.zeros((160, 240, 1), np.float16)
        block[50:110, 20 + 70 * i : 80 + 70 * i] = 1
        job.add("plate", n, np.where(block > 0, 2.0, still_scene() + grain))
        job.add("matte.a", n, block)
    return job


def grain_behind_the_block(made, layer):
    """Return what a layer's middle of what the block of frame 1001 hides has on the scene."""
    box = (slice(60, 100), slice(30, 70))
    return (made.layer(layer)[1001][..., :3] - still_scene())[box].astype(np.float32)


def test_what_came_without_grain_gets_the_plates_and_the_layers_stay_exact(grainy):
    kept, matched = grainy.run(), grainy.run(grain="match")
    assert grain_behind_the_block(kept, "clean").std() < 0.017
    for layer in ("clean", "background"):
        assert grain_behind_the_block(matched, layer).std() == pytest.approx(0.02, rel=0.15)
    for n in grainy.frames:
        assert exact(matched, grainy, n, ("a",))
        free, plate = ~covered(matched, n), grainy.sent["plate", n]
        assert matched.layer("clean")[n][free][:, :3].tobytes() == plate[free].tobytes()
        assert (over(matched.layer("patch")[n], plate) == matched.layer("clean")[n][..., :3]).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_grain_and_another_seed_another(grainy):
    runs = [grainy.run(grain="match", seed=seed) for seed in (1, 1, 2)]
    first, again, other = (grain_behind_the_block(made, "clean").tobytes() for made in runs)
    assert first == again != other


def test_a_connected_clean_plate_keeps_its_grain_and_the_artist_is_told(new_job):
    job, _ = new_job(frames=1)
    kept, matched = job.run(), job.run(grain="match")
    assert kept.layer("clean")[1001].tobytes() == matched.layer("clean")[1001].tobytes()
    assert [one for one in matched.ctx.warnings if "'grain'" in one] == [
        "Knob 'grain' does nothing here: the connected clean plate keeps the grain that it has, so "
        "give it the plate's before you connect it."
    ]
    assert not [one for one in kept.ctx.warnings if "'grain'" in one]


def test_the_plates_grain_is_a_stage_that_is_found_again(grainy):
    names = [row.name for row in grainy.run(grain="match").ctx.rows]
    assert names.count("grain") == 1
    assert "grain" not in [row.name for row in grainy.run().ctx.rows]


def test_origin_says_which_frame_showed_what_lies_behind_and_sums_to_one(grainy):
    made = grainy.run(origin=True)
    for n in grainy.frames:
        origin, free = made.layer("origin")[n], ~covered(made, n)
        assert origin.dtype == np.float32
        assert (origin[..., :4].sum(axis=2) == 1).all()
        assert (origin[free] == [1, 0, 0, 0, 0]).all()
    behind = made.layer("origin")[1001][60:100, 30:70]
    assert behind[..., 2].min() > 0.9
    assert set(np.unique(behind[..., 4])) <= {1002.0, 1003.0}


def test_origin_calls_a_shadow_that_was_taken_off_the_plate_under_a_gain(new_job):
    job, shot = new_job(frames=1, width=320, height=192, effects=["shadow"])
    made = job.run(origin=True)
    alpha, own = shot.layer("a", 1001)[..., 3], shot.object_layer("a", 1001)[..., 3]
    shadow = (alpha > 0.1) & (alpha < 0.4) & (own == 0)
    solid, origin = own == 1, made.layer("origin")[1001]
    assert origin[shadow][:, 1].mean() > 0.6
    assert (origin[solid][:, 1] == 0).all()
    assert (origin[solid][:, 2] > 0.9).all()


def test_origin_of_what_a_model_made_is_generated(new_job, painter):
    job, _ = new_job(frames=1, clean=False)
    job.backbone = painter(paint=lambda plate, classes: plate * 0 + 0.25)
    made = job.run(steps=1, model_size="160x96", origin=True, matte_grow=0)
    origin, solid = made.layer("origin")[1001], made.layer("a")[1001][..., 3] > 0.6
    assert solid.sum() > 50
    assert origin[solid][:, 3].mean() > 0.9
    assert not origin[..., 2].any()


def test_exposure_reaches_the_model_and_not_what_comes_back(new_job, painter):
    job, _ = new_job(frames=1, clean=False)
    seen = []

    class Watched(painter):
        def encode(self, video, progress=None):
            seen.append(float(np.asarray(video).mean()))
            return super().encode(video)

    job.backbone = Watched()
    for exposure in (0.0, -2.0):
        made = job.run(steps=1, model_size="80x48", exposure=exposure)
        free = ~covered(made, 1001)
        plate = job.sent["plate", 1001]
        assert made.layer("clean")[1001][free][:, :3].tobytes() == plate[free].tobytes()
    assert seen[1] < seen[0] - 0.2
