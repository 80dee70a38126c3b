# SPDX-License-Identifier: Apache-2.0
"""Figures of the papers that show an application, told as what must hold of it here.

A painter stands where the paper has its model: what is shown is what the program makes of it.
"""

import numpy as np
import pytest

from gencomp_server.parts.stack import over, ulp_distance

EDIT, UNKNOWN = 2, 1
FIGURE = np.s_[24:72, 56:88]


def darken_asked(plate, classes):
    """Take half of every code away where the mask asks."""
    import torch

    asked = torch.from_numpy((classes == EDIT).astype(np.float32))[None, :, None]
    return -0.5 * (plate + 1) * asked


def flat_job(job, light, frames):
    """Replace the plate by grey pictures."""
    for n in frames:
        job.add("plate", n, np.full((96, 160, 3), light, np.float16))


@pytest.fixture
def plain(new_job, painter):
    """Return a job on a grey plate whose mask is a box, and a painter that darkens what it asks."""
    job, _ = new_job(system="overplusplus")
    flat_job(job, 0.4, job.frames)
    box = np.zeros((96, 160, 1), np.float16)
    box[32:80, 32:128] = 1
    job.remove("effect_mask")
    job.add("effect_mask", 1001, box, cover="still")
    job.backbone = painter(darken_asked)
    return job


# --- Over++ --------------------------------------------------------------------------------------


def test_overplusplus_figure_1_one_foreground_over_several_backgrounds(new_job, painter):
    job, _ = new_job(system="overplusplus", frames=1)
    job.remove("plate")
    fg = np.zeros((96, 160, 4), np.float16)
    fg[FIGURE] = [0.5, 0.3, 0.2, 1]
    job.add("fg", 1001, fg)
    mask = np.zeros((96, 160, 1), np.float16)
    mask[48:88, 40:120] = 1
    job.add("effect_mask", 1001, mask)
    job.backbone = painter(darken_asked)
    effects = []
    for light in (0.1, 0.4, 3.0):
        bg = np.full((96, 160, 3), light, np.float16)
        job.add("bg", 1001, bg)
        made = job.run(steps=1)
        result, under = made.layer("result")[1001], made.layer("effect_under")[1001]
        assert result[FIGURE][..., :3].tobytes() == fg[FIGURE][..., :3].tobytes()
        again = over(fg, over(under, bg)).astype(np.float16)
        assert int(ulp_distance(again, result[..., :3]).max()) <= 1
        assert result[80, 100, 0] < 0.8 * light
        effects.append(under[80, 100].astype(np.float32))
    # The same foreground, and of every background an effect of its own.
    assert len({tuple(one) for one in effects}) == 3


def test_overplusplus_figure_9_a_mask_over_figure_and_shadow_leaves_the_figure_alone(
    plain, painter
):
    def shadow(plate, classes):
        """Paint below the figure alone, though the mask asks for all of the box."""
        added = darken_asked(plate, classes)
        added[..., :7, :] = 0
        return added

    for n in plain.frames:
        plate = np.full((96, 160, 3), 0.4, np.float16)
        plate[32:56, 64:96] = [0.8, 0.2, 0.1]
        plain.add("plate", n, plate)
    plain.backbone = painter(shadow)
    made = plain.run(steps=1, region="whole frame", model_size="160x96")
    for n in plain.frames:
        result, plate = made.layer("result")[n], plain.sent["plate", n]
        assert result[32:48, 64:96, :3].tobytes() == plate[32:48, 64:96].tobytes()
        assert (result[64:76, 40:120, 0] < 0.3).all()


def test_overplusplus_figure_9_a_spurious_patch_of_the_mask_changes_nothing_by_itself(
    plain, painter
):
    def reflection(plate, classes):
        """Paint where the mask asks, but not in the patch at the left."""
        added = darken_asked(plate, classes)
        added[..., :8] = 0
        return added

    mask = np.zeros((96, 160, 1), np.float16)
    mask[40:72, 96:144] = 1
    mask[8:32, 8:32] = 1  # where no such effect can be
    plain.add("effect_mask", 1001, mask, cover="still")
    plain.backbone = painter(reflection)
    made = plain.run(steps=1, region="whole frame", model_size="160x96")
    for n in plain.frames:
        result, plate = made.layer("result")[n], plain.sent["plate", n]
        assert result[:, :56, :3].tobytes() == plate[:, :56].tobytes()
        assert (result[44:68, 104:136, 0] < 0.3).all()


def test_overplusplus_figure_10_one_key_in_the_middle_is_strongest_and_its_neighbours_have_some(
    new_job, painter
):
    import torch

    def splash(plate, classes):
        """Paint strongly where the mask asks, mildly where the model is left to decide."""
        share = 0.6 * (classes == EDIT) + 0.25 * (classes == UNKNOWN)
        return -(plate + 1) * torch.from_numpy(share.astype(np.float32))[None, :, None]

    job, _ = new_job(system="overplusplus", frames=9)
    flat_job(job, 0.4, job.frames)
    box = np.zeros((96, 160, 1), np.float16)
    box[32:80, 32:128] = 1
    job.remove("effect_mask")
    job.add("effect_mask", 1005, box, cover="stills")
    job.backbone = painter(splash)
    made = job.run(steps=1, mask_frames="keyframes only", keyframes="1005", region="whole frame")
    light = {n: float(made.layer("result")[n][48:64, 64:96, 0].mean()) for n in job.frames}
    # The painter knows one frame in four: 1005 is a latent frame of its own, its neighbours not.
    for n in (1001, 1009):
        assert light[1005] < 0.6 * light[n]
        assert light[n] < 0.38
        plate = job.sent["plate", n]
        assert made.layer("result")[n][:20, :20, :3].tobytes() == plate[:20, :20].tobytes()
    assert made.ctx.figures["annotated_frames"] == "1005"


# --- Generative Omnimatte ------------------------------------------------------------------------


@pytest.fixture
def two_apart(new_job):
    """Return a job's layers, the job and its shot: two figures that do not meet, known clean."""
    job, shot = new_job(objects=2, frames=2, width=320, height=192)
    return job.run(), job, shot


def test_omnimatte_figure_10_an_object_is_retimed_and_the_rest_is_the_plate(two_apart):
    made, job, _ = two_apart
    a, b, background = (made.layer(name) for name in ("a", "b", "background"))
    below = over(b[1001].astype(np.float32), background[1001].astype(np.float32))
    retimed = over(a[1002].astype(np.float32), below)
    untouched = (a[1001] == 0).all(axis=2) & (a[1002] == 0).all(axis=2)
    rounded = retimed.astype(np.float16)[..., :3]
    plate = job.sent["plate", 1001]
    assert untouched.mean() > 0.3
    assert int(ulp_distance(rounded, plate)[untouched].max()) <= 1
    arrived = (a[1002][..., 3] == 1) & (a[1001][..., 3] < 0.5)
    assert arrived.any()
    assert rounded[arrived].tobytes() == job.sent["plate", 1002][arrived].tobytes()


def test_omnimatte_figure_10_an_object_is_removed_and_another_background_put_in(two_apart):
    made, job, _ = two_apart
    a, b = made.layer("a")[1001], made.layer("b")[1001]
    alone = over(b, made.layer("background")[1001][..., :3]).astype(np.float16)
    gone = (b == 0).all(axis=2)
    assert alone[gone].tobytes() == made.layer("background")[1001][..., :3][gone].tobytes()
    green = np.zeros((192, 320, 3), np.float16)
    green[..., 1] = 0.5
    replaced = over(a, over(b, green).astype(np.float16)).astype(np.float16)
    opaque = (a[..., 3] == 1) | ((b[..., 3] == 1) & (a == 0).all(axis=2))
    plate = job.sent["plate", 1001]
    assert opaque.any()
    assert int(ulp_distance(replaced, plate)[opaque].max()) <= 1
    bare = (a == 0).all(axis=2) & gone
    assert replaced[bare].tobytes() == green[bare].tobytes()
