# SPDX-License-Identifier: Apache-2.0
"""What a system is: its inputs, knobs, layers, plan and run; and what a run is given.

Free of torch, cv2 and OpenImageIO, so that the front process may import it. A system is one file
with one :class:`System` in it; ``run`` is a plain generator that reads as the paper's figure::

    def run(shot, params, ctx):
        scene = ctx.stage("measure", measure, shot, threshold=params.threshold)
        for n in shot.frames:
            yield LayerFrame("background", n, pixels, RGBA)

There is no way to get a whole clip at plate size: ``Shot`` gives one frame, or rows of one.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gencomp_protocol.errors import (
    BadKnob,
    FormatMismatch,
    MissingFrame,
    MissingInput,
    RangeMismatch,
)
from gencomp_protocol.frames import Box, Format, FrameRange, spell_frames
from gencomp_protocol.layers import LayerSpec
from gencomp_protocol.request import SEQUENCE, STILL, STILLS, InputHeader, Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gencomp_server.models.backbone import Backbone
    from gencomp_server.segmenting import Segmenter

    Pixels = NDArray[np.float16] | NDArray[np.float32]

T = TypeVar("T")


# --- knobs ---------------------------------------------------------------------------------------


def knob(
    default: Any,
    *,
    doc: str,
    lo: float | None = None,
    hi: float | None = None,
    choices: tuple[str, ...] | None = None,
    shown: Mapping[str, str] | None = None,
    label: str = "",
    tab: str = "Main",
    delivery: bool = False,
) -> Any:
    """Declare a knob: a dataclass field whose name is the knob's name.

    Args:
        default: Value when the artist touches nothing; its type is the knob's type.
        doc: Tooltip: what it does, unit and range.
        lo: Least value allowed, for numbers.
        hi: Greatest value allowed, for numbers.
        choices: Allowed values, for an enumeration.
        shown: What a menu shows for some of them: the choice, and more in brackets.
        label: Label in the panel; the name with spaces when empty.
        tab: Tab of the gizmo that shows it.
        delivery: True where turning it must rerun no expensive stage.
    """
    meta = {
        "doc": doc,
        "lo": lo,
        "hi": hi,
        "choices": choices,
        "shown": shown,
        "label": label,
        "tab": tab,
        "delivery": delivery,
    }
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class CommonParams:
    """Knobs that every system has."""

    seed: int = knob(0, lo=0, hi=2**31 - 1, doc="Same seed, same inputs, same pixels.")


def knob_fields(params: type[CommonParams]) -> tuple[dataclasses.Field[Any], ...]:
    """Return the knobs of a Params class in panel order."""
    return dataclasses.fields(params)


def parse_params(params: type[CommonParams], values: Mapping[str, Any]) -> Any:
    """Make a Params from knob values, each checked for name, type and range.

    Text is accepted for numbers and switches (``"0.5"``, ``"on"``), since a command line has
    nothing else.

    Raises:
        BadKnob: Unknown knob (names the nearest), wrong type, NaN, out of range, not a choice.
    """
    fields = {f.name: f for f in knob_fields(params)}
    made = {}
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Knobs are: {', '.join(fields)}."
            raise BadKnob(f"There is no knob '{name}'.", hint=hint, knob=name)
        made[name] = _parse_knob(fields[name], value)
    return params(**made)


def _parse_knob(spec: dataclasses.Field[Any], value: Any) -> Any:
    kind, meta = type(spec.default), spec.metadata
    parsed = _as_kind(kind, value)
    if parsed is None:
        words = {bool: "on or off", int: "a whole number", float: "a number", str: "text"}
        lo, hi = meta["lo"], meta["hi"]
        raise BadKnob(
            f"Knob '{spec.name}' takes {words[kind]}, not {value!r}.",
            hint="" if lo is None or hi is None else f"Allowed are {lo:g} to {hi:g}.",
            knob=spec.name,
        )
    choices, lo, hi = meta["choices"], meta["lo"], meta["hi"]
    if choices and parsed not in choices:
        near = difflib.get_close_matches(str(parsed).lower(), choices, n=1)
        meant = f"Did you mean '{near[0]}'? " if near else ""
        raise BadKnob(
            f"Knob '{spec.name}' cannot be '{parsed}'.",
            hint=f"{meant}Choose one of: {', '.join(choices)}.",
            knob=spec.name,
        )
    if isinstance(parsed, (int, float)) and not isinstance(parsed, bool):
        below, above = lo is not None and parsed < lo, hi is not None and parsed > hi
        if below or above:
            nearest = f"{lo:g} or more" if below else f"{hi:g} or less"
            raise BadKnob(
                f"Knob '{spec.name}' is {parsed:g}, allowed are {lo:g} to {hi:g}.",
                hint=f"Set it to {nearest}; its default is {spec.default:g}.",
                knob=spec.name,
            )
    return parsed


def _as_kind(kind: type, value: Any) -> Any:
    """Return ``value`` as ``kind``, or None where it is not one."""
    if kind is bool:
        words = {
            "on": True,
            "true": True,
            "1": True,
            "yes": True,
            "off": False,
            "false": False,
            "0": False,
            "no": False,
        }
        return value if isinstance(value, bool) else words.get(str(value).lower())
    if kind is str:
        return value if isinstance(value, str) else None
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        return None
    return kind(number)


# --- inputs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """An input of a system.

    Attributes:
        name: ``plate``, or ``matte.*`` for a family whose members the artist names.
        kind: ``rgb`` (three channels wanted, all others pass through), ``rgba``, ``matte`` or
            ``data``: one channel of any finite values, such as depth. Data is never clamped; its
            NaN and infinite samples reach the system, which leaves them out.
        doc: What it is, for panel and docs.
        optional: True where the system works without it.
        most: For a family: how many members there may be.
        covers: Which covers are taken: ``sequence``, ``still``, ``stills``.
        files_of: Another matte whose files hold this one too, in a channel of their own. A client
            then sends those files under this name as well, where ``channel_knob`` names one.
        channel_knob: The knob that names the channel.
        gaps_are_stills: A numbered pattern that lacks frames of the range is single pictures at
            the frames it has; the system's own ``check`` says whether those are enough.
        own_frames: A clip with a time of its own: its frame numbers need not be those of the range,
            and every frame that it has is sent. The system says which plays when.
        own_format: Its size need not be that of the other inputs.
    """

    name: str
    kind: str
    doc: str
    optional: bool = False
    most: int = 1
    covers: tuple[str, ...] = (SEQUENCE,)
    files_of: str = ""
    channel_knob: str = ""
    gaps_are_stills: bool = False
    own_frames: bool = False
    own_format: bool = False

    def matches(self, name: str) -> bool:
        """Tell whether an input of a request belongs to this declaration."""
        if self.name.endswith(".*"):
            return name.startswith(self.name[:-1]) and len(name) > len(self.name) - 1
        return name == self.name


@dataclass(frozen=True)
class OneOf:
    """Alternatives: the first set of inputs that is wholly connected is used."""

    sets: tuple[tuple[Input, ...], ...]


def spell_input(name: str) -> str:
    """Return a declared input's name as an artist types it: ``matte.*`` is ``matte.NAME``."""
    return name[:-1] + "NAME" if name.endswith(".*") else name


def declared_inputs(system: System) -> tuple[Input, ...]:
    """Return every input a system may take, alternatives spread out."""
    found: list[Input] = []
    for entry in system.inputs:
        found.extend([entry] if isinstance(entry, Input) else [i for s in entry.sets for i in s])
    return tuple(found)


def check_inputs(system: System, request: Request) -> None:
    """Refuse a request whose inputs do not fit the system, from the header alone.

    Raises:
        MissingInput: A required input is absent, an unknown or superfluous one is given.
        MissingFrame: An input lacks a frame of the range.
        FormatMismatch: Two inputs differ in size.
        RangeMismatch: An input shares no frame with the range.
    """
    declared = declared_inputs(system)
    for entry in request.inputs:
        if not any(spec.matches(entry.name) for spec in declared):
            raise MissingInput(
                f"{system.title} has no input '{entry.name}'.",
                hint=f"Its inputs are: {', '.join(spell_input(spec.name) for spec in declared)}.",
            )
    for rule in system.inputs:
        _check_presence(system, rule, request)
    for entry in request.inputs:
        _check_cover(next(spec for spec in declared if spec.matches(entry.name)), entry, request)
    _check_formats(declared, request)


def _present(spec: Input, request: Request) -> list[InputHeader]:
    return [entry for entry in request.inputs if spec.matches(entry.name)]


def _check_presence(system: System, rule: Input | OneOf, request: Request) -> None:
    if isinstance(rule, OneOf):
        if not any(all(_present(spec, request) for spec in one) for one in rule.sets):
            wanted = " or ".join(" + ".join(spec.name for spec in one) for one in rule.sets)
            raise MissingInput(f"{system.title} needs {wanted}.", hint="Connect one of them.")
        return
    found = _present(rule, request)
    if not found and not rule.optional:
        raise MissingInput(
            f"{system.title} needs the input '{spell_input(rule.name)}': {rule.doc}",
            hint="Connect it, or name it with --input.",
            input=rule.name,
        )
    if len(found) > rule.most:
        raise MissingInput(
            f"{system.title} takes at most {rule.most} of '{spell_input(rule.name)}', "
            f"not {len(found)}.",
            hint="Leave some out, or merge mattes that belong together.",
            input=rule.name,
        )


def _check_cover(spec: Input, entry: InputHeader, request: Request) -> None:
    if entry.cover not in spec.covers:
        raise MissingFrame(
            f"Input '{entry.name}' cannot be a {entry.cover.rstrip('s')}.",
            hint="Give one picture per frame.",
            input=entry.name,
        )
    if not entry.frames:
        raise MissingFrame(f"Input '{entry.name}' has no pictures.", hint="Check its path.")
    if entry.cover == STILL or spec.own_frames:
        return
    have, want = set(entry.frames), set(request.frames)
    if entry.cover == STILLS:
        if not have <= want:
            raise RangeMismatch(
                f"Input '{entry.name}' has pictures at {spell_frames(have - want)}, "
                f"outside the range {request.frames}.",
                hint="Widen the range to take them in, or leave this input out.",
            )
        return
    if not have & want:
        raise RangeMismatch(
            f"Input '{entry.name}' has frames {spell_frames(have)}, "
            f"the job wants {request.frames}.",
            hint="Shift the sequence or the range so that they meet.",
        )
    if want - have:
        raise MissingFrame(
            f"Input '{entry.name}' has no frame {spell_frames(want - have)}.",
            hint="Render the missing frames, or shorten the range.",
            input=entry.name,
            frame=min(want - have),
        )


def _check_formats(declared: tuple[Input, ...], request: Request) -> None:
    free = {e.name for e in request.inputs for s in declared if s.own_format and s.matches(e.name)}
    known = [e for e in request.inputs if e.format is not None and e.name not in free]
    for entry in known[1:]:
        at = entry.frames[0] if entry.frames else None
        check_same_format(known[0].name, known[0].format, entry.name, entry.format, at)


def check_same_format(
    name_a: str, a: Format | None, name_b: str, b: Format | None, frame: int | None = None
) -> None:
    """Refuse two pictures whose display windows differ in width or height.

    Raises:
        FormatMismatch: They differ; names both, and the frame where it is known.
    """
    if a is None or b is None or (a.width, a.height) == (b.width, b.height):
        return
    where = "" if frame is None else f" at frame {frame}"
    raise FormatMismatch(
        f"Input '{name_b}' is {b.width}x{b.height}{where}, but '{name_a}' is {a.width}x{a.height}.",
        hint="Reformat one of them.",
        input=name_b,
        frame=frame,
    )


# --- systems -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a job will cost, known before it starts.

    Attributes:
        backbone: Name of the backbone that would be used, empty for none.
        tokens: Tokens of one forward, text included.
        forwards: Transformer forwards; a batch of two counts two.
        teraflops: What the forwards cost, in 1e12 floating-point operations.
        stage_bytes: Device memory by stage: ``text``, ``encode``, ``sample``, ``decode``.
        bytes_in: Pixels to read, in bytes uncompressed.
        bytes_out: Pixels to deliver, in bytes uncompressed.
        minutes: Estimate on this device.
        memory_bytes: Estimate of the peak memory of the process tree.
        placement: How the backbone is placed, as ``cost.Placement`` has it; empty without one.
        notes: Sentences for the artist.
    """

    backbone: str = ""
    tokens: int = 0
    forwards: int = 0
    teraflops: float = 0.0
    stage_bytes: Mapping[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    minutes: float = 0.0
    memory_bytes: int = 0
    placement: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Why a backbone cannot be taken.

    Attributes:
        sentence: Names the file that is missing, or the licence class that is not allowed.
        cure: One sentence that says what to do.
        by_licence: True where its weights are installed, and it or their licence class is not
            allowed.
    """

    sentence: str
    cure: str = ""
    by_licence: bool = False


@dataclass(frozen=True)
class Machine:
    """What a job would run on, as far as a plan needs to know.

    Attributes:
        device: ``cpu`` or ``cuda:0``.
        name: The device's own name, for sentences.
        memory_bytes: Memory of the device, 0 where it is not known.
        free_bytes: What of it is free, 0 where it is not known.
        teraflops: What it sustains in matrix products, 1e12 operations a second; 0 not known.
        backbones: Names of the backbones whose weights are installed and allowed.
        refused: Why a backbone is not among them, by its name.
        segmenter: True where its server has one.
    """

    device: str = "cpu"
    name: str = ""
    memory_bytes: int = 0
    free_bytes: int = 0
    teraflops: float = 0.0
    backbones: tuple[str, ...] = ()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    segmenter: bool = False


NO_BACKBONE = "none"
MAY_USE_BACKBONE = "optional"
NEEDS_BACKBONE = "required"


@dataclass(frozen=True)
class System:
    """One method, declared: the table that server, gizmo, docs and tests read.

    ``plan`` is a function of header, knobs and machine; ``backbone`` tells whether a video
    diffusion transformer is used: ``none``, ``optional`` or ``required``.
    """

    name: str
    title: str
    doc: str
    inputs: tuple[Input | OneOf, ...]
    params: type[CommonParams]
    layers: Callable[[Request], tuple[LayerSpec, ...]]
    plan: Callable[[Request, Machine], Plan]
    run: Callable[[Shot, Any, Context], Iterator[LayerFrame]]
    check: Callable[[Request], None] | None = None
    backbone: str = NO_BACKBONE


def check_request(system: System, request: Request) -> Any:
    """Refuse what can be refused from the header; return the parsed Params.

    Raises:
        ArtistError: Any reason, as one sentence.
    """
    params = parse_params(system.params, request.knobs)
    check_inputs(system, request)
    if system.check is not None:
        system.check(request)
    system.layers(request)
    return params


def schema(system: System) -> dict[str, Any]:
    """Return a system's declaration as plain data, for ``gencomp systems`` and the gizmos."""
    return {
        "name": system.name,
        "title": system.title,
        "doc": system.doc,
        "inputs": [dataclasses.asdict(entry) for entry in system.inputs],
        "knobs": [
            {"name": f.name, "type": type(f.default).__name__, "default": f.default, **f.metadata}
            for f in knob_fields(system.params)
        ],
    }


# --- what a run is given -------------------------------------------------------------------------


@dataclass(frozen=True)
class PictureHeader:
    """What is known of one picture.

    Attributes:
        channels: Channel names in file order.
        pixel_type: ``half`` or ``float``: the type of R, G and B (or of the first channel).
        display_window: The picture's frame.
        data_window: The pixels present; may be smaller or larger.
        pixel_aspect: Width over height of one pixel.
        metadata: Attributes of the file worth carrying on: plain str, int, float and tuples.
        nan_count: Samples that are NaN or infinite.
    """

    channels: tuple[str, ...]
    pixel_type: str
    display_window: Box
    data_window: Box
    pixel_aspect: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    nan_count: int = 0


class Shot(Protocol):
    """One job's material, a frame at a time.

    Pixels come as the file holds them: float16 or float32, scene-linear, unclamped, NaN included,
    row 0 at the top, over the picture's own data window. ``still`` inputs answer for every frame.
    """

    frames: FrameRange
    request: Request

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs, in the artist's order."""
        ...

    def header(self, name: str, n: int | None = None) -> PictureHeader:
        """Return the header of frame ``n``, or of the input's first picture."""
        ...

    def frames_of(self, name: str) -> tuple[int, ...]:
        """Return the frames at which an input has a picture of its own."""
        ...

    def frame(self, name: str, n: int, channels: tuple[str, ...] | None = None) -> Pixels:
        """Return one picture. [H,W,C] of its own type; a matte or data always comes as [H,W,1]."""
        ...

    def rows(self, name: str, n: int, y0: int, y1: int) -> Pixels:
        """Return rows ``y0`` to ``y1`` (exclusive) of the data window. [y1-y0,W,C]."""
        ...

    def digest(self, name: str, n: int) -> str:
        """Return the BLAKE2b digest of the picture's file, in hex."""
        ...

    def only(self, *names: str) -> Shot:
        """Return the same shot with these inputs alone: what a stage depends on."""
        ...


class Context(Protocol):
    """What a run may use besides its inputs.

    ``backbone`` is what the job's knob ``backbone`` came to, None where there is none; its weights
    are loaded at its first use inside a stage, not before. ``segmenter`` draws mattes of what words
    name, None where the server has none.
    """

    backbone: Backbone | None
    segmenter: Segmenter | None
    log: logging.Logger
    seed: int

    def generator(self, key: str) -> np.random.Generator:
        """Return a fresh generator that depends on seed and key alone, never shared."""
        ...

    def progress(self, stage: str, step: int, total: int) -> None:
        """Report ``step`` of ``total`` of a stage; cheap, may be called for every step."""
        ...

    def check_cancelled(self) -> None:
        """Raise Cancelled where the artist has cancelled."""
        ...

    def warn(self, sentence: str) -> None:
        """Tell the artist something: log, event and manifest carry it."""
        ...

    def report(self, key: str, value: Any) -> None:
        """Put a figure into the manifest under ``key``: plain data only."""
        ...

    def stage(
        self,
        name: str,
        fn: Callable[..., T],
        *inputs: Any,
        version: int = 1,
        seeded: bool = True,
        **settings: Any,
    ) -> T:
        """Return ``fn(ctx, *inputs, **settings)``, kept on disk by content.

        The key is a BLAKE2b digest of name, version, settings, seed (unless ``seeded`` is False:
        then there are no random numbers either), device plan and the inputs' digests; where it is
        on disk already, nothing is called. ``fn`` returns plain data: frozen
        dataclasses, tuples, dicts, str, numbers, None and numpy arrays (which come back
        memory-mapped, read-only).
        """
        ...

    def made_of(self, value: T, *sources: Any) -> T:
        """Return a value, noting for the job's graph which stages' results it was computed from.

        A result that goes into a stage as it is, or a view of it, needs no word; one that was
        computed on the way does.
        """
        ...

    def checkpoint(
        self, name: str, tensors: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[Any]] | None:
        """Inside a stage: save named arrays, or, given none, return what was saved (or None)."""
        ...


@dataclass(frozen=True)
class LayerFrame:
    """One delivered picture.

    Attributes:
        layer: Name of the layer.
        frame: Timeline frame.
        pixels: Premultiplied, scene-linear, in the type that is to be written.
            [H,W,C] float16 or float32, over ``data_window``.
        channels: Channel names, in order.
        display_window: The picture's frame.
        data_window: The pixels present.
        pixel_aspect: Width over height of one pixel.
        metadata: The plate's metadata to carry on, and what the system adds (``gencomp:*``).
    """

    layer: str
    frame: int
    pixels: Pixels
    channels: tuple[str, ...]
    display_window: Box
    data_window: Box
    pixel_aspect: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)


def find_system(registry: Iterable[System], name: str) -> System:
    """Return the system of that name.

    Raises:
        BadKnob: There is none; names the nearest.
    """
    known = {system.name: system for system in registry}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Systems are: {', '.join(known)}."
        raise BadKnob(f"There is no system '{name}'.", hint=hint)
    return known[name]
