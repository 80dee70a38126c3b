# SPDX-License-Identifier: Apache-2.0
"""The rounds of an edit: which steps, what each is given, and that it goes on from any round."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gencomp_protocol.errors import Cancelled
from gencomp_server.backbones import spec_named
from gencomp_server.engine.context import JobContext
from gencomp_server.engine.stages import StageStore
from gencomp_server.parts import editing
from gencomp_server.parts.editing import Edit, Source, compose, count_forwards, plan_rounds
from gencomp_server.parts.inversion import Inverted, timesteps_of
from gencomp_server.parts.rounds import anchored_timesteps
from gencomp_server.parts.schedule import DdimSchedule, signal_levels
from gencomp_server.parts.sourcekeys import spared
from gencomp_server.parts.windows import Window

SPEC = replace(spec_named("tiny-text-to-video"), window_frames=49, overlap_frames=16)
STEPS = 10
SHAPE = (1, 13, 2, 4, 4)


def some(seed, shape=SHAPE):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def words(value):
    return np.full((1, 2, 4), value, np.float32)


PLATE, MARKS = some(1), np.zeros((13, 4, 4), bool)
ONE_EDIT, OTHER_EDIT = Edit(words(1.0), words(0.0)), Edit(words(2.0), words(0.0), seed=5)


class Toy:
    """A model of one line, whose anchored half adds a share of the source. It keeps what it saw."""

    device, spec, batch, identity = torch.device("cpu"), SPEC, 1, "toy"

    def __init__(self, dies_at=math.inf):
        self.forwards, self.dies_at = 0, dies_at
        self.plain, self.anchored = [], []

    def spend(self, count):
        if self.forwards + count > self.dies_at:
            raise RuntimeError("the machine went down")
        self.forwards += count

    def predict(self, latents, timestep, text, condition):
        self.spend(1)
        self.plain.append((timestep, float(text[0, 0, 0])))
        return torch.sin(latents + text[0, 0, 0] + timestep / 1000)

    def predict_anchored(self, latents, timestep, text, *, source, marks, seed, **more):
        keys, place = more["keys"], (more["owner"], timestep)
        self.spend(1 if keys is not None and place in keys.held else 2)
        if keys is not None and timestep in keys.timesteps:
            keys.held[place] = ()
        self.anchored.append(
            {"t": timestep, "text": float(text[0, 0, 0]), "seed": seed, "marks": marks, **more}
        )
        self.anchored[-1]["source"] = source
        return torch.sin(latents + text[0, 0, 0]) + 0.1 * source + seed % 97 / 1000


class Knowing(Toy):
    """A model that knows the picture, and says what leads to it."""

    def __init__(self, picture):
        super().__init__()
        self.picture, self.levels = torch.from_numpy(picture), signal_levels()

    def predict(self, latents, timestep, text, condition):
        self.spend(1)
        level = self.levels[timestep]
        return (math.sqrt(level) * latents - self.picture) / math.sqrt(1 - level)

    def predict_anchored(self, latents, timestep, text, **more):
        return self.predict(latents, timestep, text, None)


@pytest.fixture
def new_context(tmp_path):
    """Return a maker of contexts; each name has a folder of stages of its own."""

    def make(model, name="one", *, seed=0, is_cancelled=lambda: False):
        store = StageStore(tmp_path / name)
        ctx = JobContext("job", "dynvfx", seed, "cpu", store, lambda said: None, is_cancelled)
        ctx.backbone = model
        return ctx

    return make


def source(steps=STEPS, shape=SHAPE):
    """The plate at every noise level: at timestep t every sample is t / 1000."""
    rising = tuple(sorted(timesteps_of(steps)))
    levels = [np.full(shape[1:], t / 1000, np.float16) for t in rising]
    return Source(Inverted(rising, np.stack(levels)), words(7.0), MARKS)


def run(ctx, one, composed=PLATE, edit=ONE_EDIT, **changed):
    given = {"backbone": "toy", "frames": 49, "steps": STEPS, "preset": "shipped", "guidance": 6.0}
    return editing.run_round(ctx, one, composed, source(), edit, **(given | changed))


def run_all(ctx, edit_of, *, last=6):
    """Run rounds 1 to ``last``; new content in one corner."""
    mask = np.zeros((13, 4, 4), bool)
    mask[:, :2, :2] = True
    composed = PLATE
    for one in plan_rounds("shipped", STEPS)[:last]:
        composed = compose(PLATE, run(ctx, one, composed, edit_of(one.number)), mask)
    return composed


@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_as_many_forwards_are_computed_as_were_announced(new_context, guidance):
    model = Toy()
    for one in plan_rounds("shipped", STEPS):
        run(new_context(model), one, guidance=guidance)
    assert model.forwards == count_forwards(plan_rounds("shipped", STEPS), 1, guidance)


# --- what a step is given ------------------------------------------------------------------------


def test_a_model_that_knows_the_picture_ends_with_it_from_any_round(new_context):
    picture = some(3)
    for one in plan_rounds("shipped", STEPS):
        made = run(new_context(Knowing(picture)), one)
        assert np.abs(made - picture).max() < 1e-4


def test_only_steps_above_the_threshold_see_the_source_at_their_own_noise_level(new_context):
    model = Toy()
    run(new_context(model), plan_rounds("shipped", STEPS)[0])
    assert [entry["t"] for entry in model.anchored] == [899, 799, 699]
    for entry in model.anchored:
        assert torch.all(entry["source"] == float(np.float16(entry["t"] / 1000)))


def test_the_paper_preset_has_anchors_at_the_noisiest_steps_too(new_context):
    model = Toy()
    one = plan_rounds("paper", 50)[0]
    made = source(50)
    editing.run_round(
        new_context(model), one, PLATE, made, ONE_EDIT,
        backbone="toy", frames=49, steps=50, preset="paper", guidance=1.0,
    )  # fmt: skip
    assert [entry["t"] for entry in model.anchored] == list(range(919, 600, -20))


def test_what_guidance_pulls_away_from_never_sees_an_anchor(new_context):
    model = Toy()
    run(new_context(model), plan_rounds("shipped", STEPS)[0])
    assert [t for t, text in model.plain if text == 0.0] == list(range(899, 0, -100))
    assert {entry["text"] for entry in model.anchored} == {1.0}


def test_the_source_is_read_with_words_of_its_own(new_context):
    model = Toy()
    run(new_context(model), plan_rounds("shipped", STEPS)[0])
    assert {float(entry["source_text"][0, 0, 0]) for entry in model.anchored} == {7.0}


def test_shares_of_anchors_come_from_the_scope_of_the_edit(new_context):
    assert editing.KEEP == {"local": (0.70, 0.05), "global": (0.10, 0.05)}
    model = Toy()
    run(new_context(model), plan_rounds("shipped", STEPS)[0], keep=editing.KEEP["global"])
    assert {entry["keep"] for entry in model.anchored} == {(0.10, 0.05)}


def test_anchors_are_drawn_anew_in_every_step(new_context):
    model = Toy()
    run(new_context(model), plan_rounds("shipped", STEPS)[0])
    assert len({entry["seed"] for entry in model.anchored}) == 3


def test_guidance_without_what_it_pulls_away_from_is_an_error(new_context):
    with pytest.raises(ValueError, match="pulls away from"):
        run(new_context(Toy()), plan_rounds("shipped", STEPS)[4], edit=Edit(words(1.0), None))


def test_beyond_a_window_each_window_sees_its_own_frames_of_source_and_marks(new_context):
    shape = (1, 22, 2, 4, 4)
    marks = np.zeros((22, 4, 4), bool)
    marks[9] = True
    long = source(shape=shape)
    model = Toy()
    editing.run_round(
        new_context(model), plan_rounds("shipped", STEPS)[1], some(4, shape),
        Source(long.inverted, long.text, marks), ONE_EDIT,
        backbone="toy", frames=85, steps=STEPS, preset="shipped", guidance=1.0,
    )  # fmt: skip
    found = [entry["marks"].any(dim=2).any(dim=1).nonzero().tolist() for entry in model.anchored]
    assert found == [[[9]], [[0]]]
    assert [entry["owner"] for entry in model.anchored] == ["0-13", "9-22"]


# --- from any round ------------------------------------------------------------------------------


def test_going_on_from_round_k_reruns_only_what_follows(new_context):
    run_all(new_context(Toy()), lambda number: ONE_EDIT)
    model = Toy()
    run_all(new_context(model), lambda number: OTHER_EDIT if number >= 4 else ONE_EDIT)
    assert model.forwards == count_forwards(plan_rounds("shipped", STEPS)[3:], 1, 6.0)
    assert {text for _, text in model.plain} == {0.0, 2.0}


def test_going_on_from_round_k_gives_the_bits_of_an_unbroken_run(new_context):
    def edit_of(number):
        return OTHER_EDIT if number >= 4 else ONE_EDIT

    run_all(new_context(Toy(), "broken"), lambda number: ONE_EDIT)
    continued = run_all(new_context(Toy(), "broken"), edit_of)
    unbroken = run_all(new_context(Toy(), "unbroken"), edit_of)
    assert np.array_equal(continued, unbroken)


@pytest.mark.parametrize(
    "edit", [Edit(words(2.0), words(0.0)), Edit(words(1.0), words(0.0), seed=1)]
)
def test_another_prompt_and_another_seed_are_each_another_edit(new_context, edit):
    one = plan_rounds("shipped", STEPS)[0]
    before = run(new_context(Toy()), one)
    assert not np.array_equal(before, run(new_context(Toy()), one, edit=edit))


def test_a_round_that_was_interrupted_goes_on_with_the_same_bits(new_context):
    one = plan_rounds("shipped", STEPS)[0]
    with pytest.raises(RuntimeError, match="went down"):
        run(new_context(Toy(dies_at=13), "broken"), one)
    model = Toy()
    continued = run(new_context(model, "broken"), one)
    assert model.forwards == 21 - 13
    assert np.array_equal(continued, run(new_context(Toy(), "unbroken"), one))


def test_a_cancelled_round_stops_before_its_next_forward(new_context):
    model = Toy()
    ctx = new_context(model, is_cancelled=lambda: model.forwards >= 5)
    with pytest.raises(Cancelled):
        run(ctx, plan_rounds("shipped", STEPS)[0])
    assert model.forwards == 5


def test_an_edit_that_adds_nothing_leaves_the_plates_latents_bit_for_bit():
    nothing = np.zeros((13, 4, 4), bool)
    assert np.array_equal(compose(PLATE, some(9), nothing), PLATE)


def test_inside_the_mask_the_edit_counts_and_outside_the_plate():
    mask = np.zeros((13, 4, 4), bool)
    mask[3, 1, 2] = True
    made = compose(PLATE, PLATE + 1, mask)
    assert np.array_equal(np.argwhere(made[0] != PLATE[0]), [[3, 0, 1, 2], [3, 1, 1, 2]])


# --- memory for the source's keys ----------------------------------------------------------------


def test_by_default_no_keys_are_kept(new_context):
    model = Toy()
    run(new_context(model), plan_rounds("shipped", STEPS)[0], keys=editing.source_keys())
    assert {entry["keys"] for entry in model.anchored} == {None}


def test_with_memory_for_them_keys_are_kept_where_more_than_one_round_asks(new_context):
    model, keys = Toy(), editing.source_keys()
    run(new_context(model), plan_rounds("shipped", STEPS)[0], keys=keys, cached_gb=1.0)
    assert keys.timesteps == {699.0}
    assert all(entry["keys"] is keys for entry in model.anchored)


def test_an_edit_with_kept_keys_computes_as_many_forwards_as_were_announced(new_context):
    model, keys, rounds = Toy(), editing.source_keys(), plan_rounds("shipped", STEPS)
    for one in rounds:
        run(new_context(model), one, keys=keys, cached_gb=1.0)
    saved = spared(anchored_timesteps("shipped", STEPS), keys.timesteps)
    assert saved == 1
    assert model.forwards == count_forwards(rounds, 1, 6.0, saved)


def test_a_round_begins_with_the_plate_under_the_noise_of_its_level():
    schedule, ones = DdimSchedule(50), torch.ones(1)
    begun = schedule.noised(ones, torch.zeros(1), 5)
    assert float(begun) == pytest.approx(math.sqrt(signal_levels()[899]), abs=1e-6)


def test_windows_of_the_toy_are_what_the_tests_take_them_for():
    from gencomp_server.parts.windows import job_windows

    assert job_windows(SPEC, 85) == (Window(0, 13), Window(9, 22))
