# SPDX-License-Identifier: Apache-2.0
"""The model that comes with gencomp, as a backbone: pictures and maps in, a changed base out.

It has no VAE: what other models call latents are pictures here, [B,T,3,H,W] in model range, and a
latent frame is a frame. Its text is words of a small table (``preview_words.py``), so a prompt must
have been read for it first; an embedding is their numbers, which the network looks up by itself.
The network predicts the clean picture; the schedule of its family takes v, which follows from it.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server.backbones import BackboneSpec
from gencomp_server.models.loading import fingerprint
from gencomp_server.models.preview_network import CHANNELS, PreviewNetwork, read_network
from gencomp_server.models.preview_words import numbers
from gencomp_server.parts.schedule import DdimSchedule, signal_levels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Progress = Callable[[int, int], None]

ROLE = "transformer"


class PreviewBackbone:
    """The preview's network; see ``backbone.Backbone`` and ``backbone.JoinsLayers``.

    Args:
        spec: Its facts.
        network: In eval mode, on the device.
        identity: Digest of what decides its bits.
        device: Where it computes, in float32.
    """

    batch = 1
    said: tuple[str, ...] = ()

    def __init__(
        self,
        spec: BackboneSpec,
        network: PreviewNetwork,
        *,
        identity: str,
        device: torch.device,
    ) -> None:
        if tuple(CHANNELS) != spec.layers:
            raise ValueError(f"a network of {tuple(CHANNELS)} for a model of {spec.layers}")
        self.spec, self.identity, self.forwards = spec, identity, 0
        self._network, self._device = network, device

    @property
    def encode_identity(self) -> str:
        """Its identity: nothing is encoded."""
        return self.identity

    @property
    def vae_identity(self) -> str:
        """Its identity: nothing is decoded."""
        return self.identity

    @property
    def device(self) -> torch.device:
        """Where tensors must lie."""
        return self._device

    def encode(self, video: Floats, progress: Progress | None = None) -> Tensor:
        """Return a sequence as the network sees it. [T,H,W,3] -> [1,T,3,H,W] float32."""
        if progress is not None:
            progress(len(video), len(video))
        frames = torch.from_numpy(np.array(video, np.float32)).permute(0, 3, 1, 2)
        return frames[None].contiguous().to(self._device)

    def decode(self, latents: Tensor, progress: Progress | None = None) -> Floats:
        """Return what was made as a sequence. [1,T,3,H,W] -> [T,H,W,3] float32, model range."""
        frames = latents[0].permute(0, 2, 3, 1).float().cpu().numpy()
        if progress is not None:
            progress(len(frames), len(frames))
        return np.ascontiguousarray(frames, np.float32)

    def text(self, prompt: str) -> Tensor:
        """Return a prompt's words by number. [1,L,1] float32 on the device.

        Args:
            prompt: Words of the model's own vocabulary, the task first, apart by spaces.

        Raises:
            ValueError: It holds another word, or too many.
        """
        found = torch.tensor(numbers(tuple(prompt.split())), dtype=torch.float32)
        return found[None, :, None].to(self._device)

    def count_text_tokens(self, prompt: str) -> int:
        """Return how many words a prompt has."""
        return len(prompt.split())

    def condition(self, plate_latents: Tensor, trimask: NDArray[np.uint8]) -> Tensor:
        """Refuse: the model takes layers (:meth:`join`), and no trimask.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{self.spec.title} is given layers, not a trimask")

    def join(self, layers: Mapping[str, Tensor]) -> Tensor:
        """Return the channels beside the noise.

        Args:
            layers: By the names in ``spec.layers``; pictures in model range, maps 0..1.
                [1,T,C,H,W] each, C as ``preview_network.CHANNELS`` says.

        Returns:
            [1,T,13,H,W] float32 on the device.

        Raises:
            ValueError: The names, or a layer's channels, are others.
        """
        found = {name: one.shape[2] for name, one in layers.items()}
        if found != CHANNELS:
            raise ValueError(f"layers {found} for a model of {CHANNELS}")
        parts = [layers[name].to(self._device, torch.float32) for name in CHANNELS]
        return torch.cat(parts, dim=2)

    def predict(self, latents: Tensor, timestep: float, text: Tensor, condition: Tensor) -> Tensor:
        """Run the network once on a batch.

        Args:
            latents: Noisy pictures. [B,T,3,H,W] float32.
            timestep: One of the schedule's.
            text: [B,L,1].
            condition: [B,T,13,H,W].

        Returns:
            The prediction of v. [B,T,3,H,W] float32.
        """
        noisy = latents.to(self._device, torch.float32)
        with torch.no_grad():
            clean = self._network(
                noisy.permute(0, 1, 3, 4, 2),
                condition.to(self._device, torch.float32).permute(0, 1, 3, 4, 2),
                text[..., 0].round().long().to(self._device),
                torch.full((len(noisy),), int(timestep), device=self._device),
            ).permute(0, 1, 4, 2, 3)
        self.forwards += len(noisy)
        level = signal_levels()[int(timestep)]
        return (math.sqrt(level) * noisy - clean) / math.sqrt(1 - level)

    def schedule(self, steps: int) -> DdimSchedule:
        """Return the schedule of the CogVideoX family over so many steps."""
        return DdimSchedule(steps)

    def release(self) -> None:
        """Keep what there is: nothing of it is for one job alone."""


def load(
    spec: BackboneSpec,
    files: Mapping[str, Path],
    *,
    device: torch.device | str = "cpu",
    log: logging.Logger | None = None,
) -> PreviewBackbone:
    """Load the preview.

    Args:
        spec: Its facts.
        files: Its file, as ``transformer``.
        device: Where it computes.
        log: Where to say that it is loaded.

    Raises:
        WeightsMissing: The file is not named, or not there.
        WeightsRefused: It cannot be read, or is of another network.
    """
    place, target = files.get(ROLE), torch.device(device)
    if place is None or not place.is_file():
        raise WeightsMissing(
            f"The weights of {spec.title} are not there: {place or 'no file'} is missing.",
            hint="They come with gencomp: install it again.",
            file=str(place or ""),
        )
    try:
        network = read_network(place, target)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise WeightsRefused(
            f"The weights file {place} of {spec.title} cannot be used ({error}).",
            hint="It comes with gencomp: install it again.",
            file=str(place),
        ) from error
    facts = f"{spec.name} {target.type} {fingerprint(place)}"
    if log is not None:
        log.info("%s is read from %s", spec.title, place)
    identity = hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()
    return PreviewBackbone(spec, network, identity=identity, device=target)
