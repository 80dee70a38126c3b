# SPDX-License-Identifier: Apache-2.0
"""Somebody is killed at a random moment, again and again: nothing is lost, doubled or half."""

import pytest

from faults.campaign import Campaign

QUICK = range(20)
START_S = 3.0


def check(found, seeds):
    assert found.seeds == len(seeds)
    assert found.lost == []
    assert found.doubled == []
    assert found.half == []
    assert found.other == []
    assert found.tables == []


@pytest.mark.fault("F31", "F39", "F41")
def test_of_twenty_random_kills_none_loses_or_doubles_a_job(tmp_path):
    found = Campaign(tmp_path).run(QUICK)
    print(found)
    check(found, QUICK)
    # The rest of the seeds is slow; that the server is back in time shows here already.
    assert sorted(found.starts_s)[len(found.starts_s) // 2] < START_S


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.fault("F31", "F39", "F41")
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_of_two_hundred_random_kills_none_loses_or_doubles_a_job(tmp_path, first):
    seeds = range(first, first + 50)
    found = Campaign(tmp_path).run(seeds)
    print(found)
    check(found, seeds)
    assert set(found.kills) == {"front", "worker", "decoder", "client", "all"}
    assert max(found.starts_s) < START_S
