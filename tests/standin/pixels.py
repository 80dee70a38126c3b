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

from standin.knobs import expand_frame

VARIABLE = "GENCOMP_TEST_SERVER_PYTHON"
_WORKER = Path(__file__).resolve().parent / "pixel_worker.py"
_PASS = ("Dot", "NoOp", "Write", "Output", "FrameRange")
_SAME = ("Multiply", "Add")


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
        return ask_worker(do="sample", plan=plan, channel=channel, x=x, y=y)["value"]

    def channels_of(self, node, frame):
        return ask_worker(do="channels", plan=self.plan(node, frame))["channels"]

    def digest(self, node, frame, channels=("rgba.red", "rgba.green", "rgba.blue")):
        """Return a digest of the 32 bit samples of some channels."""
        plan = self.plan(node, frame)
        return ask_worker(do="digest", plan=plan, channels=list(channels))["digest"]

    def compare(self, one, other, frame, channels, others=None):
        """Compare channels of two nodes: greatest difference, and how many samples differ."""
        return ask_worker(
            do="compare",
            one=self.plan(one, frame),
            other=self.plan(other, frame),
            channels=list(channels),
            others=list(others or channels),
        )

    def write(self, node, frame):
        """Render one frame of a Write."""
        path = Path(node._knobs["file"].evaluate(frame))
        if not path.parent.is_dir():
            if not node._knobs["create_directories"].value():
                raise RuntimeError(f"{node.fullName()}: {path.parent} is not there")
            path.parent.mkdir(parents=True)
        if not node._knobs["raw"].value():
            raise RuntimeError("the stand-in writes raw only")
        ask_worker(
            do="write",
            plan=self.plan(node.input(0), frame),
            path=str(path),
            layer=node._knobs["channels"]._raw,
            half=node._knobs["datatype"].value() == "16 bit half",
        )

    def format_of(self, node):
        """Return width, height and pixel aspect of what a node gives at its first frame."""
        plan = self.plan(node, node._range()[0])
        found = ask_worker(do="format", plan=plan)
        return found["width"], found["height"], found["pixel_aspect"]

    # --- plans -----------------------------------------------------------------------------------

    def plan(self, node, frame):
        """Return the steps that compute a node at a frame; the last is the answer."""
        steps, known = [], {}
        self._plan(node, int(frame), steps, known)
        return steps

    def _plan(self, node, frame, steps, known):
        key = (id(node), frame)
        if key not in known:
            known[key] = self._step(node, frame, steps, known)
        return known[key]

    def _step(self, node, frame, steps, known):
        def from_input(index, at=frame):
            return self._plan(node.input(index), at, steps, known)

        def add(**step):
            steps.append(step)
            return len(steps) - 1

        if node is None:
            return add(op="nothing")
        cls, knobs = node._cls, node._knobs
        if cls == "Input":
            group = node._group
            return self._plan(group.input(knobs["number"].value()), frame, steps, known)
        if knobs["disable"]._value_at(frame) and cls != "Write":
            return from_input(0)
        if cls == "Group":
            inner = [n for n in node._children if n._cls == "Output"]
            if len(inner) != 1:
                raise RuntimeError(f"{node.fullName()} has {len(inner)} Outputs")
            return self._plan(inner[0], frame, steps, known)
        if cls in _PASS:
            return from_input(0)
        if cls == "Switch":
            which = int(knobs["which"]._value_at(frame))
            return from_input(max(0, min(which, len(node._inputs) - 1)))
        if cls == "FrameHold":
            return from_input(0, int(knobs["first_frame"].value()))
        if cls == "TimeOffset":
            return from_input(0, frame - int(knobs["time_offset"].value()))
        if cls == "Read":
            return add(op="read", **self._read(node, frame))
        if cls == "Copy":
            pairs = [(knobs[f"from{i}"]._raw, knobs[f"to{i}"]._raw) for i in range(8)]
            pairs = [pair for pair in pairs if "none" not in pair]
            for _, to in pairs:
                self._check_channel(node, to)
            return add(op="copy", b=from_input(0), a=from_input(1), pairs=pairs)
        if cls == "Merge2":
            b, a = from_input(0), from_input(1)
            return add(op=knobs["operation"].value(), a=a, b=b)
        if cls in _SAME:
            return add(op=cls.lower(), a=from_input(0), value=knobs["value"]._value_at(frame))
        if cls == "Constant":
            return add(op="constant", **self._constant(node))
        raise RuntimeError(f"the stand-in computes no {cls}")

    def _check_channel(self, node, channel):
        layer = channel.partition(".")[0]
        if layer not in self._app.layers:
            raise RuntimeError(f"{node.fullName()}: there is no layer called {layer}")

    def _read(self, node, frame):
        """Return what a Read reads at a frame."""
        knobs = node._knobs
        first, last = knobs["first"]._value_at(frame), knobs["last"]._value_at(frame)
        path = knobs["file"]._text()
        if not path:
            raise RuntimeError(f"{node.fullName()}: no file is named")
        for edge, end in (("before", first), ("after", last)):
            if (frame < first) if edge == "before" else (frame > last):
                if knobs[edge].value() == "black":
                    near = expand_frame(path, end)
                    return {"path": near, "raw": True, "black": True}
                frame = end
        path = expand_frame(path, frame)
        if not Path(path).is_file():
            if knobs["on_error"].value() == "black":
                return {"path": expand_frame(path, first), "raw": True, "black": True}
            raise RuntimeError(f"{node.fullName()}: {path}: Read error: No such file or directory")
        return {"path": path, "raw": knobs["raw"]._value_at(frame), "black": False}

    def _constant(self, node):
        words = node._knobs["color"]._raw.split()
        values = [float(word) for word in (words * 4 if len(words) == 1 else words)][:4]
        size = [int(float(word)) for word in node._knobs["format"]._raw.split()[:2]] or [64, 48]
        return {"values": values, "width": size[0], "height": size[1]}
