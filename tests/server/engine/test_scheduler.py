# SPDX-License-Identifier: Apache-2.0
"""Whose job is next, on simulated workers: shares, weights, priorities, and who was away."""

import itertools

import pytest

from gencomp_server.engine.jobtable import Turn
from gencomp_server.engine.scheduler import Scheduler

_ids = itertools.count()


def turns(account, count=1, show="", priority=0):
    return [Turn(f"{account}{next(_ids)}", account, show, priority) for _ in range(count)]


def simulate(scheduler, waiting, length, *, workers=1, until=float("inf"), start=0.0):
    """Run jobs on simulated workers; return them as they began, and seconds by account."""
    waiting, running, order = list(waiting), [], []
    seconds, now = {}, start
    while (waiting or running) and now < until:
        while waiting and len(running) < workers:
            turn = scheduler.next(waiting, now)
            waiting.remove(turn)
            scheduler.began(turn, now)
            running.append((now + length(turn), turn))
            order.append(turn)
        running.sort(key=lambda one: one[0])
        end, turn = running.pop(0)
        seconds[turn.account] = seconds.get(turn.account, 0.0) + length(turn)
        now = end
        scheduler.ended(turn.job, now)
    return order, seconds


def jain(values):
    values = list(values)
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


@pytest.mark.fault("F24")
def test_one_that_floods_gets_no_more_than_the_others():
    waiting = turns("flood", 100) + turns("ann", 10) + turns("bob", 10)
    order, _ = simulate(Scheduler(), waiting, lambda turn: 1.0)
    first = [turn.account for turn in order[:30]]
    assert {name: first.count(name) for name in ("flood", "ann", "bob")} == dict.fromkeys(
        ("flood", "ann", "bob"), 10
    )


def test_shares_are_of_time_and_not_of_jobs():
    lengths = {"long": 10.0, "short": 1.0, "middle": 3.0}
    waiting = [turn for name in lengths for turn in turns(name, 400)]
    _, seconds = simulate(
        Scheduler(), waiting, lambda turn: lengths[turn.account], workers=4, until=300.0
    )
    assert jain(seconds.values()) > 0.99


def test_what_runs_now_counts_already():
    scheduler = Scheduler()
    (a, b), (c,) = turns("ann", 2), turns("bob")
    assert scheduler.next([a, b, c], 0.0) == a
    scheduler.began(a, 0.0)
    assert scheduler.next([b, c], 0.0) == c


def test_an_account_of_twice_the_weight_gets_twice_the_time():
    waiting = turns("ann", 200) + turns("bob", 200)
    _, seconds = simulate(Scheduler({"ann": 2.0}), waiting, lambda turn: 1.0, until=90.0)
    assert seconds["ann"] / seconds["bob"] == pytest.approx(2.0, rel=0.1)


def test_an_account_that_works_for_a_show_of_twice_the_weight_does_too():
    waiting = turns("ann", 200, show="hero") + turns("bob", 200, show="side")
    _, seconds = simulate(Scheduler({"hero": 2.0}), waiting, lambda turn: 1.0, until=90.0)
    assert seconds["ann"] / seconds["bob"] == pytest.approx(2.0, rel=0.1)


def test_to_name_many_shows_gains_nothing():
    spread = [turn for n in range(50) for turn in turns("ann", 1, show=f"s{n}")]
    order, _ = simulate(Scheduler(), [*spread, *turns("bob", 50)], lambda turn: 1.0)
    first = [turn.account for turn in order[:20]]
    assert first.count("bob") == 10


def test_inside_an_account_its_shows_take_turns():
    order, _ = simulate(
        Scheduler(), turns("ann", 6, show="a") + turns("ann", 3, show="b"), lambda turn: 1.0
    )
    assert [turn.show for turn in order] == ["a", "b", "a", "b", "a", "b", "a", "a", "a"]


def test_a_priority_orders_ones_own_jobs_and_nobody_elses():
    low, high, other = turns("ann", 2), turns("ann", 1, priority=100), turns("bob")
    order, _ = simulate(Scheduler(), [*low, *other, *high], lambda turn: 1.0)
    assert order == [*other, *high, *low] or order == [*high, *other, *low]
    assert [turn for turn in order if turn.account == "ann"] == [*high, *low]


def test_of_equals_the_first_that_came_is_first():
    waiting = turns("ann", 5)
    assert simulate(Scheduler(), waiting, lambda turn: 1.0)[0] == waiting


def test_who_was_away_has_no_credit_and_who_had_more_pays_it_back():
    scheduler = Scheduler()
    simulate(scheduler, turns("ann", 100), lambda turn: 1.0)
    order, _ = simulate(scheduler, turns("ann", 10) + turns("bob", 10), lambda turn: 1.0, start=100)
    assert [turn.account for turn in order[:4]].count("ann") == 2  # nobody had waited for her

    scheduler = Scheduler()
    ann, bob, cid = turns("ann", 1), turns("bob", 9), turns("cid", 1)
    scheduler.next([*ann, *bob], 0.0)
    scheduler.began(ann[0], 0.0)
    scheduler.ended(ann[0].job, 5.0)  # had 5 s while bob waited, and leaves
    scheduler.next([*bob, *cid], 5.0)
    scheduler.began(cid[0], 5.0)
    scheduler.ended(cid[0].job, 6.0)
    back = turns("ann", 1)
    order, _ = simulate(scheduler, [*back, *bob], lambda turn: 1.0, start=6.0)
    assert order.index(back[0]) == 5


def test_positions_are_the_order_in_which_they_would_run():
    scheduler = Scheduler()
    waiting = turns("ann", 3) + turns("bob", 1)
    order = scheduler.order(waiting, 0.0)
    assert order == [waiting[0], waiting[3], waiting[1], waiting[2]]
    assert simulate(scheduler, waiting, lambda turn: 1.0)[0] == order
    assert scheduler.order([], 0.0) == []
    assert scheduler.next([], 0.0) is None
