# SPDX-License-Identifier: Apache-2.0
"""Checkpoints become safetensors, and nothing in them is ever run."""

import json
import os
import pickle
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from gencomp_protocol.errors import BadKnob, UnwritableOutput, WeightsMissing, WeightsRefused
from gencomp_server import weights_cli
from gencomp_server.models.convert import convert, main

A = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
B = torch.tensor([1, 2, 3], dtype=torch.bfloat16)


class Trap:
    """What a pickle can do: make a folder as it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def save_distributed(state, folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.save(state, checkpoint_id=folder, no_dist=True)


def refused(source, tmp_path, kind=WeightsRefused):
    """Return the sentence of a refused conversion, having seen that nothing was written."""
    with pytest.raises(kind) as caught:
        convert(source, tmp_path / "out" / "x.safetensors")
    written = list((tmp_path / "out").rglob("*")) if (tmp_path / "out").exists() else []
    assert written == []
    return caught.value.message


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt"])
def test_tensors_come_out_as_they_went_in(tmp_path, ending):
    torch.save({"a": A, "b": B}, tmp_path / f"x{ending}")
    report = convert(tmp_path / f"x{ending}", tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert sorted(found) == ["a", "b"]
    assert torch.equal(found["a"], A)
    assert torch.equal(found["b"], B)
    assert found["b"].dtype == torch.bfloat16
    assert (report.tensors, report.unwrapped, report.left_out) == (2, (), ())
    assert report.size == (tmp_path / "x.safetensors").stat().st_size


def test_a_file_of_torchs_old_kind_is_read_too(tmp_path):
    torch.save({"a": A}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    convert(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], A)


def test_what_a_training_loop_puts_around_is_taken_off_and_named(tmp_path):
    state = {"state_dict": {"module.a": A, "module.b": B}, "epoch": 3, "lr": 0.1}
    torch.save(state, tmp_path / "x.ckpt")
    report = convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors")
    assert sorted(load_file(tmp_path / "x.safetensors")) == ["a", "b"]
    assert report.unwrapped == ("state_dict", "module.")
    assert report.left_out == ("epoch", "lr")


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    torch.save({"module.a": A, "b": B}, tmp_path / "x.pt")
    assert convert(tmp_path / "x.pt", tmp_path / "x.safetensors").unwrapped == ()
    assert sorted(load_file(tmp_path / "x.safetensors")) == ["b", "module.a"]


def test_tensors_that_share_memory_or_are_views_are_written_each_as_itself(tmp_path):
    torch.save({"a": A, "twin": A, "turned": A.T}, tmp_path / "x.pt")
    convert(tmp_path / "x.pt", tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert torch.equal(found["twin"], A)
    assert torch.equal(found["turned"], torch.tensor([[1.0, 0.5], [-2.0, 4.0]]))


# --- folders of shards


def put_shards(folder, shards, listed=None):
    """Write shards as accelerate does, and an index of them."""
    folder.mkdir()
    where = {}
    for name, tensors in shards.items():
        where.update(dict.fromkeys(tensors, name))
        write = save_file if name.endswith(".safetensors") else torch.save
        write(tensors, folder / name)
    index = {"metadata": {}, "weight_map": where if listed is None else listed}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


def test_shards_with_an_index_become_one_file(tmp_path):
    names = "pytorch_model-00001-of-00002.bin", "model-00002-of-00002.safetensors"
    put_shards(tmp_path / "s", {names[0]: {"a": A}, names[1]: {"b": B}})
    assert convert(tmp_path / "s", tmp_path / "x.safetensors").tensors == 2
    found = load_file(tmp_path / "x.safetensors")
    assert torch.equal(found["a"], A)
    assert torch.equal(found["b"], B)


def test_a_shard_that_is_not_there_is_named(tmp_path):
    put_shards(tmp_path / "s", {"1.bin": {"a": A}}, {"a": "1.bin", "b": "2.bin"})
    assert "2.bin" in refused(tmp_path / "s", tmp_path, WeightsMissing)


def test_shards_of_two_checkpoints_are_refused_by_the_odd_name(tmp_path):
    put_shards(tmp_path / "s", {"1.bin": {"a": A, "c": B}}, {"a": "1.bin"})
    assert "'c'" in refused(tmp_path / "s", tmp_path)


def test_an_index_that_points_outside_its_folder_is_refused(tmp_path):
    torch.save({"a": A}, tmp_path / "1.bin")
    put_shards(tmp_path / "s", {}, {"a": "../1.bin"})
    assert "../1.bin" in refused(tmp_path / "s", tmp_path)


def test_fsdp_shards_become_one_file_without_the_optimizer(tmp_path):
    state = {"model": {"blocks.0.a": A, "b": B}, "optimizer": {"step": 5, "m": A}}
    save_distributed(state, tmp_path / "d")
    report = convert(tmp_path / "d", tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert sorted(found) == ["b", "blocks.0.a"]
    assert torch.equal(found["blocks.0.a"], A)
    assert torch.equal(found["b"], B)
    assert report.unwrapped == ("model",)
    assert report.left_out == ("optimizer",)


def test_fsdp_shards_that_are_not_all_there_are_refused(tmp_path):
    save_distributed({"a": A}, tmp_path / "d")
    (tmp_path / "d" / "__0_0.distcp").unlink()
    assert "__0_0.distcp" in refused(tmp_path / "d", tmp_path)


def test_a_folder_without_index_or_metadata_is_refused(tmp_path):
    (tmp_path / "d").mkdir()
    assert "neither an index nor a .metadata" in refused(tmp_path / "d", tmp_path)


# --- what is refused


@pytest.mark.fault("F17")
def test_a_pickle_that_would_run_something_is_not_opened(tmp_path):
    torch.save({"a": A, "x": Trap(tmp_path / "sprung")}, tmp_path / "x.pt")
    sentence = refused(tmp_path / "x.pt", tmp_path)
    assert "more than tensors" in sentence
    assert "mkdir" in sentence
    assert not (tmp_path / "sprung").exists()


@pytest.mark.fault("F17")
def test_a_bare_pickle_is_not_opened(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    refused(tmp_path / "x.pt", tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.fault("F17")
def test_the_metadata_of_shards_is_not_opened_as_a_plain_pickle(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".metadata").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert "more than tensors" in refused(tmp_path / "d", tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.fault("F17")
def test_values_beside_the_tensors_of_shards_are_never_unpickled(tmp_path):
    save_distributed({"model": {"a": A}, "extra": {"x": Trap(tmp_path / "sprung")}}, tmp_path / "d")
    assert convert(tmp_path / "d", tmp_path / "x.safetensors").left_out == ("extra",)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("data", [b"", b"PK\3\4 not a zip", b"no checkpoint at all"])
def test_a_damaged_file_is_refused_by_name(tmp_path, data):
    (tmp_path / "x.pt").write_bytes(data)
    assert "x.pt" in refused(tmp_path / "x.pt", tmp_path)


def test_a_truncated_file_is_refused(tmp_path):
    torch.save({"a": torch.zeros(4096)}, tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(whole[: len(whole) // 2])
    assert "x.pt is damaged (it is cut short)" in refused(tmp_path / "x.pt", tmp_path)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ([A], "holds a list, not named tensors"),
        ({"epoch": 3}, "holds no tensors at its top"),
        ({"a": torch.tensor([1j])}, "'a'"),
        ({"a": A.to_sparse()}, "'a'"),
    ],
)
def test_what_is_no_state_dict_of_plain_tensors_is_refused(tmp_path, made, sentence):
    torch.save(made, tmp_path / "x.pt")
    assert sentence in refused(tmp_path / "x.pt", tmp_path)


def test_another_kind_of_file_and_none_are_refused(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"x")
    assert "no kind of checkpoint" in refused(tmp_path / "x.h5", tmp_path)
    assert "no checkpoint" in refused(tmp_path / "y.pt", tmp_path, WeightsMissing)


# --- where it is written


def test_what_is_there_is_never_overwritten(tmp_path):
    torch.save({"a": A}, tmp_path / "x.pt")
    (tmp_path / "x.safetensors").write_bytes(b"mine")
    with pytest.raises(UnwritableOutput, match="is there already"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == b"mine"


def test_a_destination_of_another_kind_is_refused(tmp_path):
    torch.save({"a": A}, tmp_path / "x.pt")
    with pytest.raises(BadKnob, match=r"does not end in \.safetensors"):
        convert(tmp_path / "x.pt", tmp_path / "x.bin")


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    torch.save({"a": A}, tmp_path / "x.pt")

    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gencomp_server.models.convert.safetensors.torch.save_file", full)
    with pytest.raises(Exception, match="no room"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pt"]


# --- in a process of its own


def test_the_process_says_report_or_error_in_one_line(tmp_path, capsys):
    torch.save({"a": A}, tmp_path / "x.pt")
    assert main([str(tmp_path / "x.pt"), str(tmp_path / "x.safetensors")]) == 0
    assert json.loads(capsys.readouterr().out)["report"]["tensors"] == 1
    assert main([str(tmp_path / "x.pt"), str(tmp_path / "x.safetensors")]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "unwritable-output"


@pytest.mark.slow
def test_the_command_converts_in_another_process(tmp_path):
    torch.save({"state_dict": {"a": A}}, tmp_path / "x.pt")
    report = weights_cli.convert(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert report["tensors"] == 1
    assert report["unwrapped"] == ["state_dict"]


@pytest.mark.parametrize("name", [".", "..", "../a.bin", "a\0.bin", "a.txt", "a"])
def test_what_is_no_name_of_a_shard_is_refused_in_an_index(tmp_path, name):
    put_shards(tmp_path / "s", {"a.bin": {"a": A}}, listed={"a": name})
    assert "names no weights file beside it" in refused(tmp_path / "s", tmp_path)
