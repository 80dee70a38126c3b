# SPDX-License-Identifier: Apache-2.0
"""The figures of the preview, on pictures whose figures are known."""

import math

import pytest
import torch

from gencomp_server.training.preview_measures import (
    blockiness,
    centre,
    changed_pixels,
    correlation,
    edginess,
    energy,
    hue_error,
    psnr,
    share_inside,
    share_removed,
)


def flat(value, *, like=(2, 4, 6, 3)):
    return torch.full(like, float(value))


def left_half():
    mask = torch.zeros(2, 4, 6, 1, dtype=torch.bool)
    mask[:, :, :3] = True
    return mask


def test_psnr_of_a_tenth_is_20_db_where_the_mask_is():
    found = flat(0.5)
    found[:, :, 3:] = 0.9
    assert psnr(found, flat(0.4), left_half()) == pytest.approx(20.0, abs=1e-4)


def test_light_above_one_counts_as_one():
    assert psnr(flat(7.0), flat(3.0), left_half()) == 100.0


def test_psnr_of_nothing_is_no_number():
    assert math.isnan(psnr(flat(1), flat(0), torch.zeros(2, 4, 6, 1)))


def test_the_share_inside_counts_energy():
    change = flat(1.0)
    change[:, :, 3:] = 2.0
    assert share_inside(change, left_half()) == pytest.approx(0.2)


@pytest.mark.parametrize(("found", "share"), [(0.2, 0.0), (0.4, 1.0), (0.3, 0.75), (0.6, 0.0)])
def test_the_share_removed_is_energy_that_is_gone(found, share):
    got = share_removed(flat(0.2), flat(found), flat(0.4), left_half())
    assert got == pytest.approx(share, abs=1e-5)


def test_correlation_hears_form_and_not_size():
    form = torch.rand(2, 4, 6, 3, generator=torch.Generator().manual_seed(1))
    assert correlation(form * 3 + 1, form, left_half()) == pytest.approx(1, abs=1e-5)
    assert correlation(-form, form, left_half()) == pytest.approx(-1, abs=1e-5)


def test_a_pixel_is_changed_from_two_hundredths_of_the_code_on():
    after = flat(0.0)
    after[0, 0, 0, 1], after[0, 0, 1, 1] = 0.041, 0.039
    found = changed_pixels(flat(0.0), after)
    assert found[0, 0, :2, 0].tolist() == [True, False]


def test_energy_is_the_mean_square():
    assert energy(flat(-0.5)) == pytest.approx(0.25)


def test_the_centre_is_where_the_weight_is():
    assert centre(left_half().float()) == pytest.approx(0.25)
    assert centre(flat(1.0)) == pytest.approx(0.5)


def test_a_hard_edge_is_steeper_than_a_soft_one_whatever_its_size():
    x = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 8, 32, 1)
    hard, soft = (x > 15.5).float(), torch.sigmoid((x - 15.5) / 4)
    assert edginess(hard) > 2 * edginess(soft)
    assert edginess(3 * hard) == pytest.approx(edginess(hard), rel=1e-5)


@pytest.mark.parametrize(
    ("colour", "at", "error"),
    [((1, 0, 0), 0, 0), ((1, 0, 0), 1, 120), ((0, 0, 2), 2, 0), ((1, 1, 0), 0, 60)],
)
def test_a_hue_is_off_by_its_angle(colour, at, error):
    assert hue_error(torch.tensor(colour, dtype=torch.float32), at) == pytest.approx(
        error, abs=1e-3
    )


@pytest.mark.parametrize("dim", [1, 2])
def test_blocks_show_in_rows_and_in_columns(dim):
    draws = torch.Generator().manual_seed(1)
    plain = torch.randn(2, 32, 32, 3, generator=draws) * 0.1
    cells = torch.randn(4, generator=draws).repeat_interleave(8)
    shape = [1, 1, 1, 1]
    shape[dim] = 32
    assert blockiness(plain, torch.zeros_like(plain), 8) == pytest.approx(1, abs=0.1)
    assert blockiness(plain + cells.view(shape), torch.zeros_like(plain), 8) > 3
