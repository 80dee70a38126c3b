# SPDX-License-Identifier: Apache-2.0
"""The packages that talk to a server: whether they load here, and where one that does not lies.

Imports nothing that could be broken.
"""

import importlib
import sys
from pathlib import Path

NEEDED = {"zmq": "pyzmq", "msgpack": "msgpack"}
"""What pip calls each, by what Python calls it."""


def that_fail() -> "tuple[str, ...]":
    """Return each package that does not load, with the place it was found in and the reason."""
    bad = []
    for module, package in NEEDED.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # A package built for another Python may raise anything.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            bad.append(f"{package}{_place(module)} ({reason})")
    return tuple(bad)


def _place(module: str) -> str:
    """Return where a package that does not load lies, for a sentence; empty where it is nowhere."""
    for folder in sys.path:
        for name in (module, f"{module}.py"):
            place = Path(folder or ".") / name
            if place.exists():
                return f" in {place}"
    return ""
