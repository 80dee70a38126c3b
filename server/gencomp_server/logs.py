# SPDX-License-Identifier: Apache-2.0
"""Logging of the server's processes: one line per event, the job's id in every line.

Only ``cli.py`` and the worker's entry call :func:`configure`. Lines go to standard error, as text
or as JSON, and as JSON into a file that ``logfile.py`` reads. What comes from outside cannot break
a line or colour a terminal: control characters are escaped, in tracebacks too. A place that takes
no lines (a full disk, a pipe that nobody reads) loses them and says later how many; it never holds
up or ends what the process does. Prompts are left out of every line above ``debug``.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import select
import socket
import stat
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, TextIO

TEXT, JSON = "text", "json"
FORMATS = (TEXT, JSON)
LOG_BYTES = 64 << 20
SEGMENTS = 4  # Files that the log's bytes are spread over; the oldest is dropped.
_NO_JOB = "-"
_job: ContextVar[str] = ContextVar("job", default=_NO_JOB)
_private: ContextVar[tuple[str, ...]] = ContextVar("private", default=())
# What ends a line, moves a cursor, or turns the direction of what follows.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_FORMAT = "%(asctime)s %(levelname)s %(job)s %(name)s %(message)s"
_MOST_CHARACTERS = 32_768  # Of one event; a client's words may be as long as a megabyte.
_HIDDEN = "…"
_LEAST_PRIVATE = 3  # A shorter text says nothing, and stands in many a word.
_LEAST_PIECE = 12  # Characters in a row that a sentence and a prompt do not share by chance.
_MOST_COMPARED = 8_000_000  # Pairs of characters; what of a line is beyond that is left out.
_PIPE_BYTES = 4096  # A pipe takes so many at once or none of them.
_RETRY_S = 1.0


@dataclass(frozen=True)
class LogSettings:
    """What a process's log is.

    Attributes:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        format: Of the lines on standard error: ``text`` or ``json``.
        file: Where JSON lines go besides; empty for nowhere.
        bytes: How much of them is kept; the oldest go first.
    """

    level: str = "info"
    format: str = TEXT
    file: str = ""
    bytes: int = LOG_BYTES


class JobFormatter(logging.Formatter):
    """Formats a record as one line: the job at hand, nothing that moves a cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, control characters escaped; a traceback follows in the same line."""
        record.job = _job.get()
        message, trace = _said(record, self.formatException)
        shown = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
        shown.msg, shown.args = escaped(message), None
        line = super().format(shown)
        if trace:
            line += "".join(f" | {escaped(part)}" for part in trace.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON map: time, level, job, pid, logger, message, error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; everything but ASCII is escaped."""
        message, trace = _said(record, self.formatException)
        job = _job.get()
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        plain: dict[str, Any] = {
            "time": f"{clock}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "job": None if job == _NO_JOB else job,
            "pid": record.process,
            "logger": record.name,
            "message": message,
        }
        if trace:
            plain["error"] = trace
        return json.dumps(plain)


def escaped(text: str) -> str:
    """Return a text in one line, everything that moves a cursor spelt out."""
    return _CONTROL.sub(_spell_control, text)


def _spell_control(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code == 0x0A:
        return "\\n"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _said(record: logging.LogRecord, spell: Any) -> tuple[str, str]:
    """Return what a record says and its traceback, no longer than a line may be, nothing private.

    A record whose words do not fit its values is shown as it is: a mistake in a line of the log
    must not cost the line.
    """
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):
        message = f"{record.msg} {record.args!r}"
    trace = spell(record.exc_info) if record.exc_info else ""
    message, trace = _cut(message), _cut(trace)
    if record.levelno > logging.DEBUG:
        for text in _private.get():
            message, trace = _without(message, text), _without(trace, text)
    return message, trace


def _without(said: str, private: str) -> str:
    """Return words without a private text, as it is or as ``repr`` spells it, nor a piece of it."""
    for text in (private, repr(private)[1:-1]):
        said = said.replace(text, _HIDDEN)
    said = said[: _MOST_COMPARED // len(private)]
    while said:
        found = SequenceMatcher(None, said, private, autojunk=False).find_longest_match()
        if found.size < _LEAST_PIECE:
            break
        said = said[: found.a] + _HIDDEN + said[found.a + found.size :]
    return said


def _cut(text: str) -> str:
    left_out = len(text) - _MOST_CHARACTERS
    return text if left_out <= 0 else f"{text[:_MOST_CHARACTERS]} … {left_out} more characters"


@contextmanager
def job_named(job: str, private: Sequence[str] = ()) -> Iterator[None]:
    """Put a job's id into every line logged inside the ``with`` block, by this thread.

    Args:
        job: Its id; empty where there is none.
        private: Texts of the artist's that no line above ``debug`` may hold.
    """
    hidden = tuple(text for text in private if len(text) >= _LEAST_PRIVATE)
    tokens = _job.set(job or _NO_JOB), _private.set(tuple(sorted(hidden, key=len, reverse=True)))
    try:
        yield
    finally:
        _job.reset(tokens[0])
        _private.reset(tokens[1])


# --- where lines go ------------------------------------------------------------------------------


class Sink(logging.Handler, ABC):
    """A place for lines that may fail: what it does not take is lost, and counted.

    Attributes:
        lost: Lines lost since the start.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self._untold = 0
        self._is_torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and before it how many were lost; never raises, never waits."""
        try:
            if self._untold:
                self._put(self._line(self._confession()))
                self._untold = 0
            self._put(self._line(record))
        except Exception:  # a full disk, a closed stream, a value that cannot be spelt
            self.lost += 1
            self._untold += 1

    def _line(self, record: logging.LogRecord) -> bytes:
        line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        return b"\n" + line if self._is_torn else line

    def _confession(self) -> logging.LogRecord:
        words = "%d log lines were lost before this one: nothing took them"
        facts = (__name__, logging.WARNING, __file__, 0, words, (self._untold,), None)
        return logging.LogRecord(*facts)

    @abstractmethod
    def _put(self, line: bytes) -> None:
        """Take a line, or raise anything where it is not taken whole."""

    def _write(self, write: Callable[[memoryview], int], line: bytes, most: int) -> None:
        """Write a line whole; one that is cut short is ended by the next."""
        rest = memoryview(line)
        while rest:
            written = write(rest[:most])
            rest = rest[written:]
            self._is_torn = bool(rest)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class StreamSink(Sink):
    """Lines to a stream; one that nobody reads loses them.

    Args:
        stream: Standard error, mostly.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._own_fd: int | None = None
        self._socket: socket.socket | None = None
        try:
            self._fd: int | None = stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._fd = None
            return
        mode = os.fstat(self._fd).st_mode
        self._is_file = stat.S_ISREG(mode)
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(self._fd))
        elif stat.S_ISFIFO(mode):
            # Others write into the same pipe: opened anew, only we do not wait for room in it.
            with suppress(OSError):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
                self._fd = self._own_fd = os.open(f"/proc/self/fd/{self._fd}", flags)

    def close(self) -> None:
        """Close what was opened anew; the stream itself is its owner's."""
        own, self._own_fd, self._fd = self._own_fd, None, None
        if own is not None:
            os.close(own)
        if self._socket is not None:
            self._socket.close()
        super().close()

    def _put(self, line: bytes) -> None:
        fd, link = self._fd, self._socket
        if fd is None:
            self._stream.write(line.decode("utf-8"))
            self._stream.flush()
        elif link is not None:
            self._write(lambda part: link.send(part, socket.MSG_DONTWAIT), line, len(line))
        elif self._is_file:
            self._write(lambda part: os.write(fd, part), line, len(line))
        else:
            self._write(lambda part: _write_if_taken(fd, part), line, _PIPE_BYTES)


def _write_if_taken(fd: int, part: memoryview) -> int:
    """Write to a pipe or a terminal without waiting for room in it."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return os.write(fd, part)


class FileSink(Sink):
    """JSON lines to a file that several processes append to, in segments of bounded size.

    Args:
        path: The file; its folder is made, for its owner alone.
        most_bytes: How much all segments may hold.
        turns: Whether this process is the one that begins a new segment.
    """

    def __init__(self, path: Path, most_bytes: int, *, turns: bool) -> None:
        super().__init__()
        self._path, self._turns = path, turns
        self._segment_bytes = max(most_bytes // SEGMENTS, 1)
        self._fd: int | None = None
        self._retry_s = 0.0
        self._why = ""

    def complaint(self) -> str:
        """Return why the file cannot be written; empty where it can."""
        with self.lock or nullcontext():
            try:
                self._opened()
            except OSError:
                return f"The log file {self._path} cannot be written ({self._why})."
        return ""

    def close(self) -> None:
        """Close the file."""
        self._forget()
        super().close()

    def _put(self, line: bytes) -> None:
        fd = self._opened()
        try:
            self._write(lambda part: os.write(fd, part), line, len(line))
        except OSError:
            self._forget()
            raise
        if self._turns and os.fstat(fd).st_size > self._segment_bytes:
            self._turn()

    def _opened(self) -> int:
        """Return the file as it is now: another process may have begun a new segment."""
        if self._fd is not None and not self._is_current(self._fd):
            self._forget()
        if self._fd is None:
            now = time.monotonic()
            if now < self._retry_s:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._retry_s = now + _RETRY_S
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._fd = os.open(self._path, flags | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                in_the_way = isinstance(error, FileExistsError)
                self._why = (
                    f"{self._path.parent} is no folder" if in_the_way else str(error.strerror)
                )
                raise
            self._retry_s = 0.0
        return self._fd

    def _is_current(self, fd: int) -> bool:
        try:
            there, here = os.stat(self._path), os.fstat(fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _turn(self) -> None:
        """Begin a new segment; the oldest goes."""
        places = segments(self._path)
        for older, newer in zip(reversed(places), list(reversed(places))[1:], strict=False):
            with suppress(FileNotFoundError):
                os.replace(newer, older)
        self._forget()

    def _forget(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)


def segments(path: Path) -> list[Path]:
    """Return the files that a log may be in, newest first; the first is ``path`` itself."""
    return [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, SEGMENTS))]


def lost_lines() -> int:
    """Return how many lines of this process no place took."""
    return sum(sink.lost for sink in logging.getLogger().handlers if isinstance(sink, Sink))


def unwritable_logs() -> list[str]:
    """Return a sentence for each log file of this process that cannot be written."""
    sinks = [sink for sink in logging.getLogger().handlers if isinstance(sink, FileSink)]
    return [words for words in (sink.complaint() for sink in sinks) if words]


def configure(log: LogSettings | str, stream: TextIO | None = None, *, turns: bool = False) -> None:
    """Send the log of this process to where it belongs.

    Args:
        log: What it is; a text is its level alone.
        stream: Where lines go, standard error where none is given.
        turns: Whether this process begins new segments of the file; one of a server's does.
    """
    settings = LogSettings(log) if isinstance(log, str) else log
    sinks: list[Sink] = [StreamSink(sys.stderr if stream is None else stream)]
    is_json = settings.format == JSON
    sinks[0].setFormatter(JsonFormatter() if is_json else JobFormatter(_FORMAT))
    if settings.file:
        sinks.append(FileSink(Path(settings.file), settings.bytes, turns=turns))
        sinks[1].setFormatter(JsonFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        if isinstance(old, Sink):
            old.close()
    for sink in sinks:
        root.addHandler(sink)
    root.setLevel(settings.level.upper())
