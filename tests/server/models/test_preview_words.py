# SPDX-License-Identifier: Apache-2.0
"""What the preview understands of a prompt."""

import pytest

from gencomp_server.models.preview_words import (
    AMOUNTS,
    KINDS,
    MOST_WORDS,
    NONE,
    SOFTNESS,
    TASKS,
    UNTAUGHT,
    VOCABULARY,
    numbers,
    understand,
)
from gencomp_server.training.preview_kinds import COLOURS


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", ()),
        ("shadow", ("shadow",)),
        ("A soft, slightly red shadow to the left!", ("soft", "less", "red", "shadow", "left")),
        ("heavy fog", ("more", "smoke")),
        ("gray dust and a big splash", ("grey", "dust", "more", "splash")),
        ("hard-edged shadows", ("harsh", "shadow")),
        ("light brown dust", ("less", "brown", "dust")),
        ("a red light", ("red", "glow")),
        ("warm light, red smoke", ("glow", "red", "smoke")),
        ("a light and a shadow", ("glow", "shadow")),
    ],
)
def test_a_prompt_is_its_known_words_in_order_behind_the_task(prompt, words):
    assert understand(prompt, "add").words == ("add", *words)


@pytest.mark.parametrize(
    ("prompt", "words", "unknown"),
    [
        ("no shadow, red smoke", ("red", "smoke"), ("no", "shadow")),
        ("smoke without dust or shadows", ("smoke",), ("without", "dust", "shadows")),
    ],
)
def test_what_is_denied_is_not_asked_for(prompt, words, unknown):
    found = understand(prompt, "add")
    assert found.words == ("add", *words)
    assert found.unknown == unknown


def test_words_that_nobody_taught_it_are_named_once():
    found = understand("an elephant casts a shadow, an elephant", "add")
    assert found.unknown == ("elephant", "casts")


def test_words_that_no_clip_of_its_training_says_are_not_read():
    found = understand("a teal shadow behind him", "add")
    assert found.words == ("add", "shadow")
    assert found.unknown == ("teal", "behind")


def test_every_word_that_is_read_can_be_said_of_some_clip():
    said = {*TASKS, *KINDS, *SOFTNESS, *AMOUNTS, "left", "right", *COLOURS}
    assert set(VOCABULARY) - {NONE} - set(UNTAUGHT) == said


def test_words_that_find_no_place_are_named():
    found = understand("shadow " * (MOST_WORDS + 1), "add")
    assert len(found.words) == MOST_WORDS
    assert found.left_out == ("shadow", "shadow")


def test_numbers_are_places_in_the_vocabulary_filled_up_with_none():
    found = understand("red smoke", "add").numbers
    assert len(found) == MOST_WORDS
    assert [VOCABULARY[one] for one in found[:4]] == ["add", "red", "smoke", NONE]
    assert set(found[3:]) == {0}


@pytest.mark.parametrize("words", [("add", "elephant"), ("add",) * (MOST_WORDS + 1)])
def test_numbers_of_what_it_does_not_take_are_refused(words):
    with pytest.raises(ValueError, match="vocabulary"):
        numbers(words)


def test_a_task_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="remove, add"):
        understand("shadow", "paint")
