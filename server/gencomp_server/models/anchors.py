# SPDX-License-Identifier: Apache-2.0
"""Anchor Extended Attention: an edit that sees keys and values of the video it is to live in.

::

    edit    text ‖ video ──► queries ───────────────┐
                        └──► keys, values ─┐         ├─► attention ─► edit
    source  text ‖ video ──► keys, values ─┴ anchors ┘
                        └──► its own plain attention ─► source, layer after layer

In every layer the edit's queries, those of its text too, also see some of the source's video keys
and values: the anchors. Both videos have the same positions, so an anchor says what is there and
then. Which tokens are anchors is drawn anew in every layer and step: one pattern over rows and
columns, the same in all latent frames, of which a share is kept inside of the source's marks and
another outside.

Edit and source go through the transformer as a batch of two. Since the source's keys at a timestep
are the same in every round of a job, a ``parts.sourcekeys.SourceKeys`` may keep them where there is
memory for it; then the source goes alone, once, and the edit alone every time.

Sources: DynVFX §4.2, eq. 3, and §A.2; its public code for what the text sees, for the shared
pattern and for shares that are kept rather than dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from gencomp_server.models.speed import blocks

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention

    from gencomp_server.parts.sourcekeys import SourceKeys

    KeysValues = tuple[Tensor, Tensor]
    Rotary = tuple[Tensor, Tensor]


# --- which tokens are anchors --------------------------------------------------------------------


def draw_patterns(seed: int, layer: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return the random numbers of a layer: for tokens inside the marks, and for those outside.

    They are drawn on the CPU by a generator of their own: the same on every device.

    Args:
        seed: Of this forward.
        layer: Index of the layer.
        rows: Rows of tokens.
        columns: Columns of tokens.

    Returns:
        [rows,columns] float32 each, 0..1.
    """
    digest = hashlib.blake2b(f"{seed} {layer}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    inside = torch.rand(rows, columns, generator=generator)
    return inside, torch.rand(rows, columns, generator=generator)


def anchors_of(marks: Tensor, patterns: tuple[Tensor, Tensor], keep: tuple[float, float]) -> Tensor:
    """Return which video tokens of the source are anchors.

    Args:
        marks: True where a token is inside. [T,rows,columns] bool.
        patterns: Random numbers for inside and outside. [rows,columns] each, 0..1.
        keep: Share kept inside and outside, 0..1.

    Returns:
        Their places among the video tokens, frame by frame, row by row. [K] int64 on the CPU.
    """
    inside, outside = (pattern.cpu() < share for pattern, share in zip(patterns, keep, strict=True))
    marked = marks.cpu()
    kept = (marked & inside) | (~marked & outside)
    return kept.flatten().nonzero().flatten()


def token_marks(marks: Tensor, patch: int, patch_t: int = 1) -> Tensor:
    """Bring marks from latent size to tokens: a token is marked where any of its cells is.

    Args:
        marks: [T',h,w] bool.
        patch: Latent pixels on a token's side.
        patch_t: Latent frames in a token.

    Returns:
        [T'/patch_t,h/patch,w/patch] bool.
    """
    cells = (patch_t, patch, patch)
    pooled: Tensor = F.max_pool3d(marks[None, None].float(), cells)[0, 0]
    return pooled > 0


# --- attention -----------------------------------------------------------------------------------


class AnchorExtendedAttention:
    """Attention of a CogVideoX layer over [edit, source], or over either alone.

    Without ``own`` the batch is two, the edit first. With it, the batch is the edit alone, and the
    source's keys and values are taken from there.

    Args:
        places: Which of the source's video tokens are anchors. [K] int64.
        text_too: True where the edit's text sees the anchors as its video does.
        backend: Kernels as in ``models.attention``; None for torch's own choice.
        own: Keys and values of all the source's video tokens, [1,N,heads,D] each.
    """

    def __init__(
        self,
        places: Tensor,
        *,
        text_too: bool = True,
        backend: AttentionBackendName | None = None,
        own: KeysValues | None = None,
    ) -> None:
        self.places, self.text_too, self.backend, self.own = places, text_too, backend, own

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            attn: The layer.
            hidden_states: Video tokens. [2,N,D], or [1,N,D] with ``own``.
            encoder_hidden_states: Text tokens. [2,L,D], or [1,L,D].
            attention_mask: Not taken: these models use none.
            image_rotary_emb: Positions of the video tokens. [N,D/heads] each.

        Returns:
            Video and text tokens, of the sizes given.
        """
        assert attention_mask is None
        words = encoder_hidden_states.shape[1]
        query, key, value = projected(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        more = self.own or (key[1:, words:], value[1:, words:])
        places = self.places.to(key.device)
        seen = [self._edit(query[:1], key[:1], value[:1], [one[:, places] for one in more], words)]
        if self.own is None:
            seen.append(attended(query[1:], key[1:], value[1:], self.backend))
        return finished(attn, torch.cat(seen), words)

    def _edit(
        self, query: Tensor, key: Tensor, value: Tensor, more: Sequence[Tensor], words: int
    ) -> Tensor:
        """Return what the edit's queries see. [1,L+N,heads,D]."""
        keys, values = torch.cat([key, more[0]], dim=1), torch.cat([value, more[1]], dim=1)
        if self.text_too:
            return attended(query, keys, values, self.backend)
        text = attended(query[:, :words], key, value, self.backend)
        return torch.cat([text, attended(query[:, words:], keys, values, self.backend)], dim=1)


class KeepKeys:
    """Plain attention that keeps the keys and values of its video tokens.

    Args:
        backend: Kernels as in ``models.attention``; None for torch's own choice.

    Attributes:
        kept: What the last call had. [1,N,heads,D] each.
    """

    def __init__(self, backend: AttentionBackendName | None = None) -> None:
        self.backend = backend
        self.kept: KeysValues | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend; as :class:`AnchorExtendedAttention` is given."""
        assert attention_mask is None
        words = encoder_hidden_states.shape[1]
        query, key, value = projected(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        self.kept = key[:, words:].contiguous(), value[:, words:].contiguous()
        return finished(attn, attended(query, key, value, self.backend), words)


def projected(
    attn: Attention, video: Tensor, text: Tensor, rotary: Rotary | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of text and video, in their places. [B,L+N,heads,D] each."""
    tokens = torch.cat([text, video], dim=1)
    query, key, value = (
        layer(tokens).unflatten(-1, (attn.heads, -1)) for layer in (attn.to_q, attn.to_k, attn.to_v)
    )
    query, key = attn.norm_q(query), attn.norm_k(key)
    if rotary is not None:
        query, key = (_placed(one, text.shape[1], rotary) for one in (query, key))
    return query, key, value


def _placed(heads: Tensor, words: int, rotary: Rotary) -> Tensor:
    video = apply_rotary_emb(heads[:, words:], rotary, sequence_dim=1)
    return torch.cat([heads[:, :words], video], dim=1)


def attended(
    query: Tensor, key: Tensor, value: Tensor, backend: AttentionBackendName | None
) -> Tensor:
    """Return what queries see. [B,n,heads,D] in and out."""
    if backend is not None:
        seen: Tensor = dispatch_attention_fn(query, key, value, backend=backend)
        return seen
    parts = (one.transpose(1, 2) for one in (query, key, value))
    return F.scaled_dot_product_attention(*parts).transpose(1, 2)


def finished(attn: Attention, seen: Tensor, words: int) -> tuple[Tensor, Tensor]:
    """Return the layer's video and text tokens from what its queries saw."""
    made = attn.to_out[1](attn.to_out[0](seen.flatten(2)))
    return made[:, words:], made[:, :words]


# --- the transformer -----------------------------------------------------------------------------


def predict(
    transformer: Any,
    latents: Tensor,
    timestep: float,
    text: Tensor,
    *,
    source: Tensor,
    source_text: Tensor,
    marks: Tensor,
    keep: tuple[float, float],
    seed: int,
    rotary: Rotary,
    keys: SourceKeys | None = None,
    owner: str = "",
) -> tuple[Tensor, int]:
    """Run a transformer on an edit whose attention is extended by anchors of its source.

    Compiled blocks run as they are written meanwhile: the number of anchors is another in every
    layer, and each number would be a compilation of its own.

    Args:
        transformer: diffusers' CogVideoX transformer; as it was when this returns.
        latents: The edit. [1,T',C,h,w].
        timestep: Where in the schedule.
        text: Of the edit. [1,L,D].
        source: The source's noisy latents at this timestep. [1,T',C,h,w].
        source_text: [1,L,D].
        marks: True inside. [T',h,w] bool.
        keep: Share of the source's tokens that are anchors inside and outside, 0..1.
        seed: Which.
        rotary: Positions of the video tokens. [N,D/heads] each.
        keys: Where the source's keys and values are kept; None keeps none.
        owner: Names the source's window there.

    Returns:
        The prediction for the edit, [1,T',C,h,w], and how many forwards it took: 2, or 1 where the
        source's were kept.
    """
    config = transformer.config
    inside = token_marks(marks.cpu(), config.patch_size, config.patch_size_t or 1)
    layers = len(blocks(transformer))
    drawn = [draw_patterns(seed, layer, *inside.shape[1:]) for layer in range(layers)]
    places = [anchors_of(inside, patterns, keep) for patterns in drawn]

    def run(some: Tensor, words: Tensor) -> Tensor:
        return _forward(transformer, some, timestep, words, rotary)

    if keys is None or timestep not in keys.timesteps:
        with replaced(transformer, lambda layer, how: _extended(places[layer], how)):
            pair = run(torch.cat([latents, source]), torch.cat([text, source_text]))
        return pair[:1], 2
    known, computed = keys.held.get((owner, timestep)), 1
    if known is None:
        known, computed = _kept(transformer, lambda: run(source, source_text)), 2
        keys.held[owner, timestep] = known
    with replaced(transformer, lambda layer, how: _extended(places[layer], how, known[layer])):
        return run(latents, text), computed


def _extended(
    places: Tensor, backend: AttentionBackendName | None, own: KeysValues | None = None
) -> AnchorExtendedAttention:
    return AnchorExtendedAttention(places, backend=backend, own=own)


def _kept(transformer: Any, run: Callable[[], Tensor]) -> tuple[KeysValues, ...]:
    """Run the source alone and return every layer's keys and values."""
    keepers: dict[int, KeepKeys] = {}

    def keeper(layer: int, backend: AttentionBackendName | None) -> KeepKeys:
        return keepers.setdefault(layer, KeepKeys(backend))

    with replaced(transformer, keeper):
        run()
    found = tuple(keepers[layer].kept for layer in range(len(keepers)))
    assert all(one is not None for one in found)
    return cast("tuple[KeysValues, ...]", found)


def _forward(
    transformer: Any, latents: Tensor, timestep: float, text: Tensor, rotary: Rotary
) -> Tensor:
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        made: Tensor = transformer(
            hidden_states=latents,
            encoder_hidden_states=text,
            timestep=torch.full((len(latents),), timestep, device=latents.device),
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
    return made


@contextlib.contextmanager
def replaced(transformer: Any, processor_of: Callable[[int, Any], Any]) -> Iterator[None]:
    """Give every layer another attention processor for a while.

    Args:
        transformer: Its layers get their own back, whatever happens.
        processor_of: (index of the layer, its kernels or None) to a processor.

    Raises:
        RuntimeError: Its layers are extended already.
    """
    layers = [block.attn1 for block in blocks(transformer)]
    before = [layer.processor for layer in layers]
    if any(isinstance(one, (AnchorExtendedAttention, KeepKeys)) for one in before):
        raise RuntimeError("the attention of this transformer is extended already")
    try:
        for index, (layer, own) in enumerate(zip(layers, before, strict=True)):
            layer.processor = processor_of(index, getattr(own, "backend", None))
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.processor = own
