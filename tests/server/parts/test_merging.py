# SPDX-License-Identifier: Apache-2.0
"""A subject on black and where its latents lie, against what is known in closed form."""

import numpy as np
import pytest

from gencomp_protocol.frames import Format
from gencomp_server.colour.modelrange import ModelRange, encode
from gencomp_server.parts.merging import (
    AS_IT_IS,
    FILL,
    FIT,
    laid,
    on_black,
    pooled,
    rectangle,
)

HD = Format(1920, 1080, 1.0)
SIZE = (720, 480)


# --- on black ------------------------------------------------------------------------------------


def picture(light, matte):
    shape = (2, 3)
    return (
        np.full((*shape, 3), light * matte, np.float32),
        np.full((*shape, 1), matte, np.float32),
    )


def test_what_is_not_the_subject_is_exactly_black():
    assert on_black(*picture(0.5, 0.0), ModelRange()).tolist() == np.full((2, 3, 3), -1.0).tolist()


def test_what_is_covered_whole_is_its_own_code():
    seen = on_black(*picture(0.18, 1.0), ModelRange())
    assert seen == pytest.approx(2 * 0.4613561 - 1, abs=1e-5)


def test_what_is_half_covered_is_half_of_its_own_code_and_not_the_code_of_half_its_light():
    seen = on_black(*picture(0.18, 0.5), ModelRange())
    assert seen == pytest.approx(2 * (0.5 * 0.4613561) - 1, abs=1e-5)
    of_half = float(encode(np.float32([0.09]))[0])
    assert abs(0.5 * 0.4613561 - of_half) > 0.1


def test_light_without_alpha_is_not_shown():
    glow = np.full((1, 1, 3), 3.0, np.float32)
    assert on_black(glow, np.zeros((1, 1, 1), np.float32), ModelRange()).tolist() == [[[-1.0] * 3]]


def test_exposure_brightens_the_subject_and_not_the_black():
    light, matte = picture(0.18, 1.0)
    matte[0] = 0
    seen = on_black(light * matte, matte, ModelRange(exposure=1.0))
    assert seen[0].tolist() == np.full((3, 3), -1.0).tolist()
    assert seen[1] == pytest.approx(2 * float(encode(np.float32([0.36]))[0]) - 1, abs=1e-5)


# --- where a picture lies ------------------------------------------------------------------------


@pytest.mark.parametrize("how", [FIT, FILL, AS_IT_IS])
def test_a_subject_of_the_plates_format_lies_as_it_is(how):
    assert rectangle(HD, HD, SIZE, how) == (0, 0, 720, 480)


def test_a_square_picture_is_fitted_in_plate_pixels_and_not_in_the_models():
    # 1080 of 1920 plate pixels wide are 405 of 720 model pixels: the model's picture is squeezed.
    assert rectangle(Format(500, 500, 1.0), HD, SIZE, FIT) == (157, 0, 405, 480)


def test_filling_covers_the_plate():
    # 1920 wide, so 1920 high: 853 model pixels of 480.
    assert rectangle(Format(500, 500, 1.0), HD, SIZE, FILL) == (0, -187, 720, 853)


def test_as_it_is_keeps_pixels_and_the_middle():
    assert rectangle(Format(960, 540, 1.0), HD, SIZE, AS_IT_IS) == (180, 120, 360, 240)


def test_pixel_aspect_counts():
    assert rectangle(Format(960, 1080, 2.0), HD, SIZE, FIT) == (0, 0, 720, 480)


def test_a_picture_is_laid_onto_black_where_its_rectangle_is():
    done = laid(np.ones((4, 4, 1), np.float32), (2, 1, 3, 2), (8, 4))
    wanted = np.zeros((4, 8, 1), np.float32)
    wanted[1:3, 2:5] = 1
    assert done.tolist() == wanted.tolist()


def test_what_of_a_picture_lies_outside_is_cut():
    source = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    assert laid(source, (-1, -2, 4, 4), (2, 2))[..., 0].tolist() == [[9, 10], [13, 14]]


# --- latents -------------------------------------------------------------------------------------


def matte_with(*places, frames=9):
    matte = np.zeros((frames, 16, 24, 1), np.float32)
    for frame, y, x, value in places:
        matte[frame, y, x] = value
    return matte


def test_the_first_frame_stands_alone_and_the_others_go_by_four():
    # The rule of the model's own VAE: latent frame 0 is frame 0, 1 is frames 1-4, 2 is 5-8.
    assert pooled(matte_with((0, 0, 0, 1)))[0, :, 0].sum(axis=(1, 2)).tolist() == [1, 0, 0]
    for frame in (1, 4):
        assert pooled(matte_with((frame, 0, 0, 1)))[0, :, 0].sum(axis=(1, 2)).tolist() == [0, 1, 0]
    assert pooled(matte_with((5, 0, 0, 1)))[0, :, 0].sum(axis=(1, 2)).tolist() == [0, 0, 1]


def test_one_pixel_marks_its_whole_latent_pixel_and_no_other():
    found = pooled(matte_with((0, 7, 8, 1)))
    assert found.shape == (1, 3, 1, 2, 3)
    assert found[0, 0, 0].tolist() == [[0, 1, 0], [0, 0, 0]]


def test_a_trace_of_coverage_is_not_the_subject():
    assert not pooled(matte_with((0, 0, 0, 0.09))).any()
    assert pooled(matte_with((0, 0, 0, 0.1))).sum() == 1


@pytest.mark.parametrize("shape", [(4, 16, 16, 1), (5, 12, 16, 1), (5, 16, 12, 1)])
def test_a_matte_that_no_latents_belong_to_is_refused(shape):
    with pytest.raises(ValueError, match="has no latent frames"):
        pooled(np.zeros(shape, np.float32))
