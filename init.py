# SPDX-License-Identifier: Apache-2.0
"""Nuke start-up, with and without an interface: where our gizmos, icons and packages are.

Nuke runs this from the folder that is on its plug-in path. Imports nothing of ours, so that
nothing of ours can keep Nuke from starting.
"""

import sys
from pathlib import Path

import nuke

nuke.pluginAddPath("./icons")
nuke.pluginAddPath("./gizmos")
nuke.pluginAddPath("./nuke_plugin")
nuke.pluginAddPath("./protocol")

# pyzmq and msgpack for every Nuke; behind everything of Nuke's own, which must never be shadowed.
_vendor = Path(__file__).resolve().parent / "vendor"
if _vendor.is_dir() and _vendor.as_posix() not in sys.path:
    sys.path.append(_vendor.as_posix())
