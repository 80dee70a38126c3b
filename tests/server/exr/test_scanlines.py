# SPDX-License-Identifier: Apache-2.0
"""Files written by hand: what another reader finds in them, whatever their sizes and types."""

import io
import zlib

import numpy as np
import OpenImageIO as oiio
import pytest

from gencomp_protocol.frames import Box
from gencomp_server.exr.header import parse_exr
from gencomp_server.exr.scanlines import (
    OF_HALF,
    OF_SINGLE,
    Deflater,
    Part,
    Plane,
    deflater_for,
    write_parts,
)

BITS = {"float16": np.uint16, "float32": np.uint32, "uint32": np.uint32}


def noise(kind, shape, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(BITS[kind]).max, shape, BITS[kind], endpoint=True).view(kind)


DISPLAY = Box(0, 0, 9, 9)


def written(tmp_path, parts, **facts):
    path = tmp_path / "it.exr"
    with path.open("wb") as file:
        write_parts(file, parts, DISPLAY, 1.0, **facts)
    return path


def by_library(path, number, name):
    file = oiio.ImageInput.open(str(path))
    assert file.seek_subimage(number, 0)
    spec = file.spec()
    place = list(spec.channelnames).index(name)
    return file.read_image(number, 0, place, place + 1, str(spec.channelformat(place)))[..., 0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (15, 3), (16, 3), (17, 3), (33, 5)])
@pytest.mark.parametrize("smooth", [True, False])
def test_every_type_is_read_by_others_at_every_size(tmp_path, shape, smooth):
    height, width = shape
    planes = [Plane(f"x.{kind}", noise(kind, shape)) for kind in BITS]
    if smooth:
        planes = [Plane(one.name, np.zeros_like(one.samples)) for one in planes]
    path = written(tmp_path, [Part(tuple(planes), Box(-3, 5, width - 4, height + 4))])
    for plane in planes:
        assert by_library(path, 0, plane.name).tobytes() == plane.samples.tobytes()


def test_parts_have_windows_and_attributes_of_their_own(tmp_path):
    first = Plane("Y", noise("float16", (20, 3)))
    second = Plane("n", noise("uint32", (2, 40), 2))
    parts = [
        Part((first,), Box(0, 0, 2, 19), "grey", {"shot": "a010"}),
        Part((second,), Box(-40, 3, -1, 4), "ids"),
    ]
    path = written(tmp_path, parts)
    assert [(one.name, one.data_window) for one in parse_exr(path, "it")] == [
        ("grey", Box(0, 0, 2, 19)),
        ("ids", Box(-40, 3, -1, 4)),
    ]
    assert by_library(path, 0, "Y").tobytes() == first.samples.tobytes()
    assert by_library(path, 1, "n").tobytes() == second.samples.tobytes()


def test_names_beyond_31_bytes_are_read_by_others(tmp_path):
    name = "a_rather_long_layer_name_for_a_matte.CryptoAsset00.red"
    plane = Plane(name, noise("float32", (2, 2)))
    path = written(tmp_path, [Part((plane,), Box(0, 0, 1, 1))])
    assert by_library(path, 0, name).tobytes() == plane.samples.tobytes()


def test_a_signalling_nan_is_not_quietened(tmp_path):
    bits = np.array([[0x7D01, 0xFC01, 0x7C00]], np.uint16)
    path = written(tmp_path, [Part((Plane("R", bits.view(np.float16)),), Box(0, 0, 2, 0))])
    assert by_library(path, 0, "R").tobytes() == bits.tobytes()


def test_what_cannot_be_made_smaller_is_stored_as_it_is(tmp_path):
    samples = noise("float32", (16, 64))
    path = written(tmp_path, [Part((Plane("Z", samples),), Box(0, 0, 63, 15))])
    assert samples.tobytes() in path.read_bytes()


def test_the_type_of_most_bytes_decides_how_a_part_is_deflated():
    half, single = np.zeros((1, 1), np.float16), np.zeros((1, 1), np.float32)
    colour = [Plane(name, half) for name in "RGBA"]
    assert deflater_for(colour) is OF_HALF
    assert deflater_for([*colour, Plane("Z", single)]) is OF_HALF
    assert deflater_for([*colour, Plane("Z", single), *[Plane("N", single)] * 2]) is OF_SINGLE


def test_any_way_to_deflate_gives_the_same_pixels(tmp_path):
    plane = Plane("Z", np.repeat(noise("float32", (40, 3)), 30, axis=1))
    for strategy in (zlib.Z_RLE, zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY):
        part = Part((plane,), Box(0, 0, 89, 39))
        path = written(tmp_path, [part], deflater=Deflater(1, strategy))
        assert by_library(path, 0, "Z").tobytes() == plane.samples.tobytes()


def test_the_same_picture_gives_the_same_bytes():
    part = Part((Plane("R", noise("float16", (40, 30))),), Box(0, 0, 29, 39), "", {"b": 1, "a": 2})
    made = []
    for _ in range(2):
        file = io.BytesIO()
        write_parts(file, [part], Box(0, 0, 9, 9), 2.0)
        made.append(file.getvalue())
    assert made[0] == made[1]
