# SPDX-License-Identifier: Apache-2.0
"""A server's figures as Prometheus reads them. Numbers alone: no job, no prompt, no user."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from gencomp_protocol.messages import QUEUED, STATES
from gencomp_server.web.watch import Seen

CONTENT_TYPE = CONTENT_TYPE_LATEST
WORKER_STATES = ("starting", "ready", "busy", "resting", "lost")
# Count of the server, metric, what it says, and what the half after the colon is.
_COUNTS = (
    ("ended", "gencomp_jobs_ended", "Jobs that came to an end.", "state"),
    ("refused", "gencomp_requests_refused", "Requests that were refused.", "code"),
    ("layers", "gencomp_layers", "Layer frames that were made.", ""),
    ("layer_bytes", "gencomp_layer_bytes", "Bytes of layer frames that were made.", ""),
    ("pictures", "gencomp_pictures", "Input pictures that arrived.", ""),
    ("picture_bytes", "gencomp_picture_bytes", "Bytes of input pictures that arrived.", ""),
    ("sent_bytes", "gencomp_sent_bytes", "Bytes of layers that clients fetched.", ""),
    ("worker_deaths", "gencomp_worker_deaths", "Workers that died under a job.", ""),
    ("door", "gencomp_door", "Messages at the door, by what became of them.", "what"),
    ("faults", "gencomp_faults", "Faults of the server's own.", ""),
)


def exposition(read: Callable[[], Seen], clock: Callable[[], float] = time.time) -> bytes:
    """Return all metrics in the text format.

    Args:
        read: Returns what is known of the server.
        clock: Seconds since 1970.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Server(read(), clock()))
    return generate_latest(registry)


class _Server(Collector):
    """The metrics of one moment."""

    def __init__(self, seen: Seen, now_s: float) -> None:
        self._seen, self._now_s = seen, now_s

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; of a server that is away only that it is."""
        seen, health = self._seen, self._seen.health
        yield _gauge("gencomp_up", "Whether the server answers.", float(seen.is_up))
        if not seen.is_up:
            return
        yield from self._of_queue()
        yield from self._of_workers()
        counts: Mapping[str, int] = health.get("counts", {})
        for name, metric, words, label in _COUNTS:
            yield _counter(metric, words, label, name, counts)
        for name, metric, words in (
            ("started_s", "gencomp_start_time_seconds", "When the server started, since 1970."),
            ("rss_bytes", "gencomp_front_resident_bytes", "Memory of the front process."),
            ("free_bytes", "gencomp_spool_free_bytes", "Room on the spool's disk."),
            ("connections", "gencomp_connections", "Clients that are connected, this one too."),
        ):
            yield _gauge(metric, words, float(health.get(name, 0)))
        lost = float(health.get("lost_log_lines", 0))
        yield _of_one("gencomp_log_lines_lost", "Log lines of the front that nothing took.", lost)

    def _of_queue(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("gencomp_jobs", "Jobs by state.", labels=["state"])
        known: Mapping[str, int] = self._seen.health.get("jobs", {})
        for state in STATES:
            jobs.add_metric([state], known.get(state, 0))
        yield jobs
        waiting = [job["created_s"] for job in self._seen.jobs if job.get("state") == QUEUED]
        oldest = max(self._now_s - min(waiting, default=self._now_s), 0.0)
        yield _gauge("gencomp_queue_oldest_seconds", "How long the oldest job waits.", oldest)

    def _of_workers(self) -> Iterator[Metric]:
        workers = GaugeMetricFamily("gencomp_workers", "Workers by state.", labels=["state"])
        found = Counter(one.get("state") for one in self._seen.health.get("workers", ()))
        for state in WORKER_STATES:
            workers.add_metric([state], found[state])
        yield workers


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _of_one(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(name, words, value=value)


def _counter(
    metric: str, words: str, label: str, name: str, counts: Mapping[str, int]
) -> CounterMetricFamily:
    """Return a counter; its label's values are the halves after the colon."""
    if not label:
        return CounterMetricFamily(metric, words, value=float(counts.get(name, 0)))
    made = CounterMetricFamily(metric, words, labels=[label])
    for key, value in sorted(counts.items()):
        of, _, kind = key.partition(":")
        if of == name and kind:
            made.add_metric([kind], float(value))
    return made
