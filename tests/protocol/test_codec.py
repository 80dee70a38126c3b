# SPDX-License-Identifier: Apache-2.0
"""Messages to bytes and back: golden bytes, every class, every way to be malformed."""

import contextlib
import random
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest

from gencomp_protocol import codec
from gencomp_protocol import messages as m
from gencomp_protocol.errors import BadKnob, GencompError, MalformedMessage, error_from_wire
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.request import InputHeader, Request

VECTORS = Path(__file__).parents[1] / "vectors" / "wire"
DIGEST = "0123456789abcdef" * 4
PLATE = InputHeader("plate", (1001, 1048), format=Format(1920, 1080))
REQUEST = Request("omnimatte", FrameRange(1001, 1048), (PLATE,), {"seed": 5})
STILL = InputHeader("plate", (1,), colourspace="srgb")
BAD_KNOB = BadKnob("There is no knob that is called.", knob="gian")

GOLDEN = {
    "ping": m.Ping(7),
    "hello": m.Hello(1, (1, 0), "sesame", "gc 0.1"),
    "refusal": m.Refusal(300, BAD_KNOB),
    "check": m.Check(2, REQUEST),
    "check_ocio": m.Check(2, replace(REQUEST, working_space="ACEScg", ocio="/show/config.ocio")),
    "submit": m.Submit(
        3,
        "k-001",
        Request("omnimatte", FrameRange(1, 1), (STILL,)),
        (m.InputPictures("plate", (m.PictureEntry(1, 65536, DIGEST),), "image"),),
    ),
    "want": m.Want("3f9a", "input", "matte.ab", 1001, 8388608, 8388608, 0),
    "chunk": m.Chunk("3f9a", "layer", "a", -1, 0, b"\x76\x2f\x31\x01"),
    "progress": m.ProgressEvent("3f9a", "solve", 3, 12, 9.75),
    "layer": m.LayerEvent("3f9a", "background", 100, 255, "f" * 64),
    "follow": m.Follow(4, "3f9a", True),
}

# One of every class that has no vector of its own.
OTHERS = [
    m.Welcome(1, (1, 0), "0.1.0", {"credit_bytes": 64000000}, ({"name": "copy"},), "ready"),
    m.Planned(2, {"minutes": 1.5, "notes": []}),
    m.Accepted(3, "3f9a", "queued", 2),
    m.Unfollow(5, "3f9a"),
    m.Cancel(6, "3f9a"),
    m.Release(7, "3f9a"),
    m.Jobs(8),
    m.JobQuery(9, "3f9a"),
    m.JobList(9, ({"job": "3f9a", "error": None},)),
    m.Graph(14, "3f9a"),
    m.JobGraph(14, "3f9a", "running", ({"name": "scene", "needs": [], "seconds": 1.5},)),
    m.Report(15, "3f9a", True),
    m.Reported(15, "3f9a", {"log.txt": ["done"], "job.json": {"state": "done"}}),
    m.Acknowledged(10),
    m.Pong(11),
    m.Health(12),
    m.HealthReport(12, {"front": "ready", "workers": [], "counts": {}}),
    m.Sheet(13, "3f9a"),
    m.SheetPicture(13, "3f9a", b"\x89PNG"),
    m.StateEvent("3f9a", "queued", 1),
    m.WarningEvent("3f9a", "The plate has 3 samples that are NaN."),
    m.DoneEvent("3f9a", {"layers": {"a": {"frames": {"1001": {"bytes": 7}}}}}),
    m.CancelledEvent("3f9a"),
]


def vector(name):
    """Return the frames that a vector file spells."""
    frames = [bytearray()]
    for line in (VECTORS / f"{name}.txt").read_text().splitlines():
        if line.strip() == "---":
            frames.append(bytearray())
        for text, pair in re.findall(r"'([^']*)'|\b([0-9a-f]{2})\b", line.split("#")[0]):
            frames[-1] += text.encode("ascii") if text else bytes.fromhex(pair)
    return [bytes(frame) for frame in frames]


def same(a, b):
    """Compare messages; errors compare by what crosses the wire."""
    return type(a) is type(b) and codec.to_plain(a) == codec.to_plain(b)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_message_is_exactly_its_golden_bytes(name):
    assert codec.encode(GOLDEN[name]) == vector(name)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_bytes_are_the_message(name):
    assert same(codec.decode(vector(name)), GOLDEN[name])


def test_every_vector_is_tested():
    assert {path.stem for path in VECTORS.glob("*.txt")} == set(GOLDEN)


@pytest.mark.parametrize("message", OTHERS, ids=lambda message: message.TYPE)
def test_a_message_survives_the_wire(message):
    assert codec.decode(codec.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        m.Withheld("3f9a", "input", "plate", 1001, BAD_KNOB),
        m.FailedEvent("3f9a", BAD_KNOB),
    ],
    ids=lambda message: message.TYPE,
)
def test_an_error_arrives_as_its_own_class_with_its_details(message):
    error = codec.decode(codec.encode(message)).error
    assert type(error) is BadKnob
    assert (error.message, error.details) == (BAD_KNOB.message, {"knob": "gian"})


def test_every_class_of_message_is_in_one_of_the_tables():
    tried = {type(one) for one in [*GOLDEN.values(), *OTHERS]} | {m.Withheld, m.FailedEvent}
    assert tried == set(m.message_classes().values())


def packed(**fields):
    """Return one header frame with these fields."""
    return [msgpack.packb(fields)]


WANT = codec.to_plain(GOLDEN["want"])


@pytest.mark.parametrize(
    ("frames", "field"),
    [
        pytest.param(packed(type="want", **{**WANT, "frame": "1001"}), "want.frame", id="text"),
        pytest.param(packed(type="want", **{**WANT, "frame": True}), "want.frame", id="a switch"),
        pytest.param(packed(type="want", **{**WANT, "frame": 1.0}), "want.frame", id="a float"),
        pytest.param(packed(type="want", **{**WANT, "offset": -1}), "want.offset", id="negative"),
        pytest.param(packed(type="want", **{**WANT, "length": 0}), "want.length", id="nothing"),
        pytest.param(
            packed(type="want", **{**WANT, "length": 8388609}), "want.length", id="too long"
        ),
        pytest.param(packed(type="want", **{**WANT, "what": "file"}), "want.what", id="what"),
        pytest.param(packed(type="ping"), "ping.id", id="missing"),
        pytest.param(packed(type="hallo", id=1), "type", id="no such message"),
        pytest.param(packed(id=1), "type", id="no type"),
        pytest.param(packed(type=["ping"], id=1), "type", id="type is a list"),
        pytest.param(
            packed(type="hello", id=1, protocol=[1], secret="s"), "hello.protocol", id="version"
        ),
        pytest.param(
            packed(type="hello", id=1, protocol=[1, "0"], secret="s"),
            "hello.protocol[1]",
            id="inside a list",
        ),
        pytest.param(
            packed(type="refusal", id=1, error={"code": "bad-knob"}),
            "refusal.error.message",
            id="inside an error",
        ),
        pytest.param(
            packed(type="progress", job="j", stage="s", step=1, total=2, eta_s=float("nan")),
            "progress.eta_s",
            id="not a number",
        ),
    ],
)
def test_a_wrong_field_is_refused_by_its_path(frames, field):
    with pytest.raises(MalformedMessage) as refusal:
        codec.decode(frames)
    assert refusal.value.details["field"] == field
    assert refusal.value.message.startswith(f"{field}: ")


def test_a_field_deep_in_a_request_is_named_by_its_whole_path():
    plain = codec.to_plain(GOLDEN["submit"])
    plain["request"]["inputs"][0]["frames"] = [1, "2"]
    with pytest.raises(MalformedMessage) as refusal:
        codec.decode(packed(type="submit", **plain))
    assert refusal.value.message == "submit.request.inputs[0].frames[1]: expected int, got str."


def test_unknown_fields_are_ignored_at_every_depth():
    plain = codec.to_plain(GOLDEN["check"])
    plain["request"]["inputs"][0]["tint"] = "blue"
    plain["request"]["mood"] = 3
    frames = packed(type="check", hurry=True, **plain)
    assert codec.decode(frames) == GOLDEN["check"]


def test_a_field_with_a_default_may_be_left_out():
    assert codec.decode(packed(type="follow", id=4, job="3f9a")) == m.Follow(4, "3f9a", False)


def test_a_whole_number_is_taken_for_a_float():
    frames = packed(type="progress", job="j", stage="s", step=1, total=2, eta_s=3)
    assert codec.decode(frames).eta_s == 3.0


def test_a_value_that_is_well_formed_but_not_allowed_keeps_its_own_error():
    plain = codec.to_plain(GOLDEN["check"])
    plain["request"]["frames"] = {"first": 5, "last": 1, "step": 1}
    with pytest.raises(BadKnob, match="runs backwards"):
        codec.decode(packed(type="check", **plain))


def nested(depth):
    """Return a check whose knob holds lists in lists."""
    value = []
    for _ in range(depth):
        value = [value]
    plain = codec.to_plain(GOLDEN["check"])
    plain["request"]["knobs"] = {"seed": value}
    return msgpack.packb({"type": "check", **plain})


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xc1", id="never used"),
        pytest.param(b"\x93\x01", id="cut short"),
        pytest.param(msgpack.packb([1, 2]), id="a list"),
        pytest.param(msgpack.packb({"type": "ping", "id": 1}) + b"\x00", id="something after it"),
        pytest.param(b"\xdd\x80\x00\x00\x00", id="claims two thousand million entries"),
        pytest.param(b"\xc6\x80\x00\x00\x00", id="claims two gigabytes"),
        pytest.param(b"\x91" * 100_000 + b"\x00", id="a hundred thousand deep"),
        pytest.param(b"\x91" * 900 + b"\x00", id="nine hundred deep"),
        pytest.param(nested(20), id="twenty deep in a knob"),
        pytest.param(b"\x81\xa4type\xc4\x01a", id="bytes for text"),
        pytest.param(b"\x81\xa4type\xd4\x01a", id="an ext type"),
        pytest.param(b"\x81\xa4type\xd6\xff\x00\x00\x00\x00", id="a timestamp"),
        pytest.param(b"\x81\x01\x02", id="a key that is a number"),
        pytest.param(b"\x82\xa4type\xa4ping\xa2id\xa1\xff", id="text that is not utf-8"),
        pytest.param(b"\xdb\x00\x20\x00\x00" + b"a" * (2 << 20), id="two megabytes of text"),
        pytest.param(b"\x90" * (9 << 20), id="larger than a header may be"),
    ],
)
def test_bytes_that_are_no_header_are_refused(header):
    with pytest.raises(MalformedMessage):
        codec.decode([header])


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([], id="none"),
        pytest.param([*vector("ping"), b"body"], id="a body where none belongs"),
        pytest.param(vector("chunk")[:1], id="no body where one belongs"),
        pytest.param([*vector("chunk"), b"more"], id="one too many"),
        pytest.param([vector("chunk")[0], b""], id="an empty body"),
    ],
)
def test_a_wrong_number_of_frames_is_refused(frames):
    with pytest.raises(MalformedMessage):
        codec.decode(frames)


def test_no_single_damaged_byte_does_worse_than_a_refusal():
    for name in sorted(GOLDEN):
        header, *body = vector(name)
        for index in range(len(header)):
            for value in (0x00, 0x7F, 0x80, 0xC1, 0xFF):
                damaged = header[:index] + bytes([value]) + header[index + 1 :]
                with contextlib.suppress(GencompError):
                    codec.decode([damaged, *body])


def test_a_value_that_has_no_place_on_the_wire_is_refused_before_it_is_sent():
    with pytest.raises(MalformedMessage, match="planned"):
        codec.encode(m.Planned(1, {"minutes": object()}))


def test_the_id_of_a_malformed_request_is_found_so_that_it_can_be_refused():
    assert codec.request_id_of(packed(type="follow", id=9)) == 9
    assert codec.request_id_of(packed(type="follow", id="9")) == 0
    assert codec.request_id_of([b"\xc1"]) == 0


def test_a_request_survives_the_job_table():
    plain = codec.request_to_plain(REQUEST)
    assert codec.request_from_plain(plain) == REQUEST


def test_a_digest_depends_on_content_and_not_on_order():
    assert codec.canonical({"b": 1, "a": [True, None, "é"]}) == b'{"a":[true,null,"\\u00e9"],"b":1}'
    assert codec.digest_of({"a": 1, "b": 2}) == codec.digest_of({"b": 2, "a": 1})
    with pytest.raises(MalformedMessage):
        codec.canonical(float("nan"))


def test_an_unknown_error_code_still_carries_its_sentence():
    error = error_from_wire({"code": "from-the-future", "message": "Something new."})
    assert type(error) is GencompError
    assert str(error) == "Something new."


@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"\x91" * 8_000_000, "nested deeper"),
        (b"\xdd\x00\x03\x0d\x40" * 100_000, "nested deeper"),
        (b"\x91" * 15_000, "nested deeper"),
        (b"\xdd\x00\x00\x3a\x98" * 3_000, "nested deeper"),
        (b"\xdd\x00\x03\x0d\x40" + (b"\x9f" + b"\x80" * 15) * 200_000, "more values"),
        (b"\xdc\x00\x0a" + (b"\xdd\x00\x06\x1a\x80" + b"\x80" * 400_000) * 10, "more values"),
        (b"\xdd\xff\xff\xff\xff" + b"\xc0" * 100_000, "more values"),
        (b"\x81\xa4type\xc6\xff\xff\xff\xff" + b"x" * 100_000, "cannot be read"),
    ],
    ids=range(8),
)
def test_bombs_are_refused_before_they_take_room(header, words, monkeypatch):
    monkeypatch.setattr(codec.msgpack, "unpackb", None)  # It would give lists their room at once.
    with pytest.raises(MalformedMessage, match=words):
        codec.decode([header])


@pytest.mark.fault("F15")
def test_a_small_header_takes_no_more_than_it_could_be_worth():
    tracemalloc.start()
    try:
        for header in (b"\xdc\x07\xff" * 682, b"\xdd\x00\x03\x0d\x40" * 400, b"\xdf" * 2048):
            with pytest.raises(MalformedMessage):
                codec.decode([header])
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def anything(rng, depth=0):
    """Return some plain value."""
    kind = rng.randrange(8 if depth < 9 else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.randrange(-(2**63), 2**64)
    if kind == 2:
        return rng.choice([rng.random(), rng.randrange(-40, 300), rng.randrange(70_000)])
    if kind in (3, 4):
        return "x" * rng.choice([0, 1, 31, 32, 255, 256, 70_000])
    if kind == 5:
        return b"y" * rng.choice([0, 1, 255, 256, 70_000])
    many = range(rng.choice([0, 1, 3, 15, 16]))
    if kind == 6:
        return [anything(rng, depth + 1) for _ in many]
    return {str(at): anything(rng, depth + 1) for at in many}


def test_what_is_measured_is_what_msgpack_reads():
    rng, whole = random.Random(7), 0
    for _ in range(60):
        packed = msgpack.packb(anything(rng))
        if len(packed) < 2_000_000:
            codec._measure(packed)
            whole += 1
            with pytest.raises(ValueError, match="too early"):
                codec._measure(packed[:-1] if packed[:-1] else b"")
    assert whole > 30
