# SPDX-License-Identifier: Apache-2.0
"""A shot split into layers for training: subject on black, its matte, background, caption.

The matte is the artist's or a segmenter's, the background what an Omnimatte job delivers as
``clean``, so that no shadow of the subject stays in it, the caption typed or an assistant's. What
comes out is a clip in the layout of ``training/layout.py``. Pictures are opened in the decoder
process alone, a frame at a time.

Source: split-then-merge §3.3 (the Decomposer): its four layers; which tools make them is ours.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.errors import BadMatte
from gencomp_protocol.frames import FrameRange, spell_frames
from gencomp_protocol.layers import CLEAN, CLEAN_PLATE, PLATE
from gencomp_protocol.request import InputHeader
from gencomp_server.delivery import CONTACT_SHEET, MANIFEST, layer_paths
from gencomp_server.measure_files import Wanted, opened
from gencomp_server.parts.fit import from_model_frame, model_format
from gencomp_server.parts.pictures import in_type
from gencomp_server.parts.window import finite, onto_display
from gencomp_server.sheet import Shown, show_opaque, thumbnail
from gencomp_server.sources import EXR, Source
from gencomp_server.training.layout import (
    BACKGROUND,
    FG,
    MATTE,
    ORIGINAL,
    Clip,
    picture_path,
    write_picture,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.colour.spaces import Space
    from gencomp_server.exr.read import MappedPicture
    from gencomp_server.segmenting import Segmenter

    Floats = NDArray[np.float32]

SUBJECT = "matte.subject"
JOB_FOLDER = ".decompose"
REPORT_FILE = "decompose.json"
SEEN_LONG_EDGE = 1280
"""Pixels along the longer side at which a segmenter is shown the shot."""
_EMPTY = 1 / 512
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Layers:
    """The files that a clip is made from.

    Attributes:
        plate: The shot.
        matte: Coverage of its subject.
        background: Files of the shot without the subject, by frame.
    """

    plate: Source
    matte: Source
    background: Mapping[int, Path]


# --- the matte of a segmenter --------------------------------------------------------------------


def find_matte(
    plate: Source,
    span: FrameRange,
    segmenter: Segmenter,
    words: str,
    space: Space,
    clip_folder: Path,
) -> Source:
    """Let a segmenter draw the subject's matte, and keep it where the clip's mattes lie.

    Args:
        plate: The shot.
        span: Its frames.
        segmenter: What draws it.
        words: What to look for.
        space: What the shot's light is.
        clip_folder: The clip's folder.

    Returns:
        The mattes as an input of a job, at the shot's size.

    Raises:
        BadKnob, ToolFailed: See ``segmenting.py``.
        BadMatte: It found nothing on any frame.
    """
    formats: list[tuple[int, int, float]] = []

    def pictures() -> Iterable[NDArray[np.uint8]]:
        with opened([Wanted(PLATE, plate, "rgb")]) as (reader, _):
            for _, found in reader.frames(span):
                mapped = found[PLATE]
                window = mapped.header.display_window
                formats.append((window.width, window.height, mapped.header.pixel_aspect))
                yield _as_shown(mapped, space)

    mattes = segmenter.mattes(pictures(), words)
    if not (mattes > _EMPTY).any():
        raise BadMatte(
            f"The segmenter '{segmenter.name}' found no '{words}' on frames {span}.",
            hint="Say it in other words, or give a matte with --input matte=.",
        )
    paths = {}
    for frame, low, (width, height, aspect) in zip(span, mattes, formats, strict=True):
        paths[frame] = picture_path(clip_folder, MATTE, frame)
        matte = from_model_frame(low, (width, height)).astype(np.float16)
        write_picture(paths[frame], matte, pixel_aspect=aspect)
    return Source(InputHeader(SUBJECT, tuple(span)), paths, EXR, is_matte=True)


def _as_shown(mapped: MappedPicture, space: Space) -> NDArray[np.uint8]:
    """Return a frame as a monitor shows it, not larger than a segmenter needs. [h,w,3] uint8."""
    header = mapped.header
    window = header.display_window
    primaries = None if space.matrix is None else np.reshape(space.matrix, (3, 3))
    shown = Shown(
        np.asarray(mapped.pixels)[..., :3],
        window,
        header.data_window,
        header.pixel_aspect,
        to_rec709=primaries,
    )
    size = model_format(window.width, window.height, SEEN_LONG_EDGE)
    return np.asarray(show_opaque(*thumbnail(shown, size)), np.uint8)


# --- the layers ----------------------------------------------------------------------------------


def clean_of(job: Path, span: FrameRange) -> dict[int, Path]:
    """Return the files of the layer ``clean`` that a job delivered into a folder."""
    return layer_paths(job, CLEAN, span)


def write_layers(clip: Clip, layers: Layers, span: FrameRange, told: Told) -> None:
    """Write a clip's pictures; those that are not finite are mended, all is of the plate's type.

    Args:
        clip: The clip; its files say where.
        layers: What it is made from.
        span: Its frames.
        told: Told (done, total).

    Raises:
        BadMatte: The matte covers nothing on any frame.
        BadPicture: A file is damaged.
        DiskFull, UnwritableOutput: A picture cannot be written.
    """
    header = InputHeader(BACKGROUND, tuple(span))
    wanted = (
        Wanted(PLATE, layers.plate, "rgb"),
        Wanted(MATTE, layers.matte, "matte"),
        Wanted(BACKGROUND, Source(header, layers.background, EXR), "rgb"),
    )
    covered = 0
    with opened(wanted) as (reader, _):
        for i, (_, found) in enumerate(reader.frames(span)):
            told(i, len(span))
            plate, aspect = found[PLATE], found[PLATE].header.pixel_aspect
            kind = plate.header.pixel_type
            light, matte = _over_display(plate), np.clip(_over_display(found[MATTE]), 0, 1)
            covered += bool((matte > _EMPTY).any())
            made = {
                ORIGINAL: in_type(light, kind),
                FG: in_type(light * matte, kind),
                MATTE: matte.astype(np.float16),
                BACKGROUND: in_type(_over_display(found[BACKGROUND]), kind),
            }
            for layer, pixels in made.items():
                write_picture(clip.files(layer)[i], pixels, pixel_aspect=aspect)
    told(len(span), len(span))
    if not covered:
        raise BadMatte(
            f"The matte of clip '{clip.name}' covers nothing on frames {spell_frames(span)}.",
            hint="Check the roto, or name the channel that holds it after ':'.",
        )


def write_original(clip: Clip, plate: Source, span: FrameRange, told: Told) -> None:
    """Write the pictures of an unpaired clip: the plate alone.

    Raises:
        BadPicture: A file is damaged.
        DiskFull, UnwritableOutput: A picture cannot be written.
    """
    with opened([Wanted(PLATE, plate, "rgb")]) as (reader, _):
        for i, (_, found) in enumerate(reader.frames(span)):
            told(i, len(span))
            header = found[PLATE].header
            pixels = in_type(_over_display(found[PLATE]), header.pixel_type)
            write_picture(clip.original[i], pixels, pixel_aspect=header.pixel_aspect)
    told(len(span), len(span))


def _over_display(mapped: MappedPicture) -> Floats:
    """Return a picture's colour or coverage over its display window, finite. [H,W,C] float32."""
    header = mapped.header
    pixels = onto_display(
        np.asarray(mapped.pixels)[..., :3], header.data_window, header.display_window
    )
    return finite(pixels)


# --- what is said of it --------------------------------------------------------------------------


def background_made_by(manifest: Mapping[str, Any]) -> str:
    """Say what made the background, out of the manifest of its job."""
    came = str(manifest.get("report", {}).get("clean_plate_from", "omnimatte"))
    if came != "model":
        return f"omnimatte, {came}"
    backbone = manifest.get("backbone") or {}
    return f"omnimatte, {backbone.get('name', came)}"


def keep_report(job: Path, clip_folder: Path) -> dict[str, Any]:
    """Keep what a job says of itself beside the clip; return its manifest."""
    manifest: dict[str, Any] = json.loads((job / MANIFEST).read_text(encoding="utf-8"))
    shutil.copyfile(job / MANIFEST, clip_folder / REPORT_FILE)
    if (job / CONTACT_SHEET).is_file():
        shutil.copyfile(job / CONTACT_SHEET, clip_folder / CONTACT_SHEET)
    return manifest


def given_to_job(plate: str, matte: Source, typed: str | None, clean: str | None) -> list[str]:
    """Return the inputs of the job as ``gencomp run`` takes them.

    Args:
        plate: Pattern of the plate, as typed.
        matte: The subject's mattes.
        typed: Pattern of the matte, where it was typed.
        clean: Pattern of a clean plate; None for none.
    """
    if typed is None:
        first = next(iter(matte.paths.values()))
        typed = str(first.parent / f"{MATTE}.%04d.exr")
    given = [f"{PLATE}={plate}", f"{SUBJECT}={typed}"]
    return given if clean is None else [*given, f"{CLEAN_PLATE}={clean}"]
