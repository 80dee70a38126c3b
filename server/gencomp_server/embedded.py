# SPDX-License-Identifier: Apache-2.0
"""A server of one's own: started as a child, on a loopback port of its own, dead with its parent.

The child runs ``gencomp serve --until-stdin-closes`` and reads its standard input, which nobody
writes to: when the parent goes, however it goes, the kernel closes the pipe and the child leaves.
That needs no signal and no Linux call, so it works on macOS too. The child has a session of its
own, so that Ctrl-C reaches the parent alone, which cancels the job in good order.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from gencomp_protocol.errors import ServerUnreachable
from gencomp_protocol.locate import ServerFile, read_server_file

START_S = 60.0
LEAVE_S = 10.0
TAKEOVER_S = 20.0
SPOOL_TAKEN = 3  # What ``gencomp serve`` ends with where another server uses the spool.
_AGAIN_S = 0.2
_POLL_S = 0.05
_LOG_TAIL_LINES = 3


class EmbeddedServer:
    """The server of one run.

    Args:
        spool: Folder it keeps pictures, stages and jobs in; made if need be.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._state_file = spool / "server.json"
        self._log = spool / "server.log"
        self._log_begins = 0
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServerFile:
        """Start the server and return its address and secret.

        Raises:
            ServerUnreachable: It did not come up; the message carries its last words.
        """
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return self._start_until_ready()
        except BaseException:
            self.close()
            raise

    def _start_until_ready(self) -> ServerFile:
        """Start the child; again, where the one of a killed run has yet to leave the spool."""
        deadline = time.monotonic() + TAKEOVER_S
        while True:
            self._start()
            found = self._wait_until_ready()
            if found is not None:
                return found
            left = self._child is None or self._child.poll()
            if left != SPOOL_TAKEN or time.monotonic() > deadline:
                break
            self.close()
            time.sleep(_AGAIN_S)
        raise ServerUnreachable(
            f"The server of this run did not start: {self._last_words()}",
            hint=f"Its log is {self._log}; gencomp doctor checks the installation.",
        )

    def _start(self) -> None:
        self._state_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "gencomp_server", "serve", "--until-stdin-closes"]
        command += ["--port", "0", "--spool", str(self._spool)]
        command += ["--state-file", str(self._state_file)]
        with self._log.open("ab") as log:
            self._log_begins = log.tell()
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.close()

    def close(self) -> None:
        """Close the child's input, and end it where that is not enough within ten seconds."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _wait_until_ready(self) -> ServerFile | None:
        """Return what the child wrote about itself, or None where it left or is late."""
        assert self._child is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            # The file appears whole: the server writes it beside and renames it.
            if self._state_file.exists():
                return read_server_file(self._state_file)
            if self._child.poll() is not None:
                return None
            time.sleep(_POLL_S)
        return None

    def _last_words(self) -> str:
        said = self._log.read_bytes()[self._log_begins :]
        lines = said.decode("utf-8", "replace").strip().splitlines()
        return " | ".join(lines[-_LOG_TAIL_LINES:]) or "it said nothing."


def leave_when_stdin_closes(stop: Callable[[], None]) -> threading.Thread:
    """Call ``stop`` once nobody holds the other end of standard input any more."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        stop()

    thread = threading.Thread(target=watch, name="stdin-watch", daemon=True)
    thread.start()
    return thread
