# SPDX-License-Identifier: Apache-2.0
"""Layers to EXR and back: the bits, the windows, what they carry, and that they are whole."""

import errno
import os

import numpy as np
import OpenImageIO as oiio
import pytest

from gencomp_protocol.errors import DiskFull, InternalError, UnwritableOutput
from gencomp_protocol.frames import Box
from gencomp_protocol.layers import RGBA
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer

WINDOW = Box(0, 0, 3, 1)


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
        "smpte:KeyCode": (1, 2, 3, 4, 5, 6, 7),
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


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((2, 3, 4), np.float16), np.zeros((2, 4, 4)), np.zeros((2, 4, 3), np.float16)],
)
def test_pixels_that_do_not_fit_are_our_mistake_and_leave_no_file(tmp_path, pixels):
    with pytest.raises(InternalError, match="Layer 'boy'"):
        written(tmp_path, pixels)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_no_file(tmp_path, monkeypatch):
    def full(_from, _to):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiskFull, match="The disk is full"):
        written(tmp_path, np.zeros((2, 4, 4), np.float16))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((UnwritableOutput, NotADirectoryError)) as caught:
        write_layer(tmp_path / "file" / "boy.1001.exr", layer(np.zeros((2, 4, 4), np.float16)))
    assert getattr(caught.value, "code", "") == "unwritable-output"
