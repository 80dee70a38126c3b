# SPDX-License-Identifier: Apache-2.0
"""The preview's procedural shots: what they are made of, what is true of them, what is said."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gencomp_server.training import preview_objects, preview_scene
from gencomp_server.training.preview_composite import Layers, composite
from gencomp_server.training.preview_draws import Draws
from gencomp_server.training.preview_gather import filled, gather
from gencomp_server.training.preview_kinds import COLOURS, KINDS
from gencomp_server.training.preview_mattes import grown
from gencomp_server.training.preview_prompts import facts_of
from gencomp_server.training.preview_shapes import SHAPES
from gencomp_server.training.preview_shots import CHANNELS, TASKS, make_batch

SIZE = (48, 64)
PICTURES = {"plate": slice(0, 3), "base": slice(3, 6), "gathered": slice(6, 9)}
MASKS = {"seen": 9, "remove": 10, "keep": 11, "subject": 12}
BENCH = Path(__file__).parents[3] / "benchmarks" / "preview_clips.json"


def part(batch, name):
    """Return one of the conditions. [B,T,H,W,C]."""
    if name in PICTURES:
        return batch.conditions[..., PICTURES[name]]
    return batch.conditions[..., MASKS[name], None]


@pytest.fixture(scope="module")
def removals():
    return make_batch(11, 12, 5, SIZE, task="remove")


@pytest.fixture(scope="module")
def additions():
    return make_batch(12, 40, 5, SIZE, task="add")


# --- seeds and families --------------------------------------------------------------------------


def test_equal_seeds_give_equal_bits_and_others_do_not():
    first, same, other = (make_batch(seed, 3, 3, SIZE) for seed in (5, 5, 6))
    assert torch.equal(first.conditions, same.conditions)
    assert torch.equal(first.target, same.target)
    assert first.words == same.words
    assert not torch.equal(first.conditions, other.conditions)


def test_torch_s_own_chance_has_no_part_in_it():
    torch.manual_seed(1)
    first = make_batch(5, 2, 3, SIZE)
    torch.manual_seed(2)
    assert torch.equal(first.conditions, make_batch(5, 2, 3, SIZE).conditions)


@pytest.mark.parametrize("families", [preview_scene.TEXTURES, SHAPES])
def test_families_that_measure_are_none_that_train(families):
    assert set(families) == {"train", "held_out"}
    assert not set(families["train"]) & set(families["held_out"])


@pytest.mark.parametrize("families", ["train", "held_out"])
def test_only_the_families_asked_for_are_drawn(families, monkeypatch):
    shapes, textures = set(), set()
    pieces, pattern = preview_objects.pieces, preview_scene._pattern

    def seen_pieces(shape, *rest):
        shapes.add(shape)
        return pieces(shape, *rest)

    def seen_pattern(family, *rest):
        textures.add(family)
        return pattern(family, *rest)

    monkeypatch.setattr(preview_objects, "pieces", seen_pieces)
    monkeypatch.setattr(preview_scene, "_pattern", seen_pattern)
    make_batch(2, 24, 2, (16, 24), families=families)
    assert shapes == set(SHAPES[families])
    assert textures == set(preview_scene.TEXTURES[families])


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"count": 0},
        {"frames": 1},
        {"size": (15, 64)},
        {"families": "both"},
        {"task": "fill"},
    ],
)
def test_what_cannot_be_made_is_refused_by_name(wrong):
    asked = {"seed": 1, "count": 1, "frames": 3, "size": SIZE, **wrong}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_batch(**asked)


# --- layers --------------------------------------------------------------------------------------


def layers_of(draws, clips, ranks, frames=2, size=(6, 8)):
    """Return layers as good as random: clip and rank of each object, fronts last."""
    count = len(clips)
    shape = (count, frames, 3, *size)
    return Layers(
        clean=draws.uniform(0, 4, max(clips) + 1, frames, 3, *size),
        clip=torch.tensor(clips),
        rank=torch.tensor(ranks),
        colour=draws.uniform(0, 2, *shape),
        alpha=draws.uniform(0, 1, count, frames, 1, *size),
        ground=(draws.uniform(0, 1.2, *shape), draws.uniform(0, 1, *shape)),
        air=(draws.uniform(0, 1.2, *shape), draws.uniform(0, 1, *shape)),
        fields=draws.tiles(2, 1.0, 1.5)[None],
    )


def test_the_picture_is_its_layers_over_one_another():
    clips, ranks = [0, 0, 1, 0, 0], [0, 1, 0, 2, 3]
    layers = layers_of(Draws((3,)), clips, ranks)
    assert layers.there.tolist() == [[True] * 4, [True, False, False, False]]
    objects, effects = layers.there, layers.there
    objects[0, 1] = effects[0, 2] = False
    found = composite(layers, objects, effects)
    for clip in range(2):
        picture = layers.clean[clip].numpy()
        mine = [i for i, of in enumerate(clips) if of == clip]
        for i in mine:
            if (clip, ranks[i]) != (0, 2):
                picture = picture * layers.ground[0][i].numpy() + layers.ground[1][i].numpy()
        for i in mine:
            if (clip, ranks[i]) != (0, 1):
                picture = picture * (1 - layers.alpha[i].numpy()) + layers.colour[i].numpy()
            if (clip, ranks[i]) != (0, 2):
                picture = picture * layers.air[0][i].numpy() + layers.air[1][i].numpy()
        np.testing.assert_array_equal(found[clip].numpy(), picture)


def test_of_an_effect_only_the_part_that_is_wanted_acts():
    layers = layers_of(Draws((4,)), [0], [0])
    one, none = layers.there, ~layers.there
    part = torch.zeros(1, 1, 1, 6, 8)
    part[..., :4] = 1
    found = composite(layers, none, one, part)
    assert torch.equal(found[..., :4], composite(layers, none, one)[..., :4])
    assert torch.equal(found[..., 4:], layers.clean[..., 4:])


def test_nobody_in_the_picture_is_the_clean_plate_bit_for_bit():
    layers = layers_of(Draws((5,)), [0, 0], [0, 1])
    nobody = torch.zeros_like(layers.there)
    assert torch.equal(composite(layers, nobody, nobody), layers.clean)


def test_of_each_object_its_coverage_is_what_those_in_front_leave():
    layers = layers_of(Draws((6,)), [0, 0], [0, 1])
    found = layers.coverage()
    assert torch.equal(found[0, 1], layers.alpha[1])
    assert torch.equal(found[0, 0], layers.alpha[0] * (1 - layers.alpha[1]))
    assert not found[0, 2:].any()


# --- what a removal is shown ---------------------------------------------------------------------


def test_shapes_and_ranges(removals):
    assert removals.conditions.shape == (12, 5, *SIZE, 13)
    assert removals.target.shape == (12, 5, *SIZE, 3)
    assert len(CHANNELS) == len(PICTURES) + len(MASKS)
    for name in PICTURES:
        assert part(removals, name).abs().max() <= 1
    for name in MASKS:
        assert part(removals, name).min() >= 0
        assert part(removals, name).max() <= 1
    assert removals.conditions.dtype == removals.target.dtype == torch.float32
    assert removals.plate_light.max() > 1  # there are highlights


def test_a_removal_s_base_is_the_gathered_plate_in_the_matte_and_the_plate_elsewhere(removals):
    plate, base, gathered = (part(removals, name) for name in PICTURES)
    matte = grown((part(removals, "subject") > 0.1).float().movedim(-1, 2), 1).movedim(2, -1)
    inside = (matte > 0).expand_as(base)
    far = grown(matte.movedim(-1, 2), 3).movedim(2, -1)
    outside = (far == 0).expand_as(base)
    assert inside.any()
    assert outside.any()
    torch.testing.assert_close(base[inside], gathered[inside], atol=1e-6, rtol=0)
    assert torch.equal(base[outside], plate[outside])


def test_what_is_kept_stays_and_lends_nothing(removals):
    kept = (part(removals, "keep") > 0).expand(-1, -1, -1, -1, 3)
    assert kept.any()
    assert torch.equal(part(removals, "base")[kept], part(removals, "plate")[kept])
    assert not (part(removals, "keep") * part(removals, "remove")).any()


def test_a_removal_changes_what_the_objects_cover_and_more(removals):
    covered = removals.footprint > 0.5
    for clip in range(len(removals.tasks)):
        assert removals.changed[clip][covered[clip]].float().mean() > 0.5
    assert removals.effect_only.any()
    assert not (removals.effect_only & covered).any()


def test_the_gathered_plate_is_nearer_to_the_truth_than_the_plate(removals):
    hole = (removals.footprint > 0.5).expand_as(removals.target)
    off = [
        (part(removals, name) - removals.target)[hole].square().mean()
        for name in ("plate", "gathered")
    ]
    assert off[1] < 0.4 * off[0]


@pytest.mark.parametrize(("scarce", "most", "least"), [(True, 0.5, 0.0), (False, 1.0, 0.4)])
def test_of_the_hole_little_or_much_is_ever_seen(scarce, most, least):
    batch = make_batch(31, 16, 9, SIZE, families="held_out", task="remove", scarce=scarce)
    hole = (batch.footprint > 0.5).float()
    seen = (part(batch, "seen") * hole).flatten(1).sum(1) / hole.flatten(1).sum(1)
    assert least <= float(seen.median()) < most


# --- what an effect is shown ---------------------------------------------------------------------


def test_an_addition_starts_from_the_composite(additions):
    plate = part(additions, "plate")
    assert torch.equal(part(additions, "base"), plate)
    assert torch.equal(part(additions, "gathered"), plate)
    assert (part(additions, "seen") == 1).all()


def test_frames_without_a_key_are_unknown_and_others_are_not(additions):
    remove, keep = part(additions, "remove"), part(additions, "keep")
    known = additions.keyed[..., None, None, None].expand_as(remove)
    assert (remove + keep)[known].eq(1).all()
    assert (remove + keep)[~known].eq(0).all()
    share = additions.keyed.float().mean(1)
    assert (share == 1).any()
    assert ((share > 0) & (share < 1)).any()
    assert (share == 0).any()


def test_the_mask_holds_nearly_all_of_the_effect(additions):
    energy = (additions.target - part(additions, "plate")).square().sum(-1, keepdim=True)
    inside = (energy * additions.effect_mask).flatten(1).sum(1) / energy.flatten(1).sum(1)
    assert inside.median() > 0.97
    assert additions.effect_mask.mean() < 0.5


def alone(batch, kind):
    """Return the clips that have one kind of effect and no other."""
    only = batch.there.sum(1) == 1
    return (only & batch.there[:, KINDS.index(kind)]).nonzero()[:, 0].tolist()


def test_shadows_are_deeper_where_more_is_asked(additions):
    found, asked = [], []
    for clip in alone(additions, "shadow"):
        where = additions.effect_only[clip].expand_as(additions.target[clip])
        before = additions.plate_light[clip][where].clamp_min(1e-3)
        after = additions.target_light[clip][where].clamp_min(0)
        found.append(float((1 - after / before).quantile(0.9)))
        asked.append(float(additions.amount[clip, KINDS.index("shadow")]))
    assert len(found) >= 8
    assert np.corrcoef(found, asked)[0, 1] > 0.7
    assert min(found) > 0.05  # they only take light away


def test_colours_are_what_they_are_called():
    batch = make_batch(77, 160, 2, (32, 48), task="add")
    names, checked = tuple(COLOURS), 0
    coloured = [KINDS.index(kind) for kind in ("smoke", "dust", "splash", "glow")]
    # Reflections and wakes bring other colours.
    others = batch.there[:, [KINDS.index(kind) for kind in ("reflection", "wake")]].any(1).tolist()
    for clip, there in enumerate(batch.there[:, coloured].tolist()):
        if sum(there) != 1 or others[clip]:
            continue
        name = names[int(batch.colour[clip, coloured[there.index(True)]])]
        if name not in ("red", "green", "blue"):
            continue
        where = batch.effect_only[clip].expand_as(batch.target[clip])
        before, after = (
            light[clip][where].reshape(-1, 3).mean(0)
            for light in (batch.plate_light, batch.target_light)
        )
        gain = after / after.sum() - before / before.sum()
        assert int(gain.argmax()) == ("red", "green", "blue").index(name), (name, clip)
        checked += 1
    assert checked >= 5


def test_words_name_the_task_and_what_is_there(additions, removals):
    assert set(removals.words) == {("remove",)}
    assert set(additions.tasks + removals.tasks) == set(TASKS)
    for words, there in zip(additions.words, additions.there.tolist(), strict=True):
        assert words[0] == "add"
        named = {word for word in words if word in KINDS}
        assert named == {kind for kind, has in zip(KINDS, there, strict=True) if has}
    said = {word for words in additions.words for word in words}
    assert {"soft", "harsh", "more", "less", "left", "right"} <= said


def test_what_is_true_of_a_clip_is_true_of_its_nearest_object():
    class Objects:
        clip, rank = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])

    class Effects:
        there = torch.tensor([[1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0] * 6 + [1]]).bool()
        amount = torch.tensor([[0.1] * 7, [0.9] * 7, [0.5] * 7])
        lean = torch.tensor([[-0.5] * 7, [0.5] * 7, [0.0] * 7])
        colour = torch.tensor([[1] * 7, [2] * 7, [3] * 7])
        softness = torch.tensor([0.2, 0.3, 0.4])

    both = facts_of(Objects, Effects, torch.tensor([[True, True], [True, False]]))
    assert both["there"].tolist() == [[True, True] + [False] * 5, [False] * 6 + [True]]
    assert both["amount"][0, :2].tolist() == pytest.approx([0.9, 0.1])
    assert both["softness"].tolist() == pytest.approx([0.3, 0.4])
    far = facts_of(Objects, Effects, torch.tensor([[True, False], [False, False]]))
    assert far["amount"][0, 0] == pytest.approx(0.1)
    assert not far["there"][1].any()


# --- camera and gathering ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def camera():
    return preview_scene.draw_camera(Draws((4,)), 6, torch.arange(5.0), 4.0, 64 / 48)


def pixels():
    y, x = torch.meshgrid(
        (torch.arange(48) + 0.5) / 48, (torch.arange(64) + 0.5) / 48, indexing="ij"
    )
    return x, y


def test_the_camera_s_way_back_is_exact(camera):
    x, y = (g.expand(6, 5, 48, 64) for g in pixels())
    back = camera.rolled(*camera.unrolled(x, y))
    torch.testing.assert_close(back[0], x, atol=2e-6, rtol=0)
    torch.testing.assert_close(back[1], y, atol=2e-6, rtol=0)


def test_a_still_place_is_gathered_as_it_is(camera):
    draws = Draws((5,))
    place = preview_scene.draw_place(draws, camera, 48, "train")
    x, y = (g.expand(6, 5, 48, 64) for g in pixels())
    ux, uy = camera.unrolled(x, y)
    frames = place.seen(camera.at_rest(ux, uy), uy)
    hidden = torch.zeros(6, 5, 1, 48, 64)
    hidden[:, 0, :, 10:20, 20:30] = 1
    error = torch.zeros(6)
    found, seen = gather(draws, camera, pixels(), frames, hidden, error)
    inner = (slice(None), slice(None), slice(None), slice(6, -6), slice(6, -6))
    scale = frames[inner].std((1, 2, 3, 4), keepdim=True)
    off = ((found - frames)[inner] / scale).abs()
    assert off.median() < 0.03
    assert off.quantile(0.95) < 0.6  # each frame samples edges its own way
    assert seen[:, 1:].min() == 1
    moved = torch.zeros(6, 5, 1, 48, 64)
    moved[..., 10:20, 20:30] = 1
    _, seen = gather(draws, camera, pixels(), frames, moved, error)
    still = (camera.offset.diff(dim=1).abs().amax((1, 2)) < 1e-6) & (
        camera.zoom.diff(dim=1).abs().amax(1) < 1e-6
    )
    still &= camera.travel.diff(dim=1).abs().amax(1) < 1e-6
    for clip in range(6):
        hole = seen[clip, 2, 0, 10:20, 20:30].mean()
        assert (hole < 0.05) == bool(still[clip]), clip


def test_the_median_leaves_out_what_is_hidden():
    still = preview_scene.Camera(
        1.0,
        torch.zeros(1, 3, 2),
        torch.ones(1, 3),
        torch.zeros(1, 3),
        torch.zeros(1, 3),
        torch.zeros(1),
        torch.full((1,), 50.0),
    )
    frames = torch.tensor([0.2, 0.4, 0.9]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 8, 8).contiguous()
    y, x = torch.meshgrid((torch.arange(8) + 0.5) / 8, (torch.arange(8) + 0.5) / 8, indexing="ij")
    hidden = torch.zeros(1, 3, 1, 8, 8)
    draws, nothing = Draws((6,)), torch.zeros(1)
    found, _ = gather(draws, still, (x, y), frames, hidden, nothing)
    torch.testing.assert_close(found, torch.full_like(found, 0.4))
    hidden[:, 2] = 1
    found, _ = gather(draws, still, (x, y), frames, hidden, nothing)
    torch.testing.assert_close(found, torch.full_like(found, 0.3))


def test_what_is_not_known_is_filled_and_what_is_known_stays():
    values = torch.zeros(1, 1, 1, 9, 13)
    known = torch.zeros_like(values)
    known[..., :3] = 1
    values[..., :3] = 0.25
    torch.testing.assert_close(filled(values, known), torch.full_like(values, 0.25))
    ramp = torch.linspace(0, 1, 13).expand(1, 1, 1, 9, 13)
    known = torch.ones_like(ramp)
    known[..., 3:6, 4:9] = 0
    made = filled(ramp * known, known)
    assert torch.equal(made[known > 0], ramp[known > 0])
    assert (made - ramp)[known == 0].abs().max() < 0.25


# --- the clips that measure ----------------------------------------------------------------------


def test_the_clips_that_measure_are_a_hundred_and_a_third_of_them_hide_what_is_behind():
    facts = json.loads(BENCH.read_text(encoding="utf-8"))
    assert facts["scarce"]["count"] + facts["free"]["count"] == 100
    assert facts["scarce"]["count"] >= 30
    assert facts["families"] == "held_out"
    assert facts["scarce"]["first"] + facts["scarce"]["count"] == facts["free"]["first"]
    for seed in range(facts["scarce"]["first"], facts["scarce"]["first"] + 4):
        clip = make_batch(
            seed,
            1,
            facts["frames"],
            (facts["height"], facts["width"]),
            families="held_out",
            task="remove",
            scarce=True,
        )
        hole = clip.footprint > 0.5
        assert part(clip, "seen")[hole].mean() < 0.5
