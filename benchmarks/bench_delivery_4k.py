# SPDX-License-Identifier: Apache-2.0
"""What delivering an effect on a 4K plate costs: memory over the clip, frames a second, and why.

    python benchmarks/bench_delivery_4k.py --out build/bench_delivery_4k --json out.json

Two parts, each alone with ``--only``:

* ``pieces``: on one thread, in this process, processor seconds a frame of the arithmetic (the
  change brought to plate size, the layers solved) and of the coding (each layer to a file), on
  made-up material; processor seconds, because other work cannot stretch them.
* ``whole``: grainy plates and a moving mask go through ``gencomp run overplusplus`` with the
  ``tiny`` backbone, two steps, an embedded server and EXR files, once for each of ``--frames``.
  Memory is the sum of the proportional set sizes (PSS) over the process tree, sampled; frames a
  second of delivery are counted from the first layer on disk to the last, all layers of a frame
  together: result, effect, difference and matte. Beside it stand the processor seconds that a
  frame takes meanwhile in all processes: on two cores with nothing else to do, a frame takes half
  of that or more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import OpenImageIO as oiio  # noqa: N813
import psutil
from bench_footprint import tree_pss_bytes

from gencomp_protocol.frames import Box
from gencomp_server.colour.modelrange import ModelRange
from gencomp_server.contract import LayerFrame
from gencomp_server.engine.encode import cropped
from gencomp_server.exr.write import write_layer
from gencomp_server.parts.bounds import Reach
from gencomp_server.parts.change import gates, measure_floor
from gencomp_server.parts.finish import Decoded, Judged, finish_frame
from gencomp_server.parts.fit import from_model_frame, to_model_frame
from gencomp_server.parts.grain import Grain
from gencomp_server.parts.grainmeter import measure_grain

FIRST_FRAME = 1001
PLATES = 4  # that differ; the others are these again, moved
GRAIN = 0.01
MODEL_LONG_EDGE = 672
MASK_SHARE = 0.085  # of the frame, before it is grown
SAMPLE_EVERY_S = 0.5
# tiny's pixels are large on such a plate: grown by its usual 16, the mask would be half the frame.
KNOBS = ("backbone=tiny", "steps=2", "prompt=soft shadow", "mask_grow=4")
CHANNELS = ("R", "G", "B", "A")


# --- material ------------------------------------------------------------------------------------


def plate(width: int, height: int, index: int) -> np.ndarray:
    """Return a grainy frame with shapes, highlights and a little below black. [H,W,3] float16."""
    rng = np.random.default_rng(index)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    base = 0.35 + 0.3 * np.sin(xs / 170 + index) * np.cos(ys / 110)
    base += 0.15 * ((np.hypot(xs - width / 2, ys - height / 2) % 260) < 70)
    light = np.stack([base, base * 0.8, base * 0.6], axis=-1)
    light[height // 16 : height // 9, width // 16 : width // 9] = 12.0
    light += GRAIN * rng.standard_normal(light.shape, dtype=np.float32)
    return light.astype(np.float16)


def mask(width: int, height: int, index: int, count: int) -> np.ndarray:
    """Return an ellipse that drifts to the right. [H,W,1] float16."""
    reach = np.sqrt(MASK_SHARE / np.pi)
    x = width * (0.47 + 0.06 * index / max(count - 1, 1))
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    far = np.hypot((xs - x) / (reach * width), (ys - height / 2) / (reach * height))
    return (far < 1)[..., None].astype(np.float16)


def write(path: Path, pixels: np.ndarray, channels: tuple[str, ...]) -> None:
    """Write a picture as half EXR."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], len(channels), "half")
    spec.channelnames = channels
    spec.attribute("compression", "zips:1")
    file = oiio.ImageOutput.create(str(path))
    if not (file.open(str(path), spec) and file.write_image(pixels) and file.close()):
        raise OSError(file.geterror())


def write_shot(folder: Path, width: int, height: int, count: int) -> None:
    """Write plates and masks that are not there yet."""
    made = [plate(width, height, i) for i in range(min(PLATES, count))]
    for i in range(count):
        name = f"{FIRST_FRAME + i}.exr"
        if not (folder / "mask" / name).exists():
            moved = np.roll(made[i % PLATES], (i // PLATES) * 16, axis=1)
            write(folder / "plate" / name, moved, CHANNELS[:3])
            write(folder / "mask" / name, mask(width, height, i, count), CHANNELS[3:])


# --- pieces --------------------------------------------------------------------------------------


def material(width: int, height: int, *, quiet: bool) -> tuple[Judged, np.ndarray, np.ndarray]:
    """Return one frame of a shot as a model might have made it, its plate and its bound."""
    own = plate(width, height, 0)
    size = (MODEL_LONG_EDGE, round(MODEL_LONG_EDGE * height / width))
    colour = ModelRange()
    seen = to_model_frame(own, size)
    where = from_model_frame(to_model_frame(mask(width, height, 0, 1)[..., 0], size), size)
    soft = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 4)[..., None]
    after = seen * (1 - 0.6 * soft) + 0.5 * soft * (where[..., None] > 0) * np.float32(0.3)
    codes = [np.clip(colour.code(light), 0, 1) * 2 - 1 for light in (seen, after)]
    drift = 0 if quiet else 0.03 * np.random.default_rng(1).standard_normal(seen.shape)
    reference, made = codes[0][None], (codes[1] + drift).astype(np.float32)[None]
    grown = cv2.dilate(where, np.ones((33, 33), np.uint8))
    floor = measure_floor([(reference[0], made[0], grown > 0)])
    reach = Reach(grown[None].astype(np.float16), grown[None] > 0)
    weights = gates(reference, made, floor, reach.allowed)
    of = Decoded(reference, made, floor, (1,), Box(0, 0, width - 1, height - 1), colour)
    bound = from_model_frame(grown, (width, height))[..., None]
    return Judged(of, reach, weights), own, bound


def seconds_of(work, repeat: int) -> float:
    """Return the least processor time that a piece of work took."""
    times = []
    for _ in range(repeat):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return round(min(times), 3)


def measured_pieces(width: int, height: int, repeat: int) -> dict:
    """Return seconds a frame of arithmetic and coding, on one thread."""
    cv2.setNumThreads(1)
    figures: dict = {}
    for title, quiet in (("noisy", False), ("quiet", True)):
        judged, own, bound = material(width, height, quiet=quiet)

        def finish(grain: Grain | None = None, judged=judged, own=own, bound=bound):
            given = Judged(judged.of, judged.reach, judged.weights, None, grain)
            return finish_frame(given, 0, own, bound, np.random.default_rng(1))

        found = {"arithmetic_s": seconds_of(finish, repeat)}
        done = finish()
        found["changed_share"] = round(done.layers.touched / (width * height), 4)
        found["model_noise"] = round(float(judged.of.floor.sigma.mean()), 5)
        grain = measure_grain([own.astype(np.float32)])
        found["with_grain_s"] = seconds_of(lambda grain=grain, go=finish: go(grain), repeat)
        found["origin_s"] = seconds_of(lambda done=done: done.origin, repeat)
        found |= coding(done.layers, width, height, repeat)
        figures[title] = found
    return figures


def coding(layers, width: int, height: int, repeat: int) -> dict:
    """Return seconds and MB of every layer's file, written as the encoder does."""
    window, figures = Box(0, 0, width - 1, height - 1), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("result", "effect", "difference", "matte"):
            pixels = getattr(layers, name)
            channels = CHANNELS if pixels.shape[2] == 4 else ("A",)
            frame = LayerFrame(name, 1, pixels, channels, window, window, 1.0, {})
            path = Path(folder) / f"{name}.exr"

            def encode(frame=frame, path=path, name=name):
                write_layer(path, frame if name == "result" else cropped(frame))

            figures[f"{name}_coding_s"] = seconds_of(encode, repeat)
            figures[f"{name}_mb"] = round(path.stat().st_size / 1e6, 2)
    figures["coding_s"] = round(sum(v for k, v in figures.items() if k.endswith("coding_s")), 3)
    return figures


# --- the whole job -------------------------------------------------------------------------------


class Watch:
    """Samples the memory of a process tree, and keeps its peak by what the job was doing."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.doing = "start"
        self.peaks: dict[str, int] = {}
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            try:
                now = tree_pss_bytes(self._root)
            except psutil.NoSuchProcess:
                return
            self.peaks[self.doing] = max(now, self.peaks.get(self.doing, 0))

    def cpu_seconds(self) -> float:
        """Return the processor time that the process and its descendants have taken."""
        total = 0.0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def close(self) -> None:
        """End the sampling."""
        self._ended.set()
        self._thread.join()


def run_whole(shot: Path, out: Path, count: int, knobs: list[str]) -> dict:
    """Run one job and return its figures."""
    command = [sys.executable, "-m", "gencomp_server", "run", "overplusplus", "--json"]
    command += ["--input", f"plate={shot / 'plate'}/####.exr"]
    command += ["--input", f"effect_mask={shot / 'mask'}/####.exr", "--out", str(out)]
    command += ["--frames", f"{FIRST_FRAME}-{FIRST_FRAME + count - 1}"]
    for knob in (*KNOBS, *knobs):
        command += ["--set", knob]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watch, seen, begun = Watch(process.pid), [], {}
    for line in process.stdout:
        event, now = json.loads(line), time.monotonic() - started
        if event["event"] == "progress":
            watch.doing = event["stage"]
            begun.setdefault(event["stage"], now)
        elif event["event"] == "layer":
            seen.append((now, event["layer"], watch.cpu_seconds()))
        elif event["event"] in ("warning", "error"):
            sys.stderr.write(f"{event}\n")
    process.wait()
    watch.close()
    if process.returncode:
        raise SystemExit(f"the job ended with {process.returncode}")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    layers = len({name for _, name, _ in seen})
    delivered = (len(seen) - 1) / layers
    spent, cpu = seen[-1][0] - seen[0][0], seen[-1][2] - seen[0][2]
    files = [path for path in out.rglob("*.exr") if path.is_file()]
    return {
        "frames": count,
        "peak_pss_gb": round(max(watch.peaks.values()) / 1e9, 3),
        "peak_pss_gb_by_stage": {k: round(v / 1e9, 3) for k, v in watch.peaks.items()},
        "stage_began_s": {k: round(v, 1) for k, v in begun.items()},
        "wall_s": round(time.monotonic() - started, 1),
        "last_layer_s": round(seen[-1][0], 1),
        "delivery_frames_a_second": round(delivered / spent, 3),
        "delivery_cpu_s_a_frame": round(cpu / delivered, 3),
        "least_untouched_share": min(find(manifest, "untouched_share_per_frame")),
        "mb_a_frame": round(sum(path.stat().st_size for path in files) / 1e6 / count, 1),
    }


def find(tree, key: str):
    """Return what a nested map holds under a key; None where it has none."""
    if not isinstance(tree, dict):
        return None
    if key in tree:
        return tree[key]
    found = (find(branch, key) for branch in tree.values())
    return next((one for one in found if one is not None), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", choices=("pieces", "whole"))
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--height", type=int, default=2160)
    parser.add_argument("--frames", type=int, nargs="+", default=[22, 85])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="knobs", metavar="KNOB=VALUE")
    given = parser.parse_args()
    figures: dict = {"format": [given.width, given.height], "knobs": given.knobs}
    if given.only != "whole":
        figures["pieces"] = measured_pieces(given.width, given.height, given.repeat)
        sys.stdout.write(json.dumps(figures["pieces"], indent=2) + "\n")
    if given.only != "pieces":
        shot = given.out / f"shot_{given.width}x{given.height}"
        write_shot(shot, given.width, given.height, max(given.frames))
        figures["whole"] = []
        for count in given.frames:
            with tempfile.TemporaryDirectory(dir=given.out) as out:
                figures["whole"].append(run_whole(shot, Path(out) / "job", count, given.knobs))
            sys.stdout.write(json.dumps(figures["whole"][-1], indent=2) + "\n")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
