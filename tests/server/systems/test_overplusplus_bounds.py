# SPDX-License-Identifier: Apache-2.0
"""Over++'s bounds: whatever a model paints, not one bit changes where nothing may.

A painter stands in for the model: it paints noise over the whole frame, or darkens all of it.
"""

import itertools

import cv2
import numpy as np
import pytest

from gencomp_protocol.errors import BadMatte
from gencomp_protocol.frames import Box, FrameRange
from gencomp_server.parts.stack import over

MODES = ("every frame", "keyframes only", "no mask")
SIZES = [
    (640, 384),
    (960, 540),
    pytest.param((1920, 1080), marks=pytest.mark.slow),
    pytest.param((4096, 2160), marks=pytest.mark.slow),
]


def noise(plate, classes):
    """Paint noise over the whole frame."""
    import torch

    rng = np.random.default_rng(7)
    return torch.from_numpy(rng.normal(0, 0.3, tuple(plate.shape)).astype(np.float32))


def darken(plate, classes):
    """Paint half of every code away."""
    return -0.5 * (plate + 1)


def wild(size, kind=np.float16):
    """Return RGBA with values from -0.5 to 60, NaN, infinities and a negative zero. [H,W,4]."""
    rng = np.random.default_rng(3)
    width, height = size
    light = rng.uniform(0, 1, (height // 4, width // 4, 4)) ** 2
    light[rng.uniform(0, 1, light.shape) < 0.02] = 60.0
    light[rng.uniform(0, 1, light.shape) < 0.02] = -0.5
    made = np.kron(light, np.ones((4, 4, 1))).astype(kind)
    made[::7, ::11, 0], made[::13, ::5, 1], made[::3, ::17, 2] = np.nan, np.inf, -0.0
    made[::19, ::3, 3] = 0.3125
    return made


def rectangle(size, x0, y0, x1, y1, value=1.0):
    """Return a matte with a rectangle, given by shares of the sides. [H,W,1] float16."""
    matte = np.zeros((size[1], size[0], 1), np.float16)
    matte[int(y0 * size[1]) : int(y1 * size[1]), int(x0 * size[0]) : int(x1 * size[0])] = value
    return matte


def near(matte, pixels):
    """Return what lies within so many pixels of a matte, sides and corners alike. [H,W] bool."""
    square = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return cv2.dilate((matte[..., 0] > 0).astype(np.uint8), square) > 0


def same_bits(made, job, n):
    """Return where all four channels of the result are the plate's own bits. [H,W] bool."""
    result, plate = made.layer("result")[n], job.sent["plate", n]
    bits = np.uint16 if plate.dtype == np.float16 else np.uint32
    alike = result[..., : plate.shape[2]].view(bits) == plate.view(bits)
    assert plate.shape[2] == 4 or (result[..., 3] == 1)[alike.all(axis=2)].all()
    return alike.all(axis=2)


@pytest.fixture
def bounded(new_job, painter):
    """Return a maker of jobs of two frames: wild plate, moving roto, limit, protect and keep."""

    def make(size, kind=np.float16):
        job, _ = new_job(system="overplusplus", width=32, height=32, frames=1)
        for name in list(job.entries):
            job.remove(name)
        job.frames = FrameRange(1001, 1002)
        job.add("plate", 1001, wild(size, kind))
        job.sent["plate", 1002] = job.sent["plate", 1001]
        job.pictures["plate"][1002] = job.pictures["plate"][1001]
        job.entries["plate"] = job.entries["plate"].__class__("plate", (1001, 1002))
        job.add("effect_mask", 1001, rectangle(size, 0.3, 0.3, 0.6, 0.6))
        job.add("effect_mask", 1002, rectangle(size, 0.35, 0.3, 0.65, 0.6))
        job.add("limit", 1001, rectangle(size, 0.0, 0.0, 0.62, 1.0), cover="still")
        job.add("protect", 1001, rectangle(size, 0.4, 0.4, 0.45, 0.5), cover="still")
        job.add("keep", 1001, rectangle(size, 0.5, 0.0, 0.55, 1.0), cover="still")
        job.backbone = painter(noise)
        return job

    return make


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_when_a_model_paints_noise_then_no_bit_changes_outside_the_bounds(bounded, size, mode):
    job, width = bounded(size), size[0]
    keyframes = "1001" if mode == "keyframes only" else ""
    made = job.run(steps=1, mask_frames=mode, keyframes=keyframes, model_size="160x96", mask_grow=8)
    held = (job.sent["limit", 1001] == 0) | (job.sent["protect", 1001] == 1)
    held = (held | (job.sent["keep", 1001] == 1))[..., 0]
    reach = {1001: 8 * width // 160 + 1, 1002: 8 * width // 160 + 1}
    if keyframes:
        reach[1002] = size[1] // 10 + 1
    for n, share in zip(job.frames, made.ctx.figures["untouched_share_per_frame"], strict=True):
        outside = held.copy()
        if mode != "no mask":
            outside |= ~near(job.sent["effect_mask", n], reach[n])
        same = same_bits(made, job, n)
        assert same[outside].all()
        assert (~outside).sum() > 100
        assert not same[~outside].all()
        finite = np.isfinite(job.sent["plate", n]).all(axis=2)
        assert (~same & finite).sum() > 0.2 * (~outside & finite).sum()
        assert share == pytest.approx(same.mean(), abs=1e-6)
        for name in ("effect", "difference", "effect_matte"):
            assert not made.layer(name)[n][outside].any()


def soft_disc(size, kind):
    """Return a foreground with a wide soft edge across limit, protect and mask. [H,W,4]."""
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    away = np.hypot(x / size[0] - 0.48, (y / size[1] - 0.65) * size[1] / size[0])
    alpha = np.clip((0.22 - away) / 0.1, 0, 1)[..., None]
    return np.concatenate([alpha * [0.3, 0.4, 0.2], alpha], axis=2).astype(kind)


# Each value of each beside the others' first; all together are slow.
_APART = list(itertools.product([noise, darken], MODES, [np.float16, np.float32], [True, False]))
_ALONE = [one for one in _APART if sum(a is not b for a, b in zip(one, _APART[0], strict=True)) < 2]


@pytest.mark.parametrize(
    ("paint", "mode", "kind", "locked"),
    [one if one in _ALONE else pytest.param(*one, marks=pytest.mark.slow) for one in _APART],
)
def test_when_fg_and_bg_come_apart_then_neither_layer_shows_outside_the_bounds(
    bounded, paint, mode, kind, locked
):
    size = (320, 192)
    job, fg = bounded(size, kind), soft_disc(size, kind)
    bg = job.sent["plate", 1001][..., :3].copy()
    bg[np.isinf(bg)] = 0
    job.remove("plate")
    job.add("fg", 1001, fg, cover="still")
    job.add("bg", 1001, bg, cover="still")
    job.backbone.paint = paint
    keyframes = "1001" if mode == "keyframes only" else ""
    made = job.run(
        steps=1,
        mask_frames=mode,
        keyframes=keyframes,
        model_size="160x96",
        mask_grow=8,
        fg_locked=locked,
    )
    held = (job.sent["limit", 1001] == 0) | (job.sent["protect", 1001] == 1)
    held = (held | (job.sent["keep", 1001] == 1))[..., 0]
    for n, reach in ((1001, 17), (1002, 20 if keyframes else 17)):
        outside = held.copy()
        if mode != "no mask":
            outside |= ~near(job.sent["effect_mask", n], reach)
        under, top = made.layer("effect_under")[n], made.layer("effect_over")[n]
        assert not under[held].any()
        assert not top[outside].any()
        with np.errstate(invalid="ignore"):
            plate = over(fg, bg).astype(kind)
            stacked = over(top, over(fg, over(under, bg))).astype(kind)
        assert np.array_equal(stacked[outside], plate[outside], equal_nan=True)
        # Behind what is opaque there the effect goes on: nothing of it shows.
        assert mode == "no mask" or under[outside & ~held & (fg[..., 3] == 1)].any()
        assert under[~outside & (fg[..., 3] < 1)].any()


@pytest.mark.parametrize("model_size", ["80x48", "144x64", "320x192", "640x384"])
def test_whatever_the_models_size_a_change_stays_within_what_the_mask_is_grown_by(
    bounded, model_size
):
    job, grow = bounded((320, 192)), 12
    for name in ("limit", "protect", "keep"):
        job.remove(name)
    made = job.run(steps=1, model_size=model_size, mask_grow=grow, region="whole frame")
    wide, high = (int(side) for side in model_size.split("x"))
    ys, xs = np.mgrid[:192, :320]
    for n in job.frames:
        rows, columns = (np.flatnonzero(job.sent["effect_mask", n].any(axis=k)) for k in (1, 0))
        across = np.maximum(np.maximum(columns[0] - xs, xs - columns[-1]), 0) * wide / 320
        down = np.maximum(np.maximum(rows[0] - ys, ys - rows[-1]), 0) * high / 192
        far = np.hypot(across, down)
        matte = made.layer("effect_matte")[n][..., 0]
        assert same_bits(made, job, n)[far > grow + 1e-6].all()
        assert not matte[far > grow + 1e-6].any()
        assert matte[(far > 0) & (far <= grow)].any()


@pytest.mark.parametrize(
    "data",
    [Box(0, 0, 99, 59), Box(40, 30, 139, 89), Box(-20, -12, 179, 107), Box(60, -8, 199, 50)],
    ids=["cropped", "cropped inside", "overscan", "both"],
)
@pytest.mark.parametrize("name", ["plate", "bg"])
def test_when_the_plate_has_a_data_window_then_what_changes_lies_in_it_and_is_counted_by_it(
    bounded, data, name
):
    job = bounded((160, 96))
    for one in ("limit", "protect", "keep", "effect_mask", "plate"):
        job.remove(one)
    sent = np.full((data.height, data.width, 3), 0.5, np.float16)
    lies = {"display_window": Box(0, 0, 159, 95), "data_window": data}
    for n in job.frames:
        job.add(name, n, sent, **lies)
    if name == "bg":
        empty = {"display_window": Box(0, 0, 159, 95), "data_window": Box(70, 40, 71, 41)}
        job.add("fg", 1001, np.zeros((2, 2, 4), np.float16), cover="still", **empty)
    job.backbone.paint = darken
    made = job.run(steps=1, origin=True)
    seen = data.intersect(Box(0, 0, 159, 95))
    for n, share in zip(job.frames, made.ctx.figures["untouched_share_per_frame"], strict=True):
        assert made.pictures["result", n].data_window == data
        touched = (made.layer("result")[n][..., :3] != sent).any(axis=2)
        assert touched.sum() == seen.width * seen.height  # all that is seen of the plate is darker
        assert share == pytest.approx(1 - touched.mean(), abs=1e-6)
        own = made.layer("origin")[n][..., 0] == 1
        assert (own == ~touched).all()


@pytest.mark.parametrize("mode", MODES)
def test_when_the_plate_is_float_then_the_same_holds(bounded, mode):
    job = bounded((320, 192), np.float32)
    keyframes = "1001" if mode == "keyframes only" else ""
    made = job.run(steps=1, mask_frames=mode, keyframes=keyframes)
    for n in job.frames:
        same = same_bits(made, job, n)
        assert same[:, 200:].all()  # beyond limit
        assert not same.all()


def test_when_the_working_space_is_another_then_the_same_holds_and_identity_is_the_plate(bounded):
    job = bounded((320, 192))
    job.working_space = "ACEScg"
    made = job.run(steps=1)
    for n in job.frames:
        same = same_bits(made, job, n)
        assert same[:, 200:].all()  # beyond limit
        assert not same.all()
    job.backbone.paint, job.backbone.identity = None, "nothing"
    made = job.run(steps=1)
    for n in job.frames:
        assert same_bits(made, job, n).all()
        assert not made.layer("effect")[n].any()


def test_when_limit_or_protect_is_half_covered_then_half_of_the_change_comes_in(bounded):
    job = bounded((320, 192))
    job.remove("keep")
    job.remove("protect")
    job.backbone.paint = darken
    for name, value in (("limit", 0.25), ("protect", 0.75)):
        job.remove("limit") if "limit" in job.entries else None
        job.add(name, 1001, np.full((192, 320, 1), value, np.float16), cover="still")
        matte = job.run(steps=1).layer("effect_matte")[1001]
        assert matte.max() == 0.25
        job.remove(name)


def test_when_limit_or_protect_changes_then_no_forward_is_run_again(bounded):
    job = bounded((320, 192))
    job.run(steps=1)
    job.add("limit", 1001, rectangle((320, 192), 0, 0, 1, 0.5), cover="still")
    again = job.run(steps=1)
    assert again.forwards == 0
    assert {row.name for row in again.ctx.rows if not row.reused} == {"bounds", "gate"}
    assert same_bits(again, job, 1001)[97:].all()


def test_when_nothing_is_left_to_deliver_then_it_is_refused_before_a_model_runs(bounded):
    job = bounded((320, 192))
    job.add("limit", 1001, rectangle((320, 192), 0.9, 0.9, 1, 1), cover="still")
    with pytest.raises(BadMatte, match="limit and protect and keep leave no place on any frame"):
        job.run(steps=1, mask_grow=0)
    assert (job.backbone.forwards, job.backbone.encoded) == (0, 0)


# --- frames on which the mask does not count -----------------------------------------------------


@pytest.fixture
def between(new_job, painter):
    """Return a job of five frames whose mask is drawn at the first and the last alone."""
    job, _ = new_job(system="overplusplus", frames=5)
    job.remove("effect_mask")
    job.add("effect_mask", 1001, rectangle((160, 96), 0.1, 0.4, 0.2, 0.6), cover="stills")
    job.add("effect_mask", 1005, rectangle((160, 96), 0.7, 0.4, 0.8, 0.6), cover="stills")
    job.backbone = painter(darken)
    return job


KEYED = {"steps": 1, "mask_frames": "keyframes only", "keyframes": "1001,1005"}


def test_when_a_frame_has_no_mask_then_it_changes_around_the_mask_as_interpolated(between):
    made = between.run(**KEYED, region="whole frame")
    half_way = rectangle((160, 96), 0.4, 0.4, 0.5, 0.6)
    same = same_bits(made, between, 1003)
    assert same[~near(half_way, 96 // 10 + 4)].all()  # 4: half a model pixel of the drawn shape
    assert not same[half_way[..., 0] > 0].any()
    assert min(made.ctx.figures["untouched_share_per_frame"][1:4]) > 0.9
    said = made.ctx.figures["bounds"]
    assert "On 1002-1004, without a mask, a change may be within the mask as it is" in said
    assert "grown by 10 % of the height" in said
    assert not any("whole frame may change" in one for one in made.ctx.warnings)


def test_when_it_may_reach_further_then_it_does(between):
    shares = [
        between.run(**KEYED, region="whole frame", unknown_reach=reach).ctx.figures[
            "untouched_share_per_frame"
        ]
        for reach in (0, 10, 40)
    ]
    for i in (1, 2, 3):
        assert shares[0][i] > shares[1][i] > shares[2][i]
    assert shares[0][0] == shares[1][0] == shares[2][0]


def test_when_the_whole_frame_is_the_bound_then_it_may_change_everywhere_and_that_is_said(between):
    made = between.run(**KEYED, region="whole frame", unknown_bound="whole frame")
    shares = made.ctx.figures["untouched_share_per_frame"]
    assert max(shares[1:4]) < 0.05
    assert min(shares[0], shares[4]) > 0.4
    assert (
        "On 1002-1004, without a mask, a change may be in the whole frame"
        in made.ctx.figures["bounds"]
    )
    assert any("the whole frame may change" in one for one in made.ctx.warnings)


def test_when_the_mask_has_a_picture_of_an_unknown_frame_then_that_is_its_shape(between):
    aside = rectangle((160, 96), 0.1, 0.0, 0.2, 0.1)
    between.add("effect_mask", 1003, aside, cover="stills")
    made = between.run(**KEYED, region="whole frame", unknown_reach=5)
    same = same_bits(made, between, 1003)
    assert same[~near(aside, 96 // 20 + 4)].all()
    assert not same[aside[..., 0] > 0].any()


def test_when_such_a_picture_is_empty_then_it_says_nothing(between):
    before = between.run(**KEYED).layer("result")[1003]
    between.add("effect_mask", 1003, rectangle((160, 96), 0, 0, 0, 0), cover="stills")
    assert between.run(**KEYED).layer("result")[1003].tobytes() == before.tobytes()


# --- the region ----------------------------------------------------------------------------------


@pytest.fixture
def small(new_job, painter):
    """Return a job of two frames with a small mask, and a painter that darkens all."""
    job, _ = new_job(system="overplusplus", width=320, height=192, frames=2)
    job.remove("effect_mask")
    job.add("effect_mask", 1001, rectangle((320, 192), 0.6, 0.6, 0.7, 0.7), cover="still")
    job.backbone = painter(darken)
    return job


def test_when_the_mask_is_small_then_the_model_sees_the_region_around_it(small):
    around, whole = small.run(steps=1), small.run(steps=1, region="whole frame")
    x0, y0, x1, y1 = around.ctx.figures["region"]["box"]
    assert 0 < x0 < 192 < 224 < x1 < 319
    assert 0 < y0 < 115 < 134 < y1 < 191
    assert "where the masks are, with room around" in around.ctx.figures["region"]["says"]
    assert whole.ctx.figures["region"] == {
        "box": [0, 0, 319, 191],
        "says": "The model saw the whole frame.",
    }
    outside = np.ones((192, 320), bool)
    outside[y0 : y1 + 1, x0 : x1 + 1] = False
    for n in small.frames:
        assert same_bits(around, small, n)[outside].all()
        assert not same_bits(around, small, n)[116:134, 193:223].any()
        assert not same_bits(whole, small, n)[116:134, 193:223].any()


def test_when_the_model_sees_a_region_then_mask_and_plate_lie_on_each_other(small):
    small.run(steps=1, region="whole frame")
    coarse = (small.backbone.trimask == 2).mean()
    made = small.run(steps=1)
    fine = (small.backbone.trimask == 2).mean()
    x0, y0, x1, y1 = made.ctx.figures["region"]["box"]
    share = 320 * 192 / ((x1 - x0 + 1) * (y1 - y0 + 1))
    assert fine / coarse == pytest.approx(share, rel=0.25)
    effect = made.layer("effect")[1001][..., 3].astype(np.float32)
    ys, xs = np.nonzero(effect > 0)
    assert abs(xs.mean() - 207.5) < 4
    assert abs(ys.mean() - 124.5) < 4


def test_when_the_region_knob_turns_then_the_plan_still_counts_the_forwards(small):
    from gencomp_protocol.frames import Format
    from gencomp_server.backbones import TINY
    from gencomp_server.contract import Machine
    from gencomp_server.systems.overplusplus import SYSTEM

    for name, entry in small.entries.items():
        small.entries[name] = entry.__class__(
            entry.name, entry.frames, entry.cover, format=Format(320, 192)
        )
    for region in ("around the mask", "whole frame"):
        made = small.run(steps=3, region=region, guidance=2.0)
        asked = small.request(steps=3, region=region, guidance=2.0, backbone=TINY)
        planned = SYSTEM.plan(asked, Machine())
        assert made.forwards == planned.forwards == made.ctx.figures["forwards"] == 6


def test_when_a_mask_is_nudged_then_the_plate_is_not_encoded_again(small):
    small.run(steps=1)
    encoded = small.backbone.encoded
    small.add("effect_mask", 1001, rectangle((320, 192), 0.605, 0.6, 0.7, 0.7), cover="still")
    small.run(steps=1)
    assert small.backbone.encoded == encoded


def test_when_a_mask_covers_almost_everything_then_it_is_asked_whether_it_is_inverted(small):
    inverted = 1 - rectangle((320, 192), 0.4, 0.4, 0.6, 0.6)
    small.add("effect_mask", 1001, inverted, cover="still")
    said = [one for one in small.run(steps=1).ctx.warnings if "inverted" in one]
    assert said == [
        "Input 'effect_mask' covers more than 90 % of the picture on most of its frames, as an "
        "inverted matte would; if it is one, switch on 'invert' beside its channel on the node, "
        "or invert the files."
    ]
    small.add("effect_mask", 1001, rectangle((320, 192), 0, 0, 0.8, 1), cover="still")
    assert not any("inverted" in one for one in small.run(steps=1).ctx.warnings)
