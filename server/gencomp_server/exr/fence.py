# SPDX-License-Identifier: Apache-2.0
"""What a decoder process gives up before it opens its first file.

A picture library that reads past its buffers is somebody else's program from then on. So the
process that runs it has a bounded address space, processor time and file size, and for the rest of
its life it can neither open a socket, nor start another program, nor reach into another process:
the kernel refuses those calls (seccomp, a filter in classic BPF, which needs no privilege), and
where a kernel knows no such filter, Python does so for what is written in Python. Where the kernel
knows folders that a process keeps to (Landlock, without a privilege as well), a decoder of a server
opens what belongs to Python and the system, the pictures that were sent, and the folder in which it
writes, and nothing else. Nothing here is ever taken back.

Numbers of the calls: the kernel's ``arch/x86/entry/syscalls/syscall_64.tbl`` and
``include/uapi/asm-generic/unistd.h``; layout of the filter: ``seccomp(2)``, ``bpf(4)``; of folders:
``landlock(7)``.
"""

import ctypes
import errno
import math
import os
import platform
import resource
import sys
from collections.abc import Iterable, Iterator
from typing import Any

# Calls that a decoder has no use for, by machine. Both tables name the same calls, but for those
# that the younger machine never had (fork, vfork).
_REFUSED = {
    "x86_64": (
        "socket 41 connect 42 accept 43 sendto 44 bind 49 listen 50 socketpair 53 "
        "accept4 288 fork 57 vfork 58 execve 59 execveat 322 kill 62 ptrace 101 syslog 103 "
        "personality 135 pivot_root 155 chroot 161 acct 163 mount 165 umount2 166 swapon 167 "
        "swapoff 168 reboot 169 init_module 175 delete_module 176 finit_module 313 "
        "kexec_load 246 kexec_file_load 320 add_key 248 request_key 249 keyctl 250 "
        "unshare 272 setns 308 perf_event_open 298 name_to_handle_at 303 "
        "open_by_handle_at 304 process_vm_readv 310 process_vm_writev 311 bpf 321 "
        "userfaultfd 323 io_uring_setup 425 io_uring_enter 426 io_uring_register 427 "
        "pidfd_send_signal 424 pidfd_open 434 pidfd_getfd 438"
    ),
    "aarch64": (
        "socket 198 connect 203 accept 202 sendto 206 bind 200 listen 201 socketpair 199 "
        "accept4 242 execve 221 execveat 281 kill 129 ptrace 117 syslog 116 personality 92 "
        "pivot_root 41 chroot 51 acct 89 mount 40 umount2 39 swapon 224 swapoff 225 "
        "reboot 142 init_module 105 delete_module 106 finit_module 273 kexec_load 104 "
        "kexec_file_load 294 add_key 217 request_key 218 keyctl 219 unshare 97 setns 268 "
        "perf_event_open 241 name_to_handle_at 264 open_by_handle_at 265 "
        "process_vm_readv 270 process_vm_writev 271 bpf 280 userfaultfd 282 "
        "io_uring_setup 425 io_uring_enter 426 io_uring_register 427 pidfd_send_signal 424 "
        "pidfd_open 434 pidfd_getfd 438"
    ),
}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000  # Calls of the other ABI of x86_64 have numbers from here on.
_CLONE_THREAD = 0x10000

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_MODE_FILTER, _SET_FILTER, _ALL_THREADS = 2, 1, 1
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16

_MAKE_RULES, _ADD_RULE, _KEEP_RULES = 444, 445, 446  # Landlock's calls, on every machine.
_TELL_VERSION, _BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 5
_MAKE_FILE, _MAKE_LINK, _TRUNCATE = 1 << 8, 1 << 12, 1 << 14
# What may be done with files at all, by Landlock's version: to move and to truncate came later.
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | _MAKE_LINK | _TRUNCATE
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE
_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/proc/self")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/sys/devices/system")

_BARRED_EVENTS = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system")
_OPEN_FILES = 64


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("yes", ctypes.c_uint8),
        ("no", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_uint16),
        ("instructions", ctypes.POINTER(_Instruction)),
    )


class _Rule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def close_in(memory_bytes: int, file_bytes: int) -> None:
    """Give up, for good, what a decoder has no use for; every thread of the process.

    Args:
        memory_bytes: Address space from now on.
        file_bytes: Size of the largest file that may be written.

    Raises:
        OSError: The kernel has filters and did not take this one.
    """
    _lower(resource.RLIMIT_AS, memory_bytes)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0)
    sys.addaudithook(_bar)
    if has_filter():
        _install(_program(platform.machine()))


def keep_to(reads: Iterable[str], writes: Iterable[str]) -> None:
    """Open, from now on, no file but the system's, Python's and those beneath some folders.

    It is of this thread and of those that it makes. Where the kernel cannot do it, nothing is done.

    Args:
        reads: Folders beneath which files may be read.
        writes: Those beneath which they may be written, too.

    Raises:
        OSError: The kernel knows such rules and did not take these.
    """
    version = has_folders()
    if not version:
        return
    rights = _RIGHTS[min(version, max(_RIGHTS))]
    library = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *values: Any) -> int:
        said = int(library.syscall(ctypes.c_long(number), *values))
        if said < 0:
            raise OSError(ctypes.get_errno(), "rules for folders were refused")
        return said

    asked = ctypes.c_uint64(rights)
    rules = call(_MAKE_RULES, ctypes.byref(asked), ctypes.c_size_t(8), ctypes.c_uint32(0))
    try:
        for path, wanted in (*_own(), *((p, _READ) for p in reads), *((p, _WRITE) for p in writes)):
            try:
                handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:  # What cannot be opened now cannot be later.
                continue
            rule = _Rule(wanted & rights & (-1 if os.path.isdir(path) else _OF_FILES), handle)
            try:
                call(_ADD_RULE, rules, _BENEATH, ctypes.byref(rule), ctypes.c_uint32(0))
            finally:
                os.close(handle)
        if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "no_new_privs was refused")
        call(_KEEP_RULES, rules, ctypes.c_uint32(0))
    finally:
        os.close(rules)


def has_folders() -> int:
    """Return the version of the kernel's rules for folders; 0 where it has none."""
    if not sys.platform.startswith("linux"):
        return 0
    library = ctypes.CDLL(None, use_errno=True)
    nothing = ctypes.c_void_p(None)
    said = library.syscall(
        ctypes.c_long(_MAKE_RULES), nothing, ctypes.c_size_t(0), ctypes.c_uint32(_TELL_VERSION)
    )
    return max(0, int(said))


def _own() -> Iterator[tuple[str, int]]:
    """Return what belongs to Python and to the system, and what may be done with it."""
    whole = {"/", os.path.expanduser("~")}
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path}
    for path in python:
        if path and os.path.realpath(path) not in whole:
            yield path, _READ
    for path in (*_SYSTEM, *_DEVICES):
        yield path, _READ
    yield "/dev/null", _READ_FILE | _WRITE_FILE


def allow_seconds(seconds: float) -> None:
    """Let the process use so much more processor time before the kernel ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def has_filter() -> bool:
    """Tell whether this kernel and machine can refuse a process its calls."""
    if not sys.platform.startswith("linux") or platform.machine() not in _SECCOMP:
        return False
    library = ctypes.CDLL(None, use_errno=True)
    # A filter at no address: a kernel that has filters complains of the address.
    said = library.prctl(_PR_SET_SECCOMP, _MODE_FILTER, None, 0, 0)
    return said == -1 and ctypes.get_errno() == errno.EFAULT


def _lower(what: int, limit: int) -> None:
    """Lower a limit to at most ``limit``, where it is not lower already."""
    _, hard = resource.getrlimit(what)
    least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (least, least))


def _bar(event: str, arguments: Any) -> None:
    if event.startswith(_BARRED_EVENTS):
        raise PermissionError(errno.EPERM, f"a decoder does not do {event}")


def _program(machine: str) -> list[tuple[int, int, int, int]]:
    """Return the filter: operation, jump where it holds, jump where not, value.

    A jump counts the instructions to leave out.
    """
    refuse, fail = (_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        lines += [(_AT_LEAST, 0, 1, _X32), refuse]
    for number in map(int, _REFUSED[machine].split()[1::2]):
        lines += [(_EQUAL, 0, 1, number), refuse]
    # A thread may be made, a process may not. What clone3 makes stands in memory, where no filter
    # looks: without it the C library falls back on clone.
    lines += [(_EQUAL, 0, 1, _CLONE3), fail]
    lines += [(_EQUAL, 0, 3, _CLONE[machine]), (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)]
    lines += [(_ANY_BIT, 1, 0, _CLONE_THREAD), refuse]
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


def _install(lines: list[tuple[int, int, int, int]]) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    body = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), body)
    # Without this a filter needs a privilege; with it no program that is run gains any.
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs was refused")
    call = ctypes.c_long(_SECCOMP[platform.machine()])
    said = library.syscall(call, _SET_FILTER, _ALL_THREADS, ctypes.byref(program))
    if said:
        raise OSError(ctypes.get_errno() if said < 0 else errno.EBUSY, "the filter was refused")
