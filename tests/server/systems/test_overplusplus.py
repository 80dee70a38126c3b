# SPDX-License-Identifier: Apache-2.0
"""Over++ as a whole: what a compositor gets, whatever a model paints.

Most tests run a painter in the place of a model: it says exactly what was painted, and where.
"""

import cv2
import numpy as np
import pytest

from gencomp_protocol.errors import BadMatte, BadPicture
from gencomp_protocol.frames import Box
from gencomp_server.parts.stack import over, ulp_distance

EDIT, UNKNOWN, KEEP = 2, 1, 0


def darken(plate, classes):
    """Paint half of every code away."""
    return -0.5 * (plate + 1)


def noise(plate, classes):
    """Paint noise over the whole frame."""
    import torch

    return torch.from_numpy(
        np.random.default_rng(7).normal(0, 0.3, tuple(plate.shape)).astype(np.float32)
    )


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


def untouched(made, job, n):
    """Return where all channels of the result are the plate's own bits. [H,W] bool."""
    result, plate = made.layer("result")[n], job.sent["plate", n]
    same = result[..., :3].view(np.uint16) == plate.view(np.uint16)
    return same.all(axis=2)


def check_layers(made, job):
    """The effect over the plate is the result, and nothing is where nothing changed."""
    for n in job.frames:
        result, effect = made.layer("result")[n], made.layer("effect")[n]
        plate = job.sent["plate", n]
        again = over(effect, plate[..., :3]).astype(result.dtype)
        assert int(ulp_distance(again, result[..., :3]).max()) == 0
        same, matte = untouched(made, job, n), made.layer("effect_matte")[n][..., 0]
        assert same[matte == 0].all()
        assert not effect[matte == 0].any()
        assert not made.layer("difference")[n][matte == 0].any()
        assert not effect[same].any()
        assert not matte[same].any()
        assert (effect >= 0).all()


def test_when_the_model_changes_nothing_then_the_result_is_the_plate_bit_for_bit(new_job, painter):
    job, shot = new_job(system="overplusplus", frames=2)
    plate = shot.plate(1001).astype(np.float16)
    plate[0, :4, 0] = [np.nan, np.inf, -0.0, -0.25]
    plate[1, :2] = [60.0, -0.5, 0.0]
    job.add("plate", 1001, plate)
    job.backbone = painter()
    for mode in ("every frame", "no mask"):
        made = job.run(steps=1, mask_frames=mode)
        for n in job.frames:
            assert untouched(made, job, n).all()
            assert not made.layer("effect")[n].any()
            assert not made.layer("effect_matte")[n].any()
        assert made.ctx.figures["untouched_share_per_frame"] == [1.0, 1.0]


def test_when_the_model_darkens_the_frame_then_only_the_mask_and_its_growth_get_darker(shadowed):
    made = shadowed.run(steps=1, mask_grow=4)
    grown_px = 4 * 2  # the model works at half size
    for n in shadowed.frames:
        same = untouched(made, shadowed, n)
        assert same[:, 64 + grown_px :].all()
        assert (~same[:, :56]).mean() > 0.99
        effect = made.layer("effect")[n][:, :56].astype(np.float32)
        lit = shadowed.sent["plate", n][:, :56].astype(np.float32).max(axis=2) > 0.05
        assert np.median(effect[lit][:, 3]) > 0.3
        assert effect[lit][:, :3].max() < 0.2
    check_layers(made, shadowed)


def test_when_the_mask_has_a_feather_then_the_change_comes_in_as_softly(shadowed):
    soft = np.ones((96, 160, 1), np.float16)
    soft[:, 80:] = np.linspace(1, 0, 80, dtype=np.float16)[None, :, None]
    shadowed.add("effect_mask", 1001, soft, cover="still")
    made = shadowed.run(steps=1, mask_grow=0)
    matte = made.layer("effect_matte")[1002][48, 80:, 0].astype(np.float32)
    assert np.abs(matte - soft[48, 80:, 0].astype(np.float32))[:-4].max() < 0.01
    assert matte[-1] == 0


@pytest.mark.parametrize("mode", ["every frame", "keyframes only", "no mask"])
@pytest.mark.parametrize("half", [True, False], ids=["half", "float"])
def test_when_a_model_paints_noise_then_no_bit_changes_outside_the_grown_mask(
    new_job, painter, mode, half
):
    job, _ = new_job(system="overplusplus", frames=2, width=320, height=192, half=half)
    kind = np.float16 if half else np.float32
    rng = np.random.default_rng(3)
    for n in job.frames:
        wild = over_range(rng, (192, 320, 3)).astype(kind)
        job.add("plate", n, wild)
    job.backbone = painter(noise)
    keep = np.zeros((192, 320, 1), np.float16)
    keep[:, 300:] = 1
    job.add("keep", 1001, keep, cover="still")
    made = job.run(steps=1, mask_frames=mode, keyframes="1002" if mode[0] == "k" else "")
    grown_px = 16 * 4 + 1  # in plate pixels: the model works at a quarter
    square = np.ones((2 * grown_px + 1, 2 * grown_px + 1), np.uint8)
    masked = {"every frame": (1001, 1002), "keyframes only": (1002,), "no mask": ()}[mode]
    for n in job.frames:
        result, plate = made.layer("result")[n], job.sent["plate", n]
        bits = np.uint16 if half else np.uint32
        same = (result[..., :3].view(bits) == plate.view(bits)).all(axis=2)
        assert same[:, 300:].all()
        if n in masked:
            roto = (job.sent["effect_mask", n][..., 0] > 0).astype(np.uint8)
            outside = cv2.dilate(roto, square) == 0
            assert outside.any()
            assert same[outside].all()
        assert not same.all()
        again = over(made.layer("effect")[n], plate).astype(kind)
        assert int(ulp_distance(again, result[..., :3]).max()) <= 1


def over_range(rng, shape):
    """Return samples from -0.5 to 60, most of them below 1."""
    light = rng.uniform(0, 1, shape) ** 2
    light[rng.uniform(0, 1, shape) < 0.02] = 60.0
    return np.where(rng.uniform(0, 1, shape) < 0.02, -0.5 * light / 60 - 0.01, light)


def test_when_only_keyframes_are_masked_then_the_other_frames_are_unknown_whatever_they_hold(
    shadowed,
):
    made = shadowed.run(steps=1, mask_frames="keyframes only", keyframes="1002")
    classes = shadowed.backbone.trimask
    assert (classes[[0, 2]] == UNKNOWN).all()
    assert sorted(np.unique(classes[1])) == [KEEP, EDIT]
    reach = 64 + 96 // 10 + 1
    for n in (1001, 1003):
        assert untouched(made, shadowed, n)[:, reach:].all()
        assert not untouched(made, shadowed, n)[:, :60].any(axis=0).all()
    assert untouched(made, shadowed, 1002)[:, 110:].all()
    assert made.ctx.figures["annotated_frames"] == "1002"
    assert "within the mask as it is interpolated there" in made.ctx.figures["bounds"]
    whole = {"mask_frames": "keyframes only", "keyframes": "1002", "unknown_bound": "whole frame"}
    made = shadowed.run(steps=1, **whole)
    assert (~untouched(made, shadowed, 1001)).mean() > 0.95
    said = " ".join(made.ctx.warnings)
    assert "2 of 3 frames have no mask; there the whole region around the masks may change" in said


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({}, "none of that is delivered, but look at the tone of the effect."),
        (
            {"mask_frames": "keyframes only", "keyframes": "1002"},
            "none of that is delivered outside the mask, which on the 2 without one is as "
            "interpolated and grown by 10 % of the height.",
        ),
        (
            {
                "mask_frames": "keyframes only",
                "keyframes": "1002",
                "unknown_bound": "whole frame",
            },
            "on frames with a mask none of that is delivered, but on the 2 without one all of it "
            "may be.",
        ),
        (
            {"mask_frames": "no mask"},
            "none of that is delivered where it is held out, elsewhere all of it may be.",
        ),
    ],
)
def test_when_the_model_changes_what_it_should_not_then_it_says_where_that_is_not_delivered(
    shadowed, knobs, words
):
    if "no mask" in knobs.values():
        keep = np.zeros((96, 160, 1), np.float16)
        keep[:, :96] = 1
        shadowed.add("keep", 1001, keep, cover="still")
    made = shadowed.run(steps=1, **knobs)
    said = [one for one in made.ctx.warnings if "where nothing was asked for" in one]
    assert said == [
        f"The video model changed the picture also where nothing was asked for; {words}"
    ]


def test_when_every_frame_has_a_mask_then_nothing_is_said_of_frames_without_one(shadowed):
    assert not any("no mask" in one for one in shadowed.run(steps=1).ctx.warnings)


def test_when_there_is_no_mask_then_all_is_unknown_but_what_is_kept(new_job, painter):
    job, _ = new_job(system="overplusplus", frames=2)
    job.remove("effect_mask")
    job.backbone = painter(darken)
    keep = np.zeros((96, 160, 1), np.float16)
    keep[:48] = 1
    job.add("keep", 1001, keep, cover="still")
    made = job.run(steps=1)
    assert (job.backbone.trimask[:, :24] == KEEP).all()
    assert (job.backbone.trimask[:, 24:] == UNKNOWN).all()
    assert untouched(made, job, 1001)[:48].all()
    assert not untouched(made, job, 1001)[56:].all()


def test_when_a_second_matte_says_unknown_then_the_model_decides_there(shadowed):
    right = np.zeros((96, 160, 1), np.float16)
    right[:, 128:] = 1
    shadowed.add("effect_unknown", 1001, right, cover="still")
    made = shadowed.run(steps=1, mask_grow=0)
    row = shadowed.backbone.trimask[0, 24, :, 0]
    assert (row[:32] == EDIT).all()
    assert (row[32:64] == KEEP).all()
    assert (row[64:] == UNKNOWN).all()
    same = untouched(made, shadowed, 1001)
    assert same[:, 66:126].all()
    assert not same[:, 130:].any(axis=0).all()


def test_when_the_threshold_moves_then_coverage_turns_to_edit_there(shadowed):
    ramp = np.tile(np.linspace(0, 1, 160, dtype=np.float16)[None, :, None], (96, 1, 1))
    shadowed.add("effect_mask", 1001, ramp, cover="still")
    shares = {}
    for threshold in (0.25, 0.5, 0.75):
        shadowed.run(steps=1, mask_threshold=threshold)
        shares[threshold] = float((shadowed.backbone.trimask == EDIT).mean())
    assert shares == pytest.approx({0.25: 0.75, 0.5: 0.5, 0.75: 0.25}, abs=0.02)


def test_when_mask_and_keep_leave_nothing_then_the_job_is_refused_by_name(shadowed):
    faint = np.full((96, 160, 1), 0.25, np.float16)
    shadowed.add("effect_mask", 1001, faint, cover="still")
    with pytest.raises(BadMatte, match=r"effect_mask.*threshold 0\.5"):
        shadowed.run(steps=1)
    shadowed.add("effect_mask", 1001, np.ones_like(faint), cover="still")
    shadowed.add("keep", 1001, np.ones_like(faint), cover="still")
    with pytest.raises(BadMatte, match="Outside keep"):
        shadowed.run(steps=1)


def test_when_the_mask_is_all_white_then_it_is_legal_and_said(shadowed):
    white = np.ones((96, 160, 1), np.float16)
    shadowed.add("effect_mask", 1001, white, cover="still")
    made = shadowed.run(steps=1)
    assert any("covers the whole picture" in one for one in made.ctx.warnings)
    assert (~untouched(made, shadowed, 1001)).mean() > 0.95


def test_when_fg_and_bg_come_apart_then_the_plate_is_their_over(new_job, painter):
    job, shot = new_job(system="overplusplus", frames=1)
    job.remove("plate")
    fg, bg = shot.object_layer("a", 1001).astype(np.float16), shot.clean_plate(1001)
    job.add("fg", 1001, fg)
    job.add("bg", 1001, bg.astype(np.float16))
    job.backbone = painter()
    result = job.run(steps=1).layer("result")[1001]
    wanted = over(fg, bg.astype(np.float16)).astype(np.float16)
    assert result[..., :3].tobytes() == wanted.tobytes()
    assert (result[..., 3] == 1).all()
    job.add("fg", 1001, fg[..., :3])
    with pytest.raises(BadPicture, match="'fg' frame 1001 has no alpha"):
        job.run(steps=1)


@pytest.mark.parametrize("still", ["bg", "fg"])
def test_when_fg_or_bg_is_one_still_then_it_stands_for_every_frame(new_job, painter, still):
    job, shot = new_job(system="overplusplus", frames=2)
    job.remove("plate")
    sent = {}
    for n in job.frames:
        sent["fg", n] = shot.object_layer("a", 1001 if still == "fg" else n).astype(np.float16)
        sent["bg", n] = shot.clean_plate(1001 if still == "bg" else n).astype(np.float16)
        for name in ("fg", "bg"):
            if name != still:
                job.add(name, n, sent[name, n])
    job.add(still, 1001, sent[still, 1001], cover="still")
    job.backbone = painter()
    made = job.run(steps=1)
    for n in job.frames:
        wanted = over(sent["fg", n], sent["bg", n]).astype(np.float16)
        assert made.layer("result")[n][..., :3].tobytes() == wanted.tobytes()


def test_when_the_plate_has_alpha_then_it_comes_back_and_the_effect_covers_it(shadowed):
    for n in shadowed.frames:
        plate = np.concatenate(
            [shadowed.sent["plate", n], np.full((96, 160, 1), 0.25, np.float16)], axis=2
        )
        shadowed.add("plate", n, plate)
    made = shadowed.run(steps=1, mask_grow=0)
    for n in shadowed.frames:
        result, effect = made.layer("result")[n], made.layer("effect")[n]
        assert (result[:, 64:, 3] == 0.25).all()
        again = over(effect, shadowed.sent["plate", n]).astype(np.float16)
        assert again.tobytes() == result.tobytes()


def test_when_the_plate_has_overscan_then_the_result_keeps_it_and_the_effect_ends(shadowed):
    display, data = Box(0, 0, 159, 95), Box(-8, -4, 167, 99)
    for n in shadowed.frames:
        wide = np.full((104, 176, 3), 0.125, np.float16)
        wide[4:100, 8:168] = shadowed.sent["plate", n]
        shadowed.add("plate", n, wide, display_window=display, data_window=data)
    made = shadowed.run(steps=1)
    picture = made.pictures["result", 1002]
    assert (picture.display_window, picture.data_window) == (display, data)
    assert (picture.pixels[:4] == np.array([0.125, 0.125, 0.125, 1.0], np.float16)).all()
    assert not made.layer("effect")[1002][:4].any()
    assert made.layer("effect")[1002].any()
    assert made.layer("effect_matte")[1002].shape == (104, 176, 1)


def test_when_the_exposure_knob_turns_then_the_plate_keeps_its_own(shadowed):
    made = shadowed.run(steps=1, exposure=-2.0)
    check_layers(made, shadowed)
    plate = shadowed.sent["plate", 1001].astype(np.float32)[:, :40]
    result = made.layer("result")[1001].astype(np.float32)[:, :40, :3]
    lit = plate.min(axis=2) > 0.1
    # At a lower exposure half of the code is less light, so the shadow is as deep or deeper.
    assert 0.02 < np.median((result / plate)[lit]) < 0.6


# --- stages --------------------------------------------------------------------------------------


def made_rows(made):
    return [row.name for row in made.ctx.rows if not row.reused]


def test_when_only_the_prompt_changes_then_the_plate_is_not_encoded_again(shadowed):
    shadowed.run(steps=1, prompt="soft shadow")
    encoded = shadowed.backbone.encoded
    again = shadowed.run(steps=1, prompt="harsh shadow")
    assert shadowed.backbone.encoded == encoded
    assert made_rows(again)[:2] == ["text", "sample"]
    assert not {"prepare", "trimask", "encode"} & set(made_rows(again))


def test_when_only_the_mask_changes_then_the_plate_is_not_encoded_again(shadowed):
    shadowed.run(steps=1)
    encoded = shadowed.backbone.encoded
    shadowed.add("effect_mask", 1001, np.ones((96, 160, 1), np.float16), cover="still")
    assert "encode" not in made_rows(shadowed.run(steps=1))
    assert shadowed.backbone.encoded == encoded


def test_when_the_model_wants_pixel_noise_then_the_reference_has_none(shadowed, painter):
    shadowed.backbone = painter(pixel_noise=0.0563)
    made = shadowed.run(steps=1)
    assert shadowed.backbone.encoded == 2
    assert max(made.ctx.figures["noise_floor"]) > 0


def test_when_the_artist_cancels_while_sampling_then_no_further_forward_runs(shadowed, cancelled):
    backbone = shadowed.backbone
    with pytest.raises(cancelled):
        shadowed.run(steps=8, guidance=1.0, cancel_when=lambda _: backbone.forwards == 3)
    assert backbone.forwards == 3
    again = shadowed.run(steps=8, guidance=1.0)
    assert again.forwards in (5, 6)  # it goes on from the last finished step


def test_when_the_job_went_wrong_while_decoding_then_only_that_is_done_again(shadowed):
    decode = shadowed.backbone.decode

    def broken(latents, progress=None):
        raise RuntimeError("out of luck")

    shadowed.backbone.decode = broken
    with pytest.raises(RuntimeError, match="luck"):
        shadowed.run(steps=2)
    shadowed.backbone.decode = decode
    again = shadowed.run(steps=2)
    assert again.forwards == 0
    assert made_rows(again) == ["decode", "decode", "noise", "gate"]


# --- words ---------------------------------------------------------------------------------------


def test_when_a_few_words_are_typed_then_the_model_reads_a_caption_and_the_manifest_shows_it(
    shadowed,
):
    made = shadowed.run(steps=1, prompt="soft shadow", base_prompt="a sunny street")
    told = made.ctx.figures["caption"]
    assert told.startswith("The subject casts a soft shadow on the ground")
    assert shadowed.backbone.prompts == [told, "a sunny street"]
    made = shadowed.run(steps=1, prompt="soft shadow", caption=False)
    assert made.ctx.figures["caption"] == "soft shadow"


def test_when_guidance_is_one_then_nothing_is_pulled_away_from(shadowed):
    made = shadowed.run(steps=3, guidance=1.0, negative_prompt="blur")
    assert made.forwards == 3 == made.ctx.figures["forwards"]
    assert made.ctx.figures["guidance_pulls_away_from"] is None
    made = shadowed.run(steps=3, guidance=2.0, base_prompt="calm water", negative_prompt="blur")
    assert made.forwards == 6 == made.ctx.figures["forwards"]
    assert made.ctx.figures["guidance_pulls_away_from"] == "calm water. blur"


def test_when_the_prompt_is_longer_than_the_model_reads_then_what_is_cut_is_said(shadowed):
    words = " ".join(f"word{i}" for i in range(230))
    made = shadowed.run(steps=1, prompt=words)
    said = " ".join(made.ctx.warnings)
    assert "longer than the 226 tokens" in said
    assert "'word225 word226 word227 word228 word229'" in said


def test_when_a_draft_is_asked_for_then_ten_steps_are_made(shadowed):
    made = shadowed.run(quality="draft", guidance=1.0)
    assert made.forwards == 10 == made.ctx.figures["forwards"]
    made = shadowed.run(quality="draft", guidance=1.0, steps=4)
    assert made.forwards == 4


def test_when_bg_is_cropped_then_nothing_of_fg_beside_it_is_lost(new_job, painter):
    job, shot = new_job(frames=1, clean=False, system="overplusplus")
    job.remove("plate")
    fg = np.zeros((96, 160, 4), np.float16)
    fg[30:60, 60:140] = 1.0
    display = Box(0, 0, 159, 95)
    bg = shot.clean_plate(1001).astype(np.float16)[:, :80]
    job.add("fg", 1001, fg)
    job.add("bg", 1001, bg, display_window=display, data_window=Box(0, 0, 79, 95))
    job.backbone = painter()
    made = job.run(prompt="shadow", mask_frames="no mask", steps=2)
    result = made.pictures["result", 1001]
    assert result.data_window == display
    assert (result.pixels[40, 60:140, :3] == 1).all()
    assert (result.pixels[40, 140:, :3] == 0).all()


def test_when_words_or_a_matte_have_no_effect_then_a_warning_names_them(new_job, painter):
    job, _ = new_job(frames=1, clean=False, system="overplusplus")
    job.add("effect_mask", 1001, np.ones((96, 160, 1), np.float16))
    job.add("effect_unknown", 1001, np.ones((96, 160, 1), np.float16))
    job.backbone = painter()
    knobs = {"prompt": "shadow", "guidance": 1.0, "base_prompt": "calm", "steps": 2}
    made = job.run(mask_frames="no mask", **knobs)
    assert "Knob 'guidance' is 1, so base_prompt has no effect." in made.ctx.warnings
    assert "Input 'effect_unknown' is not used, because no mask counts." in made.ctx.warnings
