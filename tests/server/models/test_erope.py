# SPDX-License-Identifier: Apache-2.0
"""Positions of plate and element: unlike everywhere, as released and as published."""

from types import SimpleNamespace

import pytest
import torch

from gencomp_server.models import erope


@pytest.mark.parametrize("layout", erope.LAYOUTS)
@pytest.mark.parametrize("frames", [1, 2, 13])
def test_no_cell_of_the_element_has_the_position_of_one_of_the_plates(layout, frames):
    plate, element = erope.places(frames, 30, 45, layout, whole=13)
    both = torch.cat([plate, element])
    assert len(both) == 2 * frames * 30 * 45
    assert len(torch.unique(both, dim=0)) == len(both)


@pytest.mark.parametrize(
    ("layout", "shift"), [("height", (0, 30, 0)), ("width", (0, 0, 45)), ("time", (13, 0, 0))]
)
def test_the_element_is_shifted_along_one_axis_in_the_papers_layouts(layout, shift):
    plate, element = erope.places(5, 30, 45, layout, whole=13)
    assert (element - plate).unique(dim=0).tolist() == [list(shift)]
    assert plate[[0, 44, 45, 30 * 45]].tolist() == [[0, 0, 0], [0, 0, 44], [0, 1, 0], [1, 0, 0]]


def test_the_released_layout_stacks_two_frames_at_a_time_and_the_element_follows_the_plate():
    plate, element = erope.places(13, 30, 45, "shipped", whole=13)
    firsts = [plate[at * 30 * 45].tolist() for at in (0, 1, 2, 12)]
    assert firsts == [[0, 0, 0], [0, 30, 0], [1, 0, 0], [6, 0, 0]]
    firsts = [element[at * 30 * 45].tolist() for at in (0, 1, 12)]
    assert firsts == [[6, 30, 0], [7, 0, 0], [12, 30, 0]]


@pytest.mark.parametrize("layout", erope.LAYOUTS)
def test_a_shorter_window_has_the_positions_of_a_whole_ones_first_frames(layout):
    for short, whole in zip(
        erope.places(5, 2, 3, layout, whole=13),
        erope.places(13, 2, 3, layout, whole=13),
        strict=True,
    ):
        assert torch.equal(short, whole[: len(short)])


def test_a_layout_or_a_length_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="no layout is called depth"):
        erope.places(1, 2, 3, "depth", whole=13)
    config = SimpleNamespace(
        sample_frames=49, temporal_compression_ratio=4, patch_size=2, attention_head_dim=16
    )
    assert erope.rotary(config, 13, 4, 6, "time")[0].shape == (2 * 13 * 6, 16)
    with pytest.raises(ValueError, match="14 latent frames where the model takes 13"):
        erope.rotary(config, 14, 4, 6, "time")
