# SPDX-License-Identifier: Apache-2.0
"""What start-up means in a real Nuke without an interface: ``nuke -t tests/in_nuke/start.py``.

Needs gencomp on the plug-in path (docs/td/install-200.md) and no server. Prints ``ok`` or
``FAILED`` with a sentence per check and ``note`` where Nukes differ and either is fine; ends with 1
where one failed. Please report what fails, and the notes, with the version that is printed first.
"""

import importlib.util
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from check import TESTS, Checks

import nuke

_HEAVY = ("numpy", "torch", "cv2")
_BEFORE = frozenset(name for name in _HEAVY if name in sys.modules)  # The studio's own.
GIZMOS = ("DynVFX", "GenComposite", "Omnimatte", "OverPlusPlus", "SplitThenMerge")
_OLDER = TESTS / "nuke" / "older" / "Omnimatte.gizmo"  # Not in the bundle.
_CALLS = 200


def note(sentence):
    """Say what is so in this Nuke."""
    nuke.tprint(f"note: {sentence}")


def check_packages(checks):
    """Check that what talks to a server loads, and tell whose it is."""
    import msgpack
    import zmq

    for package in (zmq, msgpack):
        note(f"{package.__name__} comes from {Path(package.__file__).parent}")
    context = zmq.Context()
    one, other = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    one.bind("inproc://gencomp")
    other.connect("inproc://gencomp")
    one.send(msgpack.packb({"frame": 1001}))
    checks.equal(msgpack.unpackb(other.recv()), {"frame": 1001}, "a socket of pyzmq works")
    for socket in (one, other):
        socket.close(linger=0)
    context.term()
    ours = [p for p in sys.path if Path(p).name == "vendor"]
    checks.that(not ours or sys.path[-1] == ours[0], "our packages are behind Nuke's own")


def check_light(checks):
    """Check that nothing heavy was brought in, and tell what this Nuke brings itself."""
    from gencomp_nuke import callbacks, session

    checks.that(callbacks is not None and session is not None, "the room loads")
    heavy = [name for name in _HEAVY if name in sys.modules and name not in _BEFORE]
    checks.equal(heavy, [], "neither numpy nor torch was imported by us")
    for name in ("numpy", "zmq", "PySide2", "PySide6"):
        there = importlib.util.find_spec(name) is not None
        note(f"{name} {'can' if there else 'cannot'} be imported in this Nuke")
    qt = [name for name in ("PySide2", "PySide6") if name in sys.modules]
    note(f"without an interface {', '.join(qt) or 'no Qt'} was imported")


def check_gizmos(checks):
    """Check that every gizmo makes a node, quietly."""
    for name in GIZMOS:
        gizmo = nuke.createNode(name, "", False)
        checks.equal(gizmo.Class(), "Group", f"{name} makes a Group")
        checks.that(not gizmo.hasError(), f"{name} has no error before anything is connected")
        nuke.delete(gizmo)


def check_values(checks):
    """Check that knobs give their values as text and take them back."""
    one, other = (nuke.createNode("Blur", "", False) for _ in range(2))
    one["size"].setAnimated()
    one["size"].setValueAt(3, 1001, 0)
    one["size"].setValueAt(9, 1003, 0)
    other["size"].fromScript(one["size"].toScript())
    checks.equal(other["size"].getValueAt(1002, 0), 6.0, "a curve travels as text")
    one["label"].setValue("[value size] of {two} words")
    other["label"].fromScript(one["label"].toScript())
    checks.equal(other["label"].value(), "[value size] of {two} words", "so do brackets")
    for node in (one, other):
        nuke.delete(node)


def check_flags(checks):
    """Check that a knob that cannot be keyed still takes an expression from a script."""
    from gencomp_nuke import animation

    gizmo = nuke.createNode("OverPlusPlus", "", False)
    gizmo["steps"].setExpression("7+2")
    animation.flag(gizmo)
    checks.that(not gizmo["steps"].getFlag(nuke.NO_ANIMATION), "a knob that is driven stays free")
    checks.that(gizmo["guidance"].getFlag(nuke.NO_ANIMATION), "one of the job is flagged")
    gizmo["guidance"].fromScript(gizmo["steps"].toScript())
    checks.equal(gizmo["guidance"].value(), 9.0, "a flagged knob takes a script's expression")
    takes = "takes" if gizmo["unknown_reach"].setAnimated() else "refuses"
    note(f"a knob with NO_ANIMATION {takes} keys from Python")
    nuke.delete(gizmo)


def check_renewing(checks):
    """Check that a node of an older release is renewed with all it has."""
    from gencomp_nuke import migrating

    if not _OLDER.is_file():
        note("nodes of older releases lie beside the tests of the source, not in the bundle")
        return
    plate = nuke.createNode("Constant", "name RenewPlate", False)
    older = nuke.nodePaste(_OLDER.as_posix())
    older.setInput(int(older.node("Plate")["number"].value()), plate)
    older["gc_name1"].setValue("dancer")
    name, identity = older.name(), older["gc_id"].value()
    made = migrating.renew(older)
    checks.equal(made.name(), name, "a renewed node has the older one's name")
    checks.equal(made["gc_id"].value(), identity, "it has its identity")
    checks.equal(made["gc_name1"].value(), "dancer", "it has its values")
    number = int(made.node("Plate")["number"].value())
    checks.that(made.input(number) is not None, "it is connected as the older one was")
    checks.equal(migrating.schema_of(made), migrating.SCHEMA, "its knobs are of this release")
    for node in (made, plate):
        nuke.delete(node)


def tell_costs():
    """Tell what asking a node for its hash costs."""
    node = nuke.createNode("Constant", "", False)
    began = time.perf_counter()
    for _ in range(_CALLS):
        node.opHashes()
    each_ms = (time.perf_counter() - began) / _CALLS * 1000
    note(f"opHashes takes {each_ms:.3f} ms a call")
    nuke.delete(node)


def main():
    """Run the checks; end with 1 where one failed."""
    nuke.tprint(f"Nuke {nuke.NUKE_VERSION_STRING}, Python {sys.version.split()[0]}")
    checks = Checks()
    check_packages(checks)
    check_light(checks)
    check_gizmos(checks)
    check_values(checks)
    check_flags(checks)
    check_renewing(checks)
    tell_costs()
    nuke.tprint(f"{checks.failed} failed")
    if checks.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
