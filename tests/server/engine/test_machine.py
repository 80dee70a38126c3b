# SPDX-License-Identifier: Apache-2.0
"""What the worker says of its machine, and what is installed on it."""

import subprocess
import sys

import psutil
import pytest

from gencomp_protocol.errors import BadKnob, OutOfMemory
from gencomp_server.contract import Machine
from gencomp_server.engine.machine import WeightsPlace, from_plain, probe, to_plain, with_weights


def test_a_processor_is_looked_at_without_a_tensor_library():
    code = (
        "import sys; sys.path[:0] = sys.argv[1].split(':');"
        "from gencomp_server.engine.machine import probe;"
        "found = probe('cpu'); print(found.device, found.teraflops > 0, 'torch' in sys.modules)"
    )
    roots = ":".join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", code, roots], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["cpu", "True", "False"]


def test_memory_is_that_of_the_machine():
    assert probe("cpu").memory_bytes == psutil.virtual_memory().total


def test_a_machine_crosses_the_pipe_without_its_weights():
    found = Machine("cuda:0", "a card", 10, 9, 295.0, ("casper",))
    assert from_plain(to_plain(found)) == Machine("cuda:0", "a card", 10, 9, 295.0)


def test_of_a_folder_that_is_not_there_only_what_ships_is_left_and_each_is_said_to_be_missing(
    tmp_path,
):
    place = WeightsPlace(tmp_path / "none", tmp_path / "lock", ("production",))
    found = with_weights(Machine(), place.shelf(), place.allowed)
    assert found.backbones == ("preview",)
    assert str(tmp_path / "none" / "casper") in found.refused["casper"].sentence


def test_a_licence_class_that_there_is_not_is_named(tmp_path):
    place = WeightsPlace(tmp_path, tmp_path / "lock", ("produktion",))
    with pytest.raises(BadKnob, match="Did you mean 'production'"):
        with_weights(Machine(), place.shelf(), place.allowed)


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        pytest.param((), "no GPU that PyTorch can use", id="none"),
        pytest.param(("A", "B"), r"only cuda:0 \(A\), cuda:1 \(B\)", id="two"),
    ],
)
def test_a_device_that_is_not_there_is_named_with_those_that_are(monkeypatch, cards, words):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: cards[i])
    with pytest.raises(BadKnob, match=words):
        probe("cuda:2")


def test_the_device_that_is_set_is_the_one_that_is_looked_at(monkeypatch):
    torch = pytest.importorskip("torch")
    asked = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: f"H100 at {place}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: asked.append(place) or (3, 8))
    found = probe("cuda:1")
    assert asked == [torch.device("cuda:1")]
    assert (found.device, found.name, found.free_bytes) == ("cuda:1", "H100 at cuda:1", 3)


def test_a_device_that_others_have_filled_is_said_with_the_cure(monkeypatch):
    torch = pytest.importorskip("torch")

    def full(place):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", full)
    with pytest.raises(OutOfMemory, match="other programs have it"):
        probe("cuda:0")
