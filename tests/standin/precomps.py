# SPDX-License-Identifier: Apache-2.0
"""Precomps: nodes that lie in a script of their own and are loaded from it, never saved with ours.

What a Precomp gives is its Output, or else its Write; where it reads, the file of that Write.
"""

from pathlib import Path

from standin.builder import Builder
from standin.tclscript import Reader, decode
from standin.texts import expand_frame


class _Inside(Builder):
    """Makes the nodes of another script; its root is not ours."""

    def node(self, cls, body):
        return "" if cls == "Root" else super().node(cls, body)


def fill(app, precomp):
    """Load the nodes of a Precomp from its script, in place of those it has."""
    for node in precomp._children:
        node._alive = False
    precomp._children.clear()
    precomp._names.clear()
    precomp._counts.clear()
    path = Path(precomp._knobs["file"]._text())
    if not path.is_file():
        return
    inside = _Inside(app, precomp, strict=False)
    was, app.loading = app.loading, True
    try:
        Reader(inside).run(decode(path.read_bytes()))
    finally:
        app.loading = was
    for node in inside.made:
        app.created(node)


def step(planner, precomp, frame):
    """Return the step that gives a Precomp's picture.

    Raises:
        RuntimeError: It has neither an Output nor a Write.
    """
    ends = {cls: [n for n in precomp._children if n._cls == cls] for cls in ("Output", "Write")}
    if precomp._knobs["reading"].value() and ends["Write"]:
        path = expand_frame(ends["Write"][0]._knobs["file"]._text(frame), frame, planner.view)
        return planner.add("read", path=path, raw=True, black=False)
    for node in (*ends["Output"], *ends["Write"]):
        return planner.plan(node, frame)
    raise RuntimeError(f"{precomp.fullName()} has no Output")
