# SPDX-License-Identifier: Apache-2.0
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from gencomp_protocol.errors import (
    BadKnob,
    Cancelled,
    DiskFull,
    InternalError,
    MissingInput,
    WeightsRefused,
)
from gencomp_server.training.procedural import ProceduralClips, ProceduralSet
from gencomp_server.training.recipes import RECIPES
from gencomp_server.training.runlog import read_log
from gencomp_server.training.settings import Optimiser, TrainSettings

from .conftest import FRAMES, SIZE

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from safetensors.torch import load_file  # noqa: E402

from gencomp_server.models import lora  # noqa: E402
from gencomp_server.models.trainable import Trainable  # noqa: E402
from gencomp_server.training import checkpoint  # noqa: E402
from gencomp_server.training.export import write_weights  # noqa: E402
from gencomp_server.training.loop import train  # noqa: E402

QUICK = Optimiser(lr=4e-3, warmup=2, weight_decay=0.01, clip_norm=1.0)
SHORT = TrainSettings(4, FRAMES, SIZE, QUICK, average=0.9, whole=True, save_every=2)
OVER = RECIPES["overplusplus"]


@pytest.fixture(scope="module")
def unbroken(tiny_of, clips, tmp_path_factory):
    """Return the folder of a training of four steps."""
    out = tmp_path_factory.mktemp("unbroken")
    train(OVER, clips, tiny_of("overplusplus"), SHORT, out)
    return out


def halt_after(steps):
    """Return what says stop after so many steps."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) >= steps


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def test_a_training_that_went_on_has_the_bits_of_an_unbroken_one(
    unbroken, tiny_of, clips, tmp_path
):
    with pytest.raises(Cancelled, match="after step 3"):
        train(OVER, clips, tiny_of("overplusplus"), SHORT, tmp_path, stopped=halt_after(3))
    again = ProceduralClips(clips.made)  # as a new process would have it
    outcome = train(OVER, again, tiny_of("overplusplus"), SHORT, tmp_path, resume=True)
    last = "checkpoints/step-00000004"
    assert set(files_of(unbroken / last)) == {
        "weights.safetensors",
        "optimiser.safetensors",
        "average.safetensors",
    }
    assert files_of(tmp_path / last) == files_of(unbroken / last)
    assert files_of(tmp_path / "weights") == files_of(unbroken / "weights")
    assert [e["loss"] for e in read_log(tmp_path) if e["event"] == "step"] == [
        e["loss"] for e in read_log(unbroken) if e["event"] == "step"
    ]
    assert outcome.first == read_log(unbroken)[0]["loss"]


def test_a_training_that_lacks_only_its_weights_writes_them(unbroken, tiny_of, clips, tmp_path):
    shutil.copytree(unbroken, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "weights")
    outcome = train(OVER, clips, tiny_of("overplusplus"), SHORT, tmp_path / "out", resume=True)
    assert files_of(tmp_path / "out/weights") == files_of(unbroken / "weights")
    assert outcome.last == read_log(unbroken)[-1]["loss"]


def test_a_gradient_that_is_not_finite_ends_the_training_before_it_is_kept(
    tiny_of, clips, tmp_path, monkeypatch
):
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *given: torch.tensor(torch.inf))
    every = replace(SHORT, save_every=1)
    with pytest.raises(InternalError, match="step 1 or its gradient is not finite"):
        train(OVER, clips, tiny_of("overplusplus"), every, tmp_path)
    assert checkpoint.checkpoints(tmp_path / "checkpoints") == []


def test_the_log_tells_of_every_step_and_of_the_fixed_set(unbroken):
    log = read_log(unbroken)
    steps = [event for event in log if event["event"] == "step"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4]
    assert [event["lr"] for event in steps] == [2e-3, 4e-3, 4e-3, 4e-3]
    assert [event["step"] for event in log if event["event"] == "validation"] == [0, 4]


def test_the_weights_are_loaded_strictly_into_the_same_model(unbroken, tiny_of):
    from gencomp_server.models.loading import load_into

    backbone = tiny_of("overplusplus")
    before = {name: one.clone() for name, one in backbone.network.state_dict().items()}
    file = unbroken / "weights" / "diffusion_pytorch_model.safetensors"
    cpu = torch.device("cpu")
    load_into(backbone.network, file, title="tiny", device=cpu, dtype=torch.float32)
    average = load_file(unbroken / "checkpoints/step-00000004/average.safetensors")
    after = backbone.network.state_dict()
    assert all(torch.equal(after[name], one) for name, one in average.items())
    assert not all(torch.equal(after[name], one) for name, one in before.items())


def test_with_the_recipes_parts_only_the_blocks_learn(tiny_of, clips, tmp_path):
    settings = replace(SHORT, steps=1, whole=False, average=0.0)
    train(OVER, clips, tiny_of("overplusplus"), settings, tmp_path)
    learnt = load_file(tmp_path / "checkpoints/step-00000001/weights.safetensors")
    assert all(name.startswith("transformer_blocks.") for name in learnt)
    after = load_file(tmp_path / "weights/diffusion_pytorch_model.safetensors")
    before = tiny_of("overplusplus").network.state_dict()
    moved = {name for name, one in after.items() if not torch.equal(one, before[name])}
    assert moved == set(learnt)


@pytest.mark.slow
def test_two_forwards_of_one_clip_are_one_forward_of_two(tiny_of, clips, tmp_path):
    steps = []
    for name, batch, accumulate in (("together", 2, 1), ("apart", 1, 2)):
        settings = replace(SHORT, steps=1, batch=batch, accumulate=accumulate)
        train(OVER, clips, tiny_of("overplusplus"), settings, tmp_path / name)
        steps.append(read_log(tmp_path / name)[1])
    together, apart = steps
    assert together["loss"] == pytest.approx(apart["loss"], rel=1e-5)
    assert together["norm"] == pytest.approx(apart["norm"], rel=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param("gencompositor", marks=pytest.mark.slow), "splitthenmerge"]
)
def test_a_lora_is_what_the_reader_merges_to_the_trained_weights(name, tiny_of, paired, tmp_path):
    settings = replace(SHORT, steps=2, lora=4, average=0.0)
    backbone = tiny_of(name)
    outcome = train(RECIPES[name], paired, backbone, settings, tmp_path)
    factors = load_file(outcome.weights[0])
    fresh = tiny_of(name)
    state = {key: one.clone() for key, one in fresh.network.state_dict().items()}
    merged = lora.merge(state, factors, source="trained")
    changed = {key for key, one in merged.items() if not torch.equal(one, state[key])}
    assert changed
    assert all(".attn1.to_" in key for key in changed)
    assert all(one.shape[0] == 4 for key, one in factors.items() if key.endswith("lora_A.weight"))
    channels = fresh.spec.architecture.condition_channels
    fresh.network.load_state_dict(merged)
    rng = torch.Generator().manual_seed(1)
    given = (
        torch.randn(1, 2, 16, 4, 6, generator=rng),
        500,
        fresh.text(""),
        torch.rand(1, 2, channels, 4, 6, generator=rng).round(),
    )
    assert torch.allclose(fresh.predict(*given), backbone.predict(*given), atol=2e-5)


def test_gencompositors_weights_lie_in_the_folders_of_its_set(tiny_of, tmp_path):
    backbone = tiny_of("gencompositor")
    written = write_weights(Trainable(backbone), {}, backbone.spec, tmp_path)
    name = "diffusion_pytorch_model.safetensors"
    places = [path.relative_to(tmp_path / "weights").as_posix() for path in written]
    folders = ("transformer", "branch")
    assert places == [f"{one}/{file}" for file in (name, "config.json") for one in folders]
    own = backbone.network
    for path, part in zip(written[:2], (own.main, own.branch), strict=True):
        held, wanted = load_file(path), part.state_dict()
        assert set(held) == set(wanted)
        assert all(torch.equal(held[key], one) for key, one in wanted.items())


def test_a_grid_shows_what_was_given_wanted_and_made(tiny_of, clips, tmp_path):
    import cv2

    settings = replace(SHORT, steps=1, grid_every=1, grid_clips=1, grid_steps=2)
    train(OVER, clips, tiny_of("overplusplus"), settings, tmp_path)
    found = sorted(path.name for path in (tmp_path / "grids").iterdir())
    assert found == ["step-00000000.png", "step-00000001.png"]
    grid = cv2.imread(str(tmp_path / "grids" / found[0]))
    # Four rows (shown, asked, target, made) of three frames four times as large, and labels.
    assert grid.shape == (4 * (32 * 4 + 14) + 8, 3 * 48 * 4 + 2 * 4, 3)


def test_the_average_follows_slowly_and_faster_at_first():
    weights = {"w": torch.nn.Parameter(torch.zeros(1))}
    average = checkpoint.Average(weights, 0.5)
    with torch.no_grad():
        weights["w"].fill_(1.0)
    average.update(weights, 0)  # decay 1/10
    assert float(average.held["w"]) == pytest.approx(0.9)
    average.update(weights, 1000)  # decay 0.5
    assert float(average.held["w"]) == pytest.approx(0.95)
    with average.in_place(weights):
        assert weights["w"].item() == pytest.approx(0.95)
    assert weights["w"].item() == 1.0


def test_only_the_latest_checkpoints_are_left(tmp_path):
    weights = {"w": torch.nn.Parameter(torch.zeros(1))}
    state = checkpoint.State(weights, torch.optim.AdamW(weights.values()), None)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, state, step, {}, keep=2)
    found = [path.name for path in checkpoint.checkpoints(tmp_path)]
    assert found == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize(
    ("change", "knob"),
    [
        ({"seed": 5}, "seed"),
        ({"batch": 2}, "batch"),
        ({"optimiser": replace(QUICK, lr=1.0)}, "lr"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(change, knob, unbroken, tiny_of, clips):
    settings = replace(SHORT, **change)
    with pytest.raises(BadKnob, match="of another training") as caught:
        train(OVER, clips, tiny_of("overplusplus"), settings, unbroken, resume=True)
    assert caught.value.details["knob"] == knob


def test_other_clips_are_another_training(unbroken, tiny_of):
    others = ProceduralClips(ProceduralSet(1, SIZE, FRAMES, seed=9))
    with pytest.raises(BadKnob, match="its clips"):
        train(OVER, others, tiny_of("overplusplus"), SHORT, unbroken, resume=True)


def test_more_steps_of_a_constant_rate_are_the_same_training():
    assert replace(SHORT, steps=9).belongs() == SHORT.belongs()
    cosine = replace(SHORT, optimiser=replace(QUICK, schedule="cosine"))
    assert replace(cosine, steps=9).belongs() != cosine.belongs()


def test_a_folder_that_holds_a_training_is_not_written_over(unbroken, tiny_of, clips):
    with pytest.raises(BadKnob, match="a training in"):
        train(OVER, clips, tiny_of("overplusplus"), SHORT, unbroken)


def test_there_must_be_a_checkpoint_to_go_on_from(tiny_of, clips, tmp_path):
    with pytest.raises(MissingInput, match="no checkpoint"):
        train(OVER, clips, tiny_of("overplusplus"), SHORT, tmp_path, resume=True)


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors"])
def test_a_damaged_checkpoint_is_refused_by_name(name, unbroken, tmp_path):
    shutil.copytree(unbroken / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints/step-00000004" / name).write_bytes(b"{]")
    weights = {"w": torch.nn.Parameter(torch.zeros(1))}
    state = checkpoint.State(weights, torch.optim.AdamW(weights.values()), None)
    with pytest.raises(WeightsRefused, match="step-00000004"):
        checkpoint.load(tmp_path / "checkpoints", state, {})


def test_a_full_disk_is_said_and_leaves_no_half(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    weights = {"w": torch.nn.Parameter(torch.zeros(1))}
    state = checkpoint.State(weights, torch.optim.AdamW(weights.values()), None)
    with pytest.raises(DiskFull, match="step-00000007"):
        checkpoint.save(tmp_path, state, 7, {}, keep=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": 9}, "frames = 9"),
        ({"steps": 0}, "steps = 0"),
        ({"keep": 0}, "keep = 0"),
        ({"drop_text": 3.0}, "drop_text = 3.0"),
        ({"optimiser": replace(QUICK, lr=-1.0)}, "lr = -1.0"),
        ({"optimiser": replace(QUICK, lr=np.nan)}, "lr = nan"),
        ({"optimiser": replace(QUICK, warmup=-1)}, "warmup = -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, words):
    with pytest.raises(BadKnob, match=words):
        replace(SHORT, **change).check(even_latents=True)


def test_nine_frames_serve_a_model_that_takes_single_latent_frames():
    replace(SHORT, frames=9).check(even_latents=False)


def test_a_log_with_a_line_that_was_cut_off_is_read_up_to_it(tmp_path):
    whole = json.dumps({"event": "step", "step": 1})
    (tmp_path / "log.jsonl").write_text(f'{whole}\n{{"event": "st')
    assert read_log(tmp_path) == [{"event": "step", "step": 1}]


# --- slow: every recipe learns eight clips by heart ----------------------------------------------

STEPS = {"overplusplus": 400, "casper": 500, "gencompositor": 600, "splitthenmerge": 400}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_learns_eight_clips_by_heart(name, tiny_of, tmp_path):
    recipe = RECIPES[name]
    unpaired = 2 if name == "overplusplus" else 0
    eight = ProceduralClips(ProceduralSet(8, SIZE, FRAMES, unpaired=unpaired))
    quick = replace(recipe.optimiser, lr=4e-3, warmup=10, clip_norm=1.0, weight_decay=0.0)
    settings = replace(
        SHORT, steps=STEPS[name], optimiser=quick, batch=2, average=0.99, save_every=10**6
    )
    outcome = train(recipe, eight, tiny_of(name), settings, tmp_path)
    assert outcome.last < outcome.first / 3, (outcome.first, outcome.last)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["casper", "gencompositor", "splitthenmerge"])
@pytest.mark.parametrize("rank", [0, 4])
def test_every_recipe_goes_on_with_the_same_bits(name, rank, tiny_of, paired, tmp_path):
    recipe, settings = RECIPES[name], replace(SHORT, lora=rank, batch=2, accumulate=2)
    train(recipe, paired, tiny_of(name), settings, tmp_path / "unbroken")
    with pytest.raises(Cancelled):
        train(recipe, paired, tiny_of(name), settings, tmp_path / "broken", stopped=halt_after(2))
    train(recipe, paired, tiny_of(name), settings, tmp_path / "broken", resume=True)
    last = "checkpoints/step-00000004"
    assert files_of(tmp_path / "broken" / last) == files_of(tmp_path / "unbroken" / last)
    assert files_of(tmp_path / "broken/weights") == files_of(tmp_path / "unbroken/weights")
    assert np.isfinite(read_log(tmp_path / "broken")[-1]["loss"])
