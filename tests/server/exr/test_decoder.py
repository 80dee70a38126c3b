# SPDX-License-Identifier: Apache-2.0
"""EXRs through the decoder: the samples bit for bit, the windows, the figures, the refusals."""

import struct

import numpy as np
import pytest

from gencomp_protocol.errors import BadPicture
from gencomp_protocol.frames import Box
from gencomp_server.exr.decoder import measure
from gencomp_server.exr.pixels import library_error

# 1.0, -0.0, a quiet NaN with a payload, +inf, the least denormal, 65504, -2.5, 0.0
HALF_BITS = [0x3C00, 0x8000, 0x7E55, 0x7C00, 0x0001, 0x7BFF, 0xC100, 0x0000]
FLOAT_BITS = [0x3F800000, 0x80000000, 0x7FC12345, 0xFF800000, 1, 0x7F7FFFFF, 0xC0200000, 0]


def plane(bits, kind):
    return (
        np.array(bits, {"float16": np.uint16, "float32": np.uint32}[kind]).view(kind).reshape(2, 4)
    )


def test_half_samples_keep_every_bit(handmade, decode):
    pixels, header = decode(handmade.exr(dict.fromkeys("RGB", plane(HALF_BITS, "float16"))))
    assert (pixels.dtype, header.pixel_type) == (np.float16, "half")
    for channel in range(3):
        assert pixels[..., channel].copy().view(np.uint16).ravel().tolist() == HALF_BITS


def test_float_samples_keep_every_bit(handmade, decode):
    pixels, header = decode(handmade.exr(dict.fromkeys("RGB", plane(FLOAT_BITS, "float32"))))
    assert (pixels.dtype, header.pixel_type) == (np.float32, "float")
    assert pixels[..., 1].copy().view(np.uint32).ravel().tolist() == FLOAT_BITS


def test_half_beside_float_becomes_float_of_the_same_value(handmade, decode):
    half = np.array([[0.1, -2.5]], np.float16)
    single = np.array([[0.1, 3.0]], np.float32)
    pixels, header = decode(handmade.exr({"R": half, "G": single, "B": half}))
    assert header.pixel_type == "float"
    assert pixels[0, 0].tolist() == [0.0999755859375, float(np.float32(0.1)), 0.0999755859375]


def test_a_plate_keeps_its_alpha_and_leaves_other_channels(handmade, decode):
    planes = {
        n: np.full((1, 1), v, np.float16) for n, v in zip("RGBAZ", (1, 2, 3, 4, 5), strict=True)
    }
    pixels, header = decode(handmade.exr(planes))
    assert header.channels == ("R", "G", "B", "A")
    assert pixels.tolist() == [[[1.0, 2.0, 3.0, 4.0]]]


def test_colour_is_found_by_name_however_the_file_is_ordered(handmade, decode):
    names = ("A", "B", "G", "R", "aux.x", "zebra")
    planes = {n: np.full((1, 1), v, np.float16) for n, v in zip(names, range(6), strict=True)}
    pixels, _ = decode(handmade.exr(planes))
    assert pixels.tolist() == [[[3.0, 2.0, 1.0, 0.0]]]


@pytest.mark.fault("F05")
@pytest.mark.parametrize(
    ("origin", "display"),
    [
        ((0, 0), (0, 0, 3, 1)),
        ((-2, -1), (0, 0, 1, 0)),
        ((10, 20), (0, 0, 99, 99)),
        ((-500, -500), (1000, 1000, 1099, 1099)),
    ],
)
def test_windows_are_kept_wherever_they_lie(handmade, decode, origin, display):
    planes = dict.fromkeys("RGB", plane(HALF_BITS, "float16"))
    _, header = decode(handmade.exr(planes, origin=origin, display=display))
    x, y = origin
    assert header.data_window == Box(x, y, x + 3, y + 1)
    assert header.display_window == Box(*display)


def test_row_zero_is_the_top(handmade, decode):
    rows = np.array([[1], [2], [3]], np.float16)
    pixels, _ = decode(handmade.exr({"A": rows}), role="matte")
    assert pixels[:, 0, 0].tolist() == [1.0, 2.0, 3.0]


def test_a_matte_is_one_channel(handmade, decode):
    planes = {n: np.full((1, 2), v, np.float16) for n, v in zip("RGBA", (1, 2, 3, 4), strict=True)}
    pixels, header = decode(handmade.exr(planes), role="matte")
    assert (pixels.shape, pixels[0, 0, 0], header.channels) == ((1, 2, 1), 4.0, ("A",))
    pixels, _ = decode(handmade.exr(planes), role="matte", channel="rgba.blue")
    assert pixels[0, 0, 0] == 3.0


def test_the_second_part_is_read_where_the_colour_is(handmade, decode):
    depth = {"Z": np.full((2, 2), 9, np.float16)}
    colour = {n: np.full((3, 1), v, np.float16) for n, v in zip("RGB", (1, 2, 3), strict=True)}
    pixels, header = decode(handmade.multipart([("depth", depth), ("beauty", colour)]))
    assert pixels[2, 0].tolist() == [1.0, 2.0, 3.0]
    assert header.data_window == Box(0, 0, 0, 2)


@pytest.mark.fault("F08")
def test_samples_that_are_not_finite_are_counted(handmade, decode):
    _, header = decode(handmade.exr(dict.fromkeys("RGB", plane(HALF_BITS, "float16"))))
    assert header.nan_count == 6


def test_figures_leave_out_what_is_not_finite():
    samples = np.array([np.nan, np.inf, -np.inf, -2.0, 0.0, 7.5], np.float16).reshape(1, 6, 1)
    stats = measure(samples)
    assert (stats.nan, stats.inf, stats.minimum, stats.maximum, stats.nonzero) == (
        1,
        2,
        -2.0,
        7.5,
        2,
    )


def test_a_picture_without_a_finite_sample_has_no_bounds():
    stats = measure(np.full((300, 2, 1), np.nan, np.float32))
    assert (stats.nan, stats.minimum, stats.maximum) == (600, None, None)


def test_metadata_passes_without_paths_people_and_storage(handmade, decode):
    def text(name, value):
        return handmade.attribute(name, "string", value)

    extra = (
        handmade.attribute("timeCode", "timecode", struct.pack("<II", 0x01020304, 0))
        + handmade.attribute("isoSpeed", "float", struct.pack("<f", 800.0))
        + text("reelName", b"A001C002")
        + text("input/filename", b"plate.exr")
        + text("sourceFile", b"/mnt/shows/secret/plate.1001.exr")
        + text("windowsFile", b"C:\\shows\\secret\\plate.exr")
        + text("hostComputer", b"ws-042")
        + text("gencomp:system", b"older")
        + text("long", b"x" * 5000)
        + text("notText", b"\xff\xfe\xfa")
    )
    _, header = decode(handmade.exr(dict.fromkeys("RGB", plane(HALF_BITS, "float16")), extra=extra))
    assert dict(header.metadata) == {
        "smpte:TimeCode": (0x01020304, 0),
        "isoSpeed": 800.0,
        "reelName": "A001C002",
    }


def test_metadata_passes_only_where_its_value_tells_its_type(handmade, decode):
    def floats(name, kind, *values):
        return handmade.attribute(name, kind, struct.pack(f"<{len(values)}f", *values))

    extra = (
        handmade.attribute("aDouble", "double", struct.pack("<d", 0.1))
        + handmade.attribute("aPlace", "v2d", struct.pack("<2d", 0.1, 0.2))
        + handmade.attribute("aRate", "rational", struct.pack("<iI", 25, 1))
        + handmade.attribute("aTime", "timecode", struct.pack("<II", 0x01020304, 0))
        + handmade.attribute("framesPerSecond", "rational", struct.pack("<iI", 25, 1))
        + floats("aBox", "box2f", 1, 2, 3, 4)
        + floats("pair", "floatvector", 1, 2)
        + floats("four", "floatvector", 1, 2, 3, 4)
        + floats("turn", "m33f", 1, 0, 0, 0, 1, 0, 0, 0, 1)
        + handmade.attribute("region", "box2i", struct.pack("<4i", 1, 2, 3, 4))
    )
    _, header = decode(handmade.exr(dict.fromkeys("RGB", plane(HALF_BITS, "float16")), extra=extra))
    assert dict(header.metadata) == {
        "framesPerSecond": (25, 1),
        "four": (1.0, 2.0, 3.0, 4.0),
        "turn": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        "region": (1, 2, 3, 4),
    }


def test_a_refusal_names_input_and_frame_for_machines_too(handmade, decode):
    with pytest.raises(BadPicture) as caught:
        decode(handmade.exr({"Z": plane(HALF_BITS, "float16")}))
    assert caught.value.details == {"input": "plate", "frame": 1001}


@pytest.mark.fault("F01")
def test_a_file_cut_in_its_pixels_leaves_nothing_behind(handmade, decode, tmp_path):
    data = handmade.exr(dict.fromkeys("RGB", plane(HALF_BITS, "float16")))
    with pytest.raises(BadPicture, match="ends before its picture does"):
        decode(data[:-1])
    assert [path.name for path in tmp_path.iterdir()] == ["picture"]


@pytest.mark.fault("F11")
def test_words_of_the_library_that_are_no_text_do_not_raise():
    class Source:
        def geterror(self):
            return b"bad name \xff\xfe".decode("utf-8")

    assert library_error(Source()) == "bad name \\xff\\xfe"


@pytest.mark.fault("F11")
def test_a_channel_whose_name_is_no_text_does_no_harm(handmade, decode):
    planes = {n: np.full((1, 1), v, np.float16) for n, v in zip("RGBZ", (1, 2, 3, 9), strict=True)}
    data = handmade.exr(planes).replace(b"Z\0\1\0\0\0", b"\xff\0\1\0\0\0")
    assert decode(data)[0].tolist() == [[[1.0, 2.0, 3.0]]]
