# SPDX-License-Identifier: Apache-2.0
"""Bad input: exit code 2, one sentence with input, frame and cure, and nothing delivered."""

import os
import struct

import numpy as np
import pytest

from command_line import matte_of, plate_of, write_picture


def remove_plate(shot):
    shot.plate(1002).unlink()


def resize_plate(shot):
    write_picture(shot.plate(1002), plate_of(1002, 40, 32), ("R", "G", "B"))


def resize_matte(shot):
    for frame in (1001, 1002, 1003):
        write_picture(shot.matte(frame), matte_of(40, 32), ("A",))


def shift_matte(shot):
    for frame in (1003, 1002, 1001):
        shot.matte(frame).rename(shot.matte(frame + 100))


def spoil_matte(shot):
    matte = matte_of()
    matte[5, 5] = np.nan
    write_picture(shot.matte(1003), matte, ("A",))


def empty_matte(shot):
    for frame in (1001, 1002, 1003):
        write_picture(shot.matte(frame), np.zeros_like(matte_of()), ("A",))


def truncate_plate(shot):
    data = shot.plate(1002).read_bytes()
    shot.plate(1002).write_bytes(data[: len(data) * 2 // 3])


def disguise_plate(shot):
    shot.plate(1003).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))


def bomb_plate(shot):
    shot.plate(1002).write_bytes(header_bomb())


def empty_file(shot):
    shot.plate(1002).write_bytes(b"")


def header_bomb():
    """Return a small EXR whose header claims 46340 x 46340 pixels."""
    window = struct.pack("<4i", 0, 0, 46339, 46339)
    channels = b"".join(
        name + b"\0" + struct.pack("<iB3x2i", 1, 0, 1, 1) for name in (b"B", b"G", b"R")
    )
    attributes = [
        (b"channels", b"chlist", channels + b"\0"),
        (b"compression", b"compression", b"\3"),
        (b"dataWindow", b"box2i", window),
        (b"displayWindow", b"box2i", window),
        (b"lineOrder", b"lineOrder", b"\0"),
        (b"pixelAspectRatio", b"float", struct.pack("<f", 1.0)),
        (b"screenWindowCenter", b"v2f", struct.pack("<2f", 0.0, 0.0)),
        (b"screenWindowWidth", b"float", struct.pack("<f", 1.0)),
    ]
    header = b"".join(
        name + b"\0" + kind + b"\0" + struct.pack("<i", len(value)) + value
        for name, kind, value in attributes
    )
    return b"\x76\x2f\x31\x01" + struct.pack("<i", 2) + header + b"\0" + bytes(64)


CASES = {
    "a missing frame": (remove_plate, ("'plate'", "1002", "Render")),
    "two sizes in one sequence": (
        resize_plate,
        ("'plate'", "1002", "40x32", "the input is 48x32", "Reformat"),
    ),
    "a matte of another size": (resize_matte, ("'matte.ball'", "40x32", "Reformat")),
    "a matte of another range": (shift_matte, ("'matte.ball'", "1001-1003", "1101-1103")),
    "NaN in a matte": (spoil_matte, ("'matte.ball'", "1003", "NaN", "render it again")),
    "an empty matte": (empty_matte, ("'matte.ball'", "is empty", "Check the roto")),
    "a truncated EXR": (truncate_plate, ("'plate'", "1002", "render it again")),
    "a PNG named .exr": (disguise_plate, ("'plate'", "1003", "a PNG", "Write it as EXR")),
    "a header bomb": (bomb_plate, ("'plate'", "1002", "46340x46340", "render it again")),
    "an empty file": (empty_file, ("plate.1002.exr", "is empty", "Render it again")),
}


# The same gate tells these; tests/server/test_gate.py and test_sources.py try every one.
_SLOW = ("a matte of another size", "a matte of another range", "an empty file")


@pytest.mark.fault("F01")
@pytest.mark.fault("F07")
@pytest.mark.fault("F09")
@pytest.mark.fault("F10")
@pytest.mark.parametrize(
    "case",
    [pytest.param(one, marks=pytest.mark.slow) if one in _SLOW else one for one in CASES],
)
def test_bad_input_is_refused_by_input_frame_and_cure(shot, gencomp, case):
    spoil, words = CASES[case]
    spoil(shot)
    ended = gencomp(*shot.words)
    assert ended.code == 2, ended
    assert len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err
    assert "manifest.json" not in os.listdir(shot.out)
    assert not list(shot.out.glob("*/*.exr"))
    left = (shot.out / ".gencomp").is_dir() and any((shot.out / ".gencomp/pictures").glob("*/*"))
    assert left == ("holds what was sent, for the next try" in ended.out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "gian=2"), "Did you mean 'gain'"),
        (("--set", "gain=20"), "allowed are 0 to 10"),
        (("--frames", "1001-1004"), "no frame 1004"),
        (("--input", "matte.depth=MATTE"), "is taken by a layer"),
        (("--input", "mate.x=MATTE"), "has no input 'mate.x'"),
    ],
)
def test_a_wrong_request_is_refused_before_a_picture_travels(shot, gencomp, words, said):
    place = str(shot.matte(1001))
    ended = gencomp(*shot.words, *(word.replace("MATTE", place) for word in words))
    assert ended.code == 2
    assert said in ended.err
    assert "pictures sent" not in ended.out


def test_an_unknown_system_names_the_nearest(shot, gencomp):
    words = ["cutut" if word == "cutout" else word for word in shot.words]
    ended = gencomp(*words)
    assert ended.code == 2
    assert "Did you mean 'cutout'" in ended.err


def test_an_output_that_cannot_be_written_is_refused_before_anything_starts(shot, gencomp):
    shot.out.write_text("a file, not a folder")
    ended = gencomp(*shot.words)
    assert ended.code == 2
    assert f"{shot.out} cannot be written" in ended.err
    assert ended.out == ""
