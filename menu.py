# SPDX-License-Identifier: Apache-2.0
"""Nuke start-up, with an interface: one guarded call that builds menus and panel."""

from pathlib import Path

import nuke

try:
    from gencomp_nuke import boot
except Exception as error:  # Whatever is broken, Nuke has to start.
    nuke.tprint(
        f"gencomp is not in the menus: {error}. Nuke is not affected. "
        "The folder of gencomp has to be on the plug-in path with its init.py."
    )
else:
    boot.start(Path(__file__).resolve().parent)
