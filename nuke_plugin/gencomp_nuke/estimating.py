# SPDX-License-Identifier: Apache-2.0
"""The button Estimate: what Generate would cost, asked of the server before anything is rendered.

It has a thread and a link of its own, so that it answers while a job of this session runs.
"""

import logging
import threading
import time
from typing import Any

import nuke
from gencomp_nuke import costing, prefs, runs, working
from gencomp_nuke.mainthread import MainThread
from gencomp_nuke.prefs import Prefs
from gencomp_nuke.runs import Run
from gencomp_protocol import Client
from gencomp_protocol.errors import GencompError

log = logging.getLogger(__name__)

_DEVICE_S = 60.0
_POLL_S = 0.2


def estimate(gizmo: Any) -> None:
    """Ask the server what a node's job costs and show it; with an interface, without waiting.

    Raises:
        MissingInput, BadName, BadKnob: The node cannot be asked for anything yet.
    """
    settings = prefs.load()
    run = runs.prepare(gizmo, settings)
    costing.show(gizmo, "Asking the server.")
    if not nuke.GUI:
        costing.show(gizmo, asked(run, settings))
        return
    main = MainThread(nuke.executeInMainThread)

    def work() -> None:
        text = asked(run, settings)
        main.post(lambda: costing.show(gizmo, text))

    threading.Thread(target=work, name="gencomp estimate", daemon=True).start()


def asked(run: Run, settings: Prefs) -> str:
    """Return what the server says of a run, or why it says nothing; touches no node."""
    try:
        server = working.server_for(run, settings, say=lambda _: None)
        with working.client_for(run, server) as client:
            _connect_ready(client)
            plans = [client.check(part.request, anyway=True) for part in run.parts]
            said = costing.spell(plans) or "The server does not say what it costs."
            return " ".join((said, *run.ask.notes))
    except GencompError as error:
        return f"No estimate: {error}"
    except Exception as error:  # The edge of the room: a bug of ours must reach the node.
        log.exception("estimate failed")
        return f"No estimate: gencomp failed ({type(error).__name__}: {error})."


def _connect_ready(client: Client) -> None:
    """Make the link and wait until the server knows its device, without which it plans blindly."""
    deadline = time.monotonic() + _DEVICE_S
    while client.connect().worker == "starting" and time.monotonic() < deadline:
        time.sleep(_POLL_S)
