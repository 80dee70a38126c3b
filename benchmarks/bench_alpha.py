# SPDX-License-Identifier: Apache-2.0
"""How close the solved alpha comes to the true one, on procedural shots with known layers.

    python benchmarks/bench_alpha.py --out build/bench_alpha

Prints a table in Markdown (one row per condition, the worst of the seeds) and writes
``alpha.json`` and ``alpha.png`` (the layer over ANOTHER plate, beside the truth there).

Regions: *changed* is where the true layer's alpha is over 0.002; *edge* lies within 4 px of the
contour where the object's own alpha is 0.5; *core* is the opaque object, 2 px from anything else;
*shadow* is shadow alone; *other* is reflection and smoke clear of object and edge; *outside* is
where the true layer's alpha is 0. All are mean absolute errors of alpha. *flicker* is the mean
absolute difference between the change of alpha from frame to frame and the true change, in the
changed region. *new plate* is the PSNR in dB, display domain (gamma 2.2, clipped at 1), changed
region, of the solved layer over another shot's clean plate against the true layer over it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gencomp_server.parts import alpha as solver
from gencomp_server.training.shots import EFFECTS, ProceduralShot, ShotSpec, over

SEEDS = (101, 102, 103, 104, 105)
FIGURES = ("changed", "edge", "core", "shadow", "other", "outside", "flicker")


@dataclass(frozen=True)
class Condition:
    """One row: which effects, how the matte is off, what is wrong with the pictures."""

    title: str
    effects: tuple[str, ...]
    spoil: Callable
    grow: int = 2
    settings: solver.Settings = solver.STANDARD
    most: float = 0.030
    outside: float = 0.0
    least_db: float = 42.0


def exact(plate, clean, rng):
    return plate, clean


def noise(sigma):
    def spoil(plate, clean, rng):
        return plate, clean + sigma * rng.standard_normal(clean.shape, dtype=np.float32)

    return spoil


def drift(plate, clean, rng):
    small = rng.standard_normal((4, 6, 3)).astype(np.float32)
    field = cv2.resize(small, clean.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return plate, clean * (1.0 + 0.01 * field)


def misaligned(plate, clean, rng):
    move = np.float32([[1, 0, 1.0], [0, 1, 0.5]])
    size = clean.shape[1::-1]
    return plate, cv2.warpAffine(clean, move, size, borderMode=cv2.BORDER_REPLICATE)


def blurred(plate, clean, rng):
    return plate, cv2.GaussianBlur(clean, (0, 0), 1.0)


def to_8_bit(linear):
    x = np.clip(linear, 0.0, 1.0)
    srgb = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    code = np.round(srgb * 255.0) / 255.0
    back = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return back.astype(np.float32)


def eight_bit(plate, clean, rng):
    return to_8_bit(plate), to_8_bit(clean)


def eight_bit_clean(plate, clean, rng):
    return plate, to_8_bit(clean)


def everything(plate, clean, rng):
    plate, clean = drift(plate, clean, rng)
    plate, clean = misaligned(plate, clean, rng)
    return noise(0.005)(plate, clean, rng)


GOOD = {"most": 0.040, "outside": 0.003, "least_db": 39.0}
POOR = {"most": 0.065, "outside": 0.010, "least_db": 34.0}
ALONE = {"most": 0.038, "least_db": 38.0}
MATTE = {"most": 0.045, "least_db": 40.0}
CONDITIONS = (
    Condition("exact clean plate", EFFECTS, exact),
    Condition("exact, shadow alone", ("shadow",), exact, **ALONE),
    Condition("exact, reflection alone", ("reflection",), exact, **ALONE),
    Condition("clean plate + noise 0.005", EFFECTS, noise(0.005), **GOOD),
    Condition("clean plate, 1 % drift", EFFECTS, drift, **GOOD),
    Condition("8-bit plate and clean plate", EFFECTS, eight_bit, **GOOD),
    Condition("8-bit clean plate alone", EFFECTS, eight_bit_clean, **GOOD),
    Condition("clean plate + noise 0.02", EFFECTS, noise(0.02), **POOR),
    Condition("clean plate (1, 0.5) px off", EFFECTS, misaligned, **POOR),
    Condition("clean plate blurred, sigma 1", EFFECTS, blurred, **POOR),
    Condition("matte 5 px too small, rough", EFFECTS, exact, -5, solver.ROUGH, **MATTE),
    Condition("matte 5 px too large, rough", EFFECTS, exact, 5, solver.ROUGH, **MATTE),
    Condition(
        "noise 0.005 + drift + 1 px off",
        EFFECTS,
        everything,
        most=0.09,
        outside=0.01,
        least_db=34.0,
    ),
)


def disc(radius):
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def display(linear):
    return np.clip(linear, 0.0, 1.0) ** (1 / 2.2)


@dataclass(frozen=True)
class Truth:
    """One frame of a shot: what is given, what is true, and where to look."""

    n: int
    plate: np.ndarray
    clean: np.ndarray
    layer: np.ndarray
    new_plate: np.ndarray
    regions: dict


def frames_of(shot: ProceduralShot, other: ProceduralShot, frames: list[int]) -> Iterator[Truth]:
    for n in frames:
        layer, body = shot.layer("a", n), shot.object_layer("a", n)[..., 3]
        effects = shot.effect_layers("a", n)
        none = np.zeros_like(body)
        shadow = effects["shadow"][..., 3] if "shadow" in effects else none
        rest = np.max([none, *(e[..., 3] for k, e in effects.items() if k != "shadow")], axis=0)
        half = (body > 0.5).astype(np.uint8)
        edge = (cv2.dilate(half, disc(4)) > 0) & (cv2.erode(half, disc(4)) == 0)
        clear = body < 0.002
        regions = {
            "changed": layer[..., 3] > 0.002,
            "edge": edge,
            "core": cv2.erode((body > 0.995).astype(np.uint8), disc(2)) > 0,
            "shadow": clear & (shadow > 0.002) & (rest < 0.002),
            "other": clear & (rest > 0.002) & ~edge,
            "outside": layer[..., 3] <= 0,
        }
        yield Truth(n, shot.plate(n), shot.clean_plate(n), layer, other.clean_plate(n), regions)


class Tally:
    """Sums of one condition on one seed."""

    def __init__(self) -> None:
        self.sums = dict.fromkeys(FIGURES, 0.0)
        self.counts = dict.fromkeys(FIGURES, 0)
        self.squares, self.samples, self.seconds, self.frames = 0.0, 0, 0.0, 0
        self.before = None

    def add(self, truth: Truth, solved: solver.Solved, seconds: float) -> np.ndarray:
        """Count one frame; return the solved layer over the new plate, display values."""
        alpha, true = solved.alpha[..., 0], truth.layer[..., 3]
        error = np.abs(alpha - true)
        for name, region in truth.regions.items():
            self.sums[name] += float(error[region].sum())
            self.counts[name] += int(region.sum())
        changed = truth.regions["changed"]
        if self.before is not None and self.before[0] == truth.n - 1:
            moved = np.abs((alpha - self.before[1]) - (true - self.before[2]))[changed]
            self.sums["flicker"] += float(moved.sum())
            self.counts["flicker"] += moved.size
        self.before = (truth.n, alpha, true)
        ours = display(solved.colour + (1.0 - solved.alpha) * truth.new_plate)
        wanted = display(over(truth.layer, truth.new_plate))
        self.squares += float(((ours - wanted)[changed] ** 2).sum())
        self.samples += 3 * int(changed.sum())
        self.seconds, self.frames = self.seconds + seconds, self.frames + 1
        return ours

    def figures(self) -> dict[str, float | None]:
        made = {
            name: self.sums[name] / self.counts[name] if self.counts[name] else None
            for name in FIGURES
        }
        made["new_plate_db"] = float(-10 * np.log10(max(self.squares / self.samples, 1e-12)))
        made["seconds_per_frame"] = self.seconds / self.frames
        return made


def solve(truth: Truth, shot: ProceduralShot, condition: Condition, seed: int) -> solver.Solved:
    rng = np.random.default_rng([seed, 77, truth.n])
    plate, clean = condition.spoil(truth.plate, truth.clean, rng)
    grow = condition.grow if seed % 2 else -condition.grow
    if abs(condition.grow) == 5:
        grow = condition.grow
    matte = shot.matte("a", truth.n, grow, 1)
    covered = matte[..., 0] > 0.5
    fit = solver.calibrate(plate, clean, covered)
    mended = solver.condition_frame(plate, clean, covered, fit)
    return solver.solve_frame(plate, mended, matte, fit, condition.settings)


def bench(seeds: tuple[int, ...], frames: list[int], only: str) -> tuple[dict, dict]:
    """Return figures by condition and seed, and one picture row by condition."""
    chosen = [c for c in CONDITIONS if only in c.title]
    results: dict = {c.title: {} for c in chosen}
    pictures: dict = {}
    for seed in seeds:
        other = ProceduralShot(ShotSpec(seed=seed + 1000, effects=()))
        for effects in dict.fromkeys(c.effects for c in chosen):
            shot = ProceduralShot(ShotSpec(seed=seed, effects=effects))
            tallies = {c.title: Tally() for c in chosen if c.effects == effects}
            for truth in frames_of(shot, other, frames):
                for condition in (c for c in chosen if c.title in tallies):
                    start = time.perf_counter()
                    solved = solve(truth, shot, condition, seed)
                    spent = time.perf_counter() - start
                    ours = tallies[condition.title].add(truth, solved, spent)
                    if seed == seeds[0] and truth.n == frames[len(frames) // 2]:
                        pictures[condition.title] = picture_row(
                            condition.title, truth, solved, ours
                        )
            for title, tally in tallies.items():
                results[title][seed] = tally.figures()
    return results, pictures


def picture_row(title: str, truth: Truth, solved: solver.Solved, ours: np.ndarray) -> np.ndarray:
    """Return solved over another plate, the truth there, alpha, true alpha, error x 4."""
    grey = lambda x: np.repeat(np.clip(x, 0, 1)[..., None], 3, axis=2)  # noqa: E731
    alpha, true = solved.alpha[..., 0], truth.layer[..., 3]
    cells = [
        ours,
        display(over(truth.layer, truth.new_plate)),
        grey(alpha),
        grey(true),
        grey(0.5 + 2.0 * (alpha - true)),
    ]
    row = np.hstack([cv2.resize(c.astype(np.float32), None, fx=0.625, fy=0.625) for c in cells])
    row = np.ascontiguousarray((row[..., ::-1] * 255).round().astype(np.uint8))
    cv2.putText(row, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    return row


def worst(by_seed: dict, name: str) -> float | None:
    values = [figures[name] for figures in by_seed.values() if figures[name] is not None]
    if not values:
        return None
    return min(values) if name == "new_plate_db" else max(values)


def table(results: dict) -> str:
    columns = [*FIGURES, "new_plate_db", "seconds_per_frame"]
    lines = ["| condition | " + " | ".join(columns) + " | wanted | met |"]
    lines.append("|---" * (len(columns) + 3) + "|")
    rules = {c.title: c for c in CONDITIONS}
    for title, by_seed in results.items():
        rule, cells = rules[title], []
        for name in columns:
            value = worst(by_seed, name)
            spelt = f"{value:.1f}" if name == "new_plate_db" and value else None
            cells.append("-" if value is None else spelt or f"{value:.4f}")
        met = (
            worst(by_seed, "changed") <= rule.most
            and worst(by_seed, "outside") <= rule.outside
            and worst(by_seed, "new_plate_db") >= rule.least_db
        )
        wanted = f"<= {rule.most:.3f}, outside <= {rule.outside:.3f}, >= {rule.least_db:.0f} dB"
        lines.append(
            f"| {title} | " + " | ".join(cells) + f" | {wanted} | {'yes' if met else 'NO'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench_alpha"))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--frames", default="1001-1024", help="1001-1024, or 1006,1015")
    parser.add_argument("--only", default="", help="conditions whose title holds this text")
    chosen = parser.parse_args()
    if "-" in chosen.frames:
        first, last = map(int, chosen.frames.split("-"))
        frames = list(range(first, last + 1))
    else:
        frames = [int(n) for n in chosen.frames.split(",")]
    cv2.setNumThreads(1)
    seeds = tuple(int(s) for s in chosen.seeds.split(","))
    results, pictures = bench(seeds, frames, chosen.only)
    chosen.out.mkdir(parents=True, exist_ok=True)
    report = {"seeds": seeds, "frames": frames, "figures": results}
    (chosen.out / "alpha.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    cv2.imwrite(str(chosen.out / "alpha.png"), np.vstack(list(pictures.values())))
    print(table(results))


if __name__ == "__main__":
    main()
