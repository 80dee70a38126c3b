# SPDX-License-Identifier: Apache-2.0
"""Makes ``docs/examples``: a script for each node, its small EXRs, and a result to play.

    python tools/make_examples.py            footage, results and scripts
    python tools/make_examples.py --scripts  the scripts alone, after a gizmo was changed

Paths in the scripts are relative to where they lie. The result of ``omnimatte_retime`` is a plain
run of ``gencomp``; in the others the footage's own truth plays the video model
(``played_model.py``), which the node says when it is opened. The scripts are laid out and saved in
the stand-in for Nuke, with the gizmos as they are.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES, FOOTAGE = ROOT / "docs" / "examples", "footage"
HERE = "[file dirname [value root.name]]"
FIRST, LAST, COUNT = 1001, 1006, 6
WIDTH, HEIGHT, BITS = 112, 64, 6
MOST_BYTES = 3_000_000
TEMPORAL = "temporal"  # No video model takes part, not the one that ships either.
SAID = (
    "This example was made without a video model: the footage's own truth stands in for its answer."
)
RUN_SAID = "The layers were made from the shot itself, without a video model."


@dataclass(frozen=True)
class Example:
    """One script.

    Attributes:
        gizmo: Name of the node.
        sources: Sequence connected to each pipe, by the pipe's number.
        knobs: Values that are set.
        note: What is written beside the node.
        own: What the manifest says under ``node``.
        ranges: First and last frame of sequences with frames of their own.
        after: Lays nodes behind the node; returns the last.
    """

    gizmo: str
    sources: Mapping[int, str]
    knobs: Mapping[str, Any]
    note: str
    own: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    after: Callable[[Any, Any], Any] | None = None

    @property
    def version(self) -> str:
        """Return the folder of its result, beside the script."""
        return f"gencomp/{self.gizmo.lower()}/v001"


def retimed(nuke: Any, node: Any) -> Any:
    """Let one object come two frames later and stand the other further to the left."""
    node["gc_explode"].execute()
    late = nuke.nodes.TimeOffset(name="Anna_later", time_offset=2)
    slid = nuke.nodes.Transform(name="Ben_slid")
    slid["translate"].setValue([-14, 0])
    for made, layer in ((late, "anna"), (slid, "ben")):
        read, over = nuke.toNode(f"Omnimatte1_{layer}"), nuke.toNode(f"Omnimatte1_over_{layer}")
        made.setInput(0, read)
        over.setInput(1, made)
        made.setXYpos(read.xpos() + 110, read.ypos() + 40)
    return nuke.toNode("Omnimatte1_over_anna")


EXAMPLES_BY_NAME: Mapping[str, Example] = {
    "overplusplus": Example(
        "OverPlusPlus",
        {1: "creature", 2: "street", 3: "shadow_roto"},
        {
            "prompt": "soft shadow, dust at the feet",
            "mask_frames": "keyframes only",
            "keyframes": "1001,1006",
            "alpha_style": "natural",
            "gc_output": "result",
        },
        "A CG creature over a street, a loose roto on two keyframes.\n"
        "Turn density, shadow and light on the tab Layers: nothing is computed anew.",
    ),
    "gencomposite": Example(
        "GenComposite",
        {0: "street", 1: "burst"},
        {
            "anchor_point": "32,20",
            "scale": "0.6",
            "fg_start": "1001",
            "inflate": 40,
            "gc_output": "result",
        },
        "A stock explosion with frames of its own, stuck to a point of a moving street.\n"
        "interaction is the light that it throws, element the explosion itself.",
        own={"slots": {"1": ""}, "order": []},
        ranges={"burst": (1, COUNT)},
    ),
    "omnimatte_retime": Example(
        "Omnimatte",
        {0: "two_actors", 1: "anna_roto", 2: "ben_roto"},
        {
            "gc_name1": "anna",
            "gc_name2": "ben",
            "clean_plate_from": TEMPORAL,
            "gc_output": "plate",
        },
        "Two actors as layers, with shadow and reflection. Behind the node, by Explode layers:\n"
        "Anna comes two frames later, Ben stands further to the left.",
        own={"slots": {"1": "anna", "2": "ben"}, "order": ["anna", "ben"]},
        after=retimed,
    ),
    "splitthenmerge": Example(
        "SplitThenMerge",
        {0: "street", 1: "creature"},
        {"prompt": "a figure walks along a street", "gc_output": "result"},
        "A moving subject and another shot; the model finds its place by itself.",
    ),
    "dynvfx": Example(
        "DynVFX",
        {0: "street"},
        {"prompt": "an explosion on the street", "gc_output": "result"},
        "What words describe is added; no mask is needed.",
    ),
}


# --- footage and results -------------------------------------------------------------------------


def make_pictures() -> None:
    """Make footage and results anew."""
    from footage import Burst, Creature, lit, write
    from played_model import run as played

    from gencomp_server.training.shots import ProceduralShot, ShotSpec, over

    size: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "frames": COUNT, "grain": 0.0}
    walk = Creature(
        ShotSpec(seed=921, effects=("shadow",), speed=16.0, tall=0.6, pan=(9.0, 0.6), **size)
    )
    pair = ShotSpec(
        seed=917, objects=2, effects=("shadow", "reflection"), speed=30.0, tall=0.5, **size
    )
    shot, two, burst = ProceduralShot(walk.spec), ProceduralShot(pair), Burst((64, 64), COUNT)
    camera = shot.scenery.camera
    world = (camera.origin[0] + 0.66 * WIDTH, camera.origin[1] + 0.76 * HEIGHT)
    points = {n: camera.to_picture(float(n - FIRST), *world) for n in shot.frames}
    place = EXAMPLES / FOOTAGE
    for folder in (place, EXAMPLES / "gencomp"):
        shutil.rmtree(folder, ignore_errors=True)
    for n in shot.frames:
        write(place, "street", n, shot.clean_plate(n), BITS)
        write(place, "creature", n, walk.fg(shot, n), BITS)
        write(place, "shadow_roto", n, walk.roto(shot, n), BITS)
        write(place, "two_actors", n, two.plate(n), BITS)
        for name, actor in (("anna", "a"), ("ben", "b")):
            write(place, f"{name}_roto", n, two.matte(actor, n, 1), BITS)
        write(place, "burst", n - FIRST + 1, burst.picture(n - FIRST + 1), BITS)

    def flash(n: int, plate: Any) -> Any:
        return lit(plate, points[n], 26.0, 2.6 * burst.light(n - FIRST + 1))

    def burnt(n: int, plate: Any) -> Any:
        import numpy as np

        made, picture = flash(n, plate), burst.picture(n - FIRST + 1)
        x, y = round(points[n][0]) - 32, round(points[n][1]) - 44
        whole = np.zeros((*plate.shape[:2], 4), np.float32)
        top, left, right = max(0, y), max(0, x), min(WIDTH, x + 64)
        cut = picture[top - y : HEIGHT - y, left - x : right - x]
        whole[top : top + cut.shape[0], left:right] = cut
        return over(whole, made)

    def pattern(name: str) -> str:
        return f"{place}/{name}/{name}.%04d.exr"

    def answered(
        system: str, truth: Any, model: str, knobs: Mapping[str, Any], **names: str
    ) -> None:
        example = EXAMPLES_BY_NAME[system]
        inputs = {name: pattern(sequence) for name, sequence in names.items()}
        sent = {k: v for k, v in example.knobs.items() if not k.startswith("gc_")}
        out = EXAMPLES / example.version
        played(system, out, inputs, {**sent, **knobs}, truth, model=model)
        keep(out, example, [SAID])

    truth = {n: walk.truth(shot, n) for n in shot.frames}
    answered(
        "overplusplus",
        lambda n, plate: truth[n],
        "casper",
        {},
        fg="creature",
        bg="street",
        effect_mask="shadow_roto",
    )
    way = "; ".join(f"{x:.2f},{y:.2f}@{n}" for n, (x, y) in points.items())
    placed = {"trajectory": way, "anchor_point": f"32,{64 - 20}"}
    answered("gencomposite", flash, "gencompositor", placed, bg="street", fg="burst")
    answered(
        "splitthenmerge",
        lambda n, plate: truth[n],
        "splitthenmerge",
        {},
        bg="street",
        fg="creature",
    )
    answered("dynvfx", burnt, "cogvideox-5b", {}, plate="street")
    turned = "; ".join(f"{x:.2f},{HEIGHT - y:.2f}@{n}" for n, (x, y) in points.items())
    (EXAMPLES / FOOTAGE / "way.txt").write_text(turned + "\n", encoding="utf-8")
    take_apart(pattern)


def take_apart(pattern: Callable[[str], str]) -> None:
    """Run Omnimatte on the two actors, for real."""
    example = EXAMPLES_BY_NAME["omnimatte_retime"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        words = [sys.executable, "-m", "gencomp_server", "run", "omnimatte", "--out", str(out)]
        words += [f"--input=plate={pattern('two_actors')}", f"--set=clean_plate_from={TEMPORAL}"]
        words += [f"--input=matte.{name}={pattern(f'{name}_roto')}" for name in ("anna", "ben")]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        (out / "contact_sheet.png").unlink()
        shutil.copytree(out, EXAMPLES / example.version)
    keep(EXAMPLES / example.version, example, [RUN_SAID])


def keep(out: Path, example: Example, warnings: Sequence[str]) -> None:
    """Let a result's manifest say what a node needs; leave out what only a server has use for."""
    path = out / "manifest.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: found[name] for name in ("system", "frames", "layers", "knobs") if name in found}
    kept["layers"] = {
        name: {"frames": {n: {} for n in entry["frames"]}} for name, entry in kept["layers"].items()
    }
    kept["node"] = {"slots": {}, "order": [], **example.own, "warnings": list(warnings)}
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


# --- scripts -------------------------------------------------------------------------------------


def make_scripts() -> None:
    """Lay out and save every script, with the gizmos as they are."""
    sys.path[:0] = [str(ROOT / part) for part in ("tests", "protocol", "nuke_plugin")]
    import standin

    for name, example in EXAMPLES_BY_NAME.items():
        app = standin.install(gui=True)
        app.start([ROOT])
        lay(app, name, example)


def lay(app: Any, name: str, example: Example) -> None:
    """Lay out and save one script."""
    import nuke

    path = EXAMPLES / f"{name}.nk"
    app.save(path)
    for knob, value in {"first_frame": FIRST, "last_frame": LAST, "frame": FIRST}.items():
        nuke.root()[knob].setValue(value)
    reads = {pipe: _read(nuke, example, at, pipe) for at, pipe in enumerate(example.sources)}
    for selected in nuke.selectedNodes():  # Nuke connects a new node to what is selected.
        selected.setSelected(False)
    node = nuke.createNode(example.gizmo, inpanel=False)
    for pipe, read in reads.items():
        node.setInput(pipe, read)
    node.setXYpos(0, 160)
    node["gc_id"].setValue("example")
    node["gc_folder"].setValue(f"{HERE}/{example.version}")
    for knob, value in example.knobs.items():
        node[knob].setValue(value)
    if name == "gencomposite":
        way = (EXAMPLES / FOOTAGE / "way.txt").read_text(encoding="utf-8").strip()
        node["trajectory"].setValue(way)
    last = node if example.after is None else example.after(nuke, node)
    _note(nuke, example.note)
    writer = nuke.nodes.Write(raw=True, file_type="exr", create_directories=True)
    writer["file"].setValue(f"{HERE}/out/{name}/{name}.%04d.exr")
    writer["channels"].setValue("rgba")
    writer.setInput(0, last)
    writer.setXYpos(last.xpos(), last.ypos() + 160)
    app.save(path)
    text = path.read_text(encoding="utf-8").replace(f" name {path.as_posix()}\n", "")
    path.write_text(text, encoding="utf-8")


def _read(nuke: Any, example: Example, at: int, pipe: int) -> Any:
    sequence = example.sources[pipe]
    first, last = example.ranges.get(sequence, (FIRST, LAST))
    made = nuke.nodes.Read(name=sequence, first=first, last=last, raw=True)
    made["origfirst"].setValue(first)
    made["origlast"].setValue(last)
    made["file"].setValue(f"{HERE}/{FOOTAGE}/{sequence}/{sequence}.%04d.exr")
    made.setXYpos(150 * at, 0)
    return made


def _note(nuke: Any, text: str) -> None:
    note = nuke.nodes.StickyNote()
    note["label"].setValue(text)
    note.setXYpos(-420, 150)


def check_size() -> None:
    """Refuse examples that are too large.

    Raises:
        ValueError: They are.
    """
    files = [path for path in EXAMPLES.rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    if total > MOST_BYTES:
        raise ValueError(f"docs/examples takes {total} bytes, more than {MOST_BYTES}")


if __name__ == "__main__":
    if sys.argv[1:] != ["--scripts"]:
        make_pictures()
    make_scripts()
    check_size()
