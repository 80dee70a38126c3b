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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gencomp_protocol.errors import BadKnob, WeightsMissing, WeightsRefused
from gencomp_protocol.frames import Format
from gencomp_server.contract import (
    NEEDS_BACKBONE,
    NO_BACKBONE,
    CommonParams,
    Machine,
    Refusal,
    System,
    knob,
)
from gencomp_server.footprint import CPU, feasible, lacking_memory

AUTO = "auto"
TINY = "tiny"
PREVIEW = "preview"
"""The one that comes with gencomp."""
_PREVIEW_TITLE = "preview (ships, draft quality)"
DRAFT_STEPS = 10
# A draft reuses a step whose first block changed by less than this share.
# Source: FirstBlockCache's own comparisons; beyond 0.2 pictures blur.
DRAFT_CACHED_STEPS = 0.12


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
        streams: Videos whose tokens are attended to together: two where an element of its own
            stands beside the plate.
        branch_blocks: Blocks of a branch beside them, which sees one of these videos.
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
    vae_parameters: int = 215_583_907
    text_parameters: int = 4_762_310_656
    vae_width: int = 128
    streams: int = 1
    branch_blocks: int = 0


@dataclass(frozen=True)
class BackboneSpec:
    """Facts of one backbone.

    Attributes:
        name: What the knob ``backbone`` takes.
        title: What an artist reads.
        family: ``cogvideox``, ``gencompositor``, ``preview`` or ``wan``: which loader takes it.
        weights: Its set in ``weights.toml``; empty for the tiny ones, which are made, not loaded.
        base: The set that VAE, text encoder and configuration come from; its own where whole.
        systems: Systems it serves.
        trained_for: Systems it was trained for; for the others it stands in, which is said.
        convention: How its trimask is spelt: a key of ``parts.trimask.CONVENTIONS``; empty for one
            that takes none.
        model_size: Width and height in pixels it was trained at.
        window_frames: Frames it sees at once.
        overlap_frames: Frames two windows share.
        even_latents: True where a window must have an even number of latent frames.
        pixel_noise: Standard deviation of the noise on the conditioning sequence, model range.
        proven: How its loading is proven: ``vector``, ``keys`` or ``no``.
        architecture: What decides cost.
        flow_shift: Shift of the flow-matching schedule (Wan).
        layers: Names of the latents that it is given beside the noise, in the order of their
            channels, where it takes layers and no trimask.
        fixed_size: True where it works at ``model_size`` alone: its positions are learned.
        over_base: True where it changes a base picture and sees pixels, no latents: there is no
            VAE, and a shot is never padded to a window.
        few_steps: Most steps that it has use for; asked for more, it takes one. 0: as many as are
            asked for.
        guidance_share: Share of what is asked for beyond a guidance of 1 that it takes.
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
    layers: tuple[str, ...] = ()
    fixed_size: bool = False
    over_base: bool = False
    few_steps: int = 0
    guidance_share: float = 1.0

    @property
    def is_tiny(self) -> bool:
        """Tell whether it is made of random numbers, for tests of a pipeline."""
        return not self.weights

    def latent_frames(self, frames: int) -> int:
        """Return how many latent frames a sequence of ``4k + 1`` frames has."""
        return (frames - 1) // self.vae_temporal + 1


_V15 = Architecture(width=3072, blocks=42, heads=48, parameters=5_571_094_144, patch_t=2)
_V11 = Architecture(width=3072, blocks=42, heads=48, parameters=5_570_491_968)
_V10 = Architecture(width=3072, blocks=42, heads=48, parameters=5_570_283_072, condition_channels=0)
_TINY = Architecture(
    width=32,
    blocks=2,
    heads=2,
    parameters=0,
    patch_t=2,
    text_tokens=226,
    vae_parameters=0,
    text_parameters=0,
    vae_width=8,
)
# Counted on diffusers' and transformers' own classes (tests/server/models/test_wan.py). The widths
# of Wan 2.1 are unverified until a published folder is loaded, which is strict about them.
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
            parameters=1_564_428_608,
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
            parameters=16_394_878_784,
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
        name="gencompositor",
        title="GenCompositor on CogVideoX 5B I2V",
        family="gencompositor",
        weights="gencompositor",
        base="cogvideox-5b-i2v",
        systems=("gencomposite",),
        trained_for=("gencomposite",),
        convention="",
        model_size=(720, 480),
        window_frames=49,
        overlap_frames=16,
        even_latents=False,
        pixel_noise=0.0,
        proven="vector",
        architecture=replace(
            _V10,
            parameters=5_570_679_360 + 301_568_576,
            condition_channels=33,
            streams=2,
            branch_blocks=2,
        ),
        layers=("masked", "mask", "fg"),
        fixed_size=True,
    ),
    BackboneSpec(
        name="splitthenmerge",
        title="Split-then-Merge on CogVideoX 5B I2V, weights of your own",
        family="cogvideox",
        weights="splitthenmerge",
        base="cogvideox-5b-i2v",
        systems=("splitthenmerge",),
        trained_for=("splitthenmerge",),
        convention="",
        model_size=(720, 480),
        window_frames=49,
        overlap_frames=16,
        even_latents=False,
        pixel_noise=0.0,
        proven="keys",
        architecture=replace(_V10, parameters=5_570_676_288, condition_channels=32),
        layers=("fg", "bg"),
        fixed_size=True,
    ),
    BackboneSpec(
        name="cogvideox-5b-i2v",
        title="CogVideoX 5B, image to video",
        family="cogvideox",
        weights="cogvideox-5b-i2v",
        base="cogvideox-5b-i2v",
        systems=("splitthenmerge",),
        trained_for=(),
        convention="",
        model_size=(720, 480),
        window_frames=49,
        overlap_frames=16,
        even_latents=False,
        pixel_noise=0.0,
        proven="keys",
        architecture=replace(_V10, parameters=5_570_676_288, condition_channels=32),
        layers=("fg", "bg"),
        fixed_size=True,
    ),
    BackboneSpec(
        name="cogvideox-5b",
        title="CogVideoX 5B, text to video",
        family="cogvideox",
        weights="cogvideox-5b",
        base="cogvideox-5b",
        systems=("dynvfx",),
        trained_for=("dynvfx",),
        convention="",
        model_size=(720, 480),
        window_frames=49,
        overlap_frames=16,
        even_latents=False,
        pixel_noise=0.0,
        proven="keys",
        architecture=_V10,
    ),
    BackboneSpec(
        name=PREVIEW,
        title=_PREVIEW_TITLE,
        family="preview",
        weights=PREVIEW,
        base=PREVIEW,
        systems=("omnimatte", "overplusplus"),
        trained_for=("omnimatte", "overplusplus"),
        convention="",
        model_size=(112, 64),
        window_frames=9,
        overlap_frames=4,
        even_latents=False,
        pixel_noise=0.0,
        proven="keys",
        architecture=Architecture(
            width=192,
            blocks=3,
            heads=3,
            parameters=2_204_535,
            text_tokens=16,
            latent_channels=3,
            condition_channels=13,
            vae_parameters=0,
            text_parameters=0,
            vae_width=16,
        ),
        # Tokens are 8 pixels wide and a frame long.
        vae_spatial=4,
        vae_temporal=1,
        layers=("plate", "base", "gathered", "seen", "remove", "keep", "subject"),
        over_base=True,
        few_steps=8,
        guidance_share=0.05,
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
        architecture=_TINY,
    ),
    BackboneSpec(
        name="tiny-gencompositor",
        title="Tiny of GenCompositor's kind, untrained: its pictures mean nothing",
        family="gencompositor",
        weights="",
        base="",
        systems=("gencomposite",),
        trained_for=(),
        convention="",
        model_size=(48, 32),
        window_frames=49,
        overlap_frames=16,
        even_latents=False,
        pixel_noise=0.0,
        proven="vector",
        architecture=replace(
            _TINY, blocks=4, patch_t=1, condition_channels=33, streams=2, branch_blocks=2
        ),
        layers=("masked", "mask", "fg"),
        fixed_size=True,
    ),
    BackboneSpec(
        name="tiny-splitthenmerge",
        title="Tiny of Split-then-Merge's kind, untrained: its pictures mean nothing",
        family="cogvideox",
        weights="",
        base="",
        systems=("splitthenmerge",),
        trained_for=(),
        convention="",
        model_size=(48, 32),
        window_frames=49,
        overlap_frames=16,
        even_latents=False,
        pixel_noise=0.0,
        proven="vector",
        architecture=replace(_TINY, patch_t=1, condition_channels=32),
        layers=("fg", "bg"),
        fixed_size=True,
    ),
    BackboneSpec(
        name="tiny-text-to-video",
        title="Tiny, text to video, untrained: its pictures mean nothing",
        family="cogvideox",
        weights="",
        base="",
        systems=("dynvfx",),
        trained_for=(),
        convention="",
        model_size=(80, 48),
        window_frames=17,
        overlap_frames=8,
        even_latents=False,
        pixel_noise=0.0,
        proven="vector",
        architecture=replace(_TINY, patch_t=1, condition_channels=0),
    ),
)

NAMES = tuple(spec.name for spec in SPECS)
_FOR_A_GPU = ("compiled", "attention", "cached_steps")
_OF_LARGE_MODELS = (*_FOR_A_GPU, "precision", "scene_prompt", "guidance_rescale")


def backbone_knob(system: str) -> Any:
    """Declare the knob ``backbone`` of a system: it offers what serves that system alone.

    Args:
        system: Its wire name; empty for all that there are. A system's own tiny one is ``tiny``.
    """
    serving = [s.name for s in SPECS if system in s.systems and not s.is_tiny]
    ships = PREVIEW in serving or not system
    told = "preview ships with gencomp and is a draft; " if ships else ""
    return knob(
        AUTO,
        choices=(AUTO, *serving, TINY) if system else (AUTO, *NAMES),
        shown={PREVIEW: _PREVIEW_TITLE} if ships else None,
        tab="Model",
        doc="Which video model. auto: the best that is installed, allowed and fits this machine; "
        f"{told}tiny is for tests of a pipeline only.",
    )


@dataclass(frozen=True)
class ModelParams(CommonParams):
    """Knobs of every system that uses a backbone; each says anew which backbones serve it."""

    backbone: str = backbone_knob("")
    quality: str = knob(
        "final",
        choices=("draft", "final"),
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
        doc="Attention kernels. native is the exact one, cudnn agrees with it to rounding; flash "
        "and sage need their libraries.",
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


def steps_of(params: ModelParams, spec: BackboneSpec | None = None) -> int:
    """Return how many steps a job takes: as its knob says, at most ten in a draft.

    Args:
        params: The job's knobs.
        spec: Its backbone: one that has use for few steps takes one where more are asked for.
    """
    if spec is not None and spec.few_steps:
        return params.steps if params.steps <= spec.few_steps else 1
    return min(params.steps, DRAFT_STEPS) if params.quality == "draft" else params.steps


def cached_steps_of(params: ModelParams, device: str) -> float:
    """Return the share of change below which a job reuses a step: 0 on a processor, always.

    As its knob says; of a draft on a GPU never less than ``DRAFT_CACHED_STEPS``.
    """
    if device == CPU:
        return 0.0
    least = DRAFT_CACHED_STEPS if params.quality == "draft" else 0.0
    return max(params.cached_steps, least)


def guidance_of(guidance: float, spec: BackboneSpec) -> float:
    """Return how far the prompt pulls on a backbone where the knob ``guidance`` says so much."""
    return 1 + (guidance - 1) * spec.guidance_share


def idle_knobs(params: Any, device: str, spec: BackboneSpec | None = None) -> str | None:
    """Return what is to be said of knobs which were turned and do nothing, on a device or a model.

    Args:
        params: A job's knobs; of a system without a backbone there are none such.
        device: ``cpu`` or ``cuda:0``.
        spec: The job's backbone, where it is known.
    """
    if not isinstance(params, ModelParams):
        return None
    over_base = spec is not None and spec.over_base
    found = []
    if device == CPU and not over_base:
        found.append(_without_effect(params, _FOR_A_GPU, "on a CPU"))
    if spec is not None and over_base:
        idle: tuple[str, ...] = _OF_LARGE_MODELS
        if spec.few_steps < params.steps != type(params)().steps:
            idle = (*idle, "steps")
        if hasattr(params, "scene_prompt"):  # A removal: there is nothing to pull.
            idle = (*idle, "guidance")
        if steps_of(params, spec) == 1 and getattr(params, "grain", "") != "match":
            idle = (*idle, "seed")  # one step sees noise alone, and looks past it
        found.append(_without_effect(params, idle, f"with {spec.name}"))
    return " ".join(one for one in found if one) or None


def _without_effect(params: ModelParams, names: Sequence[str], where: str) -> str:
    """Return the sentence that names those of some knobs which were turned; empty for none."""
    usual = type(params)()
    turned = [
        f"'{name}'"
        for name in names
        if hasattr(params, name) and getattr(params, name) != getattr(usual, name)
    ]
    if not turned:
        return ""
    *first, last = turned
    if not first:
        return f"Knob {last} has no effect {where}."
    return f"Knobs {', '.join(first)} and {last} have no effect {where}."


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
        BadKnob: The backbone named does not serve the system; or ``auto`` finds none that is
            practical on this machine.
        WeightsMissing: It is not installed, or none is that the system needs.
        WeightsRefused: It is installed and its licence is not allowed; or so is the best of all.
    """
    if system.backbone == NO_BACKBONE:
        return None
    if params.backbone != AUTO:
        return _named(system, _meant(system, params.backbone), machine)
    installed = _installed(system, machine)
    for spec in installed:
        if feasible(spec, machine) is None:
            return spec
    if system.backbone == NEEDS_BACKBONE:
        raise _none_practical(system, installed, machine) or _none_usable(system, machine)
    return None


def passed_over(system: System, machine: Machine) -> tuple[str, ...]:
    """Return why ``auto`` takes none of the installed backbones on a machine, a sentence each."""
    found = [feasible(spec, machine) for spec in _installed(system, machine)]
    return tuple(why for why in found if why is not None)


def why_preview(
    system: System, params: Any, spec: BackboneSpec | None, machine: Machine
) -> tuple[str, ...]:
    """Return why ``auto`` took the model that ships though others are there, a sentence each.

    Args:
        system: What is asked for.
        params: The job's knobs.
        spec: What it takes.
        machine: Where it runs.
    """
    if spec is None or spec.name != PREVIEW or params.backbone != AUTO:
        return ()
    fitting = (one for one in SPECS if system.name in one.systems)
    whys = [machine.refused[one.name] for one in fitting if one.name in machine.refused]
    return (*passed_over(system, machine), *(one.sentence for one in whys if one.by_licence))


def _installed(system: System, machine: Machine) -> list[BackboneSpec]:
    """Return the backbones that ``auto`` looks at, in its order."""
    usable = [one for one in SPECS if not one.is_tiny and one.name in machine.backbones]
    return in_order(system.name, [one for one in usable if system.name in one.systems])


def in_order(system: str, specs: Sequence[BackboneSpec]) -> list[BackboneSpec]:
    """Return backbones as ``auto`` tries them: trained for a system, standing in, the preview."""
    return sorted(specs, key=lambda one: (one.name == PREVIEW, system not in one.trained_for))


def _none_practical(
    system: System, installed: Sequence[BackboneSpec], machine: Machine
) -> BadKnob | None:
    """Return the error where there are weights and none that this machine could use.

    To insist is offered only for one that memory would not refuse.
    """
    if not installed:
        return None
    fitting = [spec for spec in installed if lacking_memory(spec, machine) is None]
    if fitting:
        why = feasible(fitting[0], machine)
        cure = f"Use a machine with a larger GPU, or insist with backbone={fitting[0].name}."
    else:
        why = lacking_memory(installed[0], machine)
        cure = "Use a machine with more memory, or install a smaller video model."
    return BadKnob(
        f"{system.title} needs a video model and none that is installed is practical here: {why}",
        hint=cure,
        knob="backbone",
    )


def _meant(system: System, name: str) -> BackboneSpec:
    """Return the backbone that a name stands for: ``tiny`` is every system's own tiny one."""
    own = [spec for spec in SPECS if spec.is_tiny and system.name in spec.systems]
    return own[0] if name == TINY and own else spec_named(name)


def _named(system: System, spec: BackboneSpec, machine: Machine) -> BackboneSpec:
    if system.name not in spec.systems:
        fitting = [one.name for one in SPECS if system.name in one.systems]
        raise BadKnob(
            f"{system.title} cannot run on the backbone '{spec.name}'.",
            hint=f"Choose one of: {', '.join([AUTO, *fitting])}.",
            knob="backbone",
        )
    if spec.is_tiny or spec.name in machine.backbones:
        return spec
    why = _refusal(spec, machine)
    kind = WeightsRefused if why.by_licence else WeightsMissing
    raise kind(why.sentence, hint=why.cure, backbone=spec.name)


def _refusal(spec: BackboneSpec, machine: Machine) -> Refusal:
    unknown = Refusal(
        f"The weights of {spec.title} are not installed.",
        "gencomp weights list says where they belong.",
    )
    return machine.refused.get(spec.name, unknown)


def _none_usable(system: System, machine: Machine) -> WeightsMissing | WeightsRefused:
    """Return the error of a system that needs a backbone and has none; it names the best one.

    Weights that are there and not allowed come before weights that are not there.
    """
    fitting = [
        spec
        for spec in SPECS
        if system.name in spec.systems and not spec.is_tiny and spec.name != PREVIEW
    ]
    whys = [(spec, _refusal(spec, machine)) for spec in fitting]
    spec, why = next((pair for pair in whys if pair[1].by_licence), whys[0])
    kind = WeightsRefused if why.by_licence else WeightsMissing
    return kind(
        f"{system.title} needs a video model and none can be used here: {why.sentence}",
        hint=why.cure,
        backbone=spec.name,
    )


def model_size(spec: BackboneSpec, plate: Format, asked: str = "") -> tuple[int, int]:
    """Return the width and height in pixels that a backbone works at.

    A backbone of one size works at that. Without a wish, the plate's own shape (pixel aspect
    counted) at the area the backbone was trained on, both sides rounded to its multiple; a smaller
    plate is not enlarged.

    Args:
        spec: The backbone.
        plate: Format of the plate.
        asked: The knob ``model_size``: ``WIDTHxHEIGHT`` or empty.

    Raises:
        BadKnob: The wish is not a size, or not of the backbone's multiple.
    """
    multiple = spec.size_multiple
    if asked.strip():
        own = f"{spec.model_size[0]}x{spec.model_size[1]}"
        if spec.fixed_size and asked.strip().lower() != own:
            raise BadKnob(
                f"{spec.title} works at {own} only, not at {asked.strip()}.",
                hint="Leave model_size empty; any plate is fitted.",
                knob="model_size",
            )
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
    if spec.fixed_size:
        return spec.model_size
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
        "licence": licence.get("licence", "none: made by the program"),
        "licence_class": licence.get("class", "none"),
        "proven": "no" if spec.is_tiny else spec.proven,
    }
