# SPDX-License-Identifier: Apache-2.0
"""The real systems on a device that runs out of memory where a file says: load, sample, decode."""

import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

from gencomp_server.systems import REGISTRY as REAL

PLACES = {
    "load": "gencomp_server.models.tiny.make",
    "sample": "gencomp_server.models.cogvideox.CogVideoXBackbone.predict",
    "decode": "gencomp_server.models.cogvideox.CogVideoXBackbone.decode",
}


def _failing(system):
    def run(shot, params, ctx):
        import torch

        stage = Path(os.environ["GENCOMP_TEST_OUT_OF_MEMORY"]).read_text(encoding="utf-8")
        if not stage:
            yield from system.run(shot, params, ctx)
            return
        error = torch.OutOfMemoryError("CUDA out of memory.")
        with mock.patch(PLACES[stage], side_effect=error):
            yield from system.run(shot, params, ctx)

    return replace(system, run=run)


REGISTRY = tuple(_failing(system) for system in REAL)
