# SPDX-License-Identifier: Apache-2.0
"""Object and effects apart: the stack stays exact, the shadow stays dark."""

import numpy as np
import pytest

from gencomp_server.parts.recompose import APART, FOLDED, recompose_frame
from gencomp_server.parts.split import split_effects
from gencomp_server.parts.stack import over, stack_error

HALF, FLOAT = np.float16, np.float32
# Both halves of a split are rounded to half, each by up to half a step of values below one.
ROUNDING = 1e-3


def scene(kind=HALF, seed=0):
    """Two soft discs, each over its own soft shadow, on texture with grain; true alphas."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:96, :160].astype(FLOAT)

    def disc(row, col, radius, soft):
        return np.clip((radius - np.hypot(rows - row, cols - col)) / soft + 0.5, 0, 1)

    clean = (0.3 + 0.3 * rng.random((96, 160, 3))).astype(FLOAT)
    plate, alphas, objects = clean, [], []
    for col, colour in ((110, (0.1, 0.3, 0.9)), (50, (0.9, 0.2, 0.1))):
        body, shade = disc(36, col, 22, 6), 0.5 * disc(66, col + 8, 24, 12)
        plate = plate * (1 - shade)[..., None]
        plate = plate * (1 - body)[..., None] + body[..., None] * FLOAT(colour)
        alphas.insert(0, (1 - (1 - body) * (1 - shade)).astype(FLOAT))
        objects.insert(0, body.astype(FLOAT))
    return plate.astype(kind), clean, alphas, objects


@pytest.mark.parametrize("residual", [FOLDED, APART])
@pytest.mark.parametrize("kind", [HALF, FLOAT])
def test_split_layers_in_place_of_whole_ones_give_the_plate_back(kind, residual):
    plate, clean, alphas, objects = scene(kind)
    made = recompose_frame(plate, clean, alphas, residual=residual)
    pairs = split_effects(plate, made.background, made.layers, objects, made.residual)
    parts = [part for pair in pairs for part in pair]
    found = stack_error(plate, made.background, parts, made.residual)
    assert (found.beyond, found.differing) == (0, 0)


def test_object_over_effects_is_the_layer():
    plate, clean, alphas, objects = scene()
    made = recompose_frame(plate, clean, alphas)
    pairs = split_effects(plate, made.background, made.layers, objects)
    for (front, back), layer in zip(pairs, made.layers, strict=True):
        assert np.abs(over(front, back) - layer.astype(FLOAT)).max() < ROUNDING


def test_where_there_is_no_object_the_whole_layer_is_effects():
    plate, clean, alphas, objects = scene()
    made = recompose_frame(plate, clean, alphas)
    (front, back), _ = split_effects(plate, made.background, made.layers, objects)
    outside = objects[0] == 0
    assert not front[outside].any()
    assert back[outside].tobytes() == made.layers[0][outside].tobytes()


def test_where_the_object_is_opaque_the_whole_layer_is_the_object():
    plate, clean, alphas, objects = scene()
    made = recompose_frame(plate, clean, alphas)
    (front, back), _ = split_effects(plate, made.background, made.layers, objects)
    inside = objects[0] == 1
    assert not back[inside].any()
    assert front[inside].tobytes() == made.layers[0][inside].tobytes()


def test_the_shadow_stays_dark_under_the_objects_edge():
    plate, clean, alphas, objects = scene(FLOAT)
    made = recompose_frame(plate, clean, alphas)
    (_, back), _ = split_effects(plate, made.background, made.layers, objects)
    edge = (objects[0] > 0.2) & (objects[0] < 0.8) & (back[..., 3] > 0.2)
    assert edge.sum() > 20
    assert float(back[edge][:, :3].max()) < 0.02


def test_a_matte_larger_than_the_layer_counts_as_all_of_it():
    plate, clean, alphas, objects = scene()
    made = recompose_frame(plate, clean, alphas)
    ones = [np.ones_like(x) for x in objects]
    for (front, back), layer in zip(
        split_effects(plate, made.background, made.layers, ones), made.layers, strict=True
    ):
        assert not back.any()
        assert front.tobytes() == layer.tobytes()


def test_nothing_covered_gives_nothing():
    plate, clean, alphas, objects = scene()
    none = [np.zeros_like(a) for a in alphas]
    made = recompose_frame(plate, clean, none)
    pairs = split_effects(plate, made.background, made.layers, objects)
    assert not any(part.any() for pair in pairs for part in pair)
