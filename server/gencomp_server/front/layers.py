# SPDX-License-Identifier: Apache-2.0
"""Layers of jobs on their way out."""

from __future__ import annotations

from gencomp_protocol import messages as m
from gencomp_protocol.errors import GencompError, MalformedMessage, MissingFrame
from gencomp_protocol.transfer import read_stretch
from gencomp_server.engine.room import waits
from gencomp_server.front.state import Front
from gencomp_server.front.telling import Telling
from gencomp_server.sessions import Session


class Layers:
    """Answers those who want layers.

    Args:
        front: Whose layers.
        telling: Sends them.
    """

    def __init__(self, front: Front, telling: Telling) -> None:
        self._front, self._telling = front, telling
        self._unanswered: list[tuple[bytes, m.Want]] = []  # Wants for what cannot be read now.

    def give(self, session: Session, want: m.Want) -> None:
        """Answer a want for a layer with its bytes, or with why there are none."""
        session.owed.take(want)
        self._answer(session, want)

    def _answer(self, session: Session, want: m.Want) -> None:
        try:
            row = self._front.table.layer(want.job, want.name, want.frame)
            if want.what != m.LAYER or row is None:
                raise MissingFrame(
                    f"The server has no layer '{want.name[:64]}' frame {want.frame} of that job.",
                    hint="It was released, or is not made yet.",
                )
            place = self._front.spool.layer(want.job, want.name, want.frame)
            answer: m.Message = read_stretch(place, row.bytes, want)
            self._front.vitals.count("sent_bytes", want.length)
        except MalformedMessage:
            raise
        except GencompError as error:
            if waits(error):  # Without a descriptor nothing can be read; it is tried every turn.
                self._unanswered.append((session.identity, want))
                return
            answer = m.Withheld(want.job, want.what, want.name, want.frame, error)
        self._telling.send(session.identity, answer)

    def try_again(self) -> None:
        """Answer what could not be read before."""
        unanswered, self._unanswered = self._unanswered, []
        for identity, want in unanswered:
            asking = self._front.sessions.get(identity)
            if asking is not None:
                self._answer(asking, want)
