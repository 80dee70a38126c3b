# SPDX-License-Identifier: Apache-2.0
"""Positions of a plate's tokens and of an element's that lie elsewhere in the picture: ERoPE.

Tokens of both are attended to together, and the same cell of both grids shows different things. So
the element's cells are given positions that no cell of the plate has:

| layout    | frame, row, column of the plate     | of the element                     |
|-----------|-------------------------------------|------------------------------------|
| `height`  | t, y, x                             | t, y + rows, x                     |
| `width`   | t, y, x                             | t, y, x + columns                  |
| `time`    | t, y, x                             | t + longest, y, x                  |
| `shipped` | t // 2, y + rows (t % 2), x         | the same of t + longest            |

``longest`` is the number of latent frames of a whole window, in shorter windows too, so that a
frame of the element keeps the distance to its frame of the plate that the weights were trained at.

``shipped`` is what the released code does: it makes a table for a picture of twice the height and
lays it along the plate's tokens and then the element's, so that two frames share a time, one above
the other. The released weights go with it. The others are for weights of one's own.

Sources: GenCompositor §4.4, eq. 8 and appendix F; the released code for ``shipped``.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor

SHIPPED = "shipped"
LAYOUTS = (SHIPPED, "height", "width", "time")


def longest(config: Any) -> int:
    """Return the latent frames of a whole window of a transformer, by its configuration."""
    return int((config.sample_frames - 1) // config.temporal_compression_ratio + 1)


def places(
    frames: int, rows: int, columns: int, layout: str, *, whole: int
) -> tuple[Tensor, Tensor]:
    """Return where every token of the plate and of the element is said to be.

    Args:
        frames: Latent frames of each.
        rows: Rows of tokens.
        columns: Columns of tokens.
        layout: One of :data:`LAYOUTS`.
        whole: Latent frames of a whole window.

    Returns:
        Frame, row and column of each token, frame by frame and row by row. [N,3] int64 each.

    Raises:
        ValueError: There is no such layout, or the window is longer than a whole one.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"no layout is called {layout}: {', '.join(LAYOUTS)}")
    if frames > whole:
        raise ValueError(f"{frames} latent frames where the model takes {whole} at most")
    grid = torch.cartesian_prod(*(torch.arange(count) for count in (frames, rows, columns)))
    plate = grid.reshape(-1, 3)
    if layout == SHIPPED:
        later = plate + torch.tensor([whole, 0, 0])
        return _in_twos(plate, rows), _in_twos(later, rows)
    shift = {"height": [0, rows, 0], "width": [0, 0, columns], "time": [whole, 0, 0]}[layout]
    return plate, plate + torch.tensor(shift)


def _in_twos(grid: Tensor, rows: int) -> Tensor:
    """Give two frames one time, the second below the first. [N,3] -> [N,3]."""
    times, down, across = grid.unbind(1)
    return torch.stack([times // 2, down + rows * (times % 2), across], dim=1)


def rotary(
    config: Any, frames: int, height: int, width: int, layout: str | None = None
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the positions of the plate's tokens, then the element's.

    Args:
        config: The transformer's.
        frames: Latent frames.
        height: Latent pixels.
        width: Latent pixels.
        layout: One of :data:`LAYOUTS`; None for a plate by itself.

    Returns:
        [2 tokens, width of a head] each, float32 on the CPU; by itself, [tokens, width].

    Raises:
        ValueError: As of :func:`places`.
    """
    rows, columns = height // config.patch_size, width // config.patch_size
    where = places(frames, rows, columns, layout or "height", whole=longest(config))
    tokens = (torch.cat(where) if layout else where[0]).float()
    head = config.attention_head_dim
    shares = (head // 4, head // 8 * 3, head // 8 * 3)
    tables = [
        get_1d_rotary_pos_embed(share, tokens[:, axis], use_real=True)
        for axis, share in enumerate(shares)
    ]
    cosines, sines = (torch.cat([table[half] for table in tables], dim=-1) for half in (0, 1))
    return cosines, sines
