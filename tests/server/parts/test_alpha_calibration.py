# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from gencomp_server.parts.calibration import EXACT, calibrate, condition_frame
from gencomp_server.training.shots import ProceduralShot, ShotSpec


@pytest.fixture(scope="module")
def pictures():
    shot = ProceduralShot(ShotSpec(seed=11, width=320, height=192, frames=2))
    matte = shot.matte("a", 1002)[..., 0] > 0
    return shot.plate(1002), shot.clean_plate(1002), matte


def moved(picture, x, y):
    matrix = np.float32([[1, 0, x], [0, 1, y]])
    size = (picture.shape[1], picture.shape[0])
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=1)


def test_an_exact_clean_plate_is_known_as_such_and_left_alone(pictures):
    plate, clean, matte = pictures
    fit = calibrate(plate, clean, matte)
    assert fit == EXACT
    assert condition_frame(plate, clean, matte, fit) is clean


def test_half_float_pictures_still_count_as_exact(pictures):
    plate, clean, matte = (p.astype(np.float16).astype(np.float32) for p in pictures)
    assert calibrate(plate, clean, matte > 0).exact


@pytest.mark.parametrize(("x", "y"), [(1.0, 0.5), (-0.75, 0.25), (0.0, -1.5)])
def test_a_known_shift_is_found_with_its_sign(pictures, x, y):
    plate, clean, matte = pictures
    fit = calibrate(plate, moved(clean, x, y), matte)
    assert fit.shift == pytest.approx((-x, -y), abs=0.05)


def test_mending_a_shift_brings_the_clean_plate_back(pictures):
    plate, clean, matte = pictures
    off = moved(clean, 1.0, 0.0)
    fit = calibrate(plate, off, matte)
    mended = condition_frame(plate, off, matte, fit)
    inner = np.s_[8:-8, 8:-8]
    before = np.abs(off - clean)[inner].mean()
    assert np.abs(mended - clean)[inner].mean() <= 0.15 * before


def test_the_noise_is_measured_in_display_units(pictures):
    clean = np.full((192, 320, 3), 0.2176, np.float32)  # 0.5 ** 2.2: display slope 1 / 0.957
    rng = np.random.default_rng(2)
    noisy = clean + 0.01 * rng.standard_normal(clean.shape, dtype=np.float32)
    fit = calibrate(clean, noisy, np.zeros((192, 320), bool))
    assert fit.sigma == pytest.approx(0.01 * 0.5 / (2.2 * 0.2176), rel=0.05)
    assert fit.drift == ()


def test_a_slow_drift_is_taken_out_and_smoke_is_not(pictures):
    plate, clean, matte = pictures
    x = np.linspace(-1.0, 1.0, 320, dtype=np.float32)[None, :, None]
    drifted = clean * (1.0 + 0.03 * x)
    fit = calibrate(plate, drifted, matte)
    mended = condition_frame(plate, drifted, matte, fit)
    assert np.abs(mended - clean).mean() <= 0.25 * np.abs(drifted - clean).mean()
    noisy = clean + 0.01 * np.random.default_rng(3).standard_normal(clean.shape, np.float32)
    assert calibrate(plate, noisy, matte).drift == ()


def test_a_softer_clean_plate_is_met_by_softening_the_plate(pictures):
    plate, clean, matte = pictures
    fit = calibrate(plate, cv2.GaussianBlur(clean, (0, 0), 1.0), matte)
    assert fit.soften_plate == pytest.approx(1.0, abs=0.2)
    assert fit.soften_clean == 0.0


def test_a_frame_that_the_mattes_fill_is_taken_as_noisy_rather_than_exact(pictures):
    plate, clean, _ = pictures
    fit = calibrate(plate, clean, np.ones(plate.shape[:2], bool))
    assert not fit.exact
    assert fit.sigma == 0.01
