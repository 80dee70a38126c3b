# SPDX-License-Identifier: Apache-2.0
"""The versions of a node's results: a list with their sizes, which one is played, which one goes.

What is deleted is gone, so a version stays as long as it is played here or named by any script that
lies beside this one; and its number is never used again, since scripts elsewhere may name it.
Folders are looked at in a thread of their own: on a slow disk that takes longer than an artist
should wait for a panel.
"""

import logging
import re
import shutil
import stat
import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import caches, inputs, jobs, node, playing, prefs, readback
from gencomp_nuke.wrapping import spell_bytes
from gencomp_protocol.errors import BadKnob, GencompError, MissingFrame, UnwritableOutput

log = logging.getLogger(__name__)

PICK = "gc_version_pick"
# Scripts, what Nuke saves of itself beside them, and what is pasted from.
_SCRIPTS = ("*.nk", "*.nk~", "*.nk.autosave", "*.autosave", "*.nknc", "*.nkind", "*.gizmo")
_TRASH = ".trash"


def refresh(gizmo: Any) -> None:
    """List the versions of a node in its menu, with their sizes once they are known."""
    if PICK not in gizmo.knobs():
        return
    try:
        cache, played = caches.cache_folder(gizmo, prefs.load()), _played(gizmo)
    except BadKnob as error:  # Nothing was pressed; whoever presses Generate is told.
        log.info("no versions are listed: %s", error)
        return
    _aside(lambda: _sized(cache), lambda sizes: _fill(gizmo, sizes, played))


def pick(gizmo: Any) -> None:
    """Play the version that was chosen in the menu.

    Raises:
        MissingFrame: It is not there any more.
    """
    name = _chosen(gizmo)
    if not jobs.is_whole(name):
        return
    folder = caches.cache_folder(gizmo, prefs.load()) / name
    if jobs.version_of(playing.result_folder(gizmo) or Path()) == folder:
        return
    result = result_in(folder)
    with nuke.Undo(f"{gizmo.name()} plays {name}"):
        gizmo["gc_folder"].setValue(playing.spell_folder(result))
        readback.replay(gizmo)  # A knob set while another is followed is not followed itself.


def delete(gizmo: Any) -> None:
    """Delete the version that is chosen in the menu, after asking.

    To choose one is to play it: a node that plays what goes, plays the newest of the others then.

    Raises:
        MissingFrame: None is chosen, or it is not there.
        BadKnob: Another node of this script plays it.
    """
    name = _chosen(gizmo)
    if not (jobs.is_whole(name) or name == inputs.STORE):
        raise MissingFrame("No version is chosen.", hint="Choose one in the menu of versions.")
    if node.state_of(gizmo) == node.RUNNING:
        raise BadKnob(f"{gizmo.name()} is running.", hint="Wait for its end, or cancel it.")
    folder = caches.cache_folder(gizmo, prefs.load()) / name
    _check_unused(folder, gizmo)
    then = ""
    if _plays(gizmo, folder):
        other = _newest_but(folder)
        then = f" It shows {'its input' if other is None else jobs.spell(other)} then."
    question = f"Delete {name} of {gizmo.name()} from the disk, for good?{then}"
    if nuke.GUI and not nuke.ask(question):
        return
    script = Path(caches.script_name()) if caches.script_name() else None
    _aside(lambda: _kept_by(folder, script), lambda kept: _let_go(gizmo, folder, kept))


# --- which versions there are --------------------------------------------------------------------


def result_in(version: Path) -> Path:
    """Return the folder that plays a version: its own, or that of its first take, or of its views.

    Raises:
        MissingFrame: It holds no result.
    """
    if (version / jobs.MANIFEST).is_file():
        return version
    takes = jobs.takes_in(version)
    if takes:
        return result_in(version / f"take{takes[0]:02d}")
    if any(version.glob(f"*/{jobs.MANIFEST}")):
        return version / jobs.ANY_VIEW
    raise MissingFrame(f"There is no result in {version}.", hint="Choose another version.")


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder and below; what is gone meanwhile counts as none.

    Hard links count once for each version that has them.
    """
    total = 0
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except OSError:
            continue
        total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def _sized(cache: Path) -> "list[tuple[str, int]]":
    """Return every version and its size, the newest first, and last the rendered inputs."""
    found = [(path.name, size_of(path)) for path in reversed(jobs.whole(cache))]
    if (cache / inputs.STORE).is_dir():
        found.append((inputs.STORE, size_of(cache / inputs.STORE)))
    return found


def _fill(gizmo: Any, sizes: "list[tuple[str, int]]", played: str) -> None:
    """Put versions into the menu; the one that is played is chosen."""
    items = [f"{name}  {spell_bytes(size)}" for name, size in sizes] or ["none"]
    chosen = next((item for item in items if item.split()[0] == played), items[0])
    with node.quietly():
        if list(gizmo[PICK].values()) != items:
            gizmo[PICK].setValues(items)
        if gizmo[PICK].value() != chosen:
            gizmo[PICK].setValue(chosen)


def _chosen(gizmo: Any) -> str:
    words = str(gizmo[PICK].value() or "").split()
    return words[0] if words else ""


def _played(gizmo: Any) -> str:
    folder = playing.result_folder(gizmo)
    return "" if folder is None else jobs.version_of(folder).name


# --- deleting ------------------------------------------------------------------------------------


def _check_unused(folder: Path, gizmo: Any) -> None:
    """Refuse a folder that another node of the open script plays.

    Raises:
        BadKnob: Names the node.
    """
    mine = gizmo.fullName()
    for other in nuke.allNodes(group=nuke.root(), recurseGroups=True):
        if f"{other.fullName()}.".startswith(f"{mine}."):
            continue
        if _plays(other, folder):
            raise BadKnob(
                f"{folder.name} is played by {other.fullName()}.",
                hint="Let it play another version, then delete this one.",
            )


def _plays(other: Any, folder: Path) -> bool:
    played = _read_by(other)
    return played is not None and folder in (played, *played.parents)


def _read_by(other: Any) -> Optional[Path]:
    """Return the folder or file that a node plays, or None."""
    if node.is_ours(other):
        return playing.result_folder(other)
    if other.Class() != "Read":
        return None
    return Path(caches.opened(str(other["file"].evaluate() or "")))


def _newest_but(folder: Path) -> Optional[Path]:
    """Return what plays the newest of the other versions; None where there is none."""
    for version in reversed(jobs.whole(folder.parent)):
        try:
            if version != folder:
                return result_in(version)
        except MissingFrame as error:
            log.info("%s", error)
    return None


def _kept_by(folder: Path, script: Optional[Path]) -> "Optional[GencompError]":
    """Return why a folder stays: scripts beside the open one, or that as it was saved, name it."""
    try:
        naming = [] if script is None else scripts_naming(folder, script.parent)
    except OSError as error:
        return _refused(folder, error)
    if not naming:
        return None
    hint = "Let those scripts play another version, or move them away."
    if script is not None and naming == [script.name]:
        hint = "Save this script while it plays another version, then delete this one."
    return BadKnob(f"{folder.name} is named by {', '.join(naming)} and stays.", hint=hint)


def _let_go(gizmo: Any, folder: Path, kept: "Optional[GencompError]") -> None:
    """Delete a folder that nothing keeps; a node that plays it plays another one first."""
    if kept is not None:
        _told(gizmo, kept)
        return
    if _plays(gizmo, folder):
        other = _newest_but(folder)
        gizmo["gc_folder"].setValue("" if other is None else playing.spell_folder(other))
    _aside(lambda: _deleted(folder), lambda error: _told(gizmo, error))


def _deleted(folder: Path) -> "Optional[GencompError]":
    """Delete a folder; return why it could not be."""
    try:
        retire(folder)
    except OSError as error:
        return _refused(folder, error)
    log.info("deleted %s", folder)
    return None


def _refused(folder: Path, error: OSError) -> GencompError:
    of = f" of {error.filename}" if error.filename else ""
    return UnwritableOutput(
        f"{folder.name} cannot be deleted ({error.strerror}{of}).", hint="Check who owns it."
    )


def retire(folder: Path) -> None:
    """Delete a folder at once as others see it; a version leaves a mark, so its number stays taken.

    Raises:
        OSError: It cannot be deleted.
    """
    for left in folder.parent.glob(f".{folder.name}.*{_TRASH}"):  # Of a Nuke that ended meanwhile.
        shutil.rmtree(left, ignore_errors=True)
    trash = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:6]}{_TRASH}")
    folder.rename(trash)
    if jobs.is_whole(folder.name):
        folder.with_name(folder.name + jobs.DELETED).touch()
    shutil.rmtree(trash)


def scripts_naming(version: Path, folder: Path) -> "list[str]":
    """Return the names of the scripts in a folder that name a version, by whatever path.

    A script spells a path whole, or from its own place; the node's folder and the version are the
    same in both, so these are looked for, and a script is rather believed than not.
    """
    tail = re.compile(re.escape(f"{version.parent.name}/{version.name}") + r"(?!\d)")
    beside = re.compile(re.escape(f"]/{version.name}") + r"(?!\d)")
    found = []
    for path in sorted(_scripts_in(folder)):
        text = path.read_text(encoding="utf-8", errors="replace").replace("\\", "")
        if tail.search(text) or (version.parent == folder and beside.search(text)):
            found.append(path.name)
    return found


def _scripts_in(folder: Path) -> "Iterable[Path]":
    return {path for pattern in _SCRIPTS for path in folder.glob(pattern) if path.is_file()}


def _told(gizmo: Any, error: "Optional[GencompError]") -> None:
    """Say what became of a deletion, and list what is left."""
    if error is None:
        refresh(gizmo)
    else:
        node.show(gizmo, str(error), node.state_of(gizmo))


# --- threads -------------------------------------------------------------------------------------


def _aside(work: "Callable[[], Any]", then: "Callable[[Any], None]") -> None:
    """Do work in a thread and hand its outcome to the main thread; in a terminal, do both now."""
    if not nuke.GUI:
        then(work())
        return

    def run() -> None:
        try:
            outcome = work()
        except OSError:  # The disk is away: nobody has asked for a list, so nobody is told.
            log.exception("the cache could not be looked at")
            return
        nuke.executeInMainThread(lambda: _if_attached(then, outcome))

    threading.Thread(target=run, name="gencomp versions", daemon=True).start()


def _if_attached(then: "Callable[[Any], None]", outcome: Any) -> None:
    try:
        then(outcome)
    except ValueError:  # Nuke's way to say that the node was deleted meanwhile.
        log.info("a node is gone; its versions are not listed")
