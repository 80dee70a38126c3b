# SPDX-License-Identifier: Apache-2.0
"""What a farm has to know of a Nuke script, read from its text; no Nuke is started.

Reads scripts as Nuke saves them: ``Class {`` and its knobs, groups up to ``end_group``. Expressions
are not evaluated; what one decides is left to whoever asks.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import FrameRange

_NODE = re.compile(r"^[ \t]*(?P<class>[A-Za-z_][\w.]*) \{|^[ \t]*end_group[ \t]*$", re.MULTILINE)
_KNOB = re.compile(r"^[ \t]*(?P<name>[A-Za-z_]\w*) (?P<value>\S.*?)[ \t]*$", re.MULTILINE)
_GROUPS = ("Group", "LiveGroup")
_SCRIPT_FOLDER = "[file dirname [value root.name]]"


@dataclass(frozen=True)
class NukeScript:
    """A script.

    Attributes:
        path: Its file, whole.
        frames: The frames of its project settings.
        ours: Names of gencomp's nodes that are not disabled.
        writes: Names of the Writes at the top that are not disabled, and their files as they are
            written there, ``[file dirname …]`` made plain.
        ocio: Its own OpenColorIO config; empty for none.
    """

    path: Path
    frames: FrameRange
    ours: tuple[str, ...]
    writes: Mapping[str, str]
    ocio: str


def read_script(path: Path) -> NukeScript:
    """Read a script.

    Raises:
        BadKnob: It is not there, or is no Nuke script.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise BadKnob(f"The script {path} cannot be read ({error.strerror}).") from error
    root: Mapping[str, str] = {}
    ours: list[str] = []
    writes: dict[str, str] = {}
    for group, cls, knobs in _nodes(text):
        name = ".".join([*group, knobs.get("name", cls)])
        if cls == "Root":
            root = knobs
        elif knobs.get("disable") == "true":
            continue
        elif "gc_system" in knobs:
            ours.append(name)
        elif cls == "Write" and not group:
            writes[name] = _plain(knobs.get("file", ""), path)
    if not root:
        raise BadKnob(f"{path} is no Nuke script.", hint="Save it from Nuke as a .nk file.")
    frames = FrameRange(int(root.get("first_frame", 1)), int(root.get("last_frame", 100)))
    custom = root.get("OCIO_config") == "custom"
    ocio = _plain(root.get("customOCIOConfigPath", ""), path) if custom else ""
    return NukeScript(path, frames, tuple(ours), writes, ocio)


def _nodes(text: str) -> Iterator[tuple[tuple[str, ...], str, Mapping[str, str]]]:
    """Yield every node: the groups around it, its class and its own knobs."""
    group: list[str] = []
    at = 0
    while True:
        match = _NODE.search(text, at)
        if match is None:
            return
        at = match.end()
        if match["class"] is None:
            if group:
                group.pop()
            continue
        end = _closing(text, at)
        knobs = {one["name"]: _word(one["value"]) for one in _KNOB.finditer(text, at, end)}
        at = end
        yield tuple(group), match["class"], knobs
        if match["class"] in _GROUPS:
            group.append(knobs.get("name", match["class"]))


def _closing(text: str, start: int) -> int:
    """Return where the brace that was opened before ``start`` is closed, as Tcl counts."""
    depth, at = 1, start
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif letter == "{":
            depth += 1
        elif letter == "}":
            depth -= 1
            if not depth:
                return at
        at += 1
    return len(text)


def _word(text: str) -> str:
    """Return a value without the marks that Tcl has around it."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text[1:-1] if len(text) > 1 and text[0] == "{" and text[-1] == "}" else text


def _plain(text: str, script: Path) -> str:
    return text.replace(_SCRIPT_FOLDER, script.parent.as_posix())
