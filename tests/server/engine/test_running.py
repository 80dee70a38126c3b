# SPDX-License-Identifier: Apache-2.0
"""A job's backbone inside the worker: lent by the plan, told of, and survived when it fails."""

import errno
import gc
import os
from dataclasses import dataclass, replace

import numpy as np
import OpenImageIO as oiio
import pytest
import torch

from gencomp_protocol.codec import request_to_plain
from gencomp_protocol.errors import BadKnob, DiskFull, InternalError, OutOfMemory, UnwritableOutput
from gencomp_protocol.frames import Format
from gencomp_protocol.layers import LayerSpec
from gencomp_server.backbones import choose, model_size
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
from gencomp_server.engine.room import waits
from gencomp_server.engine.running import Runner, as_failure, pictures_of, with_formats
from gencomp_server.engine.spool import Spool, SpoolBudget
from gencomp_server.finishing import COMPRESSIONS, FinishParams
from gencomp_server.segmenting import Segmenter

RGB = ("R", "G", "B")


@dataclass(frozen=True)
class Params(FinishParams):
    """The knobs of every system with a backbone."""


def plan(request, machine):
    spec = choose(SYSTEM, parse_params(Params, request.knobs), machine)
    size = request.input("plate").format
    if size is None:
        return Plan()
    cost = estimate(spec, model_size(spec, size), len(request.frames), steps=1, machine=machine)
    return cost.plan(notes=("A note of the plan.",))


def prompt(ctx, *, backbone):
    return ctx.backbone.text("x")


def decode(ctx, text, *, backbone):
    return ctx.backbone.decode(text)


def run(shot, params, ctx):
    text = ctx.stage("text", prompt, backbone=ctx.backbone.identity)
    value = ctx.stage("decode", decode, text, backbone=ctx.backbone.vae_identity)
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
        if self.short():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 2 * latents


class Bench:
    """A runner of the stub, and one job after the other."""

    def __init__(self, tiny_job):
        self.job, self.mailbox, self.fake, self.loads = tiny_job, Mailbox(), Fake(), 0
        self.runner, self.least = None, False
        self.use(run)

    def use(self, run, segmenter=None):
        """Run another system from now on."""
        if self.runner is not None:
            self.runner.close()
        held = Residency(self.job.folder / "kept", self._load)
        system = replace(SYSTEM, inputs=self.job.system.inputs, run=run)
        self.runner = Runner(
            (system,), Machine(), self.job.spool, self.mailbox, held=held, segmenter=segmenter
        )

    def _load(self, want, files, cache):
        """Load it; with ``least``, memory suffices for a decoder in tiles and for no other."""
        self.loads += 1
        whole = not want.placement.tiling
        self.fake.short = lambda: self.least and whole
        return self.fake

    def run(self, job, **knobs):
        """Run a job; return the last thing that was said of it."""
        request = replace(self.job.request(knobs=knobs), system="overplusplus")
        plain = request_to_plain(request)
        self.runner.run({"job": job, "request": plain, "pictures": self.job.pictures})
        return self.mailbox.said[-1]


@pytest.fixture(scope="module", autouse=True)
def _libraries_out_of_the_collectors_sight():
    """Every eviction collects, and what the model libraries hold takes it most of a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def bench(tiny_job):
    made = Bench(tiny_job)
    yield made
    made.runner.close()


def test_the_backbone_that_the_plan_names_is_lent_and_is_in_the_manifest(bench):
    manifest = bench.run("j1", backbone="tiny")["manifest"]
    assert manifest["backbone"]["name"] == "tiny"
    assert manifest["backbone"]["untrained"] is True
    licence = [manifest["backbone"][key] for key in ("licence", "licence_class", "proven")]
    assert licence == ["none: made by the program", "none", "no"]
    assert manifest["plan_notes"][0] == "A note of the plan."
    assert manifest["backbone"]["placement"]["words"] == "all weights on the device"
    assert any("'tiny' is untrained" in sentence for sentence in manifest["warnings"])


def test_the_files_say_which_backbone_made_them_and_that_it_was_untrained(bench):
    manifest = bench.run("j1", backbone="tiny", quality="draft", seed=7)["manifest"]
    file = oiio.ImageInput.open(str(bench.job.spool.layer("j1", "made", 1001)))
    assert np.array(file.read_image("half")).max() == 0.5
    spec = file.spec()
    assert spec.get_string_attribute("gencomp:backbone") == "tiny"
    assert spec.get_string_attribute("gencomp:licence") == "none: made by the program"
    assert "pictures mean nothing" in spec.get_string_attribute("gencomp:untrained")
    assert spec.get_string_attribute("gencomp:quality") == "draft"
    identity = manifest["backbone"]["identity"]
    assert len(identity) == 32
    assert spec.get_string_attribute("gencomp:backbone_identity") == identity
    steps_and_seed = [spec.get_int_attribute(f"gencomp:{name}") for name in ("steps", "seed")]
    assert steps_and_seed == [10, 7]
    file.close()


def test_files_of_another_seed_and_more_steps_say_so(bench):
    bench.run("j1", backbone="tiny", seed=8, steps=25)
    file = oiio.ImageInput.open(str(bench.job.spool.layer("j1", "made", 1001)))
    spec = file.spec()
    steps_and_seed = [spec.get_int_attribute(f"gencomp:{name}") for name in ("steps", "seed")]
    assert steps_and_seed == [25, 8]
    file.close()


def test_stages_of_a_job_that_runs_are_not_trimmed_by_another_worker(bench):
    other = Spool(bench.job.spool.root, SpoolBudget(stages_bytes=0))

    def meanwhile(shot, params, ctx):
        yield from run(shot, params, ctx)
        other.trim_stages()

    bench.use(meanwhile)
    assert bench.run("j1", backbone="tiny")["is"] == "done"
    assert len([path for path in other.stages.iterdir() if path.is_dir()]) == 2
    other.trim_stages()
    assert list(other.stages.iterdir()) == []


def test_a_run_is_given_the_segmenter_of_the_server(bench):
    def tell(shot, params, ctx):
        ctx.report("segmenter", ctx.segmenter and ctx.segmenter.name)
        return run(shot, params, ctx)

    bench.use(tell)
    assert bench.run("j1", backbone="tiny")["manifest"]["report"]["segmenter"] is None
    bench.use(tell, Segmenter("find-it {frames} {words} {out}"))
    assert bench.run("j2", backbone="tiny")["manifest"]["report"]["segmenter"] == "find-it"


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


def of(said, kind):
    return [one for one in said if one["is"] == kind]


@pytest.mark.fault("F33")
def test_the_worker_survives_a_device_without_memory_and_what_is_finished_is_kept(bench):
    bench.fake.fails = torch.OutOfMemoryError("CUDA out of memory.")
    error = bench.run("j1", backbone="tiny")["error"]
    assert (error["code"], error["details"]["stage"]) == ("out-of-memory", "decode")
    assert error["details"]["knob"] == "model_size"
    assert list((bench.job.spool.root / "jobs").rglob("*.exr")) == []
    assert bench.job.spool.read_manifest("j1") is None
    bench.fake.fails = None
    manifest = bench.run("j2", backbone="tiny")["manifest"]
    reused = {row["name"]: row["reused"] for row in manifest["stages"]}
    assert reused == {"text": True, "decode": False}


@pytest.mark.fault("F33")
def test_a_decoder_without_memory_works_in_tiles_for_that_job_and_the_next_starts_as_planned(bench):
    bench.least = True
    manifest = bench.run("j1", backbone="tiny")["manifest"]
    assert manifest["backbone"]["placement"]["tiling"] is True
    assert [row["name"] for row in manifest["stages"]] == ["text", "decode"]
    said = [one["sentence"] for one in of(bench.mailbox.said, "warning")]
    assert sum("works in tiles" in sentence for sentence in said) == 1
    bench.least = False
    after = bench.run("j2", backbone="tiny")["manifest"]
    assert after["backbone"]["placement"]["tiling"] is False
    # What was made in tiles is not taken for what the decoder makes whole.
    assert {row["name"]: row["reused"] for row in after["stages"]} == {
        "text": True,
        "decode": False,
    }
    assert after["backbone"]["identity"] == manifest["backbone"]["identity"]


def test_all_that_a_job_decodes_is_decoded_alike(bench):
    keys = []

    def twice(shot, params, ctx):
        text = ctx.stage("text", prompt, backbone=ctx.backbone.identity)
        ctx.stage("reference", decode, 2 * text, backbone=ctx.backbone.vae_identity)
        bench.least = not ctx.backbone.tiles  # The reference went through, the pass does not.
        keys.append(ctx.backbone.vae_identity)
        ctx.stage("decode", decode, text, backbone=ctx.backbone.vae_identity)
        return run(shot, params, ctx)

    bench.use(twice)
    manifest = bench.run("j1", backbone="tiny")["manifest"]
    assert len(set(keys)) == 2
    made = [row["name"] for row in manifest["stages"]]
    assert made == ["text", "reference", "reference", "decode"]


class Turning:
    """A job's context and backbone that has a cheaper plan, or none."""

    def __init__(self, sentence):
        self.sentence, self.warned, self.backbone = sentence, [], self

    def turn_cheaper(self, failure):
        return self.sentence

    def warn(self, sentence):
        self.warned.append(sentence)


@pytest.mark.fault("F33")
@pytest.mark.parametrize(("sentence", "runs"), [("It takes longer.", 2), ("", 1)])
def test_a_cheaper_plan_is_tried_once_and_told(sentence, runs):
    calls, ctx = [], Turning(sentence)

    def greedy(shot, params, ctx):
        calls.append(1)
        raise OutOfMemory("x", stage="sample")
        yield

    with pytest.raises(OutOfMemory):
        list(pictures_of(replace(SYSTEM, run=greedy), None, None, ctx))
    assert len(calls) == runs
    assert ctx.warned == ([sentence] if sentence else [])


@pytest.mark.fault("F33")
def test_once_a_layer_was_made_nothing_starts_again(bench):
    runs = []

    def late(shot, params, ctx):
        runs.append(ctx.backbone.tiles)
        yield next(run(shot, params, ctx))
        bench.fake.fails = torch.OutOfMemoryError("CUDA out of memory.")
        ctx.backbone.decode(0.5)

    bench.use(late)
    assert bench.run("j1", backbone="tiny")["error"]["code"] == "out-of-memory"
    assert runs == [False]


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


def test_what_was_read_of_a_pictures_size_counts_over_what_a_client_said(tiny_job):
    class Picture:
        class header:
            pixel_aspect = 2.0

            class display_window:
                width, height = 4, 2

    plain = tiny_job.request()
    told = tuple(replace(entry, format=Format(4, 2)) for entry in plain.inputs)
    pictures = {entry.name: {1001: Picture} for entry in told}
    known = with_formats(replace(plain, inputs=told), pictures)
    assert known.input("plate").format == Format(4, 2, 2.0)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_files_are_packed_as_the_knob_says_and_the_manifest_names_it(bench, compression):
    manifest = bench.run("j1", backbone="tiny", compression=compression)["manifest"]
    spec = oiio.ImageInput.open(str(bench.job.spool.layer("j1", "made", 1001))).spec()
    assert spec.get_string_attribute("compression") == compression
    assert manifest["knobs"]["compression"] == compression


@pytest.mark.parametrize("lossy", ["dwaa", "dwab", "b44"])
def test_a_compression_that_loses_bits_is_refused_with_those_that_lose_none(lossy):
    with pytest.raises(BadKnob, match=f"'compression' cannot be '{lossy}'.*zip, zips, piz"):
        parse_params(FinishParams, {"compression": lossy})


@pytest.mark.fault("F37")
@pytest.mark.parametrize(
    ("number", "kind", "waiting"),
    [
        (errno.EMFILE, UnwritableOutput, True),
        (errno.ENOSPC, DiskFull, True),
        (errno.EIO, UnwritableOutput, False),
    ],
)
def test_a_temporary_folder_that_is_full_or_cannot_be_opened_is_no_fault_of_ours(
    number, kind, waiting
):
    error = as_failure(OSError(number, os.strerror(number), "/tmp/gencomp-x/frame.png"))
    assert isinstance(error, kind)
    assert waits(error) is waiting
    assert error.details == {"path": "tmp/gencomp-x", "errno": errno.errorcode[number]}
    assert isinstance(as_failure(OSError(errno.EINVAL, "no")), InternalError)
