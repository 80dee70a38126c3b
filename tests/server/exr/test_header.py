# SPDX-License-Identifier: Apache-2.0
"""Headers read by hand: what is refused before a library sees it, and in which words."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gencomp_protocol.errors import BadPicture
from gencomp_protocol.frames import Box
from gencomp_server.exr.header import (
    choose_colour,
    choose_data,
    choose_matte,
    find_channel,
    parse_exr,
    sniff,
)

LABEL = "Input 'plate' frame 1001"
HALF = np.zeros((3, 4), np.float16)


@pytest.fixture
def parse(tmp_path):
    def run(data):
        path = tmp_path / "picture.exr"
        path.write_bytes(data)
        return parse_exr(path, LABEL)

    return run


def test_windows_and_channels_are_read_as_the_file_has_them(handmade, parse):
    data = handmade.exr(
        {"R": HALF, "Z": HALF.astype(np.float32)}, origin=(-2, 5), display=(0, 0, 9, 7)
    )
    (part,) = parse(data)
    assert (part.data_window, part.display_window) == (Box(-2, 5, 1, 7), Box(0, 0, 9, 7))
    assert [(c.name, c.pixel_type) for c in part.channels] == [("R", "half"), ("Z", "float")]


@pytest.mark.fault("F01")
def test_a_file_cut_anywhere_is_refused(handmade, parse):
    data = handmade.exr({"R": HALF, "G": HALF, "B": HALF})
    for end in range(len(data)):
        with pytest.raises(BadPicture, match=r"^Input 'plate' frame 1001 "):
            parse(data[:end])


def test_a_png_under_another_name_is_called_a_png(handmade, parse):
    with pytest.raises(BadPicture, match="is no EXR: it is a PNG"):
        parse(handmade.png(np.zeros((2, 2, 3), np.uint8)))


@pytest.mark.fault("F07")
@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\xff\xd8\xff\xe0", "a JPEG"),
        (b"II*\0", "a TIFF"),
        (b"MM\0*", "a TIFF"),
        (b"SDPX", "a DPX"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"\0\0\0\x18ftypmp42", "an MP4 or QuickTime video"),
        (b"hello", "of an unknown kind"),
    ],
)
def test_other_files_are_called_what_they_are(head, what):
    assert sniff(head) == what


def test_a_small_file_that_claims_46340_pixels_a_side_is_refused_by_its_header(handmade, parse):
    data = bytearray(handmade.exr({"R": HALF, "G": HALF, "B": HALF}))
    at = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    data[at : at + 16] = struct.pack("<4i", 0, 0, 46339, 46339)
    with pytest.raises(BadPicture, match="claims to be 46340x46340 pixels"):
        parse(bytes(data))


def test_a_picture_over_one_gibibyte_is_refused_though_each_side_is_allowed(handmade, parse):
    data = bytearray(handmade.exr({"R": HALF, "G": HALF, "B": HALF}))
    at = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    data[at : at + 16] = struct.pack("<4i", 0, 0, 16384, 2)
    with pytest.raises(BadPicture, match="claims to be 16385x3 pixels"):
        parse(bytes(data))
    wide = [np.zeros((1, 1), np.float16)] * 3
    parts = parse(handmade.exr(dict(zip("RGB", wide, strict=True))))
    huge = [replace(parts[0], data_window=Box(0, 0, 16383, 16383))]
    with pytest.raises(BadPicture, match=r"claims to be 16384x16384 pixels.* 1 GiB"):
        choose_colour(tuple(huge), LABEL)


def test_two_thousand_channels_are_refused(handmade, parse):
    many = {f"c{i:04d}": np.zeros((1, 1), np.float16) for i in range(2000)}
    with pytest.raises(BadPicture, match="has 2000 channels"):
        parse(handmade.exr(many))


def test_a_deep_file_is_refused_with_its_cure(handmade, parse):
    parts = parse(handmade.exr({"R": HALF, "G": HALF, "B": HALF}, flags=0x800))
    for choose in (choose_colour, lambda p, label: choose_matte(p, None, label)):
        with pytest.raises(BadPicture, match=r"is a deep EXR\. Flatten it") as caught:
            choose(parts, LABEL)
        assert caught.value.code == "bad-picture"


def test_whole_numbers_are_refused_with_their_cure(handmade, parse):
    whole = np.zeros((3, 4), np.uint32)
    parts = parse(handmade.exr({"R": whole, "G": whole, "B": whole}))
    with pytest.raises(BadPicture, match=r"holds whole numbers in channel 'R'.*half"):
        choose_colour(parts, LABEL)


def test_whole_numbers_beside_the_colour_do_no_harm(handmade, parse):
    whole = np.zeros((3, 4), np.uint32)
    parts = parse(handmade.exr({"R": HALF, "G": HALF, "B": HALF, "id": whole}))
    assert choose_colour(parts, LABEL) == (0, ("R", "G", "B"))


@pytest.mark.fault("F06")
def test_subsampled_channels_are_refused_with_their_cure(handmade, parse):
    parts = parse(handmade.exr({"R": HALF, "G": HALF, "B": HALF}, sampling=2))
    with pytest.raises(BadPicture, match=r"has a subsampled channel 'B'.*full resolution"):
        choose_colour(parts, LABEL)


def test_luminance_and_chroma_are_refused_by_name(handmade, parse):
    parts = parse(handmade.exr({"Y": HALF, "RY": HALF, "BY": HALF}))
    with pytest.raises(BadPicture, match="luminance and subsampled chroma"):
        choose_colour(parts, LABEL)


def test_a_plate_without_colour_is_told_what_it_has(handmade, parse):
    parts = parse(handmade.exr({"Z": HALF, "mask.red": HALF}))
    with pytest.raises(BadPicture, match=r"has no R, G and B channels but Z, mask\.red"):
        choose_colour(parts, LABEL)


def test_colour_comes_from_the_first_part_that_has_it(handmade, parse):
    rgb = {"R": HALF, "G": HALF, "B": HALF}
    parts = parse(handmade.multipart([("depth", {"Z": HALF}), ("beauty", rgb), ("more", rgb)]))
    assert [part.name for part in parts] == ["depth", "beauty", "more"]
    assert choose_colour(parts, LABEL) == (1, ("R", "G", "B"))


@pytest.mark.parametrize(
    ("channels", "wanted", "found"),
    [
        (("R", "G", "B", "A"), None, "A"),
        (("R", "G", "B"), None, "R"),
        (("Y",), None, "Y"),
        (("B", "mask.R"), "mask.red", "mask.R"),
        (("A", "mask.red"), "mask.red", "mask.red"),
        (("A", "G"), "rgba.green", "G"),
        (("A", "G"), "green", "G"),
    ],
)
def test_a_matte_is_the_alpha_or_the_first_or_the_named_channel(
    handmade, parse, channels, wanted, found
):
    parts = parse(handmade.exr(dict.fromkeys(channels, HALF)))
    assert choose_matte(parts, wanted, LABEL) == (0, (found,))


def test_a_named_channel_that_is_not_there_is_told_what_is(handmade, parse):
    parts = parse(handmade.exr({"A": HALF, "Z": HALF}))
    with pytest.raises(BadPicture, match=r"has no channel 'mask.red'\. It has A, Z\."):
        choose_matte(parts, "mask.red", LABEL)


def test_no_channel_is_taken_for_another():
    assert find_channel(("R", "G"), "blue") is None


@pytest.mark.fault("F02")
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_is_in_the_header_it_is_read_or_refused(handmade, parse, data):
    good = handmade.exr({"R": HALF, "G": HALF, "B": HALF, "A": HALF})
    made = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        made[data.draw(st.integers(4, len(good) - 1))] = data.draw(st.integers(0, 255))
    said = LABEL
    try:
        choose_colour(parse(bytes(made)), LABEL)
    except BadPicture as error:
        said = str(error)
    assert said.startswith(LABEL)


@pytest.mark.parametrize(
    ("names", "wanted", "found"),
    [
        (("A", "B", "G", "R", "Z"), None, "Z"),
        (("A", "B", "G", "R", "depth.Z"), None, "depth.Z"),
        (("A", "depth.Z"), "A", "A"),
        (("A", "Y"), None, "Y"),
        (("A", "B", "G", "R"), "R", "R"),
    ],
)
def test_data_is_the_named_channel_else_the_depth_else_the_first(
    handmade, parse, names, wanted, found
):
    parts = parse(handmade.exr(dict.fromkeys(names, HALF)))
    assert choose_data(parts, wanted, LABEL) == (0, (found,))


def test_a_picture_is_no_data_until_its_channel_is_named(handmade, parse):
    parts = parse(handmade.exr(dict.fromkeys("ABGR", HALF)))
    with pytest.raises(BadPicture) as caught:
        choose_data(parts, None, LABEL)
    assert str(caught.value) == (
        f"{LABEL} has no depth channel but A, B, G, R. Name the channel after ':', as FILE:A."
    )


def test_depth_is_found_in_a_part_of_its_own(handmade, parse):
    parts = parse(handmade.multipart([("rgb", dict.fromkeys("RGB", HALF)), ("depth", {"Z": HALF})]))
    assert choose_data(parts, None, LABEL) == (1, ("Z",))
