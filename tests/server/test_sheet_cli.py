# SPDX-License-Identifier: Apache-2.0
"""``gencomp sheet``: rows of results beside what makes them differ."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from gencomp_protocol.frames import Box
from gencomp_server.cli import main
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer
from gencomp_server.sheet_cli import differences, labels


@pytest.fixture
def result(tmp_path):
    """Return a function that makes a result of one level of grey."""

    def make(name, level, frames=(1001, 1002), layer="result", **knobs):
        folder = tmp_path / name
        window = Box(0, 0, 31, 23)
        for n in frames:
            (folder / layer).mkdir(parents=True, exist_ok=True)
            grey = np.full((24, 32, 4), level, np.float16)
            picture = LayerFrame(layer, n, grey, ("R", "G", "B", "A"), window, window)
            write_layer(folder / layer / f"{layer}.{n:04d}.exr", picture)
        told = {
            "system": "overplusplus",
            "knobs": knobs,
            "layers": {layer: {"frames": {str(n): {} for n in frames}, "channels": list("RGBA")}},
        }
        (folder / "manifest.json").write_text(json.dumps(told))
        return str(folder)

    return make


def test_each_result_has_a_row_of_its_own_level(result, tmp_path, capsys):
    out = tmp_path / "takes.png"
    code = main(["sheet", result("take01", 0.0), result("take02", 1.0), "-o", str(out)])
    assert (code, capsys.readouterr().out) == (0, f"{out}\n")
    picture = cv2.imread(str(out))
    column = picture[:, 28 + 170 + 100, 0].astype(int)
    bright, dark = np.flatnonzero(column > 200), np.flatnonzero(column == 0)
    assert len(bright) >= 250
    assert len(dark) >= 250
    assert dark.max() < bright.min()


def test_of_one_result_every_layer_has_a_row(result, tmp_path, capsys):
    folder = Path(result("v001", 0.0))
    result("v001", 1.0, layer="clean")
    told = json.loads((folder / "manifest.json").read_text())
    told["layers"]["result"] = told["layers"]["clean"]
    (folder / "manifest.json").write_text(json.dumps(told))
    both, one = tmp_path / "both.png", tmp_path / "one.png"
    assert main(["sheet", str(folder), "-o", str(both)]) == 0
    assert main(["sheet", str(folder), "--layer", "clean", "-o", str(one)]) == 0
    whole, single = (cv2.imread(str(path)) for path in (both, one))
    column = whole[:, 28 + 170 + 100, 0].astype(int)
    bright, dark = np.flatnonzero(column > 200), np.flatnonzero(column == 0)
    assert len(bright) >= 250
    assert len(dark) >= 250
    assert bright.max() < dark.min()  # clean comes before result in this manifest
    assert single.shape[0] < whole.shape[0] - 250


def test_knobs_that_differ_are_named_and_no_others():
    told = [{"seed": 1, "steps": 50, "prompt": "dust"}, {"seed": 2, "steps": 50, "prompt": "dust"}]
    assert differences(told) == [["seed 1"], ["seed 2"]]


def test_names_are_as_long_as_it_takes_to_tell_them_apart(tmp_path):
    assert labels([tmp_path / "take01", tmp_path / "take02"]) == ["take01", "take02"]
    found = labels([tmp_path / "v001/take01", tmp_path / "v002/take01"])
    assert found == ["v001/take01", "v002/take01"]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"frames": (1003,)}, "no frame in common"),
        ({"layer": "effect"}, "no layer in common"),
    ],
)
def test_results_that_cannot_stand_together_are_refused(result, tmp_path, capsys, second, words):
    folders = [result("a", 0.1), result("b", 0.2, **second)]
    assert main(["sheet", *folders, "-o", str(tmp_path / "x.png")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_a_folder_without_a_result_and_a_layer_that_is_not_there_are_named(
    result, tmp_path, capsys
):
    out = ["-o", str(tmp_path / "x.png")]
    assert main(["sheet", str(tmp_path), *out]) == 2
    assert f"There is no result in {tmp_path}" in capsys.readouterr().err
    assert main(["sheet", result("a", 0.1), "--layer", "efect", *out]) == 2
    assert "has no layer 'efect'" in capsys.readouterr().err
    assert main(["sheet", result("b", 0.1), "-o", str(tmp_path / "x.jpg")]) == 2
    assert "is not a PNG" in capsys.readouterr().err
