# SPDX-License-Identifier: Apache-2.0
"""Forms that scripts of many hands and years have: what each says, and that it comes back."""

import collections
import time

import pytest

from standin import builder, check, graph, tclscript
from standin.app import App
from standin.tclscript import Reader, ScriptError, decode

# What a file holds: node, knob, and the word of the knob.
FORMS = {
    "Windows line ends": (
        b'Blur {\r\n size 3\r\n label "a\\nb"\r\n name n\r\n}\r\n',
        "label",
        "a\nb",
    ),
    "old Macintosh line ends": (b"Blur {\r size 3\r name n\r}\r", "size", "3"),
    "a byte order mark": (b"\xef\xbb\xbfBlur {\n size 3\n name n\n}\n", "size", "3"),
    "UTF-8": ('NoOp {name n label "日本 “x” 😀"}'.encode(), "label", "日本 “x” 😀"),
    "western bytes": (b'NoOp {name n label "caf\xe9 \x93x\x94 \x81"}', "label", "café “x” \x81"),
    "tabs and one line": (b"NoOp\t{\tname\tn\tlabel\t3\t}", "label", "3"),
    "a body on the next line": (b"NoOp \\\n{\n name n\n label 3\n}\n", "label", "3"),
    "a semicolon between nodes": (b"Dot {name d}; NoOp {name n label 3}", "label", "3"),
    "braces in braces": (b"NoOp {name n label {a{b}c}}", "label", "a{b}c"),
    "quotes in braces": (
        b'NoOp {name n label {say "x" $y [z] \\n}}',
        "label",
        'say "x" $y [z] \\n',
    ),
    "a quote inside a bare word": (b'NoOp {name n label a"b"c}', "label", 'a"b"c'),
    "escapes": (
        rb'NoOp {name n label "50% \$x \[y] \{ \} \\ \t \u00e9 \x41"}',
        "label",
        "50% $x [y] { } \\ \t é A",
    ),
    "a Windows path": (
        rb'NoOp {name n label "\\\\host\\a b\\%04d.exr"}',
        "label",
        r"\\host\a b\%04d.exr",
    ),
    "an escaped space": (rb"NoOp {name n label a\ b}", "label", "a b"),
    "an escaped brace": (rb"NoOp {name n label \{}", "label", "{"),
    "a mark of a comment as a word": (b"NoOp {name n label #1}", "label", "#1"),
    "Python that is not in quotes": (
        b"NoOp {\n name n\n knobChanged {\nif 1:\n    d = {'a': [1]}\n# done\n}\n}\n",
        "knobChanged",
        "\nif 1:\n    d = {'a': [1]}\n# done\n",
    ),
    "a colour in hexadecimal": (b"NoOp {name n tile_color 0x7f7f7fff}", "tile_color", "0x7f7f7fff"),
    "a name with a space": (b'BlinkScript {name n "K_a b" {{parent.x}}}', "K_a b", "{parent.x}"),
    "a kernel": (
        b'BlinkScript {name n kernelSource "kernel K \\{\\n // \\"q\\" \\$x \\[0]\\n\\};\\n"}',
        "kernelSource",
        'kernel K {\n // "q" $x [0]\n};\n',
    ),
    "keys with flags": (
        b"Blur {name n size {{curve i x-3 0 s0 l 1e-05 t0.5 u-1 x9 inf R x1 2 L C K Z}}}",
        "size",
        "{curve i x-3 0 s0 l 1e-05 t0.5 u-1 x9 inf R x1 2 L C K Z}",
    ),
    "an expression with keys after it": (
        b"NoOp {name n disable {{1-parent.mode x1000 1 1}}}",
        "disable",
        "{1-parent.mode x1000 1 1}",
    ),
    "an expression that asks": (
        rb'NoOp {name n rate {{"\[value a.size]" i} 3}}',
        "rate",
        r'{"\[value a.size]" i} 3',
    ),
    "several numbers, some of them curves": (
        b"NoOp {name n color {0.5 {curve x1 2} {a.b} 1}}",
        "color",
        "0.5 {curve x1 2} {a.b} 1",
    ),
    "a matrix over lines": (
        b"NoOp {name n matrix {\n    {1 2 1}\n    {2 {x*2} 2}\n  }}",
        "matrix",
        "\n    {1 2 1}\n    {2 {x*2} 2}\n  ",
    ),
    "a table of tracks": (
        b"Tracker4 {\n tracks { { 1 31 1 } \n{ { 5 1 20 enable e 1 } \n} \n"
        b'{ { {curve K x1 1} "track 1" {} } \n} \n}\n name n\n}\n',
        "tracks",
        ' { 1 31 1 } \n{ { 5 1 20 enable e 1 } \n} \n{ { {curve K x1 1} "track 1" {} } \n} \n',
    ),
    "curves of a Roto": (
        b"Roto {\n curves {{{v x3f99999a}\n  {f 0}\n  {n\n   {layer Root\n    {a}}}}}\n"
        b" name n\n}\n",
        "curves",
        "{{v x3f99999a}\n  {f 0}\n  {n\n   {layer Root\n    {a}}}}",
    ),
    "a colour lookup": (
        b"ColorLookup {name n lut {master {curve C x0 0 1}\n red {}\n}}",
        "lut",
        "master {curve C x0 0 1}\n red {}\n",
    ),
    "channels with signs": (
        b"Grade {name n channels {rgba.red -rgba.green none}}",
        "channels",
        "rgba.red -rgba.green none",
    ),
    "an expression in three braces": (
        b"Copy {name n from0 {{{a.maskChannelInput}}}}",
        "from0",
        "{{a.maskChannelInput}}",
    ),
    "names and values as words": (b"NoOp name n label {a b}", "label", "a b"),
    "a stray mark behind the last line": (b"NoOp {name n label 3}\n=\n\x1a", "label", "3"),
    "a value said twice": (b"Blur {name n size 3 size 4}", "size", "4"),
    "a value said before its knob": (b"NoOp {name n x 3 addUserKnob {7 x}}", "x", "3"),
    "an empty word": (b'NoOp {name n label "" help {}}', "label", ""),
    "a variable in a word": (
        b"set cut_paste_input [stack 0]\nNoOp {name n label $x}",
        "label",
        "$x",
    ),
}
# Lines of addUserKnob: what is written again.
USER_KNOBS = {
    "{20 User}": "{20 User}",
    "{20}": "{20 User}",
    '{20 "" l "" +INVISIBLE n 1}': '{20 "" l "" +INVISIBLE n 1}',
    '{7 "size x" +HIDDEN R 0 100 -STARTLINE t tip +STARTLINE}': (
        '{7 "size x" +HIDDEN R 0 100 -STARTLINE t tip +STARTLINE}'
    ),
    '{4 c M {a "b c" d\\te "" {e f}}}': '{4 c M {a "b c" "d\\te" "" "e f"}}',
    '{4 c M ""}': "{4 c M {}}",
    "{41 k l INVISIBLE +INVISIBLE T a.b}": "{41 k l INVISIBLE +INVISIBLE T a.b}",
    '{22 b\n  t "tip"\n  T "\nif 1:\n  go()\n" +STARTLINE}': (
        '{22 b t tip T "\\nif 1:\\n  go()\\n" +STARTLINE}'
    ),
    '{32 b T "set x \\[value y]\\nknob a \\$x"}': '{32 b T "set x \\[value y\\]\\nknob a \\$x"}',
    "{12 xy -1}": "{12 xy -1}",
    '{ 20 "" User }': '{20 "" l User}',  # Nuke 4 says the label without its letter.
    '{ 19 gain "my gain" R 0 4 }': '{19 gain l "my gain" R 0 4}',
    "{999 later l Later Z 3 +NEW}": "{999 later l Later Z 3 +NEW}",
}
# Scripts and the nodes that they hold: name, class, names of the inputs.
GRAPHS = {
    "a pasted piece": (
        "set cut_paste_input [stack 0]\nversion 12.0 v8\npush $cut_paste_input\nBlur {name b}\n",
        [("b", "Blur", [None])],
    ),
    "pushes of every kind": (
        "Dot {inputs 0 name a}\nset Na1_ [stack 0]\nDot {inputs 0 name b}\nset N2 [stack 1]\n"
        "push ${Na1_}\npush [stack 0]\npush 0\npush $N2\nMerge2 {inputs 3+1 name m}\n",
        [("a", "Dot", []), ("b", "Dot", []), ("m", "Merge2", ["a", None, "a", "a"])],
    ),
    "a mask in two parts": (
        "push 0\npush 0\npush 0\nX {inputs 1+1+1 name x}\n",
        [("x", "X", [None, None, None])],
    ),
    "clones, also inside a group": (
        "Blur {inputs 0 name b}\nset C1 [stack 0]\nGroup {name g}\n clone $C1 {name c}\nend_group\n"
        "clone $C1 {\n}\n",
        [("b", "Blur", []), ("g", "Group", ["b"]), ("b1", "Blur", ["g"])],
    ),
    "a clone of a node with two inputs": (
        "Merge2 {inputs 2 name m}\nset C1 [stack 0]\nclone $C1\nclone $C1 {inputs 2 name n}\n",
        [("m", "Merge2", [None, None]), ("m1", "Merge2", ["m"]), ("n", "Merge2", ["m1", None])],
    ),
    "classes without a body": (
        "Dot\nBlur size 3\nDot;Dot\n",
        [
            ("Dot1", "Dot", [None]),
            ("Blur1", "Blur", ["Dot1"]),
            ("Dot2", "Dot", ["Blur1"]),
            ("Dot3", "Dot", ["Dot2"]),
        ],
    ),
    "a LiveGroup whose nodes are in its file": (
        "LiveGroup {published true file a.nk name l}\nDot {name d}\n"
        "Group {name g}\n LiveGroup {published 1 name k}\n Output {name o}\nend_group\n",
        [("l", "LiveGroup", [None]), ("d", "Dot", ["l"]), ("g", "Group", ["d"])],
    ),
    "a LiveGroup whose nodes are in the script": (
        "LiveGroup {published true name l}\n Output {name o}\nend_group\nDot {name d}\n",
        [("l", "LiveGroup", [None]), ("d", "Dot", ["l"])],
    ),
    "a LiveGroup that is edited": (
        "LiveGroup {published false name l}\n Output {name o}\n",
        [("l", "LiveGroup", [None])],
    ),
    "no end_group": ("Gizmo {name g}\n Dot {name d}\n", [("g", "Gizmo", [None])]),
    "one end_group too many": (
        "Group {name g}\n Dot {name d}\nend_group\nend_group\nDot {name e}\n",
        [("g", "Group", [None]), ("e", "Dot", ["g"])],
    ),
    "two gizmos in one file": (
        "#! nuke -nx\nversion 6.2 v4\nGizmo {inputs 0}\nend_group\n"
        "#! nuke -nx\nversion 6.2 v4\nGizmo {inputs 0}\nend_group\n",
        [("Group1", "Gizmo", []), ("Group2", "Gizmo", [])],
    ),
    "names that are taken": (
        "Dot {name d}\nDot {name d}\n",
        [("d", "Dot", [None]), ("d1", "Dot", ["d"])],
    ),
    "comments with braces": ("# a {\nDot {name d}\n# }\n", [("d", "Dot", [None])]),
    "preferences": ("Preferences {\n inputs 0\n name p\n}\n", [("p", "Preferences", [])]),
}


def loaded(text):
    app = App(strict=False)
    graph.build(app, text, app.root, strict=False)
    return app


class Heard:
    """Takes a script's commands down: every word of every knob, in any order."""

    def __init__(self, text):
        self.said = collections.Counter()
        Reader(self).run(text)

    def node(self, cls, body):
        self.said.update((cls, name, word) for name, word in body if name != "inputs")
        return ""

    def clone(self, words, body):
        return self.node("clone", body)

    def stack(self, depth):
        return "0"

    def push(self, token=None):
        return ""

    end_group = note = push


@pytest.mark.parametrize("form", FORMS)
def test_a_word_is_read_as_it_was_meant_and_comes_back(form, tmp_path):
    data, name, word = FORMS[form]
    assert loaded(decode(data)).to_node("n")[name]._raw == word
    file = tmp_path / "any.nk"
    file.write_bytes(data)
    assert check.check(file) == ""


@pytest.mark.parametrize("line", USER_KNOBS)
def test_a_line_of_a_knob_of_the_user_is_written_again(line):
    written = graph.dump_script(loaded(f"NoOp {{\n name n\n addUserKnob {line}\n}}\n"))
    assert f" addUserKnob {USER_KNOBS[line]}\n" in written
    assert graph.dump_script(loaded(written)) == written


@pytest.mark.parametrize("form", GRAPHS)
def test_a_graph_is_wired_as_it_was_meant_and_comes_back(form):
    text, nodes = GRAPHS[form]
    for app in (loaded(text), loaded(graph.dump_script(loaded(text)))):
        found = app.root.nodes()
        assert [
            (n.name(), n._spelt, [None if i is None else i.name() for i in n._inputs])
            for n in found
        ] == nodes


def test_a_livegroup_whose_nodes_are_in_its_file_is_written_without_an_end():
    app = loaded("LiveGroup {published true name l}\nDot {name d}\n")
    assert "end_group" not in graph.dump_script(app)


def test_a_clone_that_says_its_class_each_time_is_one_of_the_first():
    text = "clone h|Blur|1 Blur {size 3 name b}\nclone h|Blur|1 Blur {xpos 9 name c}\n"
    for app in (loaded(text), loaded(graph.dump_script(loaded(text)))):
        assert app.to_node("c")._clone_of is app.to_node("b")
        assert app.to_node("c")["size"]._raw == "3"


def test_channels_added_to_a_layer_that_is_there_are_kept_and_written():
    text = "add_layer {rgba rgba.beta}\nadd_layer {x x.a}\nadd_layer {x x.a x.b}\nadd_layer {}\n"
    app = loaded(text + "add_layer y y.a y.b\nadd_layer {z {z.a b}}\n")
    assert app.layers["rgba"][-2:] == ("rgba.alpha", "rgba.beta")
    assert (app.layers["x"], app.layers["y"]) == (("x.a", "x.b"), ("y.a", "y.b"))
    assert app.layers["z"] == ("z.a b",)
    assert loaded(graph.dump_script(app)).layers == app.layers


def test_commands_of_older_scripts_are_kept_and_make_no_node():
    head = (
        "version 5.1 v1\n"
        "add_format {2048 1556 0 0 2048 1556 1 2K_Super_35(full-ap)}\n"
        "add_format {10 10 0 0 10 10 1 tiny}\n"
        "add_view {left}\n"
        "knob_default {Blur.size} {3}\n"
        "define_window_layout {{h 0.5 {v}} 1}\n"
    )
    app = loaded(head + "Dot {name d}\n")
    assert [n.name() for n in app.root.nodes()] == ["d"]
    written = graph.dump_script(app)
    assert [line for line in head.splitlines() if line not in written.splitlines()] == [
        "version 5.1 v1"  # It is written in braces.
    ]


def test_curves_and_tables_are_written_in_braces_and_other_words_in_quotes():
    app = loaded(
        'NoOp {name n size {{curve x1 0}} box {0 {a.b}} label "\\{a b\\}\\n" help "\\{\\["}'
    )
    written = graph.dump_script(app)
    assert " size {{curve x1 0}}\n box {0 {a.b}}\n" in written.replace("xpos", "")
    assert ' help "\\{\\["\n' in written
    assert graph.dump_script(loaded(written)) == written


def test_no_word_of_a_script_of_many_forms_is_lost_on_the_way():
    text = "".join(
        decode(FORMS[form][0]).replace("name n", f"name n{place}") + "\n"
        for place, form in enumerate(FORMS)
        if "twice" not in form
    )
    before, after = Heard(text), Heard(graph.dump_script(loaded(text)))
    assert before.said - after.said == collections.Counter()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('Dot "name [exec touch CANARY]"', "'exec' is refused"),
        ("exec", "'exec' is refused"),
        ("exit", "'exit' is refused"),
        ("7", "'7' is refused"),
        ("a/b c d", "'a/b' is refused"),
        ("Dot name a label", "needs one body in braces, not 3 words"),
        ("clone", "clone needs the node to clone"),
        ("clone nobody", "clone of nobody"),
        ("[exec touch CANARY] {name a}", "'exec' is refused"),
        ("set e exec\n$e touch CANARY", "'exec' is refused"),
        ("{*}{exec touch CANARY}", "'exec' is refused"),
        ("::tcl::file::mkdir CANARY", "'::tcl::file::mkdir'"),
        ("file mkdir CANARY", "'file' is refused"),
        ("glob /*", "'glob' is refused"),
        ("set x [string repeat a 1000000000]", "'string' is refused"),
        ("set x [lrepeat 1000000000 a]", "'lrepeat' is refused"),
        ("regexp {^(a+)+$} aaaaaaaaaaaaaaaaab", "'regexp' is refused"),
        ("proc a {} {a}\na", "'proc' is refused"),
        ("coroutine x y", "'coroutine' is refused"),
        ("oo::class create CANARY", "'oo::class'"),
        ("unknown exec {touch CANARY}", "'exec' is refused"),
        ("push $env(HOME)", "no such variable"),
        ("set ::x 3", "is not understood"),
        ("{" * 200_000, "missing close-brace"),
    ],
)
def test_what_is_no_node_is_refused_in_a_sentence_and_nothing_is_touched(script, reason, tmp_path):
    canary = tmp_path / "canary"
    with pytest.raises(ScriptError, match=reason):
        loaded(script.replace("CANARY", canary.as_posix()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["[regexp a b]", "[string repeat a 9999999]", "[expr 7**9999999]"])
def test_a_text_that_would_hold_the_interface_is_not_evaluated(text):
    app = loaded("NoOp {name n}")
    app.to_node("n")["label"].setValue(text)
    with pytest.raises(ValueError, match="not evaluated here"):
        app.to_node("n")["label"].evaluate()


def test_a_text_that_ran_too_long_does_not_keep_the_next_from_being_evaluated():
    app = loaded("NoOp {name n}")
    label = app.to_node("n")["label"]
    label.setValue("[set a 1][string length [set a]]" * 6000)
    with pytest.raises(ValueError, match="limit"):
        label.evaluate()
    label.setValue("[value name] [string length abc] [if {1 < 2} {format %02d 7}]")
    assert label.evaluate() == "n 3 07"
    label.setValue("[set a]")
    with pytest.raises(ValueError, match="no such variable"):
        label.evaluate()  # One text's variables are not the next one's.


def test_a_knob_that_nobody_asked_for_is_made_once_in_its_place():
    app = loaded("Blur {name n size 3}")
    node = app.to_node("n")
    first = list(node.knobs())
    assert node["filter"] is node.knobs()["filter"] is node.knob("filter")
    assert node["filter"].value() == "gaussian"
    assert list(node.knobs()) == first
    assert [k.name() for k in node.allKnobs()] == first
    assert (first[0], "size" in node, node.knob("no")) == ("name", True, None)


@pytest.mark.parametrize(
    ("commands", "wired"),
    [
        ("push a", ["a"]),
        ("push a b", ["b", "a"]),
        ("push $A b", ["b", "a"]),
        ("push a b\nexch", ["a", "b"]),
        ("push a b\npop", ["a", "c"]),
        ("push a b\npop 2", ["c", "b"]),
        ("pop 0", ["c", "b"]),
        ("push a\ndup", ["a", "a"]),
        ("push a b\nindex 1", ["a", "b"]),
        ("index", ["c", "c"]),
        ("pop 99", [None, None]),
        ("pop 3\nexch\ndup", [None, None]),
    ],
)
def test_commands_that_arrange_the_stack_wire_what_comes_after(commands, wired):
    head = "Dot {inputs 0 name a}\nset A [stack 0]\nDot {inputs 0 name b}\nDot {inputs 0 name c}\n"
    app = loaded(f"{head}{commands}\nX {{inputs {len(wired)} name x}}\n")
    found = [None if n is None else n.name() for n in app.to_node("x")._inputs]
    assert found == wired
    assert graph.fingerprint_script(loaded(graph.dump_script(app))) == (
        graph.fingerprint_script(app)
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("push nobody", "push of nobody, which is not there"),
        ("pop two", "'pop two' is not understood"),
        ("knob root.first_frame 7", "'knob' is refused"),
        ("foreach n [nodes] {delete $n}", "'nodes' is refused"),
        ("delete a", "'delete' is refused"),
        ("in a {Dot {}}", "'in' is refused"),
        ("if {[exists a]} {Dot {}}", "'if' is refused"),
        ("puts hello", "'puts' is refused"),
        ("Dot {inputs \u00b2}", "inputs \u00b2 is no number"),
        ("Dot {inputs " + "9" * 5000 + "}", "is no number"),
        ("set x [stack \u00b2]", "'stack \u00b2' is not understood"),
        ("NoOp {addUserKnob {\u00b2 k}}", "has no number and name"),
        ("x" * 1001 + " {}", "is longer than 1000"),
    ],
)
def test_what_does_something_or_fills_the_memory_is_refused_in_a_sentence(script, reason):
    with pytest.raises(ScriptError, match=reason) as caught:
        loaded(script)
    assert len(str(caught.value)) < 200


def test_clones_of_many_knobs_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(builder, "MOST_CLONED", 1000)
    knobs = "".join(f"addUserKnob {{7 k{i}}} " for i in range(90))
    text = f"NoOp {{{knobs}}}\nset C [stack 0]\n" + "clone $C {}\n" * 12
    with pytest.raises(ScriptError, match="more than 1000 knobs in its clones"):
        loaded(text)


def test_a_script_of_layers_or_formats_alone_passes_the_checker(tmp_path):
    file = tmp_path / "any.nk"
    for text in ("add_layer {x x.a}\n", 'add_format "8 8 0 0 8 8 1 f"\n', "version 9.0 v1\n"):
        file.write_text(text, encoding="utf-8")
        assert check.check(file) == ""
    file.write_text("# nothing\n", encoding="utf-8")
    assert check.check(file) == "there is no node in it"


def test_many_notes_and_many_words_of_a_knob_are_read_in_a_time_that_grows_as_they_do(monkeypatch):
    monkeypatch.setattr(tclscript, "MOST_SECONDS", 8)
    formats = "".join(f"add_format {{{i} 1 0 0 {i} 1 1 f{i}}}\n" for i in range(40_000))
    assert len(loaded(formats).notes) == 40_000
    began = time.monotonic()
    app = loaded("NoOp {name n addUserKnob {7 k " + "+X " * 400_000 + "}}\n")
    assert app.to_node("n")["k"]._user.flags == ["+X"] * 400_000
    assert time.monotonic() - began < 8


def test_a_part_that_was_cut_out_of_a_script_has_no_input_where_what_it_pushed_stayed_behind():
    app = loaded("set C12ab34cd0 [stack 0]\npush $N39acf30\nBlur {name a}\npush $C12ab34cd0\n")
    assert app.root.node("a").input(0) is None
    with pytest.raises(ScriptError, match="no such variable"):
        loaded("push $Nothing\n")
