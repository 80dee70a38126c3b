# SPDX-License-Identifier: Apache-2.0
"""Short words to captions: literal sentences, one per preset."""

import pytest

from gencomp_server.parts.captions import PRESETS, caption, cut_words, short_words, spell_cut

CAPTIONS = {
    "none": "",
    "soft shadow": "The subject casts a soft shadow on the ground and on the surfaces beside it. "
    "Its edges are soft and blurred. "
    "The shadow stays attached to the subject and follows its movement.",
    "harsh shadow": "The subject casts a harsh shadow on the ground and on the surfaces beside it. "
    "Its edges are hard and sharply defined. "
    "The shadow stays attached to the subject and follows its movement.",
    "dust": "The subject stirs up light brown dust where it touches the ground. "
    "The dust rises, drifts behind the subject and slowly settles.",
    "smoke": "Thin white smoke rises around the subject. "
    "It is so thin that what lies behind it can be seen. "
    "The smoke billows, drifts and gradually dissipates into the air.",
    "splash": "The subject throws up a splash where it meets the water. "
    "Drops fly outwards and fall back, and ripples spread from the subject.",
    "wake": "The subject leaves a wake in the water behind it. "
    "The wake spreads outwards, foams near the subject and fades with distance.",
    "reflection": "The subject has a clear reflection in the surface below it. "
    "The reflection mirrors every movement of the subject.",
    "glow": "The subject gives off a warm glow that lights the surroundings. "
    "Its light is warm. The glow falls off with distance and moves with the subject.",
}


@pytest.mark.parametrize("preset", PRESETS)
def test_when_only_a_preset_is_chosen_then_its_caption_is_this_one(preset):
    assert caption(short_words("", preset)) == CAPTIONS[preset]


def test_when_the_prompt_names_the_presets_effect_then_the_prompt_wins():
    assert short_words("blue smoke", "smoke") == "blue smoke"


def test_when_the_prompt_says_more_than_the_preset_then_both_are_told():
    assert short_words("at dusk", "dust") == "light brown dust. at dusk"
    assert caption(short_words("at dusk", "dust")).endswith("slowly settles. at dusk")


def test_when_adjectives_start_with_a_vowel_then_the_article_fits():
    assert caption("orange glow").startswith("The subject gives off an orange glow")


def test_when_words_follow_the_effect_then_they_stay_in_the_sentence():
    assert caption("long shadow to the left").startswith(
        "The subject casts a long shadow to the left. The shadow stays"
    )
    assert caption("soft shadow on sand") == (
        "The subject casts a soft shadow on sand. Its edges are soft and blurred. "
        "The shadow stays attached to the subject and follows its movement."
    )
    assert caption("thick smoke from the tyres").startswith("Thick smoke rises from the tyres. It")


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "make it nicer",
        "A car performs a drift and throws up dense white smoke in a wide arc.",
        "A short shadow.",
        "no shadow",
        "remove the shadow",
        "without dust",
        "dust-free",
        "don't add smoke",
        "shadow and dust",
        "soft shadow on sand, no dust",
        "Soft shadow. Slow dust.",
        "the soft shadow of somebody else's tree",
        "long low shadow over all the stairs",
        "more wake",
        "make a soft shadow",
        "his shadow",
        "smoke drifting left",
    ],
)
def test_when_the_words_are_a_caption_or_name_no_effect_then_they_stay(typed):
    assert caption(typed) == typed


@pytest.mark.parametrize("word", ["faint", "transparent", "turbulent"])
def test_when_an_adjective_only_ends_like_a_denial_then_there_is_a_caption(word):
    assert f"a {word} wake" in caption(f"{word} wake")


@pytest.mark.parametrize(
    "typed",
    [
        '"soft shadow"',
        "'soft shadow'",
        "\u201csoft shadow\u201d",
        "\u2018soft shadow\u2019",
        "\"'soft shadow'\"",
        '"soft shadow',
        " soft  shadow\u201d ",
    ],
)
def test_when_quotes_stand_around_the_words_then_they_are_no_part_of_them(typed):
    assert caption(typed) == CAPTIONS["soft shadow"]


def test_when_quotes_stand_around_a_sentence_then_it_stays_without_them():
    assert caption('"A car drifts, and dust rises behind it."') == (
        "A car drifts, and dust rises behind it."
    )
    assert caption('"soft" or "hard"') == '"soft" or "hard"'
    assert caption("the dog's shadow") == "the dog's shadow"


def test_when_a_preset_goes_before_a_denial_then_that_stays_as_typed():
    told = caption(short_words('"no dust"', "soft shadow"))
    assert told == CAPTIONS["soft shadow"] + " no dust"


def test_when_light_is_an_adjective_then_it_is_no_glow():
    assert caption("light dust").startswith("The subject stirs up light dust")
    assert caption("warm light").startswith("The subject gives off a warm glow")


def test_when_a_prompt_is_too_long_then_what_is_cut_is_named():
    def count(text):
        return len(text.split()) + 1

    assert cut_words("one two three four", count, 3) == "three four"
    assert cut_words("one two", count, 3) == ""


def test_when_much_is_cut_then_its_beginning_is_quoted_and_its_words_are_counted():
    said = spell_cut(" ".join(["whale"] * 300))
    assert said == f"the last 300 words are cut: '{'whale ' * 9}whale…'"
    assert spell_cut("whale") == "the last word is cut: 'whale'"
    assert spell_cut("a whale") == "the last 2 words are cut: 'a whale'"
