# SPDX-License-Identifier: Apache-2.0
"""What a client asks for: the header of a job, complete before any picture travels.

A :class:`Request` is plain data. It says which system, which frames, which inputs of which format,
and the knobs that differ from their defaults. Everything that can be refused from it is refused
before a single picture is rendered or sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from gencomp_protocol.frames import Format, FrameRange

# Marks a field that stays off the wire while it has its default, so that a request that does not
# use it is, byte for byte, what it was before there was one.
ONLY_WHERE_SET = "only where set"

SEQUENCE = "sequence"
STILL = "still"
STILLS = "stills"


@dataclass(frozen=True)
class InputHeader:
    """One input of a request.

    Attributes:
        name: ``plate``, ``matte.boy``, ``clean_plate`` …
        frames: Frame numbers of the pictures that will be sent, ascending.
        cover: How they cover the job's range. ``sequence``: one picture per frame. ``still``: one
            picture stands for every frame. ``stills``: pictures at a few frames only.
        format: Size and pixel aspect of the display window, if the client knows it.
        channel: For a matte: the channel to read (``A``, ``mask.red``); None means the alpha if
            there is one, else the first channel.
        colourspace: ``scene_linear`` or ``srgb``: what the file holds. Pictures that are not EXR
            are converted by the server's decoder; an EXR is always scene-linear.
    """

    name: str
    frames: tuple[int, ...]
    cover: str = SEQUENCE
    format: Optional[Format] = None
    channel: Optional[str] = None
    colourspace: str = "scene_linear"


@dataclass(frozen=True)
class Request:
    """The header of a job.

    Attributes:
        system: Wire name of the system (``omnimatte``).
        frames: Frames to deliver.
        inputs: Inputs in the order the artist gave them.
        knobs: Knob values by name; a knob that is not named keeps its default.
        working_space: Name of the scene-linear space of all pictures, those that come back too:
            ``scene_linear`` is the config's role, and Linear Rec.709 without a config.
        client: Version and kind of client, for the log (``gencomp 0.1.0``).
        ocio: The OpenColorIO config that ``working_space`` is a name of: a whole path on the
            server's machine, or ``ocio://NAME`` of a built-in one; empty for none.
    """

    system: str
    frames: FrameRange
    inputs: tuple[InputHeader, ...]
    knobs: Mapping[str, Any] = field(default_factory=dict)
    working_space: str = "scene_linear"
    client: str = ""
    ocio: str = field(default="", metadata={ONLY_WHERE_SET: True})

    def input(self, name: str) -> Optional[InputHeader]:
        """Return the input of that name, or None."""
        return next((entry for entry in self.inputs if entry.name == name), None)

    def named(self, prefix: str) -> tuple[str, ...]:
        """Return what follows ``prefix`` in input names, in order: ``matte.`` gives ``(a, b)``."""
        return tuple(
            entry.name[len(prefix) :] for entry in self.inputs if entry.name.startswith(prefix)
        )
