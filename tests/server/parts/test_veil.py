# SPDX-License-Identifier: Apache-2.0
"""parts/veil.py: a sample that something lies over is told from a bare one."""

import cv2
import numpy as np

from gencomp_server.parts import veil


def texture(seed=0):
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.standard_normal((64, 80)).astype(np.float32), (0, 0), 1.2)
    return np.repeat((0.5 + 0.15 * grain / grain.std())[..., None], 3, 2)


def test_smoke_in_most_samples_is_told_by_its_weaker_texture():
    ground = texture()
    stack = np.stack([ground] * 3 + [0.5 * ground + 0.4] * 5).astype(np.float32)
    middle = np.median(stack, axis=0)

    bare = veil.bare_samples(stack, middle)

    inner = np.s_[:, 12:-12, 12:-12]
    assert bare[:3][inner].mean() > 0.99
    assert bare[3:][inner].mean() < 0.01


def test_on_flat_background_no_sample_is_left_out():
    rng = np.random.default_rng(1)
    stack = 0.5 + 0.005 * rng.standard_normal((6, 40, 50, 3)).astype(np.float32)

    bare = veil.bare_samples(stack, np.full((40, 50, 3), 0.5, np.float32))

    assert bare.mean() > 0.7


def test_where_there_is_no_sample_none_is_bare():
    stack = np.repeat(texture()[None], 4, 0).astype(np.float32)
    stack[2, 20:40, 20:40] = np.nan

    bare = veil.bare_samples(stack, texture().astype(np.float32))

    assert not bare[2, 20:40, 20:40].any()


def test_samples_that_repeat_one_another_are_kept_and_those_that_wander_are_not():
    rng = np.random.default_rng(4)
    means = 0.5 + 0.2 * rng.random((10, 1, 1)).astype(np.float32) * np.ones((1, 32, 32), np.float32)
    means[[1, 4, 7]] = 0.4
    tolerance = np.full((32, 32), 0.004, np.float32)

    kept = veil.agreeing_samples(means, np.ones_like(means), tolerance)

    assert kept[[1, 4, 7]].all()
    assert not kept[[0, 2, 3, 5, 6, 8, 9]].any()


def test_a_few_samples_taken_from_afar_outweigh_many_taken_close_by():
    means = np.full((10, 32, 32), 0.2, np.float32)
    means[7:] = 0.5
    trust = np.full((10, 32, 32), 0.1, np.float32)
    trust[7:] = 1.0

    kept = veil.agreeing_samples(means, trust, np.full((32, 32), 0.01, np.float32))

    assert kept[7:].all()
    assert not kept[:7].any()
