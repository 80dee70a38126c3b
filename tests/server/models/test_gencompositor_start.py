# SPDX-License-Identifier: Apache-2.0
"""A training of GenCompositor starts from image to video's weights, all of them, and they alone."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import save_file

from gencomp_protocol.errors import WeightsRefused
from gencomp_server.backbones import Architecture, spec_named
from gencomp_server.models import gencompositor, tiny
from gencomp_server.models.gencompositor import GenCompositor
from gencomp_server.models.gencompositor_start import start
from gencomp_server.models.loading import build_on_meta

CPU = torch.device("cpu")
FULL = spec_named("gencompositor")
ANEW = replace(
    FULL,
    weights=FULL.base,
    model_size=(48, 32),
    architecture=Architecture(32, 4, 2, 0, condition_channels=33, streams=2, branch_blocks=2),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Image to video as published, at small size: its folder and its tensors."""
    folder = tmp_path_factory.mktemp("base")
    config, _, _ = gencompositor.configs(spec_named("tiny-gencompositor"))
    made = build_on_meta(lambda: CogVideoXTransformer3DModel(**config))
    tiny.fill(made, "transformer", device=CPU, dtype=torch.float32)
    (folder / "config.json").write_text(json.dumps(config))
    state = {name: one.contiguous() for name, one in made.state_dict().items()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    return folder, state


@pytest.fixture(scope="module")
def begun(base):
    main, branch, _ = gencompositor.configs(ANEW, {"transformer_config": base[0] / "config.json"})
    networks = build_on_meta(lambda: GenCompositor(main, branch))
    start(networks, base[0], main, title="the start", device=CPU, dtype=torch.float32)
    return networks


def test_a_spec_whose_weights_are_its_bases_starts_anew_in_the_papers_layout(base):
    assert gencompositor.starts_anew(ANEW)
    assert not gencompositor.starts_anew(FULL)
    assert not gencompositor.starts_anew(spec_named("tiny-gencompositor"))
    assert gencompositor.configs(ANEW, {"transformer_config": base[0] / "config.json"})[2] == (
        "height"
    )


def test_the_main_network_has_image_to_videos_tensors_but_for_positions(base, begun):
    found = begun.main.state_dict()
    assert set(found) - set(base[1]) == {
        "patch_embed.fg_proj.weight",
        "patch_embed.fg_proj.bias",
    }
    for name, one in base[1].items():
        assert name.endswith("pos_embedding") or torch.equal(found[name], one), name


def test_the_element_is_read_as_the_image_was(base, begun):
    found = begun.main.patch_embed
    assert torch.equal(found.fg_proj.weight, base[1]["patch_embed.proj.weight"][:, 16:])
    assert torch.equal(found.fg_proj.bias, base[1]["patch_embed.proj.bias"])


def test_the_branch_has_the_first_blocks_and_says_nothing_yet(base, begun):
    found = begun.branch.state_dict()
    for name, one in found.items():
        if name.startswith("transformer_blocks."):
            assert torch.equal(one, base[1][name]), name
    projection = found["patch_embed.proj.weight"]
    assert torch.equal(projection[:, :32], base[1]["patch_embed.proj.weight"])
    assert not projection[:, 32].any()
    latents, text = torch.randn(1, 2, 33, 4, 6), torch.randn(1, 226, 32)
    positions = torch.ones(12, 16), torch.zeros(12, 16)
    samples = begun.branch(latents, text, torch.tensor([500]), positions)
    assert not any(one.any() for one in samples)
    assert found["branch_blocks.0.weight"].data_ptr() != found["branch_blocks.1.weight"].data_ptr()


def test_what_it_starts_with_can_be_trained_apart_from_what_it_was_read_from(begun):
    """No weight of the branch is the memory of one of the main network."""
    mains = {one.data_ptr() for one in begun.main.parameters()}
    assert not mains & {one.data_ptr() for one in begun.branch.parameters()}


def test_tables_of_positions_are_those_of_a_network_made_in_memory(begun):
    main, branch, _ = gencompositor.configs(spec_named("tiny-gencompositor"))
    made = GenCompositor(main, branch)
    for own, other in ((begun.main, made.main), (begun.branch, made.branch)):
        wanted = other.patch_embed.pos_embedding.float()
        assert torch.allclose(own.patch_embed.pos_embedding, wanted, rtol=0, atol=1e-6)


def test_weights_of_another_model_are_no_start(base, tmp_path, begun):
    state = {name: one for name, one in base[1].items() if not name.startswith("proj_out")}
    save_file(state, tmp_path / "model.safetensors")
    main, branch, _ = gencompositor.configs(spec_named("tiny-gencompositor"))
    networks = build_on_meta(lambda: GenCompositor(main, branch))
    with pytest.raises(WeightsRefused, match="do not fit the start"):
        start(networks, tmp_path, main, title="the start", device=CPU, dtype=torch.float32)


def test_what_is_written_beside_trained_weights_loads_them_again_with_their_layout(tmp_path):
    """Configurations of both networks are taken by the loader, and name the layout."""
    main, branch, _ = gencompositor.configs(spec_named("tiny-gencompositor"))
    networks = build_on_meta(lambda: GenCompositor(main, branch))
    files = {}
    for name, plain in gencompositor.written(networks, "time").items():
        files[f"{'transformer' if name == 'main' else name}_config"] = tmp_path / f"{name}.json"
        (tmp_path / f"{name}.json").write_text(json.dumps(plain))
    found = gencompositor.configs(replace(ANEW, weights="own"), files)
    again = build_on_meta(lambda: GenCompositor(found[0], found[1]))
    assert found[2] == "time"
    shapes = {name: one.shape for name, one in networks.state_dict().items()}
    assert {name: one.shape for name, one in again.state_dict().items()} == shapes
