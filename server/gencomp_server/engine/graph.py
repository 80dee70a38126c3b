# SPDX-License-Identifier: Apache-2.0
"""A job's stages as a graph: which ran, what each needed, how long it took and what it keeps.

A row is told by the worker when a stage begins and again when it ends; the front keeps the last of
each key. Rows come in the order in which stages began, so what a row needs stands above it. This
module knows neither pixels nor sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

RUNNING = "running"
DONE = "done"
FAILED = "failed"
STOPPED = "stopped"
DELIVERY = "layers"
"""Key and name of the last row: what is made of the stages' results, and delivered."""

_MOST_LANES = 16
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class StageRow:
    """One stage of a job.

    Attributes:
        name: What the system calls it; several stages may have one name.
        key: Digest of all that its outcome depends on, in hex.
        seconds: How long it took, or took to be found.
        reused: True where it was on disk already.
        state: ``running``, ``done``, ``failed``, or ``stopped`` where the job ended meanwhile.
        bytes: What its outcome takes on disk; 0 before it is there.
        needs: Keys of the stages whose results went into it.
        reads: Names of the inputs whose pictures went into it.
    """

    name: str
    key: str
    seconds: float = 0.0
    reused: bool = False
    state: str = DONE
    bytes: int = 0
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


def to_plain(row: StageRow) -> dict[str, Any]:
    """Return a row as plain data, as it crosses pipe and wire and stands in a manifest."""
    plain = asdict(row)
    return {**plain, "needs": list(row.needs), "reads": list(row.reads)}


def from_plain(plain: Mapping[str, Any]) -> StageRow:
    """Return the row that plain data holds; what an older peer leaves out keeps its default."""
    known = {name: plain[name] for name in StageRow.__dataclass_fields__ if name in plain}
    for name in ("needs", "reads"):
        known[name] = tuple(str(one) for one in known.get(name, ()))
    return StageRow(**known)


def sinks(rows: Iterable[StageRow]) -> tuple[str, ...]:
    """Return the keys of the rows that no other row needs: what the delivery is made of."""
    rows = tuple(rows)
    needed = {key for row in rows for key in row.needs}
    return tuple(row.key for row in rows if row.key not in needed)


def stopped(row: StageRow) -> StageRow:
    """Return a row as it stands once its job has ended: what ran runs no more."""
    return replace(row, state=STOPPED) if row.state == RUNNING else row


# --- drawn ---------------------------------------------------------------------------------------


def lines(rows: Sequence[StageRow]) -> list[str]:
    """Draw a graph: a line for each stage, its results led down to the stages that need them.

    Returns:
        Lines of state, seconds, size, rails, name, and in brackets the inputs whose pictures the
        stage reads. A stage that needs none has a hollow dot; one that needs the stage above it in
        its own lane alone has no arm. Rails are left out where more are open than fit.
    """
    if not rows:
        return []
    rails = _rails(rows)
    wide = max(map(len, rails))
    return [
        f"{_state(row):<8}{_seconds(row):>9}{spell_size(row.bytes):>10}  "
        f"{rail:<{wide}}  {_label(row)}".rstrip()
        for row, rail in zip(rows, rails, strict=True)
    ]


def _state(row: StageRow) -> str:
    return "found" if row.state == DONE and row.reused else row.state


def _seconds(row: StageRow) -> str:
    return "" if row.state in (RUNNING, STOPPED) else f"{row.seconds:.1f} s"


def _label(row: StageRow) -> str:
    return f"{row.name} [{', '.join(row.reads)}]" if row.reads else row.name


def spell_size(count: int) -> str:
    """Spell an amount of data, 10^9 bytes to a GB; nothing for none."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B" if count else ""


def _rails(rows: Sequence[StageRow]) -> list[str]:
    """Return the rails of each row; empty ones where there is no room for them."""
    last = {key: at for at, row in enumerate(rows) for key in row.needs}
    lanes: list[str | None] = []
    drawn = []
    for at, row in enumerate(rows):
        needed = [i for i, key in enumerate(lanes) if key in row.needs]
        ended = [i for i in needed if last[str(lanes[i])] == at]
        free = [i for i, key in enumerate(lanes) if key is None]
        place = ended[0] if ended else free[0] if free else len(lanes)
        if place == len(lanes):
            lanes.append(None)
        if len(lanes) > _MOST_LANES:
            return ["●" if one.needs else "○" for one in rows]
        drawn.append(_rail(lanes, place, needed, ended, "●" if row.needs else "○"))
        for i in ended:
            lanes[i] = None
        lanes[place] = row.key if row.key in last and last[row.key] > at else None
        while lanes and lanes[-1] is None:
            lanes.pop()
    return drawn


def _rail(
    lanes: Sequence[str | None], place: int, needed: Sequence[int], ended: Sequence[int], dot: str
) -> str:
    """Draw one row: its dot in a lane, arms to the lanes whose results it takes."""
    reach = [place, *needed]
    first, most = min(reach), max(reach)
    drawn = ""
    for i, key in enumerate(lanes):
        inside = first <= i <= most
        if i == place:
            mark = dot
        elif i in needed:
            mark = _joint(i in ended, i == first, i == most)
        elif key is not None:
            mark = "│"
        else:
            mark = "─" if inside else " "
        drawn += mark + ("─" if first <= i < most else " ")
    return drawn.rstrip()


def _joint(is_ended: bool, is_first: bool, is_last: bool) -> str:
    """Return how a lane meets the arm of a row: led on below it, or ended by it."""
    if is_first:
        return "╰" if is_ended else "├"
    if is_last:
        return "╯" if is_ended else "┤"
    return "┴" if is_ended else "┼"
