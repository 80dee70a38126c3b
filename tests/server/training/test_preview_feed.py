# SPDX-License-Identifier: Apache-2.0
"""What a step of the preview's training is given."""

import numpy as np
import pytest
import torch

from gencomp_server.training import preview_feed
from gencomp_server.training.preview_feed import Chunk, Feed, augmented, make_chunks, swapped

WORDS = ("add", "soft", "shadow", "left")


def chunk(words):
    draws = torch.Generator().manual_seed(1)
    conditions = torch.rand(len(words), 2, 8, 8, 13, generator=draws)
    return Chunk(conditions, conditions[..., :3].clone(), tuple(words))


def test_left_and_right_change_places_and_nothing_else():
    assert swapped(("add", "left", "red", "shadow", "right")) == (
        "add",
        "right",
        "red",
        "shadow",
        "left",
    )


@pytest.mark.parametrize("said", [WORDS, ("remove",)])
def test_pictures_and_truth_are_turned_alike(said):
    given = chunk([said] * 8)
    found = augmented(given, np.random.default_rng(2))
    assert torch.equal(found.target, found.conditions[..., :3])
    assert not torch.equal(found.target, given.target)
    assert torch.equal(found.target.flatten(1).sort().values, given.target.flatten(1).sort().values)


def test_words_follow_the_flip():
    given = chunk([WORDS] * 16)
    found = augmented(given, np.random.default_rng(2))
    for i in range(16):
        flipped = not torch.equal(found.target[i], given.target[i])
        assert found.words[i] == (swapped(WORDS) if flipped else WORDS)
    assert len(set(found.words)) == 2


def test_what_is_added_keeps_its_colours_and_its_time():
    given = chunk([WORDS] * 16)
    found = augmented(given, np.random.default_rng(2))
    same = (found.target == given.target).flatten(1).all(1)
    turned = (found.target == given.target.flip(3)).flatten(1).all(1)
    assert bool((same | turned).all())


def test_of_some_additions_nobody_says_whose_effect_it_is():
    found = augmented(chunk([WORDS] * 32), np.random.default_rng(2))
    silent = (found.conditions[..., -1] == 0).flatten(1).all(1)
    assert 4 < int(silent.sum()) < 24
    kept = augmented(chunk([("remove",)] * 32), np.random.default_rng(2))
    assert bool((kept.conditions[..., -1] > 0).flatten(1).any(1).all())


def test_chunks_are_of_both_tasks_and_the_same_for_their_number():
    found, again, other = (make_chunks(seed, 1, 2) for seed in (0, 0, 1))
    assert len(found) == preview_feed.TOGETHER
    for one, same in zip(found, again, strict=True):
        assert {words[0] for words in one.words} == {"remove", "add"}
        assert torch.equal(one.conditions, same.conditions)
        assert torch.equal(one.target, same.target)
    assert not torch.equal(found[0].target, found[1].target)
    assert not torch.equal(found[0].target, other[0].target)


def test_more_is_removed_than_added_and_words_stay_with_their_clips():
    tasks = [words[0] for words in make_chunks(0, 1, 8)[0].words]
    assert tasks.count("add") == max(1, round(0.4 * len(tasks)))
    for one in make_chunks(0, 1, 8):
        for words, conditions in zip(one.words, one.conditions, strict=True):
            base_is_plate = torch.equal(conditions[..., 3:6], conditions[..., :3])
            assert base_is_plate == (words[0] == "add")


def test_small_clips_come_first_and_those_of_a_jobs_windows_later(monkeypatch):
    asked = []

    def told(seed, count, frames, size, **rest):
        asked.append((frames, *size))
        raise InterruptedError

    monkeypatch.setattr("gencomp_server.training.preview_shots.make_batch", told)
    for number in range(2 * preview_feed._SMALL_LOTS):
        with pytest.raises(InterruptedError):
            make_chunks(0, number, 8)
    first, later = set(asked[: preview_feed._SMALL_LOTS]), set(asked[preview_feed._SMALL_LOTS :])
    assert first == {size for size, _ in preview_feed._SMALL}
    assert later == {size for size, _ in preview_feed._SIZES}


def test_a_feed_that_starts_later_gives_what_the_first_gave():
    whole = Feed(0, 2, 0, block=8, reuse=2)
    try:
        every = [whole.take() for _ in range(18)]
    finally:
        whole.close()
    late = Feed(0, 2, 11, block=8, reuse=2, workers=2)
    try:
        for expected in every[11:]:
            found = late.take()
            assert torch.equal(found.conditions, expected.conditions)
            assert found.words == expected.words
    finally:
        late.close()


def test_a_seed_whose_clips_are_others_is_refused():
    with pytest.raises(ValueError, match="0 to 7"):
        Feed(8, 4, 0)


def test_a_block_that_is_made_in_parts_is_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        Feed(0, 4, 0, block=12)


def test_training_never_draws_the_clips_it_is_measured_by():
    most = preview_feed._MOST_SEEDS * preview_feed._SEEDS_EACH
    assert most <= 8_000_000 < 8_800_001
