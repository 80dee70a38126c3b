# SPDX-License-Identifier: Apache-2.0
"""What makes a transformer faster or smaller, each behind one knob whose default changes nothing.

| knob           | default | otherwise                                                   |
|----------------|---------|-------------------------------------------------------------|
| `compiled`     | off     | every block compiled, one compilation for all blocks        |
| `attention`    | native  | kernels of cuDNN, FlashAttention, SageAttention             |
| `cached_steps` | 0       | blocks 2 to last skipped where the first one hardly changed |
| `precision`    | exact   | weights kept in 8 bits; multiplied in 8 bits with torchao   |
| `offload`      | none    | `group`: blocks come to the GPU one ahead of their turn     |

The libraries do the work; what stands here is where they do nothing or break for these classes:

* The class of CogVideoX names no repeated blocks, and its attention takes no other kernels
  (``attention.py``).
* A block is compiled from the inside (its ``forward``), so that hooks stand around the compiled
  code, not in it: hooks in it break the graph, and make each block a compilation of its own.
* What a step leaves for the next belongs to one window of one pass under one half of the guidance.
  :func:`cache_scope` names that owner; nothing is handed to another, nor across a gap in steps.

Sources: FirstBlockCache and the order of hooks: diffusers' documentation; eight-bit multiplication
with a scale per row: torchao.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.hooks import FirstBlockCacheConfig, HookRegistry
from diffusers.hooks.layerwise_casting import LayerwiseCastingHook
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXResnetBlock3D
from torch import nn

from gencomp_protocol.errors import BadKnob
from gencomp_server.models import attention

if TYPE_CHECKING:
    from gencomp_server.models.loading import LoadSettings

log = logging.getLogger(__name__)

EIGHT_BITS = torch.float8_e4m3fn

# Two compilations per picture size, window length and batch: the first block's input has strides of
# its own. Past torch's limit of 8 a compiled block would end the job, not compile once more.
_MOST_SHAPES = 128
# The first block's hook as diffusers registers it: the one that holds what steps leave behind.
_LEADER = "fbc_leader_block_hook"
# The name by which diffusers finds a model's computing precision when its weights are narrower.
_CASTING = "layerwise_casting"
# Lists of blocks: CogVideoX, Wan.
_BLOCK_LISTS = ("transformer_blocks", "blocks")
# Compute capability from which tensor cores multiply eight-bit floats.
_EIGHT_BIT_CORES = (8, 9)


def apply(
    transformer: Any, settings: LoadSettings, device: torch.device, *, cache: Path | None = None
) -> tuple[str, ...]:
    """Put the knobs in force on a freshly loaded transformer, once, in place.

    With every knob at its default the transformer is left untouched. All knobs are checked before
    any is put in force.

    Args:
        transformer: diffusers' CogVideoX or Wan transformer, on ``device``; with ``offload``
            ``group`` on the CPU, from where its blocks come as needed.
        settings: The knobs.
        device: Where it computes.
        cache: Folder, made where missing, that keeps compiled code between runs.

    Returns:
        What is in force, a sentence each, for log and manifest; empty where all is exact.

    Raises:
        BadKnob: A knob asks for what this machine or this model cannot do; names knob and cure.
    """
    device = torch.device(device)
    _check(transformer, settings, device)
    said = [attention.put_in_force_(transformer, settings.attention, device)]
    scaled = settings.precision == "fp8" and settings.compiled and multiplies_in_8_bits(device)
    if scaled:
        said.append(_multiply_in_8_bits(transformer))
    if settings.compiled:
        if cache is not None:
            keep_compiled_in(cache)
        said.append(compile_blocks_(transformer))
    if settings.precision == "fp8" and not scaled:
        said.append(_store_in_8_bits(transformer))
    if settings.cached_steps > 0:
        said.append(_reuse(transformer, settings.cached_steps))
    if settings.offload == "group":
        said.append(_offload_blocks(transformer, device))
    in_force = tuple(sentence for sentence in said if sentence)
    for sentence in in_force:
        log.info("%s", sentence)
    return in_force


def blocks(transformer: Any) -> list[nn.Module]:
    """Return the transformer's repeated blocks, in order.

    Raises:
        TypeError: It has no list of blocks known here.
    """
    for name in _BLOCK_LISTS:
        found = getattr(transformer, name, None)
        if isinstance(found, nn.ModuleList):
            return list(found)
    raise TypeError(f"{type(transformer).__name__} has no list of blocks")


# --- checks --------------------------------------------------------------------------------------


def _check(transformer: Any, settings: LoadSettings, device: torch.device) -> None:
    attention.check(settings.attention, device)
    if settings.compiled:
        _check_compiler(device)
    if settings.precision not in ("exact", "fp8"):
        raise BadKnob(
            f"Knob 'precision' cannot be '{settings.precision}'.",
            hint="Choose one of: exact, fp8.",
            knob="precision",
        )
    if not 0 <= settings.cached_steps <= 1:
        raise BadKnob(
            f"Knob 'cached_steps' is {settings.cached_steps:g}, allowed are 0 to 1.",
            hint="0 computes every step; 0.05 to 0.2 is usual.",
            knob="cached_steps",
        )
    if settings.cached_steps > 0 and len(blocks(transformer)) < 2:
        raise BadKnob(
            "Knob 'cached_steps' has nothing to reuse: this model has a single block.",
            hint="Set cached_steps to 0.",
            knob="cached_steps",
        )


def _check_compiler(device: torch.device) -> None:
    if device.type != "cuda":
        raise BadKnob(
            f"Knob 'compiled' needs a GPU, and this job computes on {attention.spell(device)}.",
            hint="Turn compiled off.",
            knob="compiled",
        )
    missing = "Triton" if importlib.util.find_spec("triton") is None else ""
    if not missing and not (os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))):
        missing = "a C compiler"
    if missing:
        raise BadKnob(
            f"Knob 'compiled' needs {missing}, which this server does not have.",
            hint=f"Turn compiled off, or have {missing} installed on the server.",
            knob="compiled",
        )


# --- compiling -----------------------------------------------------------------------------------


def keep_compiled_in(cache: Path) -> None:
    """Keep compiled code in a folder between runs, unless the environment names one already.

    Kernels that were chosen by timing stay chosen, so a job run again on this machine has the same
    bits.
    """
    folder = cache / "compiled"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def compile_blocks_(transformer: Any, backend: str | Callable[..., Any] = "inductor") -> str:
    """Compile every block's forward in place, at its first run with each shape.

    All blocks share their code, and so what is compiled. Shapes are fixed: a new picture size,
    window length or batch compiles once more.

    Args:
        transformer: Its blocks must not be compiled yet, nor carry hooks.
        backend: What compiles; another than torch's own for tests.

    Returns:
        A sentence for the manifest.
    """
    for block in blocks(transformer):
        block.forward = _compiled(block.forward, backend)
    return "Blocks are compiled: exact up to rounding, kernels chosen by timing on this machine."


def compile_vae_(vae: Any, backend: str | Callable[..., Any] = "inductor") -> str:
    """Compile the residual blocks of a CogVideoX VAE in place, at their first run with each shape.

    The blocks and not the halves: ``models.vae`` hangs hooks of its own between them for the length
    of a decoding, which compiled code would have to be made anew for each time. Kernels are not
    chosen by timing; convolutions in three dimensions would take minutes.
    """
    for module in vae.modules():
        if isinstance(module, CogVideoXResnetBlock3D):
            module.forward = torch.compile(
                module.forward, backend=backend, dynamic=False, recompile_limit=_MOST_SHAPES
            )
    return "The VAE's blocks are compiled: exact up to rounding."


def _compiled(forward: Callable[..., Any], backend: str | Callable[..., Any]) -> Callable[..., Any]:
    timed: dict[str, Any] = {}
    if backend == "inductor" and torch.cuda.is_available():
        timed["mode"] = "max-autotune-no-cudagraphs"
    made: Callable[..., Any] = torch.compile(
        forward,
        fullgraph=True,
        dynamic=False,
        backend=backend,
        recompile_limit=_MOST_SHAPES,
        **timed,
    )
    return made


# --- eight bits ----------------------------------------------------------------------------------


class BlockCasting(LayerwiseCastingHook):  # type: ignore[misc]
    """Keep a block's matrices in 8 bits and widen them while the block runs.

    diffusers' own casting hangs a hook on every layer, which a compiled block cannot hold; this one
    stands around the block. Layers under a norm keep their precision: what they compute scales and
    shifts everything else.
    """

    def initialize_hook(self, module: nn.Module) -> nn.Module:
        """Narrow the matrices as they are taken over."""
        self._cast_(module, self.storage_dtype)
        return module

    def pre_forward(
        self, module: nn.Module, *args: Any, **kwargs: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Widen them before the block runs."""
        self._cast_(module, self.compute_dtype)
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Narrow them again."""
        self._cast_(module, self.storage_dtype)
        return output

    def _cast_(self, block: nn.Module, dtype: torch.dtype) -> None:
        for _, layer in matrices(block):
            layer.to(dtype=dtype, non_blocking=self.non_blocking)


def matrices(block: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Return the linear layers of a block that are not part of a norm, with their names."""
    return [
        (name, layer)
        for name, layer in block.named_modules()
        if isinstance(layer, nn.Linear) and "norm" not in name
    ]


def multiplies_in_8_bits(device: torch.device) -> bool:
    """Tell whether torchao is installed and the device has tensor cores for 8-bit floats."""
    if device.type != "cuda" or importlib.util.find_spec("torchao") is None:
        return False
    return bool(torch.cuda.get_device_capability(device) >= _EIGHT_BIT_CORES)


def _store_in_8_bits(transformer: Any) -> str:
    computing = transformer.dtype
    for block in blocks(transformer):
        hook = BlockCasting(EIGHT_BITS, computing, non_blocking=False)
        HookRegistry.check_if_exists_or_initialize(block).register_hook(hook, _CASTING)
    return (
        "Weights are kept in 8 bits (e4m3) and widened block by block: half the memory, "
        "no faster, not exact."
    )


def _multiply_in_8_bits(transformer: Any) -> str:
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        PerRow,
        quantize_,
    )

    # set_inductor_config would change how everything else in the process is compiled.
    config = Float8DynamicActivationFloat8WeightConfig(
        granularity=PerRow(), set_inductor_config=False
    )
    for block in blocks(transformer):
        chosen = {name for name, _ in matrices(block)}
        quantize_(block, config, filter_fn=lambda _, name, chosen=chosen: name in chosen)
    return "Matrices are multiplied in 8 bits (e4m3, a scale per row): faster, not exact."


# --- steps reused --------------------------------------------------------------------------------


def _reuse(transformer: Any, threshold: float) -> str:
    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    return (
        f"Steps whose first block changed less than {threshold:g} reuse the last computed step: "
        "not exact."
    )


def reuses_steps(transformer: Any) -> bool:
    """Tell whether a forward may be answered from an earlier step.

    Then elements belong in forwards of their own (a batch would decide for all its members at
    once), and an interrupted run starts afresh: what steps left behind is in no checkpoint.
    """
    return bool(getattr(transformer, "is_cache_enabled", False))


@contextlib.contextmanager
def cache_scope(transformer: Any, key: str, step: int) -> Iterator[None]:
    """Say whose forward runs inside: only what ``key`` itself left in the step before serves it.

    A forward that fails or is cancelled leaves nothing behind. Without ``cached_steps`` this does
    nothing.

    Args:
        transformer: The transformer.
        key: Names window, pass and half of the guidance.
        step: Which step it is, from 0.
    """
    if not reuses_steps(transformer):
        yield
        return
    held = _held(transformer)
    if key in held and getattr(held[key], "gencomp_step", None) != step - 1:
        del held[key]
    finished = False
    try:
        with transformer.cache_context(key):
            yield
        finished = True
    finally:
        if not finished:
            held.pop(key, None)
        elif key in held:
            held[key].gencomp_step = step
            answered = getattr(held[key], "gencomp_answered", 0)
            held[key].gencomp_answered = answered + (not held[key].should_compute)


def reused_forwards(transformer: Any) -> int:
    """Return how many forwards were answered from an earlier step since the last one forgot."""
    if not reuses_steps(transformer):
        return 0
    return sum(getattr(state, "gencomp_answered", 0) for state in _held(transformer).values())


def forget_steps(transformer: Any) -> None:
    """Drop what steps left behind, and its memory: between jobs, and after sampling."""
    if reuses_steps(transformer):
        _held(transformer).clear()


def _held(transformer: Any) -> dict[str, Any]:
    """Return what diffusers keeps of the last steps, by key."""
    leader = blocks(transformer)[0]._diffusers_hook.get_hook(_LEADER)
    held: dict[str, Any] = leader.state_manager._state_cache
    return held


# --- where weights lie ---------------------------------------------------------------------------


def _offload_blocks(transformer: Any, device: torch.device) -> str:
    if device.type != "cuda":
        return f"Nothing is offloaded: this job computes on {attention.spell(device)}."
    transformer.enable_group_offload(
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        non_blocking=True,
        use_stream=True,
        record_stream=True,
    )
    return "Blocks wait in main memory and come to the GPU one ahead of their turn: exact, slower."


def release(device: torch.device) -> None:
    """Give back to the driver what no tensor holds any more."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
