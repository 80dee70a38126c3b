# SPDX-License-Identifier: Apache-2.0
"""The tool that writes a first gizmo from what a system declares."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from gencomp_nuke import asking, node

if sys.version_info < (3, 10):
    pytest.skip("the server room needs Python 3.10", allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "tools"))

import new_gizmo  # noqa: E402
from gizmo_lines import Example, quoted  # noqa: E402
from gizmo_source import Panel  # noqa: E402

from gencomp_protocol.layers import LayerSpec  # noqa: E402
from gencomp_server.contract import Input, OneOf, Plan, System, knob  # noqa: E402
from gencomp_server.finishing import FinishParams  # noqa: E402

GIZMOS = ("DynVFX", "GenComposite", "Omnimatte", "OverPlusPlus", "SplitThenMerge")
HARD = 'say "no" to [exec ls], {braces}, $dollars and \\slashes'


@dataclass(frozen=True)
class Params(FinishParams):
    words: str = knob(HARD, doc=HARD)
    share: float = knob(0.25, lo=0.0, hi=1.0, doc="A share.")
    count: int = knob(3, lo=1, hi=9, doc="How many.", tab="Placement")
    way: str = knob("the one", choices=("the one", "other"), doc="Which way.")


def toy(**more):
    values = {
        "name": "toy",
        "title": "Toy",
        "doc": "Turns a plate into toys.",
        "inputs": (
            Input("plate", "rgb", "The plate."),
            Input("fg.*", "rgba", "Toys.", optional=True, most=8, own_frames=True),
            Input("fg", "rgba", "A toy.", optional=True, own_frames=True),
            Input("fg_matte.*", "matte", "Its matte.", optional=True, most=8, own_frames=True),
            Input("depth", "data", "How far.", optional=True),
        ),
        "params": Params,
        "layers": lambda request: (
            LayerSpec("result"),
            LayerSpec("effect_matte", ("A",)),
            LayerSpec("origin", ("origin.plate",)),
            *(LayerSpec(f"toy_{name}") for name in request.named("fg.")),
        ),
        "plan": lambda request, machine: Plan(),
        "run": lambda shot, params, ctx: iter(()),
    }
    return System(**{**values, **more})


@pytest.fixture
def gizmo(app):
    import nuke

    panel = Panel(toy(), "Toy", 2, "After nobody.", "words=plate")
    app.paste(new_gizmo.gizmo(panel, Example(new_gizmo.LIKE)))
    return nuke.toNode("Toy1")


def test_inputs_become_pipes_and_a_family_as_many_as_are_asked_for(gizmo):
    assert [n.name() for n in gizmo.nodes() if n.Class() == "Input"] == [
        *("Plate", "Fg1", "FgMatte1", "Depth"),
    ]
    assert gizmo["gc_pipes"].value() == (
        "Plate plate rgb lead; Fg1 fg.* rgba own bare; FgMatte1 fg_matte.* matte like=Fg1; "
        "Depth depth data; Fg2 fg.* rgba own bare; FgMatte2 fg_matte.* matte like=Fg2"
    )
    assert gizmo.node("Depth_channel")["from0"].value() == "depth.Z"


def test_knobs_of_every_kind_come_through_tcl_unchanged(gizmo):
    assert gizmo["words"].value() == HARD
    assert gizmo["words"]._user.options["t"].startswith(HARD)
    assert (gizmo["share"].value(), gizmo["count"].value()) == (0.25, 3)
    assert gizmo["way"].values() == ["the one", "other"]
    assert gizmo["count"]._user.options["t"] == "How many. 1 to 9."


def test_layers_become_reads_a_menu_and_a_stream(gizmo):
    assert gizmo["gc_layers"].value() == "result effect_matte toy_*"
    assert gizmo["gc_output"].values() == ["plate", "result", "effect_matte", "toy_1", "toy_2"]
    assert gizmo.node("Read_toy_2")["file"].toScript().startswith("[value parent.gc_folder]")
    assert gizmo.node("Matte_effect_matte").Class() == "Copy"


def test_a_tab_of_its_own_stands_between_main_and_the_shared_ones(gizmo):
    users = [k._user for k in gizmo.allKnobs() if k._user and k._user.code == 20]
    tabs = [user.options["l"] for user in users if "n" not in user.options]
    assert tabs[:2] == ["Main", "Placement"]
    assert tabs[2:] == ["Layers", "Takes", "Cache & Server", "Advanced", "About"]


def test_a_knob_that_all_have_keeps_the_tooltip_written_by_hand(gizmo):
    import nuke

    like = nuke.createNode("Omnimatte")
    for name in ("seed", "exposure", "grain", "attention"):
        assert gizmo[name]._user.spell() == like[name]._user.spell()
    assert gizmo["backbone"].tooltip() == like["backbone"].tooltip()
    assert set(like["backbone"].values()) < set(gizmo["backbone"].values())


def test_the_node_asks_for_what_is_connected(gizmo, read):
    gizmo["words"].setValue("")
    gizmo.setInput(0, read("plate/plate.%04d.exr"))
    gizmo.setInput(1, read("layers/a/a.%04d.exr", 1002, 1003))
    asked = asking.ask(gizmo)
    assert [(i.name, len(i.frames)) for i in asked.request.inputs] == [("plate", 4), ("fg", 2)]
    assert asked.request.system == "toy"


def test_alternatives_pass_the_over_where_the_first_is_away():
    plate, fg, bg = (Input(n, k, "x") for n, k in (("plate", "rgb"), ("fg", "rgba"), ("bg", "rgb")))
    panel = Panel(toy(inputs=(OneOf(((plate,), (fg, bg))),)), "Toy", 2, "", "")
    text = new_gizmo.gizmo(panel, Example(new_gizmo.LIKE))
    assert panel.needs == "Plate | Fg + Bg"
    assert "  name Put_together\n" in text
    assert " gc_lead 0\n" in text


@pytest.mark.parametrize("text", ["", "a b", HARD, "line\nline", "ü “x”", "{", "a]", "\\"])
def test_a_quoted_text_is_the_text_again(text):
    tkinter = pytest.importorskip("tkinter")
    assert tkinter.Tcl().splitlist(quoted(text) or '""') == (text,)


def test_the_file_lies_beside_the_others_unless_said(tmp_path, capsys):
    out = tmp_path / "Any.gizmo"
    assert new_gizmo.main(["omnimatte", "--name", "Any", "-o", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("Group {\n name Any1\n")
    assert new_gizmo.main(["omnimate"]) == 2
    assert "Did you mean 'omnimatte'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", GIZMOS)
def test_every_gizmo_is_what_the_tool_writes_again(tmp_path, name):
    path = tmp_path / f"{name}.gizmo"
    before = (ROOT / "gizmos" / path.name).read_text(encoding="utf-8")
    path.write_text(before, encoding="utf-8")
    assert new_gizmo.main(["--again", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == before


def test_what_it_says_of_itself_is_read_back(gizmo):
    told = node.declared(gizmo)
    assert told.coordinates == {"words": "plate"}
    assert [spec.pipe for spec in told.pipes if spec.own] == ["Fg1", "Fg2"]
