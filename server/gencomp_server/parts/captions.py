# SPDX-License-Identifier: Apache-2.0
"""Short words to a full caption, offline: ``soft shadow`` becomes the sentences a model was taught.

Video models are trained on captions of a sentence or two, so two words say less to them than they
say to an artist. Here a table of the usual effects and of the usual words for them writes such a
caption; nothing is guessed about the shot, and the same words give the same caption always. What is
a sentence already, denies something, names two effects or none of the table, or says more than the
table's sentence has room for, is left as it was typed, without the quotes around it.

Source: overplusplus §3.3.2 and appendix E (captions name the effect, how it looks and how it
    changes). The wording is our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NONE = "none"
_SENTENCE_WORDS = 6
"""A prompt of more words is taken for a caption of the artist's own."""
_QUOTES = {
    '"': '"',
    "'": "'",
    "\u201c": "\u201d",
    "\u2018": "\u2019",
    "\u201e": "\u201c",
    "\u00ab": "\u00bb",
}
"""Closing quotes by their opening ones: straight, curly, low and angled."""
_DOUBLE_QUOTES = '"\u201c\u201d\u201e\u00ab\u00bb'
_DENIALS = _words(
    "no not never none nothing without remove removes removed delete erase avoid less minus "
    "except stop hide free cannot cant dont doesnt isnt arent wont mustnt shouldnt"
)
"""Words of a prompt that says what should not be there, which no caption of the table says."""
_PLACES = _words(
    "above across against along around at before behind below beneath beside between down "
    "from in inside into near on onto over past through to toward towards under up with"
)
"""How words behind an effect begin that tell where it is."""
_NO_ADJECTIVES = _words(
    "a an the and or of for with more much lots many most extra another bigger his her its "
    "their my our your this that these those make makes create give put let cast casts get "
    "want need please is are"
)
"""Words before an effect that do not tell how it looks."""
_QUOTED = 60
"""Characters that are quoted of what is cut."""


@dataclass(frozen=True)
class Effect:
    """How one kind of effect is told.

    Attributes:
        words: What artists call it, singular first.
        opening: The sentence with ``{how}`` where the adjectives go, a blank behind them, and
            ``{where}`` where it says where the effect is.
        where: What stands there if the artist says nothing.
        motion: What it does over time: a second sentence.
    """

    words: tuple[str, ...]
    opening: str
    where: str
    motion: str


EFFECTS: tuple[Effect, ...] = (
    Effect(
        ("shadow", "shadows"),
        "The subject casts a {how}shadow {where}.",
        "on the ground and on the surfaces beside it",
        "The shadow stays attached to the subject and follows its movement.",
    ),
    Effect(
        ("reflection", "reflections"),
        "The subject has a {how}reflection {where}.",
        "in the surface below it",
        "The reflection mirrors every movement of the subject.",
    ),
    Effect(
        ("dust",),
        "The subject stirs up {how}dust {where}.",
        "where it touches the ground",
        "The dust rises, drifts behind the subject and slowly settles.",
    ),
    Effect(
        ("smoke",),
        "{how}smoke rises {where}.",
        "around the subject",
        "The smoke billows, drifts and gradually dissipates into the air.",
    ),
    Effect(
        ("splash", "splashes"),
        "The subject throws up a {how}splash {where}.",
        "where it meets the water",
        "Drops fly outwards and fall back, and ripples spread from the subject.",
    ),
    Effect(
        ("wake", "wakes"),
        "The subject leaves a {how}wake {where}.",
        "in the water behind it",
        "The wake spreads outwards, foams near the subject and fades with distance.",
    ),
    Effect(
        ("glow", "light"),
        "The subject gives off a {how}glow {where}.",
        "that lights the surroundings",
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
    if set(_effects_in(words)) & set(_effects_in(typed)):
        return typed
    return f"{words}. {unquoted(typed)}"


def unquoted(words: str) -> str:
    """Return words without the quotes around the whole of them, or a lone one at an end."""
    typed = " ".join(words.split())
    while len(typed) > 1 and _QUOTES.get(typed[0]) == typed[-1] and not _is_quoted(typed[1:-1]):
        typed = typed[1:-1].strip()
    marks = [mark for mark in typed if mark in _DOUBLE_QUOTES]
    return typed.strip(_DOUBLE_QUOTES + " ") if len(marks) == 1 else typed


def _is_quoted(words: str) -> bool:
    """Tell whether words hold quotes of their own, so that those around are not one pair."""
    return any(mark in _DOUBLE_QUOTES for mark in words)


def caption(words: str) -> str:
    """Return the full caption of a few words, or the words themselves where they are one already.

    Args:
        words: Such as ``soft shadow`` or ``thick red smoke``; behind a preset's words and a full
            stop anything, which then follows the caption as it was typed.
    """
    typed = unquoted(words)
    head, _, rest = typed.partition(". ")
    if rest and head not in PRESETS.values():
        return typed
    told = _told(head)
    return typed if told is None else " ".join([told, rest] if rest else [told])


def _told(words: str) -> str | None:
    """Return the caption of a few words; None where the table has none that says just that."""
    named = _effects_in(words)
    if len(named) != 1 or not _is_plain(words):
        return None
    effect = named[0]
    adjectives, tail = _around(words, effect)
    if set(re.findall(r"[a-z]+", adjectives.lower())) & _NO_ADJECTIVES:
        return None
    if tail and tail.split()[0].lower() not in _PLACES:
        return None
    how = adjectives + " " if adjectives else ""
    opening = _with_article(effect.opening.format(how=how, where=tail or effect.where), how)
    looks = [_LOOKS[word][0] for word in adjectives.lower().split() if _is_said_of(word, effect)]
    return " ".join([opening[0].upper() + opening[1:], *dict.fromkeys(looks), effect.motion])


def _is_plain(words: str) -> bool:
    """Tell whether words are no sentence, deny nothing and quote nothing."""
    said = re.findall(r"[a-z]+", re.sub(r"['\u2019]", "", words.lower()))
    denied = any(word in _DENIALS for word in said)
    odd = re.search(r"[.!?;:\"'\u2018\u2019\u201c\u201d]", words)
    return len(words.split()) <= _SENTENCE_WORDS and not denied and odd is None


def _effects_in(words: str) -> tuple[Effect, ...]:
    """Return the effects that are named, each once, the first named first."""
    found: list[Effect] = []
    for word in re.findall(r"[a-z]+", words.lower()):
        for effect in EFFECTS:
            # "light" is an adjective too ("light dust"): it counts only as the last word.
            if word in effect.words and (word != "light" or words.lower().endswith("light")):
                found.append(effect)
    return tuple(dict.fromkeys(found))


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


def spell_cut(cut: str) -> str:
    """Say what :func:`cut_words` returned: how many words, and the first sixty characters."""
    count = len(cut.split())
    quoted = cut if len(cut) <= _QUOTED else cut[:_QUOTED].rstrip() + "…"
    words = "the last word is" if count == 1 else f"the last {count} words are"
    return f"{words} cut: '{quoted}'"
