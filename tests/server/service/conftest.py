# SPDX-License-Identifier: Apache-2.0
"""A server in a thread or in a process of its own, small pictures, and clients of both."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from gencomp_protocol.client import Client, picture_of, request_key
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.locate import ServerFile, read_server_file
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.config import ServerConfig
from gencomp_server.service import Service

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
REGISTRY = "stub_systems:REGISTRY"
FRAMES = FrameRange(1001, 1003)
_PROCESS = """
import sys
from pathlib import Path
from gencomp_server.config import load_config
from gencomp_server.logs import configure
from gencomp_server.service import Service
import json
configure("info")
sys.exit(Service(load_config(json.loads(sys.argv[1]), environ={}).config).run())
"""


def write_exr(path, pixels, channels=("R", "G", "B"), compression="zip"):
    """Write one EXR file with OpenImageIO."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "half" if pixels.dtype == np.float16 else "float"
    spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], kind)
    spec.channelnames = channels
    spec["compression"] = compression
    target = oiio.ImageOutput.create(str(path))
    assert target.open(str(path), spec), target.geterror()
    assert target.write_image(pixels)
    target.close()
    return path


def ramp(seed, height=18, width=32):
    """Return a picture that no other seed below 1728 has. [H,W,3] float16, scene-linear."""
    x = np.roll(np.arange(height * width * 3, dtype=np.float32), seed)
    return (x / x.size).astype(np.float16).reshape(height, width, 3)


def read_exr(path):
    """Return the pixels of an EXR file as they are stored."""
    source = oiio.ImageInput.open(str(path))
    assert source is not None, oiio.geterror()
    pixels = source.read_image(source.spec().format)
    source.close()
    return pixels


class Shot:
    """A plate, perhaps a matte, and the request for a job on them."""

    def __init__(self, folder, frames=FRAMES, seed=0):
        self.folder, self.frames = folder, frames
        self.files = {
            "plate": {
                n: write_exr(folder / f"plate.{n}.exr", ramp(n - 1000 + seed)) for n in frames
            }
        }

    def add_matte(self, values):
        """Add ``matte.a``, one value a frame over its upper half."""
        self.files["matte.a"] = {}
        for n, value in zip(self.frames, values, strict=True):
            pixels = np.zeros((18, 32, 1), np.float16)
            pixels[:9] = value
            path = self.folder / f"matte.{n}.exr"
            self.files["matte.a"][n] = write_exr(path, pixels, ("A",))
        return self

    def request(self, system="copy", **knobs):
        """Return the header of a job."""
        inputs = tuple(InputHeader(name, tuple(files)) for name, files in self.files.items())
        return Request(system, self.frames, inputs, knobs)

    def pictures(self):
        """Return every picture with size and digest."""
        return {
            name: {n: picture_of(path) for n, path in files.items()}
            for name, files in self.files.items()
        }

    def run(self, client, out=None, on_event=None, **knobs):
        """Submit and follow; return outcome, events and job id."""
        request, pictures = self.request(**knobs), self.pictures()
        job = client.submit(request, pictures, request_key(request, pictures))
        events = []

        def note(event):
            events.append(event)
            if on_event is not None:
                on_event(event)

        outcome = client.follow(job, pictures=pictures, folder=out, on_event=note)
        return outcome, events, job


_seeds = itertools.count(0, 10)


@pytest.fixture
def shot(tmp_path):
    """Three frames of a plate that no other test has: the server keeps pictures by content."""
    return Shot(tmp_path / "in", seed=next(_seeds))


class Running:
    """A server in a thread of this process."""

    def __init__(self, folder, **settings):
        settings.setdefault("spool", folder / "spool")
        settings.setdefault("state_file", folder / "home" / "server.json")
        settings.setdefault("registry", REGISTRY)
        clock = settings.pop("clock", time.monotonic)
        self.config = ServerConfig(**settings)
        self.service = Service(self.config, clock=clock)
        self.here = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(30)

    def _run(self):
        self.service.run(self._take)

    def _take(self, here: ServerFile):
        self.here = here
        self._ready.set()

    def client(self, **more):
        """Return a connected client."""
        made = Client(self.here.address, self.here.secret, client="test", **more)
        made.connect()
        return made

    def close(self):
        self.service.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def in_thread(tmp_path, monkeypatch):
    """Make servers in threads of this process, with settings and a clock; ended with the test."""
    monkeypatch.syspath_prepend(str(HERE))
    made = []

    def make(**settings):
        made.append(Running(tmp_path, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        running = Running(tmp_path_factory.mktemp("server"))
        yield running
        running.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Make servers in threads of this process, each with its settings; ended with the module."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))

        def make(**settings):
            made.append(Running(tmp_path_factory.mktemp("server"), **settings))
            return made[-1]

        yield make
        for one in made:
            one.close()


@pytest.fixture(scope="session")
def server_of(tmp_path_factory):
    """Return a function that starts a server of another registry; all end with the session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        running = []

        def make(registry, **settings):
            folder = tmp_path_factory.mktemp("server")
            settings.setdefault("ledger", folder / "ledger.db")
            running.append(Running(folder, registry=registry, **settings))
            return running[-1]

        yield make
        for one in running:
            one.close()


@pytest.fixture(scope="session")
def passes(server_of):
    """A server of the system that works in passes; its log says all that can be said."""
    return server_of("stub_passes:REGISTRY", log_level="debug")


@pytest.fixture
def client(server):
    """A client of the shared server."""
    with server.client() as made:
        yield made


class Process:
    """A server in a process of its own, that can be killed and started again."""

    def __init__(self, folder, **settings):
        self.folder, self.settings = folder, settings
        self.state_file = folder / "home" / "server.json"
        self.process = None

    def start(self):
        """Start it and wait until it is ready."""
        settings = {
            "spool": str(self.folder / "spool"),
            "state_file": str(self.state_file),
            "registry": REGISTRY,
            **self.settings,
        }
        self.state_file.unlink(missing_ok=True)
        roots = [str(ROOT / "protocol"), str(ROOT / "server"), str(HERE)]
        self.log = self.folder / "server.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROCESS, json.dumps(settings)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
                stderr=log,
            )
        until(self.state_file.exists, self.process)
        return self

    def find(self):
        """Return where it is now, as a client looks it up."""
        return read_server_file(self.state_file) if self.state_file.exists() else None

    def client(self, **more):
        """Return a connected client that finds the server again after a restart."""
        here = self.find()
        made = Client(here.address, here.secret, find=self.find, timeout_s=120.0, **more)
        made.connect()
        return made

    def signal(self, number):
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self):
        """End it without a word, as a power cut would."""
        self.process.kill()
        self.process.wait(30)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture
def process(tmp_path):
    """Make servers in processes of their own; ended with the test."""
    made = []

    def make(**settings):
        one = Process(tmp_path, **settings)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


def until(fact, process=None, most_s=30.0):
    """Wait until something is so; a generous limit only ends a hang."""
    end = time.monotonic() + most_s
    while not fact():
        assert time.monotonic() < end, "it never came"
        assert process is None or process.poll() is None, "the server ended"
        time.sleep(0.01)


@pytest.fixture
def make_shot(tmp_path):
    """Make a shot in a folder of its own."""
    return lambda name, **more: Shot(tmp_path / name, seed=next(_seeds), **more)


@pytest.fixture
def wait_until():
    """Return :func:`until`."""
    return until


@pytest.fixture
def exr():
    """Return the functions that write and read an EXR."""
    return write_exr, read_exr
