# SPDX-License-Identifier: Apache-2.0
"""The stand-in itself: what it reads, what it refuses, what it computes. See tests/standin."""

import subprocess
import sys
from pathlib import Path

import pytest

import standin
from standin import check, expression, graph
from standin.tclscript import ScriptError, UserKnob

ROOT = Path(__file__).resolve().parent.parent.parent

ROUND_TRIPS = {
    "stack": "Dot {inputs 0 name A}\nset N [stack 0]\nDot {name B}\npush $N\n"
    "Merge2 {inputs 2 name M}\n",
    "nothing": "push 0\nDot {inputs 0 name A}\npush 0\nMerge2 {inputs 2 name M}\n",
    "mask input": "Dot {inputs 0 name A}\npush 0\npush 0\nMerge2 {inputs 2+1 name M}\n",
    "nested": "Group {inputs 0 name G\n addUserKnob {20 User}\n addUserKnob {7 mix R 0 1}\n"
    " mix 0.5\n}\n Input {inputs 0 name In}\n Group {name H}\n  Input {inputs 0 name In}\n"
    "  Output {name O}\n end_group\n Output {name O}\nend_group\n",
    "group before others": "Dot {inputs 0 name A}\nset A [stack 0]\nGroup {inputs 0 name G}\n"
    " Input {inputs 0 name In}\n Output {name O}\nend_group\npush $A\nDot {name B}\n",
    "clone": "clone node1|Switch|7 Switch {inputs 0 name S which 1}\nset C1 [stack 0]\n"
    "clone $C1 {inputs 0 xpos 7}\n",
    "spaces in a knob's name": 'BlinkScript {inputs 0 name K "Pos_deep threshold" {{parent.x}}}\n',
    "text": 'Dot {inputs 0 name D label "ä “x” \\[value name] \\{ \\$a \\"q\\" \\\\ \\n line"}\n',
    "curve": "Switch {inputs 0 name S which {{curve i x1001 0 x1020 1}}}\n",
    "layers": "add_layer {boy boy.red boy.green boy.blue boy.alpha}\nDot {inputs 0 name D}\n",
    "window layout": 'define_window_layout_xml {<?xml version="1.0"?>\n<layout/>\n}\nRoot {\n'
    " inputs 0\n first_frame 7\n}\nDot {inputs 0 name D}\n",
    "gizmo without its end": "#! nuke\nversion 15.1 v5\nGizmo {\n name G\n}\n Input {inputs 0}\n",
    "options over lines": 'NoOp {inputs 0 name N\n addUserKnob {4 q l Quality\n t "a\nb" M {Draft '
    "{Very fine}} +STARTLINE}\n q Draft\n}\n",
    "every tab form": "NoOp {inputs 0 name N\n addUserKnob {20 g l Group n 1}\n"
    " addUserKnob {22 b l Go -STARTLINE T {print(1)}}\n addUserKnob {20 endGroup n -1}\n}\n",
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_script_written_and_read_again_is_the_same_graph(name, tmp_path):
    path = tmp_path / "script.nk"
    path.write_text(ROUND_TRIPS[name], encoding="utf-8")
    assert check.check(path) == ""


def test_every_knob_code_is_read_and_written():
    codes = [*range(1, 23), *range(24, 55), 57, 61, 63, 64, 68, 72, 78, 80, 81, 83, 84, 85, 86]
    for code in codes:
        assert UserKnob(UserKnob(f"{code} k l Label").spell()).code == code


def test_the_top_of_the_stack_is_input_zero():
    app = standin.install()
    graph.load(app, ROUND_TRIPS["stack"], app.root)
    merge = app.to_node("M")
    assert [merge.input(0).name(), merge.input(1).name()] == ["A", "B"]


@pytest.mark.parametrize(
    "script",
    [
        "exec touch /tmp/gencomp-was-here",
        "open /etc/passwd",
        "source /etc/passwd",
        "socket localhost 80",
        "set x [exec ls]",
        "Dot {inputs 0 name [exec ls]}\nset x [open a w]",
        "interp create x",
        "rename set put",
        "proc p {} {}",
        "after 10 {set x 1}",
        "vwait forever",
        "load libc.so",
        "eval {exec ls}",
        "namespace eval x {exec ls}",
    ],
)
def test_what_is_no_node_is_refused(script):
    app = standin.install()
    with pytest.raises(ScriptError):
        graph.load(app, script, app.root)


@pytest.mark.parametrize(
    "script", ["while 1 {}", "for {} 1 {} {}", "set x 1\nwhile {$x} {set x 1}"]
)
def test_loops_end_as_an_error(script):
    app = standin.install()
    with pytest.raises(ScriptError):
        graph.load(app, script, app.root)


def test_a_script_of_too_many_commands_is_stopped(monkeypatch):
    monkeypatch.setattr("standin.tclscript.MOST_COMMANDS", 50)
    app = standin.install()
    with pytest.raises(ScriptError, match="command count limit"):
        graph.load(app, "set x 1\n" * 100, app.root)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("Dot {name}", "has a knob without a value"),
        ("Dot {name A", "missing close-brace"),
        ("Dot name d label", "needs one body"),
        ("Copy {inputs 0 fromm0 a}", "Copy has no knob called fromm0"),
        ("NoOp {addUserKnob {x k}}", "has no number and name"),
        ("NoOp {addUserKnob {3 k oops}}", "what is 'oops'"),
        ("NoOp {addUserKnob {3 k}\naddUserKnob {3 k}}", "two knobs called k"),
    ],
)
def test_a_broken_script_is_refused_with_its_reason(script, reason):
    app = standin.install()
    with pytest.raises(ScriptError, match=reason):
        graph.load(app, script, app.root)


def test_a_link_without_a_target_is_found():
    app = standin.install()
    with pytest.raises(ValueError, match="links to Blur1"):
        graph.load(app, "Group {inputs 0 addUserKnob {41 s T Blur1.size}}\nend_group", app.root)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7.0),
        ("(1+2)*3", 9.0),
        ("!on||!off", 1.0),
        ("!on", 0.0),
        ("choice==2?10:20", 10.0),
        ("-choice+1", -1.0),
        ("min(3, 2, 5)", 2.0),
        ("frame-1000", 5.0),
        ("curve x1001 0 x1011 1", 0.4),
        ("1<2&&2<=2&&3!=4", 1.0),
    ],
)
def test_an_expression_has_its_value(text, value):
    names = {"on": 1.0, "off": 0.0, "choice": 2.0}
    assert expression.evaluate(text, names.__getitem__, 1005) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1+", "fit(1)", "a b", "1 ? 2", "$x"])
def test_an_expression_that_is_not_understood_is_an_error(text):
    with pytest.raises(ValueError, match=r"^'"):
        expression.evaluate(text, lambda name: 0.0, 1)


def test_text_is_evaluated_through_the_graph():
    app = standin.install()
    script = (
        "Group {inputs 0 name G addUserKnob {2 cache} cache {/a/[value name]/b.nk}}\n"
        " Read {inputs 0 name R file {[file dirname [value parent.cache]]/x.%04d.exr}}\n"
        "end_group\n"
    )
    graph.load(app, script, app.root)
    assert app.to_node("G.R")["file"].evaluate(7) == "/a/G/x.0007.exr"


@pytest.mark.parametrize(
    "word", ["{{parent.mix*2}}", '{{"parent.mix * 2"}}', "{{parent.mix*2 i}}", "6", "{{curve 6}}"]
)
def test_a_number_is_read_in_every_spelling_of_a_script(word):
    app = standin.install()
    script = (
        "Group {inputs 0 name G addUserKnob {7 mix} mix 3}\n"
        f" Switch {{inputs 0 name S which {word}}}\nend_group\n"
    )
    graph.load(app, script, app.root)
    assert app.to_node("G.S")["which"].value() == 6.0


def test_python_in_a_path_is_refused():
    app = standin.install()
    graph.load(app, "Read {inputs 0 name R file {[python {1}]/x.exr}}", app.root)
    with pytest.raises(ValueError, match="is not evaluated here"):
        app.to_node("R")["file"].evaluate(1)


def test_a_write_that_is_disabled_cannot_be_executed():
    app = standin.install()
    graph.load(app, "Constant {inputs 0}\nWrite {name W disable true}", app.root)
    with pytest.raises(RuntimeError, match="is disabled"):
        app.execute(app.to_node("W"), 1, 1)


def test_the_checker_names_each_file_and_its_reason(tmp_path):
    good, bad = tmp_path / "good.nk", tmp_path / "bad.nk"
    good.write_text("Dot {inputs 0 name A}\n", encoding="utf-8")
    bad.write_text("exec ls\n", encoding="utf-8")
    program = [sys.executable, str(ROOT / "tests/standin/check.py"), str(good), str(bad)]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.stdout == "good.nk: ok\nbad.nk: the command 'exec' is refused\n"
    assert ended.returncode == 1


def test_the_stand_in_says_what_it_cannot_prove():
    assert "What it cannot prove" in standin.__doc__
