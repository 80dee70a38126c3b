# SPDX-License-Identifier: Apache-2.0
"""Pictures read where they lie: forty odd paths, links that move, storage that hangs."""

import ctypes
import os
import select
import struct
import sys
import threading
import time
from hashlib import blake2b

import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.transfer import Expected
from gencomp_server import shared_storage
from gencomp_server.config import ServerConfig
from gencomp_server.shared_storage import NotShared, Root, SharedStorage, names_of

GOOD, SECRET = b"a picture" * 1000, b"a secret!" * 1000  # The same size: a swap shows no other way.
PATHS = [
    *("", ".", "..", "/", "//", "///", "~", "~/a.exr", "a.exr", "./a.exr", "../out/a.exr"),
    *("{root}", "{root}/", "{root}/.", "{root}/..", "{root}/../out/a.exr", "{root}/in/../a.exr"),
    *("{root}/in/../../out/a.exr", "{root}/./a.exr", "{root}//a.exr", "/{root}/a.exr"),
    *(
        "{root}/a.exr/",
        "{root}/in",
        "{root}x/a.exr",
        "{out}/a.exr",
        "/etc/passwd",
        "/proc/self/mem",
    ),
    *(
        "{root}/a.exr\0",
        "{root}/\0/a.exr",
        "{root}/a\n.exr",
        "{root}/\x7f.exr",
        "{root}/\udcff.exr",
    ),
    *(
        "\\\\server\\share\\a.exr",
        "{root}\\..\\out\\a.exr",
        "C:\\a.exr",
        "C:/a.exr",
        "c:{root}/a.exr",
    ),
    *("file://{root}/a.exr", "{root}/%2e%2e/out/a.exr", "{root}/" + "d/" * 3000 + "a.exr"),
    *("{root}/" + "n" * 300, "{root}/link.exr", "{root}/linked/a.exr", "{root}/up/out/a.exr"),
    *(
        "{root}/self/../out/a.exr",
        "{root}/fifo",
        "{root}/proc",
        "{root}/broken.exr",
        "{root}/no.exr",
    ),
]


@pytest.fixture
def place(tmp_path):
    """A shared folder beside one that is not, and everything in it that leads there."""
    root, out = tmp_path / "root", tmp_path / "out"
    (root / "in").mkdir(parents=True)
    out.mkdir()
    (root / "a.exr").write_bytes(GOOD)
    (root / "in" / "b.exr").write_bytes(GOOD)
    (out / "a.exr").write_bytes(SECRET)
    (root / "link.exr").symlink_to(out / "a.exr")
    (root / "linked").symlink_to(out)
    (root / "up").symlink_to("..")
    (root / "self").symlink_to(".")
    (root / "proc").symlink_to("/proc/self/mem")
    (root / "broken.exr").symlink_to(root / "nowhere")
    os.mkfifo(root / "fifo")
    return tmp_path


class Watch:
    """Counts who opens, reads, writes or makes what, by the kernel's own account."""

    ACCESS, MODIFY, OPEN, CREATE = 0x1, 0x2, 0x20, 0x100

    def __init__(self, *places):
        libc = ctypes.CDLL(None, use_errno=True)
        self.handle = libc.inotify_init1(os.O_NONBLOCK)
        assert self.handle >= 0
        mask = self.ACCESS | self.MODIFY | self.OPEN | self.CREATE
        for one in places:
            assert libc.inotify_add_watch(self.handle, os.fsencode(one), mask) >= 0

    def events(self):
        """Return what happened since the last call, as masks."""
        found = []
        while select.select([self.handle], [], [], 0.05)[0]:
            data, at = os.read(self.handle, 65536), 0
            while at < len(data):
                _, mask, _, size = struct.unpack_from("iIII", data, at)
                found.append(mask)
                at += 16 + size
        return found

    def close(self):
        os.close(self.handle)


@pytest.fixture
def watch(place):
    made = Watch(place / "out", place / "out" / "a.exr")
    yield made
    made.close()


def expected(folder, data=GOOD, name="plate"):
    digest = blake2b(data, digest_size=32).hexdigest()
    folder.mkdir(exist_ok=True)
    path = folder / digest
    return Expected(
        "job", "input", name, 1001, len(data), digest, path, folder / f"{digest}.part", 0o600
    )


@pytest.fixture
def storage(place):
    woken = threading.Event()
    made = SharedStorage([place / "root"], woken.set)
    yield made
    made.close()


def outcome(storage, most_s=20.0):
    """Wait for the one picture that was asked for."""
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        found = storage.outcomes()
        if found:
            return found[0]
        time.sleep(0.005)
    raise AssertionError("it never came")


def spelt(text, place):
    return text.replace("{root}", str(place / "root")).replace("{out}", str(place / "out"))


def test_there_are_forty_paths_at_least():
    assert len(PATHS) == len(set(PATHS)) >= 40


@pytest.mark.fault("F12")
@pytest.mark.parametrize("text", PATHS, ids=range(len(PATHS)))
def test_no_path_leads_out_and_what_is_odd_is_not_read(place, storage, watch, text):
    for data in (SECRET, GOOD):  # Even for somebody who knows what is in the file.
        picture = expected(place / "spool", data)
        if not text:
            storage.ask(picture, text)
            assert not storage.is_reading(picture.digest)
            continue
        storage.ask(picture, spelt(text, place))
        read = outcome(storage)
        assert read.fault
        assert not picture.path.exists()
    assert os.listdir(place / "spool") == []
    assert watch.events() == []


@pytest.mark.fault("F12")
def test_a_plain_path_beneath_the_folder_is_read_and_digested(place, storage):
    for text in ("{root}/a.exr", "{root}/in/b.exr"):
        picture = expected(place / "spool")
        storage.ask(picture, spelt(text, place))
        assert storage.is_reading(picture.digest)
        assert outcome(storage).fault == ""
        assert picture.path.read_bytes() == GOOD
        assert picture.path.stat().st_mode & 0o777 == 0o600
        picture.path.unlink()
    assert not storage.is_reading(picture.digest)


@pytest.mark.fault("F12")
@pytest.mark.parametrize("what", ["file", "folder", "above"])
def test_links_that_are_swapped_meanwhile_never_lead_out(place, storage, watch, what):
    """A thread moves a link in and out of the way, as fast as it can, while pictures are read."""
    root = place / "root"
    (root / "deep" / "deeper").mkdir(parents=True)
    (root / "deep" / "deeper" / "a.exr").write_bytes(GOOD)
    (place / "out" / "deeper").mkdir()
    (place / "out" / "deeper" / "a.exr").write_bytes(SECRET)
    inner = Watch(place / "out" / "deeper", place / "out" / "deeper" / "a.exr")
    swapped, target = {
        "file": (root / "deep" / "deeper" / "a.exr", place / "out" / "a.exr"),
        "folder": (root / "deep" / "deeper", place / "out"),
        "above": (root / "deep", place / "out"),
    }[what]
    over, aside, link = threading.Event(), place / "aside", place / "link"

    def swap():
        while not over.is_set():
            os.rename(swapped, aside)
            os.symlink(target, swapped)
            os.rename(swapped, link)
            os.rename(aside, swapped)
            link.unlink()

    for one in (watch, inner):
        one.events()
    thread = threading.Thread(target=swap)
    thread.start()
    faults = []
    try:
        for at in range(60):
            data = SECRET if at % 2 else GOOD
            picture = expected(place / "spool", data)
            storage.ask(picture, str(root / "deep" / "deeper" / "a.exr"))
            faults.append(outcome(storage).fault)
            if data is SECRET:
                assert not picture.path.exists()
            picture.path.unlink(missing_ok=True)
    finally:
        over.set()
        thread.join()
    # What moves in and out shows as nothing; what is opened, read or written does.
    assert [one for one in watch.events() + inner.events() if one & ~0x40000000] == []
    (place / "out" / "a.exr").read_bytes()
    assert watch.events()  # It would have been seen.
    inner.close()
    assert "" in faults
    assert any(faults)


@pytest.mark.fault("F12")
def test_another_file_than_the_one_announced_is_not_taken(place, storage):
    picture = expected(place / "spool", SECRET)
    storage.ask(picture, str(place / "root" / "a.exr"))
    assert outcome(storage).fault == "the file there is another one"
    picture = expected(place / "spool", GOOD + b"x")
    storage.ask(picture, str(place / "root" / "a.exr"))
    assert outcome(storage).fault == "the file there has another size"
    assert os.listdir(place / "spool") == []


def test_storage_that_hangs_is_given_up_and_holds_up_nobody(place, storage, monkeypatch):
    monkeypatch.setattr(shared_storage, "_HANGS_S", 0.2)
    gate = threading.Event()

    def hang(self, names):
        gate.wait(20)
        raise NotShared("too late")

    monkeypatch.setattr(Root, "_walk", hang)
    began = time.monotonic()
    first, second = expected(place / "spool"), expected(place / "spool", SECRET)
    storage.ask(first, str(place / "root" / "a.exr"))
    storage.ask(second, str(place / "root" / "a.exr"))
    assert time.monotonic() - began < 0.1
    assert outcome(storage).fault == "the storage does not answer"
    assert not storage.is_reading(first.digest)
    assert not storage.is_reading(second.digest)
    gate.set()
    time.sleep(0.05)
    assert storage.outcomes() == []


def test_the_folder_itself_may_be_reached_by_a_link_and_both_spellings_count(place):
    (place / "shows").symlink_to(place / "root")
    storage = SharedStorage([place / "shows"], lambda: None)
    try:
        for text in (place / "shows" / "a.exr", place / "root" / "a.exr"):
            picture = expected(place / "spool")
            storage.ask(picture, str(text))
            assert outcome(storage).fault == ""
            picture.path.unlink()
    finally:
        storage.close()


@pytest.mark.parametrize("name", ["missing", "a.exr"])
def test_a_folder_that_is_none_is_refused_at_the_start(place, name):
    with pytest.raises(BadKnob, match="shared_roots"):
        SharedStorage([place / "root" / name], lambda: None)
    with pytest.raises(BadKnob, match="all files"):
        SharedStorage([place.__class__("/")], lambda: None)


@pytest.mark.parametrize("value", ["relative", "/", "/a/..", ""])
@pytest.mark.parametrize("name", ["shared_roots", "ocio_configs"])
def test_settings_name_absolute_folders_and_not_everything(name, value):
    with pytest.raises(BadKnob, match="absolute paths"):
        ServerConfig(**{name: (value,)})


def test_without_folders_nothing_is_asked(place):
    storage = SharedStorage([], lambda: None)
    assert not storage
    storage.ask(expected(place / "spool"), str(place / "root" / "a.exr"))
    assert storage.outcomes() == []
    storage.close()


def test_names_beneath_a_folder_are_what_comes_after_it():
    assert names_of("/mnt/shows/x/a.0001.exr", "/mnt/shows") == ["x", "a.0001.exr"]
    assert sys.platform != "win32"
