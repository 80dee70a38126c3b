# SPDX-License-Identifier: Apache-2.0
"""Whose a job is, and what for: the account, the show and the shot, as far as a machine knows."""

import getpass
import os
import socket
from collections.abc import Mapping

SHOW_VARIABLE = "GENCOMP_SHOW"
SHOT_VARIABLE = "GENCOMP_SHOT"
_MOST = 128  # Characters that a name may have on the wire.


def account_here() -> str:
    """Return ``user@host``; a server counts by it where no key names the client."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unnamed"
    return _plain(f"{user}@{socket.gethostname()}")


def show_and_shot(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return the show and the shot that the environment names; each may be empty.

    Args:
        environ: Where ``GENCOMP_SHOW`` and ``GENCOMP_SHOT`` are looked up.
    """
    return _plain(environ.get(SHOW_VARIABLE, "")), _plain(environ.get(SHOT_VARIABLE, ""))


def _plain(text: str) -> str:
    return "".join(one for one in text if one.isprintable())[:_MOST]
