# SPDX-License-Identifier: Apache-2.0
"""The alpha solver on small procedural shots and closed forms.

The bounds are those of 320x192 pictures, where limbs are four pixels wide; the figures at
640x384 are what ``benchmarks/bench_alpha.py`` measures.
"""

import cv2
import numpy as np
import pytest

from gencomp_server.parts.alpha import (
    EXACT,
    ROUGH,
    Calibration,
    calibrate,
    condition_frame,
    seen_change,
    solve_frame,
)
from gencomp_server.training.shots import ProceduralShot, ShotSpec

HALF_STEP = 1e-6  # float32 rounding of a sum of three products of order one


@pytest.fixture(scope="module")
def shot():
    return ProceduralShot(ShotSpec(seed=11, width=320, height=192, frames=4))


@pytest.fixture(scope="module")
def exact(shot):
    return solve_frame(shot.plate(1003), shot.clean_plate(1003), shot.matte("a", 1003))


def ground(height=96, width=128):
    """Return a textured, grey-brown floor with a fixed pattern of fine and coarse waves."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    fine = np.sin(1.7 * x + 0.3 * y) * np.sin(1.3 * y - 0.2 * x)
    coarse = np.sin(0.31 * x) * np.cos(0.27 * y)
    light = 0.3 + 0.06 * fine + 0.05 * coarse
    return (light[..., None] * np.array([1.1, 1.0, 0.85])).astype(np.float32)


def error(solved, shot, n, region):
    return float(np.abs(solved.alpha[..., 0] - shot.layer("a", n)[..., 3])[region].mean())


def changed_by(shot, n):
    return shot.layer("a", n)[..., 3] > 0.002


def test_with_an_exact_clean_plate_the_alpha_is_near_the_true_one(exact, shot):
    assert error(exact, shot, 1003, changed_by(shot, 1003)) <= 0.030


def test_with_an_exact_clean_plate_nothing_outside_the_layer_is_covered(exact, shot):
    outside = shot.layer("a", 1003)[..., 3] == 0.0
    assert np.all(exact.alpha[..., 0][outside] == 0.0)
    assert np.all(exact.colour[outside] == 0.0)


def test_the_solved_layer_over_another_plate_looks_like_the_true_one(exact, shot):
    new = ProceduralShot(ShotSpec(seed=77, width=320, height=192, frames=4)).clean_plate(1003)
    truth = shot.layer("a", 1003)
    ours = np.clip(exact.colour + (1 - exact.alpha) * new, 0, 1) ** (1 / 2.2)
    wanted = np.clip(truth[..., :3] + (1 - truth[..., 3:]) * new, 0, 1) ** (1 / 2.2)
    mean_square = float(((ours - wanted)[changed_by(shot, 1003)] ** 2).mean())
    assert -10 * np.log10(mean_square) >= 40.0


def test_the_solved_layer_over_its_own_clean_plate_is_the_plate(exact, shot):
    again = exact.colour + (1 - exact.alpha) * shot.clean_plate(1003)
    covered = exact.changed[..., 0] & (shot.plate(1003).min(axis=2) >= 0)
    assert np.abs(again - shot.plate(1003))[covered].max() <= 1e-3


def test_equal_inputs_give_equal_bits(exact, shot):
    again = solve_frame(shot.plate(1003), shot.clean_plate(1003), shot.matte("a", 1003))
    assert np.array_equal(exact.alpha, again.alpha)
    assert np.array_equal(exact.colour, again.colour)


def test_inputs_are_left_as_they_are(shot):
    plate, clean = shot.plate(1002).copy(), shot.clean_plate(1002).copy()
    solve_frame(plate, clean, shot.matte("a", 1002))
    assert np.array_equal(plate, shot.plate(1002))
    assert np.array_equal(clean, shot.clean_plate(1002))


def test_a_plate_that_is_its_clean_plate_has_no_layer():
    clean = ground()
    solved = solve_frame(clean, clean, np.zeros((96, 128, 1), np.float32))
    assert not solved.alpha.any()
    assert not solved.changed.any()


def test_a_pure_shadow_is_found_as_the_light_it_takes():
    clean = ground()
    y, x = np.mgrid[:96, :128].astype(np.float32)
    shadow = (0.5 * np.exp(-((x - 80) ** 2 + (y - 60) ** 2) / 200))[..., None]
    shadow[shadow < 1e-3] = 0.0
    matte = np.zeros((96, 128, 1), np.float32)
    matte[20:30, 20:30] = 1.0
    solved = solve_frame((1 - shadow) * clean, clean, matte)
    assert np.abs(solved.alpha - shadow)[matte == 0].max() <= 0.01
    assert float(solved.colour[40:80, 60:100].max()) <= 0.005


def test_an_opaque_object_is_opaque_within_its_matte():
    clean = ground()
    plate = clean.copy()
    plate[30:70, 40:90] = [0.6, 0.05, 0.04]
    matte = np.zeros((96, 128, 1), np.float32)
    matte[30:70, 40:90] = 1.0
    solved = solve_frame(plate, clean, matte)
    assert np.all(solved.alpha[36:64, 46:84] == 1.0)
    assert solved.alpha[30:70, 40:90].mean() >= 0.99


def test_a_veil_is_read_off_the_texture_it_lets_through():
    clean = ground()
    veil = np.zeros((96, 128, 1), np.float32)
    veil[20:76, 30:100] = 0.4
    plate = (1 - veil) * clean + veil * np.array([0.7, 0.7, 0.7], np.float32)
    matte = np.zeros((96, 128, 1), np.float32)
    matte[2:8, 2:8] = 1.0
    solved = solve_frame(plate, clean, matte)
    assert np.abs(solved.alpha[30:66, 40:90] - 0.4).mean() <= 0.02


def test_a_highlight_seen_by_half_bounds_alpha_to_a_half():
    clean = ground()
    clean[40:50, 60:70] = 8.0
    plate = clean.copy()
    plate[20:80, 40:100] = 0.5 * clean[20:80, 40:100] + 0.5 * 0.2
    matte = np.zeros((96, 128, 1), np.float32)
    matte[20:80, 40:100] = 1.0
    solved = solve_frame(plate, clean, matte)
    assert solved.alpha[42:48, 62:68].max() <= 0.6
    assert solved.alpha[42:48, 62:68].min() >= 0.45


def test_the_object_alpha_leaves_the_shadow_out(exact, shot):
    shadow = shot.effect_layers("a", 1003)["shadow"][..., 3]
    far = (shadow > 0.05) & (cv2.dilate(shot.matte("a", 1003), np.ones((25, 25))) == 0)
    assert far.sum() > 50
    assert exact.alpha[..., 0][far].mean() > 0.05
    assert np.all(exact.object_alpha[..., 0][far] == 0.0)
    core = shot.object_layer("a", 1003)[..., 3] > 0.999
    assert exact.object_alpha[..., 0][core].mean() > 0.95


@pytest.mark.parametrize("grow", [-3, 3])
def test_a_doubted_matte_three_pixels_off_is_mended(shot, grow):
    matte = shot.matte("a", 1003, grow, 0)
    solved = solve_frame(shot.plate(1003), shot.clean_plate(1003), matte, EXACT, ROUGH)
    assert error(solved, shot, 1003, changed_by(shot, 1003)) <= 0.040


def test_noise_in_the_clean_plate_does_not_become_alpha_outside(shot):
    rng = np.random.default_rng(1)
    clean = shot.clean_plate(1003)
    noisy = clean + 0.005 * rng.standard_normal(clean.shape, dtype=np.float32)
    matte = shot.matte("a", 1003)
    fit = calibrate(shot.plate(1003), noisy, matte[..., 0] > 0)
    mended = condition_frame(shot.plate(1003), noisy, matte[..., 0] > 0, fit)
    solved = solve_frame(shot.plate(1003), mended, matte, fit)
    outside = shot.layer("a", 1003)[..., 3] == 0.0
    assert solved.alpha[..., 0][outside].mean() <= 0.003
    assert error(solved, shot, 1003, changed_by(shot, 1003)) <= 0.060


def test_a_scene_that_moves_by_itself_is_left_in_the_background():
    clean = ground(192, 256)
    plate, restless = clean.copy(), np.zeros((192, 256, 1), np.float32)
    plate[40:160:8, 120:240] *= 1.25
    plate += np.float32(0.002) * np.sin(np.arange(256, dtype=np.float32) * 2.1)[None, :, None]
    plate[80:120, 90:112] = [0.6, 0.05, 0.04]
    matte = np.zeros((192, 256, 1), np.float32)
    matte[80:120, 90:112] = 1.0
    fit = Calibration(exact=False, sigma=0.003)
    restless[30:170, 115:245] = float(seen_change(plate, clean, fit)[40:160, 130:240].max())
    alone = solve_frame(plate, clean, matte, fit).alpha
    told = solve_frame(plate, clean, matte, fit, restless=restless).alpha
    assert alone[40:160, 124:240].mean() > 0.01
    assert np.all(told[40:160, 124:240] == 0.0)
    assert told[86:114, 96:106].min() > 0.95


def test_an_empty_matte_still_solves_the_effects():
    clean = ground()
    plate = clean.copy()
    plate[30:60, 30:60] *= 0.6
    solved = solve_frame(plate, clean, np.zeros((96, 128, 1), np.float32))
    assert solved.alpha[38:52, 38:52].mean() == pytest.approx(0.4, abs=0.01)


def test_smoke_that_drifted_off_stays_and_a_fleck_as_far_away_does_not():
    clean = ground(256, 384)
    plate = clean + np.float32(0.002) * np.sin(np.arange(384, dtype=np.float32) * 2.1)[:, None]
    plate[30:226, 20:200] += 0.5 * (0.8 - plate[30:226, 20:200])
    plate[20:28, 360:370] = 0.8
    plate[100:150, 280:310] = [0.6, 0.05, 0.04]
    matte = np.zeros((256, 384, 1), np.float32)
    matte[100:150, 280:310] = 1.0
    alpha = solve_frame(plate, clean, matte, Calibration(exact=False, sigma=0.003)).alpha
    assert alpha[60:200, 50:170].mean() > 0.35
    assert np.all(alpha[15:33, 355:375] == 0.0)
