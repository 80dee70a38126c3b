# SPDX-License-Identifier: Apache-2.0
"""What a picture of the script is made from, as a short text that changes when that does.

From a node upwards: classes, wiring, knobs, and of every file that a knob names its size and time.
Of nodes that are known to look at one frame alone, moving knobs count as they are at that frame, so
that a key at 1050 changes nothing at 1001; whatever else (retimes, motion blur, plug-ins) counts
with everything above it at all times. In doubt two pictures differ, and one is rendered again.

What cannot be seen: a picture that depends on the clock, on chance, or on files that no knob names.
Main thread only.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Optional

import nuke
from gencomp_nuke.caches import opened


def _words(text: str) -> "frozenset[str]":
    return frozenset(text.split())


_DIGEST_BYTES = 16
_ALL_TIMES = None
# Of a Write that makes files for us, what decides their bytes.
_WRITTEN = ("channels", "datatype", "compression", "raw", "colorspace", "autocrop", "premultiplied")
_PASSING = ("Dot", "NoOp", "PostageStamp", "Output", "Viewer")
_PRECOMP, _VARIABLE_SWITCH = "Precomp", "VariableSwitch"
VARIABLES, _VARIABLE = "gsv", "%{"  # Graph scope variables: their knob, and one within a text.
# Classes whose picture at a frame depends on their inputs and knobs at that frame alone, as long as
# they blur no motion.
_OF_ONE_FRAME = _words(
    "Add AddChannels BlackOutside Blur CCorrect ChannelMerge CheckerBoard2 Clamp ColorCorrect "
    "ColorMatrix Colorspace Constant Copy CopyBBox CopyRectangle CornerPin2D Crop Defocus "
    "Dilate Dissolve EdgeBlur Erode Expression FilterErode Gamma Grade HueCorrect HueShift "
    "Invert Keymix Log2Lin Matrix Merge2 Mirror2 Multiply OCIOColorSpace Position Premult "
    "Ramp Read Reformat Remove Roto RotoPaint Saturation Sharpen Shuffle Shuffle2 ShuffleCopy "
    "Soften Switch Text2 Tracker4 Transform Unpremult"
)
_OFF = ("0", "0.0", "false", "False", "")
_BLURS_MOTION = ("motionblur", "motionblur_on", "global_motionblur_on", "motion_blur")
# Knobs that no pixel depends on.
LOOKS = _words(
    "name xpos ypos label note_font note_font_size note_font_color tile_color gl_color "
    "selected hide_input cached dope_sheet bookmark postage_stamp postage_stamp_frame help "
    "knobChanged onCreate onDestroy updateUI autolabel icon indicators rootNodeUpdated panel "
    "cacheLocal localizationPolicy reload version origset origfirst origlast proxy "
    "proxy_format Render reading_local"
)
_SHOWN = ("Tab_Knob", "Text_Knob", "PyScript_Knob", "Script_Knob", "Help_Knob", "PyCustom_Knob")
_OF_ROOT = (
    "colorManagement",
    "OCIO_config",
    "customOCIOConfigPath",
    "workingSpaceLUT",
    "int8Lut",
    "int16Lut",
    "logLut",
    "floatLut",
    "luts",
    "format",
)


class Prints:
    """Fingerprints of one script as it is now; what is asked twice is read once.

    Args:
        frames: Frames at which expressions count where all times do, with the script's own.
        view: View that is wanted.
        is_quick: Look at few frames, of files at the sizes of the first and the last alone, and not
            at what differs from one machine to the next.
    """

    def __init__(self, frames: "Iterable[int]", view: str, *, is_quick: bool = False) -> None:
        root = nuke.root()
        first, last = int(root["first_frame"].value()), int(root["last_frame"].value())
        own = (first, (first + last) // 2, last) if is_quick else range(first, last + 1)
        self._times = sorted({*frames, *own})
        self._is_quick = is_quick
        self._here = os.path.dirname(str(root.name() or "")) + "/" if is_quick else ""
        self._scene = [view, *_scene(), *([] if is_quick else _machine())]
        self._known: dict[tuple[str, Optional[int]], bytes] = {}
        self._knobs: dict[str, _Knobs] = {}
        self._needs: dict[tuple[str, Optional[int]], list[tuple[Any, Optional[int]]]] = {}
        self._stats: dict[str, str] = {}

    def written(self, writer: Any, frame: int) -> str:
        """Return the fingerprint of the file that a Write makes of a frame, 32 hex digits."""
        settings = [f"{name}={_at(writer[name], frame)}" for name in _WRITTEN]
        below = self._of(writer.input(0), frame)
        return _digest([*self._scene, str(frame), *settings], [below]).hex()

    def arriving(self, node: Any) -> str:
        """Return the fingerprint of everything that arrives from a node at all times."""
        return _digest(self._scene, [self._of(node, _ALL_TIMES)]).hex()

    def members(self) -> "frozenset[str]":
        """Return the full names of all nodes that were looked at."""
        return frozenset(name for name, _ in self._known)

    # --- the graph, from above downwards ---------------------------------------------------------

    def _of(self, node: Any, frame: "Optional[int]") -> bytes:
        """Return the digest of a node and all above it; without recursion, graphs are deep."""
        open_now = [(node, frame)]
        while open_now:
            at, when = open_now[-1]
            if _key(at, when) in self._known:
                open_now.pop()
                continue
            needed = self._needed(at, when)
            missing = [pair for pair in needed if _key(*pair) not in self._known]
            if missing:
                open_now.extend(missing)
                continue
            self._known[_key(at, when)] = self._made(at, when, needed)
            open_now.pop()
        return self._known[_key(node, frame)]

    def _needed(self, node: Any, frame: "Optional[int]") -> "list[tuple[Any, Optional[int]]]":
        key = _key(node, frame)
        if key not in self._needs:
            self._needs[key] = [] if node is None else list(_above(node, frame))
        return self._needs[key]

    def _made(
        self, node: Any, frame: "Optional[int]", needed: "list[tuple[Any, Optional[int]]]"
    ) -> bytes:
        above = [self._known[_key(*pair)] for pair in needed]
        if node is None:
            return b"nothing"
        if len(above) == 1 and (_passes(node, frame) or _output_of(node) is not None):
            return above[0]
        knobs = self._knobs_of(node)
        words = [node.Class()]
        if node.Class() == _PRECOMP:
            words += self._rendered(node, frame)
        elif node.Class() == _VARIABLE_SWITCH:
            words += _variables(node)
        for knob in knobs.moving:
            words += self._movement(node, knob, frame)
        for knob in knobs.files:
            words += self._files_of(node, knob, frame)
        return _digest(words, [knobs.still, *above])

    # --- knobs and files -------------------------------------------------------------------------

    def _knobs_of(self, node: Any) -> "_Knobs":
        """Return the knobs of a node on which its pixels may depend."""
        name = node.fullName()
        if name not in self._knobs:
            self._knobs[name] = _sorted_knobs(node)
        return self._knobs[name]

    def _movement(self, node: Any, knob: Any, frame: "Optional[int]") -> "list[str]":
        """Return what a moving knob contributes to a picture at a frame, or at all times."""
        is_curve = not _is_evaluated(str(knob.toScript())) and not _is(knob, "hasExpression")
        text = f"{knob.name()}={knob.toScript()}"
        if frame is _ALL_TIMES:
            return [text] + ([] if is_curve else [self._value(knob, n) for n in self._times])
        value = f"{knob.name()} is {self._value(knob, frame)}"
        return [value] if is_curve and node.Class() in _OF_ONE_FRAME else [text, value]

    def _value(self, knob: Any, frame: int) -> str:
        """Return a knob's value; for a quick look, paths from the script's folder on."""
        said = _at(knob, frame)
        return said.replace(self._here, "") if len(self._here) > 1 else said

    def _rendered(self, precomp: Any, frame: "Optional[int]") -> "list[str]":
        """Return what is known of the files that a Precomp reads in place of its nodes."""
        if not precomp["reading"].value():
            return []
        writes = [inner for inner in precomp.nodes() if inner.Class() == "Write"]
        return [word for one in writes for word in self._files_of(one, one["file"], frame)]

    def _files_of(self, node: Any, knob: Any, frame: "Optional[int]") -> "list[str]":
        """Return what is known of the files that a knob names."""
        at = self._frames_read(node, frame)
        return [self._stat(opened(str(knob.evaluate(n) or ""))) for n in at]

    def _frames_read(self, node: Any, frame: "Optional[int]") -> "Iterable[int]":
        """Return the frames of a node's files that its picture at a frame may come from."""
        if node.Class() != "Read":
            return self._times if frame is _ALL_TIMES else [frame]
        first, last = int(node["first"].value()), int(node["last"].value())
        if self._is_quick:
            return (first, last)
        moved = str(node["frame"].value() or "").strip()
        if frame is not _ALL_TIMES and not moved and first <= frame <= last:
            return [frame]
        return range(first, last + 1)

    def _stat(self, path: str) -> str:
        if path not in self._stats:
            try:
                found = os.stat(path)
                said = f"{found.st_size} bytes"
                if not self._is_quick:
                    said += f" of {found.st_mtime_ns} in {path}"
            except OSError:
                said = "not there"
            self._stats[path] = said
        return self._stats[path]


def _above(node: Any, frame: "Optional[int]") -> "Iterator[tuple[Any, Optional[int]]]":
    """Yield what a node's picture at a frame is made from, and at which frame."""
    if node.Class() == "Input":
        group = nuke.root().node(node.fullName().rpartition(".")[0])
        yield group.input(int(node["number"].value())), frame
        return
    if _passes(node, frame):
        yield node.input(0), frame
        return
    if node.Class() == _PRECOMP:  # Which of them it shows, its own knobs say.
        yield from ((n, frame) for n in node.nodes() if n.Class() in ("Output", "Write"))
        return
    inside = _output_of(node)
    if inside is not None:
        yield inside, frame
        return
    when = _time_above(node, frame)
    for index in range(node.inputs()):
        yield node.input(index), when


def _time_above(node: Any, frame: "Optional[int]") -> "Optional[int]":
    """Return the frame at which a node looks at its inputs; None where that may be any."""
    if frame is _ALL_TIMES:
        return _ALL_TIMES
    if node.Class() == "TimeOffset" and not node["reverse_input"].value():
        shift = node["time_offset"]
        return _ALL_TIMES if shift.isAnimated() else frame - int(shift.value())
    if node.Class() not in _OF_ONE_FRAME:
        return _ALL_TIMES
    known = node.knobs()
    blurs = any(name in known and _at(known[name], frame) not in _OFF for name in _BLURS_MOTION)
    return _ALL_TIMES if blurs else frame


def _passes(node: Any, frame: "Optional[int]") -> bool:
    """Tell whether a node's picture is that of its first input."""
    cls = node.Class()
    if cls in _PASSING or cls == "Input":
        return True
    if cls == "Write":
        return "reading" not in node.knobs() or str(node["reading"].toScript()) in _OFF
    known = node.knobs()
    if "disable" not in known or (frame is _ALL_TIMES and known["disable"].isAnimated()):
        return False
    return _at(known["disable"], 0 if frame is None else frame) not in _OFF


def _output_of(node: Any) -> Any:
    """Return the Output inside a group; None for any other node, or a group without.

    None for a Precomp, too: it may show a file instead.
    """
    if node.Class() == _PRECOMP:
        return None
    inner = getattr(node, "nodes", None)
    if inner is None:
        return None
    return next((child for child in inner() if child.Class() == "Output"), None)


@dataclass(frozen=True)
class _Knobs:
    """Knobs of one node: a digest of those that stand still, those that may move, files."""

    still: bytes
    moving: "tuple[Any, ...]"
    files: "tuple[Any, ...]"


def _sorted_knobs(node: Any) -> _Knobs:
    """Sort the knobs on which pixels may depend, by name, so that their order is steady."""
    still, moving, files = [], [], []
    for name, knob in sorted(node.knobs().items()):
        cls = knob.Class()
        if name in LOOKS or cls in _SHOWN:
            continue
        text = str(knob.toScript())
        if _is_evaluated(text) or _is(knob, "isAnimated"):
            moving.append(knob)
        else:
            still.append(f"{name}={text}")
        if cls == "File_Knob" and text.strip(' "{}'):
            files.append(knob)
    return _Knobs(_digest(still, []), tuple(moving), tuple(files))


def _is(knob: Any, question: str) -> bool:
    """Ask a knob; kinds that cannot be animated do not know the question."""
    asked = getattr(knob, question, None)
    return asked is not None and bool(asked())


def _at(knob: Any, frame: int) -> str:
    """Return a knob's value at a frame as text."""
    try:
        if _is_evaluated(str(knob.toScript())) and hasattr(knob, "evaluate"):
            return str(knob.evaluate(frame))
        if hasattr(knob, "getValueAt"):
            return str(knob.getValueAt(frame))
        return str(knob.value())
    except (RuntimeError, TypeError, ValueError) as error:
        return f"fails: {error}"  # It counts that it does, and with which words.


def _is_evaluated(text: str) -> bool:
    """Tell whether a knob's text means more than it says: Tcl, or a graph scope variable."""
    return "[" in text or _VARIABLE in text


def _variables(node: Any) -> "list[str]":
    """Return all graph scope variables that a node may look at, as their knobs spell them."""
    places = str(node.fullName()).split(".")
    groups = [nuke.root().node(".".join(places[:n])) for n in range(1, len(places))]
    knobs = [group.knob(VARIABLES) for group in (nuke.root(), *groups)]
    return [str(knob.toScript()) for knob in knobs if knob is not None]


def _scene() -> "list[str]":
    """Return what every picture of a script depends on."""
    root = nuke.root()
    known = root.knobs()
    return [f"{name}={known[name].toScript()}" for name in _OF_ROOT if name in known]


def _machine() -> "list[str]":
    """Return what pictures depend on beside the script."""
    return [f"Nuke {nuke.NUKE_VERSION_STRING}", os.environ.get("OCIO", "")]


def _key(node: Any, frame: "Optional[int]") -> "tuple[str, Optional[int]]":
    return ("" if node is None else str(node.fullName()), frame)


def _digest(words: "Iterable[str]", parts: "Iterable[bytes]") -> bytes:
    state = blake2b(digest_size=_DIGEST_BYTES)
    for entry in (*(word.encode("utf-8", "replace") for word in words), *parts):
        state.update(len(entry).to_bytes(8, "little"))
        state.update(entry)
    return state.digest()
