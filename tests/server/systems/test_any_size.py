# SPDX-License-Identifier: Apache-2.0
"""Plates of any size, from one pixel too many to more than 8K, and a model that works in tiles.

A painter stands in for the model and halves every code, so that what a pixel must come to is known:
the plate's own bits outside the mask, one level everywhere within it. Pictures go the whole way:
EXR, decoded, fitted, bounded, written and read again.
"""

import cv2
import numpy as np
import OpenImageIO as oiio
import pytest

from gencomp_protocol.frames import FrameRange
from gencomp_server.exr.write import write_layer

LEVEL, GRAIN = 0.25, 1 / 512
TONE = 0.05
"""By what share tiles differ in tone here: group norms see one at a time."""
WIDE = (4097, 65)
LARGE = [
    pytest.param(size, marks=pytest.mark.slow) for size in ((65, 4097), (4096, 2160), (8192, 4321))
]


def darken(plate, classes):
    """Paint half of every code away."""
    return -0.5 * (plate + 1)


@pytest.fixture
def flat(new_job, painter):
    """Return a maker of jobs of one frame: a level plate with grain, a mask right of its middle."""

    def make(size, system="overplusplus", matte="effect_mask"):
        job, _ = new_job(system=system, width=32, height=32, frames=1)
        for name in list(job.entries):
            job.remove(name)
        job.frames, (width, height) = FrameRange(1001, 1001), size
        mask = np.zeros((height, width, 1), np.float16)
        mask[height // 4 : -(height // 4), width // 2 : -(width // 4)] = 1
        grain = np.random.default_rng(1).uniform(-GRAIN, GRAIN, (height, width, 3))
        job.add("plate", 1001, (LEVEL + grain).astype(np.float16))
        job.add(matte, 1001, mask)
        job.backbone = painter(darken) if system == "overplusplus" else None
        return job, mask[..., 0] > 0

    return make


def read_back(made, layer, folder):
    """Write a delivered layer as the engine does and return the file's samples and size."""
    path = folder / "written.exr"
    write_layer(path, made.pictures[layer, 1001])
    file = oiio.ImageInput.open(str(path))
    spec, pixels = file.spec(), file.read_image("half")
    file.close()
    return pixels, (spec.full_width, spec.full_height)


def grown(mask, pixels):
    """Return a mask grown by so many pixels in every direction. [H,W] bool."""
    square = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return cv2.dilate(mask.astype(np.uint8), square) > 0


@pytest.mark.parametrize("size", [WIDE, *LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
def test_when_a_plate_is_odd_or_large_then_it_comes_back_and_the_effect_is_level(
    flat, tmp_path, size
):
    job, mask = flat(size)
    made = job.run(steps=1, mask_grow=4)
    result, shape = read_back(made, "result", tmp_path)
    plate = job.sent["plate", 1001]
    assert shape == size
    model = made.ctx.figures["model_size"]
    said = f"The model worked at {model[0]}x{model[1]}, the plate has {size[0]}x{size[1]}: "
    assert made.ctx.figures["worked_at"].startswith(said)
    box = made.ctx.figures["region"]["box"]
    seen = (box[2] - box[0] + 1) / model[0], (box[3] - box[1] + 1) / model[1]
    outside = ~grown(mask, int(4 * max(seen)) + 1)
    assert outside.mean() > 0.3
    assert (result[..., :3].view(np.uint16) == plate.view(np.uint16))[outside].all()
    within = result[mask][:, :3].astype(np.float32)
    assert within.max() < LEVEL / 3
    assert np.ptp(within) <= 3 * GRAIN


@pytest.mark.slow
@pytest.mark.parametrize("size", [WIDE, (4096, 2160)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_when_a_plate_is_odd_or_large_then_omnimatte_leaves_the_rest_of_it_alone(
    flat, tmp_path, size
):
    job, mask = flat(size, "omnimatte", "matte.a")
    clean = np.full((size[1], size[0], 3), LEVEL, np.float16)
    job.add("clean_plate", 1001, np.where(mask[..., None], np.float16(2 * LEVEL), clean))
    made = job.run()
    found, shape = read_back(made, "clean", tmp_path)
    alpha = made.layer("a")[1001][..., 3]
    plate, free = job.sent["plate", 1001], (alpha == 0) & ~mask
    solved = made.ctx.figures["solved_size"]
    assert shape == size
    assert made.ctx.figures["solved_at"].startswith(f"Alpha was solved at {solved[0]}x{solved[1]},")
    assert max(solved) < max(size)
    assert free.mean() > 0.3
    assert (found[..., :3].view(np.uint16) == plate.view(np.uint16))[free].all()
    assert np.abs(found[mask][:, :3] - 2 * LEVEL).max() < 0.05


def in_tiles(painter, latent_side=6):
    """Return a painter whose VAE decodes in tiles, every second one brighter, as real ones may."""
    from gencomp_server.models.vae import span_weights, spans

    def sides(length):
        tiles = spans(length // 8, latent_side)
        return [
            (slice(one.first * 8, one.last * 8), weight)
            for one, weight in zip(tiles, span_weights(tiles, 8), strict=True)
        ]

    class Tiled(painter):
        def decode(self, latents, progress=None):
            video = super().decode(latents, progress)
            tone = np.zeros(video.shape[1:3], np.float32)
            for i, (rows, down) in enumerate(sides(tone.shape[0])):
                for k, (columns, across) in enumerate(sides(tone.shape[1])):
                    tone[rows, columns] += np.outer(down, across) * TONE * (-1) ** (i + k)
            return (video + 1) * (1 + tone[None, :, :, None]) - 1

    return Tiled


def test_when_the_model_works_in_tiles_of_unlike_tone_then_the_effect_has_no_seam(flat, painter):
    job, mask = flat((640, 384))
    settings = {"steps": 1, "mask_grow": 4, "model_size": "160x96", "region": "whole frame"}
    plain = job.run(**settings).layer("result")[1001]
    job.backbone = in_tiles(painter)(darken, identity="tiled")
    tiled = job.run(**settings).layer("result")[1001]
    plate = job.sent["plate", 1001].astype(np.float32)
    outside = ~grown(mask, 17)
    assert (tiled[..., :3] == plate)[outside].all()
    # What differs from one piece is less than the tiles' own difference, and comes in slowly: where
    # tiles were only put side by side, one step would be all of it.
    changed, off = plate - plain[..., :3], tiled[..., :3].astype(np.float32) - plain[..., :3]
    most = np.abs(off)[mask].max()
    assert 0 < most < TONE * changed[mask].mean()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inner = off[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    steps = [np.abs(np.diff(inner, axis=axis)).max() for axis in (0, 1)]
    assert max(steps) < np.ptp(inner) / 20
