# SPDX-License-Identifier: Apache-2.0
"""A job's small contact sheet: which frames, what is shown, and that it never costs the job."""

import cv2
import numpy as np
import pytest

from gencomp_protocol.frames import Box, FrameRange
from gencomp_server.engine import contactsheet
from gencomp_server.engine.contactsheet import MOST_ROWS, ContactSheet

FRAME = Box(0, 0, 63, 31)
RGB, RGBA = ("R", "G", "B"), ("R", "G", "B", "A")
LEFT, TOP = 138, 34  # Of the first picture: margin, labels and head.


def plain(*value, height=32, width=64):
    return np.broadcast_to(np.array(value, np.float32), (height, width, len(value)))


def read(sheet):
    return cv2.imdecode(np.frombuffer(sheet.png(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def of_one(pixels, channels, data=FRAME, matrix=None):
    """Return the first picture of a sheet of one. [104,208,3]."""
    sheet = ContactSheet(FrameRange(1, 1), matrix)
    sheet.add("result", 1, pixels, channels, FRAME, data)
    return read(sheet)[TOP : TOP + 104, LEFT : LEFT + 208]


def test_a_few_frames_are_taken_from_first_to_last():
    assert ContactSheet(FrameRange(1001, 1100)).frames == (1001, 1034, 1067, 1100)
    assert ContactSheet(FrameRange(1, 2)).frames == (1, 2)
    assert ContactSheet(FrameRange(5, 5)).frames == (5,)


def test_a_mid_grey_is_as_bright_as_srgb_has_it():
    assert (of_one(plain(0.18, 0.18, 0.18), RGB) == 118).all()


def test_a_matte_is_white_where_it_covers():
    rising = np.zeros((32, 64, 1), np.float16)
    rising[:, 32:] = 1
    found = of_one(rising, ("A",))
    assert (found[:, :90] == 0).all()
    assert (found[:, 120:] > 220).all()


def test_a_layer_lies_over_grey_and_in_its_place():
    found = of_one(plain(0.5, 0.0, 0.0, 1.0, height=16, width=32), RGBA, Box(32, 16, 63, 31))
    assert (found[:50, :100] == found[0, 0]).all()
    assert len(set(found[0, 0].tolist())) == 1
    assert tuple(found[90, 190]) == (188, 0, 0)


def test_overscan_is_cut_at_the_frame():
    found = of_one(plain(0.18, 0.18, 0.18, height=64, width=128), RGB, Box(-32, -16, 95, 47))
    assert found.shape == (104, 208, 3)
    assert (found == 118).all()


def test_channels_are_found_by_name_among_others():
    pixels = np.concatenate([plain(9.0), plain(0.0, 0.0, 0.5), plain(1.0)], axis=2)
    found = of_one(pixels, ("Z", "B", "G", "R", "A"))
    assert tuple(found[50, 50]) == (188, 0, 0)


def test_what_is_not_finite_is_magenta():
    found = of_one(plain(np.nan, 0.0, 0.0), RGB)
    assert (found == (255, 0, 255)).all()


def test_colours_are_brought_to_a_monitors_primaries():
    red_and_green_change_places = [0, 1, 0, 1, 0, 0, 0, 0, 1]
    found = of_one(plain(0.5, 0.0, 0.0), RGB, matrix=red_and_green_change_places)
    assert tuple(found[50, 50]) == (0, 188, 0)


@pytest.mark.parametrize("channels", [("Z",), ("R", "G"), ("origin.plate",)])
def test_what_is_no_picture_is_left_out(channels):
    sheet = ContactSheet(FrameRange(1, 1))
    sheet.add("data", 1, plain(*range(len(channels))), channels, FRAME, FRAME)
    assert sheet.png() is None


def test_a_job_with_many_layers_has_a_sheet_of_some():
    sheet = ContactSheet(FrameRange(1, 1))
    for n in range(MOST_ROWS + 5):
        sheet.add(f"layer{n}", 1, plain(0.1, 0.1, 0.1), RGB, FRAME, FRAME)
    assert read(sheet).shape[0] == 34 + MOST_ROWS * (104 + 6) + 10


def test_a_frame_that_is_not_on_it_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(ContactSheet, "_drawn", None)
    ContactSheet(FrameRange(1, 100)).add("result", 2, plain(0.1, 0.1, 0.1), RGB, FRAME, FRAME)


def test_a_picture_that_cannot_be_drawn_costs_a_line_in_the_log(monkeypatch, caplog):
    def fail(*args, **more):
        raise cv2.error("no room")

    monkeypatch.setattr(contactsheet.cv2, "resize", fail)
    sheet = ContactSheet(FrameRange(1, 1))
    sheet.add("result", 1, plain(0.1, 0.1, 0.1), RGB, FRAME, FRAME)
    assert sheet.png() is None
    assert "'result' frame 1 is not on the contact sheet: no room" in caplog.text
