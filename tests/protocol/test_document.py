# SPDX-License-Identifier: Apache-2.0
"""The authority and the code say the same: every message, field by field, and its example."""

import dataclasses
import json
import re
from pathlib import Path

import msgpack
import pytest

from gencomp_protocol import codec, sockets
from gencomp_protocol import messages as m
from gencomp_protocol.version import PROTOCOL_VERSION

PAGE = (Path(__file__).parents[2] / "docs" / "td" / "protocol.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^#### `(\w+)`\n(.*?)(?=^#{2,4} |\Z)", PAGE, re.M | re.S))
CLASSES = m.message_classes()


def test_the_page_states_the_version_of_the_code():
    assert f"Version **{'.'.join(map(str, PROTOCOL_VERSION))}**" in PAGE


def test_the_page_has_the_messages_of_the_code_in_the_same_order():
    assert list(SECTIONS) == list(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_table_has_the_fields_of_the_class_in_order(name):
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", SECTIONS[name], re.M)
    fields = dataclasses.fields(CLASSES[name])
    assert [row[0] for row in rows] == [field.name for field in fields]
    for (_, kind), field in zip(rows, fields):
        has_default = field.default is not dataclasses.MISSING
        assert ("optional" in kind) == has_default, field.name


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_example_is_a_message_of_that_name(name):
    (example,) = re.findall(r"```json\n(.*?)```", SECTIONS[name], re.S)
    body = [b"\x76\x2f\x31\x01"] if name in ("chunk", "sheet_picture") else []
    message = codec.decode([msgpack.packb(json.loads(example)), *body])
    assert type(message) is CLASSES[name]


def test_the_limits_on_the_page_are_those_of_the_code():
    assert (m.CHUNK_BYTES, m.MESSAGE_BYTES, codec.HEADER_BYTES) == (8 << 20, 16 << 20, 8 << 20)
    assert (m.CREDIT_BYTES, codec.MAX_DEPTH) == (64_000_000, 16)
    assert (sockets.LINGER_MS, sockets.QUEUE_MESSAGES) == (500, 1000)
    assert (sockets.HEARTBEAT_MS, sockets.HEARTBEAT_TIMEOUT_MS) == (2000, 10_000)


def test_every_state_of_a_job_is_on_the_page():
    life = PAGE.split("## 3. A job's life")[1].split("## 4.")[0]
    assert [state for state in m.STATES if state not in life] == []
