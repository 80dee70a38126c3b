# SPDX-License-Identifier: Apache-2.0
"""Settings for the Nuke room: a facility's, one user's, and the environment's.

In this order, each over the one before: the table ``[nuke]`` of the files that ``GENCOMP_CONFIG``
names, of ``gencomp.toml`` in gencomp's folder of this user, ``nuke.json`` there, the environment.
``gencomp_protocol.settings`` puts them together and knows what is locked. ``nuke.json`` is a map,
such as ``{"server_command": "/opt/gencomp/bin/gencomp serve", "idle_exit_s": 600}``.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.locate import CLIENT_FILE, home_folder
from gencomp_protocol.settings import (
    CLIENT,
    CLIENT_DEFAULTS,
    DEFAULT,
    KNOBS,
    NUKE,
    NUKE_DEFAULTS,
    Settled,
    client_settings,
    from_environ,
    knobs_of,
    nuke_settings,
    read_client_layer,
    read_json_layer,
    read_layers,
    systems_named,
)

SETTINGS_FILE = "nuke.json"
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')  # On Windows.


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
        BadKnob: A file cannot be understood, a setting is unknown, cannot be, or is locked; names
            where it comes from.
    """
    found = settled(environ)
    made = Prefs(**{name: one.value for name, one in found.items()})
    for name, check in _CHECKS.items():
        try:
            check(made)
        except BadKnob as error:
            raise BadKnob(f"{name} from {found[name].origin}: {error}") from error
    return made


# Settings that have a form of their own, and what reads them.
_CHECKS: "Mapping[str, Callable[[Prefs], object]]" = {
    "server_command": lambda prefs: prefs.command,
    "gencomp_command": lambda prefs: prefs.words(prefs.gencomp_command),
    "background_nuke": lambda prefs: prefs.words(prefs.background_nuke),
    "path_map": lambda prefs: prefs.pairs,
}


def settled(environ: "Mapping[str, str]" = os.environ) -> "dict[str, Settled]":
    """Return each setting by name, with where it comes from, what it stands over, and its lock.

    Raises:
        BadKnob: As ``load`` does.
    """
    home = home_folder(environ)
    users, later = home / SETTINGS_FILE, []
    if users.exists():
        later.append(read_json_layer(users, NUKE))
    later.append(from_environ([(NUKE, name) for name in NUKE_DEFAULTS], environ))
    found = nuke_settings(read_layers(home, environ), later)
    return {key[1]: one for key, one in found.items()}


def origins(environ: "Mapping[str, str]" = os.environ) -> "dict[str, str]":
    """Return where each setting comes from: a file with its line, a variable, or ``default``.

    Raises:
        BadKnob: As ``load`` does.
    """
    return {name: str(one.origin) for name, one in settled(environ).items()}


def all_settled(environ: "Mapping[str, str]" = os.environ) -> "dict[str, Settled]":
    """Return these settings, which server is named, and default values of knobs, by name.

    Of the latter two only what some file or variable says.

    Raises:
        BadKnob: As ``load`` does.
    """
    home = home_folder(environ)
    layers, users = read_layers(home, environ), home / CLIENT_FILE
    later = [read_client_layer(users)] if users.exists() else []
    later.append(from_environ([(CLIENT, name) for name in CLIENT_DEFAULTS], environ))
    found = settled(environ)
    for key, one in client_settings(layers, later).items():
        if one.origin.source != DEFAULT or one.lock is not None:
            found[".".join(key)] = one
    for system in systems_named(layers):
        for name, one in knobs_of(system, layers).items():
            found[f"{KNOBS}.{system}.{name}"] = one
    return found
