# SPDX-License-Identifier: Apache-2.0
"""How much a delivered file says of where it comes from, and who may read it there.

``full``: everything: the knobs with every prompt, which program asked, all of the plate's metadata
that is carried. ``hashes``: no user, no path and no prompt; digests tie the file to the job's
manifest and to the ledger. ``minimal``: that it was generated, by what and under which licence, and
of the plate's metadata only what a picture is read by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

FULL, HASHES, MINIMAL = "full", "hashes", "minimal"
METADATA = (FULL, HASHES, MINIMAL)
PROMPT = "prompt"

# Under OpenImageIO's names: when a frame is, what its colours are, what its channels mean.
_READ_BY = re.compile(
    r"(smpte:timecode|framespersecond|chromaticities|view|multiview)\Z|cryptomatte/", re.IGNORECASE
)
# What a person wrote freely, or who it was.
_OF_PEOPLE = re.compile(
    r"(imagedescription|copyright|caption|headline|comments?|byline|credit)\Z"
    r"|(\A|[^a-z])(user|artist|author|operator|host|login|email|owner|creator)",
    re.IGNORECASE,
)
_WRITTEN = re.compile(r"prompt|caption|instruction|_objects?\Z|words", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]{2,}\s+\S*[^\W\d_]{2,}")
# What stands in a file at every level: that nobody takes it for a photograph, and may use it.
_ALWAYS = (
    *("gencomp:system", "gencomp:version", "gencomp:layer", "gencomp:licence"),
    *("gencomp:untrained", "gencomp:surrogate", "gencomp:quality"),
)


def text_hash(text: str) -> str:
    """Return the BLAKE2b-256 digest of a text's UTF-8, in hex: what stands for a prompt."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def texts_of(knobs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what an artist wrote into a job's knobs: prompts by name, and whatever has words."""
    return tuple(
        value
        for name, value in knobs.items()
        if isinstance(value, str) and (_WRITTEN.search(name) or _WORDS.search(value))
    )


def carried(metadata: Mapping[str, Any], level: str) -> dict[str, Any]:
    """Return what a delivered file keeps of the plate's metadata."""
    if level == FULL:
        return dict(metadata)
    if level == MINIMAL:
        return {name: value for name, value in metadata.items() if _READ_BY.match(name)}
    return {name: value for name, value in metadata.items() if not _OF_PEOPLE.search(name)}


def told(
    facts: Mapping[str, Any],
    knobs: Mapping[str, Any],
    pictures: Mapping[str, Mapping[int, str]],
    client: str,
    level: str,
) -> dict[str, Any]:
    """Return what a file says of its job.

    Args:
        facts: What made it, by attribute; names nobody.
        knobs: The job's knobs, as plain values.
        pictures: Digest of every picture, by input and frame.
        client: Kind and version of the program that asked.
        level: ``full``, ``hashes`` or ``minimal``.
    """
    if level == MINIMAL:
        return {name: value for name, value in facts.items() if name in _ALWAYS}
    found = dict(facts)
    digests = {name: {str(n): own[n] for n in sorted(own)} for name, own in pictures.items()}
    found["gencomp:inputs_hash"] = text_hash(json.dumps(digests, sort_keys=True))
    if knobs.get(PROMPT):
        found["gencomp:prompt_hash"] = text_hash(str(knobs[PROMPT]))
    if level == FULL:
        found["gencomp:knobs"] = json.dumps(knobs, sort_keys=True)
        if client:
            found["gencomp:client"] = client
    return found
