# SPDX-License-Identifier: Apache-2.0
"""Runs of systems in which a shot's own truth plays the video model.

There are no published weights to draw pictures with, and an untrained model's mean nothing. So what
the documentation and the example scripts show is made by the real systems, from the plate to the
delivered layers, but for one step: where a model would answer, the procedural shot's own truth
does, brought to the size a model works at. What is shown is what the tool does with an answer. How
good an answer would be it does not show, and every picture made so has to say that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from gencomp_protocol.frames import Box
from gencomp_protocol.request import Request
from gencomp_server.backbones import model_size, spec_named
from gencomp_server.colour.modelrange import range_of
from gencomp_server.contract import check_request, find_system, schema
from gencomp_server.exr.write import write_layer
from gencomp_server.fileshot import Desk, FileShot, opened
from gencomp_server.parts import compositing, denoising, finish, lead, merging
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.pictures import to_model_range
from gencomp_server.parts.region import crop, sides
from gencomp_server.sources import gather, parse_given
from gencomp_server.systems import REGISTRY

SAID = "the shot's own truth, in place of a video model"
_PLATE, _ANSWER = "plate", "answer"
# Stages that a model would be loaded for; whatever comes next decides what their outcome is.
_MODELS = (
    denoising.encode_plate,
    denoising.sample,
    denoising.sample_layers,
    compositing.encode_blanked,
    compositing.latent_mask,
    merging.encode_noisy,
    merging.encode_subject,
)

Truth = Callable[[int, Any], Any]
"""From a frame's number and the plate [H,W,3], scene-linear, to what it should come to."""


@dataclass
class Played(Desk):
    """A context in which ``truth`` answers for the model.

    Attributes:
        truth: What every frame should come to.
        frames: Frame numbers, in order.
    """

    truth: Truth = field(default=lambda n, plate: plate)
    frames: tuple[int, ...] = ()
    answer: Any = None
    video: Any = None

    def stage(self, name: str, fn: Any, *inputs: Any, **settings: Any) -> Any:
        """Run a stage; one of the model is played."""
        for word in ("version", "seeded"):
            settings.pop(word, None)
        if fn is denoising.embed:
            return denoising.Words(_ANSWER, None, "")
        if fn is denoising.encode_clean:
            return _PLATE
        if fn in _MODELS:
            return (_ANSWER,) if fn is denoising.sample else _ANSWER
        if fn is denoising.there_and_back:
            return np.asarray(inputs[0], np.float16)
        if fn is denoising.decode:
            return np.asarray(self.video if inputs[0] == _PLATE else self.answer, np.float16)
        made = fn(self, *inputs, **settings)
        if fn is lead.prepare:
            self.video = made
            self.answer = self._answered(inputs[0], settings)
        if fn is compositing.prepare:
            self.answer = self._placed(inputs[0], inputs[1], made, settings["exposure"])
        return made

    def _answered(self, shot: Any, settings: Mapping[str, Any]) -> Any:
        """Return the truth as a model sees pictures: its size and range. [T,h,w,3]."""
        seen, box = range_of(shot.request, settings["exposure"]), Box(*settings["box"])

        def small(n: int) -> Any:
            light = self.truth(n, lead.composite_linear(shot, n))
            return to_model_range(to_model_frame(crop(light, box), settings["size"]), seen)

        return np.stack([small(n) for n in self.frames])

    def _placed(self, shot: Any, step: Any, made: Any, exposure: float) -> Any:
        """Return the truth beneath the placed element. [T,h,w,3], model range."""
        seen, found = range_of(shot.request, exposure), np.array(made.composite, np.float32)
        for j, i in enumerate(step.frames):
            plate = lead.composite_linear(shot.only("bg"), self.frames[i])
            change = crop(self.truth(self.frames[i], plate) - plate, Box(*step.box))
            below = 1 - np.asarray(made.alpha[j], np.float32)
            light = seen.light(np.clip(found[j] * 0.5 + 0.5, 0, 1))
            light = light + to_model_frame(change.astype(np.float32), step.size) * below
            found[j] = to_model_range(light.astype(np.float32), seen)
        return found


def run(
    system: str,
    out: Path,
    inputs: Mapping[str, str],
    knobs: Mapping[str, Any],
    truth: Truth,
    *,
    model: str,
    own: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a system with the truth for a model, write its layers and manifest, return the latter.

    Args:
        system: Name of the system.
        out: Folder for ``<layer>/<layer>.<frame>.exr`` and ``manifest.json``; made.
        inputs: Pattern of files by input.
        knobs: Values by knob.
        truth: What answers for the model.
        model: Name of the backbone whose size, and whose reading of masks, is taken.
        own: What the manifest says under ``node``.
    """
    found = find_system(REGISTRY, system)
    given = [parse_given(f"{name}={pattern}") for name, pattern in inputs.items()]
    sources = gather(given, schema(found), None, {})
    headers = tuple(one.header for one in sources.sources)
    request = Request(system, sources.frames, headers, dict(knobs))
    params = check_request(found, request)
    spec = spec_named(model)
    words = dict.fromkeys(("identity", "encode_identity", "vae_identity"), "played")
    ctx = Played(
        backbone=SimpleNamespace(spec=spec, forwards=0, **words),  # type: ignore[arg-type]
        truth=truth,
        frames=tuple(request.frames),
    )
    frames: dict[str, list[int]] = {}
    with opened(found, request, sources.sources) as shot:
        made = (
            _edited(shot, params, ctx, found)
            if system == "dynvfx"
            else found.run(shot, params, ctx)  # type: ignore[arg-type]
        )
        for picture in made:
            path = out / picture.layer / f"{picture.layer}.{picture.frame:04d}.exr"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_layer(path, picture)
            frames.setdefault(picture.layer, []).append(picture.frame)
    manifest = _manifest(request, frames, ctx, own)
    text = json.dumps(manifest, indent=1, sort_keys=True)
    (out / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return manifest


def _edited(shot: FileShot, params: Any, ctx: Played, system: Any) -> Any:
    """Deliver an edit as ``dynvfx`` does once its rounds are over."""
    plate, spec = lead.format_of(shot), spec_named("cogvideox-5b")
    size = model_size(spec, plate, params.model_size)
    box, colour = Box(0, 0, plate.width - 1, plate.height - 1), range_of(shot.request, 0.0)
    reach = finish.open_reach(ctx, shot, box=box, size=size)  # type: ignore[arg-type]
    settings = {"size": size, "colour": colour.identity, "exposure": 0.0}
    video = ctx.stage("prepare", lead.prepare, shot.only("plate"), box=sides(box), **settings)
    reference, made = (np.asarray(one, np.float16) for one in (video, ctx.answer))
    asked = np.abs(made.astype(np.float32) - reference).max(axis=3, keepdims=True) > 0.01
    floor = denoising.measure_noise(ctx, reference, made, asked.astype(np.uint8))  # type: ignore[arg-type]
    decoded = finish.Decoded(reference, made, floor, (), box, colour)
    judged = finish.judge(ctx, shot, params, decoded, reach)  # type: ignore[arg-type]
    yield from finish.deliver(ctx, shot, system.layers(shot.request), judged, locked=False)  # type: ignore[arg-type]


def _manifest(
    request: Request, frames: Mapping[str, list[int]], ctx: Played, own: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "system": request.system,
        "frames": str(request.frames),
        "knobs": {name: str(value) for name, value in request.knobs.items()},
        "layers": {name: {"frames": {str(n): {} for n in ns}} for name, ns in frames.items()},
        "model": SAID,
        "warnings": ctx.warnings,
        "node": dict(own or {}),
    }
