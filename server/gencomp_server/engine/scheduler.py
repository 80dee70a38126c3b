# SPDX-License-Identifier: Apache-2.0
"""Whose job is next: fair shares of worker time. No threads, no clock, no table.

What an account has had is the seconds that its jobs kept workers busy, divided by its weight and by
that of the show; the account that has had least is served next. Inside it the same is asked of its
shows, and inside a show the highest priority runs first, then who came first. So nobody gets ahead
of others by a priority, or by spreading work over shows.

An account that was away is served from where the others are: what it did not use is no credit, and
what it had beyond the others is not forgotten.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gencomp_server.engine.jobtable import Turn

_TIE_S = 1e-6  # What a job costs at its very start: of equals who runs nothing comes first.
_SMOOTH = 0.2


@dataclass(frozen=True)
class _Run:
    """A job on a worker."""

    turn: Turn
    began_s: float


class Scheduler:
    """Who has had how much, and who runs.

    Args:
        shares: Weight by name of an account or of a show; 1 for those that are not named.
    """

    def __init__(self, shares: Mapping[str, float] | None = None) -> None:
        self._shares = dict(shares or {})
        self._had: dict[str, float] = {}
        self._shows_had: dict[tuple[str, str], float] = {}
        self._present: set[str] = set()
        self._runs: dict[str, _Run] = {}
        self._usual_s = 1.0

    def began(self, turn: Turn, now: float) -> None:
        """Take note that a job has a worker.

        Args:
            turn: The job.
            now: Monotonic seconds.
        """
        self._runs[turn.job] = _Run(turn, now)

    def ended(self, job: str, now: float) -> None:
        """Take note that a job has no worker any more, and charge for the time it had one."""
        run = self._runs.pop(job, None)
        if run is None:
            return
        seconds = now - run.began_s
        self._usual_s += _SMOOTH * (seconds - self._usual_s)
        account, show = run.turn.account, (run.turn.account, run.turn.show)
        cost = seconds / self._weight(run.turn)
        self._had[account] = self._had.get(account, 0.0) + cost
        self._shows_had[show] = self._shows_had.get(show, 0.0) + cost

    def next(self, waiting: Sequence[Turn], now: float) -> Turn | None:
        """Return the job that a free worker takes, or None where none waits.

        Args:
            waiting: Jobs that wait, oldest first.
            now: Monotonic seconds.
        """
        self._greet({turn.account for turn in waiting}, now)
        return next(iter(self._order(waiting, now, most=1)), None)

    def order(self, waiting: Sequence[Turn], now: float) -> list[Turn]:
        """Return waiting jobs in the order in which they would run, were they of one length.

        Args:
            waiting: Jobs that wait, oldest first.
            now: Monotonic seconds.
        """
        return self._order(waiting, now, most=len(waiting))

    # --- shares ----------------------------------------------------------------------------------

    def _weight(self, turn: Turn) -> float:
        return self._shares.get(turn.account, 1.0) * self._shares.get(turn.show, 1.0)

    def _so_far(self, now: float) -> dict[str, float]:
        """Return what every account has had, with what its running jobs took until now."""
        had = dict(self._had)
        for run in self._runs.values():
            cost = (now - run.began_s + _TIE_S) / self._weight(run.turn)
            had[run.turn.account] = had.get(run.turn.account, 0.0) + cost
        return had

    def _greet(self, waiting: set[str], now: float) -> None:
        """Let accounts that were away begin where the one that has had least is."""
        present = waiting | {run.turn.account for run in self._runs.values()}
        stayed = self._present & present
        had = self._so_far(now)
        floor = min((had.get(account, 0.0) for account in stayed), default=None)
        if floor is None:  # Nobody waited for anybody.
            self._had.clear()
            self._shows_had.clear()
        else:
            for account in present - stayed:
                self._had[account] = max(self._had.get(account, 0.0), floor)
            for account in set(self._had) - present:
                if self._had[account] <= floor:
                    self._forget(account)
        self._present = present

    def _forget(self, account: str) -> None:
        del self._had[account]
        for show in [show for show in self._shows_had if show[0] == account]:
            del self._shows_had[show]

    def _order(self, waiting: Sequence[Turn], now: float, most: int) -> list[Turn]:
        """Pick one after the other, charging each with the length of a usual job."""
        age = {turn.job: at for at, turn in enumerate(waiting)}
        lines: dict[str, dict[str, list[Turn]]] = defaultdict(lambda: defaultdict(list))
        for turn in sorted(waiting, key=lambda turn: (turn.priority, -age[turn.job])):
            lines[turn.account][turn.show].append(turn)
        had, shows_had = self._so_far(now), dict(self._shows_had)

        def head(account: str) -> str:
            """Return the show of an account whose turn it is."""
            shows = lines[account]
            return min(
                shows,
                key=lambda show: (shows_had.get((account, show), 0.0), age[shows[show][-1].job]),
            )

        def entry(account: str) -> tuple[float, int, str]:
            return had.get(account, 0.0), age[lines[account][head(account)][-1].job], account

        heap = [entry(account) for account in lines]
        heapq.heapify(heap)
        chosen: list[Turn] = []
        while heap and len(chosen) < most:
            account = heapq.heappop(heap)[2]
            show = head(account)
            turn = lines[account][show].pop()
            chosen.append(turn)
            cost = max(self._usual_s, _TIE_S) / self._weight(turn)
            had[account] = had.get(account, 0.0) + cost
            shows_had[account, show] = shows_had.get((account, show), 0.0) + cost
            if not lines[account][show]:
                del lines[account][show]
            if lines[account]:
                heapq.heappush(heap, entry(account))
        return chosen
