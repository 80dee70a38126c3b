# SPDX-License-Identifier: Apache-2.0
"""A registry that the front can import and no worker can."""

import multiprocessing

from stub_systems import REGISTRY

if multiprocessing.current_process().name == "gencomp-worker":
    raise ImportError("the stub does not load in a worker")

__all__ = ["REGISTRY"]
