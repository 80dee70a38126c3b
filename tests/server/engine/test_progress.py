# SPDX-License-Identifier: Apache-2.0
"""Steps in, events out: estimates, and no more events than anybody can read."""

import pytest

from gencomp_protocol.messages import ProgressEvent
from gencomp_server.engine.progress import ProgressMeter


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def meter(clock):
    return ProgressMeter(clock)


def test_the_estimate_is_the_steps_left_at_the_average_speed(meter, clock):
    assert meter.note("j", "solve", 0, 10) == ProgressEvent("j", "solve", 0, 10, None)
    clock.now = 104.0
    assert meter.note("j", "solve", 2, 10) == ProgressEvent("j", "solve", 2, 10, 16.0)
    clock.now = 120.0
    assert meter.note("j", "solve", 10, 10) == ProgressEvent("j", "solve", 10, 10, 0.0)


def test_a_stage_that_resumes_midway_is_not_credited_with_what_it_found(meter, clock):
    meter.note("j", "solve", 40, 50)
    clock.now = 102.0
    assert meter.note("j", "solve", 41, 50).eta_s == 18.0


def test_steps_that_follow_at_once_are_not_told_but_the_last_is(meter, clock):
    meter.note("j", "solve", 0, 3)
    clock.now = 100.05
    assert meter.note("j", "solve", 1, 3) is None
    assert meter.last("j").step == 1
    assert meter.note("j", "solve", 3, 3).step == 3


def test_stages_told_in_turn_are_measured_apart(meter, clock):
    meter.note("j", "solve", 0, 10)
    meter.note("j", "write", 0, 10)
    clock.now = 110.0
    assert meter.note("j", "solve", 5, 10).eta_s == 10.0
    assert meter.note("j", "write", 1, 10).eta_s == 90.0


def test_a_stage_that_begins_again_is_measured_anew(meter, clock):
    meter.note("j", "solve", 9, 10)
    clock.now = 200.0
    assert meter.note("j", "solve", 0, 10).eta_s is None


def test_jobs_are_apart_and_forgotten_at_their_end(meter):
    meter.note("j", "solve", 1, 2)
    meter.forget("j")
    assert meter.last("j") is None
    assert meter.last("k") is None
