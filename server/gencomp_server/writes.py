# SPDX-License-Identifier: Apache-2.0
"""Every place that gencomp writes to by itself, in one table; what is not in it is not written.

``gencomp doctor --paths`` shows it, ``gencomp uninstall`` removes what it lists, and a test lets a
server work and compares. A place is a folder with the names in it that are ours: a spool on a disk
of other people's files is emptied of a spool's files and of nothing else. Where somebody says
``--out`` or turns a node's knob *cache*, results lie there; those are told, and never removed.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from gencomp_protocol.errors import UnwritableOutput
from gencomp_protocol.locate import home_folder
from gencomp_protocol.settings import NUKE

PRESETS_FILE = "knobs.json"
WEB_FILE = "web.json"
_SPOOL = (
    *("gencomp.db", "gencomp.db-*", "gencomp.db.*", ".gencomp.db*", "server.lock", ".room.part"),
    *("pictures", "decoded", "stages", "jobs", "models", "log", "workers"),
)
_KEYS = ("server.key", ".server.key*", "allowed.json", ".allowed.json*")
_RANDOM = "?" * 8  # As tempfile spells it.
_PASSING = tuple(
    f"gencomp-{word}-{_RANDOM}"
    for word in ("assist", "files", "inspection", "measure", "plan", "probe", "segmenter", "sheet")
)
_PASSING += (f"gencomp-{_RANDOM}.txt", f"gencomp_{_RANDOM}", ".gencomp_*_??????.nk")


class Kind(Enum):
    """What becomes of a place when gencomp is removed."""

    STATE = "state"  # Can be made again, or means nothing without gencomp: removed.
    KEYS = "keys"  # What other machines know the server by: removed where that is asked for.
    RESULTS = "results"  # What people made: removed unless they are to be kept.
    LEFT = "left"  # Where somebody told it to be, or somebody else's: never removed.


@dataclass(frozen=True)
class Place:
    """One place.

    Attributes:
        folder: The folder; relative, or with a word in ``<>``, where it differs from job to job.
        names: What of the folder is ours, as patterns of names; all of it where empty.
        what: What lies there, and who writes it.
        kind: What becomes of it.
        is_own: Whether the folder itself is ours, so that it goes when it is empty.
        spared: What stays, and with it whatever it lies in.
    """

    folder: Path
    names: tuple[str, ...]
    what: str
    kind: Kind
    is_own: bool = False
    spared: tuple[Path, ...] = ()

    def holds(self, path: Path) -> bool:
        """Tell whether a path is this place's, or beneath it."""
        if not path.is_relative_to(self.folder):
            return False
        parts = path.relative_to(self.folder).parts
        if not self.names:
            return True
        return bool(parts) and any(fnmatch.fnmatchcase(parts[0], name) for name in self.names)

    def found(self) -> tuple[Path, ...]:
        """Return what is there of it; of a shared folder only what is this user's."""
        if not self.folder.is_absolute() or not self.folder.is_dir():
            return ()
        if not self.names:
            return () if self._spares(self.folder) else (self.folder,)
        with suppress(OSError):
            entries = [path for path in sorted(self.folder.iterdir()) if self.holds(path)]
            return tuple(path for path in entries if _is_ours(path) and not self._spares(path))
        return ()

    def _spares(self, path: Path) -> bool:
        """Tell whether something that stays is a path, or lies in it."""
        real = path.resolve()
        return any(one.resolve().is_relative_to(real) for one in self.spared)


def places(environ: Mapping[str, str]) -> tuple[Place, ...]:
    """Return every place of this user on this machine, as the settings have them.

    Raises:
        BadKnob: The settings cannot be read.
    """
    from gencomp_server.config import NO_FILE, load_config
    from gencomp_server.settled import settled_here

    home, config = home_folder(environ), load_config(environ=environ).config
    nuke = settled_here(environ)
    unsaved = Path(str(nuke[(NUKE, "unsaved_folder")].value) or home / "unsaved")
    within = unsaved.resolve(), home.resolve()
    is_ours = within[0] != within[1] and within[0].is_relative_to(within[1])  # Or everybody's.
    kept = (config.weights,)
    template = str(nuke[(NUKE, "cache_template")].value)
    state, results, left = Kind.STATE, Kind.RESULTS, Kind.LEFT
    found = [
        Place(
            config.spool,
            _SPOOL,
            "pictures, stages, jobs and layers of the server",
            state,
            True,
            spared=kept,
        ),
        Place(config.state_file.parent, _beside(config.state_file), "address and secret", state),
        Place(
            config.state_file.parent,
            _beside(config.state_file.with_name(WEB_FILE)),
            "address and token of the web page that the server starts",
            state,
        ),
        Place(home, _beside(home / WEB_FILE), "address and token of gencomp web", state),
        Place(
            config.keys,
            _KEYS,
            "the server's key, which every seat trusts, and the list of those it lets in",
            Kind.KEYS,
            True,
        ),
        Place(home, ("*.key", ".*.key.*"), "keys that gencomp keys new has made", state),
        Place(home, ("server.log", "starting.lock"), "a server that Nuke has started", state),
        Place(home, ("nuke.log", "nuke.log.*"), "log of the Nuke room", state),
        Place(home, ("previews", "pictures"), "what a node has drawn", state),
        Place(
            config.weights_lock.parent, _beside(config.weights_lock), "digests of weights", state
        ),
        Place(
            Path(environ.get("TMPDIR") or tempfile.gettempdir()),
            _PASSING,
            "what a command needs while it runs, and traces of faults",
            state,
        ),
        Place(
            unsaved,
            (),
            "results of Nuke scripts without a name",
            results if is_ours else left,
            spared=(*kept, config.keys, config.spool),
        ),
        Place(config.ledger.parent, _beside(config.ledger), "a row of every delivery", results),
        Place(home, (PRESETS_FILE, f".{PRESETS_FILE}.*"), "presets saved in Nuke", results),
        Place(config.weights, (), "weights: put there by people", left),
        Place(home, ("gencomp.toml", "nuke.json", "client.json"), "settings by hand", left),
        Place(Path("<out>"), (), "gencomp run, decompose, train …: where --out says", left),
        Place(
            Path(template or "<the script's folder>/gencomp"),
            (),
            "results in Nuke: where the node's knob cache says",
            left,
        ),
    ]
    if config.log_file not in ("", NO_FILE):
        file = Path(config.log_file).expanduser()
        found.insert(1, Place(file.parent, _beside(file), "the server's log", state))
    return tuple(found)


def _beside(file: Path) -> tuple[str, ...]:
    """Return the names of a file, of what is written before it is renamed, and of its helpers."""
    name = file.name.replace("[", "[[]")
    return (name, f"{name}-*", f"{name}.*", f".{name}*")


def _is_ours(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.getuid()
    except OSError:
        return False


def size_of(paths: tuple[Path, ...]) -> int:
    """Return the bytes that files take, in folders too; links are not followed."""
    return sum(_sizes(paths))


def _sizes(paths: tuple[Path, ...]) -> Iterator[int]:
    for path in paths:
        with suppress(OSError):
            facts = path.lstat()
            if stat.S_ISDIR(facts.st_mode):
                yield from _sizes(tuple(path.iterdir()))
            else:
                yield facts.st_size


def remove(place: Place) -> tuple[Path, ...]:
    """Remove what is there of a place, and its folder once that is empty; return what went.

    A link is removed, and not what it leads to.

    Raises:
        UnwritableOutput: Something cannot be removed; names it.
    """
    gone = place.found()
    for path in gone:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise UnwritableOutput(
                f"{error.filename or path} cannot be removed ({error.strerror}).",
                hint="Remove it by hand, then run gencomp uninstall again.",
            ) from error
    if gone and place.is_own:
        with suppress(OSError):  # Something of somebody else's is in it.
            place.folder.rmdir()
    return gone
