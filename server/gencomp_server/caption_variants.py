# SPDX-License-Identifier: Apache-2.0
"""Further captions for training clips, written by the assistant's endpoint.

Two kinds are asked for. ``same`` says the same of a clip in other words: any of them may be shown
beside it. ``effects`` tells of the same scene with another effect: prompts for a text-to-video
model, whose videos are unpaired clips. Only captions leave this machine, no picture, and only after
they were shown (``assistant.py``).

Source: Over++ §3.3.2 and supplement E: captions with other effects keep a model's ear for words;
the words here are this project's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from gencomp_protocol.errors import BadKnob, ToolFailed
from gencomp_server.assistant import Letter, post

if TYPE_CHECKING:
    from gencomp_server.assistant import Endpoint

SAME, EFFECTS = "same", "effects"
KINDS = (SAME, EFFECTS)
MOST_VARIANTS = 16
_A_LETTER = 20  # Captions that one question carries.
_MOST_CHARACTERS = 4000

_GUIDES = {
    SAME: "Say the same in other words: other nouns, another order, longer or shorter. Add nothing "
    "that the caption does not say and leave out nothing that happens.",
    EFFECTS: "Keep subject, action, place and camera. Change only what the subject does to its "
    "surroundings: smoke, dust, spray, wake, shadow, reflection, light; its kind, colour, strength "
    "or direction, physically plausible each time, and clearly different from one another.",
}
_FORM = (
    "You are given captions of film clips as a JSON object, a caption by the clip's name. Write "
    "{count} new captions for each. {guide} Answer with one JSON object and nothing else: a list "
    "of {count} texts by the same names."
)


def letters(
    endpoint: Endpoint, captions: Mapping[str, str], count: int, kind: str
) -> Iterator[Letter]:
    """Yield the questions, twenty clips each.

    Args:
        endpoint: Where they would go.
        captions: By clip's name; empty ones are left out.
        count: Captions wanted for each.
        kind: ``same`` or ``effects``.

    Raises:
        BadKnob: No clip has a caption, or a number or kind that there is not.
    """
    if kind not in KINDS or not 1 <= count <= MOST_VARIANTS:
        raise BadKnob(f"Captions are of {' or '.join(KINDS)}, 1 to {MOST_VARIANTS} for each clip.")
    told = [(name, text) for name, text in captions.items() if text.strip()]
    if not told:
        raise BadKnob(
            "No clip has a caption, so there is nothing to vary.",
            hint="Write caption.txt beside each clip, or let gencomp decompose ask for it.",
        )
    guide = _FORM.format(count=count, guide=_GUIDES[kind])
    for first in range(0, len(told), _A_LETTER):
        some = dict(told[first : first + _A_LETTER])
        yield Letter(endpoint, guide, json.dumps(some, indent=1, ensure_ascii=False), ())


def ask(
    endpoint: Endpoint,
    captions: Mapping[str, str],
    count: int,
    kind: str,
    agreed: Callable[[Letter], bool],
) -> dict[str, tuple[str, ...]] | None:
    """Ask for further captions; None where nobody agreed, and then nothing left.

    Args:
        endpoint: Where to ask.
        captions: By clip's name.
        count: Captions wanted for each.
        kind: ``same`` or ``effects``.
        agreed: Shows a letter to somebody and returns what they say; asked before the first goes.

    Raises:
        BadKnob: See :func:`letters`.
        ToolFailed: The endpoint fails, or its answer is not what was asked for.
    """
    asked = list(letters(endpoint, captions, count, kind))
    if not all(agreed(letter) for letter in asked):
        return None
    found: dict[str, tuple[str, ...]] = {}
    for letter in asked:
        found |= read(post(letter), tuple(json.loads(letter.text)), count, endpoint.host)
    return found


def read(said: str, names: tuple[str, ...], count: int, host: str) -> dict[str, tuple[str, ...]]:
    """Read captions out of an answer.

    Raises:
        ToolFailed: It is not the JSON that was asked for; names what is wrong.
    """
    try:
        plain = json.loads(said)
    except ValueError as error:
        raise _refusal(host, "its answer is not JSON") from error
    if not isinstance(plain, dict) or set(plain) != set(names):
        raise _refusal(host, "its answer is not about the clips that were asked for")
    for name, texts in plain.items():
        if not isinstance(texts, list) or len(texts) != count:
            raise _refusal(host, f"there are not {count} captions for '{name}'")
        if not all(isinstance(t, str) and 0 < len(t.strip()) <= _MOST_CHARACTERS for t in texts):
            raise _refusal(host, f"a caption for '{name}' is no text, or an empty one")
    return {name: tuple(" ".join(text.split()) for text in plain[name]) for name in names}


def _refusal(host: str, why: str) -> ToolFailed:
    return ToolFailed(
        f"The captions of the assistant at {host} cannot be used: {why}.",
        hint="Ask again, choose another assistant_model, or write the file yourself.",
        host=host,
    )
