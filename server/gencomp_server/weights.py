# SPDX-License-Identifier: Apache-2.0
"""Where weights lie, whether they are whole, and whether they may be used; free of torch.

``weights.toml`` declares the sets: what files belong to each, where a person gets them, under which
licence. A :class:`Shelf` is a folder of installed sets: ``<folder>/<set>/<files>``. A set may have
a base: the roles that it does not bring itself (VAE, text encoder, configuration) are the base's.

Nothing is ever fetched. Digests are kept by :mod:`gencomp_server.weights_lock`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from gencomp_protocol.errors import (
    BadKnob,
    DiskFull,
    UnwritableOutput,
    WeightsMissing,
    WeightsRefused,
)
from gencomp_server.backbones import SPECS, BackboneSpec
from gencomp_server.contract import Refusal
from gencomp_server.tensorfile import shards
from gencomp_server.weights_lock import Entry, LockFile, Progress, digest_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

log = logging.getLogger(__name__)

PRODUCTION = "production"
REGISTRATION = "registration needed"
CLASSES = (PRODUCTION, REGISTRATION, "academic", "unknown")
"""Licence classes, from the freest to the one that allows least."""

DEFAULT_ALLOWED = (PRODUCTION, REGISTRATION)
DECLARATIONS = "weights.toml"
NO_DIGEST = "unknown"
SHIPPED = Path(str(resources.files("gencomp_server"))) / "models"
"""Folder of the weights that come with gencomp."""

_WEIGHT_ROLES = ("transformer", "branch", "vae", "text_encoder", "lora")
_CONFIG_ROLES = ("transformer_config", "branch_config")
_ROLES = (*_WEIGHT_ROLES, *_CONFIG_ROLES, "tokenizer", "scheduler")
_COUNTED = (".safetensors", ".json", ".model", ".txt")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".distcp")


@dataclass(frozen=True)
class WeightFile:
    """One role of a set.

    Attributes:
        role: What a loader asks for: ``transformer``, ``vae``, ``tokenizer``, …
        paths: Where it may lie, relative to the set's folder; the first that is there is taken.
            A file, a folder, or a ``*.index.json`` that names shards beside it.
        sha256: Of the published file, or ``unknown``; files only.
        made_from: The published file that has to be converted into it, or empty.
    """

    role: str
    paths: tuple[str, ...]
    sha256: str = NO_DIGEST
    made_from: str = ""


@dataclass(frozen=True)
class WeightSet:
    """What is declared of one set.

    Attributes:
        name: Its folder's name on the shelf.
        title: What a person reads.
        purpose: What it is for.
        source: Where a person gets it.
        licence: In one line.
        licence_class: One of ``CLASSES``.
        files: Its own roles.
        base: Set that the other roles come from, or empty.
        shipped: True where its files lie in this package, and are as declared or damaged.
        declared_in: File that says all this.
    """

    name: str
    title: str
    purpose: str
    source: str
    licence: str
    licence_class: str
    files: tuple[WeightFile, ...]
    base: str = ""
    shipped: bool = False
    declared_in: str = DECLARATIONS


@dataclass(frozen=True)
class _Place:
    """A role, and the set whose folder it lies in."""

    owner: WeightSet
    file: WeightFile


class Shelf:
    """A folder of installed weights.

    Args:
        folder: Where the sets lie, each in a folder of its own name; need not exist.
        lock_file: The ``weights.lock`` to use.
        extra: Further declarations besides the package's and ``<folder>/weights.toml``; a later
            one replaces a set of the same name.
        models: Backbones that may be used; empty for all.

    Raises:
        BadKnob: A declaration is not what it should be.
    """

    def __init__(
        self,
        folder: Path,
        lock_file: Path,
        extra: Sequence[Path] = (),
        models: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.models = tuple(models)
        self.lock = LockFile(lock_file)
        own = folder / DECLARATIONS
        declared = dict(_packaged())
        for place in ([own] if own.is_file() else []) + list(extra):
            declared.update(read_declarations(place))
        self.sets: Mapping[str, WeightSet] = declared
        for one in declared.values():
            if one.base and (one.base not in declared or declared[one.base].base):
                raise BadKnob(
                    f"{one.declared_in}: the base '{one.base}' of '{one.name}' is not a whole set.",
                    hint="Name a set that has no base of its own.",
                )

    def set(self, name: str) -> WeightSet:
        """Return the set of that name.

        Raises:
            BadKnob: There is none; names the nearest.
        """
        if name not in self.sets:
            near = difflib.get_close_matches(name, self.sets, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Sets are: {', '.join(self.sets)}."
            raise BadKnob(f"There is no set of weights '{name}'.", hint=hint)
        return self.sets[name]

    def place(self, name: str) -> Path:
        """Return the folder that a set's own files belong in."""
        one = self.set(name)
        return SHIPPED if one.shipped else self.folder / one.name

    def licence_class(self, name: str) -> str:
        """Return the class that governs a set: its own or its base's, whichever allows less."""
        chain = [self.set(name), *([self.set(self.set(name).base)] if self.set(name).base else [])]
        return max((one.licence_class for one in chain), key=CLASSES.index)

    def licence(self, name: str) -> dict[str, str]:
        """Return ``licence`` and ``class`` of a set, as manifest and metadata carry them."""
        return {"licence": self.set(name).licence, "class": self.licence_class(name)}

    # --- what is there ---------------------------------------------------------------------------

    def missing(self, name: str) -> tuple[Path, ...]:
        """Return what has to be installed before a set can be loaded, its base's part included.

        Raises:
            WeightsRefused: A folder or an index of shards cannot be read; names it.
        """
        found: list[Path] = []
        for place in self._places(name):
            try:
                found += self._lacking(place)
            except (OSError, RecursionError) as error:
                path = self.place(place.owner.name) / place.file.paths[0]
                why = "what lies there is damaged"
                if isinstance(error, OSError):
                    path, why = Path(error.filename or path), error.strerror or str(error)
                raise WeightsRefused(
                    f"The weights {path} cannot be read ({why}).",
                    hint="Check who owns it and whether its disk is mounted; or install it again.",
                    file=str(path),
                ) from error
        return tuple(found)

    def damage(self, name: str) -> WeightsRefused | None:
        """Return why it cannot be told what a set lacks; None where it can."""
        try:
            self.missing(name)
        except WeightsRefused as error:
            return error
        return None

    def is_installed(self, name: str) -> bool:
        """Tell whether everything is there that loading a set reads."""
        return not self.missing(name)

    def files(self, name: str) -> dict[str, Path]:
        """Return file or folder of every role of a set, its base's included.

        Raises:
            WeightsMissing: Something is not there; names the first path.
        """
        self._require(name)
        return {place.file.role: self._found(place) for place in self._places(name)}

    def unconverted(self, name: str) -> dict[Path, Path]:
        """Return what lies there as published and has to be converted: source to destination."""
        found = {}
        for place in self._places(name):
            made_from = place.file.made_from
            source = self.place(place.owner.name) / made_from
            if made_from and source.is_file() and self._lacking(place):
                found[source] = self.place(place.owner.name) / place.file.paths[0]
        return found

    # --- whether it is the same ------------------------------------------------------------------

    def verify(self, name: str, progress: Progress | None = None) -> dict[str, str]:
        """Compute the sha256 of every file that loading a set reads, and record it.

        Args:
            name: The set.
            progress: Told the file, the bytes done and the bytes in all.

        Returns:
            The digests, by ``<set>/<path>``.

        Raises:
            WeightsMissing: A file is not there.
            WeightsRefused: One is damaged, or not what it was when it was recorded.
            DiskFull: There is no room for the lock file.
            UnwritableOutput: The lock file cannot be written.
        """
        self._require(name)
        return {
            key: self._digest(key, path, published, progress)
            for _, key, path, published in self._members(name)
        }

    def accept(self, name: str, progress: Progress | None = None) -> dict[str, str]:
        """Verify a set whose own files have changed on purpose, and record those anew.

        What was recorded stays until every file was read and found whole; its base's files are
        compared as ever, and so are those that come with gencomp.

        Args:
            name: The set.
            progress: Told the file, the bytes done and the bytes in all.

        Returns:
            The digests, by ``<set>/<path>``.

        Raises:
            As :meth:`verify`.
        """
        self._require(name)
        if self.set(name).shipped:
            return self.verify(name, progress)
        own, digests = {}, {}
        for _, key, path, published in self._members(name):
            if key.startswith(f"{name}/"):
                own[key] = _entry_of(path, published, progress)
                digests[key] = own[key].sha256
            else:
                digests[key] = self._digest(key, path, published, progress)
        self.lock.replace(name, own)
        return digests

    def identity(self, name: str, progress: Progress | None = None) -> str:
        """Return the digest of everything that loading a set reads.

        What is recorded is believed while size and time of a file agree; else the file is read,
        which may take minutes, and compared or recorded.

        Raises:
            WeightsMissing: A file is not there.
            WeightsRefused: One is damaged, or not what it was when it was recorded.
        """
        self._require(name)
        digest = hashlib.blake2b(digest_size=16)
        for inside, key, path, published in self._members(name):
            ships = path.parent == SHIPPED
            known = "" if ships else self.lock.known(key, path)
            if not known:
                if not ships:
                    log.info("computing the sha256 of %s, once", path)
                known = self._digest(key, path, published, progress, record_or_warn=True)
            digest.update(f"{inside}\0{known}\n".encode())
        return digest.hexdigest()

    # --- whether it may be used ------------------------------------------------------------------

    def available(
        self, allowed_licences: Sequence[str]
    ) -> tuple[tuple[str, ...], dict[str, Refusal]]:
        """Return the backbones that can be used here, and why the others cannot.

        Args:
            allowed_licences: Classes that may be used.

        Raises:
            BadKnob: A class is not one of ``CLASSES``.
        """
        check_classes(allowed_licences)
        usable: list[str] = []
        refused: dict[str, Refusal] = {}
        for spec in SPECS:
            if spec.is_tiny:
                continue
            why = self._refusal(spec, allowed_licences)
            if why is None:
                usable.append(spec.name)
            else:
                refused[spec.name] = why
        return tuple(usable), refused

    def _refusal(self, spec: BackboneSpec, allowed: Sequence[str]) -> Refusal | None:
        damage = self.damage(spec.weights)
        if damage is not None:  # One set's; the others are none the worse for it.
            return Refusal(damage.message, damage.hint)
        of_class, lacking = self.licence_class(spec.weights), self.missing(spec.weights)
        if not self.allows(spec.name):
            return Refusal(
                f"{spec.title} is not among the models that this server allows "
                f"({', '.join(self.models)}).",
                f"{self._alternative(spec, allowed)} The setting is allowed_models; "
                "gencomp config explain allowed_models says whose it is.",
                by_licence=not lacking,
            )
        is_allowed = of_class in allowed
        if not lacking and is_allowed:
            return None
        other = self._alternative(spec, allowed)
        if not lacking:
            return Refusal(
                f"The weights of {spec.title} are installed, but their licence class "
                f"'{of_class}' is not one that this server allows ({', '.join(allowed)}).",
                f"{other} Or, once your studio holds that licence, add the class to the setting "
                "allowed_licences.",
                by_licence=True,
            )
        cure = f"gencomp weights list {spec.weights} says all that is needed and where to get it."
        if not is_allowed:
            cure = f"Its licence class '{of_class}' is not one that this server allows. {other}"
        elif of_class != PRODUCTION:
            cure = f"{cure}{self._clean_alternative(spec)}"
        return Refusal(
            f"The weights of {spec.title} are not installed: needed are "
            f"{self.needs(spec.weights)}; {lacking[0]} is missing.",
            cure,
        )

    def allows(self, name: str) -> bool:
        """Tell whether a backbone is one that may be used; the untrained one always is."""
        return not self.models or name in self.models

    def needs(self, name: str) -> str:
        """Return the sets that loading one takes, in words: itself, and what of its base."""
        one = self.set(name)
        if not one.base:
            return f"the set {name}"
        part = "all" if _covers(self.set(one.base), self._places(name)) else "parts"
        return f"the set {name} and {part} of its base {one.base}"

    def _clean_alternative(self, spec: BackboneSpec) -> str:
        """Return a sentence on a backbone for the same work that asks for no licence; or none."""
        for other in SPECS:
            serves = not other.is_tiny and set(spec.systems) <= set(other.systems)
            if serves and self.licence_class(other.weights) == PRODUCTION:
                return f" {other.name} serves too, and its licence class is '{PRODUCTION}'."
        return ""

    def _alternative(self, spec: BackboneSpec, allowed: Sequence[str]) -> str:
        """Return the sentence that names a backbone of an allowed class for the same work."""
        for other in SPECS:
            if (
                other.is_tiny
                or other.name == spec.name
                or not set(other.systems) & set(spec.systems)
            ):
                continue
            of_class = self.licence_class(other.weights)
            if of_class in allowed and self.allows(other.name):
                return f"Use {other.name}, which is of the licence class '{of_class}'."
        return "No other video model is one that this server allows."

    # --- inside ----------------------------------------------------------------------------------

    def _places(self, name: str) -> list[_Place]:
        """Return every role of a set: its own over its base's."""
        one = self.set(name)
        by_role = {file.role: _Place(one, file) for file in one.files}
        if one.base:
            base = self.set(one.base)
            for file in base.files:
                by_role.setdefault(file.role, _Place(base, file))
        return list(by_role.values())

    def _found(self, place: _Place) -> Path:
        """Return the first of a role's paths that is there, else the first of all."""
        paths = [self.place(place.owner.name) / path for path in place.file.paths]
        return next((path for path in paths if path.exists()), paths[0])

    def _lacking(self, place: _Place) -> list[Path]:
        path = self._found(place)
        if path.name.endswith(".index.json") and path.is_file():
            return _lacking_shards(path)
        if path.is_file():
            return []
        if not path.is_dir():
            return [path]
        inside = list(_counted(path))
        if place.file.role not in _WEIGHT_ROLES:
            return [] if inside else [path]
        lacking = [] if (path / "config.json").is_file() else [path / "config.json"]
        if not any(one.is_file() for one in path.glob("*.safetensors")):
            lacking.append(path / "*.safetensors")
        for index in path.glob("*.index.json"):
            lacking += _lacking_shards(index)
        return lacking

    def _members(self, name: str) -> Iterator[tuple[str, str, Path, str]]:
        """Yield every file that counts: its place in its role, its key, itself, its sha256."""
        for place in self._places(name):
            path, role = self._found(place), place.file.role
            if path.is_dir():
                members, published, top = _counted(path), NO_DIGEST, path
            elif path.name.endswith(".index.json"):
                members, published, top = iter([path, *shards(path)]), NO_DIGEST, path.parent
            else:
                members, published, top = iter([path]), place.file.sha256, path
            own = self.place(place.owner.name)
            for member in members:
                inside = member.relative_to(top).as_posix()
                key = f"{place.owner.name}/{member.relative_to(own).as_posix()}"
                yield f"{role}/{inside}", key, member, published

    def _digest(
        self,
        key: str,
        path: Path,
        published: str,
        progress: Progress | None,
        *,
        record_or_warn: bool = False,
    ) -> str:
        entry = _entry_of(path, published, progress)
        if path.parent == SHIPPED:  # Another version of gencomp brings another file.
            return entry.sha256
        try:
            self.lock.record(key, path, entry)
        except (DiskFull, UnwritableOutput) as error:
            if not record_or_warn:
                raise
            log.warning("%s The digest of %s is computed again next time.", error, path)
        return entry.sha256

    def _owner(self, name: str, path: Path) -> WeightSet:
        """Return the set, this one or its base, that a path belongs to."""
        if path.parent == SHIPPED:
            return self.set(name)
        return self.set(path.relative_to(self.folder).parts[0] or name)

    def _require(self, name: str) -> None:
        lacking = self.missing(name)
        if not lacking:
            return
        owner = self._owner(name, lacking[0])
        waiting = self.unconverted(name)
        if lacking[0] in waiting.values():
            source = next(one for one, made in waiting.items() if made == lacking[0])
            hint = f"Make it: gencomp weights convert {source} {lacking[0]}"
        else:
            hint = _by_hand(owner)
        raise WeightsMissing(
            f"The weights of {owner.title} are not installed: {lacking[0]} is missing.",
            hint=hint,
            file=str(lacking[0]),
        )


def _covers(base: WeightSet, places: Sequence[_Place]) -> bool:
    """Tell whether every role of a base is among those that are loaded from it."""
    taken = {place.file.role for place in places if place.owner.name == base.name}
    return taken >= {file.role for file in base.files}


def _entry_of(path: Path, published: str, progress: Progress | None) -> Entry:
    """Return what there is to record of a file.

    Raises:
        WeightsRefused: It is damaged, or not the published one.
    """
    entry = digest_file(path, progress)
    if published not in (NO_DIGEST, entry.sha256):
        raise WeightsRefused(
            f"The weights file {path} is not the published one: its sha256 is "
            f"{entry.sha256[:12]}…, {DECLARATIONS} says {published[:12]}….",
            hint="Install it again.",
            file=str(path),
        )
    return entry


# --- files of a role -----------------------------------------------------------------------------


def pickles_in(folder: Path) -> tuple[Path, ...]:
    """Return the files of a folder that would have to be converted before they can be read."""
    return tuple(sorted(one for one in folder.rglob("*") if one.suffix in _PICKLES))


def _counted(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that decide what is loaded from it, in a fixed order.

    They lie in the folder itself: no loader looks into folders within.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in _COUNTED and not path.name.startswith(".") and path.is_file():
            yield path


def _lacking_shards(index: Path) -> list[Path]:
    """Return the shards that are not there; an index of pickles lacks nothing of ours."""
    return [one for one in shards(index) if one.suffix == ".safetensors" and not one.is_file()]


# --- declarations --------------------------------------------------------------------------------


def check_classes(classes: Sequence[str]) -> None:
    """Refuse a licence class that there is not.

    Raises:
        BadKnob: Names it and the nearest.
    """
    for one in classes:
        if one not in CLASSES:
            near = difflib.get_close_matches(one, CLASSES, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Classes are: {', '.join(CLASSES)}."
            raise BadKnob(
                f"There is no licence class '{one}'.", hint=hint, setting="allowed_licences"
            )


def check_models(names: Sequence[str]) -> None:
    """Refuse a backbone that there is not.

    Raises:
        BadKnob: Names it and the nearest.
    """
    known = [spec.name for spec in SPECS if not spec.is_tiny]
    for one in names:
        if one not in known:
            near = difflib.get_close_matches(one, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Backbones: {', '.join(known)}."
            raise BadKnob(f"Setting 'allowed_models' names '{one}', which there is not.", hint=hint)


def read_declarations(place: Path) -> dict[str, WeightSet]:
    """Read a file of the form of ``weights.toml``.

    Raises:
        BadKnob: It cannot be read, is not TOML, or says what nobody knows; names the key.
    """
    try:
        return _parse(place.read_text(encoding="utf-8"), str(place))
    except (OSError, UnicodeDecodeError) as error:
        raise BadKnob(f"The weights file {place} cannot be read ({error}).") from error


def _packaged() -> dict[str, WeightSet]:
    text = resources.files("gencomp_server").joinpath(DECLARATIONS).read_text(encoding="utf-8")
    return _parse(text, DECLARATIONS)


def _parse(text: str, origin: str) -> dict[str, WeightSet]:
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadKnob(f"The weights file {origin} is not TOML ({error}).") from error
    return {name: _parse_set(name, facts, origin) for name, facts in plain.items()}


_SET_KEYS = {
    "title": str,
    "purpose": str,
    "source": str,
    "licence": str,
    "class": str,
    "files": list,
    "base": str,
    "shipped": bool,
}
_FILE_KEYS = {"role": str, "paths": list, "sha256": str, "made_from": str}


def _parse_set(name: str, facts: Any, origin: str) -> WeightSet:
    where = f"{origin}: [{name}]"
    if not _is_inside(name) or len(PurePosixPath(name).parts) != 1:
        raise BadKnob(f"{where} is not a folder's name.")
    optional = ("base", "shipped")
    plain = _checked(facts, _SET_KEYS, where, optional=optional)
    if plain.get("shipped") and origin != DECLARATIONS:
        raise BadKnob(f"{where}: only weights that come with gencomp are shipped.")
    if plain["class"] not in CLASSES:
        raise BadKnob(
            f"{where}.class cannot be '{plain['class']}'.",
            hint=f"Choose one of: {', '.join(CLASSES)}.",
        )
    files = tuple(_parse_file(file, f"{where}.files") for file in plain["files"])
    roles = [file.role for file in files]
    if not files or len(set(roles)) != len(roles):
        raise BadKnob(f"{where}.files must name every role once, and one at least.")
    plain["licence_class"] = plain.pop("class")
    return WeightSet(name=name, **{**plain, "files": files}, declared_in=origin)


def _parse_file(facts: Any, where: str) -> WeightFile:
    plain = _checked(facts, _FILE_KEYS, where, optional=("sha256", "made_from"))
    if plain["role"] not in _ROLES:
        raise BadKnob(
            f"{where}: there is no role '{plain['role']}'.",
            hint=f"Roles are: {', '.join(_ROLES)}.",
        )
    paths = plain["paths"]
    if not paths or not all(isinstance(path, str) and _is_inside(path) for path in paths):
        raise BadKnob(f"{where}: paths must be names inside the set's folder.")
    if not _is_inside(plain.get("made_from", "x")):
        raise BadKnob(f"{where}: made_from must be a name inside the set's folder.")
    digest = plain.get("sha256", NO_DIGEST)
    if digest != NO_DIGEST and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
        raise BadKnob(f"{where}: sha256 must be 64 hexadecimal digits or '{NO_DIGEST}'.")
    return WeightFile(**{**plain, "paths": tuple(paths)})


def _checked(
    facts: Any, keys: Mapping[str, type], where: str, *, optional: Sequence[str]
) -> dict[str, Any]:
    """Return a table whose keys and types are as they must be."""
    if not isinstance(facts, dict):
        raise BadKnob(f"{where} must be a table.")
    for key, value in facts.items():
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Keys are: {', '.join(keys)}."
            raise BadKnob(f"{where} has no key '{key}'.", hint=hint)
        if not isinstance(value, keys[key]):
            raise BadKnob(f"{where}.{key} takes {keys[key].__name__}, not {value!r}.")
    lacking = [key for key in keys if key not in facts and key not in optional]
    if lacking:
        raise BadKnob(f"{where} lacks {', '.join(lacking)}.")
    return dict(facts)


def _is_inside(path: str) -> bool:
    """Tell whether a path stays inside the folder that it is relative to."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not PurePosixPath(path).is_absolute() and ".." not in parts


def _by_hand(one: WeightSet) -> str:
    return f"Get it by hand and put it there. {one.source}"


def as_plain(shelf: Shelf, name: str) -> dict[str, Any]:
    """Return a set as plain data, what is on the shelf included: ``weights list --json``."""
    one = shelf.set(name)
    return {
        **dataclasses.asdict(one),
        "folder": str(shelf.place(name)),
        "governing_class": shelf.licence_class(name),
        "missing": [] if shelf.damage(name) else [str(path) for path in shelf.missing(name)],
    }
