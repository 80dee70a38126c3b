# SPDX-License-Identifier: Apache-2.0
"""The command line that all fuzzers have: a folder to begin with, and libFuzzer's options."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris


def fuzz(read: Callable[[bytes], None], seeds: Callable[[], Sequence[bytes]], name: str) -> None:
    """Fuzz until something breaks or the time is up.

    Args:
        read: Is given bytes; an exception is a finding.
        seeds: Returns what to begin with; it is written into the folder of the command line, and
            not asked where there is none.
        name: How those files are called.
    """
    folders = [word for word in sys.argv[1:] if not word.startswith("-")]
    if folders:
        place = Path(folders[0])
        place.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()):
            (place / f"{name}-{number:02d}").write_bytes(seed)
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
