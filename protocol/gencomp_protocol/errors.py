# SPDX-License-Identifier: Apache-2.0
"""The one tree of errors, what crosses the wire of it, and nothing else.

::

    GencompError                    code, message, hint, retryable, details
    ├── ArtistError                 the artist can put it right
    │   ├── BadKnob                 bad-knob            which knob, what was given, what is allowed
    │   ├── BadMatte                bad-matte           which matte, which frame: empty, NaN
    │   ├── BadName                 bad-name            a name that Nuke or the job cannot carry
    │   ├── BadPicture              bad-picture         which input and frame: damaged, not taken
    │   ├── FormatMismatch          format-mismatch     the two formats
    │   ├── MissingFrame            missing-frame       which frame of which input
    │   ├── MissingInput            missing-input       which input
    │   ├── RangeMismatch           range-mismatch      the two frame ranges
    │   └── UnwritableOutput        unwritable-output   which folder
    ├── LinkError                   between client and server
    │   ├── LinkTimeout             link-timeout
    │   ├── MalformedMessage        malformed-message   path of the field: submit.frames.first
    │   ├── ServerUnreachable       server-unreachable
    │   ├── Unauthorised            unauthorised        secret or key is missing, wrong, not let in
    │   ├── UnknownJob              unknown-job         which job id
    │   └── VersionMismatch         version-mismatch    both protocol versions
    ├── ResourceError               the machine is not enough, or not ready
    │   ├── DiskFull                disk-full
    │   ├── OutOfMemory             out-of-memory       needed, free, the knob that lowers it
    │   ├── Quarantined             quarantined         how often the job ended its worker
    │   ├── QuotaExceeded           quota-exceeded      whose, and how many jobs wait
    │   ├── ServerBusy              server-busy         what the server has none left of just now
    │   ├── ToolFailed              tool-failed         which segmenter or endpoint, what it said
    │   ├── WeightsMissing          weights-missing     name, expected path, how to get them
    │   └── WorkerLost              worker-lost         the process that ran the job went away
    ├── Cancelled                   cancelled           not a failure
    └── InternalError               internal-error      our bug; its id is in the server log

The code is the contract; class names and wording may change. ``message`` is one sentence for an
artist, ``hint`` one sentence that says what to do.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class GencompError(Exception):
    """Base of everything that is raised on purpose.

    Args:
        message: One sentence for an artist: which node, knob, input or frame.
        hint: One sentence that says what to do; may be empty.
        **details: Plain values (str, int, float, bool) for machines.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = details

    def __str__(self) -> str:
        """Return message and hint as an artist reads them; of a job's end, with its report's id."""
        report = self.details.get("report")
        return f"{self.message} {self.hint}".strip() + (f" (report {report})" if report else "")

    def to_wire(self) -> dict[str, Any]:
        """Return the plain map that crosses the wire."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "details": dict(self.details),
        }


class ArtistError(GencompError):
    """The artist can put it right."""


class BadKnob(ArtistError):
    """A knob's value is not allowed."""

    code = "bad-knob"


class BadMatte(ArtistError):
    """A matte is empty or holds NaN."""

    code = "bad-matte"


class BadName(ArtistError):
    """A name that Nuke, a file system or the job cannot carry."""

    code = "bad-name"


class BadPicture(ArtistError):
    """A picture is damaged, or of a kind that is not taken."""

    code = "bad-picture"


class FormatMismatch(ArtistError):
    """Two pictures that belong together differ in size."""

    code = "format-mismatch"


class MissingFrame(ArtistError):
    """A frame of an input is not there."""

    code = "missing-frame"


class MissingInput(ArtistError):
    """A required input is not connected."""

    code = "missing-input"


class RangeMismatch(ArtistError):
    """Two frame ranges that belong together differ."""

    code = "range-mismatch"


class UnwritableOutput(ArtistError):
    """The output folder cannot be written."""

    code = "unwritable-output"


class LinkError(GencompError):
    """Something between client and server."""

    retryable = True


class LinkTimeout(LinkError):
    """The other side did not answer in time."""

    code = "link-timeout"


class MalformedMessage(LinkError):
    """A message does not follow the protocol; names the field."""

    code = "malformed-message"
    retryable = False


class ServerUnreachable(LinkError):
    """No server answers at the address."""

    code = "server-unreachable"


class Unauthorised(LinkError):
    """The secret of the server is missing or wrong."""

    code = "unauthorised"
    retryable = False


class UnknownJob(LinkError):
    """The server has no job of that id."""

    code = "unknown-job"
    retryable = False


class VersionMismatch(LinkError):
    """Client and server speak different protocol versions."""

    code = "version-mismatch"
    retryable = False


class ResourceError(GencompError):
    """The machine is not enough, or not ready."""


class DiskFull(ResourceError):
    """No space is left where something had to be written."""

    code = "disk-full"


class OutOfMemory(ResourceError):
    """The job needs more memory than there is."""

    code = "out-of-memory"


class Quarantined(ResourceError):
    """A job whose worker died under it too often; it is not run again by itself."""

    code = "quarantined"


class QuotaExceeded(ResourceError):
    """An account or a show has as many jobs waiting as the server keeps for one."""

    code = "quota-exceeded"
    retryable = True


class ServerBusy(ResourceError):
    """The server has none left of something that every job takes, such as open files."""

    code = "server-busy"
    retryable = True


class ToolFailed(ResourceError):
    """A program or an endpoint that somebody set up beside gencomp failed, or spoke nonsense."""

    code = "tool-failed"


class WeightsMissing(ResourceError):
    """Weights that the job asked for are not installed."""

    code = "weights-missing"


class WeightsRefused(ResourceError):
    """Weights are there and are not taken: damaged, changed, of another model, or by licence."""

    code = "weights-refused"


class WorkerLost(ResourceError):
    """The process that ran the job went away."""

    code = "worker-lost"
    retryable = True


class Cancelled(GencompError):
    """The job was cancelled; not a failure."""

    code = "cancelled"


class InternalError(GencompError):
    """A fault of ours; ``details['id']`` finds it in the server log."""

    code = "internal-error"


def error_classes() -> dict[str, type[GencompError]]:
    """Return every concrete error class by its code."""
    found: dict[str, type[GencompError]] = {}
    waiting = [GencompError]
    while waiting:
        for child in waiting.pop().__subclasses__():
            waiting.append(child)
            if "code" in vars(child):
                found[child.code] = child
    return dict(sorted(found.items()))


def error_from_wire(data: Mapping[str, Any]) -> GencompError:
    """Build the error a peer sent; an unknown code becomes a plain GencompError."""
    cls = error_classes().get(str(data.get("code", "")), GencompError)
    error = cls(str(data.get("message", "")), hint=str(data.get("hint", "")))
    details = data.get("details")
    if isinstance(details, dict):
        error.details.update({str(key): value for key, value in details.items()})
    return error
