# SPDX-License-Identifier: Apache-2.0
"""Growth and shrinking of mattes, and latent masks, against what the public code made."""

import re

import numpy as np
import pytest
import torch

from gencomp_server.parts import inflate, trimask
from gencomp_server.parts.conditioning import latent_mask

# What the vectors' README states for float32.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def masks(read_vector):
    return read_vector("f_masks").tensors


@pytest.fixture(scope="module")
def casper(read_vector):
    return read_vector("b_casper_pipeline")


def sequence(tensor):
    """[1,1,T,H,W] as [T,H,W,1]."""
    return tensor[0, 0, ..., None].numpy()


def width_in(name):
    """The side that a tensor's name states: 11 of ``out.dilate11``."""
    return int(re.search(r"(?:dilate|erode)(\d+)", name).group(1))


def test_growing_by_a_square_gives_the_public_codes_matte(masks):
    names = [name for name in masks if name.startswith("out.dilate")]
    assert names
    for name in names:
        grown = trimask.dilate(sequence(masks["in.mask"]), width_in(name))
        assert np.array_equal(grown, sequence(masks[name])), name


def test_shrinking_what_was_grown_gives_the_public_codes_matte(masks):
    names = [name for name in masks if name.startswith("out.erode")]
    grown = next(name for name in masks if name.startswith("out.dilate"))
    assert names
    for name in names:
        shrunk = trimask.erode(sequence(masks[grown]), width_in(name))
        assert np.array_equal(shrunk, sequence(masks[name])), name


def classes(case):
    """The vectors hold 1 where something goes, 127/255 where the model judges, 0 where it stays."""
    loader = sequence(case)
    return trimask.build(loader > 0.75, unknown=(loader > 0.25) & (loader <= 0.75))


def test_the_mask_channel_of_every_window_is_the_public_codes(casper):
    scale = casper.metadata["vae"]["scaling_factor"]
    convention = trimask.CONVENTIONS["casper"]
    for case in casper.metadata["cases"]:
        latents = casper.tensors[f"{case}.in.init_latents"]
        shape = (latents.shape[1], *latents.shape[3:])
        encoded = trimask.encode(classes(casper.tensors[f"{case}.in.trimask01"]), convention)
        whole = latent_mask(encoded, shape, convention, scale)[0, :, 0]
        for first, found in windows_of(casper, case, latents):
            expected = found[0, :, 0]
            here = whole[first : first + len(expected)]
            assert torch.allclose(here, expected, rtol=0, atol=TOLERANCE), (case, first)


def windows_of(casper, case, latents):
    """Yield first latent frame and condition of each window, found by the noise it starts at."""
    names = (name for name in casper.tensors if name.startswith(f"{case}.mid.window"))
    for name in sorted(name for name in names if name.endswith("inpaint_latents")):
        start = casper.tensors[name.replace("inpaint_latents", "step0_hidden")][0]
        length = len(start)
        firsts = range(latents.shape[1] - length + 1)
        first = next(at for at in firsts if torch.equal(latents[0, at : at + length], start))
        yield first, casper.tensors[name]


def picture(tensor):
    return tensor.numpy() > 128


def test_a_cleaned_mask_is_the_public_codes(masks):
    cleaned = inflate.cleaned(picture(masks["in.gencomp_mask"]))
    assert np.array_equal(cleaned, picture(masks["mid.gencomp_filtered"]))
    assert cleaned.sum() < picture(masks["in.gencomp_mask"]).sum()


def test_a_grown_mask_is_the_public_codes(masks):
    grown = inflate.inflated(picture(masks["mid.gencomp_filtered"]), px=inflate.SHIPPED_PX)
    assert np.array_equal(grown, picture(masks["out.gencomp_inflated"]))


def test_masks_of_49_frames_are_thinned_to_latents_as_in_the_public_code(masks):
    found = inflate.to_latent(masks["in.gencomp_mask49"][0, 0].numpy())
    assert np.array_equal(found, masks["out.gencomp_mask_latent"][0, 0].numpy())
