# SPDX-License-Identifier: Apache-2.0
"""The CogVideoX family: full-size shapes, loading from folders, what stands beside the noise."""

import json
import logging
import os
import shutil
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5EncoderModel

from gencomp_protocol.errors import BadKnob, Cancelled, WeightsMissing, WeightsRefused
from gencomp_server import models
from gencomp_server.backbones import Architecture, spec_named
from gencomp_server.engine.residency import Residency, Wanted
from gencomp_server.models import cogvideox, tiny
from gencomp_server.models.loading import LoadSettings, build_on_meta
from gencomp_server.parts.trimask import EDIT, KEEP, UNKNOWN

CPU = torch.device("cpu")
TINY = spec_named("tiny")
# The same weights as tiny's, but read from files.
SMALL = replace(
    TINY,
    name="small",
    title="Small",
    weights="small",
    base="small",
    architecture=Architecture(32, 2, 2, 0, patch_t=2),
)
TEXT_ONLY = replace(
    spec_named("cogvideox-5b"), architecture=Architecture(32, 2, 2, 0, condition_channels=0)
)
WITH_IMAGE = replace(
    spec_named("cogvideox-5b-i2v"), architecture=Architecture(32, 2, 2, 0, condition_channels=16)
)


# --- full size, without memory -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [
        ("cogvideox-fun-v1.5-5b-inp", 5_571_094_144, 1024),
        ("cogvideox-fun-v1.1-5b-inp", 5_570_491_968, 1024),
        ("cogvideox-5b", 5_570_283_072, 1024),
        ("cogvideox-5b-i2v", 5_570_479_680, 1025),
    ],
)
def test_a_full_size_transformer_has_the_published_number_of_parameters(name, parameters, tensors):
    made = build_on_meta(lambda: CogVideoXTransformer3DModel(**cogvideox.CONFIGS[name]))
    assert sum(one.numel() for one in made.parameters()) == parameters
    assert len(made.state_dict()) == tensors


def test_the_learned_positions_of_image_to_video_are_there_to_be_loaded():
    config = cogvideox.CONFIGS["cogvideox-5b-i2v"]
    made = build_on_meta(lambda: CogVideoXTransformer3DModel(**config))
    assert made.state_dict()["patch_embed.pos_embedding"].shape == (1, 17776, 3072)


def test_the_full_size_vae_has_the_published_number_of_parameters():
    made = build_on_meta(lambda: AutoencoderKLCogVideoX(**cogvideox.VAE_CONFIG))
    assert round(sum(one.numel() for one in made.parameters()) / 1e6, 2) == 215.58
    assert made.config.scaling_factor == 0.7


def test_the_table_of_backbones_says_what_the_transformers_have():
    for name in ("cogvideox-fun-v1.5-5b-inp", "cogvideox-fun-v1.1-5b-inp"):
        kind, config = spec_named(name).architecture, cogvideox.CONFIGS[name]
        made = build_on_meta(lambda config=config: CogVideoXTransformer3DModel(**config))
        assert kind.parameters == sum(one.numel() for one in made.parameters())
        assert kind.width == config["num_attention_heads"] * config["attention_head_dim"]
        assert (kind.blocks, kind.heads) == (42, 48)
        assert kind.patch_t == (made.config.patch_size_t or 1)
        assert kind.latent_channels + kind.condition_channels == config["in_channels"]


# --- folders on disk -----------------------------------------------------------------------------


def write_model(folder, module, config, name="diffusion_pytorch_model.safetensors", left_out=()):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    state = {key: one for key, one in module.state_dict().items() if key not in left_out}
    save_file(state, folder / name)


def made_of(kind, config, name):
    module = build_on_meta(lambda: kind(**config))
    tiny.fill(module, name, device=CPU, dtype=torch.float32)
    return module


def files_of(folder):
    return {
        "transformer": folder / "transformer",
        "transformer_config": folder / "transformer" / "config.json",
        "vae": folder / "vae",
        "text_encoder": folder / "text_encoder",
        "tokenizer": folder / "tokenizer",
        "scheduler": folder / "scheduler",
    }


SCHEDULER = {
    "_class_name": "CogVideoXDDIMScheduler",
    "prediction_type": "v_prediction",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model's folder as published, at small size; its weights are tiny's."""
    folder = tmp_path_factory.mktemp("base")
    transformer = made_of(CogVideoXTransformer3DModel, tiny.TRANSFORMER, "transformer")
    published = {**tiny.TRANSFORMER, "_class_name": "X", "add_noise_in_inpaint_model": True}
    write_model(folder / "transformer", transformer, published)
    vae = made_of(AutoencoderKLCogVideoX, tiny.VAE, "vae")
    write_model(folder / "vae", vae, {**tiny.VAE, "_diffusers_version": "0"})
    words = tiny.tokenizer()
    words.save_pretrained(folder / "tokenizer")
    config = {"vocab_size": len(words), **tiny.TEXT}
    text = build_on_meta(lambda: T5EncoderModel(T5Config(**config)))
    tiny.fill(text, "text", device=CPU, dtype=torch.float32)
    twin = ("encoder.embed_tokens.weight",)
    write_model(folder / "text_encoder", text, config, "model.safetensors", left_out=twin)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    return folder


@pytest.fixture
def own(base, tmp_path):
    """A copy of the folder, to be spoilt."""
    shutil.copytree(base, tmp_path / "own")
    return tmp_path / "own"


def answer(backbone):
    drawn = np.random.default_rng(1).normal(size=(1, 2, 16, 4, 6)).astype(np.float32)
    mask = np.full((5, 32, 48, 1), EDIT, np.uint8)
    condition = backbone.condition(torch.from_numpy(drawn[:, ::-1].copy()), mask)
    return backbone.predict(torch.from_numpy(drawn), 999, backbone.text("a beach"), condition)


def test_a_folder_as_published_computes_what_its_weights_say(base, tmp_path):
    loaded = models.load(SMALL, files_of(base), cache=tmp_path)
    made = models.load(TINY, None)
    assert torch.equal(answer(loaded), answer(made))
    latents = torch.ones(1, 2, 16, 2, 2)
    assert np.array_equal(loaded.decode(latents), made.decode(latents))
    video = np.full((5, 16, 16, 3), 0.5, np.float32)
    assert torch.equal(loaded.encode(video), made.encode(video))


def test_a_job_is_told_how_far_model_and_text_encoder_are_read_and_a_later_one_is_not(
    base, tmp_path
):
    held, told = Residency(tmp_path), []
    lent = held.lease(Wanted(SMALL), "w", files_of(base), lambda *said: told.append(said))
    lent.schedule(2)
    model = [percent for stage, percent, _ in told if stage == "loading weights"]
    assert (model[0], model[-1], len(model) > 20) == (0, 100, True)
    assert model == sorted(set(model))
    lent.text("a beach")
    encoder = [one for one in told if one[0] != "loading weights"]
    assert (encoder[0], encoder[-1]) == (
        ("loading text encoder", 0, 100),
        ("loading text encoder", 100, 100),
    )
    later = []
    held.lease(Wanted(SMALL), "w", files_of(base), lambda *said: later.append(said)).text("a beach")
    assert later == []


@pytest.mark.fault("F27")
def test_a_job_that_is_cancelled_while_weights_are_read_leaves_nothing_loaded(base, tmp_path):
    held = Residency(tmp_path)

    def tell(stage, percent, total):
        if percent >= 50:
            raise Cancelled("The job was cancelled.")

    with pytest.raises(Cancelled):
        held.lease(Wanted(SMALL), "w", files_of(base), tell).schedule(2)
    assert held.is_empty
    assert held.lease(Wanted(SMALL), "w", files_of(base)).schedule(2).timesteps == (999, 499)


def test_a_flat_file_over_a_base_folder_is_loaded_as_casper_is(base, tmp_path):
    flat = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(base / "transformer" / "diffusion_pytorch_model.safetensors")
    save_file({**weights, "proj_out.bias": weights["proj_out.bias"] + 1}, flat)
    loaded = models.load(SMALL, {**files_of(base), "transformer": flat})
    made = models.load(SMALL, files_of(base))
    assert torch.allclose(answer(loaded), answer(made) + 1, atol=1e-5)
    assert loaded.identity != made.identity


def test_equal_files_have_equal_identities(base, own):
    assert models.load(SMALL, files_of(base)).identity == models.load(SMALL, files_of(own)).identity


def test_another_setting_is_another_identity(base):
    tiled = models.load(SMALL, files_of(base), settings=LoadSettings(tiling=True))
    assert tiled.identity != models.load(SMALL, files_of(base)).identity


def test_the_text_encoder_is_not_touched_before_a_prompt_that_is_not_kept(base, tmp_path):
    models.load(SMALL, files_of(base), cache=tmp_path).text("a beach")
    loaded = models.load(SMALL, files_of(base), cache=tmp_path)
    loaded.text("a beach")
    assert loaded._prompts.loads == 0
    loaded.text("another beach")
    assert loaded._prompts.loads == 1


def test_the_text_encoder_is_dropped_as_soon_as_something_else_runs(base):
    loaded = models.load(SMALL, files_of(base))
    answer(loaded)
    assert loaded._prompts._encoder is None


def test_loading_and_a_prompt_open_no_connection(base, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    loaded = models.load(SMALL, files_of(base))
    assert loaded.text("a beach").shape == (1, 226, 32)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_configuration_of_another_model_is_refused(own):
    place = own / "transformer" / "config.json"
    place.write_text(json.dumps({**tiny.TRANSFORMER, "in_channels": 48}))
    with pytest.raises(WeightsRefused, match="in_channels is 48 where 33 is needed"):
        models.load(SMALL, files_of(own))


def test_a_configuration_without_pairs_of_latent_frames_is_refused_for_version_1_5(own):
    place = own / "transformer" / "config.json"
    place.write_text(json.dumps({**tiny.TRANSFORMER, "patch_size_t": None}))
    with pytest.raises(WeightsRefused, match="patch_size_t is None where 2 is needed"):
        models.load(SMALL, files_of(own))


def test_weights_of_another_model_in_the_folder_are_refused(own):
    file = own / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file({**weights, "patch_embed.proj.weight": torch.zeros(32, 33, 2, 2)}, file)
    with pytest.raises(WeightsRefused) as caught:
        models.load(SMALL, files_of(own))
    assert "do not fit Small, 'patch_embed.proj.weight' is 32x33x2x2" in caught.value.message


def test_a_vae_of_another_kind_is_refused(own):
    place = own / "vae" / "config.json"
    place.write_text(json.dumps({**tiny.VAE, "latent_channels": 4}))
    with pytest.raises(WeightsRefused, match="is not that of the VAE of Small"):
        models.load(SMALL, files_of(own))


def test_a_scheduler_that_the_sampler_does_not_follow_is_refused(own):
    place = own / "scheduler" / "scheduler_config.json"
    place.write_text(json.dumps({**SCHEDULER, "snr_shift_scale": 3.0}))
    with pytest.raises(WeightsRefused, match=r"snr_shift_scale is 3\.0 where 1\.0 is needed"):
        models.load(SMALL, files_of(own))


def test_a_role_that_nobody_named_is_missing(base):
    files = {k: v for k, v in files_of(base).items() if k != "text_encoder"}
    with pytest.raises(WeightsMissing, match="take as its text encoder"):
        models.load(SMALL, files)


def test_loading_is_said_in_the_log(base, caplog):
    with caplog.at_level(logging.INFO):
        models.load(SMALL, files_of(base))
    assert "Small is loaded on cpu" in caplog.text


# --- what stands beside the noise ----------------------------------------------------------------


def test_an_inpainting_model_is_given_the_mask_and_then_the_plate():
    backbone = models.load(TINY, None)
    plate = torch.full((1, 2, 16, 4, 6), 3.0)
    mask = np.full((5, 32, 48, 1), KEEP, np.uint8)
    mask[1:] = EDIT
    made = backbone.condition(plate, mask)
    assert made.shape == (1, 2, 17, 4, 6)
    # Casper's numbers: keep is 1, edit is 0, times the VAE's 0.7.
    assert torch.equal(made[:, 0, 0], torch.full((1, 4, 6), 0.7))
    assert torch.equal(made[:, 1, 0], torch.zeros(1, 4, 6))
    assert torch.equal(made[:, :, 1:], plate)


def test_grey_is_what_lies_between():
    backbone = models.load(TINY, None)
    mask = np.full((5, 32, 48, 1), UNKNOWN, np.uint8)
    made = backbone.condition(torch.zeros(1, 2, 16, 4, 6), mask)
    assert made[:, :, 0].unique().tolist() == pytest.approx([0.7 * 128 / 255])


def other_model(base, tmp_path, spec, **changes):
    """Write and load a small model of another kind over the same base."""
    config = {**tiny.TRANSFORMER, "patch_size_t": None, "patch_bias": True, **changes}
    transformer = made_of(CogVideoXTransformer3DModel, config, "transformer")
    write_model(tmp_path / "transformer", transformer, config)
    files = {**files_of(base), "transformer": tmp_path / "transformer"}
    files["transformer_config"] = tmp_path / "transformer" / "config.json"
    return models.load(spec, files)


def test_text_to_video_takes_noise_alone_in_any_number_of_frames(base, tmp_path):
    backbone = other_model(base, tmp_path, TEXT_ONLY, in_channels=16)
    noise = torch.ones(1, 3, 16, 4, 6)
    condition = backbone.condition(noise, np.zeros((9, 32, 48, 1), np.uint8))
    assert condition.shape == (1, 3, 0, 4, 6)
    assert backbone.predict(noise, 999, backbone.text("x"), condition).shape == noise.shape


def image_model(base, tmp_path):
    return other_model(
        base,
        tmp_path,
        WITH_IMAGE,
        in_channels=32,
        use_learned_positional_embeddings=True,
        sample_height=4,
        sample_width=6,
        sample_frames=9,
    )


def test_image_to_video_is_given_the_first_latent_frame_and_nothing_behind_it(base, tmp_path):
    backbone = image_model(base, tmp_path)
    latents = torch.full((1, 3, 16, 4, 6), 2.0)
    condition = backbone.condition(latents, np.zeros((9, 32, 48, 1), np.uint8))
    assert condition.shape == (1, 3, 16, 4, 6)
    assert condition[:, 0].unique().tolist() == [2.0]
    assert condition[:, 1:].unique().tolist() == [0.0]
    assert backbone.predict(latents, 999, backbone.text("x"), condition).shape == latents.shape


def test_image_to_video_works_at_one_size(base, tmp_path):
    backbone = image_model(base, tmp_path)
    latents = torch.zeros(1, 3, 16, 4, 4)
    with pytest.raises(BadKnob, match="works at 48x32 only, not at 32x32"):
        backbone.predict(latents, 999, backbone.text("x"), latents)


def test_weights_of_text_to_video_are_no_inpainting_model(base, tmp_path):
    other_model(base, tmp_path, TEXT_ONLY, in_channels=16)
    files = {**files_of(base), "transformer": tmp_path / "transformer"}
    with pytest.raises(WeightsRefused, match=r"'patch_embed\.proj\.weight' is 32x16x2x2"):
        models.load(SMALL, files)


# --- positions -----------------------------------------------------------------------------------


def angles(spec_base, frames, height, width):
    config = build_on_meta(
        lambda: CogVideoXTransformer3DModel(**cogvideox.CONFIGS[spec_base])
    ).config
    cosines, sines = cogvideox.rotary_positions(config, frames, height, width)
    return torch.atan2(sines.double(), cosines.double())


def test_positions_are_whole_numbers_where_latent_frames_come_in_pairs():
    found = angles("cogvideox-fun-v1.5-5b-inp", 4, 8, 4).reshape(2, 4, 2, 64)
    # The first of each axis' frequencies is 1 radian a step: time 16 wide, rows 24, columns 24.
    assert found[:, 0, 0, 0].tolist() == pytest.approx([0, 1])
    assert found[0, :, 0, 16].tolist() == pytest.approx([0, 1, 2, 3])
    assert found[0, 0, :, 40].tolist() == pytest.approx([0, 1])


def test_positions_fill_the_grid_trained_at_where_they_do_not():
    # 720x480 is 60 by 90 latent pixels, 30 by 45 tokens: the grid itself.
    found = angles("cogvideox-fun-v1.1-5b-inp", 2, 60, 90).reshape(2, 30, 45, 64)
    lowest = 10000 ** (-22 / 24)
    assert (found[0, :, 0, 38] / lowest).tolist() == pytest.approx(list(range(30)), abs=1e-3)
    assert (found[0, 0, :, 62] / lowest).tolist() == pytest.approx(list(range(45)), abs=1e-3)


def test_another_shape_is_centred_in_the_grid():
    # 32 by 32 latent pixels, 16 by 16 tokens: 30 by 30 of the grid, from column 8 on.
    found = angles("cogvideox-fun-v1.1-5b-inp", 1, 32, 32).reshape(16, 16, 64)
    lowest = 10000 ** (-22 / 24)
    wanted = [8 + i * 30 / 16 for i in range(16)]
    assert (found[0, :, 62] / lowest).tolist() == pytest.approx(wanted, abs=1e-3)


# --- taking turns on a device --------------------------------------------------------------------


class Standing:
    """A module that says where it is."""

    def __init__(self, place="cpu"):
        self.device = torch.device(place)
        self.moves = []

    def parameters(self):
        yield self

    def to(self, place):
        self.device = torch.device(place)
        self.moves.append(self.device.type)


class Words:
    """Prompts that say whether their encoder is loaded."""

    loaded = True

    def release(self):
        self.loaded = False


def sharing(offload, places="cuda"):
    transformer, vae = Standing(places), Standing("cpu")
    backbone = cogvideox.CogVideoXBackbone(
        TINY,
        transformer,
        vae,
        Words(),
        identity="turns",
        device="cuda",
        settings=LoadSettings(offload=offload),
    )
    return backbone, transformer, vae


def test_transformer_and_vae_take_turns_where_models_are_offloaded():
    backbone, transformer, vae = sharing("model")
    backbone._take_turn(vae)
    assert (transformer.moves, vae.moves) == (["cpu"], ["cuda"])
    backbone._take_turn(vae)
    backbone._take_turn(transformer)
    backbone._take_turn(transformer)
    assert (transformer.moves, vae.moves) == (["cpu", "cuda"], ["cuda", "cpu"])


def test_the_text_encoder_finds_the_device_empty_where_models_are_offloaded():
    backbone, transformer, vae = sharing("model")
    backbone._take_turn(None)
    assert (transformer.moves, vae.moves) == (["cpu"], [])
    assert backbone._prompts.loaded


def test_a_transformer_in_groups_of_blocks_is_never_moved_whole():
    backbone, transformer, vae = sharing("group", "cpu")
    backbone._take_turn(vae)
    backbone._take_turn(transformer)
    assert (transformer.moves, vae.moves) == ([], ["cuda", "cpu"])


def test_nothing_is_moved_where_nothing_is_offloaded():
    backbone, transformer, vae = sharing("none")
    backbone._take_turn(vae)
    assert (transformer.moves, vae.moves) == ([], [])
    assert not backbone._prompts.loaded
