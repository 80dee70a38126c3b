# SPDX-License-Identifier: Apache-2.0
"""parts/fit.py and parts/window.py over formats, aspects and windows of all kinds.

Sizes are small; what hangs on the length of a side is shown with thin pictures of real lengths.
"""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp_protocol.frames import Box
from gencomp_server.parts import fit
from gencomp_server.parts.window import fill_from_display, onto_display

# float32 sums over up to some thousand samples, relative to the greatest.
ROUNDING = 1e-4
# Pixels are squares on the way down: of a ramp, a model pixel that cuts two of them holds their
# mean by area, which lies (3 - sqrt(8)) / 2 plate pixels from its centre at the most.
SQUARES_PX = 0.0858
# A run by default takes some of them, other ones each time; GENCOMP_ALL_CASES=1 takes all.
CASES = settings(max_examples=700 if os.environ.get("GENCOMP_ALL_CASES") else 120, deadline=None)

SIDE = st.integers(1, 60)
SIZE = st.tuples(SIDE, SIDE)
SEED = st.integers(0, 2**32 - 1)
LIGHT = st.floats(-0.5, 65504, width=16)


@st.composite
def boxes(draw):
    """Draw a window with corners on either side of the origin, of odd and even sides."""
    x0, y0 = draw(st.integers(-30, 30)), draw(st.integers(-30, 30))
    return Box(x0, y0, x0 + draw(st.integers(0, 40)), y0 + draw(st.integers(0, 40)))


@st.composite
def shrinking(draw):
    """Draw a plate's (width, height) and a model's that is nowhere larger."""
    width, height = draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    return (width, height), (draw(st.integers(1, width)), draw(st.integers(1, height)))


def picture(seed, size, channels=3):
    """Return light with highlights and negative values. [H,W,C] float32."""
    rng = np.random.default_rng(seed)
    return (np.exp(rng.normal(-1, 2, (size[1], size[0], channels))) - 0.3).astype(np.float32)


def ramp(width, height):
    """Return a picture that holds the position of every pixel: x, then y. [H,W,2]."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x, y], axis=-1).astype(np.float32)


def centres(size, other):
    """Return where the pixels of a size lie in a picture of another size. [H,W,2]."""
    return (ramp(*size) + 0.5) * (np.array(other) / np.array(size)) - 0.5


def is_near(found, expected, within):
    """Tell whether two arrays of one shape differ nowhere by more than so much."""
    return np.broadcast_shapes(found.shape, np.shape(expected)) == found.shape and bool(
        (np.abs(found.astype(np.float64) - expected) <= within).all()
    )


@CASES
@given(plate=SIZE, model=SIZE, light=LIGHT)
def test_a_level_picture_stays_level_whatever_the_sizes(plate, model, light):
    level = np.full((plate[1], plate[0], 3), light, np.float32)

    there = fit.to_model_frame(level, model)

    assert is_near(there, light, abs(light) * ROUNDING)
    assert is_near(fit.from_model_frame(there, plate), level, abs(light) * ROUNDING)


@CASES
@given(sizes=shrinking(), seed=SEED)
def test_the_mean_of_all_light_stays_on_the_way_down(sizes, seed):
    plate, model = sizes
    light = picture(seed, plate)

    mean = fit.to_model_frame(light, model).mean(axis=(0, 1), dtype=np.float64)

    near = ROUNDING * float(np.abs(light).max())
    assert is_near(mean, light.mean(axis=(0, 1), dtype=np.float64), near)


@CASES
@given(plate=SIZE, model=SIZE, seed=SEED)
def test_nothing_overshoots(plate, model, seed):
    light = picture(seed, plate)

    there = fit.to_model_frame(light, model)

    near = ROUNDING * float(np.abs(light).max())
    assert there.min() >= light.min() - near
    assert there.max() <= light.max() + near


@CASES
@given(sizes=shrinking())
def test_a_ramp_on_the_way_down_holds_the_places_of_the_model_pixels(sizes):
    plate, model = sizes

    there = fit.to_model_frame(ramp(*plate), model)

    assert is_near(there, centres(model, plate), SQUARES_PX + max(plate) * 1e-6)


@CASES
@given(model=SIZE, across=st.integers(1, 5), down=st.integers(1, 5))
def test_a_ramp_comes_down_by_whole_factors_exactly(model, across, down):
    plate = (model[0] * across, model[1] * down)

    there = fit.to_model_frame(ramp(*plate), model)

    assert is_near(there, centres(model, plate), ROUNDING)


@CASES
@given(sizes=shrinking())
def test_a_ramp_on_the_way_up_is_itself_between_the_outermost_centres(sizes):
    plate, model = sizes
    most = np.array(model) - 1

    back = fit.from_model_frame(ramp(*model), plate)

    assert is_near(back, np.clip(centres(plate, model), 0, most), ROUNDING)


@CASES
@given(plate=SIZE, model=SIZE, seed=SEED)
def test_a_mirrored_picture_becomes_the_mirrored_model_picture(plate, model, seed):
    light = picture(seed, plate)

    there = fit.to_model_frame(light, model)
    mirrored = fit.to_model_frame(light[::-1, ::-1], model)

    assert is_near(mirrored[::-1, ::-1], there, ROUNDING * float(np.abs(light).max()))


@CASES
@given(sizes=shrinking(), dark=st.floats(0, 1), bright=st.floats(1, 60))
def test_a_checkerboard_finer_than_the_model_goes_to_its_mean(sizes, dark, bright):
    plate, model = sizes
    odd = ramp(*plate).sum(axis=-1) % 2
    board = np.where(odd > 0, np.float32(bright), np.float32(dark))

    there = fit.to_model_frame(board, model)

    # Of alternating squares under a side of s pixels at most one stays unpaired, on either axis.
    unpaired = (model[0] / plate[0]) * (model[1] / plate[1])
    half = (bright - dark) / 2
    assert is_near(there, dark + half, half * unpaired + bright * ROUNDING)


@CASES
@given(model=SIZE, across=st.sampled_from([2, 4]), down=st.sampled_from([2, 4]))
def test_a_checkerboard_comes_down_by_even_factors_to_its_mean_exactly(model, across, down):
    board = ramp(model[0] * across, model[1] * down).sum(axis=-1) % 2

    there = fit.to_model_frame(board, model)

    assert is_near(there, 0.5, ROUNDING)


@settings(max_examples=200, deadline=None)
@given(plate=SIZE, model=SIZE, channels=st.integers(1, 12), seed=SEED)
def test_every_channel_is_resized_as_if_alone_however_many_there_are(plate, model, channels, seed):
    light = picture(seed, plate, channels)

    together = fit.to_model_frame(light, model)

    assert together.shape == (model[1], model[0], channels)
    last = fit.to_model_frame(light[..., -1], model)
    assert is_near(together[..., -1], last, ROUNDING * float(np.abs(light).max()))


# Plates of cameras and stills, squeezed ones too, and the model sizes they come to.
@pytest.mark.parametrize("model", [640, 672, 832, 1280, 1997])
@pytest.mark.parametrize("plate", [1998, 2048, 3424, 4095, 4096, 4448, 6144, 8192, 11648, 40000])
def test_long_sides_stay_level_and_in_place(plate, model):
    down = fit.to_model_frame(ramp(plate, 2), (model, 2))[..., 0]
    level = fit.to_model_frame(np.ones((2, plate), np.float32), (model, 2))

    # A position is as coarse as float32 holds it, and so is a mean of some.
    assert is_near(down, centres((model, 2), (plate, 2))[..., 0], SQUARES_PX + plate * 1e-6)
    assert is_near(level, 1.0, ROUNDING)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("plate", "model"), [(2001, 2000), (4097, 1280), (4096, 2047)])
def test_a_pixel_of_which_little_is_covered_counts_for_that_little(plate, model, axis):
    # Of these sides some pixels are covered by less than a thousandth, and that is light, too.
    shape, size = ((plate, 1), (1, model)) if axis == 0 else ((1, plate), (model, 1))

    level = fit.to_model_frame(np.ones(shape, np.float32), size)

    assert is_near(level, 1.0, ROUNDING)


@pytest.mark.parametrize(
    ("plate", "edge", "multiple", "expected"),
    [
        ((3424, 2866), 832, 16, (832, 704)),  # 2:1 anamorphic, as it lies in the file
        ((8192, 5464), 672, 8, (672, 448)),
        ((1999, 1081), 672, 8, (672, 360)),
        ((12000, 5), 640, 8, (640, 8)),
    ],
)
def test_odd_and_squeezed_formats_come_to_a_size_the_model_takes(plate, edge, multiple, expected):
    assert fit.model_format(*plate, edge, multiple) == expected


@CASES
@given(
    width=st.integers(1, 12000), height=st.integers(1, 12000), multiple=st.sampled_from([1, 8, 16])
)
def test_the_model_format_is_of_its_multiple_and_its_shape_bends_by_half_a_multiple(
    width, height, multiple
):
    got = fit.model_format(width, height, 640, multiple)

    scale = min(1, 640 / max(width, height))
    for side, plate in zip(got, (width, height), strict=True):
        assert side % multiple == 0
        assert side >= multiple
        assert side == multiple or abs(side - plate * scale) <= multiple / 2 + 1e-6


# --- windows --------------------------------------------------------------------------------------


def bits(seed, box, channels=4):
    """Return halves of every kind over a window: NaN, infinities and -0.0 among them."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 1 << 16, (box.height, box.width, channels), np.uint16)
    return raw.view(np.float16)


@CASES
@given(data=boxes(), display=boxes(), seed=SEED)
def test_a_picture_laid_onto_the_display_and_back_keeps_every_bit(data, display, seed):
    pixels = bits(seed, data)
    target = pixels.copy()

    fill_from_display(target, data, onto_display(pixels, data, display), display)

    assert target.tobytes() == pixels.tobytes()


@CASES
@given(data=boxes(), display=boxes(), seed=SEED)
def test_a_display_picture_put_into_a_window_comes_back_where_both_are_and_zero_elsewhere(
    data, display, seed
):
    picture_, target = bits(seed, display), np.zeros((data.height, data.width, 4), np.float16)

    fill_from_display(target, data, picture_, display)
    back = onto_display(target, data, display)

    x, y = np.meshgrid(np.arange(display.x0, display.x1 + 1), np.arange(display.y0, display.y1 + 1))
    both = (x >= data.x0) & (x <= data.x1) & (y >= data.y0) & (y <= data.y1)
    assert back[both].tobytes() == picture_[both].tobytes()
    assert not back[~both].view(np.uint16).any()


@CASES
@given(data=boxes(), display=boxes(), seed=SEED)
def test_what_lies_outside_the_display_is_untouched_whatever_is_delivered(data, display, seed):
    pixels = bits(seed, data)
    target = pixels.copy()

    fill_from_display(target, data, bits(seed + 1, display), display)

    x, y = np.meshgrid(np.arange(data.x0, data.x1 + 1), np.arange(data.y0, data.y1 + 1))
    outside = (x < display.x0) | (x > display.x1) | (y < display.y0) | (y > display.y1)
    assert target[outside].tobytes() == pixels[outside].tobytes()
