# SPDX-License-Identifier: Apache-2.0
"""The CogVideoX family as a backbone: inpainting (33 channels), text to video, image to video.

Transformer and VAE are diffusers' own classes. What stands here is what is around them::

    noise 16 | mask 1 | video latents 16      CogVideoX-Fun InP and what was trained from it
    noise 16 | first latent frame 16          image to video
    noise 16 | foreground 16 | background 16  what merges two layers, made from image to video
    noise 16                                  text to video

Version 1.5 takes latent frames in pairs and counts positions in whole numbers; the others stretch
positions over the grid they were trained at.

Sources: published configurations of the models; public code of CogVideoX-Fun for channel order and
positions.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor, nn

from gencomp_protocol.errors import BadKnob, WeightsMissing, WeightsRefused
from gencomp_server.backbones import BackboneSpec
from gencomp_server.models import speed, text, vae
from gencomp_server.models.loading import (
    LoadSettings,
    build_on_meta,
    compute_dtype,
    fingerprint,
    load_into,
    read_config,
)
from gencomp_server.parts import conditioning, trimask
from gencomp_server.parts.schedule import DdimSchedule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gencomp_server.parts.sourcekeys import SourceKeys

    Floats = NDArray[np.float32]
    Progress = Callable[[int, int], None]

_COMMON: dict[str, Any] = {
    "num_attention_heads": 48,
    "attention_head_dim": 64,
    "num_layers": 42,
    "out_channels": 16,
    "time_embed_dim": 512,
    "text_embed_dim": 4096,
    "max_text_seq_length": 226,
    "patch_size": 2,
    "use_rotary_positional_embeddings": True,
}
_V10: dict[str, Any] = {"sample_frames": 49, "sample_height": 60, "sample_width": 90}

CONFIGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "cogvideox-fun-v1.5-5b-inp": {
            **_COMMON,
            "in_channels": 33,
            "patch_size_t": 2,
            "patch_bias": False,
            "sample_frames": 85,
            "sample_height": 384,
            "sample_width": 680,
        },
        "cogvideox-fun-v1.1-5b-inp": {**_COMMON, **_V10, "in_channels": 33},
        "cogvideox-5b": {**_COMMON, **_V10, "in_channels": 16},
        "cogvideox-5b-i2v": {
            **_COMMON,
            **_V10,
            "in_channels": 32,
            "use_learned_positional_embeddings": True,
        },
    }
)
"""Full-size transformers by base set. Source: the models' published ``config.json``."""

VAE_CONFIG: Mapping[str, Any] = MappingProxyType(
    {"block_out_channels": (128, 256, 256, 512), "scaling_factor": 0.7}
)
"""The VAE of every 5B model; the rest is diffusers' default."""

# What the sampler's DDIM does; a model that was trained for something else is refused.
_SCHEDULE: dict[str, Any] = {
    "prediction_type": "v_prediction",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
}
_MASK_CHANNELS = 1
_MOST_POSITIONS = 8


class CogVideoXBackbone:
    """A transformer, a VAE and prompts of the CogVideoX family; see ``backbone.Backbone``.

    Args:
        spec: Its facts.
        transformer: In eval mode, on the device, or on the CPU where it is offloaded.
        autoencoder: The same.
        prompts: Where embeddings come from.
        identity: Digest of everything that decides its bits.
        device: Where it computes.
        settings: How it was loaded; ``offload``, ``tiling`` and ``encode_tiling`` matter here.
        said: What is in force that is not the default, in sentences.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        transformer: CogVideoXTransformer3DModel,
        autoencoder: AutoencoderKLCogVideoX,
        prompts: text.Prompts,
        *,
        identity: str,
        device: torch.device | str = "cpu",
        settings: LoadSettings | None = None,
        said: tuple[str, ...] = (),
    ) -> None:
        self.spec = spec
        self.identity = identity
        self.forwards = 0
        self.batch = 1
        self.said = said
        self._device = torch.device(device)
        self._transformer = transformer
        self._vae = autoencoder
        self._prompts = prompts
        self._dtype = compute_dtype(self._device)
        self._offload = settings.offload if settings and self._device.type != "cpu" else "none"
        self._tiles = _tiles(spec) if settings and settings.tiling else None
        self._encode_tiles = _tiles(spec) if settings and settings.encode_tiling else None
        self._positions: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    @property
    def device(self) -> torch.device:
        """Where tensors must lie."""
        return self._device

    @property
    def network(self) -> nn.Module:
        """The transformer itself, for training."""
        return self._transformer

    @property
    def encode_identity(self) -> str:
        """Digest of what decides the bits of latents; see ``backbone.Backbone``."""
        return self.identity

    @property
    def vae_identity(self) -> str:
        """Digest of what decides the bits of decoded frames; see ``backbone.Backbone``."""
        return self.identity

    # --- pictures --------------------------------------------------------------------------------

    def encode(self, video: Floats, progress: Progress | None = None) -> Tensor:
        """Encode a sequence to scaled latents, without sampling noise.

        Args:
            video: [T,H,W,3] float32, model range; H and W multiples of 16, T = 4k + 1.
            progress: Told (done, total).

        Returns:
            [1,T',16,h,w] float32 on the device.

        Raises:
            ValueError: Its size or length is none that the model takes.
        """
        multiple = self.spec.size_multiple
        if (
            video.ndim != 4
            or video.shape[3] != 3
            or video.shape[1] % multiple + video.shape[2] % (multiple)
        ):
            raise ValueError(f"the model takes multiples of {multiple}, not {video.shape}")
        self._take_turn(self._vae)
        return vae.encode(self._vae, video, tiles=self._encode_tiles, progress=progress)

    def decode(self, latents: Tensor, progress: Progress | None = None) -> Floats:
        """Decode scaled latents. [1,T',16,h,w] -> [T,H,W,3] float32, model range, unclamped."""
        self._take_turn(self._vae)
        return vae.decode(self._vae, latents, tiles=self._tiles, progress=progress)

    # --- prompts ---------------------------------------------------------------------------------

    def text(self, prompt: str) -> Tensor:
        """Return the embedding of a prompt. [1,L,D] float32 on the device."""
        if not self._prompts.has(prompt):
            self._take_turn(None)
        return self._prompts.embed(prompt).to(self._device)

    def count_text_tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt has, uncut, its end mark counted."""
        return self._prompts.count(prompt)

    def cut_off_text(self, prompt: str) -> str:
        """Return the end of a prompt that the model does not see; empty where it sees all."""
        return self._prompts.cut_off(prompt)

    # --- the transformer -------------------------------------------------------------------------

    def condition(self, plate_latents: Tensor, trimask_classes: NDArray[np.uint8]) -> Tensor:
        """Return the channels that stand beside the noise.

        Args:
            plate_latents: What :meth:`encode` made. [1,T',16,h,w].
            trimask_classes: Classes of ``parts.trimask`` at model size. [T,H,W,1] uint8. Models
                without a mask do not look at it.

        Returns:
            [1,T',K,h,w] float32 on the device: mask and plate; or the first latent frame and then
            nothing; or no channel.
        """
        kind = self.spec.architecture
        plate = plate_latents.to(self._device, torch.float32)
        if kind.condition_channels == 0:
            return plate[:, :, :0]
        if kind.condition_channels == kind.latent_channels:
            first = torch.zeros_like(plate)
            first[:, :1] = plate[:, :1]
            return first
        convention = trimask.CONVENTIONS[self.spec.convention]
        mask = conditioning.latent_mask(
            trimask.encode(trimask_classes, convention),
            (plate.shape[1], plate.shape[3], plate.shape[4]),
            convention,
            float(self._vae.config.scaling_factor),
        )
        return torch.cat([mask.to(self._device), plate], dim=2)

    def join(self, layers: Mapping[str, Tensor]) -> Tensor:
        """Return the channels beside the noise out of layers of latents.

        Args:
            layers: By the names in ``spec.layers``. [1,T',C,h,w] each.

        Returns:
            [1,T',K,h,w] float32 on the device, in the order of ``spec.layers``.

        Raises:
            ValueError: The names are others.
        """
        if set(layers) != set(self.spec.layers):
            raise ValueError(f"layers {sorted(layers)} for a model of {self.spec.layers}")
        parts = [layers[name].to(self._device, torch.float32) for name in self.spec.layers]
        return torch.cat(parts, dim=2)

    def predict(self, latents: Tensor, timestep: float, text: Tensor, condition: Tensor) -> Tensor:
        """Run the transformer once on a batch.

        Args:
            latents: [B,T',16,h,w] float32.
            timestep: One of the schedule's.
            text: [B,L,D].
            condition: [B,T',K,h,w].

        Returns:
            The prediction of v. [B,T',16,h,w] float32.

        Raises:
            BadKnob: The picture is not of the only size that the model takes.
            ValueError: An odd number of latent frames where the model takes pairs.
        """
        self._take_turn(self._transformer)
        batch, frames, _, height, width = latents.shape
        hidden = torch.cat([latents, condition.to(latents)], dim=2)
        pair = self._transformer.config.patch_size_t or 1
        if frames % pair:
            if frames != 1:
                raise ValueError(f"{frames} latent frames where the model takes pairs")
            hidden = torch.cat([hidden, torch.zeros_like(hidden)], dim=1)
        self._check_size(height, width)
        with torch.no_grad():
            made = self._transformer(
                hidden_states=hidden.to(self._device, self._dtype),
                encoder_hidden_states=text.to(self._device, self._dtype),
                timestep=torch.full((batch,), timestep, device=self._device),
                image_rotary_emb=self._rotary(hidden.shape[1], height, width),
                return_dict=False,
            )[0]
        self.forwards += batch
        predicted: Tensor = made[:, :frames].float()
        return predicted

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
        """Run the transformer once on an edit, beside its source; see ``backbone.Anchors``."""
        from gencomp_server.models import anchors

        self._take_turn(self._transformer)
        _, frames, _, height, width = latents.shape
        made, computed = anchors.predict(
            self._transformer,
            latents.to(self._device, self._dtype),
            timestep,
            text.to(self._device, self._dtype),
            source=source.to(self._device, self._dtype),
            source_text=source_text.to(self._device, self._dtype),
            marks=marks.to(self._device),
            keep=keep,
            seed=seed,
            rotary=self._rotary(frames, height, width),
            keys=keys,
            owner=owner,
        )
        self.forwards += computed
        return made.float()

    def schedule(self, steps: int) -> DdimSchedule:
        """Return the model's own schedule over so many steps."""
        return DdimSchedule(steps)

    @property
    def reuses_steps(self) -> bool:
        """Tell whether a forward may be answered from the step before."""
        return speed.reuses_steps(self._transformer)

    def cache_scope(self, owner: str, step: int) -> contextlib.AbstractContextManager[None]:
        """Say whose forward runs inside.

        Args:
            owner: Names window, pass and half of the guidance; the same in every step.
            step: Index of the step, from 0.
        """
        return speed.cache_scope(self._transformer, owner, step)

    def release(self) -> None:
        """Drop what only a running job needs: the text encoder, and what reused steps left."""
        self._prompts.release()
        speed.forget_steps(self._transformer)
        self._positions.clear()

    def _check_size(self, height: int, width: int) -> None:
        config = self._transformer.config
        own = config.sample_height, config.sample_width
        if config.use_learned_positional_embeddings and (height, width) != own:
            side = self.spec.vae_spatial
            raise BadKnob(
                f"{self.spec.title} works at {own[1] * side}x{own[0] * side} only, not at "
                f"{width * side}x{height * side}.",
                hint=f"Set model_size to {own[1] * side}x{own[0] * side}.",
                knob="model_size",
            )

    def _rotary(self, frames: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of the tokens' positions, frame by frame, row by row."""
        key = frames, height, width
        if key not in self._positions:
            if len(self._positions) >= _MOST_POSITIONS:
                self._positions.clear()
            made = rotary_positions(self._transformer.config, frames, height, width)
            self._positions[key] = made[0].to(self._device), made[1].to(self._device)
        return self._positions[key]

    def _take_turn(self, module: nn.Module | None) -> None:
        """Make room for what runs next: transformer, VAE, or, for None, the text encoder."""
        if module is not None:
            self._prompts.release()
        if self._offload == "none":
            return
        moving = [self._vae] if self._offload == "group" else [self._vae, self._transformer]
        leaving = [one for one in moving if one is not module and _lies_on(one, self._device)]
        for one in leaving:
            one.to("cpu")
        if leaving:
            speed.release(self._device)
        if module is not None and module in moving and not _lies_on(module, self._device):
            module.to(self._device)


def _lies_on(module: nn.Module, device: torch.device) -> bool:
    return bool(next(module.parameters()).device.type == device.type)


def _tiles(spec: BackboneSpec) -> vae.Tiles:
    """Return tiles of half the size the model was trained at."""
    width, height = spec.model_size
    side = 2 * spec.vae_spatial
    return vae.Tiles(max(2, width // side), max(2, height // side))


def rotary_positions(config: Any, frames: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the positions of a video's tokens.

    With pairs of latent frames positions are whole numbers; without, rows and columns are fitted,
    their aspect kept and centred, into the grid the model was trained at.

    Args:
        config: The transformer's.
        frames: Latent frames, whole pairs where the model takes pairs.
        height: Latent pixels.
        width: Latent pixels.

    Returns:
        [tokens, width of a head] each, float32 on the CPU.
    """
    side, head = config.patch_size, config.attention_head_dim
    rows, columns = height // side, width // side
    times = frames // (config.patch_size_t or 1)
    (top, left), (bottom, right) = (0, 0), (rows, columns)
    if config.patch_size_t is None:
        (top, left), (bottom, right) = _fitted(
            rows, columns, config.sample_height // side, config.sample_width // side
        )
    # Not diffusers' get_3d_rotary_pos_embed: as of 0.42 its steps are too short where a grid does
    # not begin at 0.
    axes = (
        (head // 4, _evenly(0, times, times)),
        (head // 8 * 3, _evenly(top, bottom, rows)),
        (head // 8 * 3, _evenly(left, right, columns)),
    )
    tables = [get_1d_rotary_pos_embed(share, places, use_real=True) for share, places in axes]
    cosines = _on_grid([table[0] for table in tables])
    return cosines, _on_grid([table[1] for table in tables])


def _evenly(first: int, last: int, count: int) -> Tensor:
    """Return so many places from ``first`` on, evenly spread, ``last`` left out."""
    return first + torch.arange(count, dtype=torch.float32) * ((last - first) / count)


def _on_grid(axes: list[Tensor]) -> Tensor:
    """Join tables for time [t,a], rows [h,b] and columns [w,c] to one. [t h w, a + b + c]."""
    times, rows, columns = (len(axis) for axis in axes)
    spread = (
        axes[0][:, None, None].expand(-1, rows, columns, -1),
        axes[1][None, :, None].expand(times, -1, columns, -1),
        axes[2][None, None].expand(times, rows, -1, -1),
    )
    return torch.cat(spread, dim=-1).reshape(times * rows * columns, -1)


def _fitted(
    rows: int, columns: int, base_rows: int, base_columns: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return first and last row and column of a grid fitted into another, its aspect kept."""
    if rows * base_columns > base_rows * columns:
        high, wide = base_rows, round(base_rows / rows * columns)
    else:
        high, wide = round(base_columns / columns * rows), base_columns
    top, left = round((base_rows - high) / 2), round((base_columns - wide) / 2)
    return (top, left), (top + high, left + wide)


def config_of(spec: BackboneSpec) -> dict[str, Any]:
    """Return what a full-size transformer is built from: its base's, with its own channels in."""
    return {**CONFIGS[spec.base], "in_channels": channels_of(spec)}


def channels_of(spec: BackboneSpec) -> int:
    """Return how many channels a transformer is given: noise, and what stands beside it."""
    return spec.architecture.latent_channels + spec.architecture.condition_channels


def stored_channels(spec: BackboneSpec) -> int:
    """Return how many channels the first layer has in a backbone's file.

    As many as the transformer is given; but where a base stands in for what is trained from it to
    merge layers, its file has its own, and :func:`widen` makes the rest.
    """
    if spec.layers and spec.weights == spec.base:
        return int(CONFIGS[spec.base]["in_channels"])
    return channels_of(spec)


def widen(transformer: CogVideoXTransformer3DModel, channels: int) -> None:
    """Give an image-to-video transformer columns for further layers, in place.

    Every further layer starts from the columns of the image, the last ones of the first layer, so
    that it is seen as the image is. What there was stays bit for bit.

    Args:
        transformer: Its weights are loaded. Its first layer takes whole images.
        channels: How many it takes afterwards.

    Raises:
        ValueError: What is missing is not a whole number of images.

    Source: split-then-merge §3.4 (fusion by channels), and its public code for the columns.
    """
    before = transformer.patch_embed.proj
    image = int(transformer.config.out_channels)
    copies, rest = divmod(channels - before.in_channels, image)
    if rest or copies < 0:
        raise ValueError(f"{before.in_channels} channels cannot become {channels}")
    if copies == 0:
        return
    weight, bias = before.weight.detach(), before.bias
    with torch.device("meta"):
        after = nn.Conv2d(
            channels,
            before.out_channels,
            before.kernel_size,
            before.stride,
            bias=bias is not None,
        )
    wide = torch.cat([weight, *[weight[:, -image:]] * copies], dim=1)
    after.weight = nn.Parameter(wide, requires_grad=False)
    if bias is not None:
        after.bias = nn.Parameter(bias.detach(), requires_grad=False)
    transformer.patch_embed.proj = after.eval()
    transformer.register_to_config(in_channels=channels)


# --- loading -------------------------------------------------------------------------------------


def load(
    spec: BackboneSpec,
    files: Mapping[str, Path],
    *,
    device: torch.device | str,
    settings: LoadSettings,
    cache: Path | None,
    log: logging.Logger,
    identity: str = "",
) -> CogVideoXBackbone:
    """Load a backbone from its files; see :func:`gencomp_server.models.load`.

    Raises:
        WeightsMissing: A file is not there.
        WeightsRefused: One cannot be read or does not fit.
        BadKnob: A setting asks for what this machine cannot do.
    """
    target = torch.device(device)
    dtype = compute_dtype(target)
    # Blocks that come in groups start on the CPU; a transformer that takes turns is put in shape
    # where it will compute.
    body = torch.device("cpu") if settings.offload == "group" else target
    check_files(spec, files, "transformer")
    config = _transformer_config(spec, files)
    transformer = build_on_meta(lambda: CogVideoXTransformer3DModel(**config))
    load_into(transformer, files["transformer"], title=spec.title, device=body, dtype=dtype)
    if config["in_channels"] != channels_of(spec):
        widen(transformer, channels_of(spec))
    said = speed.apply(transformer, settings, target, cache=cache)
    autoencoder, prompts = load_around(
        spec, files, config["text_embed_dim"], device=target, settings=settings, cache=cache
    )
    log.info("%s is loaded on %s", spec.title, target)
    return CogVideoXBackbone(
        spec,
        transformer,
        autoencoder,
        prompts,
        identity=identity or _identity(spec, files, target, settings),
        device=target,
        settings=settings,
        said=said,
    )


def check_files(spec: BackboneSpec, files: Mapping[str, Path], *bodies: str) -> None:
    """Check that all is named that a backbone is loaded from, and that its schedule is ours.

    Args:
        spec: The backbone.
        files: Its files by role.
        *bodies: Roles of what computes: ``transformer``, ``branch``.

    Raises:
        WeightsMissing: A role has no file.
        WeightsRefused: The model is sampled otherwise.
    """
    for role in (*bodies, "vae", "text_encoder", "tokenizer"):
        if role not in files:
            raise WeightsMissing(
                f"Nothing is named that {spec.title} could take as its {role.replace('_', ' ')}.",
                hint=f"gencomp weights path {spec.weights} says what is looked for.",
            )
    _check_schedule(spec, files.get("scheduler"))


def load_around(
    spec: BackboneSpec,
    files: Mapping[str, Path],
    text_width: int,
    *,
    device: torch.device,
    settings: LoadSettings,
    cache: Path | None,
) -> tuple[AutoencoderKLCogVideoX, text.Prompts]:
    """Load what stands around a transformer: the VAE, and where embeddings come from.

    Raises:
        WeightsMissing: A file is not there.
        WeightsRefused: One cannot be read or does not fit.
    """
    rests = device if settings.offload == "none" else torch.device("cpu")
    autoencoder = _load_vae(spec, files["vae"], rests, compute_dtype(device))
    return autoencoder, _load_prompts(spec, files, text_width, device, cache)


def _transformer_config(spec: BackboneSpec, files: Mapping[str, Path]) -> dict[str, Any]:
    """Return what the transformer is built from; its file's, where there is one, is checked.

    Its first layer is that of the weights' file. The configuration of what merges layers is that
    of its base, which says how many channels the base has.
    """
    stored = stored_channels(spec)
    file = files.get("transformer_config")
    if file is None:
        return {**config_of(spec), "in_channels": stored}
    known = inspect.signature(CogVideoXTransformer3DModel.__init__).parameters
    plain = {name: value for name, value in read_config(file).items() if name in known}
    kind = spec.architecture
    needed = {
        "in_channels": stored,
        "out_channels": kind.latent_channels,
        "num_layers": kind.blocks,
        "num_attention_heads": kind.heads,
        "attention_head_dim": kind.width // kind.heads,
        "patch_size": kind.patch,
        "patch_size_t": kind.patch_t if kind.patch_t > 1 else None,
        "max_text_seq_length": kind.text_tokens,
    }
    if spec.layers and plain.get("in_channels") == CONFIGS[spec.base]["in_channels"]:
        plain["in_channels"] = stored
    for name, value in needed.items():
        found = plain.get(name, known[name].default)
        if found != value:
            raise WeightsRefused(
                f"The configuration {file} is not that of {spec.title}: {name} is {found} where "
                f"{value} is needed.",
                hint="Copy the transformer's folder again from the model itself.",
                file=str(file),
            )
    return {"text_embed_dim": known["text_embed_dim"].default, **plain}


def _check_schedule(spec: BackboneSpec, folder: Path | None) -> None:
    if folder is None:
        return
    file = folder / "scheduler_config.json" if folder.is_dir() else folder
    plain = read_config(file)
    for name, value in _SCHEDULE.items():
        if plain.get(name, value) != value:
            raise WeightsRefused(
                f"The scheduler in {file} is not one that {spec.title} is sampled with: {name} is "
                f"{plain[name]} where {value} is needed.",
                hint="Copy the folder scheduler again from the model itself.",
                file=str(file),
            )


def _load_vae(
    spec: BackboneSpec, place: Path, device: torch.device, dtype: torch.dtype
) -> AutoencoderKLCogVideoX:
    file = place / "config.json"
    known = inspect.signature(AutoencoderKLCogVideoX.__init__).parameters
    plain = {name: value for name, value in read_config(file).items() if name in known}
    channels = plain.get("latent_channels", known["latent_channels"].default)
    levels = len(plain.get("block_out_channels", ()))
    if channels != spec.architecture.latent_channels or 2 ** (levels - 1) != spec.vae_spatial:
        raise WeightsRefused(
            f"The configuration {file} is not that of the VAE of {spec.title}.",
            hint="Copy the folder vae again from the model itself.",
            file=str(file),
        )
    made = build_on_meta(lambda: AutoencoderKLCogVideoX(**plain))
    load_into(made, place, title=f"the VAE of {spec.title}", device=device, dtype=dtype)
    return made


def _load_prompts(
    spec: BackboneSpec,
    files: Mapping[str, Path],
    width: int,
    device: torch.device,
    cache: Path | None,
) -> text.Prompts:
    dtype = compute_dtype(device)
    folder = files["text_encoder"]

    def make_encoder() -> nn.Module:
        title = f"the text encoder of {spec.title}"
        return text.load_encoder(folder, title=title, device=device, dtype=dtype, width=width)

    return text.Prompts(
        make_encoder,
        text.load_tokenizer(files["tokenizer"]),
        spec.architecture.text_tokens,
        identity=text.encoder_identity(folder, files["tokenizer"], dtype, device.type),
        folder=None if cache is None else cache / "prompts",
    )


def _identity(
    spec: BackboneSpec, files: Mapping[str, Path], device: torch.device, settings: LoadSettings
) -> str:
    """Return a digest of what decides the bits, as far as a look at the files tells."""
    digest = hashlib.blake2b(f"{spec.name} {device.type} {asdict(settings)}".encode())
    for role in ("transformer", "vae", "text_encoder"):
        digest.update(fingerprint(files[role]).encode())
    return digest.hexdigest()[:32]
