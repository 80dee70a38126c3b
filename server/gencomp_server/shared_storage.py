# SPDX-License-Identifier: Apache-2.0
"""Pictures read where they lie, on storage that the server shares with its clients.

Off unless ``shared_roots`` names folders. A client may say where a picture lies; nothing but a
regular file beneath one of those folders is opened, a component of its path at a time from a handle
on the folder, and no link is followed on the way, so that whatever is moved about meanwhile, what
is opened lies beneath it. The bytes are copied into the spool and have to have the digest that was
announced. Whatever is odd about a path, the picture travels as if it had none.

All of it happens in threads of its own: storage that hangs holds up nobody.
"""

from __future__ import annotations

import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from gencomp_protocol import disk
from gencomp_protocol.errors import BadKnob
from gencomp_protocol.transfer import Expected

log = logging.getLogger(__name__)

_THREADS = 2
_BLOCK_BYTES = 4 * 1024 * 1024
_MOST_PATH = 4096
_MOST_NAME = 255
_HANGS_S = 30.0
_BEYOND = os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | _BEYOND
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | _BEYOND


class NotShared(Exception):
    """A picture is not read where it lies; why. It travels instead."""


@dataclass(frozen=True)
class Read:
    """What became of a picture: it is in the spool, or why it was not read where it lies."""

    picture: Expected
    fault: str = ""


def names_of(text: str, root: str) -> list[str]:
    """Return the names that lead from a root to a file, of a path that a client said.

    Raises:
        NotShared: It is no plain absolute path beneath that root.
    """
    if not text or len(text) > _MOST_PATH:
        raise NotShared("its path is too long" if text else "it has no path")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text) or "\\" in text:
        raise NotShared("its path has letters that none has here")
    if not text.startswith("/") or text.startswith("//"):
        raise NotShared("its path does not begin at the root of this machine's files")
    try:
        os.fsencode(text).decode("utf-8")
    except UnicodeError as error:
        raise NotShared("its path has letters that none has here") from error
    names = text[1:].split("/")
    if any(name in ("", ".", "..") for name in names):
        raise NotShared("its path is not plain")
    if any(len(os.fsencode(name)) > _MOST_NAME for name in names):
        raise NotShared("its path is too long")
    above = [name for name in root.split("/") if name]
    if names[: len(above)] != above or len(names) <= len(above):
        raise NotShared("it lies beneath no folder that is shared")
    return names[len(above) :]


class Root:
    """A folder whose files may be read.

    Args:
        folder: The folder; links on the way to it are followed once, now.

    Raises:
        BadKnob: It is no folder, or the root of all files.
    """

    def __init__(self, folder: Path) -> None:
        try:
            real = os.path.realpath(folder, strict=True)
            self._handle = os.open(real, _FOLDER)
        except OSError as error:
            raise BadKnob(
                f"Setting 'shared_roots' names {folder}, which cannot be read ({error.strerror}).",
                hint="Name folders that are there when the server starts.",
            ) from error
        self._spelt = tuple(dict.fromkeys((os.path.abspath(folder), real)))
        if "/" in self._spelt:
            self.close()
            raise BadKnob("Setting 'shared_roots' cannot share all files of this machine.")

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._handle)

    @contextmanager
    def opened(self, text: str) -> Iterator[int]:
        """Lend a handle on the regular file at a path.

        Raises:
            NotShared: There is none beneath this folder, or a link stands in its way.
        """
        for spelt in self._spelt:
            try:
                names = names_of(text, spelt)
                break
            except NotShared as error:
                why = error
        else:
            raise why
        handle = self._walk(names)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise NotShared("it is no regular file")
            yield handle
        finally:
            os.close(handle)

    def _walk(self, names: Sequence[str]) -> int:
        """Open the last of some names, each in the folder that the one before it is."""
        folder = os.dup(self._handle)
        try:
            for name in names[:-1]:
                deeper = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = deeper
            return os.open(names[-1], _FILE, dir_fd=folder)
        except OSError as error:
            raise NotShared(
                f"it cannot be opened without following a link ({error.strerror})"
            ) from error
        finally:
            os.close(folder)


class SharedStorage:
    """Reads pictures where they lie, in threads of its own.

    Args:
        folders: The settings' ``shared_roots``; with none nothing is read.
        wake: Called, from another thread, when something is to be told.

    Raises:
        BadKnob: One of them is no folder.
    """

    def __init__(self, folders: Sequence[Path], wake: Callable[[], None]) -> None:
        self._wake = wake
        self._threads: list[threading.Thread] = []
        self._roots: list[Root] = []
        try:
            for folder in folders:
                self._roots.append(Root(folder))
        except BadKnob:
            self.close()
            raise
        self._asked: queue.SimpleQueue[tuple[Expected, str] | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[Read] = queue.SimpleQueue()
        self._reading: dict[str, Expected] = {}
        self._moved_s = time.monotonic()

    def __bool__(self) -> bool:
        """Tell whether anything is shared."""
        return bool(self._roots)

    def close(self) -> None:
        """Read nothing more; a thread that hangs is left behind."""
        for _ in self._threads:
            self._asked.put(None)
        for thread in self._threads:
            thread.join(1.0)
        if not any(thread.is_alive() for thread in self._threads):
            for root in self._roots:
                root.close()
        self._roots = []

    def is_reading(self, digest: str) -> bool:
        """Tell whether a picture is being read, so that nobody has to send it."""
        return digest in self._reading

    def ask(self, picture: Expected, path: str) -> None:
        """Have a picture read from where a client says that it lies."""
        if not self._roots or not path or picture.digest in self._reading:
            return
        if not self._reading:
            self._moved_s = time.monotonic()
        self._reading[picture.digest] = picture
        self._asked.put((picture, path))
        if len(self._threads) < _THREADS:
            self._threads.append(threading.Thread(target=self._run, daemon=True))
            self._threads[-1].start()

    def outcomes(self) -> list[Read]:
        """Return what became of pictures since the last call."""
        found: list[Read] = []
        with suppress(queue.Empty):
            while True:
                told = self._told.get_nowait()
                # One that was given up meanwhile was sent, or is about to be.
                if self._reading.pop(told.picture.digest, None) is not None:
                    found.append(told)
        if self._reading and time.monotonic() - self._moved_s > _HANGS_S:
            found += [Read(one, "the storage does not answer") for one in self._reading.values()]
            self._reading.clear()
        return found

    # --- the threads -----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            asked = self._asked.get()
            if asked is None:
                return
            picture, path = asked
            if picture.digest not in self._reading:
                continue
            try:
                self._fetch(picture, path)
                told = Read(picture)
            except NotShared as error:
                told = Read(picture, str(error))
            except OSError as error:
                told = Read(picture, f"it cannot be read ({error.strerror})")
            except Exception:  # The edge of the thread: the picture travels instead.
                log.exception("a picture could not be read where it lies")
                told = Read(picture, "the server made a mistake; its log says more")
            self._moved_s = time.monotonic()
            self._told.put(told)
            self._wake()

    def _fetch(self, picture: Expected, path: str) -> None:
        """Copy a picture into the spool, if it is the one that was announced."""
        why = NotShared("it lies beneath no folder that is shared")
        for root in self._roots:
            try:
                with root.opened(path) as handle:
                    self._copy(picture, handle)
                return
            except NotShared as error:
                why = error
        raise why

    def _copy(self, picture: Expected, handle: int) -> None:
        beside = picture.part.with_suffix(f".{threading.get_ident()}.shared")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BEYOND
        if os.fstat(handle).st_size != picture.bytes:
            raise NotShared("the file there has another size")
        state, size = blake2b(digest_size=32), 0
        try:
            with open(os.open(beside, flags, picture.mode), "wb") as target:
                while size <= picture.bytes:
                    disk.about_to("read", picture.path)
                    block = os.read(handle, _BLOCK_BYTES)
                    if not block:
                        break
                    state.update(block)
                    target.write(block)
                    size += len(block)
                    self._moved_s = time.monotonic()
            if state.hexdigest() != picture.digest:
                raise NotShared("the file there is another one")
            disk.become(beside, picture.path)
        finally:
            beside.unlink(missing_ok=True)
