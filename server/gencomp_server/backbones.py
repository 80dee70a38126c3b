# SPDX-License-Identifier: Apache-2.0
"""Which backbones there are, and which one a job takes; free of torch, so that the front may ask.

A backbone is a video diffusion transformer with its VAE and text encoder. What it costs follows
from its :class:`Architecture` (``cost.py``); where its files lie is in ``weights.toml``
(``weights.py``); what it computes is in ``models/``.

Sources: models' published configurations; sizes of windows as in generative-omnimatte's public
code and Over++ §3.4.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gencomp_protocol.errors import BadKnob, WeightsMissing, WeightsRefused
from gencomp_protocol.frames import Format
from gencomp_server.contract import (
    NEEDS_BACKBONE,
    NO_BACKBONE,
    CommonParams,
    Machine,
    System,
    knob,
)

AUTO = "auto"
TINY = "tiny"


@dataclass(frozen=True)
class Architecture:
    """What decides cost.

    Attributes:
        width: Width of the transformer.
        blocks: Number of its blocks.
        heads: Attention heads of each.
        parameters: Parameters of the transformer.
        patch: Side of a spatial patch in latent pixels.
        patch_t: Latent frames in a patch.
        ff_ratio: Width of the feed-forward layer over ``width``.
        text_tokens: Length that prompts are padded and cut to.
        cross_attention: True where text comes by cross-attention (Wan), not as tokens of its own.
        latent_channels: Channels of the VAE.
        condition_channels: Channels beside the noise.
        vae_parameters: Parameters of the VAE.
        text_parameters: Parameters of the text encoder.
        vae_width: Channels of the VAE's last decoder block, which hold most of its memory.
    """

    width: int
    blocks: int
    heads: int
    parameters: int
    patch: int = 2
    patch_t: int = 1
    ff_ratio: float = 4.0
    text_tokens: int = 226
    cross_attention: bool = False
    latent_channels: int = 16
    condition_channels: int = 17
    vae_parameters: int = 215_580_000
    text_parameters: int = 4_762_310_656
    vae_width: int = 128


@dataclass(frozen=True)
class BackboneSpec:
    """Facts of one backbone.

    Attributes:
        name: What the knob ``backbone`` takes.
        title: What an artist reads.
        family: ``cogvideox`` or ``wan``: which loader takes it.
        weights: Its set in ``weights.toml``; empty for ``tiny``, which is made, not loaded.
        base: The set that VAE, text encoder and configuration come from; its own where whole.
        systems: Systems it serves.
        trained_for: Systems it was trained for; for the others it stands in, which is said.
        convention: How its trimask is spelt: a key of ``parts.trimask.CONVENTIONS``.
        model_size: Width and height in pixels it was trained at.
        window_frames: Frames it sees at once.
        overlap_frames: Frames two windows share.
        even_latents: True where a window must have an even number of latent frames.
        pixel_noise: Standard deviation of the noise on the conditioning sequence, model range.
        proven: How its loading is proven: ``vector``, ``keys`` or ``no``.
        architecture: What decides cost.
        flow_shift: Shift of the flow-matching schedule (Wan).
    """

    name: str
    title: str
    family: str
    weights: str
    base: str
    systems: tuple[str, ...]
    trained_for: tuple[str, ...]
    convention: str
    model_size: tuple[int, int]
    window_frames: int
    overlap_frames: int
    even_latents: bool
    pixel_noise: float
    proven: str
    architecture: Architecture
    flow_shift: float = 0.0
    size_multiple: int = 16
    vae_spatial: int = 8
    vae_temporal: int = 4

    def latent_frames(self, frames: int) -> int:
        """Return how many latent frames a sequence of ``4k + 1`` frames has."""
        return (frames - 1) // self.vae_temporal + 1


_V15 = Architecture(width=3072, blocks=42, heads=48, parameters=5_571_094_144, patch_t=2)
_V11 = Architecture(width=3072, blocks=42, heads=48, parameters=5_570_491_968)
_WAN_VAE = 126_892_531
_UMT5 = 5_680_910_336

SPECS: tuple[BackboneSpec, ...] = (
    BackboneSpec(
        name="casper",
        title="Casper on CogVideoX-Fun V1.5 5B InP",
        family="cogvideox",
        weights="casper",
        base="cogvideox-fun-v1.5-5b-inp",
        systems=("omnimatte", "overplusplus"),
        trained_for=("omnimatte",),
        convention="casper",
        model_size=(672, 384),
        window_frames=85,
        overlap_frames=16,
        even_latents=True,
        pixel_noise=0.0563,
        proven="vector",
        architecture=_V15,
    ),
    BackboneSpec(
        name="overplusplus",
        title="Over++ on CogVideoX-Fun V1.5 5B InP, weights of your own",
        family="cogvideox",
        weights="overplusplus",
        base="cogvideox-fun-v1.5-5b-inp",
        systems=("overplusplus",),
        trained_for=("overplusplus",),
        convention="overplusplus",
        model_size=(672, 384),
        window_frames=85,
        overlap_frames=16,
        even_latents=True,
        pixel_noise=0.0563,
        proven="vector",
        architecture=_V15,
    ),
    BackboneSpec(
        name="wan-casper-1.3b",
        title="Casper on Wan 2.1 Fun 1.3B InP",
        family="wan",
        weights="wan-casper-1.3b",
        base="wan2.1-fun-1.3b-inp",
        systems=("omnimatte", "overplusplus"),
        trained_for=("omnimatte",),
        convention="casper_wan",
        model_size=(832, 480),
        window_frames=81,
        overlap_frames=16,
        even_latents=False,
        pixel_noise=0.0,
        proven="keys",
        architecture=Architecture(
            width=1536,
            blocks=30,
            heads=12,
            parameters=1_564_000_000,
            ff_ratio=8960 / 1536,
            text_tokens=512,
            cross_attention=True,
            condition_channels=20,
            vae_parameters=_WAN_VAE,
            text_parameters=_UMT5,
            vae_width=96,
        ),
        flow_shift=5.0,
    ),
    BackboneSpec(
        name="wan-casper-14b",
        title="Casper (LoRA) on Wan 2.1 Fun 14B InP",
        family="wan",
        weights="wan-casper-14b",
        base="wan2.1-fun-14b-inp",
        systems=("omnimatte", "overplusplus"),
        trained_for=("omnimatte",),
        convention="casper_wan",
        model_size=(832, 480),
        window_frames=81,
        overlap_frames=16,
        even_latents=False,
        pixel_noise=0.0,
        proven="keys",
        architecture=Architecture(
            width=5120,
            blocks=40,
            heads=40,
            parameters=16_394_000_000,
            ff_ratio=13824 / 5120,
            text_tokens=512,
            cross_attention=True,
            condition_channels=20,
            vae_parameters=_WAN_VAE,
            text_parameters=_UMT5,
            vae_width=96,
        ),
        flow_shift=5.0,
    ),
    BackboneSpec(
        name="cogvideox-fun-v1.5-5b-inp",
        title="CogVideoX-Fun V1.5 5B InP",
        family="cogvideox",
        weights="cogvideox-fun-v1.5-5b-inp",
        base="cogvideox-fun-v1.5-5b-inp",
        systems=("omnimatte", "overplusplus"),
        trained_for=(),
        convention="fun_inpaint",
        model_size=(672, 384),
        window_frames=85,
        overlap_frames=16,
        even_latents=True,
        pixel_noise=0.0563,
        proven="vector",
        architecture=_V15,
    ),
    BackboneSpec(
        name="cogvideox-fun-v1.1-5b-inp",
        title="CogVideoX-Fun V1.1 5B InP",
        family="cogvideox",
        weights="cogvideox-fun-v1.1-5b-inp",
        base="cogvideox-fun-v1.1-5b-inp",
        systems=("omnimatte", "overplusplus"),
        trained_for=(),
        convention="fun_inpaint",
        model_size=(672, 384),
        window_frames=49,
        overlap_frames=16,
        even_latents=False,
        pixel_noise=0.0563,
        proven="vector",
        architecture=_V11,
    ),
    BackboneSpec(
        name=TINY,
        title="Tiny, untrained: for tests of a pipeline, its pictures mean nothing",
        family="cogvideox",
        weights="",
        base="",
        systems=("omnimatte", "overplusplus"),
        trained_for=(),
        convention="casper",
        model_size=(80, 48),
        window_frames=85,
        overlap_frames=16,
        even_latents=True,
        pixel_noise=0.0563,
        proven="vector",
        architecture=Architecture(
            width=32,
            blocks=2,
            heads=2,
            parameters=0,
            patch_t=2,
            text_tokens=226,
            vae_parameters=0,
            text_parameters=0,
            vae_width=8,
        ),
    ),
)

NAMES = tuple(spec.name for spec in SPECS)


@dataclass(frozen=True)
class ModelParams(CommonParams):
    """Knobs of every system that uses a backbone."""

    backbone: str = knob(
        AUTO,
        choices=(AUTO, *NAMES),
        tab="Model",
        doc="Which video model. auto: the best that is installed, allowed and fits this machine; "
        "tiny is for tests of a pipeline only.",
    )
    quality: str = knob(
        "final",
        choices=("draft", "final"),
        tab="Model",
        doc="draft: at most 10 steps and, on a GPU, reused steps: quick to look at. final: as the "
        "knobs say.",
    )
    steps: int = knob(50, lo=1, hi=1000, tab="Model", doc="Denoising steps; time grows with them.")
    model_size: str = knob(
        "",
        tab="Model",
        doc="WIDTHxHEIGHT the model works at, multiples of 16. Empty: the plate's shape at the "
        "area the model was trained on.",
    )
    compiled: bool = knob(
        False,
        tab="Speed",
        doc="Compile the transformer's blocks: a minute more at first, then a quarter faster. GPU.",
    )
    attention: str = knob(
        "native",
        choices=("native", "cudnn", "flash", "sage"),
        tab="Speed",
        doc="Attention kernels. native and cudnn are exact; flash and sage need their libraries.",
    )
    cached_steps: float = knob(
        0.0,
        lo=0.0,
        hi=1.0,
        tab="Speed",
        doc="Reuse a step whose first block changed less than this share: 0.05 to 0.2 saves a "
        "third and more. 0: every step is computed.",
    )
    precision: str = knob(
        "exact",
        choices=("exact", "fp8"),
        tab="Speed",
        doc="exact: the weights' own precision. fp8: weights kept in 8 bits, half the memory.",
    )


def spec_named(name: str) -> BackboneSpec:
    """Return the backbone of that name.

    Raises:
        BadKnob: There is none; names the nearest.
    """
    for spec in SPECS:
        if spec.name == name:
            return spec
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Backbones are: {', '.join(NAMES)}."
    raise BadKnob(f"There is no backbone '{name}'.", hint=hint, knob="backbone")


def choose(system: System, params: Any, machine: Machine) -> BackboneSpec | None:
    """Return the backbone that a job takes on a machine; None where it takes none.

    Raises:
        BadKnob: The backbone named does not serve the system.
        WeightsMissing: It is not installed, or none is that the system needs.
        WeightsRefused: It is installed and not allowed.
    """
    if system.backbone == NO_BACKBONE:
        return None
    if params.backbone != AUTO:
        return _named(system, spec_named(params.backbone), machine)
    for spec in SPECS:
        if spec.name != TINY and system.name in spec.systems and spec.name in machine.backbones:
            return spec
    if system.backbone == NEEDS_BACKBONE:
        best = next(spec for spec in SPECS if system.name in spec.systems)
        why, cure = machine.refused.get(best.name, (f"There are no weights of {best.title}.", ""))
        raise WeightsMissing(
            f"{system.title} needs a video model and none is installed: {why}",
            hint=cure or "gencomp weights list says where each one belongs.",
        )
    return None


def _named(system: System, spec: BackboneSpec, machine: Machine) -> BackboneSpec:
    if system.name not in spec.systems:
        fitting = [one.name for one in SPECS if system.name in one.systems]
        raise BadKnob(
            f"{system.title} cannot run on the backbone '{spec.name}'.",
            hint=f"Choose one of: {', '.join([AUTO, *fitting])}.",
            knob="backbone",
        )
    if spec.name == TINY or spec.name in machine.backbones:
        return spec
    why, cure = machine.refused.get(spec.name, (f"The weights of {spec.title} are missing.", ""))
    kind = WeightsRefused if "licence" in why else WeightsMissing
    raise kind(why, hint=cure or "gencomp weights list says where they belong.", backbone=spec.name)


def model_size(spec: BackboneSpec, plate: Format, asked: str = "") -> tuple[int, int]:
    """Return the width and height in pixels that a backbone works at.

    Without a wish, the plate's own shape (pixel aspect counted) at the area the backbone was
    trained on, both sides rounded to its multiple; a smaller plate is not enlarged.

    Args:
        spec: The backbone.
        plate: Format of the plate.
        asked: The knob ``model_size``: ``WIDTHxHEIGHT`` or empty.

    Raises:
        BadKnob: The wish is not a size, or not of the backbone's multiple.
    """
    multiple = spec.size_multiple
    if asked.strip():
        width, times, height = asked.strip().lower().partition("x")
        if not (times and width.isdigit() and height.isdigit()):
            raise BadKnob(
                f"Knob 'model_size' is '{asked}', which is not a size.",
                hint=f"Write it as {spec.model_size[0]}x{spec.model_size[1]}.",
                knob="model_size",
            )
        size = int(width), int(height)
        if any(side < multiple or side % multiple or side > 4096 for side in size):
            raise BadKnob(
                f"Knob 'model_size' is {asked}, but both sides must be multiples of {multiple}, "
                "at most 4096.",
                hint=f"Write it as {spec.model_size[0]}x{spec.model_size[1]}.",
                knob="model_size",
            )
        return size
    wide, high = plate.width * plate.pixel_aspect, float(plate.height)
    area = min(float(spec.model_size[0] * spec.model_size[1]), wide * high)
    scale = (area / (wide * high)) ** 0.5

    def side(length: float) -> int:
        return max(multiple, int(length * scale / multiple + 0.5) * multiple)

    return side(wide), side(high)


def describe(spec: BackboneSpec, licence: Mapping[str, str]) -> dict[str, str]:
    """Return what manifest and files say of a backbone: name, licence, class, how it is proven."""
    return {
        "name": spec.name,
        "title": spec.title,
        "licence": licence.get("licence", "none needed"),
        "licence_class": licence.get("class", "production"),
        "proven": spec.proven,
    }
