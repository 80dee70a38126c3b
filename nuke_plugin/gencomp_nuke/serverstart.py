# SPDX-License-Identifier: Apache-2.0
"""Finding a server, or starting one: detached, one per user, gone by itself after idling.

A server that the user names (``GENCOMP_SERVER``, ``client.json``, the node's own knob) is used and
never started. Otherwise the one of this machine is used if it answers; else one is started, while
a lock file keeps every other session of this user waiting for that same one.
"""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from gencomp_nuke.prefs import Prefs
from gencomp_nuke.tool import environment
from gencomp_protocol import locate, settings, sockets
from gencomp_protocol.errors import Cancelled, ServerUnreachable
from gencomp_protocol.locate import ServerFile

log = logging.getLogger(__name__)

LOCK_FILE = "starting.lock"
LOG_FILE = "server.log"
_KNOCK_S = 2.0
_POLL_S = 0.1
_START_S = 90.0  # Importing the worker's libraries from a cold network disk takes this long.


def ensure(
    prefs: Prefs,
    *,
    address: str = "",
    say: "Callable[[str], None]",
    cancelled: "Callable[[], bool]",
    environ: "Mapping[str, str]" = os.environ,
) -> ServerFile:
    """Return a server that answers, starting one where none is named and none runs.

    Args:
        prefs: Settings of the user.
        address: Address typed on the node; empty for none.
        say: Told ``starting`` and the like, for the node.
        cancelled: Asked while waiting.
        environ: Environment to look into and to start in.

    Raises:
        ServerUnreachable: None runs and none could be started; says where the log is.
        Unauthorised: A server is named and its secret is not to be had.
        Cancelled: The artist did not want to wait.
    """
    if address or is_named(environ):
        named = {**environ, locate.SERVER_VARIABLE: address} if address else environ
        found = locate.find_server(named)
        if found is not None:
            return found
    running = _running(environ)
    if running is not None:
        return running
    home = locate.home_folder(environ)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    say("waiting for the server")
    with _alone(home / LOCK_FILE, cancelled):
        running = _running(environ)
        if running is not None:
            return running
        say("starting the server")
        return _start(prefs, home, cancelled, environ)


def find_again(
    address: str = "", environ: "Mapping[str, str]" = os.environ
) -> "Optional[ServerFile]":
    """Return where the server is now, for a link that has to be made again; starts nothing."""
    named = {**environ, locate.SERVER_VARIABLE: address} if address else environ
    return locate.find_server(named)


def is_named(environ: "Mapping[str, str]") -> bool:
    """Tell whether the user has chosen a server."""
    return bool(named_by("", environ))


def named_by(address: str, environ: "Mapping[str, str]") -> str:
    """Return where a server is named: on the node, by a variable, in a file; empty for nowhere.

    Args:
        address: Address typed on the node; empty for none.
        environ: Environment to look into.
    """
    if address:
        return "the node"
    if environ.get(locate.SERVER_VARIABLE):
        return locate.SERVER_VARIABLE
    if environ.get(locate.KEY_VARIABLE):
        return locate.KEY_VARIABLE
    home = locate.home_folder(environ)
    chosen = home / locate.CLIENT_FILE
    if chosen.exists():
        return str(chosen)
    layers = settings.read_layers(home, environ)
    server = settings.client_settings(layers)[(settings.CLIENT, "server")]
    return str(server.origin) if server.value else ""


def _running(environ: "Mapping[str, str]") -> "Optional[ServerFile]":
    """Return this user's server on this machine where it answers, else None."""
    path = locate.home_folder(environ) / locate.SERVER_FILE
    if not path.exists():
        return None
    try:
        found = locate.read_server_file(path)
        if found.is_elsewhere:
            log.info("the server of %s is that of %s", path, found.host)
            return None
        sockets.knock(found.address, _KNOCK_S)
    except ServerUnreachable as error:
        log.info("the server of %s is gone: %s", path, error)
        return None
    return found


def _start(
    prefs: Prefs, home: Path, cancelled: "Callable[[], bool]", environ: "Mapping[str, str]"
) -> ServerFile:
    """Start a server and return it once it answers."""
    where = home / LOG_FILE
    child = _spawn(prefs, where, environ)
    # Somebody has to be there when it ends, or it stays in the process table as long as Nuke.
    threading.Thread(target=child.wait, name="gencomp server", daemon=True).start()
    log.info("started %s as process %d, log %s", prefs.server_command, child.pid, where)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        found = _running(environ)
        if found is not None:
            return found
        if child.poll() is not None:
            raise ServerUnreachable(
                f"The server stopped while starting: {_last_line(where)}",
                hint=f"Its log is {where}.",
            )
        if cancelled():
            child.terminate()
            raise Cancelled("Starting the server was cancelled.")
        time.sleep(_POLL_S)
    child.terminate()
    raise ServerUnreachable(
        f"The server did not become ready within {_START_S:g} s.", hint=f"Its log is {where}."
    )


def _spawn(prefs: Prefs, where: Path, environ: "Mapping[str, str]") -> "subprocess.Popen[bytes]":
    child_environ = environment(environ)
    if not _is_locked("idle_exit_s", environ):
        child_environ["GENCOMP_IDLE_EXIT_S"] = str(prefs.idle_exit_s)
    try:
        with open(where, "ab") as lines:
            return subprocess.Popen(
                prefs.command,
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=subprocess.STDOUT,
                env=child_environ,
                close_fds=True,
                **_detached(),
            )
    except OSError as error:
        raise ServerUnreachable(
            f"No server runs, and '{prefs.server_command}' cannot be started ({error.strerror}).",
            hint="Name the command in GENCOMP_SERVER_COMMAND, or start 'gencomp serve' by hand.",
        ) from error


def _is_locked(name: str, environ: "Mapping[str, str]") -> bool:
    """Tell whether a settings file locks one of the server's own settings."""
    layers = settings.read_layers(locate.home_folder(environ), environ)
    return any((name,) in layer.locks for layer in layers)


def _detached() -> "dict[str, Any]":
    """Return what makes a child outlive this process and its terminal."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing."


# --- one at a time -------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(path: Path, cancelled: "Callable[[], bool]") -> "Iterator[None]":
    """Hold the lock file; the system frees it should this process die."""
    with open(path, "a+b") as lock:
        while not _try_lock(lock):
            if cancelled():
                raise Cancelled("Waiting for the server was cancelled.")
            time.sleep(_POLL_S)
        yield


def _try_lock(lock: Any) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            lock.seek(0)
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
