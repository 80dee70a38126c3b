# SPDX-License-Identifier: Apache-2.0
"""What the fault tests play on: small shots, a real ``gencomp serve``, and who belongs to it."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from command_line import ROOTS, environment, write_picture
from faults.artist import connected
from gencomp_protocol.locate import read_server_file
from gencomp_server.exr.header import is_whole

TESTS = Path(__file__).resolve().parents[1]
START_S = 60.0
FRAMES = (1001, 1002, 1003)


def make_shot(folder, seed, frames=FRAMES, width=32, height=24, grain=False):
    """Write a plate and a matte that no other seed has; return the folder.

    Args:
        folder: Where to; ``plate`` and ``matte.ball`` are made in it.
        seed: What makes it another one.
        frames: Its frames.
        width: In pixels.
        height: In pixels.
        grain: True makes pictures that do not pack: a file has the size of its samples.
    """
    random = np.random.default_rng(seed)
    for frame in frames:
        if grain:
            bits = random.integers(0, 0x7BFF, (height, width, 3), dtype=np.uint16)
            plate = bits.view(np.float16)
        else:
            plate = random.random((height, width, 3), dtype=np.float32).astype(np.float16)
        write_picture(folder / "plate" / f"plate.{frame}.exr", plate, ("R", "G", "B"))
        matte = np.zeros((height, width, 1), np.float16)
        matte[height // 4 : -height // 4, width // 4 : -width // 4] = 1.0
        matte[0, 0] = (seed % 1000) / 1000
        write_picture(folder / "matte.ball" / f"matte.ball.{frame}.exr", matte, ("A",))
    return folder


class Server:
    """A real ``gencomp serve`` with the torch-free stub, to be killed and started again.

    Args:
        folder: Where spool, server file and log go.
        registry: Its systems.
        settings: Environment variables of its settings, less ``GENCOMP_``, in any case.
    """

    def __init__(self, folder, registry="stub_systems:REGISTRY", **settings):
        self.folder, self.spool = folder, folder / "spool"
        self.state_file = folder / "server.json"
        self.log = folder / "server.log"
        self._environ = environment(registry)
        self._environ["GENCOMP_HOME"] = str(folder / "home")
        self._environ["PYTHONPATH"] += os.pathsep + str(TESTS)
        settings.setdefault("drain_s", 2.0)  # A client that broke off is not waited for.
        self._environ.update({f"GENCOMP_{k.upper()}": str(v) for k, v in settings.items()})
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        self.close()

    def start(self):
        """Start it; return once clients can connect."""
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["serve", "--port", "0", "--spool", str(self.spool)]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gencomp_server", *words),
                    *("--state-file", str(self.state_file)),
                ],
                env=self._environ,
                stdout=log,
                stderr=log,
            )
        while not self._is_announced():
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() - began < START_S
            time.sleep(0.01)
        self.start_s = time.monotonic() - began
        return self

    def _is_announced(self):
        with suppress(Exception):  # It is not there yet, or still that of the one before.
            return read_server_file(self.state_file).pid == self.process.pid
        return False

    @property
    def here(self):
        return read_server_file(self.state_file)

    def client(self):
        """Return a connected client that finds the server again after a restart."""
        return connected(self.state_file)

    def family(self):
        """Return the server's own process and all that it and they have started, by kind."""
        found = {"front": [psutil.Process(self.process.pid)], "worker": [], "decoder": []}
        with suppress(psutil.NoSuchProcess):
            for one in found["front"][0].children(recursive=True):
                with suppress(psutil.Error):
                    words = " ".join(one.cmdline())
                    if "spawn_main" in words:
                        found["worker"].append(one)
                    elif "exr.decoder" in words:
                        found["decoder"].append(one)
        return found

    def kill(self):
        """End the front by SIGKILL; all that it had started leaves by itself."""
        family = self.family()
        self.process.kill()
        self.process.wait(30)
        rest = [*family["worker"], *family["decoder"]]
        _, alive = psutil.wait_procs(rest, timeout=30)
        assert alive == [], "what belonged to a server that was killed did not leave"

    def close(self):
        """End it in good order, and by force where that is not enough."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


def send(state_file, orders):
    """Start a client that does some orders (:mod:`faults.artist`); return its process."""
    plain = [[str(shot), knobs] for shot, knobs in orders]
    roots = os.pathsep.join(str(root) for root in (*ROOTS, TESTS))
    return subprocess.Popen(
        [sys.executable, "-m", "faults.artist", str(state_file), json.dumps(plain)],
        env={**os.environ, "PYTHONPATH": roots},
        stdout=subprocess.PIPE,
        text=True,
    )


def half_written(folder):
    """Return the visible EXRs below a folder that are not whole."""
    found = []
    for path in folder.rglob("*.exr"):
        if not path.name.startswith("."):
            with suppress(FileNotFoundError):  # Dropped meanwhile.
                if not is_whole(path):
                    found.append(path)
    return found


def table_of(spool, copy):
    """Return rows of a job table as a kill left it, and what its integrity check says.

    The files are copied first, so that looking at them mends nothing.

    Returns:
        ``(id, key, state)`` of every job, and the words of the check.
    """
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for path in spool.glob("gencomp.db*"):
        if not path.name.endswith(".reserve"):
            shutil.copy(path, copy / path.name)
    db = sqlite3.connect(copy / "gencomp.db")
    try:
        said = db.execute("PRAGMA integrity_check").fetchone()[0]
        rows = db.execute("SELECT id, key, state FROM jobs").fetchall()
    finally:
        db.close()
    return rows, said
