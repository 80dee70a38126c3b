# SPDX-License-Identifier: Apache-2.0
"""What one forward of a backbone takes: tokens, operations, bytes; and whether a machine can do it.

Free of torch. Everything follows from a backbone's :class:`~backbones.Architecture` and the size of
one window; how many forwards a job has, and what is done where they do not fit, is in ``cost.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gencomp_server.contract import Machine

if TYPE_CHECKING:
    from gencomp_server.backbones import Architecture, BackboneSpec

CPU = "cpu"
OFFLOADS = ("none", "model", "group")
# Driver, kernels and what the allocator cannot use. Source: none published; a round figure.
SPARE_BYTES = 1_000_000_000
# Tensors of the VAE's widest block that are alive at a time, convolution workspace included.
# Source: 68 GB at 1360x720 with eight frames in a chunk (performance notes of CogVideoX 1.5).
_VAE_TENSORS = 34
# Sides of a tile as a share of the size trained at: half. Source: diffusers' AutoencoderKL tiling.
_TILE_SHARE = 0.5
# Under group offload this many blocks lie on the device: the one that runs and the one that comes.
_BLOCKS_AT_HAND = 2
# An hour for one window and 50 steps is where "auto" stops to call a backbone practical.
PATIENCE_MINUTES = 60.0
_USUAL_STEPS = 50
# A processor of which nothing is known is taken to sustain this; few servers do better.
_UNKNOWN_CPU_TERAFLOPS = 1.0


@dataclass(frozen=True)
class Placement:
    """Where weights lie while a job runs, and what is done so that it fits.

    Attributes:
        offload: ``none``: all on the device; ``model``: text encoder, VAE and transformer in turn;
            ``group``: of the transformer, a few blocks at a time.
        tiling: True where the VAE decodes in tiles with blended seams.
        encode_tiling: True where it encodes in tiles too. What is encoded decides every number
            after it, so this follows from the device's whole memory, not from what is free.
        precision: ``exact`` or ``fp8``, as the knob says.
        batch: Most elements (passes, halves of guidance, windows) in one forward. It may change
            the last bits, so it follows from the device's whole memory, not from what is free.
    """

    offload: str = "none"
    tiling: bool = False
    precision: str = "exact"
    batch: int = 1
    encode_tiling: bool = False

    def spell(self) -> str:
        """Return it in words, for plan and manifest."""
        words = {
            "none": "all weights on the device",
            "model": "text encoder, transformer and VAE on the device in turn",
            "group": "the transformer a few blocks at a time, the rest in main memory",
        }[self.offload]
        words += "; transformer weights in 8 bits" if self.precision == "fp8" else ""
        return words + ("; the VAE in tiles" if self.tiling else "")


def video_tokens(spec: BackboneSpec, size: tuple[int, int], latent_frames: int) -> int:
    """Return the tokens that a window of a video becomes, those of an element beside it included.

    Args:
        spec: The backbone.
        size: Width and height the model works at, in pixels.
        latent_frames: Latent frames of the window.
    """
    return spec.architecture.streams * _stream_tokens(spec, size, latent_frames)


def _stream_tokens(spec: BackboneSpec, size: tuple[int, int], latent_frames: int) -> int:
    """Return the tokens of one of the videos that are attended to together."""
    kind = spec.architecture
    side = spec.vae_spatial * kind.patch
    return -(-latent_frames // kind.patch_t) * (size[0] // side) * (size[1] // side)


def tokens(spec: BackboneSpec, size: tuple[int, int], latent_frames: int) -> int:
    """Return the tokens of one forward, the prompt's included."""
    return video_tokens(spec, size, latent_frames) + spec.architecture.text_tokens


def forward_teraflops(spec: BackboneSpec, size: tuple[int, int], latent_frames: int) -> float:
    """Return what one forward costs, in 1e12 floating-point operations.

    With text among the tokens (CogVideoX), ``2 P L + 4 L² d n`` with ``P = (4 + 2 r) d² n``: four
    projections of the attention and the feed-forward layer of ratio r, over n blocks of width d.
    With text by cross-attention (Wan) the video's tokens attend to themselves and to the text:
    two projections more for each of both. A branch costs the same of its own blocks and tokens,
    and a projection ``2 d²`` of each of the video's.

    Source: counted from the published block structure; agrees with the FLOP table of
        docs/td/performance.md.
    """
    kind = spec.architecture
    d, n, r = kind.width, kind.blocks, kind.ff_ratio
    video, text = video_tokens(spec, size, latent_frames), kind.text_tokens
    if not kind.cross_attention:
        one = _stream_tokens(spec, size, latent_frames)
        branch = _blocks_operations(kind, one + text, kind.branch_blocks)
        branch += 2 * d * d * one * kind.branch_blocks
        return (_blocks_operations(kind, video + text, n) + branch) / 1e12
    linear = 2 * (6 + 2 * r) * d * d * n * video + 2 * 2 * d * d * n * text
    return (linear + 4 * video**2 * d * n + 4 * video * text * d * n) / 1e12


def _blocks_operations(kind: Architecture, every: int, blocks: int) -> float:
    """Return the operations of so many blocks over text and video together."""
    d, r = kind.width, kind.ff_ratio
    return 2 * (4 + 2 * r) * d * d * blocks * every + 4 * every**2 * d * blocks


def number_bytes(device: str) -> int:
    """Return the bytes of a number on a device: bf16 on a GPU, float32 on a processor."""
    return 4 if device == CPU else 2


def transformer_bytes(spec: BackboneSpec, device: str, placement: Placement) -> int:
    """Return the bytes of the transformer's weights that lie on the device at a time."""
    kind, number = spec.architecture, number_bytes(device)
    whole = kind.parameters * number
    if placement.precision == "fp8":
        # The blocks' matrices alone are kept in 8 bits; what follows a norm stays as it is.
        whole -= _packed_numbers(spec) * (number - 1)
    if placement.offload == "group":
        lists = 2 if kind.branch_blocks else 1
        return min(whole, whole * lists * _BLOCKS_AT_HAND // _all_blocks(spec))
    return whole


def _all_blocks(spec: BackboneSpec) -> int:
    """Return how many blocks have weights: the transformer's and a branch's."""
    return spec.architecture.blocks + spec.architecture.branch_blocks


def _packed_numbers(spec: BackboneSpec) -> int:
    """Return how many of the transformer's numbers ``precision = fp8`` keeps in 8 bits.

    Weights and biases of attention and feed-forward layers in every block: four projections, with
    cross-attention as many again and two more for a picture's tokens. Counted on diffusers' classes
    (tests/server/models/test_footprint.py). What ships is small and stays as it is.
    """
    kind = spec.architecture
    if spec.over_base:
        return 0
    d, r, projections = kind.width, kind.ff_ratio, 10 if kind.cross_attention else 4
    each = (projections + 2 * r) * d * d + (projections + r + 1) * d
    return min(round(each * _all_blocks(spec)), kind.parameters)


def kept_bytes(spec: BackboneSpec, size: tuple[int, int], latent_frames: int, device: str) -> int:
    """Return what one element keeps from step to step where steps are reused, in bytes.

    FirstBlockCache holds what the first block made and what the others added to it, of every token
    that the blocks hand on, and what the first block changed of the video's own.
    """
    kind = spec.architecture
    video = video_tokens(spec, size, latent_frames)
    handed_on = video if kind.cross_attention else video + kind.text_tokens
    return (2 * handed_on + video) * kind.width * number_bytes(device)


def working_bytes(
    spec: BackboneSpec, size: tuple[int, int], latent_frames: int, device: str
) -> int:
    """Return the bytes of activations of one element of a forward.

    Residual stream, normed copy, query, key and value with their float32 rotations, and the
    feed-forward layer before and after its activation; attention keeps no square of tokens. What a
    branch made lies there until the last block has it.
    """
    kind = spec.architecture
    alive = (8 + 2 * kind.ff_ratio) * tokens(spec, size, latent_frames)
    alive += kind.branch_blocks * _stream_tokens(spec, size, latent_frames)
    return int(alive * kind.width * number_bytes(device))


def vae_number_bytes(spec: BackboneSpec, device: str) -> int:
    """Return the bytes of a number of the VAE: Wan's computes in float32 everywhere."""
    return 4 if spec.family == "wan" else number_bytes(device)


def clip_bytes(spec: BackboneSpec, size: tuple[int, int], frames: int) -> int:
    """Return the bytes that a clip's pixels take on the device while the VAE works on it.

    CogVideoX's chunks come and go one by one. Wan's VAE is given the whole clip, and joins what it
    made of it chunk by chunk: the clip lies there twice.
    """
    if spec.family != "wan":
        return 0
    return 2 * frames * size[0] * size[1] * 3 * 4


def vae_bytes(spec: BackboneSpec, size: tuple[int, int], device: str, *, tiling: bool) -> int:
    """Return the bytes of activations while the VAE takes or makes one chunk of frames."""
    kind = spec.architecture
    width, height = size
    if tiling:
        width = min(width, int(spec.model_size[0] * _TILE_SHARE))
        height = min(height, int(spec.model_size[1] * _TILE_SHARE))
    # CogVideoX takes latent frames in pairs, Wan one at a time.
    frames = spec.vae_temporal * (1 if spec.family == "wan" else 2)
    each = frames * width * height * kind.vae_width * vae_number_bytes(spec, device)
    return each * _VAE_TENSORS


def stage_bytes(
    spec: BackboneSpec,
    size: tuple[int, int],
    latent_frames: int,
    device: str,
    placement: Placement,
    *,
    elements: int = 1,
    reuses: bool = False,
    frames: int | None = None,
    at_once: int | None = None,
) -> dict[str, int]:
    """Return the device memory that each stage takes under a placement, in bytes.

    Args:
        spec: The backbone.
        size: Width and height the model works at, in pixels.
        latent_frames: Latent frames of the longest window.
        device: ``cpu`` or ``cuda:0``.
        placement: What lies where.
        elements: Elements of one step; of them ``placement.batch`` go into a forward.
        reuses: True where each of them keeps its last step (knob ``cached_steps``).
        frames: Frames of the whole clip, padding included; None for those of the window.
        at_once: Elements that a forward takes whatever there is room for; None: the placement's.

    Returns:
        ``text``, ``encode``, ``sample`` and ``decode``.
    """
    number = number_bytes(device)
    text = spec.architecture.text_parameters * number
    vae = spec.architecture.vae_parameters * vae_number_bytes(spec, device)
    body = transformer_bytes(spec, device, placement)
    # The text encoder is dropped before anything else runs, so it never lies beside activations.
    beside = vae + body if placement.offload == "none" else 0
    clip = clip_bytes(spec, size, frames or (latent_frames - 1) * spec.vae_temporal + 1)
    encode = clip + vae_bytes(spec, size, device, tiling=placement.encode_tiling)
    decode = clip + vae_bytes(spec, size, device, tiling=placement.tiling)
    if at_once is None:
        at_once = min(placement.batch, elements)
    sample = at_once * working_bytes(spec, size, latent_frames, device)
    if reuses:
        sample += elements * kept_bytes(spec, size, latent_frames, device)
    if placement.precision == "fp8":  # The block that runs is widened.
        sample += _packed_numbers(spec) // _all_blocks(spec) * (number - 1)
    spare = 0 if device == CPU else SPARE_BYTES
    return {
        "text": spare + text + beside,
        "encode": spare + encode + (beside or vae),
        "sample": spare + sample + (beside or body),
        "decode": spare + decode + (beside or vae),
    }


def usual_minutes(spec: BackboneSpec, machine: Machine) -> float:
    """Return what one window of 50 steps takes at the size trained at; 0 where not known."""
    rate = machine.teraflops
    if not rate and machine.device == CPU:
        rate = _UNKNOWN_CPU_TERAFLOPS
    if not rate:
        return 0.0
    latent_frames = spec.latent_frames(spec.window_frames)
    return _USUAL_STEPS * forward_teraflops(spec, spec.model_size, latent_frames) / rate / 60


def feasible(spec: BackboneSpec, machine: Machine) -> str | None:
    """Tell why a machine is no machine for a backbone, in a sentence; None where it is one.

    Decided for one window at the size trained at, with everything done that saves memory. Under
    ``backbone = auto`` what is not feasible is passed over; named, it is tried.
    """
    minutes = usual_minutes(spec, machine)
    if machine.device == CPU and minutes > PATIENCE_MINUTES:
        return (
            f"{spec.title} would take about {spell_minutes(minutes)} on this processor for "
            f"{spec.window_frames} frames."
        )
    return lacking_memory(spec, machine)


def lacking_memory(spec: BackboneSpec, machine: Machine) -> str | None:
    """Tell what memory a machine lacks for a backbone, in a sentence; None where it has enough.

    Decided as :func:`feasible` is. On a processor nothing can be moved away, so all must fit.
    """
    if not machine.memory_bytes:
        return None
    leanest = Placement(
        "none" if machine.device == CPU else "group", tiling=True, encode_tiling=True
    )
    latent_frames = spec.latent_frames(spec.window_frames)
    need = stage_bytes(spec, spec.model_size, latent_frames, machine.device, leanest)
    stage = max(need, key=lambda name: need[name])
    if need[stage] > machine.memory_bytes:
        return (
            f"{spec.title} needs {need[stage] / 1e9:.1f} GB of memory at least and "
            f"{machine.name or machine.device} has {machine.memory_bytes / 1e9:.1f} GB."
        )
    return None


def spell_minutes(minutes: float) -> str:
    """Return a time in words: ``40 s``, ``12 min``, ``30 h``."""
    if minutes < 1:
        return f"{max(1, round(minutes * 60))} s"
    if minutes < 120:
        return f"{round(minutes)} min"
    return f"{round(minutes / 60)} h"
