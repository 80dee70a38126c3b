# SPDX-License-Identifier: Apache-2.0
"""What is planned with is what the libraries' classes have, counted on the meta device."""

import pytest

pytest.importorskip("diffusers")

from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel

from gencomp_server import footprint
from gencomp_server.backbones import PREVIEW, SPECS, spec_named
from gencomp_server.footprint import Placement
from gencomp_server.models import cogvideox, gencompositor, speed, wan_names
from gencomp_server.models.loading import build_on_meta
from gencomp_server.models.preview_network import CHANNELS, CONDITIONS, MULTIPLE, read_network
from gencomp_server.models.preview_words import MOST_WORDS
from gencomp_server.parts.overbase import LAYERS
from gencomp_server.weights import Shelf

FULL = [spec for spec in SPECS if spec.weights and spec.name != PREVIEW]


def networks(spec):
    """What computes: the transformer, and a branch where there is one."""
    if spec.family == "gencompositor":
        main, branch, _ = gencompositor.configs(spec)
        both = build_on_meta(lambda: gencompositor.GenCompositor(main, branch))
        return [both.main, both.branch]
    return [transformer(spec)]


def transformer(spec):
    if spec.family == "cogvideox":
        config = cogvideox.config_of(spec)
        return build_on_meta(lambda: CogVideoXTransformer3DModel(**config))
    kind = spec.architecture
    plain = {
        "model_type": "i2v",
        "dim": kind.width,
        "num_heads": kind.heads,
        "num_layers": kind.blocks,
        "ffn_dim": round(kind.width * kind.ff_ratio),
        "freq_dim": 256,
        "in_dim": kind.latent_channels + kind.condition_channels,
    }
    sizes = wan_names.transformer_sizes(plain, "config.json")
    return build_on_meta(lambda: WanTransformer3DModel(**sizes))


def test_what_ships_takes_what_its_file_holds_and_is_not_cast(tmp_path):
    spec = spec_named(PREVIEW)
    place = Shelf(tmp_path, tmp_path / "lock").files(spec.weights)["transformer"]
    network = read_network(place)
    numbers = sum(one.numel() for one in network.parameters())
    kind = spec.architecture
    assert kind.parameters == numbers
    assert footprint.transformer_bytes(spec, "cpu", Placement(precision="fp8")) == 4 * numbers
    config = network.transformer.config
    assert config.num_attention_heads * config.attention_head_dim == kind.width
    assert (config.num_layers, config.num_attention_heads) == (kind.blocks, kind.heads)
    assert kind.text_tokens == MOST_WORDS
    assert kind.condition_channels == CONDITIONS
    assert spec.vae_spatial * kind.patch == MULTIPLE
    assert tuple(CHANNELS) == spec.layers == LAYERS
    assert sum(one.numel() for one in network.words.parameters()) < 0.05 * numbers


@pytest.mark.parametrize("spec", FULL, ids=lambda spec: spec.name)
def test_weights_in_8_bits_take_what_the_layers_take_that_are_cast(spec):
    models = networks(spec)
    numbers = sum(one.numel() for model in models for one in model.parameters())
    packed = sum(
        one.numel()
        for model in models
        for block in speed.blocks(model)
        for _, layer in speed.matrices(block)
        for one in layer.parameters()
    )
    fp8 = Placement(precision="fp8")
    assert footprint.transformer_bytes(spec, "cuda:0", Placement()) == 2 * numbers
    assert footprint.transformer_bytes(spec, "cuda:0", fp8) == 2 * numbers - packed
    assert footprint.transformer_bytes(spec, "cpu", fp8) == 4 * numbers - 3 * packed
