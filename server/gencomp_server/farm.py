# SPDX-License-Identifier: Apache-2.0
"""A farm job of a Nuke script: first its results, on one GPU host, then the frames, on any host.

::

    Infer   once, on a host with a GPU    nuke -t batch.py comp.nk --save=comp.farm.nk
    Comp    per frame, after Infer        nuke -x -F 1001 -X Write1 comp.farm.nk

Infer covers the whole range and does nothing where the results are in the cache, so it may run
again, or twice. It leaves a copy of the script beside it that plays them; the artist's own script
is not touched. Comp reads the cache: no server, no GPU. The job is written as a template of Open
Job Description, or as a specification of OpenCue.
"""

import importlib
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import BadKnob, ToolFailed
from gencomp_protocol.frames import FrameRange
from gencomp_server.nukescript import NukeScript

INFER, COMP = "Infer", "Comp"
_BATCH = "nuke_plugin/gencomp_nuke/batch.py"
_NOTICE_S = 60
_IDLE_S = "60"  # A server that the task has started frees its GPU soon after.
_BARE = re.compile(r"[A-Za-z_/][\w./-]*\Z")
_YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True)
class FarmJob:
    """What the farm is to do.

    Attributes:
        script: The script.
        frames: Frames to render.
        writes: Writes to render, by name.
        gencomp: Folder of gencomp that the hosts see: gizmos, ``nuke_plugin``, ``protocol``.
        nuke: How Nuke is started there.
        chunk: Frames per task.
        gpus: GPUs that Infer needs.
        ocio: OpenColorIO config; empty for that of each host.
    """

    script: NukeScript
    frames: FrameRange
    writes: tuple[str, ...]
    gencomp: Path
    nuke: str = "nuke"
    chunk: int = 1
    gpus: int = 1
    ocio: str = ""

    @property
    def name(self) -> str:
        """Return what the job is called."""
        return self.script.path.name[:128]

    @property
    def prepared(self) -> Path:
        """Return the copy of the script that Infer leaves and Comp renders."""
        return self.script.path.with_name(self.script.path.stem + ".farm.nk")

    @property
    def cache(self) -> Path:
        """Return the folder in which results lie beside the script."""
        return self.script.path.parent / "gencomp"


def farm_job(
    script: NukeScript,
    *,
    gencomp: Path | None = None,
    frames: str = "",
    writes: str = "",
    nuke: str = "nuke",
    chunk: int = 1,
    gpus: int = 1,
) -> FarmJob:
    """Return the job of a script.

    Args:
        script: The script.
        gencomp: Folder of gencomp; None: the one that this program is part of.
        frames: ``1001-1048``; empty: those of the script.
        writes: Names with commas; empty: all that are not disabled.
        nuke: How Nuke is started on the farm.
        chunk: Frames per task, at least 1.
        gpus: GPUs that Infer needs, at least 1.

    Raises:
        BadKnob: The script has no node of ours or no such Write, or gencomp's folder is not known.
    """
    if not script.ours:
        raise BadKnob(f"{script.path.name} has no node of gencomp's; it needs no step of ours.")
    names = tuple(name.strip() for name in writes.split(",") if name.strip()) or (*script.writes,)
    if not names:
        raise BadKnob(f"{script.path.name} has no Write that is not disabled.")
    for name in names:
        if name not in script.writes:
            raise BadKnob(
                f"{script.path.name} has no Write '{name}' that is not disabled.",
                hint=f"There are: {', '.join(script.writes) or 'none'}.",
            )
    for what, number in (("chunk", chunk), ("gpus", gpus)):
        if number < 1:
            raise BadKnob(f"--{what} is {number}; it is at least 1.")
    folder = Path(__file__).resolve().parents[2] if gencomp is None else gencomp.resolve()
    if not (folder / _BATCH).is_file():
        raise BadKnob(
            f"gencomp's Nuke side is not in {folder}.",
            hint="Name the folder that is on Nuke's plug-in path: --gencomp /path/to/gencomp.",
        )
    asked = FrameRange.parse(frames) if frames else script.frames
    ocio = script.ocio or os.environ.get("OCIO", "")
    return FarmJob(script, asked, names, folder, nuke, chunk, gpus, ocio)


# --- Open Job Description ------------------------------------------------------------------------


def openjd_template(job: FarmJob, folder: Path) -> dict[str, Any]:
    """Return the job as an Open Job Description template, plain data.

    A path may have a default only relative to the template and beneath its folder; others have to
    be given, as :func:`openjd_values` does.

    Args:
        job: The job.
        folder: Folder in which the template will lie.
    """
    return {
        "specificationVersion": "jobtemplate-2023-09",
        "name": job.name,
        "description": "gencomp's results on one GPU host, then the frames, which read them.",
        "parameterDefinitions": [_relative(one, folder) for one in _parameters(job)],
        "jobEnvironments": [{"name": "Nuke", "variables": _variables(job)}],
        "steps": [_infer(job), _comp(job)],
    }


def openjd_values(job: FarmJob) -> dict[str, str]:
    """Return the whole paths of the template's parameters, by name."""
    return {one["name"]: one["default"] for one in _parameters(job) if one["type"] == "PATH"}


def _relative(parameter: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a parameter whose default, if it is a path, is relative to a folder, or absent."""
    if parameter["type"] != "PATH":
        return parameter
    place = Path(parameter["default"])
    if folder in place.parents:
        return {**parameter, "default": place.relative_to(folder).as_posix()}
    return {key: value for key, value in parameter.items() if key != "default"}


def _parameters(job: FarmJob) -> list[dict[str, Any]]:
    found = [
        _path("Script", job.script.path, "FILE", "IN", "The artist's script; it is not changed."),
        _path("Prepared", job.prepared, "FILE", "OUT", "The copy that plays the results."),
        _path("Cache", job.cache, "DIRECTORY", "INOUT", "Results beside the script."),
        _path("Gencomp", job.gencomp, "DIRECTORY", "IN", "gencomp: gizmos and its Python side."),
    ]
    if job.ocio and not job.ocio.startswith("ocio://"):
        found.append(_path("Ocio", job.ocio, "FILE", "IN", "OpenColorIO config."))
    for number, folder in enumerate(_output_folders(job), start=1):
        found.append(_path(f"Output{number}", folder, "DIRECTORY", "OUT", "What Writes write."))
    found += [
        _text("Nuke", job.nuke, "How Nuke is started."),
        _text("Writes", ",".join(job.writes), "Writes to render."),
    ]
    if job.chunk == 1:
        found.append(_text("Frames", _openjd_range(job.frames), "Frames to render."))
    return found


def _path(name: str, place: Path | str, kind: str, flow: str, words: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "PATH",
        "objectType": kind,
        "dataFlow": flow,
        "default": str(place),
        "description": words,
    }


def _text(name: str, value: str, words: str) -> dict[str, Any]:
    return {"name": name, "type": "STRING", "default": value, "description": words}


def _output_folders(job: FarmJob) -> list[str]:
    """Return the folders of the Writes' files, as far as they can be told without Nuke."""
    folders = (os.path.dirname(job.script.writes[name]) for name in job.writes)
    return list(dict.fromkeys(f for f in folders if os.path.isabs(f) and not set(f) & set("[%#$")))


def _variables(job: FarmJob) -> dict[str, str]:
    own = os.environ.get("NUKE_PATH", "")
    found = {"NUKE_PATH": "{{Param.Gencomp}}" + (os.pathsep + own if own else "")}
    if job.ocio:
        builtin = job.ocio.startswith("ocio://")
        found["OCIO"] = job.ocio if builtin else "{{Param.Ocio}}"
    return found


def _infer(job: FarmJob) -> dict[str, Any]:
    words = ["-t", "{{Param.Gencomp}}/" + _BATCH, "{{Param.Script}}"]
    words += ["--save={{Param.Prepared}}", "--openjd"]
    return {
        "name": INFER,
        "description": "Results of all nodes, for the whole range; nothing where they are there.",
        "hostRequirements": {"amounts": [{"name": "amount.worker.gpu", "min": job.gpus}]},
        "stepEnvironments": [{"name": "Server", "variables": {"GENCOMP_IDLE_EXIT_S": _IDLE_S}}],
        "script": {"actions": {"onRun": _action(words)}},
    }


def _comp(job: FarmJob) -> dict[str, Any]:
    if job.chunk == 1:
        frames: dict[str, Any] = {"name": "Frame", "type": "INT", "range": "{{Param.Frames}}"}
    else:
        chunks = [str(chunk) for chunk in _chunks(job.frames, job.chunk)]
        frames = {"name": "Frame", "type": "STRING", "range": chunks}
    words = ["-x", "-F", "{{Task.Param.Frame}}", "-X", "{{Param.Writes}}", "{{Param.Prepared}}"]
    return {
        "name": COMP,
        "description": "The frames; they read the cache.",
        "dependencies": [{"dependsOn": INFER}],
        "parameterSpace": {"taskParameterDefinitions": [frames]},
        "script": {"actions": {"onRun": _action(words)}},
    }


def _action(words: list[str]) -> dict[str, Any]:
    """Return a command that is told to end, and ended a while later if it has not."""
    notice = {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": _NOTICE_S}
    return {"command": "{{Param.Nuke}}", "args": words, "cancelation": notice}


def _openjd_range(frames: FrameRange) -> str:
    tail = "" if frames.step == 1 else f":{frames.step}"
    return str(frames.first) if len(frames) == 1 else f"{frames.first}-{frames.last}{tail}"


def _chunks(frames: FrameRange, size: int) -> Iterator[FrameRange]:
    every = list(frames)
    for start in range(0, len(every), size):
        part = every[start : start + size]
        yield FrameRange(part[0], part[-1], frames.step)


# --- YAML ----------------------------------------------------------------------------------------


def yaml_text(value: Any) -> str:
    """Return maps, lists, texts and whole numbers as YAML, in their order."""
    return "\n".join(_yaml_lines(value)) + "\n"


def _yaml_lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _yaml_entry(f"{key}:", one)
    else:
        for one in value:
            lines = list(_yaml_lines(one)) if isinstance(one, dict) else [_yaml_word(one)]
            yield f"- {lines[0]}"
            yield from (f"  {line}" for line in lines[1:])


def _yaml_entry(key: str, value: Any) -> Iterator[str]:
    if not isinstance(value, (dict, list)):
        yield f"{key} {_yaml_word(value)}"
        return
    yield key
    yield from (f"  {line}" for line in _yaml_lines(value))


def _yaml_word(value: Any) -> str:
    """Return a scalar; a text that YAML might take for something else in quotes."""
    if isinstance(value, str) and (not _BARE.match(value) or value.lower() in _YAML_WORDS):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


# --- OpenCue -------------------------------------------------------------------------------------


def opencue_launcher(job: FarmJob, *, show: str, shot: str, user: str) -> Any:
    """Return the job as PyOutline's launcher, which spells it for OpenCue and hands it in.

    Args:
        job: The job.
        show: OpenCue's show; empty: its default.
        shot: Its shot; empty: its default.
        user: Who it is for; empty: whoever runs this.

    Raises:
        ToolFailed: OpenCue's libraries are not here.
    """
    try:
        outline = importlib.import_module("outline")
        cuerun = importlib.import_module("outline.cuerun")
        shell = importlib.import_module("outline.modules.shell")
        importlib.import_module("opencue")
    except ImportError as error:
        raise ToolFailed(
            f"OpenCue's libraries are not here ({error}).",
            hint="Install opencue-pycue and opencue-pyoutline beside gencomp.",
        ) from error
    given = {name: value for name, value in (("show", show), ("shot", shot)) if value}
    whole = outline.Outline(
        re.sub(r"\W+", "_", job.script.path.stem), frame_range=str(job.frames), **given
    )
    if user:
        whole.set_user(user)
    for name, value in _cue_variables(job).items():
        whole.set_env(name, value, True)
    batch = [job.nuke, "-t", str(job.gencomp / _BATCH), str(job.script.path)]
    infer = shell.Shell(
        INFER,
        command=_quoted([*batch, f"--save={job.prepared}"]),
        range=f"{job.frames.first}-{job.frames.first}",
        gpus=job.gpus,
        service="nuke",
        env={"GENCOMP_IDLE_EXIT_S": _IDLE_S},
    )
    comp = shell.Shell(
        COMP,
        command=[
            *_quoted([job.nuke, "-x", "-F"]),
            _cue_frames(job),
            *_quoted(["-X", ",".join(job.writes), str(job.prepared)]),
        ],
        range=str(job.frames),
        chunk=job.chunk,
        service="nuke",
    )
    comp.depend_all(infer)
    whole.add_layer(infer)
    whole.add_layer(comp)
    return cuerun.OutlineLauncher(whole)


def _cue_variables(job: FarmJob) -> dict[str, str]:
    return {
        name: text.replace("{{Param.Gencomp}}", str(job.gencomp)).replace(
            "{{Param.Ocio}}", job.ocio
        )
        for name, text in _variables(job).items()
    }


def _cue_frames(job: FarmJob) -> str:
    """Return what OpenCue replaces by the frames of a task."""
    step = "" if job.frames.step == 1 else f"x{job.frames.step}"
    return f"#FRAME_START#-#FRAME_END#{step}" if job.chunk > 1 else "#IFRAME#"


def _quoted(words: list[str]) -> list[str]:
    """Return words as OpenCue has to be given them: it joins them with spaces for a shell."""
    return [shlex.quote(word) for word in words]
