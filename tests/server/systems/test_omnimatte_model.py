# SPDX-License-Identifier: Apache-2.0
"""Omnimatte with a video model: which passes are made, with what, and what becomes of them."""

import cv2
import numpy as np
import pytest

from gencomp_protocol.errors import BadName, WeightsMissing
from gencomp_protocol.frames import FrameRange
from gencomp_server.backbones import spec_named
from gencomp_server.colour.modelrange import encode
from gencomp_server.contract import Machine
from gencomp_server.parts.stack import stack_error
from gencomp_server.parts.trimask import EDIT, KEEP, UNKNOWN
from gencomp_server.systems.omnimatte import SYSTEM
from gencomp_server.training.shots import ProceduralShot, ShotSpec

QUICK = {"steps": 2, "model_size": "80x48"}


class Remover:
    """Makes from the conftest's painter one that remembers each pass's trimask, and darkens."""

    def __init__(self, painter, shift=0.0):
        self.trimasks = []
        self.backbone = painter(paint=lambda plate, classes: self.note(classes, shift, plate))

    def note(self, classes, shift, plate):
        self.trimasks.append(self.backbone.trimask)
        return plate * 0 + shift


@pytest.fixture
def remover(painter):
    return Remover(painter)


def rows(made, name):
    return [row for row in made.ctx.rows if row.name == name]


def exact(made, job, order):
    for n in job.frames:
        layers = [made.layer(name)[n] for name in order]
        error = stack_error(job.sent["plate", n], made.layer("background")[n], layers)
        assert (error.max_ulp <= 1, error.beyond, error.differing) == (True, 0, 0)


def test_when_tiny_makes_clean_plate_and_solos_then_layers_give_the_plate_exactly(
    new_job, brief_tiny
):
    job, _ = new_job(objects=2, frames=2, clean=False)
    job.backbone = brief_tiny
    made = job.run(**QUICK)
    assert made.ctx.figures["clean_plate_from"] == "model"
    assert made.ctx.figures["solos_from"] == {"a": "model", "b": "model"}
    assert made.ctx.figures["passes"] == ["clean plate", "solo of a", "solo of b"]
    exact(made, job, ("a", "b"))


@pytest.mark.parametrize(
    ("objects", "clean", "solos", "knobs", "forwards"),
    [
        (1, False, (), {}, 2),
        (2, False, (), {}, 6),
        (2, True, (), {}, 4),
        (2, True, ("a",), {}, 2),
        (2, True, ("a", "b"), {}, 0),
        (1, True, (), {}, 0),
        (2, False, (), {"guidance": 3.0}, 12),
        (1, False, (), {"steps": 30, "quality": "draft"}, 10),
    ],
)
def test_when_a_job_is_planned_then_so_many_forwards_are_computed(
    new_job, painter, objects, clean, solos, knobs, forwards
):
    job, shot = new_job(objects=objects, frames=1, clean=clean)
    for name in solos:
        job.add(f"solo.{name}", 1001, shot.solo(name, 1001).astype(np.float16))
    job.backbone = painter()
    knobs = {**QUICK, "backbone": "tiny", **knobs}
    made = job.run(**knobs)
    assert made.forwards == forwards
    assert made.ctx.figures.get("forwards", 0) == forwards
    entries = tuple(job.entries[name] for name in job.entries)
    sized = [type(one)(one.name, one.frames, one.cover, format_of(shot)) for one in entries]
    request = job.request(**knobs)
    request = type(request)(request.system, request.frames, tuple(sized), request.knobs)
    assert SYSTEM.plan(request, Machine()).forwards == forwards


def format_of(shot):
    from gencomp_protocol.frames import Format

    return Format(shot.spec.width, shot.spec.height)


def test_when_one_pass_gets_a_seed_then_that_pass_alone_is_made_again(new_job, painter):
    job, _ = new_job(objects=2, frames=1, clean=False)
    job.backbone = painter()
    first = job.run(**QUICK)
    again = job.run(**QUICK, passes="b=3")
    assert (first.forwards, again.forwards) == (6, 2)
    assert [row.reused for row in rows(again, "sample")] == [True, True, False]


def test_when_a_forward_takes_more_then_passes_of_one_noise_are_one_stage_and_a_new_group_another(
    new_job, painter
):
    job, _ = new_job(objects=2, frames=1, clean=False)
    job.backbone = painter()
    job.backbone.batch, job.backbone.identity = 4, "painter of four"
    first = job.run(**QUICK)
    assert len(rows(first, "sample")) == 1
    assert job.backbone.forwards == first.ctx.figures["forwards"] == 6
    again = job.run(**QUICK, passes="b=3")
    assert [row.reused for row in rows(again, "sample")] == [False, False]


def test_when_all_passes_run_then_they_start_from_the_same_noise_and_one_encoded_plate(
    new_job, painter
):
    job, _ = new_job(objects=2, frames=1, clean=False)
    started = []

    class Watched(painter):
        def predict(self, latents, timestep, text, condition):
            started.append(latents.numpy().copy())
            return super().predict(latents, timestep, text, condition)

    job.backbone = Watched(pixel_noise=0.1)
    job.run(steps=1, model_size="80x48")
    assert [one.shape[0] for one in started] == [1, 1, 1]
    assert started[0].tobytes() == started[1].tobytes() == started[2].tobytes()
    assert job.backbone.encoded == 2  # as the model sees it, and without noise as the reference
    assert job.backbone.prompts == ["empty scene"]


def test_when_the_model_sees_the_plate_as_it_is_then_it_is_encoded_once(new_job, painter):
    job, _ = new_job(objects=2, frames=1, clean=False)
    job.backbone = painter(pixel_noise=0.0)
    job.run(steps=1, model_size="80x48")
    assert job.backbone.encoded == 1


def test_when_a_seed_is_for_a_pass_that_is_not_made_then_a_warning_names_it(new_job, painter):
    job, _ = new_job(objects=2, frames=1)
    job.backbone = painter()
    said = job.run(**QUICK, passes="a=3, background=7").ctx.warnings
    assert [one for one in said if "'passes'" in one] == [
        "Knob 'passes' names 'background', and the video model makes no such pass here."
    ]


def test_when_nothing_is_left_to_make_then_a_model_that_is_not_installed_is_no_hindrance(new_job):
    job, shot = new_job(objects=1, frames=1)
    for knobs in ({}, {"clean_plate_from": "model"}):
        plan = SYSTEM.plan(sized(job, shot, backbone="casper", **knobs), Machine())
        assert (plan.backbone, plan.forwards) == ("", 0)
    job.remove("clean_plate")
    with pytest.raises(WeightsMissing):
        SYSTEM.plan(sized(job, shot, backbone="casper"), Machine())


def test_when_a_job_is_planned_then_every_picture_counts_with_its_own_kind(new_job):
    job, shot = new_job(objects=2, frames=3)
    matte = np.zeros((96, 160, 1), np.float16)
    job.add("keep", 1001, matte, cover="still")
    job.add("trimask.b", 1001, matte, cover="still")
    job.add("effects.a", 1001, matte, cover="still")
    for n in job.frames:
        job.add("solo.a", n, shot.solo("a", n))
    # In half: plate, clean plate and solo at 3 frames, two mattes at 3, three stills.
    plan = SYSTEM.plan(sized(job, shot, backbone="tiny"), Machine())
    assert plan.bytes_in == 160 * 96 * (3 * 3 * 6 + 2 * 3 * 2 + 3 * 2)


def test_when_a_shot_is_longer_then_the_model_takes_more_main_memory(new_job):
    job, shot = new_job(frames=1, clean=False)
    asked = sized(job, shot, backbone="tiny", model_size="80x48")
    gpu = Machine(device="cuda:0")

    def memory(frames):
        longer = type(asked)(
            asked.system, FrameRange(1001, 1000 + frames), asked.inputs, asked.knobs
        )
        return SYSTEM.plan(longer, gpu).memory_bytes

    # Six sequences of 80x48 pixels, three channels of four bytes; lengths inside are 4k + 1.
    assert memory(1001) - memory(201) == 800 * 80 * 48 * 3 * 4 * 6


def test_when_a_solo_is_made_then_its_object_stays_and_the_others_go(new_job, remover):
    job, shot = new_job(objects=2, frames=1, clean=False, width=320, height=192)
    job.backbone = remover.backbone
    job.run(steps=1, model_size="320x192")
    clean, solo_a, solo_b = (one[0, ..., 0] for one in remover.trimasks)
    inside = {name: shot.matte(name, 1001)[..., 0] > 0.5 for name in "ab"}
    assert (clean[inside["a"]] == EDIT).all()
    assert (clean[inside["b"]] == EDIT).all()
    assert (solo_a[inside["a"]] == KEEP).all()
    assert (solo_a[inside["b"]] == EDIT).all()
    assert (solo_b[inside["a"]] == EDIT).all()
    assert (solo_b[inside["b"]] == KEEP).all()
    assert clean[0, 0] == solo_a[0, 0] == UNKNOWN


def test_when_keep_and_effects_are_drawn_then_every_trimask_has_them(new_job, remover):
    job, _ = new_job(objects=2, frames=1, clean=False)
    keep, shadow = np.zeros((2, 96, 160, 1), np.float16)
    keep[:16], shadow[80:] = 1, 1
    job.add("keep", 1001, keep, cover="still")
    job.add("effects.b", 1001, shadow, cover="still")
    job.backbone = remover.backbone
    job.run(steps=1, model_size="160x96")
    top = [one[0, 2, 2, 0] for one in remover.trimasks]
    bottom = [one[0, 93, 2, 0] for one in remover.trimasks]
    assert top == [KEEP, KEEP, KEEP]
    assert bottom == [EDIT, EDIT, KEEP]


def test_when_the_artist_draws_a_trimask_then_that_pass_uses_it(new_job, remover):
    job, _ = new_job(objects=2, frames=1, clean=False)
    drawn = np.full((96, 160, 1), 0.5, np.float16)
    drawn[:32], drawn[64:] = 1, 0
    job.add("trimask.a", 1001, drawn, cover="still")
    job.backbone = remover.backbone
    job.run(steps=1, model_size="160x96")
    solo_a = remover.trimasks[1][0, :, :, 0]
    assert (solo_a[2] == KEEP).all()
    assert (solo_a[48] == UNKNOWN).all()
    assert (solo_a[93] == EDIT).all()
    assert not (remover.trimasks[2][0, 93] == EDIT).all()


def test_when_nothing_reads_a_trimask_then_a_warning_names_it(new_job):
    job, _ = new_job(frames=1)
    job.add("trimask", 1001, np.ones((96, 160, 1), np.float16), cover="still")
    made = job.run()
    assert any("'trimask'" in sentence for sentence in made.ctx.warnings)


def test_when_the_model_changes_nothing_then_the_layers_are_empty_away_from_the_object(
    new_job, painter
):
    job, shot = new_job(frames=1, clean=False)
    job.backbone = painter()
    made = job.run(steps=1, model_size="160x96", matte_grow=0)
    near = cv2.dilate(shot.matte("a", 1001), np.ones((9, 9), np.uint8)) > 0
    assert made.layer("a")[1001][near, 3].any()
    assert not made.layer("a")[1001][~near].any()


def test_when_the_prompt_is_too_long_then_what_is_cut_is_said(new_job, painter):
    job, _ = new_job(frames=1, clean=False)
    job.backbone = painter()
    limit = spec_named("tiny").architecture.text_tokens
    made = job.run(steps=1, model_size="80x48", scene_prompt="beach " * (limit - 1) + "whale")
    assert any("cut: 'whale'" in sentence for sentence in made.ctx.warnings)


def test_when_the_clean_plate_comes_from_the_shot_then_the_model_is_not_asked(new_job, painter):
    job, _ = new_job(objects=2, frames=2, clean=False)
    job.backbone = painter()
    made = job.run(clean_plate_from="temporal")
    assert made.forwards == 0
    assert made.ctx.figures["clean_plate_from"] == "temporal"
    assert "forwards" not in made.ctx.figures


def test_when_there_is_no_model_then_auto_takes_the_shots_other_frames_and_says_so(new_job):
    job, shot = new_job(frames=2, clean=False)
    made = job.run()
    assert made.ctx.figures["clean_plate_from"] == "temporal"
    notes = SYSTEM.plan(sized(job, shot), Machine()).notes
    assert any("no video model is installed" in note for note in notes)


def sized(job, shot, **knobs):
    request = job.request(**knobs)
    entries = [
        type(one)(one.name, one.frames, one.cover, format_of(shot)) for one in request.inputs
    ]
    return type(request)(request.system, request.frames, tuple(entries), request.knobs)


def test_when_the_model_is_asked_for_and_missing_then_the_sentence_names_the_knob(new_job):
    job, shot = new_job(frames=1, clean=False)
    with pytest.raises(WeightsMissing, match="clean_plate_from"):
        job.run(clean_plate_from="model")
    with pytest.raises(WeightsMissing, match="video model"):
        SYSTEM.plan(sized(job, shot, clean_plate_from="model"), Machine())


def test_when_some_solos_are_missing_and_no_model_makes_them_then_it_is_refused(new_job):
    job, shot = new_job(objects=2, frames=1)
    job.add("solo.a", 1001, shot.solo("a", 1001).astype(np.float16))
    with pytest.raises(BadName, match="not for b"):
        job.run()
    with pytest.raises(BadName, match="not for b"):
        SYSTEM.plan(sized(job, shot), Machine())


def test_when_the_plan_is_made_then_growth_is_told_in_pixels_of_the_plate(new_job):
    job, shot = new_job(frames=1, clean=False)
    asked = sized(job, shot, backbone="tiny", model_size="80x48", matte_grow=5)
    notes = " ".join(SYSTEM.plan(asked, Machine()).notes)
    assert "5 model pixels, 10 of the plate" in notes


def test_when_sampling_is_cancelled_then_the_job_goes_on_from_its_last_step(
    new_job, painter, cancelled
):
    job, _ = new_job(objects=2, frames=1, clean=False)
    job.backbone = painter()
    knobs = {"steps": 4, "model_size": "80x48"}

    with pytest.raises(cancelled):
        job.run(cancel_when=lambda said: job.backbone.forwards >= 6, **knobs)
    assert job.backbone.forwards == 6
    whole = job.run(**knobs)
    assert whole.forwards == 6
    assert whole.pictures


# A model whose pictures are the truth: what is lost then is lost on the way to the layers.
TRUE_ALPHA_ERROR, TRUE_HIDDEN_ERROR = 0.03, 0.13


@pytest.fixture
def knows_the_truth(painter):
    """Return a maker of backbones whose every pass is the shot's own answer, decoded."""

    class Truth(painter):
        """Its latents are a mark: 0 the plate, 1 the clean plate, 2 and 3 the solos."""

        shot = None

        def encode(self, video, progress=None):
            return super().encode(video)[:, :, :1] * 0

        def condition(self, plate_latents, trimask):
            seen = [self.share_kept(name, trimask) for name in self.shot.names]
            kept = [k for k, share in enumerate(seen) if share > 0.3]
            return plate_latents * 0 + (2 + kept[0] if kept else 1)

        def share_kept(self, name, trimask):
            n, others = self.shot.frames.last, [one for one in self.shot.names if one != name]
            own = self.shot.matte(name, n) > 0.5
            for other in others:
                own &= self.shot.matte(other, n) < 0.5
            return (trimask[0][own] == KEEP).mean()

        def decode(self, latents, progress=None):
            mark, n = round(float(latents.mean())), self.shot.frames.last
            pictures = [self.shot.plate, self.shot.clean_plate]
            pictures += [lambda n, name=name: self.shot.solo(name, n) for name in self.shot.names]
            code = np.clip(encode(pictures[mark](n)), 0, 1) * 2 - 1
            return np.repeat(code[None], 4 * latents.shape[1] - 3, axis=0)

    def make(shot):
        made = Truth()
        made.shot = shot
        return made

    return make


def test_when_the_models_clean_plate_is_the_truth_then_the_layer_is_near_it(
    new_job, knows_the_truth
):
    job, shot = new_job(frames=1, clean=False, width=320, height=192)
    job.backbone = knows_the_truth(shot)
    made = job.run(steps=1, model_size="320x192")
    truth, layer = shot.layer("a", 1001), made.layer("a")[1001].astype(np.float32)
    covered = truth[..., 3] > 0.02
    assert np.abs(layer - truth)[covered, 3].mean() < TRUE_ALPHA_ERROR
    assert layer[(truth == 0).all(axis=2), 3].mean() < 0.001
    exact(made, job, ("a",))


def test_when_the_models_solo_completes_a_hidden_object_then_its_layer_has_it(
    new_job, knows_the_truth, tmp_path, decode_pool
):
    n = 1027
    shot = ProceduralShot(ShotSpec(width=320, height=192, frames=n - 1000, objects=2, seed=5))
    job = type(new_job(frames=1)[0])(tmp_path, decode_pool, FrameRange(n, n))
    job.add("plate", n, shot.plate(n))
    job.add("matte.a", n, shot.matte("a", n))
    job.add("matte.b", n, shot.matte("b", n) * (1 - shot.matte("a", n)))
    job.backbone = knows_the_truth(shot)
    made = job.run(steps=1, model_size="320x192")
    truth, layer = shot.layer("b", n), made.layer("b")[n].astype(np.float32)
    hidden = (shot.object_layer("a", n)[..., 3] > 0.98) & (truth[..., 3] > 0.02)
    assert hidden.sum() > 500
    assert np.abs(layer - truth)[hidden, 3].mean() < TRUE_HIDDEN_ERROR
    exact(made, job, ("a", "b"))
