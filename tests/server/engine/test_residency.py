# SPDX-License-Identifier: Apache-2.0
"""One backbone kept between jobs; and a device that runs out of memory, wherever it does."""

import gc
import importlib.metadata
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gencomp_protocol.errors import OutOfMemory, WeightsRefused
from gencomp_server.backbones import ModelParams, spec_named
from gencomp_server.engine.residency import (
    Residency,
    Wanted,
    describe,
    identity_of,
    is_out_of_memory,
    library_versions,
    stand_in_sentence,
    wanted,
)
from gencomp_server.footprint import Placement

CASPER, TINY = spec_named("casper"), spec_named("tiny")
WANT = Wanted(CASPER, "cuda:0", Placement("model", batch=3))
LATENTS = np.zeros((2, 3, 4, 5, 6), np.float32)


class Fake:
    """A loaded backbone that does nothing, or runs out of memory where it is told to."""

    said = ("Blocks are compiled.",)

    def __init__(self, want):
        self.want, self.fails, self.released = want, None, 0

    def release(self):
        self.released += 1

    def _do(self, name):
        if self.fails is not None and self.fails[0] == name:
            activations = np.zeros(8)  # What an exception's frames would keep alive.
            Fake.kept = weakref.ref(activations)
            raise self.fails[1]
        return name

    def encode(self, video, progress):
        return self._do("encode")

    def decode(self, latents, progress):
        return self._do("decode")

    def text(self, prompt):
        return self._do("text")

    def predict(self, latents, timestep, text, condition):
        return self._do("sample")


class Loads:
    """A loader that counts, and remembers without holding on."""

    def __init__(self):
        self.wants, self.made, self.error = [], [], None

    def __call__(self, want, files, cache):
        self.wants.append(want)
        if self.error is not None:
            raise self.error
        fake = Fake(want)
        self.made.append(weakref.ref(fake))
        return fake

    def fail(self, stage, error):
        self.made[-1]().fails = (stage, error)


@pytest.fixture(scope="module", autouse=True)
def _libraries_out_of_the_collectors_sight():
    """Every eviction collects, and what the model libraries hold takes it most of a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def loads():
    return Loads()


@pytest.fixture
def residency(loads, tmp_path):
    return Residency(tmp_path / "kept", loads)


def use(lent, stage):
    """Do to a backbone what a stage does."""
    return {
        "text": lambda: lent.text("empty scene"),
        "encode": lambda: lent.encode(None),
        "sample": lambda: lent.predict(LATENTS, 999, None, None),
        "decode": lambda: lent.decode(LATENTS),
    }[stage]()


def test_nothing_is_loaded_before_its_first_use(residency, loads):
    lent = residency.lease(WANT, "w")
    assert (lent.spec, lent.batch, len(lent.identity)) == (CASPER, 3, 32)
    assert loads.wants == []
    lent.text("x")
    assert loads.wants == [WANT]


def test_the_next_job_of_the_same_backbone_finds_it_loaded(residency, loads):
    residency.lease(WANT, "w").text("x")
    residency.lease(WANT, "w").decode(LATENTS)
    assert len(loads.wants) == 1


def test_how_many_elements_a_forward_is_given_needs_no_other_weights(residency, loads):
    first = residency.lease(WANT, "w")
    first.text("x")
    second = residency.lease(replace(WANT, placement=Placement("model", batch=1)), "w")
    second.text("x")
    assert len(loads.wants) == 1
    assert (first.batch, second.batch) == (3, 1)
    assert first.identity != second.identity


def test_what_is_released_is_what_is_loaded_and_nothing_is_loaded_for_it(residency, loads):
    lent = residency.lease(WANT, "w")
    lent.release()
    assert loads.wants == []
    lent.text("x")
    residency.lease(replace(WANT, attention="flash"), "w").release()
    residency.lease(WANT, "others").release()
    assert loads.made[0]().released == 0
    lent.release()
    assert loads.made[0]().released == 1
    assert not residency.is_empty


def test_what_is_in_force_is_known_once_the_job_has_used_it(residency):
    lent = residency.lease(WANT, "w")
    assert describe(lent, "omnimatte", {})["in_force"] is None
    lent.text("x")
    assert describe(lent, "omnimatte", {})["in_force"] == ["Blocks are compiled."]


@pytest.mark.parametrize(
    ("want", "weights"),
    [
        pytest.param(WANT, "others", id="weights"),
        pytest.param(replace(WANT, attention="flash"), "w", id="attention"),
        pytest.param(replace(WANT, placement=Placement("group")), "w", id="placement"),
        pytest.param(Wanted(TINY, "cuda:0"), "w", id="backbone"),
    ],
)
def test_another_one_takes_its_place_and_never_lies_beside_it(residency, loads, want, weights):
    residency.lease(WANT, "w").text("x")
    first, seen = loads.made[0], []
    residency._loader = lambda *given: seen.append(first()) or Fake(given[0])
    residency.lease(want, weights).text("x")
    assert seen == [None]


def test_the_identity_knows_what_decides_bits_and_nothing_else():
    base = identity_of(WANT, "w")
    assert identity_of(replace(WANT, placement=Placement("none", batch=3)), "w") == base
    changed = [
        identity_of(replace(WANT, placement=Placement("model", batch=4)), "w"),
        identity_of(WANT, "v"),
        identity_of(replace(WANT, spec=TINY), "w"),
        identity_of(replace(WANT, compiled=True), "w"),
        identity_of(replace(WANT, attention="sage"), "w"),
        identity_of(replace(WANT, cached_steps=0.1), "w"),
        identity_of(replace(WANT, placement=Placement("model", precision="fp8")), "w"),
        identity_of(replace(WANT, gpu="NVIDIA H200"), "w"),
    ]
    assert len({base, *changed}) == 9


@pytest.mark.parametrize("encodes", [False, True])
def test_whether_the_vae_works_in_tiles_is_known_to_what_it_makes_alone(residency, encodes):
    tiles = Placement("group", tiling=True, batch=3, encode_tiling=encodes)
    plain, other = residency.lease(WANT, "w"), residency.lease(replace(WANT, placement=tiles), "w")
    assert (plain.tiles, other.tiles) == (False, True)
    assert plain.identity == other.identity == plain.vae_identity == plain.encode_identity
    assert (other.encode_identity == plain.identity) is not encodes
    assert len({plain.identity, other.vae_identity, other.encode_identity}) == 2 + encodes


@pytest.mark.parametrize(
    ("want", "package"),
    [
        (replace(WANT, attention="flash"), "flash-attn"),
        (replace(WANT, attention="sage"), "sageattention"),
        (replace(WANT, placement=Placement("model", precision="fp8", batch=3)), "torchao"),
    ],
)
def test_the_identity_knows_a_library_that_a_knob_brings_in(monkeypatch, want, package):
    installed = {}

    def version(name):
        if name in ("torch", "diffusers", "transformers"):
            return "1"
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    without, plain = identity_of(want, "w"), identity_of(WANT, "w")
    assert library_versions(want.attention, want.placement.precision)[package] == "none"
    installed[package] = "2.0"
    assert library_versions(want.attention, want.placement.precision)[package] == "2.0"
    assert identity_of(want, "w") != without
    assert identity_of(WANT, "w") == plain


def test_forwards_are_counted_by_the_job_and_by_the_element(residency):
    first, second = residency.lease(WANT, "w"), residency.lease(WANT, "w")
    use(first, "sample")
    use(first, "sample")
    use(second, "sample")
    assert (first.forwards, second.forwards) == (4, 2)


def test_a_step_with_anchors_counts_the_forwards_that_were_computed_for_it(residency, loads):
    lent = residency.lease(WANT, "w")
    lent.text("x")
    loaded = loads.made[-1]()
    loaded.forwards = 10

    def predict_anchored(latents, timestep, text, *, keys):
        loaded.forwards += 1 if keys else 2
        return latents

    loaded.predict_anchored = predict_anchored
    lent.predict_anchored(LATENTS, 799, None, keys=None)
    assert lent.forwards == 2
    lent.predict_anchored(LATENTS, 799, None, keys="kept")
    assert lent.forwards == 3


@pytest.mark.parametrize(
    ("stage", "words", "knob"),
    [
        ("text", "reading the prompt with Casper", "backbone"),
        ("encode", "encoding frames with Casper", "model_size"),
        ("sample", "computing a step of Casper", "model_size"),
        ("decode", "decoding frames with Casper", "model_size"),
    ],
)
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()], ids=["device", "host"]
)
@pytest.mark.fault("F33")
def test_a_device_without_memory_is_told_with_where_and_the_cure(
    residency, loads, stage, words, knob, error
):
    lent = residency.lease(WANT, "w")
    lent.text("x")
    loads.fail(stage, error)
    del error
    with pytest.raises(OutOfMemory, match=words) as failure:
        use(lent, stage)
    assert failure.value.details == {"stage": stage, "knob": knob}
    hints = {
        "backbone": "Choose a smaller model with the knob 'backbone'.",
        "model_size": "Lower the knob 'model_size'; what is finished is kept.",
    }
    assert failure.value.hint == hints[knob]
    assert failure.value.__context__ is None


@pytest.mark.fault("F33")
def test_after_it_nothing_is_loaded_and_nothing_is_held(residency, loads):
    lent = residency.lease(WANT, "w")
    lent.text("x")
    loads.fail("sample", torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(OutOfMemory):
        use(lent, "sample")
    assert residency.is_empty
    assert loads.made[0]() is None
    assert Fake.kept() is None


@pytest.mark.fault("F33")
def test_the_next_use_loads_it_again(residency, loads):
    lent = residency.lease(WANT, "w")
    lent.text("x")
    loads.fail("sample", torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(OutOfMemory):
        use(lent, "sample")
    assert residency.lease(WANT, "w").text("x") == "text"
    assert len(loads.wants) == 2


def test_weights_that_do_not_fit_are_told_as_that(residency, loads):
    loads.error = torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(OutOfMemory, match="loading Casper") as failure:
        residency.lease(WANT, "w").text("x")
    assert failure.value.details == {"stage": "load", "knob": "precision"}
    assert "fp8" in failure.value.hint
    assert residency.is_empty


@pytest.mark.parametrize(("stage", "encodes"), [("decode", False), ("encode", True)])
def test_a_vae_without_memory_works_in_tiles_for_this_job_and_for_no_other(
    residency, loads, stage, encodes
):
    first = residency.lease(WANT, "w")
    first.text("x")
    loads.fail(stage, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(OutOfMemory, match="not enough GPU memory") as failure:
        use(first, stage)
    assert not first.tiles  # Nothing turns by itself: what was decoded before had none.
    identity = first.identity
    assert first.turn_to_tiles(failure.value)
    found = first.want.placement
    assert (found.tiling, found.encode_tiling, first.identity) == (True, encodes, identity)
    assert use(first, stage) == stage
    assert loads.wants[-1].placement.tiling
    assert not residency.lease(WANT, "w").tiles


def test_tiles_cure_neither_another_stage_nor_themselves(residency):
    lent = residency.lease(WANT, "w")
    assert not lent.turn_to_tiles(OutOfMemory("x", stage="sample"))
    assert not lent.turn_to_tiles(OutOfMemory("x"))
    assert lent.turn_to_tiles(OutOfMemory("x", stage="decode"))
    assert not lent.turn_to_tiles(OutOfMemory("x", stage="decode"))


@pytest.mark.fault("F33")
@pytest.mark.parametrize("stage", ["text", "sample"])
def test_a_step_without_memory_goes_on_with_weights_in_main_memory_for_this_job_and_no_other(
    residency, loads, stage
):
    first = residency.lease(WANT, "w")
    use(first, "decode")
    loads.fail(stage, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(OutOfMemory) as failure:
        use(first, stage)
    assert residency.is_empty
    assert "stay in main memory" in first.turn_cheaper(failure.value)
    found = first.want.placement
    assert (found.offload, found.batch, first.batch) == ("group", 1, 1)
    assert first.identity == identity_of(first.want, "w")
    assert use(first, stage) == stage
    assert loads.wants[-1].placement.offload == "group"
    assert residency.lease(WANT, "w").want == WANT


@pytest.mark.fault("F33")
def test_weights_that_do_not_fit_are_loaded_a_few_blocks_at_a_time(residency, loads):
    lent = residency.lease(WANT, "w")
    loads.error = torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(OutOfMemory) as failure:
        use(lent, "text")
    assert "loading" in lent.turn_cheaper(failure.value)
    loads.error = None
    assert use(lent, "text") == "text"


@pytest.mark.fault("F33")
def test_the_vae_is_helped_by_tiles_before_anything_else(residency):
    lent = residency.lease(WANT, "w")
    assert "in tiles" in lent.turn_cheaper(OutOfMemory("x", stage="decode"))
    assert lent.want.placement.offload == WANT.placement.offload


@pytest.mark.fault("F33")
def test_what_is_as_cheap_as_can_be_is_not_tried_again(residency):
    leanest = replace(WANT, placement=Placement("group", tiling=True, encode_tiling=True))
    for stage in ("load", "text", "sample", "encode", "decode"):
        assert residency.lease(leanest, "w").turn_cheaper(OutOfMemory("x", stage=stage)) == ""
    on_a_processor = residency.lease(Wanted(TINY), "")
    assert on_a_processor.turn_cheaper(OutOfMemory("x", stage="sample")) == ""
    assert residency.lease(WANT, "w").turn_cheaper(OutOfMemory("x")) == ""


def test_another_error_is_nobodys_memory(residency, loads):
    lent = residency.lease(WANT, "w")
    lent.text("x")
    loads.fail("sample", RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        use(lent, "sample")
    assert not residency.is_empty


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("expected scalar type"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_is_out(error, expected):
    assert is_out_of_memory(error) is expected


def test_accelerations_are_for_a_gpu_alone():
    params = ModelParams(compiled=True, attention="flash", cached_steps=0.1)
    assert wanted(CASPER, params, Placement(), "cpu") == Wanted(CASPER)
    found = wanted(CASPER, params, Placement(), "cuda:0")
    assert (found.compiled, found.attention, found.cached_steps) == (True, "flash", 0.1)


def test_a_draft_reuses_steps_on_a_gpu_and_a_final_none():
    assert wanted(CASPER, ModelParams(), Placement(), "cuda:0").cached_steps == 0
    draft = ModelParams(quality="draft")
    assert wanted(CASPER, draft, Placement(), "cuda:0").cached_steps > 0
    assert wanted(CASPER, draft, Placement(), "cpu").cached_steps == 0


def test_elements_whose_steps_are_reused_go_one_at_a_time():
    roomy = Placement(batch=4)
    assert wanted(CASPER, ModelParams(), roomy, "cuda:0").placement.batch == 4
    assert wanted(CASPER, ModelParams(quality="draft"), roomy, "cuda:0").placement.batch == 1


def test_what_stands_in_or_is_untrained_is_told():
    assert stand_in_sentence(CASPER, "Omnimatte", "omnimatte") is None
    assert "was not trained for Over++" in stand_in_sentence(CASPER, "Over++", "overplusplus")
    assert "untrained" in stand_in_sentence(TINY, "Omnimatte", "omnimatte")


def test_the_manifest_says_which_backbone_under_which_licence_and_how_placed(residency):
    licence = {"licence": "CogVideoX License", "class": "registration needed"}
    found = describe(residency.lease(WANT, "w"), "overplusplus", licence)
    facts = SimpleNamespace(**found)
    assert (facts.name, facts.licence_class) == ("casper", "registration needed")
    assert (facts.surrogate, facts.untrained, facts.precision) == (True, False, "exact")
    assert facts.placement["offload"] == "model"
    assert set(facts.libraries) == {"torch", "diffusers", "transformers"}


class Spoilt(Fake):
    """A backbone whose every number is NaN, whatever it is given."""

    def predict(self, latents, timestep, text, condition):
        return torch.full((1, 2), float("nan"))

    def decode(self, latents, progress):
        return np.full((1, 2, 2, 3), np.nan, np.float32)


@pytest.fixture
def on_disk(tmp_path):
    files = {role: tmp_path / f"{role}.safetensors" for role in ("transformer", "vae")}
    for file in files.values():
        save_file({"a": torch.ones(4), "b": torch.zeros(2)}, file)
    return files


@pytest.mark.parametrize("stage", ["sample", "decode"])
@pytest.mark.parametrize("role", ["transformer", "vae"])
def test_where_what_was_made_is_not_finite_the_weights_that_are_not_are_named(
    tmp_path, on_disk, stage, role
):
    save_file({"a": torch.ones(4), "b": torch.tensor([0.0, float("nan")])}, on_disk[role])
    lent = Residency(tmp_path / "kept", lambda *given: Spoilt(given[0])).lease(WANT, "w", on_disk)
    with pytest.raises(WeightsRefused) as refusal:
        use(lent, stage)
    assert f"The weights file {on_disk[role]} of Casper" in refusal.value.message
    assert refusal.value.message.endswith("in 'b'.")
    assert refusal.value.hint.startswith("gencomp weights verify casper ")


@pytest.mark.parametrize("stage", ["sample", "decode"])
def test_where_the_weights_are_finite_they_are_not_blamed(tmp_path, on_disk, stage):
    lent = Residency(tmp_path / "kept", lambda *given: Spoilt(given[0])).lease(WANT, "w", on_disk)
    assert not np.isfinite(np.asarray(use(lent, stage))).any()
