# SPDX-License-Identifier: Apache-2.0
"""The small shot of the Nuke room's tests: its frames, its boxes, what paints it, and one press.

Four frames of 64×48. Object ``a`` is half transparent, ``b`` is opaque; every value is a multiple
of 1/8, so that over of the layers gives the plate back without rounding.
"""

from standin.pixels import ask_worker

FRAMES = (1001, 1002, 1003, 1004)
WIDTH, HEIGHT = 64, 48
BOX_A, BOX_B = (8, 8, 24, 24), (40, 8, 56, 24)
BRIGHT = (0, 40, 4, 48)


def level(frame):
    """Return the value of the ground at a frame."""
    return (frame - 1000) * 0.125


def paint(path, channels, boxes, *, half=True, size=(WIDTH, HEIGHT)):
    """Write an EXR of boxes ``((x0, y0, x1, y1), colour)``, row 0 at the top."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ask_worker(
        do="paint",
        path=str(path),
        width=size[0],
        height=size[1],
        channels=list(channels),
        values=boxes,
        half=half,
    )


def connect(gizmo, pipe, node):
    """Connect a node to a pipe of a gizmo by the pipe's name."""
    gizmo.setInput(int(gizmo.node(pipe)["number"].value()), node)


def press(app, gizmo):
    """Press Generate on a node and live through it."""
    from gencomp_nuke import callbacks

    gizmo["gc_generate"].execute()
    session = callbacks._session()
    app.process_events(lambda: session.run_of(gizmo["gc_id"].value()) is None)
