# SPDX-License-Identifier: Apache-2.0
"""Several workers side by side, on supervisors that are told what to be."""

from dataclasses import replace

import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import Request
from gencomp_server.engine.job import Job
from gencomp_server.engine.pool import WorkerPool

JOB = Job("j1", "k", "queued", Request("copy", FrameRange(1, 1), ()), (), 0.0)


class Told:
    """A supervisor that is what it is told to be."""

    def __init__(self, state="ready", machine=None, fault=None, may_look_again=False):
        self.may_look_again = may_look_again
        self.state, self.machine, self.fault = state, machine, fault
        self.job, self.connection, self.calls = None, None, []

    def run(self, job):
        self.state, self.job = "busy", job.id

    def wake(self):
        self.state = "starting"

    def cancel(self, job):
        self.calls.append(("cancel", job))

    def stop(self, timeout_s):
        self.calls.append(("stop", timeout_s))


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (("busy", "ready", "lost"), "ready"),
        (("busy", "starting"), "busy"),
        (("resting", "starting"), "starting"),
        (("lost", "resting"), "resting"),
        (("lost", "lost"), "lost"),
    ],
)
def test_what_is_said_of_all(states, said):
    assert WorkerPool([Told(state) for state in states]).state == said


def test_a_device_that_cannot_be_had_counts_only_where_no_other_works():
    fault = BadKnob("There is no such device.")
    assert WorkerPool([Told(fault=fault), Told()]).fault is None
    assert WorkerPool([Told(fault=fault), Told(fault=fault)]).fault is fault


def test_jobs_are_planned_on_the_smallest_machine_that_is_known():
    small, large = {"memory_bytes": 1}, {"memory_bytes": 2}
    assert WorkerPool([Told(machine=large), Told(), Told(machine=small)]).machine is small
    pool = WorkerPool([Told("starting"), Told("starting")])
    assert (pool.machine, pool.awaits_machine) == (None, True)


def test_a_job_goes_to_a_free_worker_that_ran_its_system_last():
    first, second = Told(), Told()
    pool = WorkerPool([first, second])
    pool.run(JOB)
    other = replace(JOB, id="j2", request=replace(JOB.request, system="steps"))
    pool.run(other)
    assert pool.jobs == {"j1", "j2"}
    assert not pool.has_free
    first.state = second.state = "ready"
    pool.run(replace(other, id="j3"))
    assert (first.job, second.job) == ("j1", "j3")


def test_no_more_workers_are_woken_than_there_are_jobs():
    told = [Told("resting"), Told("starting"), Told("resting"), Told("resting")]
    WorkerPool(told).wake(2)
    assert [one.state for one in told] == ["starting", "starting", "resting", "resting"]


def test_a_device_that_could_not_be_had_is_looked_at_now_and_then_or_at_once_if_alone():
    told = [Told("busy"), Told("lost"), Told("lost", may_look_again=True)]
    WorkerPool(told).wake(5)
    assert [one.state for one in told] == ["busy", "lost", "starting"]
    told = [Told("lost"), Told("lost")]
    WorkerPool(told).wake()
    assert [one.state for one in told] == ["starting", "lost"]


def test_all_are_stopped_and_only_the_one_that_runs_it_hears_of_a_cancel():
    told = [Told(), Told()]
    pool = WorkerPool(told)
    pool.stop(2.0)
    assert [one.calls for one in told] == [[("stop", 2.0)]] * 2
