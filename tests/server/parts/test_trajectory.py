# SPDX-License-Identifier: Apache-2.0
"""A clicked point through a pan: where it is, and at which frame it is lost."""

import cv2
import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_server.parts.trajectory import follow
from gencomp_server.training.scenery import fractal

SIDE, PAN = (160, 240), (2.3, -0.7)
FRAMES = tuple(range(1001, 1017))
GRAIN = 0.01


def wall(seed=5):
    """A procedural texture, larger than the picture, scene-linear 0.05..0.5. [H,W]."""
    noise = fractal(np.random.default_rng(seed), 320, 400, 1.2)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return (0.05 + 0.45 * noise).astype(np.float32)


def seen(texture, i, pan=PAN):
    """What a camera sees that has moved by the pan, sampled between pixels, with grain. [H,W,3]."""
    shift = np.array([[1, 0, 60 + pan[0] * i], [0, 1, 80 + pan[1] * i]], np.float32)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    picture = cv2.warpAffine(texture, shift, (SIDE[1], SIDE[0]), flags=flags)
    grain = np.random.default_rng(i).normal(0, GRAIN, picture.shape)
    return np.repeat((picture + grain)[..., None], 3, axis=2).astype(np.float32)


@pytest.fixture(scope="module")
def texture():
    return wall()


def pan_of(shot_of, texture, **more):
    clip = {n: seen(texture, i) for i, n in enumerate(FRAMES)}
    return shot_of("1001-1016", {"bg": clip}, **more)


@pytest.mark.parametrize("at", [1001, 1008, 1016])
def test_a_point_on_a_pan_is_followed_to_within_a_pixel_on_every_frame(shot_of, desk, texture, at):
    track = follow(desk, pan_of(shot_of, texture), point=(120.0, 80.0), at=at, frames=FRAMES)
    steps = np.arange(len(FRAMES)) - FRAMES.index(at)
    truth = np.array([120.0, 80.0]) - steps[:, None] * np.array(PAN)
    assert np.hypot(*(track.points - truth).T).max() < 0.5
    assert track.points[FRAMES.index(at)].tolist() == [120.0, 80.0]


@pytest.mark.parametrize(
    ("zoom", "turn", "gain"), [(1.02, 0, 1), (1, 1.5, 1), (0.98, -1, 1), (1, 0, 0.02)]
)
def test_a_camera_that_draws_near_or_turns_and_a_dark_plate_do_not_pull_the_point_away(
    shot_of, desk, texture, zoom, turn, gain
):
    clip, truth, middle = {}, [], np.array([120.0, 80.0])
    for i, n in enumerate(FRAMES):
        angle, size = np.radians(turn * i), zoom**i
        matrix = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        # What is seen turns about the middle of the picture; the clicked point is 30 px off it.
        offset = middle - 0.5 - matrix @ (200.0, 160.0)
        shift = np.column_stack([matrix, offset])
        picture = cv2.warpAffine(texture, shift, (SIDE[1], SIDE[0]), flags=cv2.INTER_CUBIC)
        clip[n] = np.repeat(picture[..., None] * gain, 3, axis=2).astype(np.float32)
        truth.append(middle + matrix @ (30.0, 10.0))
    shot = shot_of("1001-1016", {"bg": clip})
    track = follow(desk, shot, point=tuple(truth[0]), at=1001, frames=FRAMES)
    assert np.hypot(*(track.points - truth).T).max() < 0.5


def test_what_tracking_back_misses_is_reported(shot_of, desk, texture):
    track = follow(desk, pan_of(shot_of, texture), point=(120.0, 80.0), at=1001, frames=FRAMES)
    assert track.returned[0] == 0
    assert 0 < track.returned.max() < 0.5
    assert 0 < track.drift < 1


def test_on_a_wall_without_texture_the_frame_of_the_click_is_named(shot_of, desk):
    rng = np.random.default_rng(0)
    clip = {n: (0.2 + rng.normal(0, GRAIN, (*SIDE, 3))).astype(np.float32) for n in FRAMES}
    with pytest.raises(BadKnob, match="lost at frame 1001: nothing around it") as caught:
        follow(desk, shot_of("1001-1016", {"bg": clip}), point=(120, 80), at=1001, frames=FRAMES)
    assert caught.value.details["knob"] == "trajectory"
    assert caught.value.details["frame"] == 1001


def test_where_the_texture_ends_that_frame_is_named(shot_of, desk, texture):
    shot = pan_of(shot_of, texture)
    rng = np.random.default_rng(0)
    for n in FRAMES[9:]:
        shot.clips["bg"][n] = (0.2 + rng.normal(0, GRAIN, (*SIDE, 3))).astype(np.float32)
    with pytest.raises(BadKnob, match="lost at frame 1010"):
        follow(desk, shot, point=(120, 80), at=1001, frames=FRAMES)


def test_where_the_shot_cuts_that_frame_is_named(shot_of, desk, texture):
    shot, other = pan_of(shot_of, texture), wall(seed=77)
    for i, n in enumerate(FRAMES[6:]):
        shot.clips["bg"][n] = seen(other, i)
    with pytest.raises(BadKnob, match="lost at frame 1007"):
        follow(desk, shot, point=(120, 80), at=1001, frames=FRAMES)


def test_where_the_point_leaves_the_picture_that_frame_is_named(shot_of, desk, texture):
    # It starts 11 px from the side and moves by 2.3 a frame: it is out after five.
    with pytest.raises(BadKnob, match=r"lost at frame 100[56]"):
        follow(desk, pan_of(shot_of, texture), point=(11, 80), at=1001, frames=FRAMES)


def test_an_edge_that_runs_straight_through_holds_nothing(shot_of, desk):
    picture = np.full((*SIDE, 3), 0.05, np.float32)
    picture[:, 120:] = 0.5
    clip = dict.fromkeys(FRAMES, picture)
    with pytest.raises(BadKnob, match="lost at frame 1001"):
        follow(desk, shot_of("1001-1016", {"bg": clip}), point=(120, 80), at=1001, frames=FRAMES)
