# SPDX-License-Identifier: Apache-2.0
"""A client of the server: ask, submit, follow, cancel. Knows nothing of Nuke or of pixels.

Everything blocks and belongs to the thread that calls it: one :class:`Client` per thread. A link
that drops is made again and the job re-attached; layers appear in their folder whole or not at all.
"""

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Optional

from gencomp_protocol.codec import digest_of, request_to_plain
from gencomp_protocol.errors import VersionMismatch, error_from_wire
from gencomp_protocol.events import (
    Event,
    LayerReady,
    Outcome,
    Progressed,
    Sent,
    StateChanged,
    Warned,
)
from gencomp_protocol.following import Following, Pictures
from gencomp_protocol.keys import ClientKeys
from gencomp_protocol.link import Link
from gencomp_protocol.locate import ServerFile
from gencomp_protocol.messages import (
    CREDIT_BYTES,
    EXR,
    Accepted,
    Acknowledged,
    Cancel,
    Check,
    Graph,
    Health,
    HealthReport,
    InputPictures,
    JobGraph,
    JobList,
    JobQuery,
    Jobs,
    PictureEntry,
    Planned,
    Release,
    Report,
    Reported,
    Sheet,
    SheetPicture,
    Submit,
    Welcome,
)
from gencomp_protocol.request import Request
from gencomp_protocol.transfer import Picture, picture_of
from gencomp_protocol.whose import account_here, show_and_shot

__all__ = [
    "Client",
    "Event",
    "LayerReady",
    "Outcome",
    "Picture",
    "Pictures",
    "Progressed",
    "Sent",
    "StateChanged",
    "Warned",
    "picture_of",
    "request_key",
]


# The first version of the protocol whose requests name an OpenColorIO config.
_KNOWS_OCIO = (1, 1)
# The first whose server says how it is.
_KNOWS_HEALTH = (1, 2)
# The first that knows a job's graph and gathers reports.
_KNOWS_GRAPHS = (1, 2)


def request_key(request: Request, pictures: Pictures) -> str:
    """Return the key that makes submitting idempotent: equal work, equal key.

    It depends on the request but for ``client``, on every picture's digest, and on the content of
    an OpenColorIO config that can be read here.
    """
    digests = {
        name: {str(frame): picture.digest for frame, picture in frames.items()}
        for name, frames in pictures.items()
    }
    config = [_digest_of_config(request.ocio)] if request.ocio else []
    return digest_of([request_to_plain(replace(request, client="")), digests, *config])


def _digest_of_config(ocio: str) -> str:
    """Return the digest of a config's file; empty for a built-in one or one of another machine."""
    try:
        return blake2b(Path(ocio).read_bytes(), digest_size=32).hexdigest()
    except OSError:
        return ""


class Client:
    """One link to one server; a context manager.

    Args:
        address: ``tcp://HOST:PORT``.
        secret: What the server wrote into its ``server.json``.
        client: Kind and version of the program, for the server's log.
        timeout_s: How long to wait for an answer, and for a server that went away to come back.
        credit_bytes: Most bytes of layers that are wanted and not yet here.
        find: Asked for the server's whereabouts each time the link is made again, since a server
            that was started again has another secret and maybe another port.
        keys: What opens a server that takes clients with keys only; None for one on loopback.
        account: Whose jobs these are, where no key says so; None takes ``user@host``.
    """

    def __init__(
        self,
        address: str,
        secret: str,
        *,
        client: str = "",
        timeout_s: float = 10.0,
        credit_bytes: int = CREDIT_BYTES,
        find: Optional[Callable[[], Optional[ServerFile]]] = None,
        keys: Optional[ClientKeys] = None,
        account: Optional[str] = None,
    ) -> None:
        whose = account_here() if account is None else account
        self._link = Link(address, secret, client, timeout_s, credit_bytes, find, keys, whose)

    def __enter__(self) -> "Client":
        """Return the client itself; :meth:`connect` makes the link."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the link."""
        self.close()

    def connect(self) -> Welcome:
        """Make the link and say hello.

        Returns:
            What the server says of itself: ``server_version``, ``protocol``, ``limits``,
            ``systems`` (their schemas) and ``worker``.

        Raises:
            ServerUnreachable: Nobody answers at the address.
            Unauthorised: The secret is wrong.
            VersionMismatch: The server speaks another major version of the protocol.
        """
        return self._link.connect()

    def close(self) -> None:
        """Close the link; jobs go on. Closing twice does nothing."""
        self._link.close()

    def check(self, request: Request, *, anyway: bool = False) -> dict[str, Any]:
        """Ask whether a request would be taken; no picture travels.

        Args:
            request: What would be asked for.
            anyway: True returns the plan also of a job that the machine is not ready for, with the
                reason on the wire under ``refusal``: a backbone's weights or memory are missing.

        Returns:
            The plan (``contract.Plan`` as a map) and under ``layers`` what would be delivered.

        Raises:
            ArtistError: Why it would not.
            ResourceError: The machine lacks weights or memory for it.
        """
        self._check_minor(request)
        plan = dict(self._link.ask(Check(self._link.next_id(), request), Planned).plan)
        refusal = plan.get("refusal")
        if refusal is not None and not anyway:
            raise error_from_wire(refusal)
        return plan

    def submit(
        self,
        request: Request,
        pictures: Pictures,
        key: str,
        kinds: Optional[Mapping[str, str]] = None,
        *,
        show: Optional[str] = None,
        shot: Optional[str] = None,
        priority: int = 0,
    ) -> str:
        """Hand a job in and return its id; an equal ``key`` gives the same job.

        Pictures travel while the job is followed, and only those that the server lacks.

        Args:
            request: The header of the job.
            pictures: What will be sent: input name to frame to picture.
            key: Makes submitting idempotent; see :func:`request_key`.
            kinds: ``exr`` or ``image`` (DPX, PNG, TIFF, JPEG) by input name; ``exr`` where absent.
            show: Production that it belongs to; None takes what ``GENCOMP_SHOW`` names.
            shot: Shot that it belongs to; None takes what ``GENCOMP_SHOT`` names.
            priority: -100 to 100; of one's own waiting jobs the highest runs first.

        Raises:
            ArtistError: Why the job is refused.
            QuotaExceeded: The account or the show has as many jobs waiting as may.
        """
        self._check_minor(request)
        here = show_and_shot()
        inputs = tuple(
            InputPictures(
                name,
                tuple(self._entry(n, p) for n, p in sorted(frames.items())),
                (kinds or {}).get(name, EXR),
            )
            for name, frames in pictures.items()
        )
        answer: Accepted = self._link.ask(
            Submit(
                self._link.next_id(),
                key,
                request,
                inputs,
                show=here[0] if show is None else show,
                shot=here[1] if shot is None else shot,
                priority=priority,
                nonce=secrets.token_hex(16),
            ),
            Accepted,
        )
        return answer.job

    def _entry(self, frame: int, picture: Picture) -> PictureEntry:
        """Return what is announced of a picture; where it lies to a server that shares storage."""
        is_told = picture.path.is_absolute() and self._link.shares()
        where = str(picture.path) if is_told else ""
        return PictureEntry(frame, picture.bytes, picture.digest, where)

    def _check_minor(self, request: Request) -> None:
        """Refuse to ask an older server for what it would leave unread.

        Raises:
            VersionMismatch: It does not know that a request can name a colour config.
        """
        if request.ocio and self._link.protocol() < _KNOWS_OCIO:
            raise VersionMismatch(
                "The server is too old to read an OCIO config, and would take the colours wrong.",
                hint="Install the same release of gencomp on both sides.",
            )

    def follow(
        self,
        job: str,
        *,
        pictures: Optional[Pictures] = None,
        folder: "Optional[Path]" = None,
        on_event: Optional[Callable[[Event], None]] = None,
        cancelled: Optional[Callable[[], bool]] = None,
        have: Collection[tuple[str, int]] = (),
    ) -> Outcome:
        """Stay with a job until it ends: send its pictures, fetch its layers.

        A link that drops is made again, for as long as ``timeout_s``, and the job goes on where it
        was. Following a job that has ended fetches what it made.

        Args:
            job: Id of the job.
            pictures: What this client can send; None where it has none.
            folder: Layers go to ``folder/<layer>/<layer>.<frame:04d>.exr``, each whole or not
                at all. A file that is there with the right digest is not fetched again. None
                fetches nothing.
            on_event: Called with each event, in this thread.
            cancelled: Asked at least every 0.1 s; True cancels the job. Once the server has heard
                of it, a job that takes more than 1 s to stop is not waited for: it is the server's
                to end.
            have: Layer frames that are neither fetched nor reported.

        Raises:
            UnknownJob: The server has no such job.
            ServerUnreachable: The server went away and did not come back.
            Cancelled: ``cancelled`` said so while it was away.
            UnwritableOutput, DiskFull: A layer cannot be written.
        """
        following = Following(self._link, job, pictures, folder, on_event, cancelled, set(have))
        return following.run()

    def cancel(self, job: str) -> None:
        """Cancel a job; one that has ended stays as it is.

        Raises:
            UnknownJob: The server has no such job.
        """
        self._link.ask(Cancel(self._link.next_id(), job), Acknowledged)

    def release(self, job: str) -> None:
        """Tell the server that every layer is here and may be dropped there.

        Raises:
            UnknownJob: The server has no such job.
        """
        self._link.ask(Release(self._link.next_id(), job), Acknowledged)

    def jobs(self, most: int = 0) -> list[dict[str, Any]]:
        """Return the jobs that the server knows, newest first.

        Args:
            most: How many at most of those that have ended; 0 for all.
        """
        asked = Jobs(self._link.next_id(), most)
        return [dict(entry) for entry in self._link.ask(asked, JobList).jobs]

    def health(self) -> dict[str, Any]:
        """Return how the server is: workers, queue, counts, disk; see ``docs/td/protocol.md``.

        Raises:
            VersionMismatch: It is older than 1.2 and cannot say.
        """
        self._check_knows(_KNOWS_HEALTH, "cannot say how it is")
        return dict(self._link.ask(Health(self._link.next_id()), HealthReport).health)

    def sheet(self, job: str) -> bytes:
        """Return a job's contact sheet, as the bytes of a PNG file.

        Raises:
            MissingFrame: It has none: it is not done, or was removed since.
            UnknownJob: The server has no such job.
            VersionMismatch: The server is older than 1.2 and draws none.
        """
        self._check_knows(_KNOWS_HEALTH, "draws no contact sheets")
        answer: SheetPicture = self._link.ask(Sheet(self._link.next_id(), job), SheetPicture)
        return answer.body

    def _check_knows(self, version: "tuple[int, ...]", lack: str) -> None:
        """Refuse to ask an older server for what it does not know.

        Raises:
            VersionMismatch: What it lacks.
        """
        if self._link.protocol() < version:
            raise VersionMismatch(
                f"The server is too old: it {lack}.",
                hint="Install the same release of gencomp on both sides.",
            )

    def job(self, job: str) -> dict[str, Any]:
        """Return what the server knows of one job.

        Raises:
            UnknownJob: The server has no such job.
        """
        return dict(self._link.ask(JobQuery(self._link.next_id(), job), JobList).jobs[0])

    def graph(self, job: str) -> dict[str, Any]:
        """Return the stages of a job: ``job``, ``state`` and ``stages``, as the protocol has them.

        Raises:
            UnknownJob: The server has no such job.
            VersionMismatch: The server is too old to tell.
        """
        self._check_knows_graphs()
        found: JobGraph = self._link.ask(Graph(self._link.next_id(), job), JobGraph)
        return {"job": found.job, "state": found.state, "stages": [dict(s) for s in found.stages]}

    def report(self, job: str, *, with_prompts: bool = False) -> dict[str, Any]:
        """Return what the server gathers of a job for support, by file name.

        Raises:
            UnknownJob: The server has no such job.
            VersionMismatch: The server is too old to do it.
        """
        self._check_knows_graphs()
        asked = Report(self._link.next_id(), job, with_prompts)
        return dict(self._link.ask(asked, Reported).files)

    def _check_knows_graphs(self) -> None:
        if self._link.protocol() < _KNOWS_GRAPHS:
            raise VersionMismatch(
                "The server is too old to tell of a job's stages.",
                hint="Install the same release of gencomp on both sides.",
            )
