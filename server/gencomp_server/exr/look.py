# SPDX-License-Identifier: Apache-2.0
"""What a picture file is, said without keeping any of it; runs in the decoder process only.

Everything that a job could ask of the file is read, since a file is as good as its worst channel.
"""

from collections.abc import Callable
from typing import Any

from gencomp_protocol.errors import BadPicture, GencompError
from gencomp_server.exr import carry, images, pixels
from gencomp_server.exr.decode import EXR, DecodeTask
from gencomp_server.exr.header import (
    PictureLimits,
    choose_colour,
    choose_data,
    choose_matte,
    parse_exr,
)
from gencomp_server.exr.layout import COMPRESSIONS, ExrPart

_Choice = tuple[int, tuple[str, ...]]


def look_at(task: DecodeTask, limits: PictureLimits) -> tuple[dict[str, Any], pixels.Samples]:
    """Read all of a file and return what it is.

    Args:
        task: Which file; of its target only the folder is used.
        limits: What it may be at most.

    Returns:
        Plain data: ``roles`` (what it can be in a job: ``rgb``, ``matte``, ``data``), ``parts``,
        ``channels``, ``compression``, ``tiled`` and ``left_out`` (what a job would leave out, as
        phrases). And the samples of its colour, else of the channel that a matte is read from.

    Raises:
        BadPicture: It is damaged, or no role can be read of it.
    """
    if task.kind == EXR:
        return _look_at_exr(task, limits)
    data = task.source.read_bytes()
    suffix = images.image_suffix(data[:16], task.label)
    images.check_whole(data, suffix, task.label)
    del data
    with pixels.suffixed(task.source, task.target, suffix) as path:

        def read(role: str) -> pixels.Samples:
            return images.read_image(path, role, None, False, task.label, limits)

        found = _try(read, ("rgb", "matte", "data"))
    first = next(iter(found.values()))
    facts = {"parts": 1, "channels": list(first.channels), "compression": None, "tiled": False}
    return {"roles": list(found), **facts, "left_out": []}, first


def _look_at_exr(task: DecodeTask, limits: PictureLimits) -> tuple[dict[str, Any], pixels.Samples]:
    parts, label = parse_exr(task.source, task.label, limits), task.label

    def choose(role: str) -> _Choice:
        if role == "rgb":
            return choose_colour(parts, label, limits)
        one = choose_matte if role == "matte" else choose_data
        return one(parts, None, label, limits)

    found = _try(choose, ("rgb", "matte", "data"))
    number, names = next(iter(found.values()))
    with pixels.suffixed(task.source, task.target, "exr") as path:
        samples = pixels.read_exr(path, parts[number], number, names, label)
        rest, numbers = carry.find_rest(path, parts, number, label)
        for _ in carry.read_rest(path, rest, numbers, label):
            pass
    own = parts[number]
    facts = {
        "roles": list(found),
        "parts": len(parts),
        "channels": _channels(parts),
        "compression": COMPRESSIONS[own.compression],
        "tiled": own.tiled,
        "left_out": list(rest.left_out),
    }
    return facts, samples


def _channels(parts: tuple[ExrPart, ...]) -> list[str]:
    """Return the names of all channels; of several parts with the part's name before a colon."""
    return [
        f"{part.name}:{channel.name}" if len(parts) > 1 else channel.name
        for part in parts
        for channel in part.channels
    ]


def _try(read: Callable[[str], Any], roles: tuple[str, ...]) -> dict[str, Any]:
    """Return what is read in each role that a file can have.

    Raises:
        BadPicture: It can have none; why not the first.
    """
    found: dict[str, Any] = {}
    errors: list[GencompError] = []
    for role in roles:
        try:
            found[role] = read(role)
        except BadPicture as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found
