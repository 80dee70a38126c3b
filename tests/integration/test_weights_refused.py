# SPDX-License-Identifier: Apache-2.0
"""Spoilt weights through the real command and server: refused by name, and nothing delivered.

The sets lie on disk as published, at the size of ``tiny``: a ``sitecustomize`` in every process of
the test makes the CogVideoX backbones that small, so that memory is no reason to refuse them.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel

from command_line import Shot, environment, finish, matte_of, plate_of, write_picture
from gencomp_server.models import tiny
from gencomp_server.models.loading import build_on_meta

BASE = "cogvideox-fun-v1.5-5b-inp"
WIDE = "transformer_blocks.0.ff.net.0.proj.weight"
SMALL = """
from dataclasses import replace
import gencomp_server.backbones as table
small = table.spec_named("tiny").architecture
table.SPECS = tuple(
    replace(one, architecture=small, model_size=(80, 48)) if one.family == "cogvideox" else one
    for one in table.SPECS
)
"""
SCHEDULER = {
    "prediction_type": "v_prediction",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
}


def filled(kind, config, name):
    made = build_on_meta(lambda: kind(config) if kind is T5EncoderModel else kind(**config))
    tiny.fill(made, name, device=torch.device("cpu"), dtype=torch.float32)
    return made.state_dict()


def put(folder, state, config, name="diffusion_pytorch_model.safetensors"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / name)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return the folder of sets: Casper's and its base's; and the good state of both."""
    folder = tmp_path_factory.mktemp("weights")
    good = filled(CogVideoXTransformer3DModel, tiny.TRANSFORMER, "transformer")
    put(folder / BASE / "transformer", good, tiny.TRANSFORMER)
    put(folder / BASE / "vae", filled(AutoencoderKLCogVideoX, tiny.VAE, "vae"), tiny.VAE)
    words = tiny.tokenizer()
    words.save_pretrained(folder / BASE / "tokenizer")
    config = {"vocab_size": len(words), **tiny.TEXT}
    text = filled(T5EncoderModel, T5Config(**config), "text")
    text.pop("encoder.embed_tokens.weight", None)
    put(folder / BASE / "text_encoder", text, config, "model.safetensors")
    (folder / BASE / "scheduler").mkdir()
    (folder / BASE / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (folder / "casper").mkdir()
    return folder, good


@pytest.fixture(scope="module")
def start(weights, tmp_path_factory):
    """Return a function that starts the command where these weights are."""
    place = tmp_path_factory.mktemp("small")
    (place / "sitecustomize.py").write_text(SMALL)
    (place / "home").mkdir()
    env = {name: value for name, value in environment().items() if name != "GENCOMP_REGISTRY"}
    env["PYTHONPATH"] = os.pathsep.join([str(place), env["PYTHONPATH"]])
    env |= {
        "HOME": str(place / "home"),
        "GENCOMP_WEIGHTS": str(weights[0]),
        "GENCOMP_WEIGHTS_LOCK": str(place / "weights.lock"),
    }

    def started(*words):
        command = [sys.executable, "-m", "gencomp_server", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=env, text=True, **pipes)

    started.lock = place / "weights.lock"
    return started


@pytest.fixture(scope="module")
def server(start, tmp_path_factory):
    """Run one server for all of them: none may take it along."""
    process = start("serve", "--port", "0", "--spool", str(tmp_path_factory.mktemp("spool")))
    yield process.stdout.readline().split()[-1]
    process.terminate()
    finish(process)
    assert process.returncode == 0


@pytest.fixture
def run(start, server, tmp_path):
    """Return a function that runs Over++ on Casper; and the folder it would fill."""
    shot = Shot(tmp_path)
    write_picture(shot.plate(1001), plate_of(1001, 64, 48), ("R", "G", "B"))
    write_picture(shot.matte(1001), matte_of(64, 48), ("A",))
    words = [
        *("run", "overplusplus", "--out", str(shot.out), "--server", server),
        *("--input", f"plate={shot.plate(1001)}", "--input", f"effect_mask={shot.matte(1001)}"),
        *("--set", "backbone=casper", "--set", "steps=1", "--set", "model_size=48x32"),
        *("--set", "guidance=1", "--set", "prompt=wake"),
    ]
    return lambda: finish(start(*words)), shot.out


def cut_short(file, good):
    save_file(good, file)
    file.write_bytes(file.read_bytes()[:-1000])


SPOILT = {
    "wrong size": (
        lambda file, good: save_file({**good, WIDE: torch.zeros(3, 32)}, file),
        ("do not fit Casper", "3x32 where 128x32 is needed", "gencomp weights list"),
    ),
    "cut short": (cut_short, ("is cut short", "Install it again")),
    "another model": (
        lambda file, good: save_file(
            {"patch_embedding.weight": torch.zeros(1536, 36, 1, 2, 2)}, file
        ),
        ("do not fit Casper", "of a Wan transformer", "gencomp weights list"),
    ),
    "not finite": (
        lambda file, good: save_file(
            {**good, "proj_out.bias": good["proj_out.bias"] * float("nan")}, file
        ),
        ("not finite, in 'proj_out.bias'", "gencomp weights verify casper"),
    ),
    "empty": (lambda file, good: file.write_bytes(b""), ("is cut short: it is empty", "Install")),
    "a pickle": (
        lambda file, good: torch.save(good, file),
        ("is a pickle", "only safetensors are read", "gencomp weights convert"),
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_when_weights_are_spoilt_then_they_are_refused_by_name_with_a_cure(
    run, start, weights, case
):
    command, out = run
    spoil, words = SPOILT[case]
    start.lock.unlink(missing_ok=True)
    spoil(weights[0] / "casper" / "diffusion_pytorch_model.safetensors", weights[1])
    ended = command()
    assert ended.code == 4, ended
    assert len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err
    assert [path for path in out.rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.fault("F17")
def test_when_verified_weights_change_then_they_are_refused_until_that_is_accepted(
    run, start, weights
):
    command, out = run
    file, good = weights[0] / "casper" / "diffusion_pytorch_model.safetensors", weights[1]
    start.lock.unlink(missing_ok=True)
    save_file(good, file)
    assert finish(start("weights", "verify", "casper")).code == 0
    save_file({**good, "proj_out.bias": good["proj_out.bias"] + 1}, file)
    ended = command()
    assert ended.code == 4
    assert "has changed since it was verified" in ended.err
    assert "gencomp weights verify --accept casper" in ended.err
    assert [path for path in out.rglob("*") if path.is_file()] == []
    assert finish(start("weights", "verify", "--accept", "casper")).code == 0
    ended = command()
    assert (ended.code, ended.err) == (0, "")
    assert "\nloading weights 0/100\n" in ended.out
    assert "\nloading weights 100/100" in ended.out
    backbone = json.loads((out / "manifest.json").read_text())["backbone"]
    assert (backbone["name"], backbone["untrained"]) == ("casper", False)
    assert (backbone["surrogate"], backbone["licence_class"]) == (True, "registration needed")
