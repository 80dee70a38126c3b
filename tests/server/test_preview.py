# SPDX-License-Identifier: Apache-2.0
"""``gencomp preview``: where elements go, as a picture, without a server."""

import cv2
import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, MissingFrame, MissingInput
from gencomp_protocol.frames import Box, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.cli import main
from gencomp_server.contract import LayerFrame, find_system
from gencomp_server.exr.write import write_layer
from gencomp_server.fileshot import opened
from gencomp_server.sources import Source
from gencomp_server.systems import REGISTRY

PLATE, OWN = (60, 96), (30, 40)
ORANGE = np.array([255, 176, 64])


def write(folder, name, n, pixels):
    channels = {3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}[pixels.shape[2]]
    window = Box(0, 0, pixels.shape[1] - 1, pixels.shape[0] - 1)
    path = folder / f"{name}.{n:04d}.exr"
    write_layer(path, LayerFrame(name, n, pixels.astype(np.float16), channels, window, window))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six frames of a grey plate, and three of an element with frames and a format of its own."""
    made = tmp_path_factory.mktemp("placing")
    element = np.zeros((*OWN, 4))
    element[8:22, 10:30] = (0.0, 0.6, 0.0, 1.0)
    for n in range(1001, 1007):
        write(made, "bg", n, np.full((*PLATE, 3), 0.2))
    for n in range(1, 4):
        write(made, "fg", n, element)
    return made


def preview(folder, out, *more):
    inputs = ["--input", f"bg={folder}/bg.%04d.exr", "--input", f"fg={folder}/fg.%04d.exr"]
    return main(["preview", "gencomposite", *inputs, "-o", str(out), *more])


def test_the_picture_shows_element_path_box_and_area(folder, tmp_path, capsys):
    out = tmp_path / "where.png"
    knobs = ["--set", "trajectory=20,20; 76,40", "--set", "scale=0.8", "--set", "fg_start=1002"]
    assert preview(folder, out, *knobs) == 0
    said = capsys.readouterr().out
    assert "element: polyline; seen 1002-1004; 40x30; alpha: the files of 'fg' have one" in said
    assert str(out) in said
    picture = cv2.imread(str(out))[..., ::-1].astype(int)
    # Three panels of 560x350 side by side, below the words.
    panels = [picture[-374:-24, x : x + 560] for x in (24, 596, 1168)]
    for panel, middle in zip(panels, ((20, 20), (48, 30), (76, 40)), strict=True):
        x, y = round(middle[0] * 560 / 96), round(middle[1] * 350 / 60)
        assert panel[y, x].min() > 240  # The dot that says where it is now.
        beside = panel[y - 22, x + 10]
        assert beside[1] > 1.3 * beside[2]  # The element itself, green under the tint.
        lines = (np.abs(panel - ORANGE).max(axis=2) < 40).sum()
        assert lines > 500


def test_an_element_off_the_plate_is_refused_with_its_cure(folder, tmp_path, capsys):
    out = tmp_path / "where.png"
    assert preview(folder, out, "--set", "trajectory=4000,20; 5000,40") == 2
    said = capsys.readouterr().err
    assert "lies wholly off the plate on every frame; the plate is 96x60" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["preview", "omnimatte", "-o", "a.png"], "Omnimatte places no elements"),
        (["preview", "gencomposite", "-o", "a.jpg"], "'a.jpg' is not a PNG"),
        (["preview", "gencomposite", "-o", "a.png", "--set", "scale"], "has no value"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(arguments, said, capsys):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_removal_has_no_way_to_show(folder, tmp_path, capsys):
    inputs = ["--input", f"bg={folder}/bg.%04d.exr", "--input", f"remove={folder}/bg.1001.exr"]
    assert main(["preview", "gencomposite", *inputs, "-o", str(tmp_path / "a.png")]) == 2
    assert "There is no element to show the way of" in capsys.readouterr().err


def test_an_element_that_stands_in_bg_has_no_way_to_show(folder, tmp_path, capsys):
    inputs = ["--input", f"bg={folder}/bg.%04d.exr", "--input", f"fg_matte={folder}/bg.1001.exr"]
    assert main(["preview", "gencomposite", *inputs, "-o", str(tmp_path / "a.png")]) == 2
    assert "There is no element to show the way of" in capsys.readouterr().err


def test_an_element_whose_own_frame_is_number_nought_is_seen(folder, tmp_path, capsys):
    for name, n in (("zero", 0), ("long", 1)):
        (tmp_path / f"{name}.{n:04d}.exr").write_bytes((folder / "fg.0001.exr").read_bytes())
    inputs = ["--input", f"bg={folder}/bg.%04d.exr"]
    inputs += ["--input", f"fg.zero={tmp_path}/zero.%04d.exr"]
    inputs += ["--input", f"fg.long={tmp_path}/long.%04d.exr"]
    knobs = ["--set", "fg_start=zero: 1002 | 1001", "--set", "fg_speed=long: 0 | 1"]
    out = str(tmp_path / "a.png")
    assert main(["preview", "gencomposite", *inputs, *knobs, "-o", out]) == 0
    assert "zero: in place; seen 1002;" in capsys.readouterr().out


def test_the_picture_shows_how_far_a_change_fades_out(folder, tmp_path):
    dim = ORANGE // 2
    found = []
    for grow in ("0", "60"):
        out = tmp_path / "where.png"
        assert preview(folder, out, "--set", f"mask_grow={grow}", "--set", "scale=0.2") == 0
        picture = cv2.imread(str(out))[-374:-24, 24:584, ::-1].astype(int)
        found.append(int((np.abs(picture - dim).max(axis=2) < 20).sum()))
    assert found[1] > 1.5 * found[0] > 0


# --- files as a shot ------------------------------------------------------------------------------


@pytest.fixture
def shot(folder):
    paths = {n: folder / f"fg.{n:04d}.exr" for n in (1, 2, 3)}
    still = {1001: folder / "bg.1001.exr"}
    sources = [
        Source(InputHeader("fg", (1, 2, 3)), paths, "exr"),
        Source(InputHeader("bg", (1001,), "still"), still, "exr"),
    ]
    headers = tuple(one.header for one in sources)
    request = Request("gencomposite", FrameRange(1, 3), headers)
    with opened(find_system(REGISTRY, "gencomposite"), request, sources) as one:
        yield one


def test_files_read_as_a_system_sees_them(shot):
    assert shot.names == ("fg", "bg")
    assert shot.frames_of("fg") == (1, 2, 3)
    assert shot.frame("fg", 2).shape == (30, 40, 4)
    assert shot.frame("fg", 2, ("A",)).sum() == 280
    assert shot.rows("fg", 2, 8, 10).shape == (2, 40, 4)
    assert shot.header("bg").display_window == Box(0, 0, 95, 59)


def test_a_still_answers_for_every_frame(shot):
    assert (shot.frame("bg", 1) == shot.frame("bg", 3)).all()
    assert shot.digest("bg", 2).endswith("bg.1001.exr")


def test_what_is_not_there_is_named(shot):
    with pytest.raises(MissingFrame, match="Input 'fg' has no frame 9"):
        shot.frame("fg", 9)
    with pytest.raises(MissingInput, match="no input 'depth'"):
        shot.header("depth")
    with pytest.raises(MissingInput, match="no input 'fg'"):
        shot.only("bg").frame("fg", 1)
    with pytest.raises(MissingInput, match="has no channel 'Z'"):
        shot.frame("fg", 1, ("Z",))


def test_a_system_that_does_not_exist_is_refused():
    with pytest.raises(BadKnob):
        find_system(REGISTRY, "gencomposit")
