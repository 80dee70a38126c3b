# SPDX-License-Identifier: Apache-2.0
"""The node OverPlusPlus: its two ways in, and its layers in the stream by name."""

import pytest

from fakes.server import FakeServer
from fakes.shot import BOX_A, FRAMES, HEIGHT, WIDTH, paint, press
from gencomp_nuke import asking, node
from gencomp_protocol.errors import MissingInput

RGB = ("rgba.red", "rgba.green", "rgba.blue")
RGBA = (*RGB, "rgba.alpha")
WHOLE = (0, 0, WIDTH, HEIGHT)
IN_A, IN_B = (16, HEIGHT - 16), (48, HEIGHT - 16)


@pytest.fixture
def answers(shot, tmp_path):
    """Return a folder of layers as Over++ delivers them; the matte has one channel."""
    folder = tmp_path / "answers"
    for n in FRAMES:
        paint(folder / f"result/result.{n}.exr", "RGBA", [(WHOLE, [0.25, 0.25, 0.25, 1.0])])
        paint(folder / f"effect/effect.{n}.exr", "RGBA", [(BOX_A, [0.0, 0.0, 0.0, 0.5])])
        paint(folder / f"effect_matte/effect_matte.{n}.exr", "A", [(BOX_A, [0.75])])
    return folder


@pytest.fixture
def server(answers, home):
    with FakeServer(answers, home) as fake:
        yield fake


@pytest.fixture
def gizmo(app, tmp_path):
    import nuke

    app.save(tmp_path / "comp.nk")
    return nuke.createNode("OverPlusPlus")


def test_the_plate_and_a_mask_are_sent_with_every_knob(app, gizmo, read, server):
    gizmo.setInput(0, read("plate/plate.%04d.exr"))
    gizmo.setInput(3, read("matte_a/matte_a.%04d.exr"))
    gizmo["prompt"].setValue("soft shadow")
    press(app, gizmo)
    sent = server.requests[0]
    assert sent.system == "overplusplus"
    assert [(i.name, i.channel) for i in sent.inputs] == [("plate", None), ("effect_mask", "A")]
    assert (sent.knobs["prompt"], sent.knobs["guidance"]) == ("soft shadow", 6.0)
    assert sorted(sent.knobs) == sorted(gizmo["gc_params"].value().split())


def test_layers_are_in_the_stream_by_name_and_in_the_menu(app, gizmo, read, server):
    gizmo.setInput(0, read("plate/plate.%04d.exr"))
    press(app, gizmo)
    assert gizmo["gc_status"].value() == "Plays v001, frames 1001-1004."
    assert gizmo.sample("rgba.red", *IN_B, frame=1002) == 0.5  # The plate: no effect there.
    assert gizmo.sample("effect.alpha", *IN_A, frame=1002) == 0.5
    assert gizmo.sample("result.green", *IN_A, frame=1002) == 0.1875  # Half of the plate.
    gizmo["gc_live"].setValue(False)
    assert gizmo.sample("rgba.red", *IN_B, frame=1002) == 0.25
    assert gizmo.sample("result.green", *IN_A, frame=1003) == 0.25
    gizmo["gc_output"].setValue("effect")
    assert gizmo.sample("rgba.alpha", *IN_A, frame=1002) == 0.5
    gizmo["gc_output"].setValue("difference")  # Not in this result, so the plate.
    assert app.pixels.compare(gizmo, gizmo.input(0), 1002, RGB)["differing"] == 0


def test_a_matte_shows_in_all_four_channels(app, gizmo, read, server):
    gizmo.setInput(0, read("plate/plate.%04d.exr"))
    press(app, gizmo)
    gizmo["gc_output"].setValue("effect_matte")
    assert [gizmo.sample(name, *IN_A, frame=1002) for name in RGBA] == [0.75] * 4
    assert gizmo.sample("effect_matte.red", *IN_A, frame=1002) == 0.75
    assert gizmo.sample("effect_matte.alpha", *IN_B, frame=1002) == 0.0


def test_without_a_plate_what_passes_is_the_foreground_over_the_background(app, gizmo, read):
    gizmo.setInput(1, read("layers/b/b.%04d.exr"))
    gizmo.setInput(2, read("layers/background/background.%04d.exr"))
    node.follow_inputs(gizmo)
    gizmo["gc_output"].setValue("plate")
    assert gizmo.sample("rgba.red", *IN_B, frame=1001) == 0.5
    assert gizmo.sample("rgba.red", *IN_A, frame=1001) == 0.125
    gizmo.setInput(0, read("plate/plate.%04d.exr"))
    node.follow_inputs(gizmo)
    assert app.pixels.compare(gizmo, gizmo.input(0), 1001, RGB)["differing"] == 0


def test_foreground_and_background_are_sent_over_the_range_of_the_background(
    app, gizmo, read, server
):
    gizmo.setInput(1, read("layers/b/b.%04d.exr"))
    gizmo.setInput(2, read("layers/background/background.%04d.exr", 1001, 1003))
    press(app, gizmo)
    sent = server.requests[0]
    assert str(sent.frames) == "1001-1003"
    assert [i.name for i in sent.inputs] == ["fg", "bg"]
    assert gizmo["gc_lead"].value() == 1
    assert {name for name, _ in server.jobs["job1"].pictures} == {"fg", "bg"}


def test_a_foreground_is_rendered_with_its_alpha(app, gizmo, read, tmp_path):
    from gencomp_nuke import export

    gizmo.setInput(1, read("layers/a/a.%04d.exr"))
    gizmo.setInput(2, read("layers/background/background.%04d.exr"))
    files = export.render(gizmo, asking.ask(gizmo), tmp_path / "in")
    back = read(files["fg"][1002])
    assert [back.sample(name, *IN_A, frame=1002) for name in RGBA] == [0.25, 0.25, 0.25, 0.5]


@pytest.mark.parametrize("pipes", [(), (1,), (2,), (3,)])
def test_neither_a_plate_nor_both_of_the_others_is_said(gizmo, read, pipes):
    for pipe in pipes:
        gizmo.setInput(pipe, read("plate/plate.%04d.exr"))
    with pytest.raises(MissingInput) as caught:
        asking.ask(gizmo)
    assert str(caught.value) == (
        "OverPlusPlus1 has neither Plate nor Fg and Bg. Connect Plate, or Fg and Bg."
    )


def test_a_connection_that_changes_changes_what_passes(gizmo, read):
    from gencomp_nuke import callbacks

    class Changed:
        def name(self):
            return "inputChange"

    gizmo.setInput(1, read("layers/b/b.%04d.exr"))
    gizmo.setInput(2, read("layers/background/background.%04d.exr"))
    callbacks.knob_changed(gizmo, Changed())
    assert gizmo["gc_lead"].value() == 1


def test_before_generate_the_node_says_what_to_connect(gizmo):
    assert gizmo["gc_status"].value() == "Connect Plate, or Fg and Bg, then press Generate."


def test_opened_again_without_python_the_layers_are_there(app, gizmo, read, server, monkeypatch):
    import sys

    import nuke

    gizmo.setInput(0, read("plate/plate.%04d.exr"))
    press(app, gizmo)
    app.save()
    monkeypatch.setitem(sys.modules, "gencomp_nuke", None)
    nuke.scriptOpen(nuke.root().name())
    again = nuke.toNode("OverPlusPlus1")
    assert again.sample("effect.alpha", *IN_A, frame=1004) == 0.5
    again["gc_output"].setValue("effect_matte")
    assert again.sample("rgba.red", *IN_A, frame=1004) == 0.75
    assert again.sample("rgba.red", *IN_A, frame=1005) == 0.75
    again["gc_outside"].setValue("black")
    assert again.sample("rgba.red", *IN_A, frame=1005) == 0
