# SPDX-License-Identifier: Apache-2.0
"""The folder that ``gencomp run`` fills, and the run itself: submit, follow, deliver.

::

    DIR/<layer>/<layer>.<frame>.exr     as the server sent them
    DIR/contact_sheet.png
    DIR/manifest.json                   last: where it is, everything is
    DIR/manifest.<system>.json          of an earlier run of another system; so with its sheet
    DIR/.gencomp/                       the embedded server's spool; gone once the manifest is there

The folder is tried and locked before anything starts. An old manifest goes when the new job begins
to run, so that a manifest never stands beside layers of another run; that of another system is put
aside. Until the new job is done, ``.gencomp/take`` says that an earlier take lies there.
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from gencomp_protocol import (
    Client,
    LayerReady,
    Outcome,
    Picture,
    StateChanged,
    picture_of,
    request_key,
)
from gencomp_protocol.errors import Cancelled, GencompError, UnwritableOutput
from gencomp_protocol.frames import spell_frames
from gencomp_protocol.messages import CANCELLED, DONE, RUNNING
from gencomp_protocol.request import Request

MANIFEST = "manifest.json"
CONTACT_SHEET = "contact_sheet.png"
SPOOL = ".gencomp"
_TAKE = "take"
_PICTURES = "pictures"
_EARLIER, _MIXED = "earlier", "mixed"
_SYSTEM = re.compile(r"[a-z0-9_+-]{1,64}")
_DIGEST_THREADS = 4  # Reading is the disk's work and hashing leaves the interpreter free.


class OutputFolder:
    """One run's claim on its output folder; a context manager.

    Args:
        path: The folder; made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = path / SPOOL
        self._doomed = path / f"{SPOOL}.gone"
        self._lock: TextIO | None = None

    def __enter__(self) -> "OutputFolder":
        """Make the folder, try it, and keep other runs out.

        Raises:
            UnwritableOutput: It cannot be written, or another run is at work in it.
        """
        try:
            self.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = self.path / f".gencomp-probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
            self._lock = (self.spool / "lock").open("w")
        except OSError as error:
            raise UnwritableOutput(
                f"The output folder {self.path} cannot be written: {error.strerror}.",
                hint="Choose another folder with --out, or change its permissions.",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UnwritableOutput(
                f"Another gencomp run is writing into {self.path}.",
                hint="Wait for it, or choose another folder with --out.",
            ) from error
        if self._doomed.is_dir():  # A run was killed while it cleared up.
            shutil.rmtree(self._doomed)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let other runs in; an empty spool is not left behind."""
        if self._lock is not None:
            self._lock.close()
        if self.spool.is_dir() and {entry.name for entry in self.spool.iterdir()} <= {"lock"}:
            self.drop_spool()

    @property
    def manifest(self) -> Path:
        """Where the manifest lies once everything is there."""
        return self.path / MANIFEST

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, whole or not at all."""
        part = self.path / f".{MANIFEST}.part"
        with part.open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.manifest)

    def begin(self, system: str, layers: Iterable[str]) -> str | None:
        """Make way for a take: an old manifest goes, that of another system is put aside.

        Args:
            system: Name of the system that begins to deliver.
            layers: The layers that it will deliver.

        Returns:
            A sentence where something was put aside, else None.
        """
        before = self._manifest_here()
        if before is None:
            return None
        other, theirs = str(before.get("system", "")), before.get("layers")
        shared = sorted(set(layers) & set(theirs if isinstance(theirs, dict) else ()))
        if other == system or not _SYSTEM.fullmatch(other):
            self.manifest.unlink()
            self._take.write_text(_EARLIER, encoding="utf-8")
            return None
        kept = self.path / f"manifest.{other}.json"
        self.manifest.replace(kept)
        sheet = self.path / CONTACT_SHEET
        if sheet.is_file():
            sheet.replace(self.path / f"contact_sheet.{other}.png")
        note = f"The manifest of an earlier run of {other} is kept as {kept.name}"
        if not shared:
            return f"{note}."
        self._take.write_text(_EARLIER, encoding="utf-8")
        return f"{note}; of its layers, {', '.join(shared)} will be overwritten."

    def layer_came(self) -> None:
        """Take note that a layer of the new take lies there."""
        if self._take.is_file():
            self._take.write_text(_MIXED, encoding="utf-8")

    def unfinished(self) -> str | None:
        """Return what has to be known of a folder whose job did not end, where it had a take."""
        if not self._take.is_file():
            return None
        if self._take.read_text(encoding="utf-8") == _MIXED:
            now = f"{self.path} now mixes frames of two takes"
        else:
            now = f"{self.path} still holds layers of an earlier take"
        return f"{now}; there is no manifest until the job is finished."

    def left_over(self) -> str | None:
        """Return what has to be known of a spool with pictures that stays; None of another."""
        if not any((self.spool / _PICTURES).glob("*/*")):
            return None
        return f"{self.spool} stays: it holds what was sent, for the next try; it may be deleted."

    @property
    def _take(self) -> Path:
        return self.spool / _TAKE

    def _manifest_here(self) -> dict[str, Any] | None:
        """Return the manifest that lies there; an empty map of one that cannot be read."""
        try:
            found = json.loads(self.manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def drop_spool(self) -> None:
        """Remove the embedded server's spool; half of one is never found under its name."""
        self.spool.rename(self._doomed)
        shutil.rmtree(self._doomed)

    def strangers(self, manifest: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each layer folder that holds an earlier delivery, or a part."""
        sentences = []
        for layer, facts in manifest["layers"].items():
            ours = {path.name for path in layer_paths(self.path, layer, facts["frames"]).values()}
            names = {path.name for path in (self.path / layer).glob(f"{layer}.*.exr")}
            numbers = [name.split(".")[1] for name in names - ours]
            found = spell_frames(int(number) for number in numbers if number.isdecimal())
            if found:
                sentences.append(f"Folder {layer} also holds frames {found} of an earlier run.")
        for folder in sorted(path for path in self.path.iterdir() if path.is_dir()):
            layer = folder.name
            if layer not in manifest["layers"] and any(folder.glob(f"{layer}.*.exr")):
                sentences.append(f"Folder {layer} is of an earlier run and not part of this one.")
        return sentences


@dataclass(frozen=True)
class Order:
    """What is asked for and which files answer it.

    Attributes:
        request: The header of the job.
        files: Picture files by input and frame.
        kinds: ``exr`` or ``image`` by input.
        show: Production that the job belongs to; None takes what ``GENCOMP_SHOW`` names.
        shot: Shot that it belongs to; None takes what ``GENCOMP_SHOT`` names.
        priority: -100 to 100; of one's own waiting jobs the highest runs first.
    """

    request: Request
    files: Mapping[str, Mapping[int, Path]]
    kinds: Mapping[str, str]
    show: str | None = None
    shot: str | None = None
    priority: int = 0


def digest_pictures(files: Mapping[str, Mapping[int, Path]]) -> dict[str, dict[int, Picture]]:
    """Return size and digest of every picture file, read by a few threads at once.

    Raises:
        MissingFrame: A file cannot be read.
    """
    places = [(name, frame) for name, frames in files.items() for frame in frames]
    with ThreadPoolExecutor(_DIGEST_THREADS) as pool:
        found = list(pool.map(lambda place: picture_of(files[place[0]][place[1]]), places))
    pictures: dict[str, dict[int, Picture]] = {}
    for (name, frame), picture in zip(places, found, strict=True):
        pictures.setdefault(name, {})[frame] = picture
    return pictures


def run_order(
    client: Client,
    order: Order,
    folder: OutputFolder,
    *,
    on_plan: Callable[[int, int], None],
    on_event: Callable[[Any], None],
    cancelled: Callable[[], bool],
    on_note: Callable[[str], None],
) -> dict[str, Any]:
    """Have an order done and its layers in the folder; return the job's manifest.

    Args:
        client: Connected.
        order: What is asked for.
        folder: Where the layers go.
        on_plan: Told how many different pictures and how many layer frames there are, once the
            request is accepted.
        on_event: Told every event.
        cancelled: Asked often; true stops the job.
        on_note: Told a sentence where an earlier run's manifest is put aside.

    Raises:
        Cancelled: ``cancelled`` said so.
        GencompError: Whatever the server refused the job for, or it failed of.
    """
    began = time.monotonic()
    plan = client.check(order.request)
    pictures = digest_pictures(order.files)
    different = {one.digest for frames in pictures.values() for one in frames.values()}
    layers = [str(spec["name"]) for spec in plan["layers"]]
    on_plan(len(different), len(layers) * len(order.request.frames))
    key = request_key(order.request, pictures)
    whose = {"show": order.show, "shot": order.shot}
    job = client.submit(order.request, pictures, key, order.kinds, **whose, priority=order.priority)

    def watch(event: Any) -> None:
        if isinstance(event, StateChanged) and event.state in (RUNNING, DONE):
            note = folder.begin(order.request.system, layers)
            if note is not None:
                on_note(note)
        elif isinstance(event, LayerReady):
            folder.layer_came()
        on_event(event)

    outcome = client.follow(
        job, pictures=pictures, folder=folder.path, on_event=watch, cancelled=cancelled
    )
    manifest = _manifest_of(outcome)
    manifest["layers"] = {name: _in_order(manifest["layers"][name]) for name in layers}
    inputs = manifest.get("inputs", {})
    manifest["inputs"] = {name: _in_order(facts) for name, facts in inputs.items()}
    manifest["seconds"] = round(time.monotonic() - began, 2)
    client.release(job)
    return manifest


def _manifest_of(outcome: Outcome) -> dict[str, Any]:
    """Return the manifest of a finished job, or raise what it ended with."""
    if outcome.state == CANCELLED:
        raise Cancelled("The job was cancelled.", hint="The same command goes on with it.")
    if outcome.state != DONE or outcome.manifest is None:
        raise outcome.error or GencompError(f"The job ended as '{outcome.state}'.")
    return dict(outcome.manifest)


def _in_order(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts whose tables by frame go 1, 2, 10: as keys of text they came 1, 10, 2."""
    return {
        key: dict(sorted(table.items(), key=lambda pair: int(pair[0])))
        if key in ("frames", "digests", "not_finite")
        else table
        for key, table in facts.items()
    }


def layer_folders(folder: Path, layers: Iterable[str]) -> dict[str, str]:
    """Spell where each layer's frames lie, as a Read node takes it."""
    return {layer: str(folder / layer / f"{layer}.%04d.exr") for layer in layers}


def layer_paths(folder: Path, layer: str, frames: Iterable[Any]) -> dict[int, Path]:
    """Return the file of each delivered frame of a layer."""
    return {int(frame): folder / layer / f"{layer}.{int(frame):04d}.exr" for frame in frames}
