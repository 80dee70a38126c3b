# SPDX-License-Identifier: Apache-2.0
"""``gencomp doctor``: what this installation needs, looked at one by one.

Every check answers with one sentence; a wrong one says what to do. Nothing is changed.
"""

import difflib
import importlib
import importlib.metadata
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from gencomp_protocol import Client, __version__, find_server, home_folder
from gencomp_protocol.errors import GencompError
from gencomp_protocol.locate import CLIENT_FILE, SERVER_FILE, SERVER_VARIABLE
from gencomp_protocol.settings import (
    CLIENT,
    CLIENT_DEFAULTS,
    DEFAULT,
    NUKE,
    NUKE_DEFAULTS,
    PREFIX,
    Key,
    Settled,
    facility_files,
    variable_of,
)
from gencomp_server.backbones import PREVIEW, SPECS
from gencomp_server.config import ServerConfig, load_config
from gencomp_server.engine.machine import probe
from gencomp_server.exr import fence

LEAST_PYTHON = (3, 10)
TESTED_PYTHON = (3, 11)
LEAST_FREE_BYTES = 5_000_000_000  # A 2K shot of a hundred frames with its layers and stages.
PACKAGES = {
    "zmq": "pyzmq",
    "msgpack": "msgpack",
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "OpenEXR": "OpenEXR",
    "OpenImageIO": "OpenImageIO",
    "PyOpenColorIO": "opencolorio",
    "torch": "torch",
    "safetensors": "safetensors",
    "rich": "rich",
    "psutil": "psutil",
}
# Versions from which on no published advisory is open: OpenEXR's SECURITY.md, OpenImageIO's
# advisories on GitHub, as of November 2026.
LEAST_OPENEXR = (3, 4, 14)
PICTURE_LIBRARIES = {
    "OpenEXR": ("OpenEXR", LEAST_OPENEXR),
    "OpenImageIO": ("OpenImageIO", (3, 2, 2)),
}
_NO_SETTINGS = frozenset(PREFIX + name for name in ("HOME", "CONFIG", "SHOW", "SHOT"))
_SERVER_S = 3.0
_WORKER = {
    "starting": "its worker starts",
    "ready": "its worker is ready and keeps what it has loaded",
    "busy": "its worker runs a job",
    "resting": "its worker rests: it holds no memory, and starts with the next job",
}


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    is_good: bool
    sentence: str


def examine(environ: Mapping[str, str], address: str | None = None) -> Iterator[Finding]:
    """Yield what every check finds, in the order in which things depend on each other.

    Args:
        environ: The environment to look into.
        address: A server to reach instead of the one found.
    """
    yield check_python(sys.version_info[:3])
    yield check_packages(PACKAGES)
    yield check_picture_libraries()
    yield check_fence()
    yield check_opencv(frozenset(d.metadata["Name"] for d in importlib.metadata.distributions()))
    yield check_disk(Path.cwd())
    yield check_ports()
    yield check_home(home_folder(environ))
    yield check_config(environ)
    yield check_variables(environ)
    yield check_places(environ)
    yield check_device(environ)
    yield check_weights(environ)
    yield check_server({**environ, SERVER_VARIABLE: address} if address else environ)


def check_python(version: tuple[int, ...]) -> Finding:
    """Tell whether the interpreter is new enough."""
    spelt = ".".join(str(part) for part in version)
    if version[:2] < LEAST_PYTHON:
        return Finding(False, f"python {spelt} is too old; install Python 3.11.")
    tail = "" if version[:2] == TESTED_PYTHON else " (tested is 3.11)"
    return Finding(True, f"python {spelt}{tail}.")


def check_packages(packages: Mapping[str, str]) -> Finding:
    """Import every package; name those that cannot be."""
    good, bad = [], []
    for module, distribution in packages.items():
        try:
            importlib.import_module(module)
            good.append(f"{distribution} {importlib.metadata.version(distribution)}")
        except (ImportError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            bad.append(f"{distribution} ({reason})")
    if bad:
        cure = "run pip install -c constraints.txt -e '.[server]' again."
        return Finding(False, f"packages that cannot be imported: {', '.join(bad)}; {cure}")
    return Finding(True, f"packages: gencomp {__version__}, {', '.join(good)}.")


def check_picture_libraries() -> Finding:
    """Tell whether what reads pictures is of an age at which its known holes are closed."""
    found, old = [], []
    for name, (distribution, least) in PICTURE_LIBRARIES.items():
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            return Finding(False, f"pictures: {name} is not installed; nothing can be read.")
        found.append(f"{name} {version}")
        if _as_numbers(version) < least:
            old.append(f"{name} {version} (fixed in {'.'.join(map(str, least))})")
    inside = _bundled_openexr()
    if inside is not None:
        found.append(f"OpenEXR {inside} inside OpenImageIO")
        if _as_numbers(inside) < LEAST_OPENEXR:
            least_exr = ".".join(map(str, LEAST_OPENEXR))
            old.append(f"the OpenEXR {inside} inside OpenImageIO (fixed in {least_exr})")
    if old:
        cure = "install the versions of constraints.txt"
        return Finding(False, f"pictures: known holes are open in {', '.join(old)}; {cure}.")
    return Finding(True, f"pictures: {', '.join(found)}; no known hole is open.")


def _bundled_openexr() -> str | None:
    """Return the version of the OpenEXR that OpenImageIO reads with, where it says so."""
    try:
        library = importlib.import_module("OpenImageIO")
    except (ImportError, OSError):
        return None
    said = re.search(r"OpenEXR (\d[\d.]*)", library.get_string_attribute("library_list"))
    return None if said is None else said[1]


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def check_fence() -> Finding:
    """Tell whether the kernel keeps decoders from network and programs; it is well either way."""
    folders = (
        "no file but those sent to the server, and the system's"
        if fence.has_folders()
        else "every file of its user, since this kernel has no Landlock"
    )
    if fence.has_filter():
        return Finding(
            True,
            "decoders: no network and no other program, by the kernel's filter; "
            f"they can read {folders}.",
        )
    return Finding(
        True,
        "decoders: this kernel filters no calls: memory and time are bounded, but network and "
        "other programs are kept from them by Python alone; Linux on x86_64 or aarch64 does more; "
        f"they can read {folders}.",
    )


def check_opencv(distributions: frozenset[str]) -> Finding:
    """Tell whether two builds of OpenCV overwrite each other."""
    builds = sorted(name for name in distributions if name and name.startswith("opencv-"))
    if len(builds) > 1:
        return Finding(
            False,
            f"opencv is installed {len(builds)} times ({', '.join(builds)}); "
            "uninstall all but opencv-python-headless.",
        )
    return Finding(True, f"opencv: {builds[0] if builds else 'not from a package'}, once.")


def check_disk(folder: Path) -> Finding:
    """Tell how much room there is for a spool beside the output."""
    free = shutil.disk_usage(folder).free
    spelt = f"disk: {free / 1e9:.0f} GB free in {folder}"
    if free < LEAST_FREE_BYTES:
        return Finding(False, f"{spelt}; make room, 5 GB are the least for a shot.")
    return Finding(True, f"{spelt}.")


def check_ports() -> Finding:
    """Tell whether a port can be had on loopback."""
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return Finding(True, "ports: loopback has a free one.")
    except OSError as error:
        return Finding(False, f"ports: none can be had on 127.0.0.1 ({error.strerror}).")


def check_home(folder: Path) -> Finding:
    """Tell whether gencomp's home folder, and the secret in it, are the owner's alone."""
    if not folder.exists():
        return Finding(True, f"home folder {folder} is not there yet; the first server makes it.")
    if not folder.is_dir():
        return Finding(False, f"home folder {folder} is no folder; let GENCOMP_HOME name one.")
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        return Finding(False, f"home folder {folder} can be written by others; chmod 700 it.")
    for file in (folder / SERVER_FILE, folder / CLIENT_FILE):
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            return Finding(False, f"{file} holds a secret that others can read; chmod 600 it.")
    return Finding(
        True, f"home folder {folder}: only its owner can write there or read its secrets."
    )


def check_config(environ: Mapping[str, str]) -> Finding:
    """Tell every setting that was given, with where it comes from."""
    try:
        loaded = load_config(environ=environ)
    except GencompError as error:
        return Finding(False, f"config: {error}")
    for place, _ in facility_files(environ):
        if place.exists() and stat.S_IMODE(place.stat().st_mode) & 0o002:
            return Finding(False, f"config: {place} can be written by everybody; chmod o-w it.")
    rows = [
        f"{name} = {_spelt(one.value)} ({one.origin}{_locked(one)})"
        for name, one in loaded.settled.items()
        if one.origin.source != DEFAULT or one.lock is not None
    ]
    return Finding(True, f"config: {', '.join(rows) or 'nothing is set'}; all else is default.")


def check_variables(environ: Mapping[str, str]) -> Finding:
    """Tell whether a variable is all but the name of a setting; nobody reads that one."""
    keys: list[Key] = [(spec.name,) for spec in fields(ServerConfig)]
    keys += [(CLIENT, name) for name in CLIENT_DEFAULTS] + [(NUKE, name) for name in NUKE_DEFAULTS]
    known = {variable_of(key) for key in keys} | _NO_SETTINGS
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if near:
            words = f"variables: {name} names no setting, so it counts for nothing"
            return Finding(False, f"{words}; did you mean {near[0]}?")
    return Finding(True, "variables: none is misspelt.")


def check_places(environ: Mapping[str, str]) -> Finding:
    """Tell whether a server of this user could write its spool and ledger, and has room there."""
    try:
        config = load_config(environ=environ).config
    except GencompError as error:
        return Finding(False, f"places: {error}")
    for name, folder in (("spool", config.spool), ("ledger", config.ledger.parent)):
        there = _nearest(folder)
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            words = f"places: {there} is no folder that this user can write"
            return Finding(False, f"{words}; give the setting '{name}' another place.")
    there = _nearest(config.spool)
    free = shutil.disk_usage(there).free
    words = f"places: {free / 1e9:.0f} GB free for the spool {config.spool}"
    if free < LEAST_FREE_BYTES:
        return Finding(False, f"{words}; free some, or let GENCOMP_SPOOL name another disk.")
    return Finding(True, f"{words}; the ledger {config.ledger} can be written.")


def _nearest(place: Path) -> Path:
    """Return the place, or what is there of the way to it."""
    place = place.absolute()
    return next(one for one in (place, *place.parents) if os.path.lexists(one))


def _locked(one: Settled) -> str:
    return "" if one.lock is None else f", locked by {one.lock}"


def _spelt(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_device(environ: Mapping[str, str]) -> Finding:
    """Tell what jobs run on, and how much of its memory is free; wrong where it is not there."""
    try:
        device = load_config(environ=environ).config.device
        found = probe(device)
    except GencompError as error:
        return Finding(False, f"device: {error}")
    except RuntimeError as error:
        return Finding(False, f"device: {device} fails ({str(error).splitlines()[0]}).")
    free, total = found.free_bytes / 1e9, found.memory_bytes / 1e9
    return Finding(
        True, f"device: {device} ({found.name}), {free:.1f} of {total:.1f} GB memory free."
    )


def check_weights(environ: Mapping[str, str]) -> Finding:
    """Tell which backbones can be used, and under which class of licence.

    That none can is no fault of an installation.
    """
    try:
        place = load_config(environ=environ).config.weights_place()
        shelf = place.shelf()
        usable, refused = shelf.available(place.allowed)
        classed, ships = [], ""
        for spec in SPECS:
            if spec.name in usable:
                told = f"{spec.name} ({shelf.licence_class(spec.weights)})"
                if spec.name == PREVIEW:
                    ships = f"; {told} ships with gencomp"
                else:
                    classed.append(told)
    except GencompError as error:
        return Finding(False, f"weights: {error}")
    barred = [name for name, why in refused.items() if why.by_licence]
    words = f"weights: {', '.join(classed) or 'none are installed'} in {place.folder}{ships}"
    if barred:
        words += f"; installed and not allowed: {', '.join(barred)}"
    return Finding(True, f"{words}; gencomp weights list says more.")


def check_server(environ: Mapping[str, str]) -> Finding:
    """Tell whether a server that is named, or was left in the home folder, answers."""
    try:
        found = find_server(environ)
        if found is None:
            return Finding(True, "server: none is named or runs; gencomp run starts its own.")
        with Client(found.address, found.secret, timeout_s=_SERVER_S, keys=found.keys) as client:
            welcome = client.connect()
    except GencompError as error:
        return Finding(False, f"server: {error}")
    if welcome.worker == "lost":
        words = f"server: {found.address} answers, but its worker does not start"
        return Finding(False, f"{words}; its log says why, then start it again.")
    words = f"server: {welcome.server_version} answers at {found.address}"
    return Finding(True, f"{words}; {_WORKER.get(welcome.worker, welcome.worker)}.")
