# SPDX-License-Identifier: Apache-2.0
"""Masks and placement in a real Nuke: ``nuke -t tests/in_nuke/placement.py``.

Needs gencomp on the plug-in path, and no server. Compares the matrix that is sampled from a
Transform with what Nuke renders through it, and looks at what the buttons find in keys, shapes and
strokes that Nuke itself made. Prints ``ok`` or ``FAILED`` with a sentence per check; ends with 1
where one failed.
"""

import sys

import nuke
from nuke import rotopaint as rp

FRAME, SIZE = 1001, 256
NEAR = 0.02
MOVES = {
    "a move by parts of a pixel": "translate {12 -7.5}",
    "a turn about the centre": "translate {10 20} center {128 96} rotate 30",
    "two sizes": "center {100 100} scale {1.5 0.75}",
    "leaning in both": "center {128 128} skewX 0.25 skewY 0.125",
    "leaning in both, y first": "center {128 128} skewX 0.25 skewY 0.125 skew_order YX",
    "all of it": "translate {5 -3} center {120 90} rotate 15 scale {1.2 0.9} skewX 0.1",
    "inverted": "translate {12 -7} center {128 128} scale 1.25 invert_matrix true",
}
failed = []


def that(fact, sentence):
    """Note one fact."""
    if not fact:
        failed.append(sentence)
    nuke.tprint(f"{'ok' if fact else 'FAILED'}: {sentence}")


def places():
    """Return a picture whose red and green are the place of each pixel."""
    ground = nuke.createNode("Constant", "channels rgba", False)
    box = nuke.createNode("Reformat", 'type "to box" box_fixed true resize none', False)
    box["box_width"].setValue(SIZE)
    box["box_height"].setValue(SIZE)
    box.setInput(0, ground)
    made = nuke.createNode("Expression", "expr0 x expr1 y", False)
    made.setInput(0, box)
    return made


def check_matrices():
    """Check that a Transform shows at each place what its sampled matrix brings there."""
    from gencomp_nuke import pathing

    picture = places()
    for name, knobs in MOVES.items():
        moved = nuke.createNode("Transform", f"filter Keys {knobs}", False)  # It keeps a ramp.
        moved.setInput(0, picture)
        a, b, tx, c, d, ty = pathing.matrix_at(moved, FRAME)
        missed = 0.0
        for x, y in ((128, 128), (100, 140), (150, 110)):
            came = [
                moved.sample(f"rgba.{part}", x + 0.5, y + 0.5) + 0.5 for part in ("red", "green")
            ]
            there = (a * came[0] + b * came[1] + tx, c * came[0] + d * came[1] + ty)
            missed = max(missed, abs(there[0] - x - 0.5), abs(there[1] - y - 0.5))
        that(missed < NEAR, f"the matrix of a Transform: {name} ({missed:.4f} px)")
        nuke.delete(moved)


def drawn(curves, name, *frames):
    """Put a shape with keys at some frames into a Roto."""
    points = [rp.ShapeControlPoint(x, y) for x, y in ((10, 10), (90, 10), (50, 90))]
    shape = rp.Shape(curves, *points)
    shape.name = name
    for frame in frames:
        shape[0].center.addPositionKey(frame, rp.CVec3(frame - 1000, 10, 1))
    curves.rootLayer.append(shape)
    curves.changed()
    return shape


def check_keys():
    """Check what Detect finds, and that the switch reads right on every frame."""
    gizmo = nuke.createNode("OverPlusPlus", "", False)
    roto = nuke.createNode("Roto", "", False)
    for pipe in ("Plate", "EffectMask"):
        gizmo.setInput(int(gizmo.node(pipe)["number"].value()), roto)
    for knob, value in (("gc_range", "custom"), ("gc_first", 1001), ("gc_last", 1020)):
        gizmo[knob].setValue(value)
    first = drawn(roto["curves"], "Moving", 1002, 1010)
    gizmo["gc_detect"].execute()
    that(gizmo["keyframes"].value() == "1002,1010", "the keys of a shape are found")
    on = [n for n in range(1001, 1021) if gizmo["gc_is_key"].getValueAt(n)]
    that(on == [1002, 1010], f"the switch is on at the keyframes alone ({on})")
    drawn(roto["curves"], "Hidden", 1005, 1006).setVisible(1001, False)
    life = first.getAttributes()
    life.set(life.kLifeTimeTypeAttribute, 4)
    life.set(life.kLifeTimeNAttribute, 1005)
    life.set(life.kLifeTimeMAttribute, 1012)
    roto["curves"].changed()
    gizmo["gc_detect"].execute()
    found = gizmo["keyframes"].value()
    that(found == "1010", f"a lifetime bounds the keys, what is hidden has none ({found})")


def main():
    """Run every check and end with 1 where one failed."""
    nuke.tprint(nuke.NUKE_VERSION_STRING)
    check_matrices()
    check_keys()
    nuke.tprint(f"{len(failed)} failed")
    sys.exit(1 if failed else 0)


main()
