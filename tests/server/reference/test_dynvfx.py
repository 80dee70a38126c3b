# SPDX-License-Identifier: Apache-2.0
"""Anchors, inversion and rounds against the public code of DynVFX."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, CogVideoXAttnProcessor2_0

from gencomp_server.models.anchors import AnchorExtendedAttention, anchors_of, draw_patterns
from gencomp_server.parts.editing import KEEP, LOCAL, plan_rounds
from gencomp_server.parts.inversion import inverted_from, timesteps_of, way_there
from gencomp_server.parts.schedule import DdimInversion, signal_levels
from gencomp_server.parts.windows import Window

# What the vectors' README states for float32.
TOLERANCE = 1e-5
# Shares kept inside and outside of the marks, by the name of the case.
SHARES = {"full": (1.0, 1.0), "masked": (1.0, 0.0), "anchor": KEEP[LOCAL]}


@pytest.fixture(scope="module")
def vector(read_vector):
    return read_vector("d_dynvfx")


@pytest.fixture(scope="module")
def layer(vector):
    """The vector's attention layer, loaded strictly."""
    weights = vector.under("attn.")
    width, head = len(weights["to_q.weight"]), len(weights["norm_q.weight"])
    made = Attention(
        query_dim=width,
        dim_head=head,
        heads=width // head,
        qk_norm="layer_norm",
        eps=1e-6,
        bias=True,
        out_bias=True,
        processor=CogVideoXAttnProcessor2_0(),
    )
    made.load_state_dict(weights, strict=True)
    return made.eval()


def attend(vector, layer, processor):
    """Run the layer as the vector did; video and text tokens of [edit, source]."""
    layer.set_processor(processor)
    rotary = vector.tensors["in.rope_cos"], vector.tensors["in.rope_sin"]
    with torch.no_grad():
        return layer(
            vector.tensors["in.hidden"].clone(),
            encoder_hidden_states=vector.tensors["in.text"].clone(),
            image_rotary_emb=rotary,
        )


def extended(vector, case, **how):
    """Attention with the anchors of a case."""
    patterns = tuple(vector.tensors[f"mid.anchor.rand_{part}"][0, 0] for part in ("fg", "bg"))
    marks = vector.tensors["in.masks_for_attn"][:, 0] > 0
    return AnchorExtendedAttention(anchors_of(marks, patterns, SHARES[case]), **how)


def furthest(ours, theirs):
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("text_too", [True, False])
@pytest.mark.parametrize("case", sorted(SHARES))
def test_the_edit_sees_the_anchors_that_the_public_code_sees(vector, layer, case, text_too):
    video, text = attend(vector, layer, extended(vector, case, text_too=text_too))
    name = f"out.{case}.ext{int(text_too)}"
    assert furthest(video, vector.tensors[f"{name}.video"]) <= TOLERANCE
    assert furthest(text, vector.tensors[f"{name}.text"]) <= TOLERANCE


def test_without_an_anchor_the_edit_attends_as_the_plain_layer_does(vector, layer):
    video, text = attend(vector, layer, AnchorExtendedAttention(torch.zeros(0, dtype=torch.int64)))
    assert furthest(video, vector.tensors["out.plain.video"]) <= TOLERANCE
    assert furthest(text, vector.tensors["out.plain.text"]) <= TOLERANCE


def test_the_source_attends_as_if_there_were_no_edit(vector, layer):
    video, _ = attend(vector, layer, extended(vector, "full"))
    assert furthest(video[1], vector.tensors["out.plain.video"][1]) <= TOLERANCE


def test_kept_keys_give_the_edit_what_the_pair_gives_it(vector, layer):
    from gencomp_server.models.anchors import KeepKeys

    rotary = vector.tensors["in.rope_cos"], vector.tensors["in.rope_sin"]
    hidden, text = vector.tensors["in.hidden"], vector.tensors["in.text"]
    keeper = KeepKeys()
    with torch.no_grad():
        keeper(layer, hidden[1:], text[1:], image_rotary_emb=rotary)
        alone = extended(vector, "anchor", own=keeper.kept)
        video, words = alone(layer, hidden[:1], text[:1], image_rotary_emb=rotary)
    assert furthest(video[0], vector.tensors["out.anchor.ext1.video"][0]) <= TOLERANCE
    assert furthest(words[0], vector.tensors["out.anchor.ext1.text"][0]) <= TOLERANCE


def test_patterns_of_a_layer_are_of_the_size_of_the_vectors(vector):
    rows, columns = vector.tensors["mid.anchor.rand_fg"].shape[-2:]
    inside, outside = draw_patterns(0, 0, rows, columns)
    assert inside.shape == outside.shape == (rows, columns)


# --- inversion -----------------------------------------------------------------------------------


def velocity(latents, timestep):
    """The vector's model of one line."""
    return 0.3 * torch.cos(latents) + timestep / 5000


def test_the_noise_levels_are_the_public_codes(vector):
    theirs = vector.tensors["inv.alphas_cumprod"]
    ours = torch.tensor(signal_levels(), dtype=torch.float64)
    assert furthest(ours, theirs) <= 1e-12


def test_an_inversion_keeps_what_the_public_code_keeps(vector):
    start = vector.tensors["inv.x0"]
    exported = tuple(int(t) for t in vector.tensors["inv.export_timesteps"])
    assert timesteps_of(len(exported)) == exported
    way, found = DdimInversion(way_there(len(exported), 250)), {}
    inverted_from(
        start,
        0,
        way,
        (Window(0, start.shape[1]),),
        lambda latents, index, window: velocity(latents, way.timesteps[index]),
        lambda index, latents: found.update({way.timesteps[index]: latents}),
    )
    apart = [furthest(found[t], vector.tensors[f"inv.latent_{t}"]) for t in exported]
    assert max(apart) <= TOLERANCE


def test_the_rounds_as_shipped_are_those_that_ran_in_the_public_code(vector):
    ours = [[r.level, r.strength, r.first, r.steps, r.anchored] for r in plan_rounds("shipped", 50)]
    assert ours == vector.metadata["schedule_rows"]
