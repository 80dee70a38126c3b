# SPDX-License-Identifier: Apache-2.0
"""The network of the preview model: CogVideoX's transformer between small convolutions.

Each frame goes through convolutions down to a quarter of its size; patches of 2x2 there, 8x8 pixels
of the picture, are the transformer's tokens; convolutions with the stem's features bring what it
found back to full size, so that no token shows as a block. What comes out is a change of the
conditions' base picture: how far it moves to the gathered clean plate, a gain and an offset. The
last layer starts at zero: an untrained network gives the base.

All pictures are [B,T,H,W,C] float32 in model range, H and W multiples of 8; conditions have the
channels of :data:`CHANNELS` in that order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from gencomp_server.models.preview_words import MOST_WORDS, VOCABULARY, numbers
from gencomp_server.parts.schedule import signal_levels

CHANNELS = {
    "plate": 3,
    "base": 3,
    "gathered": 3,
    "seen": 1,
    "remove": 1,
    "keep": 1,
    "subject": 1,
}
"""Channels of the conditions, in order: three pictures -1..1, four maps 0..1."""
CONDITIONS = sum(CHANNELS.values())
NETWORK_VERSION = 2
"""Counts up where the same weights would give another picture."""
MULTIPLE = 8
"""What height and width must be multiples of."""

_PICTURE = 3
_CHANGE = 2 * _PICTURE + 1
_DERIVED = _PICTURE + 1
_APART = 6.0  # a visible difference, 0.02 of a code, becomes 0.24
_FADE = 0.5  # what a mask counts for on a frame farther from where it was drawn
# Mean square of what a silu makes of a normal, and of the channels that go in.
_SILU_POWER, _PICTURE_POWER = 0.355, 0.08
_GATE = 0.5
_GROUPS = 8
_STARTS = {name: sum(list(CHANNELS.values())[:i]) for i, name in enumerate(CHANNELS)}


@dataclass(frozen=True)
class PreviewConfig:
    """Sizes of the network.

    Attributes:
        widths: Channels of the convolutions at full, half and quarter size.
        heads: Attention heads, of 64 channels each.
        layers: Blocks of the transformer.
        time: Width of the timestep's embedding.
        text: Width of the words' embeddings.
    """

    widths: tuple[int, int, int] = (16, 48, 64)
    heads: int = 3
    layers: int = 3
    time: int = 32
    text: int = 64


class Words(nn.Module):  # type: ignore[misc]
    """The text encoder: a table of words, places, and one block of attention between them."""

    _HEADS = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(len(VOCABULARY), width)
        self.places = nn.Parameter(torch.randn(MOST_WORDS, width) * 0.1)
        self.norm = nn.LayerNorm(width)
        self.joint = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mixed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, words: Tensor) -> Tensor:
        """Return embeddings of words. [B,L] int64 -> [B,L,D]."""
        found = self.table(words) + self.places
        count, length, width = found.shape
        parts = self.joint(self.norm(found)).view(count, length, 3, self._HEADS, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        found = found + self.out(seen.transpose(1, 2).reshape(count, length, width))
        return cast(Tensor, found + self.mixed(found))


class _Residual(nn.Module):  # type: ignore[misc]
    """Two convolutions added to what goes in; nothing at first."""

    def __init__(self, width: int, apart: int = 1) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.first = nn.Conv2d(width, width, 3, padding=apart, dilation=apart)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found = self.first(functional.silu(self.norm(x)))
        return x + cast(Tensor, self.second(functional.silu(found)))


class _Larger(nn.Module):  # type: ignore[misc]
    """Twice the size, by pixels laid out from channels, added to features of that size."""

    def __init__(self, width: int, to: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, 4 * to, 1)
        self.mixed = nn.Conv2d(to, to, 3, padding=1)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        joined = functional.pixel_shuffle(self.spread(functional.silu(x)), 2) + beside
        return joined + cast(Tensor, self.mixed(functional.silu(joined)))


class _Said(nn.Module):  # type: ignore[misc]
    """What all the words together do to channels: gains and offsets, nothing at first."""

    def __init__(self, text: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        self.mixed = nn.Linear(text, 2 * text)
        self.out = nn.Linear(2 * text, 2 * sum(widths))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, text: Tensor, words: Tensor, frames: int) -> list[Callable[[Tensor], Tensor]]:
        """Return what acts on features of each width.

        Args:
            text: Embeddings. [B,L,D].
            words: Their numbers; places without a word do not count. [B,L] int64.
            frames: Of a clip; features are [B*T,C,H,W].
        """
        said = (text * (words > 0).unsqueeze(-1)).sum(1)
        found = self.out(functional.silu(self.mixed(said))).repeat_interleave(frames, 0)
        return [self._acting(part) for part in found.split([2 * w for w in self.widths], dim=1)]

    @staticmethod
    def _acting(part: Tensor) -> Callable[[Tensor], Tensor]:
        gain, shift = part[..., None, None].chunk(2, dim=1)
        return lambda x: x * (1 + gain) + shift


class PreviewNetwork(nn.Module):  # type: ignore[misc]
    """Conditions, a noisy picture, a timestep and words to a clean picture."""

    def __init__(self, config: PreviewConfig | None = None) -> None:
        super().__init__()
        self.config = config or PreviewConfig()
        full, half, quarter = self.config.widths
        self.words = Words(self.config.text)
        self.begin = nn.Conv2d(CONDITIONS + _DERIVED + _PICTURE, full, 3, padding=1)
        self.down_half = nn.Conv2d(full, half, 3, stride=2, padding=1)
        self.at_half = _Residual(half)
        self.down_quarter = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.at_quarter = nn.Sequential(_Residual(quarter), _Residual(quarter, 2))
        self.transformer = CogVideoXTransformer3DModel(
            num_attention_heads=self.config.heads,
            attention_head_dim=64,
            in_channels=quarter,
            out_channels=quarter,
            time_embed_dim=self.config.time,
            text_embed_dim=self.config.text,
            num_layers=self.config.layers,
            sample_width=16,
            sample_height=12,
            sample_frames=5,
            patch_size=2,
            temporal_compression_ratio=1,
            max_text_seq_length=MOST_WORDS,
            spatial_interpolation_scale=1.0,
            temporal_interpolation_scale=1.0,
        )
        self.said = _Said(self.config.text, (quarter, half, full))
        self.back = nn.Sequential(_Residual(quarter), _Residual(quarter, 3))
        self.up_half = _Larger(quarter, half)
        self.up_full = _Larger(half, full)
        self.end = nn.Conv2d(full, _CHANGE, 3, padding=1)
        self._begin()
        signal = torch.tensor(signal_levels(), dtype=torch.float32).sqrt()
        self.register_buffer("signal", signal, persistent=False)

    def _begin(self) -> None:
        """Give weights sizes with which the picture reaches every layer and places do not rule.

        Convolutions keep the size of what goes through them; blocks add half of what they find from
        the start, whatever the timestep; the last layer gives nothing.
        """
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d) and not name.startswith("transformer"):
                entry = _PICTURE_POWER if name == "begin" else _SILU_POWER
                inputs = layer.weight[0].numel()
                nn.init.normal_(layer.weight, std=(inputs * entry) ** -0.5)
                nn.init.zeros_(layer.bias)
        for block in self.transformer.transformer_blocks:
            for norm in (block.norm1, block.norm2):
                with torch.no_grad():
                    norm.linear.weight.mul_(0.1)
                    parts = norm.linear.bias.view(6, -1)
                    parts.zero_()
                    parts[2], parts[5] = _GATE, _GATE
        for layer in self.modules():
            if isinstance(layer, _Residual):
                nn.init.zeros_(layer.second.weight)
        nn.init.zeros_(self.end.weight)

    def forward(self, noisy: Tensor, conditions: Tensor, words: Tensor, timestep: Tensor) -> Tensor:
        """Predict the clean picture.

        The noisy picture counts by its share of signal: what is noise alone is not looked at.

        Args:
            noisy: [B,T,H,W,3], model range with noise of its timestep.
            conditions: [B,T,H,W,13], channels as :data:`CHANNELS` says.
            words: Numbers of words. [B,L] int64.
            timestep: 0..999. [B] int64.

        Returns:
            [B,T,H,W,3] float32, model range, unclamped.
        """
        count, frames, height, width = noisy.shape[:4]
        noisy = noisy * self.signal[timestep].view(-1, 1, 1, 1, 1)
        seen = torch.cat([conditions, derived(conditions), noisy], dim=-1)
        seen = seen.flatten(0, 1).permute(0, 3, 1, 2)
        at_full = self.begin(seen)
        at_half = self.at_half(self.down_half(functional.silu(at_full)))
        at_quarter = self.at_quarter(self.down_quarter(functional.silu(at_half)))
        tokens = at_quarter.unflatten(0, (count, frames))
        text = self.words(words)
        found = self.transformer(tokens, text, timestep, return_dict=False)[0]
        by_quarter, by_half, by_full = self.said(text, words, frames)
        back = self.back(by_quarter(at_quarter + found.flatten(0, 1)))
        larger = by_half(self.up_half(back, at_half))
        change = self.end(functional.silu(by_full(self.up_full(larger, at_full))))
        change = change.permute(0, 2, 3, 1).reshape(count, frames, height, width, _CHANGE).float()
        return changed(conditions, change)


def derived(conditions: Tensor) -> Tensor:
    """Return what a convolution is slow to learn from conditions.

    Args:
        conditions: [B,T,H,W,13].

    Returns:
        How far plate and gathered plate are apart, strengthened, -1..1, and EDIT carried from the
        frames on which a mask was drawn to those where it is unknown, 0..1. [B,T,H,W,4].
    """
    apart = picture(conditions, "plate") - picture(conditions, "gathered")
    edit, keep = picture(conditions, "remove"), picture(conditions, "keep")
    drawn = ((edit + keep).amax((2, 3, 4)) > 0).float()
    n = torch.arange(conditions.shape[1], device=conditions.device)
    near = _FADE ** (n[:, None] - n[None]).abs().float() * drawn[:, None]
    near = near / near.sum(-1, keepdim=True).clamp_min(1e-6)
    carried = torch.einsum("bts,bshwc->bthwc", near, edit)
    own = drawn[:, :, None, None, None]
    return torch.cat([torch.tanh(_APART * apart), own * edit + (1 - own) * carried], dim=-1)


def picture(conditions: Tensor, name: str) -> Tensor:
    """Return the channels of one of :data:`CHANNELS`. [...,13] -> [...,1 or 3]."""
    start = _STARTS[name]
    return conditions[..., start : start + CHANNELS[name]]


def changed(conditions: Tensor, change: Tensor) -> Tensor:
    """Return the base with a predicted change, where KEEP lets it.

    Args:
        conditions: [...,13].
        change: Share of the way to the gathered plate, gain and offset of 0..1. [...,7].

    Returns:
        [...,3], model range, unclamped.
    """
    free = 1 - picture(conditions, "keep")
    share, gain, offset = (free * change).split((1, _PICTURE, _PICTURE), dim=-1)
    base, gathered = picture(conditions, "base"), picture(conditions, "gathered")
    start = 0.5 + 0.5 * (base + share * (gathered - base))
    return 2 * (start * (1 + gain) + offset) - 1


def word_numbers(words: Sequence[tuple[str, ...]]) -> Tensor:
    """Return clips' words as the network takes them. [B,L] int64.

    Raises:
        ValueError: A word is not of the vocabulary, or there are too many.
    """
    return torch.tensor([numbers(one) for one in words], dtype=torch.int64)


def make_network(seed: int, config: PreviewConfig | None = None) -> PreviewNetwork:
    """Make an untrained network of a seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PreviewNetwork(config)
    return cast(PreviewNetwork, network.eval())


def write_network(network: PreviewNetwork, path: Path, facts: dict[str, str]) -> None:
    """Write a network's weights as float16 safetensors.

    Args:
        network: Whose.
        path: The file.
        facts: Said in the file's header, beside the sizes and the vocabulary.
    """
    tensors = {name: one.detach().half().contiguous() for name, one in state_of(network).items()}
    header = {
        **facts,
        "config": json.dumps(asdict(network.config), sort_keys=True),
        "vocabulary": json.dumps(VOCABULARY),
        "channels": json.dumps(CHANNELS),
        "network": str(NETWORK_VERSION),
    }
    save_file(tensors, str(path), metadata=header)


def read_network(path: Path, device: torch.device | str = "cpu") -> PreviewNetwork:
    """Read what :func:`write_network` wrote, for computing in float32.

    Raises:
        ValueError: The file is of another network: sizes, words, channels or tensors differ.
        OSError: It cannot be read.
    """
    with safe_open(str(path), framework="pt", device="cpu") as file:
        header: dict[str, str] = file.metadata() or {}
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    expected = {
        "vocabulary": json.dumps(VOCABULARY),
        "channels": json.dumps(CHANNELS),
        "network": str(NETWORK_VERSION),
    }
    wrong = [name for name, value in expected.items() if header.get(name) != value]
    if wrong or "config" not in header:
        raise ValueError(f"{path} holds another preview model: its {' and '.join(wrong)} differ")
    sizes: dict[str, Any] = json.loads(header["config"])
    network = make_network(0, PreviewConfig(**{**sizes, "widths": tuple(sizes["widths"])}))
    ours = state_of(network)
    strange = set(ours) ^ set(tensors)
    strange |= {
        name for name in set(ours) & set(tensors) if ours[name].shape != tensors[name].shape
    }
    if strange:
        raise ValueError(f"{path} does not fit the preview model: {', '.join(sorted(strange)[:3])}")
    network.load_state_dict(tensors, strict=False)
    return cast(PreviewNetwork, network.to(device).eval())


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Return what of a network is learned, by name; tables of positions are computed."""
    return dict(network.named_parameters())
