# SPDX-License-Identifier: Apache-2.0
"""The worker process: a job's messages in order, cancel, crash, refusal, and the manifest."""

import json
import os
import select
import signal
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import psutil
import pytest

from gencomp_protocol.codec import request_to_plain
from gencomp_protocol.transfer import digest_of_file
from gencomp_server.engine.worker import Worker
from gencomp_server.logs import LogSettings

PATIENCE_S = 60.0


class Talk:
    """A worker and what it said."""

    def __init__(self, job):
        self.tiny, self.heard = job, deque()
        self.worker = Worker(
            "stub_registry:REGISTRY", "cpu", job.spool.root, log_settings=LogSettings("error")
        )

    def start(self):
        self.worker.start()
        said = self.hear()
        assert said["is"] == "ready"
        self.machine = said["machine"]

    def ask(self, system, *, job="j1", **facts):
        request = replace(self.tiny.request(**facts), system=system)
        self.worker.send(
            {
                "do": "run",
                "job": job,
                "request": request_to_plain(request),
                "pictures": self.tiny.pictures,
            }
        )

    def hear(self):
        while not self.heard:
            readable, _, _ = select.select([self.worker.connection], [], [], PATIENCE_S)
            assert readable, "the worker says nothing"
            for message in self.worker.connection.receive():
                self.heard.append(message)
        return self.heard.popleft()

    def hear_all(self):
        """Return what is said of a job, up to how it ended."""
        said = [self.hear()]
        while said[-1]["is"] not in ("done", "failed", "cancelled"):
            said.append(self.hear())
        return said

    def run(self, system, **facts):
        self.ask(system, **facts)
        return self.hear_all()


@pytest.fixture
def talk(tiny_job, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    made = Talk(tiny_job)
    made.start()
    yield made
    made.worker.kill()


def kinds(said):
    return [message["is"] for message in said]


def test_a_ready_worker_says_what_it_runs_on(talk):
    assert talk.machine["device"] == "cpu"
    assert talk.machine["memory_bytes"] == psutil.virtual_memory().total
    assert talk.machine["teraflops"] > 0


def test_a_job_is_started_reported_and_done(talk):
    said = talk.run("copy")
    assert kinds(said)[0] == "started"
    assert kinds(said)[-1] == "done"
    assert kinds(said).count("layer") == 2
    assert {"is": "warning", "job": "j1", "sentence": "This is a stub."} in said
    progress = {"is": "progress", "job": "j1", "stage": "measure", "step": 1, "total": 1}
    stages = [message["stage"] for message in said if message["is"] == "stage"]
    told = [(row["name"], row["state"]) for row in stages]
    assert told == [("measure", "running"), ("measure", "done"), ("layers", "done")]
    assert stages[2]["needs"] == [stages[0]["key"]]
    assert stages[2]["bytes"] == sum(one["bytes"] for one in said if one["is"] == "layer")
    assert progress in said
    assert all(message["job"] == "j1" for message in said)


def test_layers_are_on_disk_when_they_are_told(talk):
    told = [message for message in talk.run("copy") if message["is"] == "layer"]
    for message in told:
        path = Path(message["path"])
        assert path == talk.tiny.spool.layer("j1", "copy", message["frame"])
        assert (message["bytes"], message["digest"]) == (path.stat().st_size, digest_of_file(path))
    file = oiio.ImageInput.open(str(talk.tiny.spool.layer("j1", "copy", 1002)))
    assert np.array(file.read_image("half"))[0, 0].tolist() == [3.0, 3.0, 3.0]
    assert file.spec().get_string_attribute("gencomp:system") == "copy"
    assert file.spec().get_string_attribute("gencomp:layer") == "copy"


def test_the_manifest_says_what_was_made_of_what(talk):
    manifest = talk.run("copy", knobs={"gain": 3.0})[-1]["manifest"]
    assert manifest == talk.tiny.spool.read_manifest("j1")
    assert manifest["knobs"] == {"seed": 0, "gain": 3.0}
    assert (manifest["system"], manifest["frames"], manifest["device"]) == (
        "copy",
        "1001-1002",
        "cpu",
    )
    assert manifest["inputs"]["plate"]["digests"] == {
        str(n): digest for n, digest in talk.tiny.pictures["plate"].items()
    }
    assert manifest["layers"]["copy"]["channels"] == ["R", "G", "B"]
    assert sorted(manifest["layers"]["copy"]["frames"]) == ["1001", "1002"]
    assert [(row["name"], row["reused"]) for row in manifest["stages"]] == [("measure", False)]
    assert manifest["warnings"][-1] == "This is a stub."
    assert (
        "covers 100% of the picture" in manifest["warnings"][0]
    )  # The matte of this shot is all 1.
    assert manifest["report"] == {"gain": 3.0}
    assert str(talk.tiny.folder) not in json.dumps(manifest)


def test_a_second_job_reuses_stages_and_gives_the_same_bytes(talk):
    first = talk.run("copy")[-1]["manifest"]
    second = talk.run("copy", job="j2")[-1]["manifest"]
    assert second["stages"][0]["reused"]
    assert first["layers"] == second["layers"]


def test_a_plate_with_nan_is_counted_in_the_manifest(talk):
    plate = np.full((2, 4, 3), 0.5, np.float16)
    plate[0, 0, 0] = np.nan
    talk.tiny.add("plate", 1002, plate)
    manifest = talk.run("copy")[-1]["manifest"]
    assert manifest["inputs"]["plate"]["not_finite"] == {"1002": 1}
    assert "Input 'plate' frame 1002 has 1 bad sample" in manifest["warnings"][0]


def test_a_cancel_arrives_in_the_middle_and_the_next_job_runs(talk):
    talk.ask("wait")
    assert [talk.hear()["is"], talk.hear()["stage"]] == ["started", "waiting"]
    talk.worker.send({"do": "cancel", "job": "j1"})
    assert kinds(talk.hear_all())[-1] == "cancelled"
    assert kinds(talk.run("copy", job="j2"))[-1] == "done"
    assert talk.tiny.spool.read_manifest("j1") is None


def test_a_cancel_of_another_job_changes_nothing(talk):
    talk.worker.send({"do": "cancel", "job": "other"})
    assert kinds(talk.run("copy"))[-1] == "done"


def test_a_job_that_was_cancelled_can_be_run_again(talk):
    talk.ask("wait")
    talk.worker.send({"do": "cancel", "job": "j1"})
    talk.hear_all()
    assert kinds(talk.run("copy"))[-1] == "done"


def test_an_error_for_the_artist_crosses_as_it_is(talk):
    error = talk.run("refuse")[-1]["error"]
    assert error == {
        "code": "bad-matte",
        "message": "Input 'matte.a' is a joke.",
        "hint": "Be serious.",
        "details": {},
    }


def test_an_unknown_exception_becomes_an_internal_error_without_its_words(talk):
    error = talk.run("raise")[-1]["error"]
    assert error["code"] == "internal-error"
    assert error["details"]["id"] in error["hint"]
    assert "secret" not in json.dumps(error)
    assert kinds(talk.run("copy", job="j2"))[-1] == "done"


def test_no_memory_is_told_as_that(talk):
    assert talk.run("memory")[-1]["error"]["code"] == "out-of-memory"


@pytest.mark.parametrize(
    ("system", "words"),
    [("few", "did not make layer 'copy' frame 1002"), ("more", "did not declare")],
)
def test_a_system_that_does_not_keep_its_word_fails(talk, system, words):
    error = talk.run(system)[-1]["error"]
    assert (error["code"], words in error["message"]) == ("internal-error", True)
    assert error["details"]["id"] in error["hint"]
    assert talk.tiny.spool.read_manifest("j1") is None


def test_a_request_that_cannot_be_is_refused_here_too(talk):
    assert talk.run("copy", knobs={"gian": 1.0})[-1]["error"]["code"] == "bad-knob"
    assert talk.run("nothing")[-1]["error"]["code"] == "bad-knob"


def test_a_crash_closes_the_pipe_and_a_new_start_works(talk):
    talk.ask("crash")
    with pytest.raises(EOFError):
        talk.hear_all()
    assert talk.worker.exit_code() == -signal.SIGKILL
    talk.worker.kill()
    talk.start()
    assert kinds(talk.run("copy"))[-1] == "done"


def test_a_job_runs_on_the_main_thread_and_without_torch(talk):
    report = talk.run("threads")[-1]["manifest"]["report"]
    assert report == {"torch": False, "main": True}


def test_a_worker_that_is_asked_to_stop_leaves_by_itself(talk):
    process = psutil.Process(talk.worker.pid)
    talk.run("copy")
    talk.worker.stop(PATIENCE_S)
    assert not process.is_running()
    assert not talk.worker.alive()


def test_a_worker_whose_front_is_gone_leaves_in_the_middle_of_a_job(talk):
    talk.ask("wait")
    talk.hear()
    talk.worker.connection.close()
    codes = (talk.worker.exit_code() for _ in range(100))
    assert next(code for code in codes if code is not None) == 0


def test_a_worker_does_not_hear_the_signals_of_the_fronts_terminal(talk):
    assert os.getsid(talk.worker.pid) == talk.worker.pid
