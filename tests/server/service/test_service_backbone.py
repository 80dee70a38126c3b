# SPDX-License-Identifier: Apache-2.0
"""Backbones at the first gate, before any picture travels; and a worker killed while it samples."""

import numpy as np
import psutil
import pytest

from gencomp_protocol.client import Progressed, Sent, StateChanged, Warned
from gencomp_protocol.errors import BadKnob, WeightsMissing, WeightsRefused

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
    with pytest.raises(WeightsMissing, match="Copy needs a video model") as refusal:
        shot.run(client, system="overplusplus", on_event=sent.append)
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


def test_a_plan_says_what_the_backbone_takes(client, shot):
    plan = client.check(shot.request(system="overplusplus", backbone="tiny", steps=7))
    assert (plan["backbone"], plan["forwards"]) == ("tiny", 7)
    assert set(plan["stage_bytes"]) == {"text", "encode", "sample", "decode"}
    assert plan["placement"]["offload"] == "none"
    assert plan["device"]


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
    assert said[0].endswith("goes on from its last finished step (attempt 2 of 3).")


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


def test_a_job_that_kills_every_worker_fails_after_the_third_and_the_next_one_runs(client, shot):
    outcome, events = run_steps(client, shot, steps=4, die_at=2, die_always=True)
    assert (outcome.state, outcome.error.code) == ("failed", "worker-lost")
    assert "the 3rd time" in outcome.error.message
    assert len([event for event in events if isinstance(event, Warned)]) == 2
    assert run_steps(client, shot, steps=2)[0].state == "done"
