# SPDX-License-Identifier: Apache-2.0
"""A server's figures as Prometheus reads them back."""

from prometheus_client.parser import text_string_to_metric_families

from gencomp_server.web.metrics import exposition
from gencomp_server.web.watch import Seen

SEEN = Seen(
    turn=3,
    is_up=True,
    why="",
    at_s=1.0,
    health={
        "started_s": 1000.0,
        "rss_bytes": 61_000_000,
        "free_bytes": 5_000_000_000,
        "connections": 3,
        "lost_log_lines": 4,
        "jobs": {"running": 1, "queued": 2, "done": 7},
        "workers": [
            {"name": "cpu", "state": "busy", "job": "a"},
            {"name": "cpu", "state": "ready"},
        ],
        "counts": {"ended:done": 7, "ended:failed": 1, "refused:bad-knob": 5, "layer_bytes": 99},
    },
    jobs=(
        {"job": "b", "state": "queued", "created_s": 1900.0, "show": "secret"},
        {"job": "c", "state": "queued", "created_s": 1940.0},
        {"job": "a", "state": "running", "created_s": 1000.0},
    ),
)


def read(seen, now_s=2000.0):
    """Return every sample by name and labels."""
    text = exposition(lambda: seen, lambda: now_s).decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_queue_workers_and_counts_are_told():
    found = read(SEEN)
    assert found["gencomp_up", ()] == 1
    assert found["gencomp_jobs", ("queued",)] == 2
    assert found["gencomp_jobs", ("receiving",)] == 0
    assert found["gencomp_queue_oldest_seconds", ()] == 100.0
    assert found["gencomp_workers", ("busy",)] == found["gencomp_workers", ("ready",)] == 1
    assert found["gencomp_jobs_ended_total", ("failed",)] == 1
    assert found["gencomp_requests_refused_total", ("bad-knob",)] == 5
    assert found["gencomp_layer_bytes_total", ()] == 99
    assert found["gencomp_layers_total", ()] == 0
    assert found["gencomp_log_lines_lost_total", ()] == 4
    assert found["gencomp_start_time_seconds", ()] == 1000.0
    assert found["gencomp_spool_free_bytes", ()] == 5e9


def test_of_a_server_that_is_away_only_that_is_told():
    assert read(Seen(1, False, "gone", 1.0, SEEN.health, SEEN.jobs)) == {("gencomp_up", ()): 0.0}


def test_a_server_that_says_little_is_no_fault():
    assert read(Seen(1, True, "", 1.0))["gencomp_jobs", ("done",)] == 0


def test_nothing_of_a_job_is_told_but_numbers():
    assert b"secret" not in exposition(lambda: SEEN)
