# SPDX-License-Identifier: Apache-2.0
"""Weights are read strictly, from safetensors alone, and every refusal says what is wrong."""

import json
import pickle

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import save_file
from torch import nn

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server import weights_progress
from gencomp_server.models import convert, loading
from gencomp_server.models.cogvideox import CONFIGS


class Small(nn.Module):
    """Two layers, one of them under two names, and a buffer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.last = nn.Linear(2, 3, bias=False)
        self.twin = self.last
        self.register_buffer("places", torch.zeros(4))


def weights():
    return {
        "first.weight": torch.arange(6.0).reshape(2, 3),
        "first.bias": torch.tensor([1.0, -1.0]),
        "last.weight": torch.arange(6.0, 12.0).reshape(3, 2),
        "places": torch.tensor([1.0, 2.0, 3.0, 4.0]),
    }


def load(place, **changes):
    made = loading.build_on_meta(Small)
    how = {"title": "Small", "device": "cpu", "dtype": torch.float32, **changes}
    loading.load_into(made, place, **how)
    return made


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "model.safetensors"
    save_file(weights(), made)
    return made


def refused(place, kind=WeightsRefused):
    with pytest.raises(kind) as caught:
        load(place)
    return caught.value


# --- what is read --------------------------------------------------------------------------------


def test_a_file_fills_every_place_of_a_model_that_had_no_memory(file):
    made = load(file)
    for name, tensor in weights().items():
        assert torch.equal(made.state_dict()[name], tensor)
    assert made.twin.weight is made.last.weight
    assert not made.training


def test_weights_get_the_type_asked_for(file):
    assert load(file, dtype=torch.bfloat16).last.weight.dtype == torch.bfloat16


def test_weights_kept_in_half_precision_are_taken(tmp_path):
    save_file({name: one.half() for name, one in weights().items()}, tmp_path / "a.safetensors")
    assert torch.equal(load(tmp_path / "a.safetensors").first.bias, torch.tensor([1.0, -1.0]))


def test_a_folder_with_one_file_is_that_file(file):
    assert torch.equal(load(file.parent).places, weights()["places"])


def test_shards_are_joined_by_their_index(tmp_path):
    save_shards(tmp_path)
    assert torch.equal(load(tmp_path).last.weight, weights()["last.weight"])
    assert torch.equal(load(tmp_path).first.bias, weights()["first.bias"])


def test_names_in_the_file_may_differ_where_that_is_said(tmp_path):
    renamed = {"old." + name: one for name, one in weights().items()}
    save_file(renamed, tmp_path / "a.safetensors")
    names = {name: "old." + name for name in weights()}
    made = load(tmp_path / "a.safetensors", names=names)
    assert torch.equal(made.places, weights()["places"])


def test_what_is_read_may_be_changed_on_its_way(file):
    made = load(file, change=lambda name, one: one + 1 if name == "places" else one)
    assert made.places.tolist() == [2.0, 3.0, 4.0, 5.0]
    assert made.first.bias.tolist() == [1.0, -1.0]


def test_reading_is_told_by_its_bytes_from_file_to_file(tmp_path):
    save_shards(tmp_path)  # 24 and 8 bytes in the one file, 16 and 24 in the other.
    told = []
    with weights_progress.telling(lambda *said: told.append(said)):
        load(tmp_path)
        load(tmp_path, stage="loading text encoder")
    assert told[:5] == [("loading weights", percent, 100) for percent in (0, 33, 44, 66, 100)]
    assert [stage for stage, _, _ in told[5:]] == ["loading text encoder"] * 5


def test_what_cannot_be_read_has_no_bytes_to_read(file, tmp_path):
    assert loading.bytes_in([file, file.parent]) == 2 * 72
    assert loading.bytes_in([file, tmp_path / "none.safetensors"]) == 0


def save_shards(folder):
    names = list(weights())
    shards = {"model-00001-of-00002.safetensors": names[:2]}
    shards["model-00002-of-00002.safetensors"] = names[2:]
    for shard, inside in shards.items():
        save_file({name: weights()[name] for name in inside}, folder / shard)
    where = {name: shard for shard, inside in shards.items() for name in inside}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    return index


# --- what does not fit ---------------------------------------------------------------------------


def test_another_shape_is_refused_with_both_shapes(tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({**weights(), "first.weight": torch.zeros(2, 5)}, file)
    error = refused(file)
    assert error.message == (
        f"The weights {file} do not fit Small, 'first.weight' is 2x5 where 2x3 is needed."
    )
    assert error.details["file"] == str(file)


def test_a_missing_tensor_is_named(tmp_path):
    save_file({k: v for k, v in weights().items() if k != "first.bias"}, tmp_path / "a.safetensors")
    assert "'first.bias' is missing" in refused(tmp_path / "a.safetensors").message


def test_a_tensor_too_many_is_named(tmp_path):
    save_file({**weights(), "more.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert "it holds 'more.weight', which that model lacks" in refused(tmp_path).message


def test_whole_numbers_are_no_weights(tmp_path):
    wrong = {**weights(), "first.bias": torch.tensor([1, 2])}
    save_file(wrong, tmp_path / "a.safetensors")
    assert "'first.bias' holds I64" in refused(tmp_path).message


def test_a_model_that_was_refused_has_taken_nothing(tmp_path):
    save_file({**weights(), "more.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    made = loading.build_on_meta(Small)
    with pytest.raises(WeightsRefused):
        loading.load_into(made, tmp_path, title="Small", device="cpu", dtype=torch.float32)
    assert all(one.is_meta for one in made.state_dict().values())


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((3072, 33, 2, 2), "CogVideoX-Fun V1.1 5B InP (33 channels)"),
        ((3072, 16, 2, 2), "CogVideoX 5B text to video (16 channels)"),
        ((3072, 32, 2, 2), "CogVideoX 5B image to video (32 channels)"),
        ((3072, 384), "a model trained from CogVideoX-Fun V1.5 5B InP with 48 channels"),
    ],
)
def test_weights_of_another_model_of_the_family_are_recognised(tmp_path, shape, name):
    file = tmp_path / "a.safetensors"
    save_file({"patch_embed.proj.weight": torch.zeros(shape, dtype=torch.bfloat16)}, file)
    made = loading.build_on_meta(
        lambda: CogVideoXTransformer3DModel(**CONFIGS["cogvideox-fun-v1.5-5b-inp"])
    )
    with pytest.raises(WeightsRefused) as caught:
        loading.check_fits(made, loading.tensors_in(file), title="V1.5", place=file)
    assert "'patch_embed.proj.weight' is" in caught.value.message
    assert "where 3072x264 is needed" in caught.value.message
    assert f"these are weights of {name}" in caught.value.message


@pytest.mark.parametrize(
    ("key", "shape", "needed"),
    [
        ("patch_embed.proj.weight", (1920, 16, 2, 2), "3072x264"),
        ("patch_embed.text_proj.weight", (3072, 7), "3072x4096"),
    ],
)
def test_a_wrong_shape_that_tells_no_model_is_named_alone(tmp_path, key, shape, needed):
    made = loading.build_on_meta(
        lambda: CogVideoXTransformer3DModel(**CONFIGS["cogvideox-fun-v1.5-5b-inp"])
    )
    found = {
        name: loading.Stored(tmp_path, "BF16", tuple(one.shape), 0, 0)
        for name, one in made.state_dict().items()
    }
    found[key] = loading.Stored(tmp_path, "BF16", shape, 0, 0)
    with pytest.raises(WeightsRefused) as caught:
        loading.check_fits(made, found, title="V1.5", place=tmp_path)
    spelt = "x".join(map(str, shape))
    assert caught.value.message.endswith(f"'{key}' is {spelt} where {needed} is needed.")


@pytest.mark.parametrize(
    ("key", "shape", "name"),
    [
        ("patch_embedding.weight", (8, 36, 1, 2, 2), "a Wan transformer (8 wide, 36 channels)"),
        ("decoder.conv_in.conv.weight", (4,), "a VAE of CogVideoX"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", (4,), "a T5 text encoder"),
        ("transformer.blocks.0.to_q.lora_A.weight", (4,), "a LoRA, not of a whole model"),
        ("patch_embed.fg_proj.weight", (4,), "GenCompositor"),
    ],
)
def test_weights_of_something_else_are_recognised(tmp_path, key, shape, name):
    save_file({key: torch.zeros(shape)}, tmp_path / "a.safetensors")
    assert f"these are weights of {name}." in refused(tmp_path).message


# --- what cannot be read -------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 20, 60])
def test_a_truncated_file_is_refused_with_both_lengths(file, lost):
    whole = file.read_bytes()
    file.write_bytes(whole[:-lost])
    error = refused(file)
    assert f"{file} is cut short: it has {len(whole) - lost} bytes" in error.message


@pytest.mark.parametrize("left", [1, 8, 9, 40])
def test_a_file_cut_inside_its_header_is_cut_short(file, left):
    file.write_bytes(file.read_bytes()[:left])
    error = refused(file)
    assert error.message.endswith(f"is cut short: it ends inside its header, after {left} bytes.")
    assert error.details["file"] == str(file)


def test_a_file_with_bytes_behind_its_end_is_damaged(file):
    file.write_bytes(file.read_bytes() + b"more")
    assert "is damaged" in refused(file).message


def test_a_header_that_is_no_json_is_damaged(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes((16).to_bytes(8, "little") + b"{" * 16)
    assert refused(file).message.endswith("is damaged: its header cannot be read.")


def test_offsets_that_run_backwards_are_damage(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}).encode()
    file = tmp_path / "a.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "is damaged" in refused(file).message


def test_an_empty_file_is_cut_short(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert refused(tmp_path / "a.safetensors").message.endswith("is cut short: it is empty.")


@pytest.mark.parametrize("text", [b"numbers in a row, no header", bytes(64)])
def test_a_file_that_begins_as_nothing_known_is_damaged_not_cut_short(tmp_path, text):
    (tmp_path / "a.safetensors").write_bytes(text)
    assert "is damaged" in refused(tmp_path / "a.safetensors").message


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_file_and_the_tensor_that_are_not_finite_are_found(tmp_path, bad):
    index = save_shards(tmp_path)
    assert loading.not_finite_in(index) is None
    spoilt = torch.tensor([1.0, 2.0, bad, 4.0], dtype=torch.bfloat16)
    shard = tmp_path / "model-00002-of-00002.safetensors"
    save_file({"last.weight": weights()["last.weight"], "places": spoilt}, shard)
    assert loading.not_finite_in(tmp_path) == (shard, "places")


@pytest.mark.fault("F17")
@pytest.mark.parametrize("name", ["model.bin", "model.pt"])
def test_a_pickle_is_known_by_its_bytes_whatever_its_name(tmp_path, name):
    torch.save(weights(), tmp_path / name)
    error = refused(tmp_path / name)
    assert f"{tmp_path / name} is a pickle" in error.message
    assert error.hint == (
        f"Convert it: gencomp weights convert {tmp_path / name} {tmp_path / 'model.safetensors'}"
    )


@pytest.mark.fault("F17")
def test_a_pickle_under_the_name_of_its_target_makes_room_for_it(tmp_path):
    file = tmp_path / "model.safetensors"
    torch.save(weights(), file)
    hint = refused(file).hint
    renamed = tmp_path / "model.pt"
    assert hint == (f"Rename it to model.pt. Convert it: gencomp weights convert {renamed} {file}")
    file.rename(renamed)
    convert.convert(renamed, file)
    assert torch.equal(load(file).places, weights()["places"])


@pytest.mark.fault("F17")
def test_a_bare_pickle_is_known_too(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(pickle.dumps({"a": 1}))
    assert "is a pickle" in refused(tmp_path / "a.safetensors").message


@pytest.mark.parametrize("length", [0x0280, 0x043C, 0x0420, 0x0580])
def test_a_header_whose_length_looks_like_another_kind_of_file_is_read(tmp_path, length):
    facts = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    header = json.dumps(facts).encode().ljust(length)
    file = tmp_path / "a.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + header + bytes(4))
    assert loading.read_header(file)["a"].shape == (1,)


@pytest.mark.fault("F17")
def test_a_folder_of_pickles_is_refused_with_the_way_to_convert(tmp_path):
    torch.save(weights(), tmp_path / "pytorch_model.bin")
    assert "gencomp weights convert" in refused(tmp_path).hint


def test_a_placeholder_of_git_lfs_is_said_to_be_one(tmp_path):
    (tmp_path / "a.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    assert "Git LFS placeholder" in refused(tmp_path).message


def test_a_saved_web_page_is_said_to_be_one(tmp_path):
    (tmp_path / "a.safetensors").write_text("<!DOCTYPE html><html>quota exceeded</html>")
    assert "is a web page, not weights" in refused(tmp_path).message


def test_a_file_that_is_not_there_is_missing(tmp_path):
    error = refused(tmp_path / "a.safetensors", WeightsMissing)
    assert str(tmp_path / "a.safetensors") in error.message


def test_an_empty_folder_misses_its_weights(tmp_path):
    error = refused(tmp_path, WeightsMissing)
    assert str(tmp_path / "diffusion_pytorch_model.safetensors") in error.message


def test_a_missing_shard_is_named(tmp_path):
    save_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors" in refused(tmp_path, WeightsMissing).message


def test_a_shard_outside_its_folder_is_refused(tmp_path):
    index = save_shards(tmp_path)
    index.write_text(json.dumps({"weight_map": {"first.weight": "../elsewhere.safetensors"}}))
    assert "names a shard outside its folder: ../elsewhere.safetensors" in refused(index).message


def test_an_index_that_is_none_is_damaged(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("[]")
    assert "it is no index of shards" in refused(index).message


def test_two_sets_of_weights_in_a_folder_are_not_chosen_between(tmp_path):
    for name in ("a", "b"):
        save_file(weights(), tmp_path / f"{name}.safetensors")
    assert "holds several weights" in refused(tmp_path).message


# --- telling weights apart -----------------------------------------------------------------------


def test_a_fingerprint_tells_weights_apart_that_differ_in_one_number(file):
    before = loading.fingerprint(file)
    assert loading.fingerprint(file) == before
    changed = weights()
    changed["places"][3] = 5
    save_file(changed, file)
    assert loading.fingerprint(file) != before


def test_a_configuration_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(WeightsRefused, match="is no JSON object"):
        loading.read_config(tmp_path / "config.json")


@pytest.mark.parametrize("name", [".", "..", "a\0.safetensors", "a.pkl", "a", "a\\b.safetensors"])
def test_what_is_no_name_of_a_weights_file_is_refused_in_an_index(tmp_path, name):
    index = save_shards(tmp_path)
    index.write_text(json.dumps({"weight_map": {"first.weight": name}}))
    message = refused(index).message
    assert str(index) in message
    assert "\0" not in message
