# SPDX-License-Identifier: Apache-2.0
"""The noise floor: measured right, and grain never becomes coverage."""

import cv2
import numpy as np
import pytest

from gencomp_server.parts.noise import NoiseFloor, coverage, evidence, measure_noise

FLOAT = np.float32


def place(side=(360, 640), seed=1):
    """A smooth coloured picture between 0.05 and 0.85. [H,W,3]."""
    rng = np.random.default_rng([seed, 1])
    small = rng.random((side[0] // 20, side[1] // 20, 3)).astype(FLOAT)
    return cv2.resize(small, side[::-1]) * FLOAT(0.8) + FLOAT(0.05)


def grain(clean, sigma, seed=1, *, clumped=False, grey=False):
    """Gaussian grain of a given size. [H,W,3]."""
    rng = np.random.default_rng([seed, 2])
    found = rng.standard_normal((*clean.shape[:2], 1 if grey else 3), dtype=FLOAT)
    found = found * np.ones(3, FLOAT)
    if clumped:
        found = cv2.GaussianBlur(found, (0, 0), 1.0)
        found /= found.std()
    return (found * sigma).astype(FLOAT)


def nothing(clean):
    return np.zeros(clean.shape[:2], bool)


def test_a_level_sigma_is_found():
    clean = place()
    floor = measure_noise([(clean + grain(clean, 0.005), clean, nothing(clean))])
    assert floor.sigma == pytest.approx(0.005, rel=0.05)


def test_the_sigma_of_a_box_is_a_fifth_for_independent_grain():
    clean = place()
    floor = measure_noise([(clean + grain(clean, 0.005), clean, nothing(clean))])
    assert floor.sigma_box == pytest.approx(0.001, rel=0.1)


def test_sigma_is_found_as_a_function_of_luminance():
    clean = place()
    plate = clean + grain(clean, 1.0) * (FLOAT(0.002) + FLOAT(0.01) * clean)
    floor = measure_noise([(plate, clean, nothing(clean))])
    assert (np.diff(floor.levels) > 0).all()
    wanted = 0.002 + 0.01 * floor.levels
    assert floor.sigma.mean(axis=1) == pytest.approx(wanted, rel=0.1)


def test_what_is_covered_does_not_count():
    clean = place()
    plate, covered = clean + grain(clean, 0.005), nothing(clean)
    plate[:, 200:400] = 0.9
    covered[:, 200:400] = True
    floor = measure_noise([(plate, clean, covered)])
    assert floor.sigma == pytest.approx(0.005, rel=0.05)


def test_an_unmasked_shadow_hardly_moves_the_floor():
    clean = place()
    plate = clean + grain(clean, 0.005)
    plate[100:200, 100:250] *= 0.6
    floor = measure_noise([(plate, clean, nothing(clean))])
    assert floor.sigma == pytest.approx(0.005, rel=0.15)


def test_a_plate_that_is_the_clean_plate_has_no_noise():
    clean = place()
    floor = measure_noise([(clean, clean, nothing(clean))])
    assert not floor.sigma.any()


def test_nan_in_a_plate_is_left_out():
    clean = place()
    plate = clean + grain(clean, 0.005)
    plate[::50, ::50] = np.nan
    floor = measure_noise([(plate, clean, nothing(clean))])
    assert floor.sigma == pytest.approx(0.005, rel=0.05)


def test_a_shot_covered_everywhere_has_a_floor_of_nothing():
    clean = place()
    floor = measure_noise([(clean, clean, ~nothing(clean))])
    assert floor.sigma.tolist() == [[0, 0, 0]]


def test_the_floor_of_a_frame_is_sigmas_of_the_noisiest_channel():
    floor = NoiseFloor(
        FLOAT([0.0, 1.0]), FLOAT([[0.01, 0.02, 0.01], [0.03, 0.04, 0.03]]), FLOAT([[0] * 3] * 2)
    )
    found = floor.floor(np.full((2, 3, 3), 0.5, FLOAT), sigmas=2.0)
    assert found.shape == (2, 3, 1)
    assert found == pytest.approx(0.06)


@pytest.mark.parametrize("clumped", [False, True])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pure_grain_covers_nothing(clumped, grey, seed):
    clean = place((540, 960), seed)
    plate = clean + grain(clean, 0.01, seed, clumped=clumped, grey=grey)
    floor = measure_noise([(plate, clean, nothing(clean))])
    alpha = np.full((540, 960, 1), 0.02, FLOAT)
    assert int((coverage(alpha, plate, clean, floor) > 0).sum()) == 0


def soft_shadow(shape, deepest):
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(FLOAT)
    reach = np.hypot(rows - shape[0] / 2, cols - shape[1] / 2) / FLOAT(60)
    return (deepest * np.exp(-(reach**2)))[..., None].astype(FLOAT)


def test_a_faint_shadow_above_the_floor_is_covered():
    clean = place()
    shade = soft_shadow(clean.shape, 0.06)
    plate = clean * (1 - shade) + grain(clean, 0.005)
    floor = measure_noise([(plate, clean, shade[..., 0] > 0.001)])
    found = coverage(shade, plate, clean, floor)
    assert found[shade > 0.03].mean() > 0.99
    assert found.shape == shade.shape


def test_coverage_starts_softly():
    clean = np.full((200, 200, 3), 0.4, FLOAT)
    shade = soft_shadow(clean.shape, 0.1)
    plate = clean * (1 - shade) + grain(clean, 0.005)
    floor = measure_noise([(plate, clean, shade[..., 0] > 0.001)])
    found = coverage(shade, plate, clean, floor)
    assert ((found > 0) & (found < 1)).sum() > 100


def test_the_matte_is_covered_whatever_the_evidence():
    clean = place()
    matte = np.zeros((*clean.shape[:2], 1), FLOAT)
    matte[100:200, 100:200] = 1
    floor = measure_noise([(clean + grain(clean, 0.005), clean, nothing(clean))])
    found = coverage(matte, clean, clean, floor, matte=matte)
    assert found[100:200, 100:200].min() == 1
    assert int((found > 0).sum()) == 100 * 100


def test_without_alpha_there_is_no_coverage_whatever_the_evidence():
    clean = place()
    floor = measure_noise([(clean + grain(clean, 0.005), clean, nothing(clean))])
    found = coverage(np.zeros((*clean.shape[:2], 1), FLOAT), clean * 2, clean, floor)
    assert not found.any()


def test_evidence_counts_sigmas_of_the_averaged_difference():
    clean = np.full((40, 40, 3), 0.5, FLOAT)
    floor = NoiseFloor(FLOAT([0.0]), FLOAT([[0.05] * 3]), FLOAT([[0.01] * 3]))
    assert evidence(clean + FLOAT(0.04), clean, floor) == pytest.approx(4.0, rel=1e-3)


def test_evidence_does_not_depend_on_the_strips_it_is_made_in():
    clean = place((700, 640))
    plate = clean + grain(clean, 0.01)
    floor = measure_noise([(plate, clean, nothing(clean))])
    whole, part = evidence(plate, clean, floor), evidence(plate[300:], clean[300:], floor)
    assert whole[310:] == pytest.approx(part[10:], abs=1e-3)
