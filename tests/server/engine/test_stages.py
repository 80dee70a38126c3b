# SPDX-License-Identifier: Apache-2.0
"""The stage store: values come back as they were, different values have different keys."""

import gc
import math
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gencomp_protocol.errors import DiskFull
from gencomp_protocol.frames import Box, FrameRange
from gencomp_server.engine.stages import StageStore


@dataclass(frozen=True)
class Solved:
    alpha: np.ndarray
    notes: tuple
    window: Box


@pytest.fixture
def store(tmp_path):
    return StageStore(tmp_path / "stages")


def names(store_folder):
    return sorted(path.name for path in store_folder.iterdir())


def test_a_value_comes_back_as_it_was(store):
    value = {
        "n": None,
        "yes": True,
        3: [1, 2.5, "text", b"\0\xff"],
        ("a", 1): (math.inf, -0.0),
        "box": Box(1, 2, 3, 4),
        "scalar": np.float32(0.1),
    }
    found = store.save("k" * 48, value)
    assert found == value
    assert math.copysign(1, found["a", 1][1]) == -1
    assert isinstance(found[3], list)
    assert type(found["scalar"]) is np.float32


def test_an_array_comes_back_mapped_and_read_only(store):
    alpha = np.arange(6, dtype=np.float16).reshape(2, 3)
    found = store.save("k" * 48, Solved(alpha, ("a", 1), Box(0, 0, 2, 1)))
    assert isinstance(found, Solved)
    assert isinstance(found.alpha, np.memmap)
    assert (found.alpha.dtype, found.alpha.tolist()) == (np.float16, [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(ValueError, match="read-only"):
        found.alpha[0, 0] = 1


@pytest.mark.parametrize(
    "array",
    [
        np.array([[np.nan, -0.0, np.inf]], np.float32),
        np.zeros((0, 3), np.int64),
        np.array(7, np.uint16),
        np.array([True, False]),
        np.arange(24, dtype=np.float64).reshape(2, 3, 4)[:, ::2, ::-1],
        np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    ],
)
def test_arrays_of_every_shape_and_kind_keep_their_bits(store, array):
    found = store.save("k" * 48, array)
    assert (found.dtype, found.shape, found.tobytes()) == (
        array.dtype,
        array.shape,
        array.tobytes(),
    )


def test_what_was_never_made_is_not_there(store):
    assert store.load("0" * 48) is None


def test_none_that_was_made_is_there(store):
    store.save("k" * 48, None)
    assert store.load("k" * 48) == (None,)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), lambda: 1, Box])
def test_what_is_not_plain_is_refused_and_leaves_nothing(store, tmp_path, value):
    with pytest.raises(TypeError):
        store.save("k" * 48, value)
    assert names(tmp_path / "stages") == []
    with pytest.raises(TypeError):
        store.key(value)


def test_a_dataclass_that_could_not_be_found_again_is_refused(store):
    @dataclass(frozen=True)
    class Local:
        x: int

    with pytest.raises(TypeError, match="local to a function"):
        store.save("k" * 48, Local(1))


DIFFERENT = [
    1,
    1.0,
    True,
    "1",
    b"1",
    None,
    (),
    (1,),
    (1, 2),
    ((1,), 2),
    (1, (2,)),
    {},
    {"a": 1},
    {"a": 2},
    {"b": 1},
    0.0,
    -0.0,
    math.nan,
    "ab",
    ("a", "b"),
    FrameRange(1, 2),
    FrameRange(1, 3),
    Box(0, 0, 1, 1),
    np.float32(1),
    np.float64(1),
    np.zeros(2, np.float32),
    np.zeros(2, np.float16),
    np.zeros((2, 1), np.float32),
    np.zeros((1, 2), np.float32),
    np.array([0.0, -0.0], np.float32),
]


def test_values_that_differ_have_keys_that_differ(store):
    keys = [store.key(value) for value in DIFFERENT]
    assert len(set(keys)) == len(keys)


def test_equal_values_have_equal_keys_however_they_are_stored(store):
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert store.key(square) == store.key(np.asfortranarray(square)) == store.key(square.copy())
    assert store.key({"a": 1, "b": 2}) == store.key({"b": 2, "a": 1})
    assert store.key([1, 2]) == store.key((1, 2))


def test_where_one_value_ends_and_the_next_begins_matters(store):
    assert store.key("ab", "c") != store.key("a", "bc")


def test_an_array_from_a_stage_has_the_key_of_its_content(store):
    made = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = store.save("k" * 48, made)
    assert store.key(found) == store.key(made)
    assert store.key(found[0]) == store.key(made[0])


def test_a_digest_is_forgotten_with_its_array_so_that_another_in_its_place_has_its_own(store):
    first = store.save("a" * 48, np.zeros(4, np.float32))
    key = store.key(first)
    del first
    gc.collect()
    others = [np.full(4, i, np.float32) for i in range(1, 50)]
    assert key not in {store.key(other) for other in others}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plain)
def test_any_plain_value_comes_back_and_keeps_its_key(store, value):
    # A list and a tuple of the same have one key, so the place is by their spelling.
    found = store.save(store.key(repr(value)), value)
    assert found == value
    assert store.key(found) == store.key(value)


def test_a_checkpoint_comes_back_and_the_last_one_counts(store):
    key = "k" * 48
    assert store.load_checkpoint(key, "solver") is None
    store.save_checkpoint(key, "solver", {"x": np.array([1.0]), "file": np.array([2.0])})
    store.save_checkpoint(key, "solver", {"x": np.array([3.0], np.float32)})
    found = store.load_checkpoint(key, "solver")
    assert {name: array.tolist() for name, array in found.items()} == {"x": [3.0]}
    assert store.load_checkpoint(key, "other") is None


def test_names_of_checkpoints_that_look_alike_are_kept_apart(store):
    for i, name in enumerate(("a/b", "a_b", "../a", "a" * 300)):
        store.save_checkpoint("k" * 48, name, {"x": np.array([i])})
    found = [store.load_checkpoint("k" * 48, n)["x"][0] for n in ("a/b", "a_b", "../a", "a" * 300)]
    assert found == [0, 1, 2, 3]


def test_checkpoints_go_when_the_stage_is_complete(store, tmp_path):
    store.save_checkpoint("k" * 48, "solver", {"x": np.array([1.0])})
    store.save("k" * 48, 5)
    assert names(tmp_path / "stages") == ["k" * 48]


def test_who_comes_second_takes_what_the_first_made(store, tmp_path):
    store.save("k" * 48, 1)
    assert store.save("k" * 48, 2) == 1
    assert names(tmp_path / "stages") == ["k" * 48]


@pytest.mark.parametrize("harm", ["gone", "cut short"])
def test_a_stage_that_lost_a_file_is_made_again_and_does_not_stop_every_later_run(
    store, tmp_path, harm
):
    store.save("k" * 48, (np.arange(6.0), "old"))
    place = tmp_path / "stages" / ("k" * 48) / "0.npy"
    os.truncate(place, 100) if harm == "cut short" else place.unlink()
    assert store.load("k" * 48) is None
    found = store.save("k" * 48, (np.arange(6.0), "new"))
    assert (found[0].tolist(), found[1]) == ([0, 1, 2, 3, 4, 5], "new")
    assert names(tmp_path / "stages") == ["k" * 48]


def test_a_full_disk_is_said_and_leaves_nothing(store, tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        store.save("k" * 48, np.zeros(3))
    assert names(tmp_path / "stages") == []


def test_a_disk_that_fills_up_in_the_middle_of_an_array_is_told_as_a_full_disk(
    store, tmp_path, monkeypatch
):
    real = os.open

    def onto_a_full_disk(path, *more, **named):
        return real("/dev/full" if str(path).endswith(".npy") else path, *more, **named)

    monkeypatch.setattr(os, "open", onto_a_full_disk)
    with pytest.raises(DiskFull, match="is full"):
        store.save("k" * 48, np.zeros(1 << 20))
    assert names(tmp_path / "stages") == []


CRASH = """
import os, sys
import numpy as np
from pathlib import Path
from gencomp_server.engine import stages
store = stages.StageStore(Path(sys.argv[1]))
store.save_checkpoint("k" * 48, "solver", {"x": np.array([41.0])})
stages._become = lambda part, folder: os._exit(9)
store.save("k" * 48, np.zeros(1000))
"""


def test_a_process_that_dies_while_saving_leaves_checkpoints_and_no_stage(store, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    folder = tmp_path / "stages"
    died = subprocess.run([sys.executable, "-c", CRASH, str(folder)], env=environment, check=False)
    assert died.returncode == 9
    assert store.load("k" * 48) is None
    assert store.load_checkpoint("k" * 48, "solver")["x"].tolist() == [41.0]
    assert store.save("k" * 48, 42) == 42
