# SPDX-License-Identifier: Apache-2.0
"""What lossless EXR compressions cost and save on what is delivered.

    python benchmarks/bench_codec.py --json out.json [--width 4096 --height 2160]

Three pictures are made: a grainy plate (half RGBA, alpha 1), an effect that fills a seventh of the
frame (half RGBA) and Cryptomatte ids with coverage (float RGBA). Each is written and read in every
compression by OpenImageIO, on one thread a file, and written by ``exr/scanlines.py`` with each way
to deflate that it has. Rates are MB of samples a second; with two threads two files at a time, as
the encoder does: there the clock on the wall counts, else the thread's own time, which a busy
machine does not change. All in one run, in turns, the best of ``--repeat``; files go to memory.
DWAA, DWAB, B44 and PXR24 lose bits and are left out; what is not bit-identical is an error.
"""

import argparse
import json
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from gencomp_protocol.frames import Box
from gencomp_server.exr import scanlines
from gencomp_server.exr.pixels import limit_library

RGBA = ("R", "G", "B", "A")
LIBRARY = (
    *("none", "rle", "zips:1", "zips:4", "zip:1", "zip:2", "zip:3", "zip:4", "zip:5", "zip:6"),
    *("zip:7", "zip:8", "zip:9", "piz", "htj2k256", "htj2k32"),
)
OURS = {
    "ours, runs only": scanlines.Deflater(1, zlib.Z_RLE),
    "ours, level 1": scanlines.Deflater(1, zlib.Z_DEFAULT_STRATEGY),
    "ours, level 4": scanlines.Deflater(4, zlib.Z_DEFAULT_STRATEGY),
    "ours, huffman only": scanlines.Deflater(1, zlib.Z_HUFFMAN_ONLY),
}
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


def write_by_library(path, pixels, codec):
    height, width, _ = pixels.shape
    spec = oiio.ImageSpec(width, height, 4, TYPES[str(pixels.dtype)])
    spec.channelnames = RGBA
    spec.attribute("compression", codec)
    file = oiio.ImageOutput.create("openexr")
    if not (file.open(str(path), spec) and file.write_image(pixels) and file.close()):
        raise RuntimeError(file.geterror())


def write_by_us(path, pixels, deflater):
    height, width, _ = pixels.shape
    window = Box(0, 0, width - 1, height - 1)
    planes = tuple(scanlines.Plane(name, pixels[..., at]) for at, name in enumerate(RGBA))
    with path.open("wb") as file:
        part = scanlines.Part(planes, window)
        scanlines.write_parts(file, [part], window, 1.0, deflater=deflater)


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
    parser.add_argument("--only", nargs="*", default=(*LIBRARY, *OURS), help="compressions to take")
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
        text = json.dumps({"size": [given.width, given.height], "rows": rows}, indent=1)
        given.json.write_text(text + "\n", encoding="utf-8")
    return 0


def measure(pixels, codec, paths):
    """Return rates in MB a second, and the ratio of samples to file."""
    ours, kind = OURS.get(codec), TYPES[str(pixels.dtype)]

    def write(i):
        if ours is None:
            write_by_library(paths[i], pixels, codec)
        else:
            write_by_us(paths[i], pixels, ours)

    size = pixels.nbytes / 1e6
    row = {f"encode_{threads}": threads * size / timed(write, threads) for threads in (1, 2)}
    row["decode_1"] = size / timed(lambda _: read_back(paths[0], kind), 1)
    row["ratio"] = pixels.nbytes / paths[0].stat().st_size
    if read_back(paths[0], kind).tobytes() != pixels.tobytes():
        raise RuntimeError(f"{codec} is not lossless")
    return row


if __name__ == "__main__":
    sys.exit(main())
