# SPDX-License-Identifier: Apache-2.0
"""Classes inside, numbers only at the model's door."""

import numpy as np
import pytest

from gencomp_server.parts.trimask import (
    CONVENTIONS,
    EDIT,
    FOLDED,
    KEEP,
    ONE_CHANNEL,
    UNKNOWN,
    build,
    dilate,
    encode,
    erode,
    resize_classes,
)


def row(*values, dtype=np.uint8):
    """One frame of one row. [1,1,W,1]."""
    return np.array(values, dtype).reshape(1, 1, -1, 1)


def frame(rows, dtype=np.uint8):
    """One frame. [1,H,W,1]."""
    return np.array(rows, dtype)[None, ..., None]


# --- classes -------------------------------------------------------------------------------------


def test_edit_wins_over_keep_and_keep_over_unknown():
    edit = row(1, 1, 1, 1, 0, 0, 0, 0)
    keep = row(1, 1, 0, 0, 1, 1, 0, 0)
    unknown = row(1, 0, 1, 0, 1, 0, 1, 0)
    made = build(edit, keep, unknown, rest=KEEP)
    assert made.flatten().tolist() == [EDIT, EDIT, EDIT, EDIT, KEEP, KEEP, UNKNOWN, KEEP]


def test_what_no_map_claims_is_kept_unless_said_otherwise():
    assert build(row(1, 0)).flatten().tolist() == [EDIT, KEEP]
    assert build(row(1, 0), rest=UNKNOWN).flatten().tolist() == [EDIT, UNKNOWN]


def test_maps_are_boolean_or_eight_bits_where_anything_not_zero_is_in():
    assert build(row(True, False, dtype=bool)).flatten().tolist() == [EDIT, KEEP]
    assert build(row(255, 1, 0)).flatten().tolist() == [EDIT, EDIT, KEEP]


def test_coverage_is_no_map():
    with pytest.raises(ValueError, match="'edit' is float32"):
        build(row(0.4, 0.6, dtype=np.float32))


def test_maps_of_other_sizes_are_refused_by_name():
    with pytest.raises(ValueError, match="'keep'"):
        build(row(1, 0), row(1, 0, 0))
    with pytest.raises(ValueError, match="'edit'"):
        build(np.zeros((2, 2), bool))


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keep", "unknown", "edit"),
    [
        # After the VAE's factor of 0.7 these are 0.7, 0.3514 and 0.
        ("casper", 1.0, 128 / 255, 0.0),
        ("casper_wan", 1.0, 128 / 255, 0.0),
        ("overplusplus", 1.0, 128 / 255, 0.0),
        ("fun_inpaint", 1.0, 1.0, 0.0),
    ],
)
def test_each_model_reads_its_own_numbers(name, keep, unknown, edit):
    found = encode(row(KEEP, UNKNOWN, EDIT), CONVENTIONS[name])
    assert found.dtype == np.float32
    assert found.shape == (1, 1, 3, 1)
    assert found.flatten().tolist() == pytest.approx([keep, unknown, edit], abs=1e-7)


def test_there_are_four_conventions():
    assert set(CONVENTIONS) == {"casper", "casper_wan", "overplusplus", "fun_inpaint"}


def test_wan_alone_folds_and_plain_inpainting_alone_blanks():
    assert {name for name, one in CONVENTIONS.items() if one.layout == FOLDED} == {"casper_wan"}
    assert {name for name, one in CONVENTIONS.items() if one.layout == ONE_CHANNEL} == {
        "casper",
        "overplusplus",
        "fun_inpaint",
    }
    assert {name for name, one in CONVENTIONS.items() if one.zero_edit} == {"fun_inpaint"}


def test_the_conventions_cannot_be_changed():
    with pytest.raises(TypeError):
        CONVENTIONS["casper"] = CONVENTIONS["casper_wan"]


def test_a_value_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="not 255"):
        encode(row(0, 255), CONVENTIONS["casper"])


# --- growing and shrinking -----------------------------------------------------------------------


def test_a_square_of_three_grows_a_dot_by_one_pixel_all_round():
    dot = np.zeros((1, 5, 5, 1), np.uint8)
    dot[0, 2, 2] = 1
    expected = np.zeros((1, 5, 5, 1), np.uint8)
    expected[0, 1:4, 1:4] = 1
    assert np.array_equal(dilate(dot, 3), expected)


def test_growth_stays_inside_its_frame():
    matte = np.zeros((3, 4, 4, 1), np.uint8)
    matte[1, 0, 0] = 1
    grown = dilate(matte, 11)
    assert grown[:, ..., 0].sum(axis=(1, 2)).tolist() == [0, 16, 0]


def test_the_pictures_edge_does_not_shrink_a_matte():
    assert erode(np.ones((1, 4, 4, 1), np.uint8), 5).all()


def test_shrinking_undoes_the_growth_of_a_dot():
    dot = np.zeros((1, 9, 9, 1), bool)
    dot[0, 4, 4] = True
    back = erode(dilate(dot, 5), 5)
    assert back.dtype == np.bool_
    assert np.array_equal(back, dot)


@pytest.mark.parametrize("width", [0, 1])
def test_a_square_of_nothing_changes_nothing(width):
    matte = frame([[1, 0], [0, 1]])
    found = dilate(matte, width)
    assert np.array_equal(found, matte)
    assert found is not matte


@pytest.mark.parametrize("width", [2, -1, -3])
def test_a_square_with_an_even_or_negative_side_is_refused(width):
    with pytest.raises(ValueError, match="odd"):
        dilate(frame([[1]]), width)


# --- resizing ------------------------------------------------------------------------------------


def test_keep_beside_edit_never_blurs_into_unknown():
    stripes = np.zeros((2, 30, 60, 1), np.uint8)
    stripes[:, :, 17:41] = EDIT
    assert set(np.unique(resize_classes(stripes, (16, 16)))) == {KEEP, EDIT}
    assert set(np.unique(resize_classes(stripes, (96, 96)))) == {KEEP, EDIT}


def test_a_pixel_takes_the_middle_class_of_its_area():
    # Areas of 2x1: two of a kind, a half and a half, unknown beside either.
    pairs = row(KEEP, KEEP, KEEP, EDIT, EDIT, EDIT, KEEP, UNKNOWN, UNKNOWN, EDIT)
    found = resize_classes(pairs, (5, 1)).flatten().tolist()
    assert found == [KEEP, EDIT, EDIT, UNKNOWN, EDIT]


def test_less_than_half_of_a_pixel_is_not_edited():
    found = resize_classes(row(EDIT, KEEP, KEEP, EDIT, EDIT, KEEP), (2, 1))
    assert found.flatten().tolist() == [KEEP, EDIT]


def test_the_same_size_comes_back_as_a_copy():
    mask = row(KEEP, UNKNOWN, EDIT)
    found = resize_classes(mask, (3, 1))
    assert np.array_equal(found, mask)
    assert found is not mask


def test_a_whole_number_of_times_larger_and_back_is_the_same():
    rng = np.random.default_rng(3)
    mask = rng.integers(0, 3, (2, 6, 8, 1)).astype(np.uint8)
    large = mask.repeat(4, axis=1).repeat(4, axis=2)
    assert np.array_equal(resize_classes(large, (8, 6)), mask)
