# SPDX-License-Identifier: Apache-2.0
"""A job's backbone inside the worker: lent by the plan, told of, and survived when it fails."""

from dataclasses import dataclass, replace

import numpy as np
import OpenImageIO as oiio
import pytest
import torch

from gencomp_protocol.codec import request_to_plain
from gencomp_protocol.frames import Format
from gencomp_protocol.layers import LayerSpec
from gencomp_server.backbones import ModelParams, choose, model_size
from gencomp_server.contract import (
    NEEDS_BACKBONE,
    LayerFrame,
    Machine,
    Plan,
    System,
    parse_params,
)
from gencomp_server.cost import estimate
from gencomp_server.engine.residency import Residency
from gencomp_server.engine.running import Runner, with_formats

RGB = ("R", "G", "B")


@dataclass(frozen=True)
class Params(ModelParams):
    """The knobs of every system with a backbone."""


def plan(request, machine):
    spec = choose(SYSTEM, parse_params(Params, request.knobs), machine)
    size = request.input("plate").format
    if size is None:
        return Plan()
    cost = estimate(spec, model_size(spec, size), len(request.frames), steps=1, machine=machine)
    return cost.plan()


def prompt(ctx, *, backbone):
    return ctx.backbone.text("x")


def decode(ctx, text, *, backbone):
    return ctx.backbone.decode(text)


def run(shot, params, ctx):
    text = ctx.stage("text", prompt, backbone=ctx.backbone.identity)
    value = ctx.stage("decode", decode, text, backbone=ctx.backbone.identity)
    for n in shot.frames:
        header = shot.header("plate", n)
        pixels = np.full((2, 4, 3), value, np.float16)
        yield LayerFrame("made", n, pixels, RGB, header.display_window, header.data_window)


SYSTEM = System(
    name="overplusplus",
    title="Over++",
    doc="A stub that uses a backbone.",
    inputs=(),
    params=Params,
    layers=lambda request: (LayerSpec("made", RGB),),
    plan=plan,
    run=run,
    backbone=NEEDS_BACKBONE,
)


class Mailbox:
    """What the runner says, in a list."""

    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)

    def is_cancelled(self, job):
        return False


class Fake:
    """A backbone of numbers."""

    fails = None
    said = ()
    released = 0

    def release(self):
        self.released += 1

    def text(self, prompt):
        return 0.25

    def decode(self, latents, progress):
        if self.fails is not None:
            raise self.fails
        return 2 * latents


class Bench:
    """A runner of the stub, and one job after the other."""

    def __init__(self, tiny_job):
        self.job, self.mailbox, self.fake, self.loads = tiny_job, Mailbox(), Fake(), 0
        held = Residency(tiny_job.folder / "kept", self._load)
        system = replace(SYSTEM, inputs=tiny_job.system.inputs)
        self.runner = Runner((system,), Machine(), tiny_job.spool, self.mailbox, held=held)

    def _load(self, want, files, cache):
        self.loads += 1
        return self.fake

    def run(self, job, **knobs):
        """Run a job; return the last thing that was said of it."""
        request = replace(self.job.request(knobs=knobs), system="overplusplus")
        plain = request_to_plain(request)
        self.runner.run({"job": job, "request": plain, "pictures": self.job.pictures})
        return self.mailbox.said[-1]


@pytest.fixture
def bench(tiny_job):
    made = Bench(tiny_job)
    yield made
    made.runner.close()


def test_the_backbone_that_the_plan_names_is_lent_and_is_in_the_manifest(bench):
    manifest = bench.run("j1", backbone="tiny")["manifest"]
    assert manifest["backbone"]["name"] == "tiny"
    assert manifest["backbone"]["untrained"] is True
    assert manifest["backbone"]["placement"]["words"] == "all weights on the device"
    assert any("'tiny' is untrained" in sentence for sentence in manifest["warnings"])


def test_the_files_say_which_backbone_made_them_and_that_it_was_untrained(bench):
    bench.run("j1", backbone="tiny", quality="draft")
    file = oiio.ImageInput.open(str(bench.job.spool.layer("j1", "made", 1001)))
    assert np.array(file.read_image("half")).max() == 0.5
    spec = file.spec()
    assert spec.get_string_attribute("gencomp:backbone") == "tiny"
    assert spec.get_string_attribute("gencomp:licence") == "production: none needed"
    assert "pictures mean nothing" in spec.get_string_attribute("gencomp:untrained")
    assert spec.get_string_attribute("gencomp:quality") == "draft"
    file.close()


def test_a_job_whose_stages_are_on_disk_loads_nothing(bench):
    first, second = bench.run("j1", backbone="tiny"), bench.run("j2", backbone="tiny")
    assert (first["is"], second["is"], bench.loads) == ("done", "done", 1)
    assert first["manifest"]["backbone"]["in_force"] == []
    assert second["manifest"]["backbone"]["in_force"] is None


def test_a_draft_is_named_in_the_manifest_with_the_steps_that_were_computed(bench):
    draft = bench.run("j1", backbone="tiny", quality="draft")["manifest"]
    final = bench.run("j2", backbone="tiny")["manifest"]
    assert (draft["backbone"]["quality"], draft["backbone"]["steps"]) == ("draft", 10)
    assert (final["backbone"]["quality"], final["backbone"]["steps"]) == ("final", 50)
    assert draft["knobs"]["quality"] == "draft"


def test_knobs_that_do_nothing_on_this_device_are_named_in_a_warning(bench):
    turned = {"compiled": "on", "attention": "cudnn", "cached_steps": "0.1"}
    told = bench.run("j1", backbone="tiny", **turned)["manifest"]["warnings"]
    sentence = "Knobs 'compiled', 'attention' and 'cached_steps' have no effect on a CPU."
    assert sentence in told
    assert sentence in [one["sentence"] for one in bench.mailbox.said if one["is"] == "warning"]
    plain = bench.run("j2", backbone="tiny")["manifest"]["warnings"]
    assert not any("no effect" in one for one in plain)


def test_after_a_job_the_backbone_drops_what_only_a_job_needs_however_it_ended(bench):
    bench.run("j1", backbone="tiny")
    assert bench.fake.released == 1
    bench.fake.fails = RuntimeError("shapes do not match")
    assert bench.run("j2", backbone="tiny", quality="draft", seed=1)["is"] == "failed"
    assert bench.fake.released == 2


def test_a_backbone_that_is_not_installed_fails_the_job_by_name(bench):
    error = bench.run("j1", backbone="casper")["error"]
    assert error["code"] == "weights-missing"
    assert "Casper" in error["message"]


def test_the_worker_survives_a_device_without_memory_and_only_the_decode_is_done_again(bench):
    bench.fake.fails = torch.OutOfMemoryError("CUDA out of memory.")
    error = bench.run("j1", backbone="tiny")["error"]
    assert (error["code"], error["details"]["stage"]) == ("out-of-memory", "decode")
    assert list((bench.job.spool.root / "jobs").rglob("*.exr")) == []
    assert bench.job.spool.read_manifest("j1") is None
    bench.fake.fails = None
    manifest = bench.run("j2", backbone="tiny")["manifest"]
    reused = {row["name"]: row["reused"] for row in manifest["stages"]}
    assert reused == {"text": True, "decode": False}
    assert manifest["backbone"]["placement"]["tiling"] is True


def test_a_request_without_sizes_is_planned_with_those_that_were_read(tiny_job):
    class Picture:
        def __init__(self, header):
            self.header = header

    class Header:
        pixel_aspect = 2.0

        class display_window:
            width, height = 4, 2

    request = tiny_job.request()
    pictures = {entry.name: {1001: Picture(Header)} for entry in request.inputs}
    assert with_formats(request, pictures).input("plate").format == Format(4, 2, 2.0)
