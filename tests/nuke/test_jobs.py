# SPDX-License-Identifier: Apache-2.0
"""Folders of results: numbered, whole or not there."""

import json
from pathlib import Path

import pytest

from gencomp_nuke import jobs
from gencomp_protocol.errors import MissingFrame, UnwritableOutput

MANIFEST = {"layers": {"a": {"frames": {"7": {}, "-3": {}}}}}


def deliver(version, frames=(7, -3)):
    (version.folder / "a").mkdir()
    for n in frames:
        (version.folder / "a" / f"a.{n:04d}.exr").write_bytes(b"picture")


def test_the_first_version_is_v001(tmp_path):
    version = jobs.reserve(tmp_path / "new" / "cache")
    assert version.final == tmp_path / "new" / "cache" / "v001"
    assert version.folder.name == "v001.part"
    assert version.folder.is_dir()


def test_two_sessions_never_share_a_version(tmp_path):
    assert jobs.reserve(tmp_path).final != jobs.reserve(tmp_path).final


@pytest.mark.parametrize("other", ["v001.part", "v001"])
def test_a_number_that_another_session_took_meanwhile_is_passed_over(tmp_path, monkeypatch, other):
    real, asked = jobs._highest, []

    def highest(cache):
        asked.append(real(cache))
        if len(asked) == 1:
            (cache / other).mkdir()
        return asked[-1]

    monkeypatch.setattr(jobs, "_highest", highest)
    assert jobs.reserve(tmp_path).final.name == "v002"
    assert sorted(path.name for path in tmp_path.iterdir()) == [other, "v002.part"]


def test_a_deleted_version_in_the_middle_is_not_made_again(tmp_path):
    (tmp_path / "v001").mkdir()
    (tmp_path / "v041").mkdir()
    assert jobs.reserve(tmp_path).final.name == "v042"


def test_other_folders_in_the_cache_do_not_matter(tmp_path):
    (tmp_path / "v7").mkdir()
    (tmp_path / "v001_old").mkdir()
    assert jobs.reserve(tmp_path).final.name == "v001"


def test_a_whole_result_is_renamed_with_its_manifest(tmp_path):
    version = jobs.reserve(tmp_path)
    deliver(version)
    version.inputs.mkdir()
    folder = jobs.keep(version, MANIFEST)
    assert folder == tmp_path / "v001"
    assert sorted(p.name for p in folder.iterdir()) == ["a", "manifest.json"]
    assert json.loads((folder / "manifest.json").read_text()) == MANIFEST
    assert not version.folder.exists()


def test_a_result_that_lacks_a_frame_stays_out(tmp_path):
    version = jobs.reserve(tmp_path)
    deliver(version, frames=(7,))
    with pytest.raises(MissingFrame, match="Layer 'a' arrived without frame -3"):
        jobs.keep(version, MANIFEST)
    assert not version.final.exists()


def test_discarding_leaves_nothing(tmp_path):
    version = jobs.reserve(tmp_path)
    deliver(version)
    jobs.discard(version)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableOutput, match="cannot be written"):
        jobs.reserve(tmp_path / "file" / "cache")


def test_frames_of_a_manifest_are_numbers_in_order():
    assert jobs.delivered(MANIFEST) == {"a": (-3, 7)}


def test_a_part_of_a_version_has_its_own_manifest_and_goes_with_it(tmp_path):
    version = jobs.reserve(tmp_path)
    (version.folder / "job.json").write_text("{}", encoding="utf-8")
    (version.folder / "take02" / "a").mkdir(parents=True)
    for n in (7, -3):
        (version.folder / "take02" / "a" / f"a.{n:04d}.exr").write_bytes(b"picture")
    jobs.settle(version, MANIFEST, "take02")
    folder = jobs.keep(version)
    assert sorted(p.name for p in folder.iterdir()) == ["take02"]
    assert jobs.read_manifest(folder / "take02") == MANIFEST
    assert jobs.takes_in(folder) == (2,)


@pytest.mark.parametrize(
    ("folder", "spelt", "version", "take"),
    [
        ("/c/v003", "v003", "/c/v003", 0),
        ("/c/v003/take02", "v003 take02", "/c/v003", 2),
        ("/c/v003/left", "v003", "/c/v003", 0),
        ("/c/v003/take02/%V", "v003 take02", "/c/v003", 2),
        ("/v012/comp/final/mine", "mine", "/v012/comp/final/mine", 0),
    ],
)
def test_a_result_is_called_by_its_version_and_take(folder, spelt, version, take):
    place = Path(folder)
    assert (jobs.spell(place), jobs.version_of(place)) == (spelt, Path(version))
    assert jobs.take_of(place) == take


def test_versions_that_are_not_whole_are_found_oldest_first(tmp_path):
    first, second = jobs.reserve(tmp_path), jobs.reserve(tmp_path)
    (tmp_path / "v009").mkdir()
    assert jobs.unfinished(tmp_path) == [first.folder, second.folder]
    assert jobs.part_of(second.folder) == second
    assert jobs.unfinished(tmp_path / "nowhere") == []
