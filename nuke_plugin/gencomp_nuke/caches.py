# SPDX-License-Identifier: Apache-2.0
"""Where results lie: the cache folder of a node, and paths as this machine and the farm see them.

A script without a name has no folder to lie beside, so its results go to the user's own. A node
whose cache knob was never changed follows the template in the settings, where there is one.
"""

import getpass
import os
from pathlib import Path, PurePosixPath
from typing import Any

import nuke
from gencomp_nuke.prefs import Prefs
from gencomp_protocol.errors import BadKnob
from gencomp_protocol.locate import home_folder

USUAL = (
    "[file dirname [value root.name]]/gencomp/[file rootname [file tail [value root.name]]]/"
    "[value name]_[value gc_id]"
)
"""What every gizmo's cache knob says before anybody changes it."""

_COPY_PREFIX = ".gencomp_"


def script_name() -> str:
    """Return the path of the open script; empty for one without a name, or a passing copy."""
    name = str(nuke.root().name() or "")
    return "" if name == "Root" or Path(name).name.startswith(_COPY_PREFIX) else name


def passing_copy(folder: Path, label: str) -> Path:
    """Return a name for a copy of the script that nobody is to take for the script."""
    return folder / f"{_COPY_PREFIX}{label}.nk"


def unsaved_folder(prefs: Prefs) -> Path:
    """Return the folder for the results of scripts without a name."""
    return Path(prefs.unsaved_folder or home_folder() / "unsaved")


def cache_folder(node: Any, prefs: Prefs) -> Path:
    """Return the folder for the results of a node. Main thread only.

    Raises:
        BadKnob: The cache knob is empty or relative, or a setting cannot be understood.
    """
    name = str(nuke.root().name() or "")
    if not name or name == "Root":
        return unsaved_folder(prefs) / str(node["gc_id"].value())
    if prefs.cache_template and _plain(str(node["gc_cache"].toScript())) == USUAL:
        text = _from_template(node, prefs.cache_template)
    else:
        text = str(node["gc_cache"].evaluate() or "").strip()
    text = mapped(text, prefs)
    if not text or not os.path.isabs(text):
        raise BadKnob(
            f"The cache folder of {node.name()} is '{text}', which is not a whole path.",
            hint="Start it with / or with [file dirname [value root.name]].",
        )
    return Path(text)


def _plain(text: str) -> str:
    """Return a knob's text without the signs that a script quotes it with."""
    return text.strip().strip('"').replace("\\", "")


def _from_template(node: Any, template: str) -> str:
    """Fill in the template of the settings.

    Raises:
        BadKnob: It names something that is not known, or a variable that is not set.
    """
    script = PurePosixPath(str(nuke.root().name()))
    known = {
        "script_folder": script.parent.as_posix(),
        "script": script.stem,
        "node": str(node.name()),
        "id": str(node["gc_id"].value()),
        "user": getpass.getuser(),
    }
    try:
        text = os.path.expanduser(os.path.expandvars(template.format(**known)))
    except (KeyError, IndexError, ValueError) as error:
        raise BadKnob(
            f"The setting cache_template '{template}' cannot be understood ({error}).",
            hint="It may hold {" + "}, {".join(known) + "} and variables such as $SHOW.",
        ) from error
    if "$" in text:
        raise BadKnob(
            f"The setting cache_template gives '{text}': a variable is not set.",
            hint="Set it in the environment that Nuke is started in.",
        )
    return text


# --- paths of other systems ----------------------------------------------------------------------


def mapped(path: str, prefs: Prefs) -> str:
    """Return a path as this machine has it, by the pairs of the settings; the first that fits.

    Raises:
        BadKnob: The pairs cannot be understood.
    """
    plain = path.replace("\\", "/")
    for there, here in prefs.pairs:
        if _starts(plain.lower(), there.lower()):
            return here + plain[len(there) :]
    return path


def _starts(path: str, start: str) -> bool:
    """Tell whether a path begins with whole folders: ``/mnt/p`` is no beginning of ``/mnt/pub``."""
    if not path.startswith(start):
        return False
    return start.endswith("/") or path[len(start) : len(start) + 1] in ("", "/")


def opened(path: str) -> str:
    """Return the path that Nuke opens where a knob says ``path``: its filename filters applied."""
    return str(nuke.filenameFilter(path) or path)


# --- the farm ------------------------------------------------------------------------------------


def warnings(folder: Path, prefs: Prefs) -> "list[str]":
    """Return a sentence for each reason why others could not play what lies in a folder.

    Args:
        folder: Folder of results.
        prefs: Settings; without ``farm_roots`` the farm is taken to see everything.
    """
    roots = [root.strip() for root in prefs.farm_roots.split(";") if root.strip()]
    plain = folder.as_posix()
    if not roots or any(_is_under(plain, root) for root in roots):
        return []
    return [f"The farm does not see {plain}: it is under none of {', '.join(roots)}."]


def _is_under(path: str, root: str) -> bool:
    start = root.replace("\\", "/").rstrip("/")
    if start.startswith("//") or start[1:2] == ":":  # Windows minds no capitals.
        start, path = start.lower(), path.lower()
    return path == start or path.startswith(start + "/")
