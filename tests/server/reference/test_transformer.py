# SPDX-License-Identifier: Apache-2.0
"""The transformer behind our backbone against the public code's answers, both generations."""

import dataclasses

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import save_file

from gencomp_server.backbones import TINY, Architecture, spec_named
from gencomp_server.models import tiny
from gencomp_server.models.cogvideox import CogVideoXBackbone, rotary_positions
from gencomp_server.models.loading import build_on_meta, load_into

# What the vectors' README states for float32.
TOLERANCE = 1e-5
FILES = ["a_videox_transformer_v11", "a_videox_transformer_v15"]
# A key of the published configurations that is no setting of the network.
NOT_A_SETTING = "add_noise_in_inpaint_model"


def as_built(config):
    return {key: value for key, value in config.items() if key != NOT_A_SETTING}


class Reference:
    """A vector, and a backbone that was strictly loaded from its weights."""

    def __init__(self, vector, folder):
        self.tensors, config = vector.tensors, as_built(vector.metadata["config"])
        file = folder / "weights.safetensors"
        save_file(vector.under("sd."), file)
        transformer = build_on_meta(lambda: CogVideoXTransformer3DModel(**config))
        load_into(transformer, file, title="the vector", device="cpu", dtype=torch.float32)
        self.config = transformer.config
        width = config["num_attention_heads"] * config["attention_head_dim"]
        kind = Architecture(width, config["num_layers"], config["num_attention_heads"], 0)
        self.backbone = CogVideoXBackbone(
            dataclasses.replace(spec_named(TINY), architecture=kind),
            transformer,
            AutoencoderKLCogVideoX(**tiny.VAE),
            tiny.prompts(1, device=torch.device("cpu"), dtype=torch.float32),
            identity="vector",
        )

    def predict(self, at, frames):
        """The backbone's answer for one element of the vector's batch."""
        own = slice(at, at + 1)
        return self.backbone.predict(
            self.tensors["in.latents"][own, :frames],
            float(self.tensors["in.timestep"][at]),
            self.tensors["in.text"][own],
            self.tensors["in.inpaint_latents"][own, :frames],
        )


@pytest.fixture(scope="module", params=FILES)
def reference(request, read_vector, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Reference(read_vector(request.param), tmp_path_factory.mktemp("weights"))
    torch.set_num_threads(threads)


def worst(a, b):
    assert a.shape == b.shape
    return float((a - b).abs().max())


def test_every_element_is_predicted_as_the_reference_does(reference):
    wanted = reference.tensors["out.sample"]
    for at in range(len(wanted)):
        assert worst(reference.predict(at, wanted.shape[1]), wanted[at : at + 1]) <= TOLERANCE


def test_positions_are_the_references(reference):
    _, frames, _, height, width = reference.tensors["in.latents"].shape
    cosines, sines = rotary_positions(reference.config, frames, height, width)
    assert worst(cosines, reference.tensors["in.rope_cos"]) <= TOLERANCE
    assert worst(sines, reference.tensors["in.rope_sin"]) <= TOLERANCE


def test_a_single_latent_frame_is_predicted_as_the_reference_does(reference):
    if "out.single_frame" not in reference.tensors:
        pytest.skip("this file has no single frame")
    wanted = reference.tensors["out.single_frame"]
    for at in range(len(wanted)):
        assert worst(reference.predict(at, 1), wanted[at : at + 1]) <= TOLERANCE


def test_an_odd_number_of_latent_frames_is_refused_where_the_model_takes_pairs(reference):
    latents, condition = (
        torch.zeros(1, 3, *reference.tensors[name].shape[2:])
        for name in ("in.latents", "in.inpaint_latents")
    )
    given = latents, 999, reference.tensors["in.text"][:1], condition
    if reference.config.patch_size_t is None:
        assert reference.backbone.predict(*given).shape == latents.shape
        return
    with pytest.raises(ValueError, match="3 latent frames where the model takes pairs"):
        reference.backbone.predict(*given)
