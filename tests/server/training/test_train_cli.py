# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import os
import signal

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, ToolFailed
from gencomp_server import caption_variants
from gencomp_server.assistant import Endpoint
from gencomp_server.backbones import spec_named
from gencomp_server.cli import main
from gencomp_server.train_cli import _asked_to_stop, _config, _settings, add_train
from gencomp_server.training.layout import clip_at, write_clip, write_picture
from gencomp_server.training.recipes import RECIPES

ENDPOINT = Endpoint("http://localhost:9/v1", "small")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Give the command a home folder without settings and without weights."""
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path):
    """Return a folder with one clip for training."""
    rng = np.random.default_rng(1)
    clip = clip_at(tmp_path / "clips", "boat", (1, 2, 3, 4, 5), caption="A boat on a lake.")
    for layer in clip.layers:
        for path in clip.files(layer):
            pixels = rng.uniform(0, 1, (32, 48, 1 if layer == "matte" else 3)).astype(np.float32)
            write_picture(path, np.round(pixels) if layer == "matte" else pixels)
    write_clip(tmp_path / "clips", clip)
    return tmp_path / "clips"


def short(recipe, out, *more):
    words = ["train", recipe, "--out", str(out), "--tiny", "--size", "48x32", "--steps", "1"]
    return main([*words, "--grid-every", "0", *map(str, more)])


def arguments(recipe, *more):
    parser = argparse.ArgumentParser()
    add_train(parser.add_subparsers())
    return parser.parse_args(["train", recipe, "--procedural", "2", "--out", "out", *more])


def settings_of(recipe, *more):
    found = RECIPES[recipe]
    return _settings(arguments(recipe, *more), found, spec_named(found.backbone))


def test_the_command_trains_on_clips_of_ones_own_and_goes_on(folder, tmp_path, capsys):
    pytest.importorskip("torch")
    assert short("casper", tmp_path / "out", "--data", folder) == 0
    assert "Loss on the fixed set:" in capsys.readouterr().out
    more = ("--data", folder, "--resume", "--steps", 2)
    assert short("casper", tmp_path / "out", *more) == 0
    told = capsys.readouterr().out
    assert "step 2 of 2: loss" in told
    assert "step 1 of 2: loss" not in told
    assert (tmp_path / "out/weights/diffusion_pytorch_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["casper", "--procedural", "0"], "0 procedural clips"),
        (["casper", "--procedural", "2", "--frames", "7"], "frames = 7"),
        (["casper", "--procedural", "2", "--backbone", "casper"], "two models"),
        (["splitthenmerge", "--procedural", "2", "--size", "64x64"], "works at 48x32 only"),
        (["casper", "--data", "nowhere"], "no clip for training"),
        (["casper", "--procedural", "2", "--device", "abacus"], "'device' cannot be 'abacus'"),
        (["casper", "--procedural", "2", "--device", "cuda:99"], "'cuda:99' cannot be had"),
        (["casper", "--procedural", "2", "--captions", "x.json"], "clips of your own"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(words, told, tmp_path, capsys):
    assert main(["train", *words, "--tiny", "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_installed_is_said_before_anything_is_made(tmp_path, capsys):
    words = ["train", "gencompositor", "--procedural", "2", "--out", str(tmp_path / "out")]
    assert main(words) != 0
    assert "cogvideox-5b-i2v" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_clip_that_a_recipe_cannot_learn_from_is_refused_before_a_model_is_loaded(
    folder, tmp_path, capsys
):
    clip = clip_at(folder, "sea", (1,), unpaired=True)
    write_picture(clip.original[0], np.zeros((32, 48, 3), np.float32))
    write_clip(folder, clip)
    words = ["train", "splitthenmerge", "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 2  # no weights are installed, and that is not what is said
    assert "cannot learn from clip 'sea'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("processes", "batch", "forwards"), [(1, "1", 64), (8, "2", 4), (8, "16", 1), (1, "5", 13)]
)
def test_a_step_has_the_recipes_clips_whatever_the_processes(
    processes, batch, forwards, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert settings_of("splitthenmerge", "--batch", batch).accumulate == forwards


def test_a_folder_that_holds_a_training_is_refused_before_a_model_is_loaded(tmp_path, capsys):
    state = tmp_path / "out/checkpoints/step-00000001/state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    words = ["train", "casper", "--procedural", "2", "--out", str(tmp_path / "out")]
    assert main(words) == 2  # no weights are installed, and that is not what is said
    assert "There is a training in" in capsys.readouterr().err


def test_each_of_several_processes_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert _config(arguments("casper", "--device", "cuda")).device == "cuda:3"
    assert _config(arguments("casper", "--device", "cpu")).device == "cpu"


@pytest.mark.parametrize("name", ["gencompositor", "preview"])
def test_a_model_of_another_system_or_kind_is_refused(tmp_path, capsys, name):
    words = ["train", "casper", "--procedural", "2", "--backbone", name]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert f"cannot be trained from '{name}'" in capsys.readouterr().err


def test_the_first_interrupt_asks_and_the_second_is_what_it_was():
    before = signal.getsignal(signal.SIGINT)
    with _asked_to_stop() as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        assert signal.getsignal(signal.SIGINT) == before
    assert signal.getsignal(signal.SIGINT) == before


# --- captions ------------------------------------------------------------------------------------


def answer(monkeypatch, said):
    sent = []

    def post(letter):
        sent.append(letter)
        return said(json.loads(letter.text)) if callable(said) else said

    monkeypatch.setattr(caption_variants, "post", post)
    return sent


def test_captions_are_asked_for_twenty_clips_at_a_time_and_hold_no_picture(monkeypatch):
    def said(captions):
        return json.dumps(
            {name: [f"{text} {i}" for i in range(2)] for name, text in captions.items()}
        )

    sent = answer(monkeypatch, said)
    captions = {f"clip{i:02d}": f"Scene {i}" for i in range(25)} | {"mute": " "}
    found = caption_variants.ask(ENDPOINT, captions, 2, "same", lambda letter: True)
    assert [len(json.loads(letter.text)) for letter in sent] == [20, 5]
    assert all(letter.pictures == () for letter in sent)
    assert found["clip24"] == ("Scene 24 0", "Scene 24 1")
    assert "mute" not in found


def test_nothing_leaves_before_all_of_it_is_agreed_to(monkeypatch):
    sent = answer(monkeypatch, "{}")
    captions = {f"clip{i:02d}": "Scene" for i in range(25)}
    answers = iter([True, False])
    assert caption_variants.ask(ENDPOINT, captions, 2, "effects", lambda _: next(answers)) is None
    assert sent == []


@pytest.mark.parametrize(
    "said",
    [
        "I would rather not.",
        "[]",
        '{"ship": ["a", "b"]}',
        '{"boat": ["a"]}',
        '{"boat": ["a", ""]}',
        '{"boat": ["a", 3]}',
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(said, monkeypatch):
    answer(monkeypatch, said)
    with pytest.raises(ToolFailed, match="cannot be used"):
        caption_variants.ask(ENDPOINT, {"boat": "A boat."}, 2, "same", lambda _: True)


@pytest.mark.parametrize(
    ("captions", "count", "kind"),
    [({"a": "x"}, 0, "same"), ({"a": "x"}, 2, "other"), ({"a": ""}, 2, "same")],
)
def test_captions_that_cannot_be_asked_for_are_refused(captions, count, kind):
    with pytest.raises(BadKnob):
        list(caption_variants.letters(ENDPOINT, captions, count, kind))


def test_the_command_writes_what_training_reads(folder, home, tmp_path, monkeypatch, capsys):
    from gencomp_server.training.data import read_captions

    monkeypatch.setenv("GENCOMP_ALLOW_NETWORK", "true")
    monkeypatch.setenv("GENCOMP_ASSISTANT_URL", ENDPOINT.url)
    monkeypatch.setenv("GENCOMP_ASSISTANT_MODEL", ENDPOINT.model)
    answer(monkeypatch, '{"boat": ["A lake with a boat."]}')
    file = tmp_path / "captions.json"
    words = ["captions", "--data", str(folder), "--out", str(file), "--count", "1", "--yes"]
    assert main(words) == 0
    assert "A boat on a lake." in capsys.readouterr().err  # what leaves is shown
    assert read_captions(file) == {"boat": ("A lake with a boat.",)}


def test_the_assistant_is_off_until_it_is_allowed(folder, tmp_path, capsys):
    words = ["captions", "--data", str(folder), "--out", str(tmp_path / "captions.json")]
    assert main(words) == 2
    assert "allow_network" in capsys.readouterr().err
