# SPDX-License-Identifier: Apache-2.0
"""A full spool: what goes, in which order, and what never does."""

import hashlib

import pytest

from gencomp_protocol.frames import FrameRange
from gencomp_protocol.messages import InputPictures, PictureEntry
from gencomp_protocol.request import Request
from gencomp_server.engine.clearing import Item, Keeper, measure, to_clear
from gencomp_server.engine.job import Job
from gencomp_server.engine.spool import Spool

REQUEST = Request("copy", FrameRange(1, 1), ())
ALL = 1 << 40


def job(name, state, ended_s=None, digests=(), created_s=100.0, **more):
    entries = tuple(PictureEntry(n, 10, d(digest)) for n, digest in enumerate(digests))
    inputs = (InputPictures("plate", entries),)
    return Job(name, name, state, REQUEST, inputs, created_s, ended_s=ended_s, **more)


def d(name):
    """Return the digest of a picture by a short name."""
    return hashlib.blake2b(name.encode(), digest_size=32).hexdigest()


def names(clearing):
    return [item.name for item in clearing.items]


def test_what_can_be_made_again_goes_first_the_least_recently_used_before_the_others():
    items = [
        Item("job", "failed", 10, 1.0),
        Item("stage", "old", 10, 5.0),
        Item("stage", "new", 10, 6.0),
        Item("decoded", "a-exr.raw", 10, 9.0),
    ]
    jobs = [job("failed", "failed", ended_s=2.0)]
    assert names(to_clear(items, jobs, ALL)) == ["a-exr.raw", "old", "new", "failed"]
    assert names(to_clear(items, jobs, 15)) == ["a-exr.raw", "old"]
    assert to_clear(items, jobs, 45).short_bytes == 5
    assert to_clear(items, jobs, 0).items == ()


def test_what_was_used_since_a_job_under_way_came_stays():
    items = [Item("stage", "before", 10, 99.0), Item("stage", "k.saved", 10, 101.0)]
    assert names(to_clear(items, [job("j", "queued")], ALL)) == ["before"]
    assert names(to_clear(items, [], ALL)) == ["before", "k.saved"]


def test_a_result_that_nobody_fetched_is_never_cleared_away():
    items = [Item("job", "done", 10, 1.0), Item("picture", d("p"), 10, 1.0)]
    clearing = to_clear(items, [job("done", "done", ended_s=2.0, digests=["p"])], ALL)
    assert names(clearing) == [d("p")]
    assert clearing.short_bytes == ALL - 10


def test_ended_jobs_go_oldest_first_with_pictures_that_no_other_needs():
    items = [Item("job", name, 10, 1.0) for name in ("late", "early")]
    items += [Item("picture", d(name), 10, 1.0) for name in ("own", "shared", "used", "nobodys")]
    jobs = [
        job("late", "cancelled", ended_s=9.0, digests=["shared"]),
        job("early", "failed", ended_s=3.0, digests=["own", "shared", "used"]),
        job("waits", "queued", digests=["used"]),
    ]
    order = [d("nobodys"), "early", d("own"), "late", d("shared")]
    assert names(to_clear(items, jobs, ALL)) == order


def test_a_picture_that_still_arrives_stays_while_its_job_is_there():
    items = [Item("picture", d("one") + ".part", 10, 1.0)]
    assert names(to_clear(items, [job("r", "receiving", digests=["one"])], ALL)) == []
    assert names(to_clear(items, [], ALL)) == [d("one") + ".part"]


@pytest.fixture
def spool(tmp_path):
    made = Spool(tmp_path / "spool")
    digest = "ab" * 32
    made.picture(digest).write_bytes(bytes(100))
    raw = made.decoded_stem(digest, "exr-colour").with_suffix(".raw")
    raw.write_bytes(bytes(50))
    raw.with_suffix(".json").write_bytes(b"{}")
    (made.stages / "key").mkdir()
    (made.stages / "key" / "0.npy").write_bytes(bytes(30))
    layer = made.layer("j", "boy", 1)
    layer.parent.mkdir(parents=True)
    layer.write_bytes(bytes(20))
    return made


def test_all_of_a_spool_is_found_with_its_size(spool):
    found = {item.kind: item for item in measure(spool)}
    assert {kind: item.name for kind, item in found.items()} == {
        "picture": "ab" * 32,
        "decoded": "ab" * 32 + "-exr-colour.raw",
        "stage": "key",
        "job": "j",
    }
    assert [found[kind].bytes for kind in ("picture", "decoded", "stage")] == [100, 50, 30]
    assert found["job"].bytes >= 20


def test_what_is_chosen_is_gone_from_its_name_at_once_and_from_the_disk_soon(spool):
    keeper = Keeper(spool)
    keeper.remove(to_clear(measure(spool), [job("j", "failed", ended_s=1.0)], ALL))
    assert measure(spool) == []
    keeper._pool.shutdown(wait=True)
    left = [path for path in spool.root.rglob("*") if path.is_file()]
    assert left == []


def test_a_killed_clearing_is_finished_by_the_next_start(spool):
    for item in measure(spool):
        assert spool.doom(item.kind, item.name) is not None
    spool.sweep()
    assert [path for path in spool.root.rglob("*") if path.is_file()] == []


def test_a_spool_is_looked_at_when_there_is_a_quota_or_something_lacks(spool):
    now = [0.0]
    keeper = Keeper(spool, clock=lambda: now[0])
    assert keeper.look(0) is None
    assert keeper._looking is None
    assert keeper.look(1) is None
    keeper._looking.result(10)
    assert len(keeper.look(1)) == 4
    keeper.look(1)
    assert keeper._looking is None  # Not at every turn.
    now[0] = 5.0
    keeper.look(1)
    assert keeper._looking is not None
    keeper.close()


def test_the_quota_counts_everything(spool):
    items = measure(spool)
    total = sum(item.bytes for item in items)
    assert Keeper(spool, total - 7).excess(items) == 7
    assert Keeper(spool, total).excess(items) == 0
    assert Keeper(spool).excess(items) == 0


@pytest.mark.fault("F37")
def test_without_a_thread_for_it_a_spool_is_looked_at_later_and_what_goes_goes_all_the_same(
    spool, monkeypatch
):
    def none_left(*_args):
        raise RuntimeError("can't start new thread")

    now = [0.0]
    keeper = Keeper(spool, clock=lambda: now[0])
    with monkeypatch.context() as patch:
        patch.setattr(keeper._pool, "submit", none_left)
        assert keeper.look(1) is None
        keeper.remove(to_clear(measure(spool), [job("j", "failed", ended_s=1.0)], 60))
    assert not list(spool.decoded.iterdir())
    now[0] = 5.0
    keeper.look(1)
    assert keeper._looking.result(10)
    keeper.close()
