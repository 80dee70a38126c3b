# SPDX-License-Identifier: Apache-2.0
"""Messages that somebody made up: read, or refused with a sentence; from seeds, so repeatable."""

import random

import msgpack
import pytest

from gencomp_protocol import codec
from gencomp_protocol.errors import GencompError
from gencomp_protocol.messages import Message

from .test_codec import GOLDEN, vector

_VALUES = (None, True, False, 0, -1, 2**63, -(2**63), 0.5, float("nan"), "", "x" * 999, "\x00", [])
_NAMES = ("id", "type", "job", "request", "frames", "inputs", "layer", "x" * 300, "\u202e", "error")


def plain(chance, depth=0):
    """Return a value of any shape."""
    kind = chance.random()
    if depth > 4 or kind < 0.5:
        return chance.choice(_VALUES)
    if kind < 0.7:
        return [plain(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(_NAMES): plain(chance, depth + 1) for _ in range(chance.randrange(4))}


def spoil(value, chance):
    """Return a message's plain data with something in it that does not belong there."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(sorted(value))
        return {**value, name: spoil(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], spoil(value[at], chance), *value[at + 1 :]]
    return plain(chance)


def read(frames):
    """Return the message, or None where it is refused with a sentence."""
    try:
        made = codec.decode(frames)
    except GencompError as error:
        said = error.message
    else:
        assert isinstance(made, Message)
        return made
    assert said
    return None


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_message_with_a_field_of_any_other_shape_is_read_or_refused(name):
    header, *body = vector(name)
    told = msgpack.unpackb(header)
    taken = 0
    for seed in range(250):
        chance = random.Random(seed)
        spoilt = spoil(told, chance)
        taken += read([msgpack.packb(spoilt), *body]) is not None
    assert taken < 250


def test_bytes_of_any_kind_are_refused():
    for seed in range(3000):
        chance = random.Random(seed)
        frames = [chance.randbytes(chance.randrange(80)) for _ in range(chance.randrange(1, 4))]
        assert read(frames) is None
        codec.request_id_of(frames)


def test_messages_cut_anywhere_are_refused():
    for name in sorted(GOLDEN):
        header, *body = vector(name)
        for end in range(len(header)):
            assert read([header[:end], *body]) is None
