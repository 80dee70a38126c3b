# SPDX-License-Identifier: Apache-2.0
"""What the worker says of its machine, and what is installed on it."""

import subprocess
import sys

import psutil
import pytest

from gencomp_protocol.errors import BadKnob
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


def test_a_folder_that_is_not_there_has_no_backbone_and_says_of_each_what_is_missing(tmp_path):
    place = WeightsPlace(tmp_path / "none", tmp_path / "lock", ("production",))
    found = with_weights(Machine(), place.shelf(), place.allowed)
    assert found.backbones == ()
    assert str(tmp_path / "none" / "casper") in found.refused["casper"].sentence


def test_a_licence_class_that_there_is_not_is_named(tmp_path):
    place = WeightsPlace(tmp_path, tmp_path / "lock", ("produktion",))
    with pytest.raises(BadKnob, match="Did you mean 'production'"):
        with_weights(Machine(), place.shelf(), place.allowed)
