# SPDX-License-Identifier: Apache-2.0
"""Start-up of the Nuke room in a session with an interface: logging, menus, the Jobs panel.

Each step fails by itself: it prints one paragraph and the next one is taken, and Nuke starts.
What could be broken (ZeroMQ, the server, the configuration) is not asked for before an artist
presses a button; what is wrong with it stands in the Jobs panel then. It is imported in a thread of
its own, so that the first node of a session does not hold Nuke up while a network disk is read.
"""

import importlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import nuke
from gencomp_nuke import logs, menus

log = logging.getLogger(__name__)

_SOON_NEEDED = (
    *("session", "hooks", "stale", "versions", "takes", "presetting"),
    *("checking", "baking", "exploding"),
)


def start(root: Path) -> None:
    """Set up logging, the toolbar of the gizmos under ``root``, the menu and the panel.

    Args:
        root: Folder of the installation; holds ``gizmos/``.
    """
    _step("could not start its log", logs.setup, root)
    _step("could not build its menus", lambda: _menus(root), root)
    _step("has no Jobs panel", _panel, root)
    _step("does not tell of older nodes", _older_nodes, root)
    _step("gives new nodes no defaults of a studio", _new_nodes, root)
    threading.Thread(target=_warm_up, name="gencomp warm-up", daemon=True).start()


def _step(what: str, act: "Callable[[], None]", root: Path) -> None:
    """Do one thing; whatever happens, Nuke and the next step go on."""
    try:
        act()
    except Exception as error:  # The edge of the room: whatever it is, Nuke has to start.
        nuke.tprint(
            f"gencomp {what} ({type(error).__name__}: {error}). "
            "Nuke is not affected; nodes that are in scripts keep playing their results. "
            f"Check the installation under {root}."
        )


def _menus(root: Path) -> None:
    made = menus.build(root / "gizmos")
    menus.build_bar()
    log.info("gencomp is in the toolbar: %s", ", ".join(made))


def _panel() -> None:
    importlib.import_module("gencomp_nuke.jobsview").register()


def _older_nodes() -> None:
    nuke.addOnScriptLoad(importlib.import_module("gencomp_nuke.migrating").tell)


def _new_nodes() -> None:
    created = importlib.import_module("gencomp_nuke.callbacks").user_created
    nuke.addOnUserCreate(created, nodeClass="Group")


def _warm_up() -> None:
    """Import what the first node and the first press need; what fails is told when it is needed."""
    for name in _SOON_NEEDED:
        try:
            importlib.import_module(f"gencomp_nuke.{name}")
        except Exception as error:  # A package built for another Python may raise anything.
            log.info("%s is not imported: %s", name, error)
            return
