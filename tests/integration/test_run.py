# SPDX-License-Identifier: Apache-2.0
"""``gencomp run`` as an artist types it: server, worker, decoders and EXRs are the real ones."""

import json
import os
import re
import shutil
import signal
import socket
import zipfile

import numpy as np
import psutil
import pytest

from command_line import FRAMES, finish, matte_of, plate_of, start, write_picture
from gencomp_server.exr.decode import DecodePool, DecodeTask
from gencomp_server.exr.read import map_picture

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def pool():
    """Return a decoder that is kept, since each new one takes a while to start."""
    made = DecodePool(processes=1)
    yield made
    made.close()


@pytest.fixture
def read(pool, tmp_path):
    """Return a function that gives the samples of a delivered EXR."""

    def samples(path):
        target = tmp_path / f"read-{path.stem}-{path.stat().st_mtime_ns}"
        decoded = pool.submit(DecodeTask(path, target, role="rgba")).result()
        return spread(map_picture(decoded))

    return samples


def spread(picture):
    """Return a picture over its whole display window; what it leaves open is zero."""
    header = picture.header
    frame, data = header.display_window, header.data_window
    full = np.zeros((frame.height, frame.width, len(header.channels)), picture.pixels.dtype)
    y, x = data.y0 - frame.y0, data.x0 - frame.x0
    full[y : y + data.height, x : x + data.width] = picture.pixels
    return full


def first_event(process, event):
    """Read the command's events up to the first of that name."""
    for line in process.stdout:
        if json.loads(line)["event"] == event:
            return json.loads(line)
    raise AssertionError(f"no event {event}: {process.stderr.read()}")


def test_a_shot_goes_in_and_its_layers_come_out(shot, gencomp, read):
    ended = gencomp(*shot.words, "--json", "--set", "gain=0.5")
    assert (ended.code, ended.err) == (0, "")
    assert sorted(path.name for path in shot.out.iterdir()) == [
        *("background", "ball", "contact_sheet.png", "manifest.json")
    ]
    for frame in FRAMES:
        background = read(shot.out / "background" / f"background.{frame}.exr")
        assert np.array_equal(background, plate_of(frame))
        ball = read(shot.out / "ball" / f"ball.{frame}.exr")
        assert np.array_equal(ball[..., 3:], matte_of())
    manifest = json.loads((shot.out / "manifest.json").read_text())
    assert manifest["knobs"]["gain"] == 0.5
    assert list(manifest["layers"]["ball"]["frames"]) == ["1001", "1002", "1003"]
    assert str(shot.folder) not in json.dumps(manifest)
    done = ended.named("done")[0]
    assert done["layers"]["ball"] == f"{shot.out}/ball/ball.%04d.exr"


@pytest.mark.fault("F40")
@pytest.mark.parametrize(
    ("gain", "flag"), [pytest.param("1", False, marks=pytest.mark.slow), ("1.5", True)]
)
def test_a_result_is_checked_and_what_differs_from_the_plate_is_said(shot, gencomp, gain, flag):
    ended = gencomp(*shot.words, "--json", "--set", f"gain={gain}")
    assert ended.code == 0
    found = json.loads((shot.out / "manifest.json").read_text())["inspection"]
    assert found["flag"] is flag
    assert found["frames"] == list(FRAMES)
    said = [entry["sentence"] for entry in ended.named("note")]
    assert any("are not the plate" in sentence for sentence in said) is flag
    assert "layers against the plate" in ended.named("done")[0]["checked"]


def test_plain_lines_tell_where_everything_lies(shot, gencomp):
    ended = gencomp(*shot.words)
    assert ended.code == 0
    assert f"manifest  {shot.out}/manifest.json" in ended.out
    assert "delivered 6/6" in ended.out
    assert "checked  alpha 0 to 1; layers against the plate" in ended.out


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_shots_of_one_and_two_frames_work(shot, gencomp, count):
    last = FRAMES[count - 1]
    ended = gencomp(*shot.words, "--frames", f"1001-{last}")
    assert ended.code == 0
    assert len(list((shot.out / "ball").iterdir())) == count
    assert (shot.out / "contact_sheet.png").exists()


@pytest.mark.fault("F09")
def test_one_still_plate_is_a_shot_of_one_frame(shot, gencomp):
    words = ["run", "cutout", "--out", str(shot.out), "--input", f"plate={shot.plate(1002)}"]
    assert gencomp(*words, "--input", f"matte.ball={shot.matte(1001)}").code == 0
    assert [path.name for path in (shot.out / "ball").iterdir()] == ["ball.1002.exr"]


@pytest.mark.fault("F08")
def test_nan_in_a_plate_is_warned_of_and_delivered_as_it_came(shot, gencomp, read):
    plate = plate_of(1002)
    plate[0, 0, 0], plate[0, 1, 1] = np.nan, np.inf
    write_picture(shot.plate(1002), plate, ("R", "G", "B"))
    ended = gencomp(*shot.words, "--json")
    assert ended.code == 0
    sentence = ended.named("warning")[0]["sentence"]
    assert "'plate' frame 1002" in sentence
    assert "2 bad samples" in sentence
    background = read(shot.out / "background" / "background.1002.exr")
    assert np.array_equal(background, plate, equal_nan=True)


@pytest.mark.slow
@pytest.mark.fault("F41")
def test_the_same_command_again_delivers_the_same_pixels(shot, gencomp, read):
    taken = []
    for _ in range(2):
        assert gencomp(*shot.words).code == 0
        paths = sorted((shot.out / "ball").iterdir())
        taken.append([read(path) for path in paths])
    assert len(taken[0]) == 3
    assert all(np.array_equal(a, b) for a, b in zip(*taken, strict=True))


@pytest.mark.slow
def test_a_shorter_range_tells_of_the_frames_left_from_the_earlier_run(shot, gencomp):
    assert gencomp(*shot.words).code == 0
    ended = gencomp(*shot.words, "--frames", "1001", "--json")
    notes = [entry["sentence"] for entry in ended.named("note")]
    assert "Folder ball also holds frames 1002-1003 of an earlier run." in notes


def test_ctrl_c_cancels_the_job_and_leaves_with_130(shot):
    process = start(*shot.words, "--json", "--set", "wait_s=30")
    first_event(process, "progress")
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.code == 130
    assert "cancelled" in ended.err
    assert not (shot.out / "manifest.json").exists()


@pytest.mark.slow
def test_ctrl_c_twice_leaves_at_once_and_takes_the_server_along(shot):
    process = start(*shot.words, "--json", "--set", "wait_s=30", "--set", "stubborn=true")
    first_event(process, "progress")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert "again to leave" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.code == 130
    assert "The same command goes on" in ended.err
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert alive == []


@pytest.mark.slow
def test_after_a_cancel_the_same_command_starts_again_with_what_was_measured(shot, gencomp):
    process = start(*shot.words, "--json", "--set", "wait_s=30")
    first_event(process, "progress")
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 130
    assert gencomp(*shot.words, "--set", "wait_s=0").code == 0
    stages = json.loads((shot.out / "manifest.json").read_text())["stages"]
    assert [(stage["name"], stage["reused"]) for stage in stages] == [("measure", True)]


@pytest.mark.slow
def test_a_cancelled_command_given_again_runs(shot, gencomp):
    process = start(*shot.words, "--json", "--set", "wait_s=1")
    first_event(process, "progress")
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 130
    assert gencomp(*shot.words, "--set", "wait_s=1").code == 0


def test_when_the_command_is_killed_its_server_and_workers_go_too(shot):
    process = start(*shot.words, "--json", "--set", "wait_s=30")
    first_event(process, "progress")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    finish(process)
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert alive == []


@pytest.mark.fault("F31")
def test_a_killed_run_resumes_where_it_was(shot, gencomp):
    process = start(*shot.words, "--json", "--set", "wait_s=1")
    first_event(process, "layer")
    process.kill()
    finish(process)
    ended = gencomp(*shot.words, "--json", "--set", "wait_s=1")
    assert ended.code == 0
    assert ended.named("sent") == []
    stages = json.loads((shot.out / "manifest.json").read_text())["stages"]
    assert [stage["reused"] for stage in stages] == [True]
    assert not (shot.out / ".gencomp").exists()


def test_a_fault_of_ours_is_a_sentence_with_4_and_the_server_goes(shot, gencomp):
    ended = gencomp(*shot.words, "--set", "fail_at=1002")
    assert ended.code == 4
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (shot.out / "manifest.json").exists()
    told = re.search(r"gencomp report (\w+) --spool (.+)", ended.out)
    assert ended.err.rstrip().endswith(f"(report {told[1]})")
    report = gencomp("report", told[1], "--spool", told[2], "--out", str(shot.folder / "r.zip"))
    assert (report.code, report.err) == (0, "")
    with zipfile.ZipFile(shot.folder / "r.zip") as packed:
        log = packed.read(f"gencomp-report-{told[1]}/log.txt").decode()
    assert "ZeroDivisionError: broken on purpose" in log


@pytest.fixture
def server(tmp_path):
    """Run ``gencomp serve`` and yield its address; its file is in the test's home folder."""
    process = start("serve", "--port", "0", "--spool", str(tmp_path / "spool"))
    address = process.stdout.readline().split()[-1]
    yield address
    process.terminate()
    finish(process)
    assert process.returncode == 0


def test_a_named_server_does_the_job_and_lists_it(shot, gencomp, server):
    assert gencomp(*shot.words, "--server", server).code == 0
    assert not (shot.out / ".gencomp").exists()
    listed = gencomp("jobs")
    assert listed.code == 0
    assert "done" in listed.out
    assert gencomp("doctor").out.count(f"answers at {server}") == 1


@pytest.mark.slow
@pytest.mark.fault("F31")
def test_when_the_named_server_is_started_again_the_command_goes_on(shot, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    serve = ("serve", "--port", port, "--spool", str(tmp_path / "spool"))
    first = start(*serve)
    address = first.stdout.readline().split()[-1]
    process = start(*shot.words, "--json", "--set", "wait_s=3", "--server", address)
    first_event(process, "progress")
    first.kill()
    finish(first)
    second = start(*serve)
    ended = finish(process)
    second.terminate()
    finish(second)
    assert (ended.code, ended.err) == (0, "")


def test_a_bad_shot_leaves_the_server_alive_for_the_next(shot, gencomp, server):
    shutil.copy(shot.plate(1001), shot.folder / "kept.exr")
    shot.plate(1001).write_bytes(shot.plate(1001).read_bytes()[:-200])
    assert gencomp(*shot.words, "--server", server).code == 2
    shutil.copy(shot.folder / "kept.exr", shot.plate(1001))
    assert gencomp(*shot.words, "--server", server).code == 0


def test_a_job_is_cancelled_from_another_terminal(shot, gencomp, server):
    process = start(*shot.words, "--json", "--set", "wait_s=30", "--server", server)
    job = first_event(process, "progress")["job"]
    assert gencomp("cancel", job).out == f"{job} is cancelled.\n"
    assert finish(process).code == 130


def test_cancelling_what_is_not_there_ends_with_2(gencomp, server):
    ended = gencomp("cancel", "0000000000000000")
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1


def test_when_nobody_listens_the_command_ends_with_3(shot, gencomp):
    secret = shot.folder / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    os.environ["GENCOMP_SECRET_FILE"] = str(secret)
    try:
        ended = gencomp(*shot.words, "--server", "tcp://127.0.0.1:9")
    finally:
        del os.environ["GENCOMP_SECRET_FILE"]
    assert ended.code == 3
    assert "tcp://127.0.0.1:9" in ended.err


def test_a_picture_much_larger_than_the_credit_passes(shot, gencomp, monkeypatch):
    monkeypatch.setenv("GENCOMP_CREDIT_BYTES", "65536")
    monkeypatch.setenv("GENCOMP_CHUNK_BYTES", "16384")
    noise = np.random.default_rng(1).integers(0, 0x7BFF, (400, 600, 3), dtype=np.uint16)
    write_picture(shot.plate(1001), noise.view(np.float16), ("R", "G", "B"))
    write_picture(shot.matte(1001), matte_of(600, 400), ("A",))
    assert shot.plate(1001).stat().st_size > 10 * 65536
    assert gencomp(*shot.words, "--frames", "1001").code == 0


@pytest.mark.slow
def test_a_frame_of_a_hundred_megabytes_passes_a_credit_of_sixty_four(shot, gencomp, tmp_path):
    # Noise does not compress: 5120 x 3300 x 3 half floats are 101 MB as a file, too.
    noise = np.random.default_rng(1).integers(0, 0x7BFF, (3300, 5120, 3), dtype=np.uint16)
    write_picture(tmp_path / "big.1.exr", noise.view(np.float16), ("R", "G", "B"))
    assert (tmp_path / "big.1.exr").stat().st_size > 90_000_000
    matte = np.ones((3300, 5120, 1), np.float16)
    matte[0, 0] = 0.0
    write_picture(tmp_path / "matte.1.exr", matte, ("A",))
    words = ["run", "cutout", "--out", str(shot.out), "--input", f"plate={tmp_path}/big.%d.exr"]
    assert gencomp(*words, "--input", f"matte.ball={tmp_path}/matte.%d.exr").code == 0
    assert (shot.out / "background" / "background.0001.exr").stat().st_size > 90_000_000
