# SPDX-License-Identifier: Apache-2.0
"""The published method against vectors made by the published code."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from gencomp_server.parts import paper_alpha

FOLDER = Path(
    os.environ.get("GENCOMP_REFERENCE_VECTORS")
    or Path(__file__).parents[2] / "vectors" / "reference"
)
FILE = FOLDER / "e_omnimatte_stage2.safetensors"
# Two float32 implementations on two machines: what the vectors' README states.
TOLERANCE = 1e-5
TRAIN_STEPS = 3
# The vectors' names of the losses, and ours.
LOSSES = {
    "total": "total",
    "recon": "reconstruction",
    "alpha_reg_l0": "sparsity_l0",
    "alpha_reg_l1": "sparsity_l1",
    "mask_super": "mask",
    "mask_super_1s": "inside",
}


class Reference:
    def __init__(self) -> None:
        self.tensors = load_file(FILE)
        with safe_open(FILE, "pt") as file:
            metadata = file.metadata()
        self.nf = int(metadata["nf"])
        self.rows = json.loads(metadata["loss_rows"])
        self.batch = tuple(self.tensors[name] for name in ("in.XY", "in.Y", "in.mask"))

    def net(self) -> paper_alpha.AlphaNet:
        made = paper_alpha.AlphaNet(self.nf)
        weights = {k[4:]: v for k, v in self.tensors.items() if k.startswith("net.")}
        made.load_state_dict(weights)
        return made


@pytest.fixture(scope="module")
def reference():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Reference()
    torch.set_num_threads(threads)


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).detach().abs().max())


def test_the_network_in_eval_mode_gives_the_reference_answer(reference):
    net = reference.net().eval()
    with torch.no_grad():
        answer = net(*reference.batch[:2])
    assert worst(answer, reference.tensors["out.unet_eval"]) <= TOLERANCE


def test_the_network_in_training_mode_gives_the_reference_answer(reference):
    net = reference.net().train()
    with torch.no_grad():
        answer = net(*reference.batch[:2])
    assert worst(answer, reference.tensors["out.unet_train"]) <= TOLERANCE


@pytest.mark.parametrize("step", [0, 1000, 1001])
def test_every_loss_has_the_reference_value(reference, step):
    row = reference.rows[str(step)]
    answer = reference.tensors["out.unet_train"]
    found = paper_alpha.losses(answer, *reference.batch, step=step)
    wanted = {LOSSES[key]: value for key, value in row.items() if key != "weights"}
    assert {name: float(getattr(found, name)) for name in wanted} == pytest.approx(
        wanted, abs=TOLERANCE
    )


@pytest.mark.parametrize("step", [0, 1000, 1001])
def test_every_weight_has_the_reference_value(reference, step):
    row = reference.rows[str(step)]["weights"]
    found = paper_alpha.weights_at(step, reference.batch[2])
    assert found.reconstruction == row["recon"]
    assert found.sparsity_l0 == pytest.approx(row["alpha_reg_l0"], abs=TOLERANCE)
    assert found.sparsity_l1 == pytest.approx(row["alpha_reg_l1"], abs=TOLERANCE)
    assert found.mask == row["mask_super"]
    assert found.inside == row["mask_super_1s"]


def test_the_mask_term_lets_go_at_its_step(reference):
    mask = reference.batch[2]
    release = paper_alpha.MASK_RELEASE_STEP
    assert paper_alpha.weights_at(release - 1, mask).mask == 10.0
    assert paper_alpha.weights_at(release, mask).mask == 0.0


def test_training_goes_through_the_reference_losses(reference):
    history = paper_alpha.train(reference.net(), *reference.batch, steps=TRAIN_STEPS)
    wanted = reference.rows["train_losses_first_3_steps"]
    assert history == pytest.approx(wanted, abs=TOLERANCE)


def test_after_training_all_but_the_idle_biases_is_the_reference(reference):
    # A bias in front of a normalisation has no gradient but rounding noise, which AdamW blows up
    # (README of the vectors): solve for those biases by Gauss-Newton, ask for all the rest.
    net = reference.net()
    paper_alpha.train(net, *reference.batch, steps=TRAIN_STEPS)
    net = net.double().eval()
    batch = [x.double() for x in reference.batch[:2]]
    wanted = reference.tensors["out.unet_eval_after_3_steps"].double()
    idle = [b.conv.bias for b in [*net.encoder, *net.decoder] if b.normalised]
    start = [b.detach().clone() for b in idle]
    with torch.no_grad():
        for _ in range(4):
            move = solved(net, batch, idle, wanted - net(*batch))
            for bias, part in zip(idle, move.split([len(b) for b in idle]), strict=True):
                bias += part
        answer = net(*batch)
    moved = max(worst(a, b) for a, b in zip(idle, start, strict=True))
    assert worst(answer, wanted) <= TOLERANCE
    assert moved <= 2 * TRAIN_STEPS * paper_alpha.LEARNING_RATE


def solved(net, batch, biases, rest, step=1e-8, ridge=1e-4):
    """Return the least move of the biases that answers for ``rest``: [n] float64."""
    base, columns = net(*batch), []
    for bias in biases:
        for i in range(len(bias)):
            bias[i] += step
            columns.append((net(*batch) - base).flatten() / step)
            bias[i] -= step
    slopes = torch.stack(columns, 1)
    kept = ridge * torch.eye(slopes.shape[1], dtype=slopes.dtype)  # some moves show nowhere
    target = torch.cat([rest.flatten(), torch.zeros(len(kept), dtype=slopes.dtype)])
    return torch.linalg.lstsq(torch.cat([slopes, kept]), target).solution


def test_transmission_is_the_reference(reference):
    alphas = reference.tensors["in.layers_front_to_back"][:, :, 3:]
    found = paper_alpha.transmission(alphas)
    assert worst(found, reference.tensors["out.transmission"]) <= TOLERANCE


def test_the_composite_is_the_reference(reference):
    layers = reference.tensors["in.layers_front_to_back"]
    background = torch.zeros_like(reference.tensors["out.composited"])
    found = paper_alpha.composite(layers, background)
    assert worst(found, reference.tensors["out.composited"]) <= TOLERANCE


def test_the_full_size_network_has_the_published_number_of_parameters():
    net = paper_alpha.AlphaNet()
    assert sum(p.numel() for p in net.parameters()) == 2_629_860


def test_an_empty_mask_gives_finite_losses():
    picture = torch.full((1, 3, 32, 32), 0.5)
    rgba, mask = torch.zeros(1, 4, 32, 32), torch.zeros(1, 1, 32, 32)
    found = paper_alpha.losses(rgba, picture, picture, mask, step=0)
    assert float(found.total) == 0.0


def test_only_checks_import_the_published_method():
    parts = Path(paper_alpha.__file__).parents[1]
    importers = [
        path.name
        for path in parts.rglob("*.py")
        if path.name != "paper_alpha.py" and "paper_alpha" in path.read_text(encoding="utf-8")
    ]
    assert importers == []
