# SPDX-License-Identifier: Apache-2.0
"""What a job costs on a machine, known before anything is sent: forwards, memory, minutes.

Free of torch: a system's ``plan`` calls :func:`estimate` from header and knobs, in the front
process as in the worker, and both come to the same placement::

    spec = choose(SYSTEM, params, machine)
    cost = estimate(spec, size, len(request.frames), steps=…, guidance=…, passes=…, machine=machine)
    return cost.plan(bytes_in=…, bytes_out=…, notes=(…,))

Where a job does not fit, cheaper ways are taken in this order, and said: text encoder, transformer
and VAE in turn; the transformer a few blocks at a time; the VAE in tiles. Weights in 8 bits change
what is computed, so they are taken where the knob ``precision`` says so and never by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import OutOfMemory
from gencomp_server import footprint
from gencomp_server.contract import Machine, Plan
from gencomp_server.footprint import CPU, Placement, feasible, tokens
from gencomp_server.parts import windows

if TYPE_CHECKING:
    from gencomp_server.backbones import BackboneSpec

__all__ = ["Cost", "Placement", "estimate", "feasible", "place", "tokens"]

# What else the device's memory may be needed for; of 2 % nobody can say where it went.
_USABLE_SHARE = 0.98
# Of a device that nobody else uses, so much is free for sure: driver and display have the rest.
_IDLE_SHARE = 0.9
_MOST_BATCH = 4
_STAGE_WORDS = {
    "text": "read the prompt",
    "encode": "encode the plate",
    "sample": "compute one step",
    "decode": "decode the frames",
}


@dataclass(frozen=True)
class Cost:
    """What a job costs, and how it is placed.

    Attributes:
        backbone: Name of the backbone.
        size: Width and height the model works at, in pixels.
        tokens: Tokens of one forward, text included.
        forwards: Forwards of the whole job; a batch of two counts two.
        teraflops: What they cost, in 1e12 operations.
        stage_bytes: Device memory by stage: ``text``, ``encode``, ``sample``, ``decode``.
        minutes: The forwards on this machine; 0 where its speed is not known.
        placement: What lies where.
        notes: Sentences for the artist.
    """

    backbone: str
    size: tuple[int, int]
    tokens: int
    forwards: int
    teraflops: float
    stage_bytes: Mapping[str, int]
    minutes: float
    placement: Placement
    notes: tuple[str, ...] = field(default=())

    def plan(self, *, minutes: float = 0.0, notes: tuple[str, ...] = (), **more: Any) -> Plan:
        """Return the plan of a job that costs this.

        Args:
            minutes: What the job takes besides the forwards.
            notes: More sentences, which come first.
            **more: Other fields of the plan: ``bytes_in``, ``bytes_out``, ``memory_bytes``.
        """
        return Plan(
            backbone=self.backbone,
            tokens=self.tokens,
            forwards=self.forwards,
            teraflops=float(f"{self.teraflops:.6g}"),
            stage_bytes=dict(self.stage_bytes),
            minutes=round(self.minutes + minutes, 2),
            placement=asdict(self.placement),
            notes=(*notes, *self.notes),
            **more,
        )


def estimate(
    spec: BackboneSpec,
    size: tuple[int, int],
    frames: int,
    *,
    steps: int,
    guidance: float = 1.0,
    passes: int = 1,
    machine: Machine,
    precision: str = "exact",
    cached_steps: float = 0.0,
    at_once: int | None = None,
) -> Cost:
    """Return what a job costs on a machine.

    Args:
        spec: Its backbone.
        size: Width and height the model works at, in pixels; see ``backbones.model_size``.
        frames: Frames of the job.
        steps: Denoising steps.
        guidance: Strength of guidance; every other than 1.0 doubles the forwards.
        passes: Videos that are denoised together: solos and clean plate.
        machine: Where it would run.
        precision: The knob: ``exact`` or ``fp8``.
        cached_steps: What ``backbones.cached_steps_of`` says: more than 0 where steps are reused.
        at_once: Elements that a forward takes whatever there is room for; None: what fits.

    Raises:
        OutOfMemory: It fits in no way; names the stage, needed and free GB, and the knob.
    """
    spans = windows.job_windows(spec, frames)
    forwards = windows.count_forwards(passes, spans, steps, guidance)
    longest = max(len(span) for span in spans)
    reuses = cached_steps > 0 and machine.device != CPU
    # Where steps are reused passes go one by one, and each drops what it kept before the next.
    elements = forwards // max(1, steps) // (max(1, passes) if reuses else 1)
    placement, need = place(
        spec,
        size,
        longest,
        machine=machine,
        precision=precision,
        elements=elements,
        reuses=reuses,
        frames=windows.job_length(spec, frames),
        at_once=at_once,
    )
    each = [footprint.forward_teraflops(spec, size, len(span)) for span in spans]
    teraflops = forwards / len(spans) * sum(each)
    minutes = teraflops / machine.teraflops / 60 if machine.teraflops else 0.0
    return Cost(
        backbone=spec.name,
        size=size,
        tokens=tokens(spec, size, longest),
        forwards=forwards,
        teraflops=teraflops,
        stage_bytes=need,
        minutes=minutes,
        placement=placement,
        notes=_notes(spec, machine, placement, minutes),
    )


def place(
    spec: BackboneSpec,
    size: tuple[int, int],
    latent_frames: int,
    *,
    machine: Machine,
    precision: str = "exact",
    elements: int = 1,
    reuses: bool = False,
    frames: int | None = None,
    at_once: int | None = None,
) -> tuple[Placement, dict[str, int]]:
    """Return the first placement that fits a machine, and the bytes of every stage under it.

    Where weights lie follows from what is free. How many elements go into a forward may change the
    last bits, so it follows from the device's whole memory, and only where that many fit in no way
    do they go one at a time. Of a machine whose memory is not known everything is assumed to fit.

    What is encoded decides every number after it. So frames are encoded in tiles only where the
    device's whole memory is too small for another way; where it is large enough and not free, the
    encoder is counted in tiles here, since a job whose encoder does run out turns to them.

    Args:
        spec: The backbone.
        size: Width and height the model works at, in pixels.
        latent_frames: Latent frames of the longest window.
        machine: Where it would run.
        precision: The knob: ``exact`` or ``fp8``.
        elements: Elements of one step, which go into one forward where there is room.
        reuses: True where steps are reused: elements then go one at a time, and each keeps its own.
        frames: Frames of the whole clip, padding included; None for those of the window.
        at_once: Elements that a forward takes whatever there is room for; None: what fits.

    Raises:
        OutOfMemory: None fits.
    """
    free = _free_bytes(machine)
    ways = _ways(machine.device, precision)

    def need(placement: Placement) -> dict[str, int]:
        return footprint.stage_bytes(
            spec,
            size,
            latent_frames,
            machine.device,
            placement,
            elements=elements,
            reuses=reuses,
            frames=frames,
            at_once=at_once,
        )

    whole_device = Placement("none" if machine.device == CPU else "model", precision=precision)
    roomy = need(whole_device)["encode"] <= machine.memory_bytes * _USABLE_SHARE
    together = 1 if reuses else _most_together(spec, size, latent_frames, machine, ways)
    for batch in (together, 1):
        for way in ways:
            chosen = replace(way, batch=batch)
            found = need(chosen)
            if not free or max(found.values()) <= free:
                return replace(chosen, encode_tiling=chosen.encode_tiling and not roomy), found
    raise _does_not_fit(spec, machine, ways[-1], need(ways[-1]), free)


def _most_together(
    spec: BackboneSpec,
    size: tuple[int, int],
    latent_frames: int,
    machine: Machine,
    ways: tuple[Placement, ...],
) -> int:
    """Return how many elements go into a forward on a device that does nothing else.

    It depends on no other job and no other pass: what one pass came to is the same beside others.
    """
    if machine.device == CPU or not machine.memory_bytes:
        return 1

    def fits(way: Placement, batch: int, share: float) -> bool:
        asked = replace(way, batch=batch)
        need = footprint.stage_bytes(
            spec, size, latent_frames, machine.device, asked, elements=batch
        )
        return max(need.values()) <= machine.memory_bytes * share

    way = next((way for way in ways if fits(way, 1, _USABLE_SHARE)), None)
    if way is None:
        return 1
    more = (batch for batch in range(2, _MOST_BATCH + 1) if fits(way, batch, _IDLE_SHARE))
    return max(more, default=1)


def _free_bytes(machine: Machine) -> int:
    """Return the memory that a job may take; 0 where it is not known.

    Of main memory what is free changes from minute to minute, so the whole of it counts.
    """
    if machine.device == CPU:
        return machine.memory_bytes
    return int((machine.free_bytes or machine.memory_bytes) * _USABLE_SHARE)


def _ways(device: str, precision: str) -> tuple[Placement, ...]:
    """Return the placements to try, the best first; on a processor nothing can be moved away."""
    if device == CPU:
        return tuple(
            Placement("none", tiling, precision, encode_tiling=tiling) for tiling in (False, True)
        )
    pairs = (("none", False), ("model", False), ("group", False), ("model", True), ("group", True))
    return tuple(
        Placement(offload, tiling, precision, encode_tiling=tiling) for offload, tiling in pairs
    )


def _does_not_fit(
    spec: BackboneSpec, machine: Machine, leanest: Placement, need: Mapping[str, int], free: int
) -> OutOfMemory:
    """Return the error that names the stage which lacks most, and the knob that lowers it."""
    stage = max(need, key=lambda name: need[name])
    weights = stage == "text" or machine.device == CPU
    knob = "backbone" if weights else "model_size"
    cures = {
        "backbone": "Choose a smaller one with the knob 'backbone', or a machine with more memory.",
        "model_size": "Lower the knob 'model_size', or take a machine with more memory.",
    }
    return OutOfMemory(
        f"To {_STAGE_WORDS[stage]}, {spec.title} needs {need[stage] / 1e9:.1f} GB and "
        f"{machine.name or machine.device} has {free / 1e9:.1f} GB.",
        hint=cures[knob],
        knob=knob,
        stage=stage,
        needed_bytes=need[stage],
        free_bytes=free,
    )


def _notes(
    spec: BackboneSpec, machine: Machine, placement: Placement, minutes: float
) -> tuple[str, ...]:
    where = machine.name or machine.device
    found = [f"The video model is {spec.title}."]
    if placement.offload != "none" or placement.tiling:
        found.append(f"So that it fits {where}: {placement.spell()}; this takes longer.")
    if placement.offload == "group" and placement.precision == "exact":
        found.append("With precision=fp8 it may stay on the device, and be faster.")
    if not machine.teraflops:
        found.append(f"How fast {where} is is not known, so there is no estimate of minutes.")
    elif machine.device == CPU and minutes > footprint.PATIENCE_MINUTES:
        spelt = footprint.spell_minutes(minutes)
        found.append(f"On this processor it would take about {spelt}; take a machine with a GPU.")
    if not machine.memory_bytes and machine.device != CPU:
        found.append(f"How much memory {where} has is not known yet, so nothing was checked.")
    return tuple(found)


def spell_gigabytes(count: float) -> str:
    """Return bytes as an artist reads them: ``33 MB``, ``3.4 GB``, ``139 GB``."""
    giga = count / 1e9
    if giga < 0.1:
        return f"{math.ceil(count / 1e6)} MB"
    return f"{math.ceil(giga)} GB" if giga >= 10 else f"{giga:.1f} GB"
