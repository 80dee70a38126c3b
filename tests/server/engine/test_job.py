# SPDX-License-Identifier: Apache-2.0
"""Which moves of a job are legal: the whole table."""

import pytest

from gencomp_protocol.messages import STATES
from gencomp_server.engine.job import may_move, new_job_id

LEGAL = {
    ("receiving", "queued"),
    ("receiving", "refused"),
    ("receiving", "cancelled"),
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "done"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "queued"),
}


@pytest.mark.parametrize("old", STATES)
@pytest.mark.parametrize("new", STATES)
def test_a_job_moves_only_along_the_drawn_lines(old, new):
    assert may_move(old, new) is ((old, new) in LEGAL)


def test_job_ids_are_short_plain_and_never_the_same():
    made = {new_job_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(one) == 16 and set(one) <= set("0123456789abcdef") for one in made)
