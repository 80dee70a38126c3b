# SPDX-License-Identifier: Apache-2.0
"""Proxy, local copies, Precomps and variables in a real Nuke: ``nuke -t tests/in_nuke/scopes.py``.

Needs gencomp on the plug-in path, and no server. What documentation says of these, and our stand-in
takes for granted, is looked at here. Graph scope variables are looked at from Nuke 16 on. Prints
``ok`` or ``FAILED`` with a sentence per check; ends with 1 where one failed.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import nuke

sys.path.append(str(Path(__file__).resolve().parent))

from check import FRAMES, Checks, render

FIRST, LAST = FRAMES[0], FRAMES[-1]


def played(folder):
    """Return a node that plays a result which this Nuke rendered, over a plate of 0.5."""
    from gencomp_nuke import playing

    plate = render(folder / "shot", "plate", "0.5 0.5 0.5 1")
    version = folder / "gencomp" / "v001"
    nuke.delete(render(version, "result", "0.25 0.25 0.25 1"))
    (version / "manifest.json").write_text(
        '{"layers": {"result": {"frames": [1001, 1002, 1003]}}}', encoding="utf-8"
    )
    gizmo = nuke.createNode("DynVFX", "", False)
    gizmo.setInput(0, plate)
    playing.play(gizmo, playing.Result(version, (FIRST, LAST), ("result",), {}, ()))
    return gizmo


def red(node):
    """Return one sample near the lower left corner, inside a proxy too."""
    return node.sample("rgba.red", 8, 8, 1, 1, FIRST)


def check_proxy(checks, gizmo):
    """Check that a picture and its format are smaller in proxy, and what is asked for is not."""
    from gencomp_nuke import asking, madefrom

    root = nuke.root()
    moved = nuke.createNode("Transform", "translate {16 8}", False)
    moved.setInput(0, gizmo.input(0))
    key = madefrom.key_of(gizmo)
    gizmo["gc_key"].setValue(key)
    root["proxy_type"].setValue("scale")
    root["proxy_scale"].setValue(0.5)
    root["proxy"].setValue(True)
    size = gizmo.format().width(), gizmo.format().height()
    checks.equal(size, (32, 24), "in proxy a node has the proxy's format")
    checks.equal(red(gizmo), 0.25, "in proxy it plays its result")
    there = [moved.sample("rgba.alpha", x, 12, 1, 1, FIRST) > 0.5 for x in (4, 12)]
    checks.equal(there, [False, True], "in proxy a Transform moves by its share")
    checks.equal(moved["translate"].value(), [16, 8], "a knob of pixels has full-size numbers")
    size = asking.ask(gizmo).request.inputs[0].format
    checks.equal((size.width, size.height), (64, 48), "a job is asked for at full size")
    checks.that(bool(root["proxy"].value()), "proxy is on again")
    checks.equal(madefrom.changed(gizmo), "", "proxy makes no result out of date")
    root["proxy"].setValue(False)
    gizmo["gc_key"].setValue("")
    nuke.delete(moved)


def check_local_copies(checks, gizmo):
    """Check the names by which local copies are switched off and on."""
    from gencomp_nuke import node

    read = gizmo.input(0)
    checks.that("off" in read["localizationPolicy"].values(), "a Read's policy can be off")
    mode = str(nuke.localization.mode())
    checks.that(mode in ("on", "off", "manual"), f"localisation has a mode ({mode})")
    list(nuke.localization.localizedPaths())
    with node.originals():
        pass
    checks.equal(str(nuke.localization.mode()), mode, "it is as it was after a rendering")
    nuke.localization.setMode("off")
    checks.equal(str(nuke.localization.mode()), "off", "it can be switched off")
    nuke.localization.setMode(mode)


def check_precomp(checks, gizmo, folder):
    """Check a node that lies in a Precomp: it plays, is found, and is not generated there."""
    from gencomp_nuke import node, upstream
    from gencomp_protocol.errors import BadKnob

    out = nuke.createNode("Output", "", False)
    out.setInput(0, gizmo)
    nuke.scriptSaveAs((folder / "pre.nk").as_posix(), 1)
    nuke.scriptClear()
    nuke.scriptSaveAs((folder / "main.nk").as_posix(), 1)
    precomp = nuke.createNode("Precomp", f"file {{{(folder / 'pre.nk').as_posix()}}}", False)
    inside = [n for n in precomp.nodes() if node.is_ours(n)]
    checks.equal(len(inside), 1, "a Precomp holds the node of its script")
    checks.equal(red(precomp), 0.25, "which plays its result")
    checks.equal(len(upstream.ours_above([precomp])), 1, "a render asks that node")
    checks.that(not precomp["reading"].value(), "a Precomp says whether it reads a file")
    try:
        node.check_kept(inside[0])
        checks.that(False, "a node in a Precomp is not generated there")
    except BadKnob as error:
        checks.that("pre.nk" in str(error), "a node in a Precomp is not generated there")
    outer = nuke.createNode("DynVFX", "", False)
    outer["gc_id"].setValue(inside[0]["gc_id"].value())
    node.identify(outer)
    ids = outer["gc_id"].value(), inside[0]["gc_id"].value()
    checks.that(ids[0] != ids[1], "a copy outside has an identity of its own")
    nuke.delete(outer)
    nuke.scriptSave("")
    text = (folder / "main.nk").read_text(encoding="utf-8")
    checks.that("gc_system" not in text, "the script does not keep the Precomp's nodes")
    nuke.delete(precomp)


def check_live_group(checks):
    """Check how a LiveGroup says whether it is published."""
    from gencomp_nuke import node

    group = nuke.createNode("LiveGroup", "", False)
    with group:
        inner = nuke.createNode("DynVFX", "", False)
    checks.that(not group["published"].value(), "a new LiveGroup is not published, and says so")
    node.check_kept(inner)
    nuke.delete(group)


def check_variables(checks, folder):
    """Check paths that name a graph scope variable, on the root and in a group of variables."""
    from gencomp_nuke import asis, madefrom, node

    if nuke.root().knob("gsv") is None:
        nuke.tprint("This Nuke has no graph scope variables.")
        return
    for shot, value in (("sh010", 0.25), ("sh020", 0.75)):
        nuke.delete(render(folder / shot, "plate", f"{value} {value} {value} 1"))
    nuke.root()["gsv"].setGsvValue("__default__.shot", "sh010")
    read = nuke.createNode("Read", f"raw true first {FIRST} last {LAST}", False)
    read["file"].setValue(f"{folder.as_posix()}/%{{shot}}/plate/plate.%04d.exr")
    gizmo = nuke.createNode("DynVFX", "", False)
    gizmo.setInput(0, read)
    keys, found, files = [], [], []
    for shot in ("sh010", "sh020"):
        nuke.root()["gsv"].setGsvValue("__default__.shot", shot)
        keys.append(madefrom.key_of(gizmo))
        found.append(red(read))
        files.append(asis.path_at(read["file"], FIRST, "main").parts[-3])
    checks.equal(found, [0.25, 0.75], "a Read follows a variable")
    checks.equal(files, ["sh010", "sh020"], "a path that is sent has it filled in")
    checks.that(keys[0] != keys[1], "a result of one shot is out of date for another")
    group = nuke.createNode("VariableGroup", "", False)
    with group:
        inner = nuke.createNode("Read", f"raw true first {FIRST} last {LAST}", False)
        inner["file"].fromScript(read["file"].toScript())
        ours = nuke.createNode("DynVFX", "", False)
    group["gsv"].setGsvValue("__default__.shot", "sh010")
    checks.equal((red(inner), red(read)), (0.25, 0.75), "a group's own variable counts inside it")
    ours["gc_id"].setValue(gizmo["gc_id"].value())
    node.identify(ours)
    ids = ours["gc_id"].value(), gizmo["gc_id"].value()
    checks.that(ids[0] != ids[1], "a node in a VariableGroup has an identity of its own")


def main():
    """Run the checks; end with 1 where one failed."""
    nuke.tprint(f"Nuke {nuke.NUKE_VERSION_STRING}, Python {sys.version.split()[0]}")
    checks, folder = Checks(), Path(tempfile.mkdtemp(prefix="gencomp_scopes_"))
    try:
        nuke.scriptSaveAs((folder / "main.nk").as_posix(), 1)
        gizmo = played(folder)
        check_proxy(checks, gizmo)
        check_local_copies(checks, gizmo)
        check_precomp(checks, gizmo, folder)
        check_live_group(checks)
        check_variables(checks, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    nuke.tprint(f"{checks.failed} failed")
    if checks.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
