# SPDX-License-Identifier: Apache-2.0
"""Over++'s layers: the effect beneath and on a foreground, its body, its grain, its origin."""

import numpy as np
import pytest

from gencomp_protocol.errors import BadMatte
from gencomp_server.parts.stack import over, ulp_distance

BOUND_STAGES = {"bounds", "gate", "body", "grain"}


def darken(plate, classes):
    """Paint half of every code away."""
    return -0.5 * (plate + 1)


def lighten(plate, classes):
    """Paint grey over everything."""
    return 0.5 * (0.6 - plate)


@pytest.fixture
def apart(new_job, painter):
    """Return a job of two frames with fg and bg, and a mask over most of the picture."""

    def make(half=True):
        job, shot = new_job(system="overplusplus", frames=2, half=half)
        kind = np.float16 if half else np.float32
        for name in ("plate", "effect_mask"):
            job.remove(name)
        for n in job.frames:
            job.add("fg", n, shot.object_layer("a", n).astype(kind))
            job.add("bg", n, shot.clean_plate(n).astype(kind))
        mask = np.zeros((96, 160, 1), np.float16)
        mask[:, 16:144] = 1
        job.add("effect_mask", 1001, mask, cover="still")
        job.backbone = painter(darken)
        return job

    return make


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("half", [True, False], ids=["half", "float"])
def test_when_fg_and_bg_come_apart_then_over_fg_under_bg_stack_to_the_result(apart, half, locked):
    job = apart(half)
    made = job.run(steps=1, fg_locked=locked)
    assert half is False or not any("opaque" in one for one in made.ctx.warnings)
    for n in job.frames:
        fg, bg = job.sent["fg", n], job.sent["bg", n]
        under, top = made.layer("effect_under")[n], made.layer("effect_over")[n]
        result = made.layer("result")[n]
        stacked = over(top, over(fg, over(under, bg))).astype(result.dtype)
        assert int(ulp_distance(stacked, result[..., :3]).max()) <= 1
        solid = fg[..., 3] == 1
        assert solid.any()
        assert under.any()
        if locked:
            assert not top[solid].any()
            plain = over(fg, bg).astype(result.dtype)
            assert (result[..., :3][solid] == plain[solid]).all()
        else:
            assert top[solid].any()


def test_when_a_foreground_is_locked_then_it_is_so_in_the_delivery_alone(apart):
    job = apart()
    job.run(steps=1)
    again = job.run(steps=1, fg_locked=False)
    assert again.forwards == 0
    assert {row.name for row in again.ctx.rows if not row.reused} <= BOUND_STAGES


def test_when_the_model_changes_nothing_then_all_layers_but_the_result_are_empty(apart):
    job = apart()
    job.backbone.paint = None
    made = job.run(steps=1, origin=True, grain="match", alpha_style="natural")
    for n in job.frames:
        plain = over(job.sent["fg", n], job.sent["bg", n]).astype(np.float16)
        assert made.layer("result")[n][..., :3].tobytes() == plain.tobytes()
        for name in ("effect", "difference", "effect_matte", "effect_under", "effect_over"):
            assert not made.layer(name)[n].any()
        assert (made.layer("origin")[n] == [1, 0, 0, 0, 0]).all()
    assert made.ctx.figures["untouched_share_per_frame"] == [1.0, 1.0]


def test_when_there_is_a_plate_then_there_is_no_under_and_over(new_job, painter):
    job, _ = new_job(system="overplusplus", frames=1)
    job.backbone = painter(darken)
    found = {layer for layer, _ in job.run(steps=1).pictures}
    assert found == {"result", "effect", "difference", "effect_matte"}


@pytest.fixture
def shadowed(new_job, painter):
    """Return a job of three frames whose mask is the left half, and a painter that darkens all."""
    job, _ = new_job(system="overplusplus")
    job.backbone = painter(darken)
    half = np.zeros((96, 160, 1), np.float16)
    half[:, :64] = 1
    job.remove("effect_mask")
    job.add("effect_mask", 1001, half, cover="still")
    return job


def test_when_origin_is_asked_for_then_its_mattes_sum_to_one_and_tell_the_plates_own(shadowed):
    made = shadowed.run(steps=1, origin=True, mask_grow=4)
    for n in shadowed.frames:
        origin = made.layer("origin")[n]
        assert origin.dtype == np.float32
        assert made.pictures["origin", n].channels[0] == "origin.plate"
        assert (origin[..., :4].sum(axis=2) == 1).all()
        result, plate = made.layer("result")[n][..., :3], shadowed.sent["plate", n]
        same = (result.view(np.uint16) == plate.view(np.uint16)).all(axis=2)
        assert ((origin[..., 0] == 1) == same).all()
        assert origin[:, :56, 1].mean() > 0.8  # a shadow is the plate under a gain


def test_when_alpha_is_natural_then_what_hides_the_plate_has_more_body_and_stacks_as_well(shadowed):
    shadowed.backbone.paint = lighten
    least = shadowed.run(steps=1)
    natural = shadowed.run(steps=1, alpha_style="natural")
    assert natural.forwards == 0
    for n in shadowed.frames:
        plate = shadowed.sent["plate", n]
        for made in (least, natural):
            again = over(made.layer("effect")[n], plate).astype(np.float16)
            assert int(ulp_distance(again, made.layer("result")[n][..., :3]).max()) <= 1
        low, high = (one.layer("effect")[n][..., 3].astype(np.float32) for one in (least, natural))
        assert (high >= low - 2**-10).all()
        assert high.mean() > low.mean() + 0.05
        assert not high[:, 104:].any()


def test_when_grain_is_matched_then_it_is_seeded_and_only_where_something_was_made(
    new_job, painter
):
    rng = np.random.default_rng(1)
    job, _ = new_job(system="overplusplus", width=320, height=192, frames=2)
    light = np.full((192, 320, 1), 0.02)
    light[:, 160:] = 0.4
    for n in job.frames:  # grain of a twentieth of the light
        plate = light * (1 + rng.normal(0, 0.05, (192, 320, 3)))
        job.add("plate", n, plate.astype(np.float16))
    mask = np.zeros((192, 320, 1), np.float16)
    mask[:, :160] = 1
    job.remove("effect_mask")
    job.add("effect_mask", 1001, mask, cover="still")
    job.backbone = painter(lighten)
    knobs = {"steps": 1, "mask_grow": 0}
    plain, one, two = job.run(**knobs), *(job.run(**knobs, grain="match") for _ in range(2))
    assert one.forwards == 0
    for n in job.frames:
        a, b = (made.layer("result")[n].astype(np.float32) for made in (plain, one))
        assert a[:, 160:].tobytes() == b[:, 160:].tobytes()
        inside = np.s_[8:-8, 8:140, :3]
        assert b[inside].std() > 3 * a[inside].std()
        assert one.layer("result")[n].tobytes() == two.layer("result")[n].tobytes()
        again = over(one.layer("effect")[n], job.sent["plate", n]).astype(np.float16)
        assert int(ulp_distance(again, one.layer("result")[n][..., :3]).max()) <= 1


@pytest.mark.parametrize(
    "knobs",
    [
        {"mask_grow": 2},
        {"unknown_bound": "whole frame"},
        {"unknown_reach": 30.0},
        {"alpha_style": "natural"},
        {"grain": "match"},
        {"origin": True},
        {"other_channels": True},
        {"fg_locked": False},
    ],
    ids=lambda knobs: next(iter(knobs)),
)
def test_when_a_delivery_knob_turns_then_no_model_runs(shadowed, knobs):
    keyed = {"steps": 1, "mask_frames": "keyframes only", "keyframes": "1002"}
    shadowed.run(**keyed)
    encoded, prompts = shadowed.backbone.encoded, len(shadowed.backbone.prompts)
    again = shadowed.run(**keyed, **knobs)
    assert again.forwards == 0
    assert (shadowed.backbone.encoded, len(shadowed.backbone.prompts)) == (encoded, prompts)
    assert {row.name for row in again.ctx.rows if not row.reused} <= BOUND_STAGES


def test_when_a_locked_fg_is_opaque_everywhere_then_no_model_runs_for_nothing(apart):
    job = apart()
    solid = np.full((96, 160, 4), [0.2, 0.2, 0.2, 1], np.float16)
    for n in job.frames:
        job.add("fg", n, solid)
    with pytest.raises(BadMatte, match="the opaque fg leaves no place") as refused:
        job.run(steps=1)
    assert "fg_locked" in refused.value.hint
    assert job.backbone.forwards == job.backbone.encoded == 0
