# SPDX-License-Identifier: Apache-2.0
"""What a job runs on: device, memory, speed, and which backbones are installed and allowed.

The worker looks, since it alone may load a library that knows the device, and says what it found
when it is ready; the front plans and refuses by it. Weights are looked up anew at every job, so
that what was installed a minute ago counts.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob, OutOfMemory
from gencomp_server.contract import Machine
from gencomp_server.engine.residency import is_out_of_memory
from gencomp_server.footprint import CPU
from gencomp_server.weights import Shelf

if TYPE_CHECKING:
    import torch

# What a transformer of this kind sustains in bf16, in 1e12 operations a second, uncompiled.
# Source: 33.2e15 operations of 50 guided steps over the published seconds of diffusers-torchao:
# 243.3 on an A100, 112.4 on an H100; an H200 has the arithmetic of an H100.
_SUSTAINED = {"H200": 295.0, "H100": 295.0, "A100": 136.0}
# Of a bare product of matrices a whole transformer sustains about so much (an A100: 44 %).
_SUSTAINED_SHARE = 0.44
_CPU_SIDE, _GPU_SIDE, _TRIES = 768, 4096, 4
_FACTS = ("device", "name", "memory_bytes", "free_bytes", "teraflops")


@dataclass(frozen=True)
class WeightsPlace:
    """Where weights lie and which may be used.

    Attributes:
        folder: The folder of sets; need not exist.
        lock_file: Where their digests are recorded.
        allowed: Licence classes that may be used.
        models: Backbones that may be used; empty for all.
    """

    folder: Path
    lock_file: Path
    allowed: tuple[str, ...]
    models: tuple[str, ...] = ()

    def shelf(self) -> Shelf:
        """Return the shelf there.

        Raises:
            BadKnob: A declaration of weights there is not what it should be.
        """
        return Shelf(self.folder, self.lock_file, models=self.models)


def probe(device: str, shelf: Shelf | None = None, allowed: Sequence[str] = ()) -> Machine:
    """Look at a device; only where it is no processor is a tensor library loaded.

    Args:
        device: ``cpu`` or ``cuda:0``.
        shelf: Installed weights; None for none.
        allowed: Licence classes that may be used.

    Raises:
        BadKnob: The machine has no such device.
        OutOfMemory: Others have all its memory.
        RuntimeError: The device fails.
    """
    found = _processor() if device == CPU else _accelerator(device)
    return found if shelf is None else with_weights(found, shelf, allowed)


def with_weights(machine: Machine, shelf: Shelf, allowed: Sequence[str]) -> Machine:
    """Return a machine with what is installed and allowed now.

    Raises:
        BadKnob: A licence class is not known.
    """
    usable, refused = shelf.available(allowed)
    return dataclasses.replace(machine, backbones=usable, refused=refused)


def to_plain(machine: Machine) -> dict[str, Any]:
    """Return what the worker tells of a machine: all but the weights."""
    return {name: getattr(machine, name) for name in _FACTS}


def from_plain(facts: Mapping[str, Any]) -> Machine:
    """Return the machine that :func:`to_plain` told of."""
    return Machine(**{name: facts[name] for name in _FACTS})


def _processor() -> Machine:
    import psutil

    memory = psutil.virtual_memory()
    name = f"{os.cpu_count()} cores, {platform.machine()}"
    return Machine(CPU, name, memory.total, memory.available, _processor_teraflops())


def _processor_teraflops() -> float:
    """Measure products of float32 matrices, the best of a few: some hundredths of a second."""
    import numpy as np

    a = np.full((_CPU_SIDE, _CPU_SIDE), 0.5, np.float32)
    seconds = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        np.dot(a, a)
        seconds.append(time.perf_counter() - started)
    return float(f"{2 * _CPU_SIDE**3 / min(seconds) / 1e12:.3g}")


def _accelerator(device: str) -> Machine:
    import torch

    check_device(device)
    place = torch.device(device)
    try:
        return _looked_at(place, device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    raise OutOfMemory(
        f"The device {device} has not even the memory to start on: other programs have it.",
        hint="Close what uses it (nvidia-smi lists them), then send the job again.",
    )


def check_device(device: str) -> None:
    """Refuse a device that the machine does not have.

    Raises:
        BadKnob: There is none of that number, or no GPU at all; names those there are.
    """
    if device == CPU:
        return
    import torch

    count, index = torch.cuda.device_count(), torch.device(device).index or 0
    if index < count:
        return
    found = ", ".join(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(count))
    raise BadKnob(
        f"Setting 'device' is {device}, but this machine has "
        + (f"only {found}." if count else "no GPU that PyTorch can use."),
        hint=f"Set it to {'one of these' if count else 'cpu'}, and start the server again.",
    )


def _looked_at(place: torch.device, device: str) -> Machine:
    import torch

    free, total = torch.cuda.mem_get_info(place)
    name = str(torch.cuda.get_device_name(place))
    known = [rate for word, rate in _SUSTAINED.items() if word in name]
    return Machine(device, name, total, free, known[0] if known else _measured(place))


def _measured(place: torch.device) -> float:
    """Measure products of bf16 matrices on a device; return what a transformer sustains of it."""
    import torch

    a = torch.full((_GPU_SIDE, _GPU_SIDE), 0.5, dtype=torch.bfloat16, device=place)
    seconds = []
    for _ in range(_TRIES):
        torch.cuda.synchronize(place)
        started = time.perf_counter()
        torch.matmul(a, a)
        torch.cuda.synchronize(place)
        seconds.append(time.perf_counter() - started)
    rate = 2 * _GPU_SIDE**3 / min(seconds) / 1e12
    return float(f"{_SUSTAINED_SHARE * rate:.3g}")
