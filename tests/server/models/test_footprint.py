# SPDX-License-Identifier: Apache-2.0
"""What is planned with is what the libraries' classes have, counted on the meta device."""

import pytest

pytest.importorskip("diffusers")

from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel

from gencomp_server import footprint
from gencomp_server.backbones import SPECS
from gencomp_server.footprint import Placement
from gencomp_server.models import cogvideox, gencompositor, speed, wan_names
from gencomp_server.models.loading import build_on_meta

FULL = [spec for spec in SPECS if spec.weights]


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
