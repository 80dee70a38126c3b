# SPDX-License-Identifier: Apache-2.0
"""Runs of several parts: takes, views, other frames; and a sub-range merged into a result."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.shot import press
from gencomp_protocol.errors import BadMatte
from gencomp_protocol.frames import FrameRange

VIEWS = "left #ff0000\nright #00ff00"


def status(gizmo):
    return " ".join(gizmo["gc_status"].value().split())


def takes(*seeds):
    """Return what turns a request into one take per seed."""
    from gencomp_nuke.runs import Part

    def vary(request):
        return [
            Part(replace(request, knobs={**request.knobs, "seed": seed}), f"take{n:02d}",
                 title=f"take {n}")
            for n, seed in enumerate(seeds, 1)
        ]  # fmt: skip

    return vary


def begin(app, gizmo, **wanted):
    """Start a run; return when it is over."""
    from gencomp_nuke import callbacks

    callbacks.begin(gizmo, **wanted)
    app.process_events(lambda: callbacks.running(gizmo) is None)


def results(gizmo):
    """Return where results lie in the cache, as texts."""
    cache = next(p for p in Path(gizmo["gc_folder"].evaluate()).parents if p.name[0] == "O")
    return sorted(p.parent.relative_to(cache).as_posix() for p in cache.rglob("manifest.json"))


def test_takes_are_one_version_rendered_once_with_a_folder_and_a_manifest_each(app, server, comp):
    gizmo = comp(app)
    gizmo["gc_files"].setValue(False)
    begin(app, gizmo, vary=takes(7, 8))
    assert [job.submit.request.knobs["seed"] for job in server.jobs.values()] == [7, 8]
    assert results(gizmo) == ["v001/take01", "v001/take02"]
    assert [frame for name, frame in app.rendered if name.endswith("plate")] == [*range(1001, 1005)]
    assert gizmo["gc_folder"].toScript().endswith("/v001/take01")
    assert (gizmo["gc_take"].value(), gizmo["gc_take_count"].value()) == (1, 2)
    assert status(gizmo) == "Plays v001 take01, frames 1001-1004."
    assert server.released == ["job1", "job2"] or server.released == ["job2", "job1"]


def test_another_take_is_played_by_its_folder_and_a_plain_result_has_none(app, server, comp):
    gizmo = comp(app)
    begin(app, gizmo, vary=takes(7, 8))
    gizmo["gc_folder"].setValue(gizmo["gc_folder"].evaluate().replace("take01", "take02"))
    assert gizmo["gc_take"].value() == 2
    assert status(gizmo).endswith("Plays v001 take02, frames 1001-1004.")
    press(app, gizmo)
    assert gizmo["gc_take_count"].value() == 0
    assert gizmo["gc_folder"].evaluate().endswith("/v002")


def test_while_a_take_is_made_the_node_says_which(app, server, comp):
    from gencomp_nuke import callbacks

    gizmo = comp(app)
    server.goes_on.clear()
    callbacks.begin(gizmo, vary=takes(7, 8))
    app.process_events(lambda: "solve" in status(gizmo))
    assert status(gizmo) == "Take 1: solve: 1 of 3, about 65 s left."
    server.goes_on.set()
    app.process_events(lambda: callbacks.running(gizmo) is None)


def test_a_take_that_fails_is_left_out_and_said_also_after_opening_again(
    app, server, comp, tmp_path
):
    import nuke

    server.fails_at["job1"] = BadMatte("Matte 'a' is empty.")
    gizmo = comp(app)
    begin(app, gizmo, vary=takes(7, 8))
    assert results(gizmo) == ["v001/take02"]
    says = "Plays v001 take02, frames 1001-1004. Note: There is no take 1: Matte 'a' is empty."
    assert status(gizmo) == says
    app.save()
    nuke.scriptOpen(str(tmp_path / "comp.nk"))
    assert status(nuke.toNode("Omnimatte1")) == says


def test_of_cancelled_takes_those_that_are_whole_are_kept(app, server, comp):
    from gencomp_nuke import callbacks

    gizmo = comp(app)
    server.stops_before.add("job2")
    callbacks.begin(gizmo, vary=takes(7, 8, 9))
    app.process_events(lambda: "Take 2: solve" in status(gizmo))
    gizmo["gc_cancel"].execute()
    app.process_events(lambda: callbacks.running(gizmo) is None)
    assert results(gizmo) == ["v001/take01"]
    assert status(gizmo).endswith("Note: Cancelled: 1 of 3 takes are here.")
    assert server.cancelled == ["job2", "job3"]


def test_other_frames_than_the_nodes_are_asked_for_and_the_end_is_told(app, server, comp):
    told = []
    gizmo = comp(app)
    frames = FrameRange(1002, 1003)
    begin(app, gizmo, frames=frames, on_end=lambda run: told.append((run.folder.name, run.error)))
    request = server.jobs["job1"].submit.request
    assert (request.frames, request.inputs[0].frames) == (frames, (1002, 1003))
    assert told == [("v001", None)]


def test_each_view_is_a_job_of_the_same_seed_and_the_node_plays_the_one_that_is_looked_at(
    app, server, comp
):
    import nuke

    nuke.root()["views"].setValue(VIEWS)
    gizmo = comp(app)
    gizmo["seed"].setValue(5)
    press(app, gizmo)
    assert [job.submit.request.knobs["seed"] for job in server.jobs.values()] == [5, 5]
    folder = gizmo["gc_folder"].toScript()
    assert folder.endswith("/v001/%V")
    version = Path(gizmo["gc_folder"].evaluate()).parent
    assert sorted(p.name for p in version.iterdir()) == ["left", "right"]
    read = gizmo.node("Read_1")["file"]
    right = nuke.OutputContext()
    right.setFrame(1002)
    right.setView(2)
    assert read.evaluate(right) == f"{version.as_posix()}/right/a/a.1002.exr"
    assert status(gizmo) == "Plays v001, frames 1001-1004."


def test_when_one_view_fails_there_is_no_half_result(app, server, comp):
    import nuke

    nuke.root()["views"].setValue(VIEWS)
    server.fails_at["job2"] = BadMatte("Matte 'a' is empty.")
    gizmo = comp(app)
    press(app, gizmo)
    assert status(gizmo) == "Matte 'a' is empty."
    assert gizmo["gc_folder"].evaluate() == ""


# --- a sub-range ---------------------------------------------------------------------------------


def sub_range(gizmo, first, last):
    gizmo["gc_range"].setValue("custom")
    gizmo["gc_first"].setValue(first)
    gizmo["gc_last"].setValue(last)
    gizmo["gc_merge"].setValue(True)


@pytest.fixture
def swapped(shot, tmp_path):
    """Return layers where ``a`` is what ``b`` was, and ``b`` is not there."""
    folder = tmp_path / "swapped"
    (folder / "a").mkdir(parents=True)
    for path in (shot / "layers" / "b").iterdir():
        shutil.copy(path, folder / "a" / path.name.replace("b.", "a."))
    return folder


def test_a_sub_range_goes_into_a_new_version_with_the_other_frames_and_layers_of_the_old(
    app, server, comp, shot, swapped
):
    gizmo = comp(app)
    press(app, gizmo)
    old = Path(gizmo["gc_folder"].evaluate())
    sub_range(gizmo, 1002, 1003)
    server.folder = swapped
    press(app, gizmo)
    new = old.with_name("v002")
    assert status(gizmo) == "Plays v002, frames 1001-1004."
    manifest = json.loads((new / "manifest.json").read_text(encoding="utf-8"))
    assert sorted(manifest["layers"]["a"]["frames"]) == ["1001", "1002", "1003", "1004"]
    assert sorted(manifest["layers"]["b"]["frames"]) == ["1001", "1004"]
    assert manifest["node"]["merged"] == {"into": "v001", "frames": "1002-1003"}
    assert os.path.samefile(new / "a/a.1001.exr", old / "a/a.1001.exr")
    fresh = (shot / "layers/b/b.1002.exr").read_bytes()
    assert (new / "a/a.1002.exr").read_bytes() == fresh
    assert (old / "a/a.1002.exr").read_bytes() == (shot / "layers/a/a.1002.exr").read_bytes()


def test_a_disk_without_links_gets_copies(app, server, comp, monkeypatch):
    def refused(*_):
        raise OSError(1, "no links here")

    gizmo = comp(app)
    press(app, gizmo)
    old = Path(gizmo["gc_folder"].evaluate())
    sub_range(gizmo, 1002, 1003)
    monkeypatch.setattr(os, "link", refused)
    press(app, gizmo)
    kept, copied = old / "b/b.1004.exr", old.with_name("v002") / "b/b.1004.exr"
    assert copied.read_bytes() == kept.read_bytes()
    assert not os.path.samefile(kept, copied)


def test_nothing_is_merged_into_a_result_of_other_objects(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    sub_range(gizmo, 1002, 1003)
    gizmo["gc_name2"].setValue("c")
    press(app, gizmo)
    assert status(gizmo) == (
        "v001 has the objects a, b, not a, c. Switch 'merge' off on the tab Cache & Server."
    )
    assert list(server.jobs) == ["job1"]


def test_without_the_switch_or_over_the_whole_range_a_version_is_its_own(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    gizmo["gc_merge"].setValue(True)
    press(app, gizmo)
    sub_range(gizmo, 1002, 1003)
    gizmo["gc_merge"].setValue(False)
    press(app, gizmo)
    assert status(gizmo) == "Plays v003, frames 1002-1003."
    second = Path(gizmo["gc_folder"].evaluate()).with_name("v002")
    assert "merged" not in json.loads((second / "manifest.json").read_text())["node"]
