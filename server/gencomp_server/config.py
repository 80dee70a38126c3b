# SPDX-License-Identifier: Apache-2.0
"""The server's settings: defaults, settings files, ``GENCOMP_*``, flags; each over the last.

``gencomp_protocol.settings`` says which files there are, what a lock is, and remembers the line of
every value. A key that nobody knows is an error that names the nearest known one, since a setting
that is silently ignored is worse than none. A new field of ``ServerConfig`` is a setting: nothing
else has to be told of it but ``docs/td/configuration.md``.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.locate import SERVER_FILE, home_folder
from gencomp_protocol.messages import CHUNK_BYTES, CREDIT_BYTES
from gencomp_protocol.settings import (
    DEFAULT,
    FLAG,
    Given,
    Key,
    Layer,
    Origin,
    Settled,
    read_layers,
    settle,
    variable_of,
)
from gencomp_protocol.sockets import is_address
from gencomp_server.engine.machine import WeightsPlace
from gencomp_server.engine.spool import DEFAULT_BUDGET
from gencomp_server.exr.decode import MEMORY_BYTES
from gencomp_server.exr.header import LIMITS, NO_LIMITS, PictureLimits
from gencomp_server.exr.layout import COMPRESSIONS
from gencomp_server.logs import FORMATS, LOG_BYTES, TEXT, LogSettings
from gencomp_server.provenance import HASHES, METADATA
from gencomp_server.segmenting import Segmenter, check_command
from gencomp_server.weights import DEFAULT_ALLOWED, check_classes, check_models

WEIGHTS_FOLDER = "weights"
WEIGHTS_LOCK = "weights.lock"
KEYS_FOLDER = "keys"
LEDGER_FILE = "ledger.db"
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
_MOST_WORKERS = 64
_LEVELS = ("debug", "info", "warning", "error")
LOG_FOLDER, LOG_FILE = "log", "server.jsonl"
NO_FILE = "none"  # As the log's file: none is written.


@dataclass(frozen=True)
class ServerConfig:
    """Everything a server can be told.

    Attributes:
        host: IP address to listen on. Beyond loopback only clients with keys are let in, and
            loopback is listened on besides, at a free port.
        port: TCP port; 0 takes a free one.
        spool: Folder of pictures, stages and jobs; will be made.
        keys: Folder of the server's key and of the list of those it lets in (``gencomp keys``).
        shared_roots: Folders of storage that clients have, too: pictures beneath them are read
            where they lie instead of travelling. None unless set; text has commas between.
        ocio_configs: OpenColorIO configs, as absolute paths, that jobs of clients with keys may
            name; they may name built-in ones anyway, and the user's own clients all there are.
        state_file: Where address and secret are written for local clients.
        ledger: File that keeps a row of every delivered job, for good.
        credit_bytes: Most bytes wanted and not yet received, per connection, each way.
        chunk_bytes: Most bytes asked for at a time, at most 8 MiB.
        decode_processes: How many pictures are decoded at a time.
        decode_timeout_s: How long one picture may take to decode.
        decode_memory_bytes: Address space of each process that decodes.
        picture_side: Most pixels of a picture's longer side.
        picture_channels: Most channels of one part of an EXR.
        picture_bytes: Most that may be read of one picture, as float.
        picture_compressions: How an EXR may be packed; text has commas between: ``zip,piz``. Every
            name is in ``docs/td/configuration.md``.
        idle_exit_s: Leave after so long without clients and jobs; 0 stays.
        release_after_s: Give the worker's memory back, on the GPU too, after so long without a job;
            0 keeps it. The next job starts the worker and loads its model again.
        drain_s: How long the running job may go on after SIGTERM; the server has left some seconds
            later, within the 30 s that a farm gives before it kills. Where it is raised, raise
            ``TimeoutStopSec`` of the systemd unit (60) too: it has to be at least 10 s more.
        keep_days: How long an ended job's layers are kept for a client to come back.
        decoded_bytes: How much decoded pixels the spool keeps; they are made again on demand.
        stages_bytes: How much of finished stages it keeps, for jobs that resume or change a knob.
        spool_bytes: Most the spool may take; beyond it the oldest ended jobs are cleared away, but
            no result that nobody fetched before ``keep_days``. 0 sets no limit.
        keep_free_bytes: What must stay free of the spool's disk; below it the same is cleared away,
            and where that is not enough, jobs wait until there is room.
        memory_bytes: Main memory that a job may be planned with; 0 takes all that the machine, or
            the container, has.
        device: What workers run on: ``cpu``, ``cuda:0``; several with commas between are one
            worker each: ``cuda:0,cuda:1``.
        no_progress_s: How long a worker may make no progress in a job before it is killed and the
            job goes on in another; 0 for ever.
        tries: How often a job is run whose worker dies under it; then it is put away.
        recycle_jobs: After so many jobs a worker is replaced; 0 never.
        recycle_growth_bytes: A worker is replaced once it holds so much more memory between two
            jobs than after its first with the same model; 0 never.
        quota_jobs: Most jobs of one account that are received or wait; 0 sets no limit.
        quota_show_jobs: The same of one show.
        shares: Weights of accounts and shows when workers are shared, ``hero=2,night=0.5``; 1 for
            those that are not named. What each has had is forgotten at the next start.
        registry: Where the systems are, as ``module:attribute``.
        weights: Folder of installed weights; need not exist.
        weights_lock: Where their digests are recorded.
        allowed_licences: Licence classes of weights that may be used; text has commas between.
        allowed_models: Backbones that may be used, by name; empty for all.
        log_level: ``debug``, ``info``, ``warning`` or ``error``; prompts stand in it at ``debug``
            only.
        log_format: Of the lines on standard error: ``text``, or ``json``, a map a line.
        log_file: Where JSON lines go besides; empty takes ``log/server.jsonl`` in the spool, and
            ``none`` writes none.
        log_bytes: How much of them is kept; the oldest go first.
        web_port: Loopback port of the page with queue, health and metrics; 0 takes a free one, -1
            starts none.
        metadata: What delivered files say of how they were made: ``full``, ``hashes`` (no prompt)
            or ``minimal``.
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
    keys: Path = field(default_factory=lambda: home_folder() / KEYS_FOLDER)
    shared_roots: tuple[str, ...] = ()
    ocio_configs: tuple[str, ...] = ()
    state_file: Path = field(default_factory=lambda: home_folder() / SERVER_FILE)
    ledger: Path = field(default_factory=lambda: home_folder() / LEDGER_FILE)
    credit_bytes: int = CREDIT_BYTES
    chunk_bytes: int = CHUNK_BYTES
    decode_processes: int = 2
    decode_timeout_s: float = 60.0
    decode_memory_bytes: int = MEMORY_BYTES
    picture_side: int = LIMITS.side
    picture_channels: int = LIMITS.channels
    picture_bytes: int = LIMITS.picture_bytes
    picture_compressions: tuple[str, ...] = LIMITS.compressions
    idle_exit_s: float = 0.0
    release_after_s: float = 300.0
    drain_s: float = 20.0
    keep_days: float = 7.0
    decoded_bytes: int = DEFAULT_BUDGET.decoded_bytes
    stages_bytes: int = DEFAULT_BUDGET.stages_bytes
    spool_bytes: int = 0
    keep_free_bytes: int = 512 << 20
    memory_bytes: int = 0
    device: str = "cpu"
    no_progress_s: float = 900.0
    tries: int = 2
    recycle_jobs: int = 200
    recycle_growth_bytes: int = 2 << 30
    quota_jobs: int = 100
    quota_show_jobs: int = 0
    shares: tuple[str, ...] = ()
    registry: str = "gencomp_server.systems:REGISTRY"
    weights: Path = field(default_factory=lambda: home_folder() / WEIGHTS_FOLDER)
    weights_lock: Path = field(default_factory=lambda: home_folder() / WEIGHTS_LOCK)
    allowed_licences: tuple[str, ...] = DEFAULT_ALLOWED
    allowed_models: tuple[str, ...] = ()
    log_level: str = "info"
    log_format: str = TEXT
    log_file: str = ""
    log_bytes: int = LOG_BYTES
    web_port: int = -1
    metadata: str = HASHES
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
        if not is_address(self.host):
            raise BadKnob(
                f"Setting 'host' cannot be '{self.host}'.",
                hint="Use 127.0.0.1 for this machine alone, the IP address to listen on, or "
                "0.0.0.0 for all of its addresses; beyond this machine clients need keys.",
            )
        for name in ("shared_roots", "ocio_configs"):
            for one in getattr(self, name):
                if not os.path.isabs(one) or os.path.normpath(one) == "/":
                    raise BadKnob(
                        f"Setting '{name}' cannot have '{one}'.", hint="Give absolute paths."
                    )
        _not_a_file("keys", self.keys)
        _not_a_file("weights", self.weights)
        _within("port", self.port, 0, 65535)
        _within("credit_bytes", self.credit_bytes, 64 * 1024, 2**40)
        _within("chunk_bytes", self.chunk_bytes, 4096, CHUNK_BYTES)
        _within("decode_processes", self.decode_processes, 1, 64)
        _within("decode_timeout_s", self.decode_timeout_s, 1.0, 3600.0)
        _within("decode_memory_bytes", self.decode_memory_bytes, 1 << 30, 2**50)
        _within("picture_side", self.picture_side, 64, NO_LIMITS.side)
        _within("picture_channels", self.picture_channels, 4, NO_LIMITS.channels)
        _within("picture_bytes", self.picture_bytes, 1 << 20, NO_LIMITS.picture_bytes)
        for packed in self.picture_compressions or ("",):
            _one_of("picture_compressions", packed, COMPRESSIONS)
        _within("idle_exit_s", self.idle_exit_s, 0.0, 1e9)
        _within("release_after_s", self.release_after_s, 0.0, 1e9)
        _within("drain_s", self.drain_s, 0.0, 1e6)
        _within("keep_days", self.keep_days, 0.0, 1e5)
        _within("decoded_bytes", self.decoded_bytes, 0, 2**50)
        _within("stages_bytes", self.stages_bytes, 0, 2**50)
        _within("spool_bytes", self.spool_bytes, 0, 2**50)
        _within("keep_free_bytes", self.keep_free_bytes, 0, 2**50)
        _within("memory_bytes", self.memory_bytes, 0, 2**50)
        _within("segmenter_timeout_s", self.segmenter_timeout_s, 0.1, 1e6)
        _within("assistant_timeout_s", self.assistant_timeout_s, 0.1, 3600.0)
        check_classes(self.allowed_licences)
        check_models(self.allowed_models)
        if not all(_DEVICE.fullmatch(one) for one in self.devices):
            raise BadKnob(
                f"Setting 'device' cannot be '{self.device}'.",
                hint="Use cpu, or cuda:0 for the first GPU, cuda:1 for the second, and so on; "
                "several with commas between.",
            )
        if len(self.devices) > _MOST_WORKERS:
            raise BadKnob(f"Setting 'device' names more than {_MOST_WORKERS} workers.")
        _within("no_progress_s", self.no_progress_s, 0.0, 1e6)
        _within("tries", self.tries, 1, 100)
        _within("recycle_jobs", self.recycle_jobs, 0, 10**9)
        _within("recycle_growth_bytes", self.recycle_growth_bytes, 0, 2**50)
        _within("quota_jobs", self.quota_jobs, 0, 10**6)
        _within("quota_show_jobs", self.quota_show_jobs, 0, 10**6)
        self.share_weights()
        if self.segmenter.strip():
            check_command(self.segmenter)
        _one_of("log_level", self.log_level, _LEVELS)
        _one_of("log_format", self.log_format, FORMATS)
        _one_of("metadata", self.metadata, METADATA)
        _within("log_bytes", self.log_bytes, 64 * 1024, 2**40)
        _within("web_port", self.web_port, -1, 65535)

    @property
    def devices(self) -> tuple[str, ...]:
        """Return what workers run on, one worker each."""
        return tuple(one.strip() for one in self.device.split(","))

    def share_weights(self) -> dict[str, float]:
        """Return the weights of accounts and shows by name.

        Raises:
            BadKnob: One is no name with a weight from 0.001 to 1000.
        """
        found: dict[str, float] = {}
        for text in self.shares:
            name, _, weight = (part.strip() for part in text.rpartition("="))
            try:
                found[name] = float(weight)
            except ValueError:
                found[name] = 0.0
            if not name or not 0.001 <= found[name] <= 1000.0:
                raise BadKnob(
                    f"Setting 'shares' cannot hold '{text}'.",
                    hint="Give names and weights from 0.001 to 1000: hero=2,night=0.5.",
                )
        return found

    def segmenter_tool(self) -> Segmenter | None:
        """Return the segmenter; None where none is set."""
        if not self.segmenter.strip():
            return None
        return Segmenter(self.segmenter, self.segmenter_timeout_s)

    def log_settings(self) -> LogSettings:
        """Return what the log of the server's processes is."""
        default = str(self.spool / LOG_FOLDER / LOG_FILE)
        file = {"": default, NO_FILE: ""}.get(self.log_file, self.log_file)
        place = str(Path(file).expanduser()) if file else ""
        return LogSettings(self.log_level, self.log_format, place, self.log_bytes)

    def picture_limits(self) -> PictureLimits:
        """Return what a picture that a client sends may be at most."""
        compressions = tuple(self.picture_compressions)
        return PictureLimits(
            self.picture_side, self.picture_channels, self.picture_bytes, compressions
        )

    def weights_place(self) -> WeightsPlace:
        """Return where weights lie and which may be used."""
        return WeightsPlace(
            self.weights, self.weights_lock, self.allowed_licences, self.allowed_models
        )


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadKnob(
            f"Setting '{name}' cannot be '{value}'.", hint=f"Choose one of: {', '.join(choices)}."
        )


def _not_a_file(name: str, folder: Path) -> None:
    if folder.is_file():
        raise BadKnob(
            f"Setting '{name}' names a file, {folder}, where a folder belongs.",
            hint=f"Name the folder; the file's own is {folder.absolute().parent}.",
        )


def _within(name: str, value: float, lo: float, hi: float) -> None:
    if not lo <= value <= hi:
        raise BadKnob(f"Setting '{name}' is {value:.16g}, allowed are {lo:.16g} to {hi:.16g}.")


@dataclass(frozen=True)
class Loaded:
    """A configuration and, by field, where each value came from.

    Attributes:
        config: The settings.
        sources: ``/site/gencomp.toml:12``, a variable's name, ``flag`` or ``default``.
        settled: The same with what each value stands over, and where it is locked.
        layers: What the files say, for the tables that are not the server's.
    """

    config: ServerConfig
    sources: Mapping[str, str]
    settled: Mapping[str, Settled]
    layers: tuple[Layer, ...]


def load_config(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    file: Path | None = None,
    own: Mapping[str, Any] | None = None,
) -> Loaded:
    """Put the sources together: the facility's files, the user's, the environment, the flags.

    Args:
        flags: From the command line, by field; a value of None was not given.
        environ: Where ``GENCOMP_CONFIG``, ``GENCOMP_PORT`` and the like are looked up.
        file: The user's settings file; None takes ``gencomp.toml`` in gencomp's home folder, if
            there.
        own: What a server that belongs to one run is given by that run; no file locks these.

    Raises:
        BadKnob: A key is not known, a value is not allowed, a file cannot be read, or something
            sets what an earlier file has locked.
    """
    home = home_folder(environ)
    defaults: dict[Key, Any] = {(name,): value for name, value in _defaults(home).items()}
    layers = read_layers(home, environ, users=file)
    settled = settle(
        defaults,
        (*layers, _from_environ(defaults, environ), _from_flags(flags or {})),
        lambda key, value, origin: _as_kind(key[0], value, origin),
    )
    for name, value in (own or {}).items():
        if value is not None:
            settled[(name,)] = Settled(_as_kind(name, value, Origin(FLAG)), Origin(FLAG))
    by_name = {key[0]: one for key, one in settled.items()}
    try:
        config = ServerConfig(**{name: one.value for name, one in by_name.items()})
    except BadKnob as error:
        raise _placed(error, by_name) from error
    sources = {name: str(one.origin) for name, one in by_name.items()}
    return Loaded(config, sources, by_name, layers)


def _defaults(home: Path) -> dict[str, Any]:
    """Return what holds where nobody says anything, with folders in this home folder."""
    usual, found = home_folder(), {}
    for spec in dataclasses.fields(ServerConfig):
        made = spec.default
        if spec.default_factory is not dataclasses.MISSING:
            made = spec.default_factory()
        if isinstance(made, Path) and made.is_relative_to(usual):
            made = home / made.relative_to(usual)
        found[spec.name] = made
    return found


def _from_environ(keys: Iterable[Key], environ: Mapping[str, str]) -> Layer:
    """Return what the environment says; an empty variable is an empty text."""
    named = {key: variable_of(key) for key in keys}
    found = {k: Given(environ[one], Origin(one)) for k, one in named.items() if one in environ}
    return Layer(found, {})


def _from_flags(flags: Mapping[str, Any]) -> Layer:
    given: dict[Key, Given] = {
        (name,): Given(value, Origin(FLAG)) for name, value in flags.items() if value is not None
    }
    return Layer(given, {})


def _placed(error: BadKnob, settled: Mapping[str, Settled]) -> BadKnob:
    """Return an error with where the setting that it names comes from."""
    quoted = re.search(r"'(\w+)'", error.message)
    name = str(error.details.get("setting", quoted[1] if quoted else ""))
    origin = settled[name].origin if name in settled else None
    if origin is None or origin.source in (DEFAULT, FLAG):
        return error
    hint = f"{error.hint} It comes from {origin}.".strip()
    return BadKnob(error.message, hint=hint, **error.details)


def _as_kind(name: str, value: Any, origin: Origin) -> Any:
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
        hint = "" if origin.source == FLAG else f"It comes from {origin}."
        raise BadKnob(f"Setting '{name}' takes {words[kind]}, not {value!r}.", hint=hint) from error
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


# By setting, what its values are; a new field of ServerConfig needs nothing here.
_KINDS: Mapping[str, type[Any]] = {
    name: get_origin(kind) or kind for name, kind in get_type_hints(ServerConfig).items()
}
