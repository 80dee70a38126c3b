# SPDX-License-Identifier: Apache-2.0
"""What the effect layer is worth to a compositor: its alpha, its steadiness, a swapped foreground.

    python benchmarks/bench_effect.py --out build/bench_effect
    python benchmarks/bench_effect.py --seeds 1 --frames 4          (seconds)

Prints tables in Markdown, means over seeds, and writes ``effect.json`` and ``effect.png``.

*alpha* is that of a pure shadow, against ``1 - gain`` of the truth and off the thing that stands on
it: given the true result, and through a model's size with the oracle of ``bench_plate_true.py``.
*flicker* is the mean absolute change of alpha from frame to frame where the truth stands still and
only grain and the oracle's noise move. *three* is the greatest of the three channels' alphas, which
a plain solver would take. *smoke* is brighter than what is behind it: its true alpha against least
and natural. *halo* puts the layers of a split effect around a foreground that was moved, against
the truth of the moved scene: mean error in code of the worst ring of one pixel within 12 pixels of
either contour, and of one layer over all for comparison.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
from plate_true_scenes import Frame, Noise, Scene, reference_and_sample

from gencomp_server.colour.modelrange import ModelRange, encode
from gencomp_server.parts.body import bodies
from gencomp_server.parts.change import Changed, apply_change, find_change, gates, measure_floor
from gencomp_server.parts.effect import effect_frame
from gencomp_server.parts.fit import from_model_frame
from gencomp_server.parts.stack import over, ulp_distance
from gencomp_server.parts.underover import under_over

SIZE, MODEL = (960, 540), (336, 192)
KINDS = {"half": np.float16, "float": np.float32}
NOISES = {
    "no VAE, no noise": Noise(vae=False),
    "VAE": Noise(),
    "VAE, 0.6 % in patches": Noise(drift=0.006),
    "VAE, 1 % white": Noise(white=0.01),
}
PLAIN = ModelRange()
CLEAR_PX, RINGS, HALO = 3, 12, 0.02
SMOKE_LIGHT, SMOKE_SHARE = 0.8, 0.6
SHIFTS, EDGES = (2, 8), {"hard": 0.0, "2 px": 2.0, "8 px": 8.0, "30 px": 30.0}


def three(plate: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Return the least alpha of each pixel as the greatest of three."""
    ratio = result.astype(np.float32) / np.maximum(plate.astype(np.float32), 1e-6)
    return np.clip(1 - ratio.min(axis=2), 0, 1)


def error(alphas: list[np.ndarray], truth: np.ndarray, where: np.ndarray) -> dict[str, float]:
    """Return the figures of alphas [H,W] of a still shot."""
    off = np.abs(np.stack([alpha[where] - truth[where] for alpha in alphas]))
    steps = np.abs(np.diff(np.stack([alpha[where] for alpha in alphas]), axis=0))
    return {
        "mean": float(off.mean()),
        "p99": float(np.quantile(off, 0.99)),
        "max": float(off.max()),
        "within 0.01": float((off <= 0.01).mean()),
        "bias": float(np.mean([(alpha - truth)[where].mean() for alpha in alphas])),
        "flicker": float(steps.mean()) if steps.size else 0.0,
    }


# --- given the true result -----------------------------------------------------------------------


def given_truth(scene: Scene, frames: list[Frame], kind: type) -> dict[str, dict[str, float]]:
    """Solve the layers of a true result."""
    truth = 1 - scene.gain.min(axis=2)
    where = (scene.inside < -CLEAR_PX) & (truth > 1e-3)
    solved, plain, black, worst, moved, seconds = [], [], [], 0, 0, 0.0
    for frame in frames:
        plate, wanted = frame.plate.astype(kind), shadowed(scene, frame, kind)
        index = np.flatnonzero((plate != wanted).any(axis=2))
        colours = wanted.reshape(-1, 3)[index].astype(np.float32)
        start = time.process_time()
        made = effect_frame(plate, index, colours, np.ones(index.size, np.float32))
        seconds += time.process_time() - start
        solved.append(made.effect[..., 3].astype(np.float32))
        plain.append(three(plate, wanted))
        black.append(float((made.effect[..., :3][where] == 0).all(axis=1).mean()))
        again = over(made.effect, plate).astype(kind)
        worst = max(worst, int(ulp_distance(again, made.result[..., :3]).max()))
        moved = max(moved, int(ulp_distance(made.result[..., :3], wanted).max()))
    ours = error(solved, truth, where)
    ours |= {"black": float(np.mean(black)), "worst ulp": worst, "result moved, ulp": moved}
    return {"ours": ours | {"seconds": seconds / len(frames)}, "three": error(plain, truth, where)}


def shadowed(scene: Scene, frame: Frame, kind: type) -> np.ndarray:
    """Return the true result of a plate as it is after rounding: off the thing a pure gain."""
    plate = frame.plate.astype(kind)
    pure = (plate.astype(np.float32) * scene.gain).astype(kind)
    return np.where((scene.inside < -CLEAR_PX)[..., None], pure, frame.truth.astype(kind))


# --- through a model's size ----------------------------------------------------------------------


def carried(
    scene: Scene, frames: list[Frame], noise: Noise
) -> tuple[list[Changed], list[np.ndarray]]:
    """Carry an oracle's change onto every frame; bodies come along, at plate size."""
    pairs = [
        reference_and_sample(frame, MODEL, noise, np.random.default_rng([scene.seed, 9, n]))
        for n, frame in enumerate(frames)
    ]
    reference, sample = (np.stack(of).astype(np.float16) for of in zip(*pairs, strict=True))
    differs = np.abs(encode(frames[0].truth) - encode(frames[0].plate)).max(axis=2) > 0.002
    small = cv2.resize(differs.astype(np.uint8), MODEL, interpolation=cv2.INTER_AREA)
    asked = cv2.dilate(small, np.ones((33, 33), np.uint8)) > 0
    floor = measure_floor((a, b, asked) for a, b in zip(reference, sample, strict=True))
    allowed = np.broadcast_to(asked, reference.shape[:3])
    weights = gates(reference, sample, floor, np.ascontiguousarray(allowed))
    thick = bodies(reference, sample, weights)
    bound = from_model_frame(asked.astype(np.float32), SIZE)[..., None]
    found = []
    for i, frame in enumerate(frames):
        change = find_change(reference[i], sample[i], floor, asked, colour=PLAIN, weight=weights[i])
        plate = frame.plate.astype(np.float16).astype(np.float32)
        nothing = Changed.nothing()
        found.append(
            nothing if change is None else apply_change(plate, change, bound, floor, colour=PLAIN)
        )
    return found, [from_model_frame(one[..., 0].astype(np.float32), SIZE) for one in thick]


def through_model(scene: Scene, frames: list[Frame], noise: Noise) -> dict[str, dict[str, float]]:
    truth = 1 - scene.gain.min(axis=2)
    where = (scene.inside < -CLEAR_PX) & (truth > 1e-3)
    alphas: dict[str, list[np.ndarray]] = {"ours": [], "natural": []}
    found, thick = carried(scene, frames, noise)
    for frame, changed, body in zip(frames, found, thick, strict=True):
        for style, alpha in layers(frame, changed, body).items():
            alphas[style].append(alpha[..., 3])
    return {style: error(of, truth, where) for style, of in alphas.items()}


def layers(frame: Frame, changed: Changed, body: np.ndarray) -> dict[str, np.ndarray]:
    """Return the layer of a frame in both styles, float32."""
    plate = frame.plate.astype(np.float16)
    told = changed.index, changed.colours, changed.weights
    least = effect_frame(plate, *told)
    natural = effect_frame(plate, *told, body=body.reshape(-1)[changed.index])
    return {
        style: made.effect.astype(np.float32)
        for style, made in (("ours", least), ("natural", natural))
    }


# --- smoke ---------------------------------------------------------------------------------------


def smoke(scene: Scene, count: int, noise: Noise) -> tuple[dict, np.ndarray]:
    """Return the figures of drifting smoke, least and natural, and a picture of both."""
    frames, truths = [], []
    x, y, unit = scene.x, scene.y, scene.unit
    for n in range(count):
        centre = scene.size[0] * 0.3 + 6 * unit * n
        cloud = np.exp(
            -(((x - centre) / (190 * unit)) ** 2 + ((y - 500 * unit) / (150 * unit)) ** 2)
        )
        ripple = 0.75 + 0.25 * np.sin(x / (33 * unit) + 0.2 * n) * np.sin(y / (27 * unit))
        alpha = np.where(cloud > 0.03, SMOKE_SHARE * cloud * ripple, 0)[..., None]
        plate = scene.frame(n).plate
        after = (plate * (1 - alpha) + SMOKE_LIGHT * alpha).astype(np.float32)
        frames.append(Frame(plate, after, scene.inside))
        truths.append(alpha[..., 0].astype(np.float32))
    found, thick = carried(scene, frames, noise)
    figures: dict[str, dict[str, float]] = {}
    row: list[np.ndarray] = []
    for style in ("ours", "natural"):
        made = [layers(f, c, b)[style] for f, c, b in zip(frames, found, thick, strict=True)]
        where = truths[0] > 0.02
        off = [np.abs(m[..., 3] - t)[where].mean() for m, t in zip(made, truths, strict=True)]
        drift = np.diff(
            np.stack([m[..., 3] - t for m, t in zip(made, truths, strict=True)]), axis=0
        )
        figures[style] = {
            "mean alpha": float(np.mean([m[..., 3][where].mean() for m in made])),
            "true alpha": float(np.mean([t[where].mean() for t in truths])),
            "error": float(np.mean(off)),
            "flicker": float(np.abs(drift)[:, where].mean()),
        }
        row += [np.repeat(made[0][..., 3:], 3, axis=2), over(made[0], board(SIZE))]
    return figures, shown([frames[0].truth, np.repeat(truths[0][..., None], 3, axis=2), *row])


def board(size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[1], : size[0]] // 24
    return np.repeat(((x + y) % 2 * 0.25 + 0.1)[..., None], 3, axis=2).astype(np.float32)


def shown(pictures: list[np.ndarray]) -> np.ndarray:
    """Return pictures in a row, as bytes."""
    size = (SIZE[0] // 2, SIZE[1] // 2)
    row = np.hstack([cv2.resize(encode(p.astype(np.float32)), size) for p in pictures])
    return (np.clip(row[..., ::-1], 0, 1) * 255).round().astype(np.uint8)


# --- halo of a swapped foreground ----------------------------------------------------------------


def halo(scene: Scene, soft: float, shift: int) -> tuple[dict[str, float], np.ndarray]:
    """Return the figures of a shadow under a foreground that was moved, and a picture of it."""
    bg = scene.frame(0).plate.astype(np.float16)
    unit, (fx, fy) = scene.unit, scene.foot
    spot = ((scene.x - fx - 60 * unit) / (260 * unit)) ** 2 + ((scene.y - fy) / (90 * unit)) ** 2
    gain = (1 - 0.75 * np.exp(-spot))[..., None].astype(np.float32)
    under = bg.astype(np.float32) * gain
    first, moved = (foreground(scene, soft, by) for by in (0, shift))
    plate, truth = (over(first, below).astype(np.float16) for below in (bg, under))
    index = np.flatnonzero((plate != truth).any(axis=2))
    colours = truth.reshape(-1, 3)[index].astype(np.float32)
    made = effect_frame(plate, index, colours, np.ones(index.size, np.float32))
    start = time.process_time()
    split = under_over(
        first, bg, made.result, index, np.dtype(np.float16), locked=True, effect=made.effect
    )
    seconds = time.process_time() - start
    stacked = over(split.over, over(first, over(split.under, bg))).astype(np.float16)
    got = over(split.over, over(moved, over(split.under, bg)))
    wanted = over(moved, under)
    off = np.abs(encode(got) - encode(wanted)).mean(axis=2)
    plain = np.abs(encode(over(made.effect, over(moved, bg))) - encode(wanted)).mean(axis=2)
    figures = {
        "worst ring": worst_ring(off, (first, moved)),
        "worst pixel": float(off.max()),
        "one layer, worst ring": worst_ring(plain, (first, moved)),
        "one layer, worst pixel": float(plain.max()),
        "worst ulp": int(ulp_distance(stacked, made.result[..., :3]).max()),
        "opaque touched": int(split.over[first[..., 3] == 1].any(axis=1).sum()),
        "forced": split.forced,
        "seconds": seconds,
    }
    errors = [np.repeat(8 * x[..., None], 3, axis=2) for x in (plain, off)]
    pictures = [truth, over(split.under, board(SIZE)), got, wanted]
    row = shown([x.astype(np.float32) for x in pictures])
    return figures, np.hstack([row, *[shown([e]) for e in errors]])


def foreground(scene: Scene, soft: float, shift: int) -> np.ndarray:
    """Return the thing, moved to the right. [H,W,4] half, premultiplied."""
    inside = scene._contour(scene.x - shift, scene.y)
    alpha = (inside > 0) if soft == 0 else np.clip(0.5 + inside / soft, 0, 1)
    alpha = alpha.astype(np.float32)[..., None]
    colour = np.roll(scene.thing, shift, axis=1)
    return np.concatenate([colour * alpha, alpha], axis=2).astype(np.float16)


def worst_ring(off: np.ndarray, layers_: tuple[np.ndarray, ...]) -> float:
    worst = 0.0
    for layer in layers_:
        solid = (layer[..., 3] > 0.5).astype(np.uint8)
        for side in (solid, 1 - solid):
            away = cv2.distanceTransform(side, cv2.DIST_L2, 5)
            rings = (off[(away > k) & (away <= k + 1)] for k in range(RINGS))
            worst = max(worst, *(float(ring.mean()) for ring in rings))
    return worst


# --- report --------------------------------------------------------------------------------------


def mean(found: list[dict]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def table(title: str, rows: dict[str, dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| {title} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for label, row in rows.items():
        cells = [f"{row[name]:.4g}" if name in row else "" for name in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def bench(seeds: list[int], count: int) -> tuple[dict, list[np.ndarray]]:
    shots = {}
    for seed in seeds:
        scene = Scene(seed, "shadow", SIZE)
        shots[seed] = scene, [scene.frame(n) for n in range(count)]
    report: dict[str, dict] = {"given the truth": {}, "through the model's size": {}}
    for name, kind in KINDS.items():
        each = [given_truth(*shot, kind) for shot in shots.values()]
        for way in each[0]:
            report["given the truth"][f"{name}, {way}"] = mean([one[way] for one in each])
    for name, noise in NOISES.items():
        each = [through_model(*shot, noise) for shot in shots.values()]
        for way in each[0]:
            report["through the model's size"][f"{name}, {way}"] = mean([o[way] for o in each])
    rows = []
    report["smoke"] = {}
    for name, noise in NOISES.items():
        each = [smoke(shot[0], count, noise) for shot in shots.values()]
        rows.append(each[0][1])
        for way in ("ours", "natural"):
            report["smoke"][f"{name}, {way}"] = mean([one[0][way] for one in each])
    report["halo of a moved foreground"] = {}
    for name, soft in EDGES.items():
        for shift in SHIFTS:
            each = [halo(shot[0], soft, shift) for shot in shots.values()]
            rows.append(each[0][1])
            label = f"edge {name}, moved {shift} px"
            report["halo of a moved foreground"][label] = mean([one[0] for one in each])
    return report, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench_effect"))
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--frames", type=int, default=6, help="of each still shot")
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    figures, rows = bench(seeds, chosen.frames)
    chosen.out.mkdir(parents=True, exist_ok=True)
    report = {"size": SIZE, "model": MODEL, "seeds": seeds, "frames": chosen.frames} | figures
    path = chosen.out / "effect.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    wide = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0))) for row in rows]
    cv2.imwrite(str(chosen.out / "effect.png"), np.vstack(rows))
    print("\n".join(table(title, rows) for title, rows in figures.items()))


if __name__ == "__main__":
    main()
