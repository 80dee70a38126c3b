# SPDX-License-Identifier: Apache-2.0
"""Colour through the whole command: what is refused, what is said, what the manifest keeps."""

import json
import os

import cv2
import numpy as np
import pytest

CG = "ocio://cg-config-v2.1.0_aces-v1.3_ocio-v2.3"


def broken(folder):
    file = folder / "broken.ocio"
    file.write_text("ocio_profile_version: 2\nroles: [")
    return file


def silent(folder):
    """Write a config that does not say what its colours are."""
    file = folder / "silent.ocio"
    file.write_text(
        "ocio_profile_version: 2\n"
        "roles: {default: flat, scene_linear: flat}\n"
        "displays: {screen: [!<View> {name: flat, colorspace: flat}]}\n"
        "colorspaces: [!<ColorSpace> {name: flat, encoding: scene-linear}]\n"
    )
    return file


CASES = {
    "an unknown space": (("--working-space", "ACEScq"), ("'ACEScq'", "Near are: ACEScg")),
    "a space that is a log": (("--working-space", "ACEScct"), ("'ACEScct'", "not scene-linear")),
    "a space of data": (("--working-space", "Raw"), ("'Raw'", "not scene-linear (data)")),
    "a config that does not parse": (("--ocio", "BROKEN"), ("broken.ocio", "line 2", "--ocio")),
    "a config that is not there": (("--ocio", "no.ocio"), ("/no.ocio", "No such file", "--ocio")),
    "a config that moves with releases": (("--ocio", "ocio://default"), ("'default'", "in full")),
    "a config without a way out": (("--ocio", "SILENT"), ("silent.ocio", "aces_interchange")),
}


def refused(ended, *said):
    """Check that a command ended with one sentence of the request."""
    assert ended.code == 2, ended
    assert len(ended.err.splitlines()) == 1
    for word in said:
        assert word in ended.err
    assert "pictures sent" not in ended.out


_QUICK = ("an unknown space", "a config that does not parse")


@pytest.mark.parametrize(
    "case",
    [one if one in _QUICK else pytest.param(one, marks=pytest.mark.slow) for one in CASES],
)
def test_bad_colour_is_refused_before_a_picture_travels(shot, gencomp, case):
    words, said = CASES[case]
    places = {"BROKEN": broken(shot.folder), "SILENT": silent(shot.folder)}
    refused(gencomp(*shot.words, *(str(places.get(word, word)) for word in words)), *said)
    assert not list(shot.out.glob("*/*.exr"))
    assert not (shot.out / "manifest.json").exists()


def test_a_plan_refuses_as_the_run_would(shot, gencomp):
    ended = gencomp("plan", "cutout", *shot.words[4:], "--working-space", "ACEScq")
    refused(ended, "'ACEScq'", "Near are: ACEScg")


def test_srgb_pictures_are_refused_in_another_space(shot, gencomp):
    for frame in (1001, 1002, 1003):
        cv2.imwrite(str(shot.folder / f"codes.{frame}.png"), np.full((32, 48, 3), 99, np.uint8))
    words = [*shot.words[:4], "--input", f"plate={shot.folder}/codes.####.png", *shot.words[6:]]
    refused(gencomp(*words, "--working-space", "ACEScg"), "'plate' holds sRGB codes", "ACEScg")


def test_a_space_is_resolved_said_and_kept_in_the_manifest(shot, gencomp):
    ended = gencomp(*shot.words, "--working-space", "scene_linear (ACES - ACEScg)", "--ocio", CG)
    assert ended.code == 0, ended
    manifest = json.loads((shot.out / "manifest.json").read_text())
    colour = manifest["colour"]
    assert (colour["working_space"], colour["config"]) == ("ACEScg", CG)
    assert colour["asked"] == "scene_linear (ACES - ACEScg)"
    assert colour["to_rec709"][0] == pytest.approx(1.70505, abs=1e-5)
    assert len(colour["config_id"]) > 16


@pytest.mark.slow
def test_the_manifest_of_a_run_that_says_nothing_says_linear_rec709(shot, gencomp):
    assert gencomp(*shot.words).code == 0
    colour = json.loads((shot.out / "manifest.json").read_text())["colour"]
    assert colour["working_space"] == "Linear Rec.709 (sRGB)"
    assert (colour["asked"], colour["config"], colour["config_id"]) == ("scene_linear", "", "")


def test_the_variable_names_the_config_and_the_run_says_so(shot, gencomp, monkeypatch):
    monkeypatch.setitem(os.environ, "OCIO", CG)
    ended = gencomp(*shot.words)
    assert ended.code == 0, ended
    assert f"Colours are those of the variable OCIO, {CG}" in ended.out
    colour = json.loads((shot.out / "manifest.json").read_text())["colour"]
    assert (colour["asked"], colour["working_space"]) == ("scene_linear", "ACEScg")


@pytest.mark.slow
def test_an_empty_config_passes_the_variable_over(shot, gencomp, monkeypatch):
    monkeypatch.setitem(os.environ, "OCIO", CG)
    assert gencomp(*shot.words, "--ocio", "").code == 0
    assert json.loads((shot.out / "manifest.json").read_text())["colour"]["config"] == ""


def test_a_plan_says_what_the_pictures_are_taken_for(shot, gencomp):
    ended = gencomp("plan", "cutout", *shot.words[4:], "--working-space", "linear p3")
    assert ended.code == 0, ended
    assert "All pictures are taken as Linear P3-D65" in ended.out
