# SPDX-License-Identifier: Apache-2.0
"""The preview model against what needs no model, on clips of families it never learned from.

    python benchmarks/bench_preview.py --table docs/models/preview.md

The clips are those of ``preview_clips.json``, fixed before training. Pictures are compared in
scene-linear light, at the model's size, as the model makes them: what a job does after that (change
put onto the plate's own samples, nothing outside of it) is not part of it. With ``--table`` the
part of a page between its two marks is written anew. ``--limit`` takes fewer clips, for a look.
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

from gencomp_server.backbones import PREVIEW, spec_named
from gencomp_server.models import preview_network
from gencomp_server.models.preview import PreviewBackbone
from gencomp_server.models.preview import load as load_preview
from gencomp_server.models.preview_network import CHANNELS, picture
from gencomp_server.models.preview_words import MOST_WORDS
from gencomp_server.parts.sampler import denoise
from gencomp_server.parts.windows import job_windows
from gencomp_server.training.preview_curves import grid, write_png
from gencomp_server.training.preview_light import encode, light_of
from gencomp_server.training.preview_measures import (
    correlation,
    psnr,
    share_inside,
    share_removed,
)
from gencomp_server.training.preview_shots import PreviewBatch, make_batch

CLIPS = Path(__file__).parent / "preview_clips.json"
WEIGHTS = Path(preview_network.__file__).parent / "preview.safetensors"
BEGIN, END = "<!-- bench-preview: begin -->", "<!-- bench-preview: end -->"
SHADOW, SMOKE = 0, 2
_TELEA_PX = 3
_CARRIED_DB = 0.5  # more than nothing that counts as carried on
_DARKER, _VISIBLE = 0.98, 0.01
_SHEET_ROWS = 12
_EVERY = 10  # clips of one that is also sampled in more steps, and with other words
_GUIDES = (2.0, 4.0, 8.0)
_HEARD = 1.05  # energy of "more" against "less" that counts as more
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


# --- removal -------------------------------------------------------------------------------------


def removal(backbone: PreviewBackbone, limit: int, sheet: list[Tensor]) -> Figures:
    """Measure removals."""
    found = Figures()
    for number, clip in enumerate(clips("remove", limit)):
        conditions, truth = clip.conditions[0], clip.target_light[0]
        methods = {
            "plate": clip.plate_light[0],
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
        seen = float((picture(conditions, "seen") * hole).sum() / hole.sum().clamp_min(1))
        found.add("seen", seen)
        half = "scarce" if seen < 0.5 else "covered"
        for name in ("base", "everywhere", "model"):
            found.add(f"{name} {half}", psnr(methods[name], truth, changed))
        if clip.there[0, SHADOW]:
            darker = effects & (
                clip.plate_light[0].sum(-1, keepdim=True) < _DARKER * truth.sum(-1, keepdim=True)
            )
            for name in ("base", "everywhere", "model"):
                share = share_removed(clip.plate_light[0], methods[name], truth, darker)
                found.add(f"shadow removed {name}", share)
        found.add("blocks", blockiness(light_codes(methods["model"]), light_codes(truth)))
        if len(sheet) < _SHEET_ROWS:
            middle = len(conditions) // 2
            row = [picture(conditions, name)[middle] for name in ("plate", "base", "gathered")]
            sheet.append(torch.stack([*row, made[middle], clip.target[0, middle]]))
    return found


def light_codes(light: Tensor) -> Tensor:
    """Return codes 0..1 of light."""
    return encode(light)


def blockiness(found: Tensor, truth: Tensor) -> float:
    """Return how much larger steps of the error are at the borders of tokens than between them.

    1 is no block at all. [T,H,W,3].
    """
    error = found - truth
    across = (error[:, :, 1:] - error[:, :, :-1]).abs().mean((0, 1, 3))
    at = torch.arange(1, error.shape[2]) % preview_network.MULTIPLE == 0
    return float(across[at].mean() / across[~at].mean())


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
    found = Figures()
    lean: list[tuple[float, float]] = []
    soft: list[tuple[float, float]] = []
    for number, clip in enumerate(clips("add", limit)):
        conditions, words = masked(clip), clip.words[0]
        before, truth = clip.plate_light[0], clip.target_light[0]
        changed, mask = clip.changed[0], clip.effect_mask[0] > 0.5
        made = sampled(backbone, conditions, words)
        light = light_of(made)
        change, true = light - before, truth - before
        found.add("inside", share_inside(change, mask))
        found.add("inside truth", share_inside(true, mask))
        only = [i for i in range(7) if bool(clip.there[0, i])]
        kind = "shadow" if only == [SHADOW] else "other"
        for name in ("all", kind):
            found.add(f"nothing {name}", psnr(before, truth, changed))
            found.add(f"model {name}", psnr(light, truth, changed))
            gain = psnr(light, truth, changed) - psnr(before, truth, changed)
            found.add(f"gain {name}", gain)
        found.add(f"form {kind}", correlation(change, true, changed))
        for steps in (4, 8) if number % _EVERY == 0 else ():
            other = light_of(sampled(backbone, conditions, words, steps=steps))
            again = psnr(other, truth, changed) - psnr(light, truth, changed)
            found.add(f"model_{steps} gain", again)
        if kind == "shadow":
            start = centre(clip.footprint[0])
            lean.append((centre(change.abs()) - start, centre(true.abs()) - start))
            soft.append((edginess(change), edginess(true)))
        unkeyed(backbone, clip, found)
        if len(sheet) < _SHEET_ROWS:
            middle = len(conditions) // 2
            shown = 2 * mask[middle].expand(-1, -1, 3).float() - 1
            row = (picture(conditions, "plate")[middle], shown, made[middle])
            sheet.append(torch.stack([*row, clip.target[0, middle]]))
    for name, pairs in (("direction", lean), ("softness", soft)):
        if len(pairs) > 2:
            found.add(name, float(np.corrcoef(np.array(pairs).T)[0, 1]))
    return found


def unkeyed(backbone: PreviewBackbone, clip: PreviewBatch, found: Figures) -> None:
    """Measure frames between keyframes, in which the mask is unknown."""
    between = ~clip.keyed[0]
    if not bool(between.any()) or bool(between.all()):
        return
    made = light_of(sampled(backbone, clip.conditions[0], clip.words[0]))[between]
    drawn = light_of(sampled(backbone, masked(clip), clip.words[0]))[between]
    truth, changed = clip.target_light[0][between], clip.changed[0][between]
    for name, light in (
        ("nothing", clip.plate_light[0][between]),
        ("unknown", made),
        ("drawn", drawn),
    ):
        found.add(f"between {name}", psnr(light, truth, changed))


def centre(weight: Tensor) -> float:
    """Return the mean column of a weight, in picture widths. [T,H,W,C]."""
    columns = weight.sum((0, 1, 3))
    places = (torch.arange(len(columns)) + 0.5) / len(columns)
    return float((columns * places).sum() / columns.sum().clamp_min(1e-9))


def edginess(change: Tensor) -> float:
    """Return how steep a change is for its size: high for hard edges. [T,H,W,3]."""
    across = (change[:, :, 1:] - change[:, :, :-1]).square().mean()
    down = (change[:, 1:] - change[:, :-1]).square().mean()
    return float(((across + down) / change.square().mean().clamp_min(1e-12)).sqrt())


def wording(backbone: PreviewBackbone, limit: int) -> Figures:
    """Measure whether colours and amounts are heard, on clips whose mask is drawn."""
    found = Figures()
    for clip in clips("add", -(-limit // _EVERY)):
        conditions, before = masked(clip), clip.plate_light[0]
        mask = clip.effect_mask[0] > 0.5
        for at, colour in enumerate(_HUES):
            light = light_of(sampled(backbone, conditions, ("add", colour, "smoke")))
            moved = mask & ((light - before).abs().amax(-1, keepdim=True) > _VISIBLE)
            if not bool(moved.any()):
                continue
            after = (light * moved).sum((0, 1, 2)) / moved.sum()
            plain = light_of(sampled(backbone, conditions, ("add", "smoke")))
            grey = (plain * moved).sum((0, 1, 2)) / moved.sum()
            found.add(f"{colour} leads", float(int((after / grey).argmax()) == at))
            found.add(f"{colour} hue", hue_error(after / grey, at))
        for kind in ("smoke", "shadow"):
            for guidance in _GUIDES:
                less, more = (
                    energy(
                        light_of(
                            sampled(backbone, conditions, ("add", word, kind), guidance=guidance)
                        )
                        - before
                    )
                    for word in ("less", "more")
                )
                found.add(f"{kind} more at {guidance:g}", float(more > _HEARD * less))
                found.add(f"{kind} ratio at {guidance:g}", more / max(less, 1e-9))
    return found


def energy(change: Tensor) -> float:
    return float(change.square().mean())


def hue_error(colour: Tensor, at: int) -> float:
    """Return how many degrees a colour's hue is from red, green or blue (0, 1, 2)."""
    angles = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3])
    x, y = float((colour * angles.cos()).sum()), float((colour * angles.sin()).sum())
    away = math.degrees(math.atan2(y, x)) - 120.0 * at
    return abs((away + 180) % 360 - 180)


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
    ):
        key = f"gain over {name}"
        row(f"removal beats {title}", f"{removed.of(key)} dB", removed.median(key), least)
    key = "shadow removed model"
    row("shadow's energy removed, 0.70", removed.of(key, "{:.2f}"), removed.median(key), 0.7)
    row(
        "change inside the mask, 0.90",
        f"{added.of('inside', '{:.2f}')}; the truth's own {added.of('inside truth', '{:.2f}')}",
        added.median("inside"),
        0.9,
    )
    row(
        "shadows better than nothing by 3 dB",
        f"{added.of('gain shadow')} dB",
        added.median("gain shadow"),
        3.0,
    )
    for name in ("direction", "softness"):
        row(
            f"{name} of shadows follows the truth",
            f"correlation {added.median(name):.2f}",
            added.median(name),
            0.5,
        )
    gain = added.median("between unknown") - added.median("between nothing")
    row(
        "frames between keyframes carry on",
        f"{added.of('between unknown')} dB, with nothing {added.of('between nothing')}, with the "
        f"mask drawn {added.of('between drawn')}",
        gain,
        _CARRIED_DB,
    )
    for colour in _HUES:
        share = float(np.mean(worded.held.get(f"{colour} leads", [math.nan])))
        row(
            f"'{colour} smoke' is {colour}",
            f"in {share:.0%} of clips; hue off by {worded.of(f'{colour} hue', '{:.0f}')}°",
            share,
            0.5,
        )
    for kind in ("smoke", "shadow"):
        for guidance in _GUIDES:
            share = float(np.mean(worded.held.get(f"{kind} more at {guidance:g}", [math.nan])))
            ratio = worded.of(f"{kind} ratio at {guidance:g}", "{:.2f}")
            row(
                f"'more {kind}' changes more than 'less' at guidance {guidance:g}",
                f"in {share:.0%} of clips; energy {ratio} times",
                share,
                0.5,
            )
    said = (
        f"{timed['one_step_s']} s at {timed['width']}x{timed['height']}, {timed['threads']} threads"
    )
    row("25 frames in less than 30 s", said, -float(timed["one_step_s"]), -30.0)
    row("the same seed, the same bits", str(timed["same_bits"]), float(timed["same_bits"]), 1.0)
    return "\n".join(lines)


def page(removed: Figures, added: Figures, worded: Figures, timed: dict, clips_: int) -> str:
    scarce = sum(one < 0.5 for one in removed.held["seen"])
    parts = [
        f"{clips_} clips for each task; of {scarce} of the removals less than half of the hole is "
        "ever seen. Medians, quartiles in brackets.",
        removal_table(removed),
        "Where less than half of the hole is seen: (c) "
        f"{removed.of('base scarce')}, preview {removed.of('model scarce')} dB. Where more is: (c) "
        f"{removed.of('base covered')}, preview {removed.of('model covered')} dB. Steps of the "
        f"error at borders of tokens, against between them: {removed.of('blocks', '{:.2f}')}.",
        targets(removed, added, worded, timed),
        f"All effects: {added.of('model all')} dB, with nothing {added.of('nothing all')}. More "
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
    text = page(done["removal"], done["adding"], done["wording"], timed, args.limit)
    print(text)
    if args.table is not None:
        put(args.table, text)


if __name__ == "__main__":
    main()
