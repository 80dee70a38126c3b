# SPDX-License-Identifier: Apache-2.0
"""Which frames a model is shown where what is asked of it lives on some of them only."""

import pytest

from gencomp_server.backbones import spec_named
from gencomp_server.parts.spans import Span, plan_spans, windows_of
from gencomp_server.parts.windows import Window

SPEC = spec_named("gencompositor")  # sees 49 frames, 13 latent ones; windows share 4


def alive(frames, *lives):
    """Return a life: True on the frames of each first and last."""
    return [any(first <= i <= last for first, last in lives) for i in range(frames)]


@pytest.mark.parametrize(
    ("frames", "lives", "spans"),
    [
        (120, [(39, 74)], [(32, 80)]),  # a burst: a full window around it
        (120, [(0, 9)], [(0, 48)]),  # at the start it is filled after
        (120, [(110, 119)], [(71, 119)]),
        (20, [(3, 5)], [(0, 19)]),  # a shot shorter than a window is shown whole
        (49, [(0, 48)], [(0, 48)]),
        (120, [(10, 58)], [(10, 58)]),  # a full window takes no margin, which would cost another
        (120, [(20, 79)], [(16, 83)]),  # two windows hold it and its margin
        (120, [(30, 40), (50, 60)], [(21, 69)]),  # near lives share a window
        (400, [(10, 10), (390, 390)], [(0, 48), (351, 399)]),  # far ones do not
        (120, [], []),
    ],
)
def test_a_life_is_shown_in_as_few_windows_as_hold_it(frames, lives, spans):
    found = plan_spans(alive(frames, *lives), SPEC)
    assert [(one.first, one.last) for one in found] == spans


def test_spans_hold_all_of_a_life_and_never_the_same_frame_twice():
    life = [i % 61 < 2 for i in range(600)]
    spans = plan_spans(life, SPEC)
    shown = [i for one in spans for i in range(one.first, one.last + 1)]
    assert sorted(set(shown)) == shown
    assert {i for i, lives in enumerate(life) if lives} <= set(shown)


def test_windows_of_spans_are_each_counted_from_its_own_start():
    spans = (Span(0, 48), Span(100, 159))
    assert windows_of(spans, SPEC) == (Window(0, 13), Window(0, 13), Window(3, 16))
