# SPDX-License-Identifier: Apache-2.0
"""Check set-up: packages, settings with their origins, folders, server, weights, one by one.

Every check answers with one sentence; a wrong one says what to do. Nothing is changed and nothing
is started. With an interface a thread of its own checks, since servers and disks make one wait.
Whatever may be broken is imported inside the check that tells of it.
"""

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import __version__, migrating, packages
from gencomp_nuke.wrapping import put_status

log = logging.getLogger(__name__)

LEAST_FREE_BYTES = 5_000_000_000  # A 2K shot of a hundred frames with its layers.
_BEHIND_CACHE = 96  # v001/NAME/NAME.1001.exr with a name of 32, and room for a view.
_SERVER_S = 3.0
_DOCTOR_S = 60.0  # It imports torch, which takes long from a cold network disk.
_CURE = "See docs/artist/install-nuke.md."


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    is_good: bool
    sentence: str
    has_command: bool = (
        True  # Whether gencomp's own command can be asked; the server's check knows.
    )


@dataclass(frozen=True)
class Facts:
    """What the main thread knows of a node before the checks begin.

    Attributes:
        name: Of the node.
        address: Of the server, as it was typed; empty for none.
        cache: Folder of its results; None where there is none to be had.
        wrong: Why not; empty where there is one.
        request: What it asks for; None where it cannot be asked yet.
        lacks: Why not.
        schema: Version of its knobs.
    """

    name: str
    address: str
    cache: Optional[Path]
    wrong: str
    request: Any
    lacks: str
    schema: int


def check(gizmo: Any) -> None:
    """Check everything that a node needs and show what was found. Main thread only."""
    found = check_packages()
    if not found.is_good:
        _show(gizmo, (check_room(), found))
        return
    facts = facts_of(gizmo)
    if not nuke.GUI:
        _show(gizmo, tuple(examine(facts)))
        return
    from gencomp_nuke import node

    node.tell(gizmo, "Checking the set-up.")

    def look() -> None:
        found = _looked_at(facts)
        nuke.executeInMainThread(_show_later, (gizmo, found))

    threading.Thread(target=look, name="gencomp check", daemon=True).start()


def check_here() -> None:
    """Check everything that needs no node, and show it: a command of the menu. Main thread only."""

    def look() -> None:
        found = tuple(start_up(os.environ))
        nuke.executeInMainThread(nuke.message, ("\n".join(map(spelt, found)),))

    threading.Thread(target=look, name="gencomp check", daemon=True).start()


def facts_of(gizmo: Any) -> Facts:
    """Return what the checks need of a node. Main thread only."""
    from gencomp_nuke import asking, node, prefs
    from gencomp_protocol.errors import GencompError

    cache, wrong, request, lacks = None, "", None, ""
    try:
        node.identify(gizmo)
        cache = node.cache_folder(gizmo, prefs.load())
    except GencompError as error:
        wrong = str(error)
    try:
        request = asking.ask(gizmo).request
    except GencompError as error:
        lacks = str(error)
    address = node.server_address(gizmo)
    return Facts(gizmo.name(), address, cache, wrong, request, lacks, migrating.schema_of(gizmo))


def examine(facts: Facts, environ: "Mapping[str, str]" = os.environ) -> "Iterator[Finding]":
    """Yield what every check finds, in the order in which things depend on each other.

    Args:
        facts: What is known of the node.
        environ: The environment to look into.
    """
    yield check_room()
    yield check_packages()
    settings = check_settings(environ)
    yield settings
    yield check_home(environ)
    yield check_cache(facts)
    if not settings.is_good:
        return
    server = check_server(environ, facts.address)
    yield server
    if server.has_command:
        yield from check_installation(environ, facts.address)
    yield check_node(facts, environ, server.is_good)


def start_up(environ: "Mapping[str, str]") -> "Iterator[Finding]":
    """Yield what is found without a node: enough to say why nothing can be generated."""
    yield check_room()
    found = check_packages()
    yield found
    if not found.is_good:
        return
    settings = check_settings(environ)
    yield settings
    yield check_home(environ)
    if settings.is_good:
        yield check_server(environ)


def spelt(finding: Finding) -> str:
    """Return a finding as a line of the report."""
    return f"{'ok' if finding.is_good else 'WRONG'}: {finding.sentence}"


# --- the checks ----------------------------------------------------------------------------------


def check_room() -> Finding:
    """Tell what runs here, and from where."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    where = Path(__file__).resolve().parent
    here = f"Nuke {nuke.NUKE_VERSION_STRING}, Python {python}, from {where}"
    return Finding(True, f"gencomp {__version__} in {here}.")


def check_packages() -> Finding:
    """Import the packages that talk to a server; tell where they lie, or why they do not load."""
    bad = packages.that_fail()
    if bad:
        return Finding(False, f"packages that this Nuke cannot load: {', '.join(bad)}. {_CURE}")
    good = []
    for module, package in packages.NEEDED.items():
        found = importlib.import_module(module)
        version = getattr(found, "__version__", "of unknown version")
        good.append(f"{package} {version} in {Path(str(found.__file__)).parent}")
    return Finding(True, f"packages: {', '.join(good)}.")


def check_settings(environ: "Mapping[str, str]") -> Finding:
    """Tell every setting with where it comes from, what it stands over, and what locks it."""
    from gencomp_nuke import knobfiles, prefs
    from gencomp_protocol.errors import GencompError
    from gencomp_protocol.settings import DEFAULT

    try:
        knobfiles.check(prefs.load(environ))
        found = prefs.all_settled(environ)
    except GencompError as error:
        return Finding(False, f"settings: {error}")
    rows, rest = [], []
    for name, one in found.items():
        over = "".join(f", over {given.value!r} of {given.origin}" for given in one.over[::-1])
        lock = "" if one.lock is None else f", locked by {one.lock}"
        if one.origin.source == DEFAULT and not lock:
            rest.append(f"{name} = {one.value!r}")
        else:
            rows.append(f"{name} = {one.value!r} ({one.origin}{lock}{over})")
    words = f"settings: {', '.join(rows) or 'none is set'}"
    return Finding(True, f"{words}; by default: {', '.join(rest) or 'none'}.")


def check_home(environ: "Mapping[str, str]") -> Finding:
    """Tell whether gencomp's folder of this user can be written."""
    from gencomp_protocol.locate import HOME_VARIABLE, SERVER_FILE, home_folder

    folder = home_folder(environ)
    source = HOME_VARIABLE if environ.get(HOME_VARIABLE) else "default"
    words = f"folder {folder} ({source})"
    place = _nearest(folder)
    if not os.access(place, os.W_OK):
        cure = f"Name another folder in {HOME_VARIABLE}."
        return Finding(False, f"{words}: {place} cannot be written. {cure}")
    other = _other_host(folder / SERVER_FILE)
    if other:
        cure = f"Let {HOME_VARIABLE} name a folder on a disk of its own on each machine."
        return Finding(False, f"{words}: the machine {other} keeps its server there too. {cure}")
    return Finding(True, f"{words}: settings, log and secret of this user.")


def _other_host(file: Path) -> str:
    """Return the machine whose server a file tells of, where it is not this one; else nothing."""
    from gencomp_protocol.errors import GencompError
    from gencomp_protocol.locate import read_server_file

    try:
        found = read_server_file(file)
    except GencompError:  # There is none, or the check of the server tells what is wrong with it.
        return ""
    return found.host if found.is_elsewhere else ""


def check_cache(facts: Facts, windows: bool = os.name == "nt") -> Finding:
    """Tell whether the results of a node have a place, and how much room there is."""
    if facts.cache is None:
        return Finding(False, f"results: {facts.wrong}")
    cure = "Choose another folder on the tab Cache & Server."
    if windows:
        rules = importlib.import_module("gencomp_protocol.windowspaths")
        reason = rules.why_not(str(facts.cache), _BEHIND_CACHE)
        if reason is not None:
            sentence = f"results: {facts.cache} is no path for Windows: {reason}. {cure}"
            return Finding(False, sentence)
    place = _nearest(facts.cache)
    if not os.access(place, os.W_OK):
        return Finding(False, f"results: {place} cannot be written. {cure}")
    free = shutil.disk_usage(place).free
    words = f"results: {facts.cache}, {free / 1e9:.0f} GB free"
    if free < LEAST_FREE_BYTES:
        return Finding(False, f"{words}; make room, 5 GB are the least for a shot.")
    return Finding(True, f"{words}.")


def _nearest(folder: Path) -> Path:
    """Return a folder, or the nearest above it that is there."""
    return next((place for place in (folder, *folder.parents) if place.is_dir()), Path("."))


def check_server(environ: "Mapping[str, str]", address: str = "") -> Finding:
    """Tell whether a server answers, or how one would be started; starts none."""
    from gencomp_nuke import prefs, serverstart
    from gencomp_protocol import Client
    from gencomp_protocol.errors import GencompError, ServerUnreachable

    source = serverstart.named_by(address, environ)
    try:
        found = serverstart.find_again(address, environ)
        if found is None:
            return _would_start(prefs.load(environ))
        with Client(found.address, found.secret, timeout_s=_SERVER_S, keys=found.keys) as client:
            welcome = client.connect()
    except ServerUnreachable as error:
        if source:
            return Finding(False, f"server, named by {source}: {error}")
        return _would_start(prefs.load(environ))
    except GencompError as error:
        return Finding(False, f"server{f', named by {source}' if source else ''}: {error}")
    words = f"server: {welcome.server_version} answers at {found.address}"
    words += f" ({source})" if source else ""
    if welcome.worker == "lost":
        return Finding(False, f"{words}, but its worker does not start; its log says why.")
    systems = ", ".join(str(one["name"]) for one in welcome.systems)
    speaks = ".".join(map(str, welcome.protocol))
    return Finding(True, f"{words}, protocol {speaks}, {welcome.worker}; systems: {systems}.")


def _would_start(settings: Any) -> Finding:
    """Tell how a server would be started, and whether its command is there."""
    program = settings.command[0] if settings.command else ""
    if not program or shutil.which(program) is None:
        cure = "Name the command in GENCOMP_SERVER_COMMAND, or start a server by hand."
        sentence = f"server: none runs, and '{program}' is not found. {cure}"
        return Finding(False, sentence, has_command=bool(settings.gencomp_command))
    how = f"Generate starts '{settings.server_command}'"
    return Finding(True, f"server: none runs; {how}.")


def check_installation(environ: "Mapping[str, str]", address: str = "") -> "tuple[Finding, ...]":
    """Return what the server's own ``gencomp doctor`` finds: its disk, settings, weights.

    A server that was named may be another machine's, of which this one knows nothing.
    """
    from gencomp_nuke import prefs, serverstart, tool
    from gencomp_protocol.errors import GencompError

    if address or serverstart.is_named(environ):
        words = "'gencomp doctor' on the server's machine tells its weights and their licences"
        return (Finding(True, f"weights: {words}."),)
    try:
        child = tool.start(prefs.load(environ), ("doctor", "--json"), environ)
    except GencompError as error:
        return (Finding(False, f"weights: {error}"),)
    try:
        said, complained = child.communicate(timeout=_DOCTOR_S)
        found = (Finding(bool(one["is_good"]), str(one["sentence"])) for one in json.loads(said))
        return tuple(one for one in found if not one.sentence.startswith("server: "))
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return (Finding(False, f"weights: 'gencomp doctor' took longer than {_DOCTOR_S:g} s."),)
    except (ValueError, KeyError, TypeError):
        last = (complained.strip().splitlines() or ["it said nothing"])[-1]
        return (Finding(False, f"weights: 'gencomp doctor' cannot be understood: {last}"),)


def check_node(facts: Facts, environ: "Mapping[str, str]", has_server: bool) -> Finding:
    """Tell what a node lacks, or what the server says of what it asks for."""
    if facts.lacks:
        return Finding(False, _of_node(facts, facts.lacks))
    if facts.schema != migrating.SCHEMA:
        return Finding(True, f"{facts.name}: {migrating.told(facts.schema)}")
    from gencomp_nuke import serverstart
    from gencomp_protocol import Client
    from gencomp_protocol.errors import GencompError

    ready = Finding(True, f"{facts.name} has what it needs.")
    try:
        found = serverstart.find_again(facts.address, environ) if has_server else None
        if found is None:
            return ready
        with Client(found.address, found.secret, timeout_s=_SERVER_S, keys=found.keys) as client:
            client.connect()
            client.check(facts.request)
    except GencompError as error:
        if error.code == "server-unreachable":  # It left meanwhile; another one is started.
            return ready
        return Finding(False, _of_node(facts, str(error)))
    return Finding(True, f"{facts.name} has what it needs, and the server would take it.")


def _of_node(facts: Facts, sentence: str) -> str:
    """Return a sentence about a node with its name, once."""
    return sentence if sentence.startswith(facts.name) else f"{facts.name}: {sentence}"


# --- showing -------------------------------------------------------------------------------------


def _looked_at(facts: Facts) -> "tuple[Finding, ...]":
    """Return every finding; a bug in a check is one too."""
    try:
        return tuple(examine(facts))
    except Exception as error:  # The edge of the room: this thread has nobody to raise to.
        log.exception("the check failed")
        return (Finding(False, f"the check itself failed ({type(error).__name__}: {error})."),)


def _show_later(gizmo: Any, found: "tuple[Finding, ...]") -> None:
    """Show what was found, unless the node was deleted meanwhile. Main thread only."""
    try:
        gizmo.fullName()
    except ValueError:  # Nuke's way to say that a node was deleted.
        return
    _show(gizmo, found)


def _show(gizmo: Any, found: "tuple[Finding, ...]") -> None:
    """Put what was found on the node in a sentence, and whole where it can be read."""
    wrong = [finding.sentence for finding in found if not finding.is_good]
    sentence = f"The set-up is in order: {len(found)} checks."
    if wrong:
        sentence = f"{len(wrong)} of {len(found)} checks found something wrong: {wrong[0]}"
    nuke.Undo.disable()
    try:
        put_status(gizmo, sentence)
    finally:
        nuke.Undo.enable()
    report = "\n".join(map(spelt, found))
    log.info("%s\n%s", sentence, report)
    if nuke.GUI:
        nuke.message(report)
    else:
        nuke.tprint(report)
