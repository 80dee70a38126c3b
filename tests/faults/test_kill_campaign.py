# SPDX-License-Identifier: Apache-2.0
"""Somebody is killed at a random moment, again and again: nothing is lost, doubled or half."""

import pytest

from faults.campaign import Campaign
from faults.figures import DOUBLED, LOST, SEEDS, SILENT

QUICK = range(200, 220)  # Behind those of the slow ones, so that no seed counts twice.
START_S = 3.0


def note(found, measured):
    """Note what a campaign came to."""
    measured(SEEDS, found.seeds)
    measured(LOST, len(found.lost), most=0)
    measured(DOUBLED, len(found.doubled), most=0)
    measured(SILENT, len(found.half) + len(found.other), most=0)


def check(found, seeds):
    assert found.seeds == len(seeds)
    assert found.lost == []
    assert found.doubled == []
    assert found.half == []
    assert found.other == []
    assert found.tables == []


@pytest.mark.fault("F31", "F39", "F41")
def test_of_twenty_random_kills_none_loses_or_doubles_a_job(tmp_path, measured):
    found = Campaign(tmp_path).run(QUICK)
    print(found)
    note(found, measured)
    check(found, QUICK)
    # The rest of the seeds is slow; that the server is back in time shows here already.
    median = sorted(found.starts_s)[len(found.starts_s) // 2]
    measured("front ready after a kill, median", median, "s", most=START_S)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.fault("F31", "F39", "F41")
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_of_two_hundred_random_kills_none_loses_or_doubles_a_job(tmp_path, measured, first):
    seeds = range(first, first + 50)
    found = Campaign(tmp_path).run(seeds)
    print(found)
    note(found, measured)
    check(found, seeds)
    assert set(found.kills) == {"front", "worker", "decoder", "client", "all"}
    measured("front ready after a kill, slowest", max(found.starts_s), "s", most=START_S)
