# SPDX-License-Identifier: Apache-2.0
"""What a decoder process cannot do any more, tried from inside one."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from gencomp_server.exr import fence
from gencomp_server.exr.decode import DecodePool, DecodeTask

needs_filter = pytest.mark.skipif(
    not fence.has_filter(), reason="this kernel or machine has no filter for calls"
)
# Everything by the C library: Python's own hook does not see it.
_BEGIN = """
import ctypes, errno, os, resource, socket, subprocess, sys, threading
from gencomp_server.exr import fence
library = ctypes.CDLL(None, use_errno=True)
fence.close_in(1 << 31, 1 << 20)
def said(result):
    print(result, errno.errorcode.get(ctypes.get_errno(), "-"))
"""


def inside(code, hook_alone=False):
    """Run code in a process that is fenced in; return what it printed."""
    begin = _BEGIN
    if hook_alone:
        begin = begin.replace("fence.close_in", "fence.has_filter = lambda: False\nfence.close_in")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    made = subprocess.run(
        [sys.executable, "-c", begin + code],
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    return made.stdout.split("\n")[:-1], made.returncode


@needs_filter
def test_no_socket_no_program_and_no_other_process_can_be_reached():
    lines, _ = inside(
        """
said(library.socket(socket.AF_INET, socket.SOCK_STREAM, 0))
said(library.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0))
said(library.execv(b"/bin/true", (ctypes.c_char_p * 2)(b"true", None)))
said(library.fork())
said(library.kill(os.getppid(), 0))
said(library.ptrace(16, os.getppid(), 0, 0))
said(library.syscall(425, 1, 0))
"""
    )
    assert lines == ["-1 EPERM"] * 7


@needs_filter
def test_a_program_is_not_started_by_way_of_clone3_either():
    lines, _ = inside("said(library.syscall(435, bytes(88), 88))")
    assert lines == ["-1 ENOSYS"]


@needs_filter
def test_threads_files_and_numbers_go_on():
    lines, code = inside(
        """
import tempfile
import numpy as np
made = threading.Thread(target=print, args=("a thread",))
made.start()
made.join()
with tempfile.TemporaryFile() as file:
    file.write(b"x")
print(int(np.ones((64, 64)).sum()))
"""
    )
    assert (sorted(lines), code) == (["4096", "a thread"], 0)


CALLS = (
    "socket.socket()",
    "socket.getaddrinfo('localhost', 80)",
    "subprocess.run(['true'])",
    "os.fork()",
    "os.system('true')",
    "os.execv('/bin/true', ['true'])",
    "os.posix_spawn('/bin/true', ['true'], {})",
)


def test_where_no_kernel_refuses_python_does():
    lines, code = inside(
        f"""
for call in {CALLS!r}:
    try:
        eval(call)
    except PermissionError as error:
        print(error.strerror.split(" does ")[0])
""",
        hook_alone=True,
    )
    assert (lines, code) == (["a decoder"] * len(CALLS), 0)


def test_memory_files_and_time_are_bounded():
    lines, _ = inside(
        """
try:
    bytearray(1 << 32)
except MemoryError:
    print("no memory")
try:
    with open("/tmp/gencomp-fence", "wb") as file:
        file.write(bytes(2 << 20))
except OSError as error:
    print(error.errno == errno.EFBIG)
os.unlink("/tmp/gencomp-fence")
""".replace("/tmp/gencomp-fence", f"/tmp/gencomp-fence-{os.getpid()}")
    )
    assert lines == ["no memory", "True"]
    lines, _ = inside("fence.allow_seconds(5)\nprint(resource.getrlimit(resource.RLIMIT_CPU)[0])")
    assert 5 < int(lines[0]) < 30


@pytest.mark.skipif(not fence.has_folders(), reason="this kernel has no rules for folders")
def test_a_decoder_that_is_taken_over_reads_and_writes_nothing_but_its_own(tmp_path):
    for name in ("sent", "made", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    lines, _ = inside(
        f"""
os.chdir({str(tmp_path)!r})
fence.keep_to(["sent"], ["made"])
def tried(does):
    try:
        does()
        print("done")
    except OSError as error:
        print(errno.errorcode[error.errno])
def write(path):
    with open(path, "wb") as file:
        file.write(b"y")
tried(lambda: open("sent/file").read())
tried(lambda: write("made/file"))
tried(lambda: os.symlink({str(tmp_path / "sent" / "file")!r}, "made/link"))
tried(lambda: open("made/link").read())
tried(lambda: os.unlink("made/link"))
tried(lambda: os.replace("made/file", "made/other"))
import colorsys, zoneinfo
print("imported")
tried(lambda: open("secret/file").read())
tried(lambda: os.listdir("secret"))
tried(lambda: write("secret/new"))
tried(lambda: write("sent/new"))
tried(lambda: os.unlink("sent/file"))
tried(lambda: os.symlink({str(tmp_path / "secret" / "file")!r}, "made/out") or open("made/out"))
tried(lambda: open(f"/proc/{{os.getppid()}}/environ").read())
"""
    )
    assert lines[:7] == [*["done"] * 6, "imported"]
    assert lines[7:] == ["EACCES"] * 7


def test_a_decoder_is_fenced_in_before_its_first_file(handmade, tmp_path):
    plane = np.ones((2, 2), np.float16)
    path = tmp_path / "good.exr"
    path.write_bytes(handmade.exr(dict.fromkeys("RGB", plane)))
    others = set(psutil.Process().children())
    pool = DecodePool(1, memory_bytes=2 << 30, timeout_s=30)
    pool.submit(DecodeTask(path, tmp_path / "out")).result()
    (decoder,) = set(psutil.Process().children()) - others
    status = Path(f"/proc/{decoder.pid}/status").read_text(encoding="ascii")
    limits = {
        name: resource.prlimit(decoder.pid, getattr(resource, f"RLIMIT_{name}"))[0]
        for name in ("AS", "CPU", "FSIZE", "CORE", "NOFILE")
    }
    pool.close()
    assert limits["AS"] == 2 << 30
    assert 30 < limits["CPU"] < 300
    assert 1 << 30 < limits["FSIZE"] < 5 << 30
    assert (limits["CORE"], limits["NOFILE"]) == (0, 64)
    if fence.has_filter():
        assert "Seccomp:\t2\n" in status
        assert "NoNewPrivs:\t1\n" in status


def test_a_filter_refuses_what_it_should_and_lets_the_rest_pass():
    """Read the program as the kernel does, for a machine that is not this one too."""
    for machine, cases in {
        "x86_64": {41: "no", 59: "no", 57: "no", 0x40000029: "no", 0: "yes", 257: "yes"},
        "aarch64": {198: "no", 221: "no", 56: "yes", 63: "yes"},
    }.items():
        for number, wanted in cases.items():
            assert run_filter(machine, number) == wanted, (machine, number)
        clone = {"x86_64": 56, "aarch64": 220}[machine]
        assert run_filter(machine, clone, 0x10F00) == "yes"
        assert run_filter(machine, clone, 0x11) == "no"
        assert run_filter(machine, 435) == "not there"
        assert run_filter(machine, 0, architecture=0x40000003) == "killed"


def run_filter(machine, number, argument=0, architecture=None):
    lines, at, held = fence._program(machine), 0, 0
    data = {0: number, 4: architecture or fence._ARCHITECTURE[machine], 16: argument}
    tests = {
        0x15: lambda a, b: a == b,
        0x35: lambda a, b: a >= b,
        0x45: lambda a, b: bool(a & b),
    }
    while True:
        code, yes, no, value = lines[at]
        at += 1
        if code == 0x06:
            ends = {0x7FFF0000: "yes", 0x50001: "no", 0x50026: "not there"}
            return {**ends, 0x80000000: "killed"}[value]
        if code == 0x20:
            held = data[value]
        else:
            at += yes if tests[code](held, value) else no
