# SPDX-License-Identifier: Apache-2.0
"""The spool: nothing half-written under its name, nothing outside it, budgets kept."""

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gencomp_protocol.errors import DiskFull, MalformedMessage, UnwritableOutput
from gencomp_server.engine.spool import Spool, SpoolBudget, disk_error, write_atomic

ROOT = Path(__file__).resolve().parents[3]
ENVIRON = {**os.environ, "PYTHONPATH": f"{ROOT / 'protocol'}{os.pathsep}{ROOT / 'server'}"}
ABC = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
OTHER = "ab" * 32


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def arrive(place, content=b"abc"):
    """Put a file where one arrives."""
    place.write_bytes(content)
    return place


def test_folders_are_for_their_owner_only_and_so_are_those_made_on_the_way(tmp_path):
    root = tmp_path / "home" / "spool"
    for folder in (root.parent, root, Spool(root).picture(ABC).parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_picture_that_is_still_arriving_is_not_there_yet(spool):
    part = arrive(spool.part(ABC), b"ab")
    assert not spool.has_picture(ABC)
    part.rename(spool.picture(ABC))
    assert spool.has_picture(ABC)
    assert names(spool.pictures) == [ABC]


@pytest.mark.parametrize("name", ["", "..", "../../x", "a" * 63, "A" * 64, ABC + "/..", ABC + "\n"])
def test_what_is_no_digest_never_becomes_a_path(spool, name):
    with pytest.raises(MalformedMessage, match="digest"):
        spool.picture(name)


@pytest.mark.parametrize("job", ["", "..", "a/b", "a" * 65, "a\0b", "job\n"])
def test_what_is_no_job_never_becomes_a_path(spool, job):
    with pytest.raises(MalformedMessage, match="job"):
        spool.job(job)


@pytest.mark.parametrize("layer", ["", "..", "a/b", "1boy", "boy.exr"])
def test_what_is_no_layer_never_becomes_a_path(spool, layer):
    with pytest.raises(MalformedMessage, match="layer"):
        spool.layer("job", layer, 1)


def test_a_layer_lies_under_its_name_and_frame(spool):
    assert spool.layer("j1", "boy", 7).relative_to(spool.root).as_posix() == (
        "jobs/j1/layers/boy/boy.0007.exr"
    )


def test_pictures_that_no_job_needs_are_dropped_whole_or_not(spool):
    arrive(spool.picture(ABC))
    arrive(spool.part(OTHER))
    spool.drop_pictures(keep={ABC})
    assert names(spool.pictures) == [ABC]


def test_a_picture_that_is_being_copied_is_not_dropped(spool):
    beside = arrive(spool.part(ABC).with_suffix(".7.shared"))
    spool.drop_pictures(keep={ABC})
    assert names(spool.pictures) == [beside.name]


def test_a_manifest_is_there_when_the_job_is_done_and_not_before(spool):
    assert spool.read_manifest("j1") is None
    spool.write_manifest("j1", {"seed": 3, "frames": "1-2"})
    assert spool.read_manifest("j1") == {"seed": 3, "frames": "1-2"}
    assert names(spool.jobs) == ["manifest.json"]


def test_a_removed_job_leaves_nothing(spool):
    spool.write_manifest("j1", {})
    spool.remove_job("j1")
    spool.remove_job("j1")
    assert list(spool.jobs.iterdir()) == []


def decoded(spool, letter, seconds):
    raw = spool.decoded_stem(letter * 64, "exr-colour").with_suffix(".raw")
    raw.write_bytes(bytes(100))
    raw.with_suffix(".json").write_bytes(b"{}")
    os.utime(raw, (seconds, seconds))
    return raw.name


def test_decoded_pixels_go_oldest_first_until_they_fit(tmp_path):
    spool = Spool(tmp_path / "spool", SpoolBudget(decoded_bytes=250))
    old, new, middle = (decoded(spool, d, s) for d, s in (("a", 1), ("b", 3), ("c", 2)))
    spool.trim_decoded()
    left = names(spool.decoded)
    assert (old in left, new in left, middle in left, len(left)) == (False, True, True, 4)


def test_stages_in_use_are_not_trimmed(tmp_path):
    spool = Spool(tmp_path / "spool", SpoolBudget(stages_bytes=0))
    for key in ("used", "unused"):
        (spool.stages / key).mkdir()
        (spool.stages / key / "0.npy").write_bytes(bytes(10))
    spool.trim_stages(keep={"used"})
    assert [path.name for path in spool.stages.iterdir()] == ["used"]


def stage(spool, name, age_s):
    """Put a folder where stages lie, last used so many seconds ago."""
    folder = spool.stages / name
    folder.mkdir()
    (folder / "0.npy").write_bytes(bytes(10))
    os.utime(folder, (time.time() - age_s,) * 2)


def kept(spool):
    return sorted(path.name for path in spool.stages.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", ["made", "made.saved", ".made.7.part", "made.call"])
def test_what_another_worker_uses_is_not_trimmed_until_its_job_is_over(tmp_path, name):
    mine, others = (Spool(tmp_path / "spool", SpoolBudget(stages_bytes=0)) for _ in range(2))
    stage(mine, "old", 60)
    with others.working():
        stage(others, name, 0)
        mine.trim_stages()
        assert kept(mine) == [name]
    mine.trim_stages()
    assert list(mine.stages.iterdir()) == []


def test_what_another_worker_is_removing_is_left_to_it(tmp_path):
    spool = Spool(tmp_path / "spool", SpoolBudget(stages_bytes=0))
    stage(spool, ".old.7.gone", 60)
    spool.trim_stages()
    assert kept(spool) == [".old.7.gone"]


def test_a_worker_that_was_killed_keeps_nothing(tmp_path):
    spool = Spool(tmp_path / "spool", SpoolBudget(stages_bytes=0))
    code = (
        "import os, sys; from pathlib import Path; from gencomp_server.engine.spool import Spool\n"
        "with Spool(Path(sys.argv[1])).working(): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, spool.root], env=ENVIRON, check=True)
    assert len(list(spool.stages.glob(".*"))) == 1
    stage(spool, "made", 0)
    spool.trim_stages()
    assert kept(spool) == []
    spool.sweep()
    assert list(spool.stages.iterdir()) == []


def test_sweeping_removes_what_a_killed_process_left(spool):
    (spool.decoded / ".x.raw.7.part").write_bytes(b"")
    (spool.stages / ".key.7.part").mkdir()
    (spool.stages / ".key.7.part" / "0.npy").write_bytes(b"")
    layer = spool.layer("j", "boy", 1)
    layer.parent.mkdir(parents=True)
    layer.write_bytes(b"whole")
    (layer.parent / ".boy.0002.exr.7.8.part").write_bytes(b"")
    (spool.job("j") / ".manifest.json.7.part").write_bytes(b"")
    saved = spool.stages / "key.saved"
    saved.mkdir()
    (saved / "round.npz").write_bytes(b"whole")
    (saved / ".round.npz.7.part").write_bytes(b"")
    arrive(spool.part(ABC), b"ab")
    spool.sweep()
    assert names(spool.root) == sorted([f"{ABC}.part", "boy.0001.exr", "round.npz"])
    assert [path.name for path in spool.stages.iterdir()] == ["key.saved"]


@pytest.mark.fault("F35")
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    write_atomic(path, b"old")

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="spool is full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["manifest.json"]


@pytest.mark.fault("F36")
def test_a_folder_that_cannot_be_written_is_named_without_its_path(tmp_path):
    error = disk_error(OSError(errno.EROFS, "Read-only file system"), tmp_path / "stages")
    assert isinstance(error, UnwritableOutput)
    assert "'stages': Read-only file system" in error.message
    assert str(tmp_path) not in str(error)


def test_a_spool_where_a_file_is_in_the_way_says_so(tmp_path):
    (tmp_path / "spool").write_bytes(b"")
    with pytest.raises(UnwritableOutput, match="/spool is a file; move it away"):
        Spool(tmp_path / "spool")
