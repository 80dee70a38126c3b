# SPDX-License-Identifier: Apache-2.0
"""DynVFX from a plate and words to layers, on a model that knows what it is asked for.

The model reads a text by its length alone: asked for ``a whale`` it adds light to the left of the
plate, asked for ``two whales`` to the right; asked for anything else it gives the plate.
"""

import math
import shutil

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, BadMatte, MissingInput, ToolFailed
from gencomp_server.contract import check_request
from gencomp_server.parts.schedule import signal_levels
from gencomp_server.segmenting import Segmenter
from gencomp_server.systems.dynvfx import SYSTEM

LEFT, RIGHT = "a whale", "two whales"
FASTEST = {"guidance": 1.0, "model_size": "80x48"}
# Four steps there and back: the rounds take 3, 3, 2, 2, 1 and 1, the first of two sees the plate.
KNOBS = {**FASTEST, "steps": 4, "inversion_steps": 4}
THERE, BACK = 3, 12 + 2


@pytest.fixture
def knowing(painter):
    """Return a model that knows what it is asked for; see the head of this file."""
    import torch

    class Knowing(painter):
        def __post_init__(self):
            super().__post_init__()
            self.levels, self.plate, self.anchored = signal_levels(), None, []

        def encode(self, video, progress=None):
            made = super().encode(video, progress)
            if self.plate is None:
                self.plate = made
            return made

        def predict(self, latents, timestep, text, condition):
            self.forwards += 1
            level, asked = self.levels[int(timestep)], self.plate.clone()
            words = int(text.reshape(-1)[0])
            if words == len(LEFT):
                asked[..., 2:4, 1:4] = 0.9
            elif words == len(RIGHT):
                asked[..., 2:4, 6:9] = 0.9
            return (math.sqrt(level) * latents - asked) / math.sqrt(1 - level)

        def predict_anchored(self, latents, timestep, text, *, source, marks, keep, **more):
            self.anchored.append((int(timestep), marks.numpy().copy(), keep))
            self.forwards += 1
            assert source.shape == latents.shape
            return self.predict(latents, timestep, text, torch.empty(0))

    return Knowing(of="tiny-text-to-video")


@pytest.fixture
def job(new_job, knowing):
    """Return a job of two frames whose plate is dim, on the model that knows."""
    made, _ = new_job(system="dynvfx", frames=2, objects=1)
    for n in made.frames:
        rows = np.linspace(0.02, 0.2, 96, dtype=np.float32)[:, None, None]
        made.add("plate", n, np.broadcast_to(rows, (96, 160, 3)).astype(np.float16))
    made.backbone = knowing
    return made


class Finder:
    """A segmenter in this process: a box of the pictures for each of the words it knows."""

    identity = "finder"

    def __init__(self, **boxes):
        self.boxes, self.asked = boxes, []

    def check_there(self):
        pass

    def mattes(self, pictures, words, *, check=None):
        seen = list(pictures)
        self.asked.append(words)
        made = np.zeros((len(seen), *seen[0].shape[:2], 1), np.float32)
        for x0, x1 in [self.boxes[words]] if words in self.boxes else []:
            made[:, 16:32, x0:x1] = 1
        return made


def with_segmenter(job, finder):
    """Let every run of a job have a segmenter."""
    make = job.context

    def context(*args, **more):
        ctx = make(*args, **more)
        ctx.segmenter = finder
        return ctx

    job.context = context
    return job


def changed_columns(made, n=1001):
    """Return the first and the last plate column that was changed."""
    columns = np.flatnonzero(made.layer("effect_matte")[n][..., 0].any(axis=0))
    return int(columns[0]), int(columns[-1])


def matte(x0, x1):
    drawn = np.zeros((96, 160, 1), np.float16)
    drawn[32:64, x0:x1] = 1
    return drawn


def forget_stages(job):
    shutil.rmtree(job.spool.stages)
    job.spool.stages.mkdir()


def same_bits(one, other):
    return all(
        one.pictures[at].pixels.tobytes() == p.pixels.tobytes() for at, p in other.pictures.items()
    )


# --- what comes out ------------------------------------------------------------------------------


def test_words_alone_put_new_content_where_the_model_puts_it(job):
    made = job.run(prompt=LEFT, mask_grow=0, **KNOBS)
    first, last = changed_columns(made)
    assert 10 <= first <= 20
    assert 60 <= last <= 72
    result, plate = made.layer("result")[1001], job.sent["plate", 1001]
    assert result[48, 40, :3].min() > 2 * float(plate[48, 40].max())
    assert result[:, 100:, :3].tobytes() == plate[:, 100:].tobytes()
    assert made.ctx.figures["change_from"] == "difference"


def test_the_effect_over_the_plate_is_the_result(job):
    made = job.run(prompt=LEFT, **KNOBS)
    effect = made.layer("effect")[1002].astype(np.float32)
    plate = job.sent["plate", 1002].astype(np.float32)
    over = (effect[..., :3] + plate * (1 - effect[..., 3:])).astype(np.float16)
    assert over.tobytes() == np.ascontiguousarray(made.layer("result")[1002][..., :3]).tobytes()


def test_when_grain_is_matched_then_new_content_has_it_and_the_plate_its_own(new_job, knowing):
    rng = np.random.default_rng(1)
    job, _ = new_job(system="dynvfx", frames=2, objects=1, width=320, height=192)
    light = np.where(np.arange(320) < 200, 0.2, 12.0)[None, :, None]
    for n in job.frames:
        grainy = light * (1 + rng.normal(0, 0.05, (192, 320, 3)))
        job.add("plate", n, grainy.astype(np.float16))
    job.backbone = knowing
    kept, matched = (job.run(**KNOBS, prompt=LEFT, grain=choice) for choice in ("keep", "match"))
    assert matched.forwards == 0
    own = matched.layer("effect_matte")[1001][..., 0] == 0
    assert 0.5 < own.mean() < 0.9
    result = matched.layer("result")[1001][..., :3]
    assert result[own].tobytes() == job.sent["plate", 1001][own].tobytes()
    inside = [
        one.layer("result")[1001][72:120, 48:112, 0].astype(np.float32) for one in (kept, matched)
    ]
    assert inside[0].mean() == pytest.approx(7.9, rel=0.05)
    assert inside[0].std() < 0.02  # the plate's grain at 0.2 and no more
    assert inside[1].std() == pytest.approx(0.05 * 7.9, rel=0.1)


def test_a_prompt_that_is_the_plate_leaves_the_plate(job):
    made = job.run(prompt="nothing that the model knows of", **KNOBS)
    for n in job.frames:
        assert made.layer("result")[n][..., :3].tobytes() == job.sent["plate", n].tobytes()
        assert not made.layer("effect")[n].any()
    assert made.ctx.warnings[-1] == (
        "No new content was found in the last round, so the delivery is the plate."
    )


# --- rounds and what they cost -------------------------------------------------------------------


def test_every_round_is_told_with_its_noise_and_its_anchored_steps(job, knowing):
    knobs = {**FASTEST, "quality": "draft", "inversion_steps": 50}
    made = job.run(prompt=LEFT, **knobs)
    told = made.ctx.figures["rounds"]
    assert [one["noise_level"] for one in told] == [899, 779, 679, 579, 479, 379]
    assert [one["steps"] for one in told] == [9, 7, 6, 5, 4, 3]
    assert [one["anchored_steps"] for one in told] == [3, 1, 0, 0, 0, 0]
    assert [timestep for timestep, *_ in knowing.anchored] == [899, 799, 699, 699]
    assert made.forwards == 49 + 34 + 4
    fewer = job.run(prompt=LEFT, steps=5, **{**knobs, "quality": "final"})
    assert [row.reused for row in fewer.ctx.rows if row.name == "invert"] == [True]


def test_the_second_edit_of_a_plate_inverts_nothing(job):
    first = job.run(prompt=LEFT, **KNOBS)
    assert first.forwards == THERE + BACK
    assert first.ctx.figures["forwards"] == THERE + BACK
    assert first.ctx.figures["inversion_forwards"] == THERE
    assert first.ctx.figures["forwards_computed"] == THERE + BACK
    second = job.run(prompt=RIGHT, **KNOBS)
    assert second.forwards == BACK
    assert [row.reused for row in second.ctx.rows if row.name == "invert"] == [True]
    other_seed = job.run(prompt=RIGHT, seed=7, **KNOBS)
    assert other_seed.forwards == BACK
    assert changed_columns(second)[0] >= 80


def test_guidance_costs_one_plain_forward_a_step_more(job):
    assert job.run(prompt=LEFT, **{**KNOBS, "guidance": 6.0}).forwards == THERE + BACK + 12


def test_the_paper_has_a_round_more(job):
    told = job.run(prompt=LEFT, rounds="paper", **KNOBS).ctx.figures["rounds"]
    assert [one["noise_level"] for one in told] == [919, 899, 779, 679, 579, 479, 379]


# --- going on from a round -----------------------------------------------------------------------


def test_going_on_from_round_k_reruns_only_what_follows_and_gives_an_unbroken_runs_bits(job):
    job.run(prompt=LEFT, **KNOBS)
    knobs = {**KNOBS, "prompt": LEFT, "continue_from": 4, "continue_prompt": RIGHT}
    continued = job.run(**knobs)
    assert continued.forwards == 2 + 1 + 1
    reused = {row.name: row.reused for row in continued.ctx.rows if row.name.startswith("round")}
    assert [reused[f"round {k}"] for k in range(1, 7)] == [True] * 3 + [False] * 3
    assert changed_columns(continued)[1] >= 120
    forget_stages(job)
    assert same_bits(job.run(**knobs), continued)


def test_an_edit_may_stop_after_a_round_and_go_on_from_there(job):
    look = job.run(prompt=LEFT, last_round=1, **KNOBS)
    assert look.forwards == look.ctx.figures["forwards"] == THERE + 3 + 1
    assert [one["round"] for one in look.ctx.figures["rounds"]] == [1]
    assert changed_columns(look)[1] <= 80
    whole = job.run(prompt=LEFT, **KNOBS)
    assert whole.forwards == BACK - 4
    forget_stages(job)
    assert same_bits(job.run(prompt=LEFT, **KNOBS), whole)


def test_going_on_with_the_same_wishes_is_the_same_job(job):
    first = job.run(prompt=LEFT, **KNOBS)
    again = job.run(prompt=LEFT, continue_from=2, continue_prompt=LEFT, continue_seed=0, **KNOBS)
    assert again.forwards == 0
    assert same_bits(first, again)


def test_going_on_with_another_seed_reruns_what_follows(job):
    job.run(prompt=LEFT, **KNOBS)
    other = job.run(prompt=LEFT, continue_from=6, continue_seed=9, **KNOBS)
    assert other.forwards == 1
    assert [one["seed"] for one in other.ctx.figures["rounds"]] == [0, 0, 0, 0, 0, 9]


def test_going_on_with_another_matte_counts_from_that_round_on(job):
    job.run(prompt=LEFT, **KNOBS)
    job.add("continue_matte", 1001, matte(16, 40), cover="still")
    made = job.run(prompt=LEFT, continue_from=5, mask_grow=0, **KNOBS)
    assert made.forwards == 1  # round 5 is what it was, and what is kept of it is not
    assert changed_columns(made)[1] <= 52


def test_an_edit_of_an_edit_keeps_the_first_bit_for_bit_where_it_adds_nothing(job, knowing):
    first = job.run(prompt=LEFT, mask_grow=4, **KNOBS)
    for n in job.frames:
        job.add("plate", n, first.layer("result")[n][..., :3])
    knowing.plate = None
    second = job.run(prompt=RIGHT, mask_grow=4, **KNOBS)
    for n in job.frames:
        before, after = first.layer("result")[n], second.layer("result")[n]
        assert before[:, :80, :3].tobytes() == after[:, :80, :3].tobytes()
        assert after[48, 120, :3].min() > 2 * before[48, 120, :3].max()


# --- where the new content is --------------------------------------------------------------------


def test_nothing_comes_outside_a_target_matte(job):
    job.add("target_matte", 1001, matte(0, 40), cover="still")
    made = job.run(prompt=LEFT, mask_grow=0, **KNOBS)
    assert made.ctx.figures["change_from"] == "target_matte"
    assert changed_columns(made)[1] <= 41  # a plate pixel is half of one of the model's
    assert "look" not in {row.name for row in made.ctx.rows}


def test_a_source_matte_says_what_stands_out(job, knowing):
    job.add("source_matte", 1001, matte(80, 160), cover="still")
    made = job.run(prompt=LEFT, **KNOBS)
    _, marks, keep = knowing.anchored[0]
    assert marks.shape == (5, 6, 10)
    np.testing.assert_array_equal(marks[0].any(axis=0), [False] * 5 + [True] * 5)
    assert keep == (0.70, 0.05)
    assert made.ctx.figures["source_from"] == "source_matte"


def test_a_segmenter_is_asked_once_for_the_plate_and_once_a_round(job):
    finder = Finder(**{"the sea": (40, 80), "the whale": (8, 32)})
    with_segmenter(job, finder)
    words = {"source_objects": "the sea", "target_object": "the whale"}
    made = job.run(prompt=LEFT, **words, **KNOBS)
    assert made.ctx.figures["change_from"] == "segmenter"
    assert made.ctx.figures["source_from"] == "segmenter"
    assert finder.asked[0] == "the sea"
    assert set(finder.asked[1:]) == {"the whale"}
    assert 2 <= len(finder.asked) <= 7
    job.run(prompt=LEFT, **words, **KNOBS)
    assert len(finder.asked) <= 7


def test_a_segmenter_that_finds_nothing_leaves_the_plate_and_is_said(job):
    with_segmenter(job, Finder())
    made = job.run(prompt=LEFT, target_object="the whale", **KNOBS)
    assert made.layer("result")[1001][..., :3].tobytes() == job.sent["plate", 1001].tobytes()
    assert (
        "The segmenter finds no 'the whale' after round 1, so nothing of that round is kept."
        in made.ctx.warnings
    )


def test_a_segmenter_that_fails_ends_the_job_by_name(job):
    with_segmenter(job, Segmenter("false {frames} {words} {out}"))
    with pytest.raises(ToolFailed, match="'false' ended with 1"):
        job.run(prompt=LEFT, target_object="the whale", **KNOBS)


def test_a_segmenter_that_fails_on_the_plate_does_so_before_it_is_inverted(job, knowing):
    with_segmenter(job, Segmenter("false {frames} {words} {out}"))
    with pytest.raises(ToolFailed, match="'false' ended with 1"):
        job.run(prompt=LEFT, source_objects="sea", **KNOBS)
    assert knowing.forwards == 0


@pytest.mark.parametrize("words", [{"target_object": "the whale"}, {"source_objects": "sea"}])
def test_a_segmenter_that_is_nowhere_ends_the_job_before_anything_is_encoded(job, knowing, words):
    with_segmenter(job, Segmenter("/nowhere/find-it {frames} {words} {out}"))
    with pytest.raises(ToolFailed, match="'find-it' cannot be started"):
        job.run(prompt=LEFT, **words, **KNOBS)
    assert knowing.encoded == 0


def test_what_is_drawn_comes_before_a_segmenter(job):
    finder = Finder()
    with_segmenter(job, finder)
    job.add("target_matte", 1001, matte(0, 80), cover="still")
    job.run(prompt=LEFT, target_object="the whale", **KNOBS)
    assert finder.asked == []


@pytest.mark.parametrize(
    ("scope", "rates"),
    [("local", [0.7, 0.05]), ("global", [0.1, 0.05]), ("own rates", [0.5, 0.25])],
)
def test_a_scope_is_a_pair_of_keep_rates(job, knowing, scope, rates):
    made = job.run(prompt=LEFT, scope=scope, keep_inside=0.5, keep_outside=0.25, **KNOBS)
    assert made.ctx.figures["keep_rates"] == rates
    assert {keep for *_, keep in knowing.anchored} == {tuple(rates)}


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "kind", "words"),
    [
        ({"prompt": "  "}, BadKnob, "'prompt' is empty"),
        ({}, BadKnob, "'prompt' is empty"),
        ({"prompt": "x", "change_from": "target_matte"}, MissingInput, "not connected"),
        ({"prompt": "x", "change_from": "segmenter"}, BadKnob, "'target_object' does not say"),
        ({"prompt": "x", "continue_from": 7}, BadKnob, "there are 6 rounds"),
        ({"prompt": "x", "last_round": 7}, BadKnob, "'last_round' is 7, but there are 6 rounds"),
        ({"prompt": "x", "last_round": 2, "continue_from": 3}, BadKnob, "after round 2"),
        ({"prompt": "x", "target_object": "--out=/etc"}, BadKnob, "begin with a dash"),
    ],
)
def test_what_cannot_work_is_refused_from_the_header(job, knobs, kind, words):
    with pytest.raises(kind, match=words):
        check_request(SYSTEM, job.request(**knobs))


def test_a_matte_for_a_round_that_nobody_named_is_refused(job):
    job.add("continue_matte", 1001, matte(0, 80), cover="still")
    with pytest.raises(MissingInput, match="'continue_from' names no round"):
        check_request(SYSTEM, job.request(prompt=LEFT))


def test_a_segmenter_that_the_server_lacks_is_refused_before_anything_is_encoded(job, knowing):
    with pytest.raises(BadKnob, match="this server has none"):
        job.run(prompt=LEFT, change_from="segmenter", target_object="the whale", **KNOBS)
    assert knowing.encoded == 0


@pytest.mark.parametrize("name", ["source_matte", "target_matte"])
def test_an_empty_matte_is_refused_by_name_before_anything_is_encoded(job, knowing, name):
    job.add(name, 1001, np.zeros((96, 160, 1), np.float16), cover="still")
    with pytest.raises(BadMatte, match=f"'{name}' is empty on every frame"):
        job.run(prompt=LEFT, **KNOBS)
    assert knowing.encoded == 0


def test_a_scope_that_has_nothing_to_hold_is_said(job):
    (said,) = job.run(prompt=LEFT, scope="global", **KNOBS).ctx.warnings
    assert said.startswith("Knob 'scope' is not used, because nothing says what stands out")
    job.add("source_matte", 1001, matte(80, 160), cover="still")
    assert job.run(prompt=LEFT, scope="global", **KNOBS).ctx.warnings == []


def test_what_is_set_and_does_nothing_is_said(job):
    idle = {"keep_inside": 0.5, "negative_prompt": "x", "continue_seed": 3, "source_objects": "sea"}
    warned = job.run(prompt=LEFT, target_object="whale", **idle, **KNOBS).ctx.warnings
    assert warned == [
        "Knob 'keep_inside' is not used, because scope is local.",
        "Knob 'negative_prompt' is not used, because guidance is 1.",
        "Knob 'continue_seed' is not used, because continue_from is 0.",
        "Knob 'target_object' is not used, because the new content is found by difference.",
        "Knob 'source_objects' is not used, because this server has no segmenter.",
    ]
