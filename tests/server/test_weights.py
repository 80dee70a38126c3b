# SPDX-License-Identifier: Apache-2.0
"""Sets of weights: what is declared, what is there, whether it changed, whether it may be used."""

import configparser
import errno
import hashlib
import json
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gencomp_protocol.errors import BadKnob, UnwritableOutput, WeightsMissing, WeightsRefused
from gencomp_server.backbones import PREVIEW, SPECS, TINY, ModelParams, choose, why_preview
from gencomp_server.contract import MAY_USE_BACKBONE, NEEDS_BACKBONE, Machine, System
from gencomp_server.weights import CLASSES, DECLARATIONS, DEFAULT_ALLOWED, NO_DIGEST, Shelf
from gencomp_server.weights_lock import digest_file

ROOT = Path(__file__).resolve().parents[2]
FUN = "cogvideox-fun-v1.5-5b-inp"
CASPER = "diffusion_pytorch_model.safetensors"
SHIPPED_FILE = "preview.safetensors"


def safetensors_bytes(data=b"\0\0\0\0"):
    """Return a whole file of one float32 tensor, as the format's own description has it."""
    head = json.dumps(
        {"a": {"dtype": "F32", "shape": [len(data) // 4], "data_offsets": [0, len(data)]}}
    ).encode()
    return struct.pack("<Q", len(head)) + head + data


def put(path, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes() if data is None else data)


def install(folder, name):
    """Fill a set's folder with files of the right names."""
    shelf = Shelf(folder, folder / "weights.lock")
    for file in shelf.set(name).files:
        path = folder / name / file.paths[0]
        if path.suffix == ".json":
            put(path, b"{}")
        elif path.suffix:
            put(path)
        elif file.role in ("tokenizer", "scheduler"):
            put(path / f"{file.role}_config.json", b"{}")
        else:
            put(path / "model.safetensors")
            put(path / "config.json", b"{}")


def shelf_with(folder, *names):
    for name in names:
        install(folder, name)
    return Shelf(folder, folder / "weights.lock")


def system(backbone):
    return System(
        name="omnimatte",
        title="Omnimatte",
        doc="",
        inputs=(),
        params=ModelParams,
        layers=lambda request: (),
        plan=lambda request, machine: None,
        run=lambda shot, params, ctx: iter(()),
        backbone=backbone,
    )


# --- declarations


def test_every_set_of_a_backbone_is_declared_and_its_base_is_the_backbones(tmp_path):
    shelf = Shelf(tmp_path, tmp_path / "lock")
    for spec in SPECS:
        if not spec.is_tiny:
            assert shelf.set(spec.weights).base in ("", spec.base)
            assert spec.base in (shelf.set(spec.weights).base, spec.weights)


def test_no_digest_is_claimed_that_nobody_computed(tmp_path):
    shelf = Shelf(tmp_path, tmp_path / "lock")
    found = {file.sha256 for one in shelf.sets.values() if not one.shipped for file in one.files}
    assert found == {NO_DIGEST}


def test_what_ships_is_the_very_file_that_is_declared(tmp_path):
    shelf = Shelf(tmp_path, tmp_path / "lock")
    assert [name for name, one in shelf.sets.items() if one.shipped] == [PREVIEW]
    (declared,) = shelf.set(PREVIEW).files
    (file,) = shelf.files(PREVIEW).values()
    assert declared.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.stat().st_size <= 15_000_000
    assert shelf.verify(PREVIEW) == {"preview/preview.safetensors": declared.sha256}
    assert shelf.accept(PREVIEW) == shelf.verify(PREVIEW)
    assert not shelf.lock.path.exists()


def test_what_ships_and_is_damaged_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("gencomp_server.weights.SHIPPED", tmp_path)
    shelf = Shelf(tmp_path / "none", tmp_path / "lock")
    assert shelf.missing(PREVIEW) == (tmp_path / "preview.safetensors",)
    with pytest.raises(WeightsMissing, match=r"preview\.safetensors is missing"):
        shelf.files(PREVIEW)
    put(tmp_path / "preview.safetensors")
    with pytest.raises(WeightsRefused, match="is not the published one"):
        shelf.identity(PREVIEW)


def test_nothing_is_told_to_be_fetched_from_an_address():
    text = (ROOT / "server/gencomp_server" / DECLARATIONS).read_text(encoding="utf-8")
    assert "://" not in text


def test_a_shelf_with_nothing_on_it_lacks_every_set_but_the_one_that_ships(tmp_path):
    shelf = Shelf(tmp_path / "none", tmp_path / "lock")
    assert [name for name in shelf.sets if shelf.is_installed(name)] == [PREVIEW]


def test_an_unknown_set_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(BadKnob, match=r"no set of weights 'caspar'.*'casper'"):
        Shelf(tmp_path, tmp_path / "lock").set("caspar")


HOUSE = """
["{name}"]
title = "Ours"
purpose = "p"
source = "s"
licence = "ours"
class = "{of_class}"
files = [{{ role = "{role}", paths = ["{path}"]{more} }}]
{end}
"""


def house(folder, name="ours", of_class="production", role="transformer", **rest):
    text = HOUSE.format(
        name=name,
        of_class=of_class,
        role=role,
        path=rest.get("path", "a.safetensors"),
        more=rest.get("more", ""),
        end=rest.get("end", ""),
    )
    folder.mkdir(exist_ok=True)
    (folder / DECLARATIONS).write_text(text, encoding="utf-8")
    return Shelf(folder, folder / "lock")


def test_a_studios_own_file_adds_sets_and_says_where_they_are_from(tmp_path):
    shelf = house(tmp_path)
    assert shelf.set("ours").declared_in == str(tmp_path / DECLARATIONS)
    assert "casper" in shelf.sets


def test_a_studios_own_file_replaces_a_whole_set(tmp_path):
    shelf = house(tmp_path, name="overplusplus", path="step-1000.safetensors")
    assert shelf.missing("overplusplus") == (tmp_path / "overplusplus" / "step-1000.safetensors",)


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        ({"of_class": "free"}, r"\[ours\].class cannot be 'free'"),
        ({"role": "transfromer"}, "no role 'transfromer'"),
        ({"path": "../x.safetensors"}, "inside the set's folder"),
        ({"path": "/x.safetensors"}, "inside the set's folder"),
        ({"more": ', md5 = "1"'}, "has no key 'md5'"),
        ({"more": ', sha256 = "12"'}, "64 hexadecimal digits"),
        ({"end": 'bass = "casper"'}, "has no key 'bass'. Did you mean 'base'"),
        ({"end": "title = 3"}, "is not TOML"),
        ({"end": 'base = "casper"'}, "base 'casper' of 'ours' is not a whole set"),
        ({"name": ".."}, "not a folder's name"),
    ],
)
def test_a_declaration_that_is_not_right_is_refused_by_its_key(tmp_path, rest, sentence):
    with pytest.raises(BadKnob, match=sentence):
        house(tmp_path, **rest)


# --- what is there


def test_a_fine_tuned_set_takes_from_its_base_what_it_does_not_bring(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper")
    assert shelf.files("casper") == {
        "transformer": tmp_path / "casper" / CASPER,
        "transformer_config": tmp_path / FUN / "transformer/config.json",
        "vae": tmp_path / FUN / "vae",
        "text_encoder": tmp_path / FUN / "text_encoder",
        "tokenizer": tmp_path / FUN / "tokenizer",
        "scheduler": tmp_path / FUN / "scheduler",
    }


def test_a_lora_comes_beside_its_bases_transformer(tmp_path):
    found = shelf_with(tmp_path, "wan2.1-fun-14b-inp", "wan-casper-14b").files("wan-casper-14b")
    assert found["lora"] == tmp_path / "wan-casper-14b/lora.safetensors"
    assert found["transformer"] == tmp_path / "wan2.1-fun-14b-inp" / CASPER


def test_a_set_without_its_base_is_not_installed_and_the_first_missing_path_is_named(tmp_path):
    shelf = shelf_with(tmp_path, "casper")
    assert not shelf.is_installed("casper")
    with pytest.raises(WeightsMissing) as caught:
        shelf.files("casper")
    assert str(tmp_path / FUN / "transformer/config.json") in caught.value.message
    assert "CogVideoX-Fun-V1.5-5b-InP" in caught.value.hint


def test_another_layout_of_a_set_is_taken_where_the_first_is_not_there(tmp_path):
    shelf = shelf_with(tmp_path, "wan2.1-fun-1.3b-inp", "wan-casper-1.3b")
    base = tmp_path / "wan2.1-fun-1.3b-inp"
    (base / "Wan2.1_VAE.safetensors").unlink()
    assert shelf.missing("wan-casper-1.3b") == (base / "Wan2.1_VAE.safetensors",)
    put(base / "vae/diffusion_pytorch_model.safetensors")
    put(base / "vae/config.json", b"{}")
    assert shelf.files("wan-casper-1.3b")["vae"] == base / "vae"


def test_a_folder_without_its_configuration_or_weights_is_not_whole(tmp_path):
    shelf = shelf_with(tmp_path, FUN)
    vae = tmp_path / FUN / "vae"
    (vae / "config.json").unlink()
    (vae / "model.safetensors").rename(vae / "pytorch_model.bin")
    assert shelf.missing(FUN) == (vae / "config.json", vae / "*.safetensors")


def test_weights_in_a_folder_within_count_for_nothing_as_no_loader_finds_them(tmp_path):
    shelf = shelf_with(tmp_path, FUN)
    vae = tmp_path / FUN / "vae"
    (vae / "old").mkdir()
    (vae / "model.safetensors").rename(vae / "old/model.safetensors")
    assert shelf.missing(FUN) == (vae / "*.safetensors",)


@pytest.mark.parametrize("text", ["{", "[" * 200_000], ids=["cut short", "nested too deep"])
def test_a_damaged_index_refuses_its_own_set_and_no_other(tmp_path, text):
    wan = "wan2.1-fun-1.3b-inp"
    shelf = shelf_with(tmp_path, FUN, wan)
    index = tmp_path / FUN / "text_encoder/model.safetensors.index.json"
    put(index, text.encode())
    usable, refused = shelf.available(CLASSES)
    own = tuple(spec.name for spec in SPECS if spec.weights == wan)
    assert usable == (*own, PREVIEW)
    own = next(spec.name for spec in SPECS if spec.weights == FUN)
    assert str(index.parent) in refused[own].sentence
    assert refused[own].cure
    assert not refused[own].by_licence


def test_a_folder_that_cannot_be_read_refuses_its_own_set_by_name(tmp_path, monkeypatch):
    shelf = shelf_with(tmp_path, FUN)
    own = next(spec.name for spec in SPECS if spec.weights == FUN)
    vae = tmp_path / FUN / "vae"

    def counted(folder):
        if folder == vae:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return iter([folder / "model.safetensors"])

    monkeypatch.setattr("gencomp_server.weights._counted", counted)
    usable, refused = shelf.available(CLASSES)
    assert usable == (PREVIEW,)
    assert refused[own].sentence == f"The weights {vae} cannot be read (Permission denied)."


def test_a_shard_that_an_index_names_and_that_is_not_there_is_missing(tmp_path):
    shelf = shelf_with(tmp_path, FUN)
    folder = tmp_path / FUN / "text_encoder"
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    put(folder / "model.safetensors.index.json", json.dumps(index).encode())
    assert shelf.missing(FUN) == (folder / "model-2.safetensors",)


def test_a_role_may_be_an_index_whose_shards_count(tmp_path):
    name = "wan2.1-fun-14b-inp"
    shelf = shelf_with(tmp_path, name)
    folder = tmp_path / name
    (folder / CASPER).rename(folder / "1.safetensors")
    index = folder / f"{CASPER}.index.json"
    put(index, json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}).encode())
    assert shelf.missing(name) == (folder / "2.safetensors",)
    put(folder / "2.safetensors")
    assert shelf.files(name)["transformer"] == index
    assert {f"{name}/1.safetensors", f"{name}/2.safetensors"} <= set(shelf.verify(name))


def test_an_index_that_points_outside_its_folder_is_refused(tmp_path):
    shelf = shelf_with(tmp_path, FUN)
    index = tmp_path / FUN / "text_encoder/model.safetensors.index.json"
    put(index, json.dumps({"weight_map": {"a": "../../x.safetensors"}}).encode())
    with pytest.raises(WeightsRefused, match="outside its folder"):
        shelf.missing(FUN)


def test_what_lies_there_unconverted_is_named_with_what_it_becomes(tmp_path):
    shelf = shelf_with(tmp_path, "wan2.1-fun-1.3b-inp")
    base = tmp_path / "wan2.1-fun-1.3b-inp"
    (base / "Wan2.1_VAE.safetensors").rename(base / "Wan2.1_VAE.pth")
    assert shelf.unconverted("wan2.1-fun-1.3b-inp") == {
        base / "Wan2.1_VAE.pth": base / "Wan2.1_VAE.safetensors"
    }
    with pytest.raises(WeightsMissing) as caught:
        shelf.files("wan2.1-fun-1.3b-inp")
    assert "gencomp weights convert" in caught.value.hint


# --- digests


@pytest.mark.fault("F17")
def test_verify_gives_the_sha256_of_every_file_and_records_it(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper")
    seen = []
    found = shelf.verify("casper", lambda file, done, total: seen.append((file, done, total)))
    digest = hashlib.sha256(safetensors_bytes()).hexdigest()
    assert found[f"casper/{CASPER}"] == digest
    assert f"{FUN}/vae/model.safetensors" in found
    assert f"{FUN}/transformer/model.safetensors" not in found  # Casper brings its own.
    size = len(safetensors_bytes())
    assert (tmp_path / "casper" / CASPER, size, size) in seen
    recorded = json.loads((tmp_path / "weights.lock").read_text(encoding="utf-8"))
    assert recorded["files"][f"casper/{CASPER}"]["sha256"] == digest
    assert recorded["files"][f"casper/{CASPER}"]["size"] == size


@pytest.mark.fault("F17")
@pytest.mark.parametrize("look", ["verify", "identity"])
def test_a_file_that_changed_since_it_was_verified_is_refused_by_name(tmp_path, look):
    shelf = shelf_with(tmp_path, FUN, "casper")
    shelf.verify("casper")
    put(tmp_path / "casper" / CASPER, safetensors_bytes(b"\1\0\0\0\0\0\0\0"))
    with pytest.raises(WeightsRefused) as caught:
        getattr(shelf, look)("casper")
    assert str(tmp_path / "casper" / CASPER) in caught.value.message
    assert "verify --accept casper" in caught.value.hint


def test_a_change_that_is_accepted_is_recorded(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper")
    before = shelf.identity("casper")
    put(tmp_path / "casper" / CASPER, safetensors_bytes(b"\1\0\0\0\0\0\0\0"))
    assert shelf.accept("casper").keys() == shelf.verify("casper").keys()
    shelf.verify("casper")
    assert shelf.identity("casper") != before


def test_what_is_accepted_and_damaged_leaves_the_records_as_they_were(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper")
    shelf.verify("casper")
    before = shelf.lock.path.read_bytes()
    put(tmp_path / "casper" / CASPER, safetensors_bytes()[:-2])
    with pytest.raises(WeightsRefused, match="cut short"):
        shelf.accept("casper")
    assert shelf.lock.path.read_bytes() == before


def test_accepting_a_set_accepts_no_change_of_its_base(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper")
    shelf.verify("casper")
    put(tmp_path / FUN / "vae/config.json", b'{"changed": 1}')
    with pytest.raises(WeightsRefused, match=r"vae/config\.json has changed"):
        shelf.accept("casper")


def test_a_disk_without_locks_is_a_sentence_on_the_lock_file(tmp_path, monkeypatch):
    shelf = shelf_with(tmp_path, FUN)

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("gencomp_server.weights_lock.fcntl.flock", no_locks)
    with pytest.raises(UnwritableOutput, match=r"weights\.lock .*No locks available"):
        shelf.verify(FUN)


def test_identity_believes_the_record_while_size_and_time_agree(tmp_path, monkeypatch):
    shelf = shelf_with(tmp_path, FUN, "casper")
    first = shelf.identity("casper")

    def never(path, progress=None):
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr("gencomp_server.weights.digest_file", never)
    assert shelf.identity("casper") == first


def test_identity_is_of_what_is_in_the_files_not_of_where_or_when(tmp_path):
    here = shelf_with(tmp_path / "a", FUN, "casper").identity("casper")
    there = shelf_with(tmp_path / "b", FUN, "casper").identity("casper")
    assert here == there
    assert len(here) == 32


def test_identity_changes_with_the_bases_vae(tmp_path):
    here = shelf_with(tmp_path / "a", FUN, "casper").identity("casper")
    other = shelf_with(tmp_path / "b", FUN, "casper")
    put(tmp_path / "b" / FUN / "vae/model.safetensors", safetensors_bytes(b"\1\1\1\1"))
    assert other.identity("casper") != here


def test_a_file_touched_and_not_changed_is_read_again_and_taken(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper")
    first = shelf.identity("casper")
    put(tmp_path / "casper" / CASPER)
    assert shelf.identity("casper") == first


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (safetensors_bytes()[:-1], "cut short: it has"),
        (safetensors_bytes() + b"x", "too long"),
        (b"PK\3\4" + b"\0" * 64, "is a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS placeholder"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "is a web page"),
        ((16).to_bytes(8, "little") + b"{" * 16, "does not begin as a safetensors file"),
        (b"", "is cut short: it is empty"),
        (safetensors_bytes()[:20], "is cut short: it ends inside its header, after 20 bytes"),
        (b"numbers in a row, no header", "does not begin as a safetensors file"),
    ],
    ids=[
        *("truncated", "longer", "a pickle by another name", "placeholder", "page", "odd"),
        *("empty", "cut inside its header", "no header"),
    ],
)
def test_a_damaged_file_is_refused_and_not_recorded(tmp_path, data, sentence):
    shelf = shelf_with(tmp_path, FUN, "casper")
    put(tmp_path / "casper" / CASPER, data)
    with pytest.raises(WeightsRefused, match=sentence):
        shelf.identity("casper")
    assert f"casper/{CASPER}" not in shelf.lock.entries()


def test_a_file_that_is_not_the_declared_one_is_refused(tmp_path):
    wanted = "0" * 64
    shelf = house(tmp_path, path="a.safetensors", more=f', sha256 = "{wanted}"')
    put(tmp_path / "ours/a.safetensors")
    with pytest.raises(WeightsRefused, match=r"not the published one.*000000000000…"):
        shelf.verify("ours")


def test_a_damaged_lock_file_is_an_error_not_a_fresh_start(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper")
    (tmp_path / "weights.lock").write_text("{", encoding="utf-8")
    with pytest.raises(WeightsRefused, match=r"lock file .* cannot be understood"):
        shelf.identity("casper")


def test_where_the_lock_cannot_be_written_verify_fails_and_identity_warns(
    tmp_path, caplog, monkeypatch
):
    shelf = shelf_with(tmp_path, FUN, "casper")

    def read_only(*paths):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("gencomp_server.weights_lock.os.replace", read_only)
    with pytest.raises(UnwritableOutput, match="lock file"):
        shelf.verify("casper")
    blind = shelf.identity("casper")
    assert "computed again next time" in caplog.text
    assert [path.name for path in tmp_path.glob(".*.part")] == []
    monkeypatch.undo()
    assert shelf.identity("casper") == blind


_RECORD = """
import sys
from pathlib import Path
from gencomp_server.weights_lock import Entry, LockFile
lock = LockFile(Path(sys.argv[1]))
for i in range(40):
    lock.record(f"{sys.argv[2]}/{i}", Path("x"), Entry(i, i, "d"))
"""


def test_two_processes_lose_none_of_each_others_records(tmp_path):
    lock = tmp_path / "weights.lock"
    roots = [str(ROOT / room) for room in ("protocol", "server")]
    code = f"import sys; sys.path[:0] = {roots!r}\n{_RECORD}"
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(lock), name]) for name in ("a", "b")
    ]
    assert [one.wait(60) for one in running] == [0, 0]
    found = json.loads(lock.read_text(encoding="utf-8"))["files"]
    assert sorted(found) == sorted(f"{name}/{i}" for name in ("a", "b") for i in range(40))


def test_the_digest_of_a_known_text_is_the_published_one(tmp_path):
    put(tmp_path / "abc.json", b"abc")  # FIPS 180-2, appendix B.1
    assert digest_file(tmp_path / "abc.json").sha256 == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


# --- licences


def test_what_ships_alone_is_available_and_every_other_says_its_expected_path(tmp_path):
    usable, refused = Shelf(tmp_path, tmp_path / "lock").available(DEFAULT_ALLOWED)
    assert usable == (PREVIEW,)
    assert {*refused, PREVIEW} == {spec.name for spec in SPECS if not spec.is_tiny}
    assert str(tmp_path / "casper" / CASPER) in refused["casper"].sentence
    assert "gencomp weights list casper" in refused["casper"].cure
    assert not any(why.by_licence for why in refused.values())


def test_installed_and_allowed_is_available_in_the_tables_order(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper", "wan2.1-fun-1.3b-inp", "wan-casper-1.3b")
    usable, _ = shelf.available(DEFAULT_ALLOWED)
    assert usable == ("casper", "wan-casper-1.3b", FUN, PREVIEW)


def test_a_class_that_is_not_allowed_is_refused_with_the_licence_clean_alternative(tmp_path):
    usable, refused = shelf_with(tmp_path, FUN, "casper").available(("production",))
    assert usable == (PREVIEW,)
    assert refused["casper"].by_licence
    assert "'registration needed'" in refused["casper"].sentence
    assert "wan-casper-1.3b" in refused["casper"].cure
    assert "allowed_licences" in refused["casper"].cure


def test_the_base_binds_what_was_made_from_it(tmp_path):
    text = HOUSE.format(
        name="overplusplus",
        of_class="production",
        role="transformer",
        path=CASPER,
        more="",
        end=f'base = "{FUN}"',
    )
    tmp_path.joinpath(DECLARATIONS).write_text(text, encoding="utf-8")
    shelf = Shelf(tmp_path, tmp_path / "lock")
    assert shelf.licence_class("overplusplus") == "registration needed"


def test_a_class_there_is_not_is_refused_by_name(tmp_path):
    with pytest.raises(BadKnob, match=r"no licence class 'registration'.*'registration needed'"):
        Shelf(tmp_path, tmp_path / "lock").available(("registration",))


def test_a_model_that_the_studio_does_not_allow_is_refused_though_it_is_installed(tmp_path):
    here = shelf_with(tmp_path, FUN, "casper")
    assert set(here.available(CLASSES)[0]) == {FUN, "casper", PREVIEW}
    shelf = Shelf(tmp_path, tmp_path / "lock", models=(FUN,))
    usable, refused = shelf.available(CLASSES)
    assert usable == (FUN,)
    assert f"not among the models that this server allows ({FUN})" in refused["casper"].sentence
    assert "allowed_models" in refused["casper"].cure
    assert refused["casper"].by_licence
    assert not refused["gencompositor"].by_licence
    assert refused[PREVIEW].by_licence


def test_classes_are_ordered_from_the_freest():
    assert CLASSES == ("production", "registration needed", "academic", "unknown")


# --- what a job takes


def machine(shelf, allowed=DEFAULT_ALLOWED):
    usable, refused = shelf.available(allowed)
    return Machine(
        device="cuda:0",
        memory_bytes=80 * 10**9,
        free_bytes=80 * 10**9,
        teraflops=300.0,
        backbones=usable,
        refused=refused,
    )


def test_auto_takes_the_best_that_is_installed(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper", "wan2.1-fun-1.3b-inp", "wan-casper-1.3b")
    found = choose(system(MAY_USE_BACKBONE), ModelParams(), machine(shelf))
    assert found.name == "casper"


def test_auto_takes_what_may_be_used_over_what_is_better(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper", "wan2.1-fun-1.3b-inp", "wan-casper-1.3b")
    found = choose(system(MAY_USE_BACKBONE), ModelParams(), machine(shelf, ("production",)))
    assert found.name == "wan-casper-1.3b"


def test_what_was_trained_for_the_system_comes_first(tmp_path):
    shelf = shelf_with(tmp_path, FUN, "casper", "overplusplus")
    over = System(**{**vars(system(NEEDS_BACKBONE)), "name": "overplusplus"})
    assert choose(over, ModelParams(), machine(shelf)).name == "overplusplus"


@pytest.mark.parametrize("kind", [MAY_USE_BACKBONE, NEEDS_BACKBONE])
@pytest.mark.parametrize("name", ["omnimatte", "overplusplus"])
def test_where_none_is_installed_the_one_that_ships_is_taken(tmp_path, kind, name):
    shelf = Shelf(tmp_path, tmp_path / "lock")
    asked = System(**{**vars(system(kind)), "name": name})
    assert choose(asked, ModelParams(), machine(shelf)).name == PREVIEW


@pytest.mark.parametrize("name", ["omnimatte", "overplusplus"])
def test_whatever_is_installed_goes_before_the_one_that_ships(tmp_path, name):
    here = machine(shelf_with(tmp_path, FUN))
    asked = System(**{**vars(system(NEEDS_BACKBONE)), "name": name})
    assert choose(asked, ModelParams(), here).name == FUN
    assert choose(asked, ModelParams(backbone=PREVIEW), here).name == PREVIEW


@pytest.mark.parametrize("name", ["gencomposite", "splitthenmerge", "dynvfx"])
def test_the_others_name_the_weights_that_they_need(tmp_path, name):
    here = machine(Shelf(tmp_path, tmp_path / "lock"))
    asked = System(**{**vars(system(NEEDS_BACKBONE)), "name": name})
    with pytest.raises(WeightsMissing, match=rf"are not installed: needed are .*{tmp_path}"):
        choose(asked, ModelParams(), here)
    with pytest.raises(BadKnob, match="cannot run on the backbone 'preview'"):
        choose(asked, ModelParams(backbone=PREVIEW), here)


def test_a_system_that_needs_none_takes_none_where_what_ships_is_not_allowed(tmp_path):
    shelf = Shelf(tmp_path, tmp_path / "lock", models=("casper",))
    assert choose(system(MAY_USE_BACKBONE), ModelParams(), machine(shelf)) is None


def test_a_system_that_needs_one_stops_with_the_expected_path(tmp_path):
    shelf = Shelf(tmp_path, tmp_path / "lock", models=("casper", "wan-casper-1.3b"))
    with pytest.raises(WeightsMissing) as caught:
        choose(system(NEEDS_BACKBONE), ModelParams(), machine(shelf))
    assert str(tmp_path / "casper" / CASPER) in caught.value.message
    sets = "the set casper and parts of its base cogvideox-fun-v1.5-5b-inp"
    assert sets in caught.value.message
    assert "gencomp weights list casper" in caught.value.hint
    assert "wan-casper-1.3b serves too" in caught.value.hint


def test_weights_that_are_there_and_not_allowed_are_refused_not_missing(tmp_path):
    here = machine(shelf_with(tmp_path, FUN, "casper"), ("production",))
    bare = replace(here, backbones=())
    with pytest.raises(WeightsRefused, match="'registration needed'"):
        choose(system(NEEDS_BACKBONE), ModelParams(), bare)
    taken = choose(system(NEEDS_BACKBONE), ModelParams(), here)
    whys = why_preview(system(NEEDS_BACKBONE), ModelParams(), taken, here)
    assert taken.name == PREVIEW
    assert "'registration needed'" in whys[0]
    with pytest.raises(WeightsRefused, match="'registration needed'"):
        choose(system(MAY_USE_BACKBONE), ModelParams(backbone="casper"), here)


def test_tiny_is_never_taken_silently_and_needs_no_weights(tmp_path):
    here = replace(machine(Shelf(tmp_path, tmp_path / "lock")), backbones=())
    assert choose(system(MAY_USE_BACKBONE), ModelParams(), here) is None
    assert choose(system(MAY_USE_BACKBONE), ModelParams(backbone=TINY), here).name == TINY


def test_the_declarations_travel_with_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert config["options.package_data"]["gencomp_server"].split() == [DECLARATIONS]
    assert config["options.package_data"]["gencomp_server.models"].split() == [SHIPPED_FILE]


# --- the page


def rows_of_the_page():
    """Return the cells of the page's table of sets, by the set's name."""
    text = (ROOT / "docs/td/weights.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in row] for row in rows]
    return {row[0].strip("`"): row for row in cells if len(row) == 5}


def test_the_page_has_every_set_with_its_class_base_and_files(tmp_path):
    shelf, rows = Shelf(tmp_path, tmp_path / "lock"), rows_of_the_page()
    assert list(rows) == list(shelf.sets)
    for name, (_, _, of_class, base, files) in rows.items():
        one = shelf.set(name)
        assert of_class == shelf.licence_class(name)
        assert base == (f"`{one.base}`" if one.base else "")
        wanted = [file.paths[0] for file in one.files if not file.role.endswith("_config")]
        assert [path.strip().strip("`") for path in files.split(",")] == wanted


def test_the_page_says_how_the_loader_of_every_backbone_is_proven():
    text = (ROOT / "docs/td/weights.md").read_text(encoding="utf-8")
    for spec in SPECS:
        assert re.search(rf"^\| `{spec.proven}` \|.*`{re.escape(spec.name)}`", text, re.MULTILINE)
