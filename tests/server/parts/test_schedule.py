# SPDX-License-Identifier: Apache-2.0
"""The ways through the noise levels, held to diffusers' own schedulers."""

import itertools
import math

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from gencomp_server.parts.schedule import (
    DdimInversion,
    DdimSchedule,
    FlowSchedule,
    signal_levels,
    start_index,
)

# One step in float32, on latents of a few units.
STEP_TOLERANCE = 1e-6
# A whole way in float32: roundings of many steps.
WAY_TOLERANCE = 1e-5
# diffusers makes its tables in float32, by a thousand products one after the other.
FLOAT32_TABLE = 1e-6

COUNTS = (1, 3, 4, 10, 20, 30, 50, 60, 200, 1000)


def stock_ddim(steps, *, exact=True):
    """diffusers' DDIM with the models' configuration; ``exact``: its own table, in float64."""
    made = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
    if exact:
        made.alphas_cumprod = stock_levels()
    made.set_timesteps(steps)
    return made


def stock_levels():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - rescale_zero_terminal_snr(betas), dim=0)


def noise(seed):
    """Latents of a few units. [1,4,4,2,2]."""
    return torch.randn((1, 4, 4, 2, 2), generator=torch.Generator().manual_seed(seed))


# --- DDIM ----------------------------------------------------------------------------------------


def test_the_signal_levels_are_the_published_ones():
    found = torch.tensor(signal_levels(), dtype=torch.float64)
    assert torch.allclose(found, stock_levels(), rtol=0, atol=1e-12)
    made_in_float32 = stock_ddim(4, exact=False).alphas_cumprod.double()
    assert torch.allclose(found, made_in_float32, rtol=0, atol=FLOAT32_TABLE)


def test_no_signal_is_left_at_the_last_timestep():
    assert signal_levels()[-1] == 0.0
    assert signal_levels()[0] == pytest.approx(1 - 0.00085, abs=1e-12)


@pytest.mark.parametrize(
    ("steps", "first", "last"), [(50, (999, 979, 959), 19), (3, (999, 666, 332), 332)]
)
def test_steps_trail(steps, first, last):
    found = DdimSchedule(steps).timesteps
    assert found[:3] == first
    assert found[-1] == last


def test_timesteps_are_diffusers_for_every_number_of_steps():
    stock = stock_ddim(1)
    for steps in range(1, 1001):
        stock.set_timesteps(steps)
        # For some numbers diffusers has one more, at -1, by a rounding of arange.
        assert DdimSchedule(steps).timesteps == tuple(stock.timesteps.tolist())[:steps], steps


@pytest.mark.parametrize("steps", COUNTS)
def test_every_step_is_diffusers_own(steps):
    stock, ours = stock_ddim(steps), DdimSchedule(steps)
    for index in range(0, steps, max(1, steps // 25)):
        latents, prediction = noise(index), noise(index + 5000)
        expected = stock.step(prediction, stock.timesteps[index], latents, eta=0.0).prev_sample
        found = ours.step(prediction, index, latents)
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected.float(), rtol=STEP_TOLERANCE, atol=STEP_TOLERANCE)


@pytest.mark.parametrize("steps", [1, 3, 10, 50])
def test_the_whole_way_is_diffusers_as_it_ships(steps):
    stock, ours = stock_ddim(steps, exact=False), DdimSchedule(steps)
    expected = found = noise(1)
    for index, timestep in enumerate(stock.timesteps):
        expected = stock.step(torch.sin(expected), timestep, expected, eta=0.0).prev_sample
        found = ours.step(torch.sin(found), index, found)
    assert torch.allclose(found, expected, rtol=0, atol=WAY_TOLERANCE)


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_a_model_that_knows_the_picture_arrives_at_it(steps):
    picture, latents = noise(2), noise(3)
    ours, levels = DdimSchedule(steps), signal_levels()
    for index, timestep in enumerate(ours.timesteps):
        signal, dirt = math.sqrt(levels[timestep]), math.sqrt(1 - levels[timestep])
        velocity = signal * (latents - signal * picture) / dirt - dirt * picture
        latents = ours.step(velocity, index, latents)
    assert torch.allclose(latents, picture, rtol=0, atol=WAY_TOLERANCE)


# --- flow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("steps", COUNTS)
def test_the_flow_is_diffusers_own(steps, shift):
    stock, ours = FlowMatchEulerDiscreteScheduler(shift=shift), FlowSchedule(steps, shift)
    stock.set_timesteps(steps)
    assert ours.sigmas == pytest.approx(stock.sigmas.tolist(), abs=STEP_TOLERANCE)
    assert ours.timesteps == pytest.approx(stock.timesteps.tolist(), rel=STEP_TOLERANCE)
    for index in range(0, steps, max(1, steps // 25)):
        latents, prediction = noise(index), noise(index + 5000)
        stock._step_index = index
        expected = stock.step(prediction, stock.timesteps[index], latents).prev_sample
        found = ours.step(prediction, index, latents)
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, rtol=0, atol=STEP_TOLERANCE)


def test_the_flow_runs_from_noise_alone_to_none():
    sigmas = FlowSchedule(50, 5.0).sigmas
    assert sigmas[0] == 1.0
    assert sigmas[-1] == 0.0
    assert all(a > b for a, b in itertools.pairwise(sigmas))


def test_a_flow_that_knows_the_picture_arrives_at_it():
    picture, latents = noise(2), noise(3)
    ours = FlowSchedule(20, 5.0)
    for index, sigma in enumerate(ours.sigmas[:-1]):
        latents = ours.step((latents - picture) / sigma, index, latents)
    assert torch.allclose(latents, picture, rtol=0, atol=WAY_TOLERANCE)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_a_number_of_steps_that_is_none_is_refused(steps):
    with pytest.raises(ValueError, match="1 to 1000 steps"):
        DdimSchedule(steps)
    with pytest.raises(ValueError, match="1 to 1000 steps"):
        FlowSchedule(steps, 5.0)


@pytest.mark.parametrize("shift", [0.0, -1.0, math.nan, math.inf])
def test_a_shift_that_is_not_positive_is_refused(shift):
    with pytest.raises(ValueError, match="positive"):
        FlowSchedule(10, shift)


# --- in the middle, and backwards ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "truncated", "start"),
    [(999, True, 0), (899, True, 5), (579, True, 22), (579, False, 21), (0, True, 49)],
)
def test_a_way_of_fifty_steps_begins_where_a_level_says(level, truncated, start):
    assert start_index(50, level, truncated=truncated) == start


@pytest.mark.parametrize("level", [-1, 1000])
def test_a_level_beyond_the_model_is_refused(level):
    with pytest.raises(ValueError, match="0 to 999"):
        start_index(50, level, truncated=True)


def test_noise_is_added_as_diffusers_adds_it():
    stock, picture, noise = stock_ddim(50), torch.linspace(-2, 2, 9), torch.linspace(3, -1, 9)
    ours = DdimSchedule(50).noised(picture, noise, 7)
    theirs = stock.add_noise(picture, noise, torch.tensor([859]))
    assert float((ours - theirs).abs().max()) <= STEP_TOLERANCE


def test_a_step_back_undoes_a_step_that_was_told_the_same():
    schedule, back = DdimSchedule(50), DdimInversion((19, 39))
    later, said = torch.linspace(-2, 2, 9), torch.linspace(1, -1, 9)
    earlier = schedule.step(said, 48, later)
    # What stands between the two levels, said of the earlier latents instead of the later.
    signal, noise = (math.sqrt(part) for part in (signal_levels()[39], 1 - signal_levels()[39]))
    picture, dirt = signal * later - noise * said, signal * said + noise * later
    signal, noise = (math.sqrt(part) for part in (signal_levels()[19], 1 - signal_levels()[19]))
    again = back.step(signal * dirt - noise * picture, 1, earlier)
    assert float((again - later).abs().max()) <= STEP_TOLERANCE * 4


def test_the_first_step_back_only_scales_the_picture():
    begun = DdimInversion((19, 39)).begin(torch.ones(1))
    assert float(begun) == pytest.approx(math.sqrt(signal_levels()[19]), abs=1e-7)
    with pytest.raises(ValueError, match="first step"):
        DdimInversion((19, 39)).step(torch.ones(1), 0, torch.ones(1))


@pytest.mark.parametrize("timesteps", [(), (39, 19), (19, 19), (-1, 3), (3, 1000)])
def test_timesteps_of_an_inversion_rise_within_the_model(timesteps):
    with pytest.raises(ValueError, match="rise"):
        DdimInversion(timesteps)
