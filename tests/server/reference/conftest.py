# SPDX-License-Identifier: Apache-2.0
"""Where the reference vectors lie, and how a test reads one."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

HERE = Path(__file__).parents[2] / "vectors" / "reference"


@dataclass(frozen=True)
class Vector:
    """One file: its tensors by name, and its metadata, parsed where it is JSON."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin so, without that beginning: a module's weights."""
        found = {name: one for name, one in self.tensors.items() if name.startswith(prefix)}
        return {name[len(prefix) :]: one for name, one in found.items()}


def plain(value):
    """Return what a metadata value says: its JSON parsed, or the words that it is."""
    try:
        return json.loads(value)
    except ValueError:
        return value


@pytest.fixture(scope="session")
def reference_folder():
    """The folder of the vectors; GENCOMP_REFERENCE_VECTORS names another."""
    return Path(os.environ.get("GENCOMP_REFERENCE_VECTORS") or HERE)


@pytest.fixture(scope="session")
def read_vector(reference_folder):
    """Return a function: name of a safetensors file, without its ending, to Vector."""

    def read(name):
        with safe_open(reference_folder / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = {key: plain(value) for key, value in (file.metadata() or {}).items()}
        return Vector(tensors, metadata)

    return read
