# SPDX-License-Identifier: Apache-2.0
"""``gencomp weights``: what a TD reads, and what the commands do."""

import argparse
import hashlib
import json
import re
import struct
from pathlib import Path

import pytest

from gencomp_protocol.errors import (
    BadKnob,
    InternalError,
    OutOfMemory,
    WeightsMissing,
    WeightsRefused,
)
from gencomp_server import weights_cli
from gencomp_server.backbones import SPECS
from gencomp_server.weights import Shelf

WHOLE = struct.pack("<Q", 2) + b"{}"  # A safetensors file without tensors.


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path))
    for name in ("WEIGHTS", "WEIGHTS_LOCK", "ALLOWED_LICENCES"):
        monkeypatch.delenv(f"GENCOMP_{name}", raising=False)
    return tmp_path


def run(*words):
    parser = argparse.ArgumentParser()
    weights_cli.add_weights(parser.add_subparsers(required=True))
    args = parser.parse_args(["weights", *words])
    return args.command(args)


def install(home, name):
    """Fill a set's folder and return it."""
    shelf = Shelf(home / "weights", home / "weights.lock")
    for file in shelf.set(name).files:
        path = shelf.place(name) / file.paths[0]
        if path.suffix in (".safetensors", ".json"):
            put(path, WHOLE if path.suffix == ".safetensors" else b"{}")
        else:
            put(path / "config.json", b"{}")
            put(path / "model.safetensors", WHOLE)
    return shelf.place(name)


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def part_of(text, name):
    """Return what the listing says of one set, its lines joined."""
    part = next(one for one in text.split("\n\n") if f"  {name}  " in one.splitlines()[0])
    return " ".join(part.split())


def test_an_empty_shelf_is_listed_with_every_path_and_where_to_get_it(home, capsys):
    assert run("list", "--long") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Weights belong in {home / 'weights'};")
    part = part_of(text, "casper")
    assert part.startswith("MISSING casper Casper on CogVideoX-Fun V1.5 5B InP")
    assert f"{home / 'weights/casper/diffusion_pytorch_model.safetensors'}" in part
    assert "get it From github gen-omnimatte/gen-omnimatte-public" in part
    assert "licence registration needed:" in part
    assert "proven against reference vectors (vector)" in part
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= 100


def test_what_is_installed_is_listed_so_and_what_is_not_allowed_as_refused(
    home, capsys, monkeypatch
):
    install(home, "wan2.1-fun-1.3b-inp")
    install(home, "cogvideox-fun-v1.5-5b-inp")
    monkeypatch.setenv("GENCOMP_ALLOWED_LICENCES", "production")
    run("list", "--long")
    text = capsys.readouterr().out
    assert part_of(text, "wan2.1-fun-1.3b-inp").startswith("INSTALLED wan2.1-fun-1.3b-inp")
    part = part_of(text, "cogvideox-fun-v1.5-5b-inp")
    assert part.startswith("REFUSED cogvideox-fun-v1.5-5b-inp")
    assert "not in the setting allowed_licences" in part


def test_what_lies_there_as_published_is_listed_with_the_command_that_converts_it(home, capsys):
    folder = install(home, "wan2.1-fun-1.3b-inp")
    (folder / "Wan2.1_VAE.safetensors").rename(folder / "Wan2.1_VAE.pth")
    put(folder / "stray.bin", b"x")
    run("list", "--long")
    part = part_of(capsys.readouterr().out, "wan2.1-fun-1.3b-inp")
    source, made = folder / "Wan2.1_VAE.pth", folder / "Wan2.1_VAE.safetensors"
    assert f"gencomp weights convert {source} {made}" in part
    assert f"{folder / 'stray.bin'} is a pickle" in part
    assert f"{source} is a pickle" not in part


def test_the_list_has_one_line_for_each_choice_with_what_it_takes(home, capsys):
    install(home, "wan2.1-fun-1.3b-inp")
    install(home, "wan-casper-1.3b")
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = (line.split() for line in lines if re.search(r" GB +~", line))
    found = {row[0]: " ".join(row[1:]) for row in rows}
    assert list(found) == [spec.name for spec in SPECS if not spec.is_tiny]
    # (5 571 094 144 + 215 583 907 + 4 762 310 656) parameters of two bytes each.
    assert found["casper"].startswith("missing registration needed 20 GB to 31 GB ~22 GB omnimatte")
    assert found["casper"].endswith("overplusplus (stands in)")
    assert found["wan-casper-1.3b"].startswith("installed production")
    assert found["preview"].startswith("ships production")


def test_a_name_lists_that_set_alone_with_what_it_takes_of_its_base(home, capsys):
    assert run("list", "casper") == 0
    text = capsys.readouterr().out
    assert text.count("MISSING") == 1
    part = part_of(text, "casper")
    assert "takes the set casper and parts of its base cogvideox-fun-v1.5-5b-inp." in part
    assert "its base From the model's own page" in part
    with pytest.raises(BadKnob, match="no set of weights 'caspar'"):
        run("list", "caspar")


def test_a_damaged_set_is_listed_so_and_the_others_as_ever(home, capsys):
    wan = "wan2.1-fun-1.3b-inp"
    folder = install(home, wan)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    put(index, b"{")
    run("list", "--json")
    states = {one["name"]: one["state"] for one in json.loads(capsys.readouterr().out)}
    assert (states[wan], states["casper"]) == ("damaged", "missing")
    run("list", "--long")
    text = " ".join(capsys.readouterr().out.split())
    assert f"damaged The weights file {index} is damaged" in text
    assert "MISSING casper" in text


def test_the_list_as_json_holds_everything_that_is_declared(home, capsys):
    install(home, "wan2.1-fun-1.3b-inp")
    run("list", "--json")
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["wan2.1-fun-1.3b-inp"]["state"] == "installed"
    assert found["casper"]["state"] == "missing"
    assert found["casper"]["disk_bytes_estimated"] == 2 * (5571094144 + 215583907 + 4762310656)
    assert found["casper"]["governing_class"] == "registration needed"
    assert found["casper"]["files"][0]["sha256"] == "unknown"


def test_verify_shows_every_digest_and_says_where_it_is_recorded(home, capsys):
    install(home, "wan2.1-fun-1.3b-inp")
    assert run("verify") == 0
    text = capsys.readouterr().out
    digest = hashlib.sha256(WHOLE).hexdigest()
    assert f"{digest}  wan2.1-fun-1.3b-inp/Wan2.1_VAE.safetensors\n" in text
    assert text.endswith(f"Recorded in {home / 'weights.lock'}: wan2.1-fun-1.3b-inp.\n")


def test_verify_refuses_a_changed_file_until_the_change_is_accepted(home):
    folder = install(home, "wan2.1-fun-1.3b-inp")
    run("verify", "wan2.1-fun-1.3b-inp")
    put(folder / "config.json", b'{"dim": 3}')
    with pytest.raises(WeightsRefused, match=r"config\.json has changed"):
        run("verify", "wan2.1-fun-1.3b-inp")
    assert run("verify", "--accept", "wan2.1-fun-1.3b-inp") == 0
    assert run("verify", "wan2.1-fun-1.3b-inp") == 0


def test_verify_of_an_empty_shelf_says_that_nothing_is_installed(home):
    with pytest.raises(WeightsMissing, match="No set of weights is installed"):
        run("verify")


def test_what_ships_is_verified_by_its_name_and_with_what_is_installed(home, capsys):
    run("verify", "preview")
    text = capsys.readouterr().out
    assert "preview/preview.safetensors" in text
    assert "As it comes with gencomp: preview." in text
    assert "Recorded" not in text
    install(home, "wan2.1-fun-1.3b-inp")
    run("verify")
    text = capsys.readouterr().out
    assert "preview/preview.safetensors" in text
    assert text.strip().endswith("weights.lock: wan2.1-fun-1.3b-inp.")


def test_path_says_where_weights_belong(home, capsys):
    run("path")
    run("path", "casper")
    assert capsys.readouterr().out == f"{home / 'weights'}\n{home / 'weights/casper'}\n"


def test_path_of_an_unknown_set_names_the_nearest(home):
    with pytest.raises(BadKnob, match="Did you mean 'casper'"):
        run("path", "caspr")


def test_a_long_digest_says_how_far_it_is(capsys):
    for done in (8 * 2**20, 256 * 2**20, 300 * 2**20):
        weights_cli._say_progress(Path("x.safetensors"), done, 300 * 2**20)
    assert capsys.readouterr().err == "x.safetensors: 0.3 of 0.3 GB\n"


def test_convert_says_what_was_unwrapped_and_left_out(home, capsys, monkeypatch):
    report = {
        "destination": "y.safetensors",
        "tensors": 3,
        "size": 2_000_000_000,
        "unwrapped": ["state_dict", "module."],
        "left_out": ["epoch"],
    }
    monkeypatch.setattr(weights_cli, "convert", lambda source, destination: report)
    assert run("convert", "x.pt", "y.safetensors") == 0
    assert capsys.readouterr().out == (
        "y.safetensors: 3 tensors, 2.00 GB.\n"
        "Taken from within: state_dict, module.\n"
        "Left out, since they are no weights: epoch.\n"
    )


@pytest.mark.parametrize(
    ("code", "said", "kind", "sentence"),
    [
        (1, {"error": {"code": "weights-refused", "message": "No."}}, WeightsRefused, "No."),
        (-9, {}, OutOfMemory, "more memory than there is"),
        (-11, {}, InternalError, r"ended early \(code -11\): boom"),
    ],
)
def test_how_the_converting_process_ends_is_told(tmp_path, code, said, kind, sentence):
    error = weights_cli._failure(tmp_path / "x.pt", code, said, "at first\nboom\n")
    assert isinstance(error, kind)
    with pytest.raises(kind, match=sentence):
        raise error
