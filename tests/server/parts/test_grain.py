# SPDX-License-Identifier: Apache-2.0
"""parts/grainmeter.py, parts/grain.py: known grain is measured, made again, put where it lacks."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from gencomp_server.parts import grain as parts
from gencomp_server.parts.grainmeter import frames_to_measure, measure_grain

# A sigma of a bin: squares that only just agree, and coarse grain that a plane takes along.
SIGMA_OFF = 0.06
# With texture that moves in every frame, it adds to the darkest bins, where grain is least.
TEXTURED_OFF = 0.25
# Correlation of neighbours and of channels, from some hundred squares.
CORRELATION_OFF = 0.03
WIDTH, HEIGHT = 720, 480
R = parts.REACH_PX


@dataclass(frozen=True)
class Changed:
    """What grain reads of a changed plate."""

    index: np.ndarray
    colours: np.ndarray
    made: np.ndarray


def light(texture=0.0, moved=0):
    """Return a ramp of light from .02 to .92, red brightest, with texture of a relative depth."""
    ramp = np.linspace(0.02, 0.92, WIDTH) * np.ones((HEIGHT, 1))
    if texture:
        fine = np.random.default_rng(1).standard_normal((HEIGHT, WIDTH + 64))
        fine = np.roll(cv2.GaussianBlur(fine, (0, 0), 1.2), moved, axis=1)[:, :WIDTH]
        half = np.arange(HEIGHT)[:, None] % 160 < 80
        ramp = ramp * (1 + texture * half * fine / fine.std())
    return ramp[..., None] * np.array([1.0, 0.8, 0.6])


def grain_of(rng, blur=0.0, shape=(HEIGHT, WIDTH)):
    """Return grain of sigma 1; blue follows green by .6; a Gaussian blur makes it coarse."""
    noise = rng.standard_normal((*shape, 3))
    noise[..., 2] = 0.6 * noise[..., 1] + 0.8 * noise[..., 2]
    if blur:
        noise = cv2.GaussianBlur(noise, (0, 0), blur)
    return noise / noise.std(axis=(0, 1))


def shot_noise(level):
    """Sigma of a sensor: read noise, and the root of the light."""
    return np.sqrt(2e-5 + 4e-4 * level)


def film(level):
    """Sigma of film in linear light: in proportion."""
    return 0.04 * level


@functools.cache
def frames(sigma, blur=0.0, texture=0.0, speed=0, count=4):
    """Return some frames as halves hold them."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(count):
        clean = light(texture, i * speed)
        noisy = clean + sigma(clean) * grain_of(rng, blur)
        made.append(noisy.astype(np.float16).astype(np.float32))
    return tuple(made)


@pytest.mark.parametrize("blur", [0.0, 0.6, 1.2, 1.8])
@pytest.mark.parametrize("sigma", [shot_noise, film])
def test_sigma_is_found_at_every_brightness_and_in_every_channel(sigma, blur):
    found = measure_grain(frames(sigma, blur))

    assert len(found.levels) >= 8
    assert found.sigma == pytest.approx(sigma(found.levels), rel=SIGMA_OFF)


def test_texture_that_stands_still_is_no_grain():
    found = measure_grain(frames(shot_noise, texture=0.2))

    assert found.sigma == pytest.approx(shot_noise(found.levels), rel=SIGMA_OFF)


def test_texture_that_moves_is_hardly_grain_while_half_the_frame_is_level():
    found = measure_grain(frames(shot_noise, texture=0.2, speed=7))

    assert found.sigma == pytest.approx(shot_noise(found.levels), rel=TEXTURED_OFF)


# Closed form of Gaussian grain: exp(-d**2 / (4 s**2)).
@pytest.mark.parametrize(
    ("blur", "one", "two"), [(0.0, 0.0, 0.0), (1.2, 0.8406, 0.4994), (1.8, 0.9258, 0.7345)]
)
def test_how_neighbours_hang_together_is_found_in_both_directions(blur, one, two):
    found = measure_grain(frames(shot_noise, blur)).correlation

    assert found[:, R, R].tolist() == [1, 1, 1]
    assert found[:, R, R + 1] == pytest.approx(np.full(3, one), abs=CORRELATION_OFF)
    assert found[:, R + 1, R] == pytest.approx(np.full(3, one), abs=CORRELATION_OFF)
    assert found[:, R, R + 2] == pytest.approx(np.full(3, two), abs=CORRELATION_OFF)


def test_how_channels_hang_together_is_found():
    found = measure_grain(frames(shot_noise, 1.2)).channels

    assert found[1, 2] == pytest.approx(0.6, abs=CORRELATION_OFF)
    assert found[0, 1] == pytest.approx(0.0, abs=CORRELATION_OFF)
    assert found[0, 2] == pytest.approx(0.0, abs=CORRELATION_OFF)


@pytest.mark.parametrize("texture", [0.0, 0.2])
def test_a_plate_without_grain_has_none(texture):
    clean = light(texture).astype(np.float16).astype(np.float32)

    assert measure_grain([clean, clean, clean]).is_none


@pytest.mark.parametrize("pictures", [[], [np.zeros((20, 500, 3), np.float32)]])
def test_a_plate_too_small_to_tell_has_none(pictures):
    assert measure_grain(pictures).is_none


def test_frames_that_were_held_show_the_grain_that_is_in_them():
    held = frames(shot_noise, count=1) * 3

    found = measure_grain(held)

    assert found.sigma == pytest.approx(shot_noise(found.levels), rel=SIGMA_OFF)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (0,)), (2, (0, 1)), (3, (0, 1, 2)), (85, (0, 1, 41, 42, 83, 84))],
)
def test_frames_to_measure_are_neighbours_at_start_middle_and_end(count, expected):
    assert frames_to_measure(count) == expected


def test_a_letterbox_is_no_picture_and_says_nothing_of_its_grain():
    boxed = [np.pad(frame, ((240, 240), (0, 0), (0, 0))) for frame in frames(shot_noise)]

    found = measure_grain(boxed)

    assert found.sigma == pytest.approx(shot_noise(found.levels), rel=SIGMA_OFF)


# --- making ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blur", "one"), [(0.0, 0.0), (1.2, 0.8406), (1.8, 0.9258)])
def test_a_field_has_sigma_one_and_hangs_together_like_the_plate(blur, one):
    grain = measure_grain(frames(shot_noise, blur))

    made = parts.field((600, 800), grain, np.random.default_rng(5))

    assert made.std(axis=(0, 1)) == pytest.approx(np.ones(3), rel=0.03)
    neighbours = (made[:, 1:] * made[:, :-1]).mean(axis=(0, 1))
    assert neighbours == pytest.approx(np.full(3, one), abs=CORRELATION_OFF)
    assert np.corrcoef(made.reshape(-1, 3).T)[1, 2] == pytest.approx(0.6, abs=0.05)


def test_the_same_seed_makes_the_same_bits_and_another_seed_does_not():
    grain = measure_grain(frames(shot_noise, 1.2, count=1))

    one, again, next_frame = (
        parts.field((70, 90), grain, np.random.default_rng(seed)) for seed in (1001, 1001, 1002)
    )

    assert np.array_equal(one, again)
    assert abs(np.corrcoef(one.ravel(), next_frame.ravel())[0, 1]) < 0.1


def test_some_rows_of_a_field_are_those_of_the_whole():
    grain = measure_grain(frames(shot_noise, 1.2, count=1))

    whole = parts.field((200, 50), grain, np.random.default_rng(7))
    rows = parts.field((200, 50), grain, np.random.default_rng(7), (61, 133))

    # A filter may sum in another order in a smaller picture.
    assert rows == pytest.approx(whole[61:133], abs=1e-5)


# --- adding ---------------------------------------------------------------------------------------


def plain_grain(sigma=0.1):
    """Return white grain of one sigma at every brightness."""
    correlation = np.zeros((3, 2 * R + 1, 2 * R + 1), np.float32)
    correlation[:, R, R] = 1
    levels = np.float32([[0] * 3, [1] * 3])
    return parts.Grain(
        levels, np.full((2, 3), sigma, np.float32), correlation, np.eye(3, dtype=np.float32)
    )


@pytest.mark.parametrize(("own", "expected"), [(0.0, 0.1), (0.06, 0.08), (0.1, 0.0), (0.5, 0.0)])
def test_variances_add_so_what_lacks_is_the_difference_of_squares(own, expected):
    added = parts.lacking(plain_grain(), np.full((1, 3), 0.5, np.float32), np.full((1, 3), own))

    assert added == pytest.approx(np.full((1, 3), expected), abs=1e-6)


@pytest.mark.parametrize(("foreign", "sigma"), [(0.0, 0.0), (0.5, 0.0866), (1.0, 0.1)])
def test_what_is_the_frames_own_keeps_its_share_of_the_grain(foreign, sigma):
    colours = np.full((40_000, 3), 0.5, np.float32)
    noise = np.random.default_rng(1).standard_normal(colours.shape, np.float32)

    given = parts.grained(
        colours, np.full(40_000, foreign), np.zeros_like(colours), plain_grain(), noise
    )

    assert given.std() == pytest.approx(sigma, rel=0.02)


def test_grain_takes_nothing_below_black_nor_what_is_below_it_any_lower():
    colours = np.float32([[0.0, 0.01, -0.2]])

    given = parts.grained(
        colours, np.ones(1), np.zeros((1, 3), np.float32), plain_grain(), np.full((1, 3), -3.0)
    )

    assert given.tolist() == [[0.0, 0.0, np.float32(-0.2)]]


def test_only_what_was_generated_is_grained_and_a_plate_under_a_gain_is_not():
    plate = np.full((4, 4, 3), 0.5, np.float32)
    colours = np.full((3, 3), 0.25, np.float32)
    changed = Changed(np.array([2, 7, 9]), colours, np.float32([0, 1, 0]))

    given = parts.grain_change(plate, changed, plain_grain(), np.random.default_rng(1)).colours

    assert given[[0, 2]].tolist() == [[0.25] * 3] * 2
    assert (given[1] != 0.25).all()
    assert colours.tolist() == [[0.25] * 3] * 3


def test_a_plate_without_grain_adds_nothing():
    plate = np.full((4, 4, 3), 0.5, np.float32)
    changed = Changed(np.array([2]), np.float32([[0.25] * 3]), np.float32([1]))
    none = plain_grain(0.0)

    assert parts.grain_change(plate, changed, none, np.random.default_rng(1)) is changed
    picture = plate.copy()
    parts.fill_grain(picture, np.ones((4, 4, 1)), none, None, np.random.default_rng(1))
    assert np.array_equal(picture, plate)


def test_a_glow_over_a_plate_ends_with_the_plates_grain_at_its_new_brightness():
    # A level plate of .2 with its own grain, and .4 of light generated on it: in red, .6 in all.
    rng = np.random.default_rng(4)
    grain = measure_grain(frames(shot_noise))
    plate = 0.2 + shot_noise(0.2) * rng.standard_normal((200, 200, 3))
    plate = plate.astype(np.float32)
    colours = plate.reshape(-1, 3) + np.float32(0.4)
    changed = Changed(np.arange(40_000), colours, np.full(40_000, 2 / 3, np.float32))

    given = parts.grain_change(plate, changed, grain, np.random.default_rng(9)).colours

    assert given[:, 0].std() == pytest.approx(shot_noise(0.6), rel=SIGMA_OFF)
    assert given[:, 0].mean() == pytest.approx(0.6, abs=1e-3)


def test_a_fill_gets_the_plates_grain_and_the_frames_own_pixels_keep_every_bit():
    plate = frames(film, 1.2, count=1)[0]
    grain = measure_grain([plate])
    picture = plate.copy()
    foreign = np.zeros((HEIGHT, WIDTH, 1), np.float32)
    foreign[100:300, 200:500] = 1
    picture[100:300, 200:500] = 0.5

    parts.fill_grain(picture, foreign, grain, None, np.random.default_rng(2))

    outside = foreign[..., 0] == 0
    assert picture[outside].tobytes() == plate[outside].tobytes()
    again = measure_grain([np.ascontiguousarray(picture[100:300, 200:500])])
    assert again.sigma == pytest.approx(np.full(again.sigma.shape, film(0.5)), rel=0.1)
    assert again.correlation[:, R, R + 1] == pytest.approx(np.full(3, 0.8406), abs=0.05)


def test_a_fill_that_has_grain_of_its_own_gets_only_the_rest():
    rng = np.random.default_rng(6)
    had = np.full((200, 200), 0.6, np.float32)
    picture = (1 + 0.06 * rng.standard_normal((200, 200, 3))).astype(np.float32)

    grain, generator = plain_grain(0.1), np.random.default_rng(2)
    parts.fill_grain(picture, np.ones((200, 200)), grain, had, generator)

    assert picture.std() == pytest.approx(0.1, rel=0.02)
