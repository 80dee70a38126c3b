# SPDX-License-Identifier: Apache-2.0
"""Messages to wire frames and back; strict, and naming the field that is wrong. No sockets here.

A message is one msgpack map (``type`` and the fields), followed by one frame of raw bytes where
the class has a ``body``. Decoding is strict on types and on missing fields and ignores unknown
ones, so that a newer peer can add some. What a hostile peer can send is bounded before it is
looked at: size, nesting, ext types, map keys.
"""

import dataclasses
import functools
import json
import math
import typing
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Union

import msgpack

from gencomp_protocol.errors import GencompError, MalformedMessage, error_from_wire
from gencomp_protocol.messages import InputPictures, Message, message_classes
from gencomp_protocol.request import ONLY_WHERE_SET, Request

HEADER_BYTES = 8 * 1024 * 1024  # Largest header frame; chunks' bodies have a limit of their own.
MAX_DEPTH = 16
_MAX_ITEMS = 200_000
_MAX_TEXT = 1024 * 1024
_MAX_VALUES = 1_000_000  # In all of a header.
_PLAINLY_SMALL = 2048  # Bytes of a header that can do no harm.
# By first byte: how many bytes follow, and what they count: 1 entries of a list, 2 of a map, -1
# bytes of text or data, 0 nothing (they are the value).
_FIXED = {
    **dict.fromkeys((0xC4, 0xC7, 0xD9), (1, -1)),
    **dict.fromkeys((0xC5, 0xC8, 0xDA), (2, -1)),
    **dict.fromkeys((0xC6, 0xC9, 0xDB), (4, -1)),
    **dict.fromkeys((0xCC, 0xD0), (1, 0)),
    **dict.fromkeys((0xCD, 0xD1, 0xD4), (2, 0)),
    **dict.fromkeys((0xCE, 0xD2, 0xCA), (4, 0)),
    **dict.fromkeys((0xCF, 0xD3, 0xCB), (8, 0)),
    0xD5: (3, 0),
    0xD6: (5, 0),
    0xD7: (9, 0),
    0xD8: (17, 0),
    0xDC: (2, 1),
    0xDD: (4, 1),
    0xDE: (2, 2),
    0xDF: (4, 2),
}
_BODY = "body"


# --- encoding ------------------------------------------------------------------------------------


def encode(message: Message) -> list[bytes]:
    """Return the wire frames of a message: the header, and the body where it has one.

    Raises:
        MalformedMessage: A value has no place on the wire, or the header is too large.
    """
    plain = to_plain(message)
    body = plain.pop(_BODY, None)
    try:
        header: bytes = msgpack.packb({"type": message.TYPE, **plain})
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedMessage(f"{message.TYPE}: a value cannot be sent ({error}).") from error
    if len(header) > HEADER_BYTES:
        raise MalformedMessage(f"{message.TYPE}: the header is {len(header)} bytes, too large.")
    return [header] if body is None else [header, body]


def to_plain(value: Any) -> Any:
    """Return a message, request or part of one as maps, lists, text and numbers."""
    if isinstance(value, GencompError):
        return value.to_wire()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_plain(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if ONLY_WHERE_SET not in f.metadata or getattr(value, f.name) != f.default
        }
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(entry) for entry in value]
    return value


def request_to_plain(request: Request) -> dict[str, Any]:
    """Return a request as plain data, for the wire, the job table and the worker."""
    plain: dict[str, Any] = to_plain(request)
    return plain


def canonical(plain: Any) -> bytes:
    """Return plain data as bytes that depend on its content alone, for digests.

    Raises:
        MalformedMessage: It holds NaN, or something that is not plain.
    """
    try:
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MalformedMessage(f"A value cannot be sent ({error}).") from error
    return text.encode("ascii")


def digest_of(plain: Any) -> str:
    """Return the BLAKE2b-256 digest of plain data, in hex."""
    return blake2b(canonical(plain), digest_size=32).hexdigest()


# --- decoding ------------------------------------------------------------------------------------


def decode(frames: Sequence[bytes]) -> Message:
    """Return the message that some wire frames hold.

    Raises:
        MalformedMessage: Anything that does not follow the protocol; names the field.
        ArtistError: A value is well formed but not allowed, such as a range that runs backwards.
    """
    plain = _header(frames)
    kind = plain.get("type")
    cls = _classes().get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise MalformedMessage(f"type: there is no message {kind!r}.", field="type")
    has_body = any(f.name == _BODY for f in dataclasses.fields(cls))
    if len(frames) != 1 + has_body:
        raise MalformedMessage(f"{kind}: expected {1 + has_body} frames, got {len(frames)}.")
    if has_body:
        plain = {**plain, _BODY: bytes(frames[1])}
    message: Message = _build(cls, plain, cls.TYPE)
    return message


def request_id_of(frames: Sequence[bytes]) -> int:
    """Return the id of a request that may be malformed, so that it can be refused; else 0."""
    try:
        found = _header(frames).get("id")
    except MalformedMessage:
        return 0
    return found if isinstance(found, int) and 0 < found < 2**63 else 0


def request_from_plain(plain: Any, path: str = "request") -> Request:
    """Return the request that plain data holds, checked as on the wire.

    Raises:
        MalformedMessage: A field is missing or of the wrong type; names it below ``path``.
    """
    request: Request = _build(Request, plain, path)
    return request


def inputs_from_plain(plain: Any, path: str = "inputs") -> tuple[InputPictures, ...]:
    """Return the pictures of a job that plain data holds, checked as on the wire.

    Raises:
        MalformedMessage: A field is missing or of the wrong type; names it below ``path``.
    """
    inputs: tuple[InputPictures, ...] = _convert(tuple[InputPictures, ...], plain, path)
    return inputs


@functools.lru_cache(maxsize=1)
def _classes() -> dict[str, type[Message]]:
    return message_classes()


def _header(frames: Sequence[bytes]) -> dict[str, Any]:
    """Unpack the first frame into a map, within the limits."""
    if not frames or len(frames[0]) > HEADER_BYTES:
        raise MalformedMessage("The message has no header of a size that is taken.")
    try:
        if len(frames[0]) > _PLAINLY_SMALL:
            _measure(frames[0])
        # A list is given its room before its entries are read: so it cannot have more than bytes.
        most = min(_MAX_ITEMS, len(frames[0]))
        plain = msgpack.unpackb(
            frames[0],
            raw=False,
            strict_map_key=True,
            max_str_len=_MAX_TEXT,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=most,
            max_map_len=most,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        why = str(error) or type(error).__name__
        raise MalformedMessage(f"The message header cannot be read ({why}).") from error
    _check_depth(plain)
    if not isinstance(plain, dict):
        raise MalformedMessage("The message header is not a map.")
    return plain


def _measure(header: bytes) -> None:
    """Refuse a header that is nested too deeply or has too many values, before any is made.

    Eight megabytes of empty maps would take half a gigabyte; lists of lists that promise entries
    and have none take more yet.

    Raises:
        MalformedMessage: It is.
        ValueError: It ends too early, or holds what has no place on the wire.
    """
    open_: list[int] = []
    left, at, count, end = 1, 0, 0, len(header)
    while left or open_:
        if not left:
            left = open_.pop()
            continue
        if at >= end:
            raise ValueError("it ends too early")
        left -= 1
        count += 1
        first = header[at]
        size, entries = _FIXED.get(first, (0, 0))
        at += 1
        if first < 0x80 or first >= 0xE0:
            continue
        if first < 0xA0:
            entries = (first & 15) * (2 if first < 0x90 else 1)
        elif first < 0xC0:
            at += first & 31
        elif entries:
            number = int.from_bytes(header[at : at + size], "big")
            at += size
            if entries > 0:
                entries = entries * number
            else:
                at, entries = at + number, 0
        else:
            at += size
        if entries:
            if len(open_) >= MAX_DEPTH:
                raise MalformedMessage(f"The message is nested deeper than {MAX_DEPTH}.")
            open_.append(left)
            left = entries
        if count > _MAX_VALUES or left > 2 * _MAX_ITEMS:
            raise MalformedMessage("The message holds more values than any message does.")
    if at > end:
        raise ValueError("it ends too early")


def _check_depth(plain: Any) -> None:
    """Refuse data nested deeper than any message is, without recursing into it."""
    layer, depth = [plain], 0
    while layer:
        depth += 1
        if depth > MAX_DEPTH:
            raise MalformedMessage(f"The message is nested deeper than {MAX_DEPTH}.")
        nested = [entry for entry in layer if isinstance(entry, (dict, list))]
        layer = [
            child
            for entry in nested
            for child in (entry.values() if isinstance(entry, dict) else entry)
        ]


def _build(cls: Any, plain: Any, path: str) -> Any:
    """Make the dataclass ``cls`` from a map whose place in the message is ``path``."""
    if not isinstance(plain, dict):
        raise _wrong(path, "a map", plain)
    hints = _hints(cls)
    values = {}
    for spec in dataclasses.fields(cls):
        if spec.name in plain:
            values[spec.name] = _convert(hints[spec.name], plain[spec.name], f"{path}.{spec.name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            where = f"{path}.{spec.name}"
            raise MalformedMessage(f"{where}: is missing.", field=where)
    return cls(**values)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Union:  # Optional[X] is the only union on the wire.
        return None if value is None else _convert(args[0], value, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(path, "a list", value)
        return tuple(_convert(args[0], entry, f"{path}[{i}]") for i, entry in enumerate(value))
    if origin is not None:  # Mapping[str, X]
        if not isinstance(value, dict):
            raise _wrong(path, "a map", value)
        return {key: _convert(args[1], entry, f"{path}.{key}") for key, entry in value.items()}
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path)
    if hint is GencompError:
        return _error(value, path)
    return value if hint is Any else _scalar(hint, value, path)


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and _is_number(value):
        return float(value)
    if hint is int and _is_int(value):
        return value
    if hint in (str, bool, bytes) and isinstance(value, hint):
        return value
    raise _wrong(path, hint.__name__, value)


def _error(value: Any, path: str) -> GencompError:
    if not isinstance(value, dict):
        raise _wrong(path, "a map", value)
    for name in ("code", "message"):
        if not isinstance(value.get(name), str):
            raise _wrong(f"{path}.{name}", "str", value.get(name))
    return error_from_wire(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _wrong(path: str, wanted: str, value: Any) -> MalformedMessage:
    return MalformedMessage(f"{path}: expected {wanted}, got {type(value).__name__}.", field=path)
