# SPDX-License-Identifier: Apache-2.0
"""How fast the preview's procedural shots are made, and how hard they are.

    python benchmarks/bench_preview_shots.py [--json FILE] [--batches N] [--sheet FILE]

Clips a second of processor time of one core, all conditions included; then, of the clips that
measure the model, how much of the hole any frame shows and how far plate and classical base are
from the truth in what changes (codes, dB, quartiles). ``--sheet`` draws clips of training instead:
six removals (plate, base, truth, masks), six effects (composite, truth, masks), middle frames.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from gencomp_server.training.preview_curves import grid, write_png
from gencomp_server.training.preview_shots import PreviewBatch, make_batch

SIZES = ((5, 48, 64), (9, 48, 64), (5, 64, 96), (9, 64, 96))
AT_ONCE = 16
CLIPS = Path(__file__).parent / "preview_clips.json"
QUARTILES = torch.tensor([0.25, 0.5, 0.75])


def speed(batches: int) -> list[dict]:
    """Return clips a second of one core's own time for each size, of the best batch and the middle.

    The best is what other work on the machine disturbed least.
    """
    rows = []
    for frames, height, width in SIZES:
        make_batch(0, AT_ONCE, frames, (height, width))
        rates = []
        for seed in range(1, batches + 1):
            start = time.process_time()
            make_batch(seed, AT_ONCE, frames, (height, width))
            rates.append(AT_ONCE / (time.process_time() - start))
        rates.sort()
        rows.append(
            {
                "size": f"{frames}x{height}x{width}",
                "best": round(rates[-1], 1),
                "middle": round(rates[len(rates) // 2], 1),
            }
        )
    return rows


def psnr(batch: PreviewBatch, channels: slice) -> float:
    """Return how near some of the conditions are to the target where anything changes, dB."""
    off = (batch.conditions[..., channels] - batch.target) / 2
    where = batch.changed.expand_as(off)
    return float(-10 * torch.log10(off[where].square().mean().clamp_min(1e-9)))


def hardness() -> dict:
    """Return quartiles over the clips that measure the model."""
    facts = json.loads(CLIPS.read_text(encoding="utf-8"))
    size = (facts["height"], facts["width"])
    seen, rows = [], {"remove plate": [], "remove base": [], "add plate": []}
    for half, scarce in (("scarce", True), ("free", False)):
        for i in range(facts[half]["count"]):
            for task in ("remove", "add"):
                clip = make_batch(
                    facts[half]["first"] + i,
                    1,
                    facts["frames"],
                    size,
                    families=facts["families"],
                    task=task,
                    scarce=scarce,
                )
                rows[f"{task} plate"].append(psnr(clip, slice(0, 3)))
                if task == "remove":
                    rows["remove base"].append(psnr(clip, slice(3, 6)))
                    hole = clip.footprint > 0.5
                    seen.append(float(clip.conditions[..., 9:10][hole].mean()))
    found = {
        name: [round(v, 1) for v in torch.tensor(values).quantile(QUARTILES).tolist()]
        for name, values in rows.items()
    }
    share = [round(v, 2) for v in torch.tensor(seen).quantile(QUARTILES).tolist()]
    return {**found, "hole seen": share, "clips under half": sum(v < 0.5 for v in seen)}


def sheet() -> np.ndarray:
    """Return rows of a picture of clips: [rows, columns, H, W, 3], -1..1."""
    rows = []
    removals, effects = (
        make_batch(seed, 6, 5, (48, 64), task=task) for seed, task in ((5, "remove"), (21, "add"))
    )
    for i in range(6):
        row = []
        for clip, shown in ((removals, (0, 3)), (effects, (0,))):
            given = clip.conditions[i, 2]
            row += [given[..., at : at + 3] for at in shown]
            row += [clip.target[i, 2], given[..., 10:13] * 2 - 1]
        rows.append(torch.stack(row))
    return torch.stack(rows).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--sheet", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.sheet:
        write_png(asked.sheet, grid(sheet(), larger=2))
        return
    found = {"speed": speed(asked.batches), "clips": hardness()}
    for row in found["speed"]:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    for name, value in found["clips"].items():
        print(name, value)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
