# SPDX-License-Identifier: Apache-2.0
"""Nothing delivered is lost: two Nukes on one cache, a disk that fails, nodes that are deleted."""

import errno
import json
import logging
import os
import struct
import threading
from pathlib import Path

import pytest

from fakes.shot import press
from gencomp_nuke import (
    beside,
    exrhead,
    inputs,
    jobs,
    mainthread,
    moving,
    node,
    pending,
    prefs,
)
from gencomp_nuke.jobspanel import Model
from gencomp_nuke.wrapping import spell_bytes
from gencomp_protocol.errors import Cancelled

MANIFEST = {"layers": {"result": {"frames": [1001]}}, "node": {"slots": {}, "order": []}}


def status(gizmo):
    return " ".join(gizmo["gc_status"].value().split())


def make(folder):
    """Make a version of one picture."""
    (folder / "result").mkdir(parents=True)
    (folder / "result/result.1001.exr").write_bytes(b"x")
    (folder / "manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")


# --- versions ------------------------------------------------------------------------------------


def test_a_number_that_became_whole_meanwhile_is_not_taken_again(tmp_path, monkeypatch):
    looked = [1, 2]  # Another Nuke's v002 became whole after this one had looked.
    make(tmp_path / "v002")
    monkeypatch.setattr(jobs, "_highest", lambda cache: looked.pop(0))
    assert jobs.reserve(tmp_path).final.name == "v003"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v002", "v003.part"]


def test_a_version_that_cannot_get_its_name_keeps_what_a_later_nuke_goes_on_from(
    tmp_path, monkeypatch
):
    version = jobs.reserve(tmp_path)
    version.inputs.mkdir()
    (version.folder / "job.json").write_text("{}", encoding="utf-8")

    def killed(old, new):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        jobs.keep(version)
    assert sorted(path.name for path in version.folder.iterdir()) == ["inputs", "job.json"]


def test_a_whole_version_holds_neither_inputs_nor_job(tmp_path):
    version = jobs.reserve(tmp_path)
    version.inputs.mkdir()
    (version.folder / "job.json").write_text("{}", encoding="utf-8")
    assert list(jobs.keep(version).iterdir()) == []


def test_of_unfinished_versions_the_newest_is_the_last_beyond_a_thousand_too(tmp_path):
    for name in ("v1000.part", "v999.part", "v002.part"):
        (tmp_path / name).mkdir()
    names = [path.name for path in jobs.unfinished(tmp_path)]
    assert names == ["v002.part", "v999.part", "v1000.part"]


# --- moving beside the script --------------------------------------------------------------------


@pytest.fixture
def unsaved(app):
    """Return a node of a script without a name that plays a result of its own."""
    import nuke

    gizmo = nuke.createNode("DynVFX")
    folder = node.cache_folder(gizmo, prefs.load()) / "v001"
    make(folder)
    gizmo["gc_folder"].setValue(folder.as_posix())
    moving._declined.clear()
    return gizmo


def test_copies_and_reads_follow_a_version_that_moves(unsaved, app, tmp_path, monkeypatch):
    import nuke

    twin = nuke.createNode("DynVFX")
    twin["gc_folder"].setValue(unsaved["gc_folder"].value())
    read = nuke.createNode("Read", "first 1001 last 1001")
    read["file"].setValue(unsaved["gc_folder"].value() + "/result/result.%04d.exr")
    monkeypatch.setattr(nuke, "ask", lambda text: True)
    app.save(tmp_path / "shot.nk")
    new = tmp_path / f"gencomp/shot/DynVFX1_{unsaved['gc_id'].value()}/v001"
    assert Path(unsaved["gc_folder"].evaluate()) == new
    assert Path(twin["gc_folder"].evaluate()) == new
    assert Path(read["file"].evaluate(1001)) == new / "result/result.1001.exr"


def test_on_another_disk_a_version_that_cannot_be_copied_stays_whole(
    unsaved, app, tmp_path, monkeypatch
):
    import nuke

    def far(old, new):
        raise OSError(errno.EXDEV, "another disk")

    def full(old, new):
        Path(new).mkdir()
        raise OSError(errno.ENOSPC, "no room")

    old = Path(unsaved["gc_folder"].value())
    monkeypatch.setattr(nuke, "ask", lambda text: True)
    monkeypatch.setattr(moving.os, "rename", far)
    monkeypatch.setattr(moving.shutil, "copytree", full)
    app.save(tmp_path / "shot.nk")
    assert Path(unsaved["gc_folder"].evaluate()) == old
    assert (old / "manifest.json").is_file()
    assert list((tmp_path / f"gencomp/shot/DynVFX1_{unsaved['gc_id'].value()}").iterdir()) == []


def test_a_no_is_asked_for_once(unsaved, app, tmp_path, monkeypatch):
    import nuke

    asked = []
    monkeypatch.setattr(nuke, "ask", lambda text: bool(asked.append(text)))
    app.save(tmp_path / "shot.nk")
    app.save(tmp_path / "shot.nk")
    assert len(asked) == 1


# --- two Nukes, one script -----------------------------------------------------------------------


def test_another_nuke_that_clears_the_same_store_does_not_fail_a_run(tmp_path):
    store = tmp_path / "inputs"
    (store / "plate").mkdir(parents=True)
    (store / "plate/plate.1001.aa.exr").symlink_to(tmp_path / "gone.exr")
    (store / "plate/plate.1002.aa.exr").write_bytes(b"x")
    inputs.Supply(None, tmp_path, store, {}, {}, None, 0)._trim()
    assert not (store / "plate/plate.1002.aa.exr").exists()


def test_a_beat_is_over_before_a_version_is_let_go(tmp_path, monkeypatch):
    version = jobs.reserve(tmp_path)
    monkeypatch.setattr(pending, "_BEAT_S", 0.01)
    with pending.held(version):
        pass
    assert "gencomp heartbeat" not in [thread.name for thread in threading.enumerate()]


def left(gizmo):
    """Leave what a Nuke leaves whose server went away once a job was handed in."""
    from gencomp_nuke import runs

    run = runs.prepare(gizmo, prefs.load())
    run.version, run.jobs = jobs.reserve(run.cache), ("job1",)
    pending.note(run)
    pending.let_go(run.version)
    return run.version


def test_resume_while_the_server_is_away_can_be_pressed_again(app, comp, monkeypatch):
    from gencomp_nuke import callbacks

    gizmo = comp(app)
    version = left(gizmo)
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", "no-such-one serve")
    gizmo["gc_resume"].execute()
    app.process_events(lambda: callbacks.running(gizmo) is None)
    assert status(gizmo).endswith("Press Resume to get its result.")
    assert gizmo["gc_resume"].visible() is True
    assert (version.folder / "job.json").is_file()


@pytest.mark.fault("F43")
def test_of_two_nukes_that_resume_one_job_the_second_leaves_it_to_the_first(app, server, comp):
    from gencomp_nuke import callbacks

    gizmo = comp(app)
    version = left(gizmo)
    run = pending.resumed(gizmo, pending.read(version.folder))
    os.utime(version.folder / "job.json")  # Meanwhile the other one has begun.
    callbacks.start(run)
    app.process_events(lambda: callbacks.running(gizmo) is None)
    assert status(gizmo) == (
        "Another Nuke has taken up the job of v001. Choose that version once it is whole, or press "
        "Generate."
    )
    assert (version.folder / "job.json").is_file()


def test_what_is_turned_while_inputs_are_looked_at_is_never_kept_under_the_older_name(
    app, comp, tmp_path
):
    import nuke
    from gencomp_nuke import asking

    gizmo = comp(app)
    gain = nuke.createNode("Multiply", "value 2")
    gain.setInput(0, gizmo.input(0))
    gizmo.setInput(0, gain)
    asked, settings = asking.ask(gizmo), prefs.load()
    steps = inputs.collecting(gizmo, asked, tmp_path / "run", settings)
    for _ in range(3):
        next(steps)
    gain["value"].setValue(3)
    made = mainthread.through(steps)
    made.files()
    again = inputs.collect(gizmo, asked, tmp_path / "again", settings)
    assert again.places == made.places
    assert not any(again.wanted.values())


# --- the end of a call ---------------------------------------------------------------------------


@pytest.mark.fault("F44")
def test_ctrl_c_in_a_call_ends_the_wait_of_the_thread_that_asked():
    pump, told = mainthread.Pump(), []

    def pressed():
        raise KeyboardInterrupt

    def ask():
        try:
            mainthread.MainThread(pump.send).call(pressed)
        except Cancelled as error:
            told.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pump.run_until(lambda: False)
    thread.join(10)
    assert [type(error) for error in told] == [Cancelled]


@pytest.mark.fault("F43")
def test_a_node_that_is_deleted_before_its_inputs_are_looked_at_is_no_failure(
    app, server, comp, caplog
):
    import nuke
    from gencomp_nuke import callbacks

    gizmo = comp(app)
    identity = gizmo["gc_id"].value()
    callbacks.begin(gizmo)
    run = callbacks.running(gizmo)
    nuke.delete(gizmo)
    app.process_events(lambda: callbacks._session().run_of(identity) is None)
    assert run.error.code == "cancelled"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_settings_that_were_mended_count_at_the_next_press(app, home, comp, monkeypatch):
    from gencomp_nuke import callbacks

    gizmo = comp(app)
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", "no-such-one serve")
    press(app, gizmo)
    assert "'no-such-one serve' cannot be started" in status(gizmo)
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", "nor-this-one serve")
    press(app, gizmo)
    assert "'nor-this-one serve' cannot be started" in status(gizmo)
    assert callbacks.running(gizmo) is None


@pytest.mark.fault("F43")
def test_a_renewed_node_gets_the_result_of_its_running_job(app, server, comp):
    from gencomp_nuke import callbacks, migrating

    gizmo = comp(app)
    server.goes_on.clear()
    callbacks.begin(gizmo)
    app.process_events(server.is_running_job.is_set)
    made = migrating.renew(gizmo)
    server.goes_on.set()
    app.process_events(lambda: callbacks.running(made) is None)
    assert status(made) == "Plays v001, frames 1001-1004."


def test_a_node_that_cannot_be_looked_at_stops_neither_nuke_nor_the_other_nodes(app, monkeypatch):
    import nuke
    from gencomp_nuke import stale

    looked = []
    for _ in range(2):
        nuke.createNode("DynVFX")["gc_key"].setValue("knobs=1")

    def members(gizmo):
        looked.append(gizmo.name())
        raise RuntimeError("no licence to look")

    monkeypatch.setattr(stale, "of_inputs", members)
    stale.Watch().look()
    app.process_events(lambda: len(looked) == 2)
    assert sorted(looked) == ["DynVFX1", "DynVFX2"]


# --- what Nuke sees ------------------------------------------------------------------------------


@pytest.mark.fault("F43")
def test_what_a_node_says_leaves_a_saved_script_saved(app, comp, tmp_path):
    import nuke

    gizmo = comp(app)
    nuke.modified(False)
    node.show(gizmo, "Waiting.", node.RUNNING, "waiting")
    with node.full_resolution(), node.rendering(gizmo, tmp_path):
        pass
    assert nuke.modified() is False
    gizmo["seed"].setValue(2)
    node.show(gizmo, "Waiting.", node.IDLE)
    assert nuke.modified() is True


def test_plain_nodes_that_could_not_all_be_made_are_not_left(app, comp):
    import nuke

    gizmo = comp(app)
    before = sorted(one.name() for one in nuke.allNodes())

    def half():
        with beside.beside(gizmo, "Bake"):
            beside.make("NoOp", "first")
            raise ValueError("half of it")

    with pytest.raises(ValueError, match="half"):
        half()
    assert sorted(one.name() for one in nuke.allNodes()) == before


def test_a_run_that_is_not_the_hidden_one_is_shown_though_it_lies_where_that_lay():
    class Ended:
        identity, is_over = "a1", True

        class gizmo:
            fullName = staticmethod(lambda: "A")

    runs = [Ended()]
    shown = Model(lambda: runs, None)
    shown.hide_ended()
    old = id(runs[0])
    kept = []
    for _ in range(1000):  # An address is used again once nobody holds what lay there.
        runs[0] = None
        runs[0] = Ended()
        kept.append(runs[0])
        if id(runs[0]) == old:
            break
    assert id(runs[0]) != old


def test_the_two_rooms_share_one_log_file(home, app):
    from gencomp_nuke import logs

    rooms = [logging.getLogger(name) for name in ("gencomp_nuke", "gencomp_protocol")]
    was = [list(room.handlers) for room in rooms]
    try:
        for room in rooms:
            room.handlers = []
        logs.setup()
        assert rooms[0].handlers == rooms[1].handlers
        assert len(rooms[0].handlers) == 2
    finally:
        for room, handlers in zip(rooms, was):
            room.handlers = handlers


# --- small things --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 kB"),
        (15_360, "15 kB"),
        (400_000, "0.4 MB"),
        (812_000_000, "812 MB"),
        (22_400_000_000, "22.4 GB"),
        (1_100_000_000_000, "1.1 TB"),
    ],
)
def test_amounts_of_data_are_spelt_for_reading(count, words):
    assert spell_bytes(count) == words


def exr(path, comment):
    """Write the header of a picture of 4x3 pixels with a comment of some length."""

    def entry(name, kind, value):
        return name + b"\0" + kind + b"\0" + struct.pack("<i", len(value)) + value

    channels = b"R\0" + struct.pack("<iiii", 1, 0, 1, 1) + b"\0"
    path.write_bytes(
        b"\x76\x2f\x31\x01\x02\0\0\0"
        + entry(b"comment", b"string", b"x" * comment)
        + entry(b"channels", b"chlist", channels)
        + entry(b"displayWindow", b"box2i", struct.pack("<4i", 0, 0, 3, 2))
        + entry(b"pixelAspectRatio", b"float", struct.pack("<f", 1.0))
        + b"\0"
        + bytes(1 << 20)
    )
    return path


@pytest.mark.parametrize("comment", [0, 8_100, 60_000])
def test_a_header_is_read_however_long_it_is(tmp_path, comment):
    head = exrhead.head_of(exr(tmp_path / "a.exr", comment))
    assert (sorted(head.channels), head.display) == (["R"], (0, 0, 3, 2))


def test_of_a_file_no_more_is_read_than_most_headers_take(tmp_path, monkeypatch):
    sizes = []

    class Counted:
        def __init__(self, path, mode):
            self.file = open(path, mode)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            self.file.close()

        def read(self, count):
            sizes.append(count)
            return self.file.read(count)

    monkeypatch.setattr(exrhead, "open", Counted, raising=False)
    exrhead.head_of(exr(tmp_path / "a.exr", 100))
    assert sizes == [8192]


def test_a_damaged_header_that_leads_back_ends(tmp_path):
    bad = tmp_path / "a.exr"
    bad.write_bytes(b"\x76\x2f\x31\x01\x02\0\0\0" + b"a\0b\0" + struct.pack("<i", -8) + bytes(99))
    with pytest.raises(exrhead.NoHead):
        exrhead.head_of(bad)


def test_the_result_before_is_found_where_a_script_has_views(app, tmp_path):
    import nuke
    from gencomp_nuke import comparing

    app.save(tmp_path / "comp.nk")
    gizmo = nuke.createNode("DynVFX")
    cache = Path(gizmo["gc_cache"].evaluate())
    for name in ("v001/left", "v001/right", "v002"):
        make(cache / name)
    gizmo["gc_folder"].setValue((cache / "v002").as_posix())
    comparing.pick(gizmo)
    assert gizmo["gc_compare_folder"].value() == (cache / "v001/%V").as_posix()


def test_a_version_whose_script_cannot_be_read_stays_and_says_so(app, tmp_path, monkeypatch):
    import nuke
    from gencomp_nuke import versions

    app.save(tmp_path / "comp.nk")
    gizmo = nuke.createNode("DynVFX")
    cache = Path(gizmo["gc_cache"].evaluate())
    make(cache / "v001")
    versions.refresh(gizmo)
    app.process_events(lambda: gizmo["gc_version_pick"].value() != "none")

    def refused(folder):
        raise PermissionError(errno.EACCES, "Permission denied", "other.nk")

    monkeypatch.setattr(versions, "_scripts_in", refused)
    monkeypatch.setattr(nuke, "ask", lambda text: True)
    gizmo["gc_folder"].setValue("")
    gizmo["gc_delete"].execute()
    app.process_events(lambda: "cannot" in status(gizmo))
    assert status(gizmo) == (
        "v001 cannot be deleted (Permission denied of other.nk). Check who owns it."
    )
    assert (cache / "v001/manifest.json").is_file()


def test_what_is_left_of_a_deletion_that_broke_off_goes_with_the_next(tmp_path):
    from gencomp_nuke import versions

    make(tmp_path / "inputs")
    make(tmp_path / ".inputs.0a1b2c.trash")
    versions.retire(tmp_path / "inputs")
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_shows_no_files_says_so(app, tmp_path, monkeypatch):
    import nuke
    from gencomp_nuke import tool

    gizmo = nuke.createNode("DynVFX")
    make(tmp_path / "v001")
    gizmo["gc_folder"].setValue((tmp_path / "v001").as_posix())

    def missing(words, **more):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(tool.subprocess, "Popen", missing)
    gizmo["gc_reveal"].execute()
    assert "This machine does not show" in status(gizmo)
