# SPDX-License-Identifier: Apache-2.0
"""What a backbone is: a video diffusion transformer with its VAE, text encoder and schedule.

Everything that one model does differently from another lives behind this interface: polarity and
resizing of the trimask, scaling of latents, order of channels, chunks of the VAE, dtype and device.
Systems and parts see a sequence in model range and latents, nothing else.

Latents are float32 ``[B,T',C,h,w]`` tensors on the backbone's device, scaled as the transformer
wants them; B counts passes that are denoised together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, device

    from gencomp_server.backbones import BackboneSpec
    from gencomp_server.parts.sourcekeys import SourceKeys

    Floats = NDArray[np.float32]
    Progress = Callable[[int, int], None]


class Schedule(Protocol):
    """One way through the noise levels.

    Attributes:
        timesteps: What the transformer is told at each step, from noise to picture.
    """

    timesteps: tuple[int, ...] | tuple[float, ...]

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """Return the latents after step ``index``. All [B,T',C,h,w] float32."""
        ...


class Backbone(Protocol):
    """A loaded, or lazily loaded, backbone.

    Attributes:
        spec: Its facts.
        identity: Digest of everything that decides the bits of text and samples: weights,
            precision, accelerations. Whether the VAE works in tiles is not part of it.
        forwards: Forwards computed so far; a batch of two counts two.
        said: What is in force that is not the default, a sentence each.
    """

    spec: BackboneSpec
    identity: str
    forwards: int
    batch: int
    said: tuple[str, ...]

    @property
    def encode_identity(self) -> str:
        """Identity, and whether frames are encoded in tiles: what decides the bits of latents."""
        ...

    @property
    def vae_identity(self) -> str:
        """Identity, and what is done in tiles: what decides the bits of decoded frames."""
        ...

    @property
    def device(self) -> device:
        """Where tensors must lie."""
        ...

    def encode(self, video: Floats, progress: Progress | None = None) -> Tensor:
        """Encode a sequence to scaled latents, without sampling noise.

        Args:
            video: [T,H,W,3] float32, model range [-1,1]; H and W multiples of
                ``spec.size_multiple``, T = 4k + 1.
            progress: Told (done, total).

        Returns:
            [1,T',C,h,w] float32 on the device.
        """
        ...

    def decode(self, latents: Tensor, progress: Progress | None = None) -> Floats:
        """Decode scaled latents. [1,T',C,h,w] -> [T,H,W,3] float32, model range, unclamped."""
        ...

    def text(self, prompt: str) -> Tensor:
        """Return the embedding of a prompt. [1,L,D] on the device."""
        ...

    def count_text_tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt has, uncut, its end mark counted."""
        ...

    def condition(self, plate_latents: Tensor, trimask: NDArray[np.uint8]) -> Tensor:
        """Return the channels that stand beside the noise.

        Args:
            plate_latents: What :meth:`encode` made of the conditioning sequence. [1,T',C,h,w].
            trimask: Classes of ``parts.trimask`` at model size. [T,H,W,1] uint8.

        Returns:
            [1,T',K,h,w] float32 on the device.
        """
        ...

    def predict(self, latents: Tensor, timestep: float, text: Tensor, condition: Tensor) -> Tensor:
        """Run the transformer once on a batch.

        Args:
            latents: [B,T',C,h,w] float32.
            timestep: One of the schedule's.
            text: [B,L,D].
            condition: [B,T',K,h,w].

        Returns:
            What the schedule's ``step`` wants. [B,T',C,h,w] float32.
        """
        ...

    def schedule(self, steps: int) -> Schedule:
        """Return the model's own schedule over so many steps."""
        ...

    def release(self) -> None:
        """Drop what only a running job needs: the text encoder, and what reused steps left."""
        ...


class JoinsLayers(Protocol):
    """What a backbone has besides that is given several layers of latents, and no trimask."""

    def join(self, layers: Mapping[str, Tensor]) -> Tensor:
        """Return the channels that stand beside the noise, or that the model parts again.

        Args:
            layers: Latents by the names in ``spec.layers``. [1,T',C,h,w] each, C its own.

        Returns:
            [1,T',K,h,w] float32 on the device, in the order of ``spec.layers``.

        Raises:
            ValueError: The names are not those of ``spec.layers``.
        """
        ...


class Anchors(Protocol):
    """What a backbone has besides that can see another video's keys and values while it paints."""

    def predict_anchored(
        self,
        latents: Tensor,
        timestep: float,
        text: Tensor,
        *,
        source: Tensor,
        source_text: Tensor,
        marks: Tensor,
        keep: tuple[float, float],
        seed: int,
        keys: SourceKeys | None = None,
        owner: str = "",
    ) -> Tensor:
        """Run the transformer once on an edit whose attention its noisy source extends.

        Two forwards are computed, or one where ``keys`` holds the source's already.

        Args:
            latents: The edit. [1,T',C,h,w] float32.
            timestep: One of the schedule's.
            text: Embedding of the edit's prompt. [1,L,D].
            source: The inverted source at the same timestep. [1,T',C,h,w] float32.
            source_text: Embedding of the source's prompt. [1,L,D].
            marks: True where an anchor is, at latent size. [T',h,w] bool.
            keep: Share of keys and values kept inside and outside of the marks, 0..1.
            seed: Which of them, in each layer others; the same seed gives the same on every device.
            keys: What keeps the source's keys and values between rounds; None keeps none.
            owner: Names the source's window in it.

        Returns:
            What the schedule's ``step`` wants of the edit. [1,T',C,h,w] float32.
        """
        ...


class ReusesSteps(Protocol):
    """What a backbone has besides whose forwards may be answered from the step before.

    The sampler then gives it one element at a time, says whose it is, and keeps no checkpoint: what
    a step leaves behind is in none.

    Attributes:
        reuses_steps: True where it does so; where it is False or missing, nothing below is asked.
    """

    reuses_steps: bool

    def cache_scope(self, owner: str, step: int) -> AbstractContextManager[None]:
        """Say whose forward runs inside.

        Args:
            owner: Names window, pass and half of the guidance; the same in every step.
            step: Index of the step, from 0.
        """
        ...

    def release(self) -> None:
        """Drop what steps left behind, and its memory."""
        ...
