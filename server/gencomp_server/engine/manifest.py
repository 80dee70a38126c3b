# SPDX-License-Identifier: Apache-2.0
"""What a manifest says, and what every delivered file says of where it comes from.

Plain data, keyed by text throughout, and without a path or a person in it.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

import gencomp_protocol
from gencomp_protocol.request import Request
from gencomp_server.colour.spaces import resolve
from gencomp_server.contract import System, knob_fields
from gencomp_server.engine.context import JobContext, as_plain
from gencomp_server.engine.encode import Written
from gencomp_server.engine.graph import to_plain
from gencomp_server.exr.decode import Decoded
from gencomp_server.provenance import HASHES, told


def provenance(
    system: System,
    request: Request,
    params: Any,
    backbone: Mapping[str, Any] | None = None,
    *,
    pictures: Mapping[str, Mapping[int, str]] | None = None,
    level: str = HASHES,
) -> dict[str, Any]:
    """Return the attributes that say where a layer comes from; how much, is the server's setting.

    Args:
        system: The job's system.
        request: What was asked.
        params: Its knobs.
        backbone: What the manifest says of the backbone, or None.
        pictures: Digest of every picture, by input and frame.
        level: ``full``, ``hashes`` or ``minimal``; see ``provenance.py``.
    """
    found = {
        "gencomp:system": system.name,
        "gencomp:version": gencomp_protocol.__version__,
        "gencomp:seed": params.seed,
        "gencomp:working_space": resolve(request.working_space, request.ocio).spell(),
    }
    if backbone is not None:
        found["gencomp:backbone"] = backbone["name"]
        found["gencomp:backbone_identity"] = backbone["identity"]
        found["gencomp:steps"] = backbone["steps"]
        found["gencomp:licence"] = _licence(backbone)
        if backbone["untrained"]:
            found["gencomp:untrained"] = "a test of the pipeline; its pictures mean nothing"
        elif backbone["surrogate"]:
            found["gencomp:surrogate"] = f"{backbone['name']} was not trained for {system.name}"
        if backbone.get("draft"):
            found["gencomp:quality"] = f"draft: made by the model '{backbone['name']}'"
        elif getattr(params, "quality", "final") != "final":
            found["gencomp:quality"] = params.quality
    knobs = {field.name: getattr(params, field.name) for field in knob_fields(type(params))}
    return told(found, as_plain(knobs), pictures or {}, request.client, level)


def _licence(backbone: Mapping[str, Any]) -> str:
    """Return class and licence in one line; of weights that were made here the licence alone."""
    of_class, licence = str(backbone["licence_class"]), str(backbone["licence"])
    return licence if of_class == "none" else f"{of_class}: {licence}"


def describe_job(system: System, request: Request, params: Any, device: str) -> dict[str, Any]:
    """Return what a manifest says of the job itself."""
    knobs = {field.name: getattr(params, field.name) for field in knob_fields(type(params))}
    return {
        "system": system.name,
        "version": gencomp_protocol.__version__,
        "protocol": list(gencomp_protocol.PROTOCOL_VERSION),
        "versions": versions(),
        "seed": params.seed,
        "knobs": as_plain(knobs),
        "frames": str(request.frames),
        "device": device,
        "colour": {
            **resolve(request.working_space, request.ocio).describe(),
            "model": "Linear Rec.709",
            "exposure": getattr(params, "exposure", 0.0),
        },
    }


def versions() -> dict[str, str]:
    """Return the versions that may decide a bit: Python, numpy, and what a part has imported."""
    found = {"python": ".".join(map(str, sys.version_info[:3])), "numpy": np.__version__}
    of_models, of_pictures = ("torch", "diffusers", "transformers"), ("cv2", "OpenEXR")
    for name in (*of_models, *of_pictures, "OpenImageIO", "PyOpenColorIO"):
        if name in sys.modules:
            found[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
    return found


def describe_inputs(
    request: Request, pictures: Mapping[str, Mapping[int, Decoded]]
) -> dict[str, Any]:
    """Return what a manifest says of every input: its frames, what was read, bad samples."""
    table = {}
    for entry in request.inputs:
        own = pictures[entry.name]
        header = own[min(own)].header
        bad = {str(n): one.header.nan_count for n, one in own.items() if one.header.nan_count}
        table[entry.name] = {
            "cover": entry.cover,
            "colourspace": entry.colourspace,
            "channels": list(header.channels),
            "pixel_type": header.pixel_type,
            "format": [header.display_window.width, header.display_window.height],
            "digests": {str(n): entry_digest(one) for n, one in sorted(own.items())},
            "not_finite": bad,
        }
    return table


def entry_digest(one: Decoded) -> str:
    """Return the digest of the file that a decoded picture was made of."""
    return one.path.name.partition("-")[0]


def describe_layers(
    system: System, request: Request, written: Mapping[tuple[str, int], Written]
) -> dict[str, Any]:
    """Return what a manifest says of every layer: channels, and each file's digest and size."""
    return {
        spec.name: {
            "channels": list(spec.channels),
            "frames": {str(n): _file_facts(written[spec.name, n]) for n in request.frames},
        }
        for spec in system.layers(request)
    }


def delivered_bytes(layers: Mapping[str, Any]) -> int:
    """Return the bytes of all files in a manifest's table of layers."""
    return sum(file["bytes"] for one in layers.values() for file in one["frames"].values())


def _file_facts(one: Written) -> dict[str, Any]:
    return {"digest": one.digest, "bytes": one.bytes}


def describe_run(ctx: JobContext, seconds: float) -> dict[str, Any]:
    """Return what a manifest says of how it went: stages, warnings, figures, seconds.

    ``plan_notes`` are the sentences of the plan it ran by, such as why no video model was taken;
    none of a system that takes none.
    """
    return {
        "stages": [to_plain(row) for row in ctx.rows],
        "warnings": list(ctx.warnings),
        "plan_notes": list(ctx.plan_notes),
        "report": dict(ctx.figures),
        "timings": {"run_s": round(seconds, 3)},
    }
