# SPDX-License-Identifier: Apache-2.0
"""Whether a machine can take a job at all, by its plan alone: before a picture has travelled.

Three things are asked: main memory, room for decoded pictures and layers, and open files. What the
device's own memory must hold is asked by ``cost.place`` while the plan is made.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gencomp_protocol.errors import DiskFull, GencompError, OutOfMemory, ServerBusy
from gencomp_protocol.messages import InputPictures
from gencomp_protocol.request import Request
from gencomp_server.contract import Plan, System

_USABLE_SHARE = 0.95
"""Of main memory: the rest is the operating system's."""
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_SPARE_HANDLES = 16
"""What a job takes at its highest in the front: a picture that is written, the table, a pipe."""
_MOST_HANDLES = 65_536
_HANDLES = Path("/proc/self/fd")


@dataclass(frozen=True)
class Limits:
    """What jobs may take.

    Attributes:
        memory_bytes: Main memory; 0 where it is not known.
        disk_bytes: What the spool could hold if all else in it were gone; 0 where it is not known.
    """

    memory_bytes: int = 0
    disk_bytes: int = 0


def main_memory() -> int:
    """Return what a process may use of main memory, in bytes; 0 where nobody says.

    That is the machine's, or less where a container has less.
    """
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0
    for place in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            found = min(found, int(place.read_text()))
    return int(found * _USABLE_SHARE)


def limits_of(memory_bytes: int, spool_bytes: int, keep_free_bytes: int, root: Path) -> Limits:
    """Return the limits of a server.

    Args:
        memory_bytes: The setting; 0 for what the machine has.
        spool_bytes: The setting; 0 for the whole disk.
        keep_free_bytes: The setting.
        root: The spool.
    """
    try:
        found = os.statvfs(root)
        disk = max(0, found.f_blocks * found.f_frsize - keep_free_bytes)
    except OSError:
        disk = 0
    if spool_bytes:
        disk = min(disk, spool_bytes) if disk else spool_bytes
    return Limits(memory_bytes or main_memory(), disk)


def check_fits(
    system: System,
    request: Request,
    plan: Plan,
    limits: Limits,
    inputs: tuple[InputPictures, ...] = (),
) -> None:
    """Refuse a job that the machine cannot take however long it waits.

    Args:
        system: What is asked for.
        request: The job's header.
        plan: What it costs.
        limits: What it may take.
        inputs: The pictures as they would be sent, where that is known.

    Raises:
        OutOfMemory: It needs more main memory than there is; says both in GB.
        DiskFull: It needs more room than the spool could ever have; says both in GB.
    """
    size = _size_of(request)
    if limits.memory_bytes and plan.memory_bytes > limits.memory_bytes:
        raise OutOfMemory(
            f"{system.title} needs about {_giga(plan.memory_bytes)} of main memory{size}, and a "
            f"job of this server may take {_giga(limits.memory_bytes)}.",
            hint="Send smaller pictures or fewer frames, or use a machine with more memory.",
            needed_bytes=plan.memory_bytes,
            free_bytes=limits.memory_bytes,
        )
    sent = sum(entry.bytes for one in inputs for entry in one.pictures)
    needed = sent + plan.bytes_in + plan.bytes_out
    if limits.disk_bytes and needed > limits.disk_bytes:
        raise DiskFull(
            f"{system.title} needs about {_giga(needed)} of the server's disk{size}, for pictures "
            f"and layers, and its spool can have {_giga(limits.disk_bytes)}.",
            hint="Send fewer frames at a time, or give the server a larger spool.",
            needed_bytes=needed,
            free_bytes=limits.disk_bytes,
        )


def refusal(system: System, request: Request, plan: Plan, limits: Limits) -> GencompError | None:
    """Return what :func:`check_fits` would raise, or None."""
    try:
        check_fits(system, request, plan, limits)
    except GencompError as error:
        return error
    return None


def check_handles(spare: int = _SPARE_HANDLES) -> None:
    """Refuse new work while the process has hardly a file descriptor left.

    Raises:
        ServerBusy: How many are open, of how many.
    """
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return
    try:
        used = len(os.listdir(_HANDLES))
    except FileNotFoundError:  # A system that does not tell.
        return
    except OSError:  # Not even for the list.
        used = most
    if used + spare > most:
        raise ServerBusy(
            f"The server has {used} of its {most} file descriptors in use and takes no new job.",
            hint="Try again in a minute; if it stays so, raise its limit (ulimit -n).",
            open_files=used,
            limit=most,
        )


def raise_handle_limit() -> None:
    """Take as many file descriptors as the system lets this process have, and a server may need."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_HANDLES if hard == resource.RLIM_INFINITY else min(hard, _MOST_HANDLES)
    with suppress(ValueError, OSError):
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _size_of(request: Request) -> str:
    """Return `` for 100 frames of 4096 x 2160``, as far as the header says it."""
    count = len(request.frames)
    frames = "1 frame" if count == 1 else f"{count} frames"
    known = next((entry.format for entry in request.inputs if entry.format is not None), None)
    return f" for {frames}" if known is None else f" for {frames} of {known.width} x {known.height}"


def _giga(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
