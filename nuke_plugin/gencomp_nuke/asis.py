# SPDX-License-Identifier: Apache-2.0
"""Inputs that need no rendering: a Read whose files are, sample for sample, what Nuke would write.

So they are where the Read reads scene-linear EXRs unconverted, each frame from the file of its own
number, in the format that the job was told of, and nothing of consequence lies between the Read and
the node. Whatever is in doubt is rendered; the log says why. Main thread only.
"""

import logging
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import exrhead
from gencomp_nuke.asking import Pipe
from gencomp_nuke.caches import opened
from gencomp_nuke.colours import working_space
from gencomp_protocol.frames import Format

log = logging.getLogger(__name__)

# Nodes that pass what comes in.
_PASSING = ("Dot", "NoOp", "PostageStamp", "Input")
# What a Write's channels are called in a file.
_IN_FILE = {"rgb": ("R", "G", "B"), "rgba": ("R", "G", "B", "A"), "alpha": ("A",)}
_COPIED = 4  # Most channels that a Copy copies one by one, in every Nuke.


class Unfit(Exception):
    """The input has to be rendered; the text says why."""


def files_of(
    gizmo: Any, pipe: Pipe, view: str
) -> "Generator[None, None, Optional[dict[int, Path]]]":
    """Find the files of an input by frame, one at each step; None where it has to be rendered.

    Args:
        gizmo: A node of ours.
        pipe: One of its connected inputs.
        view: View of the script that is wanted.
    """
    try:
        read = _source(gizmo, pipe)
        found = yield from _files(read, gizmo.node(pipe.writer), pipe, view)
        return found
    except Unfit as reason:
        log.info("input '%s' is rendered: %s", pipe.header.name, reason)
        return None


def _source(gizmo: Any, pipe: Pipe) -> Any:
    """Return the Read whose samples arrive at the inner Write.

    Raises:
        Unfit: Something of consequence lies between.
    """
    at = gizmo.node(pipe.writer).input(0)
    while at is not None and at.Class() != "Input":
        if not _is_off(at, pipe.header.frames):
            _check_passes(at)
        at = at.input(0)
    at = None if at is None else gizmo.input(int(at["number"].value()))
    while at is not None and at.Class() != "Read":
        _check_passes(at)
        at = at.input(0)
    if at is None:
        raise Unfit("nothing is connected")
    return at


def _is_off(at: Any, frames: "Iterable[int]") -> bool:
    """Tell whether a node inside ours, which a knob of ours switches, is off at all frames."""
    disabled = at["disable"]
    return bool(disabled.isAnimated()) and all(disabled.getValueAt(n) for n in frames)


def _check_passes(at: Any) -> None:
    """Raises Unfit where a node changes what comes in, or might."""
    if at.Class() in _PASSING:
        return
    if at.Class() == "Copy" and _copies_onto_itself(at):
        return
    disabled = at["disable"]
    if at.Class() != "Group" and disabled.value() and not disabled.isAnimated():
        return
    raise Unfit(f"{at.name()} lies between")


def _copies_onto_itself(copy: Any) -> bool:
    """Tell whether a Copy takes channels of a stream to their own places in the same stream."""
    if copy.input(0) is None or not _is_same(copy.input(0), copy.input(1)):
        return False
    pairs = [(copy[f"from{i}"].value(), copy[f"to{i}"].value()) for i in range(_COPIED)]
    if not all(one == other or "none" in (one, other) for one, other in pairs):
        return False
    return copy.input(2) is None and str(copy["channels"].value()) == "none"


def _is_same(one: Any, other: Any) -> bool:
    return other is not None and bool(one.fullName() == other.fullName())


def _files(
    read: Any, writer: Any, pipe: Pipe, view: str
) -> "Generator[None, None, dict[int, Path]]":
    """Find a Read's files by frame.

    Raises:
        Unfit: They are not what Nuke would write.
    """
    _check_read(read)
    wanted = _IN_FILE.get(str(writer["channels"].value()))
    if wanted is None:
        raise Unfit(f"channels {writer['channels'].value()} are wanted")
    if "A" in wanted and read["auto_alpha"].value():
        raise Unfit(f"{read.name()} makes an alpha")
    first, last = int(read["first"].value()), int(read["last"].value())
    found = {}
    for frame in pipe.header.frames:
        if not first <= frame <= last:
            raise Unfit(f"frame {frame} is outside the range of {read.name()}")
        yield
        found[frame] = path_at(read["file"], frame, view)
        _check_file(found[frame], wanted, pipe.header.format)
    if len(set(found.values())) != len(found):
        raise Unfit(f"{read.name()} reads one file for several frames")
    return found


def path_at(knob: Any, frame: int, view: str) -> Path:
    """Return the file that a file knob means at a frame, as Nuke would open it."""
    text = str(knob.value())
    if "%V" in text or "%v" in text:
        raise Unfit("its path names the view")
    return Path(opened(str(knob.evaluate(frame) or "")))


def _check_read(read: Any) -> None:
    """Raises Unfit where a Read does more than read a frame's own file unconverted."""
    name = read.name()
    if read["disable"].value() or read["disable"].isAnimated():
        raise Unfit(f"{name} is disabled")
    if "useLifetime" in read.knobs() and read["useLifetime"].value():
        raise Unfit(f"{name} has a lifetime")
    if str(read["frame"].value() or "").strip() not in ("", "0"):
        raise Unfit(f"{name} moves its frames")
    if str(read["frame_mode"].value()) == "start at" and str(read["frame"].value()).strip():
        raise Unfit(f"{name} moves its frames")
    if not read["raw"].value() and not _is_linear(str(read["colorspace"].value() or "")):
        raise Unfit(f"{name} converts from {read['colorspace'].value()}")


def _is_linear(space: str) -> bool:
    """Tell whether reading from a colourspace leaves the samples of the working space alone.

    A role is shown with the space that it stands for, and a default with what it is:
    ``scene_linear (ACES - ACEScg)``, ``default (linear)``.
    """
    outer, _, inner = space.partition(" (")
    names = {outer.strip(), inner.rstrip(") ").strip()} - {"", "default"}
    wanted, _, role = working_space().partition(" (")
    if str(nuke.root()["colorManagement"].value()) == "OCIO":
        return bool(names & {wanted.strip(), role.rstrip(") ").strip()} - {""})
    return "linear" in names


def _check_file(path: Path, wanted: "tuple[str, ...]", size: Optional[Format]) -> None:
    """Raises Unfit where a file is not there, or is not what Nuke would write."""
    try:
        head = exrhead.head_of(path)
    except OSError as error:
        raise Unfit(f"{path.name} cannot be read ({error.strerror})") from error
    except exrhead.NoHead as error:
        raise Unfit(f"{path.name}: {error}") from error
    lacks = [channel for channel in wanted if channel not in head.channels]
    if lacks:
        raise Unfit(f"{path.name} has no {', '.join(lacks)}")
    if head.is_stereo:
        raise Unfit(f"{path.name} holds several views")
    if size is None or head.display != (0, 0, size.width - 1, size.height - 1):
        raise Unfit(f"{path.name} has another format")
    if abs(head.pixel_aspect - size.pixel_aspect) > 1e-3:
        raise Unfit(f"{path.name} has another pixel aspect")
