# SPDX-License-Identifier: Apache-2.0
"""Nuke scripts as real Tcl: reading commands, and writing words so that Tcl reads them back.

A script is code. It runs in a safe child interpreter from which every command is hidden but ``set``
and ``stack``-like ones of ours; anything else is either the name of a node class, which starts with
a capital, or refused. Commands and seconds are limited.
"""

import re
import tkinter

MOST_COMMANDS = 400_000
MOST_SECONDS = 60
_KEPT = ("set", "list")
_PLAIN = re.compile(r"[A-Za-z0-9_./%:@+,=<>!?*^~|&()'-]+\Z")
_CLASS = re.compile(r"[A-Z][A-Za-z0-9_.]*\Z")
_OPTIONS = {"l": 1, "t": 1, "T": 1, "M": 1, "R": 2, "n": 1}


class ScriptError(Exception):
    """A script that cannot be read, or that tries what a script must not."""


def split(text):
    """Split a Tcl list into its words."""
    try:
        return list(_PARSER.splitlist(text))
    except tkinter.TclError as error:
        raise ScriptError(f"not a Tcl list: {error}") from None


def quote(word):
    """Spell a word so that it survives inside a braced body."""
    if word and _PLAIN.match(word):
        return word
    found = word.replace("\\", "\\\\")
    for letter in '"[]{}$':
        found = found.replace(letter, "\\" + letter)
    return '"' + found.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'


_PARSER = tkinter.Tcl()


class Reader:
    """Runs a script against a builder: an object with a method per command of ours.

    The builder has ``node(cls, pairs)``, ``clone(words, pairs)``, ``push(value)``,
    ``stack(depth)``, ``end_group()``, and ``note(words)`` for commands that make no node.
    """

    def __init__(self, builder):
        self._builder, self._failure = builder, None

    def run(self, text):
        """Run a whole script.

        Raises:
            ScriptError: It is not Tcl, names a command that is refused, or never ends.
        """
        tcl = tkinter.Tcl()
        tcl.eval("interp create -safe kid")
        for name in tcl.splitlist(tcl.eval("kid eval {info commands}")):
            if name not in _KEPT:
                tcl.call("interp", "hide", "kid", name)
        commands = {
            "unknown": self._unknown,
            "push": lambda *words: self._builder.push(words[0] if words else "0"),
            "stack": lambda *words: self._builder.stack(int(words[0]) if words else 0),
            "end_group": lambda *words: self._builder.end_group(),
            "clone": self._clone,
            "version": lambda *words: self._builder.note(("version", *words)),
            "add_layer": lambda *words: self._builder.note(("add_layer", *words)),
            "define_window_layout_xml": lambda *words: self._builder.note(("layout", *words)),
        }
        for name, action in commands.items():
            tcl.createcommand("gc_" + name, self._kept_error(action))
            tcl.call("interp", "alias", "kid", name, "", "gc_" + name)
        tcl.call("interp", "eval", "kid", "set cut_paste_input 0")
        tcl.call("interp", "limit", "kid", "commands", "-value", MOST_COMMANDS)
        now = int(tcl.eval("clock seconds"))
        tcl.call("interp", "limit", "kid", "time", "-seconds", now + MOST_SECONDS)
        try:
            tcl.call("interp", "eval", "kid", text)
        except tkinter.TclError as error:
            raise (self._failure or ScriptError(str(error) or "cannot be read")) from None
        finally:
            for name in commands:
                tcl.tk.deletecommand("gc_" + name)

    def _kept_error(self, action):
        """Keep a Python error: Tcl would only pass on an empty message."""

        def called(*words):
            try:
                return str(action(*words) or "")
            except ScriptError as error:
                self._failure = self._failure or error
                raise
            except Exception as error:
                self._failure = self._failure or ScriptError(f"{type(error).__name__}: {error}")
                raise

        return called

    def _unknown(self, *words):
        name = words[0] if words else ""
        if not _CLASS.match(name):
            raise ScriptError(f"the command '{name}' is refused")
        if len(words) != 2:
            raise ScriptError(f"{name} needs one body in braces, not {len(words) - 1} words")
        return self._builder.node(name, pairs(name, words[1]))

    def _clone(self, *words):
        if len(words) < 2:
            raise ScriptError("clone needs the node to clone and a body")
        return self._builder.clone(words[:-1], pairs("clone", words[-1]))


def pairs(cls, body):
    """Split a node's body into knob names and words."""
    words = split(body)
    if len(words) % 2:
        raise ScriptError(f"the body of {cls} has a knob without a value, near '{words[-1]}'")
    return list(zip(words[::2], words[1::2]))


class UserKnob:
    """One ``addUserKnob`` line: code, name, options and flags."""

    def __init__(self, spec):
        words = split(spec)
        if len(words) == 1:  # {20} alone stands for the tab called User
            words.append("User")
        if len(words) < 2 or not words[0].isdigit():
            raise ScriptError(f"addUserKnob {{{spec}}} has no number and name")
        self.code, self.name = int(words[0]), words[1]
        self.options, self.flags = {}, []
        rest = words[2:]
        while rest:
            word = rest.pop(0)
            if word[:1] in "+-" and word[1:2].isalpha():
                self.flags.append(word)
            elif word in _OPTIONS and len(rest) >= _OPTIONS[word]:
                taken = [rest.pop(0) for _ in range(_OPTIONS[word])]
                self.options[word] = taken[0] if len(taken) == 1 else tuple(taken)
            else:
                raise ScriptError(f"addUserKnob {self.name}: what is '{word}'?")

    @property
    def is_saved(self):
        """Tell whether the value is written into scripts."""
        return "+DO_NOT_WRITE" not in self.flags

    def spell(self, menu=None):
        """Write the line's inside again, with the menu as it is now."""
        parts = [str(self.code), quote(self.name)]
        for key, value in self.options.items():
            if key == "M":
                parts.append("M {" + " ".join(quote(item) for item in menu or split(value)) + "}")
            elif key == "R":
                parts.append("R " + " ".join(value))
            else:
                parts.append(f"{key} {quote(value)}")
        return " ".join(parts + self.flags)
