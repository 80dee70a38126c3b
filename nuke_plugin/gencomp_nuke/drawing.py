# SPDX-License-Identifier: Apache-2.0
"""The button that draws where elements go: ``gencomp preview`` over frames that Nuke renders.

Three frames of the plate are rendered, and of every element what is to be seen on them; the other
frames are given to the tool as further names of the nearest of these, for it asks for whole
sequences and looks at three pictures. A point that is to be tracked needs the whole plate. The tool
runs in a thread of its own, without a server and without a model; the picture is opened as files
are on that machine.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import asking, export, node, prefs, tool
from gencomp_nuke.asking import Ask, Pipe
from gencomp_protocol import motion
from gencomp_protocol.errors import GencompError, MissingInput, ToolFailed
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.layers import BG, DEPTH, ELEMENT, FG, FG_MATTE, FG_PREFIX, HOLDOUT
from gencomp_protocol.locate import home_folder
from gencomp_protocol.request import STILL, InputHeader, Request

log = logging.getLogger(__name__)

FOLDER = "previews"
_SHOWN = (BG, HOLDOUT, DEPTH)
_KINDS = {"trajectory": motion.PATH, "scale": motion.CURVE, "transform": motion.MATRIX}
_LONGEST = 4000  # Windows takes some 32,000 letters of a command in all.
_drawing: "set[str]" = set()


def draw(gizmo: Any) -> None:
    """Draw where the elements go and show the picture; with an interface, in a while.

    Raises:
        MissingInput: No element is connected.
        GencompError: The inputs cannot be rendered, or the tool cannot be started.
    """
    ask, settings = asking.ask(gizmo), prefs.load()
    if not any(_is_element(pipe.header.name) for pipe in ask.pipes):
        raise MissingInput(
            f"{gizmo.name()} has no element to draw the way of.", hint="Connect one to Fg1."
        )
    identity = node.identify(gizmo)
    if identity in _drawing:
        return
    picture = home_folder() / FOLDER / f"{identity}.png"
    folder = Path(tempfile.mkdtemp(prefix="gencomp_"))
    try:
        files = export.render(gizmo, _fewer(ask), folder / "rendered")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if not nuke.GUI:
        told = _made(ask, files, folder, picture, settings)
        node.tell(gizmo, f"Drew the way: {picture}. {told}")
        return
    _drawing.add(identity)
    node.tell(gizmo, "Drawing the way.")

    def work() -> None:
        told, failure = "", None
        try:
            told = _made(ask, files, folder, picture, settings)
        except Exception as error:  # The edge of the thread: it ends as a sentence on the node.
            failure = error
        nuke.executeInMainThread(_end, (gizmo, identity, picture, told, failure))

    threading.Thread(target=work, name="gencomp drawing", daemon=True).start()


def _end(
    gizmo: Any, identity: str, picture: Path, told: str, failure: "Optional[Exception]"
) -> None:
    """Say on the node how it went, and open the picture. Main thread."""
    _drawing.discard(identity)
    if failure is not None and not isinstance(failure, GencompError):
        log.error("the preview failed", exc_info=failure)
    with contextlib.suppress(ValueError):  # The node was deleted meanwhile.
        if failure is not None:
            node.tell(gizmo, str(failure))
            return
        try:
            tool.open_outside(picture)
        except ToolFailed as error:
            told = f"{told} {error}"
        node.tell(gizmo, f"Drew the way: {told}")


# --- which frames are looked at ------------------------------------------------------------------


def looked_at(request: Request) -> "tuple[int, ...]":
    """Return the frames of the plate that the picture shows: three of each element's life.

    What an element's alpha is known for by its pixels alone may leave others; of these the nearest
    is shown.
    """
    lives = [_life(request, entry) for entry in request.inputs if _is_element(entry.name)]
    shown = {n for life in lives for n in three(life)}
    return tuple(sorted(shown | set(three(sorted({n for life in lives for n in life})))))


def three(frames: "Sequence[int]") -> "tuple[int, ...]":
    """Return the first, the middle and the last, each once."""
    picks = (0, len(frames) // 2, len(frames) - 1) if frames else ()
    return tuple(frames[i] for i in sorted(set(picks)))


def _life(request: Request, entry: InputHeader) -> "list[int]":
    """Return the frames on which an element is there, as far as its knobs say it plainly."""
    own = _own_at(request, entry)
    return [n for n, _ in own] or list(request.frames)


def _own_at(request: Request, entry: InputHeader) -> "list[tuple[int, int]]":
    """Return frames of the plate with the element's own frame there; none where it is not plain."""
    start, speed = (_plain(request, knob, entry) for knob in ("fg_start", "fg_speed"))
    listed = motion.section_of(str(request.knobs["fg_range"]), _name(entry), "fg_range")
    own = tuple(FrameRange.parse(listed)) if listed else entry.frames
    first = start if start is not None else float(own[0])
    if start is None and not any(own[0] <= n <= own[-1] for n in request.frames):
        first = float(request.frames.first)
    if entry.cover == STILL:
        return [(n, own[0]) for n in request.frames if start is None or n >= start]
    if speed is None or speed <= 0 or (own[-1] - own[0]) != len(own) - 1:
        return []
    held = {end: request.knobs[f"fg_{end}"] != "black" for end in ("before", "after")}
    found = []
    for n in request.frames:
        index = int((n - first) * speed // 1)
        if (index < 0 and not held["before"]) or (index >= len(own) and not held["after"]):
            continue
        found.append((n, own[min(max(index, 0), len(own) - 1)]))
    return found


def _plain(request: Request, knob: str, entry: InputHeader) -> "Optional[float]":
    """Return the one number that a knob says of an element; None for none and for a curve."""
    body = motion.section_of(str(request.knobs[knob]), _name(entry), knob)
    keys = motion.read_keys(body, motion.CURVE, knob) if body else None
    return None if keys is None or keys.is_timed else keys.values[0][0]


def _is_tracked(request: Request) -> bool:
    """Tell whether the way of an element is one point that has to be followed in the plate."""
    for body in motion.sections(str(request.knobs["trajectory"]), "trajectory").values():
        keys = motion.read_keys(body, motion.PATH, "trajectory")
        mode = request.knobs["trajectory_mode"]
        if mode == "track" or (mode == "auto" and not keys.is_timed and len(keys.values) == 1):
            return True
    return False


def _fewer(ask: Ask) -> Ask:
    """Return what is asked for with no more frames than are looked at, and no more inputs."""
    looked = looked_at(ask.request)
    pipes = []
    for pipe in ask.pipes:
        frames = _frames_of(ask, pipe, looked)
        if frames:
            pipes.append(replace(pipe, header=replace(pipe.header, frames=frames)))
    return Ask(ask.request, tuple(pipes))


def _frames_of(ask: Ask, pipe: Pipe, looked: "Sequence[int]") -> "tuple[int, ...]":
    """Return which frames of an input are rendered; none where it is not drawn."""
    name = pipe.header.name
    if name in _SHOWN:
        if name == BG and _is_tracked(ask.request):
            return pipe.header.frames
        return tuple(n for n in pipe.header.frames if n in looked) or three(pipe.header.frames)
    mine = next((e for e in ask.request.inputs if e.name == _element_of(name)), None)
    if mine is None:
        return ()
    own = {at for n, at in _own_at(ask.request, mine) if n in looked}
    return tuple(sorted(own & set(pipe.header.frames))) or three(pipe.header.frames)


def _is_element(name: str) -> bool:
    return name == FG or name.startswith(FG_PREFIX)


def _element_of(name: str) -> str:
    """Return the element's input whose matte an input is; an element's is its own."""
    if name == FG_MATTE or name.startswith(FG_MATTE + "."):
        return FG + name[len(FG_MATTE) :]
    return name if _is_element(name) else ""


def _name(entry: InputHeader) -> str:
    return entry.name[len(FG_PREFIX) :] if entry.name.startswith(FG_PREFIX) else ELEMENT


# --- the tool ------------------------------------------------------------------------------------


def _made(
    ask: Ask,
    files: "Mapping[str, Mapping[int, Path]]",
    folder: Path,
    picture: Path,
    settings: prefs.Prefs,
) -> str:
    """Make the picture and return what the tool says of it. Any thread; waits for the tool.

    Raises:
        ToolFailed: It did not make it; says what it said.
        BadKnob, ServerUnreachable: It cannot be started.
    """
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        places = {name: _spread(ask, name, own, folder) for name, own in files.items()}
        running = tool.start(settings, words(ask.request, places, picture))
        said = tool.said(running, "The way")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return " ".join(line for line in said.splitlines() if line != str(picture))


def words(request: Request, places: "Mapping[str, str]", picture: Path) -> "list[str]":
    """Return the words of the command.

    Args:
        request: What the node asks for.
        places: File, or pattern of files, by input.
        picture: PNG to make.
    """
    found = ["preview", request.system, "--frames", str(request.frames)]
    for name, place in places.items():
        entry = request.input(name)
        channel = "" if entry is None or entry.channel is None else f":{entry.channel}"
        found += ["--input", f"{name}={place}{channel}"]
    looked = looked_at(request)
    for knob, value in request.knobs.items():
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        if knob in _KINDS and len(text) > _LONGEST:
            text = shortened(text, _KINDS[knob], knob, looked)
        found += ["--set", f"{knob}={text}"]
    found += ["--working-space", request.working_space, "--ocio", request.ocio]
    return [*found, "--out", str(picture)]


def shortened(text: str, kind: str, knob: str, kept: "Iterable[int]") -> str:
    """Return a knob's text with fewer keys: those at some frames, and every few others."""
    bodies = motion.sections(text, knob)
    always = {float(n) for n in kept}
    made = []
    for name, body in bodies.items():
        keys = motion.read_keys(body, kind, knob)
        every = max(1, -(-len(text) * 2 // _LONGEST))
        picks = [i for i, n in enumerate(keys.frames) if i % every == 0 or n in always]
        picks = sorted({*picks, len(keys.frames) - 1}) if keys.frames else []
        few = motion.Keys(
            tuple(keys.frames[i] for i in picks), tuple(keys.values[i] for i in picks)
        )
        body = motion.spell_keys(few) if picks else body
        made.append(f"{name}: {body}" if name else body)
    return " | ".join(made)


def _spread(ask: Ask, name: str, files: "Mapping[int, Path]", folder: Path) -> str:
    """Give every frame of an input a file, by further names of those there are.

    Returns:
        The pattern of the files; the one file where the input is a still.
    """
    entry = ask.request.input(name)
    if entry is None or entry.cover == STILL:
        return str(next(iter(files.values())))
    stem = name.replace(".", "_")
    place = folder / "whole" / stem
    place.mkdir(parents=True)
    for n in entry.frames:
        _, nearest = min((abs(at - n), path) for at, path in files.items())
        target = place / f"{stem}.{n:04d}.exr"
        try:
            os.link(nearest, target)
        except OSError:  # A disk without hard links.
            shutil.copyfile(nearest, target)
    return str(place / f"{stem}.%04d.exr")
