# SPDX-License-Identifier: Apache-2.0
"""Backbones at the first gate, before any picture travels; and a worker killed while it samples."""

import threading

import numpy as np
import psutil
import pytest

from gencomp_protocol.client import Progressed, Sent, StateChanged, Warned
from gencomp_protocol.errors import BadKnob, WeightsMissing, WeightsRefused
from gencomp_server.engine.supervisor import Supervisor

DECLARED = """
[casper]
title = "A stand-in for Casper"
purpose = "Tests."
source = "Made here."
licence = "None at all."
class = "academic"
files = [{ role = "transformer", paths = ["casper.safetensors"] }]
"""


def pictures_kept(server):
    return [path for path in (server.config.spool / "pictures").rglob("*") if path.is_file()]


def test_a_backbone_that_is_not_installed_is_refused_before_any_picture_travels(
    server, client, shot
):
    before = pictures_kept(server)
    sent = []
    with pytest.raises(WeightsMissing, match="are not installed") as refusal:
        shot.run(client, system="overplusplus", backbone="casper", on_event=sent.append)
    assert refusal.value.details["backbone"] == "casper"
    assert [event for event in sent if isinstance(event, Sent)] == []
    assert pictures_kept(server) == before
    assert "overplusplus" not in {job["system"] for job in client.jobs()}


@pytest.mark.parametrize(
    ("knobs", "error", "words"),
    [
        pytest.param({"backbone": "caspar"}, BadKnob, "'backbone' cannot be 'caspar'", id="typo"),
        pytest.param({"backbone": "casper"}, WeightsMissing, "are not installed", id="missing"),
        pytest.param(
            {"backbone": "tiny", "model_size": "100x50"}, BadKnob, "multiples of 16", id="size"
        ),
        pytest.param({"backbone": "tiny", "steps": 0}, BadKnob, "'steps' is 0", id="no steps"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_asked_for(client, shot, knobs, error, words):
    with pytest.raises(error, match=words):
        client.check(shot.request(system="overplusplus", **knobs))


def test_with_nothing_installed_a_plan_names_the_one_that_ships(client, shot):
    plan = client.check(shot.request(system="overplusplus"))
    assert (plan["backbone"], plan["refusal"]) == ("preview", None)


def test_where_the_studio_does_not_allow_what_ships_nothing_travels(process, shot):
    server = process(allowed_models="casper").start()
    with (
        server.client() as client,
        pytest.raises(WeightsMissing, match="Copy needs a video model") as refusal,
    ):
        client.check(shot.request(system="overplusplus"))
    assert refusal.value.details["backbone"] == "casper"


def test_a_plan_says_what_the_backbone_takes(client, shot):
    plan = client.check(shot.request(system="overplusplus", backbone="tiny", steps=7))
    assert (plan["backbone"], plan["forwards"]) == ("tiny", 7)
    assert set(plan["stage_bytes"]) == {"text", "encode", "sample", "decode"}
    assert plan["placement"]["offload"] == "none"
    assert plan["device"]


def test_a_plan_knows_whether_the_server_has_a_segmenter(process, shot):
    real, tool = "gencomp_server.systems:REGISTRY", "find-it {frames} {words} {out}"
    asked = {"prompt": "x", "change_from": "segmenter", "target_object": "it", "backbone": "tiny"}
    server = process(registry=real, segmenter=tool).start()
    with server.client() as client:
        assert "looking for it" in client.check(shot.request(system="dynvfx", **asked))["notes"][0]


def test_a_plan_is_told_on_demand_also_where_the_weights_are_missing(client, shot):
    plan = client.check(shot.request(system="overplusplus", backbone="casper"), anyway=True)
    assert (plan["backbone"], plan["on_cpu"]) == ("casper", True)
    assert plan["forwards"] > 0
    assert plan["refusal"]["code"] == "weights-missing"


def test_weights_of_a_class_that_is_not_allowed_are_refused_with_class_and_alternative(
    process, shot, tmp_path
):
    weights = tmp_path / "weights"
    (weights / "casper").mkdir(parents=True)
    (weights / "weights.toml").write_text(DECLARED)
    (weights / "casper" / "casper.safetensors").write_bytes(b"\0" * 16)
    server = process(weights=str(weights), allowed_licences="production").start()
    with server.client() as client, pytest.raises(WeightsRefused) as refusal:
        client.check(shot.request(system="overplusplus", backbone="casper"))
    assert "'academic'" in refusal.value.message
    assert "wan-casper-1.3b" in refusal.value.hint


@pytest.fixture
def late_worker(monkeypatch):
    """Let the front hear its worker only once the event is set; set ``memory_bytes`` beside it."""
    known, read, memory = threading.Event(), Supervisor.read, []

    def late(self):
        if not known.is_set():
            return []
        said = read(self)
        if self.machine is not None and memory:
            self.machine = {**self.machine, "memory_bytes": memory[0]}
        return said

    monkeypatch.setattr(Supervisor, "read", late)
    return known, memory


@pytest.mark.parametrize(
    ("memory_bytes", "is_refused"), [(1000, True), (10**15, False)], ids=["too little", "enough"]
)
def test_what_is_asked_for_before_the_machine_is_known_sends_nothing_until_it_is(
    server, late_worker, shot, tmp_path, wait_until, memory_bytes, is_refused
):
    known, memory = late_worker
    memory.append(memory_bytes)
    running = type(server)(tmp_path / "own")
    try:
        with running.client() as client:
            ended = []
            knobs = {"system": "overplusplus", "backbone": "tiny", "steps": 1}
            job = threading.Thread(target=lambda: ended.append(shot.run(client, **knobs)))
            job.start()
            wait_until(lambda: running.service._front.waiting)
            assert pictures_kept(running) == []
            known.set()
            job.join(60)
            outcome, events, _ = ended[0]
    finally:
        known.set()
        running.close()
    sent = [event for event in events if isinstance(event, Sent)]
    assert (outcome.state == "refused") is is_refused
    assert len(sent) == (0 if is_refused else len(shot.frames))
    if is_refused:
        assert outcome.error.code == "out-of-memory"
        assert "needs" in outcome.error.message


# --- a worker that is killed while it samples ----------------------------------------------------


def run_steps(client, shot, **knobs):
    outcome, events, _ = shot.run(client, system="steps", **knobs)
    return outcome, events


def unbroken(steps):
    """Return what the steps come to, computed here and in one go. [4] float32."""
    import hashlib

    latents = np.zeros(4, np.float32)
    for step in range(steps):
        mark = hashlib.blake2b(f"0\0step {step}".encode(), digest_size=16).digest()
        drawn = np.random.Generator(np.random.PCG64(int.from_bytes(mark, "little")))
        noise = drawn.standard_normal(4).astype(np.float32)
        latents = np.float32(0.5) * latents + noise
    return latents


@pytest.mark.fault("F31", "F41")
def test_a_worker_killed_in_the_middle_goes_on_from_the_last_finished_step_with_the_same_bits(
    client, shot
):
    outcome, events = run_steps(client, shot, steps=6, die_at=3)
    assert outcome.state == "done"
    report = outcome.manifest["report"]
    assert report["first"] == 3
    assert report["latents"] == [float(value) for value in unbroken(6)]
    states = [event.state for event in events if isinstance(event, StateChanged)]
    assert states[-4:] == ["running", "queued", "running", "done"]
    said = [event.sentence for event in events if isinstance(event, Warned)]
    assert len(said) == 1
    assert "ended by SIGKILL" in said[0]
    assert said[0].endswith("goes on from its last finished step (attempt 2 of 2).")


def test_a_worker_killed_from_outside_does_not_lose_the_job_either(process, shot, wait_until):
    server = process().start()
    with server.client() as client:
        killed = []

        def kill(event):
            if isinstance(event, Progressed) and event.step >= 1 and not killed:
                children = psutil.Process(server.process.pid).children(recursive=True)
                workers = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
                killed.extend(workers)
                for one in workers:
                    one.kill()

        outcome, _, _ = shot.run(client, on_event=kill, wait_s=0.5)
    assert killed
    assert outcome.state == "done"


@pytest.mark.fault("F28")
@pytest.mark.fault("F30")
def test_a_job_that_kills_every_worker_is_put_away_and_the_next_one_runs(client, shot):
    outcome, events = run_steps(client, shot, steps=4, die_at=2, die_always=True)
    assert (outcome.state, outcome.error.code) == ("failed", "quarantined")
    assert "that happened 2 times, and it is not run again" in outcome.error.message
    assert len([event for event in events if isinstance(event, Warned)]) == 1
    assert run_steps(client, shot, steps=2)[0].state == "done"
