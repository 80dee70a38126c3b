# SPDX-License-Identifier: Apache-2.0
"""Between sequences and latents, inside a stage: there and back.

Latents leave and enter stages as numpy arrays, [1,T',C,h,w] float32; sequences are [T,H,W,3] in
model range [-1,1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.errors import InternalError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from gencomp_server.contract import Context
    from gencomp_server.models.backbone import Backbone

    Floats = NDArray[np.float32]
    Halves = NDArray[np.float16]

# A decoded sample further out than this is kept as this: no picture has it.
_MOST_DECODED = 4.0


def tensor(array: Any, model: Backbone) -> Tensor:
    """Return an array as a tensor where a model wants it, float32."""
    import torch

    return torch.from_numpy(np.array(array, np.float32)).to(model.device)


def encoded(ctx: Context, sequence: Floats) -> Floats:
    """Encode a sequence inside a stage. [T,H,W,3], model range -> [1,T',C,h,w] float32."""
    made = backbone_of(ctx).encode(
        sequence, lambda done, total: ctx.progress("encode", done, total)
    )
    return np.asarray(made.float().cpu().numpy(), np.float32)


def backbone_of(ctx: Context) -> Backbone:
    """Return the backbone that a stage runs.

    Raises:
        InternalError: The job was given none.
    """
    if ctx.backbone is None:
        raise InternalError("A stage was to run a video model and was given none.")
    return ctx.backbone


def decoded(ctx: Context, latents: Any, frames: int) -> Halves:
    """Decode latents inside a stage. [1,T',C,h,w] -> the job's own frames [T,h,w,3] float16.

    Raises:
        InternalError: The model made values that are not finite.
    """
    model = backbone_of(ctx)
    video = model.decode(
        tensor(latents, model), lambda done, total: ctx.progress("decode", done, total)
    )[:frames]
    if not np.isfinite(video).all():
        raise InternalError(
            f"The video model {model.spec.title} made values that are not finite.",
            hint="Set precision to exact and attention to native, and try again.",
        )
    return np.asarray(np.clip(video, -_MOST_DECODED, _MOST_DECODED), np.float16)
