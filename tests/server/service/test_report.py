# SPDX-License-Identifier: Apache-2.0
"""A job's report: what support needs in one zip, and nothing that is not support's."""

import json
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from gencomp_protocol.errors import InternalError, ServerBusy, UnknownJob
from gencomp_server import records
from gencomp_server.cli import main
from gencomp_server.config import ServerConfig
from gencomp_server.report import HIDDEN, settings_of, write_zip

PROMPT = "the hero's ship burns\nat dawn"
SHOW = "nightfall"
ACCOUNT = "ada.lovelace@ws12"
FILES = {
    *("report.json", "job.json", "graph.json", "graph.txt", "headers.json", "log.txt"),
    *("versions.json", "config.json"),
}


@pytest.fixture
def server(passes):
    """The server of the system that works in passes."""
    return passes


@pytest.fixture
def run(server, shot, tmp_path, monkeypatch):
    """Return a function that runs a job and gathers its report: the outcome, id, and the zip."""
    monkeypatch.setenv("GENCOMP_SECRET_FILE", str(server.config.state_file))

    def make(*words, **knobs):
        with server.client(account=ACCOUNT) as client:
            pictures = shot.pictures()
            request = shot.request("passes", **{"prompt": PROMPT, **knobs})
            job = client.submit(request, pictures, f"k{time.monotonic_ns()}", show=SHOW)
            outcome = client.follow(job, pictures=pictures)
        path = tmp_path / "report.zip"
        given = ("--server", server.here.address, "--out", str(path))
        assert main(["report", job, *given, *words]) == 0
        return outcome, job, path

    return make


def read(path):
    """Return the files of a report by name."""
    with zipfile.ZipFile(path) as packed:
        names = packed.namelist()
        assert len({name.split("/")[0] for name in names}) == 1
        texts = {name.split("/")[1]: packed.read(name).decode() for name in names}
    return {n: json.loads(t) if n.endswith(".json") else t for n, t in texts.items()}


def test_when_a_job_failed_then_its_error_ends_with_its_id_and_the_report_has_all_of_it(
    run, server, tmp_path
):
    once = tmp_path / "once"
    outcome, job, path = run(fault="raise", at="2.2", once=str(once))
    assert str(outcome.error).endswith(f"(report {job})")
    files = read(path)
    assert set(files) == FILES
    assert files["job.json"]["state"] == "failed"
    assert files["job.json"]["error"]["code"] == "internal-error"
    assert [row["state"] for row in files["graph.json"]] == ["done", "done", "failed"]
    assert "failed" in files["graph.txt"]
    assert outcome.error.details["id"] in files["log.txt"]
    assert "ZeroDivisionError" in files["log.txt"]  # The worker's traceback, by the job's id.
    plate = files["headers.json"]["plate"]["pictures"]["1001"]
    assert plate["channels"] == ["R", "G", "B"]
    assert plate["data_window"] == [0, 0, 31, 17]
    assert files["versions.json"]["packages"]["numpy"]
    assert files["versions.json"]["machine"]["device"] == "cpu"
    assert files["config.json"]["device"] == {"value": "cpu", "from": "not known"}


def test_when_a_report_is_gathered_then_no_prompt_secret_plate_or_name_is_in_it(run, server):
    outcome, _, path = run(seed=1)
    assert outcome.state == "done"
    files = read(path)
    assert set(files) == FILES | {"manifest.json"}
    with zipfile.ZipFile(path) as packed:
        whole = b"".join(packed.read(name) for name in packed.namelist()).decode()
    assert PROMPT not in whole
    assert json.dumps(PROMPT)[1:-1] not in whole
    assert "ship" not in whole
    assert files["job.json"]["request"]["knobs"]["prompt"] == HIDDEN
    assert files["manifest.json"]["knobs"]["prompt"] == HIDDEN
    assert server.here.secret not in whole
    assert SHOW not in whole
    assert ACCOUNT not in whole
    assert not any(name.endswith((".exr", ".npy", ".raw")) for name in files)
    assert path.stat().st_size < 50_000


def test_whose_job_it_is_stands_nowhere_in_its_report(run, server, tmp_path):
    _, job, _ = run(seed=4)
    said = f"passes 1001 from {ACCOUNT} (test) for {SHOW}"
    line = {"time": "2026-01-01T00:00:00Z", "level": "info", "job": job, "message": said}
    with open(server.config.log_settings().file, "a") as file:
        file.write(f"{json.dumps(line)}\n")
    path = tmp_path / "again.zip"
    assert main(["report", job, "--server", server.here.address, "--out", str(path)]) == 0
    assert f"passes 1001 from {HIDDEN} (test) for {HIDDEN}" in read(path)["log.txt"]


def test_when_prompts_are_asked_for_then_they_are_in_it(run):
    _, _, path = run("--with-prompts", seed=2)
    files = read(path)
    assert files["job.json"]["request"]["knobs"]["prompt"] == PROMPT
    assert files["report.json"]["with_prompts"] is True


def test_when_no_server_runs_then_the_report_comes_out_of_its_spool(
    run, server, tmp_path, monkeypatch
):
    _, job, path = run(seed=3)
    out = tmp_path / "again.zip"
    monkeypatch.delenv("GENCOMP_SECRET_FILE")
    given = ["--spool", str(server.config.spool), "--out", str(out)]
    assert main(["report", job, *given]) == 0
    told, again = read(path), read(out)
    for name in ("job.json", "graph.json", "headers.json", "manifest.json"):
        assert again[name] == told[name], name
    assert main(["report", "0" * 16, *given]) == 2
    assert main(["report", job, "--spool", str(tmp_path), "--out", str(out)]) == 2


def test_settings_that_are_secret_are_hidden_and_an_address_loses_its_user(tmp_path):
    config = ServerConfig(
        assistant_url="https://ann:sesame@host.example/v1", assistant_key_file="/keys/llm"
    )
    shown = settings_of(config, {"assistant_url": "GENCOMP_ASSISTANT_URL"})
    assert shown["assistant_url"] == {
        "value": "https://host.example/v1",
        "from": "GENCOMP_ASSISTANT_URL",
    }
    assert shown["assistant_key_file"]["value"] == "/keys/llm"  # Where it is, never what.
    assert "sesame" not in json.dumps(shown)
    shares = settings_of(ServerConfig(shares=("nightfall=2",)), {})["shares"]
    assert shares["value"] == HIDDEN


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    from gencomp_protocol.errors import UnwritableOutput

    with pytest.raises(UnwritableOutput, match="cannot be written"):
        write_zip(tmp_path / "no" / "report.zip", "job", {"a.json": {}})
    aim = tmp_path / "aim"
    aim.write_text("somebody's")
    (tmp_path / ".report.zip.part").symlink_to(aim)
    write_zip(tmp_path / "report.zip", "job", {"../../a.json": {}})
    assert aim.read_text() == "somebody's"
    aim.unlink()
    assert (tmp_path / "report.zip").stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(tmp_path / "report.zip") as packed:
        assert packed.namelist() == ["gencomp-report-job/a.json"]
    assert [one.name for one in tmp_path.iterdir()] == ["report.zip"]


def test_while_a_report_is_gathered_others_are_answered_and_a_flood_of_them_is_refused(
    run, server, monkeypatch
):
    _, job, _ = run(seed=4)
    goes_on, gathering, real = threading.Event(), threading.Event(), records.gather

    def slow(*given, **more):
        gathering.set()
        assert goes_on.wait(60)
        return real(*given, **more)

    monkeypatch.setattr(records, "gather", slow)
    with ThreadPoolExecutor(8) as pool, server.client() as other:

        def ask(_):
            with server.client() as client:
                return client.report(job)

        try:
            asked = [pool.submit(ask, n) for n in range(8)]
            assert gathering.wait(10)
            begun = time.monotonic()
            assert job in [one["job"] for one in other.jobs()]
            assert time.monotonic() - begun < 2
            until_refused = time.monotonic() + 10
            refused = None
            while refused is None and time.monotonic() < until_refused:
                if len(server.service._questions._asked) == 8:
                    with pytest.raises(ServerBusy, match="reports") as refused:
                        other.report(job)
        finally:
            goes_on.set()
        assert refused is not None
        assert all(set(one.result()) == FILES | {"manifest.json"} for one in asked)


def test_when_a_report_cannot_be_gathered_then_that_is_said(run, server, monkeypatch):
    _, job, _ = run(seed=5)

    def fail(*given, **more):
        raise ZeroDivisionError

    monkeypatch.setattr(records, "gather", fail)
    with server.client() as client, pytest.raises(InternalError, match="made a mistake"):
        client.report(job)


def test_a_report_of_a_job_that_nobody_has_is_refused(server):
    with server.client() as client, pytest.raises(UnknownJob):
        client.report("0" * 16)
