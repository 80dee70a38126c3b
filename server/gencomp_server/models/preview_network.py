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
from collections.abc import Sequence
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
MULTIPLE = 8
"""What height and width must be multiples of."""

_PICTURE = 3
_CHANGE = 2 * _PICTURE + 1
# Mean square of what a silu makes of a normal, and of the channels that go in.
_SILU_POWER, _PICTURE_POWER = 0.355, 0.08
_GATE = 0.5
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
    layers: int = 4
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

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.second(functional.silu(self.first(functional.silu(x)))))


class _Larger(nn.Module):  # type: ignore[misc]
    """Twice the size, by pixels laid out from channels, added to features of that size."""

    def __init__(self, width: int, to: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, 4 * to, 1)
        self.mixed = nn.Conv2d(to, to, 3, padding=1)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        joined = functional.pixel_shuffle(self.spread(functional.silu(x)), 2) + beside
        return joined + cast(Tensor, self.mixed(functional.silu(joined)))


class PreviewNetwork(nn.Module):  # type: ignore[misc]
    """Conditions, a noisy picture, a timestep and words to a clean picture."""

    def __init__(self, config: PreviewConfig | None = None) -> None:
        super().__init__()
        self.config = config or PreviewConfig()
        full, half, quarter = self.config.widths
        self.words = Words(self.config.text)
        self.begin = nn.Conv2d(CONDITIONS + _PICTURE, full, 3, padding=1)
        self.down_half = nn.Conv2d(full, half, 3, stride=2, padding=1)
        self.at_half = _Residual(half)
        self.down_quarter = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.at_quarter = _Residual(quarter)
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
        self.said = nn.Parameter(torch.zeros(2, quarter, self.config.text))
        self.back = _Residual(quarter)
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
        for layer in (self.at_half, self.at_quarter, self.back):
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
        seen = torch.cat([conditions, noisy], dim=-1).flatten(0, 1).permute(0, 3, 1, 2)
        at_full = self.begin(seen)
        at_half = self.at_half(self.down_half(functional.silu(at_full)))
        at_quarter = self.at_quarter(self.down_quarter(functional.silu(at_half)))
        tokens = at_quarter.unflatten(0, (count, frames))
        text = self.words(words)
        found = self.transformer(tokens, text, timestep, return_dict=False)[0]
        gain, shift = torch.einsum("bt,kqt->kbq", text.mean(1), self.said)
        joined = (at_quarter + found.flatten(0, 1)).unflatten(0, (count, frames))
        joined = joined * (1 + gain[:, None, :, None, None]) + shift[:, None, :, None, None]
        back = self.back(joined.flatten(0, 1))
        change = self.end(functional.silu(self.up_full(self.up_half(back, at_half), at_full)))
        change = change.permute(0, 2, 3, 1).reshape(count, frames, height, width, _CHANGE).float()
        return changed(conditions, change)


def picture(conditions: Tensor, name: str) -> Tensor:
    """Return the channels of one of :data:`CHANNELS`. [...,13] -> [...,1 or 3]."""
    start = _STARTS[name]
    return conditions[..., start : start + CHANNELS[name]]


def changed(conditions: Tensor, change: Tensor) -> Tensor:
    """Return the base with a predicted change.

    Args:
        conditions: [...,13].
        change: Share of the way to the gathered plate, gain and offset of 0..1. [...,7].

    Returns:
        [...,3], model range, unclamped.
    """
    share, gain, offset = change.split((1, _PICTURE, _PICTURE), dim=-1)
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
    expected = {"vocabulary": json.dumps(VOCABULARY), "channels": json.dumps(CHANNELS)}
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
