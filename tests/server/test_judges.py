# SPDX-License-Identifier: Apache-2.0
"""Published metrics: what judges make of what they see, and who is refused."""

from pathlib import Path

import numpy as np
import pytest

from gencomp_protocol.errors import MissingInput
from gencomp_server.judges import (
    CLIP_DIRECTION,
    CLIP_IMAGE,
    CLIP_TEXT,
    NAMES,
    ClipJudge,
    FvdJudge,
    LpipsJudge,
    Tools,
    Views,
    direction,
    hear,
    judges_for,
)


def grey(value):
    return np.full((6, 8, 3), value, np.float32)


class Compass:
    """A CLIP whose embedding of a grey picture is the direction of that many right angles."""

    def picture(self, codes):
        angle = float(codes[0, 0, 0]) * np.pi / 2
        return np.array([np.cos(angle), np.sin(angle)])

    def prompt(self, text):
        return np.array([0.0, 1.0])


def views(frame=1, a=0.0, b=0.0, over=None, mask=None):
    return Views(frame, grey(a), grey(b), None if over is None else grey(over), mask)


def clip_says(name, *seen):
    judge = ClipJudge((name,), Compass(), "smoke")
    for one in seen:
        judge.see(one)
    return judge.say()[0]


def test_clip_image_is_a_hundred_cosines_of_truth_and_result():
    # An angle of 60 degrees: cosine one half.
    assert clip_says(CLIP_IMAGE, views(a=0.0, b=2 / 3)).value == pytest.approx(50.0, abs=1e-4)


def test_clip_text_compares_the_result_with_the_prompt():
    assert clip_says(CLIP_TEXT, views(b=1.0)).value == pytest.approx(100.0)
    assert clip_says(CLIP_TEXT, views(b=0.0)).value == pytest.approx(0.0, abs=1e-4)


def test_clip_direction_compares_two_ways_from_the_composite():
    # From (1, 0): to (0, 1) and to (-1, 0), 45 degrees apart.
    found = clip_says(CLIP_DIRECTION, views(a=1.0, b=2.0, over=0.0))
    assert found.value == pytest.approx(100 / np.sqrt(2), abs=1e-3)


def test_the_same_change_is_a_hundred_and_the_opposite_one_is_minus_a_hundred():
    step = np.array([0.3, -0.4])
    assert direction(step, 5 * step) == pytest.approx(1.0)
    assert direction(step, -step) == pytest.approx(-1.0)


def test_frames_without_a_change_are_left_out_of_clip_direction():
    seen = (views(1, 1.0, 0.0, over=0.0), views(2, 1.0, 1.0, over=0.0))
    found = clip_says(CLIP_DIRECTION, *seen)
    assert found.by_frame == (("2", pytest.approx(100.0)),)


def test_where_no_frame_changes_clip_direction_says_so():
    judge = ClipJudge((CLIP_DIRECTION,), Compass(), "")
    judge.see(views(1, 1.0, 0.0, over=0.0))
    with pytest.raises(MissingInput, match="no frame differs"):
        judge.say()


class Difference:
    def distances(self, a, b):
        return np.abs(a - b).mean(axis=2)


def test_lpips_is_the_mean_over_what_the_mask_covers():
    judge = LpipsJudge(Difference())
    one = views(7, 0.25, 0.5)
    one.b[:3] = 0.25
    lower = np.zeros((6, 8), bool)
    lower[3:] = True
    judge.see(Views(7, one.a, one.b, None, lower))
    judge.see(Views(8, one.a, one.b, None, None))
    found = judge.say()[0]
    assert (found.value, found.worst, found.frame) == (0.1875, 0.25, "7")


class Brightness:
    """Features of a clip: its brightness at the first and the last frame."""

    def features(self, clip):
        assert clip.shape == (16, 224, 224, 3)
        return np.array([clip[0].mean(), clip[-1].mean()], np.float64)


def test_fvd_is_the_distance_of_clips_of_sixteen_frames_every_eight():
    judge = FvdJudge(Brightness())
    for frame in range(24):
        judge.see(views(frame, frame / 32, frame / 32 + 0.25))
    found = judge.say()[0]
    # Both shots brighten alike, B by a quarter more: only the means differ, in both features.
    assert found.label == "FVD, 2 clips"
    assert found.value == pytest.approx(2 * 0.25**2, abs=1e-6)


def test_a_shot_too_short_for_fvd_is_named():
    judge = FvdJudge(Brightness())
    for frame in range(23):
        judge.see(views(frame))
    found, refused = hear([judge])
    assert found == []
    assert refused[0].metric == "fvd"
    assert "24 frames are the least" in refused[0].sentence


def test_what_is_not_installed_is_refused_by_name_each_with_its_cure(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lpips", None)
    tools = Tools(tmp_path / "clip", tmp_path / "i3d.pt", tmp_path)
    judges, refused = judges_for(NAMES, tools)
    assert judges == []
    assert {one.metric for one in refused} == set(NAMES)
    assert {
        one.metric: one.cure for one in refused if "--" in one.cure and "FOLDER" not in one.cure
    } == {
        "clip-text": "Give it with --prompt TEXT.",
        "clip-direction": "Give it with --over PATTERN.",
        "fvd": "Put an I3D there as TorchScript, or name another with --i3d FILE.",
    }
    assert all(one.sentence and one.cure for one in refused)


def test_nothing_is_loaded_for_what_is_not_asked(tmp_path):
    assert judges_for((), Tools(Path("none"), Path("none"), tmp_path)) == ([], [])
