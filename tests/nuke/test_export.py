# SPDX-License-Identifier: Apache-2.0
"""Rendering the inputs: which frames, at which resolution, and what a failure says."""

import pytest

from gencomp_nuke import asking, export
from gencomp_protocol.errors import BadPicture, Cancelled


@pytest.mark.parametrize(
    ("frames", "runs"),
    [
        ((), []),
        ((5,), [(5, 5, 1)]),
        ((1, 2, 3), [(1, 3, 1)]),
        ((1, 3, 5), [(1, 5, 2)]),
        ((1, 2, 10, 20, 30), [(1, 2, 1), (10, 30, 10)]),
        ((-2, -1, 0), [(-2, 0, 1)]),
    ],
)
def test_frames_are_rendered_in_runs(frames, runs):
    assert export.runs(frames) == runs


def test_every_connected_pipe_is_rendered_at_every_frame(app, comp, tmp_path):
    gizmo = comp(app)
    files = export.render(gizmo, asking.ask(gizmo), tmp_path / "in")
    assert {name: sorted(frames) for name, frames in files.items()} == {
        "plate": [1001, 1002, 1003, 1004],
        "matte.a": [1001, 1002, 1003, 1004],
        "matte.b": [1001, 1002, 1003, 1004],
    }
    assert files["matte.a"][1002] == tmp_path / "in" / "matte1" / "matte1.1002.exr"
    assert len(app.rendered) == 12


def test_a_matte_is_its_chosen_channel_alone(app, comp, tmp_path):
    import nuke

    gizmo = comp(app)
    gizmo["gc_channel2"].setValue("rgba.green")
    files = export.render(gizmo, asking.ask(gizmo), tmp_path / "in")
    read = nuke.createNode("Read", "raw true first 1001 last 1001")
    for name, value in (("matte.a", 1.0), ("matte.b", 0.0)):
        read["file"].setValue(files[name][1001].as_posix())
        assert read.channels() == ["rgba.alpha"]
        box = {"matte.a": (10, 48 - 10), "matte.b": (45, 48 - 10)}[name]
        assert read.sample("rgba.alpha", *box) == value


def test_an_inverted_matte_is_one_less_its_channel_over_the_whole_format(app, comp, tmp_path):
    import nuke

    gizmo = comp(app)
    cut = nuke.createNode("Crop", "box {8 20 28 44}")
    number = int(gizmo.node("Matte1")["number"].value())
    cut.setInput(0, gizmo.input(number))
    gizmo.setInput(number, cut)
    plain = export.render(gizmo, asking.ask(gizmo), tmp_path / "in")
    gizmo["gc_invert1"].setValue(True)
    files = export.render(gizmo, asking.ask(gizmo), tmp_path / "inverted")
    read = nuke.createNode("Read", "raw true first 1001 last 1001")

    def found(name, *places, of=files):
        read["file"].setValue(of[name][1001].as_posix())
        return [read.sample("rgba.alpha", *place) for place in places]

    inside, outside = (10, 48 - 10), (60, 2)
    assert found("matte.a", inside, outside, of=plain) == [1.0, 0.0]
    assert found("matte.a", inside, outside) == [0.0, 1.0]
    assert found("matte.b", (45, 48 - 10), outside) == [1.0, 0.0]
    box = gizmo.node("Matte1_inverted").bbox()
    assert (cut.bbox().w(), box.w(), box.h()) == (20, 64, 48)


def test_frames_below_zero_keep_their_numbers(app, comp, tmp_path):
    gizmo = comp(app)
    for knob, value in (("gc_range", "custom"), ("gc_first", -1), ("gc_last", 0)):
        gizmo[knob].setValue(value)
    asked = asking.ask(gizmo)
    assert (asked.request.frames.first, asked.request.frames.last) == (-1, 0)
    files = export.render(gizmo, asked, tmp_path / "in")
    assert [path.name for path in files["plate"].values()] == ["plate.-001.exr", "plate.0000.exr"]


def test_a_request_has_the_full_format_in_proxy_too(app, comp):
    import nuke

    gizmo = comp(app)
    nuke.root()["proxy"].setValue(True)
    app.undo_steps.clear()
    plate = asking.ask(gizmo).request.input("plate")
    assert (plate.format.width, plate.format.height) == (64, 48)
    assert (nuke.root()["proxy"].value(), app.undo_steps) == (True, [])


def test_proxy_is_off_while_rendering_and_back_afterwards(app, comp, tmp_path, monkeypatch):
    import nuke

    gizmo = comp(app)
    nuke.root()["proxy"].setValue(True)
    seen = []
    real = nuke.execute
    monkeypatch.setattr(
        nuke, "execute", lambda *a: (seen.append(nuke.root()["proxy"].value()), real(*a))
    )
    export.render(gizmo, asking.ask(gizmo), tmp_path / "in")
    assert set(seen) == {False}
    assert nuke.root()["proxy"].value() is True


def test_writes_are_off_again_when_rendering_fails(app, comp, tmp_path):
    gizmo = comp(app)
    gizmo.input(1)["file"].setValue("/there/is/no/such.%04d.exr")
    gizmo.input(1)["first"].setValue(1001)
    asked = None
    with pytest.raises(RuntimeError, match="Read error"):
        asked = asking.ask(gizmo)
    assert asked is None
    app.cancel_render_after = 0
    gizmo = app.to_node("Omnimatte1")
    gizmo.setInput(1, None)
    with pytest.raises(Cancelled):
        export.render(gizmo, asking.ask(gizmo), tmp_path / "in")
    assert gizmo["gc_rendering"].value() is False
    assert gizmo["gc_export"].value() == ""


def test_what_nuke_says_about_a_missing_frame_is_passed_on(app, comp, tmp_path):
    gizmo = comp(app)
    gizmo.input(0)["last"].setValue(1006)
    with pytest.raises(BadPicture) as caught:
        export.render(gizmo, asking.ask(gizmo), tmp_path / "in")
    assert caught.value.message.startswith("Nuke could not render the input 'plate': plate: ")
    assert "plate.1005.exr: Read error" in caught.value.message


@pytest.mark.parametrize(("depth", "exact"), [("32 bit float", True), ("16 bit half", False)])
def test_float_depth_is_exact_for_any_plate(app, comp, tmp_path, depth, exact):
    import nuke

    gizmo = comp(app)
    third = nuke.createNode("Multiply", "value 0.3333333")
    third.setInput(0, gizmo.input(0))
    gizmo.setInput(0, third)
    gizmo["gc_depth"].setValue(depth)
    files = export.render(gizmo, asking.ask(gizmo), tmp_path / "in")
    back = nuke.createNode("Read", "raw true first 1001 last 1001")
    back["file"].setValue(files["plate"][1001].as_posix())
    found = app.pixels.compare(back, third, 1001, ("rgba.red", "rgba.green"))
    assert (found["differing"] == 0) is exact
