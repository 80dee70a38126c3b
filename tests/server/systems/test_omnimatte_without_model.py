# SPDX-License-Identifier: Apache-2.0
"""Omnimatte's plan where it takes the temporal clean plate: it says why, and truly."""

from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.contract import Machine, Refusal
from gencomp_server.systems.omnimatte import plan


def note(machine, **knobs):
    frames = (1001, 1002)
    entries = [InputHeader(name, frames, format=Format(640, 384)) for name in ("plate", "matte.a")]
    return plan(Request("omnimatte", FrameRange(1001, 1002), tuple(entries), knobs), machine).notes


def test_when_nothing_is_installed_then_that_is_why():
    assert note(Machine()) == (
        "The clean plate comes from the other frames of the shot, "
        "since no video model is installed.",
    )


def test_when_weights_are_there_and_not_allowed_then_the_licence_is_why():
    missing = Refusal("The weights of X are not installed.", "Get them.")
    licence = Refusal("The weights of Casper are installed, but not allowed.", "Ask.", True)
    machine = Machine(refused={"casper": licence, "wan-casper-1.3b": missing})
    (said,) = note(machine)
    assert said.endswith("of the shot. The weights of Casper are installed, but not allowed.")


def test_when_weights_are_there_and_the_processor_is_too_slow_then_that_is_why():
    slow = Machine("cpu", memory_bytes=10**12, teraflops=0.01, backbones=("casper",))
    (said,) = note(slow)
    assert "on this processor" in said
    assert "no video model is installed" not in said


def test_when_it_was_asked_for_then_no_reason_is_given():
    assert note(Machine(), clean_plate_from="temporal") == (
        "The clean plate comes from the other frames of the shot.",
    )


def test_when_a_model_runs_then_main_memory_counts_its_libraries_and_on_a_processor_its_numbers():
    frames = (1001, 1002)
    entries = [InputHeader(name, frames, format=Format(640, 384)) for name in ("plate", "matte.a")]

    def memory(machine, **knobs):
        asked = Request("omnimatte", FrameRange(1001, 1002), tuple(entries), knobs)
        return plan(asked, machine)

    plain = memory(Machine("cpu")).memory_bytes
    tiny = {"backbone": "tiny", "model_size": "80x48"}
    found = memory(Machine("cpu"), **tiny)
    # Two frames are padded to 85; six float32 RGB sequences of them at 80x48.
    held = plain + 750_000_000 + 6 * 85 * 80 * 48 * 3 * 4
    assert found.memory_bytes == held + max(found.stage_bytes.values())
    card = Machine("cuda:0", "a card", 80 * 10**9, 80 * 10**9, 295.0)
    assert memory(card, **tiny).memory_bytes == held
