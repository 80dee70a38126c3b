# SPDX-License-Identifier: Apache-2.0
"""The one loop over timesteps: what it computes, how often, and that it can stop and go on."""

import contextlib
import math

import numpy as np
import pytest
import torch

from gencomp_protocol.errors import Cancelled
from gencomp_server.engine.context import JobContext
from gencomp_server.engine.stages import StageStore
from gencomp_server.parts.sampler import denoise, guided
from gencomp_server.parts.schedule import DdimSchedule, FlowSchedule
from gencomp_server.parts.windows import SHORT, Window, count_forwards, plan

FRAMES, CHANNELS, SIDE = 12, 4, 2
ONE_WINDOW = (Window(0, FRAMES),)
# 0-4, 3-7, 6-10 and 8-12.
FOUR_WINDOWS = plan(FRAMES, 4, 1, even=True)


class Toy:
    """A model of one line. It counts, and breaks off where it is told to.

    Args:
        placed: True where a frame's place in its window matters, as it does in a transformer.
        dies_at: Forward at which it raises.
    """

    device = torch.device("cpu")

    def __init__(self, *, placed=False, dies_at=math.inf):
        self.placed, self.dies_at = placed, dies_at
        self.forwards, self.batches, self.asked = 0, [], []

    def predict(self, latents, timestep, text, condition):
        if self.forwards + len(latents) > self.dies_at:
            raise RuntimeError("the machine went down")
        self.forwards += len(latents)
        self.batches.append(tuple(latents.shape[:2]))
        self.asked.append(timestep)
        pull = text[:, :1, :1, None, None] + condition[:, :, :1]
        place = torch.arange(latents.shape[1]).reshape(1, -1, 1, 1, 1) if self.placed else 0
        return torch.sin(latents * 2 + pull + timestep / 1000 + place)


class Echo(Toy):
    """Predicts its condition times its text, whatever the latents are."""

    def predict(self, latents, timestep, text, condition):
        self.forwards += len(latents)
        return condition * text[:, :1, :1, None, None]


class Bare:
    """A schedule whose step is the prediction."""

    timesteps = (999,)

    def step(self, prediction, index, latents):
        return prediction


class Ctx:
    """A context that keeps checkpoints in memory and can be cancelled after some checks."""

    def __init__(self, *, cancelled_after=math.inf):
        self.kept, self.said, self.checks, self.cancelled_after = {}, [], 0, cancelled_after

    def checkpoint(self, name, tensors=None):
        if tensors is None:
            return self.kept.get(name)
        self.kept[name] = {key: np.array(value) for key, value in tensors.items()}
        return None

    def progress(self, stage, step, total):
        self.check_cancelled()
        self.said.append((stage, step, total))

    def check_cancelled(self):
        self.checks += 1
        if self.checks > self.cancelled_after:
            raise Cancelled("The job was cancelled.")


def some(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def job(passes=2, **changed):
    """Arguments of denoise for so many passes, each with a condition of its own."""
    made = {
        "noise": some(1, passes, FRAMES, CHANNELS, SIDE, SIDE),
        "condition": some(2, passes, FRAMES, 5, SIDE, SIDE),
        "text": some(3, 1, 6, 8),
        "schedule": DdimSchedule(5),
        "windows": FOUR_WINDOWS,
        "ctx": Ctx(),
    }
    return made | changed


def guidance(**changed):
    return {"guidance": 3.0, "null_text": some(4, 1, 6, 8)} | changed


# --- what it computes ----------------------------------------------------------------------------


def test_one_window_is_the_schedules_own_loop():
    given = job(passes=1, windows=ONE_WINDOW)
    latents, model = given["noise"], Toy(placed=True)
    for index, timestep in enumerate(given["schedule"].timesteps):
        predicted = model.predict(latents, timestep, given["text"], given["condition"])
        latents = given["schedule"].step(predicted, index, latents)
    assert torch.equal(denoise(Toy(placed=True), **given), latents)


@pytest.mark.parametrize("schedule", [DdimSchedule(5), FlowSchedule(5, 5.0)])
def test_one_window_and_many_agree_bit_for_bit_where_frames_do_not_see_each_other(schedule):
    one = denoise(Toy(), **job(windows=ONE_WINDOW, schedule=schedule))
    many = denoise(Toy(), **job(windows=FOUR_WINDOWS, schedule=schedule))
    assert torch.equal(one, many)


def test_windows_are_stepped_and_then_blended_by_their_ramps():
    class Numbered(Toy):
        def predict(self, latents, timestep, text, condition):
            self.forwards += 1
            return torch.full_like(latents, float(self.forwards))

    windows = (Window(0, 8), Window(4, 12))
    given = job(passes=1, windows=windows, schedule=Bare())
    found = denoise(Numbered(), **given)[0, :, 0, 0, 0].tolist()
    assert found == pytest.approx([1] * 4 + [1.2, 1.4, 1.6, 1.8] + [2] * 4)


def test_a_window_is_given_its_own_frames_of_noise_and_condition():
    seen = []

    class Watch(Toy):
        def predict(self, latents, timestep, text, condition):
            seen.append((latents[0, :, 0, 0, 0].tolist(), condition[0, :, 0, 0, 0].tolist()))
            return latents

    line = torch.arange(FRAMES, dtype=torch.float32).reshape(1, -1, 1, 1, 1)
    noise = line.expand(1, -1, CHANNELS, SIDE, SIDE)
    condition = (line + 100).expand(1, -1, 5, SIDE, SIDE)
    denoise(Watch(), **job(passes=1, noise=noise, condition=condition, schedule=Bare()))
    assert [noisy[0] for noisy, _ in seen] == [0, 3, 6, 8]
    assert [beside[0] for _, beside in seen] == [100, 103, 106, 108]
    assert all(len(noisy) == 4 for noisy, _ in seen)


def test_each_pass_has_its_own_condition_and_may_share_the_text():
    given = job(passes=3, schedule=Bare(), text=torch.full((1, 1, 1), 2.0))
    given["condition"] = torch.arange(3.0).reshape(3, 1, 1, 1, 1).expand(3, FRAMES, 4, SIDE, SIDE)
    found = denoise(Echo(), **given)
    assert [found[at].unique().tolist() for at in range(3)] == [[0.0], [2.0], [4.0]]


def test_passes_may_have_texts_of_their_own_over_a_shared_condition():
    given = job(passes=3, schedule=Bare(), text=torch.arange(3.0).reshape(3, 1, 1))
    given["condition"] = torch.ones((1, FRAMES, CHANNELS, SIDE, SIDE))
    found = denoise(Echo(), **given)
    assert [found[at].unique().tolist() for at in range(3)] == [[0.0], [1.0], [2.0]]


def test_a_pass_has_the_same_bits_alone_and_beside_others():
    three = job(passes=3, **guidance())
    alone = dict(three, noise=three["noise"][1:2], condition=three["condition"][1:2], ctx=Ctx())
    assert torch.equal(denoise(Toy(), **three)[1:2], denoise(Toy(), **alone))


@pytest.mark.parametrize("batch", [2, 3, 4, 100])
def test_the_bits_do_not_depend_on_how_many_elements_go_through_at_once(batch):
    one, many = Toy(placed=True), Toy(placed=True)
    expected = denoise(one, **job(passes=3, **guidance(rescale=0.5)), batch=1)
    found = denoise(many, **job(passes=3, **guidance(rescale=0.5)), batch=batch)
    assert torch.equal(found, expected)
    assert max(size for size, _ in many.batches) <= batch
    assert len(many.batches) < len(one.batches)
    assert many.forwards == one.forwards


def test_windows_of_other_lengths_do_not_share_a_batch():
    windows = plan(FRAMES, 8, 2, even=True, last=SHORT)
    assert [len(one) for one in windows] == [8, 6]
    model = Toy()
    denoise(model, **job(passes=1, windows=windows, schedule=Bare()), batch=4)
    assert model.batches == [(1, 8), (1, 6)]


# --- guidance ------------------------------------------------------------------------------------


def test_guidance_pulls_away_from_the_null_prediction():
    condition = torch.full((1, FRAMES, CHANNELS, SIDE, SIDE), 2.0)
    given = job(passes=1, condition=condition, schedule=Bare(), text=torch.full((1, 1, 1), 5.0))
    null = torch.full((1, 1, 1), 1.0)
    found = denoise(Echo(), **given, guidance=3.0, null_text=null)
    # 2 + 3 * (10 - 2)
    assert found.unique().tolist() == [26.0]


def test_the_null_half_may_have_a_condition_of_its_own():
    one = torch.ones((1, 1, 1))
    condition = torch.full((1, FRAMES, CHANNELS, SIDE, SIDE), 2.0)
    given = job(passes=1, condition=condition, schedule=Bare(), text=one)
    zero = torch.zeros_like(condition)
    found = denoise(Echo(), **given, guidance=3.0, null_text=one, null_condition=zero)
    assert found.unique().tolist() == [6.0]


def test_guidance_of_one_computes_no_null_half_even_where_there_is_one():
    plain, given = Toy(), Toy()
    expected = denoise(plain, **job())
    found = denoise(given, **job(), guidance=1.0, null_text=some(4, 1, 6, 8))
    assert torch.equal(found, expected)
    assert given.forwards == plain.forwards


def test_full_rescale_gives_the_prediction_its_own_spread_back():
    prediction, null = some(5, 1, 4, 4, 8, 8), some(6, 1, 4, 4, 8, 8)
    found = guided(prediction, null, 6.0, 1.0)
    assert found.std().item() == pytest.approx(prediction.std().item(), rel=1e-5)
    pulled = guided(prediction, null, 6.0, 0.0)
    assert pulled.std() > 4 * prediction.std()
    assert torch.allclose(found / found.std(), pulled / pulled.std(), atol=1e-5)


def test_half_a_rescale_lies_in_the_middle():
    prediction, null = some(5, 1, 4, 4, 8, 8), some(6, 1, 4, 4, 8, 8)
    ends = [guided(prediction, null, 6.0, share) for share in (0.0, 1.0)]
    middle = guided(prediction, null, 6.0, 0.5)
    assert torch.allclose(middle, (ends[0] + ends[1]) / 2, atol=1e-5)


def test_a_prediction_without_spread_is_not_divided_by_it():
    flat = torch.full((1, 2, 2, 2, 2), 3.0)
    assert guided(flat, flat, 6.0, 1.0).unique().tolist() == [3.0]


# --- how often -----------------------------------------------------------------------------------


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("windows", [ONE_WINDOW, FOUR_WINDOWS])
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("batch", [1, 5])
def test_forwards_are_as_many_as_a_plan_says(passes, windows, scale, batch):
    model = Toy()
    given = job(passes=passes, windows=windows, **guidance(guidance=scale))
    denoise(model, **given, batch=batch)
    assert model.forwards == count_forwards(passes, windows, 5, scale)
    assert set(model.asked) == set(given["schedule"].timesteps)


def test_every_step_is_told():
    given = job()
    denoise(Toy(), **given, name="solo")
    assert given["ctx"].said == [("solo", step, 5) for step in range(6)]


# --- stopping and going on -----------------------------------------------------------------------


@pytest.mark.fault("F27")
@pytest.mark.parametrize("checks", [0, 1, 4, 9])
def test_a_cancel_is_heard_before_the_next_forward(checks):
    model, ctx = Toy(), Ctx(cancelled_after=checks)
    with pytest.raises(Cancelled):
        denoise(model, **job(passes=1, ctx=ctx))
    # One check and its progress at the start, then one for each forward and one for each step.
    assert model.forwards <= checks
    steps_done = model.forwards // len(FOUR_WINDOWS)
    kept = ctx.kept.get("sample")
    assert (int(kept["step"]) if kept else 0) == steps_done


class Bench:
    """Stages on disk, and a job that samples in one of them."""

    def __init__(self, folder):
        self.store = StageStore(folder)

    def sample(self, model, batch=1):
        ctx = JobContext("job", "omnimatte", 0, "cpu", self.store, lambda _: None, lambda: False)

        def stage(ctx):
            made = denoise(model, **job(passes=2, ctx=ctx, **guidance()), batch=batch)
            return made.numpy()

        return ctx.stage("sample", stage)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "stages")


@pytest.mark.fault("F32")
@pytest.mark.fault("F41")
@pytest.mark.parametrize("dies_at", [0, 15, 16, 40, 79])
def test_a_job_that_was_killed_goes_on_from_its_last_step_with_the_same_bits(
    bench, tmp_path, dies_at
):
    unbroken = Bench(tmp_path / "other").sample(Toy(placed=True))
    with pytest.raises(RuntimeError, match="went down"):
        bench.sample(Toy(placed=True, dies_at=dies_at))
    survivor = Toy(placed=True)
    assert np.array_equal(bench.sample(survivor), unbroken)
    # A step is two passes in four windows under both halves.
    assert survivor.forwards == (5 - dies_at // 16) * 16


def test_a_job_that_was_killed_after_its_last_step_computes_nothing_again():
    ctx = Ctx()
    expected = denoise(Toy(), **job(ctx=ctx))
    again = Toy()
    assert torch.equal(denoise(again, **job(ctx=ctx)), expected)
    assert again.forwards == 0


def test_two_samplings_in_a_stage_have_checkpoints_of_their_own():
    ctx = Ctx()
    denoise(Toy(), **job(ctx=ctx), name="first")
    second = Toy()
    denoise(second, **job(ctx=ctx), name="second")
    assert second.forwards > 0
    assert set(ctx.kept) == {"first", "second"}


def test_what_was_given_is_not_changed():
    given = job(**guidance())
    before = {key: value.clone() for key, value in given.items() if torch.is_tensor(value)}
    denoise(Toy(), **given)
    assert all(torch.equal(given[key], value) for key, value in before.items())


# --- steps that are reused ------------------------------------------------------------------------


class Reuser(Toy):
    """A model that hands over from step to step, and notes to whom."""

    reuses_steps = True

    def __init__(self):
        super().__init__()
        self.scopes, self.inside, self.released_at = [], 0, []

    def release(self):
        self.released_at.append(self.forwards)

    @contextlib.contextmanager
    def cache_scope(self, owner, step):
        self.scopes.append((owner, step))
        self.inside += 1
        yield
        self.inside -= 1

    def predict(self, latents, timestep, text, condition):
        assert self.inside == 1
        return super().predict(latents, timestep, text, condition)


def test_a_model_that_reuses_steps_is_told_whose_each_forward_is():
    model = Reuser()
    denoise(model, **job(passes=2, windows=(Window(0, 8), Window(4, 12)), **guidance()), batch=4)
    assert {size for size, _ in model.batches} == {1}
    first_step = [owner for owner, step in model.scopes if step == 0]
    assert first_step == [
        "0-8 0 prompt",
        "0-8 0 null",
        "0-8 1 prompt",
        "0-8 1 null",
        "4-12 0 prompt",
        "4-12 0 null",
        "4-12 1 prompt",
        "4-12 1 null",
    ]
    assert model.scopes == [(owner, step) for step in range(5) for owner in first_step]


def test_after_the_last_step_what_steps_left_behind_is_dropped():
    model = Reuser()
    denoise(model, **job())
    assert model.released_at == [model.forwards]


def test_a_model_that_reuses_steps_starts_afresh_after_an_interruption():
    ctx = Ctx()
    first, second = Reuser(), Reuser()
    expected = denoise(first, **job(ctx=ctx))
    assert ctx.kept == {}
    assert torch.equal(denoise(second, **job(ctx=ctx)), expected)
    assert second.forwards == first.forwards


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "about"),
    [
        ({"guidance": math.nan, "null_text": some(4, 1, 6, 8)}, "guidance is a number"),
        ({"guidance": math.inf, "null_text": some(4, 1, 6, 8)}, "guidance is a number"),
        ({"guidance": 2.0}, "needs the text"),
        ({"batch": 0}, "batch 0"),
        ({"rescale": 1.5}, "rescale 1.5"),
        ({"rescale": math.nan}, "rescale nan"),
        ({"text": some(3, 3, 6, 8)}, "2 passes, 3 texts"),
        ({"condition": some(2, 2, FRAMES - 1, 5, SIDE, SIDE)}, "beside noise"),
        ({"condition": some(2, 2, FRAMES, 5, SIDE, SIDE + 1)}, "beside noise"),
        ({"windows": (Window(0, 4),)}, "12 latent frames"),
        ({"windows": (Window(0, 4), Window(6, 12))}, "do not cover"),
    ],
)
def test_what_does_not_fit_together_is_refused(changed, about):
    with pytest.raises(ValueError, match=about):
        denoise(Toy(), **job(**changed))


def test_a_checkpoint_of_another_shape_is_refused():
    ctx = Ctx()
    ctx.kept["sample"] = {"latents": np.zeros((1, 2, 3, 4, 5), np.float32), "step": np.array(1)}
    with pytest.raises(ValueError, match="the checkpoint 'sample'"):
        denoise(Toy(), **job(ctx=ctx))
