# SPDX-License-Identifier: Apache-2.0
"""Local copies of files, other disks and slow ones: what is sent and played is never half of it."""

import errno
import json
import os
import shutil

import pytest

from fakes.shot import FRAMES, WIDTH, paint, press
from gencomp_nuke import asking, background_script, inputs, jobs, node, prefs
from gencomp_protocol.errors import Cancelled, UnwritableOutput

WHOLE = (0, 0, WIDTH, 48)
POLICIES = ("on", "fromAutoLocalizePath", "onDemand")


def ready(gizmo, tmp_path):
    return inputs.ready(gizmo, asking.ask(gizmo), tmp_path / "run", prefs.Prefs())


def red(reader, place=(30, 24), frame=1001):
    return reader.sample("rgba.red", *place, frame=frame)


# --- local copies --------------------------------------------------------------------------------


@pytest.fixture
def older(app, comp, shot, tmp_path):
    """Return a node whose plate has local copies that are older than their originals."""
    gizmo = comp(app)
    for n in FRAMES:
        paint(tmp_path / f"local/plate.{n}.exr", "RGB", [(WHOLE, [7.0] * 3)])
        original = (shot / f"plate/plate.{n}.exr").as_posix()
        app.local_copies.files[original] = (tmp_path / f"local/plate.{n}.exr").as_posix()
    return gizmo


@pytest.mark.parametrize("policy", POLICIES)
def test_a_localised_read_is_sent_from_its_original_whatever_the_viewer_shows(
    older, shot, tmp_path, policy
):
    older.input(0)["localizationPolicy"].setValue(policy)
    assert red(older.input(0)) == 7.0
    files = ready(older, tmp_path)
    assert files["plate"] == {n: shot / f"plate/plate.{n}.exr" for n in FRAMES}


def test_a_localised_read_is_rendered_from_its_original_and_localised_again(
    app, older, read, tmp_path
):
    older["gc_files"].setValue(False)
    files = ready(older, tmp_path)
    sent = read(files["plate"][1001], 1001, 1001)
    assert (red(sent), red(older.input(0))) == (0.125, 7.0)
    assert (app.local_copies.switched[-1], app.local_copies.mode) == ("on", "on")


def test_localisation_is_as_it_was_after_a_rendering_that_was_stopped(app, older, tmp_path):
    older["gc_files"].setValue(False)
    app.local_copies.mode = "manual"
    app.cancel_render_after = 1
    with pytest.raises(Cancelled):
        ready(older, tmp_path)
    assert (app.local_copies.switched, app.local_copies.mode) == (["off", "manual"], "manual")


def test_where_nothing_is_localised_nothing_is_switched(app, comp, tmp_path):
    gizmo = comp(app)
    gizmo["gc_files"].setValue(False)
    ready(gizmo, tmp_path)
    assert app.local_copies.switched == []


def test_a_background_nuke_reads_originals_too(app, older, tmp_path):
    app.save()
    plan = {"script": (tmp_path / "comp.nk").as_posix(), "node": "Omnimatte1", "writers": {}}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({**plan, "folder": tmp_path.as_posix()}), encoding="utf-8")
    assert background_script.main(str(file)) == 0
    assert app.local_copies.mode == "off"


def test_a_new_version_never_plays_the_local_copy_of_an_older_one(app, server, comp, tmp_path):
    gizmo = comp(app)
    gizmo["gc_output"].setValue("background")
    press(app, gizmo)
    first = jobs.whole(node.cache_folder(gizmo, prefs.Prefs()))[0]
    for path in first.glob("background/*.exr"):
        local = tmp_path / "local" / path.name
        paint(local, "RGBA", [(WHOLE, [7.0] * 4)])
        app.local_copies.files[path.as_posix()] = local.as_posix()
    assert red(gizmo) == 7.0
    gizmo["seed"].setValue(gizmo["seed"].value() + 1)
    press(app, gizmo)
    assert len(jobs.whole(first.parent)) == 2
    assert red(gizmo) == 0.125


# --- other disks ---------------------------------------------------------------------------------


@pytest.fixture
def across(monkeypatch):
    """Let nothing be renamed from one folder into another, as between two disks."""

    def only_inside(real):
        def move(source, target, **more):
            if os.path.dirname(source) != os.path.dirname(target):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            return real(source, target, **more)

        return move

    for name in ("rename", "replace", "link"):
        monkeypatch.setattr(os, name, only_inside(getattr(os, name)))


def test_a_result_is_made_and_named_with_nothing_renamed_across_disks(
    app, server, comp, across, tmp_path
):
    gizmo = comp(app)
    gizmo["gc_files"].setValue(False)
    press(app, gizmo)
    assert gizmo["gc_note"].value() == "v001"
    store = node.cache_folder(gizmo, prefs.Prefs()) / "inputs"
    kept = [path for path in store.rglob("*") if path.is_file()]
    assert len(kept) == 12
    assert {path.suffix for path in kept} == {".exr"}


def test_a_picture_that_comes_from_another_disk_is_never_half_under_its_name(
    across, tmp_path, monkeypatch
):
    source, place = tmp_path / "run" / "plate.exr", tmp_path / "store" / "plate.exr"
    source.parent.mkdir()
    source.write_bytes(b"picture")

    def full(source, target):
        target.write_bytes(b"pic")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space"):
            inputs._put(source, place)
    assert not place.exists()
    inputs._put(source, place)
    assert place.read_bytes() == b"picture"
    assert not source.exists()


def test_a_version_that_cannot_be_named_is_no_version(tmp_path, monkeypatch):
    version = jobs.reserve(tmp_path)
    (version.folder / "a").mkdir()
    (version.folder / "a" / "a.0007.exr").write_bytes(b"picture")

    def refused(source, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(UnwritableOutput, match="v001 cannot be written"):
        jobs.keep(version, {"layers": {"a": {"frames": {"7": {}}}}})
    assert (jobs.whole(tmp_path), jobs.unfinished(tmp_path)) == ([], [version.folder])
