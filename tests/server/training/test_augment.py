# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp_server.training import augment
from gencomp_server.training.augment import Flip, Jitter, Move, Transformation


def test_luminance_is_a_gamma_and_one_changes_nothing():
    picture = np.array([0.0, 0.25, 1.0], np.float32)
    assert augment.luminance(picture, 0.5).tolist() == [0.0, 0.5, 1.0]
    assert augment.luminance(picture, 1.0).tolist() == picture.tolist()


def test_gammas_are_drawn_evenly_from_four_tenths_to_nineteen_tenths():
    drawn = [augment.draw_gamma(np.random.default_rng(i)) for i in range(2000)]
    assert min(drawn) >= 0.4
    assert max(drawn) <= 1.9
    assert np.mean(drawn) == pytest.approx(1.15, abs=0.04)
    assert np.mean(np.array(drawn) < 0.7) == pytest.approx(0.2, abs=0.04)


def test_flips_mirror_and_play_backwards():
    frames = np.arange(6).reshape(2, 1, 3, 1)
    assert Flip().of(frames).ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert Flip(across=True).of(frames).ravel().tolist() == [2, 1, 0, 5, 4, 3]
    assert Flip(in_time=True).of(frames).ravel().tolist() == [3, 4, 5, 0, 1, 2]
    assert Flip(True, True).of(frames).ravel().tolist() == [5, 4, 3, 2, 1, 0]


def test_all_four_flips_are_drawn_alike():
    drawn = [augment.draw_flip(np.random.default_rng(i)) for i in range(1000)]
    for flip in (Flip(), Flip(True), Flip(False, True), Flip(True, True)):
        assert drawn.count(flip) / 1000 == pytest.approx(0.25, abs=0.05)


def test_a_move_scales_about_the_middle_and_shifts():
    frames = np.zeros((1, 9, 9, 1), np.float32)
    frames[0, 4, 4] = 1
    shifted = augment.moved(frames, Move(1, 2, -1))
    assert shifted[0, 3, 6, 0] == 1
    assert shifted.sum() == 1
    grown = augment.moved(frames, Move(2.0))
    assert grown[0, 4, 4, 0] == 1
    assert grown.sum() == pytest.approx(4.0)


def test_the_kept_share_counts_what_stays_in_the_picture():
    matte = np.zeros((2, 10, 10, 1), np.float32)
    matte[:, :, 0:2] = 1
    assert augment.kept_share(matte, Move()) == 1
    assert augment.kept_share(matte, Move(1, -1, 0)) == 0.5
    assert augment.kept_share(matte, Move(1, 0, 5)) == 0.5
    assert augment.kept_share(matte * 0, Move(1, 99, 0)) == 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), x=st.integers(0, 40), y=st.integers(0, 24))
def test_a_drawn_move_keeps_nine_tenths_of_the_foreground(seed, x, y):
    matte = np.zeros((3, 32, 48, 1), np.float32)
    matte[:, y : y + 8, x : x + 8] = 1
    move = augment.draw_move(matte, np.random.default_rng(seed))
    assert 0.5 <= move.scale <= 2
    left = augment.moved(matte, move).sum() / move.scale**2
    assert left >= 0.85 * matte.sum()  # counted in pixels of the moved picture, resampled
    assert augment.kept_share(matte, move) >= 0.9


def test_moves_are_not_all_the_same_and_an_empty_matte_stays():
    matte = np.zeros((1, 32, 48, 1), np.float32)
    matte[:, 12:20, 20:28] = 1
    moves = [augment.draw_move(matte, np.random.default_rng(i)) for i in range(50)]
    assert len({move.scale for move in moves}) > 40
    assert augment.draw_move(matte * 0, np.random.default_rng(1)) == Move()


def test_transformations_have_the_probabilities_of_the_paper():
    matte = np.zeros((1, 16, 24, 1), np.float32)
    matte[:, 6:10, 10:14] = 1
    drawn = [augment.draw_transformation(matte, np.random.default_rng(i)) for i in range(1000)]
    shares = [
        np.mean([one.flip != Flip() for one in drawn]),
        np.mean([one.move != Move() for one in drawn]),
        np.mean([one.jitter != Jitter() for one in drawn]),
    ]
    assert shares == pytest.approx([0.7, 0.7, 0.2], abs=0.05)
    assert not any(one.flip.in_time for one in drawn)


def test_jitter_changes_what_the_matte_covers_and_nothing_else(drawn):
    shifted = augment.jittered(drawn.original, drawn.matte, Jitter(0.2, 0.1, -0.2, 0.1))
    outside = drawn.matte[..., 0] == 0
    assert np.array_equal(shifted[outside], drawn.original[outside])
    assert np.abs(shifted[~outside] - drawn.original[~outside]).max() > 0.05


def test_jitter_of_brightness_saturation_and_hue_is_what_it_says():
    red = np.zeros((1, 1, 1, 3), np.float32)
    red[..., 0] = 0.5
    whole = np.ones((1, 1, 1, 1), np.float32)
    assert augment.jittered(red, whole, Jitter(brightness=0.2)).ravel()[0] == pytest.approx(0.6)
    turned = augment.jittered(red, whole, Jitter(hue=1 / 3)).ravel()
    assert turned.tolist() == pytest.approx([0, 0.5, 0], abs=1e-5)
    grey = augment.jittered(red, whole, Jitter(saturation=-1.0)).ravel()
    assert grey.tolist() == pytest.approx([0.1495] * 3, abs=1e-4)


def test_a_foreground_and_its_matte_are_changed_alike(drawn):
    change = Transformation(Flip(across=True), Move(1, 3, 2))
    picture, matte = augment.transformed(drawn.original, drawn.matte, change)
    assert np.array_equal(matte > 0, (picture > 0).any(axis=3, keepdims=True))
    rows, columns = np.nonzero(matte[0, ..., 0])
    assert (rows[0], columns[0]) == (10, 48 - 20 + 3)
    assert picture[0, 12, 35].tolist() == [0.75, 0.5, 0.25]


def test_a_soft_edge_in_another_colour_has_no_rim(drawn):
    soft = drawn.matte * np.float32(0.02)
    soft[:, 10:14, 10:18] = 1
    change = Transformation(jitter=Jitter(brightness=0.2, contrast=-0.2))
    picture, matte = augment.transformed(drawn.original, soft, change)
    assert picture[0, 12, 12] / 1 == pytest.approx(picture[0, 9, 9] / 0.02, rel=1e-4)
    assert picture[..., 0][matte[..., 0] == np.float32(0.02)].max() <= 0.02


def test_the_centred_element_loses_its_path():
    picture = np.zeros((2, 60, 90, 3), np.float32)
    matte = np.zeros((2, 60, 90, 1), np.float32)
    for frame, (x, y) in enumerate(((5, 8), (60, 30))):
        picture[frame, y : y + 24, x : x + 24] = 0.2
        matte[frame, y : y + 24, x : x + 24] = 1
    element = augment.centred(picture, matte)
    assert np.allclose(element[0], element[1], atol=1e-5)
    dark = element[0, ..., 0] < 0.6
    assert dark.sum() == pytest.approx((24 / 1.2) ** 2, rel=0.15)
    rows, columns = np.nonzero(dark)
    assert (rows.mean(), columns.mean()) == pytest.approx((29.5, 44.5), abs=0.6)
    assert element[0, 0, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("side", "scale"), [(40, 1.0), (18, 2.0), (6, 4.0), (72, 1.0), (80, 0.5)])
def test_the_element_is_scaled_once_by_its_share_of_the_canvas(side, scale):
    picture = np.zeros((1, 60, 120, 3), np.float32)
    matte = np.zeros((1, 60, 120, 1), np.float32)
    matte[:, :, : max(1, side)] = 1  # as wide as it is, 60 high at most
    matte[:, min(side, 60) :] = 0
    dark = augment.centred(picture, matte)[0, ..., 0] < 0.5
    width = dark[30].sum()
    assert width == pytest.approx(side * scale / 1.2, abs=2)


def test_a_frame_without_the_element_is_white():
    picture, matte = np.zeros((2, 32, 32, 3), np.float32), np.zeros((2, 32, 32, 1), np.float32)
    matte[0, 8:24, 8:24] = 1
    assert (augment.centred(picture, matte)[1] == 1).all()
