# SPDX-License-Identifier: Apache-2.0
"""Pictures that gencomp's own command draws for a node: made in a thread, shown in its panel."""

import contextlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import node, prefs, tool
from gencomp_protocol.errors import GencompError, InternalError
from gencomp_protocol.locate import home_folder

log = logging.getLogger(__name__)

FOLDER = "pictures"
_PANEL_PX = 640
_drawing: "set[str]" = set()


def draw(gizmo: Any, name: str, words: "Sequence[str]") -> None:
    """Let ``gencomp WORDS -o FILE`` draw a picture, and show it in the node's panel.

    Args:
        gizmo: A node with the text knob ``gc_NAME_picture``.
        name: What it is: ``sheet``.
        words: The command's words.

    Raises:
        GencompError: Without an interface: why there is no picture.
    """
    settings, identity = prefs.load(), node.identify(gizmo)
    picture = home_folder() / FOLDER / f"{identity}_{name}.png"
    if identity in _drawing:
        return
    picture.parent.mkdir(parents=True, exist_ok=True)
    whole = [*words, "-o", str(picture)]
    if not nuke.GUI:
        tool.said(tool.start(settings, whole), "The picture")
        _show(gizmo, name, picture)
        return
    _drawing.add(identity)
    node.tell(gizmo, "Drawing.")

    def work() -> None:
        failure: Optional[GencompError] = None
        try:
            tool.said(tool.start(settings, whole), "The picture")
        except GencompError as error:
            failure = error
        except Exception as error:  # The edge of the thread: it ends as a sentence on the node.
            log.exception("drawing failed")
            failure = InternalError(f"gencomp failed ({type(error).__name__}: {error}).")
        nuke.executeInMainThread(_end, (gizmo, identity, name, picture, failure))

    threading.Thread(target=work, name="gencomp drawing", daemon=True).start()


def _end(
    gizmo: Any, identity: str, name: str, picture: Path, failure: Optional[GencompError]
) -> None:
    """Show the picture, or say why there is none. Main thread."""
    _drawing.discard(identity)
    with contextlib.suppress(ValueError):  # The node was deleted meanwhile.
        if failure is not None:
            node.tell(gizmo, str(failure))
        else:
            _show(gizmo, name, picture)


def _show(gizmo: Any, name: str, picture: Path) -> None:
    with node.quietly():
        text = (
            f'<a href="{picture.as_uri()}"><img src="{picture.as_posix()}" width="{_PANEL_PX}"></a>'
        )
        gizmo[f"gc_{name}_picture"].setValue(text)
    node.tell(gizmo, f"Drew {picture}.")
