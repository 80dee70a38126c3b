# SPDX-License-Identifier: Apache-2.0
"""An edit that sees its source inside a whole transformer: what changes, what it leaves behind."""

import logging

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0

from gencomp_server.backbones import spec_named
from gencomp_server.models import attention, load
from gencomp_server.models.anchors import (
    KeepKeys,
    anchors_of,
    draw_patterns,
    replaced,
    token_marks,
)
from gencomp_server.models.loading import LoadSettings
from gencomp_server.parts.sourcekeys import SourceKeys

# Matrix products of a batch of two and of one differ by rounding.
ROUNDING = 2e-5
FRAMES, HEIGHT, WIDTH = 3, 4, 6


@pytest.fixture(scope="module")
def new_backbone(tmp_path_factory):
    """Return a maker of the tiny backbone that paints from words alone."""

    def make(**settings):
        spec, log = spec_named("tiny-text-to-video"), logging.getLogger("tests.anchors")
        cache = tmp_path_factory.mktemp("embeddings")
        return load(spec, None, settings=LoadSettings(**settings), cache=cache, log=log)

    return make


@pytest.fixture(scope="module")
def backbone(new_backbone):
    return new_backbone()


@pytest.fixture(scope="module")
def words(backbone):
    return {"edit": backbone.text("smoke"), "source": backbone.text("the beach")}


def some(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, FRAMES, 16, HEIGHT, WIDTH, generator=generator)


def marks(marked=True):
    return torch.full((FRAMES, HEIGHT, WIDTH), marked)


def anchored(backbone, words, **changed):
    given = {
        "source": some(2),
        "source_text": words["source"],
        "marks": marks(),
        "keep": (1.0, 0.0),
        "seed": 3,
    }
    return backbone.predict_anchored(some(1), 799, words["edit"], **(given | changed))


def plain(backbone, words):
    latents = some(1)
    return backbone.predict(latents, 799, words["edit"], latents[:, :, :0])


def furthest(one, other):
    return float((one - other).abs().max())


# --- which tokens --------------------------------------------------------------------------------


def test_the_pattern_is_the_same_in_every_frame():
    drawn = draw_patterns(1, 0, 6, 8)
    places = anchors_of(torch.ones(4, 6, 8, dtype=torch.bool), drawn, (0.5, 0.0))
    frames = [(places[places // 48 == frame] % 48).tolist() for frame in range(4)]
    assert frames[0]
    assert all(one == frames[0] for one in frames)


def test_shares_are_those_that_are_kept():
    inside = torch.zeros(1, 60, 80, dtype=torch.bool)
    inside[:, :30] = True
    places = anchors_of(inside, draw_patterns(0, 0, 60, 80), (0.70, 0.05))
    assert float((places < 2400).sum() / 2400) == pytest.approx(0.70, abs=0.03)
    assert float((places >= 2400).sum() / 2400) == pytest.approx(0.05, abs=0.02)


def test_every_layer_and_every_seed_draws_its_own_pattern():
    drawn = {tuple(draw_patterns(s, n, 2, 3)[0].flatten().tolist()) for s in (0, 1) for n in (0, 1)}
    assert len(drawn) == 4


def test_patterns_touch_nobodys_global_seed():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    draw_patterns(0, 0, 2, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_token_is_marked_where_any_of_its_cells_is():
    cells = torch.zeros(2, 4, 4, dtype=torch.bool)
    cells[1, 3, 0] = True
    expected = torch.zeros(2, 2, 2, dtype=torch.bool)
    expected[1, 1, 0] = True
    assert torch.equal(token_marks(cells, 2), expected)


# --- what the edit becomes -----------------------------------------------------------------------


def test_without_anchors_the_edit_is_painted_as_if_there_were_no_source(backbone, words):
    alone = anchored(backbone, words, keep=(0.0, 0.0))
    assert furthest(alone, plain(backbone, words)) <= ROUNDING


def test_with_anchors_the_edit_depends_on_its_source(backbone, words):
    one, other = anchored(backbone, words), anchored(backbone, words, source=some(4))
    assert furthest(one, plain(backbone, words)) > 100 * ROUNDING
    assert furthest(one, other) > 100 * ROUNDING


def test_outside_of_the_marks_the_other_share_counts(backbone, words):
    outside = anchored(backbone, words, marks=marks(False))
    assert furthest(outside, plain(backbone, words)) <= ROUNDING


def test_the_same_seed_gives_the_same_bits_and_another_other_anchors(backbone, words):
    half = {"keep": (0.5, 0.0)}
    first = anchored(backbone, words, **half)
    assert torch.equal(first, anchored(backbone, words, **half))
    assert not torch.equal(first, anchored(backbone, words, **half, seed=4))


def test_edit_and_source_count_two_forwards(backbone, words):
    before = backbone.forwards
    anchored(backbone, words)
    assert backbone.forwards - before == 2


# --- keys that are kept --------------------------------------------------------------------------


def test_with_kept_keys_the_source_is_computed_once_and_the_edit_is_the_same(backbone, words):
    keys, before = SourceKeys(frozenset({799.0})), backbone.forwards
    first = anchored(backbone, words, keys=keys, owner="0-3")
    again = anchored(backbone, words, keys=keys, owner="0-3")
    assert backbone.forwards - before == 3
    assert torch.equal(first, again)
    assert furthest(first, anchored(backbone, words)) <= ROUNDING


def test_kept_keys_serve_other_anchors_too(backbone, words):
    keys, half = SourceKeys(frozenset({799.0})), {"keep": (0.5, 0.0), "seed": 9}
    anchored(backbone, words, keys=keys, owner="0-3")
    served = anchored(backbone, words, keys=keys, owner="0-3", **half)
    assert furthest(served, anchored(backbone, words, **half)) <= ROUNDING


def test_kept_keys_belong_to_one_window_and_one_timestep(backbone, words):
    keys, before = SourceKeys(frozenset({799.0})), backbone.forwards
    anchored(backbone, words, keys=keys, owner="0-3")
    anchored(backbone, words, keys=keys, owner="2-5")
    assert backbone.forwards - before == 4
    assert set(keys.held) == {("0-3", 799), ("2-5", 799)}


def test_a_timestep_that_is_not_to_be_kept_goes_as_a_pair(backbone, words):
    keys, before = SourceKeys(frozenset({619.0})), backbone.forwards
    anchored(backbone, words, keys=keys, owner="0-3")
    assert backbone.forwards - before == 2
    assert keys.held == {}


# --- what is left behind -------------------------------------------------------------------------


def test_afterwards_the_transformer_is_as_it_was(backbone, words):
    first = plain(backbone, words)
    anchored(backbone, words)
    kinds = {type(one) for one in backbone._transformer.attn_processors.values()}
    assert kinds == {CogVideoXAttnProcessor2_0}
    assert torch.equal(first, plain(backbone, words))


def test_after_a_failure_too(backbone, words):
    with pytest.raises(RuntimeError):
        anchored(backbone, words, source=some(2)[..., :4])
    kinds = {type(one) for one in backbone._transformer.attn_processors.values()}
    assert kinds == {CogVideoXAttnProcessor2_0}


def test_attention_that_is_extended_already_is_not_extended_again(backbone):
    with (
        replaced(backbone._transformer, lambda layer, how: KeepKeys(how)),
        pytest.raises(RuntimeError, match="extended already"),
        replaced(backbone._transformer, lambda layer, how: KeepKeys(how)),
    ):
        pass


# --- with what makes models faster ---------------------------------------------------------------


def test_other_kernels_compute_the_same_anchors(new_backbone, backbone, words):
    other = new_backbone()
    attention.set_attention_(other._transformer, AttentionBackendName._NATIVE_MATH)
    assert furthest(anchored(other, words), anchored(backbone, words)) <= ROUNDING


def test_weights_in_8_bits_compute_anchors(new_backbone, words):
    narrow = new_backbone(precision="fp8")
    assert furthest(anchored(narrow, words, keep=(0.0, 0.0)), plain(narrow, words)) <= ROUNDING


def test_a_backbone_that_reuses_steps_computes_anchored_ones_in_full(new_backbone, backbone, words):
    from gencomp_server.parts.inversion import alone

    reusing = new_backbone(cached_steps=1.0)
    for index in range(3):
        with alone(reusing, "0-3 anchored", index):
            made = anchored(reusing, words)
    assert furthest(made, anchored(backbone, words)) <= ROUNDING


def test_compiled_blocks_run_as_they_are_written(new_backbone, backbone, words):
    from gencomp_server.models.speed import compile_blocks_

    def refuse(graph, inputs):
        raise AssertionError("a block was compiled")

    compiled = new_backbone()
    compile_blocks_(compiled._transformer, backend=refuse)
    assert torch.equal(anchored(compiled, words), anchored(backbone, words))
