# SPDX-License-Identifier: Apache-2.0
"""Versions: listed with sizes, chosen, deleted, and never one that a script names."""

import json
from pathlib import Path

import pytest

from gencomp_nuke import jobs, playing, tool, versions
from gencomp_protocol.errors import BadKnob, MissingFrame

PLAYED = {"layers": {"result": {"frames": [1001]}}, "node": {"slots": {}, "order": []}}


def status(gizmo):
    return " ".join(gizmo["gc_status"].value().split())


def make(folder, size=100):
    """Make a version with one small picture."""
    (folder / "result").mkdir(parents=True)
    (folder / "result/result.1001.exr").write_bytes(b"x" * size)
    (folder / "manifest.json").write_text(json.dumps(PLAYED), encoding="utf-8")


@pytest.fixture
def gizmo(terminal, tmp_path):
    """Return a node in a saved script, with v001, v002 and v010, playing v002."""
    import nuke

    terminal.save(tmp_path / "comp.nk")
    made = nuke.createNode("DynVFX")
    cache = Path(made["gc_cache"].evaluate())
    for name in ("v001", "v002", "v010"):
        make(cache / name)
    (cache / "v011.part").mkdir()
    made["gc_folder"].setValue(playing.spell_folder(cache / "v002"))
    return made


def cache_of(gizmo):
    return Path(gizmo["gc_cache"].evaluate())


def choose(gizmo, name):
    versions.refresh(gizmo)
    items = gizmo["gc_version_pick"].values()
    gizmo["gc_version_pick"].setValue(next(item for item in items if item.startswith(name)))


def test_versions_are_listed_newest_first_with_their_sizes(gizmo):
    make(cache_of(gizmo) / "v003", 5_000_000)
    versions.refresh(gizmo)
    assert [item.split()[0] for item in gizmo["gc_version_pick"].values()] == [
        "v010",
        "v003",
        "v002",
        "v001",
    ]
    assert gizmo["gc_version_pick"].values()[1] == "v003  5.0 MB"
    assert gizmo["gc_version_pick"].value().startswith("v002")


def test_a_chosen_version_is_played(gizmo):
    choose(gizmo, "v001")
    assert gizmo["gc_folder"].evaluate() == (cache_of(gizmo) / "v001").as_posix()
    assert status(gizmo).startswith("Plays v001")


def test_listing_does_not_change_what_is_played(gizmo):
    take = cache_of(gizmo) / "v012/take02"
    make(take)
    make(cache_of(gizmo) / "v012/take01")
    gizmo["gc_folder"].setValue(playing.spell_folder(take))
    versions.refresh(gizmo)
    assert gizmo["gc_folder"].evaluate() == take.as_posix()


def test_a_version_of_takes_or_views_is_played_by_its_first(gizmo):
    cache = cache_of(gizmo)
    make(cache / "v020/take02")
    make(cache / "v021/left")
    assert versions.result_in(cache / "v020") == cache / "v020/take02"
    assert versions.result_in(cache / "v021") == cache / "v021/%V"
    with pytest.raises(MissingFrame):
        versions.result_in(cache / "v011.part")


def test_a_version_that_nothing_names_is_deleted_and_its_number_stays_taken(gizmo):
    cache = cache_of(gizmo)
    choose(gizmo, "v010")
    gizmo["gc_folder"].setValue(playing.spell_folder(cache / "v002"))
    choose_quietly(gizmo, "v010")
    (cache / "v011.part").rmdir()
    versions.delete(gizmo)
    assert sorted(path.name for path in cache.iterdir()) == ["v001", "v002", "v010.deleted"]
    assert not [path for path in (cache / "v010.deleted").rglob("*") if path.is_file()]
    assert jobs.reserve(cache).final.name == "v011"


@pytest.mark.parametrize(("system", "opener"), [("linux", "xdg-open"), ("darwin", "open")])
def test_reveal_shows_the_folder_of_what_is_played(gizmo, monkeypatch, system, opener):
    called = []
    monkeypatch.setattr(tool.sys, "platform", system)
    monkeypatch.setattr(tool.subprocess, "Popen", lambda words, **more: called.append(words))
    gizmo["gc_reveal"].execute()
    assert called == [[opener, str(cache_of(gizmo) / "v002")]]


def test_reveal_on_windows_asks_the_desktop(gizmo, monkeypatch):
    called = []
    monkeypatch.setattr(tool.sys, "platform", "win32")
    monkeypatch.setattr(tool.os, "startfile", called.append, raising=False)
    gizmo["gc_reveal"].execute()
    assert called == [str(cache_of(gizmo) / "v002")]


def choose_quietly(gizmo, name):
    """Choose a version without playing it, as a panel does that is not followed."""
    items = gizmo["gc_version_pick"].values()
    knob = gizmo["gc_version_pick"]
    knob._raw = next(item for item in items if item.startswith(name))


def test_the_version_that_is_chosen_and_so_played_goes_and_the_newest_other_is_played(gizmo):
    choose(gizmo, "v001")
    assert playing.result_folder(gizmo) == cache_of(gizmo) / "v001"
    versions.delete(gizmo)
    assert not (cache_of(gizmo) / "v001").exists()
    assert playing.result_folder(gizmo) == cache_of(gizmo) / "v010"
    assert status(gizmo).startswith("Plays v010")


def test_the_version_that_another_node_plays_is_not_deleted(gizmo):
    import nuke

    choose(gizmo, "v001")
    other = nuke.createNode("DynVFX")
    other["gc_folder"].setValue(playing.spell_folder(cache_of(gizmo) / "v001"))
    with pytest.raises(BadKnob, match="v001 is played by DynVFX2"):
        versions.delete(gizmo)
    assert (cache_of(gizmo) / "v001").is_dir()
    assert playing.result_folder(gizmo) == cache_of(gizmo) / "v001"


def test_the_version_that_the_script_was_saved_with_stays_until_it_is_saved_with_another(
    terminal, gizmo
):
    terminal.save()
    choose(gizmo, "v002")
    versions.delete(gizmo)
    assert status(gizmo) == (
        "v002 is named by comp.nk and stays. Save this script while it plays another version, "
        "then delete this one."
    )
    choose(gizmo, "v010")
    terminal.save()
    choose(gizmo, "v002")
    versions.delete(gizmo)
    assert not (cache_of(gizmo) / "v002").exists()


def test_a_version_that_a_plain_read_plays_is_not_deleted(gizmo):
    import nuke

    versions.refresh(gizmo)
    choose_quietly(gizmo, "v001")
    read = nuke.createNode("Read")
    read["file"].setValue((cache_of(gizmo) / "v001/result/result.%04d.exr").as_posix())
    with pytest.raises(BadKnob, match="played by Read1"):
        versions.delete(gizmo)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("other.nk", ' gc_folder "\\[file dirname \\[value root.name]]/gencomp/comp/{id}/v001"\n'),
        ("other.nk", " file {cache}/v001/result/result.%04d.exr\n"),
        ("comp.nk~", " gc_folder {cache}/v001/take02\n"),
        ("comp.nk.autosave", " gc_folder {cache}/v001\n"),
    ],
)
def test_a_version_that_any_script_beside_names_stays(gizmo, tmp_path, name, text):
    cache = cache_of(gizmo)
    text = text.replace("{cache}", cache.as_posix()).replace("{id}", cache.name)
    (tmp_path / name).write_text(text, encoding="utf-8")
    versions.refresh(gizmo)
    choose_quietly(gizmo, "v001")
    versions.delete(gizmo)
    assert (cache / "v001").is_dir()
    assert status(gizmo).startswith(f"v001 is named by {name} and stays.")


def test_another_version_with_a_longer_number_does_not_keep_it(gizmo, tmp_path):
    cache = cache_of(gizmo)
    (tmp_path / "other.nk").write_text(f"file {cache}/v0010/x", encoding="utf-8")
    assert versions.scripts_naming(cache / "v001", tmp_path) == []
    assert versions.scripts_naming(cache / "v0010", tmp_path) == ["other.nk"]


def test_an_interface_asks_first_and_no_means_no(app, tmp_path, monkeypatch):
    import nuke

    app.save(tmp_path / "comp.nk")
    made = nuke.createNode("DynVFX")
    cache = Path(made["gc_cache"].evaluate())
    make(cache / "v001")
    asked = []
    monkeypatch.setattr(nuke, "ask", lambda text: bool(asked.append(text)))
    made["gc_version_pick"].setValues(["v001  100 bytes"])
    versions.delete(made)
    assert asked == ["Delete v001 of DynVFX1 from the disk, for good?"]
    assert (cache / "v001").is_dir()


def test_an_interface_looks_at_the_disk_in_a_thread_of_its_own(app, tmp_path, monkeypatch):
    import threading

    import nuke

    app.save(tmp_path / "comp.nk")
    made = nuke.createNode("DynVFX")
    make(Path(made["gc_cache"].evaluate()) / "v001")
    names = []
    real = versions.size_of
    monkeypatch.setattr(
        versions, "size_of", lambda p: (names.append(threading.current_thread().name), real(p))[1]
    )
    versions.refresh(made)
    app.process_events(lambda: made["gc_version_pick"].value().startswith("v001"))
    assert set(names) == {"gencomp versions"}


def test_rendered_inputs_are_listed_and_may_go(gizmo):
    cache = cache_of(gizmo)
    (cache / "inputs/plate").mkdir(parents=True)
    (cache / "inputs/plate/plate.1001.aa.exr").write_bytes(b"x")
    versions.refresh(gizmo)
    assert gizmo["gc_version_pick"].values()[-1] == "inputs  0 kB"
    choose_quietly(gizmo, "inputs")
    versions.delete(gizmo)
    assert not (cache / "inputs").exists()
