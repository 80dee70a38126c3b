# SPDX-License-Identifier: Apache-2.0
"""A delivery that is not what it should be is told from one that is."""

import numpy as np
import pytest

from gencomp_protocol.frames import Box
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.decode import DecodePool
from gencomp_server.exr.write import write_layer
from gencomp_server.inspection import inspect_delivery, objects_of, spread
from gencomp_server.sheet import Files

FRAMES = (1001, 1002)
SIZE = (24, 32)

pytestmark = pytest.mark.fault("F40")


@pytest.fixture(scope="module")
def pool():
    made = DecodePool(1)
    yield made
    made.close()


def plate_of(frame):
    """Return a plate with light above one. [H,W,3] float16."""
    random = np.random.default_rng(frame)
    return (random.random((*SIZE, 3)) * 4).astype(np.float16)


def matte():
    """Return a soft matte. [H,W,1] float16."""
    soft = np.zeros((*SIZE, 1), np.float16)
    soft[6:18, 8:24] = np.float16(0.5)
    return soft


def files(folder, name, pictures, channels):
    """Write a picture of each frame; return where they are."""
    paths = {}
    window = Box(0, 0, SIZE[1] - 1, SIZE[0] - 1)
    for frame, pixels in pictures.items():
        paths[frame] = folder / f"{name}.{frame}.exr"
        write_layer(paths[frame], LayerFrame(name, frame, pixels, channels, window, window))
    return Files(paths)


@pytest.fixture
def inspect(tmp_path, pool):
    """Return a function that delivers a background and an object over it, and has them checked.

    ``spoil`` changes the object's pixels of the second frame, [H,W,4] float32, in place.
    """

    def checked(spoil=None, behind=None):
        plates, backs, balls = {}, {}, {}
        for frame in FRAMES:
            own = plates[frame] = plate_of(frame)
            back = backs[frame] = np.where(matte() > 0, own * np.float16(0.5), own)
            ball = np.zeros((*SIZE, 4), np.float32)
            cover = matte().astype(np.float32)
            ball[..., :3] = (own.astype(np.float32) - back * (1 - cover)) * (cover > 0)
            ball[..., 3:] = cover
            if frame == FRAMES[1]:
                if spoil is not None:
                    spoil(ball)
                if behind is not None:
                    backs[frame] = behind(back)
            balls[frame] = ball.astype(np.float16)
        rgb, rgba = ("R", "G", "B"), ("R", "G", "B", "A")
        layers = {
            "background": files(tmp_path, "background", backs, rgb),
            "ball": files(tmp_path, "ball", balls, rgba),
        }
        plate = files(tmp_path, "plate", plates, rgb)
        return inspect_delivery(FRAMES, plate, layers, {}, pool)

    return checked


def test_what_gives_the_plate_back_is_found_right_and_its_figures_are_told(inspect):
    found = inspect()
    assert found.faults == ()
    assert found.to_plain()["flag"] is False
    assert found.frames == FRAMES
    assert found.alpha == (0.0, 0.5)
    assert found.recomposed.psnr_db is None or found.recomposed.psnr_db > 60
    assert "layers against the plate" in found.spell()


def alpha_above_one(ball):
    ball[8, 10, 3] = 1.25


def alpha_below_zero(ball):
    ball[8, 10, 3] = -0.01


@pytest.mark.parametrize("spoil", [alpha_above_one, alpha_below_zero])
def test_an_alpha_outside_zero_and_one_is_told_with_its_layer_and_frame(inspect, spoil):
    found = inspect(spoil)
    assert found.to_plain()["flag"] is True
    assert any("alpha of layer 'ball' frame 1002" in fault for fault in found.faults)


def test_a_sample_that_is_no_number_is_told(inspect):
    def spoil(ball):
        ball[8, 10, 0] = np.nan

    found = inspect(spoil)
    assert any("'ball' frame 1002 has samples that are NaN" in fault for fault in found.faults)


def test_layers_that_do_not_give_the_plate_back_are_told_with_psnr_and_difference(inspect):
    def spoil(ball):
        ball[6:18, 8:24, :3] += 0.5

    found = inspect(spoil)
    assert found.to_plain()["flag"] is True
    assert found.recomposed.delta == pytest.approx(0.5, abs=0.01)
    assert found.recomposed.frame == 1002
    # 0.5 on 192 of 768 pixels, in one frame of two: a mean square of 1/32.
    assert found.recomposed.psnr_db == pytest.approx(15.05, abs=0.1)
    (fault,) = found.faults
    assert fault.startswith("The layers over one another are not the plate: 15.")
    assert "at most 0.5" in fault


def test_a_colour_shift_too_small_to_see_as_noise_is_told(inspect):
    def bluer(back):
        return (back.astype(np.float32) + np.float32([0, 0, 0.008])).astype(np.float16)

    found = inspect(behind=bluer)
    assert found.recomposed.psnr_db > 45
    assert found.recomposed.shift[2] > 2e-3 > abs(found.recomposed.shift[0])
    assert found.to_plain()["flag"] is True


@pytest.mark.parametrize(("shift", "flag"), [(0.0, False), (0.02, True)])
def test_outside_its_effect_a_result_has_to_be_the_plate(tmp_path, pool, shift, flag):
    own = plate_of(1001)
    effect = np.zeros((*SIZE, 4), np.float16)
    effect[4:8, 4:8] = (0.5, 0.25, 0.0, 0.5)
    result = own.copy()
    result[4:8, 4:8] = own[4:8, 4:8] * np.float16(0.5) + effect[4:8, 4:8, :3]
    result[20:, :, 0] += np.float16(shift)
    layers = {
        "result": files(tmp_path, "result", {1001: result}, ("R", "G", "B")),
        "effect": files(tmp_path, "effect", {1001: effect}, ("R", "G", "B", "A")),
    }
    plate = files(tmp_path, "plate", {1001: own}, ("R", "G", "B"))
    found = inspect_delivery([1001], plate, layers, {}, pool)
    assert found.untouched.psnr_db is None or shift
    assert found.to_plain()["flag"] is flag


def test_the_order_of_the_manifest_decides_what_lies_in_front(tmp_path, pool):
    back = np.zeros((*SIZE, 3), np.float16)
    red = np.zeros((*SIZE, 4), np.float16)
    red[...] = (1, 0, 0, 1)
    green = np.zeros((*SIZE, 4), np.float16)
    green[...] = (0, 1, 0, 1)
    layers = {
        "background": files(tmp_path, "background", {1: back}, ("R", "G", "B")),
        "ann": files(tmp_path, "ann", {1: red}, ("R", "G", "B", "A")),
        "bob": files(tmp_path, "bob", {1: green}, ("R", "G", "B", "A")),
    }
    plate = files(tmp_path, "plate", {1: green[..., :3].copy()}, ("R", "G", "B"))
    right = inspect_delivery([1], plate, layers, {1: ["bob", "ann"]}, pool)
    wrong = inspect_delivery([1], plate, layers, {1: ["ann", "bob"]}, pool)
    assert right.recomposed.psnr_db is None
    assert wrong.faults


def test_frames_are_spread_and_objects_told_from_what_belongs_to_them():
    assert spread(range(1, 101), 4) == [1, 34, 67, 100]
    assert spread([5, 6], 4) == [5, 6]
    names = ["background", "ball", "ball_object", "ball_effects", "residual", "clean"]
    assert objects_of(names) == ["ball"]
