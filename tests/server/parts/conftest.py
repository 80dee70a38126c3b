# SPDX-License-Identifier: Apache-2.0
"""A shot in memory, and a context that runs every stage at once."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from gencomp_protocol.frames import Box, Format, FrameRange
from gencomp_protocol.request import STILL, InputHeader, Request
from gencomp_server.contract import PictureHeader
from gencomp_server.fileshot import Desk

_CHANNELS = {1: ("A",), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}


@dataclass
class MemoryShot:
    """Inputs given as arrays by frame; every picture fills its own display window unless said.

    ``windows`` holds (display, data) boxes by input, ``aspects`` pixel aspects.
    """

    frames: FrameRange
    clips: dict
    knobs: dict = field(default_factory=dict)
    covers: dict = field(default_factory=dict)
    windows: dict = field(default_factory=dict)
    aspects: dict = field(default_factory=dict)
    shown: tuple | None = None

    @property
    def request(self):
        def entry(name):
            window = self.header(name).display_window
            size = Format(window.width, window.height, self.aspects.get(name, 1.0))
            frames = tuple(sorted(self.clips[name]))
            return InputHeader(name, frames, self.covers.get(name, "sequence"), size)

        entries = tuple(entry(name) for name in self.clips)
        return Request("gencomposite", self.frames, entries, self.knobs)

    @property
    def names(self):
        return tuple(self.clips) if self.shown is None else self.shown

    def header(self, name, n=None):
        pixels = self._picture(name, n)
        box = Box(0, 0, pixels.shape[1] - 1, pixels.shape[0] - 1)
        display, data = self.windows.get(name, (box, box))
        kind = "half" if pixels.dtype == np.float16 else "float"
        aspect = self.aspects.get(name, 1.0)
        return PictureHeader(_CHANNELS[pixels.shape[2]], kind, display, data, aspect)

    def frames_of(self, name):
        return tuple(sorted(self.clips[name]))

    def frame(self, name, n, channels=None):
        pixels = self._picture(name, n)
        if channels is None:
            return pixels
        return pixels[..., [_CHANNELS[pixels.shape[2]].index(one) for one in channels]]

    def only(self, *names):
        assert set(names) <= set(self.names)
        return MemoryShot(
            self.frames, self.clips, {}, self.covers, self.windows, self.aspects, names
        )

    def _picture(self, name, n):
        clip = self.clips[name]
        still = n is None or self.covers.get(name) == STILL
        return clip[min(clip)] if still else clip[n]


@pytest.fixture
def shot_of():
    """Return a function that makes a shot: frames, clips by input, and what differs."""

    def make(frames, clips, **more):
        return MemoryShot(FrameRange.parse(frames), clips, **more)

    return make


@pytest.fixture
def desk():
    """Return a context without a job."""
    return Desk()
