# SPDX-License-Identifier: Apache-2.0
"""What Python sees of the stand-in: knobs and keys, callbacks, scripts, questions, the watchdog."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import standin
from standin import graph, nukemath, tracking

TERMINAL = Path(__file__).resolve().parent.parent / "standin" / "terminal.py"


@pytest.fixture
def nuke():
    standin.install(gui=True)
    import nuke

    return nuke


def test_keys_of_a_point_are_set_read_and_spelt_as_scripts_do(nuke):
    node = nuke.createNode("NoOp")
    node.addKnob(nuke.XY_Knob("point", "Point"))
    knob = node["point"]
    knob.setAnimated()
    knob.setValueAt([10, 20], 5)
    knob.setValueAt(30, 9, 0)
    assert knob.toScript() == "{curve x1 0 x5 10 x9 30} {curve x1 0 x5 20}"
    assert knob.getKeyList() == [1, 5, 9]
    assert knob.valueAt(7) == [20, 20]
    knob.removeKeyAt(5)
    found = knob.animation(0).keys()
    assert [point.x for point in found] == [1, 9]
    knob.clearAnimated()
    assert not knob.isAnimated()


def test_an_animated_switch_holds_from_key_to_key(nuke):
    node = nuke.createNode("NoOp")
    node.addKnob(nuke.Boolean_Knob("on"))
    knob = node["on"]
    knob.setAnimated()
    knob.setValueAt(1, 10)
    knob.setValueAt(0, 12)
    assert knob.toScript() == "{curve K x1 0 x10 1 x12 0}"
    assert [knob.getValueAt(frame) for frame in (9, 10, 11, 12)] == [False, True, True, False]
    assert isinstance(knob, nuke.Boolean_Knob)


def test_knobs_made_in_python_are_saved_and_come_back(nuke, tmp_path):
    node = nuke.createNode("NoOp", "name Made")
    node.addKnob(nuke.Tab_Knob("tab", "Tab"))
    node.addKnob(nuke.Enumeration_Knob("which", "Which", ["a b", "c"]))
    hidden = nuke.Int_Knob("number")
    hidden.setFlag(nuke.INVISIBLE)
    hidden.setValue(7)
    node.addKnob(hidden)
    node["which"].setValue("c")
    nuke.scriptSaveAs(str(tmp_path / "a.nk"))
    nuke.scriptOpen(str(tmp_path / "a.nk"))
    again = nuke.toNode("Made")
    assert (again["which"].values(), again["which"].value()) == (["a b", "c"], "c")
    assert (again["number"].value(), again["number"].visible()) == (7, False)


def test_a_tracker_gives_its_tracks_in_31_columns(nuke):
    node = nuke.createNode("Tracker4")
    tracks = {"hand": {1: (10, 20), 11: (20, 40)}, "head": {1: (1, 2)}}
    node["tracks"].fromScript(tracking.spell_tracks(tracks))
    knob = node["tracks"]
    assert int(knob.toScript().split(" ")[3]) == 2
    assert [knob.getValueAt(6, column) for column in (2, 3, 33, 34)] == [15, 30, 1, 2]
    assert knob.getKeyList() == [1, 11]


def test_the_matrix_of_a_transform_turns_about_its_center(nuke):
    node = nuke.createNode("Transform", "translate {5 0} rotate 90 scale 2 center {10 10}")
    moved = nukemath.of_knobs(node, 1).transform(nuke.math.Vector2(11, 10))
    assert [moved.x, moved.y] == pytest.approx([15, 12])


def test_rotos_shapes_have_key_times_and_survive_the_script(nuke, tmp_path):
    curves = nuke.createNode("RotoPaint", "name R")["curves"]
    rotopaint = nuke.rotopaint
    layer = rotopaint.Layer(curves, name="Left")
    shape = rotopaint.Shape(curves, (0, 0), (1, 0), name="Hand")
    shape[0].center.addPositionKey(1001, (0, 0))
    shape[0].center.addPositionKey(1010, (5, 0))
    shape.locked = True
    shape.getAttributes().set(1004, "vis", 0)
    layer.append(shape)
    curves.rootLayer.append(layer)
    curves.changed()
    nuke.scriptSaveAs(str(tmp_path / "roto.nk"))
    nuke.scriptOpen(str(tmp_path / "roto.nk"))
    again = nuke.toNode("R")["curves"].toElement("Left/Hand")
    assert again[0].center.getControlPointKeyTimes() == [1001, 1010]
    assert again[1].center.getControlPointKeyTimes() == []
    assert (again.locked, again.getVisible(1005)) == (True, False)


def test_callbacks_come_in_nukes_order_and_are_removed_again(nuke):
    said = []
    node = nuke.createNode("NoOp", "addUserKnob {3 n} knobChanged nuke.said.append('own')")
    nuke.said = said
    for word, cls in (("any", "*"), ("class", "NoOp"), ("other", "Dot")):
        nuke.addKnobChanged(said.append, args=(word,), nodeClass=cls)
    node["n"].setValue(1)
    assert said == ["own", "class", "any"]
    nuke.removeKnobChanged(said.append, args=("any",))
    node["n"].setValue(2)
    assert said[3:] == ["own", "class"]


def test_connections_panels_saving_and_labels_call_back(nuke, tmp_path):
    said = []
    nuke.addOnScriptSave(lambda: said.append("save"))
    nuke.addOnScriptLoad(lambda: said.append("load"))
    nuke.addKnobChanged(lambda: said.append(nuke.thisKnob().name()), nodeClass="Blur")
    nuke.addAutolabel(lambda: f"({nuke.thisNode().name()})", nodeClass="Blur")
    blur, dot = nuke.createNode("Blur"), nuke.createNode("Dot")
    blur.setInput(0, dot)
    blur.showControlPanel()
    nuke.scriptSaveAs(str(tmp_path / "a.nk"))
    nuke.scriptOpen(str(tmp_path / "a.nk"))
    assert said == ["inputChange", "showPanel", "save", "load"]
    assert standin.App.current.hooks.label(nuke.toNode("Blur1")) == "(Blur1)"


def test_an_exception_before_rendering_stops_it(nuke, tmp_path):
    write = nuke.createNode("Write", "raw true file /nowhere/x.%04d.exr")

    def refuse():
        raise RuntimeError("the cache is missing")

    nuke.addBeforeRender(refuse, nodeClass="Write")
    with pytest.raises(RuntimeError, match="the cache is missing"):
        nuke.execute(write, 1, 2)
    assert standin.App.current.rendered == []


def test_file_names_pass_the_filters(nuke):
    nuke.addFilenameFilter(lambda name: name.replace("/mac/", "/linux/"))
    nuke.addFilenameFilter(lambda name: None)
    assert nuke.filenameFilter("/mac/a.exr") == "/linux/a.exr"
    assert nuke.callbacks.filenameFilter("/mac/a.exr") == "/linux/a.exr"


def test_inputs_made_in_a_group_get_the_next_number_and_its_pipes(nuke):
    group = nuke.createNode("Group")
    with group:
        numbers = [nuke.createNode("Input")["number"].value() for _ in range(3)]
    assert numbers == [0, 1, 2]
    assert group.maxInputs() == 3
    nuke.delete(group.node("Input3"))
    assert group.maxInputs() == 2


def test_dependencies_are_pipes_and_expressions(nuke):
    dot, noop = nuke.createNode("Dot"), nuke.createNode("NoOp", "addUserKnob {7 gain} gain 2")
    blur = nuke.createNode("Blur")
    blur.setInput(0, dot)
    blur["size"].setExpression("NoOp1.gain*2")
    assert blur.dependencies(nuke.INPUTS) == [dot]
    assert blur.dependencies(nuke.EXPRESSIONS) == [noop]
    assert noop.dependent() == [blur]
    assert blur["size"].value() == [4, 4]


def test_hashes_follow_what_is_upstream_and_not_where_nodes_lie(nuke):
    dot, blur = nuke.createNode("Constant"), nuke.createNode("Blur")
    blur.setInput(0, dot)
    first = blur.opHashes()
    blur.setXYpos(7, 7)
    assert blur.opHashes() == first
    dot["color"].setValue([1, 0, 0, 1])
    assert blur.opHashes() != first


def test_copies_are_pasted_under_names_of_their_own(nuke, tmp_path):
    nuke.createNode("Dot", "name A selected true")
    nuke.nodeCopy(str(tmp_path / "clip.nk"))
    assert nuke.nodePaste(str(tmp_path / "clip.nk")).name() == "A1"


def test_what_the_artist_answers_comes_from_the_test(nuke):
    app = standin.App.current
    app.answers = [True, "shadow"]
    assert (nuke.ask("Sure?"), nuke.getInput("Prompt"), nuke.ask("And now?")) == (
        True,
        "shadow",
        False,
    )
    assert app.asked == ["Sure?", "Prompt", "And now?"]
    nuke.message("Done.")
    assert app.messages == ["Done."]


def test_without_an_interface_nobody_can_be_asked():
    standin.install(gui=False)
    import nuke

    for ask in (nuke.ask, nuke.message, nuke.getInput, nuke.menu):
        with pytest.raises(RuntimeError, match="there is no interface"):
            ask("x")


def test_views_are_the_scripts_and_paths_carry_them(nuke):
    nuke.addView("right")
    read = nuke.createNode("Read", "file /a/%V/x.%04d.exr")
    context = nuke.OutputContext()
    context.setFrame(7)
    context.setView("right")
    assert nuke.views() == ["main", "right"]
    assert read["file"].evaluate(context) == "/a/right/x.0007.exr"


def test_the_watchdog_names_the_longest_hold_of_the_main_thread(nuke):
    app = standin.App.current
    node = nuke.createNode("NoOp")
    node.addKnob(nuke.PyScript_Knob("quick", "Quick", "pass"))
    node.addKnob(nuke.PyScript_Knob("slow", "Slow", "import time; time.sleep(0.08)"))
    with app.watch() as watch:
        node["quick"].execute()
        node["slow"].execute()
    assert watch.longest().what == "NoOp1.slow"
    assert [call.what for call in watch.over(0.05)] == ["NoOp1.slow"]


def test_the_watchdog_leaves_the_visible_rendering_out(nuke, monkeypatch):
    app = standin.App.current
    monkeypatch.setattr(app.pixels, "write", lambda *_: time.sleep(0.1))
    nuke.createNode("Write", "name W file /x.exr raw true")
    with app.watch() as watch:
        nuke.executeInMainThread(nuke.execute, args=("W", 1, 1))
        app.idle()
    assert [call.what for call in watch.calls] == ["Rendering.execute"]
    assert watch.over(0.05) == []


def test_waiting_for_a_result_on_the_main_thread_is_found_out(nuke):
    with pytest.raises(AssertionError, match="hangs Nuke"):
        nuke.executeInMainThreadWithResult(len, args=("x",))


def test_another_thread_that_touches_a_knob_is_found_out(nuke):
    node, said = nuke.createNode("NoOp"), []

    def touch():
        try:
            node["label"].setValue("x")
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=touch)
    thread.start()
    thread.join()
    assert said == ["'__getitem__' was touched outside Nuke's main thread"]


def run(tmp_path, *words, **more):
    return subprocess.run(
        [sys.executable, str(TERMINAL), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "NUKE_PATH": str(tmp_path), **more},
        check=False,
    )


def test_a_terminal_script_gets_its_arguments_and_gives_its_exit_code(tmp_path):
    script = tmp_path / "a.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nsys.exit(3)\n", encoding="utf-8")
    ended = run(tmp_path, "-t", script, "x", "--frames=1-3", "1-10x2")
    assert (ended.stdout, ended.returncode) == ("['x', '--frames=1-3']\n", 3)


def test_rendering_fails_with_one_where_a_callback_or_a_name_says_no(tmp_path):
    (tmp_path / "init.py").write_text(
        "import nuke\ndef no():\n    raise RuntimeError('no cache')\n"
        "nuke.addBeforeRender(no, nodeClass='Write')\n",
        encoding="utf-8",
    )
    script = tmp_path / "a.nk"
    script.write_text("Write {inputs 0 name W file x.exr raw true}\n", encoding="utf-8")
    stopped = run(tmp_path, "-x", "-F", "1-2", "-X", "W", script)
    assert (stopped.returncode, "no cache" in stopped.stderr) == (1, True)


def test_a_background_nuke_is_a_process_of_its_own(nuke, tmp_path):
    app = standin.App.current
    graph.load(app, "Write {inputs 0 name W disable true file x.exr raw true}", app.root)
    number = nuke.executeBackgroundNuke(
        nuke.EXE_PATH, [nuke.toNode("W")], nuke.FrameRanges("1-2"), ["main"], {}
    )
    said = app.background[number - 1].communicate()[0]
    assert (said, app.background[0].returncode) == ("0 Writes rendered\n", 0)
