# SPDX-License-Identifier: Apache-2.0
"""Pictures in chunks: credit, resume, digests, and never half a picture."""

import errno
import os
import stat
from hashlib import blake2b

import pytest

from gencomp_protocol import disk, transfer
from gencomp_protocol.errors import (
    BadPicture,
    DiskFull,
    MalformedMessage,
    MissingFrame,
    UnwritableOutput,
)
from gencomp_protocol.messages import CHUNK_BYTES, Chunk, Want, Withheld
from gencomp_protocol.transfer import (
    Arrived,
    Credit,
    Expected,
    Lost,
    Receiver,
    digest_of_file,
    picture_of,
    read_stretch,
)

CONTENT = bytes(range(256)) * 400  # 102,400 bytes
# The published BLAKE2b-256 digests of nothing and of "abc".
EMPTY_DIGEST = "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
ABC_DIGEST = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"


def expected(folder, name="plate", frame=1, content=CONTENT, job="j"):
    """Return what is announced of a picture that is to come into a folder."""
    digest = blake2b(content, digest_size=32).hexdigest()
    path = folder / f"{name}.{frame}"
    part = folder / f"{name}.{frame}.part"
    return Expected(job, "input", name, frame, len(content), digest, path, part)


def answer(want, content=CONTENT):
    """Return the chunk that an honest owner sends."""
    body = content[want.offset : want.offset + want.length]
    return Chunk(want.job, want.what, want.name, want.frame, want.offset, body)


def deliver(receiver, content=CONTENT):
    """Answer every want until nothing is left; return the outcomes and all the wants."""
    outcomes, asked = [], []
    while not receiver.is_idle:
        wants = receiver.wants()
        asked += wants
        for want in wants:
            receiver.take(answer(want, content))
        outcomes += receiver.outcomes()
    return outcomes, asked


def test_a_picture_arrives_whole_under_its_name(tmp_path):
    receiver = Receiver(64_000, 8_192)
    one = expected(tmp_path)
    receiver.expect(one)
    outcomes, _ = deliver(receiver)
    assert outcomes == [Arrived(one)]
    assert one.path.read_bytes() == CONTENT
    assert not one.part.exists()


@pytest.mark.fault("F39")
def test_until_it_is_whole_nothing_stands_under_its_name(tmp_path):
    receiver = Receiver(8_192, 8_192)
    one = expected(tmp_path)
    receiver.expect(one)
    for _ in range(12):
        for want in receiver.wants():
            receiver.take(answer(want))
            assert not one.path.exists()
    assert one.part.stat().st_size == 12 * 8_192
    assert receiver.outcomes() == []


@pytest.mark.fault("F22")
def test_no_more_is_in_flight_than_the_credit_allows(tmp_path):
    receiver = Receiver(20_000, 8_192)
    for frame in range(3):
        receiver.expect(expected(tmp_path, frame=frame))
    wants = receiver.wants()
    assert [want.length for want in wants] == [8_192, 8_192]
    assert receiver.in_flight == 16_384
    assert receiver.wants() == []
    receiver.take(answer(wants[0]))
    assert [(want.offset, want.received) for want in receiver.wants()] == [(16_384, 8_192)]


def test_a_picture_larger_than_the_credit_arrives(tmp_path):
    receiver = Receiver(5_000, CHUNK_BYTES)
    one = expected(tmp_path)
    receiver.expect(one)
    outcomes, asked = deliver(receiver)
    assert outcomes == [Arrived(one)]
    assert max(want.length for want in asked) == 5_000
    assert len(asked) == 21


def test_honest_wants_never_go_beyond_the_owners_own_count(tmp_path):
    receiver, owed = Receiver(20_000, 8_192), Credit(20_000)
    for frame in range(4):
        receiver.expect(expected(tmp_path, frame=frame))
    for want in deliver(receiver)[1]:
        owed.take(want)


def test_wants_beyond_the_credit_are_refused():
    owed = Credit(16_384)
    owed.take(Want("j", "layer", "a", 1, 0, 8_192, 0))
    owed.take(Want("j", "layer", "a", 1, 8_192, 8_192, 0))
    with pytest.raises(MalformedMessage, match="credit of 16384"):
        owed.take(Want("j", "layer", "a", 1, 16_384, 1, 0))


def test_claiming_to_have_received_what_was_never_wanted_buys_nothing():
    owed = Credit(16_384)
    owed.take(Want("j", "layer", "a", 1, 0, 8_192, 0))
    with pytest.raises(MalformedMessage, match="received"):
        owed.take(Want("j", "layer", "a", 1, 0, 8_192, 8_193))


@pytest.mark.fault("F19")
def test_a_part_from_an_earlier_attempt_goes_on_at_its_offset(tmp_path):
    one = expected(tmp_path)
    one.part.write_bytes(CONTENT[:40_000])
    receiver = Receiver(64_000, 8_192)
    receiver.expect(one)
    outcomes, asked = deliver(receiver)
    assert asked[0].offset == 40_000
    assert sum(want.length for want in asked) == len(CONTENT) - 40_000
    assert outcomes == [Arrived(one)]
    assert one.path.read_bytes() == CONTENT


def test_a_part_that_was_whole_already_asks_for_nothing(tmp_path):
    one = expected(tmp_path)
    one.part.write_bytes(CONTENT)
    receiver = Receiver(64_000)
    receiver.expect(one)
    assert receiver.wants() == []
    assert receiver.outcomes() == [Arrived(one)]


@pytest.mark.parametrize("left", [CONTENT + b"more", b"x" * 50_000, b"x" * len(CONTENT)])
def test_a_part_of_something_else_is_fetched_anew(tmp_path, left):
    one = expected(tmp_path)
    one.part.write_bytes(left)
    receiver = Receiver(64_000)
    receiver.expect(one)
    outcomes, _ = deliver(receiver)
    assert outcomes == [Arrived(one)]
    assert one.path.read_bytes() == CONTENT


@pytest.mark.fault("F03")
def test_a_flipped_bit_is_fetched_once_more(tmp_path):
    receiver = Receiver(64_000)
    one = expected(tmp_path)
    receiver.expect(one)
    first = True
    while not one.path.exists():
        for want in receiver.wants():
            chunk = answer(want)
            if first:
                first = False
                flipped = bytes([chunk.body[0] ^ 1]) + chunk.body[1:]
                chunk = Chunk("j", "input", "plate", 1, chunk.offset, flipped)
            receiver.take(chunk)
    assert receiver.asked_again() == [one]
    assert receiver.asked_again() == []
    assert receiver.outcomes() == [Arrived(one)]
    assert one.path.read_bytes() == CONTENT


@pytest.mark.fault("F03")
def test_a_picture_that_is_wrong_twice_is_given_up(tmp_path):
    receiver = Receiver(64_000)
    one = expected(tmp_path)
    receiver.expect(one)
    (lost,), asked = deliver(receiver, content=b"\x00" * len(CONTENT))
    assert isinstance(lost, Lost)
    assert isinstance(lost.error, BadPicture)
    assert "'plate' frame 1" in lost.error.message
    assert sum(want.length for want in asked) == 2 * len(CONTENT)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_is_withheld_is_lost_with_the_owners_reason(tmp_path):
    receiver = Receiver(64_000, 8_192)
    one = expected(tmp_path)
    receiver.expect(one)
    for want in receiver.wants():
        error = MissingFrame("It was deleted.")
        receiver.take(Withheld(want.job, want.what, want.name, want.frame, error))
    (lost,) = receiver.outcomes()
    assert lost.error.message == "It was deleted."
    assert receiver.in_flight == 0
    assert receiver.is_idle


def test_a_chunk_that_nobody_wanted_is_refused(tmp_path):
    receiver = Receiver(64_000)
    with pytest.raises(MalformedMessage, match="was not wanted"):
        receiver.take(Chunk("j", "input", "plate", 1, 0, b"surprise"))


@pytest.mark.fault("F23")
def test_a_chunk_that_was_lost_before_a_later_one_is_wanted_again(tmp_path):
    receiver = Receiver(64_000, 16_000)
    receiver.expect(expected(tmp_path))
    wants = receiver.wants()
    for want in (wants[0], wants[2], wants[3]):  # The second is lost.
        receiver.take(answer(want))
    assert receiver.in_flight == 0
    again = receiver.wants()
    assert [want.offset for want in again] == [16_000, 64_000, 80_000, 96_000]
    for want in again:
        receiver.take(answer(want))
    outcomes, _ = deliver(receiver)
    assert isinstance(outcomes[0], Arrived)
    assert (tmp_path / "plate.1").read_bytes() == CONTENT


@pytest.mark.fault("F23")
def test_what_was_wanted_before_its_owner_spoke_of_later_things_is_wanted_again(tmp_path):
    receiver = Receiver(32_000, 16_000)
    receiver.expect(expected(tmp_path))
    first = receiver.wants()
    assert (len(first), receiver.asked) == (2, 2)
    receiver.give_up(1)
    assert receiver.in_flight == 16_000
    (again,) = receiver.wants()
    assert (again.offset, again.length) == (0, 16_000)
    # Both answers come after all: the first counts for what is wanted again, the other for nothing.
    receiver.take(answer(first[0]))
    receiver.take(answer(first[1]))
    receiver.take(answer(again))
    assert receiver.in_flight == 0
    outcomes, asked = deliver(receiver)
    assert isinstance(outcomes[0], Arrived)
    assert [want.offset for want in asked] == [32_000, 48_000, 64_000, 80_000, 96_000]


@pytest.mark.fault("F23")
def test_wants_of_what_was_lost_stay_within_the_owners_count(tmp_path):
    receiver, owner = Receiver(32_000, 8_000), Credit(32_000)
    receiver.expect(expected(tmp_path))
    answers = 0
    while not receiver.is_idle:
        wants = receiver.wants()
        for want in wants:
            owner.take(want)
        for want in wants:
            answers += 1
            if answers % 3:  # Every third is lost.
                receiver.take(answer(want))
        if not wants:
            receiver.give_up(receiver.asked)
        receiver.outcomes()
    assert answers > 18
    assert (tmp_path / "plate.1").read_bytes() == CONTENT


@pytest.mark.fault("F23")
def test_an_answer_that_was_given_up_is_passed_over_once(tmp_path):
    receiver = Receiver(8_192, 8_192)
    receiver.expect(expected(tmp_path))
    (want,) = receiver.wants()
    receiver.give_up(1)
    receiver.forget("j")
    receiver.take(answer(want))
    with pytest.raises(MalformedMessage, match="was not wanted"):
        receiver.take(answer(want))


@pytest.mark.fault("F23")
def test_nothing_is_kept_of_each_stretch_that_was_lost_of_jobs_that_are_forgotten(tmp_path):
    receiver = Receiver(8_192, 8_192)
    for number in range(300):
        receiver.expect(expected(tmp_path, job=f"j{number}"))
        for _ in range(3):
            assert len(receiver.wants()) == 1
            receiver.give_up(receiver.asked)
        receiver.forget(f"j{number}")
    assert not receiver._given_up
    assert len(receiver._late) <= 64


def test_after_forgetting_a_job_its_late_chunks_free_the_credit_and_write_nothing(tmp_path):
    receiver = Receiver(8_192, 8_192)
    receiver.expect(expected(tmp_path))
    receiver.expect(expected(tmp_path, name="other", job="k"))
    (want,) = receiver.wants()
    receiver.forget("j")
    assert receiver.wants() == []
    receiver.take(answer(want))
    assert (tmp_path / "plate.1.part").stat().st_size == 0
    assert [want.job for want in receiver.wants()] == ["k"]


def test_what_was_on_its_way_is_known_when_the_link_drops(tmp_path):
    receiver = Receiver(8_192, 8_192)
    first, second = expected(tmp_path, frame=1), expected(tmp_path, frame=2)
    receiver.expect(first)
    receiver.expect(second)
    receiver.wants()
    assert receiver.unfinished() == [first, second]


def test_a_folder_that_is_not_there_loses_the_picture_with_a_sentence(tmp_path):
    receiver = Receiver(64_000)
    receiver.expect(expected(tmp_path / "nowhere"))
    assert receiver.wants() == []
    (lost,) = receiver.outcomes()
    assert isinstance(lost.error, UnwritableOutput)
    assert receiver.is_idle


def test_a_layer_that_no_longer_fits_on_the_artists_disk_is_named_with_the_cure(
    tmp_path, monkeypatch
):
    def full(_arrival, _body):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer._Arrival, "append", full)
    receiver = Receiver(64_000)
    one = expected(tmp_path, name="background", frame=1002)
    receiver.expect(one)
    (want, *_) = receiver.wants()
    receiver.take(answer(want))
    (lost,) = receiver.outcomes()
    assert isinstance(lost.error, DiskFull)
    assert "'background' frame 1002 cannot be written: the disk is full." in str(lost.error)
    assert "run it again" in lost.error.hint


@pytest.mark.fault("F36")
def test_a_picture_that_could_not_be_written_for_a_moment_arrives(tmp_path):
    left = [2]

    def away(doing, path):
        if doing == "write" and left[0]:
            left[0] -= 1
            raise OSError(errno.ESTALE, "Stale file handle")

    receiver = Receiver(64_000)
    receiver.expect(expected(tmp_path))
    with disk.faults(away):
        (arrived,), _ = deliver(receiver)
    assert arrived.picture.path.read_bytes() == CONTENT
    assert left == [0]


@pytest.mark.fault("F35")
def test_what_did_not_fit_goes_on_where_it_stopped_once_there_is_room(tmp_path):
    def full(doing, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    receiver = Receiver(40_000, 40_000)
    one = expected(tmp_path)
    receiver.expect(one)
    (want,) = receiver.wants()
    receiver.take(answer(want))
    (want,) = receiver.wants()
    with disk.faults(full):
        receiver.take(answer(want))
    (lost,) = receiver.outcomes()
    assert lost.error.details["errno"] == "ENOSPC"
    assert not one.path.exists()
    receiver.expect(one)
    outcomes, asked = deliver(receiver)
    assert asked[0].offset == want.offset
    assert [type(outcome) for outcome in outcomes] == [Arrived]


@pytest.mark.fault("F31")
def test_a_picture_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    order = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle):
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_sync(handle)

    def replace(part, path):
        order.append("name")
        real_replace(part, path)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    receiver = Receiver(200_000)
    receiver.expect(expected(tmp_path))
    ((arrived,), _) = deliver(receiver)
    assert isinstance(arrived, Arrived)
    assert order == ["file", "name", "folder"]


def test_a_picture_is_announced_with_size_and_digest(tmp_path):
    path = tmp_path / "abc.exr"
    path.write_bytes(b"abc")
    assert (picture_of(path).bytes, picture_of(path).digest) == (3, ABC_DIGEST)
    (tmp_path / "none").write_bytes(b"")
    assert digest_of_file(tmp_path / "none") == EMPTY_DIGEST


def test_a_picture_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(MissingFrame, match=r"plate\.1001\.exr"):
        picture_of(tmp_path / "plate.1001.exr")
    (tmp_path / "empty.exr").write_bytes(b"")
    with pytest.raises(BadPicture, match=r"empty\.exr"):
        picture_of(tmp_path / "empty.exr")


def test_an_owner_sends_exactly_the_stretch_that_was_wanted(tmp_path):
    path = tmp_path / "one.exr"
    path.write_bytes(CONTENT)
    chunk = read_stretch(path, len(CONTENT), Want("j", "layer", "a", 7, 300, 5))
    assert (chunk.offset, chunk.body) == (300, bytes([44, 45, 46, 47, 48]))


@pytest.mark.parametrize(
    ("size", "offset", "error"),
    [
        pytest.param(len(CONTENT), len(CONTENT) - 4, MalformedMessage, id="beyond the end"),
        pytest.param(len(CONTENT) + 5, 0, BadPicture, id="the file shrank"),
        pytest.param(len(CONTENT) - 5, 0, BadPicture, id="the file grew"),
    ],
)
def test_an_owner_refuses_a_stretch_that_is_not_the_announced_picture(
    tmp_path, size, offset, error
):
    path = tmp_path / "one.exr"
    path.write_bytes(CONTENT)
    with pytest.raises(error):
        read_stretch(path, size, Want("j", "layer", "a", 7, offset, 5))


def test_an_owner_whose_file_is_gone_says_so(tmp_path):
    with pytest.raises(MissingFrame, match="'plate' frame 7"):
        read_stretch(tmp_path / "gone.exr", 10, Want("j", "input", "plate", 7, 0, 5))
