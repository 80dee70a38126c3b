# SPDX-License-Identifier: Apache-2.0
"""Patterns, covers and colour spaces of ``gencomp run``'s inputs."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, BadName, BadPicture, MissingFrame, MissingInput
from gencomp_protocol.frames import Box, Format, FrameRange
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer
from gencomp_server.sources import Given, bit_depth, find_sequence, gather, parse_given, schema_of

SCHEMA = {
    "name": "layers",
    "title": "Layers",
    "inputs": [
        {"name": "plate", "kind": "rgb", "covers": ("sequence",)},
        {"name": "matte.*", "kind": "matte", "covers": ("sequence", "still")},
        {"name": "clean_plate", "kind": "rgb", "covers": ("sequence", "stills")},
        {
            "name": "roto",
            "kind": "matte",
            "covers": ("sequence", "still", "stills"),
            "gaps_are_stills": True,
        },
        {"name": "depth", "kind": "data", "covers": ("sequence",)},
        {"sets": [[{"name": "fg", "kind": "rgba", "covers": ("sequence",)}]]},
    ],
}
JPEG = b"\xff\xd8\xff\xe0" + bytes(32)


def png(depth: int) -> bytes:
    """Return the first bytes of a PNG of that bit depth."""
    body = struct.pack(">IIBBBBB", 4, 4, depth, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + body))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + body + crc


def tiff(bits: int, sample_format: int) -> bytes:
    """Return a TIFF whose directory says these bits and this sample format."""
    entries = struct.pack("<HHIHH", 258, 3, 1, bits, 0)
    entries += struct.pack("<HHIHH", 339, 3, 1, sample_format, 0)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + entries


def touch(folder: Path, *names: str, data: bytes = JPEG) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def collect(*texts: str, frames: str = "", **spaces: str):
    span = FrameRange.parse(frames) if frames else None
    return gather([parse_given(text) for text in texts], SCHEMA, span, spaces)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plate=a/b.%04d.exr", Given("plate", "a/b.%04d.exr")),
        ("matte.ball=a.####.exr:mask.red", Given("matte.ball", "a.####.exr", None, "mask.red")),
        ("clean_plate@1001=c.exr", Given("clean_plate", "c.exr", 1001)),
        ("plate=C:\\shots\\a.%04d.exr", Given("plate", "C:\\shots\\a.%04d.exr")),
        ("plate=odd=name.%d.png", Given("plate", "odd=name.%d.png")),
    ],
)
def test_an_input_is_read_as_it_was_typed(text, expected):
    assert parse_given(text) == expected


def test_when_there_is_no_pattern_the_sentence_shows_how_to_write_one():
    with pytest.raises(BadKnob, match=r"'plate' is not NAME=PATTERN.*plate=shot.%04d.exr"):
        parse_given("plate")


@pytest.mark.parametrize("name", ["shot.mov", "shot.MP4", "shot.mxf"])
def test_a_video_file_is_answered_with_render_to_exr_first(name):
    with pytest.raises(BadPicture, match=r"'plate' is a video file .* Render to EXR first"):
        parse_given(f"plate={name}")


def test_an_unknown_kind_of_picture_is_refused_by_its_suffix():
    with pytest.raises(BadPicture, match=r"ends in '.psd'"):
        parse_given("plate=shot.%04d.psd")


def test_a_pattern_finds_only_names_padded_as_it_says(tmp_path):
    touch(tmp_path, "s.0009.exr", "s.0010.exr", "s.10000.exr", "s.11.exr", "s.00012.exr", "t.1.exr")
    assert list(find_sequence("plate", f"{tmp_path}/s.%04d.exr") or ()) == [9, 10, 10000]


def test_hashes_stand_for_as_many_digits(tmp_path):
    touch(tmp_path, "s.009.exr", "s.0010.exr")
    assert list(find_sequence("plate", f"{tmp_path}/s.###.exr") or ()) == [9]


def test_frames_before_zero_are_found(tmp_path):
    touch(tmp_path, "s.-001.exr", "s.0000.exr")
    assert list(find_sequence("plate", f"{tmp_path}/s.%04d.exr") or ()) == [-1, 0]


def test_a_pattern_without_a_number_is_one_file():
    assert find_sequence("plate", "shot.exr") is None


def test_a_number_in_the_folder_is_refused():
    with pytest.raises(BadKnob, match="one frame number, in the file's name"):
        find_sequence("plate", "v%03d/shot.exr")


@pytest.mark.fault("F09")
def test_when_no_file_matches_the_input_and_the_pattern_are_named(tmp_path):
    with pytest.raises(MissingFrame, match=r"'plate' has no frames.*s.%04d.exr"):
        find_sequence("plate", f"{tmp_path}/s.%04d.exr")


def test_the_range_comes_from_the_plate_on_disk(tmp_path):
    touch(tmp_path, *[f"m.{n}.jpg" for n in range(1, 9)], *[f"p.{n}.jpg" for n in range(3, 6)])
    found = collect(f"matte.a={tmp_path}/m.%d.jpg", f"plate={tmp_path}/p.%d.jpg")
    assert found.frames == FrameRange(3, 5)
    assert found.sources[0].header.frames == (3, 4, 5)


def test_an_even_step_on_disk_is_the_range_s_step(tmp_path):
    touch(tmp_path, "p.1.jpg", "p.3.jpg", "p.5.jpg")
    assert collect(f"plate={tmp_path}/p.%d.jpg").frames == FrameRange(1, 5, 2)


@pytest.mark.fault("F09")
def test_a_hole_in_the_plate_is_named_with_its_cure(tmp_path):
    touch(tmp_path, "p.1.jpg", "p.2.jpg", "p.4.jpg")
    with pytest.raises(
        MissingFrame, match=r"'plate' has no frame 3; on disk are 1-2, 4\. Render"
    ) as caught:
        collect(f"plate={tmp_path}/p.%d.jpg")
    assert caught.value.details["frame"] == 3


@pytest.mark.fault("F09")
def test_two_frames_three_apart_are_a_hole_and_not_a_step(tmp_path):
    touch(tmp_path, "p.1.jpg", "p.4.jpg")
    with pytest.raises(MissingFrame, match="no frames 2-3"):
        collect(f"plate={tmp_path}/p.%d.jpg")


@pytest.mark.fault("F09")
def test_a_single_file_is_a_shot_of_one_frame_numbered_by_its_name(tmp_path):
    touch(tmp_path, "shot_v003.1007.jpg")
    found = collect(f"plate={tmp_path}/shot_v003.1007.jpg")
    assert found.frames == FrameRange(1007, 1007)
    assert found.sources[0].header.cover == "sequence"


def test_one_still_matte_stands_for_every_frame(tmp_path):
    touch(tmp_path, "p.1.jpg", "p.2.jpg", "m.jpg")
    header = collect(f"plate={tmp_path}/p.%d.jpg", f"matte.a={tmp_path}/m.jpg").sources[1].header
    assert (header.cover, header.frames) == ("still", (1,))


def test_clean_plates_at_frames_are_stills(tmp_path):
    touch(tmp_path, "p.1.jpg", "p.2.jpg", "p.3.jpg", "a.jpg", "b.jpg")
    found = collect(
        f"plate={tmp_path}/p.%d.jpg",
        f"clean_plate@3={tmp_path}/b.jpg",
        f"clean_plate@1={tmp_path}/a.jpg",
    )
    source = found.sources[1]
    assert (source.header.cover, source.header.frames) == ("stills", (1, 3))
    assert source.paths[3].name == "b.jpg"


def test_a_roto_painted_at_keyframes_is_taken_as_it_lies_on_disk_and_said(tmp_path):
    touch(tmp_path, *[f"p.{n}.jpg" for n in range(1, 6)], "r.1.jpg", "r.4.jpg", "r.9.jpg")
    found = collect(f"plate={tmp_path}/p.%d.jpg", f"roto={tmp_path}/r.%d.jpg")
    header = found.sources[1].header
    assert (header.cover, header.frames) == ("stills", (1, 4))
    assert "Input 'roto' has pictures at 1, 4 only." in found.notes


def test_a_roto_on_every_frame_is_a_sequence(tmp_path):
    touch(tmp_path, "p.1.jpg", "p.2.jpg", "r.1.jpg", "r.2.jpg", "r.3.jpg")
    found = collect(f"plate={tmp_path}/p.%d.jpg", f"roto={tmp_path}/r.%d.jpg")
    assert found.sources[1].header.cover == "sequence"
    assert not any("'roto'" in note for note in found.notes)


def test_a_roto_with_no_picture_in_the_range_is_refused(tmp_path):
    touch(tmp_path, "p.1.jpg", "p.2.jpg", "r.7.jpg")
    with pytest.raises(MissingFrame, match=r"'roto' has no frames 1-2; on disk are 7\..*roto@7="):
        collect(f"plate={tmp_path}/p.%d.jpg", f"roto={tmp_path}/r.%d.jpg")


def test_a_hole_in_a_clean_plate_is_refused_and_the_sentence_says_how_stills_are_given(tmp_path):
    touch(tmp_path, *[f"p.{n}.jpg" for n in range(1, 4)], "c.1.jpg", "c.3.jpg")
    with pytest.raises(MissingFrame, match=r"'clean_plate' has no frame 2.*clean_plate@1=FILE"):
        collect(f"plate={tmp_path}/p.%d.jpg", f"clean_plate={tmp_path}/c.%d.jpg")


def test_one_clean_plate_without_a_frame_says_which_frame_it_is_taken_for(tmp_path):
    touch(tmp_path, "p.1.jpg", "p.2.jpg", "clean.0002.jpg")
    found = collect(f"plate={tmp_path}/p.%d.jpg", f"clean_plate={tmp_path}/clean.0002.jpg")
    assert found.sources[1].header.frames == (2,)
    assert any("painted at frame 2" in note for note in found.notes)


def test_an_input_given_twice_is_refused(tmp_path):
    touch(tmp_path, "p.1.jpg")
    with pytest.raises(BadName, match="'plate' is given twice"):
        collect(f"plate={tmp_path}/p.%d.jpg", f"plate={tmp_path}/p.%d.jpg")


def test_an_unknown_input_names_the_nearest(tmp_path):
    with pytest.raises(MissingInput, match=r"has no input 'plat'. Did you mean 'plate'"):
        collect(f"plat={tmp_path}/p.%d.jpg")


def test_a_family_needs_a_name_after_its_dot(tmp_path):
    with pytest.raises(MissingInput, match=r"no input 'matte\.'"):
        collect(f"matte.={tmp_path}/p.%d.jpg")


def test_the_sets_of_alternatives_are_known_inputs(tmp_path):
    touch(tmp_path, "p.1.jpg")
    assert collect(f"fg={tmp_path}/p.%d.jpg").sources[0].header.name == "fg"


def test_data_has_a_channel_and_is_never_converted(tmp_path):
    touch(tmp_path, "p.1.jpg")
    (source,) = collect(f"depth={tmp_path}/p.%d.jpg:Z").sources
    assert (source.header.channel, source.header.colourspace) == ("Z", "scene_linear")
    with pytest.raises(BadKnob, match=r"'depth' cannot be srgb: it is data\."):
        collect(f"depth={tmp_path}/p.%d.jpg", depth="srgb")


def test_a_channel_is_for_mattes_and_data_alone(tmp_path):
    touch(tmp_path, "p.1.jpg")
    with pytest.raises(BadKnob, match=r"'plate' takes no channel, but ':A'"):
        collect(f"plate={tmp_path}/p.%d.jpg:A")


def test_eight_bits_are_read_as_srgb_and_said_so_once_per_input(tmp_path):
    touch(tmp_path, "p.1.jpg", "p.2.jpg")
    found = collect(f"plate={tmp_path}/p.%d.jpg")
    assert found.sources[0].header.colourspace == "srgb"
    assert [note for note in found.notes if "8-bit" in note] == list(found.notes)
    assert len(found.notes) == 1


@pytest.mark.fault("F10")
def test_a_matte_is_never_converted(tmp_path):
    touch(tmp_path, "p.1.jpg", "m.1.png", data=png(8))
    touch(tmp_path, "p.1.jpg")
    found = collect(f"plate={tmp_path}/p.%d.jpg", f"matte.a={tmp_path}/m.%d.png")
    assert found.sources[1].header.colourspace == "scene_linear"
    assert [note for note in found.notes if "matte" in note] == [
        "Input 'matte.a' has no alpha; its first channel R is read."
    ]


def test_asking_to_convert_a_matte_is_refused(tmp_path):
    touch(tmp_path, "m.1.jpg")
    with pytest.raises(BadKnob, match="a matte is coverage"):
        collect(f"matte.a={tmp_path}/m.%d.jpg", **{"matte.a": "srgb"})


def test_the_colour_space_asked_for_is_taken_without_a_word(tmp_path):
    touch(tmp_path, "p.1.jpg")
    found = collect(f"plate={tmp_path}/p.%d.jpg", plate="scene_linear")
    assert found.sources[0].header.colourspace == "scene_linear"
    assert found.notes == ()


def test_an_unknown_colour_space_lists_the_known_ones(tmp_path):
    touch(tmp_path, "p.1.jpg")
    with pytest.raises(BadKnob, match="scene_linear, srgb"):
        collect(f"plate={tmp_path}/p.%d.jpg", plate="rec709")


def test_a_colour_space_of_no_input_is_refused(tmp_path):
    touch(tmp_path, "p.1.jpg")
    with pytest.raises(MissingInput, match="--colourspace names 'plat'"):
        collect(f"plate={tmp_path}/p.%d.jpg", plat="srgb")


def test_sixteen_whole_bits_ask_which_colour_space_they_hold(tmp_path):
    touch(tmp_path, "p.1.png", data=png(16))
    with pytest.raises(BadKnob, match=r"16 bits .* --colourspace plate=srgb"):
        collect(f"plate={tmp_path}/p.%d.png")


@pytest.mark.parametrize(
    ("data", "depth"),
    [
        (JPEG, "8"),
        (png(8), "8"),
        (png(16), "16"),
        (tiff(8, 1), "8"),
        (tiff(16, 1), "16"),
        (tiff(32, 3), "float"),
        (b"SDPX" + bytes(799) + b"\x0a" + bytes(200), "10"),
        (b"not a picture", None),
        (b"II*\0", None),
    ],
)
def test_the_bit_depth_stands_in_the_first_bytes(tmp_path, data, depth):
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert bit_depth(path) == depth


def test_a_picture_that_is_none_is_refused_by_input_frame_and_name(tmp_path):
    touch(tmp_path, "p.7.png", data=b"<html>")
    with pytest.raises(BadPicture, match=r"'plate', frame 7: p.7.png is not"):
        collect(f"plate={tmp_path}/p.%d.png")


def test_the_size_of_an_anamorphic_exr_carries_its_pixel_aspect(tmp_path):
    window = Box(0, 0, 3, 1)
    pixels = np.zeros((2, 4, 3), np.float16)
    picture = LayerFrame("plate", 7, pixels, ("R", "G", "B"), window, window, pixel_aspect=2.0)
    write_layer(tmp_path / "p.7.exr", picture)
    found = collect(f"plate={tmp_path}/p.%d.exr")
    assert [one.header.format for one in found.sources] == [Format(4, 2, 2.0)]


@pytest.mark.fault("F07")
def test_a_png_named_exr_is_refused_by_its_first_bytes(tmp_path):
    touch(tmp_path, "p.7.exr", data=png(8))
    with pytest.raises(BadPicture, match=r"'plate' frame 7 is no EXR.*a PNG"):
        collect(f"plate={tmp_path}/p.%d.exr")


def test_no_input_at_all_shows_how_to_name_one():
    with pytest.raises(MissingInput, match="--input plate="):
        collect()


def test_an_unknown_system_names_the_nearest():
    with pytest.raises(BadKnob, match="Did you mean 'layers'"):
        schema_of([SCHEMA], "layer")


def test_a_picture_given_as_depth_is_refused_before_it_travels(tmp_path):
    box = Box(0, 0, 7, 7)
    picture = LayerFrame("p", 1, np.zeros((8, 8, 3), np.float16), ("R", "G", "B"), box, box)
    write_layer(tmp_path / "p.0001.exr", picture)
    with pytest.raises(BadPicture, match="Input 'depth' frame 1 has no depth channel but"):
        collect(f"depth={tmp_path}/p.%04d.exr")
    (named,) = collect(f"depth={tmp_path}/p.%04d.exr:R").sources
    assert named.header.channel == "R"
    assert not named.is_matte
