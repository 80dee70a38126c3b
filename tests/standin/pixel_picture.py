# SPDX-License-Identifier: Apache-2.0
"""A picture: channels by name, of one size, row 0 at the top. Belongs to the pixel side."""

import numpy as np

RGB = ("rgba.red", "rgba.green", "rgba.blue")
COLOURS = (*RGB, "rgba.alpha")
LAYERS = {"rgb": RGB, "rgba": COLOURS, "alpha": COLOURS[3:]}


class Picture:
    """Pixels of a format.

    Args:
        width: Of the format.
        height: Of the format.
        pixel_aspect: Width of a pixel by its height.
        channels: Arrays by name. [H,W] float32.
        bbox: x, y, right, top of what is there; y upwards, as in Nuke.
        metadata: Words about the picture.
    """

    def __init__(self, width, height, pixel_aspect=1.0, channels=None, bbox=None, metadata=None):
        self.width, self.height, self.pixel_aspect = width, height, pixel_aspect
        self.channels = channels or {}
        self.bbox = list(bbox) if bbox is not None else [0, 0, width, height]
        self.metadata = metadata or {}

    def get(self, name):
        found = self.channels.get(name)
        return np.zeros((self.height, self.width), np.float32) if found is None else found

    def with_channels(self, channels, bbox=None, metadata=None):
        return Picture(
            self.width,
            self.height,
            self.pixel_aspect,
            channels,
            self.bbox if bbox is None else bbox,
            self.metadata if metadata is None else metadata,
        )

    def chosen(self, names):
        """Return those of the names that are there; ``None`` stands for all."""
        return [n for n in (self.channels if names is None else names) if n in self.channels]


def same_size(a, b):
    """Refuse pictures of two sizes."""
    if (a.width, a.height) != (b.width, b.height):
        raise RuntimeError(
            f"the stand-in does not combine {a.width}x{a.height} and {b.width}x{b.height}"
        )


def pair(a, b):
    """Return two pictures of one size: nothing, which has no channels, fits everything."""
    if not a.channels:
        a = b.with_channels({}, [0, 0, 0, 0], {})
    elif not b.channels:
        b = a.with_channels({}, [0, 0, 0, 0], {})
    same_size(a, b)
    return a, b


def union(one, other):
    """Return the box around two boxes; an empty one does not count."""
    if one[2] <= one[0] or one[3] <= one[1]:
        return list(other)
    if other[2] <= other[0] or other[3] <= other[1]:
        return list(one)
    return [*map(min, one[:2], other[:2]), *map(max, one[2:], other[2:])]


def intersection(one, other):
    """Return the box that is in both."""
    return [*map(max, one[:2], other[:2]), *map(min, one[2:], other[2:])]
