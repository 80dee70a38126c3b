# SPDX-License-Identifier: Apache-2.0
"""GenCompositor as a backbone: a plate, a mask and an element in, the composite out.

The networks are in ``gencompositor_network.py``; VAE, text encoder, schedule and everything else
are those of the CogVideoX family. It takes one size, the one it was trained at.

A spec whose set of weights is its base has no weights of its own: both networks then start from
image to video's, for a training (``gencompositor_start.py``).

The layout of positions belongs to the weights: ``"erope": "height"`` in the ``config.json`` of the
branch names another than the released one.

Sources: GenCompositor §4; the released code for the order of channels and the names of parameters.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor

from gencomp_protocol.errors import WeightsRefused
from gencomp_server.backbones import BackboneSpec
from gencomp_server.models import cogvideox, erope, speed, tiny
from gencomp_server.models.gencompositor_network import MASK_CHANNELS, GenCompositor
from gencomp_server.models.gencompositor_start import start
from gencomp_server.models.loading import (
    LoadSettings,
    build_on_meta,
    compute_dtype,
    fingerprint,
    load_into,
    read_config,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GenCompositor", "GenCompositorBackbone", "configs", "load", "make_tiny"]

LAYOUT_KEY = "erope"
# The layout that the paper shows its results in (appendix F); for weights that start anew.
PAPER_LAYOUT = "height"

_TINY: Mapping[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 32,
    "out_channels": 16,
    "time_embed_dim": 32,
    "text_embed_dim": tiny.TEXT["d_model"],
    "sample_frames": 49,
    "sample_height": 4,
    "sample_width": 6,
    "patch_size": 2,
    "max_text_seq_length": 226,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
}


class GenCompositorBackbone(cogvideox.CogVideoXBackbone):
    """Both networks, a VAE and prompts; see ``backbone.Backbone`` and ``backbone.JoinsLayers``.

    Args:
        spec: Its facts.
        networks: In eval mode, on the device, or on the CPU where they are offloaded.
        autoencoder: The same.
        prompts: Where embeddings come from.
        layout: Positions of the element's tokens: one of :attr:`layouts`.
        **more: As of ``CogVideoXBackbone``.
    """

    layouts = erope.LAYOUTS

    def __init__(
        self,
        spec: BackboneSpec,
        networks: GenCompositor,
        autoencoder: AutoencoderKLCogVideoX,
        prompts: Any,
        *,
        layout: str = erope.SHIPPED,
        **more: Any,
    ) -> None:
        super().__init__(spec, networks, autoencoder, prompts, **more)
        self._networks, self._layout = networks, layout

    @property
    def layout(self) -> str:
        """Positions of the element's tokens."""
        return self._layout

    def condition(self, plate_latents: Tensor, trimask_classes: NDArray[np.uint8]) -> Tensor:
        """Refuse: what this model is given is :meth:`join`-ed of layers.

        Raises:
            TypeError: Always.
        """
        raise TypeError(f"{self.spec.title} takes layers {self.spec.layers}, and no trimask")

    def predict(self, latents: Tensor, timestep: float, text: Tensor, condition: Tensor) -> Tensor:
        """Run both networks once on a batch.

        Args:
            latents: [B,T',16,h,w] float32.
            timestep: One of the schedule's.
            text: [B,L,D].
            condition: What :meth:`join` made: masked plate, mask, element. [B,T',33,h,w].

        Returns:
            The prediction of v. [B,T',16,h,w] float32.

        Raises:
            BadKnob: The picture is not of the only size that the model takes.
        """
        self._take_turn(self._networks)
        batch, _, channels, height, width = latents.shape
        self._check_size(height, width)
        masked, mask, fg = condition.to(self._device, self._dtype).split(
            [channels, MASK_CHANNELS, channels], dim=2
        )
        with torch.no_grad():
            made: Tensor = self._networks(
                latents.to(self._device, self._dtype),
                masked,
                mask,
                fg,
                text.to(self._device, self._dtype),
                torch.full((batch,), timestep, device=self._device),
                layout=self._layout,
            )
        self.forwards += batch
        return made.float()


# --- what it is built from -----------------------------------------------------------------------


def configs(
    spec: BackboneSpec, files: Mapping[str, Path] | None = None
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the configurations of main network and branch, and the layout of positions.

    Args:
        spec: The backbone.
        files: Its files by role; a configuration that is there is checked, one that is not is the
            published one.

    Raises:
        WeightsRefused: A file's is not that of such a model; names the file and the setting.
    """
    files, kind = files or {}, spec.architecture
    own = _TINY if spec.is_tiny else cogvideox.CONFIGS[spec.base]
    main = _checked(spec, files.get("transformer_config"), own, kind.blocks)
    if starts_anew(spec):
        return main, {**main, "num_layers": kind.branch_blocks}, PAPER_LAYOUT
    file = files.get("branch_config")
    branch = _checked(spec, file, own, kind.branch_blocks)
    return main, branch, erope.SHIPPED if file is None else _layout(file)


def starts_anew(spec: BackboneSpec) -> bool:
    """Tell whether it is made of its base's weights, for a training: its set is its base."""
    return not spec.is_tiny and spec.weights == spec.base


def written(networks: GenCompositor, layout: str) -> dict[str, dict[str, Any]]:
    """Return what to write as ``config.json`` beside the weights of ``main`` and ``branch``."""
    known = inspect.signature(CogVideoXTransformer3DModel.__init__).parameters
    made = {
        name: {key: value for key, value in dict(network.config).items() if key in known}
        for name, network in (("main", networks.main), ("branch", networks.branch))
    }
    made["branch"][LAYOUT_KEY] = layout
    return made


def _checked(
    spec: BackboneSpec, file: Path | None, own: Mapping[str, Any], blocks: int
) -> dict[str, Any]:
    """Return a file's settings, or the published ones where there is no file."""
    if file is None:
        return {**own, "num_layers": blocks}
    known = inspect.signature(CogVideoXTransformer3DModel.__init__).parameters
    plain = {name: value for name, value in read_config(file).items() if name in known}
    for name, value in _needed(spec, blocks).items():
        found = plain.get(name, known[name].default)
        if found != value:
            raise WeightsRefused(
                f"The configuration {file} is not that of {spec.title}: {name} is {found} where "
                f"{value} is needed.",
                hint="Copy the folders model/transformer and branch again from the model itself.",
                file=str(file),
            )
    return {"text_embed_dim": known["text_embed_dim"].default, **plain}


def _needed(spec: BackboneSpec, blocks: int) -> dict[str, Any]:
    """Return what a configuration must say; the rest shows in the shapes of weights."""
    kind, (width, height) = spec.architecture, spec.model_size
    return {
        "in_channels": 2 * kind.latent_channels,
        "out_channels": kind.latent_channels,
        "num_layers": blocks,
        "num_attention_heads": kind.heads,
        "attention_head_dim": kind.width // kind.heads,
        "patch_size": kind.patch,
        "patch_size_t": None,
        "max_text_seq_length": kind.text_tokens,
        "sample_width": width // spec.vae_spatial,
        "sample_height": height // spec.vae_spatial,
        "sample_frames": spec.window_frames,
        "use_rotary_positional_embeddings": True,
        "use_learned_positional_embeddings": True,
    }


def _layout(file: Path) -> str:
    found = read_config(file).get(LAYOUT_KEY, erope.SHIPPED)
    if found not in erope.LAYOUTS:
        raise WeightsRefused(
            f"The configuration {file} names a layout of positions that there is not: {found}.",
            hint=f"Write one of: {', '.join(erope.LAYOUTS)}.",
            file=str(file),
        )
    return str(found)


# --- loading -------------------------------------------------------------------------------------


def load(
    spec: BackboneSpec,
    files: Mapping[str, Path],
    *,
    device: torch.device | str,
    settings: LoadSettings,
    cache: Path | None,
    log: logging.Logger,
) -> GenCompositorBackbone:
    """Load the backbone from its files, strictly; see :func:`gencomp_server.models.load`.

    Raises:
        WeightsMissing: A file is not there.
        WeightsRefused: One cannot be read or does not fit.
        BadKnob: A setting asks for what this machine cannot do.
    """
    target = torch.device(device)
    if spec.is_tiny:
        return make_tiny(spec, device=target, settings=settings, cache=cache, log=log)
    roles = ("transformer",) if starts_anew(spec) else ("transformer", "branch")
    cogvideox.check_files(spec, files, *roles)
    main, branch, layout = configs(spec, files)
    networks = build_on_meta(lambda: GenCompositor(main, branch))
    body, dtype = _body(settings, target), compute_dtype(target)
    place = files["transformer"]
    if starts_anew(spec):
        title = f"the start of {spec.title}"
        start(networks, place, main, title=title, device=body, dtype=dtype)
    else:
        load_into(networks.main, place, title=spec.title, device=body, dtype=dtype)
        title = f"the branch of {spec.title}"
        load_into(networks.branch, files["branch"], title=title, device=body, dtype=dtype)
    said = _put_in_force(networks, settings, target, cache)
    autoencoder, prompts = cogvideox.load_around(
        spec, files, main["text_embed_dim"], device=target, settings=settings, cache=cache
    )
    log.info("%s is loaded on %s", spec.title, target)
    return GenCompositorBackbone(
        spec,
        networks.eval(),
        autoencoder,
        prompts,
        layout=layout,
        identity=_identity(spec, files, target, settings, layout),
        device=target,
        settings=settings,
        said=said,
    )


def make_tiny(
    spec: BackboneSpec,
    *,
    device: torch.device | str = "cpu",
    settings: LoadSettings | None = None,
    cache: Path | None = None,
    log: logging.Logger | None = None,
) -> GenCompositorBackbone:
    """Make the tiny one, as ``tiny.make`` makes the others; it is small and it is not trained.

    Raises:
        BadKnob: A setting asks for what this machine cannot do.
    """
    settings, target = settings or LoadSettings(), torch.device(device)
    dtype = compute_dtype(target)
    main, branch, layout = configs(spec)
    networks = build_on_meta(lambda: GenCompositor(main, branch))
    tiny.fill(networks, "gencompositor", device=_body(settings, target), dtype=dtype)
    said = _put_in_force(networks, settings, target, cache)
    autoencoder = build_on_meta(lambda: AutoencoderKLCogVideoX(**tiny.VAE))
    waits = target if settings.offload == "none" else torch.device("cpu")
    tiny.fill(autoencoder, "vae", device=waits, dtype=dtype)
    if log is not None:
        log.info("the tiny backbone is made on %s: untrained, for tests", target)
    return GenCompositorBackbone(
        spec,
        networks,
        autoencoder,
        tiny.prompts(spec.architecture.text_tokens, device=target, dtype=dtype, folder=cache),
        layout=layout,
        identity=tiny.identity(settings, target, {"main": main, "branch": branch}),
        device=target,
        settings=settings,
        said=said,
    )


def _body(settings: LoadSettings, device: torch.device) -> torch.device:
    """Return where the networks start: blocks that come in groups start on the CPU."""
    return torch.device("cpu") if settings.offload == "group" else device


def _put_in_force(
    networks: GenCompositor, settings: LoadSettings, device: torch.device, cache: Path | None
) -> tuple[str, ...]:
    """Put the knobs in force on both networks; steps are reused in the main one alone.

    The branch's two blocks are asked for both their samples, so there is nothing to skip in it.
    """
    said = speed.apply(networks.main, settings, device, cache=cache)
    speed.apply(networks.branch, replace(settings, cached_steps=0.0), device, cache=cache)
    return said


def _identity(
    spec: BackboneSpec,
    files: Mapping[str, Path],
    device: torch.device,
    settings: LoadSettings,
    layout: str,
) -> str:
    """Return a digest of what decides the bits, as far as a look at the files tells."""
    digest = hashlib.blake2b(f"{spec.name} {device.type} {asdict(settings)} {layout}".encode())
    for role in ("transformer", "branch", "vae", "text_encoder"):
        if role in files:
            digest.update(fingerprint(files[role]).encode())
    return digest.hexdigest()[:32]
