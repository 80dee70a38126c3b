# SPDX-License-Identifier: Apache-2.0
"""Which backbone lies on the device: one, kept between jobs, loaded at its first use.

A job is given a :class:`LazyBackbone`, which knows its identity before anything is loaded, so that
a job whose stages are all on disk loads nothing. Where the device runs out of memory while weights
are loaded, a step is computed or frames are decoded, everything is let go of, and the job fails
with a sentence that says where and what to turn; the worker takes the next job.

Tensor libraries are loaded in here, inside functions, and through ``models`` alone.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from gencomp_protocol.errors import OutOfMemory, WeightsRefused
from gencomp_server import pulse, weights_progress
from gencomp_server.backbones import PREVIEW, BackboneSpec, cached_steps_of
from gencomp_server.footprint import CPU, Placement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, device

    from gencomp_server.models.backbone import (
        Anchors,
        Backbone,
        JoinsLayers,
        Progress,
        ReusesSteps,
        Schedule,
    )

    Floats = NDArray[np.float32]

log = logging.getLogger(__name__)

T = TypeVar("T")

# A change of these may change bits.
_LIBRARIES = ("torch", "diffusers", "transformers")
# And of these, where a knob has them compute: the packages that a library may come as.
_FLASH, _SAGE, _EIGHT_BITS = ("flash-attn", "flash-attn-3"), ("sageattention",), ("torchao",)
# What may hold spoilt numbers, the likeliest first.
_WEIGHT_ROLES = ("transformer", "branch", "vae", "lora", "text_encoder")
# What is read before anything is computed; the text encoder waits for a prompt that is new.
_LOADED_ROLES = ("transformer", "branch", "lora", "vae")
_WORDS = {
    "load": "loading {title}",
    "text": "reading the prompt with {title}",
    "encode": "encoding frames with {title}",
    "sample": "computing a step of {title}",
    "decode": "decoding frames with {title}",
}


@dataclass(frozen=True)
class Wanted:
    """A backbone as a job wants it.

    Attributes:
        spec: Which.
        device: What it runs on.
        placement: What lies where.
        compiled: The knob of that name.
        attention: The knob of that name.
        cached_steps: The knob of that name; of a draft on a GPU, never 0.
        gpu: What the GPU is called, since kernels differ from one to another; empty for none.
    """

    spec: BackboneSpec
    device: str = CPU
    placement: Placement = field(default_factory=Placement)
    compiled: bool = False
    attention: str = "native"
    cached_steps: float = 0.0
    gpu: str = ""


Loader = Callable[[Wanted, "Mapping[str, Path] | None", Path], "Backbone"]


def wanted(
    spec: BackboneSpec, params: Any, placement: Placement, device: str, name: str = ""
) -> Wanted:
    """Return what a job's knobs want of a backbone; accelerations are for a GPU alone.

    Which knobs a processor leaves aside is said by ``backbones.idle_knobs``.

    Args:
        spec: Which.
        params: The job's knobs.
        placement: What lies where.
        device: What it runs on.
        name: What the device is called.
    """
    if device == CPU:
        return Wanted(spec, device, placement)
    cached = cached_steps_of(params, device)
    if cached > 0:  # Then elements go one at a time, whatever there is room for.
        placement = replace(placement, batch=1)
    return Wanted(spec, device, placement, params.compiled, params.attention, cached, name)


def identity_of(want: Wanted, weights: str) -> str:
    """Return the digest of everything that decides the bits of text and samples, in hex.

    Where weights lie while they are used decides none; how many elements go into a forward may.
    What the VAE does in tiles is known to :func:`tiled` alone: it follows from what is free, and a
    server that finds less after a restart must still find what was computed for hours.

    Args:
        want: The backbone.
        weights: Digest of its weights; empty for one that is made and not loaded.
    """
    facts = {
        "backbone": want.spec.name,
        "weights": weights,
        "precision": want.placement.precision,
        "batch": want.placement.batch,
        "compiled": want.compiled,
        "attention": want.attention,
        "cached_steps": want.cached_steps,
        "gpu": want.gpu,
        "libraries": library_versions(want.attention, want.placement.precision),
    }
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def tiled(identity: str, placement: Placement, *, decoded: bool) -> str:
    """Return an identity that knows what of the VAE's work is done in tiles.

    Args:
        identity: What :func:`identity_of` made.
        placement: What lies where.
        decoded: True for decoded frames, False for latents.
    """
    made = f"{identity} encoded in tiles" if placement.encode_tiling else identity
    return f"{made} decoded in tiles" if decoded and placement.tiling else made


def library_versions(attention: str = "native", precision: str = "exact") -> dict[str, str]:
    """Return the versions of the libraries that decide bits, without loading one."""
    asked: tuple[str, ...] = _LIBRARIES
    asked += {"flash": _FLASH, "sage": _SAGE}.get(attention, ())
    asked += _EIGHT_BITS if precision == "fp8" else ()
    found = {}
    for name in asked:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


class Residency:
    """The one backbone that is loaded, and how it got there.

    Args:
        cache: Folder of the embeddings of prompts and of compiled code; will be made.
        loader: Loads one; None takes ``models.load``.
    """

    def __init__(self, cache: Path, loader: Loader | None = None) -> None:
        self._cache, self._loader = cache, loader or load_by_family
        self._held: tuple[Any, Backbone] | None = None

    def lease(
        self,
        want: Wanted,
        weights: str,
        files: Mapping[str, Path] | None = None,
        tell: weights_progress.Tell | None = None,
    ) -> LazyBackbone:
        """Return a backbone that is loaded at its first use.

        Args:
            want: Which, and how.
            weights: Digest of its weights.
            files: Its files by role; None for ``tiny``.
            tell: Is told how far weights are read: stage, step, total.
        """
        return LazyBackbone(self, want, identity_of(want, weights), weights, files, tell)

    def get(self, want: Wanted, weights: str, files: Mapping[str, Path] | None) -> Backbone:
        """Return a loaded backbone; any other is let go of first."""
        key = _loaded_as(want, weights)
        if self._held is None or self._held[0] != key:
            self.evict()
            log.info("loading %s: %s", want.spec.name, want.placement.spell())
            self._held = (key, self._loader(want, files, self._cache))
        return self._held[1]

    def release(self, want: Wanted, weights: str) -> None:
        """Let a backbone drop what only a running job needs, where it is loaded at all."""
        if self._held is not None and self._held[0] == _loaded_as(want, weights):
            self._held[1].release()

    def evict(self) -> None:
        """Let go of what is loaded and give its memory back."""
        self._held = None
        give_memory_back()

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is loaded."""
        return self._held is None

    @property
    def holds(self) -> str:
        """What is loaded, as a text that is another for another model or plan; empty for none."""
        if self._held is None:
            return ""
        return hashlib.blake2b(repr(self._held[0]).encode(), digest_size=8).hexdigest()


def _loaded_as(want: Wanted, weights: str) -> tuple[Wanted, str]:
    """Return what a loaded backbone is known by; how many elements it is given is not part."""
    return replace(want, placement=replace(want.placement, batch=1)), weights


class LazyBackbone:
    """A backbone for one job; what it does is in ``models/``.

    Args:
        residency: What holds it once it is loaded.
        want: Which, and how.
        identity: Digest of what decides its bits.
        weights: Digest of its weights.
        files: Its files by role; None for ``tiny``.
        tell: Is told how far weights are read: stage, step, total. What it raises ends the reading.

    Attributes:
        spec: Its facts.
        identity: Digest of everything that decides the bits of text and samples.
        batch: Most elements that a forward should be given: what memory allows.
        forwards: Forwards computed by this job so far.
        said: What is in force that is not the default, a sentence each; None while this job has
            used nothing of it.
    """

    def __init__(
        self,
        residency: Residency,
        want: Wanted,
        identity: str,
        weights: str,
        files: Mapping[str, Path] | None = None,
        tell: weights_progress.Tell | None = None,
    ) -> None:
        self.spec, self.identity, self.forwards = want.spec, identity, 0
        self.batch = want.placement.batch
        self.said: tuple[str, ...] | None = None
        self.want = want
        self._residency, self._weights, self._files = residency, weights, files
        self._tell = tell

    @property
    def weights(self) -> str:
        """Digest of its weights; empty for one that is made and not loaded."""
        return self._weights

    @property
    def files(self) -> Mapping[str, Path]:
        """Its files by role; none of one that is made."""
        return self._files or {}

    @property
    def tiles(self) -> bool:
        """Tell whether this job decodes in tiles."""
        return self.want.placement.tiling

    @property
    def encode_identity(self) -> str:
        """Identity, and whether frames are encoded in tiles: what decides the bits of latents."""
        return tiled(self.identity, self.want.placement, decoded=False)

    @property
    def vae_identity(self) -> str:
        """Identity, and what is done in tiles: what decides the bits of decoded frames."""
        return tiled(self.identity, self.want.placement, decoded=True)

    def turn_to_tiles(self, failure: OutOfMemory) -> bool:
        """Have the VAE work in tiles for the rest of this job, where that may cure a failure.

        Decoding is; encoding too where it was what failed, since another latent is another sample.
        Whatever was encoded or decoded before must be asked for again: its key is another now.

        Returns:
            False where the failure is another, or tiles are what failed.
        """
        placement, stage = self.want.placement, failure.details.get("stage")
        encodes = placement.encode_tiling or stage == "encode"
        turned = replace(placement, tiling=True, encode_tiling=encodes)
        if stage not in ("encode", "decode") or turned == placement:
            return False
        self.want = replace(self.want, placement=turned)
        return True

    def turn_cheaper(self, failure: OutOfMemory) -> str:
        """Have the rest of this job take less memory, where that may cure a failure.

        What the VAE lacks is found by tiles. On a GPU what a step or the weights lack is found by
        keeping in main memory what is not used at the moment, a few blocks of the transformer being
        on the device at a time, and by one element to a forward. The next job starts as planned.

        Returns:
            What is done about it, for the artist; empty where nothing is left to do.
        """
        if self.turn_to_tiles(failure):
            return (
                f"There was not enough memory for {self.spec.title}'s VAE: for this job it works "
                "in tiles, which changes tone a little from tile to tile."
            )
        placement, stage = self.want.placement, failure.details.get("stage")
        leanest = replace(placement, offload="group", batch=1)
        is_gpu = self.want.device != CPU
        if not is_gpu or stage not in ("load", "text", "sample") or leanest == placement:
            return ""
        self.want = replace(self.want, placement=leanest)
        self.batch = leanest.batch
        self.identity = identity_of(self.want, self._weights)
        return (
            f"There was not enough GPU memory while {_WORDS[stage].format(title=self.spec.title)}: "
            "for this job its weights stay in main memory and go to the GPU a few blocks at a "
            "time, which takes longer."
        )

    @property
    def device(self) -> device:
        """Where tensors must lie."""
        import torch

        return torch.device(self.want.device)

    def _blame_weights(self) -> None:
        """Look for weights that are not finite, after something was made that is not.

        Nothing of it happens where all is well, and of a backbone that is made there are no files.

        Raises:
            WeightsRefused: There are; names the file.
        """
        from gencomp_server.models.loading import not_finite_in

        for role in _WEIGHT_ROLES:
            place = (self._files or {}).get(role)
            found = None if place is None else not_finite_in(place)
            if found is not None:
                file, tensor = found
                raise WeightsRefused(
                    f"The weights file {file} of {self.spec.title} holds numbers that are not "
                    f"finite, in '{tensor}'.",
                    hint=f"gencomp weights verify {self.spec.weights} compares it with what was "
                    "installed; install it again.",
                    file=str(file),
                )

    def encode(self, video: Floats, progress: Progress | None = None) -> Tensor:
        """Encode a sequence; see ``models.backbone.Backbone``. [T,H,W,3] -> [1,T',C,h,w]."""
        return self._do("encode", lambda loaded: loaded.encode(video, progress))

    def decode(self, latents: Tensor, progress: Progress | None = None) -> Floats:
        """Decode latents; see ``models.backbone.Backbone``. [1,T',C,h,w] -> [T,H,W,3].

        Raises:
            WeightsRefused: What was made is not finite, and neither are the weights.
        """
        import numpy as np

        video = self._do("decode", lambda loaded: loaded.decode(latents, progress))
        if self._files and not np.isfinite(video).all():
            self._blame_weights()
        return video

    def text(self, prompt: str) -> Tensor:
        """Return the embedding of a prompt. [1,L,D]."""
        return self._do("text", lambda loaded: loaded.text(prompt))

    def count_text_tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt has, uncut, its end mark counted."""
        return self._do("text", lambda loaded: loaded.count_text_tokens(prompt))

    def condition(self, plate_latents: Tensor, trimask: NDArray[np.uint8]) -> Tensor:
        """Return the channels that stand beside the noise. [1,T',K,h,w]."""
        return self._do("encode", lambda loaded: loaded.condition(plate_latents, trimask))

    def predict(self, latents: Tensor, timestep: float, text: Tensor, condition: Tensor) -> Tensor:
        """Run the transformer once on a batch. [B,T',C,h,w].

        Raises:
            WeightsRefused: What the job's first forward made is not finite, and neither are the
                weights: hours need not pass before the decoded frames show it.
        """
        made = self._do("sample", lambda one: one.predict(latents, timestep, text, condition))
        if self.forwards == 0 and self._files and not bool(made.isfinite().all()):
            self._blame_weights()
        self.forwards += latents.shape[0]
        return made

    def join(self, layers: Mapping[str, Tensor]) -> Tensor:
        """Return the channels beside the noise; see ``models.backbone.JoinsLayers``."""
        return self._do("encode", lambda loaded: cast("JoinsLayers", loaded).join(layers))

    def predict_anchored(
        self, latents: Tensor, timestep: float, text: Tensor, **anchor: Any
    ) -> Tensor:
        """Run the transformer on an edit and its source; see ``models.backbone.Anchors``."""

        def work(loaded: Backbone) -> tuple[Tensor, int]:
            before = loaded.forwards
            made = cast("Anchors", loaded).predict_anchored(latents, timestep, text, **anchor)
            return made, loaded.forwards - before

        made, computed = self._do("sample", work)
        self.forwards += computed
        return made

    @property
    def reuses_steps(self) -> bool:
        """Tell whether a forward may be answered from the step before; loads nothing."""
        return self.want.cached_steps > 0

    def cache_scope(self, owner: str, step: int) -> AbstractContextManager[None]:
        """Say whose forward runs inside; see ``models.backbone.ReusesSteps``."""
        return self._do("sample", lambda one: cast("ReusesSteps", one).cache_scope(owner, step))

    def schedule(self, steps: int) -> Schedule:
        """Return the model's own schedule over so many steps."""
        return self._do("sample", lambda loaded: loaded.schedule(steps))

    def release(self) -> None:
        """Drop what only a running job needs: text encoder, reused steps. Loads nothing."""
        self._residency.release(self.want, self._weights)

    def _do(self, stage: str, work: Callable[[Backbone], T]) -> T:
        """Do something with the loaded backbone.

        Raises:
            OutOfMemory: The device has not enough; nothing is loaded any more then.
        """
        loaded, doing = None, "load"
        try:
            with weights_progress.telling(self._tell):
                loaded = self._residency.get(self.want, self._weights, self._files)
                self.said, doing = loaded.said, stage
                with beating(self.want.device):
                    return work(loaded)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failure = self._failure(doing, error)
        # Outside of the handler: an error that is raised in one keeps the error before it, that
        # one's frames, and the tensors in them.
        del loaded
        self._residency.evict()
        raise failure

    def _failure(self, stage: str, error: BaseException) -> OutOfMemory:
        """Return the sentence for an exhausted device; let go of the frames that it happened in."""
        log.error("out of memory (%s): %s", stage, error)
        traceback.clear_frames(error.__traceback__)
        where = "main memory" if self.want.device == CPU else "GPU memory"
        knob, cure = self._cure(stage)
        return OutOfMemory(
            f"There was not enough {where} while {_WORDS[stage].format(title=self.spec.title)}.",
            hint=cure,
            stage=stage,
            knob=knob,
        )

    def _cure(self, stage: str) -> tuple[str, str]:
        """Return the knob that lowers what a stage takes, and the sentence that says so."""
        exact = self.want.placement.precision == "exact"
        if stage == "load" and exact and self.want.device != CPU:
            return "precision", "Set the knob 'precision' to fp8, or choose a smaller 'backbone'."
        if stage in ("load", "text"):
            return "backbone", "Choose a smaller model with the knob 'backbone'."
        return "model_size", "Lower the knob 'model_size'; what is finished is kept."


def load_by_family(want: Wanted, files: Mapping[str, Path] | None, cache: Path) -> Backbone:
    """Load a backbone with the loader of its family.

    Raises:
        WeightsRefused: A file is damaged, or of another model.
    """
    from gencomp_server import models
    from gencomp_server.models.loading import LoadSettings, bytes_in

    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = LoadSettings(
        compiled=want.compiled,
        attention=want.attention,
        cached_steps=want.cached_steps,
        precision=want.placement.precision,
        offload=want.placement.offload,
        tiling=want.placement.tiling,
        encode_tiling=want.placement.encode_tiling,
    )
    total = bytes_in(place for role, place in (files or {}).items() if role in _LOADED_ROLES)
    with weights_progress.stage(weights_progress.WEIGHTS, total):
        return models.load(
            want.spec, files, device=want.device, settings=settings, cache=cache, log=log
        )


@contextmanager
def beating(device: str) -> Iterator[None]:
    """Have every module that has computed be a sign of life, where a forward may take an hour.

    A GPU computes after its modules were called, and never for so long.
    """
    torch = sys.modules.get("torch")
    if device != CPU or torch is None:
        yield
        return
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: pulse.beat())
    try:
        yield
    finally:
        handle.remove()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a device, or the process, has no memory left."""
    if isinstance(error, MemoryError):
        return True
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    words = str(error)
    return isinstance(error, RuntimeError) and (
        named
        or "CUBLAS_STATUS_ALLOC_FAILED" in words
        or "CUDA error: out of memory" in words
        or "can't allocate memory" in words
    )


def device_bytes(device: str) -> int:
    """Return how much of a device's memory this process's tensors take; 0 of a processor's."""
    torch = sys.modules.get("torch")
    if device == CPU or torch is None or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.memory_allocated(device))


def give_memory_back() -> None:
    """Collect what nobody refers to, and let the device's allocator give back what it holds."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def describe(lent: LazyBackbone, system: str, licence: Mapping[str, str]) -> dict[str, Any]:
    """Return what a manifest says of the backbone of a job.

    ``in_force`` are the sentences of what is accelerated, or None where all was on disk.
    """
    spec, want = lent.spec, lent.want
    return {
        "name": spec.name,
        "title": spec.title,
        "licence": licence.get("licence", "none: made by the program"),
        "licence_class": licence.get("class", "none"),
        "proven": "no" if spec.is_tiny else spec.proven,
        "identity": lent.identity,
        "weights": spec.weights,
        "weights_digest": lent.weights,
        "untrained": spec.is_tiny,
        "draft": spec.name == PREVIEW,
        "surrogate": system not in spec.trained_for,
        "precision": want.placement.precision,
        "placement": {**asdict(want.placement), "words": want.placement.spell()},
        "accelerations": {
            "compiled": want.compiled,
            "attention": want.attention,
            "cached_steps": want.cached_steps,
        },
        "in_force": None if lent.said is None else list(lent.said),
        "libraries": library_versions(want.attention, want.placement.precision),
        "forwards": lent.forwards,
    }


def stand_in_sentence(spec: BackboneSpec, title: str, system: str) -> str | None:
    """Return what the artist is told of a backbone that is not the system's own, else None."""
    if spec.name == PREVIEW:
        return (
            "The video model 'preview' ships with gencomp: what it makes is a draft, seen at the "
            "size of a thumbnail; gencomp weights list names better ones."
        )
    if spec.is_tiny:
        return "The backbone 'tiny' is untrained: it tests a pipeline, its pictures mean nothing."
    if system in spec.trained_for:
        return None
    return f"{spec.title} was not trained for {title}; it stands in for a model that was."
