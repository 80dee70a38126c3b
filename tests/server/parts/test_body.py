# SPDX-License-Identifier: Apache-2.0
"""The body of smoke: read off how much of the plate's detail comes through."""

import cv2
import numpy as np
import pytest

from gencomp_server.colour.modelrange import encode
from gencomp_server.parts.body import bodies

FRAMES, SHAPE = 5, (64, 80)


def textured():
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.uniform(0, 1, (*SHAPE, 3)).astype(np.float32), (0, 0), 1.5)
    return np.clip((noise - 0.5) * 2 + 0.3, 0.02, None)


def veil(shift=0.0):
    """Return a soft alpha up to 0.6. [64,80,1]."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    return (0.6 * np.exp(-(((x - 38 - shift) / 18) ** 2 + ((y - 32) / 14) ** 2)))[..., None]


def shot(effect, noise=0.0):
    """Return reference, made and weights of a still shot in model range; the effect moves."""
    rng, plate = np.random.default_rng(1), textured()
    made = np.stack(
        [encode(effect(plate, veil(2.0 * t)).astype(np.float32)) for t in range(FRAMES)]
    )
    reference = np.broadcast_to(encode(plate), made.shape)
    weights = np.stack([(veil(2.0 * t) > 0.02) for t in range(FRAMES)]).astype(np.float16)
    grain = rng.normal(0, 1, made.shape) * noise
    return reference * 2 - 1, (made + grain).astype(np.float32) * 2 - 1, weights


def smoke(plate, alpha):
    return plate * (1 - alpha) + 0.8 * alpha


def test_when_smoke_is_brighter_than_the_plate_then_its_body_is_its_alpha():
    got = bodies(*shot(smoke))
    alpha = veil(4.0)
    core = alpha[..., 0] > 0.1
    assert got.dtype == np.float16
    off = np.abs(got[2].astype(np.float32) - alpha)[core]
    assert off.mean() < 0.05
    assert np.quantile(off, 0.95) < 0.12


def test_when_light_is_added_then_it_has_next_to_no_body():
    got = bodies(*shot(lambda plate, alpha: plate + alpha * np.float32([1, 0.7, 0.3])))
    assert got.mean() < 0.01


def test_when_a_shadow_falls_then_the_least_alpha_is_all_it_gets():
    got = bodies(*shot(lambda plate, alpha: plate * (1 - alpha)))
    assert got.max() < 0.05


def test_when_the_plate_has_no_detail_then_nothing_is_read():
    level = np.full((FRAMES, *SHAPE, 3), 0.4, np.float32)
    made = encode(np.full_like(level, 0.6))
    got = bodies(encode(level) * 2 - 1, made * 2 - 1, np.ones((*level.shape[:3], 1), np.float16))
    assert got.max() < 0.01


def test_when_nothing_changed_somewhere_then_there_is_no_body():
    reference, made, weights = shot(smoke)
    weights[:, :, :40] = 0
    weights[3] = 0
    got = bodies(reference, made, weights)
    assert not got[:, :, :40].any()
    assert not got[3].any()
    assert got[2, :, 40:].any()


def test_when_the_model_is_noisy_then_pooled_frames_are_steadier_than_single_ones():
    reference, made, weights = shot(lambda plate, _: smoke(plate, veil()), noise=0.02)
    weights[:] = veil() > 0.1
    pooled = bodies(reference, made, weights).astype(np.float32)
    single = np.concatenate(
        [bodies(*(x[t : t + 1] for x in (reference, made, weights))) for t in range(FRAMES)]
    ).astype(np.float32)
    steps = [np.abs(np.diff(of, axis=0)).mean() for of in (pooled, single)]
    assert steps[0] < 0.5 * steps[1]


@pytest.mark.parametrize("value", [-1.5, 1.5])
def test_when_codes_leave_the_range_then_the_body_is_still_an_alpha(value):
    flat = np.full((1, 16, 16, 3), value, np.float32)
    got = bodies(flat, -flat, np.ones((1, 16, 16, 1), np.float16))
    assert np.isfinite(got).all()
    assert got.min() >= 0
    assert got.max() <= 1
