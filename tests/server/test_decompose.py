# SPDX-License-Identifier: Apache-2.0
"""``gencomp decompose``: what it asks for, what it writes, what it refuses, what leaves.

One job of Omnimatte runs for real; elsewhere the background comes from a stand-in for it.
"""

import json
import os
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

import gencomp_protocol
import gencomp_server
from gencomp_protocol.frames import Box
from gencomp_server import cli
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer
from gencomp_server.training.layout import read_clips, read_picture

FRAMES = (1001, 1002, 1003)
WIDTH, HEIGHT = 32, 24
PLATE, CLEAN = 0.5, 0.25
COVERED = (slice(8, 16), slice(8, 24))


def write(path, pixels, channels=("R", "G", "B")):
    path.parent.mkdir(parents=True, exist_ok=True)
    window = Box(0, 0, pixels.shape[1] - 1, pixels.shape[0] - 1)
    write_layer(path, LayerFrame("x", 0, pixels, channels, window, window))


@pytest.fixture
def shot(tmp_path, monkeypatch):
    """A grey shot of three frames with a brighter block, and the block's roto.

    Nobody's own settings are read, and a server that is started finds the packages.
    """
    roots = {Path(one.__file__).parent.parent for one in (gencomp_server, gencomp_protocol)}
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, roots)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENCOMP_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OCIO", raising=False)
    for n in FRAMES:
        plate = np.full((HEIGHT, WIDTH, 3), CLEAN, np.float16)
        plate[COVERED] = PLATE
        write(tmp_path / "dog" / f"dog.{n}.exr", plate)
        matte = np.zeros((HEIGHT, WIDTH, 1), np.float16)
        matte[COVERED] = 1
        matte[8] *= 0.5
        write(tmp_path / "roto" / f"roto.{n}.exr", matte, ("A",))
    return tmp_path


@pytest.fixture
def background(shot, monkeypatch):
    """Let a clean plate come without a server; what was asked for is kept."""
    asked = []

    def deliver(args, narrator):
        asked.append(args)
        for n in FRAMES:
            write(args.out / "clean" / f"clean.{n}.exr", np.full((HEIGHT, WIDTH, 3), CLEAN, "f2"))
        manifest = {"report": {"clean_plate_from": "temporal"}}
        (args.out / "manifest.json").write_text(json.dumps(manifest))
        narrator.done({"seconds": 1.5})

    monkeypatch.setattr(cli, "_deliver", deliver)
    return asked


def decompose(*words):
    return cli.main(["decompose", "--out", "clips", *words])


GIVEN = ("--input", "plate=dog/dog.%04d.exr", "--input", "matte=roto/roto.%04d.exr")


# --- with a matte that is given ------------------------------------------------------------------


def test_a_shot_becomes_its_layers(background, shot):
    assert decompose(*GIVEN, "--caption", " A dog\n runs. ") == 0
    (clip,) = read_clips(shot / "clips")
    assert (clip.name, clip.frames, clip.caption) == ("dog", FRAMES, "A dog runs.")
    for i in range(3):
        original, fg, matte, behind = (
            read_picture(clip.files(layer)[i])
            for layer in ("original", "fg", "matte", "background")
        )
        assert original[8, 8].tolist() == [PLATE] * 3
        assert fg[9, 9].tolist() == [PLATE] * 3
        assert fg[8, 9].tolist() == [PLATE / 2] * 3
        assert not fg[0].any()
        assert matte[8:10, 9, 0].tolist() == [0.5, 1.0]
        assert (behind == CLEAN).all()
    assert clip.made == {
        "original": str(shot / "dog/dog.%04d.exr"),
        "matte": "given",
        "background": "omnimatte, temporal",
        "caption": "given",
    }


def test_a_clip_of_another_plate_is_not_written_over(background, shot, capsys):
    assert decompose(*GIVEN) == 0
    before = (shot / "clips/dog/clip.toml").read_bytes()
    shutil.copytree(shot / "dog", shot / "other")
    assert decompose("--input", "plate=other/dog.%04d.exr", *GIVEN[2:]) == 2
    assert "'dog' in clips already, of another plate" in capsys.readouterr().err
    assert (shot / "clips/dog/clip.toml").read_bytes() == before
    assert decompose(*GIVEN, "--caption", "A dog.") == 0
    assert read_clips(shot / "clips")[0].caption == "A dog."


def test_the_job_is_an_omnimatte_with_the_shot_and_what_was_set(background, shot):
    words = ("--set", "clean_plate_from=temporal", "--frames", "1001-1003", "--exposure", "1.5")
    assert decompose(*GIVEN, *words, "--input", "clean_plate=dog/dog.1001.exr") == 0
    (args,) = background
    assert args.system == "omnimatte"
    assert args.frames == "1001-1003"
    assert args.knobs == ["clean_plate_from=temporal"]
    assert args.input == [
        "plate=dog/dog.%04d.exr",
        "matte.subject=roto/roto.%04d.exr",
        "clean_plate=dog/dog.1001.exr",
    ]
    assert read_clips(shot / "clips")[0].exposure == 1.5
    assert not args.out.exists()


def test_a_job_that_fails_leaves_no_clip_and_what_it_made(background, shot, monkeypatch):
    from gencomp_protocol.errors import WorkerLost

    assert decompose(*GIVEN) == 0

    def fail(args, narrator):
        (args.out / "kept").parent.mkdir(parents=True)
        (args.out / "kept").write_text("")
        raise WorkerLost("The worker went away.")

    monkeypatch.setattr(cli, "_deliver", fail)
    assert decompose(*GIVEN) == 4
    assert not (shot / "clips" / "dog" / "clip.toml").exists()
    assert (shot / "clips" / "dog" / ".decompose" / "kept").exists()


def test_what_is_not_finite_is_mended(background, shot):
    bad = np.full((HEIGHT, WIDTH, 3), CLEAN, np.float16)
    bad[2, 3] = np.nan
    write(shot / "dog" / "dog.1002.exr", bad)
    assert decompose(*GIVEN) == 0
    (clip,) = read_clips(shot / "clips")
    assert read_picture(clip.original[1])[2, 3].tolist() == [CLEAN] * 3


def test_an_unpaired_clip_needs_no_job(background, shot):
    assert decompose(*GIVEN[:2], "--unpaired", "--caption", "A dog.") == 0
    (clip,) = read_clips(shot / "clips")
    assert clip.unpaired
    assert background == []
    assert read_picture(clip.original[0])[9, 9].tolist() == [PLATE] * 3


@pytest.mark.slow
def test_a_real_job_makes_the_background(shot):
    # Whatever it takes the block for, outside of it the plate stays, and the clip is whole.
    assert decompose(*GIVEN, "--name", "real", "--set", "clean_plate_from=temporal") == 0
    (clip,) = read_clips(shot / "clips")
    assert clip.name == "real"
    behind = read_picture(clip.background[0])
    assert (behind[:4] == CLEAN).all()
    assert abs(float(behind[COVERED].mean()) - CLEAN) < 0.1
    report = json.loads((shot / "clips" / "real" / "decompose.json").read_text())
    assert report["system"] == "omnimatte"
    assert not (shot / "clips" / "real" / ".decompose").exists()


# --- with a segmenter ----------------------------------------------------------------------------


@pytest.fixture
def segmenter(shot, monkeypatch):
    """A segmenter that marks what is brighter than the middle of the range it is shown."""
    script = shot / "find.py"
    script.write_text(
        f"#!{sys.executable}\n"
        "import cv2, pathlib, sys\n"
        "frames, words, out = sys.argv[1:]\n"
        "for path in sorted(pathlib.Path(frames).iterdir()):\n"
        "    grey = cv2.imread(str(path), 0)\n"
        "    found = (grey > 160).astype('u1') * 255 * (words == 'the dog')\n"
        "    cv2.imwrite(str(pathlib.Path(out) / path.name), found.astype('u1'))\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("GENCOMP_SEGMENTER", f"{script} {{frames}} {{words}} {{out}}")
    return script


def test_a_segmenter_draws_the_matte(background, shot, segmenter):
    # sRGB of 0.25 is 137, of 0.5 it is 188: the block is what is above 160.
    assert decompose(*GIVEN[:2], "--find", "the dog") == 0
    (clip,) = read_clips(shot / "clips")
    for i in range(3):
        matte = read_picture(clip.matte[i])
        assert matte[COVERED].min() == 1.0
        assert matte.sum() == 8 * 16
    assert clip.made["matte"] == "find.py: the dog"
    assert background[0].input[1] == "matte.subject=clips/dog/matte/matte.%04d.exr"


def test_a_segmenter_that_finds_nothing_is_said_with_its_words(background, shot, segmenter, capsys):
    assert decompose(*GIVEN[:2], "--find", "a cat") == 2
    assert "'find.py' found no 'a cat' on frames 1001-1003" in capsys.readouterr().err
    assert background == []


def test_without_a_segmenter_nothing_can_be_found(background, capsys):
    assert decompose(*GIVEN[:2], "--find", "the dog") == 2
    assert "setting 'segmenter' is empty" in capsys.readouterr().err


# --- captions ------------------------------------------------------------------------------------


@pytest.fixture
def assistant(shot, monkeypatch):
    """An assistant that is allowed; what leaves is kept, and one caption comes back."""
    from gencomp_server import assistant

    sent = []

    def post(letter):
        sent.append(letter)
        return json.dumps({"caption": "A bright block stands in a grey place. " * 12})

    monkeypatch.setattr(assistant, "post", post)
    monkeypatch.setenv("GENCOMP_ALLOW_NETWORK", "true")
    monkeypatch.setenv("GENCOMP_ASSISTANT_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("GENCOMP_ASSISTANT_MODEL", "teller")
    return sent


def test_an_assistant_writes_the_caption_once_somebody_agrees(background, shot, assistant):
    assert decompose(*GIVEN, "--ask-caption", "--yes") == 0
    (clip,) = read_clips(shot / "clips")
    assert clip.caption.startswith("A bright block stands")
    assert clip.made["caption"] == "teller at 127.0.0.1:9"
    (letter,) = assistant
    assert [one.label for one in letter.pictures] == [f"plate frame {n}" for n in FRAMES]


def test_nothing_leaves_and_nothing_runs_where_nobody_agrees(
    background, shot, assistant, monkeypatch, capsys
):
    with open("/dev/null") as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        assert decompose(*GIVEN, "--ask-caption") == 2
    said = capsys.readouterr().err
    assert "127.0.0.1:9" in said
    assert "Nothing was sent." in said
    assert assistant == []
    assert background == []


def test_the_assistant_is_off_until_the_settings_allow_it(background, capsys):
    assert decompose(*GIVEN, "--ask-caption", "--yes") == 2
    assert "'allow_network' is false" in capsys.readouterr().err


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (GIVEN[2:], "decompose needs the plate"),
        (GIVEN[:2], "needs the subject's matte"),
        ((*GIVEN, "--find", "dog"), "needs the subject's matte"),
        ((*GIVEN, "--input", "plate=x.%04d.exr"), "names 'plate' twice"),
        ((*GIVEN, "--input", "depth=x.%04d.exr"), "is none of plate, matte, clean_plate"),
        ((*GIVEN, "--unpaired"), "--unpaired keeps no layers"),
        ((*GIVEN, "--caption", "x", "--ask-caption"), "exclude each other"),
        ((*GIVEN, "--name", "../up"), "cannot be the name of a clip"),
        (("--input", "plate=cat/cat.%04d.exr", *GIVEN[2:]), "Input 'plate' has no frames"),
        ((*GIVEN, "--working-space", "nonsense"), "nonsense"),
        ((*GIVEN, "--exposure", "nan"), "not a number of stops"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    background, shot, words, sentence, capsys
):
    assert decompose(*words) == 2
    assert sentence in capsys.readouterr().err
    assert not (shot / "clips").exists()
    assert background == []


def test_an_empty_matte_is_refused(background, shot, capsys):
    shutil.rmtree(shot / "roto")
    for n in FRAMES:
        write(shot / "roto" / f"roto.{n}.exr", np.zeros((HEIGHT, WIDTH, 1), np.float16), ("A",))
    assert decompose(*GIVEN) == 2
    assert "matte of clip 'dog' covers nothing on frames 1001-1003" in capsys.readouterr().err
    assert not (shot / "clips" / "dog" / "clip.toml").exists()


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("dog/dog.%04d.exr", "dog"),
        ("a b/my dog_####.exr", "my_dog"),
        ("dog/shot_010.1001.exr", "shot_010"),
        ("dog/%04d.exr", "dog"),
    ],
)
def test_a_clip_is_named_after_its_files(pattern, name):
    from gencomp_server.decompose_cli import _named_after

    assert _named_after(pattern) == name
