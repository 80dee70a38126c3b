# SPDX-License-Identifier: Apache-2.0
"""``gencomp measure`` from its arguments to its figures, on files with known differences."""

import json
import stat
import sys
import tempfile

import cv2
import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, MissingFrame, WeightsRefused
from gencomp_protocol.frames import Box
from gencomp_protocol.layers import ORIGIN_CHANNELS
from gencomp_server.cli import main
from gencomp_server.colour.spaces import resolve
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer
from gencomp_server.judges import Refused, Tools
from gencomp_server.measure import compare
from gencomp_server.measure_files import Question, find, pattern_of

FRAME = Box(0, 0, 19, 15)


def write(folder, frame, pixels, channels="RGB", data=None, display=FRAME, name="p"):
    folder.mkdir(parents=True, exist_ok=True)
    window = data or display
    picture = LayerFrame(name, frame, pixels, tuple(channels), display, window)
    write_layer(folder / f"{name}.{frame:04d}.exr", picture)


def flat(value, channels=3, kind=np.float16, window=FRAME):
    return np.full((window.height, window.width, channels), value, kind)


def sequence(folder, values, channels="RGB", **more):
    for frame, value in enumerate(values, 1001):
        write(folder, frame, flat(value, len(channels)), channels, **more)
    return folder


@pytest.fixture
def measured(tmp_path, capsys):
    """Run the command and return its code, its JSON and what it says on standard error."""

    def run(*words):
        code = main(["measure", *map(str, words), "--json", "-"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return run


@pytest.fixture
def pair(tmp_path):
    a = sequence(tmp_path / "a", (0.5, 0.5, 0.5))
    b = sequence(tmp_path / "b", (0.5, 0.5, 0.5))
    changed = flat(0.5)
    changed[:, :10] = 0.75
    write(b, 1002, changed)
    return a, b


def test_folders_are_compared_frame_by_frame(measured, pair):
    code, said, _ = measured(*pair)
    figures = said["figures"]
    assert code == 0
    assert said["frames"] == "1001-1003"
    # A quarter wrong on half of one frame of three: 1 / (1/16 / 6).
    assert figures["psnr_linear"]["value"] == pytest.approx(19.8227, abs=1e-4)
    assert figures["psnr_linear"]["worst"] == pytest.approx(15.0515, abs=1e-4)
    assert figures["psnr_linear"]["worst_frame"] == "1002"
    assert figures["psnr_linear"]["frames"]["1001"] is None
    assert figures["untouched"]["value"] == pytest.approx(5 / 6)
    assert figures["untouched"]["worst"] == 0.5
    # From 0.5 to 0.75 are half of the 1024 halves between 0.5 and 1.
    assert figures["max_ulp"]["value"] == 512
    assert figures["flicker"]["worst_frame"] == "1001-1002"


def test_the_mask_restricts_what_is_measured(measured, pair, tmp_path):
    mask = flat(0.0, 4)
    mask[:, 12:, 0] = 1.0
    write(tmp_path / "m", 1001, mask, "RGBA")
    code, said, _ = measured(*pair, "--mask", f"{tmp_path}/m/p.1001.exr:red")
    assert code == 0
    assert said["figures"]["psnr_linear"]["value"] is None
    assert said["figures"]["untouched"]["value"] == 1.0
    assert "covers 40.00 %" in said["inputs"]["mask"]


def test_an_empty_mask_is_one_sentence(measured, pair, tmp_path):
    write(tmp_path / "m", 1001, flat(0.0, 1), "A")
    code, said, err = measured(*pair, "--mask", tmp_path / "m" / "p.1001.exr")
    assert (code, said) == (2, None)
    assert "The mask covers nothing in frames 1001-1003" in err
    assert err.count("\n") == 1


def test_frames_that_the_mask_leaves_out_are_named(measured, pair, tmp_path):
    sequence(tmp_path / "m", (0.0, 1.0, 1.0), "A")
    _, said, _ = measured(*pair, "--mask", tmp_path / "m")
    assert said["notes"] == ["The mask covers nothing in frames 1001: left out."]
    assert list(said["figures"]["untouched"]["frames"]) == ["1002", "1003"]


def test_a_missing_frame_is_named(measured, pair):
    (pair[1] / "p.1002.exr").unlink()
    code, _, err = measured(*pair)
    assert code == 2
    assert "Input 'B' has no frame 1002; on disk are 1001, 1003." in err


def test_frames_of_b_that_a_has_not_are_said(measured, pair):
    write(pair[1], 1009, flat(0.5))
    _, said, _ = measured(*pair)
    assert "B also has frames 1009, which are not measured." in said["notes"]


def test_another_size_is_refused_with_both(measured, pair, tmp_path):
    small = Box(0, 0, 9, 15)
    for frame in (1001, 1002, 1003):
        write(tmp_path / "c", frame, flat(0.5, window=small), display=small)
    code, _, err = measured(pair[0], tmp_path / "c")
    assert code == 2
    assert "Input 'A' frame 1001 is 20x16, B is 10x16." in err


def test_nan_is_counted_and_said(measured, pair):
    spoilt = flat(0.5)
    spoilt[0, 0, 0] = np.nan
    write(pair[1], 1003, spoilt)
    _, said, _ = measured(*pair, "--frames", "1003")
    assert said["notes"] == [
        "B holds 1 samples that are NaN or infinite, in frames 1003: their pixels count for "
        "untouched only."
    ]
    assert said["figures"]["psnr_linear"]["value"] is None
    assert said["figures"]["untouched"]["value"] == 319 / 320


def test_types_that_differ_are_said(measured, pair, tmp_path):
    write(tmp_path / "f", 1001, flat(0.5, kind=np.float32))
    _, said, _ = measured(pair[0] / "p.1001.exr", tmp_path / "f" / "p.1001.exr")
    assert "max_ulp" not in said["figures"]
    assert said["figures"]["untouched"]["value"] == 1.0
    assert said["notes"][0].startswith("A is half and B is float: no distance in ULP")


def test_a_layer_is_compared_with_its_alpha_and_its_cropped_window(measured, tmp_path):
    box = Box(4, 4, 7, 7)
    write(tmp_path / "a", 1, flat(0.5, 4, window=box), "RGBA", data=box)
    write(tmp_path / "b", 1, flat(0.0, 4), "RGBA")
    _, said, _ = measured(tmp_path / "a", tmp_path / "b")
    # 16 of 320 pixels are apart by a half, in colour and in alpha.
    assert said["figures"]["untouched"]["value"] == 304 / 320
    assert said["figures"]["psnr_alpha"]["value"] == pytest.approx(19.0309, abs=1e-4)


def test_layers_of_alpha_alone_are_compared_as_coverage(measured, tmp_path):
    for name, value in (("a", 0.5), ("b", 0.25)):
        write(tmp_path / name, 1, flat(value, 1), "A")
    _, said, _ = measured(tmp_path / "a", tmp_path / "b")
    assert said["figures"]["psnr_linear"]["value"] == pytest.approx(12.0412, abs=1e-4)
    assert "psnr_display" not in said["figures"]


def test_one_channel_of_each_is_compared_behind_a_colon(measured, tmp_path):
    colours = flat(0.5, 4)
    colours[..., 3] = 0.25
    write(tmp_path / "a", 1, colours, "RGBA")
    write(tmp_path / "b", 1, flat(0.25, 1), "A")
    _, said, _ = measured(f"{tmp_path}/a:alpha", tmp_path / "b")
    assert said["figures"]["untouched"]["value"] == 1.0


def test_colour_against_coverage_is_refused_with_the_cure(measured, pair, tmp_path):
    write(tmp_path / "c", 1001, flat(0.25, 1), "A")
    code, _, err = measured(pair[0] / "p.1001.exr", tmp_path / "c" / "p.1001.exr")
    assert code == 2
    assert "Input 'A' has R, G and B, input 'B' has not." in err


def test_8_bit_pictures_are_read_as_srgb_and_that_is_said(measured, tmp_path):
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((12, 12, 3), 118, np.uint8))
    code, said, _ = measured(tmp_path / "a.png", tmp_path / "b.png")
    assert code == 0
    assert said["notes"][0].startswith("Input 'A' is 8-bit and is read as sRGB")
    assert said["figures"]["untouched"]["value"] == 1.0


def test_no_more_than_the_next_frame_waits_on_the_disk(tmp_path, monkeypatch):
    a = sequence(tmp_path / "a", (0.5,) * 7)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    waiting = []
    gathered = find(Question({"A": str(a), "B": str(a)}))
    compare(gathered, progress=lambda *_: waiting.append(len(list(scratch.rglob("*.raw")))))
    assert len(waiting) == 7
    assert max(waiting) <= 2
    assert list(scratch.iterdir()) == []


# --- origin --------------------------------------------------------------------------------------


def origin(folder, shares, frame=1001):
    pixels = np.zeros((16, 20, 5), np.float32)
    pixels[..., 0] = 1.0
    pixels[:, :10, :4] = shares
    write(folder, frame, pixels, ORIGIN_CHANNELS, name="origin")
    return folder


def test_shares_of_an_origin_layer_are_printed(measured, tmp_path):
    code, said, _ = measured("--origin", origin(tmp_path / "origin", (0.25, 0.25, 0.0, 0.5)))
    assert code == 0
    assert {name: one["value"] for name, one in said["figures"].items()} == {
        "origin_plate": 0.625,
        "origin_gain": 0.125,
        "origin_other": 0.0,
        "origin_generated": 0.25,
    }


def test_the_worst_frame_has_least_of_the_plate_and_most_of_the_others(measured, tmp_path):
    folder = tmp_path / "origin"
    origin(folder, (0.5, 0.0, 0.25, 0.25), 1001)
    origin(folder, (0.0, 0.25, 0.0, 0.75), 1002)
    _, said, _ = measured("--origin", folder)
    worst = {name: (one["worst"], one["worst_frame"]) for name, one in said["figures"].items()}
    assert worst == {
        "origin_plate": (0.5, "1002"),
        "origin_gain": (0.125, "1002"),
        "origin_other": (0.125, "1001"),
        "origin_generated": (0.375, "1002"),
    }


def test_shares_are_taken_where_the_mask_covers(measured, tmp_path):
    mask = flat(0.0, 1)
    mask[:, :10] = 1.0
    write(tmp_path / "m", 1001, mask, "A")
    layer = origin(tmp_path / "origin", (0.25, 0.25, 0.0, 0.5))
    _, said, _ = measured("--origin", layer, "--mask", tmp_path / "m")
    assert said["figures"]["origin_generated"]["value"] == 0.5


def test_mattes_that_do_not_sum_to_one_are_no_origin(measured, tmp_path):
    code, _, err = measured("--origin", origin(tmp_path / "origin", (0.25, 0.25, 0.0, 0.25)))
    assert code == 2
    assert "Input 'origin' frame 1001 is no origin layer" in err


def test_a_layer_without_origin_channels_is_refused(measured, pair):
    code, _, err = measured("--origin", pair[0])
    assert code == 2
    assert "has no channel 'origin.plate'" in err


# --- published metrics ---------------------------------------------------------------------------

VMAF = """#!{python}
import json, sys
where = sys.argv[sys.argv.index("--output") + 1]
json.dump({"frames": [{"metrics": {"vmaf": 80.0}}, {"metrics": {"vmaf": 90.0}}]}, open(where, "w"))
"""


def test_vmaf_is_run_where_it_is_on_the_path(measured, pair, tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "vmaf"
    tool.parent.mkdir()
    tool.write_text(VMAF.replace("{python}", sys.executable))
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tool.parent))
    code, said, _ = measured(*pair, "--frames", "1001-1002", "--metrics", "vmaf")
    assert code == 0
    assert said["figures"]["vmaf"]["value"] == 85.0
    assert said["figures"]["vmaf"]["worst_frame"] == "1001"


def test_a_metric_that_is_not_installed_is_refused_and_the_others_are_given(
    measured, pair, monkeypatch
):
    monkeypatch.setenv("PATH", "")
    code, said, _ = measured(*pair, "--metrics", "vmaf,fvd")
    assert code == 2
    assert said["figures"]["psnr_linear"]["value"] == pytest.approx(19.8227, abs=1e-4)
    assert [one["metric"] for one in said["refused"]] == ["vmaf", "fvd"]
    assert said["refused"][0]["sentence"] == "There is no executable vmaf on PATH."


def test_all_takes_what_is_there_and_names_the_rest(measured, pair, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "lpips", None)
    code, said, _ = measured(*pair, "--metrics", "all")
    assert code == 0
    assert len(said["refused"]) == 6


def test_a_metric_that_nobody_knows_is_refused_with_those_there_are(measured, pair):
    code, _, err = measured(*pair, "--metrics", "ssim")
    assert code == 2
    assert "There is no metric 'ssim'" in err
    assert "clip-direction" in err


class Stubborn:
    """A judge that gives up at what it sees."""

    names = ("fvd",)

    def see(self, views):
        raise WeightsRefused("It takes no such clip.", hint="Give another.")

    def say(self):
        raise AssertionError("it is not asked again")


def test_a_judge_that_gives_up_is_refused_and_the_others_are_given(pair, tmp_path, monkeypatch):
    monkeypatch.setattr("gencomp_server.measure.judges_for", lambda *_: ([Stubborn()], []))
    gathered = find(Question({"A": str(pair[0]), "B": str(pair[1])}))
    report = compare(gathered, ("fvd",), Tools(tmp_path, tmp_path, tmp_path))
    assert report.refused == (Refused("fvd", "It takes no such clip.", "Give another."),)
    assert report.figures[0].name == "psnr_linear"


# --- what is written -----------------------------------------------------------------------------


def test_the_table_names_figures_worst_frames_and_never_rounds_up_to_all(pair, capsys):
    nearly = flat(0.5)
    nearly[0, 0] = 0.75
    for frame in (1001, 1002, 1003):
        write(pair[1], frame, flat(0.5))
    write(pair[1], 1002, nearly)
    assert main(["measure", *map(str, pair)]) == 0
    lines = {line[:18].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["pixels untouched"][-5:] == ["99.89", "%", "99.68", "%", "1002"]
    assert lines["largest difference"][-5:] == ["512", "ULP", "512", "ULP", "1002"]


def test_equal_sequences_are_called_identical(pair, capsys):
    assert main(["measure", str(pair[0]), str(pair[0]), "--frames", "1001"]) == 0
    out = capsys.readouterr().out
    assert "identical" in out
    assert "100.00 %" in out


def test_json_goes_to_a_file_beside_the_table(pair, tmp_path, capsys):
    assert main(["measure", *map(str, pair), "--json", str(tmp_path / "out.json")]) == 0
    assert "PSNR linear" in capsys.readouterr().out
    assert "psnr_linear" in json.loads((tmp_path / "out.json").read_text())["figures"]


def test_a_folder_that_cannot_be_written_is_one_sentence(pair, tmp_path, capsys):
    assert main(["measure", *map(str, pair), "--json", str(tmp_path / "no" / "out.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_sheet_shows_both_the_difference_with_its_factor_and_what_was_touched(pair, tmp_path):
    sheet = tmp_path / "sheet.png"
    assert main(["measure", *map(str, pair), "--sheet", str(sheet)]) == 0
    picture = cv2.imread(str(sheet))
    # Four rows of 336 x 269 under the head; the second column of the last row is frame 1002.
    assert picture.shape == (74 + 4 * (269 + 10) + 28, 2 * 28 + 170 + 3 * (336 + 10) - 10, 3)
    top, left = 74 + 3 * (269 + 10), 28 + 170 + 336 + 10
    assert (picture[top + 100, left + 50] == 255).all()
    assert (picture[top + 100, left + 300] == 0).all()


@pytest.mark.parametrize("words", [(), ("a.exr",), ("--sheet", "x.png", "--origin", "o")])
def test_half_a_question_is_refused(words, capsys):
    assert main(["measure", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- folders -------------------------------------------------------------------------------------


def test_a_layer_folder_becomes_its_own_pattern(tmp_path):
    folder = tmp_path / "result"
    folder.mkdir()
    for name in ("result.1001.exr", "result.1002.exr", "preview.1001.exr", "notes.txt"):
        (folder / name).touch()
    assert pattern_of("A", str(folder)) == f"{folder}/result.%04d.exr"
    assert pattern_of("A", f"{folder}:alpha") == f"{folder}/result.%04d.exr:alpha"


def test_a_folder_of_two_sequences_is_refused_with_both(tmp_path):
    for name in ("a.1001.exr", "b.1001.png"):
        (tmp_path / name).touch()
    with pytest.raises(BadKnob, match=r"a\.%04d\.exr, b\.%04d\.png"):
        pattern_of("A", str(tmp_path))


def test_the_folder_of_a_delivery_names_its_layers(tmp_path):
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "result.1001.exr").touch()
    with pytest.raises(MissingFrame) as caught:
        pattern_of("B", str(tmp_path))
    assert caught.value.hint == "Name one of its folders: result."


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("shot-1001.exr", "shot-%04d.exr"),
        ("shot.-002.exr", "shot.%04d.exr"),
        ("take2_v3.0101.png", "take2_v3.%04d.png"),
    ],
)
def test_the_number_of_a_file_is_found_in_its_name(tmp_path, file, pattern):
    (tmp_path / file).touch()
    assert pattern_of("A", str(tmp_path)) == f"{tmp_path}/{pattern}"


def test_what_is_no_folder_comes_back_as_it_is():
    assert pattern_of("A", "shot.####.exr") == "shot.####.exr"


def in_acescg(folder, value):
    folder.mkdir()
    picture = LayerFrame("p", 1001, flat(value), tuple("RGB"), FRAME, FRAME)
    space = {"gencomp:working_space": resolve("ACEScg").spell()}
    write_layer(folder / "p.1001.exr", picture, space)
    return folder


def test_the_working_space_is_what_the_files_say_and_the_flag_wins(measured, tmp_path):
    a, b = sequence(tmp_path / "a", ((0.0, 0.25, 0.0),)), in_acescg(tmp_path / "b", (0.0, 0.5, 0.0))
    _, said, _ = measured(a, b)
    assert said["working_space"].startswith("ACEScg of ocio://")
    assert said["working_space"].endswith(", as the files of B say")
    _, named, _ = measured(a, b, "--working-space", "linear rec.709", "--ocio", "")
    assert named["working_space"] == "Linear Rec.709 (sRGB), as asked"
    linear = [one["figures"]["psnr_linear"]["value"] for one in (said, named)]
    shown = [one["figures"]["psnr_display"]["value"] for one in (said, named)]
    assert linear[0] == linear[1]
    # By hand: sRGB codes 0.5370 of 0.25 and 0.7354 of 0.5, in one channel of three.
    assert shown[1] == pytest.approx(18.82, abs=0.01)
    assert abs(shown[0] - shown[1]) > 0.1


def test_files_that_say_nothing_are_rec_709(measured, pair):
    _, said, _ = measured(*pair)
    assert said["working_space"] == "Linear Rec.709 (sRGB), since no file says another"


def test_codes_of_srgb_beside_another_space_are_refused(measured, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((16, 20, 3), np.uint8))
    code, _, err = measured(tmp_path / "a.png", in_acescg(tmp_path / "b", 0.5))
    assert code == 2
    assert "Input 'A' holds sRGB codes, but the working space is ACEScg" in err


def test_a_plate_with_an_alpha_is_shown_as_a_picture_and_the_mask_is_outlined(pair, tmp_path):
    rgba = np.full((16, 20, 4), 0.5, np.float16)
    rgba[..., 3] = 0.0  # a plate that carries the alpha of something else
    for folder in pair:
        write(folder, 1001, rgba, "RGBA")
    mask = flat(0.0, 1)
    mask[4:12, 5:15] = 1.0
    write(tmp_path / "m", 1001, mask, "A")
    sheet = tmp_path / "s.png"
    words = ["measure", *map(str, pair), "--frames", "1001", "--sheet", str(sheet)]
    assert main([*words, "--mask", f"{tmp_path}/m/p.1001.exr"]) == 0
    picture = cv2.imread(str(sheet))[..., ::-1]
    left, top = 198, 74
    assert tuple(picture[top + 10, left + 10]) == (188, 188, 188)  # sRGB of 0.5, no checkers
    line = picture[top : top + 268, left : left + 336].astype(int)
    orange = (line == (255, 176, 64)).all(axis=2)
    ys, xs = np.nonzero(orange)
    # The mask is x 84..251 and y 67..200 of 336 x 269 pixels; the line lies just outside.
    assert (xs.min(), xs.max()) == (83, 252)
    assert abs(ys.min() - 66) <= 1
    assert not orange[100:160, 120:200].any()
