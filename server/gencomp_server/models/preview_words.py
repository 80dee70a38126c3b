# SPDX-License-Identifier: Apache-2.0
"""The words that the preview model knows, and what a prompt is to it.

A prompt becomes at most :data:`MOST_WORDS` words of :data:`VOCABULARY`, in the order in which they
are written, the task first: "a soft, slightly red shadow to the left" is ``add soft less red shadow
left``. A word that stands before a kind of effect belongs to that effect; what is denied ("no
smoke") is left out. Of everything else the prompt holds, glue is passed over and the rest is named,
so that it can be said what was not understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TASKS = ("remove", "add")
KINDS = ("shadow", "reflection", "smoke", "dust", "splash", "wake", "glow")
SOFTNESS = ("soft", "harsh")
AMOUNTS = ("less", "more")
DIRECTIONS = ("left", "right", "front", "behind")
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "cyan",
    "blue",
    "purple",
    "pink",
    "brown",
    "white",
    "grey",
    "black",
)
NONE = ""
VOCABULARY = (NONE, *TASKS, *KINDS, *SOFTNESS, *AMOUNTS, *DIRECTIONS, *COLOURS)
"""Every word by its number in the table of embeddings; the first stands where there is none."""

UNTAUGHT = ("front", "behind", "cyan")
"""Words that have a number, but that no clip of its training says: they are not read."""

MOST_WORDS = 16
"""Words of a prompt that the model sees, the task's included."""

_SAME = {
    "shadow": "shadows shade shaded shading silhouette",
    "reflection": "reflections reflected reflecting reflect mirror mirrored mirroring",
    "smoke": "smoky smoking steam fog mist vapour vapor fumes haze plume",
    "dust": "dusty sand sandy dirt powder",
    "splash": "splashes splashing spray droplets drops",
    "wake": "wakes ripples ripple waves wave trail",
    "glow": "glows glowing lights illumination halo shine shining lit",
    "soft": "diffuse diffused blurry blurred gentle smooth",
    "harsh": "hard sharp crisp defined",
    "less": "slight slightly faint subtle weak thin little small few fewer",
    "more": "heavy heavily strong strongly dense thick much big large lots huge intense dark deep",
    "left": "leftward leftwards",
    "right": "rightward rightwards",
    "red": "crimson scarlet",
    "orange": "amber",
    "yellow": "golden gold",
    "green": "greenish",
    "blue": "bluish azure",
    "purple": "violet magenta lilac",
    "pink": "rosy rose",
    "brown": "brownish tan earthy",
    "white": "whitish pale",
    "grey": "gray greyish grayish",
    "black": "blackish",
}
_PASSED_OVER = (
    "a an the of and or with on in at to from by for is are it its that this very some over under "
    "onto into as against across along around near him her them his their"
)
_GLUE = frozenset(_PASSED_OVER.split())
_NOT = frozenset(("no", "not", "without", "never", "none"))
_STOPS = frozenset(",.;")
_LIGHT = "light"  # "light dust" is little of it, "a red light" is a glow
_MEANT = {other: word for word, others in _SAME.items() for other in others.split()}
_MEANT.update({word: word for word in VOCABULARY if word not in (NONE, *TASKS, *UNTAUGHT)})


@dataclass(frozen=True)
class Understood:
    """What the model sees of a prompt.

    Attributes:
        words: Of :data:`VOCABULARY`, the task first, at most :data:`MOST_WORDS`.
        unknown: Words of the prompt that are in no table or denied, in its order, each once.
        left_out: Known words for which there was no place.
    """

    words: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """The words' numbers in :data:`VOCABULARY`, filled up to :data:`MOST_WORDS`."""
        return numbers(self.words)


def understand(prompt: str, task: str) -> Understood:
    """Read a prompt for a task.

    Args:
        prompt: In the artist's words; capitals and punctuation do not count.
        task: One of :data:`TASKS`.

    Raises:
        ValueError: There is no such task.
    """
    if task not in TASKS:
        raise ValueError(f"a task of the preview is one of {', '.join(TASKS)}, not {task!r}")
    known: list[str] = []
    unknown: dict[str, None] = {}
    pieces = re.findall(r"[^\W\d_]+|[,.;]", prompt.lower())
    denied = False
    for place, piece in enumerate(pieces):
        word = _meaning(piece, pieces[place + 1 :])
        if word is None or denied:
            if piece not in _GLUE and piece not in _STOPS:
                unknown[piece] = None
        else:
            known.append(word)
        ends = piece in _STOPS or (word in KINDS and pieces[place + 1 : place + 2] != ["or"])
        denied = piece in _NOT or (denied and not ends)
    room = MOST_WORDS - 1
    return Understood((task, *known[:room]), tuple(unknown), tuple(known[room:]))


def _meaning(piece: str, after: list[str]) -> str | None:
    """Return the word that a piece of a prompt stands for; None for none."""
    if piece == _LIGHT:
        follows = _MEANT.get(after[0], NONE) if after else NONE
        return "less" if follows in (*KINDS, *COLOURS, *SOFTNESS) else "glow"
    return _MEANT.get(piece)


def numbers(words: tuple[str, ...]) -> tuple[int, ...]:
    """Return words' numbers, filled up to :data:`MOST_WORDS` with that of :data:`NONE`.

    Raises:
        ValueError: A word is not of :data:`VOCABULARY`, or there are too many.
    """
    strange = [word for word in words if word not in VOCABULARY]
    if strange or len(words) > MOST_WORDS:
        raise ValueError(
            f"the preview takes at most {MOST_WORDS} words of its vocabulary, not {words!r}"
        )
    found = [VOCABULARY.index(word) for word in words]
    return (*found, *([0] * (MOST_WORDS - len(found))))
