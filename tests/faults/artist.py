# SPDX-License-Identifier: Apache-2.0
"""A client as a process of its own, to be killed: ``python artist.py STATE_FILE ORDERS``.

``ORDERS`` is JSON: a list of ``[folder, knobs]``, each a shot that :mod:`faults.stage` made. Every
order is done in a thread of its own: submitted, followed, its layers fetched into ``folder/out``,
and its manifest written there last. Every event is a line of JSON on standard output.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from gencomp_protocol.client import Client, LayerReady, Sent, picture_of, request_key
from gencomp_protocol.errors import GencompError
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.locate import read_server_file
from gencomp_protocol.request import InputHeader, Request

PATIENCE_S = 60.0


def order_of(folder, knobs, system="cutout"):
    """Return request and pictures of a shot on disk: ``INPUT/INPUT.FRAME.exr`` below ``folder``."""
    pictures, headers = {}, []
    for place in sorted(path for path in folder.iterdir() if path.name != "out"):
        frames = {int(path.name.split(".")[-2]): picture_of(path) for path in place.iterdir()}
        pictures[place.name] = dict(sorted(frames.items()))
        headers.append(InputHeader(place.name, tuple(pictures[place.name])))
    frames = tuple(pictures["plate"])
    headers.sort(key=lambda header: header.name != "plate")
    return Request(system, FrameRange(frames[0], frames[-1]), tuple(headers), knobs), pictures


def connected(state_file):
    """Return a client that has reached the server, and looks it up again whenever it is lost."""

    def find():
        try:
            return read_server_file(state_file)
        except (OSError, GencompError):  # Between two servers there may be none.
            return None

    deadline = time.monotonic() + PATIENCE_S
    while True:
        here = find()
        try:
            if here is not None:
                client = Client(
                    here.address, here.secret, client="artist", timeout_s=PATIENCE_S, find=find
                )
                client.connect()
                return client
        except GencompError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def work(state_file, folder, knobs, say):
    """Do one order to its end."""
    request, pictures = order_of(folder, knobs)
    with connected(state_file) as client:
        job = client.submit(request, pictures, request_key(request, pictures))
        say("accepted", folder, job=job)

        def note(event):
            if isinstance(event, Sent):
                say("sent", folder, frame=event.frame)
            elif isinstance(event, LayerReady):
                say("layer", folder, layer=event.layer, frame=event.frame)

        outcome = client.follow(job, pictures=pictures, folder=folder / "out", on_event=note)
        if outcome.state == "done":
            part = folder / "out" / ".manifest.part"
            part.write_text(json.dumps(dict(outcome.manifest)))
            part.replace(folder / "out" / "manifest.json")
        words = "" if outcome.error is None else str(outcome.error)
        say("end", folder, state=outcome.state, error=words)


def main():
    state_file, orders = Path(sys.argv[1]), json.loads(sys.argv[2])
    lock = threading.Lock()

    def say(event, folder, **more):
        with lock:
            sys.stdout.write(json.dumps({"event": event, "shot": folder.name, **more}) + "\n")
            sys.stdout.flush()

    def one(folder, knobs):
        try:
            work(state_file, Path(folder), knobs, say)
        except GencompError as error:
            say("end", Path(folder), state="given up", error=str(error))

    threads = [threading.Thread(target=one, args=order) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
