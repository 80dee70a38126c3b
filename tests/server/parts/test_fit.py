# SPDX-License-Identifier: Apache-2.0
"""parts/fit.py: model sizes, positions that stay put, and alpha that follows the plate."""

import numpy as np
import pytest

from gencomp_server.parts import fit

# A blob's centre of mass after one or two resizes, in plate pixels: float32 sums only.
STAYS_PX = 0.01


def blob(width, height, x, y, radius):
    """Return a Gaussian blob [H,W,1] whose centre is (x, y) in pixel-index coordinates."""
    gx, gy = np.meshgrid(np.arange(width), np.arange(height))
    return np.exp(-((gx - x) ** 2 + (gy - y) ** 2) / (2 * radius**2))[..., None].astype(np.float32)


def centre(picture):
    """Return the centre of mass (x, y) in pixel-index coordinates."""
    gx, gy = np.meshgrid(np.arange(picture.shape[1]), np.arange(picture.shape[0]))
    weight = picture[..., 0].astype(np.float64)
    return (gx * weight).sum() / weight.sum(), (gy * weight).sum() / weight.sum()


@pytest.mark.parametrize(
    ("plate", "long_edge", "multiple", "expected"),
    [
        ((4096, 2160), 640, 1, (640, 338)),
        ((1080, 1920), 640, 1, (360, 640)),
        ((640, 384), 640, 1, (640, 384)),
        ((320, 200), 640, 1, (320, 200)),
        ((1920, 1080), 672, 16, (672, 384)),
        ((3, 2000), 640, 8, (8, 640)),
    ],
)
def test_the_model_format_fits_the_long_edge_and_never_enlarges(
    plate, long_edge, multiple, expected
):
    assert fit.model_format(*plate, long_edge, multiple) == expected


@pytest.mark.parametrize("size", [(100, 60), (128, 90), (77, 45)])
def test_going_to_model_size_keeps_a_blob_at_its_half_pixel_place(size):
    picture = blob(400, 240, 133.25, 96.5, 14.0)

    x, y = centre(fit.to_model_frame(picture, size))

    assert x == pytest.approx((133.25 + 0.5) * size[0] / 400 - 0.5, abs=STAYS_PX)
    assert y == pytest.approx((96.5 + 0.5) * size[1] / 240 - 0.5, abs=STAYS_PX)


def test_going_to_model_size_and_back_keeps_a_blob_where_it_was():
    picture = blob(411, 239, 133.25, 96.5, 20.0)

    back = fit.from_model_frame(fit.to_model_frame(picture, (120, 70)), (411, 239))

    assert back.shape == picture.shape
    assert centre(back) == pytest.approx((133.25, 96.5), abs=2 * STAYS_PX)


def test_going_to_model_size_averages_by_area():
    stripes = np.zeros((4, 4, 1), np.float32)
    stripes[:, 1::2] = 8.0

    assert np.array_equal(fit.to_model_frame(stripes, (2, 2)), np.full((2, 2, 1), 4.0, np.float32))


def test_one_side_may_shrink_while_the_other_grows():
    picture = np.arange(4, dtype=np.float32).reshape(1, 4, 1)

    assert np.array_equal(
        fit.to_model_frame(picture, (2, 2))[..., 0], np.array([[0.5, 2.5], [0.5, 2.5]], np.float32)
    )


def test_the_same_size_is_a_copy_and_keeps_every_number():
    picture = np.array([[[-1.0], [65504.0]]], np.float16)

    same = fit.to_model_frame(picture, (2, 1))

    assert same.dtype == np.float32
    assert same.tolist() == [[[-1.0], [65504.0]]]


def test_steered_alpha_follows_the_edge_in_the_plate_better_than_interpolation():
    gx, gy = np.meshgrid(np.arange(480) + 0.5, np.arange(320) + 0.5)
    alpha = (np.hypot(gx - 233, gy - 151) < 90).astype(np.float32)[..., None]
    plate = np.where(alpha > 0, np.float32(0.5), np.float32(0.1)) * np.ones(3, np.float32)
    low = fit.to_model_frame(alpha, (80, 53))

    steered = fit.upsample_steered(low, fit.to_model_frame(plate, (80, 53)), plate)
    plain = fit.from_model_frame(low, (480, 320))

    assert np.abs(steered - alpha).mean() < 0.5 * np.abs(plain - alpha).mean()
    assert steered.min() >= 0.0
    assert steered.max() <= 1.0


def test_steered_alpha_of_a_level_alpha_is_that_level_whatever_the_plate_shows():
    plate = np.zeros((64, 64, 3), np.float32)
    plate[::2] = 8.0
    low = np.full((16, 16, 1), 0.25, np.float32)

    steered = fit.upsample_steered(low, fit.to_model_frame(plate, (16, 16)), plate)

    assert np.array_equal(steered, np.full((64, 64, 1), 0.25, np.float32))


def test_steered_alpha_survives_nan_and_infinity_in_the_plate():
    plate = np.full((64, 64, 3), 0.2, np.float32)
    plate[10, 10], plate[20, 20] = np.nan, np.inf
    low = fit.to_model_frame(blob(64, 64, 30, 30, 8.0), (16, 16))

    steered = fit.upsample_steered(low, np.full((16, 16, 3), 0.2, np.float32), plate)

    assert np.isfinite(steered).all()
