# SPDX-License-Identifier: Apache-2.0
"""``gencomp web``: the page, health and metrics of a server, as a process of its own.

``gencomp serve --web-port N`` starts one beside it (:class:`WebChild`) and starts it again when it
dies; the server itself does not notice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gencomp_protocol import ServerFile, __version__, find_server
from gencomp_protocol.errors import BadKnob, ServerUnreachable
from gencomp_protocol.locate import SERVER_VARIABLE, home_folder, read_server_file
from gencomp_server.writes import WEB_FILE

log = logging.getLogger(__name__)

PORT = 9477
DONE = 0
_BESIDE = "Jobs go on without the page; name another port with --web-port, or 0 for a free one."
_LEAVE_S = 5.0
_LIVED_S = 60.0  # A page that lived so long is started again at once.
_FIRST_PAUSE_S, _MOST_PAUSE_S = 1.0, 60.0


def add_web(commands: Any) -> None:
    """Add ``web`` to a parser's subcommands."""
    web = commands.add_parser(
        "web",
        help="show a server's queue, health and metrics as a page on this machine's loopback",
        description="Show a server's queue, progress, results and log as a page, and its health "
        "and metrics to programs: /healthz, /readyz, /metrics. On this machine's loopback only. "
        "The address with its token is printed on a terminal, and kept in web.json in gencomp's "
        "home folder.",
    )
    web.set_defaults(command=_web)
    web.add_argument("--port", type=int, default=PORT, help=f"0 takes a free one; default {PORT}")
    web.add_argument("--server", metavar="tcp://HOST:PORT", help="default: the one found")
    web.add_argument("--server-file", type=Path, help=argparse.SUPPRESS)
    web.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)


def _web(args: argparse.Namespace) -> int:
    if not 0 <= args.port <= 65535:
        raise BadKnob(f"'{args.port}' is no port.", hint="Use 1 to 65535, or 0 for a free one.")
    try:
        from gencomp_server.web.access import new_token
        from gencomp_server.web.serving import run_page, spell_address
        from gencomp_server.web.watch import Watch
    except ImportError as error:
        raise ServerUnreachable(
            f"The page needs a package that is not installed ({error.name}).",
            hint="Install it: pip install 'gencomp[server]'.",
        ) from error
    from gencomp_server.config import load_config
    from gencomp_server.embedded import leave_when_stdin_closes
    from gencomp_server.logs import LogSettings, configure
    from gencomp_server.sessions import ONLOOKER

    # The file is the server's; what the page does to a job stands there by the server's own hand.
    settings = load_config().config
    configure(LogSettings(settings.log_level, settings.log_format))
    token, find = new_token(), _finder(args.server, args.server_file)
    folder = args.server_file.parent if args.server_file else home_folder()
    place = folder / WEB_FILE

    def ready(port: int) -> None:
        url = spell_address(port, token)
        _write_private(place, {"url": url, "pid": os.getpid()})
        shown = url if sys.stdout.isatty() else f"{url.partition('#')[0]} (with its token: {place})"
        sys.stdout.write(f"gencomp {__version__} shows its page at {shown}\n")
        sys.stdout.flush()

    def watch_of(changed: Callable[[], None]) -> Watch:
        return Watch(find, f"{ONLOOKER} {__version__}", changed)

    until = leave_when_stdin_closes if args.until_stdin_closes else None
    try:
        asyncio.run(run_page(watch_of, token, args.port, on_ready=ready, until=until))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ServerUnreachable(
            f"The page cannot be at port {args.port} ({why}).",
            hint=_BESIDE if args.until_stdin_closes else "Name another one, or 0 for a free one.",
        ) from error
    finally:
        _remove_own(place)
    return DONE


def _finder(address: str | None, file: Path | None) -> Callable[[], ServerFile | None]:
    """Return what says where the server is, each time anew: it has a new secret at every start."""
    if file is not None:
        return lambda: read_server_file(file) if file.exists() else None
    environ = {**os.environ, SERVER_VARIABLE: address} if address else os.environ
    return lambda: find_server(environ)


def _write_private(place: Path, plain: dict[str, Any]) -> None:
    """Write a small file whole, for its owner alone."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}.part")
    beside.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(beside, flags, 0o600), "w", encoding="utf-8") as target:
        json.dump(plain, target)
    os.replace(beside, place)


def _remove_own(place: Path) -> None:
    """Remove the file of this process; another page's stays."""
    with suppress(OSError, ValueError, TypeError):
        if json.loads(place.read_text(encoding="utf-8")).get("pid") == os.getpid():
            place.unlink()


class WebChild:
    """The page beside a server: a process that is started again when it dies.

    Args:
        port: Its port; 0 takes a free one.
        state_file: The server's own file, which says how to reach it.
    """

    def __init__(self, port: int, state_file: Path) -> None:
        self._command = [sys.executable, "-m", "gencomp_server", "web", "--until-stdin-closes"]
        self._command += ["--port", str(port), "--server-file", str(state_file)]
        self._over = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="web", daemon=True)

    def start(self) -> None:
        """Start it, and keep it running."""
        self._thread.start()

    def stop(self) -> None:
        """End it. It leaves as well when this process is gone, however it goes."""
        self._over.set()
        child = self._child
        if child is not None and child.stdin is not None:
            with suppress(OSError):
                child.stdin.close()
        self._thread.join(_LEAVE_S)
        if child is not None and child.poll() is None:
            child.kill()

    def _keep(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._over.is_set():
            began_s = time.monotonic()
            try:
                self._child = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, start_new_session=True
                )
                code: int | str = self._child.wait()
            except OSError as error:
                code = str(error.strerror)
            if self._over.is_set():
                return
            if time.monotonic() - began_s > _LIVED_S:
                pause_s = _FIRST_PAUSE_S
            log.warning(
                "the web page ended (%s); jobs go on without it, and it starts again in %g s",
                code,
                pause_s,
            )
            self._over.wait(pause_s)
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)
