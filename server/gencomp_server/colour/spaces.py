# SPDX-License-Identifier: Apache-2.0
"""The space a job's pictures are in, by name: what it is and how it gets to Linear Rec.709.

A name is looked up in the OpenColorIO config that the request gives, else in a built-in one that is
pinned by its full name, so that the same name is the same space on every machine. Nothing is
converted here, and nothing about a space is written by hand: a :class:`Space` carries the matrix
that OpenColorIO makes of it, or says that there is none and OpenColorIO has to be asked.

The front process may import this file: OpenColorIO itself is loaded only where another space than
Linear Rec.709 is asked for, and numpy never.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gencomp_protocol.request import Request

SCENE_LINEAR = "scene_linear"
BUILTIN = "ocio://"
# Where names are looked up without a config, and what Linear Rec.709 means to every other.
PINNED = "cg-config-v2.1.0_aces-v1.3_ocio-v2.3"
_TARGET = "lin_rec709_srgb"
_REC709_NAMES = (_TARGET, "Linear Rec.709 (sRGB)", "Linear Rec.709", "lin_rec709", "lin_srgb")
# What configs call a space, and its short names as letters and digits alone.
_CALLED = (
    (
        _REC709_NAMES,
        "linearrec709 linrec709 rec709linear linearrec709srgb linrec709srgb linearsrgb linsrgb",
    ),
    (("ACEScg", "lin_ap1"), "acescg acesacescg linap1 ap1"),
    (("ACES2065-1", "aces2065_1", "lin_ap0"), "aces20651 acesaces20651 linap0 ap0"),
    (("Linear P3-D65", "lin_p3d65"), "linearp3 linearp3d65 linp3d65 lineardisplayp3 p3linear"),
    (("Linear Rec.2020", "lin_rec2020"), "linearrec2020 linrec2020"),
)
_SHORT = {short: names for names, shorts in _CALLED for short in shorts.split()}
_SHORT_REC709 = frozenset(_CALLED[0][1].split())
# What Linear Rec.709 is called besides where no config is given; "linear" is Nuke's own.
_WITHOUT_CONFIG = frozenset({"", SCENE_LINEAR, "linear"})
# Nuke's menus say a role and the space behind it: "scene_linear (ACES - ACEScg)".
_ROLE_AND_SPACE = re.compile(r"\A[a-z_]+ \((.+)\)\Z")
# A config is text, or an archive of it with its tables; what is larger is no config.
_LARGEST_CONFIG = 1 << 28
# Two spaces whose matrix is this near to none are one space: a fiftieth of a half's own step.
_SAME_PRIMARIES = 1e-5
_NEAR = 4
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

Matrix = tuple[float, ...]


@dataclass(frozen=True)
class Space:
    """A scene-linear space, as it was found.

    Attributes:
        name: What its config calls it.
        matrix: Row by row, what brings its light to Linear Rec.709; None where a config does more
            than a matrix can, and OpenColorIO has to be asked (:func:`processors`).
        config: The config it stands in: a path or ``ocio://NAME``; empty where none was needed.
        config_id: What OpenColorIO calls the content of that config; empty where none was needed.
        asked: The name it was asked for by.
    """

    name: str = "Linear Rec.709 (sRGB)"
    matrix: Matrix | None = _IDENTITY
    config: str = ""
    config_id: str = ""
    asked: str = field(default=SCENE_LINEAR, compare=False)

    @property
    def is_rec709(self) -> bool:
        """Tell whether its light is that of Linear Rec.709 as it is."""
        return self.matrix == _IDENTITY

    @property
    def identity(self) -> str:
        """Name all that decides what its numbers mean, for the keys of stages."""
        if not self.config_id:
            return "rec709"
        return f"{self.name} {self.config_id}"

    @property
    def config_name(self) -> str:
        """Name the config without its folder, which is nobody's business."""
        return self.config if self.config.startswith(BUILTIN) else Path(self.config).name

    def describe(self) -> dict[str, Any]:
        """Return what a manifest says of it: plain data, keyed by text."""
        return {
            "working_space": self.name,
            "asked": self.asked,
            "config": self.config_name,
            "config_id": self.config_id,
            "to_rec709": None if self.matrix is None else list(self.matrix),
        }

    def spell(self) -> str:
        """Return name and config in a few words, for a note."""
        return f"{self.name} of {self.config_name}" if self.config else self.name


REC709 = Space()


def check_space(request: Request) -> Space:
    """Refuse a request whose colours cannot be understood; return the space of its pictures.

    Raises:
        BadKnob: See :func:`resolve`; or a picture is sRGB and the working space is not Rec.709.
    """
    space = resolve(request.working_space, request.ocio)
    for entry in request.inputs:
        if entry.colourspace == "srgb" and not space.is_rec709:
            raise BadKnob(
                f"Input '{entry.name}' holds sRGB codes, but the working space is {space.spell()}.",
                hint=f"Convert it to an EXR in {space.name}, or work in Linear Rec.709.",
                knob="working_space",
                input=entry.name,
            )
    return space


def resolve(working_space: str, ocio: str = "") -> Space:
    """Return the space of that name.

    A config is read again when its file changed; a table that it refers to and that changed alone
    is seen after a restart.

    Args:
        working_space: A space, alias or role of the config, a short name such as ``ACEScg`` or
            ``linear rec.709``, or as Nuke spells it; ``scene_linear`` is the config's role, and
            Linear Rec.709 without a config.
        ocio: Path of a config, or ``ocio://NAME`` of a built-in one in full; empty for none.

    Raises:
        BadKnob: There is no such space (the near ones are named), it is not scene-linear, the
            config is not there or cannot be read, or does not say what its colours are.
    """
    name = working_space.strip() or SCENE_LINEAR
    if not ocio and (name in _WITHOUT_CONFIG or _letters(name) in _SHORT_REC709):
        return Space(asked=name)
    return _resolved(name, ocio, _stamp(ocio))


def processors(space: Space) -> tuple[Any, Any]:
    """Return OpenColorIO's CPU processors of a space: to Linear Rec.709, and back.

    Raises:
        BadKnob: Its config is not what it was, or OpenColorIO knows no way back.
    """
    return _processors(space.name, space.config, _stamp(space.config))


# --- names ---------------------------------------------------------------------------------------


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _spellings(name: str) -> Iterator[str]:
    """Yield what a name may be called in a config, the most literal first."""
    yield name
    both = _ROLE_AND_SPACE.match(name)
    if both is not None:
        yield both[1]
        yield from _SHORT.get(_letters(both[1]), ())
    if "/" in name:  # a menu's path
        yield name.rpartition("/")[2].strip()
    yield from _SHORT.get(_letters(name), ())


def _found(config: Any, name: str) -> Any:
    """Return the config's own space of that name, alias or role; None for none."""
    spaces = (config.getColorSpace(spelling) for spelling in _spellings(name))
    return next((space for space in spaces if space is not None), None)


def _unknown(config: Any, name: str, where: str) -> BadKnob:
    """Return the refusal of a name; it lists the nearest, else what there is."""
    linear = [one.getName() for one in config.getColorSpaces() if _is_linear(config, one)]
    by_letters = {_letters(one): one for one in linear}
    for one in config.getColorSpaces():
        if one.getName() in linear:
            by_letters.update({_letters(alias): one.getName() for alias in one.getAliases()})
    for short, names in _SHORT.items():
        by_letters.setdefault(short, next((n for n in names if n in linear), ""))
    near = difflib.get_close_matches(_letters(name), by_letters, n=2 * _NEAR, cutoff=0.5)
    shown = [one for one in dict.fromkeys(by_letters[key] for key in near) if one][:_NEAR]
    known = shown or linear[: 2 * _NEAR]
    head = "Near are" if shown else "There are"
    return BadKnob(
        f"Working space '{name}' is not in {where}.",
        hint=f"{head}: {', '.join(known)}." if known else "It has no scene-linear space.",
        knob="working_space",
        given=name,
    )


# --- configs -------------------------------------------------------------------------------------


def _stamp(ocio: str) -> tuple[int, ...]:
    """Return what changes when the file of a config does; nothing for a built-in one.

    Raises:
        BadKnob: It is not a file that can be read.
    """
    if not ocio or ocio.startswith(BUILTIN):
        return ()
    cure = "Name one with --ocio or the variable OCIO, or leave it empty."
    if not os.path.isabs(ocio):
        raise BadKnob(
            f"The OCIO config {ocio} is not a whole path.", hint="Start it with /.", knob="ocio"
        )
    try:
        found = Path(ocio).stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise BadKnob(
            f"The OCIO config {ocio} cannot be opened ({why}).", hint=cure, knob="ocio"
        ) from error
    if not stat.S_ISREG(found.st_mode) or not 0 < found.st_size <= _LARGEST_CONFIG:
        raise BadKnob(
            f"The OCIO config {ocio} is no file, is empty or is too large.", hint=cure, knob="ocio"
        )
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _where(ocio: str) -> str:
    return f"the OCIO config {ocio}" if ocio else f"the built-in config {PINNED}"


def _built_in_names() -> list[str]:
    import PyOpenColorIO

    return [entry[0] for entry in PyOpenColorIO.BuiltinConfigRegistry().getBuiltinConfigs()]


@functools.lru_cache(maxsize=4)
def _opened(ocio: str, stamp: tuple[int, ...]) -> Any:
    """Return the config at a path or of a full built-in name; the pinned one for none.

    Raises:
        BadKnob: It cannot be read, or the name is not one in full.
    """
    import PyOpenColorIO

    if ocio and not ocio.startswith(BUILTIN):
        return _parsed(ocio)
    name = ocio.removeprefix(BUILTIN) or PINNED
    known = _built_in_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=_NEAR, cutoff=0.4) or [PINNED]
        raise BadKnob(
            f"There is no built-in OCIO config '{name}' here (OpenColorIO "
            f"{PyOpenColorIO.__version__}).",
            hint=f"Name one in full, such as {', '.join(BUILTIN + one for one in near)}.",
            knob="ocio",
        )
    return PyOpenColorIO.Config.CreateFromBuiltinConfig(name)


def _parsed(path: str) -> Any:
    import PyOpenColorIO

    try:
        return PyOpenColorIO.Config.CreateFromFile(path)
    except PyOpenColorIO.Exception as error:
        raise BadKnob(
            f"The OCIO config {path} cannot be read ({_one_line(error)}).",
            hint="Check it with ociocheck, or name another with --ocio.",
            knob="ocio",
        ) from error


def _one_line(error: Exception) -> str:
    """Return the end of a library's complaint, where it says what and in which line."""
    text = " ".join(str(error).split()).rstrip(".")
    return text.rpartition("failed. ")[2][-200:]


# --- from a config to a space --------------------------------------------------------------------


@functools.lru_cache(maxsize=16)
def _resolved(name: str, ocio: str, stamp: tuple[int, ...]) -> Space:
    config = _opened(ocio, stamp)
    found = _found(config, name)
    if found is None:
        raise _unknown(config, name, _where(ocio))
    if not _is_linear(config, found):
        kind = found.getEncoding() or ("data" if found.isData() else "not linear")
        raise BadKnob(
            f"Working space '{name}' of {_where(ocio)} is not scene-linear ({kind}).",
            hint="Render in a scene-linear space, such as the role scene_linear, and name that.",
            knob="working_space",
            given=name,
        )
    own = found.getName()
    return Space(
        own, _matrix_of(config, own, ocio), ocio or BUILTIN + PINNED, config.getCacheID(), name
    )


def _is_linear(config: Any, space: Any) -> bool:
    """Tell whether a space is light: by its encoding, else by what OpenColorIO measures."""
    import PyOpenColorIO

    if space.isData() or space.getReferenceSpaceType() != PyOpenColorIO.REFERENCE_SPACE_SCENE:
        return False
    return bool(config.isColorSpaceLinear(space.getName(), PyOpenColorIO.REFERENCE_SPACE_SCENE))


def _bridge(config: Any, name: str, ocio: str, *, back: bool = False) -> Any:
    """Return OpenColorIO's processor between a space and Linear Rec.709, optimised.

    By the interchange role where the config has one, else by its own space of that name, else by
    what OpenColorIO makes of the config's spaces.

    Raises:
        BadKnob: The config does not say what its colours are, or a table of it is missing.
    """
    import PyOpenColorIO

    own = next((s for s in map(config.getColorSpace, _REC709_NAMES) if s is not None), None)
    pinned = _opened("", ())
    try:
        if config.hasRole("aces_interchange"):
            pair = [(config, name), (pinned, _TARGET)]
            (a, a_name), (b, b_name) = reversed(pair) if back else pair
            made = PyOpenColorIO.Config.GetProcessorFromConfigs(a, a_name, b, b_name)
        elif own is not None:
            ends = (own.getName(), name) if back else (name, own.getName())
            made = config.getProcessor(*ends)
        else:
            ours, theirs = PyOpenColorIO.Config.IdentifyInterchangeSpace(
                config, name, pinned, _TARGET
            )
            sides = [(config, name, ours), (pinned, _TARGET, theirs)]
            first, second = reversed(sides) if back else sides
            made = PyOpenColorIO.Config.GetProcessorFromConfigs(*first, *second)
        return made.getOptimizedProcessor(
            PyOpenColorIO.BIT_DEPTH_F32,
            PyOpenColorIO.BIT_DEPTH_F32,
            PyOpenColorIO.OPTIMIZATION_LOSSLESS,
        )
    except PyOpenColorIO.Exception as error:
        raise BadKnob(
            f"Working space '{name}' of {_where(ocio)} has no way to Linear Rec.709 and back "
            f"({_one_line(error)}).",
            hint="Set the config's role aces_interchange, or name a space of another config.",
            knob="working_space",
        ) from error


def _matrix_of(config: Any, name: str, ocio: str) -> Matrix | None:
    """Return the matrix that a way to Linear Rec.709 is; None where it is more than one."""
    import PyOpenColorIO

    steps = list(_bridge(config, name, ocio).createGroupTransform())
    _bridge(config, name, ocio, back=True)  # refused here, where there is no way back
    if not steps:
        return _IDENTITY
    alone = steps[0]
    if len(steps) > 1 or not isinstance(alone, PyOpenColorIO.MatrixTransform):
        return None
    table = alone.getMatrix()
    is_forward = alone.getDirection() == PyOpenColorIO.TRANSFORM_DIR_FORWARD
    if not is_forward or any(alone.getOffset()) or any(table[3::4][:3]):
        return None
    rows = tuple(float(table[4 * row + column]) for row in range(3) for column in range(3))
    near = max(abs(a - b) for a, b in zip(rows, _IDENTITY, strict=True)) < _SAME_PRIMARIES
    return _IDENTITY if near else rows


@functools.lru_cache(maxsize=4)
def _processors(name: str, ocio: str, stamp: tuple[int, ...]) -> tuple[Any, Any]:
    config = _opened(ocio, stamp)
    there, back = (_bridge(config, name, ocio, back=way) for way in (False, True))
    return there.getDefaultCPUProcessor(), back.getDefaultCPUProcessor()
