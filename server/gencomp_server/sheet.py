# SPDX-License-Identifier: Apache-2.0
"""The contact sheet: one PNG that shows a delivery at a glance.

::

                  1001        1007        1013        1019        1024
    plate        [      ]    [      ]    [      ]    [      ]    [      ]
    ball         [ over a checkerboard ]
      alpha      [ half as high        ]
    background   [      ]

Pictures are reduced in scene-linear, then shown through sRGB with highlights rolled off, so that a
lamp of 8.0 keeps its shape. NaN and infinity are shown in magenta. Only reduced pictures are held.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.errors import UnwritableOutput
from gencomp_protocol.frames import Box
from gencomp_protocol.layers import BACKGROUND, CLEAN, DIFFERENCE, RESULT
from gencomp_server.exr.decode import EXR, DecodePool, DecodeTask
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
_CHECKER_PX = 12
_CHECKERS = (0.18, 0.30)  # scene-linear greys: a soft shadow shows, a white layer stands out
_GREY = 0.18  # scene-linear
_KNEE = 0.7  # Highlights are rolled off from here, scene-linear.
_FIRST_TOUCHED = 0.35  # How bright a single touched pixel makes its place in the small picture.
_TEXT_SCALE = 4  # Stroke letters are drawn this much larger and reduced, which smooths them.


@dataclass(frozen=True)
class Shown:
    """One picture as it was read.

    Attributes:
        pixels: Scene-linear, premultiplied where it has an alpha. [H,W,3|4] float16 or float32,
            over ``data_window``.
        display_window: The picture's frame.
        data_window: The pixels present.
        pixel_aspect: Width over height of one pixel.
    """

    pixels: NDArray[Any]
    display_window: Box
    data_window: Box
    pixel_aspect: float = 1.0


@dataclass(frozen=True)
class Row:
    """One row of the sheet.

    Attributes:
        label: Name drawn at the left.
        read: Reads the row's picture of a frame; None where there is none.
        style: ``OPAQUE``, ``ALPHA``, ``CODES``, ``TOUCHED``, or ``OVER_CHECKERS``, which adds a
            small row with the alpha.
    """

    label: str
    read: Callable[[int], Shown | None] = field(repr=False)
    style: str = OPAQUE


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
    frame = shown.display_window
    full = np.zeros((frame.height, frame.width, 4), np.float32)
    common = frame.intersect(shown.data_window)
    if common is not None:
        from_y, from_x = common.y0 - shown.data_window.y0, common.x0 - shown.data_window.x0
        part = shown.pixels[from_y : from_y + common.height, from_x : from_x + common.width]
        y, x = common.y0 - frame.y0, common.x0 - frame.x0
        target = full[y : y + common.height, x : x + common.width]
        target[..., 3] = 1.0
        target[..., : part.shape[2]] = part
    fault = ~np.isfinite(full).all(axis=2)
    full[fault] = 0.0
    small = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
    faults = cv2.resize(fault.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32), np.asarray(faults > 0.0)


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


def _draw_text(
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
    strips = [strip for row in rows for strip in _strips(row, columns, size)]
    head = _HEAD_PX + (_CAUTION_PX if caution else 0)
    height = head + sum(strip.height + _GAP_PX for strip in strips) + _MARGIN_PX
    width = 2 * _MARGIN_PX + _LABEL_PX + len(columns) * (size[0] + _GAP_PX) - _GAP_PX
    sheet: Picture8 = np.full((height, width, 3), _FIELD, np.uint8)
    _draw_text(sheet, title, _MARGIN_PX, 26, 15, _INK)
    if caution:
        _draw_text(sheet, caution, _MARGIN_PX, 26 + _CAUTION_PX, 13, _CAUTION_INK)
    left = _MARGIN_PX + _LABEL_PX
    for index, frame in enumerate(columns):
        _draw_text(sheet, str(frame), left + index * (size[0] + _GAP_PX), head - 16, 11, _DIM_INK)
    y = head
    for strip in strips:
        ink = _DIM_INK if strip.is_small else _INK
        label_px, indent = (10, 16) if strip.is_small else (13, 0)
        middle = y + (strip.height // 2 if strip.is_small else label_px)
        _draw_text(sheet, strip.label, _MARGIN_PX + indent, middle, label_px, ink)
        for index, picture in enumerate(strip.pictures):
            if picture is not None:
                x = left + index * (size[0] + _GAP_PX)
                sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        y += strip.height + _GAP_PX
    return sheet


@dataclass(frozen=True)
class _Strip:
    """One drawn row: pictures in their columns, None where there is none."""

    label: str
    height: int
    pictures: tuple[Picture8 | None, ...]
    is_small: bool = False


def _strips(row: Row, columns: Sequence[int], size: tuple[int, int]) -> list[_Strip]:
    """Read a row's pictures, one at a time, and draw its strip, and its alpha's below."""
    small = (max(4, round(size[0] * _ALPHA_SHARE)), max(4, round(size[1] * _ALPHA_SHARE)))
    pictures: list[Picture8 | None] = []
    alphas: list[Picture8 | None] = []
    for frame in columns:
        shown = row.read(frame)
        if shown is None:
            pictures.append(None)
            alphas.append(None)
            continue
        rgba, faults = thumbnail(shown, size)
        pictures.append(_SHOW[row.style](rgba, faults))
        alphas.append(show_alpha(*thumbnail(shown, small)) if row.style == OVER_CHECKERS else None)
    strips = [_Strip(row.label, size[1], tuple(pictures))]
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
    """

    paths: Mapping[int, Path]
    kind: str = EXR
    colourspace: str = "scene_linear"
    is_matte: bool = False


def caution_of(manifest: Mapping[str, Any]) -> str:
    """Return what the heading must say of a delivery: that nothing was trained that made it."""
    backbone = manifest.get("backbone")
    untrained = backbone is not None and backbone["untrained"]
    return "untrained model: pictures mean nothing" if untrained else ""


def draw_delivery(
    path: Path,
    title: str,
    frames: Sequence[int],
    plate: Files,
    layers: Mapping[str, Files],
    caution: str = "",
    to_rec709: Sequence[float] | None = None,
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

    Raises:
        BadPicture: A file cannot be read.
        UnwritableOutput: The sheet cannot be written.
    """
    pool = DecodePool(processes=1)
    try:
        with tempfile.TemporaryDirectory(prefix="gencomp-sheet-") as scratch:
            primaries = None if to_rec709 is None else np.reshape(to_rec709, (3, 3))
            place = (pool, Path(scratch), primaries)
            rows = [_row("plate", plate, OPAQUE, *place)]
            for name in sorted(layers, key=lambda name: name == BACKGROUND):
                rows.append(_row(name, layers[name], _style(name, layers[name]), *place))
            write_sheet(path, compose_sheet(title, rows, frames, caution))
    finally:
        pool.close()


def _style(name: str, files: Files) -> str:
    if files.is_matte:
        return ALPHA
    if name == DIFFERENCE:
        return ON_GREY
    return OPAQUE if name in (BACKGROUND, CLEAN, RESULT) else OVER_CHECKERS


def _row(
    label: str,
    files: Files,
    style: str,
    pool: DecodePool,
    scratch: Path,
    primaries: NDArray[Any] | None,
) -> Row:
    """Return a row whose pictures are decoded when they are drawn, and dropped after."""
    role = "matte" if files.is_matte else "rgba"
    task = DecodeTask(
        Path(), scratch / "picture", files.kind, role, colourspace=files.colourspace, name=label
    )

    def read(frame: int) -> Shown | None:
        source = files.paths.get(frame) or next(iter(files.paths.values()))
        decoded = pool.submit(replace(task, source=source, frame=frame)).result()
        mapped = map_picture(decoded)
        assert mapped is not None, "nobody else touches the scratch folder"
        header = mapped.header
        pixels = np.repeat(mapped.pixels, 4 if files.is_matte else 1, axis=2)
        if primaries is not None and not files.is_matte:
            pixels = pixels.astype(np.float32)
            pixels[..., :3] = pixels[..., :3] @ primaries.T.astype(np.float32)
        for suffix in (".raw", ".json"):
            decoded.path.with_name(decoded.path.name + suffix).unlink()
        return Shown(pixels, header.display_window, header.data_window, header.pixel_aspect)

    return Row(label, read, style)
