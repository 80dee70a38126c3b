# SPDX-License-Identifier: Apache-2.0
"""Which client sends which picture: each once, and by somebody who is there."""

from pathlib import Path

import pytest

from gencomp_protocol.transfer import Credit, Expected, Receiver
from gencomp_server.sessions import Session, Sessions

LACKING = {"j": ("a", "b"), "k": ("b", "c")}


def expected(job, letter):
    """Return a picture that a job lacks, known by one letter."""
    place = Path(letter)
    return Expected(job, "input", "plate", ord(letter), 10, letter * 64, place, place)


@pytest.fixture
def sessions():
    return Sessions(lambda job: [expected(job, letter) for letter in LACKING[job]])


@pytest.fixture
def add(sessions):
    """Add a session by its name."""

    def make(name, heard_s=0.0, fed_s=0.0):
        session = Session(name.encode(), name, Receiver(100), Credit(100), heard_s, fed_s)
        sessions.add(session)
        return session

    return make


def asked(session):
    """Return the letters of what a session is to send, in order."""
    return "".join(one.digest[0] for one in session.receiver.unfinished())


def test_a_source_is_asked_for_all_that_its_job_lacks(sessions, add):
    one = add("one")
    sessions.serve(one, "j")
    sessions.serve(one, "j")
    assert asked(one) == "ab"


def test_a_picture_that_two_jobs_lack_travels_once(sessions, add):
    one, two = add("one"), add("two")
    sessions.serve(one, "j")
    sessions.serve(two, "k")
    assert (asked(one), asked(two)) == ("ab", "c")


def test_when_a_source_goes_another_is_asked_for_what_it_owed(sessions, add):
    one, two = add("one"), add("two")
    sessions.serve(one, "j")
    sessions.serve(two, "k")
    sessions.drop(b"one")
    assert asked(two) == "cb"
    assert len(sessions) == 1


def test_a_job_that_ends_leaves_what_others_need_to_their_own_sources(sessions, add):
    one, two = add("one"), add("two")
    sessions.serve(one, "j")
    sessions.serve(two, "k")
    sessions.forget("j")
    assert (asked(one), asked(two)) == ("", "cb")


def test_the_source_that_came_last_takes_over(sessions, add):
    one, two = add("one"), add("two")
    sessions.serve(one, "j")
    sessions.serve(two, "j")
    assert (asked(one), asked(two)) == ("", "ab")


def test_what_arrived_is_not_asked_for_again(sessions, add, monkeypatch):
    one, two = add("one"), add("two")
    sessions.serve(one, "j")
    monkeypatch.setitem(LACKING, "j", ("a",))
    monkeypatch.setitem(LACKING, "k", ("c",))
    sessions.arrived("b" * 64)
    sessions.serve(two, "k")
    assert (asked(one), asked(two)) == ("ab", "c")


def test_silence_is_not_being_heard_or_not_sending_what_is_owed(sessions, add):
    add("well", heard_s=50.0, fed_s=50.0)
    add("gone", heard_s=10.0, fed_s=50.0)
    add("stuck", heard_s=50.0, fed_s=10.0)
    assert sessions.silent_since(20.0) == [b"gone", b"stuck"]


def test_events_go_to_followers_alone(sessions, add):
    one, _ = add("one"), add("two")
    one.follows.add("j")
    assert sessions.followers("j") == [one]
    assert sessions.followers("k") == []
