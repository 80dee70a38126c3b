# SPDX-License-Identifier: Apache-2.0
"""Bake: what is inside a node of ours, as plain nodes beside it that need nothing of gencomp.

The nodes are copies of those inside that have a say in the picture, so the pixels are the same.
What does nothing as the node is set (a disabled node, the other branches of a Switch, a Copy into
no channel) is left out. Expressions that name a knob of the node become what the knob says, with
its keys; paths keep the spelling they have, relative to the script or not.
"""

import re
from typing import Any, Optional

from gencomp_nuke import beside, node, playing
from gencomp_protocol.errors import BadKnob, MissingFrame

_PASS = ("Dot", "NoOp", "Output", "Write", "PostageStamp")
# Knobs that are of a node's place in the graph and not of its picture.
_NOT_COPIED = (
    *("name", "xpos", "ypos", "selected", "help", "label", "icon", "tile_color", "gl_color"),
    *("note_font", "note_font_size", "note_font_color", "hide_input", "cached", "bookmark"),
    *("dope_sheet", "indicators", "panel", "postage_stamp", "disable", "reload"),
    *("knobChanged", "onCreate", "onDestroy", "updateUI", "autolabel"),
)
_VALUE = re.compile(r"\[value parent\.(\w+)\]")
_PARENT = re.compile(r"\bparent\.(\w+)(?:\.([rgbaxy]))?\b")
_BESIDE = re.compile(r"\b(?!parent\b|this\b|root\b|input\d*\b)([A-Za-z_]\w*)\.([A-Za-z_]\w*)\b")
_PARTS = {"": 0, "r": 0, "g": 1, "b": 2, "a": 3, "x": 0, "y": 1}
_NUMBERS = re.compile(r"[\s\d.+\-*/()!<>=&|?:,]*\Z")
_NONE = "none"


def bake(gizmo: Any) -> None:
    """Make plain nodes beside a node that give the same pixels; the node stays as it is.

    Args:
        gizmo: The node.

    Raises:
        MissingFrame: It plays nothing yet.
        BadKnob: Something inside cannot be told in plain nodes; says which knob.
    """
    if playing.result_folder(gizmo) is None:
        raise MissingFrame("There is no result to bake yet.", hint="Press Generate first.")
    with beside.beside(gizmo, f"Bake {gizmo.name()}"):
        inside = _Inside(gizmo)
        last = inside.outside(_output(gizmo))
        beside.frame(gizmo, inside.made, f"{gizmo.name()} as plain nodes")
    if last is None or not inside.made:
        node.tell(gizmo, "Nothing had to be baked: as it is set, this node passes its input on.")
    else:
        node.tell(gizmo, f"Baked into {len(inside.made)} plain nodes; the last is {last.name()}.")


def _output(gizmo: Any) -> Any:
    return next(inner for inner in gizmo.nodes() if inner.Class() == "Output")


class _Inside:
    """The inside of a node, and what stands for it in the graph around.

    Args:
        gizmo: The node.
    """

    def __init__(self, gizmo: Any) -> None:
        self._gizmo = gizmo
        self._known: dict[str, Any] = {}
        self.made: list[Any] = []

    def outside(self, inner: Optional[Any]) -> Optional[Any]:
        """Return the node around that gives what one inside does; None where nothing does."""
        if inner is None:
            return None
        name = inner.name()
        if name not in self._known:
            self._known[name] = self._stand_in(inner)
        return self._known[name]

    def _stand_in(self, inner: Any) -> Optional[Any]:
        if inner.Class() == "Input":
            return self._gizmo.input(int(inner["number"].value()))
        passed = self._passed(inner)
        return self._copied(inner) if passed is None else self.outside(inner.input(passed))

    def _passed(self, inner: Any) -> Optional[int]:
        """Return the input that a node passes on untouched; None where it does something."""
        if inner.Class() in _PASS or self._is_off(inner):
            return 0
        if inner.Class() == "Switch" and not self._moves(inner["which"]):
            most = max(0, int(inner.inputs()) - 1)
            return min(max(0, int(inner["which"].value())), most)
        if inner.Class() == "Copy" and self._copies_nothing(inner):
            return 0
        return None

    def _is_off(self, inner: Any) -> bool:
        return not self._moves(inner["disable"]) and bool(inner["disable"].value())

    def _copies_nothing(self, inner: Any) -> bool:
        targets = [str(inner[f"to{i}"].value()) for i in range(4)]
        layer = "channels" in inner.knobs() and str(inner["channels"].value()) != _NONE
        return not layer and all(target == _NONE for target in targets)

    def _moves(self, knob: Any) -> bool:
        """Tell whether a knob's value may be another one at another frame."""
        if not _has_expression(knob):
            return bool(hasattr(knob, "isAnimated") and knob.isAnimated())
        text = self._text_of(knob, 0)
        return self._has_keys(text) or not _NUMBERS.match(self._in_numbers(text))

    # --- copies ----------------------------------------------------------------------------------

    def _copied(self, inner: Any) -> Any:
        # What is upstream comes first, so that the last one made is the node's output.
        sources = [self.outside(inner.input(i)) for i in range(inner.inputs())]
        if inner.Class() == "Group":
            raise BadKnob(f"{self._gizmo.name()} holds a group, {inner.name()}, that is not ours.")
        copy = beside.make(inner.Class(), f"{self._gizmo.name()}_{inner.name()}")
        for name, knob in inner.knobs().items():
            if name not in _NOT_COPIED and name in copy.knobs():
                self._copy_knob(knob, copy[name])
        if self._moves(inner["disable"]):
            self._copy_knob(inner["disable"], copy["disable"])
        for index, source in enumerate(sources):
            beside.connect(copy, index, source)
        x, y = beside.origin(self._gizmo)
        copy.setXYpos(x + int(inner.xpos()) + 700, y + int(inner.ypos()) + 600)
        self.made.append(copy)
        return copy

    def _copy_knob(self, knob: Any, target: Any) -> None:
        if knob.toScript() == target.toScript():
            return
        if _has_expression(knob):
            for index in range(_size(knob)):
                self._copy_number(knob, target, index)
        elif _PARENT.search(knob.toScript()):
            target.setValue(self._spelt(knob))
        else:
            target.fromScript(knob.toScript())

    def _copy_number(self, knob: Any, target: Any, index: int) -> None:
        """Copy one number of a knob, with what its expression comes to."""
        if not knob.hasExpression(index):
            target.setValue(knob.getValue(index), index)
            return
        text = self._text_of(knob, index)
        bare = _PARENT.fullmatch(text)
        if bare and self._has_keys(text) and _size(knob) == 1 and not bare[2]:
            target.fromScript(self._gizmo[bare[1]].toScript())
            return
        self._check_keys(knob, text)
        text = self._in_numbers(text)
        if not _NUMBERS.match(text):
            target.setExpression(text, index)
        elif _size(knob) == 1:
            target.setValue(knob.value())
        else:
            target.setValue(knob.getValue(index), index)

    def _spelt(self, knob: Any) -> str:
        """Return a text with the node's knobs in it, spelt without them."""
        text = _VALUE.sub(lambda match: _raw(self._gizmo[match[1]]), _raw(knob))
        self._check_keys(knob, text)
        return self._in_numbers(text)

    def _text_of(self, knob: Any, index: int) -> str:
        """Return the expression of one number of a knob; what it names of nodes beside, spelt out.

        Not every node is copied, and a copy has another name.
        """

        def spelt(match: "re.Match[str]") -> str:
            inner = self._gizmo.node(match[1])
            if inner is None or match[2] not in inner.knobs():
                return str(match[0])
            named = inner[match[2]]
            if _has_expression(named):
                return f"({self._text_of(named, 0)})"
            return f"{float(named.getValue()):.9g}"

        return _BESIDE.sub(spelt, str(knob.animation(index).expression()))

    def _in_numbers(self, text: str) -> str:
        """Return an expression with the node's knobs as numbers: a menu as its place."""

        def number(match: "re.Match[str]") -> str:
            knob = self._gizmo[match[1]]
            part = () if _size(knob) == 1 else (_PARTS[match[2] or ""],)
            return f"{float(knob.getValue(*part)):.9g}"

        return _PARENT.sub(number, text)

    def _has_keys(self, text: str) -> bool:
        """Tell whether an expression names a knob of the node that moves."""
        named = (self._gizmo[name] for name, _ in _PARENT.findall(text))
        return any(hasattr(knob, "isAnimated") and knob.isAnimated() for knob in named)

    def _check_keys(self, knob: Any, text: str) -> None:
        if self._has_keys(text):
            raise BadKnob(
                f"{knob.fullyQualifiedName()} depends on a knob with keys, in a way that plain "
                "nodes cannot say.",
                hint="Take the keys off the knobs of this node, or render it with a Write.",
            )


def _has_expression(knob: Any) -> bool:
    return hasattr(knob, "hasExpression") and any(
        knob.hasExpression(index) for index in range(_size(knob))
    )


def _size(knob: Any) -> int:
    return max(1, int(knob.arraySize())) if hasattr(knob, "arraySize") else 1


def _raw(knob: Any) -> str:
    """Return what a text knob holds, its own ``[value ...]`` unexpanded."""
    return str(knob.getText() if hasattr(knob, "getText") else knob.value())
