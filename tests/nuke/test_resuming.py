# SPDX-License-Identifier: Apache-2.0
"""A job that outlives its Nuke: found when the script is opened, offered, taken up or given up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.server import SECRET, FakeServer
from fakes.shot import press

ROOT = Path(__file__).resolve().parent.parent.parent
TERMINAL = ROOT / "tests" / "standin" / "terminal.py"
OFFER = "The job of v001 was left when Nuke closed. Press Resume to get its result."
BATCH = """
import sys
import nuke
from gencomp_nuke import batch
nuke.scriptOpen(sys.argv[1])
batch.generate(nuke.toNode("Omnimatte1"))
"""


def status(gizmo):
    return " ".join(gizmo["gc_status"].value().split())


def leave(gizmo, server):
    """Leave what a Nuke leaves that was killed once its job was handed in; return the folder."""
    from gencomp_nuke import inputs, jobs, pending, prefs, runs, working
    from gencomp_protocol import picture_of, request_key
    from gencomp_protocol.locate import ServerFile

    run = runs.prepare(gizmo, prefs.load())
    run.version = jobs.reserve(run.cache)
    files = inputs.ready(gizmo, run.ask, run.version.inputs, prefs.load())
    pictures = {
        name: {n: picture_of(path) for n, path in one.items()} for name, one in files.items()
    }
    request = run.ask.request
    with working.client_for(run, ServerFile(server.address, SECRET)) as client:
        client.connect()
        run.jobs = (client.submit(request, pictures, request_key(request, pictures)),)
    run.files = {"": files}
    pending.note(run)
    pending.let_go(run.version)
    return run.version.folder


def reopened(app, tmp_path):
    import nuke

    app.save()
    nuke.scriptOpen(str(tmp_path / "comp.nk"))
    return nuke.toNode("Omnimatte1")


def resume(app, gizmo):
    from gencomp_nuke import callbacks

    gizmo["gc_resume"].execute()
    app.process_events(lambda: callbacks.running(gizmo) is None)


@pytest.mark.fault("F43")
def test_what_waits_is_offered_when_the_script_is_opened_and_the_old_result_plays(
    app, server, comp, tmp_path
):
    gizmo = comp(app)
    press(app, gizmo)
    assert gizmo["gc_resume"].visible() is False
    leave(gizmo, server)
    again = reopened(app, tmp_path)
    assert again["gc_resume"].visible() is True
    assert status(again) == OFFER.replace("v001", "v002") + " Meanwhile v001 plays."
    assert again["gc_note"].value() == "resume"
    assert again["gc_folder"].evaluate().endswith("/v001")


@pytest.mark.fault("F43")
def test_resume_sends_what_was_not_sent_yet_and_the_node_plays_the_result(
    app, server, comp, tmp_path
):
    part = leave(comp(app), server)
    gizmo = reopened(app, tmp_path)
    assert status(gizmo) == OFFER
    resume(app, gizmo)
    assert status(gizmo) == "Plays v001, frames 1001-1004."
    assert list(server.jobs) == ["job1"]
    assert gizmo["gc_resume"].visible() is False
    assert not part.exists()
    assert sorted(p.name for p in part.with_name("v001").iterdir()) == [
        "a",
        "b",
        "background",
        "manifest.json",
    ]


def test_without_its_inputs_a_job_that_lacks_them_is_given_up_in_words(app, server, comp, tmp_path):
    gizmo = comp(app)
    part = leave(gizmo, server)
    left = json.loads((part / "job.json").read_text(encoding="utf-8"))
    left["files"][""]["plate"]["1001"] = str(tmp_path / "gone.exr")
    (part / "job.json").write_text(json.dumps(left), encoding="utf-8")
    os.utime(part / "job.json", (0, 0))
    resume(app, gizmo)
    assert status(gizmo) == (
        "The inputs of the job are gone, and the server had not got all of them. Press Generate."
    )
    assert not part.exists()


@pytest.mark.fault("F43")
def test_a_job_that_the_server_no_longer_knows_is_given_up_in_words(app, server, comp):
    gizmo = comp(app)
    part = leave(gizmo, server)
    server.jobs.clear()
    resume(app, gizmo)
    assert status(gizmo) == "The server has no job 'job1'. Submit it again."
    assert not part.exists()
    resume(app, gizmo)
    assert status(gizmo) == "No job of this node waits. Press Generate."


@pytest.mark.fault("F43")
def test_what_another_nuke_works_on_is_neither_offered_nor_removed(app, server, comp, tmp_path):
    gizmo = comp(app)
    part = leave(gizmo, server)
    os.utime(part / "job.json")
    again = reopened(app, tmp_path)
    assert again["gc_resume"].visible() is False
    press(app, again)
    assert status(again) == "Plays v002, frames 1001-1004."
    assert (part / "job.json").is_file()
    assert server.cancelled == []


def test_generate_instead_of_resume_takes_the_place_of_what_waited(app, server, comp):
    gizmo = comp(app)
    part = leave(gizmo, server)
    press(app, gizmo)
    assert status(gizmo) == "Plays v002, frames 1001-1004."
    assert server.cancelled == ["job1"]
    assert not part.exists()


def test_a_job_of_other_frames_goes_on_waiting(app, server, comp):
    gizmo = comp(app)
    part = leave(gizmo, server)
    gizmo["gc_range"].setValue("custom")
    gizmo["gc_first"].setValue(1002)
    gizmo["gc_last"].setValue(1002)
    press(app, gizmo)
    assert server.cancelled == []
    assert part.is_dir()


@pytest.mark.slow
def test_when_the_server_goes_away_the_job_waits_for_it(app, shot, home, comp, monkeypatch):
    from gencomp_nuke import callbacks, working

    made = working.Client
    monkeypatch.setattr(working, "Client", lambda *a, **kw: made(*a, **kw, timeout_s=0.3))
    gizmo = comp(app)
    with FakeServer(shot / "layers", home) as server:
        server.goes_on.clear()
        callbacks.begin(gizmo)
        app.process_events(server.is_running_job.is_set)
    app.process_events(lambda: callbacks.running(gizmo) is None, timeout_s=40)
    assert status(gizmo).endswith("Press Resume to get its result.")
    assert gizmo["gc_resume"].visible() is True
    with FakeServer(shot / "layers", home) as back:
        back.jobs.update(server.jobs)
        resume(app, gizmo)
    assert status(gizmo) == "Plays v001, frames 1001-1004."


@pytest.mark.fault("F43")
def test_a_script_opened_again_in_the_same_nuke_gets_the_result_of_its_running_job(
    app, server, comp, tmp_path
):
    from gencomp_nuke import callbacks

    server.goes_on.clear()
    callbacks.begin(comp(app))
    app.process_events(server.is_running_job.is_set)
    gizmo = reopened(app, tmp_path)
    assert status(gizmo) == "Its job goes on."
    server.goes_on.set()
    app.process_events(lambda: callbacks.running(gizmo) is None)
    assert status(gizmo) == "Plays v001, frames 1001-1004."
    assert gizmo.sample("a.alpha", 16, 48 - 16, frame=1002) == 0.5


def test_takes_that_waited_come_as_takes(app, server, comp, tmp_path):
    gizmo = comp(app)
    part = leave(gizmo, server)
    left = json.loads((part / "job.json").read_text(encoding="utf-8"))
    left["parts"][0].update(subfolder="take02", title="take 2")
    (part / "job.json").write_text(json.dumps(left), encoding="utf-8")
    os.utime(part / "job.json", (0, 0))
    resume(app, gizmo)
    assert status(gizmo) == "Plays v001 take02, frames 1001-1004."


def test_a_job_file_that_cannot_be_understood_is_nobodys(app, server, comp, tmp_path):
    gizmo = comp(app)
    part = leave(gizmo, server)
    (part / "job.json").write_text('{"node": 1}', encoding="utf-8")
    again = reopened(app, tmp_path)
    assert again["gc_resume"].visible() is False


@pytest.mark.fault("F43")
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="one Python is enough to be killed")
def test_after_a_nuke_was_killed_in_the_midst_another_gets_the_result(
    app, server, comp, home, tmp_path
):
    comp(app)
    app.save()
    program = tmp_path / "generate.py"
    program.write_text(BATCH, encoding="utf-8")
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environ["NUKE_PATH"] = str(ROOT)
    server.goes_on.clear()
    killed = subprocess.Popen(
        [sys.executable, str(TERMINAL), "-t", str(program), str(tmp_path / "comp.nk")],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert server.is_running_job.wait(60)
    killed.kill()
    killed.wait()
    server.goes_on.set()
    gizmo = reopened(app, tmp_path)
    assert status(gizmo) == OFFER
    resume(app, gizmo)
    assert status(gizmo) == "Plays v001, frames 1001-1004."
    assert list(server.jobs) == ["job1"]
