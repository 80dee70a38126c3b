# SPDX-License-Identifier: Apache-2.0
"""``gencomp probe``: one line for each file, whatever the files are."""

import json
import os
import struct
import time
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from gencomp_server.cli import main
from gencomp_server.exr.decode import DecodePool
from gencomp_server.probe import probe_files
from hostile import BOMBS, bomb, mutate


def exr(names="ABGR", height=3, width=4, extra=b""):
    """Return an uncompressed EXR made by hand, its data window at (-1, 2) in 8x6."""
    box = (-1, 2, width - 2, height + 1)
    head = bomb(box, names=[name.encode() for name in names], compression=0, tail=0)
    head = head.replace(
        b"displayWindow\0box2i\0\x10\0\0\0" + struct.pack("<4i", *box),
        b"displayWindow\0box2i\0\x10\0\0\0" + struct.pack("<4i", 0, 0, 7, 5),
    )
    head = head[:-1] + extra + b"\0"
    line = np.full((len(names), width), 0.5, np.float16).tobytes()
    at, table, chunks = len(head) + 8 * height, b"", b""
    for row in range(height):
        table += struct.pack("<Q", at + len(chunks))
        chunks += struct.pack("<ii", 2 + row, len(line)) + line
    return head + table + chunks


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GENCOMP_DECODE_PROCESSES", "1")


@pytest.fixture(scope="module")
def pool():
    made = DecodePool(1, timeout_s=20)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    """Return a folder of hostile files; what every one of them is called says what it is."""
    made = tmp_path / "hostile"
    made.mkdir()
    (made / "good.exr").write_bytes(exr())
    (made / "empty.exr").write_bytes(b"")
    (made / "cut.exr").write_bytes(exr()[:-5])
    (made / "png.exr").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (made / "no suffix").write_bytes(exr("Y"))
    (made / "words.txt").write_bytes(b"hello, this is no picture")
    os.mkfifo(made / "pipe.exr")
    (made / "loop.exr").symlink_to(made / "loop.exr")
    (made / "zero.exr").symlink_to("/dev/zero")
    (made / "deeper").mkdir()
    (made / "deeper" / "bomb.exr").write_bytes(BOMBS["46340 a side"])
    (made / "deeper" / "back").symlink_to(made)
    Path(os.fsdecode(os.fsencode(made) + b"/\xff\x1b[2J\n.exr")).write_bytes(exr("Q"))
    return made


def test_a_good_file_is_told_by_size_windows_channels_and_what_it_can_be(tmp_path, pool, capsys):
    path = tmp_path / "plate.1001.exr"
    path.write_bytes(exr())
    assert main(["probe", str(path)]) == 0
    assert capsys.readouterr().out == (
        f"{path}: 8x6, data window 4x3 from (-1, 2) to (2, 4), A B G R, half, none; "
        "as picture or matte\n"
    )
    (one,) = probe_files([path], pool)
    assert one.plain() == {
        "file": str(path),
        "ok": True,
        "width": 8,
        "height": 6,
        "display_window": [0, 0, 7, 5],
        "data_window": [-1, 2, 2, 4],
        "pixel_aspect": 1.0,
        "channels": ["A", "B", "G", "R"],
        "pixel_type": "half",
        "compression": "none",
        "tiled": False,
        "parts": 1,
        "left_out": [],
        "nan": 0,
        "inf": 0,
        "minimum": 0.5,
        "maximum": 0.5,
        "roles": ["rgb", "matte"],
    }


@pytest.mark.fault("F02")
@pytest.mark.fault("F11")
def test_a_folder_of_hostile_files_is_a_line_each_and_ends_with_two(folder, capsys):
    begun = time.monotonic()
    assert main(["probe", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    assert time.monotonic() - begun < 20
    lines = out.splitlines()
    assert all(line.isprintable() for line in lines)
    told = {line.split(": ")[0].rpartition("/")[2]: line.partition(": ")[2] for line in lines}
    assert len(told) == len(lines) == 11
    assert told["good.exr"].endswith("as picture or matte")
    assert told["no suffix"].endswith("as matte or data")
    refused = {
        "empty.exr": "is no EXR: it is almost empty",
        "cut.exr": "ends before its picture does",
        "png.exr": "is no EXR: it is a PNG",
        "words.txt": "is no EXR: it is of an unknown kind",
        "pipe.exr": "is not a file",
        "loop.exr": "cannot be read",
        "zero.exr": "is not a file",
        "bomb.exr": "claims to be 46340x46340 pixels",
        "\\xff\\x1b[2J\\n.exr": "",
    }
    for name, words in refused.items():
        if words:
            assert told[name].startswith(f"refused: {name} {words}"), (name, told[name])


def test_a_file_that_is_not_there_and_a_folder_of_nothing_are_told(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    assert main(["probe", "--json", str(tmp_path / "gone.exr")]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["code"]) == (False, "missing-frame")
    assert told["message"] == "gone.exr is not there."
    assert main(["probe", str(tmp_path / "none")]) == 2
    assert "no file in what was named" in capsys.readouterr().err


def test_it_answers_by_the_servers_settings(tmp_path, capsys, monkeypatch):
    path = tmp_path / "plate.exr"
    path.write_bytes(exr())
    monkeypatch.setenv("GENCOMP_PICTURE_COMPRESSIONS", "zip,piz")
    assert main(["probe", str(path)]) == 2
    said = capsys.readouterr().out
    assert "is compressed as none, which is not taken here. Write it with one of zip, piz." in said
    monkeypatch.setenv("GENCOMP_PICTURE_COMPRESSIONS", "zap")
    assert main(["probe", str(path)]) == 2
    assert "Setting 'picture_compressions' cannot be 'zap'" in capsys.readouterr().err


def test_what_is_not_finite_is_counted(tmp_path, pool):
    data = bytearray(exr())
    data[-2:] = struct.pack("<H", 0x7E00)
    (tmp_path / "plate.exr").write_bytes(bytes(data))
    (one,) = probe_files([tmp_path / "plate.exr"], pool)
    assert "1 sample that is NaN or infinite" in one.line()


@pytest.mark.fault("F02")
def test_whatever_is_done_to_a_good_file_there_is_one_answer_to_it(tmp_path, pool):
    paths = []
    for seed in range(60):
        made = mutate(exr(), seed)
        paths.append(tmp_path / f"{made.name}.exr")
        paths[-1].write_bytes(made.data)
    found = list(probe_files(paths, pool))
    assert [one.path for one in found] == paths
    assert all((one.looked is None) != (one.error is None) for one in found)
    assert not any("decoder died" in str(one.error) for one in found)
    assert all(one.line().isprintable() for one in found)


def test_other_pictures_are_told_by_their_suffix(tmp_path, pool):
    path = tmp_path / "plate.png"
    spec = oiio.ImageSpec(8, 6, 3, "uint8")
    target = oiio.ImageOutput.create(str(path))
    assert target.open(str(path), spec)
    assert target.write_image(np.full((6, 8, 3), 9, np.uint8))
    target.close()
    (one,) = probe_files([path], pool)
    told = one.plain()
    assert (told["width"], told["height"], told["roles"]) == (8, 6, ["rgb", "matte"])
    path.write_bytes(exr())
    (one,) = probe_files([path], pool)
    assert "Give it the suffix .exr." in one.line()
