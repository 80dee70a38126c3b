# SPDX-License-Identifier: Apache-2.0
"""A change on a plate without detail: colours righted, smooth as noise asks, grey where it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp_server.colour.modelrange import decode, encode
from gencomp_server.parts.roundtrip import learn
from gencomp_server.parts.shade import gain_and_light, shade
from gencomp_server.parts.smoothing import smooth

SIZE = (48, 64)


def textured(seed, low=0.2, high=0.6):
    return np.random.default_rng(seed).uniform(low, high, (*SIZE, 3)).astype(np.float32)


def through(code):
    """A VAE that is nothing but a mix of colours."""
    mix = np.float32([[0.95, 0.02, 0], [0.01, 0.97, 0.02], [0, 0.03, 0.94]])
    return code @ mix + np.float32([0.01, 0.02, 0.015])


# --- the VAE -------------------------------------------------------------------------------------


def test_when_a_vae_only_mixes_colours_then_they_are_righted_beyond_the_plates_own_range():
    plate = textured(1)
    learnt = learn(plate, through(plate))
    glow = np.float32([[[0.93, 0.9, 0.8]]])
    assert learnt.righted(through(glow)) == pytest.approx(glow, abs=0.004)
    assert learnt.spread < 1e-3


def test_when_a_plate_has_one_colour_then_no_drift_of_colours_is_made_up():
    plate = np.full((*SIZE, 3), 0.4, np.float32)
    learnt = learn(plate, plate)
    glow = np.float32([[[0.9, 0.5, 0.2]]])
    assert learnt.righted(glow) == pytest.approx(glow, abs=1e-4)


def test_when_what_comes_back_is_another_picture_then_colours_are_left_alone():
    learnt = learn(textured(2), textured(3))
    colour = np.float32([[[0.8, 0.4, 0.2]]])
    assert np.abs(learnt.righted(colour) - colour).max() < 0.3
    assert np.isfinite(learnt.expected).all()


def test_when_everything_is_clipped_then_nothing_is_learnt():
    white = np.ones((*SIZE, 3), np.float32)
    learnt = learn(white, white)
    assert learnt.mix.tolist() == np.eye(3).tolist()
    assert not learnt.error.any()


# --- smoothing -----------------------------------------------------------------------------------


def test_without_noise_an_edge_and_a_texture_stay():
    field = textured(4)
    field[:, 32:] += 0.5
    guide = np.zeros_like(field)
    found, _ = smooth(field, np.full_like(field, 1e-8), guide)
    assert np.abs(found - field).max() < 1e-4


def test_an_even_field_loses_its_noise_and_a_step_of_many_sigma_stays():
    rng = np.random.default_rng(5)
    clean = np.zeros((*SIZE, 3), np.float32)
    clean[:, 32:] = 0.2
    noisy = clean + rng.normal(0, 0.01, clean.shape).astype(np.float32)
    found, left = smooth(noisy, np.full_like(clean, 1e-4), np.zeros_like(clean))
    assert float((found - clean).std()) < 0.003
    assert np.abs(found - clean)[:, [31, 32]].mean() < 0.006
    assert left.max() < 1e-4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), sigma=st.floats(1e-4, 0.05))
def test_smoothing_never_leaves_the_range_of_the_field(seed, sigma):
    field = np.random.default_rng(seed).normal(0, 0.1, (20, 24, 3)).astype(np.float32)
    found, left = smooth(field, np.full_like(field, sigma**2), np.zeros_like(field))
    assert found.min() >= field.min() - 1e-6
    assert found.max() <= field.max() + 1e-6
    assert (left > 0).all()


# --- gain and light ------------------------------------------------------------------------------


def test_no_step_is_a_gain_of_one_and_no_light_exactly():
    gain, light = gain_and_light(np.zeros((5, 3), np.float32))
    assert (gain == 1).all()
    assert not light.any()


def test_a_step_down_is_a_gain_and_a_step_up_is_light():
    ground = encode(np.full((1, 3), 0.18, np.float32))
    step = encode(np.float32([[0.045, 0.18, 2.18]])) - ground
    gain, light = gain_and_light(step)
    assert gain[0] == pytest.approx([0.25, 1, 1], abs=1e-5)
    assert light[0] == pytest.approx([0, 0, 2.0], abs=1e-4)


def noisy_shadow(tint, seed=7):
    """Return the gain found of a shadow on texture, 2 % noise of code, and where it is sure."""
    plate = textured(seed)
    after = encode(decode(plate) * np.float32(tint))
    after = after + np.random.default_rng(seed + 1).normal(0, 0.02, after.shape).astype(np.float32)
    sigma = np.full(3, 0.02, np.float32)
    found = shade(plate, after, learn(plate, plate), sigma, plate)
    return gain_and_light(found.step)[0][8:-8, 8:-8]


def test_where_gains_agree_within_noise_all_channels_have_one():
    gain = noisy_shadow([0.5, 0.5, 0.5])
    assert float(np.median(np.ptp(gain, axis=2))) < 1e-5
    assert float(gain.mean()) == pytest.approx(0.5, abs=0.02)


def test_where_gains_differ_beyond_noise_each_channel_keeps_its_own():
    gain = noisy_shadow([0.7, 0.5, 0.3]).mean(axis=(0, 1))
    assert gain == pytest.approx([0.7, 0.5, 0.3], abs=0.04)


def test_a_pixel_that_holds_parts_of_two_things_is_not_trusted():
    plate = np.full((*SIZE, 3), 0.4, np.float32)
    after = plate.copy()
    after[:, 32:] = 0.8
    found = shade(plate, after, learn(plate, plate), np.full(3, 1e-3, np.float32), plate)
    assert found.trust[24, [31, 32], 0].max() < 0.02
    assert found.trust[24, [10, 50], 0].min() > 0.9
