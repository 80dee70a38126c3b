# SPDX-License-Identifier: Apache-2.0
"""What a result is made from, in three short words, and what of that has changed since.

They stand in the knob ``gc_key`` beside the folder of the result: one of the knobs that are sent,
one of everything that is connected. They come from what knobs say, and from the sizes of a few
files, so that looking is cheap, and a script that is opened on another machine or in another Nuke
is not out of date for it. Main thread only.
"""

import re
from hashlib import blake2b
from typing import Any, Optional

import nuke
from gencomp_nuke import node
from gencomp_nuke.colours import working_space
from gencomp_nuke.fingerprint import Prints
from gencomp_protocol.errors import GencompError
from gencomp_protocol.frames import FrameRange

KEY = "gc_key"
FRAMES_CHANGED = "frames have changed"
_KNOBS, _FRAMES, _INPUTS = "knobs", "frames", "inputs"
_WORDS = {
    _KNOBS: "knobs have changed",
    _FRAMES: FRAMES_CHANGED,
    _INPUTS: "what is connected has changed",
}
# Knobs that are not sent by their own name, and say what is.
_RANGE = ("gc_range", "gc_first", "gc_last", "gc_handles")
_SENT_TOO = ("gc_clean_cover", "gc_clean_frames")
_INVERTS = "gc_invert"
_SENT_STEMS = ("gc_name", "gc_channel", _INVERTS)


def key_of(gizmo: Any, frames: Optional[FrameRange] = None) -> str:
    """Return what a result would be made from now.

    Args:
        gizmo: A node of ours.
        frames: The frames, where they are others than the node's.
    """
    parts = {
        _KNOBS: _of_knobs(gizmo),
        _FRAMES: _of_frames(gizmo) if frames is None else _spelt(frames),
        _INPUTS: of_inputs(gizmo)[0],
    }
    return " ".join(f"{name}={digest}" for name, digest in parts.items())


def changed(gizmo: Any) -> str:
    """Return in words what has changed since a node's result was made; empty for nothing.

    Nothing is known of a result from before results said what they were made from.
    """
    if KEY not in gizmo.knobs() or not gizmo.nodes():
        return ""
    then = _parts(str(gizmo[KEY].value()))
    if not then or not str(gizmo["gc_folder"].value()):
        return ""
    now = _parts(key_of(gizmo))
    if then.get(_INPUTS) != now[_INPUTS] and nuke.root()["proxy"].value():
        # An expression of a width or a format has another value in proxy.
        with node.full_resolution():
            now = _parts(key_of(gizmo))
    found = [words for name, words in _WORDS.items() if then.get(name) != now[name]]
    if len(found) < 2:
        return "".join(found)
    *before, last = [re.sub(r" ha(s|ve) changed$", "", words) for words in found]
    return f"{', '.join(before)} and {last} have changed"


def counts(gizmo: Any, knob: str) -> bool:
    """Tell whether a knob of a node decides what its result is made from."""
    if knob in _RANGE or knob in _SENT_TOO:
        return True
    return knob.startswith(_SENT_STEMS) or knob in _params(gizmo)


def _of_knobs(gizmo: Any) -> str:
    """Return a digest of the knobs that are sent."""
    known = gizmo.knobs()
    names = [name for name in sorted(known) if name in _params(gizmo) or name in _SENT_TOO]
    names += [name for name in sorted(known) if name.startswith(_SENT_STEMS)]
    # A result from before there was a switch was made as with one that is off.
    names = [name for name in names if not name.startswith(_INVERTS) or _is_on(known[name])]
    words = [f"{name}={_text(known[name])}" for name in names]
    return _digest([*words, working_space()])


def _of_frames(gizmo: Any) -> str:
    """Return the frames as a word."""
    try:
        return _spelt(node.frame_range(gizmo))
    except GencompError as error:  # None can be asked for now; none are what they were.
        return error.code


def _spelt(frames: FrameRange) -> str:
    return str(frames).replace(" ", "")


def _text(knob: Any) -> str:
    """Return a knob's text; of a link that of the knob it shows."""
    return str(knob.value() if knob.Class() == "Link_Knob" else knob.toScript())


def _is_on(knob: Any) -> bool:
    return bool(knob.isAnimated() or knob.value())


def _params(gizmo: Any) -> "list[str]":
    return str(gizmo["gc_params"].value()).split()


def of_inputs(gizmo: Any) -> "tuple[str, frozenset[str]]":
    """Return a digest of everything that is connected, and the names of all nodes in it."""
    prints = Prints((), "", is_quick=True)
    words = [
        f"{spec.pipe}={prints.arriving(node.connected(gizmo, spec.pipe))}"
        for spec in node.all_connected(gizmo, node.declared(gizmo))
    ]
    return _digest(words), prints.members()


def _parts(key: str) -> "dict[str, str]":
    pairs = (word.partition("=") for word in key.split())
    return {name: digest for name, _, digest in pairs}


def _digest(words: "list[str]") -> str:
    return blake2b("\n".join(words).encode("utf-8", "replace"), digest_size=8).hexdigest()
