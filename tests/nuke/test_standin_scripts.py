# SPDX-License-Identifier: Apache-2.0
"""Other people's scripts in the stand-in: what is well formed comes back, the rest has a reason."""

import os
import signal
from pathlib import Path

import pytest

from standin import check, graph, making
from standin.app import App
from standin.tclscript import ScriptError

ROOT = Path(__file__).resolve().parent.parent.parent


def loaded(text):
    app = App(strict=False)
    graph.build(app, text, app.root, strict=False)
    return app


def as_told(group):
    """Return a group's nodes in the words of ``making``."""
    return [
        making.Made(
            node.name(),
            node._spelt,
            [None if n is None else n.name() for n in node._inputs],
            {k._name: k._raw for k in node._knobs.values() if k._given and k._name != "name"},
            [(k._user.code, k._name) for k in node._knobs.values() if k._user is not None],
            as_told(node),
        )
        for node in group._children
    ]


@pytest.mark.parametrize("seed", range(16))
def test_a_rich_script_means_what_it_was_made_to_mean_and_comes_back(seed, tmp_path):
    text, made = making.rich(seed)
    app = loaded(text)
    assert as_told(app.root) == made
    again = loaded(graph.dump_script(app))
    assert graph.fingerprint_script(again) == graph.fingerprint_script(app)


@pytest.mark.parametrize("seed", range(24))
def test_a_hostile_script_is_refused_and_touches_nothing(seed, tmp_path):
    canary = tmp_path / "canary"
    with pytest.raises(ScriptError, match=r"\w"):  # Each ends with a command that is no node.
        loaded(making.hostile(seed, canary.as_posix()))
    assert not canary.exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("[" * 5000, "brackets inside each other"),
        ("$a(" * 5000, "variables with an index"),
        ("set a 0123456789\n" + "set a $a$a\n" * 9, "the variable a is longer than"),
        ("Group {}\n" * 200, "groups inside each other"),
        ("Dot {inputs 99999999}", "more than 10000 inputs"),
        ("Dot {inputs -1}", "inputs -1 is no number"),
        ("Dot {" + "addUserKnob {7 x} " * 600 + "}", "knobs have the name of another"),
        ("clone nobody {name x}", "clone of nobody"),
        ("push $nobody", "no such variable"),
        ("set env(PATH) x", "is not understood"),
        ("Dot {name a\0}", "holds a zero byte"),
        ("Dot {name a}}", "extra characters after close-brace"),
        ("python {print 1}", "the command 'python' is refused"),
        ("::exec ls", "the command '::exec' is refused"),
    ],
)
def test_what_would_fill_memory_or_stack_is_refused(script, reason):
    with pytest.raises(ScriptError, match=reason):
        loaded(script)


def test_classes_and_knobs_of_other_peoples_tools_are_kept():
    app = loaded("bm_Glow {size 3 name a}\n3DE.gizmo {x y name b}\nBlur {zzz qzd name c}\n")
    assert [n.Class() for n in app.root.nodes()] == ["bm_Glow", "3DE.gizmo", "Blur"]
    assert app.to_node("c")["zzz"].toScript() == "qzd"


def test_a_mask_input_is_written_as_one():
    app = loaded("push 0\npush 0\nMerge2 {inputs 2+1 name m}\n")
    assert " inputs 2+1\n" in graph.dump_script(app)


def test_layout_version_layers_root_and_clones_are_written_again():
    app = loaded(making.rich(3)[0] + "Root {\n first_frame 7\n addUserKnob {3 port}\n port 9\n}\n")
    text = graph.dump_script(app)
    assert "define_window_layout_xml {<?xml" in text
    assert "add_layer {crypto crypto.red" in text
    assert " first_frame 7\n" in text
    assert " addUserKnob {3 port}\n port 9\n" in text


def test_two_user_knobs_of_one_name_are_both_written_again():
    text = 'NoOp {name n\n addUserKnob {26 "" +STARTLINE}\n addUserKnob {26 "" T two}\n}\n'
    written = graph.dump_script(loaded(text))
    assert written.count('addUserKnob {26 ""') == 2


def test_the_checker_survives_what_kills_its_reader(tmp_path, monkeypatch, capsys):
    path = tmp_path / "any.nk"
    path.write_text("Dot {name a}\n", encoding="utf-8")
    monkeypatch.setattr(check, "check", lambda path: os.kill(os.getpid(), signal.SIGKILL))
    assert check.main([str(path)]) == 1
    assert capsys.readouterr().out == "any.nk: stops the reader: too deep or too much\n"


def test_the_checker_names_a_file_that_is_not_there(tmp_path, capsys):
    assert check.main([str(tmp_path / "no.nk")]) == 1
    assert capsys.readouterr().out == "no.nk: cannot be read: No such file or directory\n"


def test_a_gizmo_of_ours_passes_the_checker():
    assert check.check(ROOT / "gizmos" / "OverPlusPlus.gizmo") == ""
