# SPDX-License-Identifier: Apache-2.0
"""The preview model against what needs no model, on clips of families it never learned from.

    python benchmarks/bench_preview.py --table docs/models/preview.md

The clips are those of ``preview_clips.json``, fixed before training. Pictures are compared in
scene-linear light, of which more than 1 counts as 1, at the model's size, as the model makes them:
what a job does after that (change put onto the plate's own samples, nothing outside of it) is not
part of it. With ``--table`` the part of a page between its two marks is written anew. ``--limit``
takes fewer clips, for a look.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from gencomp_server.backbones import PREVIEW, guidance_of, spec_named
from gencomp_server.models import preview_network
from gencomp_server.models.preview import PreviewBackbone
from gencomp_server.models.preview import load as load_preview
from gencomp_server.models.preview_network import CHANNELS, picture
from gencomp_server.models.preview_words import MOST_WORDS
from gencomp_server.parts.sampler import denoise
from gencomp_server.parts.windows import job_windows
from gencomp_server.systems import overplusplus
from gencomp_server.training.preview_curves import grid, write_png
from gencomp_server.training.preview_kinds import SHADOW
from gencomp_server.training.preview_light import encode, light_of
from gencomp_server.training.preview_measures import (
    blockiness,
    centre,
    correlation,
    edginess,
    energy,
    hue_error,
    psnr,
    share_inside,
    share_removed,
)
from gencomp_server.training.preview_shots import PreviewBatch, make_batch

CLIPS = Path(__file__).parent / "preview_clips.json"
WEIGHTS = Path(preview_network.__file__).parent / "preview.safetensors"
BEGIN, END = "<!-- bench-preview: begin -->", "<!-- bench-preview: end -->"
_TELEA_PX = 3
_CARRIED_DB = 0.5  # more than nothing that counts as carried on
_DARKER, _VISIBLE = 0.98, 0.01
_DRAWN = 0.6  # of the effects' pixels, from which on a roto is taken for one of them
_SHEET_ROWS = 12
_EVERY = 10  # clips of one that is also sampled in more steps
_WORDED = 3  # clips of one that is also sampled with other words
_GUIDES = (2.0, 4.0, 8.0)
_HEARD = 1.05  # of "more" against "less", and of a colour against the next, that counts
_HUES = ("red", "green", "blue")


class Run:
    """What a sampler wants of a job: nothing is kept, nobody cancels."""

    def progress(self, stage: str, step: int, total: int) -> None:
        pass

    def check_cancelled(self) -> None:
        pass

    def checkpoint(self, name: str, tensors: object = None) -> None:
        return None


@dataclass
class Figures:
    """Figures by name, a value for each clip."""

    held: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        if math.isfinite(value):
            self.held.setdefault(name, []).append(value)

    def of(self, name: str, form: str = "{:.1f}") -> str:
        """Return median and quartiles as a page has them."""
        values = self.held.get(name)
        if not values:
            return "none"
        low, middle, high = np.percentile(values, (25, 50, 75))
        return f"{form.format(middle)} ({form.format(low)} to {form.format(high)})"

    def count(self, name: str) -> int:
        """Return of how many clips there is a figure."""
        return len(self.held.get(name, []))

    def median(self, name: str) -> float:
        return float(np.median(self.held.get(name, [math.nan])))

    def summary(self) -> dict[str, dict[str, float]]:
        return {
            name: {
                "clips": len(values),
                **{
                    word: round(float(np.percentile(values, q)), 4)
                    for word, q in (("low", 25), ("median", 50), ("high", 75))
                },
            }
            for name, values in self.held.items()
        }


# --- sampling ------------------------------------------------------------------------------------


def sampled(
    backbone: PreviewBackbone,
    conditions: Tensor,
    words: Sequence[str],
    *,
    steps: int = 1,
    guidance: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Return what the model makes of a clip, by a job's own loop. [T,H,W,13] -> [T,H,W,3]."""
    layers = {
        name: picture(conditions, name).permute(0, 3, 1, 2)[None].contiguous() for name in CHANNELS
    }
    joined = backbone.join(layers)
    shape = (1, len(conditions), 3, *joined.shape[3:])
    noise = np.random.default_rng(seed).standard_normal(shape, np.float32)
    made = denoise(
        backbone,
        torch.from_numpy(noise),
        joined,
        backbone.text(" ".join(words[:MOST_WORDS])),
        null_text=backbone.text(words[0]),
        guidance=guidance,
        schedule=backbone.schedule(steps),
        windows=job_windows(backbone.spec, len(conditions)),
        ctx=Run(),
    )
    return made[0].permute(0, 2, 3, 1)


def clips(task: str, limit: int) -> Iterator[PreviewBatch]:
    """Yield the fixed clips, one at a time; of fewer, as many of each half."""
    facts = json.loads(CLIPS.read_text(encoding="utf-8"))
    size = (facts["height"], facts["width"])
    for half, scarce in (("scarce", True), ("free", False)):
        count = facts[half]["count"]
        for i in range(min(count, round(limit * count / 100))):
            seed = facts[half]["first"] + i
            yield make_batch(
                seed, 1, facts["frames"], size, families=facts["families"], task=task, scarce=scarce
            )


def inpainted(conditions: Tensor) -> Tensor:
    """Return the plate's light with Telea's inpainting in the object's matte, frame by frame."""
    codes = (0.5 + 0.5 * picture(conditions, "plate")).clamp(0, 1).numpy()
    hole = (picture(conditions, "subject")[..., 0] > 0).numpy().astype(np.uint8)
    hole = np.stack([cv2.dilate(one, np.ones((3, 3), np.uint8)) for one in hole])
    pictures = (codes * 255 + 0.5).astype(np.uint8)
    done = [
        cv2.inpaint(one, where, _TELEA_PX, cv2.INPAINT_TELEA)
        for one, where in zip(pictures, hole, strict=True)
    ]
    found = np.where(hole[..., None] > 0, np.stack(done).astype(np.float32) / 255, codes)
    return light_of(torch.from_numpy(2 * found.astype(np.float32) - 1))


def displayed(light: Tensor) -> Tensor:
    """Return light as a display shows it: 0..1. Lamps would rule every sum otherwise."""
    return light.clamp(0, 1)


# --- removal -------------------------------------------------------------------------------------


def removal(backbone: PreviewBackbone, limit: int, sheet: list[Tensor]) -> Figures:
    """Measure removals."""
    found = Figures()
    for number, clip in enumerate(clips("remove", limit)):
        conditions, truth = clip.conditions[0], clip.target_light[0]
        methods = {
            "plate": light_of(picture(conditions, "plate")),
            "telea": inpainted(conditions),
            "base": light_of(picture(conditions, "base")),
            "everywhere": light_of(picture(conditions, "gathered")),
        }
        made = sampled(backbone, conditions, clip.words[0])
        methods["model"] = light_of(made)
        for steps in (4, 8) if number % _EVERY == 0 else ():
            methods[f"model_{steps}"] = light_of(
                sampled(backbone, conditions, clip.words[0], steps=steps)
            )
        changed, footprint = clip.changed[0], clip.footprint[0] > 0.5
        effects = clip.effect_only[0]
        regions = {
            "changed": changed,
            "object": changed & footprint,
            "effects": effects,
            "all": torch.ones_like(changed),
            "same": ~changed,
        }
        for name, light in methods.items():
            for region, mask in regions.items():
                found.add(f"{name} {region}", psnr(light, truth, mask))
        for steps in (4, 8) if number % _EVERY == 0 else ():
            other = psnr(methods[f"model_{steps}"], truth, changed)
            found.add(f"model_{steps} gain", other - psnr(methods["model"], truth, changed))
        for name in ("plate", "telea", "base", "everywhere"):
            gain = psnr(methods["model"], truth, changed) - psnr(methods[name], truth, changed)
            found.add(f"gain over {name}", gain)
        hole = footprint.float()
        seen = float((picture(conditions, "seen") * hole).sum() / hole.sum())
        found.add("seen", seen)
        half = "scarce" if seen < 0.5 else "covered"
        for name in ("base", "everywhere", "model"):
            found.add(f"{name} {half}", psnr(methods[name], truth, changed))
        if only_shadows(clip):
            before, after = displayed(methods["plate"]), displayed(truth)
            darker = effects & (
                before.sum(-1, keepdim=True) < _DARKER * after.sum(-1, keepdim=True)
            )
            # A roto of the effects is there where EDIT goes beyond the object by more than a ring.
            told = "told" if marks_effects(conditions, effects) else "untold"
            for name in ("base", "everywhere", "model"):
                share = share_removed(before, displayed(methods[name]), after, darker)
                found.add(f"shadow removed {name}", share)
                found.add(f"shadow removed {name} {told}", share)
        codes = encode(methods["model"]), encode(truth)
        found.add("blocks", blockiness(*codes, preview_network.MULTIPLE))
        if len(sheet) < _SHEET_ROWS:
            middle = len(conditions) // 2
            row = [picture(conditions, name)[middle] for name in ("plate", "base", "gathered")]
            sheet.append(torch.stack([*row, made[middle], clip.target[0, middle]]))
    return found


def only_shadows(clip: PreviewBatch) -> bool:
    """Tell whether shadows are all that the objects in question leave."""
    return bool(clip.there[0, SHADOW]) and int(clip.there[0].sum()) == 1


def marks_effects(conditions: Tensor, effects: Tensor) -> bool:
    """Tell whether somebody drew a roto of most of the effects."""
    drawn = (picture(conditions, "remove") > 0) & effects
    return float(drawn.sum()) > _DRAWN * float(effects.sum())


# --- effects -------------------------------------------------------------------------------------


def masked(clip: PreviewBatch) -> Tensor:
    """Return a clip's conditions with its mask drawn in every frame. [T,H,W,13]."""
    conditions = clip.conditions[0].clone()
    mask = (clip.effect_mask[0] > 0.5).float()
    start = sum(list(CHANNELS.values())[: list(CHANNELS).index("remove")])
    conditions[..., start : start + 1] = mask
    conditions[..., start + 1 : start + 2] = 1 - mask
    return conditions


def adding(backbone: PreviewBackbone, limit: int, sheet: list[Tensor]) -> Figures:
    """Measure effects that are added."""
    found, usual = Figures(), guidance_of(overplusplus.Params().guidance, backbone.spec)
    lean: list[tuple[float, ...]] = []
    soft: list[tuple[float, ...]] = []
    for number, clip in enumerate(clips("add", limit)):
        conditions, words = masked(clip), clip.words[0]
        before = displayed(light_of(picture(conditions, "plate")))
        truth = displayed(clip.target_light[0])
        changed, mask = clip.changed[0], clip.effect_mask[0] > 0.5
        made = sampled(backbone, conditions, words, guidance=usual)
        light = displayed(light_of(made))
        plain = displayed(light_of(sampled(backbone, conditions, words)))
        change, true = light - before, truth - before
        found.add("inside", share_inside(change, mask))
        found.add("inside truth", share_inside(true, mask))
        kind = "shadow" if only_shadows(clip) else "other"
        for name in ("all", kind):
            found.add(f"nothing {name}", psnr(before, truth, changed))
            found.add(f"model {name}", psnr(light, truth, changed))
            gain = psnr(light, truth, changed) - psnr(before, truth, changed)
            found.add(f"gain {name}", gain)
            alone = psnr(plain, truth, changed) - psnr(before, truth, changed)
            found.add(f"gain {name} at guidance 1", alone)
            found.add(f"within {name} nothing", psnr(before, truth, mask))
            found.add(f"within {name} model", psnr(light, truth, mask))
        found.add(f"form {kind}", correlation(change, true, changed))
        for steps in (4, 8) if number % _EVERY == 0 else ():
            other = light_of(sampled(backbone, conditions, words, steps=steps, guidance=usual))
            again = psnr(other, truth, changed) - psnr(light, truth, changed)
            found.add(f"model_{steps} gain", again)
        if kind == "shadow":
            start = centre(clip.footprint[0])
            even = before * mask  # what darkening the mask alike would do
            lean.append(tuple(centre(one.abs()) - start for one in (change, true, even)))
            soft.append(tuple(edginess(gain_of(before, one)) for one in (light, truth)))
        unkeyed(backbone, clip, found, usual)
        if len(sheet) < _SHEET_ROWS:
            middle = len(conditions) // 2
            shown = 2 * mask[middle].expand(-1, -1, 3).float() - 1
            row = (picture(conditions, "plate")[middle], shown, made[middle])
            sheet.append(torch.stack([*row, clip.target[0, middle]]))
    if len(lean) > 2:
        led = np.corrcoef(np.array(lean).T)
        found.add("direction", float(led[0, 1]))
        found.add("direction of an even change", float(led[2, 1]))
        found.add("softness", float(np.corrcoef(np.array(soft).T)[0, 1]))
    return found


def gain_of(before: Tensor, after: Tensor) -> Tensor:
    """Return by how much light was taken or added, apart from what the plate's texture does."""
    return (after.sum(-1, keepdim=True) + 0.02) / (before.sum(-1, keepdim=True) + 0.02) - 1


def unkeyed(backbone: PreviewBackbone, clip: PreviewBatch, found: Figures, usual: float) -> None:
    """Measure frames between keyframes, in which the mask is unknown."""
    between = ~clip.keyed[0]
    if not bool(between.any()):
        return
    words = clip.words[0]
    made = light_of(sampled(backbone, clip.conditions[0], words, guidance=usual))[between]
    drawn = light_of(sampled(backbone, masked(clip), words, guidance=usual))[between]
    before = light_of(picture(clip.conditions[0], "plate"))[between]
    truth, changed = clip.target_light[0][between], clip.changed[0][between]
    figures = {
        name: psnr(light, truth, changed)
        for name, light in (("nothing", before), ("unknown", made), ("drawn", drawn))
    }
    for name, value in figures.items():
        found.add(f"between {name}", value)
    some = "some keys" if bool(clip.keyed[0].any()) else "no key"
    found.add(f"between gain {some}", figures["unknown"] - figures["nothing"])
    found.add("between same", psnr(made, truth, ~changed))


def wording(backbone: PreviewBackbone, limit: int) -> Figures:
    """Measure whether colours and amounts are heard, on clips whose mask is drawn."""
    found = Figures()
    for clip in clips("add", -(-limit // _WORDED)):
        conditions = masked(clip)
        before = displayed(light_of(picture(conditions, "plate")))
        mask = clip.effect_mask[0] > 0.5
        for at, colour in enumerate(_HUES):
            light = displayed(light_of(sampled(backbone, conditions, ("add", colour, "smoke"))))
            moved = mask & ((light - before).abs().amax(-1, keepdim=True) > _VISIBLE)
            if not bool(moved.any()):
                continue
            after = (light * moved).sum((0, 1, 2)) / moved.sum()
            plain = displayed(light_of(sampled(backbone, conditions, ("add", "smoke"))))
            grey = (plain * moved).sum((0, 1, 2)) / moved.sum()
            towards = after / grey.clamp_min(1e-6)
            first, second = towards.topk(2).values.tolist()
            led = int(towards.argmax()) == at and first > _HEARD * second
            found.add(f"{colour} leads", float(led))
            found.add(f"{colour} hue", hue_error(towards, at))
        for kind in ("smoke", "shadow"):
            for guidance in _GUIDES:
                less, more = (
                    energy(
                        displayed(
                            light_of(
                                sampled(
                                    backbone, conditions, ("add", word, kind), guidance=guidance
                                )
                            )
                        )
                        - before
                    )
                    for word in ("less", "more")
                )
                found.add(f"{kind} more at {guidance:g}", float(more > _HEARD * less))
                found.add(f"{kind} ratio at {guidance:g}", more / max(less, 1e-9))
    return found


# --- the machine ---------------------------------------------------------------------------------


def timing(backbone: PreviewBackbone, threads: int) -> dict[str, float | bool]:
    """Measure 25 frames at the size that a job takes, and whether they come out the same twice."""
    width, height = backbone.spec.model_size
    clip = make_batch(1, 1, 25, (height, width), families="train", task="remove")
    torch.set_num_threads(threads)
    started = time.perf_counter()
    first = sampled(backbone, clip.conditions[0], clip.words[0], steps=2, seed=5)
    seconds = time.perf_counter() - started
    same = bool(
        torch.equal(first, sampled(backbone, clip.conditions[0], clip.words[0], steps=2, seed=5))
    )
    started = time.perf_counter()
    sampled(backbone, clip.conditions[0], clip.words[0])
    one = time.perf_counter() - started
    torch.set_num_threads(1)
    return {
        "width": width,
        "height": height,
        "threads": threads,
        "one_step_s": round(one, 2),
        "two_steps_s": round(seconds, 2),
        "same_bits": same,
    }


# --- the page ------------------------------------------------------------------------------------


def removal_table(found: Figures) -> str:
    rows = (
        ("(a) plate, unchanged", "plate"),
        ("(b) Telea in the matte, frame by frame", "telea"),
        ("(c) registered masked median in the matte", "base"),
        ("registered masked median everywhere", "everywhere"),
        ("**preview, 1 step**", "model"),
    )
    columns = ("changed", "object", "effects", "same")
    lines = [
        "| PSNR in dB | changed pixels | under the object | effects alone | unchanged pixels |",
        "|---|---|---|---|---|",
    ]
    for title, name in rows:
        cells = " | ".join(found.of(f"{name} {column}") for column in columns)
        lines.append(f"| {title} | {cells} |")
    return "\n".join(lines)


def verdict(value: float, least: float) -> str:
    return "met" if value >= least else "missed"


def targets(removed: Figures, added: Figures, worded: Figures, timed: dict) -> str:
    """Return the table of what was asked and what was measured."""
    lines = ["| asked | measured | |", "|---|---|---|"]

    def row(asked: str, said: str, value: float, least: float) -> None:
        lines.append(f"| {asked} | {said} | {verdict(value, least)} |")

    for name, title, least in (
        ("plate", "(a) by 9 dB", 9.0),
        ("telea", "(b) by 4 dB", 4.0),
        ("base", "(c) by 2 dB", 2.0),
        ("everywhere", "the median everywhere (nothing was asked)", 0.0),
    ):
        key = f"gain over {name}"
        row(f"removal beats {title}", f"{removed.of(key)} dB", removed.median(key), least)
    key = "shadow removed model"
    parts = "; ".join(
        f"{title} {removed.of(f'{key} {name}', '{:.2f}')} of {removed.count(f'{key} {name}')}"
        for name, title in (("told", "with a roto of it"), ("untold", "without"))
    )
    said = f"{removed.of(key, '{:.2f}')} of {removed.count(key)} clips with shadows alone; {parts}"
    row("shadow's energy removed, 0.70", said, removed.median(key), 0.7)
    lines.append(
        f"| change inside the mask, 0.90 | {added.of('inside', '{:.2f}')}; the truth's own "
        f"{added.of('inside truth', '{:.2f}')} | met, by construction: KEEP is kept |"
    )
    row(
        "shadows better than nothing by 3 dB",
        f"{added.of('gain shadow')} dB, {added.count('gain shadow')} clips with shadows alone",
        added.median("gain shadow"),
        3.0,
    )
    for name in ("direction", "softness"):
        row(
            f"{name} of shadows follows the truth",
            f"correlation {added.median(name):.2f}"
            + (
                f"; of a mask darkened evenly {added.median('direction of an even change'):.2f}"
                if name == "direction"
                else ""
            ),
            added.median(name),
            0.5,
        )
    gain = "between gain some keys"
    row(
        "frames between keyframes carry on",
        f"{added.of(gain)} dB over nothing in {added.count(gain)} clips; without any key "
        f"{added.of('between gain no key')} dB",
        added.median(gain),
        _CARRIED_DB,
    )
    for colour in _HUES:
        share = float(np.mean(worded.held.get(f"{colour} leads", [math.nan])))
        row(
            f"'{colour} smoke' is {colour}",
            f"in {share:.0%} of {worded.count(f'{colour} hue')} clips; hue off by "
            f"{worded.of(f'{colour} hue', '{:.0f}')}°",
            share,
            0.5,
        )
    for kind in ("smoke", "shadow"):
        for guidance in _GUIDES:
            share = float(np.mean(worded.held.get(f"{kind} more at {guidance:g}", [math.nan])))
            ratio = worded.of(f"{kind} ratio at {guidance:g}", "{:.2f}")
            row(
                f"'more {kind}' changes more than 'less' at guidance {guidance:g}",
                f"in {share:.0%} of {worded.count(f'{kind} ratio at {guidance:g}')} clips; energy "
                f"{ratio} times",
                share,
                0.5,
            )
    said = (
        f"{timed['one_step_s']} s at {timed['width']}x{timed['height']}, {timed['threads']} threads"
    )
    row("25 frames in less than 30 s", said, -float(timed["one_step_s"]), -30.0)
    row("the same seed, the same bits", str(timed["same_bits"]), float(timed["same_bits"]), 1.0)
    return "\n".join(lines)


def page(removed: Figures, added: Figures, worded: Figures, timed: dict) -> str:
    """Return what a page says of all figures."""
    scarce = sum(one < 0.5 for one in removed.held["seen"])
    parts = [
        f"{removed.count('gain over base')} removals, {added.count('gain all')} additions; of "
        f"{scarce} of the removals less than half of the hole is ever seen. Medians, quartiles in "
        "brackets.",
        removal_table(removed),
        "Where less than half of the hole is seen: (c) "
        f"{removed.of('base scarce')}, preview {removed.of('model scarce')} dB. Where more is: (c) "
        f"{removed.of('base covered')}, preview {removed.of('model covered')} dB. Steps of the "
        f"error at borders of tokens, against between them: {removed.of('blocks', '{:.2f}')}.",
        targets(removed, added, worded, timed),
        f"All effects: {added.of('model all')} dB, with nothing {added.of('nothing all')}; in the "
        f"whole mask, unchanged pixels included, {added.of('within all model')} and "
        f"{added.of('within all nothing')}. These are at the guidance of a job's own default; at 1 "
        f"the gain for shadows is {added.of('gain shadow at guidance 1')} dB, for all "
        f"{added.of('gain all at guidance 1')}. More "
        f"steps than one, on every tenth clip: 4 add {added.of('model_4 gain')} dB and 8 "
        f"{added.of('model_8 gain')}; in removals {removed.of('model_4 gain')} and "
        f"{removed.of('model_8 gain')}. Form of the "
        f"change, correlation with the truth: shadows {added.of('form shadow', '{:.2f}')}, clips "
        f"with others {added.of('form other', '{:.2f}')}.",
    ]
    return "\n\n".join(parts)


def put(path: Path, text: str) -> None:
    """Write the part of a page between its marks anew."""
    before = path.read_text(encoding="utf-8")
    if BEGIN not in before or END not in before:
        raise SystemExit(f"{path} has no marks: put '{BEGIN}' and '{END}' into it.")
    start, stop = before.index(BEGIN) + len(BEGIN), before.index(END)
    path.write_text(f"{before[:start]}\n{text}\n{before[stop:]}", encoding="utf-8")


def measured(name: str, weights: Path, limit: int) -> tuple[Figures, list[np.ndarray]]:
    """Return one part's figures, and rows of its sheet, in a process of its own."""
    torch.set_num_threads(1)
    backbone = load_preview(spec_named(PREVIEW), {"transformer": weights})
    rows: list[Tensor] = []
    if name == "wording":
        return wording(backbone, limit), []
    figures = {"removal": removal, "adding": adding}[name](backbone, limit, rows)
    return figures, [one.numpy() for one in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench_preview"), help="folder for figures, sheets"
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="default: those that ship")
    parser.add_argument("--table", type=Path, help="page to write the table into")
    parser.add_argument("--limit", type=int, default=100, help="clips of each task")
    parser.add_argument("--threads", type=int, default=2, help="of the timing")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        waiting = {
            name: pool.submit(measured, name, args.weights, args.limit)
            for name in ("removal", "adding", "wording")
        }
        done = {}
        for name, one in waiting.items():
            done[name], rows = one.result()
            print(name, json.dumps(done[name].summary()), flush=True)
            if rows:
                write_png(args.out / f"{name}.png", grid(np.stack(rows), 2))
    backbone = load_preview(spec_named(PREVIEW), {"transformer": args.weights})
    timed = timing(backbone, args.threads)
    facts = {name: figures.summary() for name, figures in done.items()}
    record = {**facts, "timing": timed, "weights": args.weights.name}
    (args.out / "preview.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    text = page(done["removal"], done["adding"], done["wording"], timed)
    print(text)
    if args.table is not None:
        put(args.table, text)


if __name__ == "__main__":
    main()
