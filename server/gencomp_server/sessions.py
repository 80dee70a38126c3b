# SPDX-License-Identifier: Apache-2.0
"""Who is connected, who follows which job, and who sends which picture. No sockets here.

A picture that two jobs lack travels once. The client that followed a job last, saying that it has
the pictures, is the job's source; what an earlier one had not sent goes on from where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gencomp_protocol.transfer import Credit, Expected, Receiver
from gencomp_server.doorkeeper import Wire

ONLOOKER = "gencomp web"  # How the page's name for itself begins.


@dataclass
class Session:
    """One client that said hello.

    Attributes:
        identity: Its routing id; new whenever its link is made again.
        name: What it calls itself, for the log.
        receiver: Pictures on their way from it.
        owed: Its credit for layers.
        heard_s: When it was last heard, monotonic.
        fed_s: When it last answered a want, or had none to answer.
        account: Whose jobs it submits: the name of its key, else what it said.
        has_key: Whether it came with a key, from wherever, instead of this machine's secret.
        wire: The connection that it said hello over; a routing id can be claimed by another.
        follows: Jobs whose events it gets.
        asked: How often a stretch had been wanted of it when it last asked whether we are there.
    """

    identity: bytes
    name: str
    receiver: Receiver
    owed: Credit
    heard_s: float
    fed_s: float
    account: str = ""
    has_key: bool = False
    wire: Wire = field(default_factory=Wire)
    follows: set[str] = field(default_factory=set)
    asked: int = 0

    @property
    def is_onlooker(self) -> bool:
        """Whether it only looks, as the page does: a server that nobody else uses may leave."""
        return self.name.startswith(ONLOOKER)


class Sessions:
    """All sessions, and which picture comes from which of them.

    Args:
        lacking: Returns what a job still needs.
    """

    def __init__(self, lacking: Callable[[str], list[Expected]]) -> None:
        self._lacking = lacking
        self._sessions: dict[bytes, Session] = {}
        self._sources: dict[str, Session] = {}
        self._fetching: dict[str, str] = {}  # Digest to the job in whose name it is fetched.

    def __len__(self) -> int:
        """Count the sessions."""
        return len(self._sessions)

    def get(self, identity: bytes) -> Session | None:
        """Return the session of a routing id, or None where it did not say hello."""
        return self._sessions.get(identity)

    def all(self) -> list[Session]:
        """Return every session."""
        return list(self._sessions.values())

    def followers(self, job: str) -> list[Session]:
        """Return the sessions that get a job's events."""
        return [session for session in self._sessions.values() if job in session.follows]

    def add(self, session: Session) -> None:
        """Take a session in."""
        self._sessions[session.identity] = session

    def drop(self, identity: bytes) -> None:
        """Forget a session; what it was sending is asked of others, if there are any."""
        gone = self._sessions.pop(identity, None)
        if gone is None:
            return
        for job in [job for job, source in self._sources.items() if source is gone]:
            self._release(job)
        self._share()

    def heard_since(self, moment_s: float) -> list[Session]:
        """Return the sessions that were heard at a moment or later, monotonic."""
        return [session for session in self._sessions.values() if session.heard_s >= moment_s]

    def silent_since(self, moment_s: float) -> list[bytes]:
        """Return the routing ids of sessions last heard, or last fed, before a moment.

        One that is there but does not send what it owes would hold up whoever has it too.
        """
        return [
            session.identity
            for session in self._sessions.values()
            if min(session.heard_s, session.fed_s) < moment_s
        ]

    # --- who sends what --------------------------------------------------------------------------

    def serve(self, session: Session, job: str) -> None:
        """Take what a job lacks from this session from now on."""
        if self._sources.get(job) is session:
            return
        self._release(job)
        self._sources[job] = session
        self._share()

    def source(self, job: str) -> Session | None:
        """Return who sends a job's pictures; None for nobody."""
        return self._sources.get(job)

    def forget(self, job: str) -> None:
        """Fetch nothing more for a job; what others need of it is fetched in their name."""
        self._release(job)
        self._share()

    def arrived(self, digest: str) -> None:
        """Take note that a picture is here."""
        self._fetching.pop(digest, None)

    def ask_again(self) -> None:
        """Ask for pictures that were here and are lacking again."""
        self._share()

    def _release(self, job: str) -> None:
        source = self._sources.pop(job, None)
        if source is not None:
            source.receiver.forget(job)
        self._fetching = {d: other for d, other in self._fetching.items() if other != job}

    def _share(self) -> None:
        """Expect every picture that is lacking, that somebody has and that nobody sends yet."""
        for job, source in self._sources.items():
            for expected in self._unclaimed(self._lacking(job)):
                self._fetching[expected.digest] = job
                source.receiver.expect(expected)

    def _unclaimed(self, lacking: Iterable[Expected]) -> list[Expected]:
        return [expected for expected in lacking if expected.digest not in self._fetching]
