# SPDX-License-Identifier: Apache-2.0
"""From a graph to pixels: every knob is resolved here, every pixel in another Python.

:func:`Pixels.plan` turns a node at a frame into plain steps with plain values (a read of this
file, an over of those two). A worker process of the server's Python, with numpy and OpenImageIO,
computes them, so that the interpreter under test needs neither.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

from standin.formats import Box, Format
from standin.planning import Planner
from standin.texts import expand_frame

VARIABLE = "GENCOMP_TEST_SERVER_PYTHON"
_WORKER = Path(__file__).resolve().parent / "pixel_worker.py"


@functools.cache
def worker_python():
    """Return a Python that has numpy and OpenImageIO, or None."""
    for candidate in (os.environ.get(VARIABLE), sys.executable):
        if candidate:
            ask = [candidate, "-c", "import numpy, OpenImageIO"]
            if subprocess.run(ask, stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return candidate
    return None


@functools.cache
def _worker():
    """Start the worker; one serves the whole process."""
    python = worker_python()
    if python is None:
        raise RuntimeError(f"no Python with numpy and OpenImageIO: name one in {VARIABLE}")
    child = subprocess.Popen(
        [python, str(_WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")},
    )
    atexit.register(_stop, child)
    return child


def _stop(child):
    child.stdin.close()
    child.wait(10)
    child.stdout.close()


def ask_worker(**question):
    """Ask the worker and return its answer.

    Raises:
        RuntimeError: What it says went wrong, as Nuke's renderer would.
    """
    child = _worker()
    child.stdin.write(json.dumps(question).encode() + b"\n")
    child.stdin.flush()
    answer = json.loads(child.stdout.readline())
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer


class Pixels:
    """Pixels of one application's nodes."""

    def __init__(self, app):
        self._app = app

    # --- questions -------------------------------------------------------------------------------

    def sample(self, node, frame, channel, x, y):
        """Return one sample; x and y in pixels, y upwards, as in Nuke."""
        plan = self.plan(node, frame)
        return self._ask(do="sample", plan=plan, channel=channel, x=x, y=y)["value"]

    def channels_of(self, node, frame):
        return self._ask(do="channels", plan=self.plan(node, frame))["channels"]

    def digest(self, node, frame, channels=("rgba.red", "rgba.green", "rgba.blue")):
        """Return a digest of the 32 bit samples of some channels."""
        plan = self.plan(node, frame)
        return self._ask(do="digest", plan=plan, channels=list(channels))["digest"]

    def compare(self, one, other, frame, channels, others=None):
        """Compare channels of two nodes: greatest difference, and how many samples differ."""
        return self._ask(
            do="compare",
            one=self.plan(one, frame),
            other=self.plan(other, frame),
            channels=list(channels),
            others=list(others or channels),
        )

    def write(self, node, frame, view="main"):
        """Render one frame of a Write."""
        app = self._app
        knob = "proxy" if self._app.root._knobs["proxy"].value() else "file"
        text = node._knobs[knob]._text(frame)
        if not text:
            raise RuntimeError(f"{node.fullName()}: no {knob} is named to write to")
        path = expand_frame(text, frame, view)
        path = Path(app.hooks.filtered("filenameFilter", path))
        if not path.parent.is_dir():
            if not node._knobs["create_directories"].value():
                raise RuntimeError(f"{node.fullName()}: {path.parent} is not there")
            path.parent.mkdir(parents=True)
        if not node._knobs["raw"].value():
            raise RuntimeError("the stand-in writes raw only")
        planner = Planner(app, view)
        last = planner.plan(node.input(0), int(frame))
        ask_worker(
            do="write",
            plan=planner.steps[: last + 1],
            path=str(path),
            channels=planner.channels(node, node._knobs["channels"]._raw),
            half=node._knobs["datatype"].value() == "16 bit half",
        )

    def format_of(self, node):
        """Return the format of what a node gives at its first frame; smaller in proxy mode."""
        found = self._ask(do="format", plan=self.plan(node, node._range()[0]))
        return Format(found["width"], found["height"], found["pixel_aspect"])

    def bbox_of(self, node, frame):
        return Box(*self._ask(do="format", plan=self.plan(node, frame))["bbox"])

    def metadata_of(self, node, frame):
        return self._ask(do="metadata", plan=self.plan(node, frame))["metadata"]

    def plan(self, node, frame, view=None):
        """Return the steps that compute a node at a frame; the last is the answer."""
        planner = Planner(self._app, view or self._app.view)
        last = planner.plan(node, int(frame))
        return planner.steps[: last + 1]

    def _ask(self, **question):
        with self._app.untimed():
            return ask_worker(**question)
