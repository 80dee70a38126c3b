# SPDX-License-Identifier: Apache-2.0
"""A server that is kept busy for as long as it takes, while what it starts and serves dies."""

import itertools
import os
import time

import pytest

from faults.campaign import Campaign
from faults.test_kill_campaign import check

MINUTES = float(os.environ.get("GENCOMP_SOAK_MINUTES", "20"))
MOST_MB_A_JOB = 1.0
WARM = 0.2  # Share of the jobs after which memory is compared.


def seeds_until(end):
    """Count up until a moment has passed."""
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(100_000))


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 * 3 + 600)
@pytest.mark.fault("F31", "F34")
def test_a_server_that_stays_busy_loses_nothing_and_does_not_grow(tmp_path, measured):
    victims = {"nobody": 12, "worker": 4, "decoder": 2, "client": 2}
    play = Campaign(tmp_path, victims, device="cpu,cpu")
    end = time.monotonic() + MINUTES * 60
    found = play.run(seeds_until(end))
    print(found)
    check(found, range(found.seeds))
    assert found.seeds > MINUTES * 5
    (first, at_first), (last, at_last) = (
        found.memory[int(len(found.memory) * WARM)],
        found.memory[-1],
    )
    growth = (at_last - at_first) / (last - first)
    words = "memory slope of a front that is kept busy"
    measured(words, growth / 1e6, "MB a job", most=MOST_MB_A_JOB)
