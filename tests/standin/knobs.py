# SPDX-License-Identifier: Apache-2.0
"""Knobs: their text as a script holds it, and what Python sees of it.

``raw`` is the word of the script: ``1.5``, ``true``, ``{parent.mix*2}`` (an expression), or text
with ``[value …]`` in it. A knob whose word is an expression or a curve is evaluated when asked.
"""

import posixpath
import tkinter

from standin import expression
from standin.tclscript import split

TRUE = ("true", "1", "on", "yes")
FALSE = ("false", "0", "off", "no", "")
# Codes of addUserKnob: kind of value, and the class that Python sees.
_CODES = {
    1: ("e", "EvalString_Knob"),
    2: ("f", "File_Knob"),
    3: ("i", "Int_Knob"),
    4: ("m", "Enumeration_Knob"),
    6: ("b", "Boolean_Knob"),
    7: ("d", "Double_Knob"),
    8: ("d", "Double_Knob"),
    11: ("c", "Channel_Knob"),
    20: ("t", "Tab_Knob"),
    22: ("p", "PyScript_Knob"),
    26: ("t", "Text_Knob"),
    41: ("link", "Link_Knob"),
    43: ("e", "Multiline_Eval_String_Knob"),
}
_CLASSES = {
    "s": "String_Knob",
    "e": "EvalString_Knob",
    "f": "File_Knob",
    "i": "Int_Knob",
    "d": "Double_Knob",
    "b": "Boolean_Knob",
    "m": "Enumeration_Knob",
    "c": "Channel_Knob",
    "l": "ChannelMask_Knob",
    "p": "Script_Knob",
    "x": "Knob",
}
_DEFAULTS = {"i": "0", "d": "0", "b": "false", "c": "none"}


class Guarded:
    """An object that only Nuke's main thread may touch."""

    def __getattribute__(self, name):
        if not name.startswith("_"):
            object.__getattribute__(self, "_app").check_thread(name)
        return object.__getattribute__(self, name)


class Knob(Guarded):
    """One knob of one node."""

    def __init__(self, node, name, kind, default="", items=(), user=None):
        self._app = node._app
        self._node, self._name, self._kind = node, name, kind
        self._items, self._user = list(items), user
        self._default = default
        self._raw = default
        self._enabled, self._visible = True, True

    @classmethod
    def _of_user(cls, node, user):
        kind, _ = _CODES.get(user.code, ("x", "Knob"))
        items = split(user.options.get("M", "")) if kind == "m" else ()
        default = items[0] if items else _DEFAULTS.get(kind, "")
        if kind in "tp" and kind:
            default = user.options.get("T", "")
        knob = cls(node, user.name, kind, default, items, user)
        knob._visible = not {"+INVISIBLE", "+HIDDEN"} & set(user.flags)
        return knob

    # --- what Python sees ------------------------------------------------------------------------

    def name(self):
        return self._name

    def node(self):
        return self._node

    def fullyQualifiedName(self):
        return f"{self._node.fullName()}.{self._name}"

    def Class(self):
        if self._user is not None:
            return _CODES.get(self._user.code, ("x", "Knob"))[1]
        return _CLASSES.get(self._kind, "Knob")

    def label(self):
        return "" if self._user is None else self._user.options.get("l", self._name)

    def tooltip(self):
        return "" if self._user is None else self._user.options.get("t", "")

    def enabled(self):
        return self._enabled

    def setEnabled(self, value):
        self._enabled = bool(value)

    def visible(self):
        return self._visible

    def setVisible(self, value):
        self._visible = bool(value)

    def value(self):
        return self._value_at(None)

    def getValue(self):
        if self._target() is not None:
            return self._target().getValue()
        if self._kind == "m":
            return float(self._index())
        return self.value()

    def evaluate(self, frame=None):
        text = self._text()
        return expand_frame(text, self._app.frame if frame is None else frame)

    def values(self):
        return list(self._items)

    def setValues(self, items):
        chosen = self._value_at(None)
        self._items = [str(item) for item in items]
        if self._raw not in self._items and self._items:
            self._raw = chosen if chosen in self._items else self._items[0]

    def isAnimated(self):
        return self._expression() is not None  # An expression counts, as in Nuke.

    def hasExpression(self):
        return self.isAnimated() and not self._expression().startswith("curve")

    def setExpression(self, text, channel=0):
        self._set_raw("{" + text + "}")

    def toScript(self):
        return self._raw

    def fromScript(self, text):
        self._set_raw(text)

    def getFlag(self, flag):
        return False

    def setValue(self, value, *_):
        target = self._target()
        if target is not None:
            target.setValue(value)
            return True
        self._set_raw(self._spell(value))
        return True

    def execute(self):
        if self._kind != "p":
            raise TypeError(f"{self._name} is no button")
        if self._raw:
            self._app.run_callback(self._raw, self._node, self)

    # --- inside ----------------------------------------------------------------------------------

    def _set_raw(self, raw):
        if raw == self._raw:
            return
        self._app.note_edit(self._node, self)
        self._raw = raw
        self._node._knob_changed(self)

    def _spell(self, value):
        """Spell a Python value as this knob's word."""
        kind = self._kind
        if kind == "m":
            if isinstance(value, str):
                if value not in self._items:
                    raise ValueError(f"{self._name} has no item '{value}'")
                return value
            return self._items[int(value)]
        if kind == "b":
            return "true" if value else "false"
        if kind == "i":
            return str(int(value))
        if kind == "d":
            return repr(float(value)) if float(value) != int(value) else str(int(value))
        if not isinstance(value, str):
            raise TypeError(f"{self._name} takes text, not {value!r}")
        return value

    def _target(self):
        """Return the knob that a link shows, or None."""
        if self._kind != "link":
            return None
        path = (self._user.options.get("T") or self._raw).rpartition(".")
        inner = self._node.node(path[0])
        if inner is None:
            raise ValueError(f"{self._name} links to {path[0]}, which is not there")
        return inner[path[2]]

    def _expression(self):
        """Return the expression this knob's word is, or None for a plain value."""
        if self._kind not in ("i", "d", "b", "m", "x") or self._raw in self._items:
            return None
        if not self._raw.startswith("{"):
            return None
        text = split(self._raw)[0]
        if text.startswith('"'):  # {{"a > b"}}: Nuke quotes an expression with spaces.
            text = split(text)[0]
        return text[:-2] if text.endswith(" i") else text  # "i" marks a whole number.

    def _number(self, frame):
        text = self._expression()
        if text is not None:
            look_up = self._node._number_of
            return expression.evaluate(text, lambda name: look_up(name, frame), frame)
        if self._kind == "b":
            if self._raw.lower() not in TRUE + FALSE:
                raise ValueError(f"{self._name} is '{self._raw}', which is neither on nor off")
            return float(self._raw.lower() in TRUE)
        return float(self._raw or 0)

    def _index(self, frame=None):
        if self._expression() is not None:
            return int(self._number(self._app.frame if frame is None else frame))
        if self._raw in self._items:
            return self._items.index(self._raw)
        if self._raw.isdigit():
            return int(self._raw)
        raise ValueError(f"{self._name} has no item '{self._raw}'")

    def _value_at(self, frame):
        frame = self._app.frame if frame is None else frame
        target = self._target()
        if target is not None:
            return target._value_at(frame)
        kind = self._kind
        if kind == "b":
            return bool(self._number(frame))
        if kind == "i":
            return int(self._number(frame))
        if kind == "d":
            return self._number(frame)
        if kind == "m":
            return self._items[self._index(frame)] if self._items else ""
        return self._text() if kind == "f" else self._raw

    def _number_at(self, frame):
        """Return the knob as expressions see it: a menu as its index."""
        if self._kind == "m":
            return float(self._index(frame))
        if self._kind in ("b", "i", "d"):
            return self._number(frame)
        return float(self._text() or 0)

    def _text(self):
        """Return the text with its ``[…]`` evaluated."""
        if self._kind == "m":
            return str(self.value())
        if self._kind in ("i", "d", "b"):
            value = self.value()
            return str(value).lower() if self._kind == "b" else f"{value:g}"
        if "[" not in self._raw:
            return self._raw
        return substitute(self._raw, self._node)


def expand_frame(text, frame):
    """Put a frame number where a path says ``%04d`` or ``####``."""
    found, place = "", 0
    while place < len(text):
        letter = text[place]
        if letter == "%":
            end = place + 1
            while end < len(text) and text[end].isdigit():
                end += 1
            if text[end : end + 1] == "d":
                width = int(text[place + 1 : end] or 0)
                found += f"{int(frame):0{width}d}"
                place = end + 1
                continue
        if letter == "#":
            end = place
            while text[end : end + 1] == "#":
                end += 1
            found += f"{int(frame):0{end - place}d}"
            place = end
            continue
        found += letter
        place += 1
    return found


def substitute(text, node):
    """Evaluate ``[value …]`` and ``[file …]`` in a knob's text, as Nuke does when it is asked.

    Raises:
        ValueError: A command that is not known here; Python is refused, since farms may lack it.
    """
    tcl = tkinter.Tcl()
    tcl.eval("interp create -safe kid")
    failure = []

    def kept(action):
        def called(*words):
            try:
                return action(*words)
            except Exception as error:
                failure.append(error)
                raise

        return called

    commands = {"value": node._text_of, "knob": node._text_of, "file": _file, "unknown": _refuse}
    for name, action in commands.items():
        tcl.createcommand("gc_" + name, kept(action))
        tcl.call("interp", "alias", "kid", name, "", "gc_" + name)
    tcl.call("interp", "limit", "kid", "commands", "-value", 10_000)
    try:
        return str(tcl.call("interp", "eval", "kid", "subst", "-nobackslashes", "{" + text + "}"))
    except tkinter.TclError as error:
        raise ValueError(f"'{text}': {failure[0] if failure else error}") from None


def _refuse(*words):
    raise ValueError(f"[{words[0]} …] is not evaluated here")


def _file(what, path="", *more):
    """Tcl's ``file``, the parts of it that only look at the text of a path."""
    if what == "dirname":
        return posixpath.dirname(path) or ("/" if path.startswith("/") else ".")
    if what == "tail":
        return posixpath.basename(path)
    if what == "rootname":
        stem, dot, ending = path.rpartition(".")
        return stem if dot and "/" not in ending else path
    if what == "extension":
        return posixpath.splitext(path)[1]
    if what == "join":
        return posixpath.join(path, *more)
    raise ValueError(f"[file {what} …] is not evaluated here")
