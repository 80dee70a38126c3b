# SPDX-License-Identifier: Apache-2.0
"""Wan: its published names and sizes, strict loading, and a tiny one from end to end."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from gencomp_protocol.errors import WeightsRefused
from gencomp_server.backbones import spec_named
from gencomp_server.models import wan, wan_names
from gencomp_server.parts import windows
from gencomp_server.parts.sampler import denoise
from gencomp_server.parts.trimask import EDIT, KEEP, UNKNOWN

# float32 sums in another order.
ROUNDING = 1e-5

TINY_VAE = {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}
TINY_TEXT = {
    "vocab_size": 16,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 16,
    "num_heads": 4,
    "num_layers": 2,
    "relative_attention_num_buckets": 8,
    "feed_forward_proj": "gated-gelu",
}
# As Wan spells a configuration.
TINY_CONFIG = {
    "model_type": "i2v",
    "dim": 24,
    "num_heads": 2,
    "ffn_dim": 32,
    "freq_dim": 8,
    "in_dim": 36,
    "out_dim": 16,
    "num_layers": 2,
    "text_dim": 16,
    "text_len": 512,
    "eps": 1e-6,
}


def tiny_spec():
    spec = spec_named("wan-casper-1.3b")
    shape = dataclasses.replace(spec.architecture, width=24, blocks=2, heads=2)
    return dataclasses.replace(spec, architecture=shape)


# --- inverse tables, written here from the published names ---------------------------------------

TO_WAN = (
    (r"condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"condition_embedder\.time_proj\.", "time_projection.1."),
    (r"condition_embedder\.image_embedder\.norm1\.", "img_emb.proj.0."),
    (r"condition_embedder\.image_embedder\.ff\.net\.0\.proj\.", "img_emb.proj.1."),
    (r"condition_embedder\.image_embedder\.ff\.net\.2\.", "img_emb.proj.3."),
    (r"condition_embedder\.image_embedder\.norm2\.", "img_emb.proj.4."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.add_([kv])_proj\.", r".\1_img."),
    (r"\.norm_added_k\.", ".norm_k_img."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
    (r"^(blocks\.\d+)\.norm2\.", r"\1.norm3."),
)


def in_wan(name):
    for pattern, replacement in TO_WAN:
        name = re.sub(pattern, replacement, name)
    return name


RESIDUAL = (
    ("norm1.", "residual.0."),
    ("conv1.", "residual.2."),
    ("norm2.", "residual.3."),
    ("conv2.", "residual.6."),
    ("conv_shortcut.", "shortcut."),
)


def residual(leaf):
    for ours, theirs in RESIDUAL:
        if leaf.startswith(ours):
            return theirs + leaf.removeprefix(ours)
    return leaf


def vae_in_wan(name):
    for ours, theirs in (
        ("post_quant_conv.", "conv2."),
        ("quant_conv.", "conv1."),
        ("encoder.conv_in.", "encoder.conv1."),
        ("decoder.conv_in.", "decoder.conv1."),
        ("encoder.norm_out.", "encoder.head.0."),
        ("decoder.norm_out.", "decoder.head.0."),
        ("encoder.conv_out.", "encoder.head.2."),
        ("decoder.conv_out.", "decoder.head.2."),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    if found := re.match(r"(\w+)\.mid_block\.resnets\.(\d)\.(.*)", name):
        return f"{found[1]}.middle.{2 * int(found[2])}.{residual(found[3])}"
    if found := re.match(r"(\w+)\.mid_block\.attentions\.0\.(.*)", name):
        return f"{found[1]}.middle.1.{found[2]}"
    if found := re.match(r"encoder\.down_blocks\.(\d+)\.(.*)", name):
        return f"encoder.downsamples.{found[1]}.{residual(found[2])}"
    if found := re.match(r"decoder\.up_blocks\.(\d)\.resnets\.(\d)\.(.*)", name):
        return f"decoder.upsamples.{4 * int(found[1]) + int(found[2])}.{residual(found[3])}"
    found = re.match(r"decoder\.up_blocks\.(\d)\.upsamplers\.0\.(.*)", name)
    return f"decoder.upsamples.{4 * int(found[1]) + 3}.{found[2]}"


def text_in_wan(name):
    for pattern, replacement in (
        (r"^shared\.weight$", "token_embedding.weight"),
        (r"^encoder\.final_layer_norm\.", "norm."),
        (r"^encoder\.block\.", "blocks."),
        (r"\.layer\.0\.SelfAttention\.relative_attention_bias\.", ".pos_embedding.embedding."),
        (r"\.layer\.0\.SelfAttention\.", ".attn."),
        (r"\.layer\.0\.layer_norm\.", ".norm1."),
        (r"\.layer\.1\.layer_norm\.", ".norm2."),
        (r"\.layer\.1\.DenseReluDense\.wi_0\.", ".ffn.gate.0."),
        (r"\.layer\.1\.DenseReluDense\.wi_1\.", ".ffn.fc1."),
        (r"\.layer\.1\.DenseReluDense\.wo\.", ".ffn.fc2."),
    ):
        name = re.sub(pattern, replacement, name)
    return name


def plain(module, rename=lambda name: name):
    """Return a module's tensors, none shared, by other names."""
    return {rename(name): one.detach().clone() for name, one in module.state_dict().items()}


def tiny_transformer():
    torch.manual_seed(3)
    sizes = wan_names.transformer_sizes(TINY_CONFIG, "config.json")
    return WanTransformer3DModel(**sizes).eval()


def tiny_vae():
    torch.manual_seed(4)
    return AutoencoderKLWan(**TINY_VAE).eval()


def tiny_text():
    torch.manual_seed(5)
    return UMT5EncoderModel(UMT5Config(**TINY_TEXT)).eval()


WORDS = ["<pad>", "</s>", "<unk>", "a", "clean", "beach", "empty", "scene"]


def save_tokenizer(folder):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return a tiny model's files as Wan publishes them: one file each, in its own names."""
    folder = tmp_path_factory.mktemp("published")
    save_file(plain(tiny_transformer(), in_wan), folder / "transformer.safetensors")
    save_file(plain(tiny_vae(), vae_in_wan), folder / "vae.safetensors")
    text = plain(tiny_text(), text_in_wan)
    text.pop("encoder.embed_tokens.weight", None)
    save_file(text, folder / "text.safetensors")
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG), encoding="utf-8")
    save_tokenizer(folder / "tokenizer")
    return {
        "transformer": folder / "transformer.safetensors",
        "transformer_config": folder / "config.json",
        "vae": folder / "vae.safetensors",
        "text_encoder": folder / "text.safetensors",
        "tokenizer": folder / "tokenizer",
    }


@pytest.fixture
def loaded(published, monkeypatch, tmp_path):
    monkeypatch.setattr(wan_names, "UMT5_XXL", TINY_TEXT)
    monkeypatch.setattr(wan_names, "VAE_SIZES", TINY_VAE)
    return wan.load(tiny_spec(), published, cache=tmp_path / "cache")


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wan-casper-1.3b", "wan-casper-14b"])
def test_the_full_size_has_as_many_parameters_as_planned_with(name):
    shape = spec_named(name).architecture
    config = {
        **TINY_CONFIG,
        "dim": shape.width,
        "num_heads": shape.heads,
        "num_layers": shape.blocks,
        "ffn_dim": round(shape.width * shape.ff_ratio),
        "freq_dim": 256,
        "text_dim": 4096,
    }
    with torch.device("meta"):
        model = WanTransformer3DModel(**wan_names.transformer_sizes(config, "config.json"))
        vae = AutoencoderKLWan(**wan_names.VAE_SIZES)
        text = UMT5EncoderModel(UMT5Config(**wan_names.UMT5_XXL))
    assert sum(one.numel() for one in model.parameters()) == shape.parameters
    assert sum(one.numel() for one in vae.parameters()) == shape.vae_parameters
    assert sum(one.numel() for one in text.parameters()) == shape.text_parameters


def test_a_configuration_in_diffusers_words_says_the_same():
    sizes = wan_names.transformer_sizes(TINY_CONFIG, "config.json")
    again = {**sizes, "patch_size": [1, 2, 2], "_class_name": "WanTransformer3DModel"}
    assert wan_names.transformer_sizes(again, "config.json") == sizes


def test_a_configuration_of_another_kind_is_refused_by_file():
    with pytest.raises(WeightsRefused, match=r"config\.json is not of a Wan transformer"):
        wan_names.transformer_sizes({"hidden_size": 3}, "config.json")


def test_another_size_than_planned_with_is_refused(published):
    with pytest.raises(WeightsRefused, match="24 wide with 2 blocks and 36 channels, not 1536, 30"):
        wan.load(spec_named("wan-casper-1.3b"), published)


# --- names ---------------------------------------------------------------------------------------


def test_every_tensor_of_a_published_transformer_lands_where_it_came_from(loaded):
    wanted = tiny_transformer().state_dict()
    found = loaded._transformer.state_dict()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_every_tensor_of_a_published_vae_lands_where_it_came_from(loaded):
    wanted, found = tiny_vae().state_dict(), loaded._vae.state_dict()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_published_text_encoder_gives_the_same_embedding(loaded):
    ids = torch.tensor([[3, 4, 5, 1] + [0] * 508])
    mask = (torch.arange(512) < 4).long()[None]
    with torch.no_grad():
        wanted = tiny_text()(ids, attention_mask=mask).last_hidden_state
    found = loaded.text("a clean beach")
    assert torch.equal(found[:, :4], wanted[:, :4])
    assert found.shape == (1, 512, 16)
    assert found[:, 4:].abs().max() == 0


@pytest.mark.parametrize("role", ["transformer", "vae", "text_encoder"])
def test_folders_in_the_libraries_own_layout_load_too(published, tmp_path, role):
    made = {"transformer": tiny_transformer, "vae": tiny_vae, "text_encoder": tiny_text}[role]()
    made.save_pretrained(tmp_path)
    spec, device = tiny_spec(), torch.device("cpu")
    if role == "transformer":
        files = {"transformer": tmp_path, "transformer_config": tmp_path / "config.json"}
        found = wan.load_transformer(spec, files, device=device, dtype=torch.float32)
    elif role == "vae":
        found = wan.load_vae(spec, tmp_path, device=device, dtype=torch.float32)
    else:
        how = {"device": device, "dtype": torch.float32, "width": 16}
        found = wan.load_encoder(tmp_path, title="t", **how)
    wanted = made.state_dict()
    assert all(torch.equal(found.state_dict()[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("role", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("fault", ["lacks one", "has one more", "another shape"])
def test_a_file_that_does_not_fit_is_refused_by_the_tensor(
    published, tmp_path, monkeypatch, role, fault
):
    monkeypatch.setattr(wan_names, "UMT5_XXL", TINY_TEXT)
    monkeypatch.setattr(wan_names, "VAE_SIZES", TINY_VAE)
    tensors = load_file(published[role])
    odd = {
        "transformer": "blocks.1.cross_attn.k_img.weight",
        "vae": "decoder.upsamples.4.shortcut.weight",
        "text_encoder": "blocks.1.ffn.gate.0.weight",
    }[role]
    if fault == "lacks one":
        del tensors[odd]
        # Of what is not there only the class's own name is known, but for the text encoder.
        odd = {
            "transformer": "blocks.1.attn2.add_k_proj.weight",
            "vae": "decoder.up_blocks.1.resnets.0.conv_shortcut.weight",
            "text_encoder": odd,
        }[role]
    elif fault == "has one more":
        odd = f"{odd}x"
        tensors[odd] = torch.zeros(2)
    else:
        tensors[odd] = torch.zeros(3, 3)
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(WeightsRefused, match=re.escape(odd)):
        wan.load(tiny_spec(), {**published, role: tmp_path / "x.safetensors"}).text("a")


def test_a_lora_in_wans_names_is_merged_while_loading(published, tmp_path):
    up, down = torch.full((24, 1), 2.0), torch.full((1, 24), 0.5)
    head = "lora_unet__blocks_1_self_attn_q"
    save_file(
        {
            f"{head}.lora_up.weight": up,
            f"{head}.lora_down.weight": down,
            f"{head}.alpha": torch.tensor(0.25),
        },
        tmp_path / "lora.safetensors",
    )
    files = {**published, "lora": tmp_path / "lora.safetensors"}
    how = {"device": torch.device("cpu"), "dtype": torch.float32}
    found = wan.load_transformer(tiny_spec(), files, **how).state_dict()
    wanted = tiny_transformer().state_dict()
    name = "blocks.1.attn1.to_q.weight"
    assert torch.equal(found[name], wanted[name] + 0.25)  # 2.0 * 0.5 * alpha 0.25 / rank 1
    assert all(torch.equal(found[one], wanted[one]) for one in wanted if one != name)


# --- what it computes ----------------------------------------------------------------------------

FRAMES, LATENT_FRAMES, SIDE = 9, 3, 32


def clip():
    values = np.linspace(-1, 1, FRAMES * SIDE * SIDE * 3, dtype=np.float32)
    return np.sin(40 * values).reshape(FRAMES, SIDE, SIDE, 3).astype(np.float32)


def trimask():
    made = np.full((FRAMES, SIDE, SIDE, 1), KEEP, np.uint8)
    made[:, :16] = EDIT
    made[5] = UNKNOWN
    return made


def test_latents_are_the_mode_less_the_mean_over_the_spread(loaded):
    video = torch.from_numpy(clip()).permute(3, 0, 1, 2)[None]
    vae = tiny_vae()
    with torch.no_grad():
        mode = vae.encode(video).latent_dist.mode()
    mean, spread = vae.config.latents_mean, vae.config.latents_std
    found = loaded.encode(clip())
    assert found.shape == (1, LATENT_FRAMES, 16, 4, 4)
    for channel in (0, 7, 15):
        wanted = (mode[0, channel] - mean[channel]) / spread[channel]
        assert torch.allclose(found[0, :, channel], wanted, atol=ROUNDING)


def test_decoding_undoes_the_scaling(loaded):
    latents = torch.linspace(-1, 1, LATENT_FRAMES * 16 * 16).reshape(1, LATENT_FRAMES, 16, 4, 4)
    vae = tiny_vae()
    mean = torch.tensor(vae.config.latents_mean).view(1, 16, 1, 1, 1)
    spread = torch.tensor(vae.config.latents_std).view(1, 16, 1, 1, 1)
    with torch.no_grad():
        wanted = vae.decode(latents.transpose(1, 2) * spread + mean).sample
    found = loaded.decode(latents)
    assert found.shape == (FRAMES, SIDE, SIDE, 3)
    assert np.allclose(found, wanted[0].permute(1, 2, 3, 0).numpy(), atol=ROUNDING)


def test_the_condition_is_the_folded_mask_then_the_plate(loaded):
    plate = torch.full((1, LATENT_FRAMES, 16, 4, 4), 0.3)
    found = loaded.condition(plate, trimask())
    assert found.shape == (1, LATENT_FRAMES, 20, 4, 4)
    assert torch.equal(found[:, :, 4:], plate)
    # Frame 5 is the first of latent frame 2, unknown all over: 1 - 127/255, never scaled.
    assert torch.allclose(found[0, 2, 0], torch.tensor(128 / 255), atol=ROUNDING)
    assert found[0, 0, :4, 0].abs().max() == 0  # EDIT, far from its border
    assert torch.equal(found[0, 0, :4, 3], torch.ones(4, 4))  # KEEP


def test_a_forward_is_the_librarys_own_with_a_picture_of_zeros(loaded):
    torch.manual_seed(6)
    latents, condition = torch.randn(2, 3, 16, 4, 4), torch.randn(2, 3, 20, 4, 4)
    text = torch.randn(2, 512, 16)
    given = torch.cat([latents, condition], dim=2).permute(0, 2, 1, 3, 4)
    with torch.no_grad():
        wanted = tiny_transformer()(
            given,
            torch.tensor([700.0, 700.0]),
            text,
            torch.zeros(2, 257, 1280),
            return_dict=False,
        )[0]
    found = loaded.predict(latents, 700.0, text, condition)
    assert torch.allclose(found, wanted.permute(0, 2, 1, 3, 4), atol=ROUNDING)
    assert loaded.forwards == 2


def test_the_schedule_is_the_flow_of_the_reference_with_shift_five(loaded):
    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=5.0)
    theirs.set_timesteps(4)
    assert loaded.schedule(4).timesteps == pytest.approx(theirs.timesteps.tolist(), abs=1e-3)


class Run:
    """A context without an engine: progress is noted, nothing is kept or cancelled."""

    def __init__(self):
        self.steps = []

    def progress(self, stage, step, total):
        self.steps.append((stage, step, total))

    def check_cancelled(self):
        pass

    def checkpoint(self, name, tensors=None):
        return None


def test_a_tiny_one_goes_from_plate_to_picture_and_says_its_steps(loaded):
    run = Run()
    condition = loaded.condition(loaded.encode(clip()), trimask())
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn((2, LATENT_FRAMES, 16, 4, 4), generator=generator)
    made = denoise(
        loaded,
        noise,
        condition,
        loaded.text("empty scene"),
        schedule=loaded.schedule(2),
        windows=windows.plan(LATENT_FRAMES, 21, 4, even=False),
        ctx=run,
    )
    assert made.shape == noise.shape
    assert run.steps == [("sample", 0, 2), ("sample", 1, 2), ("sample", 2, 2)]
    assert loaded.forwards == 4  # two passes, two steps
    pictures = loaded.decode(made[:1])
    assert pictures.shape == (FRAMES, SIDE, SIDE, 3)
    assert np.isfinite(pictures).all()
    assert pictures.std() > 0


def test_the_text_encoder_is_loaded_for_a_new_prompt_only_and_dropped_before_sampling(
    published, monkeypatch, tmp_path
):
    monkeypatch.setattr(wan_names, "UMT5_XXL", TINY_TEXT)
    monkeypatch.setattr(wan_names, "VAE_SIZES", TINY_VAE)
    first = wan.load(tiny_spec(), published, cache=tmp_path)
    made = first.text("a clean beach")
    assert first._prompts.loads == 1
    first.encode(clip())
    assert first._prompts._encoder is None
    again = wan.load(tiny_spec(), published, cache=tmp_path)
    assert torch.equal(again.text("a clean beach"), made)
    assert again._prompts.loads == 0


def test_a_prompt_is_counted_uncut_with_its_end(loaded):
    assert loaded.count_text_tokens("a clean beach") == 4
    assert loaded.count_text_tokens("a " * 600) == 601
    assert loaded.text("a " * 600).shape == (1, 512, 16)


def test_identity_changes_with_weights_and_settings(published, monkeypatch, tmp_path, loaded):
    other = tmp_path / "other.safetensors"
    tensors = plain(tiny_transformer(), in_wan)
    tensors["head.head.bias"] += 1
    save_file(tensors, other)
    same = wan.load(tiny_spec(), published).identity
    changed = wan.load(tiny_spec(), {**published, "transformer": other}).identity
    tiled = wan.load(tiny_spec(), published, settings=wan.LoadSettings(tiling=True)).identity
    assert loaded.identity == same
    assert len({same, changed, tiled}) == 3


@pytest.mark.parametrize("encodes", [False, True])
def test_tiles_are_for_what_asked_for_them(published, encodes, loaded):
    settings = wan.LoadSettings(tiling=True, encode_tiling=encodes)
    tiled = wan.load(tiny_spec(), published, settings=settings)
    found = []
    for name in ("encode", "decode"):
        real = getattr(tiled._vae, name)

        def seen(given, real=real):
            found.append(tiled._vae.use_tiling)
            return real(given)

        setattr(tiled._vae, name, seen)
    tiled.decode(tiled.encode(np.zeros((1, 16, 16, 3), np.float32)))
    assert found == [encodes, True]
