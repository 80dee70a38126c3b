# SPDX-License-Identifier: Apache-2.0
"""What a model is shown of a step: its masks, and where an element's pixels are said to be from."""

import numpy as np
import pytest

from gencomp_server.colour.modelrange import ModelRange
from gencomp_server.parts.change import Changed
from gencomp_server.parts.compositing import Behind, _with_behind, draw_masks, inflate_px
from gencomp_server.parts.element import ElementFrame, LowColours, element_frame
from gencomp_server.parts.origin import origin_of_stack
from gencomp_server.parts.placedorigin import Coverage, Sources
from gencomp_server.parts.placedreach import reach_of_masks


class Quiet:
    """A context that only counts."""

    def progress(self, stage, step, total):
        """Say nothing."""


def masks(cover, held=None, px=5.0):
    """Return the masks of one frame of coverage."""
    held = np.zeros_like(cover) if held is None else held
    return draw_masks(Quiet(), cover, held, inflate_px=px, kernel="shipped", threshold=1 / 255)


def test_masks_grow_around_an_element_and_are_empty_where_it_is_not():
    cover = np.zeros((2, 48, 64, 1), np.float16)
    cover[0, 20:30, 20:30] = 1
    found = masks(cover)
    assert found[0, 25, 15:35].all()
    assert not found[0, 25, :14].any()
    assert not found[1].any()


def test_thin_smoke_is_an_element_and_so_is_one_too_small_to_be_cleaned():
    cover = np.zeros((2, 48, 64, 1), np.float16)
    cover[0, 10:40, 10:50] = 0.1
    cover[1, 24, 32] = 1
    found = masks(cover)
    assert found[0, 25, 10:50].all()
    assert found[1, 24, 32]


def test_what_stands_in_front_is_not_given_away():
    cover, held = np.ones((1, 48, 64, 1), np.float16), np.zeros((1, 48, 64, 1), np.float16)
    held[0, :, 32:] = 1
    found = masks(cover, held)
    assert found[0, :, :32].all()
    assert not found[0, :, 32:].any()


def test_a_change_that_reaches_as_far_as_the_model_sees_fades_out_there(shot_of, desk):
    shot = shot_of("1001", {"bg": {1001: np.zeros((100, 200, 3), np.float32)}}).only()
    masks = np.zeros((1, 32, 48), bool)
    masks[0, 8:24, 12:36] = True
    inner = {"frames": (0,), "size": (48, 32), "plate": (200, 100), "grow_px": 64}
    found = reach_of_masks(desk, shot, masks, box=(76, 0, 123, 31), **inner).grown[0]
    assert found[16, 0] == found[16, -1] == found[-1, 24] == 0
    assert found[0, 24] == 1  # The plate ends there, too.
    assert np.abs(np.diff(found[16].astype(np.float32))).max() < 0.08
    whole = {**inner, "plate": (48, 32)}
    assert reach_of_masks(desk, shot, masks, box=(0, 0, 47, 31), **whole).grown.min() > 0


@pytest.mark.parametrize(
    ("plate_px", "box", "size", "wanted"),
    [
        (0.0, (0, 0, 1919, 1079), (720, 480), 25.0),  # as trained, whatever the plate
        (0.0, (0, 0, 319, 179), (48, 32), 25 / 15),
        (54.0, (0, 0, 1919, 1079), (720, 480), 24.0),
        (10.0, (100, 100, 819, 579), (720, 480), 10.0),
    ],
)
def test_inflation_is_in_plate_pixels_and_0_is_as_trained(plate_px, box, size, wanted):
    assert inflate_px(plate_px, box, size) == pytest.approx(wanted)


def test_what_a_step_behind_made_is_seen_in_its_place_and_nowhere_else():
    light = np.full((64, 96, 3), 0.25, np.float32)
    mask = np.zeros((1, 32, 48), bool)
    mask[0, 8:16, 8:16] = True
    made = np.ones((1, 32, 48, 3), np.float16)  # code 1 is light 16
    behind = Behind((4,), (0, 0, 95, 63), mask, made)
    found = _with_behind(light, behind, 4, ModelRange())
    assert found[24, 24] == pytest.approx(16, rel=1e-3)
    assert (found[:14] == light[:14]).all()
    assert _with_behind(light, behind, 5, ModelRange()) is light


# --- layers --------------------------------------------------------------------------------------


def test_interaction_gets_the_body_that_is_wished_for_and_gives_the_same_result():
    plate = np.full((8, 8, 3), 0.25, np.float16)
    element = np.zeros((8, 8, 4), np.float16)
    index, fog = np.arange(32), np.full((32, 3), 0.5, np.float32)
    nothing = np.zeros((8, 8, 3), np.float32)
    low = LowColours(nothing, nothing)
    least = element_frame(element, plate, index, fog, low, harmonise=0)
    wish = np.full((8, 8), 0.5, np.float32)
    bodied = element_frame(element, plate, index, fog, low, harmonise=0, body=wish)
    assert (least.interaction[:4, :, 3] == 0).all()
    assert (bodied.interaction[:4, :, 3] == 0.5).all()
    assert bodied.result.tobytes() == least.result.tobytes()
    assert not bodied.interaction[4:].any()


def test_an_element_over_another_hides_where_that_came_from():
    coverage, sources = Coverage((1, 2)), Sources((1, 2))
    for number, places in ((7, [0, 1]), (9, [1])):
        layer = np.zeros((1, 2, 4), np.float16)
        layer[0, places] = [0.5, 0.5, 0.5, 1]
        told = ElementFrame(layer, np.zeros_like(layer), np.ones((1, 2, 4), np.float16))
        coverage.add(told, Changed.nothing())
        sources.add(told, Changed.nothing(), number)
    found = sources.origin(np.ones((1, 2), bool))
    assert found.tolist() == [[[0, 0, 1, 0, 7], [0, 0, 1, 0, 9]]]
    assert (coverage.alpha == 1).all()
    assert sources.origin(np.zeros((1, 2), bool))[..., 0].tolist() == [[1, 1]]


def test_origin_of_a_stack_sums_to_one_and_names_no_frame_where_there_is_none():
    gained, other, made = (np.array([[a, b]], np.float32) for a, b in ((0.5, 0), (0.25, 0), (0, 0)))
    found = origin_of_stack(gained, other, made, np.array([[3, 3]]))
    assert found.tolist() == [[[0.25, 0.5, 0.25, 0, 3], [1, 0, 0, 0, 0]]]
