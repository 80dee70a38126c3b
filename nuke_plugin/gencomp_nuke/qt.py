# SPDX-License-Identifier: Apache-2.0
"""The one door to Qt: PySide6 in Nuke 16 and later, PySide2 before, nothing without an interface.

A Qt that is not the host's own crashes it, so the version of Nuke decides which is tried first.
Nothing of Qt is imported before somebody asks, and nobody else in the room names a binding.
"""

import importlib
import logging
from dataclasses import dataclass
from typing import Any, Optional

import nuke

log = logging.getLogger(__name__)

_FIRST_WITH_SIX = 16


@dataclass(frozen=True)
class Qt:
    """What of Qt this room uses.

    Attributes:
        name: ``PySide6`` or ``PySide2``.
        core: Its ``QtCore``.
        widgets: Its ``QtWidgets``.
    """

    name: str
    core: Any
    widgets: Any


def load() -> "Optional[Qt]":
    """Return this Nuke's Qt; None without an interface, or where neither binding can be loaded."""
    if not nuke.GUI:
        return None
    names = ["PySide2", "PySide6"]
    if int(nuke.NUKE_VERSION_MAJOR) >= _FIRST_WITH_SIX:
        names.reverse()
    for name in names:
        try:
            core = importlib.import_module(f"{name}.QtCore")
            widgets = importlib.import_module(f"{name}.QtWidgets")
        except ImportError as error:
            log.info("%s is not here: %s", name, error)
            continue
        return Qt(name, core, widgets)
    return None
