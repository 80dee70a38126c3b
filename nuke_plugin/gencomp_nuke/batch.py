# SPDX-License-Identifier: Apache-2.0
"""Generating without an interface: ``nuke -t script.py``.

::

    import nuke
    from gencomp_nuke import batch

    nuke.scriptOpen("shot.nk")
    batch.generate(nuke.toNode("Omnimatte1"))
    nuke.scriptSave()
"""

import logging
from typing import Any

from gencomp_nuke import asking, logs, node, prefs
from gencomp_nuke.session import MainThread, Pump, Run, Session

log = logging.getLogger(__name__)


def generate(gizmo: Any) -> None:
    """Generate a node's result and return when the node plays it.

    Blocks the main thread and works there whatever the background thread asks for.

    Raises:
        GencompError: Why there is no result; the node plays what it played before.
    """
    logs.setup()
    settings = prefs.load()
    node.identify(gizmo)
    ask = asking.ask(gizmo)
    run = Run(gizmo, ask, node.cache_folder(gizmo, settings), node.server_address(gizmo))
    pump = Pump()
    session = Session(MainThread(pump.send), settings)
    try:
        session.start(run)
        pump.run_until(lambda: run.is_over)
    except KeyboardInterrupt:
        run.cancel()
        pump.run_until(lambda: run.is_over)
    finally:
        session.close()
    if run.error is not None:
        raise run.error
