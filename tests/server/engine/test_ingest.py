# SPDX-License-Identifier: Apache-2.0
"""The second gate: what decoded pictures are refused for, in which words, and what only warns."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gencomp_protocol.errors import BadMatte, BadPicture, FormatMismatch
from gencomp_protocol.frames import Box, Format, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.contract import CommonParams, Input, PictureHeader, knob
from gencomp_server.engine.ingest import (
    check_ingest,
    check_input,
    check_picture,
    decode_task,
    input_kind,
    named_by_knob,
    variant,
)
from gencomp_server.engine.spool import Spool
from gencomp_server.exr.decode import Decoded, PictureStats
from gencomp_server.exr.header import no_channel

from .conftest import SYSTEM

PLATE = InputHeader("plate", (1001, 1002))
MATTE = InputHeader("matte.a", (1001, 1002))


def picture(size=(1920, 1080), channels=("R", "G", "B"), **stats):
    window = Box(0, 0, size[0] - 1, size[1] - 1)
    facts = {"nan": 0, "inf": 0, "minimum": 0.0, "maximum": 1.0, "nonzero": 9, **stats}
    header = PictureHeader(channels, "half", window, window)
    return Decoded(Path("x"), header, PictureStats(**facts))


def matte(size=(1920, 1080), **stats):
    return picture(size, ("A",), **stats)


@pytest.mark.fault("F08")
def test_a_matte_with_nan_is_refused_naming_input_frame_and_cure():
    with pytest.raises(BadMatte) as caught:
        check_picture("matte", MATTE, 1002, matte(nan=3, inf=1))
    assert str(caught.value) == (
        "Input 'matte.a' frame 1002 has 4 bad samples (NaN or infinite). "
        "A matte is coverage from 0 to 1; repair or render it again."
    )


@pytest.mark.fault("F08")
def test_a_plate_with_nan_is_taken_with_a_warning_that_counts():
    assert check_input("rgb", PLATE, {1001: picture(nan=1), 1002: picture()}) == (
        "Input 'plate' frame 1001 has 1 bad sample (NaN or infinite); "
        "it is left out of the computation.",
    )


def test_bad_samples_on_every_frame_are_one_warning_for_the_whole_input():
    far = {frame: depth(inf=2) for frame in range(1001, 1049)}
    assert check_input("data", DEPTH, far) == (
        "Input 'depth' has 96 bad samples (NaN or infinite) in frames 1001-1048; "
        "they are left out of the computation.",
    )


def test_a_plate_without_colour_is_refused():
    with pytest.raises(BadPicture, match="has no R, G and B, but A"):
        check_picture("rgb", PLATE, 1001, matte())


def test_a_picture_of_another_size_than_the_request_said_is_refused():
    entry = InputHeader("plate", (1001,), format=Format(2048, 1080))
    with pytest.raises(FormatMismatch, match="is 1920x1080, but the input is 2048x1080"):
        check_picture("rgb", entry, 1001, picture())


@pytest.mark.fault("F09")
def test_two_sizes_in_a_sequence_are_refused_naming_both():
    with pytest.raises(FormatMismatch) as caught:
        check_input("rgb", PLATE, {1001: picture(), 1002: picture((1280, 720))})
    assert str(caught.value) == (
        "Input 'plate' frame 1002 is 1280x720, but its frame 1001 is 1920x1080. "
        "Reformat one of them."
    )
    assert caught.value.details == {"input": "plate", "frame": 1002}


@pytest.mark.fault("F10")
def test_a_matte_of_another_size_than_the_plate_is_refused():
    reference = ("plate", picture().header)
    with pytest.raises(FormatMismatch, match="frame 1001 is 640x384, but 'plate' is 1920x1080"):
        check_input("matte", MATTE, {1001: matte((640, 384))}, reference)


@pytest.mark.fault("F05")
def test_data_windows_may_differ():
    wide, narrow = picture(), picture()
    inner = PictureHeader(("R", "G", "B"), "half", wide.header.display_window, Box(5, 5, 9, 9))
    assert check_input("rgb", PLATE, {1: wide, 2: Decoded(Path("x"), inner, narrow.stats)}) == ()


@pytest.mark.fault("F10")
def test_a_matte_that_is_empty_on_every_frame_is_refused():
    empty = matte(maximum=0.0, nonzero=0)
    with pytest.raises(BadMatte, match=r"'matte\.a' is empty: .* any of its 2 frames\."):
        check_input("matte", MATTE, {1001: empty, 1002: empty})


def test_an_empty_still_is_not_told_of_frames():
    with pytest.raises(BadMatte, match=r"'matte\.a' is empty: it covers nothing\. "):
        check_input("matte", MATTE, {1001: matte(maximum=0.0, nonzero=0)})


@dataclass(frozen=True)
class ChannelParams(CommonParams):
    """A knob that names a channel."""

    second: str = knob("", doc="Channel.")


def test_a_channel_that_a_knob_names_and_no_file_has_is_refused_by_knob_and_file():
    system = replace(
        SYSTEM,
        inputs=(
            Input("mask", "matte", "Mask."),
            Input("other", "matte", "Other.", files_of="mask", channel_knob="second"),
        ),
        params=ChannelParams,
    )
    entry = InputHeader("other", (1001,), channel="mask.green")
    asked = Request("nothing", FrameRange(1001, 1001), (entry,), {"second": "mask.green"})
    error = no_channel("mask.green", ("A",), "Input 'other' frame 1001")
    said = named_by_knob(system, asked, entry, 1001, error)
    assert str(said) == (
        "Input 'mask' frame 1001 has no channel 'mask.green', which knob 'second' names. It has A."
    )
    assert said.details == {"knob": "second", "input": "mask", "frame": 1001}
    connected = replace(asked, knobs={})
    assert named_by_knob(system, connected, entry, 1001, error) is error


def test_a_matte_may_be_empty_on_some_frames():
    assert check_input("matte", MATTE, {1001: matte(maximum=0.0), 1002: matte()}) == ()


def test_a_matte_outside_zero_to_one_warns_and_a_hair_outside_does_not():
    pictures = {1001: matte(maximum=1.005), 1002: matte(minimum=-0.5, maximum=3.0)}
    assert check_input("matte", MATTE, pictures) == (
        "Input 'matte.a' leaves the range 0 to 1 at 1002 (from -0.5 to 3); it is clamped.",
    )


@pytest.mark.fault("F10")
def test_a_matte_that_covers_everything_warns_that_it_may_be_the_wrong_channel():
    (said,) = check_input("matte", MATTE, {1001: matte(minimum=1.0), 1002: matte(minimum=1.0)})
    assert "covers the whole picture on every frame" in said
    assert "not in the channel A" in said


@pytest.mark.fault("F10")
@pytest.mark.parametrize("share", [0.9, 0.97])
def test_a_matte_of_almost_everything_asks_whether_it_is_the_wrong_way_round(share):
    covering = matte(nonzero=int(1920 * 1080 * share) + 1)
    (said,) = check_input("matte", MATTE, {1001: covering, 1002: matte(nonzero=1920 * 1080)})
    assert said == (
        f"Input 'matte.a' covers {share:.0%} of the picture or more on every frame; "
        "if it is the wrong way round, invert it."
    )
    assert check_input("matte", MATTE, {1001: covering, 1002: matte(nonzero=1000)}) == ()


@pytest.mark.fault("F10")
def test_a_matte_read_of_a_colour_without_alpha_says_so():
    red = replace(picture(channels=("R",)), no_alpha=True)
    assert check_input("matte", MATTE, {1001: red, 1002: red}) == (
        "Input 'matte.a' has no alpha; its channel R is taken as coverage.",
    )


@pytest.mark.fault("F09")
def test_another_frame_rate_than_the_plates_is_told_and_frames_go_by_their_numbers():
    def at(rate, one):
        return replace(one, header=replace(one.header, metadata={"framesPerSecond": rate}))

    plate = {n: at((24000, 1001), picture()) for n in (1001, 1002)}
    other = {n: at((25, 1), matte()) for n in (1001, 1002)}
    said = check_ingest(SYSTEM, request(PLATE, MATTE), {"plate": plate, "matte.a": other})
    assert said == (
        "Input 'matte.a' says 25 frames a second, 'plate' 23.976; frames are taken by "
        "their numbers.",
    )
    same = {n: at((48000, 2002), matte()) for n in (1001, 1002)}
    assert check_ingest(SYSTEM, request(PLATE, MATTE), {"plate": plate, "matte.a": same}) == ()


@pytest.mark.parametrize(
    "rate", [float("inf"), float("nan"), (0.5, 0.5), (1e300, 1e-300), (1, 0), ("25", "1"), "25", ()]
)
def test_a_frame_rate_that_is_none_is_passed_over(rate):
    def at(one):
        return replace(one, header=replace(one.header, metadata={"framesPerSecond": rate}))

    pictures = {
        "plate": {n: at(picture()) for n in (1001, 1002)},
        "matte.a": {n: at(matte()) for n in (1001, 1002)},
    }
    assert check_ingest(SYSTEM, request(PLATE, MATTE), pictures) == ()


def request(*entries):
    return Request("nothing", FrameRange(1001, 1002), entries)


def test_a_whole_job_is_measured_by_its_plate():
    both = {1001: matte((640, 384)), 1002: matte((640, 384))}
    pictures = {"matte.a": both, "plate": {1001: picture(), 1002: picture()}}
    with pytest.raises(FormatMismatch, match=r"'matte\.a' .* but 'plate' is 1920x1080"):
        check_ingest(SYSTEM, request(MATTE, PLATE), pictures)


def test_a_whole_job_that_fits_gives_its_warnings_in_order():
    pictures = {
        "plate": {1001: picture(inf=2), 1002: picture()},
        "matte.a": {1001: matte(maximum=2.0), 1002: matte()},
    }
    said = check_ingest(SYSTEM, request(PLATE, MATTE), pictures)
    assert [sentence.split(" has ")[0].split(" leaves ")[0] for sentence in said] == [
        "Input 'plate' frame 1001",
        "Input 'matte.a'",
    ]


def test_what_an_input_is_comes_from_its_declaration():
    assert input_kind(SYSTEM, "matte.boy") == "matte"
    assert input_kind(SYSTEM, "clean_plate") == "rgb"


def test_ways_to_decode_that_differ_in_pixels_differ_in_name():
    srgb = InputHeader("plate", (1,), colourspace="srgb")
    named = InputHeader("matte.a", (1,), channel="mask.red")
    names = [
        variant("rgb", PLATE, "exr"),
        variant("rgb", PLATE, "image"),
        variant("rgb", srgb, "image"),
        variant("matte", MATTE, "exr"),
        variant("matte", named, "exr"),
    ]
    assert len(set(names)) == 5
    assert variant("rgb", srgb, "exr") == variant("rgb", PLATE, "exr")


def test_a_task_reads_and_writes_in_the_spool(tmp_path):
    spool, digest = Spool(tmp_path), "ab" * 32
    task = decode_task(spool, "matte", MATTE, 1001, digest, "exr")
    assert task.source == tmp_path / "pictures" / "ab" / digest
    assert task.target.parent == tmp_path / "decoded"
    assert (task.role, task.name, task.frame) == ("matte", "matte.a", 1001)


DEPTH = InputHeader("depth", (1001, 1002))


def depth(**stats):
    return picture(channels=("Z",), **stats)


def test_data_may_be_any_value_and_is_not_told_of_clamping():
    far = {1001: depth(minimum=-3.0, maximum=1e9), 1002: depth(minimum=0.0, maximum=0.0, nonzero=0)}
    assert check_input("data", DEPTH, far) == ()


def test_samples_of_data_that_are_not_finite_are_counted():
    assert check_input("data", DEPTH, {1001: depth(inf=2)}) == (
        "Input 'depth' frame 1001 has 2 bad samples (NaN or infinite); "
        "they are left out of the computation.",
    )


def test_data_that_says_nothing_is_refused():
    empty = {1001: depth(), 1002: depth(minimum=None, maximum=None, nan=9)}
    with pytest.raises(BadPicture, match="'depth' frame 1002 has no finite sample in Z") as caught:
        check_input("data", DEPTH, empty)
    assert caught.value.details == {"input": "depth", "frame": 1002}


def test_the_same_file_is_decoded_apart_as_matte_as_data_and_for_what_goes_along():
    names = {variant(kind, DEPTH, "exr") for kind in ("matte", "data", "rgb", "rest")}
    assert names == {"exr-matte-auto", "exr-data-auto", "exr-colour", "exr-rest"}
