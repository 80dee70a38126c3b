# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_server.parts.trimask import EDIT, KEEP, UNKNOWN
from gencomp_server.training.data import Cut
from gencomp_server.training.recipes import (
    RECIPES,
    prepare,
    prepare_gencompositor,
    recipe_named,
)
from gencomp_server.training.settings import Optimiser

from .conftest import FRAMES, SIZE

OVER, CASPER, GENC, STM = RECIPES.values()
WHOLE = Cut(0, FRAMES, SIZE)


def seeded(seed):
    return np.random.default_rng(seed)


def signed(code):
    return code * 2 - 1


def test_overplusplus_shows_the_composite_and_asks_for_the_original(clips):
    layers = clips.load(0, WHOLE)
    made = prepare(OVER, layers, seeded(1), 0.0)
    assert np.array_equal(made.target, signed(layers.original).astype(np.float32))
    noise = made.videos["known"] - signed(layers.over)
    assert 0.01 < noise.std() < 0.3
    assert abs(float(noise.mean())) < 0.01


def test_overplusplus_marks_the_effect_and_sometimes_says_nothing(clips):
    layers = clips.load(0, WHOLE)
    seen = [prepare(OVER, layers, seeded(i), 0.0).trimask for i in range(30)]
    said = [one for one in seen if not (one == UNKNOWN).any()]
    assert 5 < len(said) < 25
    assert (said[0] == EDIT).any()
    assert (said[0] == KEEP).any()
    grey = [(one == UNKNOWN).all(axis=(1, 2, 3)) for one in seen]
    assert all(
        np.array_equal(g, (s == UNKNOWN).any(axis=(1, 2, 3)))
        for g, s in zip(grey, seen, strict=True)
    )


def test_overplusplus_shows_nothing_of_an_unpaired_clip(clips):
    made = prepare(OVER, clips.load(3, WHOLE), seeded(1), 0.0)
    assert made.blank
    assert made.trimask is None
    assert made.videos == {}
    assert made.caption in clips.captions(3)


def test_captions_are_drawn_among_the_variants_and_dropped_now_and_then(drawn):
    told = [prepare(STM, drawn, seeded(i), 0.25).caption for i in range(400)]
    assert set(told) == {"one", "two", ""}
    assert told.count("") / 400 == pytest.approx(0.25, abs=0.07)
    assert told.count("one") / 400 == pytest.approx(0.375, abs=0.08)


def test_casper_removes_one_figure_or_all_and_asks_for_what_is_left(pair):
    both = set()
    for seed in range(12):
        made = prepare(replace(CASPER, flips=False), pair, seeded(seed), 0.0)
        all_go = np.array_equal(made.target, signed(pair.clean).astype(np.float32))
        wanted = pair.clean if all_go else pair.background
        assert np.array_equal(made.target, signed(wanted).astype(np.float32))
        gone = (pair.matte >= 0.5) | ((pair.others >= 0.5) if all_go else False)
        assert np.array_equal(made.trimask == EDIT, gone)
        both.add(all_go)
    assert both == {True, False}


def test_casper_switches_white_to_grey_where_the_truth_is_known_and_only_there(pair):
    plain = replace(CASPER, flips=False)
    kinds = {"synthetic": set(), "filmed": set()}
    for seed in range(40):
        for name, layers in (("synthetic", pair), ("filmed", replace(pair, synthetic=False))):
            made = prepare(plain, layers, seeded(seed), 0.0)
            if not np.array_equal(made.target, signed(pair.clean).astype(np.float32)):
                kinds[name].add(bool((made.trimask == KEEP).any()))
    assert kinds == {"synthetic": {True, False}, "filmed": {True}}


def test_casper_flips_picture_mask_and_target_alike(pair):
    for seed in range(6):
        made = prepare(CASPER, pair, seeded(seed), 0.0)
        plate = made.videos["known"]
        changed = np.abs(plate - made.target).max(axis=3, keepdims=True) > 1.0
        if changed.sum() > 20:  # where a figure is gone for certain, the mask removes
            assert (made.trimask[changed] == EDIT).mean() > 0.7


def test_casper_draws_a_cut_of_the_picture_and_the_others_take_it_whole():
    cut = CASPER.cut(20, 5, SIZE, seeded(3))
    assert 0.8 <= cut.share <= 1
    assert 0 <= cut.first <= 15
    assert OVER.cut(20, 5, SIZE, seeded(3)).share == 1


def test_models_of_one_size_are_shown_the_whole_picture_as_a_job_shows_it():
    for recipe, box in (
        (STM, (0, 0, 300, 100)),
        (GENC, (0, 0, 300, 100)),
        (OVER, (75, 0, 225, 100)),
    ):
        assert recipe.cut(20, 5, SIZE, seeded(3)).box(300, 100) == box


def test_gencompositor_shows_a_hole_that_is_larger_than_the_element(drawn):
    made = prepare(GENC, drawn, seeded(2), 1.0)
    inside = drawn.matte[..., 0] > 0.5
    assert made.inflated[inside].all()
    assert made.inflated.sum() > inside.sum()
    assert (made.videos["masked"][made.inflated] == -1).all()
    kept = ~made.inflated
    assert np.array_equal(made.videos["masked"][kept], made.target[kept])
    assert made.caption == ""


def test_gencompositor_shows_the_element_in_another_light_on_white(drawn):
    shades = set()
    for seed in range(8):
        element = prepare_gencompositor(drawn, seeded(seed), 1.0).videos["fg"]
        assert element[0, 0, 0].tolist() == [1, 1, 1]
        shades.add(round(float(element[0, 15:17, 23:25].mean()), 3))
    assert len(shades) > 6
    low, high = signed(0.25**1.9), signed(0.75**0.4)
    assert all(low < shade < high for shade in shades)


def test_splitthenmerge_shows_a_changed_foreground_and_never_changes_the_target(drawn):
    for seed in range(10):
        made = prepare(STM, drawn, seeded(seed), 0.0)
        assert np.array_equal(made.target, signed(drawn.original).astype(np.float32))
        assert np.array_equal(made.subject, drawn.matte)
        assert made.shown.sum() > 0
        black = (made.videos["fg"] == -1).all(axis=3, keepdims=True)
        assert black[made.shown == 0].all()
        assert not black[made.shown > 0.05].any()


def test_the_layers_of_splitthenmerge_are_noisy_the_foreground_more(drawn):
    levels = {"fg": [], "bg": []}
    for seed in range(40):
        made = prepare(STM, drawn, seeded(seed), 0.0)
        levels["bg"].append((made.videos["bg"] - signed(drawn.background)).std())
        covered = made.shown[..., 0] > 0.99
        levels["fg"].append(made.videos["fg"][covered].std())
    assert np.median(levels["bg"]) == pytest.approx(np.exp(-3), rel=0.3)
    assert np.median(levels["fg"]) > 3 * np.median(levels["bg"])


@pytest.mark.parametrize("recipe", [CASPER, GENC, STM], ids=lambda one: one.name)
def test_an_unpaired_clip_is_refused_by_what_cannot_learn_from_it(recipe, clips):
    with pytest.raises(BadKnob, match="a picture alone"):
        prepare(recipe, clips.load(3, WHOLE), seeded(1), 0.0)


def test_a_stretch_without_the_subject_shows_splitthenmerge_the_background_alone(drawn):
    made = prepare(STM, replace(drawn, matte=drawn.matte * 0), seeded(1), 0.0)
    assert (made.videos["fg"] == -1).all()
    assert not made.shown.any()
    assert np.array_equal(made.target, signed(drawn.original).astype(np.float32))


def test_the_learning_rate_rises_stays_or_falls_as_a_cosine():
    constant = Optimiser(lr=1.0, warmup=4)
    assert [constant.rate(step, 100) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1, 1, 1]
    cosine = Optimiser(lr=1.0, warmup=10, schedule="cosine")
    assert cosine.rate(10, 110) == pytest.approx(1)
    assert cosine.rate(60, 110) == pytest.approx(0.5)
    assert cosine.rate(110, 110) == pytest.approx(0)


def test_recipes_have_the_numbers_of_their_papers():
    assert (OVER.steps, OVER.trained) == (1000, ("transformer_blocks.",))
    assert (STM.steps, STM.batch, STM.frames) == (20_000, 64, 49)
    chosen = STM.optimiser
    assert (chosen.lr, chosen.betas, chosen.weight_decay) == (5e-6, (0.9, 0.95), 1e-4)
    assert (chosen.warmup, chosen.schedule, chosen.clip_norm) == (1000, "cosine", 1.0)
    assert (CASPER.optimiser.lr, CASPER.optimiser.clip_norm) == (2e-5, 0.05)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(BadKnob, match="no recipe 'dynvfx'"):
        recipe_named("dynvfx")
