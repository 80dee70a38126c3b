# SPDX-License-Identifier: Apache-2.0
"""Fuzz the wire: whatever arrives is a message or a refusal.

``python tools/fuzz_messages.py [FOLDER] [-max_total_time=60]`` (libFuzzer's options) begins with
the golden messages. Needs Atheris: ``pip install '.[fuzz]'``. A finding is left as ``crash-…``.
"""

import re
from pathlib import Path

import atheris
from fuzzing import fuzz

with atheris.instrument_imports(include=["gencomp_protocol", "msgpack"]):
    from gencomp_protocol import codec
    from gencomp_protocol.errors import GencompError

ROOT = Path(__file__).resolve().parents[1]
_BETWEEN = b"\0--\0"  # Stands between two frames of a message.
_FRAMES = 4
_SPELT = re.compile(r"'([^']*)'|\b([0-9a-f]{2})\b")


def read(data: bytes) -> None:
    """Have bytes read as the frames of one message."""
    frames = data.split(_BETWEEN, _FRAMES)
    codec.request_id_of(frames)
    try:
        codec.decode(frames)
    except GencompError as error:
        if not error.message:
            raise AssertionError("a refusal without a sentence") from error


def seeds() -> list[bytes]:
    """Return the golden messages (``tests/vectors/wire/README.md`` says how they are spelt)."""
    found = []
    for path in sorted((ROOT / "tests" / "vectors" / "wire").glob("*.txt")):
        made = b""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip() == "---":
                made += _BETWEEN
            for text, pair in _SPELT.findall(line.partition("#")[0]):
                made += text.encode("ascii") if text else bytes.fromhex(pair)
        found.append(made)
    return found


def main() -> None:
    """Fuzz until something breaks or the time is up."""
    fuzz(read, seeds, "golden")


if __name__ == "__main__":
    main()
