# SPDX-License-Identifier: Apache-2.0
"""The end of a job, whoever brings it about."""

from __future__ import annotations

import logging

from gencomp_protocol.errors import GencompError
from gencomp_server.front.state import Front
from gencomp_server.front.telling import Telling
from gencomp_server.logs import job_named
from gencomp_server.provenance import texts_of
from gencomp_server.records import named

log = logging.getLogger(__name__)


class Ending:
    """Ends jobs.

    Args:
        front: Whose jobs.
        telling: Tells those who follow them.
    """

    def __init__(self, front: Front, telling: Telling) -> None:
        self._front, self._telling = front, telling

    def end(self, job_id: str, state: str, error: GencompError | None = None) -> None:
        """Bring a job to its end, once, and tell everybody who follows it."""
        self._front.intake.drop(job_id)
        self._front.waiting.pop(job_id, None)
        self._front.held.pop(job_id, None)
        self._front.sessions.forget(job_id)
        self._front.meter.forget(job_id)
        spelt = None if error is None else named(error, job_id).to_wire()
        if not self._front.table.move(job_id, state, spelt):
            return
        self._front.cancelling.discard(job_id)
        private = texts_of(self._front.known(job_id).request.knobs)
        with job_named(job_id, private):
            log.info("%s%s", state, "" if error is None else f": {error}")
        self._front.vitals.count(f"ended:{state}")
        self._telling.tell_state(job_id)
        end = self._telling.end_event(self._front.known(job_id))
        if end is not None:
            self._telling.tell(job_id, end)
        self._front.spool.trim_decoded()
