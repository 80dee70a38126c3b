# SPDX-License-Identifier: Apache-2.0
"""How true to the plate a change is that went through a model's size, against pictures with truth.

    python benchmarks/bench_plate_true.py --out build/bench_plate_true
    python benchmarks/bench_plate_true.py --small --seeds 1 --only glow      (seconds)

The model is an oracle: the true picture at its own size, through a simulated VAE, plus noise. What
``parts/change.py`` makes of it is compared with two deliveries of the same bits: *bicubic*, the
decoded picture resized and its code undone, and *plate*, nothing at all. Prints a table in Markdown
(means over seeds, and the worst) and writes ``plate_true.json`` and ``plate_true.png``.

*gain* is our PSNR less the better baseline's, dB, over the pixels that the truth changes by more
than 0.002 of code; *linear* in scene-linear values with peak 1, *encoded* in code. *edge* is the
same in the band of 4 pixels around the thing's contour, where the effect meets it. *halo* is how
many rings of one pixel, outside and inside that contour, have a mean error over 0.02 of code.
*same* is the share of pixels that the truth leaves alone and that are the plate's bit for bit;
*lost* the share of pixels changed by more than 0.01 that were not touched. *flicker* is the mean
absolute change from frame to frame of the error in code, in the changed region of a still shot,
for ours and for bicubic.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from plate_true_scenes import (
    EFFECTS,
    Frame,
    Noise,
    Scene,
    bicubic,
    reference_and_sample,
)

from gencomp_server.colour.modelrange import ModelRange, encode
from gencomp_server.parts.change import (
    apply_change,
    find_change,
    gates,
    measure_floor,
)

SEEDS = (1, 2, 3, 4, 5)
FULL, SMALL = ((1920, 1080), (672, 384)), ((960, 540), (336, 192))
CONDITIONS = {
    "1 % noise": Noise(white=0.01),
    "1 % noise, no VAE": Noise(white=0.01, vae=False),
    "no noise, VAE": Noise(),
    "1 % noise in patches": Noise(drift=0.01),
}
WANTED = {"shadow": 8.0, "reflection": 8.0, "glow": 5.0, "glow behind": 5.0}
WANTED_AT_EDGES, MOST_HALO = 4.0, 2
BAND_PX, RINGS = 4, 12
CHANGED, SEEN, HALO = 0.002, 0.01, 0.02
PLAIN = ModelRange()


@dataclass(frozen=True)
class Delivered:
    """One frame as three ways deliver it; code [H,W,3] and light [H,W,3] of each."""

    ours: np.ndarray
    bicubic: np.ndarray
    plate: np.ndarray
    seconds: float


def deliver(scene: Scene, frames: list[Frame], size: tuple[int, int], noise: Noise) -> list:
    """Carry the oracle's change onto every frame of a shot."""
    pairs = [
        reference_and_sample(frame, size, noise, np.random.default_rng([scene.seed, 9, n]))
        for n, frame in enumerate(frames)
    ]
    reference, sample = (np.stack(of).astype(np.float16) for of in zip(*pairs, strict=True))
    asked = [_asked(frame, size) for frame in frames]
    floor = measure_floor(zip(reference, sample, asked, strict=True))
    allowed = np.ones(reference.shape[:3], bool)
    weights = gates(reference, sample, floor, allowed)
    made = []
    for i, frame in enumerate(frames):
        start = time.perf_counter()
        result = frame.plate.copy()
        change = find_change(
            reference[i], sample[i], floor, allowed[i], colour=PLAIN, weight=weights[i]
        )
        if change is not None:
            bound = np.ones((*frame.inside.shape, 1), np.float32)
            changed = apply_change(frame.plate, change, bound, floor, colour=PLAIN)
            result.reshape(-1, 3)[changed.index] = changed.colours
        spent = time.perf_counter() - start
        made.append(
            Delivered(result, bicubic(sample[i].astype(np.float32), scene.size), frame.plate, spent)
        )
    return made


def _asked(frame: Frame, size: tuple[int, int]) -> np.ndarray:
    """Return the artist's mask, generous, at model size."""
    differs = np.abs(encode(frame.truth) - encode(frame.plate)).max(axis=2) > CHANGED
    small = cv2.resize(differs.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    return cv2.dilate(small, np.ones((33, 33), np.uint8)) > 0


# --- figures -------------------------------------------------------------------------------------


def psnr(error: np.ndarray) -> float:
    return float(-10 * np.log10(max(float(np.mean(error.astype(np.float64) ** 2)), 1e-12)))


def figures(frames: list[Frame], made: list[Delivered]) -> dict[str, float]:
    """Return the figures of one shot, its first frame's but for flicker."""
    frame, first = frames[0], made[0]
    ways = {"ours": first.ours, "bicubic": first.bicubic, "plate": first.plate}
    truth = encode(frame.truth)
    errors = {way: encode(light) - truth for way, light in ways.items()}
    differs = np.abs(errors["plate"]).max(axis=2)
    changed = differs > CHANGED
    near = cv2.dilate(changed.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    band = (np.abs(frame.inside) <= BAND_PX) & near
    found: dict[str, float] = {}
    for way, light in ways.items():
        found[f"linear {way}"] = psnr((light - frame.truth)[changed])
        found[f"encoded {way}"] = psnr(errors[way][changed])
        found[f"edge linear {way}"] = psnr((light - frame.truth)[band])
        found[f"edge {way}"] = psnr(errors[way][band])
        found[f"halo {way}"] = halo(np.abs(errors[way]).mean(axis=2), frame.inside, near)
    for name in ("linear", "encoded", "edge linear", "edge"):
        best = max(found[f"{name} bicubic"], found[f"{name} plate"])
        found[f"{name} gain"] = found[f"{name} ours"] - best
    same = (first.ours == frame.plate).all(axis=2)
    found["same"] = float(same[frame.truth.max(axis=2) == frame.plate.max(axis=2)].mean())
    found["untouched"] = float(same.mean())
    found["lost"] = float(same[differs > SEEN].mean())
    for way in ("ours", "bicubic"):
        found[f"flicker {way}"] = flicker(frames, [getattr(m, way) for m in made], changed)
    found["seconds"] = float(np.mean([m.seconds for m in made]))
    return found


def halo(error: np.ndarray, inside: np.ndarray, near: np.ndarray) -> int:
    """Return how many rings around the contour show an error, on its worse side."""
    about = cv2.dilate(near.astype(np.uint8), np.ones((2 * RINGS + 1,) * 2, np.uint8)) > 0
    counts = []
    for side in (inside, -inside):
        rings = (error[about & (side > k) & (side <= k + 1)] for k in range(RINGS))
        counts.append(sum(float(ring.mean()) > HALO for ring in rings if ring.size))
    return max(counts)


def flicker(frames: list[Frame], lights: list[np.ndarray], changed: np.ndarray) -> float:
    errors = [
        encode(light[changed]) - encode(frame.truth[changed])
        for frame, light in zip(frames, lights, strict=True)
    ]
    steps = [np.abs(b - a).mean() for a, b in pairwise(errors)]
    return float(np.mean(steps)) if steps else 0.0


def met(effect: str, found: dict[str, float]) -> bool:
    least = min(found["linear gain"], found["encoded gain"])
    edge = min(found["edge linear gain"], found["edge gain"])
    return least >= WANTED[effect] and edge >= WANTED_AT_EDGES and found["halo ours"] <= MOST_HALO


# --- report --------------------------------------------------------------------------------------

COLUMNS = (
    "linear ours",
    "linear gain",
    "encoded gain",
    "edge linear gain",
    "edge gain",
    "halo ours",
    "halo bicubic",
    "same",
    "lost",
    "flicker ours",
    "flicker bicubic",
    "seconds",
)
LOW_IS_GOOD = ("halo", "lost", "flicker", "seconds")


def summed(by_seed: dict) -> dict[str, dict[str, float]]:
    """Return mean and worst of every figure."""
    names = next(iter(by_seed.values()))
    values = {name: [found[name] for found in by_seed.values()] for name in names}
    worst = {n: (max if n.startswith(LOW_IS_GOOD) else min)(v) for n, v in values.items()}
    return {"mean": {n: float(np.mean(v)) for n, v in values.items()}, "worst": worst}


def table(results: dict) -> str:
    lines = ["| noise | effect | | " + " | ".join(COLUMNS) + " | met |"]
    lines.append("|---" * (len(COLUMNS) + 4) + "|")
    for condition, by_effect in results.items():
        for effect, by_seed in by_effect.items():
            for which, found in summed(by_seed).items():
                cells = [f"{found[name]:.4g}" for name in COLUMNS]
                said = "yes" if met(effect, found) else "NO"
                lines.append(f"| {condition} | {effect} | {which} | {' | '.join(cells)} | {said} |")
    return "\n".join(lines)


def picture_row(title: str, frame: Frame, made: Delivered) -> np.ndarray:
    """Return plate, truth, bicubic and ours around the thing, then the last two's errors x 8."""
    spot = frame.inside > 0
    ys, xs = np.flatnonzero(spot.any(axis=1)), np.flatnonzero(spot.any(axis=0))
    tall = int(ys[-1] - ys[0])
    height, width = spot.shape
    y0, x0 = max(0, ys[0] - tall // 4), max(0, int(xs.mean()) - tall // 2)
    window = np.s_[y0 : min(height, y0 + tall * 3 // 2), x0 : min(width, x0 + tall * 3 // 2)]
    truth = encode(frame.truth[window])
    ours, plain = encode(made.ours[window]), encode(made.bicubic[window])
    cells = [encode(frame.plate[window]), truth, plain, ours]
    cells += [0.5 + 4 * (plain - truth), 0.5 + 4 * (ours - truth)]
    row = np.hstack([cv2.resize(cell, (400, 400), interpolation=cv2.INTER_AREA) for cell in cells])
    row = np.ascontiguousarray((np.clip(row[..., ::-1], 0, 1) * 255).round().astype(np.uint8))
    cv2.putText(row, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    return row


def bench(chosen: argparse.Namespace, seeds: tuple[int, ...]) -> tuple[dict, list]:
    size, model = SMALL if chosen.small else FULL
    noises = {k: v for k, v in CONDITIONS.items() if chosen.condition in ("all", k)}
    effects = [e for e in EFFECTS if not chosen.only or e == chosen.only]
    results: dict = {noise: {effect: {} for effect in effects} for noise in noises}
    rows = []
    for effect in effects:
        for seed in seeds:
            scene = Scene(seed, effect, size)
            frames = [scene.frame(n) for n in range(chosen.frames)]
            for title, noise in noises.items():
                made = deliver(scene, frames, model, noise)
                results[title][effect][seed] = figures(frames, made)
                if seed == seeds[0]:
                    rows.append(picture_row(f"{effect}, {title}", frames[0], made[0]))
    return results, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench_plate_true"))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--frames", type=int, default=3, help="of each still shot")
    parser.add_argument("--small", action="store_true", help="960x540 in place of 1920x1080")
    parser.add_argument("--only", default="", choices=("", *EFFECTS))
    parser.add_argument("--condition", default="1 % noise", choices=("all", *CONDITIONS))
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    seeds = tuple(int(seed) for seed in chosen.seeds.split(","))
    results, rows = bench(chosen, seeds)
    chosen.out.mkdir(parents=True, exist_ok=True)
    size, model = SMALL if chosen.small else FULL
    report = {"size": size, "model": model, "seeds": seeds, "frames": chosen.frames}
    report["figures"] = results
    path = chosen.out / "plate_true.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    cv2.imwrite(str(chosen.out / "plate_true.png"), np.vstack(rows))
    print(table(results))


if __name__ == "__main__":
    main()
