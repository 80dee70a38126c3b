# SPDX-License-Identifier: Apache-2.0
"""One frame of two pictures: errors, bits and time, against closed forms."""

import itertools
import math

import numpy as np
import pytest

from gencomp_protocol.frames import Box
from gencomp_server.colour.modelrange import decode
from gencomp_server.metrics.fidelity import measure_frame, step_between, ulp_apart
from gencomp_server.metrics.figures import figures
from gencomp_server.metrics.overlap import Overlap

SUM_SLACK = 1e-6  # float32 values of the test's own pictures


def overlapping(a, b, counted=None):
    height, width, channels = a.shape
    there = np.ones((height, width), bool)
    return Overlap(
        a,
        b,
        there if counted is None else counted,
        there,
        Box(0, 0, width - 1, height - 1),
        min(channels, 3),
    )


def flat(value, height=16, width=20, channels=3, kind=np.float32):
    return np.full((height, width, channels), value, kind)


def named(frames, steps=()):
    return {one.name: one for one in figures(frames, steps)}


def figure_of(a, b, name, counted=None):
    return named([measure_frame(1, overlapping(a, b, counted)).sums])[name].value


def test_an_offset_of_a_tenth_is_20_db():
    assert figure_of(flat(0.5), flat(0.6), "psnr_linear") == pytest.approx(20.0, abs=1e-4)


def test_an_error_of_10_in_a_lamp_is_minus_20_db_in_linear():
    assert figure_of(flat(50.0), flat(60.0), "psnr_linear") == pytest.approx(-20.0, abs=1e-9)


def test_display_range_is_the_codes_of_the_model_range():
    # 0.18 has the code 0.4613561 (sRGB), 16 has the code 1: 20 log10(1 / 0.5386439) = 5.3740 dB.
    assert figure_of(flat(0.18), flat(16.0), "psnr_display") == pytest.approx(5.3740, abs=1e-4)


def test_display_range_mirrors_negative_values():
    # In the foot of the curve a code is 12.92 times the light: apart by 2 * 0.001 * 12.92.
    expected = -20.0 * math.log10(2 * 0.001 * 12.92)
    assert figure_of(flat(-0.001), flat(0.001), "psnr_display") == pytest.approx(expected, abs=1e-4)


def test_equal_pictures_are_infinitely_good_and_alike():
    found = named([measure_frame(1, overlapping(flat(0.3), flat(0.3))).sums])
    assert found["psnr_linear"].value == found["psnr_display"].value == math.inf
    assert found["ssim_linear"].value == found["ssim_display"].value == 1.0
    assert found["untouched"].value == 1.0
    assert found["max_ulp"].value == 0


def test_one_pixel_of_320_touched_leaves_the_share_of_the_others():
    b = flat(0.5)
    b[3, 4, 1] = 0.25
    assert figure_of(flat(0.5), b, "untouched") == 319 / 320


def test_minus_zero_is_not_untouched_yet_no_unit_apart():
    found = named([measure_frame(1, overlapping(flat(0.0), flat(-0.0))).sums])
    assert found["untouched"].value == 0.0
    assert found["max_ulp"].value == 0


def test_only_what_the_mask_covers_counts():
    b = flat(0.5)
    b[:, 10:] = 0.75
    counted = np.zeros((16, 20), bool)
    counted[:, :10] = True
    assert figure_of(flat(0.5), b, "psnr_linear", counted) == math.inf
    assert figure_of(flat(0.5), b, "psnr_linear", ~counted) == pytest.approx(12.0412, abs=1e-4)


def test_pixels_with_nan_are_counted_and_left_out():
    a, b = flat(0.5), flat(0.6)
    b[2, 2, 0] = np.nan
    b[3, 3] = np.inf
    sums = measure_frame(1, overlapping(a, b)).sums
    assert (sums.bad_a, sums.bad_b) == (0, 4)
    assert (sums.pixels, sums.compared) == (320, 318)
    assert named([sums])["psnr_linear"].value == pytest.approx(20.0, abs=1e-4)


def test_ssim_leaves_out_every_window_that_touches_a_nan():
    a, b = flat(0.5, 11, 30), flat(0.5, 11, 30)
    b[5, 0] = np.nan
    # 20 centres in one row, of which the first has column 0 in its window; three channels.
    assert measure_frame(1, overlapping(a, b)).sums.windows == 19 * 3


def test_a_picture_smaller_than_a_window_has_no_ssim():
    found = named([measure_frame(1, overlapping(flat(0.5, 10, 40), flat(0.5, 10, 40))).sums])
    assert "ssim_linear" not in found


def test_tiles_give_what_one_tile_gives(monkeypatch):
    ys, xs = np.mgrid[0:70, 0:90]
    a = np.stack([np.sin(xs / 7.0), np.cos(ys / 5.0), xs * ys / 3000.0], 2).astype(np.float32)
    b = a + 0.05 * np.cos(xs + ys)[..., None].astype(np.float32)
    b[:30, :40] = a[:30, :40]
    whole = measure_frame(1, overlapping(a, b))
    monkeypatch.setattr("gencomp_server.metrics.fidelity._TILE", 16)
    tiled = measure_frame(1, overlapping(a, b))
    assert tiled.sums.windows == whole.sums.windows == 60 * 80 * 3
    assert tiled.sums.ssim_linear == pytest.approx(whole.sums.ssim_linear, rel=1e-9)
    assert tiled.sums.ssim_display == pytest.approx(whole.sums.ssim_display, rel=1e-9)
    assert tiled.sums.linear == pytest.approx(whole.sums.linear, rel=1e-9)
    np.testing.assert_array_equal(tiled.difference, whole.difference)


def test_alpha_is_measured_apart_from_colour():
    a, b = flat(0.5, channels=4), flat(0.5, channels=4)
    b[..., 3] = 0.4
    found = named([measure_frame(1, overlapping(a, b)).sums])
    assert found["psnr_linear"].value == math.inf
    assert found["psnr_alpha"].value == pytest.approx(20.0, abs=1e-4)
    assert found["untouched"].value == 0.0


def test_coverage_has_no_display_range():
    found = named(
        [measure_frame(1, overlapping(flat(0.5, channels=1), flat(0.6, channels=1))).sums]
    )
    assert "psnr_display" not in found
    assert found["psnr_linear"].value == pytest.approx(20.0, abs=1e-4)


# --- bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (1.0, 1.0009765625, 1),
        (1.0, 0.99951171875, 1),
        (0.0, -0.0, 0),
        (2.0**-24, -(2.0**-24), 2),
        (1.0, 2.0, 1024),
        (-1.0, 1.0, 2 * 15360),
    ],
)
def test_halves_are_so_many_units_apart(one, other, apart):
    assert ulp_apart(np.array([one], np.float16), np.array([other], np.float16))[0] == apart


def test_floats_of_opposite_sign_do_not_overflow():
    top = np.array([np.finfo(np.float32).max], np.float32)
    assert ulp_apart(top, -top)[0] == 2 * 0x7F7FFFFF


def test_where_types_differ_there_is_no_distance_and_values_decide():
    sums = measure_frame(1, overlapping(flat(0.5, kind=np.float16), flat(0.5))).sums
    assert sums.ulp is None
    assert sums.untouched == 320
    assert "max_ulp" not in named([sums])


def test_samples_beyond_one_unit_are_counted():
    b = flat(1.0, kind=np.float16)
    b[0, 0] = [1.0009765625, 1.001953125, 1.0]
    sums = measure_frame(1, overlapping(flat(1.0, kind=np.float16), b)).sums
    assert (sums.ulp, sums.beyond) == (2, 1)


# --- time ----------------------------------------------------------------------------------------


def frames_of(levels):
    """Return measured frames whose difference in display range is each of the levels."""
    a = flat(0.5)
    made = []
    for number, level in enumerate(levels, 1):
        b = decode((np.float32(0.7353569) - np.float32(level)) * np.ones_like(a))
        made.append(measure_frame(number, overlapping(a, b)))
    return made


def flicker_of(levels):
    found = frames_of(levels)
    steps = [step_between(*pair) for pair in itertools.pairwise(found)]
    return named([one.sums for one in found], steps)["flicker"]


def test_a_difference_that_stands_still_does_not_flicker():
    assert flicker_of([0.1, 0.1, 0.1]).value == pytest.approx(0.0, abs=SUM_SLACK)


def test_a_difference_that_turns_over_flickers_by_twice_itself():
    assert flicker_of([0.02, -0.02, 0.02]).value == pytest.approx(0.04, abs=SUM_SLACK)


def test_the_worst_flicker_names_both_frames():
    found = flicker_of([0.0, 0.0, 0.03])
    assert found.frame == "2-3"
    assert found.worst == pytest.approx(0.03, abs=SUM_SLACK)
    # Root of the mean of 0 and 0.03 squared.
    assert found.value == pytest.approx(0.03 / math.sqrt(2), abs=SUM_SLACK)


def test_what_a_and_b_do_alike_does_not_flicker():
    found = [measure_frame(n, overlapping(flat(v), flat(v))) for n, v in ((1, 0.1), (2, 9.0))]
    assert step_between(*found).change == 0.0


def test_a_pixel_counts_for_flicker_where_it_counts_in_both_frames():
    left = np.zeros((16, 20), bool)
    left[:, :10] = True
    a, b = flat(0.5), flat(0.6)
    one = measure_frame(1, overlapping(a, b, left))
    two = measure_frame(2, overlapping(a, b))
    assert step_between(one, two).samples == 16 * 10 * 3
