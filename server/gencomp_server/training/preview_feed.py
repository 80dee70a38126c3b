# SPDX-License-Identifier: Apache-2.0
"""Clips for the preview's training, made ahead by other processes, in an order that is drawn.

Clips come in chunks of one size, at the usual one more to remove from than to add to. A block of
chunks is used several times over, each time in another order and augmented otherwise; meanwhile the
next block is made. What a step is given follows from the seed and the step's number alone, so that
a run that goes on is given what an unbroken one is, however many processes make clips.
"""

from __future__ import annotations

import multiprocessing
import queue as queues
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencomp_server.models.preview_words import MOST_WORDS

USUAL = (5, 48, 64)
"""Frames, height and width of the clips that a batch is counted in."""
FEED_VERSION = 2
"""Counts up where other clips, sizes or orders come out for the same seed and step."""
# Frames, height, width and how often: many small clips first, then whatever comes in a job's
# windows.
_SMALL_LOTS = 120
_SMALL = (((3, 48, 64), 0.4), (USUAL, 0.35), ((5, 64, 96), 0.25))
_SIZES = ((USUAL, 0.3), ((9, 48, 64), 0.1), ((5, 64, 96), 0.4), ((9, 64, 96), 0.2))
_ADDED = 0.4  # of a chunk's clips, to whole ones: to see what is to go is harder to learn
TOGETHER = 8
"""Chunks that are made at once."""
_SEEDS_EACH = 1_000_000  # clips of a run's seed; clips for measuring are numbered from 8 million
_MOST_SEEDS = 8
_SWAPPED = {"left": "right", "right": "left"}
_PICTURES, _EDIT = ((0, 3), (3, 6), (6, 9)), 10
_PATIENCE_S, _LOOK_S = 600.0, 2.0
_NO_SUBJECT = 0.4  # of additions with a mask: a plate alone does not say whose effect it is


@dataclass(frozen=True)
class Chunk:
    """Clips of one size.

    Attributes:
        conditions: [B,T,H,W,13].
        target: [B,T,H,W,3].
        words: Of each clip, the task first.
    """

    conditions: Tensor
    target: Tensor
    words: tuple[tuple[str, ...], ...]


def make_chunks(seed: int, number: int, batch: int) -> list[Chunk]:
    """Make some of a run's chunks at once, all of one size: far cheaper than one after another.

    Args:
        seed: The run's, 0..7.
        number: Which ones, from 0; :data:`TOGETHER` chunks each.
        batch: Clips of a chunk at the size :data:`USUAL`; of larger ones there are fewer.
    """
    from gencomp_server.training.preview_shots import make_batch

    rng = np.random.default_rng([seed, number, 1])
    sizes = _SMALL if number < _SMALL_LOTS else _SIZES
    size = int(rng.choice(len(sizes), p=[share for _, share in sizes]))
    frames, height, width = sizes[size][0]
    clips = max(2, round(batch * int(np.prod(USUAL)) / (frames * height * width)))
    added = max(1, round(_ADDED * clips))
    each = {"remove": clips - added, "add": added}
    first = seed * _SEEDS_EACH + 2 * number
    made = {
        task: make_batch(
            first + which, count * TOGETHER, frames, (height, width), families="train", task=task
        )
        for which, (task, count) in enumerate(each.items())
    }
    chunks = []
    for i in range(TOGETHER):
        parts = [(made[task], slice(i * count, (i + 1) * count)) for task, count in each.items()]
        chunks.append(
            Chunk(
                torch.cat([one.conditions[place] for one, place in parts]),
                torch.cat([one.target[place] for one, place in parts]),
                tuple(words[:MOST_WORDS] for one, place in parts for words in one.words[place]),
            )
        )
    return chunks


class Feed:
    """Chunks for steps, one after another.

    Args:
        seed: The run's, 0..7.
        batch: Clips of a step at the size :data:`USUAL`.
        step: The first step to serve.
        block: Chunks of a block, a multiple of :data:`TOGETHER`.
        reuse: Times that a chunk is used.
        workers: Processes that make chunks.

    Raises:
        ValueError: The seed is none of 0..7, or the block no multiple of :data:`TOGETHER`.
    """

    def __init__(
        self, seed: int, batch: int, step: int, *, block: int = 24, reuse: int = 4, workers: int = 1
    ) -> None:
        if block % TOGETHER:
            raise ValueError(f"a block of chunks is a multiple of {TOGETHER}, not {block}")
        if not 0 <= seed < _MOST_SEEDS:
            raise ValueError(f"a training of the preview has a seed of 0 to 7, not {seed}")
        self._seed, self._block, self._reuse = seed, block, reuse
        self._step = step
        self._held: list[Chunk] = []
        first = step // (block * reuse) * block // TOGETHER
        context = multiprocessing.get_context("spawn")
        ahead = -(-block // TOGETHER // workers)
        self._queues: list[Any] = [context.Queue(maxsize=ahead) for _ in range(workers)]
        self._next = first
        self._workers = [
            context.Process(
                target=_produce, args=(queue, seed, batch, first + which, workers), daemon=True
            )
            for which, queue in enumerate(self._queues)
        ]
        self._first = first
        for worker in self._workers:
            worker.start()

    def take(self) -> Chunk:
        """Return the next step's clips, augmented.

        Raises:
            RuntimeError: No clips come any more; the process that makes them has said why.
        """
        length = self._block * self._reuse
        block, at = divmod(self._step, length)
        if not self._held or at == 0:
            calls = range(self._block // TOGETHER)
            self._held = [chunk for _ in calls for chunk in self._received()]
        rng = np.random.default_rng([self._seed, block, at // self._block, 2])
        order = rng.permutation(self._block)
        chunk = self._held[order[at % self._block]]
        found = augmented(chunk, np.random.default_rng([self._seed, self._step, 3]))
        self._step += 1
        return found

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()

    def _received(self) -> list[Chunk]:
        which = (self._next - self._first) % len(self._queues)
        worker, waited = self._workers[which], 0.0
        while waited < _PATIENCE_S and (worker.is_alive() or not self._queues[which].empty()):
            try:
                given = self._queues[which].get(timeout=_LOOK_S)
            except queues.Empty:
                waited += _LOOK_S
                continue
            self._next += 1
            return [Chunk(torch.from_numpy(c), torch.from_numpy(t), words) for c, t, words in given]
        why = f"none came in {_PATIENCE_S:.0f} s" if worker.is_alive() else "their process ended"
        raise RuntimeError(f"no chunks {self._next} of the preview's clips: {why}")


def _produce(queue: Any, seed: int, batch: int, first: int, every: int) -> None:
    """Make each ``every``-th lot of chunks for as long as somebody is there to take them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asked for clips is stopped, and says so
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    asker = multiprocessing.parent_process()
    number = first
    while asker is not None and asker.is_alive():
        given = [
            (one.conditions.half().numpy(), one.target.half().numpy(), one.words)
            for one in make_chunks(seed, number, batch)
        ]
        while asker.is_alive():
            try:
                queue.put(given, timeout=_LOOK_S)
                break
            except queues.Full:
                continue
        number += every
    queue.cancel_join_thread()


def augmented(chunk: Chunk, rng: np.random.Generator) -> Chunk:
    """Return clips turned round: flipped, and where something is removed also in time and colour.

    Where something is added and a mask is drawn, nobody may have said whose effect it is: the
    subject is then empty.

    Args:
        chunk: Clips; float16 or float32.
        rng: Where chance comes from.

    Returns:
        float32. Words for left and right change places where pictures do.
    """
    conditions = chunk.conditions.to(torch.float32, copy=True)
    target = chunk.target.to(torch.float32, copy=True)
    words = list(chunk.words)
    for i, said in enumerate(chunk.words):
        if rng.random() < 0.5:
            conditions[i], target[i] = conditions[i].flip(2), target[i].flip(2)
            words[i] = swapped(said)
        if said[0] != "remove":
            drawn = bool((conditions[i][..., _EDIT] > 0).any())
            if drawn and rng.random() < _NO_SUBJECT:
                conditions[i][..., -1:] = 0
            continue
        if rng.random() < 0.5:
            conditions[i], target[i] = conditions[i].flip(0), target[i].flip(0)
        order = rng.permutation(3)
        target[i] = target[i][..., order]
        for start, end in _PICTURES:
            conditions[i][..., start:end] = conditions[i][..., start:end][..., order]
    return Chunk(conditions, target, tuple(words))


def swapped(words: Sequence[str]) -> tuple[str, ...]:
    """Return words with left and right in each other's place."""
    return tuple(_SWAPPED.get(word, word) for word in words)
