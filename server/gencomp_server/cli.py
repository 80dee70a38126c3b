# SPDX-License-Identifier: Apache-2.0
"""The ``gencomp`` command, and the only place where the rooms are wired together.

Exit codes: 0 done, 2 the request is wrong, 3 no server, 4 the job failed, 130 cancelled, 141 nobody
reads on (``| head``). An error is one sentence and its cure on standard error. Heavy modules are
imported inside the subcommand that needs them, so that ``--help`` answers at once.
"""

import argparse
import contextlib
import difflib
import itertools
import json
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from gencomp_protocol import Client, ServerFile, __version__, find_server, home_folder
from gencomp_protocol.errors import (
    ArtistError,
    Cancelled,
    GencompError,
    InternalError,
    LinkError,
    MalformedMessage,
    ServerUnreachable,
    UnknownJob,
)
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.keys import OWN_FILE
from gencomp_protocol.layers import BG, EFFECT_UNDER, FG, ORIGIN_CHANNELS, PLATE
from gencomp_protocol.locate import SERVER_VARIABLE
from gencomp_protocol.request import STILL
from gencomp_protocol.settings import read_layers
from gencomp_server.assist_cli import add_assist
from gencomp_server.config_cli import add_config
from gencomp_server.decompose_cli import add_decompose
from gencomp_server.farm_cli import add_farm
from gencomp_server.jobs_cli import add_jobs
from gencomp_server.keys_cli import add_keys
from gencomp_server.measure_cli import add_measure
from gencomp_server.preview_cli import add_preview
from gencomp_server.probe_cli import add_probe
from gencomp_server.progress import narrator_for, spell_error
from gencomp_server.sheet_cli import add_sheet
from gencomp_server.train_cli import add_train
from gencomp_server.uninstall_cli import add_uninstall, lines
from gencomp_server.web_cli import WebChild, add_web
from gencomp_server.weights_cli import add_weights

if TYPE_CHECKING:
    from gencomp_server.delivery import Order, OutputFolder
    from gencomp_server.exr.decode import DecodePool
    from gencomp_server.progress import Narrator
    from gencomp_server.sheet import Files
    from gencomp_server.sources import Gathered

DONE, WRONG, NO_SERVER, FAILED, INTERRUPTED = 0, 2, 3, 4, 130
UNREAD = 141  # As a shell tells of a program that SIGPIPE ended.
_CLIENT = f"gencomp {__version__}"
_NEGATIVE = re.compile(r"-\d")  # argparse would take it for an option.
_AGAIN_S = 30.0  # How long a run waits for a named server that went away to come back.
_EXAMPLE = """example:
  gencomp run omnimatte --out out --input plate=plate/shot.%04d.exr \\
      --input matte.ball=roto/ball.%04d.exr --set seed=3
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        argv: Arguments without the program's name; None takes those of the process.
    """
    args = _parsed(sys.argv[1:] if argv is None else argv)
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        code = command(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _write_to_nobody()
        return UNREAD
    except GencompError as error:
        sys.stderr.write(spell_error(error))
        return exit_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # the edge: nobody sees a traceback on the terminal
        failure = _internal(error)
        sys.stderr.write(spell_error(failure))
        return FAILED


def exit_code(error: GencompError) -> int:
    """Return the exit code that an error ends the command with."""
    if isinstance(error, (ArtistError, UnknownJob)) or OWN_FILE in error.details:
        return WRONG
    if isinstance(error, Cancelled):
        return INTERRUPTED
    if isinstance(error, LinkError) and not isinstance(error, MalformedMessage):
        return NO_SERVER
    return FAILED


def _write_to_nobody() -> None:
    """Lead standard output nowhere, so that the interpreter does not complain as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _internal(error: Exception) -> InternalError:
    """Keep the traceback in a file and return the sentence that names it."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="gencomp-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(error, file=file)
    return InternalError(
        f"Something went wrong inside gencomp ({type(error).__name__}: {error}).",
        hint=f"The details are in {file.name}.",
    )


# --- arguments -----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        """Write the sentence and leave with 2."""
        self.exit(WRONG, f"gencomp: {message}. See {self.prog} --help.\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the nearest command where there is none of that name."""
        known = list(action.choices or ())
        if isinstance(action, argparse._SubParsersAction) and value not in known:
            near = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
            guess = f"; did you mean '{near[0]}'?" if near else f"; there is {', '.join(known)}"
            self.error(f"there is no command '{value}'{guess}")
        super()._check_value(action, value)


def _unquoted(words: Sequence[str], strays: Sequence[str]) -> str:
    """Return the cure where words that nobody takes follow a knob's value; else nothing."""
    for at, word in enumerate(words[:-2]):
        if word != "--set" or words[at + 2] not in strays:
            continue
        loose = itertools.takewhile(lambda one: one in strays, words[at + 2 :])
        return f'; put quotes around it: --set "{" ".join([words[at + 1], *loose])}"'
    return ""


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """Read the arguments; a range after ``--frames`` may begin with a minus (``-2-10``)."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--frames" and _NEGATIVE.match(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    parser = _parser()
    args, strays = parser.parse_known_args(joined)
    if strays:
        parser.error(f"unrecognized arguments: {' '.join(strays)}{_unquoted(joined, strays)}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gencomp", description="Generative compositing: layers out of a plate.")
    parser.add_argument("--version", action="version", version=_CLIENT)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_plan(commands)
    _add_serve(commands)
    _add_small(commands)
    add_assist(commands)
    add_config(commands)
    add_decompose(commands, _deliver)
    add_farm(commands)
    add_keys(commands)
    add_jobs(commands, lambda address: _client(_named_server(address)))
    add_measure(commands)
    add_preview(commands)
    add_probe(commands)
    add_sheet(commands)
    add_train(commands)
    add_uninstall(commands)
    add_web(commands)
    add_weights(commands)
    return parser


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="run a system on pictures from disk",
        description="Run a system on pictures from disk; the same command again resumes.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.set_defaults(command=_run)
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    _add_job(run)
    run.add_argument("--show", help="production that the job belongs to; default: $GENCOMP_SHOW")
    run.add_argument("--shot", help="shot that the job belongs to; default: $GENCOMP_SHOT")
    run.add_argument(
        "--priority",
        type=int,
        default=0,
        metavar="N",
        help="-100 to 100: which of your own waiting jobs of a server runs first",
    )
    run.add_argument("--json", action="store_true", help="one JSON event a line")


def _add_plan(commands: Any) -> None:
    plan = commands.add_parser(
        "plan",
        help="say what a run would cost, without running it",
        description="Say what a run would take: forwards, memory, minutes. Nothing is written.",
    )
    plan.set_defaults(command=_plan)
    _add_job(plan)
    plan.add_argument("--json", action="store_true", help="one JSON map")


def _add_job(command: Any) -> None:
    """Add what describes a job."""
    command.add_argument("system", metavar="SYSTEM", help="which system; see gencomp systems")
    command.add_argument("--frames", metavar="1001-1048", help="default: the plate's, as on disk")
    command.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=PATTERN",
        help="pictures with %%04d or #### for the frame number, or one still; a matte's channel "
        "follows a colon (PATTERN:mask.red); NAME@FRAME=FILE is a still at a frame",
    )
    command.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", dest="knobs")
    command.add_argument(
        "--colourspace",
        action="append",
        default=[],
        metavar="NAME=SPACE",
        help="what a picture that is not EXR holds: srgb or scene_linear; 8-bit defaults to srgb",
    )
    command.add_argument(
        "--working-space",
        default="scene_linear",
        metavar="SPACE",
        help="scene-linear space of all pictures: ACEScg, linear p3, a name or role of the config; "
        "default: scene_linear, which is Linear Rec.709 without a config",
    )
    command.add_argument(
        "--ocio",
        metavar="CONFIG",
        help="OpenColorIO config: a file, or ocio://NAME of a built-in one in full; "
        "default: $OCIO, else none",
    )
    command.add_argument("--server", metavar="tcp://HOST:PORT", help="default: one of its own")


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="serve jobs on this machine's loopback")
    serve.set_defaults(command=_serve)
    serve.add_argument("--host", help="IP address to listen on; beyond loopback with keys")
    serve.add_argument("--port", type=int, help="port; 0 takes a free one")
    serve.add_argument("--spool", type=Path, help="folder for pictures, stages and jobs")
    serve.add_argument("--state-file", type=Path, help="where to say address and secret")
    serve.add_argument("--device", help="what workers run on: cpu, cuda:0,cuda:1")
    serve.add_argument("--weights", type=Path, help="folder of installed weights")
    serve.add_argument(
        "--allowed-licences", metavar="CLASS,CLASS", help="licence classes of weights to use"
    )
    serve.add_argument("--idle-exit-s", type=float, help="leave after so long without work")
    serve.add_argument(
        "--release-after-s",
        type=float,
        help="give GPU and main memory back after so long without a job; 0 keeps; default 300",
    )
    serve.add_argument(
        "--web-port",
        type=int,
        help="loopback port of a page with queue, health and metrics; 0 takes a free one, "
        "-1 shows none (default)",
    )
    serve.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)


def _add_small(commands: Any) -> None:
    systems = commands.add_parser("systems", help="list the systems, their inputs and knobs")
    systems.set_defaults(command=_systems)
    systems.add_argument("--json", action="store_true", help="the whole declaration")
    doctor = commands.add_parser("doctor", help="check this installation")
    doctor.set_defaults(command=_doctor)
    doctor.add_argument("--json", action="store_true", help="every finding as a map")
    doctor.add_argument(
        "--paths", action="store_true", help="every place that gencomp writes to, and no checks"
    )
    doctor.add_argument("--server", metavar="tcp://HOST:PORT", help="default: the one found")
    shot = commands.add_parser("shot", help="write a procedural shot with known layers")
    shot.set_defaults(command=_shot)
    shot.add_argument("spec", type=Path, metavar="SPEC.toml", help="the shot's parameters")
    shot.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")


# --- run -----------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    narrator = narrator_for(sys.stdout, sys.stderr, as_json=args.json)
    try:
        _deliver(args, narrator)
    except GencompError as error:
        narrator.failed(error)
        return exit_code(error)
    except BrokenPipeError:  # nobody listens to the narrator any more; main knows what to do
        raise
    except KeyboardInterrupt:
        narrator.failed(Cancelled("Stopped.", hint="The same command goes on with the job."))
        return INTERRUPTED
    except Exception as error:  # the edge, told the way the caller asked to be told
        narrator.failed(_internal(error))
        return FAILED
    finally:
        narrator.close()
    return DONE


def _deliver(args: argparse.Namespace, narrator: "Narrator") -> None:
    """Everything between the arguments and the manifest."""
    from gencomp_server.delivery import OutputFolder, run_order

    asked = _Asked(args)
    is_own = args.server is None
    with OutputFolder(args.out) as folder, _told_of_takes(folder, narrator, is_own=is_own):
        place = _server(args.server, folder.spool)
        with place as server, _run_client(server, args.server) as client:
            gathered = asked.gather(client.connect().systems)
            for note in gathered.notes:
                narrator.note(note)
            order = asked.order(gathered)
            with _interruptible() as interrupt:
                manifest = run_order(
                    client,
                    order,
                    folder,
                    on_plan=narrator.expect,
                    on_event=narrator.event,
                    cancelled=interrupt.asked,
                    on_note=narrator.note,
                )
        _finish(folder, gathered, manifest, narrator)


@contextlib.contextmanager
def _told_of_takes(folder: "OutputFolder", narrator: "Narrator", *, is_own: bool) -> Iterator[None]:
    """Where a run ends early, say what it leaves: of an earlier take, of what was sent, a report.

    A server of the run's own is gone by then; a report is gathered from what it leaves.
    """
    try:
        yield
    except (GencompError, KeyboardInterrupt) as error:
        report = error.details.get("report") if isinstance(error, GencompError) else None
        if report is not None and is_own:
            narrator.note(f"For support: gencomp report {report} --spool {folder.spool}")
        for sentence in (folder.unfinished(), folder.left_over()):
            if sentence is not None:
                narrator.note(sentence)
        raise


class _Asked:
    """What the arguments of ``run`` and ``plan`` say of a job, read before anything is started."""

    def __init__(self, args: argparse.Namespace) -> None:
        from gencomp_server.sources import parse_given, read_pairs

        self._system = args.system
        self._given = [parse_given(text) for text in args.input]
        self._frames = FrameRange.parse(args.frames) if args.frames else None
        self._layers = read_layers(home_folder())
        self._knobs: dict[str, Any] = {**read_pairs(args.knobs, "--set", "--set seed=3")}
        self._spaces = read_pairs(args.colourspace, "--colourspace", "--colourspace plate=srgb")
        self._working_space = args.working_space
        config = os.environ.get("OCIO", "") if args.ocio is None else args.ocio
        is_file = config and not config.startswith("ocio://")
        self._ocio = str(Path(config).absolute()) if is_file else config
        self._is_ocio_found = bool(config) and args.ocio is None
        # What is only planned, or run by a server of its own, has none of them.
        self._whose = {
            name: getattr(args, name) for name in ("show", "shot", "priority") if name in args
        }

    def gather(self, systems: Sequence[Any]) -> "Gathered":
        """Return the pictures on disk that the job takes; knobs by default are known then too."""
        from gencomp_server.knob_defaults import defaults_for
        from gencomp_server.sources import gather, schema_of, second_channels

        schema = schema_of(systems, self._system)
        values, notes = defaults_for(schema, self._layers, self._knobs)
        self._knobs |= values
        spelt = {name: str(value) for name, value in self._knobs.items()}
        given = second_channels(self._given, schema, spelt)
        found = gather(given, schema, self._frames, self._spaces)
        found = replace(found, notes=(*notes, *found.notes))
        if not self._is_ocio_found:
            return found
        note = f"Colours are those of the variable OCIO, {self._ocio}; --ocio '' is none."
        return replace(found, notes=(note, *found.notes))

    def order(self, gathered: "Gathered") -> "Order":
        """Return the job that the arguments ask for, over the pictures that were found."""
        from gencomp_protocol.request import Request
        from gencomp_server.delivery import Order

        request = Request(
            self._system,
            gathered.frames,
            tuple(source.header for source in gathered.sources),
            self._knobs,
            self._working_space,
            _CLIENT,
            self._ocio,
        )
        return Order(
            request,
            {source.header.name: source.paths for source in gathered.sources},
            {source.header.name: source.kind for source in gathered.sources},
            **self._whose,
        )


def _finish(
    folder: "OutputFolder", gathered: "Gathered", manifest: dict[str, Any], narrator: "Narrator"
) -> None:
    """Draw the sheet, write the manifest, drop the spool, say where everything lies."""
    from gencomp_server.delivery import CONTACT_SHEET, layer_folders
    from gencomp_server.sheet import sheet_pool

    for sentence in folder.strangers(manifest):
        narrator.note(sentence)
    sheet: Path | None = folder.path / CONTACT_SHEET
    checked = ""
    pool = sheet_pool()
    try:
        _draw_sheet(folder.path / CONTACT_SHEET, gathered, manifest, pool)
    except GencompError as error:
        narrator.note(f"There is no contact sheet: {error}")
        sheet = None
    try:
        checked = _inspect(folder, gathered, manifest, narrator, pool)
    except GencompError as error:
        narrator.note(f"The result was not checked: {error}")
    finally:
        pool.close()
    folder.write_manifest(manifest)
    folder.drop_spool()
    narrator.done(
        {
            "layers": layer_folders(folder.path, manifest["layers"]),
            "contact_sheet": None if sheet is None else str(sheet),
            "manifest": str(folder.manifest),
            "checked": checked,
            "seconds": manifest["seconds"],
        }
    )


def _inspect(
    folder: "OutputFolder",
    gathered: "Gathered",
    manifest: dict[str, Any],
    narrator: "Narrator",
    pool: "DecodePool",
) -> str:
    """Check the pictures of a delivery, note what is wrong, and return the figures in a line."""
    from gencomp_server.inspection import inspect_delivery

    _, plate = _compared(gathered, laid_over=EFFECT_UNDER in manifest["layers"])
    told = manifest.get("report", {}).get("order_from_frame", {})
    order = {int(frame): names for frame, names in told.items()}
    layers = _pictures_of(folder.path, manifest, codes=False)
    found = inspect_delivery(list(gathered.frames), plate, layers, order, pool)
    manifest["inspection"] = found.to_plain()
    for fault in found.faults:
        narrator.note(f"Look at the result: {fault}")
    return found.spell()


def _pictures_of(
    folder: Path, manifest: dict[str, Any], *, codes: bool = True
) -> "dict[str, Files]":
    """Return the delivered layers that can be shown; those that hold codes on demand."""
    from gencomp_server.delivery import layer_paths
    from gencomp_server.sheet import Files

    return {
        layer: Files(
            layer_paths(folder, layer, facts["frames"]), is_matte=list(facts["channels"]) == ["A"]
        )
        for layer, facts in manifest["layers"].items()
        if facts["channels"] == ["A"]
        or set(facts["channels"]) >= {"R", "G", "B"}
        or (codes and set(facts["channels"]) >= set(ORIGIN_CHANNELS))
    }


def _draw_sheet(
    path: Path, gathered: "Gathered", manifest: dict[str, Any], pool: "DecodePool"
) -> None:
    from gencomp_server.sheet import Files, caution_of, draw_delivery

    label, plate = _compared(gathered, laid_over=EFFECT_UNDER in manifest["layers"])
    draw_delivery(
        path,
        f"{manifest['system']}   {gathered.frames}",
        list(gathered.frames),
        plate,
        _pictures_of(path.parent, manifest),
        caution_of(manifest),
        manifest.get("colour", {}).get("to_rec709"),
        drawn={
            source.header.name: Files(
                source.paths,
                source.kind,
                is_matte=True,
                channel=source.header.channel,
                is_still=source.header.cover == STILL,
            )
            for source in gathered.sources
            if source.is_matte
        },
        label=label,
        pool=pool,
    )


def _compared(gathered: "Gathered", *, laid_over: bool = True) -> tuple[str, "Files"]:
    """Return name and files of what a result is compared with: the plate, bg, or fg over bg.

    Args:
        gathered: The inputs.
        laid_over: True where fg lies over bg as it is; else a model says where.
    """
    from gencomp_server.sheet import Files

    files = {
        source.header.name: Files(source.paths, source.kind, source.header.colourspace)
        for source in gathered.sources
    }
    if PLATE not in files and {FG, BG} <= set(files):
        if laid_over:
            return f"{FG} over {BG}", replace(files[FG], under=files[BG])
        return BG, files[BG]
    first = gathered.sources[0].header.name
    name = next((one for one in (PLATE, BG) if one in files), first)
    return name, files[name]


@contextlib.contextmanager
def _server(address: str | None, spool: Path) -> Iterator[ServerFile]:
    """Yield the server that was named, or one of our own for as long as we need it."""
    if address is not None:
        yield _named_server(address)
        return
    from gencomp_server.embedded import EmbeddedServer

    with EmbeddedServer(spool) as server:
        yield server


def _client(server: ServerFile) -> Client:
    return Client(server.address, server.secret, client=_CLIENT, keys=server.keys)


def _run_client(server: ServerFile, address: str | None) -> Client:
    """Return a client that finds a named server again: it has a new secret at every start."""
    if address is None:
        return _client(server)
    return Client(
        server.address,
        server.secret,
        client=_CLIENT,
        timeout_s=_AGAIN_S,
        find=lambda: _named_server(address),
        keys=server.keys,
    )


def _named_server(address: str | None) -> ServerFile:
    """Return the server at an address, or the one that is found.

    Raises:
        ServerUnreachable: None is named and none is found.
    """
    found = find_server({**os.environ, SERVER_VARIABLE: address} if address else os.environ)
    if found is None:
        raise ServerUnreachable(
            "No server is named and none runs here.",
            hint="Start one with gencomp serve, or name one with --server tcp://HOST:PORT.",
        )
    return found


class _Interrupt:
    """What Ctrl-C means: before the job is followed, leave; then, cancel; twice, leave."""

    def __init__(self) -> None:
        self._followed = False
        self._asked = False

    def asked(self) -> bool:
        """Tell whether the job shall be cancelled; being asked means that it is followed."""
        self._followed = True
        return self._asked

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take the signal."""
        if not self._followed or self._asked:
            raise KeyboardInterrupt
        self._asked = True
        sys.stderr.write("gencomp: cancelling; press Ctrl-C again to leave at once.\n")


@contextlib.contextmanager
def _interruptible() -> Iterator[_Interrupt]:
    interrupt = _Interrupt()
    before = signal.signal(signal.SIGINT, interrupt.hear)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


# --- the others ----------------------------------------------------------------------------------


def _plan(args: argparse.Namespace) -> int:
    from gencomp_server.plan_report import as_lines, as_plain, bytes_to_send, connect_ready

    asked = _Asked(args)
    with tempfile.TemporaryDirectory(prefix="gencomp-plan-") as folder:
        place = _server(args.server, Path(folder) / "spool")
        with place as server, _run_client(server, args.server) as client:
            gathered = asked.gather(connect_ready(client))
            request = asked.order(gathered).request
            plan = client.check(request, anyway=True)
    sending = bytes_to_send(source.paths for source in gathered.sources)
    if args.json:
        print(json.dumps(as_plain(plan, sending), indent=2))
        return DONE
    for note in gathered.notes:
        print(f"note: {note}")
    print("\n".join(as_lines(plan, sending)))
    return DONE


def _serve(args: argparse.Namespace) -> int:
    from gencomp_server.config import load_config
    from gencomp_server.embedded import leave_when_stdin_closes
    from gencomp_server.logs import configure
    from gencomp_server.service import Service

    names = (
        *("host", "port", "spool", "state_file", "device", "idle_exit_s"),
        *("weights", "allowed_licences", "release_after_s", "web_port"),
    )
    flags, own = {name: getattr(args, name) for name in names}, {}
    if args.until_stdin_closes:
        # The parent is gone or done: what still runs goes on at the next start.
        own = {"host": "127.0.0.1", "drain_s": 0.0, "web_port": -1}
        own |= {name: flags.pop(name) for name in ("port", "spool", "state_file")}
    loaded = load_config(flags, own=own)
    config = loaded.config
    configure(config.log_settings(), turns=True)
    if args.until_stdin_closes:
        leave_when_stdin_closes(lambda: os.kill(os.getpid(), signal.SIGTERM))
    service = Service(config, sources=loaded.sources)
    if config.web_port < 0:
        return service.run(_say_ready)
    page = WebChild(config.web_port, config.state_file)

    def ready(server: ServerFile) -> None:
        _say_ready(server)
        page.start()

    try:
        return service.run(ready)
    finally:
        page.stop()


def _say_ready(server: ServerFile) -> None:
    print(f"gencomp {__version__} is ready at {server.address}", flush=True)
    if server.public:
        print(f"with keys at {server.public}; public key {server.public_key}", flush=True)


def _systems(args: argparse.Namespace) -> int:
    from gencomp_server.contract import schema
    from gencomp_server.systems import REGISTRY

    found = [schema(system) for system in REGISTRY]
    if args.json:
        print(json.dumps(found, indent=2))
        return DONE
    for entry in found:
        print(f"{entry['name']}  {entry['doc']}")
        for spec in _input_specs(entry["inputs"]):
            tail = " (optional)" if spec["optional"] else ""
            print(f"  --input {spec['name']}  {spec['doc']}{tail}")
        for knob in entry["knobs"]:
            choices = f" ({', '.join(knob['choices'])})" if knob["choices"] else ""
            print(f"  --set {knob['name']}={knob['default']}{choices}  {knob['doc']}")
    return DONE


def _input_specs(rules: Sequence[Any]) -> Iterator[Any]:
    for rule in rules:
        yield from [rule] if "name" in rule else [spec for one in rule["sets"] for spec in one]


def _doctor(args: argparse.Namespace) -> int:
    from gencomp_server.doctor import examine

    if args.paths:
        print("\n".join(lines(os.environ)))
        return DONE
    if args.json:
        found = [
            {"is_good": one.is_good, "sentence": one.sentence}
            for one in examine(os.environ, args.server)
        ]
        print(json.dumps(found, indent=2))
        return DONE if all(one["is_good"] for one in found) else 1
    wrong = 0
    for finding in examine(os.environ, args.server):
        wrong += not finding.is_good
        print(f"{'ok   ' if finding.is_good else 'WRONG'}  {finding.sentence}")
    return 1 if wrong else DONE


def _shot(args: argparse.Namespace) -> int:
    from gencomp_server.training.shots import load_spec, write_shot

    write_shot(load_spec(args.spec), args.out)
    made = sorted(path.name for path in args.out.iterdir() if path.is_dir())
    print(f"The shot is in {args.out}: {', '.join(made)}.")
    return DONE
