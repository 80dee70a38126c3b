# SPDX-License-Identifier: Apache-2.0
"""Comparing two sequences, one frame at a time; and the shares of an ``origin`` layer.

A frame passes once: errors, bits, SSIM, what changed since the frame before it, judges, sheet. What
is kept of it is a handful of numbers and, until the next frame, its difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gencomp_protocol.errors import (
    BadMatte,
    BadPicture,
    FormatMismatch,
    GencompError,
)
from gencomp_protocol.frames import FrameRange, spell_frames
from gencomp_protocol.layers import ORIGIN_CHANNELS
from gencomp_server.colour.modelrange import ModelRange
from gencomp_server.colour.spaces import REC709, Space
from gencomp_server.exr.read import MappedPicture
from gencomp_server.judges import Judge, Refused, Tools, Views, hear, judges_for
from gencomp_server.measure_files import (
    MASK,
    ORIGIN,
    OVER,
    A,
    B,
    Wanted,
    colours_of,
    extra_frames,
    first_of,
    opened,
    role_of,
)
from gencomp_server.metrics.display import srgb_codes
from gencomp_server.metrics.fidelity import FrameSums, Measured, Step, measure_frame, step_between
from gencomp_server.metrics.figures import SHARE, Figure, figures, mean_figure
from gencomp_server.metrics.overlap import check_formats, covered, on_display, overlap
from gencomp_server.sources import Gathered, Source

if TYPE_CHECKING:
    from gencomp_server.measure_sheet import DifferenceSheet

_SHARES = ORIGIN_CHANNELS[:4]
_PLATE = _SHARES[0]
# Mattes of an origin layer sum to one exactly; half keeps that to this much.
_SUM_SLACK = 2.0**-9

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        sides: What was compared, in words, by name.
        frames: The frames measured.
        figures: The figures, in the order in which a person reads them.
        refused: Metrics that were asked for and are not given.
        notes: Sentences to be read.
        space: The working space that figures of display are of, and who says so; or nothing.
    """

    sides: Mapping[str, str]
    frames: FrameRange
    figures: tuple[Figure, ...]
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()
    space: str = ""


# --- two sequences -------------------------------------------------------------------------------


def compare(
    gathered: Gathered,
    metrics: Sequence[str] = (),
    tools: Tools | None = None,
    sheet: DifferenceSheet | None = None,
    progress: Progress | None = None,
    space: Space | None = None,
) -> Report:
    """Measure B against A.

    Args:
        gathered: Their files, and those of ``mask`` and ``over`` where given.
        metrics: Published metrics wanted besides, of ``judges.NAMES``.
        tools: What those are made with; its ``scratch`` is replaced.
        sheet: Collects what a difference sheet shows.
        progress: Told the frames done and the frames in all.
        space: Working space of all pictures; None takes what B's, else A's, first file says.

    Raises:
        BadKnob: A file names a space that is not to be found.
        FormatMismatch: Sizes or channels do not fit.
        BadMatte: The mask covers nothing at all.
        BadPicture: A file cannot be read.
    """
    by_name = {source.header.name: source for source in gathered.sources}
    roles = _roles(by_name)
    has_colour = roles[A] == "rgba"  # Coverage is the same in every space.
    space, words = colours_of(space, by_name) if has_colour else (REC709, "")
    wanted = [Wanted(name, source, roles[name]) for name, source in by_name.items()]
    with opened(wanted) as (reader, scratch):
        judges, refused = _judges(metrics, tools, scratch, roles, OVER in by_name)
        files = {name: first_of(source) for name, source in by_name.items()}
        run = _Run(sheet, judges, files, space)
        total = len(gathered.frames)
        for done, (frame, pictures) in enumerate(reader.frames(gathered.frames), 1):
            run.see(frame, pictures)
            if progress is not None:
                progress(done, total)
        told, silent = hear(run.judges)
    if not run.sums:
        raise BadMatte(
            f"The mask covers nothing in frames {gathered.frames}: there is nothing to measure.",
            hint="Check its channel; a pixel counts where the mask is 0.5 or more.",
            input=MASK,
        )
    return Report(
        {**run.sides, **_mask_words(run)},
        gathered.frames,
        (*figures(run.sums, run.steps), *told),
        (*refused, *run.refused, *silent),
        (*gathered.notes, *extra_frames(by_name), *run.notes(bool(run.judges), MASK in by_name)),
        words,
    )


def _roles(by_name: Mapping[str, Source]) -> dict[str, str]:
    """Return how each input is decoded; A and B alike."""
    coverage = any(by_name[name].header.channel for name in (A, B))
    roles = {name: role_of(by_name[name], coverage) for name in (A, B)}
    if len(set(roles.values())) > 1:
        with_colour = next(name for name in (A, B) if roles[name] == "rgba")
        other = B if with_colour == A else A
        raise FormatMismatch(
            f"Input '{with_colour}' has R, G and B, input '{other}' has not.",
            hint="Compare one channel of each: write it behind a colon, as FILE.%04d.exr:alpha.",
        )
    return {**roles, MASK: "matte", OVER: "rgba"}


def _judges(
    metrics: Sequence[str],
    tools: Tools | None,
    scratch: Path,
    roles: Mapping[str, str],
    has_over: bool,
) -> tuple[list[Judge], list[Refused]]:
    if not metrics or tools is None:
        return [], []
    if roles[A] != "rgba":
        why = "A and B are single channels"
        return [], [Refused(name, f"{name} is not measured: {why}.", "") for name in metrics]
    chosen = Tools(tools.clip, tools.i3d, scratch, tools.prompt, has_over, tools.device, tools.vmaf)
    return judges_for(metrics, chosen)


def _mask_words(run: _Run) -> dict[str, str]:
    if not run.masked:
        return {}
    share = 100.0 * run.covered / max(1, run.pixels)
    return {MASK: f"{run.files[MASK]}  covers {share:.2f} % of what is compared"}


class _Run:
    """What builds up while frames pass."""

    def __init__(
        self,
        sheet: DifferenceSheet | None,
        judges: list[Judge],
        files: Mapping[str, str],
        space: Space,
    ) -> None:
        self.judges, self.refused = judges, list[Refused]()
        self.files = files
        self.sums: list[FrameSums] = []
        self.steps: list[Step] = []
        self.sides: dict[str, str] = {}
        self.masked, self.covered, self.pixels = False, 0, 0
        self._sheet = sheet
        self._last: Measured | None = None
        self._light = ModelRange(space=space)
        self._bare: list[int] = []
        self._said: dict[str, str] = {}

    def see(self, frame: int, pictures: Mapping[str, MappedPicture]) -> None:
        """Measure one frame."""
        a, b, mask = pictures[A], pictures[B], pictures.get(MASK)
        seen = overlap(a, b, mask, frame, self._light)
        self._note_kinds(a, b, seen.box.width, seen.box.height)
        self.masked = mask is not None
        self.pixels += seen.counted.size
        self.covered += int(np.count_nonzero(seen.counted))
        found = measure_frame(frame, seen) if seen.counted.any() else None
        if found is None:
            self._bare.append(frame)
        else:
            self.sums.append(found.sums)
            if self._last is not None:
                self.steps.append(step_between(self._last, found))
        self._last = found
        if self._sheet is not None:
            self._sheet.keep(frame, (a, b), found, mask, self._light)
        if OVER in pictures:
            check_formats(a, pictures[OVER], OVER, frame)
        self._show(frame, pictures, self._light)

    def _show(self, frame: int, pictures: Mapping[str, MappedPicture], light: ModelRange) -> None:
        if not self.judges:
            return
        over, mask = pictures.get(OVER), pictures.get(MASK)
        views = Views(
            frame,
            srgb_codes(on_display(pictures[A]), light),
            srgb_codes(on_display(pictures[B]), light),
            None if over is None else srgb_codes(on_display(over), light),
            None if mask is None else covered(mask),
        )
        for judge in list(self.judges):
            try:
                judge.see(views)
            except GencompError as error:
                self.judges.remove(judge)
                self.refused += [Refused(n, error.message, error.hint) for n in judge.names]

    def _note_kinds(self, a: MappedPicture, b: MappedPicture, width: int, height: int) -> None:
        for name, picture in ((A, a), (B, b)):
            header = picture.header
            size = header.display_window
            kind = f"{header.pixel_type} {','.join(header.channels)}"
            self.sides.setdefault(name, f"{self.files[name]}  {size.width}x{size.height} {kind}")
        if a.header.pixel_type != b.header.pixel_type:
            self._said["types"] = (
                f"A is {a.header.pixel_type} and B is {b.header.pixel_type}: no distance in ULP is "
                "given, and untouched means equal values."
            )
        with_alpha = [name for name, one in ((A, a), (B, b)) if len(one.header.channels) == 4]
        if len(with_alpha) == 1:
            self._said["alpha"] = f"Only {with_alpha[0]} has an alpha; it is not compared."
        size = a.header.display_window
        if (width, height) != (size.width, size.height):
            self._said["overscan"] = f"Overscan that both have is measured too: {width}x{height}."

    def notes(self, judged: bool, masked: bool) -> list[str]:
        """Return what has to be said beside the figures."""
        made = list(self._said.values())
        for name, bad in ((A, "bad_a"), (B, "bad_b")):
            frames = [one.frame for one in self.sums if getattr(one, bad)]
            if frames:
                count = sum(getattr(one, bad) for one in self.sums)
                made.append(
                    f"{name} holds {count} samples that are NaN or infinite, in frames "
                    f"{spell_frames(frames)}: their pixels count for untouched only."
                )
        if self._bare:
            made.append(f"The mask covers nothing in frames {spell_frames(self._bare)}: left out.")
        if self.sums and not any(one.windows for one in self.sums):
            made.append("No SSIM: no window of 11 x 11 pixels lies wholly on the pictures.")
        if judged and masked:
            made.append("CLIP, VMAF and FVD look at whole pictures; the mask does not hold there.")
        return made


# --- origin --------------------------------------------------------------------------------------


def origin_shares(gathered: Gathered, progress: Progress | None = None) -> Report:
    """Return how much of the picture is plate, gained plate, another frame's, and generated.

    Args:
        gathered: The files of ``origin``, and of ``mask`` where given.
        progress: Told the frames done and the frames in all.

    Raises:
        BadPicture: A file holds no ``origin`` channels, or they do not sum to one.
        BadMatte: The mask covers nothing at all.
    """
    by_name = {source.header.name: source for source in gathered.sources}
    wanted = [Wanted(channel, by_name[ORIGIN], "matte", channel) for channel in _SHARES]
    if MASK in by_name:
        wanted.append(Wanted(MASK, by_name[MASK], "matte"))
    sums: dict[str, list[tuple[str, float, int]]] = {channel: [] for channel in _SHARES}
    with opened(wanted) as (reader, _):
        for done, (frame, pictures) in enumerate(reader.frames(gathered.frames), 1):
            for channel, total, count in _frame_shares(frame, pictures):
                sums[channel].append((str(frame), total, count))
            if progress is not None:
                progress(done, len(gathered.frames))
    found = [_share(channel, rows) for channel, rows in sums.items()]
    made = tuple(one for one in found if one is not None)
    if not made:
        raise BadMatte(
            f"The mask covers nothing in frames {gathered.frames}: there is nothing to measure.",
            hint="Check its channel; a pixel counts where the mask is 0.5 or more.",
            input=MASK,
        )
    sides = {ORIGIN: first_of(by_name[ORIGIN])}
    return Report(sides, gathered.frames, made, (), tuple(gathered.notes))


def _share(channel: str, rows: Sequence[tuple[str, float, int]]) -> Figure | None:
    """Return one matte's share; its worst frame has least of the plate, or most of the others."""
    kind = channel.partition(".")[2]
    worst = min if channel == _PLATE else max
    return mean_figure(channel.replace(".", "_"), f"origin {kind}", rows, SHARE, worst=worst)


def _frame_shares(
    frame: int, pictures: Mapping[str, MappedPicture]
) -> list[tuple[str, float, int]]:
    """Return sum and number of pixels of every matte of one frame."""
    mattes = [on_display(pictures[channel])[..., 0].astype(np.float32) for channel in _SHARES]
    inside = np.ones(mattes[0].shape, bool)
    if MASK in pictures:
        inside = covered(pictures[MASK])
        if inside.shape != mattes[0].shape:
            sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in (mattes[0], inside)]
            raise FormatMismatch(
                f"Input 'origin' frame {frame} is {sizes[0]}, mask is {sizes[1]}.",
                hint="Bring both to one format first.",
            )
    whole = np.sum(mattes, axis=0)
    if not (np.abs(whole - 1.0) <= _SUM_SLACK).all():
        raise BadPicture(
            f"Input 'origin' frame {frame} is no origin layer: its mattes do not sum to one.",
            hint="Give the folder origin of a delivery.",
            input=ORIGIN,
            frame=frame,
        )
    count = int(np.count_nonzero(inside))
    sums = [float(one[inside].sum(dtype=np.float64)) for one in mattes]
    return [(channel, total, count) for channel, total in zip(_SHARES, sums, strict=True)]
