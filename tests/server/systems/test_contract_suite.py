# SPDX-License-Identifier: Apache-2.0
"""What every system must do, run on each entry of the registry: with no model, and on tiny."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, MissingInput
from gencomp_protocol.frames import Box
from gencomp_protocol.request import Request
from gencomp_server.backbones import AUTO, SPECS, TINY
from gencomp_server.colour.modelrange import ModelRange
from gencomp_server.colour.spaces import resolve
from gencomp_server.contract import (
    NEEDS_BACKBONE,
    NO_BACKBONE,
    check_request,
    declared_inputs,
    knob_fields,
    parse_params,
    schema,
)
from gencomp_server.parts.stack import over, stack_error
from gencomp_server.systems import REGISTRY

WITH_TINY = {
    "backbone": TINY,
    "steps": 2,
    "guidance": 1.0,
    "model_size": "48x32",
    "prompt": "a whale",
    "inversion_steps": 2,
}
SYSTEMS = pytest.mark.parametrize("system", REGISTRY, ids=lambda system: system.name)
_MANY_FORWARDS = ("omnimatte", "dynvfx")
CHEAP_STAGES = {"bounds", "gate", "body", "grain"}
"""What delivery knobs may rerun: seconds, and no video model."""
RUNS = pytest.mark.parametrize(
    ("system", "with_tiny"),
    [(system, False) for system in REGISTRY if system.backbone != NEEDS_BACKBONE]
    + [(system, True) for system in REGISTRY if system.backbone != NO_BACKBONE],
    ids=lambda value: getattr(value, "name", {True: TINY, False: "none"}.get(value)),
)


@SYSTEMS
def test_it_offers_the_backbones_that_serve_it_and_refuses_every_other_by_name(system):
    found = next(k for k in schema(system)["knobs"] if k["name"] == "backbone")["choices"]
    real = {spec.name: system.name in spec.systems for spec in SPECS if not spec.is_tiny}
    assert set(found) == {AUTO, TINY} | {name for name, serves in real.items() if serves}
    for name in (name for name, serves in real.items() if not serves):
        with pytest.raises(BadKnob, match=f"Knob 'backbone' cannot be '{name}'. .*one of: auto"):
            parse_params(system.params, {"backbone": name})


@pytest.fixture(scope="module")
def backbone_of(request):
    """Return a function: a system, to its tiny backbone; nothing is made before it is asked for."""
    return lambda system: request.getfixturevalue("brief_tiny_of")(system)


@pytest.fixture
def job_of(new_job, backbone_of):
    """Return a maker of jobs of a system: ``job_of(system, with_tiny, **shot)`` -> (job, knobs)."""
    return partial(lay, new_job, backbone_of)


def lay(new_job, backbone_of, system, with_tiny, **shot):
    """Return a job of a system and the knobs that it is run with."""
    job, _ = new_job(system=system.name, **{"objects": 2, "frames": 2, **shot})
    lead = lead_of(job)
    for n in job.frames:
        about = {"smpte:TimeCode": timecode(n), "reel": "A001"}
        job.add(lead, n, job.sent[lead, n], metadata=about)
    if not with_tiny:
        return job, {}
    job.backbone = backbone_of(system)
    names = {field.name for field in knob_fields(system.params)}
    return job, {name: value for name, value in WITH_TINY.items() if name in names}


@pytest.fixture(scope="module")
def finished(new_job_in, backbone_of, tmp_path_factory):
    """Return a function: ``finished(system, with_tiny)`` -> (job, knobs, what it made), run once.

    Who runs the job again finds its stages; who needs none to be there takes a job of his own.
    """
    kept = {}

    def find(system, with_tiny):
        if (system.name, with_tiny) not in kept:
            new_job = partial(new_job_in, tmp_path_factory.mktemp(system.name))
            job, knobs = lay(new_job, backbone_of, system, with_tiny, clean=False)
            knobs = {**knobs, "seed": 3}
            kept[system.name, with_tiny] = job, knobs, job.run(**knobs)
        return kept[system.name, with_tiny]

    return find


def delivery_knobs(system):
    """Return one changed value for each delivery knob."""
    changed = {}
    for field in knob_fields(system.params):
        if not field.metadata["delivery"]:
            continue
        if isinstance(field.default, bool):
            changed[field.name] = not field.default
        elif field.metadata["choices"]:
            changed[field.name] = field.metadata["choices"][-1]
        elif isinstance(field.default, (int, float)):
            most = field.metadata["hi"]
            within = most is None or field.default + 1 <= most
            changed[field.name] = field.default + 1 if within else field.metadata["lo"]
        elif field.name == "order":
            changed[field.name] = "b,a"
        else:
            raise AssertionError(f"say how to change {field.name}")
    return changed


def lead_of(job):
    """Return the input that the delivery is made on."""
    return "plate" if "plate" in job.entries else "bg"


def timecode(frame):
    """Return 01:02:03:00 for frame 1001, as the standard packs it, and no user bits."""
    return (0x01020300 + frame - 1001, 0)


@RUNS
def test_when_a_job_runs_then_exactly_the_declared_layers_come_for_exactly_the_frames(
    system, with_tiny, finished
):
    job, knobs, made = finished(system, with_tiny)
    declared = {layer.name: layer.channels for layer in system.layers(job.request(**knobs))}
    frames = list(dict.fromkeys(n for _, n in made.pictures))
    assert frames == list(job.frames)
    for n in job.frames:
        found = {layer: one.channels for (layer, at), one in made.pictures.items() if at == n}
        assert found == declared
    for picture in made.pictures.values():
        assert picture.pixels.shape == (96, 160, len(picture.channels))
        assert picture.pixels.dtype == np.float16


@RUNS
def test_when_a_job_has_run_then_it_says_in_words_what_size_it_worked_at(
    system, with_tiny, finished
):
    figures = finished(system, with_tiny)[2].ctx.figures
    if with_tiny:
        at = "{}x{}".format(*figures["model_size"])
        assert figures["worked_at"].startswith(f"The model worked at {at}, the plate has 160x96: ")
    if system.name == "omnimatte":
        assert figures["solved_at"].startswith("Alpha was solved at 160x96, the plate has 160x96: ")
    assert with_tiny or system.name == "omnimatte"


@RUNS
def test_when_the_plate_has_a_timecode_then_every_layer_has_that_of_its_frame(
    system, with_tiny, finished
):
    _, _, made = finished(system, with_tiny)
    for (layer, n), picture in made.pictures.items():
        assert picture.metadata["smpte:TimeCode"] == timecode(n), (layer, n)
        assert picture.metadata["reel"] == "A001", (layer, n)


@RUNS
def test_when_a_job_has_run_then_every_stage_stands_below_those_that_it_needs(
    system, with_tiny, finished
):
    rows = finished(system, with_tiny)[2].ctx.rows
    above = set()
    for row in rows:
        assert set(row.needs) <= above, row.name
        assert row.needs or row.reads or row.name in ("text", "bounds"), row.name
        assert row.bytes > 0, row.name
        above.add(row.key)
    made_by = {row.key: row.name for row in rows}
    of_model = {"sample", "decode", "noise", "gate", "alpha"}
    for row in rows:
        assert row.needs or row.name not in of_model, row.name
        if row.name == "sample":
            assert {"text"} < {made_by[key] for key in row.needs}


@pytest.mark.fault("F08")
@pytest.mark.parametrize(
    ("system", "with_tiny"),
    [
        pytest.param(
            system,
            with_tiny,
            marks=() if system.name == "gencomposite" else pytest.mark.slow,
            id=f"{system.name}-{TINY if with_tiny else 'none'}",
        )
        for system in REGISTRY
        for with_tiny in (False, True)
        if system.backbone != (NO_BACKBONE if with_tiny else NEEDS_BACKBONE)
    ],
)
def test_when_a_plate_is_not_finite_then_nothing_that_is_made_is(job_of, system, with_tiny):
    job, knobs = job_of(system, with_tiny, clean=False)
    lead = lead_of(job)
    bad = np.zeros(job.sent[lead, job.frames.first].shape[:2], bool)
    bad[3:6, 4:8], bad[40:44, 70:76], bad[90, 150] = True, True, True
    for n in job.frames:
        pixels = job.sent[lead, n].copy()
        pixels[bad], pixels[90, 150, 0] = np.nan, np.inf
        job.add(lead, n, pixels)
    made = job.run(**knobs)
    for (name, n), picture in made.pictures.items():
        window = picture.data_window
        own = bad[window.y0 : window.y1 + 1, window.x0 : window.x1 + 1]
        odd = ~np.isfinite(picture.pixels).all(-1)
        # Where nothing was changed a sample is the plate's own, bit for bit.
        assert not (odd & ~own).any(), (name, n)


@pytest.mark.fault("F41")
@RUNS
def test_when_a_job_runs_twice_from_nothing_then_the_bits_are_equal(
    system, with_tiny, job_of, finished
):
    _, knobs, first = finished(system, with_tiny)
    second = job_of(system, with_tiny, clean=False)[0].run(**knobs)
    assert not second.ctx.rows[0].reused
    for place, picture in first.pictures.items():
        assert picture.pixels.tobytes() == second.pictures[place].pixels.tobytes()


@pytest.mark.fault
@RUNS
def test_when_a_delivery_knob_changes_then_no_expensive_stage_runs_again(
    system, with_tiny, finished, measured
):
    job, knobs, _ = finished(system, with_tiny)
    forwards = 0
    for name, value in delivery_knobs(system).items():
        again = job.run(**{**knobs, name: value})
        assert again.ctx.rows, name
        made = {row.name for row in again.ctx.rows if not row.reused}
        assert made <= CHEAP_STAGES, name
        forwards += again.forwards
    if with_tiny:
        words = f"transformer forwards after a delivery knob, {system.name}"
        measured(words, forwards, least=0, most=0)


@pytest.mark.parametrize(
    "system",
    [
        pytest.param(one, marks=pytest.mark.slow if one.name in _MANY_FORWARDS else (), id=one.name)
        for one in REGISTRY
        if one.backbone != NO_BACKBONE
    ],
)
def test_when_another_prompt_is_asked_of_a_plate_then_nothing_of_the_plate_is_encoded_again(
    system, finished, monkeypatch
):
    job, knobs, first = finished(system, True)
    encoded = []
    real = job.backbone.encode
    monkeypatch.setattr(job.backbone, "encode", lambda *a: encoded.append(1) or real(*a))
    names = {field.name for field in knob_fields(system.params)}
    prompt = "prompt" if "prompt" in names else "scene_prompt"
    again = job.run(**{**knobs, prompt: "a ship in the fog"})
    assert again.forwards > 0
    assert any(not row.reused for row in again.ctx.rows if row.name == "text")
    marks = [row for row in again.ctx.rows if row.name == "marks" and not row.reused]
    assert len(encoded) == len(marks)  # What DynVFX adds is marked anew.
    seen = {row.key for row in first.ctx.rows if row.name.startswith(("encode", "condition"))}
    assert seen
    assert seen <= {row.key for row in again.ctx.rows if row.reused}


@pytest.mark.fault("F27")
@RUNS
def test_when_the_artist_cancels_then_the_run_stops_within_one_step(
    system, with_tiny, job_of, cancelled
):
    job, knobs = job_of(system, with_tiny, frames=1)
    with pytest.raises(cancelled):
        job.run(cancel_after=2, **knobs)
    assert job.run(**knobs).pictures


@RUNS
def test_when_no_object_or_effect_may_be_there_then_the_plate_comes_back_bit_for_bit(
    system, with_tiny, job_of
):
    job, knobs = job_of(system, with_tiny, frames=1)
    keep = np.ones((96, 160, 1), np.float16)
    if system.backbone == NEEDS_BACKBONE:  # with nothing at all left to do a job is refused
        keep[:, :8] = 0
        keep[:, 60:100] = 0
    names = {spec.name for spec in declared_inputs(system)}
    job.add("keep" if "keep" in names else "protect", 1001, keep, cover="still")
    check_request(system, job.request(**knobs))
    made = job.run(**knobs)
    kept = keep[..., 0] == 1
    for layer in system.layers(job.request(**knobs)):
        pixels = made.layer(layer.name)[1001]
        if layer.whole:
            plate = job.sent[lead_of(job), 1001]
            assert pixels[..., :3][kept].tobytes() == plate[kept].tobytes(), layer.name
        else:
            assert not pixels[kept].any(), layer.name


@SYSTEMS
def test_when_an_input_is_missing_then_it_is_refused_by_name(system, new_job):
    job, _ = new_job(system=system.name)
    lead = lead_of(job)
    job.remove(lead)
    with pytest.raises(MissingInput, match=lead):
        job.run()


@SYSTEMS
def test_when_nothing_is_touched_then_every_knob_is_within_its_own_range(system):
    defaults = dataclasses.asdict(system.params())
    assert parse_params(system.params, defaults) == system.params()
    assert all(entry["doc"] for entry in schema(system)["knobs"])


@SYSTEMS
def test_when_an_input_lies_in_anothers_files_then_both_it_and_its_knob_are_declared(system):
    names = {spec.name for spec in declared_inputs(system)}
    knobs = {field.name for field in knob_fields(system.params)}
    for spec in declared_inputs(system):
        if spec.files_of or spec.channel_knob:
            assert spec.files_of in names
            assert spec.channel_knob in knobs


@SYSTEMS
def test_when_an_unknown_input_is_given_then_it_is_refused_by_name(system, new_job):
    job, _ = new_job(system=system.name, frames=1)
    job.add("nonsense", 1001, np.ones((96, 160, 1), np.float16))
    entries = tuple(job.entries.values())
    with pytest.raises(MissingInput, match="nonsense"):
        check_request(system, Request(system.name, job.frames, entries))


# --- light and coverage --------------------------------------------------------------------------


@RUNS
def test_when_layers_come_then_alpha_is_a_coverage_and_over_of_them_is_the_result(
    system, with_tiny, finished
):
    job, _, made = finished(system, with_tiny)
    for place, picture in made.pictures.items():
        assert np.isfinite(picture.pixels).all(), place
        alpha = picture.pixels[..., picture.channels.index("A")]
        assert 0 <= alpha.min() <= alpha.max() <= 1, place
    for n in job.frames:
        plate = job.sent[lead_of(job), n]
        if ("effect", n) in made.pictures:
            whole = over(made.layer("effect")[n], plate).astype(plate.dtype)
            assert whole.tobytes() == made.layer("result")[n][..., :3].tobytes()
        else:
            names = [job.entries[one].name[6:] for one in job.entries if one.startswith("matte.")]
            layers = [made.layer(name)[n] for name in names]
            found = stack_error(plate, made.layer("background")[n], layers)
            assert (found.beyond, found.differing) == (0, 0)
            assert over(made.layer("patch")[n], plate).astype(plate.dtype).tobytes() == (
                np.ascontiguousarray(made.layer("clean")[n][..., :3]).tobytes()
            )


@pytest.mark.slow
@RUNS
def test_when_the_script_works_in_another_space_then_the_same_light_is_delivered_in_that_space(
    system, with_tiny, job_of
):
    colour, delivered = ModelRange(space=resolve("ACEScg")), []
    for space in ("scene_linear", "ACEScg"):
        job, knobs = job_of(system, with_tiny, objects=1, frames=1, half=False)
        job.working_space = space
        for (name, n), pixels in list(job.sent.items()):
            if space == "ACEScg" and pixels.shape[2] > 1:
                pixels = pixels.astype(np.float32)
                pixels[..., :3] = colour.unseen(np.ascontiguousarray(pixels[..., :3]))
                job.add(name, n, pixels, cover=job.entries[name].cover)
        delivered.append(job.run(**knobs))
    # How a change is shared out among effect and alpha depends on the space; what is seen does not.
    whole = "result" if ("result", 1001) in delivered[0].pictures else "clean"
    light, other = (np.array(one.layer(whole)[1001][..., :3]) for one in delivered)
    off = np.abs(colour.seen(other) - light)
    assert np.quantile(off, 0.98) <= 0.01 * np.quantile(light, 0.98)
    assert np.median(np.abs(other - light)) > 10 * np.median(off)  # It is another space.


@pytest.mark.slow
@RUNS
def test_when_the_plate_has_overscan_then_what_is_delivered_has_its_windows_and_its_rim(
    system, with_tiny, job_of
):
    job, knobs = job_of(system, with_tiny, objects=1, frames=1, clean=False)
    lead, display, data = lead_of(job), Box(0, 0, 159, 95), Box(-8, -4, 167, 99)
    wide = np.full((104, 176, 3), 0.125, np.float16)
    wide[4:100, 8:168] = job.sent[lead, 1001]
    wide[1, 2] = (-0.5, 60.0, 0.0)
    job.add(lead, 1001, wide, display_window=display, data_window=data)
    made = job.run(**knobs)
    rim = np.ones(wide.shape[:2], bool)
    rim[4:100, 8:168] = False
    for layer in system.layers(job.request(**knobs)):
        picture = made.pictures[layer.name, 1001]
        assert picture.display_window == display
        if layer.whole:
            assert picture.data_window == data
            assert picture.pixels[..., :3][rim].tobytes() == wide[rim].tobytes(), layer.name
        else:
            assert not made.layer(layer.name)[1001][rim].any(), layer.name
