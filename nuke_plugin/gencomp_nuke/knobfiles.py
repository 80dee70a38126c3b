# SPDX-License-Identifier: Apache-2.0
"""Files of knob values: the presets that come with gencomp, a studio's, and those of one user.

A file is a map of two tables, by the node's name; ``*`` stands for every node::

    {"defaults": {"*": {"gc_depth": "16 bit half"}, "OverPlusPlus": {"compression": "piz"}},
     "presets": {"OverPlusPlus": {"our dust": {"prompt": "dust in the wind", "guidance": 7}}}}

What comes later wins: ``presets.json`` beside this module, the tables ``[knobs.SYSTEM]`` of a
facility's settings files, the studio's files, those tables in the user's ``gencomp.toml``, and
``knobs.json`` in gencomp's folder of this user. What a settings file locks none of them can set
otherwise. ``presetting.py`` puts their values onto nodes. Nothing here knows a node.
"""

import difflib
import functools
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from gencomp_nuke.prefs import Prefs
from gencomp_protocol.errors import BadKnob, UnwritableOutput
from gencomp_protocol.locate import home_folder
from gencomp_protocol.settings import (
    EVERY,
    KNOBS,
    Given,
    Key,
    Layer,
    Origin,
    knobs_of,
    read_layers,
    systems_named,
)

SHIPPED = Path(__file__).resolve().parent / "presets.json"
USERS = "knobs.json"
GIZMOS = Path(__file__).resolve().parent.parent.parent / "gizmos"
_DEFAULTS, _PRESETS = "defaults", "presets"
# A knob that is added, and one that is set; both as tools/gizmo_lines.py spells them.
_ADDED = re.compile(r" addUserKnob \{\d+ (\w+)")
_SET = re.compile(r" (\w+) (.+)")
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_REACH = re.compile(r" R (\S+) ([^\s}]+)")


@dataclass(frozen=True)
class Values:
    """Values of knobs that belong together.

    Attributes:
        title: What they are called: a preset's name, or ``defaults``.
        values: By knob.
        source: Where they stand, for a sentence.
        is_for_all: Whether they are meant for every node, so that one may lack some of them.
    """

    title: str
    values: "Mapping[str, Any]"
    source: str
    is_for_all: bool = False


@dataclass(frozen=True)
class Shipped:
    """What a gizmo's file says of a knob.

    Attributes:
        word: Its value as the file spells it, without quotes; None where it has none.
        reach: Least and greatest value; None where there are none.
    """

    word: Optional[str] = None
    reach: "Optional[tuple[float, float]]" = None


def defaults(kind: str, prefs: Prefs) -> "list[Values]":
    """Return the defaults of a facility and of a user for a node, the one that wins last.

    Args:
        kind: The node's name: ``OverPlusPlus``.
        prefs: The settings.

    Raises:
        BadKnob: A file cannot be understood, or sets what an earlier one has locked.
    """
    system = kind.lower()
    layers = read_layers(home_folder(os.environ), os.environ)
    _check_systems(layers)
    ordered = [layer for layer in layers if not layer.is_users]
    ordered += [_layer_of(path, system) for path in prefs.studio_files]
    ordered += [layer for layer in layers if layer.is_users]
    ordered.append(_layer_of(users_file(), system))
    knobs_of(system, ordered)  # Nothing sets what is locked.
    return [
        Values(_DEFAULTS, {key[2]: given.value}, str(given.origin), key[1] == EVERY)
        for layer in ordered
        for name in (EVERY, system)
        for key, given in layer.values.items()
        if key[:2] == (KNOBS, name)
    ]


def _layer_of(path: Path, system: str) -> Layer:
    """Return a file's defaults for a system and for all, in the form of settings."""
    table = _table(path, _DEFAULTS)
    values: dict[Key, Given] = {}
    for name in (EVERY, *_spellings(table, system)):
        plain = _map(table.get(name, {}), path, f"the defaults of {name}")
        own = EVERY if name == EVERY else system
        values.update({(KNOBS, own, k): Given(v, Origin(str(path))) for k, v in plain.items()})
    return Layer(values, {})


def _check_systems(layers: "Sequence[Layer]") -> None:
    """Refuse settings of knobs of a system that no gizmo here has."""
    known = sorted(gizmo.stem.lower() for gizmo in GIZMOS.glob("*.gizmo"))
    for system, origin in systems_named(layers).items():
        if system not in (*known, EVERY):
            near = difflib.get_close_matches(system, known, n=1)
            raise BadKnob(
                f"There is no system '{system}' ({KNOBS} in {origin}).",
                hint=f"Did you mean '{near[0]}'?" if near else f"Systems: {', '.join(known)}.",
            )


def presets(kind: str, prefs: Prefs) -> "dict[str, Values]":
    """Return the presets of a node by name: gencomp's, the studio's, the user's.

    Args:
        kind: The node's name: ``OverPlusPlus``.
        prefs: The settings.

    Raises:
        BadKnob: A file cannot be understood.
    """
    found: dict[str, Values] = {}
    for path in (SHIPPED, *_files(prefs)):
        table = _table(path, _PRESETS)
        for name in (EVERY, *_spellings(table, kind)):
            for title, values in _map(table.get(name, {}), path, f"presets of {name}").items():
                known = _map(values, path, f"the preset '{title}'")
                found[title] = Values(title, known, str(path), name == EVERY)
    return found


def keep(kind: str, title: str, values: "Mapping[str, Any]") -> Path:
    """Write a preset into the user's file, over one of the same name; return the file.

    The file is whole at any time, and keeps whatever else is in it.

    Args:
        kind: The node's name.
        title: The preset's name.
        values: By knob.

    Raises:
        BadKnob: The file that is there cannot be understood.
        UnwritableOutput: It cannot be written.
    """
    path = users_file()
    whole = _read(path)
    table = dict(_map(whole.get(_PRESETS, {}), path, "presets"))
    name = next(iter(_spellings(table, kind)), kind)
    own = dict(_map(table.get(name, {}), path, f"presets of {name}"))
    own[title] = dict(values)
    table[name] = own
    whole[_PRESETS] = table
    text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise UnwritableOutput(
            f"The preset cannot be written into {path} ({error.strerror}).",
            hint="Make room there, or let yourself write there.",
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()
    return path


def check(prefs: Prefs) -> None:
    """Look through every file.

    Raises:
        BadKnob: One cannot be understood, or names a knob that no gizmo here has.
    """
    known = knobs_of_all()
    for gizmo in sorted(GIZMOS.glob("*.gizmo")):
        for values in (*defaults(gizmo.stem, prefs), *presets(gizmo.stem, prefs).values()):
            strangers = [name for name in values.values if name not in known]
            if strangers:
                near = difflib.get_close_matches(strangers[0], known, n=1)
                raise BadKnob(
                    f"{values.source}: '{values.title}' sets '{strangers[0]}', which no node has.",
                    hint=f"Did you mean '{near[0]}'?" if near else "",
                )


def users_file() -> Path:
    """Return where a user's own presets and defaults lie."""
    return home_folder(os.environ) / USERS


# --- what a gizmo's file says --------------------------------------------------------------------


def shipped(kind: str) -> "Mapping[str, Shipped]":
    """Return what a gizmo's file says of its knobs, by name.

    Raises:
        BadKnob: There is no such file here.
    """
    path = GIZMOS / f"{kind}.gizmo"
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise BadKnob(
            f"The defaults of {kind} are in {path}, which cannot be read ({error.strerror}).",
            hint="Install the release of gencomp that has it.",
        ) from error


def knobs_of_all() -> "frozenset[str]":
    """Return the names of the knobs of every gizmo that is here."""
    return frozenset(name for path in GIZMOS.glob("*.gizmo") for name in shipped(path.stem))


@functools.lru_cache(maxsize=20)
def _parsed(path: Path, changed_ns: int) -> "Mapping[str, Shipped]":
    found: dict[str, Shipped] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line == "}":  # What follows is inside.
            break
        added, said = _ADDED.match(line), _SET.match(line)
        if added:
            reach = _REACH.search(_QUOTED.sub('""', line))
            ends = (float(reach[1]), float(reach[2])) if reach else None
            found[added[1]] = Shipped(reach=ends)
        elif said and said[1] in found:
            found[said[1]] = Shipped(_unquoted(said[2]), found[said[1]].reach)
    return found


def _unquoted(word: str) -> str:
    """Return a word of Tcl as ``gizmo_lines.quoted`` was given it."""
    if word.startswith('"'):
        return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], word[1:-1])
    return word[1:-1] if word.startswith("{") else word


# --- files ---------------------------------------------------------------------------------------


def _files(prefs: Prefs) -> "list[Path]":
    """Return the files of the studio, then the user's; each in its order, the last wins."""
    return [*map(Path, prefs.studio_files), users_file()]


def _spellings(table: "Mapping[str, Any]", kind: str) -> "list[str]":
    """Return how a table spells a node's name: in capitals or small."""
    return [name for name in table if name.lower() == kind.lower()]


def _table(path: Path, name: str) -> "Mapping[str, Any]":
    """Return one of a file's two tables; empty where it has none.

    Raises:
        BadKnob: The file has other tables, or tables of nodes that there are not.
    """
    whole = _read(path)
    odd = [key for key in whole if key not in (_DEFAULTS, _PRESETS)]
    if odd:
        raise BadKnob(
            f"{path} has a table '{odd[0]}'.", hint=f"It may have '{_DEFAULTS}' and '{_PRESETS}'."
        )
    kinds = sorted(gizmo.stem for gizmo in GIZMOS.glob("*.gizmo"))
    known = {EVERY, *(kind.lower() for kind in kinds)}
    for table in (_DEFAULTS, _PRESETS):
        strangers = [k for k in _map(whole.get(table, {}), path, table) if k.lower() not in known]
        if strangers:
            raise BadKnob(
                f"{path} has {table} of a node '{strangers[0]}', which there is not.",
                hint=f"Nodes are {', '.join(kinds)}, and {EVERY} for all.",
            )
    return _map(whole.get(name, {}), path, name)


def _read(path: Path) -> "dict[str, Any]":
    """Return what is in a file; a user's own need not be there.

    Raises:
        BadKnob: It cannot be read, or is no map.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if path == users_file():
            return {}
        raise BadKnob(
            f"The file of knob values {path} is not there.",
            hint="Put it there, or mend GENCOMP_STUDIO_KNOBS or the setting studio_knobs.",
        ) from error
    except (OSError, ValueError) as error:
        raise BadKnob(f"The file of knob values {path} cannot be read ({error}).") from error
    return dict(_map(plain, path, "what is in it"))


def _map(plain: Any, path: Path, what: str) -> "Mapping[str, Any]":
    if not isinstance(plain, dict):
        raise BadKnob(f"{path}: {what} is no map of names to values.")
    return plain
