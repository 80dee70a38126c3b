# SPDX-License-Identifier: Apache-2.0
"""Layers to EXR and back: the bits, the windows, what they carry, and that they are whole."""

import errno
import os
import resource
from pathlib import Path

import numpy as np
import OpenEXR
import OpenImageIO as oiio
import pytest

from exr_by_hand import read_by_hand
from gencomp_protocol import disk
from gencomp_protocol.errors import DiskFull, InternalError, UnwritableOutput
from gencomp_protocol.frames import Box
from gencomp_protocol.layers import RGBA
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.header import parse_exr
from gencomp_server.exr.read import Plane
from gencomp_server.exr.write import Part, write_layer, write_parts
from gencomp_server.finishing import COMPRESSIONS

WINDOW = Box(0, 0, 3, 1)
BITS = {"float16": np.uint16, "float32": np.uint32, "uint32": np.uint32}


def layer(pixels, **wanted):
    facts = {"channels": RGBA, "display_window": WINDOW, "data_window": WINDOW, **wanted}
    return LayerFrame("boy", 1001, pixels, **facts)


def written(tmp_path, pixels, metadata=None, **wanted):
    path = tmp_path / "boy.1001.exr"
    write_layer(path, layer(pixels, **wanted), metadata)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        (np.float16, [0x3C00, 0x8000, 0x7E55, 0xFC00, 0x0001, 0x7BFF, 0xC100, 0]),
        (np.float32, [0x3F800000, 0x80000000, 0x7FC12345, 0xFF800000, 1, 0x7F7FFFFF, 3, 0]),
    ],
)
def test_every_bit_comes_back(decode, tmp_path, kind, bits):
    raw = np.array(bits * 4, np.uint16 if kind is np.float16 else np.uint32).view(kind)
    pixels, header = decode(written(tmp_path, raw.reshape(2, 4, 4)))
    assert pixels.tobytes() == raw.tobytes()
    assert header.channels == RGBA


def test_every_half_there_is_comes_back(decode, tmp_path):
    raw = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(128, 128, 4)
    box = Box(0, 0, 127, 127)
    pixels, _ = decode(written(tmp_path, raw, data_window=box, display_window=box))
    assert pixels.tobytes() == raw.tobytes()


def test_windows_and_pixel_aspect_come_back(decode, tmp_path):
    boxes = {"data_window": Box(-3, 5, 0, 6), "display_window": Box(10, 20, 1933, 1099)}
    data = written(tmp_path, np.zeros((2, 4, 4), np.float16), pixel_aspect=2.0, **boxes)
    _, header = decode(data)
    assert (header.data_window, header.display_window) == tuple(boxes.values())
    assert header.pixel_aspect == 2.0


def test_metadata_comes_back_with_its_types(decode, tmp_path):
    carried = {
        "smpte:TimeCode": (0x01020304, 0x0A0B0C0D),
        "smpte:KeyCode": (1, 2, 3, 4, 5, 6, 64),
        "framesPerSecond": (24000, 1001),
        "chromaticities": (0.75, 0.25, 0.0, 1.0, 0.0, -0.5, 0.25, 0.5),
        "worldToCamera": tuple(float(i) for i in range(16)),
        "isoSpeed": 800.0,
        "take": 3,
        "reel": "A001C002",
        "slope": (1.0, 2.0, 3.0),
    }
    _, header = decode(written(tmp_path, np.zeros((2, 4, 4), np.float16), metadata=carried))
    assert dict(header.metadata) == carried


TYPED = {
    "smpte:TimeCode": ((0xE3D9D9E9 - (1 << 32), 0x76543210), "timecode", "e3d9d9e9 76543210"),
    "framesPerSecond": ((48, 2), "rational", "00000018 00000001"),
    "adoptedNeutral": ((0.5, 0.25), "v2f", "3f000000 3e800000"),
    "originalDataWindow": ((1, 2, 3, 4), "box2i", "00000001 00000002 00000003 00000004"),
    "point": ((1, -2), "v2i", "00000001 fffffffe"),
    "place": ((1, 2, 3), "v3i", "00000001 00000002 00000003"),
    "curve": ((1.0, 2.0, 3.0, 4.0), "floatvector", "3f800000 40000000 40400000 40800000"),
    "turn": ((1.0, 0.0, 0.0) * 3, "m33f", "3f800000 00000000 00000000 " * 3),
    "count": (-(2**31), "int", "80000000"),
}


@pytest.mark.parametrize("name", TYPED)
def test_an_attribute_has_the_standards_type(tmp_path, name):
    value, kind, words = TYPED[name]
    written(tmp_path, np.zeros((2, 4, 4), np.float16), {name: value})
    own = {"smpte:TimeCode": "timeCode"}.get(name, name)
    found = read_by_hand(tmp_path / "boy.1001.exr")[0].attributes[own]
    little = b"".join(bytes.fromhex(word)[::-1] for word in words.split())
    assert found == (kind, little)


@pytest.mark.parametrize("bit", [6, 7, 15, 23, 30, 31])
def test_each_flag_of_a_timecode_comes_back_as_itself(decode, tmp_path, bit):
    time = (0x12345618 | 1 << bit, 0)
    data = written(tmp_path, np.zeros((2, 4, 4), np.float16), {"smpte:TimeCode": time})
    _, header = decode(data)
    assert [one & 0xFFFFFFFF for one in header.metadata["smpte:TimeCode"]] == list(time)


def test_text_is_written_as_utf_8_and_a_list_of_texts_as_one(tmp_path):
    facts = {"scene": "Öde Küste", "multiView": ("left", "right")}
    written(tmp_path, np.zeros((2, 4, 4), np.float16), facts)
    found = read_by_hand(tmp_path / "boy.1001.exr")[0].attributes
    assert found["scene"] == ("string", "Öde Küste".encode())
    assert found["multiView"] == ("stringvector", b"\4\0\0\0left\5\0\0\0right")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("smpte:TimeCode", (0x0A000000, 0)),  # no decimal digit
        ("smpte:TimeCode", (0x00006000, 0)),  # sixty seconds
        ("smpte:KeyCode", (1, 2, 3, 4, 5, 6, 7)),  # seven perforations a count
        ("framesPerSecond", (24, 0)),
        ("framesPerSecond", (2**32 - 1, 2)),
        ("chromaticities", (0.5, 0.25)),
        ("adoptedNeutral", "none"),
        ("originalDataWindow", (1.0, 2.0, 3.0, 4.0)),
        ("large", 2**31),
        ("five", (1, 2, 3, 4, 5)),
        ("none", ()),
        ("n" * 256, "beyond what the library keeps of a name"),
    ],
)
def test_what_the_library_does_not_take_as_its_type_is_left_out(tmp_path, name, value):
    pixels = np.zeros((2, 4, 4), np.float16)
    assert written(tmp_path, pixels, {name: value}) == written(tmp_path, pixels)


def test_timecode_is_a_timecode_for_others_too(tmp_path):
    written(tmp_path, np.zeros((2, 4, 4), np.float16), {"smpte:TimeCode": (0x01020304, 0)})
    spec = oiio.ImageInput.open(str(tmp_path / "boy.1001.exr")).spec()
    assert spec.get_string_attribute("smpte:TimeCode") == "01:02:03:04"


def test_the_file_is_zip_with_plain_names_and_provenance(tmp_path):
    written(tmp_path, np.zeros((2, 4, 4), np.float16), {"gencomp:system": "omnimatte"})
    spec = oiio.ImageInput.open(str(tmp_path / "boy.1001.exr")).spec()
    assert spec.get_string_attribute("compression") == "zip"
    assert spec.channelnames == ("R", "G", "B", "A")
    assert spec.get_string_attribute("gencomp:system") == "omnimatte"


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_however_it_is_packed_every_bit_comes_back(decode, tmp_path, compression, kind):
    rng = np.random.default_rng(7)
    pixels = rng.normal(size=(40, 33, 4)).astype(kind)
    pixels[0, 0] = (-0.0, 65504.0, 6e-8, -1.5)
    pixels[10:30] = 0.0
    box = Box(0, 0, 32, 39)
    path = tmp_path / "boy.1001.exr"
    picture = layer(pixels, data_window=box, display_window=box)
    write_layer(path, picture, compression=compression)
    spec = oiio.ImageInput.open(str(path)).spec()
    assert spec.get_string_attribute("compression") == compression
    found, _ = decode(path.read_bytes())
    assert found.tobytes() == pixels.tobytes()


def test_a_layer_of_one_channel_is_written_as_alpha(decode, tmp_path):
    matte = np.array([0.0, 0.25, 0.5, 1.0] * 2, np.float16).reshape(2, 4, 1)
    pixels, header = decode(written(tmp_path, matte, channels=("A",)), role="matte")
    assert (pixels.tobytes(), header.channels) == (matte.tobytes(), ("A",))


def test_the_time_of_day_is_not_in_the_file_so_that_it_is_the_same_file_tomorrow(tmp_path):
    assert b"capDate" not in written(tmp_path, np.full((2, 4, 4), 0.5, np.float16))


def test_the_plates_own_date_is_carried(tmp_path):
    data = written(tmp_path, np.zeros((2, 4, 4), np.float16), {"DateTime": "2020:01:02 03:04:05"})
    assert b"2020:01:02 03:04:05" in data


def test_a_mapped_or_strided_array_is_written_as_it_reads(decode, tmp_path):
    wide = np.arange(64, dtype=np.float16).reshape(2, 4, 8)
    pixels, _ = decode(written(tmp_path, wide[..., ::2]))
    assert pixels.tobytes() == wide[..., ::2].tobytes()


# --- several types, parts and windows ------------------------------------------------------------


def noise(kind, shape, seed=1):
    """Return every bit pattern alike: NaN with payloads, infinities and denormals among them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(BITS[kind]).max, shape, BITS[kind], endpoint=True).view(kind)


def parts_written(tmp_path, parts):
    path = tmp_path / ".it.exr.1.2.part"
    write_parts(path, parts, Box(0, 0, 9, 9), 1.0)
    return path.rename(tmp_path / "it.exr")


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
    part = Part(tuple(planes), Box(-3, 5, width - 4, height + 4))
    path = parts_written(tmp_path, [part])
    by_hand = read_by_hand(path)[0].channels
    for plane in planes:
        assert by_library(path, 0, plane.name).tobytes() == plane.samples.tobytes()
        assert by_hand[plane.name].tobytes() == plane.samples.tobytes()


def test_parts_have_windows_and_attributes_of_their_own(tmp_path):
    first = Plane("Y", noise("float16", (20, 3)))
    second = Plane("n", noise("uint32", (2, 40), 2))
    parts = [
        Part((first,), Box(0, 0, 2, 19), "grey", {"shot": "a010"}),
        Part((second,), Box(-40, 3, -1, 4), "ids"),
    ]
    path = parts_written(tmp_path, parts)
    assert [(one.name, one.data_window) for one in parse_exr(path, "it")] == [
        ("grey", Box(0, 0, 2, 19)),
        ("ids", Box(-40, 3, -1, 4)),
    ]
    assert by_library(path, 0, "Y").tobytes() == first.samples.tobytes()
    assert by_library(path, 1, "n").tobytes() == second.samples.tobytes()
    assert ["shot" in one.attributes for one in read_by_hand(path)] == [True, False]


def test_names_beyond_31_bytes_are_read_by_others(tmp_path):
    name = "a_rather_long_layer_name_for_a_matte.CryptoAsset00.red"
    plane = Plane(name, noise("float32", (2, 2)))
    path = parts_written(tmp_path, [Part((plane,), Box(0, 0, 1, 1))])
    assert by_library(path, 0, name).tobytes() == plane.samples.tobytes()


def test_a_signalling_nan_is_not_quietened_though_its_samples_lie_apart(tmp_path):
    bits = np.array([[0x7D01, 0, 0xFC01, 0, 0x7C00, 0]], np.uint16)
    plane = Plane("R", bits.view(np.float16)[:, ::2])
    path = parts_written(tmp_path, [Part((plane,), Box(0, 0, 2, 0))])
    assert by_library(path, 0, "R").tobytes() == bits[:, ::2].tobytes()


def test_what_was_given_is_as_it_was_and_may_be_read_only(tmp_path):
    samples = noise("float16", (3, 2))
    samples.flags.writeable = False
    facts = {"shot": "a010"}
    parts_written(tmp_path, [Part((Plane("R", samples),), Box(0, 0, 1, 2), "", facts)])
    assert facts == {"shot": "a010"}


def test_the_same_picture_gives_the_same_bytes(tmp_path):
    facts = {"b": 1, "a": 2, "capDate": "2020:01:02 03:04:05"}
    made = []
    for order in (1, -1):
        planes = [Plane(name, noise("float16", (40, 30))) for name in "RGBA"][::order]
        kept = dict(list(facts.items())[::order])
        made.append(
            parts_written(tmp_path, [Part(tuple(planes), Box(0, 0, 29, 39), "", kept)]).read_bytes()
        )
    assert made[0] == made[1]


def test_the_library_starts_no_threads_of_its_own(tmp_path):
    before = set(Path("/proc/self/task").iterdir())
    parts_written(tmp_path, [Part((Plane("R", noise("float16", (400, 30))),), Box(0, 0, 29, 399))])
    assert set(Path("/proc/self/task").iterdir()) <= before


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((2, 3, 4), np.float16), np.zeros((2, 4, 4)), np.zeros((2, 4, 3), np.float16)],
)
def test_pixels_that_do_not_fit_are_our_mistake_and_leave_no_file(tmp_path, pixels):
    with pytest.raises(InternalError, match="Layer 'boy'"):
        written(tmp_path, pixels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("F35")
def test_a_full_disk_is_said_and_leaves_no_file(tmp_path, monkeypatch):
    def full(_from, _to):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiskFull, match="The disk is full"):
        written(tmp_path, np.zeros((2, 4, 4), np.float16))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("F35")
@pytest.mark.parametrize("missing", [1, 9, 200, 60_000])
@pytest.mark.parametrize("lines", [2, 80])
def test_a_file_that_lacks_even_its_last_byte_is_no_file(tmp_path, lines, missing):
    pixels, window = noise("float16", (lines, 120, 4)), Box(0, 0, 119, lines - 1)
    whole = len(written(tmp_path, pixels, data_window=window))
    (tmp_path / "boy.1001.exr").unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(0, whole - missing), hard))
    try:
        with pytest.raises(DiskFull) as caught:
            written(tmp_path, pixels, data_window=window)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.details["errno"] == "EFBIG"
    assert str(tmp_path) not in str(caught.value.details)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_while_the_library_writes_is_said(tmp_path, monkeypatch):
    class Full:
        def __init__(self, parts):
            pass

        def write(self, path):
            raise RuntimeError(f'Failed to write "{path}". No space left on device.')

    monkeypatch.setattr(OpenEXR, "File", Full)
    with pytest.raises(DiskFull, match="The disk is full"):
        written(tmp_path, np.zeros((2, 4, 4), np.float16))


@pytest.mark.fault("F36")
@pytest.mark.parametrize(
    ("number", "tries"), [(errno.EIO, 3), (errno.ESTALE, 3), (errno.EROFS, 1), (errno.EACCES, 1)]
)
def test_what_may_pass_is_tried_three_times_and_what_stands_is_named(
    tmp_path, monkeypatch, number, tries
):
    asked = []

    def fails(doing, path):
        asked.append(doing)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk, "PAUSE_S", 0.0)
    with disk.faults(fails), pytest.raises(UnwritableOutput) as caught:
        written(tmp_path, np.zeros((2, 4, 4), np.float16))
    assert len(asked) == tries
    assert os.strerror(number) in caught.value.message
    assert caught.value.details["path"] == f"{tmp_path.name}/boy.1001.exr"
    assert caught.value.details["errno"] == errno.errorcode[number]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((UnwritableOutput, NotADirectoryError)) as caught:
        write_layer(tmp_path / "file" / "boy.1001.exr", layer(np.zeros((2, 4, 4), np.float16)))
    assert getattr(caught.value, "code", "") == "unwritable-output"
