# SPDX-License-Identifier: Apache-2.0
"""What a job costs, on the node before anything is rendered."""

import pytest

from fakes.shot import press
from gencomp_nuke import costing
from gencomp_protocol.errors import BadMatte

PLAN = {
    "device": "a large card",
    "on_cpu": False,
    "minutes": 12.4,
    "stage_bytes": {"text": 9_600_000_000, "sample": 22_400_000_000},
    "memory_bytes": 3_100_000_000,
    "bytes_in": 812_000_000,
    "bytes_out": 3_400_000_000,
    "notes": ["The knob compiled does nothing here."],
    "refusal": None,
}
WORDS = (
    "About 12 min on a large card. Needs 22.4 GB of GPU memory and 3.1 GB of main memory. "
    "Reads 812 MB and delivers 3.4 GB of pixels, uncompressed. "
    "The knob compiled does nothing here."
)
MISSING = {"code": "weights-missing", "message": "It is not installed.", "hint": "Fetch it."}


def plan_on(gizmo):
    return " ".join(gizmo["gc_plan"].value().split())


def estimate(app, gizmo):
    gizmo["gc_estimate"].execute()
    app.process_events(lambda: plan_on(gizmo) != "Asking the server.")


@pytest.mark.parametrize(
    ("plans", "words"),
    [
        ([PLAN], WORDS),
        (
            [PLAN, PLAN],
            WORDS.replace("12 min on a large card", "25 min on a large card for 2 jobs")
            .replace("812 MB", "1.6 GB")
            .replace("3.4 GB of pixels", "6.8 GB of pixels"),
        ),
        (
            [{**PLAN, "on_cpu": True, "device": "cpu", "minutes": 0.0, "notes": []}],
            "On cpu; how long it takes is not known. Needs 22.4 GB of main memory. "
            "Reads 812 MB and delivers 3.4 GB of pixels, uncompressed.",
        ),
        (
            [{**PLAN, "refusal": MISSING}],
            WORDS + " It cannot run yet: It is not installed. Fetch it.",
        ),
        ([{}], ""),
    ],
    ids=["one job", "two jobs", "a processor", "not installed", "a silent server"],
)
def test_a_plan_is_spelt_in_minutes_memory_and_bytes(plans, words):
    assert costing.spell(plans) == words


def test_the_button_shows_what_a_job_costs_and_nothing_is_rendered_or_handed_in(app, server, comp):
    server.plan = PLAN
    gizmo = comp(app)
    estimate(app, gizmo)
    assert plan_on(gizmo) == WORDS
    assert (app.rendered, server.jobs) == ([], {})


def test_while_a_job_runs_the_button_answers_all_the_same(app, server, comp):
    from gencomp_nuke import callbacks

    gizmo = comp(app)
    server.goes_on.clear()
    callbacks.begin(gizmo)
    app.process_events(server.is_running_job.is_set)
    server.plan = PLAN
    estimate(app, gizmo)
    assert plan_on(gizmo) == WORDS
    server.goes_on.set()
    app.process_events(lambda: callbacks.running(gizmo) is None)


def test_what_the_server_refuses_is_said_in_the_place_of_the_plan(app, server, comp):
    server.refuses = BadMatte("Matte 'a' is empty.", hint="Paint something.")
    gizmo = comp(app)
    estimate(app, gizmo)
    assert plan_on(gizmo) == "No estimate: Matte 'a' is empty. Paint something."


def test_generate_shows_what_its_job_costs_too(app, server, comp):
    server.plan = PLAN
    gizmo = comp(app)
    press(app, gizmo)
    assert plan_on(gizmo) == WORDS


def test_in_a_terminal_session_the_button_waits_for_the_answer(terminal, server, comp):
    server.plan = PLAN
    gizmo = comp(terminal)
    gizmo["gc_estimate"].execute()
    assert plan_on(gizmo) == WORDS
