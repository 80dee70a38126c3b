# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from gencomp_server.parts.trimask import EDIT, KEEP
from gencomp_server.training.recipes import RECIPES, Prepared

from .conftest import FRAMES, SIZE

torch = pytest.importorskip("torch")

from gencomp_server.parts.schedule import signal_levels  # noqa: E402
from gencomp_server.training import conditions  # noqa: E402

SHAPE = (FRAMES, SIZE[1], SIZE[0])
OVER, CASPER, GENC, STM = RECIPES.values()


@pytest.fixture(scope="module")
def backbones(tiny_of):
    return {name: tiny_of(name) for name in ("overplusplus", "gencompositor", "splitthenmerge")}


def video(seed, value=None):
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(-1, 1, (*SHAPE, 3)) if value is None else np.full((*SHAPE, 3), value)
    return drawn.astype(np.float32)


def halves(at):
    """Return a matte that covers the left of the picture."""
    matte = np.zeros((*SHAPE, 1), np.float32)
    matte[:, :, :at] = 1
    return matte


def test_noisy_latents_and_v_give_picture_and_noise_back():
    picture, noise = torch.randn(2, 2, 3, 4, 4), torch.randn(2, 2, 3, 4, 4)
    steps = [120, 999]
    latents, v = conditions.noisy(picture, noise, steps)
    for i, step in enumerate(steps):
        level = signal_levels()[step]
        back = level**0.5 * latents[i] - (1 - level) ** 0.5 * v[i]
        assert torch.allclose(back, picture[i], atol=1e-5)
    assert torch.equal(latents[1], noise[1])
    assert torch.equal(v[1], -picture[1])


def test_the_weighted_error_of_the_picture_is_the_error_of_v():
    picture, noise = torch.randn(1, 1, 2, 4, 4).double(), torch.randn(1, 1, 2, 4, 4).double()
    latents, v = conditions.noisy(picture, noise, [400])
    guess = v + 0.1 * torch.randn_like(v)
    level = signal_levels()[400]
    guessed = level**0.5 * latents - (1 - level) ** 0.5 * guess
    weighted = (guessed - picture).square() / (1 - level)
    assert torch.allclose(weighted, (guess - v).square(), atol=1e-9)


def test_the_identity_loss_weighs_subject_and_background_alike_whatever_their_size():
    error = torch.zeros(1, 1, 2, 4, 4)
    subject = torch.zeros(1, 1, 1, 4, 4)
    subject[..., 0, 0] = 1
    error[..., 0, 0] = 8.0
    error[..., 1:, :] = 2.0
    # The subject's mean is 8; the background's is 2 over 12 of its 15 pixels.
    expected = 0.5 * 8 + 0.5 * 2 * 12 / 15
    assert float(conditions.identity_loss(error, subject, 0.5)) == pytest.approx(expected)
    expected = 0.9 * 8 + 0.1 * 2 * 12 / 15
    assert float(conditions.identity_loss(error, subject, 0.9)) == pytest.approx(expected)


def test_the_identity_loss_of_a_clip_with_one_side_is_that_sides():
    error = torch.full((2, 1, 2, 4, 4), 3.0)
    whole = torch.cat([torch.ones(1, 1, 1, 4, 4), torch.zeros(1, 1, 1, 4, 4)])
    assert float(conditions.identity_loss(error, whole, 0.5)) == pytest.approx(3.0)


def test_without_a_subject_the_loss_is_the_mean_square():
    predicted, wanted = torch.zeros(1, 1, 1, 2, 2), torch.tensor([[[[[1.0, 2], [3, 4]]]]])
    assert float(conditions.loss_of(predicted, wanted, None)) == 7.5


def test_over_an_unpaired_clip_every_channel_beside_the_noise_is_zero(backbones):
    prepared = Prepared(video(1), {}, caption="smoke", blank=True)
    made = conditions.example(prepared, OVER, backbones["overplusplus"])
    assert made.condition.shape == (1, 2, 17, 4, 6)
    assert not made.condition.any()
    assert made.picture.abs().max() > 0


def test_a_trimask_and_the_composite_stand_beside_the_noise(backbones):
    trimask = np.full((*SHAPE, 1), KEEP, np.uint8)
    trimask[:, :, :24] = EDIT
    backbone = backbones["overplusplus"]
    prepared = Prepared(video(1), {"known": video(2)}, trimask=trimask)
    made = conditions.example(prepared, OVER, backbone)
    mask = made.condition[0, :, 0]
    assert torch.allclose(mask[:, :, 0], torch.zeros(2, 4))
    assert torch.allclose(mask[:, :, 5], torch.full((2, 4), 0.7))
    assert torch.equal(made.condition[:, :, 1:], backbone.encode(video(2)))


def test_gencompositor_is_given_plate_mask_and_element_in_that_order(backbones):
    backbone = backbones["gencompositor"]
    layers = {"masked": video(2), "fg": video(3)}
    inflated = halves(16)[..., 0] > 0
    made = conditions.example(Prepared(video(1), layers, inflated=inflated), GENC, backbone)
    masked, mask, fg = made.condition.split([16, 1, 16], dim=2)
    assert torch.equal(masked, backbone.encode(video(2)))
    assert torch.equal(fg, backbone.encode(video(3)))
    assert mask[0, :, 0].tolist() == [[[1.0, 1, 0, 0, 0, 0]] * 4] * 2


def test_splitthenmerge_cuts_the_foregrounds_latents_by_its_matte_and_not_the_backgrounds(
    backbones,
):
    backbone = backbones["splitthenmerge"]
    layers = {"fg": video(2), "bg": video(3)}
    prepared = Prepared(video(1), layers, subject=halves(8), shown=halves(16))
    made = conditions.example(prepared, STM, backbone)
    fg, bg = made.condition.split([16, 16], dim=2)
    whole = backbone.encode(video(2))
    assert torch.equal(fg[..., :2], whole[..., :2])
    assert not fg[..., 2:].any()
    assert torch.equal(bg, backbone.encode(video(3)))
    assert made.subject[0, 0, 0].tolist() == [[1.0, 0, 0, 0, 0, 0]] * 4


def test_splitthenmerge_is_trained_on_the_cells_that_a_job_gives_it(backbones):
    backbone = backbones["splitthenmerge"]
    faint, soft = halves(16) * np.float32(0.09), halves(16) * np.float32(0.3)
    layers = {"fg": video(2), "bg": video(3)}
    shown = [
        conditions.example(
            Prepared(video(1), layers, subject=halves(8), shown=one), STM, backbone
        ).condition[:, :, :16]
        for one in (faint, soft)
    ]
    assert not shown[0].any()
    assert torch.equal(shown[1][..., :2], backbone.encode(video(2))[..., :2])


@pytest.mark.parametrize("name", ["overplusplus", "gencompositor", "splitthenmerge"])
def test_a_trainable_predicts_what_the_backbone_predicts_at_two_timesteps_at_once(name, backbones):
    from gencomp_server.models.trainable import Trainable

    backbone = backbones[name]
    channels = backbone.spec.architecture.condition_channels
    rng = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 2, 16, 4, 6, generator=rng)
    condition = torch.rand(2, 2, channels, 4, 6, generator=rng).round()
    text = backbone.text("smoke").repeat(2, 1, 1)
    made = Trainable(backbone)(latents, torch.tensor([100, 700]), text, condition)
    for i, timestep in enumerate((100, 700)):
        one = backbone.predict(latents[i : i + 1], timestep, text[i : i + 1], condition[i : i + 1])
        assert torch.allclose(made[i : i + 1], one, atol=2e-5)


def test_timesteps_are_drawn_over_all_levels():
    drawn = [conditions.draw_timestep(np.random.default_rng(i)) for i in range(3000)]
    assert min(drawn) < 5
    assert max(drawn) > 994
    assert np.mean(drawn) == pytest.approx(499.5, abs=20)


def test_recipes_without_an_identity_loss_have_no_subject(backbones):
    prepared = Prepared(video(1), {"fg": video(2), "bg": video(3)}, subject=halves(8))
    plain = replace(STM, loss="mse")
    assert conditions.example(prepared, plain, backbones["splitthenmerge"]).subject is None
