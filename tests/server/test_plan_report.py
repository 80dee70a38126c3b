# SPDX-License-Identifier: Apache-2.0
"""What ``gencomp plan`` says of a job with a backbone."""

from dataclasses import asdict

from gencomp_protocol.errors import BadKnob, OutOfMemory, WeightsMissing, WeightsRefused
from gencomp_server.backbones import spec_named
from gencomp_server.contract import Machine
from gencomp_server.cost import estimate
from gencomp_server.plan_report import as_lines, as_plain, bytes_to_send

GB = 10**9


def plan(machine):
    cost = estimate(spec_named("casper"), (672, 384), 85, steps=50, machine=machine)
    made = asdict(cost.plan(memory_bytes=2 * GB, notes=("First.",)))
    return {**made, "device": machine.name, "layers": [{"name": "background"}, {"name": "ball"}]}


def test_every_figure_of_a_job_is_said_in_words():
    found = plan(Machine("cuda:0", "a card", 150 * GB, 149 * GB, 295.0))
    assert as_lines(found, 1_234_567_890) == [
        "layers    background, ball",
        "send      1.23 GB of pictures, those that the server lacks",
        "device    a card",
        "time      about 29 s",
        "memory    2.0 GB of main memory",
        "backbone  casper",
        "tokens    11314 a forward",
        "forwards  50",
        "compute   8.68 PFLOP in all",
        "by stage  prompt 23 GB, encode 31 GB, sample 14 GB, decode 31 GB of device memory",
        "placed    all weights on the device",
        "note: First.",
        "note: The video model is Casper on CogVideoX-Fun V1.5 5B InP.",
    ]


def test_on_a_processor_everything_lies_in_main_memory():
    found = plan(Machine("cpu", "16 cores", 150 * GB, 149 * GB, 1.0))
    lines = as_lines({**found, "on_cpu": True}, 0)
    assert "placed    all weights in main memory" in lines
    assert not any("device memory" in line for line in lines)


def test_why_it_cannot_run_here_yet_stands_last():
    found = plan(Machine("cuda:0", "a card"))
    for error, words in [
        (WeightsMissing("No file.", hint="Get it."), "not installed: No file. Get it."),
        (WeightsRefused("No licence."), "not allowed: No licence."),
        (OutOfMemory("Too large."), "does not fit: Too large."),
        (BadKnob("Too slow."), "cannot run here: Too slow."),
    ]:
        assert as_lines({**found, "refusal": error.to_wire()}, 0)[-1] == words


def test_a_device_of_unknown_speed_has_no_time():
    assert "time      not known" in as_lines(plan(Machine("cuda:0", "a card")), 0)


def test_a_file_that_is_named_twice_is_sent_once(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(b"123")
    two.write_bytes(b"45")
    assert bytes_to_send([{1: one, 2: two}, {1: one}]) == 5
    assert as_plain({"a": 1}, 5) == {"a": 1, "bytes_to_send": 5}


def test_small_figures_are_not_said_to_be_nothing():
    machine = Machine("cpu", "2 cores", 16 * GB, 16 * GB, 0.1)
    cost = estimate(spec_named("tiny"), (80, 48), 2, steps=2, machine=machine)
    made = {**asdict(cost.plan()), "device": "x", "layers": []}
    # Two forwards of some millions of operations; the VAE's widest block, 33.4 MB.
    assert 0 < cost.teraflops < 0.001
    assert made["teraflops"] == float(f"{cost.teraflops:.6g}")
    lines = as_lines(made, 0)
    assert f"compute   {cost.teraflops * 1000:.3g} GFLOP in all" in lines
    assert any("decode 34 MB of device memory" in line for line in lines)
    assert any("0.006 TFLOP" in line for line in as_lines({**made, "teraflops": 0.006}, 0))
