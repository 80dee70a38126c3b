# SPDX-License-Identifier: Apache-2.0
"""PNG, JPEG, TIFF and DPX through the decoder: codes to light, codes to coverage, refusals."""

import numpy as np
import OpenImageIO as oiio
import pytest

from gencomp_protocol.errors import BadPicture
from gencomp_protocol.frames import Box
from gencomp_server.exr.images import srgb_to_linear


def encode_srgb(light):
    """IEC 61966-2-1 in the other direction, in double precision."""
    light = np.asarray(light, np.float64)
    return np.where(
        light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055
    )


def library_file(path, codes, kind, **attributes):
    spec = oiio.ImageSpec(codes.shape[1], codes.shape[0], codes.shape[2], kind)
    for name, value in attributes.items():
        spec.attribute(name.replace("__", ":"), value)
    file = oiio.ImageOutput.create(str(path))
    assert file.open(str(path), spec), file.geterror()
    assert file.write_image(codes)
    file.close()
    return path.read_bytes()


def test_every_8_bit_code_comes_back_from_half(handmade, decode):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    pixels, header = decode(handmade.png(ramp), "image", colourspace="srgb")
    assert (pixels.dtype, header.pixel_type) == (np.float16, "half")
    assert np.rint(encode_srgb(pixels[0, :, 1]) * 255).tolist() == list(range(256))


def test_every_10_bit_code_would_come_back_from_half():
    light = srgb_to_linear((np.arange(1024) / 1023).astype(np.float32)).astype(np.float16)
    assert np.rint(encode_srgb(light) * 1023).tolist() == list(range(1024))


@pytest.mark.parametrize(
    ("code", "light"),
    [
        (0, 0.0),
        (10, 0.0030352698),
        (11, 0.0033465358),
        (128, 0.2158605),
        (188, 0.5028865),
        (255, 1.0),
    ],
)
def test_srgb_codes_become_the_light_that_the_standard_says(code, light):
    found = srgb_to_linear(np.array([code / 255], np.float32))[0]
    assert found == pytest.approx(light, rel=1e-6)  # two roundings of float32


def test_the_curve_goes_on_over_white_and_is_odd_about_black():
    assert srgb_to_linear(np.array([-0.5, 0.5, 1.5], np.float32)) == pytest.approx(
        [-0.21404114, 0.21404114, 2.5371551], rel=1e-6
    )


def test_16_bit_codes_become_float(handmade, decode):
    ramp = np.repeat(np.array([[[0], [257], [65535]]], np.uint16), 3, axis=2)
    pixels, header = decode(handmade.png(ramp), "image", colourspace="srgb")
    assert header.pixel_type == "float"
    assert pixels[0, :, 0] == pytest.approx([0.0, 1 / 255 / 12.92, 1.0], rel=1e-6)


def test_codes_that_are_light_already_are_only_divided(handmade, decode):
    codes = np.array([[[0, 51, 255]]], np.uint8)
    pixels, _ = decode(handmade.png(codes), "image")
    assert pixels.tolist() == [[[0.0, 0.199951171875, 1.0]]]


def test_a_matte_is_coverage_and_never_colour(handmade, decode):
    codes = np.array([[[0], [51], [255]]], np.uint8)
    pixels, header = decode(handmade.png(codes), "image", role="matte", colourspace="srgb")
    assert pixels[0, :, 0].tolist() == [0.0, 0.199951171875, 1.0]
    assert header.channels == ("Y",)


def test_a_matte_of_a_picture_with_alpha_is_its_alpha(handmade, decode):
    codes = np.array([[[255, 0, 0, 51]]], np.uint8)
    pixels, header = decode(handmade.png(codes), "image", role="matte")
    assert (pixels.tolist(), header.channels) == ([[[0.199951171875]]], ("A",))
    pixels, _ = decode(handmade.png(codes), "image", role="matte", channel="red")
    assert pixels.tolist() == [[[1.0]]]


def test_colour_with_alpha_comes_premultiplied_in_light(handmade, decode):
    codes = np.array([[[255, 188, 0, 51]]], np.uint8)
    pixels, header = decode(handmade.png(codes), "image", colourspace="srgb")
    assert header.channels == ("R", "G", "B", "A")
    assert pixels[0, 0] == pytest.approx([0.2, 0.5028865 * 0.2, 0.0, 0.2], rel=5e-4)  # half


def test_premultiplied_codes_are_divided_before_the_curve(decode, tmp_path):
    codes = np.array([[[51, 0, 0, 51]]], np.uint8)
    data = library_file(tmp_path / "a.tif", codes, "uint8")
    pixels, _ = decode(data, "image", colourspace="srgb")
    assert pixels[0, 0] == pytest.approx([0.2, 0.0, 0.0, 0.2], rel=5e-4)  # half


def test_every_row_of_a_tall_picture_is_converted(handmade, decode):
    rows = np.repeat(np.arange(300, dtype=np.uint16)[:, None, None] * 218, 3, axis=2)
    pixels, _ = decode(handmade.png(rows), "image", colourspace="srgb")
    codes = np.rint(encode_srgb(pixels[:, 0, 2]) * 65535).astype(int)
    assert codes.tolist() == [218 * row for row in range(300)]


def test_a_grey_picture_is_no_plate(handmade, decode):
    with pytest.raises(BadPicture, match=r"has no R, G and B channels but Y\. Write it with"):
        decode(handmade.png(np.zeros((1, 1, 1), np.uint8)), "image")


def test_windows_are_the_whole_picture(handmade, decode):
    _, header = decode(handmade.png(np.zeros((3, 5, 3), np.uint8)), "image")
    assert header.display_window == header.data_window == Box(0, 0, 4, 2)


def test_a_png_cut_anywhere_is_refused(handmade, decode):
    data = handmade.png(np.zeros((2, 2, 3), np.uint8))
    for end in range(8, len(data)):
        with pytest.raises(BadPicture, match="ends before its picture does"):
            decode(data[:end], "image")


def test_a_png_with_a_flipped_bit_is_refused(handmade, decode):
    data = bytearray(handmade.png(np.full((4, 4, 3), 77, np.uint8)))
    data[data.index(b"IDAT") + 6] ^= 4
    with pytest.raises(BadPicture, match="or is damaged"):
        decode(bytes(data), "image")


@pytest.mark.parametrize("suffix", ["jpg", "tif", "dpx"])
def test_other_pictures_are_read_and_refused_where_they_are_cut(decode, tmp_path, suffix):
    y, x = np.mgrid[0:64, 0:96]
    codes = np.stack([x * 2, y * 3, (x + y) % 256], axis=-1).astype(np.uint8)
    data = library_file(tmp_path / f"a.{suffix}", codes, "uint8")
    pixels, header = decode(data, "image")
    assert header.channels == ("R", "G", "B")
    slack = 12 if suffix == "jpg" else 0.13  # a JPEG is lossy; half of 255 codes is not quite exact
    assert np.abs(pixels.astype(np.float32) * 255 - codes).max() < slack
    for end in (len(data) // 2, len(data) - 64, len(data) - 1):
        with pytest.raises(BadPicture):
            decode(data[:end], "image")


def test_10_bit_dpx_is_read_as_half(decode, tmp_path):
    codes = np.full((2, 2, 3), 65535, np.uint16)
    data = library_file(tmp_path / "a.dpx", codes, "uint16", oiio__BitsPerSample=10)
    pixels, header = decode(data, "image", colourspace="srgb")
    assert (header.pixel_type, pixels.min()) == ("half", 1.0)


def test_a_logarithmic_dpx_is_not_taken_for_srgb(decode, tmp_path):
    codes = np.full((2, 2, 3), 30000, np.uint16)
    data = library_file(
        tmp_path / "a.dpx", codes, "uint16", oiio__BitsPerSample=10, oiio__ColorSpace="KodakLog"
    )
    with pytest.raises(BadPicture, match="says that it is logarithmic"):
        decode(data, "image", colourspace="srgb")


def test_an_exr_under_an_image_name_is_told_its_suffix(handmade, decode):
    data = handmade.exr(dict.fromkeys("RGB", np.zeros((1, 1), np.float16)))
    with pytest.raises(BadPicture, match=r"it is an EXR\. Give it the suffix \.exr"):
        decode(data, "image")


def test_a_gif_is_refused_by_name(decode):
    with pytest.raises(BadPicture, match=r"it is a GIF\. Write it as EXR"):
        decode(b"GIF89a" + bytes(40), "image")
