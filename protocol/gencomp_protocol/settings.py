# SPDX-License-Identifier: Apache-2.0
"""Settings in layers: a facility's files, the user's, the environment, flags; each over the last.

The facility's files are named by ``GENCOMP_CONFIG``, in the order site, show, shot; the user's is
``gencomp.toml`` in gencomp's home folder. All have the same form: the server's settings at the top,
``[client]`` (which server), ``[nuke]`` and ``[knobs.SYSTEM]`` (defaults of knobs) as tables.
``locked = ["allow_network", "nuke.cache_template", "knobs"]`` keeps what holds so far against
everything that comes later: another value is an error that names both places.

Every value keeps its file and line. A name that nobody knows is an error with the nearest known
one, and so is a file that is named and not there: a lock that is silently missing is none.
"""

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from gencomp_protocol import tomllines
from gencomp_protocol.errors import BadKnob

CONFIG_VARIABLE = "GENCOMP_CONFIG"
CONFIG_FILE = "gencomp.toml"
PREFIX = "GENCOMP_"
LOCKED = "locked"
CLIENT, NUKE, KNOBS = "client", "nuke", "knobs"
TABLES = (CLIENT, NUKE, KNOBS)
EVERY = "*"  # In [knobs."*"]: every system that has such a knob.
DEFAULT, FLAG = "default", "flag"
_MAY_LACK = "-"
_MOST_BYTES = 256 * 1024

Key = tuple[str, ...]

# What clients of a server are told, with the values that hold without any file.
CLIENT_DEFAULTS: "Mapping[str, Any]" = {
    "server": "",
    "server_key": "",
    "key_file": "",
    "secret_file": "",
}
# What opens one server is no other's.
_OF_SERVER = ("server_key", "secret_file")
# What the Nuke room is told; ``gencomp_nuke.prefs`` says what each one means.
NUKE_DEFAULTS: "Mapping[str, Any]" = {
    "server_command": "gencomp serve",
    "gencomp_command": "",
    "idle_exit_s": 1800,
    "unsaved_folder": "",
    "cache_template": "",
    "path_map": "",
    "farm_roots": "",
    "inputs_keep_gb": 20,
    "background_nuke": "",
    "lock_silence_s": 60,
    "studio_knobs": "",
}
_UNITS = {"_s": " of seconds", "_gb": " of gigabytes"}
# Variables that are not GENCOMP_ and the setting's name in capitals.
_VARIABLES: "Mapping[Key, str]" = {(NUKE, "gencomp_command"): "GENCOMP_COMMAND"}


@dataclass(frozen=True)
class Origin:
    """Where a value comes from.

    Attributes:
        source: Path of a file, a variable, ``flag`` or ``default``.
        line: In the file, from 1; 0 where there is none.
    """

    source: str
    line: int = 0

    def __str__(self) -> str:
        """Spell it as editors and compilers do: ``/site/gencomp.toml:12``."""
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True)
class Given:
    """A value and where it comes from."""

    value: Any
    origin: Origin


@dataclass(frozen=True)
class Layer:
    """What one source says.

    Attributes:
        values: By key: ``("device",)``, ``("nuke", "cache_template")``.
        locks: Keys, and tables whole, that are fixed from here on.
        is_users: Whether the user wrote it, and not the facility.
    """

    values: "Mapping[Key, Given]"
    locks: "Mapping[Key, Origin]"
    is_users: bool = True


@dataclass(frozen=True)
class Settled:
    """A setting as it holds.

    Attributes:
        value: Of its field's type.
        origin: Where it comes from.
        over: What it stands over, the earliest first, without the default.
        lock: Where it is locked; None where it is not.
    """

    value: Any
    origin: Origin
    over: "tuple[Given, ...]" = ()
    lock: Optional[Origin] = None


def read_layers(
    home: Path, environ: "Mapping[str, str]" = os.environ, users: Optional[Path] = None
) -> "tuple[Layer, ...]":
    """Return what the facility's files say, then the user's.

    Args:
        home: gencomp's home folder.
        environ: Where ``GENCOMP_CONFIG`` is looked up: paths with ``:`` between (``;`` on Windows).
            One that begins with ``-`` may be missing.
        users: The user's file, which then has to be there; None takes ``gencomp.toml`` in the home
            folder, if there.

    Raises:
        BadKnob: A file is not there, cannot be read, or has a name or a lock that cannot be.
    """
    found = [
        read_layer(place, is_users=False)
        for place, may_lack in facility_files(environ)
        if not may_lack or place.exists()
    ]
    place = home / CONFIG_FILE if users is None else users
    is_there = users is not None or place.exists()
    return (*found, read_layer(place)) if is_there else tuple(found)


def facility_files(environ: "Mapping[str, str]") -> "list[tuple[Path, bool]]":
    """Return the files that ``GENCOMP_CONFIG`` names, each with whether it may be missing."""
    words = [word.strip() for word in environ.get(CONFIG_VARIABLE, "").split(os.pathsep)]
    return [
        (Path(word[1:] if word.startswith(_MAY_LACK) else word).expanduser(), word[:1] == _MAY_LACK)
        for word in words
        if word
    ]


def read_layer(place: Path, *, is_users: bool = True) -> Layer:
    """Return what one file says.

    Raises:
        BadKnob: It cannot be read, or has a table or a lock that cannot be.
    """
    try:
        with open(place, "rb") as source:
            raw = source.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BadKnob(
            f"The settings file {place} cannot be read ({error.strerror}).",
            hint=f"Mend the file, or what names it: {CONFIG_VARIABLE} takes -{place} for a file "
            "that may be missing.",
        ) from error
    if len(raw) > _MOST_BYTES:
        raise BadKnob(f"The settings file {place} has more than {_MOST_BYTES} bytes.")
    try:
        entries = tomllines.read(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadKnob(f"The settings file {place} is not TOML (it is not UTF-8).") from error
    except tomllines.NotToml as error:
        raise BadKnob(f"The settings file {place} is not TOML ({error}).") from error
    values: dict[Key, Given] = {}
    locks: dict[Key, Origin] = {}
    for entry in entries:
        origin = Origin(str(place), entry.line)
        if entry.key == (LOCKED,):
            locks = dict.fromkeys(_locks(entry.value, origin), origin)
        elif not _is_whole_table(entry, origin):
            values[entry.key] = Given(entry.value, origin)
    return Layer(values, locks, is_users)


def read_json_layer(place: Path, table: str) -> Layer:
    """Return what a map in JSON says of one table's settings: ``nuke.json``.

    Raises:
        BadKnob: It cannot be read, or is no map.
    """
    try:
        text = place.read_text(encoding="utf-8")
        plain = json.loads(text)
    except (OSError, ValueError) as error:
        raise BadKnob(f"The settings {place} cannot be read ({error}).") from error
    if not isinstance(plain, dict):
        raise BadKnob(f"The settings {place} are not a map.")
    lines = dict(_lines_of(text))
    return Layer(
        {(table, key): Given(v, Origin(str(place), lines[key])) for key, v in plain.items()}, {}
    )


def read_client_layer(place: Path) -> Layer:
    """Return what a ``client.json`` says of the server to use; keys in it are no settings.

    Raises:
        BadKnob: It cannot be read, or is no map.
    """
    values = read_json_layer(place, CLIENT).values
    return Layer({key: one for key, one in values.items() if key[1] in CLIENT_DEFAULTS}, {})


def _lines_of(text: str) -> "Iterator[tuple[str, int]]":
    """Yield the names of a map in JSON, each with its line; of one that stands twice the last."""
    decoder, at = json.JSONDecoder(), text.index("{") + 1
    while True:
        at = _after(text, at, " \t\r\n,")
        if text[at] == "}":
            return
        name, end = decoder.raw_decode(text, at)
        yield name, text.count("\n", 0, at) + 1
        _, at = decoder.raw_decode(text, _after(text, end, " \t\r\n:"))


def _after(text: str, at: int, marks: str) -> int:
    while text[at] in marks:
        at += 1
    return at


def _is_whole_table(entry: tomllines.Entry, origin: Origin) -> bool:
    """Tell whether an entry is no more than a table without entries; refuse unknown tables."""
    key, depth = entry.key, len(entry.key)
    if depth > 1 or entry.value == {}:
        if key[0] not in TABLES:
            raise _unknown(key[:1], [(name,) for name in TABLES], origin, "table")
    elif key[0] in TABLES:
        raise BadKnob(f"'{key[0]}' in {origin} is a table: write [{key[0]}] before its settings.")
    if key[0] == KNOBS and (depth > 3 or (depth == 2 and entry.value != {})):
        raise BadKnob(
            f"'{_spelt(key)}' in {origin} names no knob of a system.",
            hint='Write [knobs.overplusplus], or [knobs."*"] for all systems, and a knob beneath.',
        )
    return bool(entry.value == {})


def _locks(value: Any, origin: Origin) -> "list[Key]":
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise BadKnob(
            f"'{LOCKED}' in {origin} takes a list of names.",
            hint=f'Write {LOCKED} = ["allow_network", "nuke.cache_template"].',
        )
    return [tuple(one.split(".")) for one in value]


def settle(
    defaults: "Mapping[Key, Any]",
    layers: "Sequence[Layer]",
    typed: "Callable[[Key, Any, Origin], Any]",
    *,
    is_open: bool = False,
) -> "dict[Key, Settled]":
    """Put the layers of some settings on top of each other, earliest first.

    Args:
        defaults: By key, every setting that there is, with what holds where nobody says anything.
        layers: The sources. Of their keys only those count that ``concerns`` tells of.
        typed: Returns a value as its setting's type, or raises BadKnob.
        is_open: Whether a table has names that ``defaults`` does not: knobs.

    Raises:
        BadKnob: A name is not known, a value cannot be, or a locked setting is set again.
    """
    tables = {key[0] if len(key) > 1 else "" for key in defaults} or {KNOBS}
    held = {key: Settled(value, Origin(DEFAULT)) for key, value in defaults.items()}
    locks: dict[Key, Origin] = {}
    for layer in layers:
        for key, given in layer.values.items():
            if (key[0] if len(key) > 1 else "") not in tables:
                continue
            if key not in held:
                if not is_open:
                    raise _unknown(key, held, given.origin)
                held[key] = Settled(None, Origin(DEFAULT))
            value, before = typed(key, given.value, given.origin), held[key]
            lock = _lock_of(key, locks)
            if lock is not None and value != before.value:
                raise _is_locked(key, before, Given(value, given.origin), lock)
            if lock is not None:
                continue
            over = before.over
            if before.origin.source != DEFAULT:
                over += (Given(before.value, before.origin),)
            held[key] = Settled(value, given.origin, over)
        for key, origin in layer.locks.items():
            if not is_open:
                _check_lock(key, origin, held, tables)
            locks.setdefault(key, origin)
    return {
        key: Settled(one.value, one.origin, one.over, _lock_of(key, locks))
        for key, one in held.items()
    }


def _check_lock(
    key: Key, origin: Origin, held: "Mapping[Key, Settled]", tables: "set[str]"
) -> None:
    """Refuse a lock of a setting that is not there, where it is one of these tables."""
    if key[0] == KNOBS or key == (CLIENT,) or key == (NUKE,):
        return
    if (key[0] if key[0] in TABLES else "") in tables and key not in held:
        raise _unknown(key, held, origin, "setting to lock")


def _lock_of(key: Key, locks: "Mapping[Key, Origin]") -> Optional[Origin]:
    """Return where a key is locked, itself or with its table."""
    found = (locks[key[:n]] for n in range(1, len(key) + 1) if key[:n] in locks)
    return next(found, None)


def _is_locked(key: Key, before: Settled, given: Given, lock: Origin) -> BadKnob:
    stands = "by default" if before.origin.source == DEFAULT else f"from {before.origin}"
    where = str(given.origin)
    cure = f"Take it out of {where}"
    if given.origin.source == FLAG:
        where = f"the flag --{key[-1].replace('_', '-')}"
        cure = "Leave the flag away"
    return BadKnob(
        f"Setting '{_spelt(key)}' is {spelt_value(given.value)} in {where}, but {lock} "
        f"locks it at {spelt_value(before.value)} ({stands}).",
        hint=f"{cure}, or ask whoever keeps {lock.source}.",
        setting=_spelt(key),
    )


def _unknown(key: Key, known: "Iterable[Key]", origin: Origin, what: str = "setting") -> BadKnob:
    # A file of one table does not say which.
    first = 1 if len(key) > 1 and Path(origin.source).suffix == ".json" else 0
    names = [_spelt(one[first:]) for one in known]
    near = difflib.get_close_matches(_spelt(key[first:]), names, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"{what.capitalize()}s: {', '.join(names)}."
    return BadKnob(f"There is no {what} '{_spelt(key[first:])}' ({origin}).", hint=hint)


def _spelt(key: Key) -> str:
    return ".".join(key)


# --- the tables that both rooms know -------------------------------------------------------------


def variable_of(key: Key) -> str:
    """Return the environment's name for a setting; empty for a knob, which has none."""
    if key[0] == KNOBS:
        return ""
    return _VARIABLES.get(key, PREFIX + key[-1].upper())


def from_environ(keys: "Iterable[Key]", environ: "Mapping[str, str]") -> Layer:
    """Return what the environment says of settings; an empty variable says nothing."""
    named = {key: variable_of(key) for key in keys}
    return Layer(
        {
            key: Given(environ[name], Origin(name))
            for key, name in named.items()
            if name and environ.get(name)
        },
        {},
    )


def client_settings(
    layers: "Sequence[Layer]", later: "Sequence[Layer]" = ()
) -> "dict[Key, Settled]":
    """Return which server is meant: the tables ``[client]``, then what comes later.

    Raises:
        BadKnob: As ``settle`` does.
    """
    defaults: dict[Key, Any] = {(CLIENT, name): value for name, value in CLIENT_DEFAULTS.items()}
    return settle(defaults, (*layers, *later), as_default(defaults))


def client_choice(
    layers: "Sequence[Layer]",
    chosen: "Mapping[str, Any]",
    place: Path,
    environ: "Mapping[str, str]",
) -> "tuple[dict[str, Any], bool]":
    """Return what files say of the server to use, and whether its address is locked.

    What opens a server, its public key or the file of its secret, counts for the server that the
    same file names, or a later one: a secret is not sent to a server that it was not meant for.

    Args:
        layers: The settings files.
        chosen: What is in the user's ``client.json``, which comes after them.
        place: Where that is.
        environ: The environment, which has to keep to the locks too.

    Raises:
        BadKnob: Something sets what an earlier file has locked.
    """
    own: dict[Key, Given] = {
        (CLIENT, name): Given(chosen[name], Origin(str(place)))
        for name in CLIENT_DEFAULTS
        if chosen.get(name)
    }
    variables = from_environ([(CLIENT, name) for name in CLIENT_DEFAULTS], environ)
    settled = client_settings(layers, (Layer(own, {}), variables))
    found = {name: value for name, value in chosen.items() if name not in CLIENT_DEFAULTS}
    for layer in (*layers, Layer(own, {})):
        said = {k[1]: one.value for k, one in layer.values.items() if k[0] == CLIENT}
        if said.get("server", found.get("server")) != found.get("server"):
            found = {name: value for name, value in found.items() if name not in _OF_SERVER}
        found.update(said)
    server = settled[(CLIENT, "server")]
    return found, bool(server.lock is not None and server.value)


def nuke_settings(layers: "Sequence[Layer]", later: "Sequence[Layer]" = ()) -> "dict[Key, Settled]":
    """Return the settings of the Nuke room: the tables ``[nuke]``, then what comes later.

    Raises:
        BadKnob: As ``settle`` does.
    """
    defaults: dict[Key, Any] = {(NUKE, name): value for name, value in NUKE_DEFAULTS.items()}
    return settle(defaults, (*layers, *later), as_default(defaults))


def knobs_of(
    system: str, layers: "Sequence[Layer]", later: "Sequence[Layer]" = ()
) -> "dict[str, Settled]":
    """Return default values of a system's knobs, by knob: ``[knobs."*"]``, then ``[knobs.SYSTEM]``.

    What a later file says for all systems stands over what an earlier one says for this one, and a
    lock for all systems is one for this one.

    Args:
        system: Its name.
        layers: The sources.
        later: Sources that come after them.

    Raises:
        BadKnob: A locked one is set again, or a value is a list.
    """
    own = [_of_system(system, layer) for layer in (*layers, *later)]
    settled = settle({}, own, _as_knob, is_open=True)
    return {key[2]: one for key, one in settled.items()}


def is_for_every_system(layers: "Sequence[Layer]", origin: Origin) -> bool:
    """Tell whether a value is one for all systems, so that one of them may lack the knob."""
    return any(
        key[:2] == (KNOBS, EVERY) and given.origin == origin
        for layer in layers
        for key, given in layer.values.items()
    )


def systems_named(layers: "Sequence[Layer]") -> "dict[str, Origin]":
    """Return the systems that files set or lock knobs of, and where first; ``*`` too."""
    found: dict[str, Origin] = {}
    for layer in layers:
        named = {key: given.origin for key, given in layer.values.items()}
        for key, origin in {**named, **layer.locks}.items():
            if key[0] == KNOBS and len(key) > 1:
                found.setdefault(key[1], origin)
    return found


def _of_system(system: str, layer: Layer) -> Layer:
    """Return what a layer says of one system, with what it says of all."""
    values: dict[Key, Given] = {}
    locks = dict(layer.locks)
    for name in (EVERY, system):
        for key, given in layer.values.items():
            if key[:2] == (KNOBS, name):
                values[(KNOBS, system, key[2])] = given
        for key, origin in layer.locks.items():
            if key[:2] == (KNOBS, name):
                locks[(KNOBS, system, *key[2:])] = origin
    return Layer(values, locks, layer.is_users)


def as_default(defaults: "Mapping[Key, Any]") -> "Callable[[Key, Any, Origin], Any]":
    """Return what takes a value as the type of its default: text, or a whole number from 0."""

    def typed(key: Key, value: Any, origin: Origin) -> Any:
        if isinstance(defaults[key], int):
            if isinstance(value, str) and value.isdigit():
                return int(value)
            if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
                return value
            unit = next((word for ending, word in _UNITS.items() if key[-1].endswith(ending)), "")
            words = f"a whole number{unit}"
        elif isinstance(value, str):
            return value
        else:
            words = "text"
        raise BadKnob(
            f"Setting '{_spelt(key)}' takes {words}, not {value!r}.",
            hint=f"It comes from {origin}.",
        )

    return typed


def _as_knob(key: Key, value: Any, origin: Origin) -> Any:
    if isinstance(value, (str, int, float)):
        return value
    raise BadKnob(
        f"Knob '{_spelt(key)}' takes a text, a number or a switch, not {value!r}.",
        hint=f"It comes from {origin}.",
    )


def explained(settled: "Mapping[Key, Settled]") -> "list[str]":
    """Return lines that say each setting, where it comes from, and what it stands over."""
    lines = []
    for key, one in settled.items():
        lock = f", locked by {one.lock}" if one.lock is not None else ""
        lines.append(f"{_spelt(key)} = {spelt_value(one.value)}  ({one.origin}{lock})")
        for given in reversed(one.over):
            lines.append(f"    over {spelt_value(given.value)}  ({given.origin})")
    return lines


def spelt_value(value: Any) -> str:
    """Return a value as a settings file spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(spelt_value, value))}]"
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
