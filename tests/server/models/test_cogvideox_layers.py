# SPDX-License-Identifier: Apache-2.0
"""A base that stands in for what merges two layers: its first layer is widened, and nothing else.

The folders here have the form of published ones, at small size.
"""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5EncoderModel

from gencomp_protocol.errors import WeightsRefused
from gencomp_server import models
from gencomp_server.backbones import spec_named
from gencomp_server.models import cogvideox, tiny
from gencomp_server.models.loading import build_on_meta

WIDE = spec_named("tiny-splitthenmerge")
BASE = replace(
    spec_named("cogvideox-5b-i2v"),
    title="Base",
    architecture=WIDE.architecture,
    model_size=(48, 32),
)
OWN = replace(
    spec_named("splitthenmerge"), title="Own", architecture=WIDE.architecture, model_size=(48, 32)
)
PROJECTION = "patch_embed.proj.weight"
POSITIONS = "patch_embed.pos_embedding"


def filled(kind, config, name):
    module = build_on_meta(lambda: kind(**config))
    tiny.fill(module, name, device=torch.device("cpu"), dtype=torch.float32)
    return module


def write(folder, module, config, name="diffusion_pytorch_model.safetensors", left_out=()):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    state = {key: one for key, one in module.state_dict().items() if key not in left_out}
    save_file(state, folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image-to-video model as published, 32 channels, and beside it weights of 48."""
    place = tmp_path_factory.mktemp("i2v")
    config = {**tiny.TRANSFORMERS["tiny-splitthenmerge"], "in_channels": 32}
    write(place / "transformer", filled(CogVideoXTransformer3DModel, config, "t"), config)
    wide = {**config, "in_channels": 48}
    own = filled(CogVideoXTransformer3DModel, wide, "own")
    save_file(own.state_dict(), place / "own.safetensors")
    write(place / "vae", filled(AutoencoderKLCogVideoX, tiny.VAE, "vae"), tiny.VAE)
    words = tiny.tokenizer()
    words.save_pretrained(place / "tokenizer")
    text = {"vocab_size": len(words), **tiny.TEXT}
    encoder = filled(lambda **plain: T5EncoderModel(T5Config(**plain)), text, "text")
    twin = ("encoder.embed_tokens.weight",)
    write(place / "text_encoder", encoder, text, "model.safetensors", twin)
    return place


def files_of(folder, transformer=None):
    return {
        "transformer": transformer or folder / "transformer",
        "transformer_config": folder / "transformer" / "config.json",
        "vae": folder / "vae",
        "text_encoder": folder / "text_encoder",
        "tokenizer": folder / "tokenizer",
    }


def state_of(backbone):
    return backbone._transformer.state_dict()


def published(folder):
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


# --- the base ------------------------------------------------------------------------------------


def test_columns_of_the_image_are_copied_for_the_background_and_all_else_stays(folder):
    found = state_of(models.load(BASE, files_of(folder)))
    before = published(folder)
    assert found[PROJECTION].shape == (32, 48, 2, 2)
    assert torch.equal(found[PROJECTION][:, :32], before[PROJECTION])
    assert torch.equal(found[PROJECTION][:, 32:], before[PROJECTION][:, 16:])
    others = set(before) - {PROJECTION}
    assert set(found) - {PROJECTION} == others
    assert all(torch.equal(found[name], before[name]) for name in others)


def test_learned_positions_are_those_of_the_file(folder):
    assert torch.equal(
        state_of(models.load(BASE, files_of(folder)))[POSITIONS], published(folder)[POSITIONS]
    )


def test_with_nothing_for_a_background_it_computes_what_the_base_does(folder):
    backbone = models.load(BASE, files_of(folder))
    config = {**tiny.TRANSFORMERS["tiny-splitthenmerge"], "in_channels": 32}
    plain = CogVideoXTransformer3DModel(**config).eval()
    plain.load_state_dict(published(folder))
    drawn = torch.Generator().manual_seed(3)
    noise, image = torch.randn(2, 1, 13, 16, 4, 6, generator=drawn)
    words = backbone.text("a dog on a beach")
    joined = backbone.join({"fg": image, "bg": torch.zeros_like(image)})
    made = backbone.predict(noise, 499, words, joined)
    with torch.no_grad():
        wanted = plain(
            hidden_states=torch.cat([noise, image], dim=2),
            encoder_hidden_states=words,
            timestep=torch.tensor([499.0]),
            image_rotary_emb=cogvideox.rotary_positions(plain.config, 13, 4, 6),
            return_dict=False,
        )[0]
    assert torch.allclose(made, wanted, atol=1e-5)
    swapped = backbone.join({"fg": torch.zeros_like(image), "bg": image})
    assert torch.allclose(backbone.predict(noise, 499, words, swapped), wanted, atol=1e-5)
    both = backbone.join({"fg": image, "bg": image})
    assert not torch.allclose(backbone.predict(noise, 499, words, both), wanted, atol=1e-2)


def test_layers_are_joined_in_the_order_of_the_models_channels(folder):
    backbone = models.load(BASE, files_of(folder))
    one = torch.ones(1, 13, 16, 4, 6)
    joined = backbone.join({"bg": 2 * one, "fg": one})
    assert joined[0, 0, :, 0, 0].tolist() == [1.0] * 16 + [2.0] * 16


# --- weights of one's own ------------------------------------------------------------------------


def test_weights_of_ones_own_go_over_the_configuration_of_the_base(folder):
    backbone = models.load(OWN, files_of(folder, folder / "own.safetensors"))
    own = load_file(folder / "own.safetensors")
    assert all(torch.equal(one, own[name]) for name, one in state_of(backbone).items())


def test_the_base_itself_is_no_weights_of_ones_own(folder):
    with pytest.raises(WeightsRefused, match=r"'patch_embed\.proj\.weight' is 32x32x2x2 where"):
        models.load(OWN, files_of(folder))


def test_weights_of_ones_own_are_no_base(folder):
    with pytest.raises(WeightsRefused, match=r"'patch_embed\.proj\.weight' is 32x48x2x2 where"):
        models.load(BASE, files_of(folder, folder / "own.safetensors"))


def test_a_tensor_more_or_less_is_refused_as_everywhere(folder, tmp_path):
    weights = published(folder)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({**weights, "patch_embed.extra": torch.zeros(1)}, file)
    with pytest.raises(WeightsRefused, match=r"holds 'patch_embed\.extra', which that model lacks"):
        models.load(BASE, files_of(folder, file))
    save_file({name: one for name, one in weights.items() if name != POSITIONS}, file)
    with pytest.raises(WeightsRefused, match=r"'patch_embed\.pos_embedding' is missing"):
        models.load(BASE, files_of(folder, file))


def test_a_configuration_of_other_channels_is_refused(folder, tmp_path):
    config = {**tiny.TRANSFORMERS["tiny-splitthenmerge"], "in_channels": 33}
    other = tmp_path / "config.json"
    other.write_text(json.dumps(config))
    for spec, needed in ((BASE, 32), (OWN, 48)):
        files = {**files_of(folder), "transformer_config": other}
        with pytest.raises(WeightsRefused, match=f"in_channels is 33 where {needed} is needed"):
            models.load(spec, files)


# --- full size, without memory -------------------------------------------------------------------


def test_the_full_size_model_has_the_published_count_and_sixteen_columns_more():
    spec = spec_named("cogvideox-5b-i2v")
    config = cogvideox._transformer_config(spec, {})
    made = build_on_meta(lambda: CogVideoXTransformer3DModel(**config))
    assert made.patch_embed.pos_embedding.shape == (1, 17776, 3072)
    cogvideox.widen(made, 48)
    assert made.patch_embed.proj.weight.shape == (3072, 48, 2, 2)
    assert made.config.in_channels == 48
    count = sum(one.numel() for one in made.parameters())
    assert count == 5_570_479_680 + 196_608 == spec.architecture.parameters
    assert spec_named("splitthenmerge").architecture == spec.architecture


def test_a_model_is_widened_by_whole_images_or_not_at_all():
    made = build_on_meta(
        lambda: CogVideoXTransformer3DModel(**tiny.TRANSFORMERS["tiny-splitthenmerge"])
    )
    before = made.patch_embed.proj
    cogvideox.widen(made, 48)
    assert made.patch_embed.proj is before
    for channels in (32, 50):
        with pytest.raises(ValueError, match=f"48 channels cannot become {channels}"):
            cogvideox.widen(made, channels)
