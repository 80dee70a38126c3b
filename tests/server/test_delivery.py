# SPDX-License-Identifier: Apache-2.0
"""The output folder of a run, and the run against a client that is made up."""

import json
import shutil
from pathlib import Path

import pytest

from gencomp_protocol import LayerReady, Outcome, StateChanged
from gencomp_protocol.errors import BadMatte, Cancelled, MissingFrame, UnwritableOutput
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.delivery import Order, OutputFolder, digest_pictures, run_order

LAYERS = {"a": {"frames": {"1": {}, "2": {}}}, "background": {"frames": {"1": {}, "2": {}}}}
MANIFEST = {"system": "cutout", "layers": LAYERS}
# BLAKE2b-256 of b"abc".
ABC = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"


class Script:
    """A client that says what it is told to say and remembers what it was asked."""

    def __init__(self, outcome, events=()):
        self.outcome, self.events, self.asked = outcome, events, []

    def check(self, request):
        self.asked.append("check")
        return {"layers": [{"name": "background"}, {"name": "a"}]}

    def submit(self, request, pictures, key, kinds, **whose):
        self.asked.append("submit")
        self.key, self.whose = key, whose
        return "7"

    def follow(self, job, *, pictures, folder, on_event, cancelled):
        for event in self.events:
            on_event(event)
        return self.outcome

    def release(self, job):
        self.asked.append("release")


def order(tmp_path):
    path = tmp_path / "plate.1.exr"
    path.write_bytes(b"abc")
    request = Request("cutout", FrameRange(1, 1), (InputHeader("plate", (1,)),))
    return Order(request, {"plate": {1: path}}, {"plate": "exr"})


def run(client, tmp_path, folder):
    told = []
    with folder:
        manifest = run_order(
            client,
            order(tmp_path),
            folder,
            on_plan=lambda pictures, layers: told.append((pictures, layers)),
            on_event=lambda event: None,
            cancelled=lambda: False,
            on_note=told.append,
        )
    return manifest, told


def test_a_folder_that_cannot_be_made_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UnwritableOutput, match="cannot be written"),
        OutputFolder(tmp_path / "file"),
    ):
        pass


def test_a_second_run_into_the_same_folder_is_refused(tmp_path):
    second = OutputFolder(tmp_path / "out")
    with (
        OutputFolder(tmp_path / "out"),
        pytest.raises(UnwritableOutput, match="Another gencomp run"),
        second,
    ):
        pass


def test_a_folder_tried_and_left_unused_holds_nothing(tmp_path):
    with OutputFolder(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_a_spool_with_work_in_it_stays_for_the_next_run(tmp_path):
    with OutputFolder(tmp_path / "out") as folder:
        (folder.spool / "gencomp.db").write_text("")
    assert (tmp_path / "out" / ".gencomp" / "gencomp.db").exists()


def test_the_manifest_is_written_whole(tmp_path):
    with OutputFolder(tmp_path / "out") as folder:
        folder.write_manifest(MANIFEST)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == MANIFEST
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_frames_of_an_earlier_delivery_are_told(tmp_path):
    folder = OutputFolder(tmp_path)
    (tmp_path / "a").mkdir()
    for frame in (1, 2, 3, 4, 9):
        (tmp_path / "a" / f"a.{frame:04d}.exr").write_text("")
    assert folder.strangers(MANIFEST) == ["Folder a also holds frames 3-4, 9 of an earlier run."]


def test_a_layer_that_is_not_part_of_this_run_is_told(tmp_path):
    folder = OutputFolder(tmp_path)
    for name in ("residual", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "residual" / "residual.0001.exr").write_text("")
    (tmp_path / "mine" / "notes.txt").write_text("")
    assert folder.strangers(MANIFEST) == [
        "Folder residual is of an earlier run and not part of this one."
    ]


def test_digests_are_those_of_the_files(tmp_path):
    found = digest_pictures(order(tmp_path).files)
    assert (found["plate"][1].digest, found["plate"][1].bytes) == (ABC, 3)


def test_a_file_that_went_away_is_named(tmp_path):
    with pytest.raises(MissingFrame, match=r"gone\.exr"):
        digest_pictures({"plate": {1: Path(tmp_path / "gone.exr")}})


def test_a_finished_job_gives_its_layers_in_the_plan_s_order_and_is_released(tmp_path):
    client = Script(Outcome("done", MANIFEST))
    manifest, told = run(client, tmp_path, OutputFolder(tmp_path / "out"))
    assert list(manifest["layers"].items()) == [
        ("background", LAYERS["background"]),
        ("a", LAYERS["a"]),
    ]
    assert client.asked == ["check", "submit", "release"]
    assert client.whose == {"show": None, "shot": None, "priority": 0}
    assert told == [(1, 2)]


def test_the_same_order_has_the_same_key(tmp_path):
    keys = []
    for _ in range(2):
        client = Script(Outcome("done", MANIFEST))
        run(client, tmp_path, OutputFolder(tmp_path / "out"))
        keys.append(client.key)
    assert keys[0] == keys[1]


def test_a_failed_job_raises_what_it_failed_of(tmp_path):
    error = BadMatte("Input 'matte.a' is empty.")
    client = Script(Outcome("refused", None, error))
    with pytest.raises(BadMatte, match="is empty"):
        run(client, tmp_path, OutputFolder(tmp_path / "out"))
    assert "release" not in client.asked


def test_a_cancelled_job_raises_that(tmp_path):
    with pytest.raises(Cancelled):
        run(Script(Outcome("cancelled")), tmp_path, OutputFolder(tmp_path / "out"))


@pytest.mark.parametrize(("state", "stays"), [("queued", True), ("running", False)])
def test_an_old_manifest_goes_when_the_new_job_runs_and_not_before(tmp_path, state, stays):
    folder = OutputFolder(tmp_path / "out")
    with folder:
        folder.write_manifest(MANIFEST)
    client = Script(Outcome("failed", None, BadMatte("no")), events=[StateChanged("7", state)])
    with pytest.raises(BadMatte):
        run(client, tmp_path, OutputFolder(tmp_path / "out"))
    assert folder.manifest.exists() is stays


def test_a_run_that_ends_early_over_an_earlier_take_says_so_until_one_is_finished(tmp_path):
    folder = OutputFolder(tmp_path / "out")
    with folder:
        folder.write_manifest(MANIFEST)
    began, came = StateChanged("7", "running"), LayerReady("7", "a", 1, "a.0001.exr")
    endings = [
        ([began], "still holds layers of an earlier take"),
        ([began, came], "now mixes frames of two takes"),
        ([began], "now mixes frames of two takes"),
    ]
    for events, words in endings:
        with pytest.raises(Cancelled):
            run(Script(Outcome("cancelled"), events), tmp_path, folder)
        end = "there is no manifest until the job is finished."
        assert folder.unfinished() == f"{tmp_path / 'out'} {words}; {end}"
    run(Script(Outcome("done", MANIFEST), [began, came]), tmp_path, folder)
    folder.drop_spool()
    assert folder.unfinished() is None


def test_a_first_take_that_ends_early_mixes_nothing(tmp_path):
    folder = OutputFolder(tmp_path / "out")
    events = [StateChanged("7", "running"), LayerReady("7", "a", 1, "a.0001.exr")]
    with pytest.raises(Cancelled):
        run(Script(Outcome("cancelled"), events), tmp_path, folder)
    assert folder.unfinished() is None


def test_manifest_and_sheet_of_another_system_are_put_aside(tmp_path):
    folder = OutputFolder(tmp_path / "out")
    with folder:
        folder.write_manifest({"system": "omnimatte", "layers": {"a": {}, "b": {}}})
        (folder.path / "contact_sheet.png").write_bytes(b"sheet")
    events = [StateChanged("7", "running"), StateChanged("7", "done")]
    _, told = run(Script(Outcome("done", MANIFEST), events), tmp_path, folder)
    assert told[1:] == [
        "The manifest of an earlier run of omnimatte is kept as manifest.omnimatte.json; "
        "of its layers, a will be overwritten."
    ]
    kept = json.loads((folder.path / "manifest.omnimatte.json").read_text())
    assert kept["system"] == "omnimatte"
    assert (folder.path / "contact_sheet.omnimatte.png").read_bytes() == b"sheet"
    assert not folder.manifest.exists()


@pytest.mark.parametrize("system", ["../../x", "", "a b"])
def test_a_name_that_is_no_system_makes_no_file(tmp_path, system):
    folder = OutputFolder(tmp_path / "out")
    with folder:
        folder.write_manifest({"system": system, "layers": {}})
        folder.begin("cutout", ["a"])
        assert sorted(path.name for path in folder.path.iterdir()) == [".gencomp"]


def test_frames_stand_in_order_in_the_manifest(tmp_path):
    frames = {str(n): {} for n in sorted(range(1, 12), key=str)}
    made = {"layers": {"a": {"frames": frames}, "background": {"frames": {}}}}
    made["inputs"] = {"plate": {"digests": dict.fromkeys(frames, "")}}
    manifest, _ = run(Script(Outcome("done", made)), tmp_path, OutputFolder(tmp_path / "out"))
    numbers = [str(n) for n in range(1, 12)]
    assert list(manifest["layers"]["a"]["frames"]) == numbers
    assert list(manifest["inputs"]["plate"]["digests"]) == numbers


def test_a_run_that_dies_while_its_spool_goes_leaves_no_half_a_spool(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(path, **more):
        (path / "stages").rmdir()
        raise Killed

    with OutputFolder(tmp_path) as folder:
        (folder.spool / "stages").mkdir()
        (folder.spool / "gencomp.db").write_bytes(b"")
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", die)
            with pytest.raises(Killed):
                folder.drop_spool()
        assert not folder.spool.exists()
    with OutputFolder(tmp_path) as folder:
        assert [path.name for path in folder.spool.iterdir()] == ["lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_stays_with_what_was_sent_is_told_of(tmp_path):
    with OutputFolder(tmp_path / "out") as folder:
        assert folder.left_over() is None
        (folder.spool / "pictures" / "ab").mkdir(parents=True)
        assert folder.left_over() is None
        (folder.spool / "pictures" / "ab" / "abcd").write_bytes(b"x")
        assert folder.left_over() == (
            f"{folder.spool} stays: it holds what was sent, for the next try; it may be deleted."
        )
