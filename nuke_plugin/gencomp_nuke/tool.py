# SPDX-License-Identifier: Apache-2.0
"""gencomp's own command, started from Nuke: ``gencomp assist``, ``gencomp preview``.

It is the command that starts the server, without its word ``serve``, unless the settings name
another; it runs with the environment that Nuke's own Python has changed put right.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence

from gencomp_nuke.prefs import Prefs
from gencomp_protocol.errors import BadKnob, ServerUnreachable

# What Nuke puts into the environment for its own Python would break another one.
_NUKES_OWN = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD")


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
