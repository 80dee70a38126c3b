# SPDX-License-Identifier: Apache-2.0
"""Start-up of the Nuke room in a session with an interface: logging and the toolbar.

A failure here prints one paragraph and never stops Nuke. Nothing that could be broken (ZeroMQ,
the server, the configuration) is imported or asked for before an artist presses a button.
"""

import logging
from pathlib import Path

import nuke
from gencomp_nuke import logs, menus

log = logging.getLogger(__name__)


def start(root: Path) -> None:
    """Set up logging and build the toolbar from the gizmos under ``root``.

    Args:
        root: Folder of the installation; holds ``gizmos/``.
    """
    try:
        logs.setup()
        made = menus.build(root / "gizmos")
        log.info("gencomp is in the toolbar: %s", ", ".join(made))
    except Exception as error:  # The edge of the room: whatever it is, Nuke has to start.
        nuke.tprint(
            f"gencomp could not build its menus ({type(error).__name__}: {error}). "
            "Nuke is not affected; nodes that are in scripts keep playing their results. "
            "Check the installation under " + str(root) + "."
        )
