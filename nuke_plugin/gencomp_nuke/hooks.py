# SPDX-License-Identifier: Apache-2.0
"""What Nuke calls of ours by itself: a script loaded or saved, a knob turned, a path to be opened.

Set up with the first node of ours that comes to be, once for a session, so that a Nuke without one
is as it was.
"""

import functools
import logging

import nuke
from gencomp_nuke import caches, keying, moving, prefs, stale
from gencomp_protocol.errors import BadKnob

log = logging.getLogger(__name__)


@functools.cache
def install() -> None:
    """Set them up; calling it again changes nothing."""
    _map_paths()
    if nuke.GUI:
        watch = stale.Watch()
        nuke.addKnobChanged(watch.knob_changed)
        if hasattr(nuke, "addAfterUserSetGsvValue"):  # Nuke 17.
            nuke.addAfterUserSetGsvValue(watch.variable_set)
        nuke.addUpdateUI(keying.at_playhead, nodeClass="Group")
        nuke.addOnScriptLoad(stale.loaded)
        nuke.addOnScriptSave(moving.saved)


def _map_paths() -> None:
    """Let every node of this Nuke open paths of other systems where this one has them."""
    try:
        settings = prefs.load()
        if settings.path_map:
            caches.mapped("", settings)  # So that pairs without sense are told now.
            nuke.addFilenameFilter(lambda path: caches.mapped(path, settings))
    except BadKnob as error:
        log.warning("paths are not mapped: %s", error)
