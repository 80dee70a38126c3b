# SPDX-License-Identifier: Apache-2.0
"""The colours of a script: the name of its working space, and the config that it is a name of."""

import os
from pathlib import Path

import nuke
from gencomp_protocol.errors import BadKnob


def working_space() -> str:
    """Return the name of the script's working space, as Nuke spells it; the server reads that."""
    return _of_root("workingSpaceLUT") or "scene_linear"


def ocio_config() -> str:
    """Return the OpenColorIO config that the working space is a name of; empty for none.

    Nuke takes one from three places: the variable ``OCIO``, the script's own, and those it brings.
    Its own ``nuke-default`` is Linear Rec.709 by another name, as is a script without OpenColorIO.

    Raises:
        BadKnob: The script's config cannot be found, so that nobody knows what its colours are.
    """
    if _of_root("colorManagement") != "OCIO":
        return ""
    named, chosen = os.environ.get("OCIO", ""), _of_root("OCIO_config")
    if named:
        return named if named.startswith("ocio://") else os.path.abspath(named)
    if chosen == "custom":
        path = str(nuke.root()["customOCIOConfigPath"].evaluate() or "")
        if not path:
            raise BadKnob(
                "The script's OCIO config is 'custom', and no file is named.",
                hint="Name it in Project Settings, Color, OCIO config.",
            )
        return path if path.startswith("ocio://") else os.path.abspath(path)
    return "" if chosen in ("", "nuke-default") else _brought_by_nuke(chosen)


def _brought_by_nuke(name: str) -> str:
    """Return the file of a config that comes with Nuke: a folder with one, or one by its name.

    Raises:
        BadKnob: Nuke's folder has no such file.
    """
    folder = Path(nuke.EXE_PATH).parent / "plugins" / "OCIOConfigs" / "configs"
    for file in (folder / name / "config.ocio", folder / f"{name}.ocio"):
        if file.is_file():
            return str(file)
    raise BadKnob(
        f"The script's OCIO config '{name}' is not where Nuke keeps its own ({folder}).",
        hint="Set the OCIO config in the project settings to custom, and name its file.",
    )


def _of_root(knob: str) -> str:
    """Return what a knob of the project settings says; empty where this Nuke has none."""
    root = nuke.root()
    return str(root[knob].value() or "").strip() if knob in root.knobs() else ""
