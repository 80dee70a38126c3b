# SPDX-License-Identifier: Apache-2.0
"""What lossless EXR compressions cost and save on what is delivered.

    python benchmarks/bench_codec.py --json out.json [--width 4096 --height 2160]

Three pictures are made: a grainy plate (half RGBA, alpha 1), an effect that fills a seventh of the
frame (half RGBA) and Cryptomatte ids with coverage (float RGBA). Each is written by the OpenEXR
library, as ``exr/write.py`` does, in every compression that it has, and read whole by OpenImageIO,
on one thread a file. Rates are MB of samples a second; with two threads two files at a time, as the
encoder does: there the clock on the wall counts, else the thread's own time, which a busy machine
does not change. All in one run, in turns, the best of ``--repeat``; files go to memory. DWAA, DWAB
and B44 lose bits and are left out, PXR24 of float too; what is not bit-identical is an error.
"""

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import OpenEXR
import OpenImageIO as oiio  # noqa: N813

from gencomp_server.exr.pixels import limit_library

RGBA = ("R", "G", "B", "A")
# ZSTD where the library has it: from 3.5 on.
NAMES = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "HTJ2K256", "HTJ2K32", "ZSTD")
CODECS = {name: f"{name}_COMPRESSION" for name in NAMES if hasattr(OpenEXR, f"{name}_COMPRESSION")}
LOSES_FLOAT = ("PXR24",)
TYPES = {"float16": "half", "float32": "float"}


def pictures(width, height):
    """Return the three pictures by name. [H,W,4] float16 or float32."""
    rng = np.random.default_rng(2026)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    base = 0.5 + 0.3 * np.sin(xs / 130) * np.cos(ys / 90)
    light = np.stack([base, base * 0.8, base * 0.6], axis=-1)
    spread = np.sqrt(0.0004 * light + 0.00001)
    light += spread * rng.standard_normal(light.shape, dtype=np.float32)
    plate = np.concatenate([light, np.ones((height, width, 1), np.float32)], axis=2)
    plate = plate.astype(np.float16)
    effect = np.zeros_like(plate)
    box = (slice(height // 4, height * 5 // 8), slice(width // 4, width * 5 // 8))
    ramp = (np.hypot(xs[box] - xs[box].mean(), ys[box] - ys[box].mean()) / height).clip(0, 1)
    effect[box] = plate[box] * (0.5 * (1.0 - ramp[..., None])).astype(np.float16)
    return {"grainy plate": plate, "effect": effect, "cryptomatte": cryptomatte(height, width, rng)}


def cryptomatte(height, width, rng):
    """Return ids and coverage of round objects, soft at their edges. [H,W,4] float32."""
    ids = np.zeros((height, width, 4), np.float32)
    ids[..., 0], ids[..., 1] = 0.125, 1.0
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(40):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.02, 0.1) * width
        inside = np.clip(size - np.hypot(xs - x, ys - y), 0.0, 1.0)
        touched = inside > 0
        ids[touched, 2:] = ids[touched, :2]
        ids[touched, 3] = 1.0 - inside[touched]
        ids[touched, 0] = rng.integers(1 << 24, 1 << 30, dtype=np.uint32).view(np.float32)
        ids[touched, 1] = inside[touched]
    return ids


def write(path, planes, codec):
    header = {"compression": getattr(OpenEXR, CODECS[codec]), "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, dict(planes)).write(str(path))


def read_back(path, kind):
    file = oiio.ImageInput.open(str(path))
    pixels = file.read_image(0, 0, 0, 4, kind)
    file.close()
    return pixels


def timed(work, threads):
    """Return the seconds that ``work(i)`` takes for each of ``threads`` at a time."""
    if threads == 1:
        started = time.thread_time()
        work(0)
        return time.thread_time() - started
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--height", type=int, default=2160)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=tuple(CODECS), help="compressions to take")
    given = parser.parse_args()
    limit_library()
    made = pictures(given.width, given.height)
    memory = Path("/dev/shm")
    best = {}
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        paths = [Path(folder) / f"{i}.exr" for i in range(2)]
        for _ in range(given.repeat):
            for content, pixels in made.items():
                for codec in given.only:
                    if codec in LOSES_FLOAT and pixels.dtype == np.float32:
                        continue
                    row = measure(pixels, codec, paths)
                    kept = best.setdefault((content, codec), row)
                    for key in ("encode_1", "encode_2", "decode_1"):
                        kept[key] = max(kept[key], row[key])
    rows = [{"content": c, "codec": k, **row} for (c, k), row in best.items()]
    for row in rows:
        print(
            f"| {row['content']} | {row['codec']} | {row['encode_1']:.0f} | {row['encode_2']:.0f} "
            f"| {row['decode_1']:.0f} | {row['ratio']:.2f} |"
        )
    if given.json:
        facts = {"openexr": OpenEXR.__version__, "openimageio": oiio.__version__}
        facts.update(size=[given.width, given.height], rows=rows)
        text = json.dumps(facts, indent=1)
        given.json.write_text(text + "\n", encoding="utf-8")
    return 0


def measure(pixels, codec, paths):
    """Return rates in MB a second, and the ratio of samples to file."""
    kind = TYPES[str(pixels.dtype)]
    planes = {name: np.ascontiguousarray(pixels[..., at]) for at, name in enumerate(RGBA)}
    size = pixels.nbytes / 1e6

    def one(i):
        write(paths[i], planes, codec)

    row = {f"encode_{threads}": threads * size / timed(one, threads) for threads in (1, 2)}
    row["decode_1"] = size / timed(lambda _: read_back(paths[0], kind), 1)
    row["ratio"] = pixels.nbytes / paths[0].stat().st_size
    if read_back(paths[0], kind).tobytes() != pixels.tobytes():
        raise RuntimeError(f"{codec} is not lossless")
    return row


if __name__ == "__main__":
    sys.exit(main())
