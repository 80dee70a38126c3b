# SPDX-License-Identifier: Apache-2.0
"""What ``gencomp plan`` says of a job with a backbone."""

from dataclasses import asdict

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


def test_a_device_of_unknown_speed_has_no_time():
    assert "time      not known" in as_lines(plan(Machine("cuda:0", "a card")), 0)


def test_a_file_that_is_named_twice_is_sent_once(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(b"123")
    two.write_bytes(b"45")
    assert bytes_to_send([{1: one, 2: two}, {1: one}]) == 5
    assert as_plain({"a": 1}, 5) == {"a": 1, "bytes_to_send": 5}
