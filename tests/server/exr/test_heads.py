# SPDX-License-Identifier: Apache-2.0
"""Size and bits of DPX, PNG, TIFF and JPEG from their headers, as the decoder sees them."""

import numpy as np
import OpenImageIO as oiio
import pytest

from gencomp_protocol.frames import Format, FrameRange
from gencomp_server.exr.heads import bit_depth, picture_size
from gencomp_server.sources import gather, parse_given

KINDS = [
    *(("png", "uint8", "8"), ("png", "uint16", "16"), ("jpg", "uint8", "8")),
    *(("tif", "uint8", "8"), ("tif", "uint16", "16"), ("tif", "float", "float")),
    *(("dpx", "uint8", "8"), ("dpx", "uint16", "16")),
]


def write(path, kind="uint8", **attributes):
    """Write a picture of 37x21 pixels."""
    spec = oiio.ImageSpec(37, 21, 3, kind)
    for name, value in attributes.items():
        spec.attribute(name, value)
    out = oiio.ImageOutput.create(str(path))
    assert out.open(str(path), spec)
    assert out.write_image(np.full((21, 37, 3), 0.5, np.float32))
    out.close()
    return path


@pytest.mark.parametrize(("suffix", "kind", "depth"), KINDS)
def test_size_and_bits_are_those_the_library_reads(tmp_path, suffix, kind, depth):
    path = write(tmp_path / f"p.{suffix}", kind)
    assert picture_size(path) == (37, 21)
    assert bit_depth(path) == depth


def test_when_a_jpeg_carries_metadata_or_a_rotation_then_its_size_is_the_stored_one(tmp_path):
    path = write(tmp_path / "p.jpg", Orientation=6, ImageDescription="x" * 5000)
    assert path.read_bytes().index(b"\xff\xc0") > 1024
    assert picture_size(path) == (37, 21)


@pytest.mark.parametrize(("suffix", "kind", "depth"), KINDS)
def test_when_a_file_is_cut_anywhere_then_nothing_breaks(tmp_path, suffix, kind, depth):
    path = write(tmp_path / f"p.{suffix}", kind)
    data = path.read_bytes()
    for length in range(0, min(len(data), 2100), 13):
        path.write_bytes(data[:length])
        assert picture_size(path) in (None, (37, 21))
        bit_depth(path)


def test_when_a_header_claims_no_picture_then_there_is_no_size(tmp_path):
    path = tmp_path / "p.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IHDR" + bytes(13))
    assert picture_size(path) is None
    path.write_bytes(b"<html>")
    assert picture_size(path) is None


def test_when_pictures_are_not_exr_then_a_request_knows_their_size_too(tmp_path):
    for n in (1, 2):
        write(tmp_path / f"p.{n}.jpg")
    schema = {"title": "T", "inputs": [{"name": "plate", "kind": "rgb", "covers": ("sequence",)}]}
    found = gather([parse_given(f"plate={tmp_path}/p.%d.jpg")], schema, FrameRange(1, 2), {})
    assert found.sources[0].header.format == Format(37, 21)
