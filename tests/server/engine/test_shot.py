# SPDX-License-Identifier: Apache-2.0
"""A job's material: the file's own samples, a frame at a time, and maps that are let go."""

import gc

import numpy as np
import pytest

from gencomp_protocol.errors import BadPicture, MissingFrame, MissingInput
from gencomp_protocol.frames import Box
from gencomp_server.engine.shot import PictureShelf, SpoolShot
from gencomp_server.exr.decode import DecodePool


@pytest.fixture
def pool():
    made = DecodePool(1)
    yield made
    made.close()


def shot_of(job, pool, **facts):
    request = job.request()
    return SpoolShot(
        request, PictureShelf(job.spool, job.system, request, job.pictures, pool, **facts)
    )


@pytest.fixture
def shot(tiny_job, pool):
    return shot_of(tiny_job, pool)


def mapped_files(folder):
    """Return the decoded files that this process has mapped."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return {line.split()[-1] for line in maps if str(folder) in line}


def test_a_frame_is_the_files_own_samples_read_only(shot):
    plate = shot.frame("plate", 1002)
    assert (plate.dtype, plate.shape, plate[1, 3].tolist()) == (np.float16, (2, 4, 3), [1.5] * 3)
    with pytest.raises(ValueError, match="read-only"):
        plate[0, 0, 0] = 0


def test_a_matte_is_one_channel_deep(shot):
    assert shot.frame("matte.a", 1002).shape == (2, 4, 1)


def test_channels_come_by_name_in_the_order_asked(tiny_job, pool):
    pixels = np.broadcast_to(np.array([1, 2, 3, 4], np.float16), (2, 4, 4))
    tiny_job.add("plate", 1001, np.ascontiguousarray(pixels), ("R", "G", "B", "A"))
    shot = shot_of(tiny_job, pool)
    assert shot.frame("plate", 1001, ("R", "G", "B"))[0, 0].tolist() == [1, 2, 3]
    assert shot.frame("plate", 1001, ("A", "R"))[0, 0].tolist() == [4, 1]
    with pytest.raises(MissingInput, match=r"no channel 'Z'\. It has R, G, B, A"):
        shot.frame("plate", 1001, ("Z",))


def test_rows_are_rows_of_the_frame(tiny_job, pool):
    tall = np.arange(8, dtype=np.float16).reshape(8, 1, 1).repeat(3, axis=2)
    tiny_job.add("plate", 1001, tall)
    shot = shot_of(tiny_job, pool)
    assert shot.rows("plate", 1001, 2, 5)[:, 0, 0].tolist() == [2.0, 3.0, 4.0]


def test_a_still_answers_for_every_frame(shot):
    assert shot.frames_of("clean_plate") == (1,)
    assert shot.frame("clean_plate", 1002)[0, 0, 0] == 7.0
    assert shot.digest("clean_plate", 1001) == shot.digest("clean_plate", 1002)


def test_headers_tell_windows_and_the_first_picture_is_the_default(tiny_job, pool):
    wide = {"display_window": Box(-4, 0, 9, 9)}
    tiny_job.add("plate", 1002, np.zeros((2, 4, 3), np.float32), **wide)
    shot = shot_of(tiny_job, pool)
    assert shot.header("plate").pixel_type == "half"
    assert shot.header("plate", 1002).display_window == Box(-4, 0, 9, 9)


def test_what_is_not_there_is_missing_by_name(shot):
    with pytest.raises(MissingFrame, match="'plate' has no frame 1003"):
        shot.frame("plate", 1003)
    with pytest.raises(MissingInput, match=r"no input 'keep'"):
        shot.header("keep")


def test_only_shows_what_was_named(shot):
    bare = shot.only("plate")
    assert bare.names == ("plate",)
    assert bare.frame("plate", 1001).shape == (2, 4, 3)
    with pytest.raises(MissingInput, match=r"no input 'matte\.a'"):
        bare.frame("matte.a", 1001)
    with pytest.raises(MissingInput, match="no input 'keep'"):
        shot.only("keep")


def test_pixels_that_were_removed_are_decoded_again(tiny_job, shot):
    assert shot.frame("plate", 1001)[0, 0, 0] == 0.5
    fresh = shot_of(tiny_job, shot._shelf._pool)
    for path in tiny_job.spool.decoded.iterdir():
        path.unlink()
    assert fresh.frame("plate", 1001)[0, 0, 0] == 0.5
    for path in tiny_job.spool.decoded.glob("*.raw"):
        path.unlink()
    assert shot.frame("plate", 1002)[0, 0, 0] == 1.5


def test_a_picture_that_went_bad_in_the_spool_is_refused(tiny_job, shot):
    tiny_job.spool.picture(tiny_job.pictures["plate"][1001]).write_bytes(b"\x76\x2f\x31\x01")
    with pytest.raises(BadPicture, match="Input 'plate' frame 1001"):
        shot.frame("plate", 1001)


def test_maps_are_let_go_when_others_are_asked_for(tiny_job, pool):
    shot = shot_of(tiny_job, pool, mapped_bytes=48)
    folder = tiny_job.spool.decoded
    for name, n in (("plate", 1001), ("plate", 1002), ("clean_plate", 1001)):
        shot.frame(name, n)
    gc.collect()
    assert len(mapped_files(folder)) == 1
    held = shot.frame("plate", 1001)
    shot.frame("plate", 1002)
    assert held[0, 0, 0] == 0.5
    shot._shelf.close()
    del held
    gc.collect()
    assert mapped_files(folder) == set()


def carrying(job, pool, **facts):
    """Return a shot whose plates have a depth of their own."""
    for n in (1001, 1002):
        pixels = np.full((2, 4, 4), n, np.float16)
        job.add("plate", n, pixels, ("R", "G", "B", "Z"))
    return shot_of(job, pool, **facts)


def test_what_goes_along_is_all_but_r_g_and_b_and_kept_for_the_last_frames_alone(tiny_job, pool):
    shot = carrying(tiny_job, pool, rest_bytes=16)
    held = shot.rest("plate", 1001)
    assert held.planes[0][0].samples.tolist() == [[1001.0] * 4] * 2
    assert [path.stat().st_size for path in tiny_job.spool.decoded.glob("*-rest.raw")] == [16]
    shot.rest("plate", 1002)
    (kept,) = tiny_job.spool.decoded.glob("*-rest.raw")
    assert kept.name.startswith(tiny_job.pictures["plate"][1002])
    assert held.planes[0][0].samples.tolist() == [[1001.0] * 4] * 2
    assert shot.rest("plate", 1001).rest.names == ("Z",)


def test_what_goes_along_is_decoded_again_where_it_was_removed(tiny_job, pool):
    shot = carrying(tiny_job, pool)
    shot.rest("plate", 1001)
    for path in tiny_job.spool.decoded.glob("*-rest.*"):
        path.unlink()
    assert shot.rest("plate", 1001).planes[0][0].samples[0, 0] == 1001.0


def test_a_still_gives_the_same_to_every_frame(shot):
    assert shot.rest("clean_plate", 1002).rest.names == ()
