# SPDX-License-Identifier: Apache-2.0
"""Short words to a full caption, offline: ``soft shadow`` becomes the sentences a model was taught.

Video models are trained on captions of a sentence or two, so two words say less to them than they
say to an artist. Here a table of the usual effects and of the usual words for them writes such a
caption; nothing is guessed about the shot, and the same words give the same caption always. What is
a sentence already, or names no effect of the table, is left as it was typed.

Source: overplusplus §3.3.2 and appendix E (captions name the effect, how it looks and how it
    changes). The wording is our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

NONE = "none"
_SENTENCE_WORDS = 8
"""A prompt of more words is taken for a caption of the artist's own."""


@dataclass(frozen=True)
class Effect:
    """How one kind of effect is told.

    Attributes:
        words: What artists call it, singular first.
        opening: The sentence with ``{how}`` where the adjectives go, a blank behind them.
        motion: What it does over time: a second sentence.
    """

    words: tuple[str, ...]
    opening: str
    motion: str


EFFECTS: tuple[Effect, ...] = (
    Effect(
        ("shadow", "shadows"),
        "The subject casts a {how}shadow on the ground and on the surfaces beside it.",
        "The shadow stays attached to the subject and follows its movement.",
    ),
    Effect(
        ("reflection", "reflections"),
        "The subject has a {how}reflection in the surface below it.",
        "The reflection mirrors every movement of the subject.",
    ),
    Effect(
        ("dust",),
        "The subject stirs up {how}dust where it touches the ground.",
        "The dust rises, drifts behind the subject and slowly settles.",
    ),
    Effect(
        ("smoke",),
        "{how}smoke rises around the subject.",
        "The smoke billows, drifts and gradually dissipates into the air.",
    ),
    Effect(
        ("splash", "splashes"),
        "The subject throws up a {how}splash where it meets the water.",
        "Drops fly outwards and fall back, and ripples spread from the subject.",
    ),
    Effect(
        ("wake", "wakes"),
        "The subject leaves a {how}wake in the water behind it.",
        "The wake spreads outwards, foams near the subject and fades with distance.",
    ),
    Effect(
        ("glow", "light"),
        "The subject gives off a {how}glow that lights the surroundings.",
        "The glow falls off with distance and moves with the subject.",
    ),
)

# What an adjective looks like; the effects it is said of, or all of them where there are none.
_LOOKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "soft": ("Its edges are soft and blurred.", ()),
    "harsh": ("Its edges are hard and sharply defined.", ()),
    "hard": ("Its edges are hard and sharply defined.", ()),
    "turbulent": ("It churns with white foam.", ("splash", "wake")),
    "mild": ("It is gentle and barely disturbs the surface.", ("splash", "wake")),
    "thick": ("It is dense and hides what lies behind it.", ("dust", "smoke")),
    "thin": ("It is so thin that what lies behind it can be seen.", ("dust", "smoke")),
    "wet": ("The surface is wet and glossy.", ("reflection",)),
    "warm": ("Its light is warm.", ("glow",)),
    "cold": ("Its light is cold.", ("glow",)),
}

PRESETS: dict[str, str] = {
    NONE: "",
    "soft shadow": "soft shadow",
    "harsh shadow": "harsh shadow",
    "dust": "light brown dust",
    "smoke": "thin white smoke",
    "splash": "splash",
    "wake": "wake",
    "reflection": "clear reflection",
    "glow": "warm glow",
}
"""The words that each value of the knob ``preset`` stands for."""


def short_words(prompt: str, preset: str = NONE) -> str:
    """Return what an artist asked for, before it becomes a caption.

    Args:
        prompt: What was typed; empty where a preset is enough.
        preset: A key of :data:`PRESETS`.

    Returns:
        The prompt; the preset's words where nothing was typed; both where both are there and the
        prompt does not name the preset's effect itself.
    """
    typed, words = " ".join(prompt.split()), PRESETS[preset]
    if not typed or not words:
        return typed or words
    named, meant = _effect_in(typed), _effect_in(words)
    return typed if named is meant else f"{words}. {typed}"


def caption(words: str) -> str:
    """Return the full caption of a few words, or the words themselves where they are one already.

    Args:
        words: Such as ``soft shadow`` or ``thick red smoke``.
    """
    typed = " ".join(words.split())
    head, _, rest = typed.partition(". ")
    effect = _effect_in(head)
    if effect is None or len(head.split()) > _SENTENCE_WORDS or head.endswith((".", "!", "?")):
        return typed
    adjectives, tail = _around(head, effect)
    how = adjectives + " " if adjectives else ""
    opening = effect.opening.format(how=how)
    opening = _with_article(opening, how)
    if tail:
        opening = f"{opening[:-1]} {tail}."
    looks = [_LOOKS[word][0] for word in adjectives.lower().split() if _is_said_of(word, effect)]
    sentences = [opening[0].upper() + opening[1:], *dict.fromkeys(looks), effect.motion]
    return " ".join([*sentences, rest] if rest else sentences)


def _effect_in(words: str) -> Effect | None:
    """Return the effect that is named first, or None."""
    for word in re.findall(r"[a-z]+", words.lower()):
        for effect in EFFECTS:
            # "light" is an adjective too ("light dust"): it counts only as the last word.
            if word in effect.words and (word != "light" or words.lower().endswith("light")):
                return effect
    return None


def _around(words: str, effect: Effect) -> tuple[str, str]:
    """Return what stands before the effect's name, without an article, and what behind it."""
    pattern = r"\b(?:" + "|".join(sorted(effect.words, key=len, reverse=True)) + r")\b"
    matches = list(re.finditer(pattern, words, re.IGNORECASE))
    match = matches[-1] if effect.words[-1] == "light" else matches[0]
    before = re.sub(r"^(?:a|an|the|add|some)\s+", "", words[: match.start()].strip(), flags=re.I)
    return before.strip(" ,"), words[match.end() :].strip(" ,.")


def _is_said_of(word: str, effect: Effect) -> bool:
    return word in _LOOKS and (not _LOOKS[word][1] or effect.words[0] in _LOOKS[word][1])


def _with_article(sentence: str, how: str) -> str:
    """Write ``an`` before a vowel where an adjective took the place behind ``a``."""
    if how and how[0].lower() in "aeio" and f" a {how}" in sentence:
        return sentence.replace(f" a {how}", f" an {how}", 1)
    return sentence


def cut_words(prompt: str, count: Callable[[str], int], limit: int) -> str:
    """Return the end of a prompt that does not fit a model, in the artist's own words.

    Args:
        prompt: What was asked.
        count: Returns the tokens of a text, its end mark counted; never falls as the text grows.
        limit: Most tokens the model reads.

    Returns:
        The words from the first that is not wholly read; empty where all are.
    """
    if count(prompt) <= limit:
        return ""
    words = prompt.split()
    low, high = 0, len(words)
    while low < high:  # the most words that fit
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if count(" ".join(words[:middle])) <= limit else (low, middle - 1)
        )
    return " ".join(words[low:])
