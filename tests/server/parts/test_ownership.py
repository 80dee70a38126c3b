# SPDX-License-Identifier: Apache-2.0
"""Whose shadow is it: on drawn cases with one right answer, and on procedural shots."""

import numpy as np
import pytest

from gencomp_server.parts.ownership import object_alphas, share_effects, shares_at, split_bodies
from gencomp_server.training.shots import ProceduralShot, ShotSpec

FLOAT = np.float32
FRAMES, SIZE = 24, (192, 320)


def disc(row, col, radius, size=SIZE):
    rows, cols = np.mgrid[: size[0], : size[1]].astype(FLOAT)
    return np.clip(radius - np.hypot(rows - row, cols - col) + 0.5, 0, 1).astype(FLOAT)


def clip(paths, shadows, count=FRAMES):
    """Discs on paths, each with a disc of shadow beside it.

    Returns:
        Union alpha [T,h,w], mattes [T,h,w,N], true density of each shadow [T,h,w,N].
    """
    union, mattes, truth = [], [], []
    for t in range(count):
        bodies = [disc(row, start + speed * t, 10) for row, start, speed in paths]
        shades = [
            0.6 * disc(row + dy, start + speed * t + dx, 9)
            for (row, start, speed), (dy, dx) in zip(paths, shadows, strict=True)
        ]
        union.append(1 - np.prod([1 - x for x in (*bodies, *shades)], axis=0))
        mattes.append(np.stack(bodies, axis=-1))
        truth.append(np.stack([-np.log1p(-s) for s in shades], axis=-1))
    return np.array(union, np.float16), np.array(mattes, np.float16), np.array(truth, FLOAT)


def kept_energy(owned, mattes, truth):
    """Return, per object, the share of its shadow's density that its own layer gets."""
    kept, total = 0.0, 0.0
    for index in range(len(truth)):
        shares = shares_at(owned, index, mattes[index].astype(FLOAT))
        density = truth[index].sum(axis=-1, keepdims=True)
        outside = (mattes[index].max(axis=-1) < 0.01)[..., None]
        kept = kept + (np.minimum(shares * density, truth[index]) * outside).sum(axis=(0, 1))
        total = total + (truth[index] * outside).sum(axis=(0, 1))
    return kept / total


def test_a_shadow_that_touches_one_object_is_that_objects():
    union, mattes, truth = clip([(60, 60, 0), (60, 260, 0)], [(18, 0), (18, 0)])
    owned = share_effects(union, mattes)
    assert (kept_energy(owned, mattes, truth) > 0.999).all()
    assert owned.doubtful_share < 0.001


def test_a_shadow_apart_from_its_object_goes_by_motion():
    # Each shadow starts nearer to the other object. Its rim of one pixel, an eighth of it, may stay
    # in doubt: objects are followed in whole pixels.
    union, mattes, truth = clip([(50, 60, 4), (50, 250, -4)], [(70, 90), (90, -90)])
    owned = share_effects(union, mattes)
    assert (kept_energy(owned, mattes, truth) > 0.85).all()
    core = truth[5] > 0.9
    shares = shares_at(owned, 5, mattes[5].astype(FLOAT))
    assert np.median(shares[core]) > 0.99


def test_crossing_shadows_are_shared_multiplicatively():
    union, mattes, truth = clip([(50, 60, 6), (50, 200, -6)], [(60, 0), (60, 0)])
    owned = share_effects(union, mattes)
    assert (kept_energy(owned, mattes, truth) > 0.95).all()
    meet = 12  # 6 px a frame each, 140 px apart: the shadows overlap in this frame
    overlap = (truth[meet] > 0.5).all(axis=-1)
    shares = shares_at(owned, meet, mattes[meet].astype(FLOAT))
    assert overlap.sum() > 100
    assert shares[overlap] == pytest.approx(0.5, abs=0.15)


def test_objects_that_stand_still_share_by_connection_and_distance():
    union, mattes, truth = clip([(60, 100, 0), (60, 160, 0)], [(20, 6), (20, -6)], count=5)
    owned = share_effects(union, mattes)
    assert (kept_energy(owned, mattes, truth) > 0.95).all()


def test_shares_sum_to_one_everywhere():
    union, mattes, _ = clip([(50, 60, 6), (50, 200, -6)], [(60, 0), (60, 0)], count=9)
    owned = share_effects(union, mattes)
    assert (owned.shares.astype(int).sum(axis=-1) == 255).all()
    for index in (0, 4, 8):
        shares = shares_at(
            owned, index, mattes[index].astype(FLOAT), alpha=union[index].astype(FLOAT)[..., None]
        )
        assert shares.sum(axis=-1) == pytest.approx(1.0, abs=1e-6)


def test_inside_a_matte_the_pixel_is_its_objects():
    union, mattes, _ = clip([(60, 100, 0), (60, 116, 0)], [(18, 0), (18, 0)], count=3)
    owned = share_effects(union, mattes)
    shares = shares_at(owned, 1, mattes[1].astype(FLOAT))
    first, second = mattes[1, ..., 0] == 1, (mattes[1, ..., 1] == 1) & (mattes[1, ..., 0] == 0)
    assert shares[first][:, 0].min() == 1  # the front object, where the two overlap too
    assert shares[second][:, 1].min() == 1


def test_the_artists_roto_decides():
    union, mattes, truth = clip([(60, 60, 0), (60, 260, 0)], [(18, 0), (18, 0)], count=3)
    owned = share_effects(union, mattes)
    roto = (truth[1, ..., :1] > 0).astype(FLOAT)
    shares = shares_at(owned, 1, mattes[1].astype(FLOAT), named={1: roto})
    effect = (roto[..., 0] > 0) & (mattes[1].max(axis=-1) == 0)
    assert shares[effect][:, 1].min() == 1


def test_one_object_owns_everything():
    union, mattes, _ = clip([(60, 60, 0)], [(18, 0)], count=2)
    owned = share_effects(union, mattes)
    assert shares_at(owned, 0, mattes[0].astype(FLOAT)).min() == 1
    assert owned.doubtful_share == 0


def test_shares_do_not_pop_from_frame_to_frame():
    union, mattes, truth = clip([(50, 60, 6), (50, 200, -6)], [(60, 0), (60, 0)])
    owned = share_effects(union, mattes)
    energy = np.array(
        [
            (shares_at(owned, i, mattes[i].astype(FLOAT)) * truth[i].sum(-1, keepdims=True)).sum(
                axis=(0, 1)
            )
            for i in range(FRAMES)
        ]
    )
    steps = np.abs(np.diff(energy, axis=0)) / energy.mean(axis=0)
    assert steps.max() < 0.1


def test_an_object_that_is_out_of_the_picture_for_a_while_is_no_obstacle():
    union, mattes, _ = clip([(60, 60, 6), (60, 250, -2)], [(18, 0), (18, 0)], count=12)
    mattes[5:8, ..., 0] = 0
    owned = share_effects(union, mattes)
    assert (owned.shares.astype(int).sum(axis=-1) == 255).all()


@pytest.mark.parametrize("count", [1, 2])
def test_the_shortest_clips_work(count):
    union, mattes, truth = clip([(60, 60, 0), (60, 260, 0)], [(18, 0), (18, 0)], count=count)
    owned = share_effects(union, mattes)
    assert (kept_energy(owned, mattes, truth) > 0.999).all()


def test_same_clip_same_bits():
    union, mattes, _ = clip([(50, 60, 6), (50, 200, -6)], [(60, 0), (60, 0)], count=9)
    assert share_effects(union, mattes).shares.tobytes() == (
        share_effects(union, mattes).shares.tobytes()
    )


def test_split_alphas_let_through_together_what_the_whole_does():
    rng = np.random.default_rng(0)
    alpha = rng.random((20, 30, 1)).astype(FLOAT)
    shares = rng.random((20, 30, 3)).astype(FLOAT)
    shares /= shares.sum(axis=-1, keepdims=True)
    split = object_alphas(alpha, shares)
    through = np.prod(1 - split.astype(float), axis=-1, keepdims=True)
    assert through == pytest.approx(1 - alpha.astype(float), abs=1e-5)


def test_two_equal_shadows_split_to_equal_alphas():
    split = object_alphas(np.full((1, 1, 1), 0.75, FLOAT), np.full((1, 1, 2), 0.5, FLOAT))
    assert split.ravel() == pytest.approx([0.5, 0.5], abs=1e-6)


def test_an_object_without_a_share_gets_no_alpha_even_where_all_is_opaque():
    split = object_alphas(np.ones((1, 1, 1), FLOAT), FLOAT([[[1.0, 0.0]]]))
    assert split.ravel().tolist() == [1.0, 0.0]


def test_what_is_solid_has_one_owner():
    union, mattes, _ = clip([(50, 60, 6), (50, 200, -6)], [(60, 0), (60, 0)], count=3)
    owned = share_effects(union, mattes)
    owned.shares[1, ..., 0], owned.shares[1, ..., 1] = 170, 85
    none = np.zeros((*SIZE, 2), FLOAT)
    shares = shares_at(owned, 1, none, alpha=np.ones((*SIZE, 1), FLOAT))
    assert shares[..., 0].min() > 0.99


# The share of a figure's shadow that its own layer must get (issue: 95 % where shadows are apart).
PROCEDURAL = {False: 0.99, True: 0.94}


@pytest.mark.parametrize("crossing", [False, True])
def test_a_walking_figures_shadow_is_its_own(crossing):
    shot = ProceduralShot(
        ShotSpec(
            seed=902,
            objects=2,
            crossing_shadows=crossing,
            effects=("shadow",),
            width=320,
            height=192,
            frames=FRAMES,
        )
    )
    union, mattes, truth = [], [], []
    for n in shot.frames:
        layers = [shot.layer(name, n)[..., 3] for name in shot.names]
        union.append(1 - np.prod([1 - a for a in layers], axis=0))
        mattes.append(np.concatenate([shot.matte(name, n, 2) for name in shot.names], axis=-1))
        shades = [shot.effect_layers(name, n)["shadow"][..., 3] for name in shot.names]
        truth.append(np.stack([-np.log1p(-np.minimum(s, 0.999)) for s in shades], axis=-1))
    union, mattes = np.array(union, np.float16), np.array(mattes, np.float16)
    owned = share_effects(union, mattes)
    assert (kept_energy(owned, mattes, np.array(truth)) > PROCEDURAL[crossing]).all()


def test_when_bodies_are_split_then_a_soft_edge_goes_to_the_nearest_matte():
    mattes = np.zeros((1, 9, 2), np.float32)
    mattes[0, :3, 0], mattes[0, 6:, 1] = 1, 1
    body = np.full((1, 9, 1), 0.5, np.float32)
    split = split_bodies(body, mattes)
    assert split[0, :, 0].tolist() == [0.5] * 5 + [0.0] * 4
    assert np.array_equal(split.sum(axis=2, keepdims=True), body)
