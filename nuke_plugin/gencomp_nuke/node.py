# SPDX-License-Identifier: Apache-2.0
"""Our nodes: the only file that knows how their knobs and inner nodes are called.

A node of ours is known by its knob ``gc_system``, never by its class or name. Knobs listed in its
``gc_params`` are sent to the server; every other knob starts with ``gc_``. All of this runs on
Nuke's main thread. No picture coordinate is read here yet; where one is, y is flipped here.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import __version__
from gencomp_nuke.prefs import Prefs
from gencomp_protocol.errors import BadKnob, MissingInput
from gencomp_protocol.frames import Format, FrameRange, frame_list
from gencomp_protocol.layers import (
    BACKGROUND,
    CLEAN,
    CLEAN_PLATE,
    DEPTH,
    EFFECTS_SUFFIX,
    KEEP,
    LIMIT,
    MATTE_PREFIX,
    OBJECT_SUFFIX,
    PATCH,
    PLATE,
    PROTECT,
    RESIDUAL,
    check_object_names,
)
from gencomp_protocol.locate import home_folder
from gencomp_protocol.request import SEQUENCE, STILLS, InputHeader, Request

IDLE, RUNNING, FAILED = "idle", "running", "failed"
# Colours of the node in the graph, 0xRRGGBBAA; 0 is Nuke's own.
_TILE = {IDLE: 0, RUNNING: 0x7F6A1FFF, FAILED: 0x8F2020FF}
_SCRIPT_FOLDER = "[file dirname [value root.name]]"
_RGBA = ("red", "green", "blue", "alpha")
# Pipes of one channel, and the inputs that they are.
_SINGLE = {"Keep": KEEP, "Limit": LIMIT, "Protect": PROTECT, "Depth": DEPTH}


@dataclass(frozen=True)
class Pipe:
    """One connected input of a node.

    Attributes:
        header: The input as it stands in the request.
        folder: Name of the folder and of the files that its inner Write makes.
        writer: Name of that Write.
        slot: 1 to 8 for a matte, 0 for any other.
    """

    header: InputHeader
    folder: str
    writer: str
    slot: int = 0


@dataclass(frozen=True)
class Ask:
    """What a node asks for: the request, and where its inputs come from."""

    request: Request
    pipes: "tuple[Pipe, ...]"

    @property
    def slots(self) -> "dict[int, str]":
        """Return the name of the object in every connected matte pipe."""
        found = {p.slot: p.header.name[len(MATTE_PREFIX) :] for p in self.pipes if p.slot}
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Result:
    """A whole result on disk, as a node plays it.

    Attributes:
        folder: Final folder of the version.
        frames: First and last frame.
        layers: Names of the layers that are there.
        slots: Object in each matte pipe when it was made.
        order: Objects from front to back.
        backbone: The video model it was made with and the class of its licence, as the node says
            it; empty where none was used.
    """

    folder: Path
    frames: "tuple[int, int]"
    layers: "tuple[str, ...]"
    slots: "dict[int, str]"
    order: "tuple[str, ...]"
    backbone: str = ""


# --- which nodes are ours ------------------------------------------------------------------------


def is_ours(node: Any) -> bool:
    """Tell whether a node was made from one of our gizmos."""
    return node is not None and "gc_system" in node.knobs()


def identify(node: Any) -> str:
    """Give a node an identity where it has none or shares one; return it.

    A copied node carries the original's knobs: it keeps playing that result and gets a folder of
    its own for the next.
    """
    mine = str(node["gc_id"].value())
    twins = [n for n in _all_ours() if n["gc_id"].value() == mine and not _same(n, node)]
    if not mine or twins:
        mine = uuid.uuid4().hex[:8]
        node["gc_id"].setValue(mine)
    return mine


def _all_ours() -> "list[Any]":
    return [n for n in nuke.allNodes(group=nuke.root(), recurseGroups=True) if is_ours(n)]


def _same(a: Any, b: Any) -> bool:
    return bool(a.fullName() == b.fullName())


# --- what a node asks for ------------------------------------------------------------------------


def ask(node: Any) -> Ask:
    """Read a node's knobs and connections into a request.

    Raises:
        MissingInput: The plate or every matte is not connected.
        BadName, BadKnob: A matte's name or a frame knob cannot be used.
    """
    if _connected(node, "Plate") is None:
        raise MissingInput(
            f"{node.name()} has no plate.", hint="Connect the plate to its pipe Plate."
        )
    frames = frame_range(node)
    pipes = [_pipe(node, "Plate", PLATE, frames), *_matte_pipes(node, frames)]
    if len(pipes) == 1:
        raise MissingInput(
            f"{node.name()} has no matte.", hint="Connect the roto of an object to its pipe Matte1."
        )
    if _connected(node, "CleanPlate") is not None:
        pipes.append(_clean_plate_pipe(node, frames))
    for pipe, name in _SINGLE.items():
        if _connected(node, pipe) is not None:
            pipes.append(_pipe(node, pipe, name, frames))
    request = Request(
        system=str(node["gc_system"].value()),
        frames=frames,
        inputs=tuple(pipe.header for pipe in pipes),
        knobs=_params(node),
        working_space=_working_space(),
        client=f"gencomp_nuke {__version__}",
        ocio=_ocio_config(),
    )
    return Ask(request, tuple(pipes))


def frame_range(node: Any) -> FrameRange:
    """Return the frames that a node is to generate.

    Raises:
        BadKnob: The range runs backwards.
    """
    choice = node["gc_range"].value()
    if choice == "custom":
        return FrameRange(int(node["gc_first"].value()), int(node["gc_last"].value()))
    if choice == "project":
        root = nuke.root()
        return FrameRange(int(root["first_frame"].value()), int(root["last_frame"].value()))
    found = _connected(node, "Plate").frameRange()
    return FrameRange(int(found.first()), int(found.last()))


def server_address(node: Any) -> str:
    """Return the address typed on the node, or an empty text for ``auto``."""
    text = str(node["gc_server"].value()).strip()
    return "" if text in ("", "auto") else text


def cache_folder(node: Any, prefs: Prefs) -> Path:
    """Return the folder for the results of a node.

    A script without a name has no folder to lie beside, so its results go to the user's own.

    Raises:
        BadKnob: The cache knob is empty or relative.
    """
    if not nuke.root().name() or nuke.root().name() == "Root":
        unsaved = prefs.unsaved_folder or str(home_folder() / "unsaved")
        return Path(unsaved) / str(node["gc_id"].value())
    text = str(node["gc_cache"].evaluate() or "").strip()
    if not text or not os.path.isabs(text):
        raise BadKnob(
            f"The cache folder of {node.name()} is '{text}', which is not a whole path.",
            hint="Start it with / or with [file dirname [value root.name]].",
        )
    return Path(text)


def _params(node: Any) -> "dict[str, Any]":
    """Return the values of the knobs that are sent, as plain data."""
    found = {}
    for name in str(node["gc_params"].value()).split():
        knob = node[name]
        value = knob.value()
        if knob.Class() in ("String_Knob", "EvalString_Knob"):
            value = str(value)
        elif knob.Class() == "Int_Knob":
            value = int(value)
        found[name] = value
    return found


def _connected(node: Any, pipe: str) -> Any:
    """Return the node at the other end of a pipe, or None."""
    inner = node.node(pipe)
    return None if inner is None else node.input(int(inner["number"].value()))


def _pipe(
    node: Any,
    pipe: str,
    name: str,
    frames: FrameRange,
    *,
    slot: int = 0,
    at: "tuple[int, ...]" = (),
) -> Pipe:
    size = _connected(node, pipe).format()
    folder = f"matte{slot}" if slot else name
    header = InputHeader(
        name=name,
        frames=at or tuple(frames),
        cover=STILLS if at else SEQUENCE,
        format=Format(int(size.width()), int(size.height()), float(size.pixelAspect())),
        channel="A" if slot or name in _SINGLE.values() else None,
    )
    return Pipe(header, folder, f"Write_{folder}", slot)


def _matte_pipes(node: Any, frames: FrameRange) -> "list[Pipe]":
    found = []
    slot = 1
    while f"gc_name{slot}" in node.knobs():
        if _connected(node, f"Matte{slot}") is not None:
            name = str(node[f"gc_name{slot}"].value()).strip()
            found.append(_pipe(node, f"Matte{slot}", MATTE_PREFIX + name, frames, slot=slot))
        slot += 1
    check_object_names(pipe.header.name[len(MATTE_PREFIX) :] for pipe in found)
    return found


def _clean_plate_pipe(node: Any, frames: FrameRange) -> Pipe:
    at: tuple[int, ...] = ()
    if node["gc_clean_cover"].value() == STILLS:
        at = frame_list(str(node["gc_clean_frames"].value()))
        if not at:
            raise BadKnob(
                f"{node.name()} has a clean plate of stills, and no frames are listed for it.",
                hint="List the frames at which it was painted, such as 1001,1024.",
            )
    return _pipe(node, "CleanPlate", CLEAN_PLATE, frames, at=at)


def _working_space() -> str:
    """Return the name of the script's working space, as Nuke spells it; the server reads that."""
    return _of_root("workingSpaceLUT") or "scene_linear"


def _ocio_config() -> str:
    """Return the OpenColorIO config that the working space is a name of; empty for none.

    Nuke takes one from three places: the variable ``OCIO``, the script's own, and those it brings.
    Its own ``nuke-default`` is Linear Rec.709 by another name, as is a script without OpenColorIO.

    Raises:
        BadKnob: The script's config cannot be found, so that nobody knows what its colours are.
    """
    if _of_root("colorManagement") != "OCIO":
        return ""
    named, chosen = os.environ.get("OCIO", ""), _of_root("OCIO_config")
    if named:
        return named if named.startswith("ocio://") else os.path.abspath(named)
    if chosen == "custom":
        path = str(nuke.root()["customOCIOConfigPath"].evaluate() or "")
        if not path:
            raise BadKnob(
                "The script's OCIO config is 'custom', and no file is named.",
                hint="Name it in Project Settings, Color, OCIO config.",
            )
        return path if path.startswith("ocio://") else os.path.abspath(path)
    return "" if chosen in ("", "nuke-default") else _brought_by_nuke(chosen)


def _brought_by_nuke(name: str) -> str:
    """Return the file of a config that comes with Nuke: a folder with one, or one by its name.

    Raises:
        BadKnob: Nuke's folder has no such file.
    """
    folder = Path(nuke.EXE_PATH).parent / "plugins" / "OCIOConfigs" / "configs"
    for file in (folder / name / "config.ocio", folder / f"{name}.ocio"):
        if file.is_file():
            return str(file)
    raise BadKnob(
        f"The script's OCIO config '{name}' is not where Nuke keeps its own ({folder}).",
        hint="Set the OCIO config in the project settings to custom, and name its file.",
    )


def _of_root(knob: str) -> str:
    """Return what a knob of the project settings says; empty where this Nuke has none."""
    root = nuke.root()
    return str(root[knob].value() or "").strip() if knob in root.knobs() else ""


# --- what a node shows ---------------------------------------------------------------------------


@contextlib.contextmanager
def quietly() -> "Iterator[None]":
    """Keep what is set inside out of the undo list: nobody wants to undo a progress bar."""
    nuke.Undo.disable()
    try:
        yield
    finally:
        nuke.Undo.enable()


def show(node: Any, sentence: str, state: str, note: str = "") -> None:
    """Put a sentence on the node, a word or two under its name, and the colour of its state."""
    with quietly():
        node["gc_status"].setValue(sentence)
        node["gc_note"].setValue(note)
        if int(node["tile_color"].value()) != _TILE[state]:
            node["tile_color"].setValue(_TILE[state])


def show_result(node: Any) -> None:
    """Say on the node which result it plays, or that there is none."""
    folder = str(node["gc_folder"].evaluate() or "")
    if not folder:
        show(node, "Connect a plate and at least one matte, then press Generate.", IDLE)
        return
    first, last = (int(node[f"gc_result_{end}"].value()) for end in ("first", "last"))
    name = Path(folder).name
    sentence = f"Plays {name}, frames {FrameRange(first, last)}.{made_with(node)}"
    show(node, sentence, IDLE, name)


def made_with(node: Any) -> str:
    """Return the sentence that names the result's video model, a space before; empty for none."""
    # A node of a script from before video models has no such knob.
    text = str(node["gc_backbone"].value()) if "gc_backbone" in node.knobs() else ""
    return f" Made with {text}." if text else ""


def show_range_knobs(node: Any) -> None:
    """Let first and last be typed only where the range is custom."""
    custom = node["gc_range"].value() == "custom"
    for name in ("gc_first", "gc_last"):
        node[name].setEnabled(custom)
    node["gc_clean_frames"].setEnabled(node["gc_clean_cover"].value() == STILLS)


def set_job(node: Any, job: str) -> None:
    """Remember the job that a node waits for; empty when there is none."""
    with quietly():
        node["gc_job"].setValue(job)


@contextlib.contextmanager
def rendering(node: Any, folder: Path) -> "Iterator[None]":
    """Switch the inner Writes on, into ``folder``, and off again whatever happens."""
    with quietly():
        node["gc_export"].setValue(folder.as_posix())
        node["gc_rendering"].setValue(True)
    try:
        yield
    finally:
        with quietly():
            node["gc_rendering"].setValue(False)
            node["gc_export"].setValue("")


# --- what a node plays ---------------------------------------------------------------------------


def play(node: Any, result: Result) -> None:
    """Make a node play a result: point its Reads at it and name the layers in its stream.

    Everything set here is ordinary knobs that the script keeps, so the result plays without
    Python. One undo step.
    """
    with nuke.Undo("Omnimatte result"):
        node["gc_folder"].setValue(_spell_folder(result.folder))
        node["gc_result_first"].setValue(result.frames[0])
        node["gc_result_last"].setValue(result.frames[1])
        if "gc_backbone" in node.knobs():
            node["gc_backbone"].setValue(result.backbone)
        pictures = _pictures(node)
        for name in pictures:
            node[f"gc_has_{name}"].setValue(name in result.layers)
        names = result.slots.values()
        split = any(name + OBJECT_SUFFIX in result.layers for name in names)
        node["gc_has_split"].setValue(split)
        for name in pictures:
            _name_layer(node, name, name if name in result.layers else "")
        slot = 1
        while f"gc_has{slot}" in node.knobs():
            name = result.slots.get(slot, "")
            _play_slot(node, slot, name if name in result.layers else "", split)
            slot += 1
        _spell_outputs(node, slot - 1, result)
        _order_layers(node, result)
        _reload(node)


def _pictures(node: Any) -> "tuple[str, ...]":
    """Return the layers that are of no object and that a node can play; an older one has fewer."""
    names = (BACKGROUND, RESIDUAL, CLEAN, PATCH)
    return tuple(name for name in names if f"gc_has_{name}" in node.knobs())


def _play_slot(node: Any, slot: int, name: str, split: bool) -> None:
    node[f"gc_has{slot}"].setValue(bool(name))
    node[f"gc_layer{slot}"].setValue(name)
    _name_layer(node, str(slot), name)
    _name_layer(node, f"{slot}_object", name + OBJECT_SUFFIX if name and split else "")
    _name_layer(node, f"{slot}_effects", name + EFFECTS_SUFFIX if name and split else "")


def _name_layer(node: Any, key: str, layer: str) -> None:
    """Let the inner Copy of one Read fill the channels of ``layer``, or none."""
    if layer and layer not in nuke.layers():
        nuke.Layer(layer, [f"{layer}.{part}" for part in _RGBA])
    copy = node.node(f"Copy_{key}")
    for index, part in enumerate(_RGBA):
        copy[f"to{index}"].setValue(f"{layer}.{part}" if layer else "none")


def _spell_outputs(node: Any, slots: int, result: Result) -> None:
    """Let the output menu say the objects' names; places in the menu never move."""
    knob = node["gc_output"]
    chosen = int(knob.getValue())
    names = [result.slots.get(slot, f"object{slot}") for slot in range(1, slots + 1)]
    later = [name for name in (CLEAN, PATCH) if name in _pictures(node)]
    knob.setValues(["plate", BACKGROUND, *names, RESIDUAL, "recomposed", *later])
    knob.setValue(chosen)


def _order_layers(node: Any, result: Result) -> None:
    """Put the inner overs into the order of the layers, front first, for ``recomposed``."""
    place = {name: slot for slot, name in result.slots.items()}
    front = [place[name] for name in result.order]
    rest = [slot for slot in _slots(node) if slot not in front]
    beneath = node.node("Layer_background")
    for slot in reversed(front + rest):
        over = node.node(f"Over_{slot}")
        over.setInput(0, beneath)
        beneath = over
    node.node("Add_residual").setInput(0, beneath)


def _slots(node: Any) -> "list[int]":
    return [slot for slot in range(1, 33) if f"gc_has{slot}" in node.knobs()]


def _reload(node: Any) -> None:
    for inner in node.nodes():
        if inner.Class() == "Read":
            inner["reload"].execute()


def _spell_folder(folder: Path) -> str:
    """Spell a folder beside the script relative to it, so that both can be moved together."""
    script = nuke.root().name()
    plain = folder.as_posix()
    if not script or script == "Root" or any(letter in plain for letter in "[]$\\"):
        return plain
    here = Path(script).parent.as_posix()
    return _SCRIPT_FOLDER + plain[len(here) :] if plain.startswith(here + "/") else plain


def result_folder(node: Any) -> Optional[Path]:
    """Return the folder of the result that a node plays, or None."""
    text = str(node["gc_folder"].evaluate() or "")
    return Path(text) if text else None
