# SPDX-License-Identifier: Apache-2.0
"""What a disk may answer, and how a file is made to stay.

Whoever writes or reads a file of a job passes by :func:`about_to` first. Nothing happens there,
unless a test has put a fault in (:func:`faults`): a disk that is full, read-only or gone cannot be
had otherwise without being root.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

T = TypeVar("T")
Place = Union[str, "os.PathLike[str]"]
Fault = Callable[[str, str], None]

FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""There is no room: on the disk, in the user's share of it, or for a file of that size."""
NO_HANDLES = frozenset((errno.EMFILE, errno.ENFILE))
"""The process, or the machine, has no file descriptor left."""
PASSING = frozenset((errno.EIO, errno.ESTALE, errno.ETIMEDOUT))
"""What a share may answer once and not the next time, after its server was away."""
TRIES, PAUSE_S = 3, 0.1

_fault: Optional[Fault] = None


@contextmanager
def faults(fault: Fault) -> Iterator[None]:
    """Have ``fault(doing, path)`` raise what a disk would, for as long as the block runs.

    ``doing`` is ``read``, ``write`` or ``mkdir``.
    """
    before = _fault
    put_in(fault)
    try:
        yield
    finally:
        put_in(before)


def put_in(fault: Optional[Fault]) -> None:
    """Have ``fault`` asked before everything that is read or written from now on; None for none."""
    global _fault
    _fault = fault


def about_to(doing: str, path: Place) -> None:
    """Say that a file is about to be read or written.

    Raises:
        OSError: What a test has the disk answer.
    """
    if _fault is not None:
        _fault(doing, os.fspath(path))


def patiently(work: Callable[[], T]) -> T:
    """Do something to a disk; again, where it failed with what may be gone the next time.

    Args:
        work: What to do, :data:`TRIES` times at most and :data:`PAUSE_S` apart; done again it must
            come to the same.

    Raises:
        OSError: What the last try failed with.
    """
    for left in range(TRIES - 1, -1, -1):
        try:
            return work()
        except OSError as error:
            if error.errno not in PASSING or not left:
                raise
        time.sleep(PAUSE_S)
    raise AssertionError("no try was made")


def sync_file(path: Place) -> None:
    """Have what was written to a file on the disk itself before this returns."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Place) -> None:
    """The same for the names in a folder, where a system has such a thing."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def become(part: Place, path: Place) -> None:
    """Give a whole file its name, so that a power cut takes away neither."""
    sync_file(part)
    os.replace(part, path)
    sync_folder(Path(path).parent)


def facts(error: OSError, place: str) -> "dict[str, Any]":
    """Return what an error of ours says to machines of one of the disk: where, and which."""
    name = errno.errorcode.get(error.errno or 0, "")
    return {"path": place, "errno": name} if name else {"path": place}
