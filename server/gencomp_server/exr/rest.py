# SPDX-License-Identifier: Apache-2.0
"""What a picture's file holds besides its R, G and B: the channels, parts and views to carry along.

Found and read in the decoder process, kept in the spool as one file of planes, each in the type it
has in the file, and written beside a layer's own channels (``exr/write.py``). Here is only what
describes them: neither numpy nor OpenImageIO is imported.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gencomp_protocol.frames import Box, spell_frames

SAMPLE_BYTES = {"half": 2, "float": 4, "uint": 4}
_ALIGNED = 8  # A plane begins at a multiple of so many bytes.


@dataclass(frozen=True)
class RestChannel:
    """A channel to carry along: its name, and ``half``, ``float`` or ``uint``."""

    name: str
    pixel_type: str


@dataclass(frozen=True)
class RestPart:
    """What to carry along of one part.

    Attributes:
        name: Its name; may be empty where the file has one part.
        data_window: The pixels present.
        channels: Its channels, less R, G and B where it is the part that those are read from.
        metadata: Its attributes worth carrying on, with those of its channels and views.
    """

    name: str
    data_window: Box
    channels: tuple[RestChannel, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rest:
    """What to carry along of one file.

    Attributes:
        parts: Its parts, in the file's order; one without a channel is that of R, G and B.
        colour: Which of ``parts`` R, G and B are read from.
        left_out: What cannot be carried, as phrases: ``the deep part 'fog'``.
    """

    parts: tuple[RestPart, ...]
    colour: int
    left_out: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all channels; those of another part with the part's name before a colon."""
        own = self.parts[self.colour]
        return tuple(
            channel.name if part is own else f"{part.name}:{channel.name}"
            for part in self.parts
            for channel in part.channels
        )

    @property
    def bytes(self) -> int:
        """Size of all planes on disk."""
        return sum(plane_bytes(part, channel) for part, channel in self.planes())

    def planes(self) -> Iterator[tuple[RestPart, RestChannel]]:
        """Return part and channel of each plane, in their order on disk."""
        for part in self.parts:
            for channel in part.channels:
                yield part, channel


def plane_bytes(part: RestPart, channel: RestChannel) -> int:
    """Return what one plane takes on disk, up to where the next begins."""
    window = part.data_window
    size = window.width * window.height * SAMPLE_BYTES[channel.pixel_type]
    return -(-size // _ALIGNED) * _ALIGNED


def rest_to_plain(rest: Rest) -> dict[str, Any]:
    """Return a description as plain data for JSON."""
    return {
        "colour": rest.colour,
        "left_out": list(rest.left_out),
        "parts": [
            {
                "name": part.name,
                "data_window": [getattr(part.data_window, side) for side in _SIDES],
                "channels": [[one.name, one.pixel_type] for one in part.channels],
                "metadata": dict(part.metadata),
            }
            for part in rest.parts
        ],
    }


_SIDES = ("x0", "y0", "x1", "y1")


def rest_from_plain(data: Mapping[str, Any]) -> Rest:
    """Return the description that :func:`rest_to_plain` wrote."""
    parts = tuple(
        RestPart(
            name=part["name"],
            data_window=Box(*part["data_window"]),
            channels=tuple(RestChannel(*one) for one in part["channels"]),
            metadata=metadata_from_plain(part["metadata"]),
        )
        for part in data["parts"]
    )
    return Rest(parts, data["colour"], tuple(data["left_out"]))


def metadata_from_plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata out of JSON, which knows no tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
    }


def left_out_sentences(name: str, found: Mapping[int, Rest]) -> tuple[str, ...]:
    """Return what an artist is told of what cannot be carried along, once for all frames.

    Args:
        name: The input.
        found: What its files hold, by frame.
    """
    frames: dict[str, list[int]] = {}
    for n, rest in sorted(found.items()):
        for phrase in rest.left_out:
            frames.setdefault(phrase, []).append(n)
    return tuple(
        f"Input '{name}': {phrase} is left out of the other channels at {spell_frames(where)}; "
        "flat channels at full resolution are carried."
        for phrase, where in frames.items()
    )
