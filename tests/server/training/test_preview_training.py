# SPDX-License-Identifier: Apache-2.0
"""The preview's training: it learns, and goes on where it stopped with the same bits."""

import json
import subprocess
import sys

import pytest
import torch

from gencomp_server.models.preview_network import PreviewConfig, read_network
from gencomp_server.training import preview_training
from gencomp_server.training.preview_feed import Chunk
from gencomp_server.training.preview_training import (
    PreviewSettings,
    export,
    load_state,
    loss_of,
    signal_of,
    train_step,
)

SMALL = PreviewConfig(widths=(8, 8, 8), heads=1, layers=1, time=8, text=16)
SETTINGS = PreviewSettings(steps=40, rate=3e-3, rise=2, fall=0.3, config=SMALL)
MOST_BYTES = 16_000_000
OTHERS = ("cv2", "zmq", "msgpack", "OpenEXR", "OpenImageIO", "PyOpenColorIO")


@pytest.fixture
def chunk():
    draws = torch.Generator().manual_seed(1)
    conditions = torch.rand(2, 2, 16, 16, 13, generator=draws) - 0.5
    conditions[..., 3:6] = conditions[..., :3]
    return Chunk(conditions, conditions[..., :3] * 0.5, (("remove",), ("add", "shadow")))


def weights(state):
    return torch.cat([one.detach().flatten() for one in state.network.parameters()])


def test_it_learns(tmp_path, chunk):
    state = load_state(SETTINGS, tmp_path)
    losses = [train_step(state, SETTINGS, chunk) for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]


def test_it_goes_on_with_the_same_bits(tmp_path, chunk):
    state = load_state(SETTINGS, tmp_path)
    for _ in range(3):
        train_step(state, SETTINGS, chunk)
    preview_training._save(state, SETTINGS, tmp_path)
    whole = [train_step(state, SETTINGS, chunk) for _ in range(3)]
    later = load_state(SETTINGS, tmp_path)
    assert later.step == 3
    assert [train_step(later, SETTINGS, chunk) for _ in range(3)] == whole
    assert torch.equal(weights(later), weights(state))
    assert all(torch.equal(one, state.average[name]) for name, one in later.average.items())


def test_files_of_a_checkpoint_are_small_enough_to_carry(tmp_path, chunk):
    settings = PreviewSettings()
    state = load_state(settings, tmp_path)
    train_step(state, settings, chunk)
    preview_training._save(state, settings, tmp_path)
    sizes = [file.stat().st_size for file in (tmp_path / "checkpoint").iterdir()]
    assert len(sizes) == 5
    assert max(sizes) < MOST_BYTES
    assert sum(sizes) < 60_000_000


def test_a_checkpoint_of_another_training_is_refused(tmp_path, chunk):
    state = load_state(SETTINGS, tmp_path)
    train_step(state, SETTINGS, chunk)
    preview_training._save(state, SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="another training"):
        load_state(PreviewSettings(steps=40, rate=1e-3, rise=2, config=SMALL), tmp_path)
    assert load_state(PreviewSettings(steps=80, rate=3e-3, rise=2, config=SMALL), tmp_path).step


@pytest.mark.parametrize("left", ["checkpoint.new", "checkpoint.old"])
def test_a_kill_between_two_renames_loses_nothing(tmp_path, chunk, left):
    state = load_state(SETTINGS, tmp_path)
    train_step(state, SETTINGS, chunk)
    preview_training._save(state, SETTINGS, tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / left)
    assert load_state(SETTINGS, tmp_path).step == 1


def test_a_checkpoint_that_is_half_written_is_not_taken(tmp_path, chunk):
    state = load_state(SETTINGS, tmp_path)
    train_step(state, SETTINGS, chunk)
    preview_training._save(state, SETTINGS, tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.new")
    (tmp_path / "checkpoint.new" / "state.json").unlink()
    assert load_state(SETTINGS, tmp_path).step == 0


def test_what_is_written_is_the_average_in_halves(tmp_path, chunk):
    state = load_state(SETTINGS, tmp_path)
    train_step(state, SETTINGS, chunk)
    export(state, SETTINGS, tmp_path / "one.safetensors")
    found = dict(read_network(tmp_path / "one.safetensors").named_parameters())
    assert all(torch.equal(found[n], one.half().float()) for n, one in state.average.items())


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.5), (1, 1.0), (27, 1.0), (34, 0.5), (39, 1 / 12), (40, 0.01)]
)
def test_the_learning_rate_rises_stays_and_falls(step, share):
    assert SETTINGS.rate_at(step) == pytest.approx(SETTINGS.rate * share)


def test_a_changed_pixel_counts_as_often_as_it_is_told():
    plate = torch.zeros(1, 1, 1, 2, 3)
    target = plate.clone()
    target[..., 0, :] = 0.5
    right, wrong = target.clone(), target.clone()
    right[..., 1, :] += 0.3
    wrong[..., 0, :] -= 0.3
    ratio = loss_of(wrong, target, plate, plate, 6.0) / loss_of(right, target, plate, plate, 6.0)
    assert 4.0 < float(ratio) < 9.0


def test_the_last_timestep_is_noise_alone():
    assert signal_of(torch.tensor([999])).tolist() == [0.0]
    assert 0.998 < float(signal_of(torch.tensor([0]))) < 1


def test_steps_after_a_checkpoint_are_forgotten_by_the_log(tmp_path):
    events = [{"event": "step", "step": step, "loss": 0.1} for step in (50, 100, 150)]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(one) + "\n" for one in events), encoding="utf-8")
    preview_training._cut_log(tmp_path, 100)
    assert [one["step"] for one in preview_training.read_log(tmp_path)] == [50, 100]


def test_a_machine_with_torch_and_diffusers_is_enough():
    code = "import sys, gencomp_server.training.preview_training, "
    code += "gencomp_server.training.preview_shots; "
    code += f"print(*[name for name in {OTHERS!r} if name in sys.modules])"
    paths = f"import sys; sys.path[:0] = {sys.path!r}; "
    done = subprocess.run(
        [sys.executable, "-c", paths + code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1:] in ([], [""])
