# SPDX-License-Identifier: Apache-2.0
"""The one place through which a job's stages are computed: here, or wherever somebody puts them.

``ctx.stage`` names a stage, looks for it on disk, and hands what is missing to an
:class:`Executor`. :class:`LocalExecutor` calls it in the worker. Another executor may send it to
another process or machine that sees the same store: :func:`pack` writes down the whole call as
plain data, and :func:`run_packed` makes it there. Whoever runs a stage keeps its outcome in the
store under the stage's key, and that is all that comes back; so the graph of a job is the same
wherever its stages run, and what ran once is found everywhere.
"""

from __future__ import annotations

import functools
import importlib
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gencomp_protocol.codec import request_from_plain, request_to_plain
from gencomp_protocol.errors import InternalError
from gencomp_server.contract import System, find_system
from gencomp_server.engine.residency import LazyBackbone, Residency, Wanted
from gencomp_server.engine.shot import PictureShelf, SpoolShot
from gencomp_server.engine.spool import Spool, make_folder
from gencomp_server.engine.stages import StageStore
from gencomp_server.exr.decode import DecodePool
from gencomp_server.exr.header import NO_LIMITS

if TYPE_CHECKING:
    from gencomp_server.engine.context import JobContext

log = logging.getLogger(__name__)

_KEPT = "models"  # As of a worker: embeddings of prompts and compiled code.
_SHOT = "shot"


@dataclass(frozen=True)
class StageCall:
    """One stage that is not on disk yet.

    Attributes:
        key: What its outcome is kept under.
        name: What the system calls it.
        fn: Computes it: ``fn(ctx, *given, **settings)``.
        given: Shots, without knobs, and plain values.
        settings: Plain values.
        seeded: False where it gets no random numbers.
    """

    key: str
    name: str
    fn: Callable[..., Any]
    given: tuple[Any, ...]
    settings: Mapping[str, Any]
    seeded: bool = True


class Executor(Protocol):
    """What computes stages."""

    def run(self, call: StageCall, ctx: JobContext) -> Any:
        """Compute a stage, keep its outcome in the store and return it as the store loads it.

        Progress and warnings go to ``ctx``. A stage that fails is not kept, its checkpoints are.

        Raises:
            Cancelled: The artist has cancelled; at the latest one step later.
            GencompError: Why the stage failed.
        """
        ...


class LocalExecutor:
    """Computes stages in this process, one at a time.

    Args:
        store: Where outcomes are kept.
    """

    def __init__(self, store: StageStore) -> None:
        self._store = store

    def run(self, call: StageCall, ctx: JobContext) -> Any:
        """Compute a stage here; see :class:`Executor`."""
        with ctx.inside(call):
            return self._store.save(call.key, call.fn(ctx, *call.given, **call.settings))


# --- elsewhere -----------------------------------------------------------------------------------


def pack(call: StageCall, ctx: JobContext, store: StageStore) -> dict[str, Any]:
    """Write a call down as plain data, for whoever sees the same spool.

    Arrays that a stage made are named, not copied; others are written beside the stage's place.
    :func:`forget_packed` removes those. What a ``functools.partial`` adds to a function is help
    that lives in this process alone, such as a cache; it stays here.

    Raises:
        TypeError: Its function is no function of a module, or a value is not plain.
    """
    fn = call.fn.func if isinstance(call.fn, functools.partial) else call.fn
    module, name = fn.__module__, fn.__qualname__
    if "<" in name or "." in name:
        raise TypeError(f"{name} is no function of a module; it cannot run elsewhere")
    folder = packed_folder(call.key, store)
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    files: list[str] = []

    def plain(value: Any) -> Any:
        if isinstance(value, SpoolShot):
            request = request_to_plain(value.request)
            own = [[name, list(digests.items())] for name, digests in value.pictures().items()]
            return {"is": _SHOT, "request": request, "pictures": own, "names": list(value.names)}
        return store.to_reference(value, folder, files)

    return {
        "key": call.key,
        "name": call.name,
        "fn": f"{module}:{name}",
        "given": [plain(one) for one in call.given],
        "settings": {key: plain(one) for key, one in call.settings.items()},
        "seeded": call.seeded,
        "job": ctx.job,
        "system": ctx.system,
        "seed": ctx.seed,
        "device": ctx.device,
        "backbone": _packed_backbone(ctx.backbone, store, folder),
    }


def packed_folder(key: str, store: StageStore) -> Path:
    """Return where arrays of a call lie that no stage made."""
    return store.folder / f"{key}.call"


def forget_packed(key: str, store: StageStore) -> None:
    """Remove what :func:`pack` wrote, once the stage has ended there."""
    shutil.rmtree(packed_folder(key, store), ignore_errors=True)


def run_packed(
    packed: Mapping[str, Any],
    spool: Spool,
    registry: Iterable[System],
    *,
    say: Callable[[Mapping[str, Any]], None],
    is_cancelled: Callable[[], bool],
    held: Residency | None = None,
) -> int:
    """Compute a stage that :func:`pack` wrote down, and keep its outcome in the store.

    Args:
        packed: What :func:`pack` made.
        spool: The spool of the server that wants it.
        registry: The systems.
        say: Takes progress and warnings, as ``engine/worker.py`` has them.
        is_cancelled: Tells whether the artist has cancelled.
        held: Keeps the video model from call to call; None loads it for this one.

    Returns:
        How many forwards of a transformer were computed, for the job's own count.

    Raises:
        InternalError: What is installed here would make other bits than the server expects.
        GencompError: Why the stage failed.
    """
    from gencomp_server.engine.context import JobContext

    store, key = StageStore(spool.stages), str(packed["key"])
    ctx = JobContext(
        packed["job"], packed["system"], packed["seed"], packed["device"], store, say, is_cancelled
    )
    ctx.backbone = _lent_backbone(packed["backbone"], spool, store, held)
    folder, pool = packed_folder(key, store), DecodePool(1, limits=NO_LIMITS)

    def value(plain: Any) -> Any:
        if isinstance(plain, dict) and plain.get("is") == _SHOT:
            request = request_from_plain(plain["request"])
            pictures = {n: dict(own) for n, own in plain["pictures"]}
            system = find_system(registry, request.system)
            shelf = PictureShelf(spool, system, request, pictures, pool)
            return SpoolShot(request, shelf, tuple(plain["names"]))
        return store.from_reference(plain, folder)

    module, _, name = str(packed["fn"]).partition(":")
    fn = getattr(importlib.import_module(module), name)
    call = StageCall(
        key,
        packed["name"],
        fn,
        tuple(value(one) for one in packed["given"]),
        {name: value(one) for name, one in packed["settings"].items()},
        packed["seeded"],
    )
    try:
        LocalExecutor(store).run(call, ctx)
    finally:
        pool.close()
    return 0 if ctx.backbone is None else int(ctx.backbone.forwards)


def _packed_backbone(backbone: Any, store: StageStore, folder: Path) -> Mapping[str, Any] | None:
    """Return how a job's video model is had elsewhere; None where the job has none."""
    if not isinstance(backbone, LazyBackbone):
        return None
    return {
        "want": store.to_reference(backbone.want, folder, []),
        "identity": backbone.identity,
        "weights": backbone.weights,
        "files": {role: str(place) for role, place in backbone.files.items()},
    }


def _lent_backbone(
    packed: Mapping[str, Any] | None, spool: Spool, store: StageStore, held: Residency | None
) -> LazyBackbone | None:
    """Return the video model that a call names, not loaded yet."""
    if packed is None:
        return None
    want = store.from_reference(packed["want"], spool.stages)
    assert isinstance(want, Wanted), want
    files = {role: Path(place) for role, place in packed["files"].items()}
    keeper = held or Residency(spool.root / _KEPT)
    lent = keeper.lease(want, packed["weights"], files or None)
    if lent.identity != packed["identity"]:
        raise InternalError(
            f"The libraries installed here give {want.spec.title} other bits than the server's.",
            hint="Install the same release with the same libraries on every machine.",
        )
    return lent
