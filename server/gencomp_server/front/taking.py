# SPDX-License-Identifier: Apache-2.0
"""Whether a request is taken, from its header and what jobs would run on."""

from __future__ import annotations

import dataclasses
from typing import Any

from gencomp_protocol.errors import BadKnob, QuotaExceeded, ServerUnreachable
from gencomp_protocol.request import Request
from gencomp_server.colour.spaces import BUILTIN
from gencomp_server.contract import NO_BACKBONE, Machine, System
from gencomp_server.engine.job import Job
from gencomp_server.engine.machine import from_plain, with_weights
from gencomp_server.front.state import Front
from gencomp_server.gate import open_system
from gencomp_server.sessions import Session

_LOOK_UP_S = 1.0  # Weights are looked up anew after so long; many submits may come in a second.


class Taking:
    """The first gate of a server.

    Args:
        front: The server.
    """

    def __init__(self, front: Front) -> None:
        self._front = front
        self._looked_up: tuple[Machine, Any, float] | None = None

    def check_colours(self, session: Session, request: Request) -> None:
        """Refuse, unopened, a colour config that a client from elsewhere may not name.

        Raises:
            BadKnob: What it may name.
        """
        is_file = request.ocio and not request.ocio.startswith(BUILTIN)
        if not session.has_key or not is_file or request.ocio in self._front.config.ocio_configs:
            return
        raise BadKnob(
            "This server opens no OpenColorIO config that a client names by its path.",
            hint="Use a built-in one (ocio://NAME), or have the path listed in the server's "
            "setting 'ocio_configs'.",
            knob="ocio",
        )

    def system(self, request: Request) -> System:
        """Return the system asked for, where the header of the request is in order.

        Raises:
            ServerUnreachable: The server is about to leave.
            GencompError: No worker can run, or the header is not in order.
        """
        if self._front.notice.is_draining:
            raise ServerUnreachable("The server is about to leave.", hint="Try again in a minute.")
        fault = self._front.workers.fault
        if fault is not None:
            self._front.workers.wake()  # It may be there the next time.
            raise fault
        return open_system(self._front.systems, request)

    def machine(self) -> Machine:
        """Return what jobs run on, as far as the worker told, with what is installed now."""
        told, now = self._front.workers.machine, self._front.clock()
        if self._looked_up is not None:
            found, of, at_s = self._looked_up
            if of == told and now - at_s < _LOOK_UP_S:
                return found
        found = Machine(self._front.config.devices[0]) if told is None else from_plain(told)
        found = dataclasses.replace(
            found, segmenter=self._front.config.segmenter_tool() is not None
        )
        found = with_weights(found, self._front.shelf, self._front.config.allowed_licences)
        self._looked_up = (found, told, now)
        return found

    def awaits_machine(self, job: Job) -> bool:
        """Tell whether a job may yet be refused once a worker has looked at its device."""
        if not self._front.workers.awaits_machine:
            return False
        systems = [one for one in self._front.systems if one.name == job.request.system]
        return any(one.backbone != NO_BACKBONE for one in systems)

    def check_quota(self, account: str, show: str) -> None:
        """Refuse one more job of an account, or of a show, that has enough of them waiting.

        Raises:
            QuotaExceeded: How many there are.
        """
        most, most_of_show = self._front.config.quota_jobs, self._front.config.quota_show_jobs
        if most and self._front.table.count_before_run(account=account) >= most:
            whose = f"{account} has {most} jobs waiting"
        elif (
            show and most_of_show and self._front.table.count_before_run(show=show) >= most_of_show
        ):
            whose = f"The show {show} has {most_of_show} jobs waiting"
        else:
            return
        raise QuotaExceeded(
            f"{whose}, as many as this server keeps for one.",
            hint="Send it again when some of them have begun, or cancel one.",
        )
