# SPDX-License-Identifier: Apache-2.0
"""How near the temporal clean plate comes to the truth, on procedural shots.

    python benchmarks/bench_cleanplate.py [--json FILE] [--frames N] [--seeds 901,902]

Prints PSNR (encoded range, dB) against the true clean plate, grain included: under the object,
under its effects and elsewhere; noise gain; registration error against the known camera; seconds.
Each shot is run plain and with the artist's clean plate painted at its first frame.
"""

import argparse
import json
import time

import cv2
import numpy as np

from gencomp_server.colour.modelrange import encode
from gencomp_server.parts import cleanplate
from gencomp_server.training.shots import ProceduralShot, ShotSpec


def psnr(got, truth, where):
    """PSNR in the encoded range over some pixels, dB; None where there are none."""
    if not where.any():
        return None
    off = np.clip(encode(got), 0, 1)[where] - np.clip(encode(truth), 0, 1)[where]
    return round(float(-10 * np.log10(max((off.astype(np.float64) ** 2).mean(), 1e-12))), 2)


def regions(shot, n):
    """Return {name: [h,w] bool} of one frame."""
    inside = np.zeros(shot.plate(n).shape[:2], bool)
    around = inside.copy()
    for name in shot.names:
        inside |= shot.object_layer(name, n)[..., 3] > 0.05
        for layer in shot.effect_layers(name, n).values():
            around |= layer[..., 3] > 0.02
    return {"object": inside, "effects": around & ~inside, "elsewhere": ~around & ~inside}


def run(spec, painted_frames):
    """Return the figures of one shot."""
    shot = ProceduralShot(spec)
    frames = tuple(shot.frames)
    plates = {n: shot.plate(n) for n in frames}

    def covered(n):
        mattes = [shot.matte(name, n, grow_px=2)[..., 0] for name in shot.names]
        return np.max(mattes, axis=0) > 0.5

    painted = {n: shot.clean_plate(n) for n in painted_frames}
    start = time.process_time()
    plan = cleanplate.plan_clean_plate(frames, plates.__getitem__, covered, painted=painted)
    planned = time.process_time()
    size = (spec.width, spec.height)
    made = {
        n: cleanplate.gather_frame(
            plan, n, lambda f, a, b: plates[f][a:b], size, lambda f, a, b: painted[f][a:b]
        )
        for n in frames
    }
    gathered = time.process_time()
    figures = {}
    for name in ("object", "effects", "elsewhere"):
        masks = {n: regions(shot, n)[name] for n in frames}
        got = np.concatenate([made[n][masks[n]] for n in frames])
        truth = np.concatenate([shot.clean_plate(n)[masks[n]] for n in frames])
        figures[name] = psnr(got, truth, np.ones(len(got), bool))
    figures["noise_gain"] = noise_gain(made, shot, frames)
    figures["never_seen"] = round(float(plan.never_seen_share.max()), 5)
    figures["error_px"] = round(float(plan.error_px.max()), 3)
    figures["plan_s"] = round(planned - start, 1)
    figures["gather_s"] = round(gathered - planned, 1)
    return figures, made, plan, shot


def noise_gain(made, shot, frames):
    """Return the grain of the result over that of the plate, where nothing happens."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    ratios = []
    for n in frames[:: max(1, len(frames) // 4)]:
        quiet = regions(shot, n)["elsewhere"]
        grain = [
            np.median(np.abs(cv2.filter2D(x.mean(-1), -1, kernel))[quiet])
            for x in (made[n], shot.plate(n))
        ]
        ratios.append(grain[0] / grain[1])
    return round(float(np.mean(ratios)), 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--seeds", default="901")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    table = {}
    for seed in (int(s) for s in arguments.seeds.split(",")):
        for kind, extra in (("standard", {}), ("handheld", {"handheld": True})):
            spec = ShotSpec(seed=seed, frames=arguments.frames, **extra)
            for label, painted in (("", ()), (" +1 painted", (spec.first,))):
                name = f"{kind} {seed}{label}"
                table[name] = run(spec, painted)[0]
                print(name, json.dumps(table[name]), flush=True)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(table, file, indent=1)


if __name__ == "__main__":
    main()
