# SPDX-License-Identifier: Apache-2.0
"""The pool of decoder processes: it outlives crashes and hangs, and is light to import."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import psutil
import pytest

from gencomp_protocol.errors import BadPicture, ServerBusy
from gencomp_server.engine import intake
from gencomp_server.engine.room import waits
from gencomp_server.exr.decode import DecodePool, DecodeTask, read_decoded


@pytest.fixture
def picture(handmade, tmp_path):
    path = tmp_path / "good"
    plane = np.array([[0.5, np.nan]], np.float16)
    path.write_bytes(handmade.exr({"R": plane, "G": plane, "B": plane}))
    return path


@pytest.fixture
def pipe(tmp_path):
    """A file that nobody ever writes to: whoever opens it for reading waits for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def decoders():
    """Return the decoder processes that run."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "gencomp_server.exr.decoder" in child.cmdline():
                found.append(child)
    return found


@contextlib.contextmanager
def held_by_its_reader(pipe):
    """Wait until somebody has opened the pipe, and keep them waiting."""
    while True:
        try:
            end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:
            time.sleep(0.01)
    try:
        yield
    finally:
        os.close(end)


def task(source, tmp_path, **wanted):
    return DecodeTask(source, tmp_path / f"{source.name}-out", name="plate", frame=7, **wanted)


def test_a_picture_is_decoded_in_another_process(picture, tmp_path):
    others = decoders()
    pool = DecodePool(1)
    found = pool.submit(task(picture, tmp_path)).result()
    children = [child for child in decoders() if child not in others]
    pool.close()
    assert (found.stats.nan, found.header.channels, found.bytes) == (3, ("R", "G", "B"), 12)
    assert found == read_decoded(tmp_path / "good-out")
    assert len(children) == 1
    assert not any(child.is_running() for child in children)


def test_a_refusal_comes_through_the_future(tmp_path):
    (tmp_path / "bad").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    pool = DecodePool(1)
    future = pool.submit(task(tmp_path / "bad", tmp_path))
    with pytest.raises(BadPicture, match=r"^Input 'plate' frame 7 is no EXR: it is a PNG\."):
        future.result()
    pool.close()


def test_a_picture_that_hangs_the_decoder_is_refused_and_the_next_is_read(picture, pipe, tmp_path):
    pool = DecodePool(1, timeout_s=2.0)
    slow = pool.submit(task(pipe, tmp_path, kind="image"))
    good = pool.submit(task(picture, tmp_path))
    with pytest.raises(BadPicture, match=r"frame 7 could not be decoded within 2 s\."):
        slow.result()
    assert good.result().stats.nan == 3
    pool.close()


def test_a_picture_that_kills_the_decoder_is_refused_and_the_next_is_read(picture, pipe, tmp_path):
    pool = DecodePool(1)
    pool.submit(task(picture, tmp_path)).result()
    deadly = pool.submit(task(pipe, tmp_path, kind="image"))
    good = pool.submit(DecodeTask(picture, tmp_path / "again"))
    with held_by_its_reader(pipe):
        for child in decoders():
            child.send_signal(signal.SIGSEGV)
            child.wait()
    with pytest.raises(BadPicture, match="the decoder died on it"):
        deadly.result()
    assert good.result().stats.nan == 3
    pool.close()


def reader_of(pipe, other_than=()):
    """Wait until a decoder has a pipe open; return it."""
    while True:
        for child in decoders():
            with contextlib.suppress(OSError):
                held = [os.readlink(one) for one in Path(f"/proc/{child.pid}/fd").iterdir()]
                if str(pipe) in held and child not in other_than:
                    return child
        time.sleep(0.01)


@pytest.mark.fault("F31")
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_decoder_that_is_killed_from_outside_is_asked_once_more(picture, pipe, tmp_path):
    end = os.open(pipe, os.O_RDWR)  # Whoever reads it waits for ever.
    pool = DecodePool(1)
    held = pool.submit(task(pipe, tmp_path, kind="image"))
    first = reader_of(pipe)
    first.kill()
    second = reader_of(pipe, other_than=(first,))
    assert not held.done()
    second.kill()
    with pytest.raises(BadPicture, match="the decoder died on it"):
        held.result()
    os.close(end)
    pool.close()


def test_a_decoder_that_died_while_it_waited_costs_no_picture(picture, tmp_path):
    pool = DecodePool(1)
    pool.submit(task(picture, tmp_path)).result()
    for child in decoders():
        child.kill()
        child.wait()
    assert pool.submit(DecodeTask(picture, tmp_path / "again")).result().stats.nan == 3
    pool.close()


def test_closing_in_a_hurry_drops_what_waits_and_kills_what_hangs(picture, pipe, tmp_path):
    pool = DecodePool(1)
    hung = pool.submit(task(pipe, tmp_path, kind="image"))
    waiting = pool.submit(task(picture, tmp_path))
    while not hung.running():
        time.sleep(0.01)
    pool.close(timeout_s=0.0)
    with pytest.raises(BadPicture):
        hung.result()
    assert waiting.cancelled()
    assert decoders() == []


def test_closing_without_hurry_finishes_what_waits(picture, tmp_path):
    pool = DecodePool(2)
    futures = [pool.submit(DecodeTask(picture, tmp_path / str(i))) for i in range(4)]
    pool.close()
    assert [future.result().stats.nan for future in futures] == [3, 3, 3, 3]


def test_pixels_that_are_there_already_need_no_process(picture, tmp_path):
    first = DecodePool(1)
    made = first.submit(task(picture, tmp_path)).result()
    first.close()
    second = DecodePool(1)
    found = second.submit(task(picture, tmp_path)).result()
    children = decoders()
    second.close()
    assert found == made
    assert children == []


def test_pixels_that_were_removed_or_cut_are_not_taken_for_whole(picture, tmp_path):
    pool = DecodePool(1)
    pool.submit(task(picture, tmp_path)).result()
    pool.close()
    raw = tmp_path / "good-out.raw"
    raw.write_bytes(raw.read_bytes()[:-1])
    assert read_decoded(tmp_path / "good-out") is None
    raw.unlink()
    assert read_decoded(tmp_path / "good-out") is None


def test_the_parent_imports_no_library_of_pictures():
    light = "import sys, gencomp_server.exr.decode, gencomp_server.engine.ingest\n"
    light += "import gencomp_server.engine.worker, gencomp_server.engine.spool\n"
    light += "print(sorted({'numpy', 'OpenImageIO', 'cv2', 'torch'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(
        [sys.executable, "-c", light], env=environment, capture_output=True, check=True, text=True
    )
    assert said.stdout.strip() == "[]"


@pytest.mark.fault("F37")
def test_without_a_descriptor_for_its_process_a_picture_is_not_refused(monkeypatch, tmp_path):
    def none_left(*_args, **_more):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(subprocess, "Popen", none_left)
    pool = DecodePool(1)
    try:
        error = pool.submit(task(tmp_path / "a.exr", tmp_path)).exception(10)
    finally:
        pool.close()
    assert isinstance(error, OSError)
    future = Future()
    future.set_exception(error)
    with pytest.raises(ServerBusy) as caught:
        intake._result(future)
    assert waits(caught.value)
