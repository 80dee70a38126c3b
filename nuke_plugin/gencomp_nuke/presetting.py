# SPDX-License-Identifier: Apache-2.0
"""Presets, a studio's defaults, and Reset: values put onto the knobs of a node. Main thread only.

Nuke's own presets and ``nuke.knobDefault`` go by a node's class, and that of all our nodes is
Group. So values come from files (``knobfiles.py``), are checked against the node's own knobs, and
each button is one step of undo. Of a shot are its keyframes, places and names: no preset has them,
and Reset asks before it touches them.
"""

import contextlib
import difflib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import nuke
from gencomp_nuke import knobfiles, menuwords, migrating, node, prefs
from gencomp_nuke.knobfiles import Shipped, Values
from gencomp_protocol.errors import BadKnob, GencompError

log = logging.getLogger(__name__)

MENU = "gc_preset"
CHOOSE = "choose a preset"
MOST_LETTERS = 40
# Knobs of a node that are not sent and say how a job is made: Reset counts them, too.
_WORK = ("gc_depth", "gc_inputs", "gc_files", "gc_handles", "gc_static_shapes", "gc_every")
# What a studio may set besides, when a node is made.
_HOUSE = ("gc_server", "gc_policy", "gc_merge", "gc_range", "gc_live")
# Of a shot: where, when, in which order. The coordinates that a gizmo declares belong to them.
_OF_SHOT = (
    *("mask_frames", "keyframes", "order", "passes", "track_frame"),
    *("scale", "rotate", "skew", "element_depth", "fg_start", "fg_range"),
)
# Of one picture or one job: no preset has them either.
_OF_JOB = (
    *("seed", "source_prompt", "source_objects", "instruction"),
    *("continue_from", "continue_prompt", "continue_seed", "last_round"),
)
_state = {"as_shipped": False}


@contextlib.contextmanager
def as_shipped() -> "Iterator[None]":
    """Let nodes that are made inside be as their gizmo's file says, whatever a studio wishes."""
    was, _state["as_shipped"] = _state["as_shipped"], True
    try:
        yield
    finally:
        _state["as_shipped"] = was


def begin(gizmo: Any) -> None:
    """Give a node that was made by hand the defaults of the studio and of the user.

    Raises:
        BadKnob: A file names what this node cannot take; nothing is set then.
    """
    if _state["as_shipped"]:
        return
    refresh(gizmo)  # A script that is opened reads no file; a panel that opens does.
    wanted = _house(gizmo, migrating.kind_of(gizmo))
    with node.quietly():
        for name, value in wanted.items():
            gizmo[name].setValue(menuwords.setting(gizmo[name], value))
    if wanted:
        log.info("%s begins with the defaults of %s", gizmo.name(), ", ".join(wanted))


def refresh(gizmo: Any) -> None:
    """List the presets of a node in its menu."""
    if MENU not in gizmo.knobs():
        return
    try:
        items = [CHOOSE, *knobfiles.presets(migrating.kind_of(gizmo), prefs.load())]
    except GencompError as error:  # Nothing was pressed; whoever presses Apply is told.
        log.info("no presets are listed: %s", error)
        return
    if list(gizmo[MENU].values()) != items:
        with node.quietly():
            gizmo[MENU].setValues(items)


def apply(gizmo: Any) -> None:
    """Set the knobs that the chosen preset names; all others stay as they are.

    Raises:
        BadKnob: None is chosen, it is gone, or it names what this node cannot take.
    """
    title = str(gizmo[MENU].value())
    kind = migrating.kind_of(gizmo)
    known = knobfiles.presets(kind, prefs.load())
    if title == CHOOSE or title not in known:
        why = "No preset is chosen." if title == CHOOSE else f"There is no preset '{title}'."
        raise BadKnob(why, hint="Choose one in the menu beside.", knob=MENU)
    wanted = checked(gizmo, kind, known[title], _preset_knobs(gizmo))
    driven = [name for name in wanted if gizmo[name].hasExpression()]
    with nuke.Undo(f"{gizmo.name()} preset {title}"):
        for name, value in wanted.items():
            if name not in driven:
                _set(gizmo[name], value)
    said = f"Preset '{title}' set {_listed([n for n in wanted if n not in driven])}."
    left = f" Left, for an expression drives it: {', '.join(driven)}." if driven else ""
    node.tell(gizmo, said + left)


def save(gizmo: Any) -> None:
    """Keep what differs from the defaults as a preset of this user, under a name that is asked for.

    Raises:
        BadKnob: Nothing differs, the name cannot be one, or there is nobody to ask.
        UnwritableOutput: The user's file cannot be written.
    """
    kind = migrating.kind_of(gizmo)
    values = differing(gizmo, kind)
    if not values:
        raise BadKnob(
            f"{gizmo.name()} is as its defaults are, so there is nothing to keep.",
            hint="Keyframes, places, names and the seed are the shot's, and in no preset.",
        )
    if not nuke.GUI:
        raise BadKnob(
            "A preset is saved where somebody can name it.",
            hint=f"Write it into {knobfiles.users_file()}.",
        )
    title = str(
        nuke.getInput(f"Name of the preset, with {_listed(list(values))}", "") or ""
    ).strip()
    if not title:
        return
    if title == CHOOSE or len(title) > MOST_LETTERS or not title.isprintable():
        raise BadKnob(
            f"'{title}' cannot be a preset's name.", hint=f"Take at most {MOST_LETTERS} letters."
        )
    taken = knobfiles.presets(kind, prefs.load()).get(title)
    if taken and not nuke.ask(f"There is a preset '{title}' ({taken.source}). Put this over it?"):
        return
    path = knobfiles.keep(kind, title, values)
    refresh(gizmo)
    node.tell(gizmo, f"Preset '{title}' is in {path}: {_listed(list(values))}.")


def reset(gizmo: Any) -> None:
    """Set every knob of the job to its default, the studio's counted, in one step of undo.

    What is the shot's stays, unless the artist says otherwise. Never touched are identity, result,
    versions, cache, server, range, names and takes.

    Raises:
        BadKnob: The gizmo's file is not here, or a studio's file cannot be understood.
    """
    kind = migrating.kind_of(gizmo)
    said, house = knobfiles.shipped(kind), _house(gizmo, kind)
    wanted = {}
    for name in (*_sent(gizmo), *_WORK):
        word = said[name].word if name in said else None
        if name in gizmo.knobs() and (name in house or word is not None):
            wanted[name] = house[name] if name in house else _as_value(gizmo[name], word)
    turned = [name for name, value in wanted.items() if not _is_set(gizmo[name], value)]
    shots = [name for name in turned if name in _shot_knobs(gizmo)]
    if shots and not (nuke.GUI and nuke.ask(f"Reset what is this shot's, too: {_listed(shots)}?")):
        turned = [name for name in turned if name not in shots]
    if not turned:
        node.tell(gizmo, "Every knob is at its default already.")
        return
    with nuke.Undo(f"{gizmo.name()} reset"):
        for name in turned:
            if gizmo[name].isAnimated():
                gizmo[name].clearAnimated()
            _set(gizmo[name], wanted[name])
    node.tell(gizmo, f"Back at their defaults: {_listed(turned)}.")


# --- which knobs ---------------------------------------------------------------------------------


def _sent(gizmo: Any) -> "list[str]":
    return str(gizmo["gc_params"].value()).split()


def _shot_knobs(gizmo: Any) -> "tuple[str, ...]":
    return (*_OF_SHOT, *node.declared(gizmo).coordinates)


def _preset_knobs(gizmo: Any) -> "list[str]":
    """Return the knobs that a preset may set."""
    left_out = (*_shot_knobs(gizmo), *_OF_JOB)
    return [name for name in _sent(gizmo) if name not in left_out]


def _house(gizmo: Any, kind: str) -> "dict[str, Any]":
    """Return what studio and user want a node of a kind to begin with, each value checked."""
    may = [name for name in (*_sent(gizmo), *_WORK, *_HOUSE) if name in gizmo.knobs()]
    found: dict[str, Any] = {}
    for values in knobfiles.defaults(kind, prefs.load()):
        found.update(checked(gizmo, kind, values, may))
    return found


def differing(gizmo: Any, kind: str) -> "dict[str, Any]":
    """Return the knobs a preset may set that are not as the gizmo's file says, with their values.

    One with keys or an expression has no value that could be kept.
    """
    said = knobfiles.shipped(kind)
    found = {}
    for name in _preset_knobs(gizmo):
        knob, word = gizmo[name], said[name].word if name in said else None
        if word is None or knob.isAnimated() or _is_set(knob, _as_value(knob, word)):
            continue
        found[name] = _plain(knob)
    return found


# --- values --------------------------------------------------------------------------------------


def checked(gizmo: Any, kind: str, wanted: Values, may: "list[str]") -> "dict[str, Any]":
    """Return values that a node's knobs take.

    Args:
        gizmo: The node.
        kind: Its name.
        wanted: The values; of those meant for every node, knobs that only others have are left out.
        may: The knobs that may be set.

    Raises:
        BadKnob: Names the file, the knob, and the nearest that there is.
    """
    said, found = knobfiles.shipped(kind), {}
    for name, value in wanted.values.items():
        if name in may:
            found[name] = _checked(gizmo[name], value, said.get(name, Shipped()), wanted)
        elif not (wanted.is_for_all and _is_anothers(gizmo, name)):
            _refuse(gizmo, kind, name, wanted, may)
    return found


def _is_anothers(gizmo: Any, name: str) -> bool:
    return name not in gizmo.knobs() and name in knobfiles.knobs_of_all()


def _refuse(gizmo: Any, kind: str, name: str, wanted: Values, may: "list[str]") -> None:
    if name in gizmo.knobs():
        raise BadKnob(
            f"{wanted.source}: '{wanted.title}' sets '{name}' of {kind}, which no file may set.",
            hint="Take it out: it belongs to a shot, to a job, or to the node itself.",
            knob=name,
        )
    near = difflib.get_close_matches(name, may, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Its knobs are: {', '.join(may)}."
    raise BadKnob(
        f"{wanted.source}: '{wanted.title}' sets '{name}', a knob that {kind} has not.",
        hint=hint,
        knob=name,
    )


def _checked(knob: Any, value: Any, said: Shipped, wanted: Values) -> Any:
    """Return a value as a knob takes it.

    Raises:
        BadKnob: It is of another kind, no choice of the knob's, or out of its range.
    """
    choices: tuple[str, ...] = ()
    cls = knob.Class()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if cls == "Boolean_Knob":
        fits, takes = isinstance(value, bool), "true or false"
    elif cls == "Enumeration_Knob":
        choices = tuple(menuwords.spoken(str(one)) for one in knob.values())
        value = menuwords.spoken(value) if isinstance(value, str) else value
        fits, takes = value in choices, f"one of: {', '.join(choices)}"
    elif cls == "Int_Knob":
        fits, takes = is_number and value == int(value), "a whole number"
    elif cls == "Double_Knob":
        fits, takes = is_number, "a number"
    else:
        fits, takes = isinstance(value, str), "text"
    if fits and is_number and said.reach:
        low, high = said.reach
        fits, takes = low <= value <= high, f"{low:.10g} to {high:.10g}"
    if fits:
        return int(value) if cls == "Int_Knob" else value
    near = difflib.get_close_matches(str(value).lower(), choices, n=1)
    raise BadKnob(
        f"{wanted.source}: '{wanted.title}' sets '{knob.name()}' to {value!r}.",
        hint=f"{f'Did you mean {near[0]!r}? ' if near else ''}It takes {takes}.",
        knob=knob.name(),
    )


def _as_value(knob: Any, word: Any) -> Any:
    """Return a word of a gizmo's file as the value of a knob."""
    kinds: Mapping[str, Any] = {
        "Boolean_Knob": lambda text: text in ("true", "1"),
        "Int_Knob": int,
        "Double_Knob": float,
        "Enumeration_Knob": menuwords.spoken,
    }
    return kinds.get(knob.Class(), str)(word)


def _plain(knob: Any) -> Any:
    """Return a knob's value as JSON holds it; a text as it was typed."""
    value = menuwords.value(knob)
    return int(value) if knob.Class() == "Int_Knob" else value


def _is_set(knob: Any, value: Any) -> bool:
    return bool(not knob.isAnimated() and _plain(knob) == value)


def _set(knob: Any, value: Any) -> None:
    """Set a knob; one that says it already is left, so that undo holds what has changed."""
    if not _is_set(knob, value):
        knob.setValue(menuwords.setting(knob, value))


def _listed(names: "list[str]") -> str:
    """Return names as a sentence has them; a long list by its number."""
    return ", ".join(names) if 0 < len(names) <= 8 else f"{len(names)} knobs"
