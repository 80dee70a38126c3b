# SPDX-License-Identifier: Apache-2.0
"""Texts of knobs when they are asked for: frame numbers in paths, views, ``[value …]`` in Tcl."""

import os
import posixpath
import re
import tkinter

_FRAME = re.compile(r"%(0?\d*)d|(#+)")
_MOST_COMMANDS = 10_000
_MOST_CHARACTERS = 100_000


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
    tcl = tkinter.Tcl()
    tcl.eval("interp create -safe kid")
    for name in ("while", "for", "proc", "after", "vwait", "interp", "rename", "time", "foreach"):
        tcl.call("interp", "hide", "kid", name)
    failure = []

    def kept(action):
        def called(*words):
            try:
                return action(*words)
            except Exception as error:
                failure.append(error)
                raise

        return called

    commands = {
        "value": lambda name, *_: node._text_of(name),
        "knob": lambda name, *_: node._raw_of(name),
        "exists": lambda name, *_: node._exists(name),
        "frame": lambda *_: str(int(frame)),
        "node": lambda name="this", *_: node._look_up(f"{name}.name").node().fullName(),
        "class": lambda name="this", *_: node._look_up(f"{name}.name").node().Class(),
        "file": _file,
        "getenv": lambda name, default="": os.environ.get(name, default),
        "unknown": _refuse,
    }
    for name, action in commands.items():
        tcl.createcommand("gc_" + name, kept(action))
        tcl.call("interp", "alias", "kid", name, "", "gc_" + name)
    tcl.call("interp", "limit", "kid", "commands", "-value", _MOST_COMMANDS)
    try:
        tcl.call("interp", "eval", "kid", ["set", "gc_text", text])
        found = tcl.call("interp", "eval", "kid", "subst -nobackslashes $gc_text")
    except tkinter.TclError as error:
        raise ValueError(f"'{text}': {failure[0] if failure else error}") from None
    finally:
        for name in commands:
            tcl.tk.deletecommand("gc_" + name)
    if len(str(found)) > _MOST_CHARACTERS:
        raise ValueError(f"'{text[:40]}…' grows beyond {_MOST_CHARACTERS} characters")
    return str(found)


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
