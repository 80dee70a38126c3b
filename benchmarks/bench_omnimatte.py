# SPDX-License-Identifier: Apache-2.0
"""The whole job against known layers: what `gencomp run omnimatte` delivers, read back and judged.

    python benchmarks/bench_omnimatte.py --out build/bench_omnimatte

Every case is a procedural shot that goes through the command line, an embedded server and EXR
files.  Figures are those of ``bench_alpha.py``, worst of the seeds; with two objects also the share
of each object's separated effect energy that its own layer holds (*own*).  The picture
``retime.png`` offsets one object by some frames and puts the shot together again, with and without
the residual, beside the truth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import OpenImageIO
from bench_alpha import SEEDS, Tally, display, frames_of

from gencomp_server.training.shots import ProceduralShot, ShotSpec, over, write_shot


@dataclass(frozen=True)
class Case:
    """One row: a shot, what it is given besides plate and mattes."""

    title: str
    spec: dict
    clean: bool = True
    knobs: tuple[str, ...] = ()


CASES = (
    Case("one object, exact clean plate", {}),
    Case("one object, clean plate from the shot", {}, clean=False),
    Case("two objects, crossing shadows", {"objects": 2, "crossing_shadows": True}),
    Case("two objects, shadows apart", {"objects": 2}),
)
RETIME_FRAMES = 8


@dataclass(frozen=True)
class Delivered:
    """A layer's frame in the shape that ``bench_alpha`` measures."""

    alpha: np.ndarray
    colour: np.ndarray


def read(path: Path) -> np.ndarray:
    """Return an EXR's pixels. [H,W,C] float32."""
    picture = OpenImageIO.ImageInput.open(str(path))
    if picture is None:
        raise SystemExit(f"{path} cannot be read: {OpenImageIO.geterror()}")
    pixels = picture.read_image("float")
    picture.close()
    return np.asarray(pixels, np.float32)


def run(case: Case, seed: int, folder: Path, frames: int) -> tuple[ProceduralShot, Path]:
    """Write a shot and take it apart; return it and where the layers lie."""
    spec = ShotSpec(**{"seed": seed, "frames": frames, **case.spec})
    shot, material, out = ProceduralShot(spec), folder / "shot", folder / "layers"
    if not (out / "manifest.json").exists():
        write_shot(spec, material)
        inputs = [f"plate={material}/plate/plate.%04d.exr"]
        inputs += [f"matte.{n}={material}/matte_{n}/matte_{n}.%04d.exr" for n in shot.names]
        if case.clean:
            inputs.append(f"clean_plate={material}/clean_plate/clean_plate.%04d.exr")
        words = [word for one in inputs for word in ("--input", one)]
        knobs = ("clean_plate_from=temporal", *case.knobs)
        words += [word for knob in knobs for word in ("--set", knob)]
        command = [sys.executable, "-m", "gencomp_server", "run", "omnimatte", "--out", str(out)]
        subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL)
    return shot, out


def own_energy(shot: ProceduralShot, out: Path, n: int) -> dict[str, tuple[float, float]]:
    """Return per object: effect energy in its own layer and in all layers, where it alone acts."""
    layers = {name: read(out / name / f"{name}.{n:04d}.exr")[..., 3] for name in shot.names}
    truth = {name: shot.layer(name, n)[..., 3] for name in shot.names}
    bodies = np.max([shot.object_layer(name, n)[..., 3] for name in shot.names], axis=0)
    found = {}
    for name in shot.names:
        others = np.max([truth[k] for k in shot.names if k != name], axis=0)
        alone = (truth[name] > 0.02) & (others < 0.005) & (bodies < 0.002)
        own = float(layers[name][alone].sum())
        found[name] = (own, float(sum(layer[alone].sum() for layer in layers.values())))
    return found


def measure(case: Case, seed: int, folder: Path, frames: int) -> dict:
    """Return the figures of one case on one seed."""
    shot, out = run(case, seed, folder, frames)
    other = ProceduralShot(ShotSpec(seed=seed + 1000, frames=frames, effects=()))
    tally, energy = Tally(), {name: np.zeros(2) for name in shot.names}
    if len(shot.names) == 1:
        for truth in frames_of(shot, other, list(shot.frames)):
            layer = read(out / "a" / f"a.{truth.n:04d}.exr")
            tally.add(truth, Delivered(layer[..., 3:], layer[..., :3]), 0.0)
        figures = tally.figures()
        del figures["seconds_per_frame"]
    else:
        for n in shot.frames:
            for name, pair in own_energy(shot, out, n).items():
                energy[name] += pair
        figures = {f"own_{name}": float(own / both) for name, (own, both) in energy.items()}
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    report = manifest["report"]
    figures["max_ulp"] = report["max_ulp"]
    figures["beyond"] = report["pixels_beyond_1_ulp"] + report["uncovered_samples_not_the_plates"]
    figures["raised"] = float(np.mean(report["alpha_raised_share_per_frame"]))
    figures["doubtful"] = report.get("doubtful_effect_share")
    figures["run_s"] = manifest["timings"]["run_s"]
    return figures


def retime(case: Case, seed: int, folder: Path, frames: int, picture: Path) -> None:
    """Draw one object offset in time over the rest: truth, layers, layers plus residual."""
    shot, out = run(case, seed, folder, frames)
    n = shot.frames.first + frames // 2
    late = n - RETIME_FRAMES

    def layer(name: str, at: int) -> np.ndarray:
        return read(out / name / f"{name}.{at:04d}.exr")

    background = layer("background", n)[..., :3]
    ours = over(layer("a", late), over(layer("b", n), background))
    wanted = over(shot.layer("a", late), over(shot.layer("b", n), shot.clean_plate(n)))
    shown = [("plate", shot.plate(n)), ("truth", wanted), ("layers", ours)]
    if (out / "residual").is_dir():
        shown.append(("layers + residual", ours + layer("residual", n)[..., :3]))
    shown.append(("difference to truth x 4", np.abs(display(ours) - display(wanted)) * 4))
    tiles = []
    for title, linear in shown:
        values = np.clip(linear, 0, 1) if title.startswith("difference") else display(linear)
        tile = np.ascontiguousarray((values * 255).astype(np.uint8)[..., ::-1])
        cv2.putText(tile, title, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1)
        tiles.append(tile)
    if len(tiles) % 2:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[i : i + 2]) for i in range(0, len(tiles), 2)]
    cv2.imwrite(str(picture), np.vstack(rows))


def worst(name: str, by_seed: dict) -> float | None:
    values = [figures[name] for figures in by_seed.values() if figures.get(name) is not None]
    if not values:
        return None
    return min(values) if name.startswith(("own_", "new_plate")) else max(values)


def table(results: dict) -> str:
    """Return the results as Markdown, worst of the seeds."""
    names: list[str] = []
    for by_seed in results.values():
        for figures in by_seed.values():
            names += [name for name in figures if name not in names]
    lines = ["| case | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for title, by_seed in results.items():
        cells = [worst(name, by_seed) for name in names]
        lines.append(
            f"| {title} | " + " | ".join("" if c is None else f"{c:.4g}" for c in cells) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench_omnimatte"))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--only", default="", help="cases whose title holds this")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    seeds = [int(word) for word in given.seeds.split(",")]
    results: dict = {}
    for case in (c for c in CASES if given.only in c.title):
        for seed in seeds:
            folder = given.out / case.title.replace(" ", "_").replace(",", "") / str(seed)
            figures = measure(case, seed, folder, given.frames)
            results.setdefault(case.title, {})[seed] = figures
            print(case.title, seed, json.dumps(figures), flush=True)
    print(table(results))
    (given.out / "omnimatte.json").write_text(
        json.dumps({"cases": [asdict(c) for c in CASES], "results": results}, indent=2) + "\n",
        encoding="utf-8",
    )
    if given.only in "retime":
        case = Case("retime", {"objects": 2}, clean=True, knobs=("residual=layer",))
        folder = given.out / "retime" / str(seeds[0])
        retime(case, seeds[0], folder, given.frames, given.out / "retime.png")


if __name__ == "__main__":
    main()
