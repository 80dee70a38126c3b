# SPDX-License-Identifier: Apache-2.0
"""GenCompositor: full-size shapes, folders on disk, inputs, positions, speed knobs."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import save_file
from torch._dynamo.testing import CompileCounter
from transformers import T5Config, T5EncoderModel

from gencomp_protocol.errors import BadKnob, WeightsMissing, WeightsRefused
from gencomp_server import models
from gencomp_server.backbones import Architecture, spec_named
from gencomp_server.models import erope, gencompositor, speed, tiny
from gencomp_server.models.gencompositor import GenCompositor
from gencomp_server.models.gencompositor_network import tokens_outside
from gencomp_server.models.loading import LoadSettings, build_on_meta

CPU = torch.device("cpu")
FULL = spec_named("gencompositor")
TINY = spec_named("tiny-gencompositor")
# The same networks as tiny's, but read from files.
SMALL = replace(
    FULL,
    model_size=(48, 32),
    architecture=Architecture(32, 4, 2, 0, condition_channels=33, streams=2, branch_blocks=2),
)
FRAMES, ROWS, COLUMNS = 13, 2, 3


def noise(*shape, seed=0):
    drawn = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return torch.from_numpy(drawn)


def half_masked(frames=FRAMES):
    """The left third may change, the rest stays. [1,T',1,4,6]."""
    mask = torch.zeros(1, frames, 1, 4, 6)
    mask[..., :2] = 1
    return mask


def layers(frames=FRAMES, **other):
    made = {
        "masked": noise(1, frames, 16, 4, 6, seed=2),
        "mask": half_masked(frames),
        "fg": noise(1, frames, 16, 4, 6, seed=3),
    }
    return {**made, **other}


def predicted(backbone, *, text="", step=999, seed=1, frames=FRAMES, **other):
    latents = noise(1, frames, 16, 4, 6, seed=seed)
    joined = backbone.join(layers(frames, **other))
    return backbone.predict(latents, step, backbone.text(text), joined)


@pytest.fixture(scope="module")
def backbone():
    return models.load(TINY, None)


# --- full size, without memory -------------------------------------------------------------------


@pytest.fixture(scope="module")
def full():
    main, branch, layout = gencompositor.configs(FULL)
    assert layout == "shipped"
    return build_on_meta(lambda: GenCompositor(main, branch))


def count(module):
    return sum(one.numel() for one in module.parameters())


def test_the_full_size_networks_have_the_published_numbers_of_parameters(full):
    assert count(full.main) == 5_570_679_360
    assert count(full.branch) == 301_568_576
    assert FULL.architecture.parameters == count(full)


def test_the_full_size_networks_have_the_tensors_of_the_published_folders(full):
    main, branch = full.main.state_dict(), full.branch.state_dict()
    assert main["patch_embed.fg_proj.weight"].shape == (3072, 16, 2, 2)
    assert main["patch_embed.proj.weight"].shape == (3072, 32, 2, 2)
    assert main["patch_embed.pos_embedding"].shape == (1, 35326, 3072)
    assert branch["patch_embed.proj.weight"].shape == (3072, 33, 2, 2)
    assert branch["patch_embed.pos_embedding"].shape == (1, 17776, 3072)
    assert branch["branch_blocks.1.weight"].shape == (3072, 3072)
    # The 1025 of image to video, and the element's projection.
    assert len(main) == 1027


# --- folders on disk -----------------------------------------------------------------------------


def write(folder, module, config, name="diffusion_pytorch_model.safetensors", left_out=()):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    state = {key: one.contiguous() for key, one in module.state_dict().items()}
    save_file({key: one for key, one in state.items() if key not in left_out}, folder / name)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders as published, at small size, and the base's beside them; weights are tiny's."""
    folder = tmp_path_factory.mktemp("published")
    main, branch, _ = gencompositor.configs(TINY)
    made = build_on_meta(lambda: GenCompositor(main, branch))
    tiny.fill(made, "gencompositor", device=CPU, dtype=torch.float32)
    write(folder / "model" / "transformer", made.main, {**main, "_class_name": "X", "id_pool": 1})
    write(folder / "branch", made.branch, {**branch, "_diffusers_version": "0.31.0.dev0"})
    vae = build_on_meta(lambda: AutoencoderKLCogVideoX(**tiny.VAE))
    tiny.fill(vae, "vae", device=CPU, dtype=torch.float32)
    write(folder / "vae", vae, tiny.VAE)
    words = tiny.tokenizer()
    words.save_pretrained(folder / "tokenizer")
    config = {"vocab_size": len(words), **tiny.TEXT}
    text = build_on_meta(lambda: T5EncoderModel(T5Config(**config)))
    tiny.fill(text, "text", device=CPU, dtype=torch.float32)
    twin = ("encoder.embed_tokens.weight",)
    write(folder / "text_encoder", text, config, "model.safetensors", left_out=twin)
    return folder


@pytest.fixture
def files(published, tmp_path):
    """Files by role; configurations are copies that a test may change."""
    found = {role: published / role for role in ("branch", "vae", "text_encoder", "tokenizer")}
    found["transformer"] = published / "model" / "transformer"
    for role in ("transformer", "branch"):
        copy = tmp_path / f"{role}.json"
        copy.write_text((found[role] / "config.json").read_text())
        found[f"{role}_config"] = copy
    return found


def change(file, **settings):
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_folders_as_published_load_strictly_and_compute_what_their_weights_say(files, backbone):
    loaded = models.load(SMALL, files)
    assert torch.equal(predicted(loaded), predicted(backbone))
    assert loaded.forwards == 1


def test_without_configurations_the_published_ones_are_taken(files, full):
    del files["transformer_config"], files["branch_config"]
    main, branch, layout = gencompositor.configs(FULL, files)
    assert (main["num_layers"], branch["num_layers"], layout) == (42, 2, "shipped")


def test_a_spec_whose_set_is_its_base_starts_from_image_to_video_and_needs_no_branch(
    files, tmp_path
):
    anew = replace(SMALL, weights=SMALL.base)
    config = json.loads(files["transformer_config"].read_text())
    plain = {key: one for key, one in config.items() if not key.startswith(("_", "id_"))}
    base = build_on_meta(lambda: CogVideoXTransformer3DModel(**plain))
    tiny.fill(base, "transformer", device=CPU, dtype=torch.float32)
    write(tmp_path / "base", base, config)
    del files["branch"], files["branch_config"]
    loaded = models.load(anew, {**files, "transformer": tmp_path / "base"})
    assert loaded.layout == "height"
    plainly = predicted(loaded)
    # The branch is silent, and nothing else reads the mask.
    assert torch.equal(predicted(loaded, mask=torch.zeros(1, FRAMES, 1, 4, 6)), plainly)
    assert not torch.equal(predicted(loaded, fg=noise(1, FRAMES, 16, 4, 6, seed=7)), plainly)


@pytest.mark.parametrize("role", ["transformer", "branch", "vae", "tokenizer"])
def test_a_role_that_nobody_named_is_missing(files, role):
    del files[role]
    with pytest.raises(WeightsMissing, match=f"take as its {role}"):
        models.load(SMALL, files)


def test_a_branch_that_is_no_branch_is_refused_by_its_first_difference(files):
    files["branch"] = files["transformer"]
    with pytest.raises(WeightsRefused, match=r"do not fit the branch of GenCompositor"):
        models.load(SMALL, files)


@pytest.mark.parametrize(
    ("role", "setting", "value"),
    [
        ("transformer", "in_channels", 48),
        ("transformer", "num_layers", 3),
        ("transformer", "sample_width", 90),
        ("branch", "num_layers", 4),
        ("branch", "use_learned_positional_embeddings", False),
    ],
)
def test_a_configuration_of_another_model_is_refused_by_its_setting(files, role, setting, value):
    change(files[f"{role}_config"], **{setting: value})
    with pytest.raises(WeightsRefused, match=f"{setting} is {value} where"):
        models.load(SMALL, files)


def test_the_branchs_configuration_names_the_layout_of_positions(files, backbone):
    change(files["branch_config"], erope="width")
    other = models.load(SMALL, files)
    assert not torch.allclose(predicted(other), predicted(backbone), atol=1e-3)
    change(files["branch_config"], erope="shipped")
    same = models.load(SMALL, files)
    assert same.identity != other.identity
    assert torch.equal(predicted(same), predicted(backbone))


def test_a_layout_that_there_is_not_is_refused_with_those_there_are(files):
    change(files["branch_config"], erope="depth")
    with pytest.raises(WeightsRefused, match="layout of positions that there is not: depth") as one:
        models.load(SMALL, files)
    assert "shipped, height, width, time" in one.value.hint


# --- what each input does ------------------------------------------------------------------------


def test_two_of_it_have_the_same_bits_whatever_the_global_seed(backbone):
    torch.manual_seed(5)
    assert torch.equal(predicted(models.load(TINY, None)), predicted(backbone))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"fg": noise(1, 13, 16, 4, 6, seed=9)}, id="the element"),
        pytest.param({"masked": noise(1, 13, 16, 4, 6, seed=9)}, id="the masked plate"),
        pytest.param({"mask": torch.zeros(1, 13, 1, 4, 6)}, id="the mask"),
        pytest.param({"text": "smoke"}, id="the prompt"),
        pytest.param({"step": 19}, id="the timestep"),
        pytest.param({"seed": 9}, id="the noise"),
    ],
)
def test_what_it_predicts_depends_on(backbone, other):
    plain = predicted(backbone)
    assert (predicted(backbone, **other) - plain).std() > 0.01 * plain.std()


def test_the_element_is_seen_by_the_main_network_alone_and_the_mask_by_the_branch_alone(backbone):
    """With the branch's output silenced only the mask's injection is lost."""
    networks = backbone._networks
    given = layers()
    kept = noise(1, FRAMES, 16, 4, 6, seed=1), given["masked"]
    samples = networks.branch(
        torch.cat([*kept, given["mask"]], 2),
        backbone.text(""),
        torch.tensor([999]),
        erope.rotary(networks.config, FRAMES, 4, 6),
    )
    assert len(samples) == 2
    assert samples[0].shape == (1, FRAMES * ROWS * COLUMNS, 32)
    silent = tuple(torch.zeros_like(one) for one in samples)
    positions = erope.rotary(networks.config, FRAMES, 4, 6, "shipped")
    alone = networks.main(
        torch.cat(kept, 2), given["fg"], backbone.text(""), torch.tensor([999]), positions, silent
    )
    whole = predicted(backbone, mask=torch.ones(1, FRAMES, 1, 4, 6))
    assert torch.equal(alone, whole)


def test_tokens_outside_are_those_no_pixel_of_which_is_in_the_mask():
    mask = torch.zeros(1, 2, 1, 4, 6)
    mask[0, 0, 0, 1, 3] = 1
    outside = tokens_outside(mask, 2)[0, :, 0]
    # 2x2 pixels a token, 2 rows of 3: the pixel is in row 0, column 1 of the first frame.
    assert outside.tolist() == [True, False, True, True, True, True] + [True] * 6


def test_layers_by_other_names_and_a_trimask_are_refused(backbone):
    with pytest.raises(ValueError, match="layers"):
        backbone.join({"plate": noise(1, 13, 16, 4, 6)})
    with pytest.raises(TypeError, match="takes layers"):
        backbone.condition(noise(1, 13, 16, 4, 6), np.zeros((49, 32, 48, 1), np.uint8))


def test_layers_are_joined_in_the_order_of_the_spec(backbone):
    joined = backbone.join(dict(reversed(layers().items())))
    assert joined.shape == (1, 13, 33, 4, 6)
    assert torch.equal(joined[:, :, 16:17], half_masked())
    assert torch.equal(joined[:, :, 17:], layers()["fg"])


def test_another_size_is_refused_with_its_own(backbone):
    with pytest.raises(BadKnob, match="works at 48x32 only, not at 64x32"):
        backbone.predict(
            noise(1, 13, 16, 4, 8), 999, backbone.text(""), torch.zeros(1, 13, 33, 4, 8)
        )


def test_a_window_of_fewer_frames_is_taken_and_one_of_more_is_not(backbone):
    assert predicted(backbone, frames=5).shape == (1, 5, 16, 4, 6)
    with pytest.raises(ValueError, match="14 latent frames where the model takes 13"):
        predicted(backbone, frames=14)


def test_elements_of_a_batch_are_what_they_are_alone(backbone):
    latents = torch.cat([noise(1, 13, 16, 4, 6, seed=seed) for seed in (1, 4)])
    joined = torch.cat(
        [backbone.join(layers()), backbone.join(layers(fg=noise(1, 13, 16, 4, 6, seed=8)))]
    )
    words = backbone.text("").repeat(2, 1, 1)
    both = backbone.predict(latents, 499, words, joined)
    for at in range(2):
        one = slice(at, at + 1)
        alone = backbone.predict(latents[one], 499, words[one], joined[one])
        assert torch.allclose(both[one], alone, rtol=0, atol=1e-5)


def test_learned_positions_of_a_shorter_window_are_a_whole_ones_first_frames(backbone):
    """Text, five frames of the plate, five of the element: each from where a whole one's begin."""
    layer = backbone._networks.main.patch_embed
    words, places = layer.places(226, (1, 5, 32, 4, 6))
    table, tokens = layer.pos_embedding, 5 * ROWS * COLUMNS
    assert table.shape[1] == 226 + 2 * 13 * ROWS * COLUMNS
    assert torch.equal(words, table[:, :226])
    assert places.shape[1] == 2 * tokens
    assert torch.equal(places[:, :tokens], table[:, 226 : 226 + tokens])
    first = 226 + 13 * ROWS * COLUMNS
    assert torch.equal(places[:, tokens:], table[:, first : first + tokens])


def test_gradients_reach_every_weight_that_is_read_and_no_other(published):
    main, branch, _ = gencompositor.configs(TINY)
    networks = GenCompositor(main, branch)
    networks.main.enable_gradient_checkpointing()
    given = layers(frames=1)
    text = noise(1, 226, 32, seed=5)
    made = networks(noise(1, 1, 16, 4, 6), given["masked"], given["mask"], given["fg"], text, 500)
    made.square().mean().backward()
    dry = {name for name, one in networks.named_parameters() if one.grad is None}
    unread = ("branch_x_embedder", "norm_final", "norm_out", "proj_out")
    # Words of the branch end with its last block.
    assert {name.split(".")[1] for name in dry} == set(unread)
    assert all(name.startswith("branch.") for name in dry)


# --- speed knobs ---------------------------------------------------------------------------------


def test_a_step_that_changed_little_is_answered_from_the_one_before_with_what_keeps_the_plate():
    reusing = models.load(TINY, None, settings=LoadSettings(cached_steps=1.0))
    networks = reusing._networks
    leader = networks.transformer_blocks[0]._diffusers_hook.get_hook("fbc_leader_block_hook")
    leader.threshold = 1e9
    assert reusing.reuses_steps
    made = []
    for step in range(2):
        with reusing.cache_scope("window 0", step):
            made.append(predicted(reusing))
    assert speed.reused_forwards(networks) == 1
    assert torch.allclose(made[0], predicted(models.load(TINY, None)), rtol=0, atol=1e-6)
    assert torch.allclose(made[0], made[1], rtol=0, atol=1e-5)
    reusing.release()
    assert speed.reused_forwards(networks) == 0


@pytest.mark.slow
def test_blocks_of_both_networks_are_compiled_once_each_to_the_same_bits():
    torch._dynamo.reset()
    counter, compiled = CompileCounter(), models.load(TINY, None)
    networks, exact = compiled._networks, predicted(compiled, frames=2)
    for part in (networks.main, networks.branch):
        speed.compile_blocks_(part, backend=counter)
    assert torch.equal(predicted(compiled, frames=2), exact)
    assert counter.frame_count == 2
    torch._dynamo.reset()


def test_weights_in_8_bits_are_those_of_both_networks():
    packed = models.load(TINY, None, settings=LoadSettings(precision="fp8"))
    for part in (packed._networks.main, packed._networks.branch):
        for block in part.transformer_blocks:
            for _, layer in speed.matrices(block):
                assert layer.weight.dtype == speed.EIGHT_BITS
    difference = (predicted(packed) - predicted(models.load(TINY, None))).std()
    assert 0 < difference < 0.2
    assert "8 bits" in packed.said[0]


def test_a_knob_that_needs_a_gpu_is_refused_on_a_processor():
    with pytest.raises(BadKnob, match="needs a GPU"):
        models.load(TINY, None, settings=LoadSettings(compiled=True))


def test_making_it_is_said_in_the_log(caplog):
    with caplog.at_level(logging.INFO):
        models.load(TINY, None)
    assert "untrained, for tests" in caplog.text
