# SPDX-License-Identifier: Apache-2.0
"""The Nuke room: what runs inside Foundry Nuke.

A gizmo's button calls ``callbacks``; ``node`` reads its knobs into a request; ``export`` renders
what is connected to EXR files; ``runs`` says what one press means, ``session`` works it off in one
background thread (``working``) and finds or starts the server by ``serverstart``; ``pending`` keeps
what a later Nuke can go on with (``resuming``); ``readback`` puts the layers into the node's own
Reads; ``jobs`` keeps results in numbered folders. ``batch`` does the same in a terminal session.
Python 3.9 to 3.13; neither numpy nor torch nor Qt.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
