# SPDX-License-Identifier: Apache-2.0
"""Generating without an interface."""

import pytest

from gencomp_nuke import batch
from gencomp_protocol.errors import BadMatte, Cancelled, MissingInput

RGBA = ("rgba.red", "rgba.green", "rgba.blue", "rgba.alpha")


def test_generate_blocks_until_the_node_plays_its_result(terminal, server, comp):
    gizmo = comp(terminal)
    batch.generate(gizmo)
    assert gizmo["gc_status"].value() == "Plays v001, frames 1001-1004."
    assert gizmo.sample("rgba.red", 16, 48 - 16, frame=1002) == 0.25


def test_the_button_does_the_same_in_a_terminal_session(terminal, server, comp):
    gizmo = comp(terminal)
    gizmo["gc_generate"].execute()
    assert gizmo["gc_status"].value() == "Plays v001, frames 1001-1004."


def test_a_refusal_is_raised_for_the_script_and_said_on_the_node(terminal, server, comp):
    server.refuses = BadMatte("Matte 'a' is empty.", hint="Paint something.")
    gizmo = comp(terminal)
    with pytest.raises(BadMatte, match="Matte 'a' is empty"):
        batch.generate(gizmo)
    assert gizmo["gc_status"].value() == "Matte 'a' is empty. Paint something."


def test_a_missing_plate_is_raised_before_any_server_is_looked_for(terminal, comp):
    gizmo = comp(terminal)
    gizmo.setInput(0, None)
    with pytest.raises(MissingInput, match="Omnimatte1 has no plate"):
        batch.generate(gizmo)


def test_a_rendering_that_is_stopped_ends_the_job(terminal, server, comp):
    gizmo = comp(terminal)
    terminal.cancel_render_after = 1
    with pytest.raises(Cancelled):
        batch.generate(gizmo)
    assert server.jobs == {}


def test_nothing_waits_for_an_event_loop_that_a_terminal_does_not_have(
    terminal, server, comp, monkeypatch
):
    import nuke

    def never(*_):
        raise AssertionError("executeInMainThread would never run here")

    monkeypatch.setattr(nuke, "executeInMainThread", never)
    batch.generate(comp(terminal))
