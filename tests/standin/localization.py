# SPDX-License-Identifier: Apache-2.0
"""Localised Reads: a Read reads Nuke's local copy of its file, and its knob names the original.

When a copy is made, and when it is renewed, is Nuke's own affair: a test says which files have one.
"""

import types

MODES = ("on", "manual", "off")


class LocalCopies:
    """The local copies of one application, as ``nuke.localization`` shows them."""

    def __init__(self):
        self.files = {}  # Path of an original: path of its copy.
        self.switched = []  # Every mode that was set.
        self.mode = "on"

    def opened(self, read, path):
        """Return the file that a Read opens where it is to read a path."""
        policy = read._knobs["localizationPolicy"].value()
        return path if "off" in (policy, self.mode) else self.files.get(path, path)

    def set_mode(self, mode):
        if mode not in MODES:
            raise ValueError(f"there is no localisation mode '{mode}'")
        self.mode = mode
        self.switched.append(mode)

    def module(self):
        """Return ``nuke.localization``."""
        made = types.ModuleType("nuke.localization")
        made.mode = lambda: self.mode
        made.setMode = self.set_mode
        made.localizedPaths = lambda: list(self.files)
        return made
