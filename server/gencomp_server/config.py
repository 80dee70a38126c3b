# SPDX-License-Identifier: Apache-2.0
"""The server's settings: defaults, then ``gencomp.toml``, then ``GENCOMP_*``, then flags.

Each value remembers where it came from. A key that nobody knows is an error that names the nearest
known one, since a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.locate import SERVER_FILE, home_folder
from gencomp_protocol.messages import CHUNK_BYTES, CREDIT_BYTES
from gencomp_protocol.sockets import is_loopback
from gencomp_server.engine.machine import WeightsPlace
from gencomp_server.engine.spool import DEFAULT_BUDGET
from gencomp_server.segmenting import Segmenter, check_command
from gencomp_server.weights import DEFAULT_ALLOWED, check_classes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG_FILE = "gencomp.toml"
WEIGHTS_FOLDER = "weights"
WEIGHTS_LOCK = "weights.lock"
PREFIX = "GENCOMP_"
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class ServerConfig:
    """Everything a server can be told.

    Attributes:
        host: Loopback address to listen on; nothing else is taken yet.
        port: TCP port; 0 takes a free one.
        spool: Folder of pictures, stages and jobs; will be made.
        state_file: Where address and secret are written for local clients.
        credit_bytes: Most bytes wanted and not yet received, per connection, each way.
        chunk_bytes: Most bytes asked for at a time, at most 8 MiB.
        decode_processes: How many pictures are decoded at a time.
        decode_timeout_s: How long one picture may take to decode.
        idle_exit_s: Leave after so long without clients and jobs; 0 stays.
        release_after_s: Give the worker's memory back, on the GPU too, after so long without a job;
            0 keeps it. The next job starts the worker and loads its model again.
        drain_s: How long the running job may go on after SIGTERM.
        keep_days: How long an ended job's layers are kept for a client to come back.
        decoded_bytes: How much decoded pixels the spool keeps; they are made again on demand.
        stages_bytes: How much of finished stages it keeps, for jobs that resume or change a knob.
        device: What the worker runs on: ``cpu``, ``cuda:0`` and so on.
        registry: Where the systems are, as ``module:attribute``.
        weights: Folder of installed weights; need not exist.
        weights_lock: Where their digests are recorded.
        allowed_licences: Licence classes of weights that may be used; text has commas between.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        segmenter: Command that draws mattes of what words name; empty for none.
            ``my-tool {frames} {words} {out}``: see ``segmenting.py``.
        segmenter_timeout_s: How long it may take for a shot.
        allow_network: Whether the assistant may be asked at all.
        assistant_url: Base address of an OpenAI-compatible endpoint: ``https://host/v1``.
        assistant_model: Which of its models.
        assistant_key_file: File whose first line is the key; empty for an endpoint without one.
        assistant_timeout_s: How long an answer may take.
    """

    host: str = "127.0.0.1"
    port: int = 0
    spool: Path = field(default_factory=lambda: home_folder() / "spool")
    state_file: Path = field(default_factory=lambda: home_folder() / SERVER_FILE)
    credit_bytes: int = CREDIT_BYTES
    chunk_bytes: int = CHUNK_BYTES
    decode_processes: int = 2
    decode_timeout_s: float = 60.0
    idle_exit_s: float = 0.0
    release_after_s: float = 300.0
    drain_s: float = 30.0
    keep_days: float = 7.0
    decoded_bytes: int = DEFAULT_BUDGET.decoded_bytes
    stages_bytes: int = DEFAULT_BUDGET.stages_bytes
    device: str = "cpu"
    registry: str = "gencomp_server.systems:REGISTRY"
    weights: Path = field(default_factory=lambda: home_folder() / WEIGHTS_FOLDER)
    weights_lock: Path = field(default_factory=lambda: home_folder() / WEIGHTS_LOCK)
    allowed_licences: tuple[str, ...] = DEFAULT_ALLOWED
    log_level: str = "info"
    segmenter: str = ""
    segmenter_timeout_s: float = 900.0
    allow_network: bool = False
    assistant_url: str = ""
    assistant_model: str = ""
    assistant_key_file: str = ""
    assistant_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse values that cannot be, naming the field.

        Raises:
            BadKnob: Which field, what it is, what it may be.
        """
        if not is_loopback(self.host):
            raise BadKnob(
                f"Setting 'host' is {self.host}, but this server listens on loopback only, "
                "since its traffic is not encrypted.",
                hint="Use 127.0.0.1, and an SSH tunnel from other machines.",
            )
        _within("port", self.port, 0, 65535)
        _within("credit_bytes", self.credit_bytes, 64 * 1024, 2**40)
        _within("chunk_bytes", self.chunk_bytes, 4096, CHUNK_BYTES)
        _within("decode_processes", self.decode_processes, 1, 64)
        _within("decode_timeout_s", self.decode_timeout_s, 1.0, 3600.0)
        _within("idle_exit_s", self.idle_exit_s, 0.0, 1e9)
        _within("release_after_s", self.release_after_s, 0.0, 1e9)
        _within("drain_s", self.drain_s, 0.0, 1e6)
        _within("keep_days", self.keep_days, 0.0, 1e5)
        _within("decoded_bytes", self.decoded_bytes, 0, 2**50)
        _within("stages_bytes", self.stages_bytes, 0, 2**50)
        _within("segmenter_timeout_s", self.segmenter_timeout_s, 0.1, 1e6)
        _within("assistant_timeout_s", self.assistant_timeout_s, 0.1, 3600.0)
        check_classes(self.allowed_licences)
        if not _DEVICE.fullmatch(self.device):
            raise BadKnob(
                f"Setting 'device' cannot be '{self.device}'.",
                hint="Use cpu, or cuda:0 for the first GPU, cuda:1 for the second, and so on.",
            )
        if self.segmenter.strip():
            check_command(self.segmenter)
        if self.log_level not in _LEVELS:
            raise BadKnob(
                f"Setting 'log_level' cannot be '{self.log_level}'.",
                hint=f"Choose one of: {', '.join(_LEVELS)}.",
            )

    def segmenter_tool(self) -> Segmenter | None:
        """Return the segmenter; None where none is set."""
        if not self.segmenter.strip():
            return None
        return Segmenter(self.segmenter, self.segmenter_timeout_s)

    def weights_place(self) -> WeightsPlace:
        """Return where weights lie and which may be used."""
        return WeightsPlace(self.weights, self.weights_lock, self.allowed_licences)


def _within(name: str, value: float, lo: float, hi: float) -> None:
    if not lo <= value <= hi:
        raise BadKnob(f"Setting '{name}' is {value:g}, allowed are {lo:g} to {hi:g}.")


@dataclass(frozen=True)
class Loaded:
    """A configuration and, by field, where each value came from."""

    config: ServerConfig
    sources: Mapping[str, str]


def load_config(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    file: Path | None = None,
) -> Loaded:
    """Put the four sources together.

    Args:
        flags: From the command line, by field; a value of None was not given.
        environ: Where ``GENCOMP_PORT`` and the like are looked up.
        file: The settings file; None takes ``gencomp.toml`` in gencomp's home folder, if there.

    Raises:
        BadKnob: A key is not known, a value is not allowed, or the file cannot be read.
    """
    home = home_folder(environ)
    values: dict[str, Any] = {
        "spool": home / "spool",
        "state_file": home / SERVER_FILE,
        "weights": home / WEIGHTS_FOLDER,
        "weights_lock": home / WEIGHTS_LOCK,
    }
    sources = {spec.name: "default" for spec in dataclasses.fields(ServerConfig)}
    place = file if file is not None else home / CONFIG_FILE
    from_file = _read_file(place) if file is not None or place.is_file() else {}
    from_environ = {
        name: environ[PREFIX + name.upper()] for name in sources if PREFIX + name.upper() in environ
    }
    from_flags = {name: value for name, value in (flags or {}).items() if value is not None}
    for given, source in ((from_file, str(place)), (from_environ, "environment")):
        _take(given, source, values, sources)
    _take(from_flags, "flag", values, sources)
    return Loaded(ServerConfig(**values), sources)


def _take(
    given: Mapping[str, Any], source: str, values: dict[str, Any], sources: dict[str, str]
) -> None:
    """Let one source's values stand over those before it; in place."""
    for name, value in given.items():
        if name not in sources:
            near = difflib.get_close_matches(name, sources, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Settings: {', '.join(sources)}."
            raise BadKnob(f"There is no setting '{name}' ({source}).", hint=hint)
        values[name] = _as_kind(name, value)
        named = f"{PREFIX}{name.upper()}" if source == "environment" else source
        sources[name] = named


def _as_kind(name: str, value: Any) -> Any:
    """Return a value as its field's type; text is taken for numbers."""
    kind = _KINDS[name]
    words = {
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
        tuple: "texts with commas between",
        bool: "on or off",
    }
    try:
        if kind is bool:
            return _as_switch(value)
        if kind is tuple:
            return _as_texts(value)
        if isinstance(value, bool) or (kind in (str, Path) and not isinstance(value, (str, Path))):
            raise ValueError
        made = kind(value)
        if kind is int and isinstance(value, float) and made != value:
            raise ValueError
    except (ValueError, TypeError) as error:
        raise BadKnob(f"Setting '{name}' takes {words[kind]}, not {value!r}.") from error
    return made.expanduser() if isinstance(made, Path) else made


def _as_switch(value: Any) -> bool:
    """Return a switch; a file has true and false, the environment has words."""
    words = {"true": True, "on": True, "yes": True, "1": True}
    words |= {"false": False, "off": False, "no": False, "0": False}
    found = value if isinstance(value, bool) else words.get(str(value).strip().lower())
    if found is None or not isinstance(value, (bool, str)):
        raise ValueError
    return found


def _as_texts(value: Any) -> tuple[str, ...]:
    """Return texts out of a list of them, or out of one with commas between."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) for one in given):
        raise ValueError
    return tuple(one.strip() for one in given if one.strip())


def _read_file(place: Path) -> dict[str, Any]:
    try:
        with open(place, "rb") as source:
            return tomllib.load(source)
    except OSError as error:
        raise BadKnob(f"The settings file {place} cannot be read ({error.strerror}).") from error
    except tomllib.TOMLDecodeError as error:
        raise BadKnob(f"The settings file {place} is not TOML ({error}).") from error


_KINDS: Mapping[str, type[Any]] = {
    "host": str,
    "port": int,
    "spool": Path,
    "state_file": Path,
    "credit_bytes": int,
    "chunk_bytes": int,
    "decode_processes": int,
    "decode_timeout_s": float,
    "idle_exit_s": float,
    "release_after_s": float,
    "drain_s": float,
    "keep_days": float,
    "decoded_bytes": int,
    "stages_bytes": int,
    "device": str,
    "registry": str,
    "weights": Path,
    "weights_lock": Path,
    "allowed_licences": tuple,
    "log_level": str,
    "segmenter": str,
    "segmenter_timeout_s": float,
    "allow_network": bool,
    "assistant_url": str,
    "assistant_model": str,
    "assistant_key_file": str,
    "assistant_timeout_s": float,
}
