# SPDX-License-Identifier: Apache-2.0
"""Where a server keeps what it was sent and what it made, on disk.

::

    spool/pictures/<d[:2]>/<digest>          files as they arrived, named by their BLAKE2b-256
    spool/pictures/<d[:2]>/<digest>.part     one that is still arriving
    spool/decoded/<digest>-<variant>.raw     its pixels, decoded once; .json beside it
    spool/stages/<key>/                      what a stage made (engine/stages.py)
    spool/stages/.<pid>.<mark>.working       locked while somebody runs a job there
    spool/jobs/<id>/layers/<layer>/<layer>.<frame:04d>.exr
    spool/jobs/<id>/sheet.png                its contact sheet; stays when the layers go
    spool/jobs/<id>/manifest.json            written last
    spool/gencomp.db                         the job table (engine/jobtable.py), and files of it

Nothing half-written is ever visible under its final name: every file is written beside its place
and renamed. Folders are 0700 and files 0600. Names that come from a client (digests, job ids,
layers) are checked here, before they become a path.
"""

import errno
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencomp_protocol import disk
from gencomp_protocol.errors import DiskFull, MalformedMessage, UnwritableOutput

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_VARIANT = re.compile(r"[a-z0-9_-]{1,64}\Z")
_JOB = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_WORKING, _GONE = ".working", ".gone"
_LAYER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file so that it is either wholly there or not there at all.

    Args:
        path: File to write; its folder exists.
        data: What it will hold.

    Raises:
        DiskFull: There is no room for it.
        UnwritableOutput: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")

    def write() -> None:
        disk.about_to("write", path)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)

    try:
        disk.patiently(write)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise disk_error(error, path.parent) from error


def disk_error(error: OSError, folder: Path) -> DiskFull | UnwritableOutput:
    """Return the error an artist can act on for a failed write into ``folder``.

    It names the folder; where that lies is for the server's log alone.
    """
    log.warning("%s: %s", folder, error.strerror or error)
    facts = disk.facts(error, f"{folder.parent.name}/{folder.name}")
    if error.errno in disk.FULL:
        return DiskFull(
            "The disk that holds the server's spool is full.",
            hint="Free some space and run the job again; it goes on where it stopped.",
            **facts,
        )
    return UnwritableOutput(
        f"The server cannot write into its folder '{folder.name}': {error.strerror}.",
        hint=_cure(error),
        **facts,
    )


def _cure(error: OSError) -> str:
    """Return what to do about a folder or file of a spool that cannot be written."""
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return "Something else has a name that a spool's own folder needs; move it away."
    if error.errno == errno.ENOENT:
        return "Check that the spool folder is still there, and its disk mounted."
    if error.errno == errno.EROFS:
        return "The disk is mounted read-only; mount it for writing, or name another spool."
    return "Check who owns the spool folder and whether its disk is mounted read-only."


def spool_error(error: OSError, root: Path) -> UnwritableOutput:
    """Return the error of a server that cannot start in a spool, with where that lies.

    Args:
        error: What the disk said.
        root: The spool folder.
    """
    whole = Path(os.path.abspath(root))
    stuck = next(one for one in (whole, *whole.parents) if os.path.lexists(one))
    hint = "Or name another spool with --spool."
    if stuck.is_symlink() and not stuck.exists():
        hint = f"{stuck} is a link that leads nowhere; is its disk mounted? {hint}"
    elif not stuck.is_dir():
        hint = f"{stuck} is a file; move it away. {hint}"
    elif error.errno == errno.ENOENT:
        hint = f"Nothing can be made in {stuck}; is its disk mounted? {hint}"
    elif error.errno == errno.EROFS:
        hint = f"The disk of {stuck} is mounted read-only; mount it for writing. {hint}"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        odd = error.filename or stuck
        hint = f"{odd} is not what a spool needs there; move it away. {hint}"
    else:
        hint = f"Check who owns {stuck}, and that you may write there. {hint}"
    return UnwritableOutput(f"The spool {whole} cannot be written ({error.strerror}).", hint=hint)


@dataclass(frozen=True)
class SpoolBudget:
    """How much a spool may keep, once no job runs, of what can be made again.

    Attributes:
        decoded_bytes: Decoded pixels; a 4096x2160 plate of half takes 53 MB a frame.
        stages_bytes: What stages made; those of jobs that run, and of the one that ran last, stay
            whatever they take.
    """

    decoded_bytes: int = 8 << 30
    stages_bytes: int = 8 << 30


DEFAULT_BUDGET = SpoolBudget()


class Spool:
    """The folders of one server, made when they are missing.

    Args:
        root: The spool folder; will be made, with mode 0700.
        budget: How much may be kept there of what can be made again.
    """

    def __init__(self, root: Path, budget: SpoolBudget = DEFAULT_BUDGET) -> None:
        self.root = Path(root)
        self.database = self.root / "gencomp.db"
        self.pictures = self.root / "pictures"
        self.decoded = self.root / "decoded"
        self.stages = self.root / "stages"
        self.jobs = self.root / "jobs"
        self._budget = budget
        for folder in (self.root, self.pictures, self.decoded, self.stages, self.jobs):
            try:
                make_folder(folder)
            except UnwritableOutput as error:
                if isinstance(error.__cause__, OSError):
                    raise spool_error(error.__cause__, self.root) from error
                raise

    # --- pictures as they arrive -----------------------------------------------------------------

    def picture(self, digest: str) -> Path:
        """Return where a picture's file lies, or will lie; its folder is made.

        Raises:
            MalformedMessage: ``digest`` is not a BLAKE2b-256 in hex.
        """
        _check(_DIGEST, digest, "digest")
        folder = self.pictures / digest[:2]
        make_folder(folder)
        return folder / digest

    def part(self, digest: str) -> Path:
        """Return where a picture is collected while it arrives."""
        whole = self.picture(digest)
        return whole.with_name(f"{whole.name}.part")

    def has_picture(self, digest: str) -> bool:
        """Tell whether the whole file is there."""
        return self.picture(digest).is_file()

    def drop_pictures(self, keep: Collection[str]) -> None:
        """Remove every picture, whole or arriving, whose digest no job needs any more."""
        for path in self.pictures.glob("??/*"):
            if path.name.partition(".")[0] not in keep:
                path.unlink(missing_ok=True)

    # --- decoded pixels --------------------------------------------------------------------------

    def decoded_stem(self, digest: str, variant: str) -> Path:
        """Return the path, less ``.raw`` and ``.json``, of a picture's decoded pixels.

        Args:
            digest: The picture.
            variant: How it was decoded: ``exr-colour``, ``image-colour-srgb``, ``exr-rest`` …
        """
        _check(_DIGEST, digest, "digest")
        _check(_VARIANT, variant, "variant")
        return self.decoded / f"{digest}-{variant}"

    def trim_decoded(self) -> None:
        """Remove the least recently used decoded pixels until they fit their budget."""
        _trim(self.decoded.glob("*.raw"), self._budget.decoded_bytes, _remove_raw)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep the stages that are used from now on from being trimmed by other workers.

        Stages are made, loaded and saved inside the block; trim after it. A process that dies lets
        go of them.

        Raises:
            DiskFull: There is no room to say so.
            UnwritableOutput: The folder cannot be written.
        """
        mark = self.stages / f".{os.getpid()}.{secrets.token_hex(4)}{_WORKING}"
        try:
            held = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_error(error, self.stages) from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            os.utime(mark)  # The clock that dates stages, whatever a share's is.
            yield
        finally:
            mark.unlink(missing_ok=True)
            os.close(held)

    def _worked_since_s(self) -> float:
        """Return since when somebody runs jobs here; infinity where nobody does."""
        since_s = float("inf")
        for mark in self.stages.glob(f".*{_WORKING}"):
            with suppress(FileNotFoundError):
                if _is_locked(mark):  # Else its worker died; the next start sweeps it away.
                    since_s = min(since_s, mark.stat().st_mtime)
        return since_s

    def trim_stages(self, keep: Collection[str] = ()) -> None:
        """Remove the least recently used stages until they fit.

        None goes of the keys ``keep``, and none that was used, or begun, since a job came under way
        that still runs in another worker (:meth:`working`).
        """
        # In this order: what a worker makes that comes in between is in no list.
        folders = [path for path in self.stages.iterdir() if path.is_dir()]
        since_s = self._worked_since_s()
        # What is called gone somebody is removing already.
        own = (p for p in folders if p.name not in keep and not p.name.endswith(_GONE))
        _trim(own, self._budget.stages_bytes, _remove_folder, before_s=since_s)

    def doom(self, kind: str, name: str) -> Path | None:
        """Take a name away at once; return what is left to delete, or None.

        Args:
            kind: ``picture``, ``decoded``, ``stage`` or ``job``.
            name: As it stands in its folder.
        """
        folders = {"picture": self.pictures / name[:2], "decoded": self.decoded}
        path = folders.get(kind, self.stages if kind == "stage" else self.jobs) / name
        if kind == "decoded":
            path.with_suffix(".json").unlink(missing_ok=True)
        doomed = path.with_name(f".{name}.{os.getpid()}{_GONE}")
        try:
            path.rename(doomed)
        except FileNotFoundError:
            return None
        except OSError:  # Not even a name can be written; then it goes under its own.
            return path
        return doomed

    def sweep(self) -> None:
        """Remove what a killed process left half-done; only while nobody works in the spool."""
        for path in self.root.glob(".*.part"):
            path.unlink(missing_ok=True)
        jobs = (self.jobs, *self.jobs.glob("*"), *self.jobs.glob("*/layers/*"))
        stages = (self.stages, *self.stages.glob("*.saved"))
        for folder in (*self.pictures.glob("??"), self.decoded, *stages, *jobs):
            for path in folder.glob(".*"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    # --- what jobs deliver -----------------------------------------------------------------------

    def job(self, job: str) -> Path:
        """Return the folder of a job."""
        _check(_JOB, job, "job")
        return self.jobs / job

    def layer(self, job: str, layer: str, frame: int) -> Path:
        """Return where one delivered picture lies, or will lie."""
        _check(_LAYER, layer, "layer")
        return self.job(job) / "layers" / layer / f"{layer}.{frame:04d}.exr"

    def manifest(self, job: str) -> Path:
        """Return where a job's manifest lies; it is there only when the job is done."""
        return self.job(job) / "manifest.json"

    def write_manifest(self, job: str, manifest: Mapping[str, Any]) -> None:
        """Write a job's manifest, atomically, after everything it names is on disk."""
        make_folder(self.job(job))
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
        write_atomic(self.manifest(job), text.encode())

    def read_manifest(self, job: str) -> dict[str, Any] | None:
        """Return a job's manifest, or None while the job is not done."""
        try:
            made = json.loads(self.manifest(job).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return dict(made)

    def sheet(self, job: str) -> Path:
        """Return where a job's contact sheet lies, if it has one."""
        return self.job(job) / "sheet.png"

    def read_sheet(self, job: str) -> bytes | None:
        """Return a job's contact sheet, a PNG file's bytes; None where there is none."""
        try:
            return self.sheet(job).read_bytes()
        except OSError:
            return None

    def remove_layers(self, job: str) -> None:
        """Remove the layers that a job delivered; manifest and contact sheet stay."""
        _remove_folder(self.job(job) / "layers")

    def remove_job(self, job: str) -> None:
        """Remove everything a job delivered."""
        _remove_folder(self.job(job))


def make_folder(folder: Path) -> None:
    """Make a folder and the parents it lacks with mode 0700; say so where that fails.

    Raises:
        DiskFull: There is no room.
        UnwritableOutput: The folder cannot be made.
    """
    if not folder.parent.exists():
        make_folder(folder.parent)
    try:
        disk.about_to("mkdir", folder)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from error


def _check(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.match(text):
        raise MalformedMessage(f"{what}: {text[:80]!r} is not one")


def _is_locked(path: Path) -> bool:
    """Tell whether a process holds the lock of a file.

    Raises:
        FileNotFoundError: There is none.
    """
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _trim(
    paths: Iterable[Path], budget_bytes: int, remove: Any, *, before_s: float = float("inf")
) -> None:
    """Remove the oldest of some files or folders until the rest fit ``budget_bytes``.

    Args:
        paths: What may go.
        budget_bytes: What may stay.
        remove: Removes one.
        before_s: What was used at that moment or later stays, wall clock.
    """
    found = []
    for path in paths:
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, _size(path), path))
    spare = sum(size for _, size, _ in found) - budget_bytes
    for used_s, size, path in sorted(found):
        if spare <= 0 or used_s >= before_s:
            return
        remove(path)
        spare -= size


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(entry.stat().st_size for entry in path.iterdir())
    return path.stat().st_size


def remove_decoded(stem: Path) -> None:
    """Remove decoded pixels; whoever has them mapped keeps them."""
    for suffix in (".json", ".raw"):
        stem.with_name(stem.name + suffix).unlink(missing_ok=True)


def _remove_raw(raw: Path) -> None:
    remove_decoded(raw.with_suffix(""))


def _remove_folder(folder: Path) -> None:
    """Remove a folder so that nobody ever sees a part of it under its name."""
    doomed = folder.with_name(f".{folder.name}.{os.getpid()}{_GONE}")
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed)
