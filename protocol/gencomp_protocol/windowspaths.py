# SPDX-License-Identifier: Apache-2.0
"""What Windows does not take as a path, as pure functions, so that every system can be asked.

A result that is made on Linux may be played on Windows: a name that Windows keeps for a device, or
a path that is too long for Nuke there, is better refused where it is chosen. The rules are those of
Microsoft's "Naming Files, Paths, and Namespaces".
"""

import re
from pathlib import PureWindowsPath
from typing import Optional

# A device's name is one whatever its case, and with any suffix: aux.0001.exr is the device.
DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{kind}{digit}" for kind in ("com", "lpt") for digit in "123456789¹²³"]
)
MOST_CHARACTERS = 259  # MAX_PATH, less the zero that ends it.
_ILLEGAL = re.compile(r'[<>:"|?*\x00-\x1f]')


def is_device(name: str) -> bool:
    """Tell whether Windows takes a file's or folder's name for a device.

    Args:
        name: One part of a path, with or without suffix.
    """
    return name.split(".")[0].rstrip(" ").lower() in DEVICES


def why_not(path: str, spare: int = 0) -> Optional[str]:
    """Return why Windows cannot have a path, as the end of a sentence; None where it can.

    Args:
        path: Absolute or relative, with either kind of slash.
        spare: Characters that will come behind it.
    """
    pure = PureWindowsPath(path)
    for part in pure.parts[1:] if pure.anchor else pure.parts:
        if is_device(part):
            return f"its part '{part}' is a device there"
        found = _ILLEGAL.search(part)
        if found is not None:
            return f"its part '{part}' holds {found.group()!r}"
        if part not in (".", "..") and part[-1:] in (" ", "."):
            return f"its part '{part}' ends with {part[-1]!r}"
    length = len(str(pure)) + spare
    if length > MOST_CHARACTERS:
        return f"it has {length} characters, and Nuke takes {MOST_CHARACTERS} there"
    return None
