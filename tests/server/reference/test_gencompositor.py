# SPDX-License-Identifier: Apache-2.0
"""GenCompositor's two networks, strictly loaded, against the public code's answers."""

import pytest
import torch
from safetensors.torch import save_file

from gencomp_server.models import erope
from gencomp_server.models.gencompositor_network import GenCompositor
from gencomp_server.models.loading import build_on_meta, load_into

# What the vectors' README states for float32.
TOLERANCE = 1e-5
WITHOUT_BRANCH = "out.sample_without_branch"


class Reference:
    """The vector, and networks that were strictly loaded from its weights."""

    def __init__(self, vector, folder):
        self.tensors, configs = vector.tensors, vector.metadata
        made = build_on_meta(lambda: GenCompositor(configs["main"], configs["branch"]))
        for name in ("main", "branch"):
            file = folder / f"{name}.safetensors"
            save_file(vector.under(f"{name}."), file)
            part = made.get_submodule(name)
            load_into(part, file, title="the vector", device="cpu", dtype=torch.float32)
        self.networks = made.eval()

    def given(self):
        names = ("latents", "masked_video_latents", "mask", "fg_latents", "text", "timestep")
        return [self.tensors[f"in.{name}"] for name in names]


@pytest.fixture(scope="module")
def reference(read_vector, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Reference(read_vector("c_gencompositor"), tmp_path_factory.mktemp("weights"))
    torch.set_num_threads(threads)


def worst(a, b):
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [("shipped", "out.sample"), ("height", "out.sample_paper_layout_erope")],
)
def test_both_layouts_of_positions_compute_what_the_public_code_does(reference, layout, wanted):
    with torch.no_grad():
        made = reference.networks(*reference.given(), layout=layout)
    assert worst(made, reference.tensors[wanted]) <= TOLERANCE


def test_the_two_layouts_differ_by_far_more_than_the_tolerance(reference):
    one, other = (
        reference.tensors[name] for name in ("out.sample", "out.sample_paper_layout_erope")
    )
    assert worst(one, other) > 1000 * TOLERANCE


def test_the_branch_gives_the_public_codes_samples(reference):
    latents, masked, mask, _, text, timestep = reference.given()
    positions = reference.tensors["in.rope_branch_cos"], reference.tensors["in.rope_branch_sin"]
    given = torch.cat([latents, masked, mask], dim=2)
    with torch.no_grad():
        samples = reference.networks.branch(given, text, timestep, positions)
    wanted = [name for name in reference.tensors if name.startswith("out.branch_sample")]
    assert len(samples) == len(wanted) > 0
    for name, sample in zip(sorted(wanted), samples, strict=True):
        assert worst(sample, reference.tensors[name]) <= TOLERANCE, name


def test_a_mask_of_the_whole_picture_adds_nothing_of_the_branch(reference):
    """Every token is inside, so the main network stands alone; its own input has no mask."""
    latents, masked, mask, *rest = reference.given()
    with torch.no_grad():
        made = reference.networks(latents, masked, torch.ones_like(mask), *rest)
    assert worst(made, reference.tensors[WITHOUT_BRANCH]) <= TOLERANCE


def test_positions_of_plate_and_element_are_the_public_codes(reference):
    _, frames, _, height, width = reference.tensors["in.latents"].shape
    config = reference.networks.config
    for which, layout in (("main", "shipped"), ("branch", None)):
        found = erope.rotary(config, frames, height, width, layout)
        for table, kind in zip(found, ("cos", "sin"), strict=True):
            assert worst(table, reference.tensors[f"in.rope_{which}_{kind}"]) <= TOLERANCE


def test_tables_made_for_a_training_are_those_that_the_weights_came_with(reference, read_vector):
    made = GenCompositor(**read_vector("c_gencompositor").metadata)
    for network, name in ((made.main, "main"), (made.branch, "branch")):
        shipped = reference.tensors[f"{name}.patch_embed.pos_embedding"]
        assert worst(network.patch_embed.pos_embedding.float(), shipped) <= TOLERANCE
