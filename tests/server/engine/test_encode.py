# SPDX-License-Identifier: Apache-2.0
"""The encoder: every layer written once, back-pressure, and failures that are not lost."""

import threading

import numpy as np
import pytest

from gencomp_protocol.errors import DiskFull, InternalError
from gencomp_protocol.frames import Box
from gencomp_protocol.transfer import digest_of_file
from gencomp_server.contract import LayerFrame
from gencomp_server.engine import encode
from gencomp_server.engine.encode import Encoder, box_of_content, cropped
from gencomp_server.engine.spool import Spool
from gencomp_server.exr.header import parse_exr
from gencomp_server.exr.read import MappedRest
from gencomp_server.exr.rest import Rest, RestChannel, RestPart


def layer(n, width=4, name="boy"):
    window = Box(0, 0, width - 1, 1)
    pixels = np.full((2, width, 4), n, np.float16)
    return LayerFrame(name, n, pixels, ("R", "G", "B", "A"), window, window)


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def test_every_layer_is_written_and_told_with_its_size_and_digest(spool):
    told = []
    encoder = Encoder(spool, "j1", told.append)
    for n in range(1, 8):
        encoder.put(layer(n))
    encoder.finish()
    encoder.close()
    assert sorted(one.frame for one in told) == [1, 2, 3, 4, 5, 6, 7]
    for one in told:
        assert one.path == spool.layer("j1", "boy", one.frame)
        assert (one.bytes, one.digest) == (one.path.stat().st_size, digest_of_file(one.path))


def test_a_job_run_again_gives_the_same_files(spool):
    digests = []
    for job in ("j1", "j2"):
        encoder = Encoder(spool, job, lambda one: digests.append(one.digest), metadata={"a": 1})
        encoder.put(layer(3))
        encoder.finish()
        encoder.close()
    assert digests[0] == digests[1]


def test_who_is_faster_than_the_encoder_is_held_back(spool, monkeypatch):
    gate, inside, peak = threading.Semaphore(0), [], []
    one_bytes = layer(1).pixels.nbytes

    def slow(path, picture, metadata, rest, compression):
        inside.append(picture.frame)
        peak.append(len(inside))
        gate.acquire()
        path.write_bytes(b"x")

    monkeypatch.setattr(encode, "write_layer", slow)
    encoder = Encoder(spool, "j1", lambda one: inside.pop(), waiting_bytes=2 * one_bytes)
    put = []

    def produce():
        for n in range(1, 7):
            encoder.put(layer(n))
            put.append(n)

    producer = threading.Thread(target=produce)
    producer.start()
    for _ in range(6):
        assert len(put) <= 2 + 6 - gate._value
        gate.release()
    producer.join()
    encoder.finish()
    encoder.close()
    assert len(peak) == 6
    assert max(peak) <= 2


def test_a_layer_larger_than_the_budget_goes_through_alone(spool):
    told = []
    encoder = Encoder(spool, "j1", told.append, waiting_bytes=1)
    for n in (1, 2, 3):
        encoder.put(layer(n))
    encoder.finish()
    encoder.close()
    assert len(told) == 3


def test_what_goes_along_counts_as_waiting(spool, monkeypatch):
    gate = threading.Semaphore(0)

    def slow(path, picture, metadata, rest, compression):
        gate.acquire()
        path.write_bytes(b"x")

    monkeypatch.setattr(encode, "write_layer", slow)
    depth = RestPart("", Box(0, 0, 99, 9), (RestChannel("depth.Z", "float"),))
    rest = MappedRest(Rest((depth,), 0), ())  # 4000 bytes
    room = 4000 + 2 * layer(1).pixels.nbytes
    encoder = Encoder(spool, "j1", lambda one: None, waiting_bytes=room)
    encoder.put(layer(1), rest)
    second = threading.Thread(target=encoder.put, args=(layer(2), rest))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    gate.release(2)
    second.join()
    encoder.finish()
    encoder.close()


def test_a_failed_layer_fails_the_job(spool, monkeypatch):
    def full(path, picture, metadata, rest, compression):
        raise DiskFull("The disk is full.")

    monkeypatch.setattr(encode, "write_layer", full)
    encoder = Encoder(spool, "j1", lambda one: None)
    encoder.put(layer(1))
    with pytest.raises(DiskFull):
        encoder.finish()
    encoder.close()


def test_a_failed_layer_stops_the_next_from_being_taken(spool):
    encoder = Encoder(spool, "j1", lambda one: None)
    bad = LayerFrame(
        "boy", 1, np.zeros((1, 1, 1), np.float16), ("A", "B"), Box(0, 0, 0, 0), Box(0, 0, 0, 0)
    )
    encoder.put(bad)
    with pytest.raises(InternalError):
        put_until_refused(encoder)
    encoder.close()


def put_until_refused(encoder):
    """Put layers until one is refused; the failure is seen as soon as the first is through."""
    for n in range(2, 10_000):
        encoder.put(layer(n))


# --- sparse layers -------------------------------------------------------------------------------


def window_of(spool, name, n=1):
    return parse_exr(spool.layer("j1", name, n), "it")[0].data_window


WINDOW = Box(-2, 10, 17, 29)


def spotted(*spots, name="boy", value=0.5, data=WINDOW):
    """Return a layer of zeros but for some spots, given as x and y in the picture's frame."""
    pixels = np.zeros((data.height, data.width, 4), np.float16)
    for x, y in spots:
        pixels[y - data.y0, x - data.x0, 2] = value
    return LayerFrame(name, 1, pixels, ("R", "G", "B", "A"), Box(0, 0, 15, 39), data)


@pytest.mark.parametrize(
    ("spots", "window"),
    [
        (((5, 15),), Box(4, 14, 6, 16)),
        (((5, 15), (9, 20)), Box(4, 14, 10, 21)),
        (((-2, 10),), Box(-2, 10, -1, 11)),
        (((17, 29),), Box(16, 28, 17, 29)),
        (((-2, 10), (17, 29)), Box(-2, 10, 17, 29)),
        ((), Box(-2, 10, -2, 10)),
    ],
)
def test_a_layer_is_cut_to_its_content_and_one_pixel_inside_its_window(spots, window):
    whole = spotted(*spots)
    cut = cropped(whole)
    assert cut.data_window == window
    assert cut.display_window == Box(0, 0, 15, 39)
    y, x = window.y0 - 10, window.x0 + 2
    kept = whole.pixels[y : y + window.height, x : x + window.width]
    assert cut.pixels.tobytes() == kept.tobytes()


@pytest.mark.parametrize("bits", [0x8000, 0x0001, 0x7E55])
def test_a_minus_zero_a_denormal_and_a_nan_are_content(bits):
    value = np.array(bits, np.uint16).view(np.float16)
    assert cropped(spotted((5, 15), value=value)).data_window == Box(4, 14, 6, 16)


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("width", [1, 3, 8])
def test_content_is_found_in_every_channel_type_and_width(channels, kind, width):
    for place in range(channels):
        pixels = np.zeros((5, width, channels), kind)
        assert box_of_content(pixels) is None
        pixels[3, width - 1, place] = -1.0
        assert box_of_content(pixels) == Box(width - 1, 3, width - 1, 3)


def test_a_picture_is_written_whole_and_a_layer_is_not(spool):
    encoder = Encoder(spool, "j1", lambda one: None, whole={"clean"})
    encoder.put(spotted((5, 15)))
    encoder.put(spotted((5, 15), name="clean"))
    encoder.finish()
    encoder.close()
    assert window_of(spool, "boy") == Box(4, 14, 6, 16)
    assert window_of(spool, "clean") == Box(-2, 10, 17, 29)
