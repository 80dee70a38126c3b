# SPDX-License-Identifier: Apache-2.0
"""A job's life in the table, in any order that anybody could think of, with kills in between."""

import shutil
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gencomp_protocol.frames import FrameRange
from gencomp_protocol.messages import (
    DONE,
    FINAL_STATES,
    QUEUED,
    RECEIVING,
    RUNNING,
    STATES,
    InputPictures,
    PictureEntry,
)
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.engine.job import MOVES
from gencomp_server.engine.jobtable import JobTable, LayerRow

REQUEST = Request("copy", FrameRange(1, 1), (InputHeader("plate", (1,)),))
INPUTS = (InputPictures("plate", (PictureEntry(1, 10, "a" * 64),)),)
KEYS = st.sampled_from(("k1", "k2", "k3"))
HOUR_S = 3600.0


class Known:
    """What has to be true of a job, by the rules alone."""

    def __init__(self, key, turn):
        self.key, self.turn, self.state = key, turn, RECEIVING
        self.layers, self.warnings = {}, []
        self.deaths = self.outages = self.tries = 0
        self.released, self.ended_s = False, None


class JobLife(RuleBasedStateMachine):
    """A table, and beside it what it has to say."""

    jobs = Bundle("jobs")

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gencomp-life-"))
        self.now_s = 1000.0
        self.known, self.turns = {}, 0
        self.open()

    def open(self):
        self.table = JobTable(self.folder / "jobs.db", lambda: self.now_s)

    def teardown(self):
        self.table.close()
        shutil.rmtree(self.folder)

    @rule(target=jobs, key=KEYS)
    def submit(self, key):
        standing = self.table.standing(key)
        mine = [job for job, one in self.known.items() if one.key == key]
        newest = max(mine, key=lambda job: self.known[job].turn, default=None)
        ended = newest is not None and self.known[newest].state in FINAL_STATES
        kept = newest is not None and (
            not ended or (self.known[newest].state == DONE and not self.known[newest].released)
        )
        assert (standing.id if standing else None) == (newest if kept else None)
        if standing is not None:
            return standing.id
        job = self.table.add(key, REQUEST, INPUTS)
        assert job.id not in self.known
        self.turns += 1
        self.known[job.id] = Known(key, self.turns)
        return job.id

    @rule(job=jobs, state=st.sampled_from(sorted(STATES)))
    def move(self, job, state):
        one = self.known.get(job)
        legal = one is not None and state in MOVES[one.state]
        error = {"code": "internal-error", "message": "It broke."} if state == "failed" else None
        assert self.table.move(job, state, error) == legal
        if legal:
            one.state, one.tries = state, one.tries + (state == RUNNING)
            one.ended_s = self.now_s if state in FINAL_STATES else None

    @rule(job=jobs, layer=st.sampled_from("ab"), frame=st.integers(1, 3), size=st.integers(1, 9))
    def deliver(self, job, layer, frame, size):
        one = self.known.get(job)
        if one is None or one.state != RUNNING:
            return
        self.table.add_layer(job, LayerRow(layer, frame, size, "f" * 64))
        one.layers[layer, frame] = size

    @rule(job=jobs, sentence=st.sampled_from(("one", "two")))
    def warn(self, job, sentence):
        one = self.known.get(job)
        if one is not None:
            assert self.table.add_warning(job, sentence) == (sentence not in one.warnings)
            one.warnings += [] if sentence in one.warnings else [sentence]

    @rule(job=jobs)
    def worker_dies(self, job):
        one = self.known.get(job)
        if one is None or one.state != RUNNING:
            return
        one.deaths += 1
        assert self.table.count_death(job) == one.deaths
        assert self.table.move(job, QUEUED)
        one.state = QUEUED

    @rule(job=jobs)
    def release(self, job):
        one = self.known.get(job)
        if one is not None and one.state in FINAL_STATES:
            self.table.release(job)
            one.released, one.layers = True, {}

    @rule(died=st.booleans())
    def server_goes_and_comes_again(self, died):
        """A kill leaves what was committed; a clean end has put the jobs back already."""
        ran = {job for job, one in self.known.items() if one.state == RUNNING}
        if not died:
            assert set(self.table.recover()) == ran
        self.table.close()
        self.open()
        found = set(self.table.recover(died=True))
        assert found == (ran if died else set())
        for job in ran:
            self.known[job].state, self.known[job].layers = QUEUED, {}
            self.known[job].outages += died

    @rule(hours=st.integers(1, 48))
    def time_passes(self, hours):
        self.now_s += hours * HOUR_S

    @rule(hours=st.integers(0, 24))
    def old_ones_are_forgotten(self, hours):
        moment_s = self.now_s - hours * HOUR_S
        old = {
            job
            for job, one in self.known.items()
            if one.ended_s is not None and one.ended_s < moment_s
        }
        assert set(self.table.forget_before(moment_s)) == old
        for job in old:
            del self.known[job]

    @rule(job=consumes(jobs))
    def nobody_speaks_of_it_again(self, job):
        """A job that nobody follows is none the less there."""

    @invariant()
    def nothing_is_lost_doubled_or_out_of_order(self):
        found = {job.id: job for job in self.table.all()}
        assert found.keys() == self.known.keys()
        for job, one in self.known.items():
            row = found[job]
            assert (row.state, row.key, row.released) == (one.state, one.key, one.released)
            assert row.has_ended == (row.ended_s is not None)
            assert (row.error is not None) == (one.state == "failed")
            assert {(r.layer, r.frame): r.bytes for r in self.table.layers(job)} == one.layers
            assert self.table.warnings(job) == one.warnings
            assert (self.table.deaths(job), self.table.outages(job)) == (one.deaths, one.outages)
        waiting = [job for job, one in self.known.items() if one.state == QUEUED]
        waiting.sort(key=lambda job: self.known[job].turn)
        assert [turn.job for turn in self.table.waiting()] == waiting
        assert self.table.has_queued() == bool(waiting)

    @invariant()
    def the_file_is_sound(self):
        with sqlite3.connect(self.folder / "jobs.db") as other:
            assert other.execute("PRAGMA quick_check").fetchone() == ("ok",)
        other.close()


JobLife.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestJobLife = JobLife.TestCase
