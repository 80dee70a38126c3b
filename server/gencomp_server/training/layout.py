# SPDX-License-Identifier: Apache-2.0
"""How clips for training lie on disk: written by ``gencomp decompose``, read by ``gencomp train``.

::

    DIR/<clip>/original/original.<frame>.exr       R, G, B: the plate
    DIR/<clip>/fg/fg.<frame>.exr                   R, G, B: the plate times the matte, on black
    DIR/<clip>/matte/matte.<frame>.exr             A: coverage of the subject, 0 to 1
    DIR/<clip>/background/background.<frame>.exr   R, G, B: the plate without the subject
    DIR/<clip>/caption.txt                         what is seen, in words; may be empty
    DIR/<clip>/clip.toml                           last: where it is, the clip is whole

All light is scene-linear, unbounded, of the working space that ``clip.toml`` names. An unpaired
clip has ``original`` and a caption alone: nobody knows its layers.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import (
    BadKnob,
    BadName,
    BadPicture,
    MissingFrame,
    MissingInput,
    UnwritableOutput,
)
from gencomp_protocol.frames import Box, frame_list, spell_frames

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORIGINAL, FG, MATTE, BACKGROUND = "original", "fg", "matte", "background"
PAIRED = (ORIGINAL, FG, MATTE, BACKGROUND)
CLIP_FILE, CAPTION_FILE = "clip.toml", "caption.txt"
CHANNELS: Mapping[str, tuple[str, ...]] = {
    ORIGINAL: ("R", "G", "B"),
    FG: ("R", "G", "B"),
    MATTE: ("A",),
    BACKGROUND: ("R", "G", "B"),
}
_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_KEY = re.compile(r"[a-z_]+\Z")
_AGAIN = "Write the clip again with gencomp decompose."


@dataclass(frozen=True)
class Clip:
    """One clip for training.

    Attributes:
        name: Name of its folder.
        frames: Its frame numbers, ascending.
        original: Files of the plate, one for each frame.
        fg: Files of the subject on black; empty where ``unpaired``.
        matte: Files of the subject's coverage; empty where ``unpaired``.
        background: Files of the plate without the subject; empty where ``unpaired``.
        caption: What is seen; empty where nobody said.
        unpaired: True where there is a plate and a caption alone.
        working_space: Scene-linear space of all light, as ``colour.spaces.resolve`` reads it.
        ocio: The OpenColorIO config that it is a name of; empty for none.
        exposure: Stops by which a model should see it brighter.
        made: Of what files ``original`` was made, and who made matte, background and caption.
    """

    name: str
    frames: tuple[int, ...]
    original: tuple[Path, ...]
    fg: tuple[Path, ...] = ()
    matte: tuple[Path, ...] = ()
    background: tuple[Path, ...] = ()
    caption: str = ""
    unpaired: bool = False
    working_space: str = "scene_linear"
    ocio: str = ""
    exposure: float = 0.0
    made: Mapping[str, str] = field(default_factory=dict)

    def files(self, layer: str) -> tuple[Path, ...]:
        """Return the files of a layer, one for each frame; empty where the clip has none."""
        found: tuple[Path, ...] = getattr(self, layer)
        return found

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the layers that the clip has."""
        return (ORIGINAL,) if self.unpaired else PAIRED


def clip_at(folder: Path, name: str, frames: tuple[int, ...], **facts: Any) -> Clip:
    """Return a clip whose pictures lie, or will lie, where the layout says.

    Args:
        folder: The folder of all clips.
        name: Name of the clip.
        frames: Its frame numbers, ascending.
        **facts: Further attributes of :class:`Clip`.

    Raises:
        BadName: A file system somewhere could not carry the name.
    """
    if not _NAME.match(name):
        raise BadName(
            f"'{name}' cannot be the name of a clip.",
            hint="Letters, digits, _, - and ., at most 64, the first a letter or a digit.",
        )

    def files(layer: str) -> tuple[Path, ...]:
        has = layer == ORIGINAL or not facts.get("unpaired")
        return tuple(picture_path(folder / name, layer, n) for n in frames) if has else ()

    return Clip(name, frames, files(ORIGINAL), files(FG), files(MATTE), files(BACKGROUND), **facts)


def picture_path(clip_folder: Path, layer: str, frame: int) -> Path:
    """Return the file of one picture of a clip."""
    return clip_folder / layer / f"{layer}.{frame:04d}.exr"


# --- writing -------------------------------------------------------------------------------------


def write_clip(folder: Path, clip: Clip) -> None:
    """Say that a clip is whole: its caption, then ``clip.toml``. Its pictures are there already.

    Args:
        folder: The folder of all clips.
        clip: The clip; its files lie where :func:`clip_at` says.

    Raises:
        MissingFrame: One of its pictures is not there.
        UnwritableOutput: It cannot be written.
    """
    check_pictures(clip)
    place = folder / clip.name
    entries: dict[str, Any] = {
        "version": _VERSION,
        "frames": spell_frames(clip.frames),
        "unpaired": clip.unpaired,
        "working_space": clip.working_space,
        "ocio": clip.ocio,
        "exposure": float(clip.exposure),
    }
    lines = [f"{key} = {_spelt(value)}" for key, value in entries.items()]
    if clip.made:
        made = [f"{key} = {_spelt(value)}" for key, value in clip.made.items() if _KEY.match(key)]
        lines += ["", "[made]", *made]
    _write_text(place / CAPTION_FILE, f"{clip.caption.strip()}\n")
    _write_text(place / CLIP_FILE, "\n".join(lines) + "\n")


def write_picture(
    path: Path, pixels: NDArray[np.floating[Any]], *, pixel_aspect: float = 1.0
) -> None:
    """Write one picture of a clip; its folder is made.

    Args:
        path: Its file, from :func:`clip_at` or :func:`picture_path`.
        pixels: [H,W,3] of a colour, [H,W,1] of a matte; float16 or float32, scene-linear or
            coverage.
        pixel_aspect: Width over height of one pixel.

    Raises:
        DiskFull, UnwritableOutput: It cannot be written.
    """
    from gencomp_server.contract import LayerFrame
    from gencomp_server.exr.write import write_layer

    layer = path.parent.name
    height, width = pixels.shape[:2]
    window = Box(0, 0, width - 1, height - 1)
    _make(path.parent)
    write_layer(path, LayerFrame(layer, 0, pixels, CHANNELS[layer], window, window, pixel_aspect))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnwritableOutput(
            f"The folder {folder} cannot be made: {error.strerror}.",
            hint="Choose another folder with --out.",
        ) from error


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise UnwritableOutput(
            f"The file {path} cannot be written: {error.strerror}.",
            hint="Choose another folder with --out.",
        ) from error


def _spelt(value: Any) -> str:
    """Spell a value as TOML has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    escaped = "".join(
        f"\\u{ord(one):04x}" if one in '"\\' or ord(one) < 32 or ord(one) == 127 else one
        for one in str(value)
    )
    return f'"{escaped}"'


# --- reading -------------------------------------------------------------------------------------


def read_clips(folder: Path) -> list[Clip]:
    """Return the whole clips of a folder, by name.

    A folder without ``clip.toml`` is no clip: it is not whole yet, or something else.

    Raises:
        MissingInput: There is none.
        BadPicture: A ``clip.toml`` cannot be read.
        MissingFrame: A picture that it names is not there.
    """
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    clips = [read_clip(one) for one in inside if (one / CLIP_FILE).is_file()]
    if not clips:
        raise MissingInput(
            f"There is no clip for training in {folder}.",
            hint="Write clips there with gencomp decompose.",
        )
    return clips


def read_clip(place: Path) -> Clip:
    """Return one clip.

    Args:
        place: Its own folder.

    Raises:
        BadPicture: Its ``clip.toml`` or caption cannot be read.
        MissingFrame: One of its pictures is not there.
    """
    file = place / CLIP_FILE
    try:
        plain = tomllib.loads(file.read_text(encoding="utf-8"))
        caption = place / CAPTION_FILE
        words = caption.read_text(encoding="utf-8").strip() if caption.is_file() else ""
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadPicture(f"The clip in {place} cannot be read: {error}.", hint=_AGAIN) from error
    kinds: dict[str, Any] = {
        "version": int,
        "frames": str,
        "unpaired": bool,
        "working_space": str,
        "ocio": str,
        "exposure": (int, float),
    }
    for key, kind in kinds.items():
        value = plain.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BadPicture(f"In {file} the entry '{key}' is missing or wrong.", hint=_AGAIN)
    if plain["version"] != _VERSION:
        raise BadPicture(f"{file} is of version {plain['version']}, not {_VERSION}.", hint=_AGAIN)
    facts = {key: plain[key] for key in ("unpaired", "working_space", "ocio", "exposure")}
    made = {key: str(value) for key, value in plain.get("made", {}).items()}
    clip = clip_at(
        place.parent, place.name, _frames(plain["frames"], file), caption=words, made=made, **facts
    )
    check_pictures(clip)
    return clip


def _frames(text: str, file: Path) -> tuple[int, ...]:
    try:
        frames = frame_list(text)
    except BadKnob as error:
        raise BadPicture(f"In {file} the entry 'frames' is wrong.", hint=_AGAIN) from error
    if not frames:
        raise BadPicture(f"In {file} the entry 'frames' is empty.", hint=_AGAIN)
    return frames


def check_pictures(clip: Clip) -> None:
    """Check that every picture of a clip is there.

    Raises:
        MissingFrame: One is not; names clip, layer and frames.
    """
    for layer in clip.layers:
        files = zip(clip.frames, clip.files(layer), strict=True)
        lacking = [frame for frame, path in files if not path.is_file()]
        if lacking:
            raise MissingFrame(
                f"Clip '{clip.name}' lacks {layer} on frames {spell_frames(lacking)}.",
                hint=_AGAIN,
                frame=lacking[0],
            )


def read_picture(path: Path) -> NDArray[np.float32]:
    """Return the pixels of one picture of a clip.

    Args:
        path: Its file; the folder's name says which layer it is.

    Returns:
        [H,W,3] of a colour, scene-linear; [H,W,1] of a matte. float32, over its display window.

    Raises:
        BadPicture: The file is damaged or is not a picture.
        MissingFrame: It is not there.
    """
    import numpy as np

    from gencomp_server.exr.header import parse_exr
    from gencomp_server.exr.pixels import read_exr

    layer = path.parent.name
    label = f"The file {path}"
    if not path.is_file():
        raise MissingFrame(f"{label} is not there.", hint=_AGAIN)
    part = parse_exr(path, label)[0]
    held = {channel.name for channel in part.channels}
    if not set(CHANNELS[layer]) <= held or part.data_window != part.display_window:
        raise BadPicture(f"{label} is not a picture of the layer {layer}.", hint=_AGAIN)
    return np.asarray(read_exr(path, part, 0, CHANNELS[layer], label).pixels, np.float32)
