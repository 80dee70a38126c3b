# SPDX-License-Identifier: Apache-2.0
"""What ``gencomp plan`` says: a server's plan in lines for people, or as plain data.

It also waits for the server to know its own device, since a plan made before knows no memory and
no speed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import LinkTimeout, OutOfMemory, WeightsMissing, WeightsRefused
from gencomp_server.cost import spell_gigabytes
from gencomp_server.footprint import Placement, spell_minutes

if TYPE_CHECKING:
    from gencomp_protocol import Client

_DEVICE_S = 120.0
_POLL_S = 0.2
_STAGES = {"text": "prompt", "encode": "encode", "sample": "sample", "decode": "decode"}


def connect_ready(client: Client) -> tuple[Mapping[str, Any], ...]:
    """Make the link and wait until the server's worker has looked at its device.

    Returns:
        The schemas of the server's systems.

    Raises:
        LinkTimeout: It does not come up.
    """
    deadline = time.monotonic() + _DEVICE_S
    while (welcome := client.connect()).worker == "starting":
        if time.monotonic() > deadline:
            raise LinkTimeout(
                f"The server's worker did not come up within {_DEVICE_S:g} s.",
                hint="Its log says why.",
            )
        time.sleep(_POLL_S)
    return tuple(welcome.systems)


def bytes_to_send(files: Iterable[Mapping[int, Path]]) -> int:
    """Return the size of all different picture files, by input and frame."""
    return sum(path.stat().st_size for path in {path for one in files for path in one.values()})


def as_plain(plan: Mapping[str, Any], send_bytes: int) -> dict[str, Any]:
    """Return the plan with what would be sent, for ``--json``."""
    return {**plan, "bytes_to_send": send_bytes}


def as_lines(plan: Mapping[str, Any], send_bytes: int) -> list[str]:
    """Return the plan as lines, the most wanted first."""
    device = plan.get("device", "this device")
    minutes = float(plan["minutes"])
    rows = [
        ("layers", ", ".join(layer["name"] for layer in plan["layers"])),
        ("send", f"{_megabytes(send_bytes)} of pictures, those that the server lacks"),
        ("device", str(device)),
        ("time", f"about {spell_minutes(minutes)}" if minutes else "not known"),
    ]
    if plan["memory_bytes"]:
        rows.append(("memory", f"{spell_gigabytes(plan['memory_bytes'])} of main memory"))
    if plan["backbone"]:
        known = bool(plan["stage_bytes"])  # not before the plate's size is
        rows += _backbone_rows(plan) if known else [("backbone", str(plan["backbone"]))]
    lines = [f"{name:<10}{words}" for name, words in rows] + [f"note: {n}" for n in plan["notes"]]
    refusal = plan.get("refusal")
    if refusal:
        lines += [f"{_why(refusal)}: {refusal['message']} {refusal['hint']}".rstrip()]
    return lines


def _why(refusal: Mapping[str, Any]) -> str:
    """Return what stands before the reason why a job cannot run here yet."""
    words = {
        WeightsMissing.code: "not installed",
        WeightsRefused.code: "not allowed",
        OutOfMemory.code: "does not fit",
    }
    return words.get(refusal["code"], "cannot run here")


def _backbone_rows(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    by_stage = plan["stage_bytes"]
    stages = [f"{words} {spell_gigabytes(by_stage[n])}" for n, words in _STAGES.items()]
    memory = "main memory" if plan.get("on_cpu") else "device memory"
    rows = [
        ("backbone", str(plan["backbone"])),
        ("tokens", f"{plan['tokens']} a forward"),
        ("forwards", str(plan["forwards"])),
        ("compute", f"{_petaflops(plan['teraflops'])} in all"),
        ("by stage", ", ".join(stages) + f" of {memory}"),
    ]
    if plan["placement"]:
        words = Placement(**plan["placement"]).spell()
        if plan.get("on_cpu"):
            words = words.replace("all weights on the device", "all weights in main memory")
        rows.append(("placed", words))
    return rows


def _petaflops(tera: float) -> str:
    """Return operations in words: ``8.68 PFLOP``, ``0.12 TFLOP``, ``0.4 GFLOP``."""
    if tera < 0.001:
        return f"{tera * 1000:.3g} GFLOP"
    return f"{tera / 1000:.3g} PFLOP" if tera >= 1000 else f"{tera:.3g} TFLOP"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
