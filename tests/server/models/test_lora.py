# SPDX-License-Identifier: Apache-2.0
"""A LoRA is what its formula says, and one of another model never passes for no change."""

import pytest
import torch
from safetensors.torch import save_file

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server.models import lora

UP = torch.tensor([[1.0], [2.0]])  # [out 2, rank 1]
DOWN = torch.tensor([[3.0, 4.0, 5.0]])  # [rank 1, in 3]
PRODUCT = torch.tensor([[3.0, 4.0, 5.0], [6.0, 8.0, 10.0]])
BASE = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])
NAME = "blocks.0.self_attn.q.weight"

KOHYA = "lora_unet__blocks_0_self_attn_q"
SPELLINGS = {
    "kohya": (f"{KOHYA}.lora_up.weight", f"{KOHYA}.lora_down.weight"),
    "kohya, one underscore": (
        "lora_unet_blocks_0_self_attn_q.lora_up.weight",
        "lora_unet_blocks_0_self_attn_q.lora_down.weight",
    ),
    "PEFT": ("blocks.0.self_attn.q.lora_B.weight", "blocks.0.self_attn.q.lora_A.weight"),
    "diffusers": (
        "transformer.blocks.0.self_attn.q.lora_B.weight",
        "transformer.blocks.0.self_attn.q.lora_A.weight",
    ),
    "PEFT with an adapter's name": (
        "base_model.model.blocks.0.self_attn.q.lora_B.default.weight",
        "base_model.model.blocks.0.self_attn.q.lora_A.default.weight",
    ),
    "older diffusers": (
        "transformer.blocks.0.self_attn.q.lora.up.weight",
        "transformer.blocks.0.self_attn.q.lora.down.weight",
    ),
}


def state(**more):
    return {NAME: BASE.clone(), "blocks.0.self_attn.q.bias": torch.zeros(2), **more}


def merged(tensors, weight=1.0, base=None):
    return lora.merge(base or state(), tensors, weight, source="x.safetensors")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_product_is_added_where_there_is_no_alpha(spelling):
    up, down = SPELLINGS[spelling]
    assert torch.equal(merged({up: UP, down: DOWN})[NAME], BASE + PRODUCT)


def test_alpha_over_rank_and_weight_scale_what_is_added():
    up, down = SPELLINGS["kohya"]
    tensors = {
        up: torch.cat([UP, UP], dim=1),
        down: torch.cat([DOWN, DOWN]),
        f"{KOHYA}.alpha": torch.tensor(0.5),
    }
    # The product of rank two is twice PRODUCT; alpha / rank is a quarter; the weight a half.
    assert torch.equal(merged(tensors, weight=0.5)[NAME], BASE + 2 * PRODUCT / 4 / 2)


def test_a_weight_of_zero_and_what_is_not_named_stay_as_they_are():
    up, down = SPELLINGS["kohya"]
    found = merged({up: UP, down: DOWN}, weight=0.0)
    assert torch.equal(found[NAME], BASE)
    found = merged({up: UP, down: DOWN})
    assert torch.equal(found["blocks.0.self_attn.q.bias"], torch.zeros(2))


def test_what_is_given_is_not_changed():
    up, down = SPELLINGS["kohya"]
    before = state()
    merged({up: UP, down: DOWN}, base=before)
    assert torch.equal(before[NAME], BASE)


def test_a_convolution_is_merged_in_its_own_shape():
    name = "conv.weight"
    up, down = torch.tensor([[[[2.0]]]]), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    tensors = {"conv.lora_B.weight": up, "conv.lora_A.weight": down}
    found = merged(tensors, base={name: torch.zeros(1, 1, 2, 2)})[name]
    assert torch.equal(found, torch.tensor([[[[2.0, 4.0], [6.0, 8.0]]]]))


def test_the_sum_is_made_in_float32_and_kept_in_the_weights_own_type():
    up, down = SPELLINGS["kohya"]
    # In bfloat16 256 + 0.5 + 0.5 would stay 256 at every step; 256 + 1.0 rounds to 256 or 258.
    base = {NAME: torch.full((2, 3), 256.0, dtype=torch.bfloat16)}
    tensors = {up: torch.full((2, 1), 1.5).bfloat16(), down: torch.full((1, 3), 1.0).bfloat16()}
    found = merged(tensors, base=base)[NAME]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, torch.full((2, 3), 258.0, dtype=torch.bfloat16))  # 257.5 rounded


def test_the_files_names_and_the_models_names_both_lead_to_the_weight():
    names = {"blocks.0.attn1.to_q.weight": NAME}
    for key in (KOHYA, "transformer.blocks.0.attn1.to_q"):
        ends = ("up", "down") if key == KOHYA else ("B", "A")
        tensors = {f"{key}.lora_{ends[0]}.weight": UP, f"{key}.lora_{ends[1]}.weight": DOWN}
        found = lora.Lora(tensors, names, source="x").apply("blocks.0.attn1.to_q.weight", BASE)
        assert torch.equal(found, BASE + PRODUCT)


UPPER, LOWER = SPELLINGS["kohya"]


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (
            {"lora_unet__blocks_9_self_attn_q.lora_up.weight": UP}
            | {"lora_unet__blocks_9_self_attn_q.lora_down.weight": DOWN},
            "no layer for its 'lora_unet__blocks_9_self_attn_q'",
        ),
        ({"lora_te_x.lora_up.weight": UP, "lora_te_x.lora_down.weight": DOWN}, "'lora_te_x'"),
        ({UPPER: UP}, f"only one half of '{KOHYA}'"),
        ({UPPER: UP, LOWER: DOWN, f"{KOHYA}.dora_scale": UP}, f"'{KOHYA}.dora_scale'"),
        ({UPPER: UP, LOWER: DOWN[:, :2]}, f"changes 2x2 of '{NAME}', which is 2x3"),
        ({UPPER: torch.ones(2, 2), LOWER: DOWN}, "does not fit"),
        ({}, "is empty"),
        (
            {UPPER: UP, LOWER: DOWN} | {SPELLINGS["PEFT"][0]: UP, SPELLINGS["PEFT"][1]: DOWN},
            "changes twice",
        ),
    ],
    ids=["layer", "text encoder", "half", "DoRA", "shape", "rank", "empty", "twice"],
)
def test_a_lora_that_does_not_belong_is_refused_by_the_key(tensors, sentence):
    with pytest.raises(WeightsRefused, match=sentence) as caught:
        merged(tensors)
    assert "x.safetensors" in caught.value.message


def test_a_lora_is_read_from_its_file(tmp_path):
    file = tmp_path / "lora.safetensors"
    save_file({UPPER: UP, LOWER: DOWN}, file)
    found = lora.load(file, {NAME: NAME}, 2.0).apply(NAME, BASE)
    assert torch.equal(found, BASE + 2 * PRODUCT)


def test_a_lora_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(WeightsMissing, match=r"lora\.safetensors"):
        lora.load(tmp_path / "lora.safetensors", {NAME: NAME})


def test_a_file_that_the_library_cannot_read_is_refused_by_name(tmp_path):
    file = tmp_path / "damaged.safetensors"
    save_file({"a.lora_up.weight": UP, "a.lora_down.weight": DOWN}, file)
    plain = file.read_bytes()
    # Of a type that nobody knows: the header is whole and as long as it says.
    file.write_bytes(plain.replace(b'"F32"', b'"X32"'))
    with pytest.raises(WeightsRefused, match="damaged") as refusal:
        lora.load(file, {NAME: NAME})
    assert str(file) in refusal.value.message
