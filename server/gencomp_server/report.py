# SPDX-License-Identifier: Apache-2.0
"""What support needs to know of a job, in one zip: gathered by the server, packed by the command.

::

    report.json     whose report it is, when it was gathered, by which release
    job.json        state, times, error, warnings, and the request without texts of the artist's
    manifest.json   of a job that is done
    graph.json      its stages; graph.txt the same, drawn
    headers.json    what is known of its pictures from their headers; no pixel
    log.txt         what the server's log says of the job
    versions.json   what is installed, and what it runs on
    config.json     every setting and where it came from

No plate, no secret, no prompt and no name of a person, show or shot is in it; prompts are on
demand. The report's id is the job's. This module imports neither numpy nor a picture library.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from gencomp_protocol import disk
from gencomp_protocol.codec import to_plain
from gencomp_protocol.errors import DiskFull, UnwritableOutput
from gencomp_protocol.request import Request
from gencomp_protocol.version import PROTOCOL_VERSION, __version__
from gencomp_server.config import ServerConfig
from gencomp_server.engine import graph
from gencomp_server.engine.job import Job
from gencomp_server.engine.spool import Spool
from gencomp_server.logfile import last_lines

HIDDEN = "(hidden)"
_PACKAGES = (
    *("numpy", "torch", "diffusers", "transformers", "accelerate", "safetensors"),
    *("opencv-python-headless", "OpenEXR", "OpenImageIO", "opencolorio", "pyzmq", "msgpack"),
)
# Knobs and figures of the manifest that hold what an artist wrote, or what was made of it.
_PRIVATE = re.compile(r"prompt|caption|instruction|_objects?\Z|words", re.I)
_SPOKEN = ("Caption: ",)
_SECRET = re.compile(r"secret|token|password|(\A|_)key\Z|curve|\Ashares\Z", re.I)
_LEAST_PRIVATE = 3
_MOST_LINES = 5000
_MOST_PICTURES = 500  # Of one input.
_LOG_CHARACTERS = 3_000_000  # A message of the wire takes 8 MiB in all.
_LINE_CHARACTERS = 8000
_HEADER_FACTS = (
    *("channels", "pixel_type", "display_window", "data_window", "pixel_aspect", "nan_count"),
)


@dataclass(frozen=True)
class Server:
    """What a report says of the server besides the job.

    Attributes:
        config: Its settings.
        sources: Where each came from, by name.
        machine: What its worker told of the device; empty where none did.
        secrets: Texts that stand nowhere in a report.
    """

    config: ServerConfig
    sources: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


def gather(
    job: Job,
    stages: Sequence[graph.StageRow],
    warnings: Sequence[str],
    spool: Spool,
    server: Server,
    *,
    with_prompts: bool = False,
) -> dict[str, Any]:
    """Return the files of a report by name: maps and lists for ``.json``, lines for ``.txt``.

    Args:
        job: The job.
        stages: Its stages.
        warnings: The warnings it gave.
        spool: Where its manifest and the headers of its pictures lie.
        server: What is known of the server.
        with_prompts: Leave in what the artist wrote.
    """
    manifest = spool.read_manifest(job.id)
    files: dict[str, Any] = {
        "report.json": {
            "id": job.id,
            "gathered": _spell(datetime.datetime.now(datetime.timezone.utc).timestamp()),
            "gencomp": __version__,
            "with_prompts": with_prompts,
        },
        "job.json": {
            "job": job.id,
            "state": job.state,
            "created": _spell(job.created_s),
            "started": _spell(job.started_s),
            "ended": _spell(job.ended_s),
            "error": None if job.error is None else dict(job.error),
            "warnings": list(warnings),
            "request": to_plain(job.request),
        },
        "graph.json": [graph.to_plain(row) for row in stages],
        "graph.txt": graph.lines(stages),
        "headers.json": headers_of(job, spool),
        "log.txt": log_lines(Path(server.config.log_settings().file or "/dev/null"), job.id),
        "versions.json": versions(server.machine),
        "config.json": settings_of(server.config, server.sources),
    }
    if manifest is not None:
        files["manifest.json"] = dict(manifest)
    hidden = {text: HIDDEN for text in server.secrets if text}
    if not with_prompts:
        hidden.update(dict.fromkeys(private_texts(job.request, manifest or {}), HIDDEN))
    names = (job.account, job.show, job.shot)
    hidden.update({name: HIDDEN for name in names if len(name) >= _LEAST_PRIVATE})
    hidden[str(Path.home())] = "~"
    scrubbed: dict[str, Any] = _scrubbed(files, hidden, hides_keys=not with_prompts)
    return scrubbed


def private_texts(request: Request, manifest: Mapping[str, Any]) -> list[str]:
    """Return what an artist wrote, and what was made of it, the longest first."""
    found = set(_texts_under(request.knobs)) | set(_texts_under(manifest))
    for note in manifest.get("plan_notes", ()):
        found |= {note[len(lead) :] for lead in _SPOKEN if note.startswith(lead)}
    return sorted((one for one in found if len(one) >= _LEAST_PRIVATE), key=len, reverse=True)


def _texts_under(value: Any, *, is_private: bool = False) -> Iterable[str]:
    """Yield the texts that stand under a private name."""
    if isinstance(value, str) and is_private:
        yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            own = is_private or bool(_PRIVATE.search(str(name)))
            yield from _texts_under(one, is_private=own)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts_under(one, is_private=is_private)


def _scrubbed(value: Any, hidden: Mapping[str, str], *, hides_keys: bool) -> Any:
    """Return plain data without texts that are not for others, in whatever sentence they stand."""
    if isinstance(value, str):
        for text, instead in hidden.items():
            for spelt in (text, repr(text)[1:-1], json.dumps(text)[1:-1]):
                value = value.replace(spelt, instead)
        return value
    if isinstance(value, Mapping):
        made = {}
        for name, one in value.items():
            is_private = hides_keys and isinstance(one, str) and bool(_PRIVATE.search(str(name)))
            made[str(name)] = (
                (HIDDEN if one else "")
                if is_private
                else _scrubbed(one, hidden, hides_keys=hides_keys)
            )
        return made
    if isinstance(value, (list, tuple)):
        return [_scrubbed(one, hidden, hides_keys=hides_keys) for one in value]
    return value


# --- its parts -----------------------------------------------------------------------------------


def headers_of(job: Job, spool: Spool) -> dict[str, Any]:
    """Return what headers say of a job's pictures, by input and frame; no metadata of the file.

    A picture that was not decoded, or whose pixels were cleared away, has what the client said.
    """
    found: dict[str, Any] = {}
    decoded: dict[str, list[Path]] = {}
    for place in sorted(spool.decoded.glob("*.json")):
        decoded.setdefault(place.name.partition("-")[0], []).append(place)
    for entry in job.request.inputs:
        pictures: dict[str, Any] = {}
        of_input = next((one.pictures for one in job.inputs if one.name == entry.name), ())
        for picture in of_input[:_MOST_PICTURES]:
            facts: dict[str, Any] = {"bytes": picture.bytes, "digest": picture.digest}
            for place in decoded.get(picture.digest, ()):
                facts.update(_header_facts(place))
            pictures[str(picture.frame)] = facts
        left_out = len(of_input) - len(pictures)
        asked = {"as_asked": to_plain(entry), "pictures": pictures}
        found[entry.name] = {**asked, "left_out": left_out} if left_out else asked
    return found


def _header_facts(place: Path) -> dict[str, Any]:
    try:
        plain = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # removed, or written, meanwhile
        return {}
    header = plain.get("header", plain) if isinstance(plain, dict) else {}
    return {name: header[name] for name in _HEADER_FACTS if name in header}


def log_lines(path: Path, job: str) -> list[str]:
    """Return what the server's log says of a job, oldest first; the last where that is too much."""
    lines: list[str] = []
    left = _LOG_CHARACTERS
    for entry in reversed(last_lines(path, _MOST_LINES, job=job)):
        words = (entry.get(name) or "" for name in ("time", "level", "logger", "message", "error"))
        line = " ".join(str(word) for word in words if word)[:_LINE_CHARACTERS]
        left -= len(line)
        if left < 0:
            lines.append("(earlier lines are left out)")
            break
        lines.append(line)
    return lines[::-1]


def versions(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is installed and what it runs on."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    wanted = ("device", "name", "memory_bytes", "free_bytes", "teraflops", "backbones")
    return {
        "gencomp": __version__,
        "protocol": list(PROTOCOL_VERSION),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": packages,
        "machine": {name: to_plain(machine[name]) for name in wanted if name in machine},
    }


def settings_of(config: ServerConfig, sources: Mapping[str, str]) -> dict[str, Any]:
    """Return every setting with its value and where it came from; what is secret is hidden."""
    return {
        name: {"value": _shown(name, value), "from": sources.get(name, "not known")}
        for name, value in asdict(config).items()
    }


def _shown(name: str, value: Any) -> Any:
    if _SECRET.search(name) and value and not name.endswith(("_file", "_bytes", "_s")):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): _shown(str(key), one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_shown("", one) for one in value]
    if isinstance(value, str) and "://" in value and "@" in value:
        return _without_user(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _spell(moment_s: float | None) -> str | None:
    if moment_s is None:
        return None
    moment = datetime.datetime.fromtimestamp(moment_s, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# --- the file ------------------------------------------------------------------------------------


def write_zip(path: Path, job: str, files: Mapping[str, Any]) -> None:
    """Write a report as a zip, whole or not at all, for its owner alone.

    In it is one folder, named for the job.

    Raises:
        DiskFull, UnwritableOutput: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.part")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        beside.unlink(missing_ok=True)
        with (
            os.fdopen(os.open(beside, flags, 0o600), "w+b") as target,
            zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for name, content in sorted(files.items()):
                is_lines = name.endswith(".txt")
                text = "\n".join(map(str, content)) if is_lines else json.dumps(content, indent=1)
                # One part of a name, whatever a server calls it.
                packed.writestr(f"gencomp-report-{job}/{Path(name).name}", f"{text}\n")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        kind = DiskFull if error.errno in disk.FULL else UnwritableOutput
        raise kind(f"The report {path} cannot be written ({error.strerror}).") from error
