# SPDX-License-Identifier: Apache-2.0
"""Programs that Nuke starts: gencomp's own command, and whatever shows files on this machine.

The command is the one that starts the server, without its word ``serve``, unless the settings name
another. All run with the environment that Nuke's own Python has changed put right.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Union

from gencomp_nuke.prefs import Prefs
from gencomp_protocol.errors import BadKnob, ServerUnreachable, ToolFailed

# What Nuke puts into the environment for its own Python would break another one.
_NUKES_OWN = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD")
_DRAWING_S = 300.0


def environment(environ: "Mapping[str, str]" = os.environ) -> "dict[str, str]":
    """Return the environment for a program that is not Nuke's."""
    return {name: value for name, value in environ.items() if name not in _NUKES_OWN}


def command(prefs: Prefs) -> "tuple[str, ...]":
    """Return the words that start ``gencomp``.

    Raises:
        BadKnob: The settings name a server's command from which it cannot be read.
    """
    if prefs.gencomp_command:
        return prefs.words(prefs.gencomp_command)
    words = prefs.command
    if "serve" in words:
        return words[: words.index("serve")]
    raise BadKnob(
        f"How gencomp is started here is not known: '{prefs.server_command}' has no word 'serve'.",
        hint="Name the command in GENCOMP_COMMAND, such as /opt/gencomp/.venv/bin/gencomp.",
    )


def start(
    prefs: Prefs, words: "Sequence[str]", environ: "Mapping[str, str]" = os.environ
) -> "subprocess.Popen[str]":
    """Start ``gencomp WORDS`` with pipes for what it reads, writes and complains of.

    Raises:
        BadKnob, ServerUnreachable: How it is started is not known, or it cannot be.
    """
    whole = [*command(prefs), *words]
    try:
        return subprocess.Popen(
            whole,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(environ),
            text=True,
            encoding="utf-8",
            errors="replace",
            close_fds=True,
        )
    except OSError as error:
        raise ServerUnreachable(
            f"'{whole[0]}' cannot be started ({error.strerror}).",
            hint="Name the command in GENCOMP_COMMAND, such as /opt/gencomp/.venv/bin/gencomp.",
        ) from error


def said(running: "subprocess.Popen[str]", what: str) -> str:
    """Wait for a command that draws and return what it printed. Any thread but the main one.

    Args:
        running: The command.
        what: What it draws, as a sentence begins: ``The picture``.

    Raises:
        ToolFailed: It did not draw it; says what it said.
    """
    try:
        printed, complained = running.communicate(timeout=_DRAWING_S)
    except subprocess.TimeoutExpired as error:
        running.kill()
        running.communicate()
        raise ToolFailed(
            f"{what} took more than {_DRAWING_S:g} seconds to draw.", hint="Try a shorter range."
        ) from error
    if running.returncode != 0:
        last = (complained.strip() or printed.strip() or "it gave no reason").splitlines()[-1]
        raise ToolFailed(f"{what} cannot be drawn: {last}")
    return printed


def open_outside(path: "Union[Path, str]") -> None:
    """Let the machine show a file, a folder or a ``file:`` address with what it has for it.

    Raises:
        ToolFailed: It has none.
    """
    try:
        if sys.platform == "win32":
            os.startfile(str(path))
            return
        opener = "open" if sys.platform == "darwin" else "xdg-open"
        subprocess.Popen([opener, str(path)], env=environment())
    except OSError as error:
        raise ToolFailed(
            f"This machine does not show {path} ({error.strerror}).", hint="Open it by hand."
        ) from error
