# SPDX-License-Identifier: Apache-2.0
"""Writing sequences, to be killed: ``python -m faults.writing ROUNDS FOLDER SEED``.

The libraries are loaded once; each round is a fork of that process which writes a sequence of
layers as a worker does, or fetches one as a client does, and gets SIGKILL at a moment of its own;
the first of each kind is left alone.
What then lies there is looked at with what no writer has a part in. The last line is JSON.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from gencomp_protocol.frames import Box
from gencomp_protocol.messages import LAYER, Chunk
from gencomp_protocol.transfer import Arrived, Expected, Receiver, digest_of_file
from gencomp_server.contract import LayerFrame
from gencomp_server.delivery import OutputFolder
from gencomp_server.engine.encode import Encoder
from gencomp_server.engine.spool import Spool
from gencomp_server.exr.decode import DecodeTask
from gencomp_server.exr.decoder import answer
from gencomp_server.exr.write import write_layer

FRAMES = range(1001, 1013)
CHANNELS = ("R", "G", "B", "A")
LATEST = 1.2  # Of the time that a round takes that nobody disturbs.
WINDOW = Box(0, 0, 63, 47)


def picture(frame, layer="ball"):
    """Return a layer that does not pack, so that it is written in many pieces."""
    bits = np.random.default_rng(frame).integers(0, 0x7BFF, (48, 64, 4), dtype=np.uint16)
    return LayerFrame(layer, frame, bits.view(np.float16), CHANNELS, WINDOW, WINDOW)


def as_worker(folder, source):
    """Write a job's layers as a worker does, its manifest last."""
    spool = Spool(folder / "spool")
    written = []
    encoder = Encoder(spool, "job", written.append, whole=("ball",))
    for frame in FRAMES:
        encoder.put(picture(frame))
    encoder.finish()
    spool.write_manifest("job", {str(one.frame): one.digest for one in written})
    encoder.close()


def as_client(folder, source):
    """Fetch layers as a client does, a small stretch at a time, the manifest last."""
    with OutputFolder(folder / "out") as out:
        (out.path / "ball").mkdir(exist_ok=True)
        receiver = Receiver(1 << 16, 4096)
        digests = {}
        for frame in FRAMES:
            name = f"ball.{frame}.exr"
            path = out.path / "ball" / name
            digests[str(frame)] = digest_of_file(source / name)
            size = (source / name).stat().st_size
            part = path.with_name(f".{name}.part")
            receiver.expect(
                Expected("job", LAYER, "ball", frame, size, digests[str(frame)], path, part)
            )
        while not receiver.is_idle:
            for want in receiver.wants():
                with open(source / f"ball.{want.frame}.exr", "rb") as file:
                    file.seek(want.offset)
                    body = file.read(want.length)
                receiver.take(Chunk("job", LAYER, "ball", want.frame, want.offset, body))
            assert all(isinstance(one, Arrived) for one in receiver.outcomes())
        out.write_manifest(digests)


def look(folder, right, found):
    """Note what is visible and not whole, and manifests that promise what is not there."""
    shown = [path for path in folder.rglob("*.exr") if not path.name.startswith(".")]
    for path in shown:
        found["visible"] += 1
        said = answer(DecodeTask(path, folder / "decoded", role="rgba"))
        if "error" in said or digest_of_file(path) != right[path.name.split(".")[1]]:
            found["half"].append(path.name)
    for path in folder.rglob("manifest.json"):
        found["manifests"] += 1
        promised = json.loads(path.read_text())
        if promised != right or len(shown) != len(right):
            found["early"].append(str(path))


def main():
    rounds, folder, seed = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    source = folder / "source"
    source.mkdir(parents=True)
    right = {}
    for frame in FRAMES:
        path = source / f"ball.{frame}.exr"
        write_layer(path, picture(frame), {"gencomp:layer": "ball"})
        right[str(frame)] = digest_of_file(path)
    dice = random.Random(seed)
    found = {"rounds": 0, "killed": 0, "visible": 0, "manifests": 0, "half": [], "early": []}
    takes_s = {}
    for at in range(rounds + 2):
        place = folder / f"round{at}"
        place.mkdir()
        role = as_worker if at % 2 else as_client
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            try:
                role(place, source)
            finally:
                os._exit(0)
        if role in takes_s:
            time.sleep(dice.uniform(0.0, LATEST * takes_s[role]))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        takes_s.setdefault(role, time.monotonic() - began)
        found["killed"] += os.WIFSIGNALED(status)
        found["rounds"] += 1
        look(place, right, found)
        shutil.rmtree(place)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
