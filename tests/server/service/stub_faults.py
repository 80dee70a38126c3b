# SPDX-License-Identifier: Apache-2.0
"""Systems whose disk fails where a file says, whose memory runs out, and whose steps are counted.

``GENCOMP_TEST_FAULT`` names a JSON file: ``{"doing": "write", "errno": 28, "path": "/layers/"}``
has every write fail whose path holds that text; ``times`` has only so many fail, in each process.
While the file is not there nothing fails. ``GENCOMP_TEST_STEPS`` names a file that gets a line a
step.
"""

import json
import os
import time
from dataclasses import dataclass, replace

from gencomp_protocol import disk
from gencomp_server.contract import CommonParams, LayerFrame, knob
from stub_systems import COPY, RGB

_failed = {}


def fault(doing, path):
    """Fail as the file says."""
    try:
        with open(os.environ["GENCOMP_TEST_FAULT"], encoding="utf-8") as file:
            said = json.load(file)
    except (KeyError, FileNotFoundError):
        return
    if doing != said["doing"] or said["path"] not in path:
        return
    _failed[said["path"]] = _failed.get(said["path"], 0) + 1
    if _failed[said["path"]] <= said.get("times", 1 << 30):
        raise OSError(said["errno"], os.strerror(said["errno"]))


disk.put_in(fault)


@dataclass(frozen=True)
class StepsParams(CommonParams):
    """How many steps there are, and how long each takes."""

    steps: int = knob(10, lo=1, hi=1000, doc="Steps.")
    step_s: float = knob(0.0, lo=0.0, hi=60.0, doc="Seconds of each.")


def sample(ctx, shot, *, steps, step_s):
    """Take steps, keeping a checkpoint of every one."""
    import numpy as np

    saved = ctx.checkpoint("sample")
    for step in range(0 if saved is None else int(saved["step"]), steps):
        ctx.progress("sample", step, steps)
        with open(os.environ["GENCOMP_TEST_STEPS"], "a", encoding="utf-8") as file:
            file.write(f"{step}\n")
        time.sleep(step_s)
        ctx.checkpoint("sample", {"step": np.array(step + 1)})
    return steps


def run_steps(shot, params, ctx):
    """Yield the plate after the steps."""
    ctx.stage("sample", sample, shot.only("plate"), steps=params.steps, step_s=params.step_s)
    for n in shot.frames:
        header = shot.header("plate", n)
        pixels = shot.frame("plate", n, RGB)
        yield LayerFrame("copy", n, pixels, RGB, header.display_window, header.data_window)


class OutOfMemoryError(RuntimeError):
    """What a tensor library raises."""


@dataclass(frozen=True)
class GreedyParams(CommonParams):
    """How the memory runs out."""

    how: str = knob("device", choices=("device", "processor", "not"), doc="Whose memory.")
    megabytes: int = knob(64, lo=1, hi=1024, doc="What the job holds while it happens.")


def run_greedy(shot, params, ctx):
    """Hold some memory, then ask for more than there is."""
    import numpy as np

    held = [np.ones(1 << 20, np.uint8) for _ in range(params.megabytes)]
    if params.how == "device":
        raise OutOfMemoryError("CUDA out of memory.")
    if params.how == "processor":
        np.empty(1 << 55, np.uint8)
    del held
    return COPY.run(shot, COPY.params(), ctx)


STEPS = replace(COPY, name="steps", params=StepsParams, run=run_steps, check=None)
GREEDY = replace(COPY, name="greedy", params=GreedyParams, run=run_greedy, check=None)

REGISTRY = (COPY, STEPS, GREEDY)
