# SPDX-License-Identifier: Apache-2.0
"""The drawn path: which frames Nuke renders for it, the tool's command, and what the node says."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.shot import connect, paint
from gencomp_nuke import drawing
from gencomp_protocol import motion
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.request import InputHeader, Request
from standin.pixels import worker_python

ROOT = Path(__file__).resolve().parent.parent.parent
TIMES = {"fg_start": "", "fg_range": "", "fg_speed": "1", "fg_before": "black", "fg_after": "black"}
TOOL = """
import json, pathlib, sys
words = sys.argv[1:]
files = {}
for given in [words[i + 1] for i, word in enumerate(words) if word == "--input"]:
    name, place = given.split("=", 1)
    place = pathlib.Path(place.rpartition(":")[0] if place.endswith(":A") else place)
    found = sorted(place.parent.glob("*.exr")) if "%" in place.name else [place]
    files[name] = {one.name.split(".")[1]: one.stat().st_ino for one in found}
pathlib.Path(sys.argv[0] + ".json").write_text(json.dumps({"words": words, "files": files}))
if "seed=13" in words:
    sys.stderr.write("loading\\nThere is no element to show the way of.\\n")
    sys.exit(2)
out = pathlib.Path(words[words.index("--out") + 1])
out.write_bytes(b"a picture")
print("element: keys; seen 1001-1004; 32x24; alpha")
print(out)
"""


# --- which frames --------------------------------------------------------------------------------


def request(frames, *elements, **knobs):
    """Return a request with a plate and elements ``(name, own frames, cover)``."""
    plain = Format(8, 8)
    bg = InputHeader(name="bg", frames=tuple(frames), cover="sequence", format=plain, channel=None)
    return Request(
        system="gencomposite",
        frames=frames,
        inputs=(
            bg,
            *(
                InputHeader(name=name, frames=own, cover=cover, format=plain, channel=None)
                for name, own, cover in elements
            ),
        ),
        knobs={"trajectory": "", "trajectory_mode": "auto", **TIMES, **knobs},
        working_space="scene_linear",
    )


BURST = ("fg", tuple(range(1, 37)), "sequence")
SHOT = FrameRange(1001, 1120)


@pytest.mark.parametrize(
    ("elements", "knobs", "frames"),
    [
        ([BURST], {}, (1001, 1019, 1036)),
        ([BURST], {"fg_start": "1040"}, (1040, 1058, 1075)),
        ([BURST], {"fg_start": "1040", "fg_speed": "2"}, (1040, 1049, 1057)),
        ([BURST], {"fg_start": "1040", "fg_range": "1-10"}, (1040, 1045, 1049)),
        ([BURST], {"fg_start": "1040", "fg_after": "hold"}, (1040, 1080, 1120)),
        ([BURST], {"fg_speed": "1@1001; 0.5@1020"}, (1001, 1061, 1120)),
        ([("fg", (7,), "still")], {"fg_start": "1101"}, (1101, 1111, 1120)),
        ([("fg", tuple(range(1010, 1020)), "sequence")], {}, (1010, 1015, 1019)),
        (
            [("fg.plane", (7,), "still"), ("fg.bird", (1, 2, 3), "sequence")],
            {"fg_start": "plane: 1101 | bird: 1001"},
            (1001, 1002, 1003, 1101, 1109, 1111, 1120),
        ),
    ],
)
def test_three_frames_of_each_life_are_looked_at(elements, knobs, frames):
    assert drawing.looked_at(request(SHOT, *elements, **knobs)) == frames


def test_a_long_way_keeps_the_frames_that_are_shown_and_its_last():
    way = "; ".join(f"{n}.125,20@{n}" for n in range(1001, 1501))
    text = drawing.shortened(f"bird: {way}", motion.PATH, "trajectory", (1250,))
    assert len(text) < len(way) / 2
    keys = motion.read_keys(motion.section_of(text, "bird", ""), motion.PATH, "")
    assert {1001.0, 1250.0, 1500.0} <= set(keys.frames)
    assert keys.at(1250) == (1250.125, 20.0)


# --- the whole way -------------------------------------------------------------------------------


@pytest.fixture
def gizmo(app, read, tmp_path):
    import nuke

    for n in (7, 8, 9):
        paint(tmp_path / f"el.{n:04d}.exr", "RGBA", [((0, 0, 32, 24), [0.5] * 4)], size=(32, 24))
    app.save(tmp_path / "comp.nk")
    made = nuke.createNode("GenComposite")
    connect(made, "Bg", read("plate/plate.%04d.exr"))
    connect(made, "Fg1", read(tmp_path / "el.%04d.exr", 7, 9))
    connect(made, "FgMatte1", read(tmp_path / "el.%04d.exr", 7, 9))
    connect(made, "Limit", read("matte_a/matte_a.%04d.exr"))
    return made


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Return what a gencomp that is none was told, after it has run."""
    script = tmp_path / "a tool" / "gencomp.py"
    script.parent.mkdir()
    script.write_text(TOOL, encoding="utf-8")
    words = [sys.executable, str(script)]
    monkeypatch.setenv("GENCOMP_COMMAND", shlex.join(words) if os.name != "nt" else " ".join(words))
    return lambda: json.loads(Path(f"{script}.json").read_text(encoding="utf-8"))


@pytest.fixture
def opened(monkeypatch):
    found = []
    monkeypatch.setattr(drawing.tool, "open_outside", found.append)
    return found


def live(app, gizmo):
    """Press the button and live through it; return what the node says."""
    gizmo["gc_placing_preview"].execute()
    app.process_events(lambda: gizmo["gc_status"].value() != "Drawing the way.")
    return gizmo["gc_status"].value().replace("\n", " ")


def test_the_way_is_drawn_from_a_few_rendered_frames(app, gizmo, tool, opened, home):
    gizmo["trajectory"].setValue("10,0@1001; 20,40@1003")
    identity = gizmo["gc_id"].value()
    said = "Drew the way: element: keys; seen 1001-1004; 32x24; alpha"
    assert live(app, gizmo) == said
    assert opened == [home / "previews" / f"{identity}.png"]
    assert opened[0].read_bytes() == b"a picture"
    told = tool()
    assert told["words"][:4] == ["preview", "gencomposite", "--frames", "1001-1004"]
    assert "trajectory=10,48@1001; 20,8@1003" in told["words"]  # y down, as it is sent.
    assert "origin=off" in told["words"]
    # The element plays 7, 8, 9 from 1001 on: its life is 1001, 1002 and 1003.
    assert [n for name, n in app.rendered if name.endswith("Write_bg")] == [1001, 1002, 1003]
    assert [n for name, n in app.rendered if name.endswith("Write_fg1")] == [7, 8, 9]
    assert {name: sorted(frames) for name, frames in told["files"].items()} == {
        "bg": ["1001", "1002", "1003", "1004"],
        "fg": ["0007", "0008", "0009"],
        "fg_matte": ["0007", "0008", "0009"],
    }
    # Of the frame that was not rendered the nearest is shown, without a copy.
    assert told["files"]["bg"]["1004"] == told["files"]["bg"]["1003"]
    bg = told["words"][told["words"].index("--input") + 1].partition("=")[2]
    assert not Path(bg).parent.exists()


def test_a_point_to_be_tracked_is_given_the_whole_plate(app, gizmo, tool, opened):
    gizmo["trajectory"].setValue("10,20")
    live(app, gizmo)
    assert [n for name, n in app.rendered if name.endswith("Write_bg")] == [1001, 1002, 1003, 1004]


def test_what_the_tool_refuses_is_a_sentence_on_the_node(app, gizmo, tool, opened):
    gizmo["seed"].setValue(13)
    said = "The way cannot be drawn: There is no element to show the way of."
    assert live(app, gizmo) == said
    assert gizmo["gc_status_way"].value().replace("\n", " ") == said
    assert gizmo["gc_note"].value() == ""
    assert opened == []


def test_a_tool_that_is_not_there_is_a_sentence_on_the_node(app, gizmo, opened, monkeypatch):
    monkeypatch.setenv("GENCOMP_COMMAND", "/nowhere/gencomp")
    assert live(app, gizmo).startswith("'/nowhere/gencomp' cannot be started")
    gizmo["gc_placing_preview"].execute()  # It can be tried again.
    assert gizmo["gc_status"].value() == "Drawing the way."
    app.process_events(lambda: gizmo["gc_status"].value() != "Drawing the way.")


def test_a_node_without_an_element_says_so(app, gizmo):
    for pipe in ("Fg1", "FgMatte1"):
        connect(gizmo, pipe, None)
    gizmo["gc_placing_preview"].execute()
    assert gizmo["gc_status"].value().replace("\n", " ") == (
        "GenComposite1 has no element to draw the way of. Connect one to Fg1."
    )


def test_without_an_interface_it_is_drawn_at_once_and_not_opened(
    terminal, read, tmp_path, tool, opened
):
    import nuke

    paint(tmp_path / "el.0007.exr", "RGBA", [((0, 0, 32, 24), [0.5] * 4)], size=(32, 24))
    gizmo = nuke.createNode("GenComposite")
    connect(gizmo, "Bg", read("plate/plate.%04d.exr"))
    connect(gizmo, "Fg1", read(tmp_path / "el.0007.exr", 7, 7))
    gizmo["gc_placing_preview"].execute()
    said = gizmo["gc_status"].value().replace("\n", " ")
    assert said.startswith("Drew the way: ")
    assert said.endswith(".png. element: keys; seen 1001-1004; 32x24; alpha")
    assert opened == []
    assert tool()["files"]["fg"] == {"0007": tool()["files"]["fg"]["0007"]}


@pytest.mark.slow
def test_the_tool_itself_draws_it(app, gizmo, opened, tmp_path, monkeypatch):
    launcher = tmp_path / "gencomp.py"
    launcher.write_text(
        f"import sys\nsys.path[:0] = [{str(ROOT / 'server')!r}, {str(ROOT / 'protocol')!r}]\n"
        "from gencomp_server.cli import main\nsys.exit(main())\n",
        encoding="utf-8",
    )
    python = worker_python()
    asked = [python, "-c", "import cv2, zmq, msgpack"]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("the Python for pixels has not what the tool needs")
    monkeypatch.setenv("GENCOMP_COMMAND", shlex.join([str(python), str(launcher)]))
    gizmo["trajectory"].setValue("10,0@1001; 20,40@1003")
    assert live(app, gizmo).startswith("Drew the way: element: keys")
    assert opened[0].read_bytes()[:4] == b"\x89PNG"
