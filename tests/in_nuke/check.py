# SPDX-License-Identifier: Apache-2.0
"""The same checks for a real Nuke: ``nuke -t tests/in_nuke/check.py``.

Needs gencomp on the plug-in path (docs/artist/install-nuke.md), pyzmq and msgpack, and no server:
a fake one answers from EXRs that Nuke itself renders here. Prints ``ok`` or ``FAILED`` with a
sentence per check; ends with 1 where one failed. What the stand-in cannot prove is proven here:
that this Nuke takes every knob, link and expression of the gizmo, and computes what we think.
Please report what fails, with the version of Nuke that is printed first.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nuke

TESTS = Path(__file__).resolve().parent.parent
FRAMES = (1001, 1002, 1003)
_PLAIN = (str, bool, int, float)
FORMAT = "64 48 0 0 64 48 1 gencomp_check"  # Small, so that checking takes seconds.
# plate = a + background * (1 - 0.5), without rounding.
PLATE, BACKGROUND, LAYER = "0.5 0.5 0.5 1", "0.25 0.25 0.25 1", "0.375 0.375 0.375 0.5"


class Checks:
    """Counts what failed, and says so."""

    def __init__(self):
        self.failed = 0

    def that(self, fact, sentence):
        """Note one fact."""
        self.failed += not fact
        nuke.tprint(f"{'ok' if fact else 'FAILED'}: {sentence}")

    def equal(self, found, wanted, sentence):
        """Note that two values are equal."""
        self.that(found == wanted, sentence if found == wanted else f"{sentence} ({found!r})")


def render(folder, name, colour):
    """Let Nuke render a constant colour as a sequence; return a Read of it."""
    knobs = f'color {{{colour}}} channels rgba format "{FORMAT}"'
    constant = nuke.createNode("Constant", knobs, False)
    write = nuke.createNode("Write", "raw true file_type exr create_directories true", False)
    write.setInput(0, constant)
    write["channels"].setValue("rgba")
    write["file"].setValue((folder / name / f"{name}.%04d.exr").as_posix())
    nuke.execute(write, FRAMES[0], FRAMES[-1], 1)
    read = nuke.createNode("Read", "raw true", False)
    read["file"].setValue(write["file"].value())
    read["first"].setValue(FRAMES[0])
    read["last"].setValue(FRAMES[-1])
    nuke.delete(write)
    nuke.delete(constant)
    return read


def sample(node, channel, frame=FRAMES[1]):
    """Return one sample near the lower left corner."""
    return node.sample(channel, 8, 8, 1, 1, frame)


def check_pipes(checks, gizmo):
    """Check that a node shows the pipes that lie in it, and none that it does not say."""
    name = gizmo.name()
    inside = [n.name() for n in gizmo.nodes() if n.Class() == "Input"]
    said = {pipe.split()[0] for pipe in str(gizmo["gc_pipes"].value()).split(";")}
    checks.equal(gizmo.maxInputs(), len(inside), f"{name}: it shows the pipes that lie in it")
    checks.equal(set(inside) - said, set(), f"{name}: it says each of them")


def check_family(checks, gizmo, plate):
    """Check that the next pipe of a family appears as the last is connected."""
    from gencomp_nuke import pipes

    before = gizmo.maxInputs()
    gizmo.setInput(1, plate)
    pipes.follow(gizmo)  # A terminal session may not tell of connections.
    checks.that(gizmo.maxInputs() > before, "the next matte pipe appears")


def check_inverted(checks, gizmo, plate):
    """Check that a matte is inverted over the whole format, also where no box of it reaches."""
    crop = nuke.createNode("Crop", "box {0 0 4 4}", False)
    crop.setInput(0, plate)
    gizmo.setInput(1, crop)
    found = []
    for is_on in (False, True):
        gizmo["gc_invert1"].setValue(is_on)
        found.append(sample(gizmo.node("Matte1_inverted"), "rgba.alpha"))
    checks.equal(found, [0, 1], "a matte is inverted where its picture has no box, too")
    gizmo["gc_invert1"].setValue(False)
    gizmo.setInput(1, plate)
    nuke.delete(crop)


def check_beyond(checks, gizmo, when):
    """Check what the node gives beyond the frames of its result."""
    found = []
    for choice in ("hold", "black"):
        gizmo["gc_outside"].setValue(choice)
        found += [sample(gizmo, "rgba.red", n) for n in (FRAMES[0] - 1, FRAMES[0], FRAMES[-1] + 1)]
    checks.equal(found, [0.25, 0.25, 0.25, 0, 0.25, 0], f"{when}: held or black beyond its frames")
    gizmo["gc_outside"].setValue("hold")


def check_node(checks):
    """Check the gizmo before anything is connected."""
    gizmo = nuke.createNode("Omnimatte", "", False)
    checks.equal(gizmo.Class(), "Group", "the node is a Group")
    check_pipes(checks, gizmo)
    missing = [n for n in str(gizmo["gc_params"].value()).split() if n not in gizmo.knobs()]
    checks.equal(missing, [], "it has every knob that is sent")
    writes = [n for n in gizmo.nodes() if n.Class() == "Write"]
    checks.that(all(w["disable"].value() for w in writes), "its Writes are off")
    reads = [n for n in gizmo.nodes() if n.Class() == "Read"]
    checks.that(all(r["raw"].value() for r in reads), "its Reads are raw")
    checks.equal(gizmo.node("Write_plate")["datatype"].value(), "32 bit float", "it writes float")
    checks.equal(str(gizmo["gc_channel1"].value()), "rgba.alpha", "a link shows the channel")
    checks.that(bool(gizmo["gc_id"].value()), "it has an identity")
    return gizmo


def check_empty(checks, gizmo):
    """Check that nothing generated means the plate, whatever is chosen."""
    wrong = []
    for name in gizmo["gc_output"].values():
        gizmo["gc_output"].setValue(name)
        if sample(gizmo, "rgba.red") != 0.5:
            wrong.append(name)
    checks.equal(wrong, [], f"{gizmo.name()}: before Generate every output is the plate")


def check_others(checks, plate):
    """Check every other gizmo before anything is generated, with a plate on its first pipe."""
    from gencomp_nuke import asking

    for name in ("OverPlusPlus", "GenComposite", "SplitThenMerge", "DynVFX"):
        gizmo = nuke.createNode(name, "", False)
        gizmo.setInput(0, plate)
        sent = str(gizmo["gc_params"].value()).split()
        missing = [knob for knob in sent if knob not in gizmo.knobs()]
        checks.equal(missing, [], f"{name}: it has every knob that is sent")
        read = [knob for knob in sent if isinstance(asking.value_of(gizmo[knob]), _PLAIN)]
        checks.equal(read, sent, f"{name}: each can be read, on several lines too")
        check_pipes(checks, gizmo)
        writes = [n for n in gizmo.nodes() if n.Class() == "Write"]
        checks.that(all(w["disable"].value() for w in writes), f"{name}: its Writes are off")
        check_empty(checks, gizmo)
        nuke.delete(gizmo)


def check_foreground_over_background(checks, plate, layer):
    """Check what passes a node whose plate comes as foreground and background."""
    gizmo = nuke.createNode("OverPlusPlus", "", False)
    gizmo.setInput(1, layer)
    gizmo.setInput(2, plate)
    gizmo["gc_lead"].setValue(1)
    gizmo["gc_output"].setValue("plate")
    # 0.375 over half of 0.5.
    checks.equal(sample(gizmo, "rgba.red"), 0.625, "OverPlusPlus: Fg over Bg passes without Plate")
    nuke.delete(gizmo)


def check_result(checks, gizmo, when):
    """Check what the node plays."""
    for output, value in (("background", 0.25), ("a", 0.375), ("plate", 0.5)):
        gizmo["gc_output"].setValue(output)
        found = [sample(gizmo, "rgba.red", frame) for frame in FRAMES]
        checks.equal(found, [value] * len(FRAMES), f"{when}: output {output}")
    gizmo["gc_output"].setValue("recomposed")
    checks.equal(sample(gizmo, "rgba.green"), 0.5, f"{when}: over of the layers is the plate")
    checks.equal(sample(gizmo, "a.alpha"), 0.5, f"{when}: the layer is in the stream by name")
    checks.equal(sample(gizmo, "background.blue"), 0.25, f"{when}: so is the background")
    gizmo["gc_output"].setValue("background")


def check_shared(checks, gizmo):
    """Check that a node within a LiveGroup, with the identity of another, gets its own."""
    from gencomp_nuke import node

    identity = gizmo["gc_id"].value()
    within = nuke.createNode("LiveGroup", "", False)
    with within:
        inner = nuke.createNode("Omnimatte", "", False)
        inner["gc_id"].setValue(identity)
    checks.that(node.identify(inner) != identity, "a node within a LiveGroup has its own identity")
    nuke.delete(within)


def run(checks, folder):
    """Run every check in a folder of its own."""
    os.environ["GENCOMP_HOME"] = str(folder / "home")
    for name in ("GENCOMP_SERVER", "GENCOMP_SECRET_FILE"):
        os.environ.pop(name, None)
    sys.path.append(str(TESTS))
    from fakes.server import FakeServer
    from gencomp_nuke import batch

    script = folder / "check.nk"
    nuke.scriptSaveAs(script.as_posix(), 1)
    plate = render(folder / "shot", "plate", PLATE)
    render(folder / "layers", "background", BACKGROUND)
    layer = render(folder / "layers", "a", LAYER)
    check_others(checks, plate)
    check_foreground_over_background(checks, plate, layer)
    gizmo = check_node(checks)
    gizmo.setInput(0, plate)
    check_family(checks, gizmo, plate)
    check_inverted(checks, gizmo, plate)
    gizmo["gc_name1"].setValue("a")
    check_empty(checks, gizmo)
    with FakeServer(folder / "layers", folder / "home") as server:
        batch.generate(gizmo)
        names = sorted({name for name, _ in server.jobs["job1"].pictures})
        checks.equal(names, ["matte.a", "plate"], "both inputs were rendered and sent")
    check_result(checks, gizmo, "after Generate")
    check_beyond(checks, gizmo, "after Generate")
    check_shared(checks, gizmo)
    checks.equal(gizmo.format().width(), plate.format().width(), "the format is the plate's")
    nuke.scriptSave("")
    nuke.scriptClear()
    nuke.scriptOpen(script.as_posix())
    again = nuke.toNode(gizmo_name())
    check_result(checks, again, "opened again, server away")
    check_beyond(checks, again, "opened again, server away")


def gizmo_name():
    """Return the name of the one node of ours in the script."""
    return next(n.name() for n in nuke.allNodes() if "gc_system" in n.knobs())


def main():
    """Run the checks; end with 1 where one failed."""
    nuke.tprint(f"Nuke {nuke.NUKE_VERSION_STRING}, Python {sys.version.split()[0]}")
    checks, folder = Checks(), Path(tempfile.mkdtemp(prefix="gencomp_check_"))
    try:
        run(checks, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    nuke.tprint(f"{checks.failed} failed")
    if checks.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
