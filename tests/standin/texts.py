# SPDX-License-Identifier: Apache-2.0
"""Texts of knobs when they are asked for: frame numbers in paths, views, ``[value …]`` in Tcl."""

import os
import posixpath
import re
import threading
import tkinter

_FRAME = re.compile(r"%(0?\d*)d|(#+)")
_MOST_COMMANDS = 10_000
_MOST_CHARACTERS = 100_000
_HIDDEN = "while for proc after vwait interp rename time foreach lrepeat regexp regsub info"
_HERE = threading.local()  # Tcl stays in the thread that made it.


def expand_frame(text, frame, view="main"):
    """Put frame and view where a path says ``%04d``, ``####``, ``%V`` or ``%v``."""

    def number(match):
        width = int(match.group(1) or 0) if match.group(2) is None else len(match.group(2))
        return f"{int(frame):0{width}d}"

    text = text.replace("%V", view).replace("%v", view[:1])
    return _FRAME.sub(number, text)


def substitute(text, node, frame):
    """Evaluate ``[value …]``, ``[file …]``, ``[if …]`` in a knob's text, as Nuke does when asked.

    Raises:
        ValueError: A command that is not known here; Python is refused, since farms may lack it.
    """
    if not hasattr(_HERE, "texts"):
        _HERE.texts = _Texts()
    with node._app.untimed():  # Nuke's own Tcl takes microseconds.
        return _HERE.texts.substituted(text, node, frame)


class _Texts:
    """A thread's safe Tcl for texts; who asks, and at which frame, stands on a stack."""

    def __init__(self):
        self._tcl, self._asked = tkinter.Tcl(), []
        self._tcl.eval("interp create -safe kid")
        self._tcl.eval("kid eval {namespace delete oo zlib; rename ::tcl::string::repeat {}}")
        self._tcl.eval(f"foreach one {{{_HIDDEN}}} {{interp hide kid $one}}")
        commands = {
            "value": lambda node, frame, name, *_: node._text_of(name),
            "knob": lambda node, frame, name, *_: node._raw_of(name),
            "exists": lambda node, frame, name, *_: node._exists(name),
            "frame": lambda node, frame, *_: str(int(frame)),
            "node": lambda node, frame, name="this", *_: _named(node, name).fullName(),
            "class": lambda node, frame, name="this", *_: _named(node, name).Class(),
            "file": lambda node, frame, *words: _file(*words),
            "getenv": lambda node, frame, name, default="": os.environ.get(name, default),
            "unknown": lambda node, frame, *words: _refuse(*words),
        }
        for name, action in commands.items():
            self._tcl.createcommand("gc_" + name, self._kept(action))
            self._tcl.call("interp", "alias", "kid", name, "", "gc_" + name)

    def _kept(self, action):
        """Keep a Python error: Tcl would only pass on an empty message."""

        def called(*words):
            node, frame, failures = self._asked[-1]
            try:
                return action(node, frame, *words)
            except Exception as error:
                failures.append(error)
                raise

        return called

    def substituted(self, text, node, frame):
        if "**" in text or "<<" in text:
            raise ValueError(f"'{text[:40]}': powers and shifts are not evaluated here")
        if not self._asked:
            self._tcl.eval("interp limit kid commands -value {}")
            used = int(self._tcl.eval("interp invokehidden kid info cmdcount"))
            most = used + _MOST_COMMANDS
            self._tcl.call("interp", "limit", "kid", "commands", "-value", most)
        failures = []
        self._asked.append((node, frame, failures))
        try:
            asked = ("apply", ("gc_text", "subst -nobackslashes $gc_text"), text)
            found = str(self._tcl.call("interp", "eval", "kid", asked))
        except tkinter.TclError as error:
            raise ValueError(f"'{text}': {failures[0] if failures else error}") from None
        finally:
            self._asked.pop()
        if len(found) > _MOST_CHARACTERS:
            raise ValueError(f"'{text[:40]}…' grows beyond {_MOST_CHARACTERS} characters")
        return found


def _named(node, name):
    return node._look_up(f"{name}.name").node()


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
