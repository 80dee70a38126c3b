# SPDX-License-Identifier: Apache-2.0
"""The contact sheet: one PNG that shows a delivery at a glance.

::

                  1001        1007        1013        1019        1024
    plate        [      ]    [      ]    [      ]    [      ]    [      ]
      roto       [ half as high        ]
    ball         [ over a checkerboard ]
      alpha      [ half as high        ]
    background   [      ]

Pictures are reduced in scene-linear, then shown through sRGB with highlights rolled off, so that a
lamp of 8.0 keeps its shape. NaN and infinity are shown in magenta. Only reduced pictures are held,
and the few that are read ahead of the one that is drawn.
"""

import itertools
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.errors import UnwritableOutput
from gencomp_protocol.frames import Box
from gencomp_protocol.layers import (
    BACKGROUND,
    CLEAN,
    DIFFERENCE,
    ORIGIN,
    ORIGIN_CHANNELS,
    RESULT,
)
from gencomp_server.exr.decode import EXR, Decoded, DecodePool, DecodeTask
from gencomp_server.exr.header import NO_LIMITS
from gencomp_server.exr.read import map_picture

Array = NDArray[np.float32]
Picture8 = NDArray[np.uint8]

OPAQUE = "opaque"
OVER_CHECKERS = "over checkers"
ON_GREY = "on grey"
ALPHA = "alpha"
CODES = "codes"
TOUCHED = "touched"

_COLUMNS = 5
_THUMB_LONG_PX = 336
_ALPHA_SHARE = 0.5  # The alpha row beside its layer's: half as wide and high.
_GAP_PX = 10
_MARGIN_PX = 28
_LABEL_PX = 170
_HEAD_PX = 74
_CAUTION_PX = 26
_FIELD = 26  # 8-bit grey of the sheet
_INK = (216, 216, 216)
_DIM_INK = (140, 140, 140)
_CAUTION_INK = (255, 176, 64)
_FAULT = (255, 0, 255)
# An origin layer in false colour, the plate's own being black: its channel, what is said, 8-bit.
_ORIGIN_INKS = (
    (ORIGIN_CHANNELS[1], "gain", (64, 112, 255)),
    (ORIGIN_CHANNELS[2], "other", (64, 200, 64)),
    (ORIGIN_CHANNELS[3], "generated", (255, 48, 32)),
)
_LEGEND = (("black: plate", _DIM_INK), *((word, ink) for _, word, ink in _ORIGIN_INKS))
_LEGEND_PX = 17
_CHECKER_PX = 12
_CHECKERS = (0.18, 0.30)  # scene-linear greys: a soft shadow shows, a white layer stands out
_GREY = 0.18  # scene-linear
_KNEE = 0.7  # Highlights are rolled off from here, scene-linear.
_FIRST_TOUCHED = 0.35  # How bright a single touched pixel makes its place in the small picture.
_DECODERS = 2
_AHEAD = 3  # pictures that are read or were: one to draw while each decoder has one
_TEXT_SCALE = 4  # Stroke letters are drawn this much larger and reduced, which smooths them.


@dataclass(frozen=True)
class Shown:
    """One picture as it was read.

    Attributes:
        pixels: Scene-linear, premultiplied where it has an alpha; one channel is coverage alone,
            which stands for all four. [H,W,1|3|4] float16 or float32, over ``data_window``.
        display_window: The picture's frame.
        data_window: The pixels present.
        pixel_aspect: Width over height of one pixel.
        remark: A few words beside a small picture; or nothing.
        marked: Where a line is drawn over it, over the display window. [h,w] bool of any size.
        to_rec709: The way from its primaries to those of a monitor. [3,3]; None: they are the same.
    """

    pixels: NDArray[Any]
    display_window: Box
    data_window: Box
    pixel_aspect: float = 1.0
    remark: str = ""
    marked: NDArray[np.bool_] | None = None
    to_rec709: NDArray[Any] | None = None


@dataclass(frozen=True)
class Row:
    """One row of the sheet.

    Attributes:
        label: Name drawn at the left.
        read: Reads the row's picture of a frame; None where there is none.
        style: ``OPAQUE``, ``ALPHA``, ``CODES``, ``TOUCHED``, or ``OVER_CHECKERS``, which adds a
            small row with the alpha.
        is_small: True where its pictures are half as wide and high.
        legend: Words below the label, each with its own 8-bit ink.
    """

    label: str
    read: Callable[[int], Shown | None] = field(repr=False)
    style: str = OPAQUE
    is_small: bool = False
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()


def pick_frames(frames: Sequence[int]) -> list[int]:
    """Return the first, quarter, middle, three-quarter and last frame, each once."""
    last = len(frames) - 1
    picks = {round(last * step / (_COLUMNS - 1)) for step in range(_COLUMNS)}
    return [frames[index] for index in sorted(picks)]


def display(linear: Array) -> Array:
    """Return sRGB display values of scene-linear light, highlights rolled off.

    Up to 0.7 the curve is the identity; above, the brightest channel is led smoothly towards 1 and
    the others keep their proportion to it, so that a coloured light keeps its hue.

    Args:
        linear: [H,W,3] float32, unbounded, scene-linear.

    Returns:
        [H,W,3] float32, [0,1], sRGB-encoded.
    """
    light = np.maximum(linear, 0.0)
    peak = light.max(axis=2, keepdims=True)
    room = 1.0 - _KNEE
    rolled = _KNEE + room * (1.0 - np.exp(-(np.maximum(peak, _KNEE) - _KNEE) / room))
    light = light * np.where(peak > _KNEE, rolled / np.maximum(peak, _KNEE), 1.0)
    low = 12.92 * light
    high = 1.055 * np.power(np.maximum(light, 0.0031308), 1.0 / 2.4) - 0.055
    return np.where(light <= 0.0031308, low, high).astype(np.float32)


def thumbnail(shown: Shown, size: tuple[int, int]) -> tuple[Array, NDArray[np.bool_]]:
    """Reduce a picture to its display window at ``size``, by area, in scene-linear.

    Args:
        shown: The picture; what its data window leaves open is transparent black.
        size: Width and height in pixels.

    Returns:
        RGBA, alpha 1 where the picture has none [h,w,4] float32, scene-linear, premultiplied; and
        where a pixel was NaN or infinite [h,w] bool.
    """
    return thumbnails(shown, size)[0]


def thumbnails(shown: Shown, *sizes: tuple[int, int]) -> list[tuple[Array, NDArray[np.bool_]]]:
    """Return what :func:`thumbnail` does, at several sizes for one reading of the picture."""
    full = whole(shown)
    made = [_reduced(full, size) for size in sizes]
    faults = [np.zeros(small.shape[:2], np.bool_) for small in made]
    # One bad sample spoils every mean that it is in, so that the small ones tell.
    if not all(np.isfinite(small).all() for small in made):
        fault = ~np.isfinite(full).all(axis=2)
        full[fault] = 0.0
        made = [_reduced(full, size) for size in sizes]
        share = np.asarray(fault, np.float32)[..., None]
        faults = [np.asarray(_reduced(share, size)[..., 0] > 0.0) for size in sizes]
    return [(_as_shown(small, shown), bad) for small, bad in zip(made, faults, strict=True)]


def whole(shown: Shown) -> Array:
    """Return a picture over its display window, transparent black where it has no pixels.

    Returns:
        [H,W,C] float32: RGBA where pixels are missing, alpha 1 where the picture has none; else
        the channels that it has.
    """
    frame, data, part = shown.display_window, shown.data_window, shown.pixels
    common = frame.intersect(data)
    if common is not None:
        top, left = common.y0 - data.y0, common.x0 - data.x0
        part = part[top : top + common.height, left : left + common.width]
        if common == frame:
            return part.astype(np.float32)
    full = np.zeros((frame.height, frame.width, 4), np.float32)
    if common is not None:
        y, x = common.y0 - frame.y0, common.x0 - frame.x0
        target = full[y : y + common.height, x : x + common.width]
        target[..., 3] = 1.0
        target[..., : 4 if part.shape[2] == 1 else part.shape[2]] = part
    return full


def _reduced(full: Array, size: tuple[int, int]) -> Array:
    small = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).reshape(size[1], size[0], full.shape[2])


def _as_rgba(pixels: Array) -> Array:
    """Return RGBA: one channel in all four, alpha 1 where there is none. [h,w,4]."""
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 4, axis=2)
    if pixels.shape[2] == 3:
        return np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=2)
    return pixels


def _as_shown(small: Array, shown: Shown) -> Array:
    """Return a reduced picture as RGBA in a monitor's primaries. [h,w,4]."""
    rgba = _as_rgba(small)
    if shown.to_rec709 is not None:
        rgba[..., :3] = rgba[..., :3] @ shown.to_rec709.T.astype(np.float32)
    return rgba


def lay_over(front: Shown, back: Shown) -> Shown:
    """Return one picture over another of the same size, as a Merge node has it.

    Args:
        front: Premultiplied where it has an alpha; its display window is kept.
        back: As ``front``.

    Returns:
        RGBA over the display window, ``front + back * (1 - a)``. [H,W,4] float32.
    """
    top = _as_rgba(whole(front))
    top += _as_rgba(whole(back)) * (1.0 - top[..., 3:])
    return replace(front, pixels=top, data_window=front.display_window)


def _checkers(width: int, height: int) -> Array:
    ys, xs = np.mgrid[0:height, 0:width] // _CHECKER_PX
    return np.where((ys + xs)[..., None] % 2 == 0, *_CHECKERS).astype(np.float32)


def _to_bytes(values: Array, faults: NDArray[np.bool_]) -> Picture8:
    picture = np.asarray(np.clip(values, 0.0, 1.0) * 255.0 + 0.5, np.uint8)
    picture[faults] = _FAULT
    return picture


def show_opaque(rgba: Array, faults: NDArray[np.bool_]) -> Picture8:
    """Return a picture as a monitor shows it. [h,w,3] uint8, sRGB."""
    return _to_bytes(display(rgba[..., :3]), faults)


def show_over_checkers(rgba: Array, faults: NDArray[np.bool_]) -> Picture8:
    """Return a layer over a checkerboard. [h,w,3] uint8, sRGB."""
    ground = _checkers(rgba.shape[1], rgba.shape[0])
    return _to_bytes(display(rgba[..., :3] + (1.0 - rgba[..., 3:]) * ground), faults)


def show_on_grey(rgba: Array, faults: NDArray[np.bool_]) -> Picture8:
    """Return a signed difference on middle grey: darker where it takes. [h,w,3] uint8, sRGB."""
    return _to_bytes(display(rgba[..., :3] + _GREY), faults)


def show_alpha(rgba: Array, faults: NDArray[np.bool_]) -> Picture8:
    """Return a layer's alpha as grey, 1.0 white, without a display curve. [h,w,3] uint8."""
    return _to_bytes(np.repeat(rgba[..., 3:], 3, axis=2), faults)


def show_codes(rgba: Array, faults: NDArray[np.bool_]) -> Picture8:
    """Return colour that is codes already, 0..1, without a display curve. [h,w,3] uint8."""
    return _to_bytes(rgba[..., :3], faults)


def show_touched(rgba: Array, faults: NDArray[np.bool_]) -> Picture8:
    """Return a share of touched pixels: black where it is 0, clearly lit from the first one on.

    Args:
        rgba: The share in its first channel, 0..1. [h,w,4] float32.
        faults: Where it is not known. [h,w] bool.

    Returns:
        [h,w,3] uint8.
    """
    share = rgba[..., :3]
    lit = _FIRST_TOUCHED + (1.0 - _FIRST_TOUCHED) * share
    return _to_bytes(np.where(share > 0.0, lit, 0.0).astype(np.float32), faults)


_SHOW = {
    OPAQUE: show_opaque,
    OVER_CHECKERS: show_over_checkers,
    ON_GREY: show_on_grey,
    ALPHA: show_alpha,
    CODES: show_codes,
    TOUCHED: show_touched,
}


def draw_text(
    sheet: Picture8, text: str, x: int, y: int, height_px: int, ink: tuple[int, int, int]
) -> None:
    """Draw a line of text into the sheet; ``y`` is the middle of its capitals."""
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, height_px * _TEXT_SCALE, 1)
    thick = max(1, round(height_px * _TEXT_SCALE / 9))
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    canvas = np.zeros(((height_px * 2) * _TEXT_SCALE, width + 8 * _TEXT_SCALE), np.uint8)
    base = (3 * height_px // 2) * _TEXT_SCALE
    cv2.putText(canvas, text, (0, base), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
    size = (canvas.shape[1] // _TEXT_SCALE, canvas.shape[0] // _TEXT_SCALE)
    cover = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    top = y - height_px
    part = sheet[top : top + size[1], x : x + size[0]]
    cover = cover[: part.shape[0], : part.shape[1], None]
    part[:] = (part * (1.0 - cover) + np.array(ink, np.float32) * cover + 0.5).astype(np.uint8)


def thumb_size(display_window: Box, pixel_aspect: float) -> tuple[int, int]:
    """Return width and height of a thumbnail whose long edge is 336 pixels."""
    width, height = display_window.width * pixel_aspect, float(display_window.height)
    scale = _THUMB_LONG_PX / max(width, height)
    return max(8, round(width * scale)), max(8, round(height * scale))


def compose_sheet(
    title: str, rows: Sequence[Row], frames: Sequence[int], caution: str = ""
) -> Picture8:
    """Draw the whole sheet.

    Args:
        title: One line at the top.
        rows: From top to bottom; the first one's first picture decides the shape of all.
        frames: Frames of the shot, of which up to five become columns.
        caution: What must not be overlooked, on a line of its own below the title; or nothing.

    Returns:
        [H,W,3] uint8, sRGB.
    """
    columns = pick_frames(frames)
    first = rows[0].read(columns[0])
    assert first is not None, "the first row shows its first frame"
    size = thumb_size(first.display_window, first.pixel_aspect)
    strips = _strips(replace(rows[0], read=_after(first, rows[0].read)), columns, size)
    strips += [strip for row in rows[1:] for strip in _strips(row, columns, size)]
    head = _HEAD_PX + (_CAUTION_PX if caution else 0)
    height = head + sum(strip.height + _GAP_PX for strip in strips) + _MARGIN_PX
    width = 2 * _MARGIN_PX + _LABEL_PX + len(columns) * (size[0] + _GAP_PX) - _GAP_PX
    sheet: Picture8 = np.full((height, width, 3), _FIELD, np.uint8)
    draw_text(sheet, title, _MARGIN_PX, 26, 15, _INK)
    if caution:
        draw_text(sheet, caution, _MARGIN_PX, 26 + _CAUTION_PX, 13, _CAUTION_INK)
    left = _MARGIN_PX + _LABEL_PX
    for index, frame in enumerate(columns):
        draw_text(sheet, str(frame), left + index * (size[0] + _GAP_PX), head - 16, 11, _DIM_INK)
    y = head
    for strip in strips:
        ink = _DIM_INK if strip.is_small else _INK
        label_px, indent = (10, 16) if strip.is_small else (13, 0)
        middle = y + (strip.height // 2 if strip.is_small else label_px)
        draw_text(sheet, strip.label, _MARGIN_PX + indent, middle, label_px, ink)
        for line, (word, own_ink) in enumerate(strip.legend, 1):
            draw_text(sheet, word, _MARGIN_PX, middle + 6 + line * _LEGEND_PX, 10, own_ink)
        for index, picture in enumerate(strip.pictures):
            if picture is not None:
                x = left + index * (size[0] + _GAP_PX)
                sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
                remark = strip.remarks[index] if strip.remarks else ""
                if remark:
                    beside = x + picture.shape[1] + _GAP_PX
                    draw_text(sheet, remark, beside, middle, 10, _DIM_INK)
        y += strip.height + _GAP_PX
    return sheet


def _after(first: Shown, read: Callable[[int], Shown | None]) -> Callable[[int], Shown | None]:
    """Return a reader that gives the first picture, read already, and lets go of it."""
    held = [first]
    return lambda frame: held.pop() if held else read(frame)


@dataclass(frozen=True)
class _Strip:
    """One drawn row: pictures in their columns, None where there is none."""

    label: str
    height: int
    pictures: tuple[Picture8 | None, ...]
    is_small: bool = False
    remarks: tuple[str, ...] = ()
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()


def _strips(row: Row, columns: Sequence[int], size: tuple[int, int]) -> list[_Strip]:
    """Read a row's pictures, one at a time, and draw its strip, and its alpha's below."""
    small = (max(4, round(size[0] * _ALPHA_SHARE)), max(4, round(size[1] * _ALPHA_SHARE)))
    own = small if row.is_small else size
    pictures: list[Picture8 | None] = []
    alphas: list[Picture8 | None] = []
    remarks: list[str] = []
    for frame in columns:
        shown = row.read(frame)
        remarks.append("" if shown is None else shown.remark)
        if shown is None:
            pictures.append(None)
            alphas.append(None)
            continue
        has_alpha = row.style == OVER_CHECKERS
        reduced = thumbnails(shown, own, *((small,) if has_alpha else ()))
        picture = _SHOW[row.style](*reduced[0])
        if shown.marked is not None:
            lines = cv2.resize(shown.marked.astype(np.uint8), own, interpolation=cv2.INTER_NEAREST)
            picture[np.asarray(lines) > 0] = _CAUTION_INK
        pictures.append(picture)
        alphas.append(show_alpha(*reduced[1]) if has_alpha else None)
    drawn = tuple(pictures)
    strips = [_Strip(row.label, own[1], drawn, row.is_small, tuple(remarks), row.legend)]
    if row.style == OVER_CHECKERS:
        strips.append(_Strip("alpha", small[1], tuple(alphas), is_small=True))
    return strips


def write_sheet(path: Path, sheet: Picture8) -> None:
    """Write the sheet as PNG, whole or not at all.

    Raises:
        UnwritableOutput: The file cannot be written.
    """
    ok, data = cv2.imencode(".png", sheet[..., ::-1])
    assert ok, "a sheet is always a picture that PNG can hold"
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data.tobytes())
        part.replace(path)
    except OSError as error:
        raise UnwritableOutput(f"{path} cannot be written: {error.strerror}.") from error


@dataclass(frozen=True)
class Files:
    """The picture files of one row.

    Attributes:
        paths: File of each frame; a single one stands for all.
        kind: ``exr``, or ``image`` for DPX, PNG, TIFF and JPEG.
        colourspace: ``scene_linear``, or ``srgb`` where an image holds sRGB codes.
        is_matte: True where the files hold one channel, to be shown as grey.
        channel: Which one that is; None for the alpha, else the first.
        is_still: True where a picture stands for the frames that have none of their own.
        under: What the pictures are shown over; None for nothing.
    """

    paths: Mapping[int, Path]
    kind: str = EXR
    colourspace: str = "scene_linear"
    is_matte: bool = False
    channel: str | None = None
    is_still: bool = True
    under: "Files | None" = None

    def nearest(self, frame: int) -> int:
        """Return the frame whose file is shown at a frame: its own, else the nearest."""
        return min(self.paths, key=lambda own: (abs(own - frame), own))


def caution_of(manifest: Mapping[str, Any]) -> str:
    """Return what the heading must say of a delivery: what made it was untrained, or drafts."""
    backbone = manifest.get("backbone") or {}
    if backbone.get("untrained"):
        return "untrained model: pictures mean nothing"
    return f"{backbone['name']}: draft quality" if backbone.get("draft") else ""


def draw_delivery(
    path: Path,
    title: str,
    frames: Sequence[int],
    plate: Files,
    layers: Mapping[str, Files],
    caution: str = "",
    to_rec709: Sequence[float] | None = None,
    drawn: Mapping[str, Files] | None = None,
    label: str = "plate",
    pool: DecodePool | None = None,
) -> None:
    """Write the contact sheet of a delivery: plate, layers over checkers, mattes grey.

    Args:
        path: PNG to write.
        title: One line at the top.
        frames: The frames delivered.
        plate: What the layers were made from.
        layers: Every delivered layer, in the order of the rows; ``background`` comes last.
        caution: What must not be overlooked, below the title; see :func:`caution_of`.
        to_rec709: The way from the pictures' primaries to those of a monitor, nine numbers by
            rows; None where they are the same or no matrix leads there.
        drawn: The mattes that were given, small and grey below the plate.
        label: What the row of the plate is called.
        pool: Decodes the pictures; None takes one of its own.

    Raises:
        BadPicture: A file cannot be read.
        UnwritableOutput: The sheet cannot be written.
    """

    def rows(desk: _Desk) -> list[Row]:
        made = [_row(label, plate, OPAQUE, desk)]
        made += [_drawn_row(name, files, desk) for name, files in (drawn or {}).items()]
        return made + _layer_rows(layers, desk)

    _draw(path, title, frames, rows, caution, to_rec709, pool)


def draw_layers(
    path: Path,
    title: str,
    frames: Sequence[int],
    layers: Mapping[str, Files],
    caution: str = "",
    to_rec709: Sequence[float] | None = None,
    *,
    whole: Collection[str] = (),
) -> None:
    """Write one row for each layer of a result, as :func:`draw_delivery` does, without a plate.

    Args:
        path: PNG to write.
        title: One line at the top.
        frames: The frames that are shown.
        layers: Every delivered layer, in the order of the rows; ``background`` comes last.
        caution: As of :func:`draw_delivery`.
        to_rec709: As of :func:`draw_delivery`.
        whole: Rows that are shown as pictures without an alpha, besides those that always are.

    Raises:
        BadPicture: A file cannot be read.
        UnwritableOutput: The sheet cannot be written.
    """
    _draw(path, title, frames, lambda desk: _layer_rows(layers, desk, whole), caution, to_rec709)


def draw_takes(
    path: Path,
    title: str,
    frames: Sequence[int],
    takes: Mapping[str, tuple[Files, Sequence[str]]],
    layer: str,
    caution: str = "",
    to_rec709: Sequence[float] | None = None,
) -> None:
    """Write one row for each of several takes of the same layer.

    Args:
        path: PNG to write.
        title: One line at the top.
        frames: The frames that all of them have.
        takes: Files of each take by its name, and lines that say what makes it differ.
        layer: Which layer it is.
        caution: As of :func:`draw_delivery`.
        to_rec709: As of :func:`draw_delivery`.

    Raises:
        BadPicture: A file cannot be read.
        UnwritableOutput: The sheet cannot be written.
    """

    def rows(desk: _Desk) -> list[Row]:
        return [
            replace(
                _row(name, files, _style(layer, files), desk),
                legend=tuple((line, _DIM_INK) for line in lines),
            )
            for name, (files, lines) in takes.items()
        ]

    _draw(path, title, frames, rows, caution, to_rec709)


def sheet_pool() -> DecodePool:
    """Return the decoders of a sheet, to be closed by whoever asks: its files are ours already."""
    return DecodePool(_DECODERS, limits=NO_LIMITS)


def _draw(
    path: Path,
    title: str,
    frames: Sequence[int],
    rows: "Callable[[_Desk], list[Row]]",
    caution: str,
    to_rec709: Sequence[float] | None,
    pool: DecodePool | None = None,
) -> None:
    """Decode what rows show, a few pictures ahead, and write the sheet."""
    with tempfile.TemporaryDirectory(prefix="gencomp-sheet-") as scratch:
        desk_pool = sheet_pool() if pool is None else pool
        readers = ThreadPoolExecutor(_AHEAD, "sheet")
        try:
            primaries = None if to_rec709 is None else np.reshape(to_rec709, (3, 3))
            desk = _Desk(desk_pool, Path(scratch), primaries)
            ahead = read_ahead(rows(desk), pick_frames(frames), readers)
            write_sheet(path, compose_sheet(title, ahead, frames, caution))
        finally:
            readers.shutdown(cancel_futures=True)
            if pool is None:
                desk_pool.close()


def read_ahead(
    rows: Sequence[Row], columns: Sequence[int], readers: ThreadPoolExecutor
) -> list[Row]:
    """Return rows whose pictures are read before they are asked for, at most three at a time.

    Args:
        rows: From top to bottom.
        columns: Frames from left to right; every picture is then asked for once, in that order.
        readers: What reads.
    """
    left = deque((row, frame) for row in rows for frame in columns)
    under_way: deque[Future[Shown | None]] = deque()

    def read(frame: int) -> Shown | None:
        while left and len(under_way) < _AHEAD:
            row, ahead = left.popleft()
            under_way.append(readers.submit(row.read, ahead))
        return under_way.popleft().result()

    return [replace(row, read=read) for row in rows]


def _layer_rows(
    layers: Mapping[str, Files], desk: "_Desk", whole: Collection[str] = ()
) -> list[Row]:
    return [
        _origin_row(layers[name], desk)
        if name == ORIGIN
        else _row(name, layers[name], OPAQUE if name in whole else _style(name, layers[name]), desk)
        for name in sorted(layers, key=lambda name: name == BACKGROUND)
    ]


def _style(name: str, files: Files) -> str:
    if files.is_matte:
        return ALPHA
    if name == DIFFERENCE:
        return ON_GREY
    return OPAQUE if name in (BACKGROUND, CLEAN, RESULT) else OVER_CHECKERS


@dataclass(frozen=True)
class _Desk:
    """Where pictures are decoded: the processes, a folder, and the way to a monitor's primaries."""

    pool: DecodePool
    scratch: Path
    primaries: NDArray[Any] | None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, label: str, files: Files, frame: int) -> "Future[Decoded]":
        """Have a row's picture decoded."""
        source = files.paths.get(frame)
        task = DecodeTask(
            files.paths[files.nearest(frame)] if source is None else source,
            self.scratch / str(next(self.numbers)),
            files.kind,
            "matte" if files.is_matte else "rgba",
            files.channel,
            files.colourspace,
            label,
            frame,
        )
        return self.pool.submit(task)

    def take(self, future: "Future[Decoded]", *, is_matte: bool) -> Shown:
        """Return what was decoded; its files go."""
        decoded = future.result()
        mapped = map_picture(decoded)
        assert mapped is not None, "nobody else touches the scratch folder"
        header = mapped.header
        for suffix in (".raw", ".json"):
            decoded.path.with_name(decoded.path.name + suffix).unlink()
        windows = (header.display_window, header.data_window, header.pixel_aspect)
        return Shown(mapped.pixels, *windows, to_rec709=None if is_matte else self.primaries)


class Reading:
    """Pictures of rows, read one by one, as they are.

    Args:
        pool: Decodes them.
        scratch: Folder for what is decoded; nothing of it is left.
    """

    def __init__(self, pool: DecodePool, scratch: Path) -> None:
        self._desk = _Desk(pool, scratch, None)

    def read(self, label: str, files: Files, frame: int) -> Shown:
        """Return a picture: its own of that frame, else the nearest.

        Raises:
            BadPicture: The file cannot be read.
        """
        shown = _row(label, files, OPAQUE, self._desk).read(frame)
        assert shown is not None, label
        return shown


def _row(label: str, files: Files, style: str, desk: _Desk) -> Row:
    """Return a row whose pictures are decoded when they are drawn, and dropped after."""

    def read(frame: int) -> Shown | None:
        first = desk.ask(label, files, frame)
        if files.under is None:
            return desk.take(first, is_matte=files.is_matte)
        second = desk.ask(label, files.under, frame)
        return lay_over(desk.take(first, is_matte=False), desk.take(second, is_matte=False))

    return Row(label, read, style)


def _drawn_row(label: str, files: Files, desk: _Desk) -> Row:
    """Return a small row of a matte; where a frame has none, the nearest one, which is said."""

    def read(frame: int) -> Shown | None:
        shown = desk.take(desk.ask(label, files, frame), is_matte=True)
        if files.is_still or frame in files.paths:
            return shown
        return replace(shown, remark=f"of {files.nearest(frame)}")

    return Row(label, read, ALPHA, is_small=True)


def _origin_row(files: Files, desk: _Desk) -> Row:
    """Return the row of an origin layer: its mattes, each in an ink of its own, added up."""

    def read(frame: int) -> Shown | None:
        asked = [
            desk.ask(ORIGIN, replace(files, is_matte=True, channel=channel), frame)
            for channel, _, _ in _ORIGIN_INKS
        ]
        mattes = [desk.take(future, is_matte=True) for future in asked]
        inks = [np.array(ink, np.float32) / 255.0 for _, _, ink in _ORIGIN_INKS]
        colour = sum(
            one.pixels[..., :3].astype(np.float32) * ink
            for one, ink in zip(mattes, inks, strict=True)
        )
        return replace(mattes[0], pixels=np.asarray(colour, np.float32))

    return Row(ORIGIN, read, CODES, legend=_LEGEND)
