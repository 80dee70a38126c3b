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
from gencomp_server.engine.encode import Encoder
from gencomp_server.engine.spool import Spool


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

    def slow(path, picture, metadata):
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


def test_a_failed_layer_fails_the_job(spool, monkeypatch):
    def full(path, picture, metadata):
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
