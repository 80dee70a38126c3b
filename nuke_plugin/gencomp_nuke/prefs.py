# SPDX-License-Identifier: Apache-2.0
"""Settings of one user for the Nuke room: ``nuke.json`` in gencomp's folder, and the environment.

The environment wins over the file, the file over the defaults. A file is a map, such as
``{"server_command": "/opt/gencomp/bin/gencomp serve", "idle_exit_s": 600}``.
"""

import difflib
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.locate import home_folder

SETTINGS_FILE = "nuke.json"
DEFAULT = "default"
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')  # On Windows.
_VARIABLES = {
    "server_command": "GENCOMP_SERVER_COMMAND",
    "gencomp_command": "GENCOMP_COMMAND",
    "idle_exit_s": "GENCOMP_IDLE_EXIT_S",
    "unsaved_folder": "GENCOMP_UNSAVED_FOLDER",
    "cache_template": "GENCOMP_CACHE_TEMPLATE",
    "path_map": "GENCOMP_PATH_MAP",
    "farm_roots": "GENCOMP_FARM_ROOTS",
    "inputs_keep_gb": "GENCOMP_INPUTS_KEEP_GB",
    "background_nuke": "GENCOMP_BACKGROUND_NUKE",
    "lock_silence_s": "GENCOMP_LOCK_SILENCE_S",
    "studio_knobs": "GENCOMP_STUDIO_KNOBS",
}
_WHOLE = {"idle_exit_s": "seconds", "inputs_keep_gb": "gigabytes", "lock_silence_s": "seconds"}


@dataclass(frozen=True)
class Prefs:
    """What a user or a studio may set.

    Attributes:
        server_command: Command line that starts a server.
        gencomp_command: Command line of gencomp's other commands; empty: that of the server up to
            its word ``serve``.
        idle_exit_s: Seconds without a job after which a server that we started leaves; 0: never.
        unsaved_folder: Folder for the results of scripts without a name; empty: ``unsaved`` in
            gencomp's folder of this user.
        cache_template: Where results go on a node whose cache knob was never changed, such as
            ``/mnt/cache/$SHOW/{script}/{node}_{id}``; empty: as the knob says, beside the script.
        path_map: Pairs of the beginnings of paths, ``P:/=/mnt/p/; //srv/p/=/mnt/p/``, by which a
            path from another system becomes one of this machine.
        farm_roots: Folders that the farm sees, with ``;`` between; empty: all of them.
        inputs_keep_gb: Rendered inputs that a node keeps beside those of its last run.
        background_nuke: Command line of the Nuke that renders inputs in the background; empty: this
            Nuke's own with ``-t``, which takes a render licence.
        lock_silence_s: Seconds after which a process that makes a result and gives no sign of life
            is taken for dead, so that another one takes its place.
        studio_knobs: Files of default values and presets for everybody, with ``;`` between; what
            a later one says wins, and the user's own ``knobs.json`` over all.
    """

    server_command: str = "gencomp serve"
    gencomp_command: str = ""
    idle_exit_s: int = 1800
    unsaved_folder: str = ""
    cache_template: str = ""
    path_map: str = ""
    farm_roots: str = ""
    inputs_keep_gb: int = 20
    background_nuke: str = ""
    lock_silence_s: int = 60
    studio_knobs: str = ""

    @property
    def command(self) -> "tuple[str, ...]":
        """Return the words of ``server_command``."""
        return self.words(self.server_command)

    @property
    def studio_files(self) -> "tuple[Path, ...]":
        """Return the files of ``studio_knobs``."""
        words = (word.strip() for word in self.studio_knobs.split(";"))
        return tuple(Path(word) for word in words if word)

    @property
    def pairs(self) -> "list[tuple[str, str]]":
        """Return what a path of another system starts with, and what it starts with here."""
        found = []
        for entry in filter(None, (word.strip() for word in self.path_map.split(";"))):
            there, equals, here = (word.strip().replace("\\", "/") for word in entry.partition("="))
            if not (there and equals and here):
                raise BadKnob(
                    f"The setting path_map has '{entry}', which is no pair.",
                    hint="Write it as P:/=/mnt/p/ with ; between pairs.",
                )
            found.append((there, here))
        return found

    @staticmethod
    def words(text: str, is_windows: bool = os.name == "nt") -> "tuple[str, ...]":
        """Return the words of a command line.

        Args:
            text: The line.
            is_windows: Whether it is read as on Windows: a backslash stands for itself, and
                nothing but ``"`` quotes.

        Raises:
            BadKnob: A quotation in it is not closed.
        """
        try:
            if not is_windows:
                return tuple(shlex.split(text))
            if text.count('"') % 2:
                raise ValueError("No closing quotation")
        except ValueError as error:
            raise BadKnob(
                f"The command line '{text}' cannot be read ({error}).",
                hint="Put a path with spaces between two quotation marks.",
            ) from error
        return tuple(word.replace('"', "") for word in _WORD.findall(text))


def load(environ: "Mapping[str, str]" = os.environ) -> Prefs:
    """Read the settings.

    Raises:
        BadKnob: The file cannot be understood, or a setting is unknown or cannot be; names where
            it comes from.
    """
    values, sources = _from_file(home_folder(environ) / SETTINGS_FILE), origins(environ)
    for name, variable in _VARIABLES.items():
        if environ.get(variable):
            values[name] = environ[variable]
    known = {field.name: field for field in fields(Prefs)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Settings are: {', '.join(known)}."
            raise BadKnob(f"There is no setting '{name}' in {SETTINGS_FILE}.", hint=hint)
    made = Prefs(**{name: _typed(name, value, sources[name]) for name, value in values.items()})
    for name, check in _CHECKS.items():
        try:
            check(made)
        except BadKnob as error:
            raise BadKnob(f"{name} from {sources[name]}: {error}") from error
    return made


# Settings that have a form of their own, and what reads them.
_CHECKS: "Mapping[str, Callable[[Prefs], object]]" = {
    "server_command": lambda prefs: prefs.command,
    "gencomp_command": lambda prefs: prefs.words(prefs.gencomp_command),
    "background_nuke": lambda prefs: prefs.words(prefs.background_nuke),
    "path_map": lambda prefs: prefs.pairs,
}


def origins(environ: "Mapping[str, str]" = os.environ) -> "dict[str, str]":
    """Return where each setting comes from: a variable's name, the file, or ``default``.

    Raises:
        BadKnob: The file cannot be understood.
    """
    path = home_folder(environ) / SETTINGS_FILE
    from_file = _from_file(path)
    found = {field.name: DEFAULT for field in fields(Prefs)}
    for name in found:
        variable = _VARIABLES.get(name, "")
        if variable and environ.get(variable):
            found[name] = variable
        elif name in from_file:
            found[name] = str(path)
    return found


def _typed(name: str, value: Any, source: str) -> Any:
    if name not in _WHOLE:
        return str(value)
    if not str(value).isdigit():
        raise BadKnob(
            f"Setting '{name}' takes a whole number of {_WHOLE[name]}, not {value!r}.",
            hint=f"It comes from {source}.",
        )
    return int(value)


def _from_file(path: Path) -> "dict[str, Any]":
    if not path.exists():
        return {}
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadKnob(f"The settings {path} cannot be read ({error}).") from error
    if not isinstance(plain, dict):
        raise BadKnob(f"The settings {path} are not a map.")
    return plain
