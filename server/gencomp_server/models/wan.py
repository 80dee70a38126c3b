# SPDX-License-Identifier: Apache-2.0
"""The Wan 2.1 Fun InP family: Casper on it, and its bases.

What it does otherwise than the CogVideoX family, all of it here::

    channels   [noise 16 | mask 4 | plate 16], the mask folded four frames to one, unscaled
    latents    (mode - mean) / spread, channel by channel, as the VAE's configuration has them
    text       UMT5, 512 tokens, with a mask; places after the prompt's end are zero
    schedule   flow matching, Euler steps, shift 5
    image      a branch that is given zeros: no reference picture is ever used

Tensors are [B,T',C,h,w] outside and [B,C,T',h,w] in diffusers' classes. The VAE computes in float32
everywhere: it is small, and what it loses cannot be got back.

Sources: github gen-omnimatte/gen-omnimatte-public and aigc-apps/VideoX-Fun for the pipeline; the
networks are diffusers' and transformers'.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server.models import lora, speed, wan_names
from gencomp_server.models.loading import (
    LoadSettings,
    build_on_meta,
    compute_dtype,
    fingerprint,
    load_into,
    read_config,
    tensors_in,
)
from gencomp_server.models.text import Prompts, encoder_identity, load_tokenizer
from gencomp_server.parts.conditioning import latent_mask
from gencomp_server.parts.schedule import FlowSchedule
from gencomp_server.parts.trimask import CONVENTIONS, encode
from gencomp_server.weights_progress import TEXT_ENCODER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.backbones import BackboneSpec
    from gencomp_server.models.backbone import Progress, Schedule

    Floats = NDArray[np.float32]

log = logging.getLogger(__name__)

# Places of the picture embedding that an image branch expects: patches of a picture, and one more.
_IMAGE_TOKENS = 257
_ROLES = ("transformer", "transformer_config", "vae", "text_encoder", "tokenizer")


class WanBackbone:
    """A loaded Wan backbone; see ``models.backbone.Backbone``.

    Args:
        spec: Its facts.
        transformer: diffusers' transformer.
        vae: diffusers' VAE, float32.
        prompts: Its text encoder.
        device: Where it computes.
        identity: Digest of everything that decides its bits.
        tiling: True to decode in tiles.
        encode_tiling: True to encode in tiles.
        offload: ``none``; ``model``: text encoder, transformer and VAE take turns on the device;
            ``group``: so do they, and the transformer's blocks come by themselves.
        said: What is in force that is not the default, in sentences.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        transformer: WanTransformer3DModel,
        vae: AutoencoderKLWan,
        prompts: Prompts,
        *,
        device: torch.device,
        identity: str = "",
        offload: str = "none",
        tiling: bool = False,
        encode_tiling: bool = False,
        said: tuple[str, ...] = (),
    ) -> None:
        self.spec, self.identity, self.forwards, self.said = spec, identity, 0, said
        self.batch = 1
        self._transformer, self._vae, self._prompts = transformer, vae, prompts
        self._device = device
        self._tiling, self._encode_tiling = tiling, encode_tiling
        self._offload = "none" if device.type == "cpu" else offload
        self._mean = _per_channel(vae.config.latents_mean)
        self._spread = _per_channel(vae.config.latents_std)

    @property
    def device(self) -> torch.device:
        """Where tensors must lie."""
        return self._device

    @property
    def encode_identity(self) -> str:
        """Digest of what decides the bits of latents; see ``models.backbone.Backbone``."""
        return self.identity

    @property
    def vae_identity(self) -> str:
        """Digest of what decides the bits of decoded frames; see ``models.backbone.Backbone``."""
        return self.identity

    @property
    def reuses_steps(self) -> bool:
        """Whether some forwards are answered from the step before."""
        return speed.reuses_steps(self._transformer)

    def cache_scope(self, owner: str, step: int) -> contextlib.AbstractContextManager[None]:
        """Say whose forward runs inside; see ``models.speed``."""
        return speed.cache_scope(self._transformer, owner, step)

    def release(self) -> None:
        """Drop what only a running job needs: the text encoder, and what reused steps left."""
        self._prompts.release()
        speed.forget_steps(self._transformer)

    def encode(self, video: Floats, progress: Progress | None = None) -> Tensor:
        """Encode a sequence. [T,H,W,3] model range -> [1,T',16,h,w] float32."""
        self._take_turn(self._vae)
        frames = torch.from_numpy(np.ascontiguousarray(video.transpose(3, 0, 1, 2))[None])
        _tell(progress, 0)
        self._vae.use_tiling = self._encode_tiling
        with torch.no_grad():
            mode = self._vae.encode(frames.to(self._device, torch.float32)).latent_dist.mode()
        _tell(progress, 1)
        latents = mode.transpose(1, 2)
        mean, spread = self._mean.to(self._device), self._spread.to(self._device)
        return ((latents - mean) / spread).contiguous()

    def decode(self, latents: Tensor, progress: Progress | None = None) -> Floats:
        """Decode latents. [1,T',16,h,w] -> [T,H,W,3] float32, clamped to model range by the VAE."""
        self._take_turn(self._vae)
        mean, spread = self._mean.to(self._device), self._spread.to(self._device)
        plain = latents.to(self._device, torch.float32) * spread + mean
        _tell(progress, 0)
        self._vae.use_tiling = self._tiling
        with torch.no_grad():
            frames = self._vae.decode(plain.transpose(1, 2)).sample
        _tell(progress, 1)
        return np.ascontiguousarray(frames[0].permute(1, 2, 3, 0).float().cpu().numpy())

    def text(self, prompt: str) -> Tensor:
        """Return the embedding of a prompt. [1,512,D]; zero after the prompt's end."""
        if not self._prompts.has(prompt):
            self._take_turn(None)
        return self._prompts.embed(prompt).to(self._device)

    def count_text_tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt has, uncut, its end mark counted."""
        return self._prompts.count(prompt)

    def cut_off_text(self, prompt: str) -> str:
        """Return the end of a prompt that the model does not see; empty where it sees all."""
        return self._prompts.cut_off(prompt)

    def condition(self, plate_latents: Tensor, trimask: NDArray[np.uint8]) -> Tensor:
        """Return [mask 4 | plate 16]. [1,T',16,h,w] and [T,H,W,1] -> [1,T',20,h,w]."""
        convention = CONVENTIONS[self.spec.convention]
        _, frames, _, height, width = plate_latents.shape
        mask = latent_mask(encode(trimask, convention), (frames, height, width), convention, 1.0)
        return torch.cat([mask.to(plate_latents), plate_latents], dim=2)

    def predict(self, latents: Tensor, timestep: float, text: Tensor, condition: Tensor) -> Tensor:
        """Run the transformer once. [B,T',16,h,w] and [B,T',20,h,w] -> [B,T',16,h,w] float32."""
        self._take_turn(self._transformer)
        model, batch = self._transformer, len(latents)
        dtype = model.patch_embedding.weight.dtype
        given = torch.cat([latents, condition], dim=2).transpose(1, 2)
        width = model.config.image_dim
        no_picture = (
            None
            if width is None
            else torch.zeros(batch, _IMAGE_TOKENS, width, device=self._device, dtype=dtype)
        )
        with torch.no_grad():
            made = model(
                hidden_states=given.to(self._device, dtype),
                timestep=torch.full((batch,), float(timestep), device=self._device),
                encoder_hidden_states=text.to(self._device, dtype),
                encoder_hidden_states_image=no_picture,
                return_dict=False,
            )[0]
        self.forwards += batch
        return made.float().transpose(1, 2).contiguous()

    def schedule(self, steps: int) -> Schedule:
        """Return the model's own schedule: flow matching with its shift."""
        return FlowSchedule(steps, self.spec.flow_shift)

    def _take_turn(self, wanted: nn.Module | None) -> None:
        """Make room for what runs next: transformer, VAE, or, for None, the text encoder."""
        if wanted is not None:
            self._prompts.release()
        if self._offload == "none":
            return
        turns = [self._vae] if self._offload == "group" else [self._vae, self._transformer]
        for other in turns:
            if other is not wanted and _is_on(other, self._device):
                other.to("cpu")
                speed.release(self._device)
        if wanted is not None and wanted in turns and not _is_on(wanted, self._device):
            wanted.to(self._device)


def _is_on(module: nn.Module, device: torch.device) -> bool:
    return bool(next(module.parameters()).device.type == device.type)


def _tell(progress: Progress | None, done: int) -> None:
    if progress is not None:
        progress(done, 1)


def _per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, -1, 1, 1)


class MaskedPrompts(Prompts):
    """Prompts whose padding the encoder does not see, and whose embedding is zero there."""

    def _encoded(self, prompt: str) -> Tensor:
        if self._encoder is None:
            self._encoder = self._make_encoder()
            self.loads += 1
        device = next(self._encoder.parameters()).device
        tokens = self._tokenizer(
            prompt,
            padding="max_length",
            max_length=self._length,
            truncation=True,
            return_tensors="pt",
        )
        mask = tokens["attention_mask"].to(device)
        with torch.no_grad():
            made = self._encoder(tokens["input_ids"].to(device), attention_mask=mask)
        embedding: Tensor = made.last_hidden_state * mask[..., None]
        return embedding.cpu()


# --- loading -------------------------------------------------------------------------------------


def load(
    spec: BackboneSpec,
    files: Mapping[str, Path],
    *,
    device: torch.device | str = "cpu",
    settings: LoadSettings | None = None,
    cache: Path | None = None,
    log: logging.Logger = log,
) -> WanBackbone:
    """Load a Wan backbone, strictly.

    Args:
        spec: Its facts.
        files: ``transformer``, ``transformer_config``, ``vae``, ``text_encoder``, ``tokenizer``
            and, where the weights are one, ``lora``.
        device: Where it is to compute.
        settings: How; exact where not given.
        cache: Folder for embeddings of prompts and compiled code; None keeps none.
        log: Where to say what is loaded.

    Raises:
        WeightsMissing: A file is not there.
        WeightsRefused: One is damaged, or of another model.
        BadKnob: A setting asks for what this machine cannot do.
    """
    how, place = settings or LoadSettings(), torch.device(device)
    for role in _ROLES:
        if role not in files:
            raise WeightsMissing(
                f"Nothing is named that {spec.title} could take as its {role.replace('_', ' ')}.",
                hint=f"gencomp weights path {spec.weights} says what is looked for.",
            )
    rests = place if how.offload == "none" else torch.device("cpu")
    transformer = load_transformer(spec, files, device=rests, dtype=compute_dtype(place))
    said = speed.apply(transformer, how, place, cache=cache)
    vae = load_vae(spec, files["vae"], device=rests, dtype=torch.float32)
    prompts = MaskedPrompts(
        _encoder_loader(spec, files["text_encoder"], place, transformer.config.text_dim),
        load_tokenizer(files["tokenizer"]),
        spec.architecture.text_tokens,
        identity=encoder_identity(
            files["text_encoder"], files["tokenizer"], "masked", compute_dtype(place), place.type
        ),
        folder=None if cache is None else cache / "prompts",
    )
    log.info("%s is loaded on %s", spec.title, place)
    return WanBackbone(
        spec,
        transformer,
        vae,
        prompts,
        device=place,
        identity=_identity(files, how, place),
        offload=how.offload,
        tiling=how.tiling,
        encode_tiling=how.encode_tiling,
        said=said,
    )


def _identity(files: Mapping[str, Path], how: LoadSettings, device: torch.device) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for role in ("transformer", "lora", "vae", "text_encoder"):
        if role in files:
            digest.update(f"{role} {fingerprint(files[role])}\n".encode())
    digest.update(f"{sorted(asdict(how).items())} {device.type}".encode())
    return digest.hexdigest()


def load_transformer(
    spec: BackboneSpec, files: Mapping[str, Path], *, device: torch.device, dtype: torch.dtype
) -> WanTransformer3DModel:
    """Load the transformer, a LoRA merged where there is one.

    Raises:
        WeightsMissing: A file is not there.
        WeightsRefused: It is damaged, of another model or size, or the LoRA is of another base.
    """
    file = files["transformer_config"]
    sizes = wan_names.transformer_sizes(read_config(file), file)
    _check_size(spec, sizes, file)
    model = build_on_meta(lambda: WanTransformer3DModel(**sizes))
    names = wan_names.transformer_names(tensors_in(files["transformer"]))
    change: Callable[[str, Tensor], Tensor] | None = None
    if "lora" in files:
        wanted = {name: names.get(name, name) for name in model.state_dict()}
        change = lora.load(files["lora"], wanted).apply
    load_into(
        model,
        files["transformer"],
        title=spec.title,
        device=device,
        dtype=dtype,
        names=names,
        change=change,
    )
    # Tables that follow from the sizes alone are in no file.
    rope = model.rope
    model.rope = type(rope)(rope.attention_head_dim, rope.patch_size, rope.max_seq_len).to(device)
    for name in model._keep_in_fp32_modules:
        _in_float32_(model, name)
    return model


def _in_float32_(model: nn.Module, word: str) -> None:
    """Hold in float32 what the class computes in float32; in place."""
    for name, parameter in model.named_parameters():
        if word in name.split("."):
            parameter.data = parameter.data.float()


def _check_size(spec: BackboneSpec, sizes: Mapping[str, Any], file: Path) -> None:
    """Refuse a configuration of another size than the one that is planned with."""
    shape = spec.architecture
    found = (
        sizes["num_attention_heads"] * sizes["attention_head_dim"],
        sizes["num_layers"],
        sizes["in_channels"],
    )
    wanted = shape.width, shape.blocks, shape.latent_channels + shape.condition_channels
    if found != wanted:
        raise WeightsRefused(
            f"The configuration {file} is not of {spec.title}: it is {found[0]} wide with "
            f"{found[1]} blocks and {found[2]} channels, not {wanted[0]}, {wanted[1]} and "
            f"{wanted[2]}.",
            hint="gencomp weights list says which model belongs where.",
            file=str(file),
        )


def load_vae(
    spec: BackboneSpec, place: Path, *, device: torch.device, dtype: torch.dtype
) -> AutoencoderKLWan:
    """Load the VAE: a folder in diffusers' layout, or Wan's own file as safetensors.

    Raises:
        WeightsMissing: A file is not there.
        WeightsRefused: It is damaged, or of another model.
    """
    sizes: Mapping[str, Any] = wan_names.VAE_SIZES
    if place.is_dir():
        sizes = wan_names.vae_sizes(read_config(place / "config.json"))
    vae = build_on_meta(lambda: AutoencoderKLWan(**sizes))
    load_into(
        vae,
        place,
        title=f"the VAE of {spec.title}",
        device=device,
        dtype=dtype,
        names=wan_names.vae_names(tensors_in(place)),
    )
    return vae


def load_encoder(
    place: Path, *, title: str, device: torch.device | str, dtype: torch.dtype, width: int
) -> nn.Module:
    """Load the text encoder: a folder in transformers' layout, or Wan's own file as safetensors.

    Args:
        place: File or folder.
        title: What it is called in a sentence.
        device: Where it is to lie.
        dtype: Type of its weights.
        width: Width of the embedding that the transformer takes.

    Raises:
        WeightsMissing: A file is not there.
        WeightsRefused: It is damaged, or of another model.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = read_config(place / "config.json") if place.is_dir() else dict(wan_names.UMT5_XXL)
    config = UMT5Config(**sizes)
    if config.d_model != width:
        raise WeightsRefused(
            f"The text encoder {place} makes embeddings {config.d_model} wide and {title} takes "
            f"{width}.",
            hint="Install the text encoder that was published with the model.",
            file=str(place),
        )
    encoder: nn.Module = build_on_meta(lambda: UMT5EncoderModel(config))
    load_into(
        encoder,
        place,
        title=title,
        device=device,
        dtype=dtype,
        names=wan_names.text_names(tensors_in(place), encoder.state_dict()),
        stage=TEXT_ENCODER,
    )
    return encoder


def _encoder_loader(
    spec: BackboneSpec, place: Path, device: torch.device, width: int
) -> Callable[[], nn.Module]:
    return lambda: load_encoder(
        place,
        title=f"the text encoder of {spec.title}",
        device=device,
        dtype=compute_dtype(device),
        width=width,
    )
