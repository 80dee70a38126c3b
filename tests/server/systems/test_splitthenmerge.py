# SPDX-License-Identifier: Apache-2.0
"""Split-then-Merge: what the model is given, what is delivered, what is said, what is refused."""

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, BadMatte, BadPicture, FormatMismatch
from gencomp_protocol.frames import Box, Format, FrameRange
from gencomp_protocol.request import InputHeader
from gencomp_server.backbones import TINY
from gencomp_server.contract import Machine, check_request
from gencomp_server.systems.splitthenmerge import SYSTEM, Params, guidance_of

OF = "tiny-splitthenmerge"
BLUE = np.array([-0.6, -0.2, 0.8], np.float32)


def subject_in_blue(layers):
    """Return the background with blue wherever the subject's latents are."""
    import torch

    fg, bg = layers["fg"], layers["bg"]
    there = (fg != 0).any(dim=2, keepdim=True)
    return torch.where(there, torch.from_numpy(BLUE)[None, None, :, None, None], bg)


@pytest.fixture
def job(new_job, painter):
    """One frame of a figure and a place; a model that paints the subject blue."""
    made, _ = new_job(system="splitthenmerge", frames=1, objects=1)
    made.backbone = painter(of=OF, paint=subject_in_blue, window=49)
    return made


@pytest.fixture
def long_job(new_job, painter):
    """A block that moves over a still, for 53 frames."""
    made, _ = new_job(system="splitthenmerge", frames=1, objects=1, width=48, height=32)
    made.frames = FrameRange(1001, 1053)
    made.remove("bg")
    made.remove("fg")
    made.add("bg", 1001, np.full((32, 48, 3), 0.2, np.float16), cover="still")
    for at, n in enumerate(made.frames):
        fg = np.zeros((32, 48, 4), np.float16)
        fg[8:24, at // 2 : at // 2 + 16] = 1
        made.add("fg", n, fg)
    made.backbone = painter(of=OF, paint=subject_in_blue, window=49)
    return made


def run(job, **knobs):
    return job.run(**{"steps": 2, **knobs})


def block(job, *, rows=(32, 64), columns=(64, 96), alpha=1.0, light=0.5, frames=None):
    """Replace fg by a block of one light and alpha."""
    job.remove("fg")
    for n in frames or job.frames:
        fg = np.zeros((96, 160, 4), np.float16)
        fg[slice(*rows), slice(*columns)] = [light * alpha] * 3 + [alpha]
        job.add("fg", n, fg)
    return job


# --- what the model is given ---------------------------------------------------------------------


def test_the_subjects_latents_are_nothing_outside_of_it_and_the_background_goes_in_whole(job):
    run(block(job))
    fg, bg = (job.backbone.layers[name].numpy() for name in ("fg", "bg"))
    # 160x96 on a model of 48x32: columns 64-96 are 19.2-28.8, rows 32-64 are 10.7-21.3.
    there = (fg != 0).any(axis=2)[0, 0]
    assert there.tolist() == [
        [False] * 6,
        [False, False, True, True, False, False],
        [False, False, True, True, False, False],
        [False] * 6,
    ]
    assert bg.shape == fg.shape == (1, 13, 3, 4, 6)
    assert (bg != 0).all()


def test_the_subject_is_shown_on_black(job):
    run(block(job, rows=(0, 96), columns=(0, 160), light=0.18))
    inside = job.backbone.layers["fg"].numpy()
    assert inside == pytest.approx(2 * 0.4613561 - 1, abs=2e-3)
    run(block(job, light=0.18))
    edge = job.backbone.layers["fg"].numpy()[0, 0, :, 1, 2]
    assert (edge < -0.5).all()


def test_fg_matte_says_what_is_the_subject_whatever_alpha_fg_has(job):
    block(job, rows=(0, 96), columns=(0, 160))
    matte = np.zeros((96, 160, 1), np.float16)
    matte[0:24, 0:24] = 1
    job.add("fg_matte", 1001, matte, cover="still")
    made = run(job)
    there = (job.backbone.layers["fg"].numpy() != 0).any(axis=2)[0, 0]
    assert there.sum() == 1
    assert there[0, 0]
    assert made.ctx.figures["subject_from"] == "fg_matte"


def test_a_subject_of_another_format_is_fitted(job):
    job.remove("fg")
    for n in job.frames:
        job.add("fg", n, np.ones((48, 48, 4), np.float16))
    check_request(SYSTEM, job.request())
    run(job)
    fitted = (job.backbone.layers["fg"].numpy() != 0).any(axis=2)[0, 0]
    assert fitted.any(axis=0).tolist() == [False, True, True, True, True, False]
    run(job, fg_fit="as it is")
    as_it_is = (job.backbone.layers["fg"].numpy() != 0).any(axis=2)[0, 0]
    assert as_it_is.sum() < fitted.sum()
    run(job, fg_fit="fill")
    assert (job.backbone.layers["fg"].numpy() != 0).all()


def test_a_still_serves_for_every_frame(job):
    job.remove("fg")
    job.add("fg", 1001, np.ones((96, 160, 4), np.float16), cover="still")
    assert run(job).layer("result").keys() == {1001}


def test_a_subject_that_leaves_the_shot_is_legal(job):
    job.frames = FrameRange(1001, 1002)
    job.add("bg", 1002, job.sent["bg", 1001])
    block(job, frames=[1001])
    job.add("fg", 1002, np.zeros((96, 160, 4), np.float16))
    made = run(job)
    assert made.ctx.figures["frames_without_subject"] == "1002"


def test_noise_on_the_layers_is_off_and_where_it_is_on_it_follows_the_seed(job):
    block(job)
    run(job)
    plain = {name: one.numpy() for name, one in job.backbone.layers.items()}
    found = []
    for seed in (1, 1, 2):
        run(job, seed=seed, fg_noise=0.37, bg_noise=0.05)
        found.append({name: one.numpy() for name, one in job.backbone.layers.items()})
    for name in ("fg", "bg"):
        assert (found[0][name] == found[1][name]).all()
        assert (found[0][name] != found[2][name]).any()
        assert (found[0][name] != plain[name]).any()
    assert (found[0]["fg"][plain["fg"] == 0] == 0).all()


# --- guidance ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "guidance"),
    [
        ({}, 1.0),
        ({"prompt": "a dog"}, 6.0),
        ({"prompt": "a dog", "guidance_preset": "free 2"}, 2.0),
        ({"prompt": "a dog", "guidance_preset": "loose 4"}, 4.0),
        ({"prompt": "a dog", "guidance_preset": "published 6", "guidance": 3.0}, 6.0),
        ({"prompt": "a dog", "guidance_preset": "strict 8"}, 8.0),
        ({"prompt": "a dog", "guidance": 3.0}, 3.0),
        ({"prompt": "a dog", "guidance": 1.0}, 1.0),
        ({"negative_prompt": "fog"}, 6.0),
        ({"prompt": "fog", "negative_prompt": " fog "}, 1.0),
    ],
)
def test_guidance_is_the_knobs_or_the_presets_and_none_where_both_texts_are_one(knobs, guidance):
    assert guidance_of(Params(**knobs)) == guidance


def test_guidance_costs_a_second_forward_and_none_costs_none(job):
    for knobs, forwards in (({"prompt": "a dog"}, 6), ({"prompt": "a dog", "guidance": 1.0}, 3)):
        made = run(job, steps=3, **knobs)
        assert made.forwards == made.ctx.figures["forwards"] == forwards


def test_a_guidance_that_a_preset_goes_before_is_said(job):
    made = run(job, prompt="a dog", guidance=3.0, guidance_preset="loose 4")
    assert any("'guidance' is not used" in said for said in made.ctx.warnings)
    made = run(job, prompt="a dog", guidance_preset="loose 4")
    assert not any("'guidance' is not used" in said for said in made.ctx.warnings)


def test_without_a_prompt_the_job_runs_and_says_so(job):
    made = run(job)
    assert any("There is no prompt" in said for said in made.ctx.warnings)


def test_a_shot_longer_than_the_model_sees_goes_by_windows_over_a_still(long_job):
    made = run(long_job)
    assert made.ctx.figures["windows"] == 2
    assert made.forwards == 4
    assert len(made.layer("result")) == 53
    for n in (1001, 1053):
        blue = made.layer("result")[n][12:20, (n - 1001) // 2 + 4 : (n - 1001) // 2 + 12]
        assert blue[..., 2].mean() > 2 * blue[..., 0].mean()
    # The background is a still, which serves for every frame.
    plate = long_job.sent["bg", 1001]
    assert made.layer("result")[1030][:, :4, :3].tobytes() == plate[:, :4].tobytes()


# --- what is delivered ---------------------------------------------------------------------------


def test_where_the_model_changes_nothing_the_background_comes_back_bit_for_bit(job, painter):
    job.backbone = painter(of=OF)
    made = run(job)
    for n in job.frames:
        plate = job.sent["bg", n]
        assert made.layer("result")[n][..., :3].tobytes() == plate.tobytes()
        assert not made.layer("effect")[n].any()
    assert made.ctx.figures["plate_share"] == 100.0


def test_the_share_of_the_plate_is_that_of_pixels_that_are_its_own(job):
    made = run(block(job))
    own = [
        (made.layer("result")[n][..., :3] == job.sent["bg", n]).all(axis=2).mean()
        for n in job.frames
    ]
    share = made.ctx.figures["plate_share"]
    assert 50 < share < 90
    assert share == pytest.approx(100 * np.mean(own), abs=0.5)
    assert not any("plate's own" in said for said in made.ctx.warnings)


def test_a_model_that_changes_most_of_the_plate_is_said(job):
    made = run(block(job, rows=(0, 96), columns=(0, 128)))
    share = made.ctx.figures["plate_share"]
    assert share < 50
    assert any(f"Only {share:g} % of the pixels are the plate's" in w for w in made.ctx.warnings)


def test_the_effect_over_the_background_is_the_result(job):
    made = run(block(job))
    for n in job.frames:
        effect = made.layer("effect")[n].astype(np.float32)
        over = effect[..., :3] + job.sent["bg", n].astype(np.float32) * (1 - effect[..., 3:])
        result = made.layer("result")[n][..., :3].astype(np.float32)
        assert np.abs(over.astype(np.float16).astype(np.float32) - result).max() <= 2**-10
        blue = result[40:56, 72:88].mean(axis=(0, 1))
        assert blue[2] > 2 * blue[0]


def test_when_grain_is_matched_then_what_is_generated_has_it_and_the_plate_its_own(
    new_job, painter
):
    rng = np.random.default_rng(1)
    job, _ = new_job(system="splitthenmerge", frames=1, objects=1, width=320, height=192)
    grainy = 0.2 * (1 + rng.normal(0, 0.05, (192, 320, 3)))
    job.add("bg", 1001, grainy.astype(np.float16))
    fg = np.zeros((192, 320, 4), np.float16)
    fg[64:128, 64:192] = [0.5, 0.5, 0.5, 1]
    job.add("fg", 1001, fg)
    job.backbone = painter(of=OF, paint=subject_in_blue, window=49)
    kept, matched = run(job), run(job, grain="match")
    assert matched.forwards == 0
    own = matched.layer("effect_matte")[1001][..., 0] == 0
    assert 0.3 < own.mean() < 0.8
    result = matched.layer("result")[1001][..., :3]
    assert result[own].tobytes() == job.sent["bg", 1001][own].tobytes()
    red = [
        one.layer("result")[1001][80:112, 80:176, 0].astype(np.float32) for one in (kept, matched)
    ]
    assert red[0].std() < 0.003
    assert red[1].std() == pytest.approx(0.01, rel=0.1)  # the plate's: a twentieth of 0.2


def test_limit_holds_what_the_model_moves(job):
    limit = np.zeros((96, 160, 1), np.float16)
    limit[:, 80:] = 1
    job.add("limit", 1001, limit, cover="still")
    made = run(block(job))
    for n in job.frames:
        result, plate = made.layer("result")[n][..., :3], job.sent["bg", n]
        assert result[:, :80].tobytes() == plate[:, :80].tobytes()
        assert (result[40:56, 82:90] != plate[40:56, 82:90]).any()


def test_a_picture_outside_its_data_window_is_not_made_up(job):
    job.remove("bg")
    for n in job.frames:
        half = np.full((96, 80, 3), 0.2, np.float16)
        job.add("bg", n, half, data_window=Box(0, 0, 79, 95), display_window=Box(0, 0, 159, 95))
    made = run(block(job))
    assert made.layer("result")[1001].shape == (96, 80, 4)


# --- many backgrounds, one subject ---------------------------------------------------------------


def test_one_subject_over_another_background_is_not_encoded_again(job):
    run(block(job))
    job.remove("bg")
    for n in job.frames:
        job.add("bg", n, np.full((96, 160, 3), 0.3, np.float16))
    again = run(job)
    reused = {row.name for row in again.ctx.rows if row.reused}
    assert {"prepare fg", "encode fg", "text"} <= reused
    assert again.forwards == 2
    assert not {"prepare", "encode", "sample"} & reused


# --- what is refused and warned of ---------------------------------------------------------------


def test_fg_without_alpha_or_matte_is_refused_with_the_cure(job):
    job.remove("fg")
    for n in job.frames:
        job.add("fg", n, np.ones((96, 160, 3), np.float16))
    with pytest.raises(BadPicture, match="'fg' frame 1001 has no alpha") as caught:
        run(job)
    assert "connect fg_matte" in caught.value.hint


def test_an_fg_that_covers_nothing_is_refused_before_a_model_runs(job):
    block(job, alpha=0.0)
    with pytest.raises(BadMatte, match="'fg' covers nothing on frames 1001,"):
        run(job)
    assert job.backbone.forwards == job.backbone.encoded == 0


def test_a_subject_outside_the_plate_is_refused_with_the_cure(job):
    job.remove("fg")
    for n in job.frames:
        fg = np.zeros((96, 480, 4), np.float16)
        fg[:, :80] = 1
        job.add("fg", n, fg)
    with pytest.raises(BadMatte, match="outside the plate") as caught:
        run(job, fg_fit="as it is")
    assert "fg_fit" in caught.value.hint


def test_an_opaque_fg_is_said(job):
    made = run(block(job, rows=(0, 96), columns=(0, 160)))
    assert any("'fg' covers the whole picture" in said for said in made.ctx.warnings)
    assert not any("covers the whole" in said for said in run(block(job)).ctx.warnings)


def test_a_matte_of_another_size_than_fg_is_refused_from_the_header(job):
    request = job.request()
    sizes = {"fg": Format(160, 96), "fg_matte": Format(80, 48), "bg": Format(160, 96)}
    entries = tuple(InputHeader(name, (1001,), format=size) for name, size in sizes.items())
    with pytest.raises(FormatMismatch, match="'fg_matte' is 80x48"):
        check_request(SYSTEM, type(request)(request.system, request.frames, entries))


def test_a_matte_of_another_size_is_refused_where_the_header_did_not_tell(job):
    job.add("fg_matte", 1001, np.ones((48, 80, 1), np.float16))
    with pytest.raises(FormatMismatch, match="'fg_matte' is 80x48 at frame 1001, but 'fg' is"):
        run(job)


def test_no_place_for_a_change_is_refused_before_a_model_runs(job):
    job.add("protect", 1001, np.ones((96, 160, 1), np.float16), cover="still")
    with pytest.raises(BadMatte, match="protect leaves no place"):
        run(job)
    assert job.backbone.forwards == 0


def test_another_size_than_the_models_own_is_refused(job):
    with pytest.raises(BadKnob, match="works at 48x32 only, not at 64x32"):
        run(job, model_size="64x32")


# --- the plan ------------------------------------------------------------------------------------


def plan_of(job, **knobs):
    entries = (
        InputHeader("bg", tuple(job.frames), format=Format(160, 96)),
        InputHeader("fg", tuple(job.frames), format=Format(160, 96)),
    )
    request = job.request(**{"backbone": TINY, **knobs})
    asked = type(request)(request.system, request.frames, entries, request.knobs)
    return SYSTEM.plan(asked, Machine())


def test_the_plan_counts_what_the_run_computes(job):
    assert plan_of(job, steps=3, prompt="a dog").forwards == 6
    assert plan_of(job, steps=3).forwards == 3


def test_the_plan_says_that_there_is_no_prompt(job):
    assert any("There is no prompt" in note for note in plan_of(job).notes)
    assert not any("no prompt" in note for note in plan_of(job, prompt="a dog").notes)
