# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from gencomp_server.parts.trimask import EDIT, KEEP, UNKNOWN
from gencomp_server.training import masks

HEIGHT, WIDTH = 384, 256


def pictures(count=5):
    return np.full((count, HEIGHT, WIDTH, 3), 0.5, np.float32)


def square(mask):
    return mask[:, 60:120, 80:160, 0]


def test_the_effect_mask_is_where_the_pictures_differ():
    truth, over = pictures(), pictures()
    truth[:, 60:120, 80:160] = 0.3
    found = masks.effect_mask(truth, over)
    assert found.shape == (5, HEIGHT, WIDTH, 1)
    # Eroded by 3 and dilated by 7 at 384 lines: two pixels around, but for the corners.
    assert square(found).all()
    assert 64 * 84 - 16 <= found[2].sum() <= 64 * 84


def test_the_effect_mask_drops_specks_and_flashes_of_one_frame():
    truth, over = pictures(), pictures()
    truth[:, 60:120, 80:160] = 0.3
    truth[:, 20, 30] = 0.0  # a speck on every frame
    truth[2, 150:180, 20:60] = 0.0  # a flash on one
    found = masks.effect_mask(truth, over)
    assert not found[:, :40].any()
    assert not found[:, 145:].any()
    assert square(found).all()


def test_the_effect_mask_ignores_noise_below_otsus_threshold():
    rng = np.random.default_rng(3)
    truth, over = pictures(), pictures()
    truth += rng.normal(0, 0.01, truth.shape).astype(np.float32)
    truth[:, 60:120, 80:160] -= 0.25
    found = masks.effect_mask(truth, over)
    assert square(found).all()
    assert found.sum() < 1.15 * 5 * 60 * 80


def test_equal_pictures_have_no_effect_mask_and_neither_has_faint_noise():
    over = pictures()
    assert not masks.effect_mask(over, over).any()
    assert not masks.effect_mask(over + np.float32(2 / 255), over).any()


def test_grey_replaces_no_frame_some_frames_or_all():
    kinds = {"none": 0, "some": 0, "all": 0}
    for seed in range(2000):
        grey = masks.grey_frames(8, np.random.default_rng(seed))
        kinds["all" if grey.all() else "some" if grey.any() else "none"] += 1
    assert kinds["all"] / 2000 == pytest.approx(0.33, abs=0.05)  # 0.3, and some of "some"
    assert kinds["some"] / 2000 == pytest.approx(0.24, abs=0.05)
    assert kinds["none"] / 2000 == pytest.approx(0.43, abs=0.05)


def test_grey_frames_say_nothing_and_the_others_say_the_mask():
    mask = np.zeros((2, 8, 8, 1), bool)
    mask[:, :4] = True
    asked = masks.over_trimask(mask, np.array([True, False]))
    assert (asked[0] == UNKNOWN).all()
    assert (asked[1, :4] == EDIT).all()
    assert (asked[1, 4:] == KEEP).all()


def test_the_trimask_removes_keeps_and_leaves_the_background_open():
    removed, kept = np.zeros((2, 1, 16, 16, 1), bool)
    removed[0, 2:5, 2:5] = True
    kept[0, 10:12, 10:12] = True
    asked = masks.casper_trimask(removed, kept, effects=True)
    assert (asked == EDIT).sum() == 9
    assert (asked == KEEP).sum() == 4
    assert (asked == UNKNOWN).sum() == 256 - 13


def test_what_leaves_no_effects_asks_to_preserve_all_else():
    removed = np.zeros((1, 16, 16, 1), bool)
    removed[0, 2:5, 2:5] = True
    asked = masks.casper_trimask(removed, np.zeros_like(removed), effects=False)
    assert (asked == KEEP).sum() == 256 - 9


def test_labels_are_switched_from_white_to_grey_in_half_of_the_clips_and_black_never():
    classes = np.array([EDIT, KEEP, UNKNOWN], np.uint8).reshape(1, 1, 3, 1)
    seen = [masks.switch_labels(classes, np.random.default_rng(i)).ravel() for i in range(1000)]
    switched = [one for one in seen if list(one) == [EDIT, UNKNOWN, UNKNOWN]]
    untouched = [one for one in seen if list(one) == [EDIT, KEEP, UNKNOWN]]
    assert len(switched) + len(untouched) == 1000
    assert len(switched) / 1000 == pytest.approx(0.5, abs=0.06)


def test_sides_scale_with_the_picture_and_stay_odd():
    assert [masks.odd(11, lines) for lines in (384, 192, 1080, 32)] == [11, 5, 31, 1]
