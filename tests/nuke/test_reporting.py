# SPDX-License-Identifier: Apache-2.0
"""What a program on a farm prints."""

import pytest

from gencomp_nuke.reporting import Report
from gencomp_protocol import Progressed, StateChanged


@pytest.fixture
def printed():
    return []


def report(printed, total=2, is_openjd=True, times=()):
    clock = iter(times)
    return Report(total, is_openjd, printed.append, lambda: next(clock))


def test_a_line_comes_when_it_is_new_and_the_last_one_is_half_a_second_old(printed):
    told = report(printed, is_openjd=False, times=(0.0, 0.0, 0.4, 0.6, 0.6, 5.0))
    told.status("Node", "one")
    told.status("Node", "two")
    told.status("Node", "three,\nfour")
    told.status("Node", "three, four")
    assert printed == ["Node: one\n", "Node: three, four\n"]


def test_what_only_counts_on_is_told_every_ten_seconds_and_a_new_stage_at_once(printed):
    told = report(printed, is_openjd=False, times=(0.0, 0.0, 9.0, 10.0, 10.0, 11.0, 11.0))
    told.status("Node", "sample: 1 of 50.")
    told.status("Node", "sample: 9 of 50, about 3 min left.")
    told.status("Node", "sample: 10 of 50, about 2 min left.")
    told.status("Node", "decode: 1 of 2.")
    assert [line.split(": ", 1)[1] for line in printed] == [
        "sample: 1 of 50.\n",
        "sample: 10 of 50, about 2 min left.\n",
        "decode: 1 of 2.\n",
    ]


def test_open_job_description_is_told_the_share_of_the_nodes(printed):
    told = report(printed)
    told.done("A has its result.")
    told.done("B has its result.")
    assert printed == [
        "A has its result.\n",
        "openjd_progress: 50.0\n",
        "B has its result.\n",
        "openjd_progress: 100.0\n",
    ]


def test_each_stage_takes_half_of_what_is_left_so_that_progress_never_goes_back(printed):
    told = report(printed, total=1, times=[20.0 * n for n in range(20)])
    for stage, step in (("solve", 2), ("solve", 4), ("finish", 1), ("finish", 0), ("write", 4)):
        told.listen(Progressed("job", stage, step, 4))
        told.status("Node", f"{stage} {step}")
    shares = [line for line in printed if line.startswith("openjd_progress")]
    assert [float(line.split()[1]) for line in shares] == [25.0, 50.0, 56.2, 56.2, 87.5]


def test_other_events_and_stages_without_a_length_change_nothing(printed):
    told = report(printed, total=1, times=(0.0, 0.0))
    told.listen(StateChanged("job", "queued", 1))
    told.listen(Progressed("job", "solve", 1, 0))
    told.status("Node", "works")
    assert printed == ["openjd_status: Node: works\n", "openjd_progress: 0.0\n"]


def test_a_failure_is_an_error_for_whoever_greps_and_one_line(printed):
    report(printed).failed("Matte 'a'\nis empty.")
    assert printed == ["Error: Matte 'a' is empty.\n", "openjd_fail: Matte 'a' is empty.\n"]
