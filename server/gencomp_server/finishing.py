# SPDX-License-Identifier: Apache-2.0
"""What every system says alike of how a model's picture becomes the artist's: knobs and inputs.

Free of torch and of picture libraries: a plan is made from it, where none is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

from gencomp_protocol.layers import LIMIT, ORIGIN, ORIGIN_CHANNELS, PROTECT, LayerSpec
from gencomp_protocol.request import SEQUENCE, STILL
from gencomp_server.backbones import ModelParams
from gencomp_server.contract import Input, knob

KEEP_GRAIN, MATCH_GRAIN = "keep", "match"
# Compressions of EXR that lose no bit, as OpenEXR calls them; the first is the default.
COMPRESSIONS = ("zip", "zips", "piz")
LEAST, NATURAL = "least", "natural"
GROWN_MASK, WHOLE_FRAME = "grown mask", "whole frame"
AROUND_MASK = "around the mask"

LIMIT_INPUT = Input(
    LIMIT,
    "matte",
    "1 where the delivery may differ from the plate; outside it is the plate bit for bit. The "
    "model is told nothing of it.",
    optional=True,
    covers=(SEQUENCE, STILL),
)
PROTECT_INPUT = Input(
    PROTECT,
    "matte",
    "1 where the delivery is the plate bit for bit, whatever the model made. The model is told "
    "nothing of it.",
    optional=True,
    covers=(SEQUENCE, STILL),
)
ORIGIN_LAYER = LayerSpec(
    ORIGIN,
    ORIGIN_CHANNELS,
    "Where each pixel comes from: plate, plate under a gain, another frame (and its number), "
    "generated. The four mattes sum to one.",
)


@dataclass(frozen=True)
class FinishParams(ModelParams):
    """Knobs of every system that delivers the plate with something done to it."""

    exposure: float = knob(
        0.0,
        lo=-8.0,
        hi=8.0,
        doc="Stops by which the model sees the plate brighter; the result keeps the plate's own "
        "exposure.",
    )
    grain: str = knob(
        KEEP_GRAIN,
        choices=(KEEP_GRAIN, MATCH_GRAIN),
        tab="Delivery",
        doc="match: what is generated or taken from another frame gets grain like the plate's, "
        "measured by channel and brightness. A frame's own samples are never touched.",
        delivery=True,
    )
    origin: bool = knob(
        False,
        tab="Delivery",
        doc="Also deliver origin: mattes that say where each pixel comes from.",
        delivery=True,
    )
    other_channels: bool = knob(
        False,
        tab="Delivery",
        doc="Carry every other channel, part and view of the plate's files into the delivered "
        "picture, bit for bit: depth, normals, Cryptomatte, AOVs.",
        delivery=True,
    )
    compression: str = knob(
        COMPRESSIONS[0],
        choices=COMPRESSIONS,
        tab="Delivery",
        doc="How the delivered EXRs are packed; none loses a bit. zip: 16 lines at a time, best "
        "for layers. zips: line by line, for looking at a few lines of a large picture. piz: "
        "quicker to write and a little smaller with grain, slower to read.",
        delivery=True,
    )


@dataclass(frozen=True)
class ChangeParams(FinishParams):
    """Knobs of every system that delivers a change of a plate as a layer, wherever it is."""

    alpha_style: str = knob(
        LEAST,
        choices=(LEAST, NATURAL),
        tab="Delivery",
        doc="Alpha of the effect. least: as little as gives the result, shadows black and glow "
        "without alpha. natural: smoke and dust get a body. Both give the same result.",
        delivery=True,
    )


@dataclass(frozen=True)
class BoundParams(ChangeParams):
    """Knobs of every system that delivers a change around what the model was asked to change."""

    mask_grow: int = knob(
        16,
        lo=0,
        hi=256,
        tab="Delivery",
        doc="How far beyond the mask a change may be delivered, in model pixels.",
        delivery=True,
    )
    region: str = knob(
        AROUND_MASK,
        choices=(AROUND_MASK, WHOLE_FRAME),
        tab="Model",
        doc="What of the plate the model sees, over the whole shot. around the mask: where all "
        "masks are, with room around, so that a small effect gets the model's full resolution.",
    )


@dataclass(frozen=True)
class EffectParams(BoundParams):
    """Knobs of every system that delivers an effect where a mask asks for it."""

    unknown_bound: str = knob(
        GROWN_MASK,
        choices=(GROWN_MASK, WHOLE_FRAME),
        tab="Delivery",
        doc="Where a change may be on frames whose mask does not count: within the mask as it is "
        "interpolated there, grown by unknown_reach, or anywhere. With no mask at all: anywhere.",
        delivery=True,
    )
    unknown_reach: float = knob(
        10.0,
        lo=0.0,
        hi=100.0,
        tab="Delivery",
        doc="How far the interpolated mask is grown there, in per cent of the plate's height.",
        delivery=True,
    )
