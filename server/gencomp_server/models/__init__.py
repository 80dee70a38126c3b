# SPDX-License-Identifier: Apache-2.0
"""Video diffusion transformers behind one interface; the only room that imports diffusers.

:func:`load` is the door: a backbone's facts and files in, a ``backbone.Backbone`` out. Nothing is
imported before it is needed, and nothing is ever fetched.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gencomp_server.backbones import BackboneSpec
    from gencomp_server.models.backbone import Backbone
    from gencomp_server.models.loading import LoadSettings

__all__ = ["load"]


def load(
    spec: BackboneSpec,
    files: Mapping[str, Path] | None,
    *,
    device: torch.device | str = "cpu",
    settings: LoadSettings | None = None,
    cache: Path | None = None,
    log: logging.Logger | None = None,
) -> Backbone:
    """Load a backbone; ``tiny`` is made.

    Args:
        spec: Its facts.
        files: Its files by role: ``transformer`` (file or folder), ``transformer_config``, and the
            folders ``vae``, ``text_encoder``, ``tokenizer``, ``scheduler``. None for ``tiny``.
        device: Where it computes.
        settings: How it is loaded; None for exact in every respect.
        cache: Folder that keeps embeddings and compiled code; None keeps none.
        log: Where to say what is loaded.

    Raises:
        WeightsMissing: A file is not there.
        WeightsRefused: One cannot be read or does not fit.
        BadKnob: A setting asks for what this machine cannot do.
    """
    from gencomp_server.models import loading

    loading.stay_offline()
    chosen = settings or loading.LoadSettings()
    log = log or logging.getLogger(__name__)
    if spec.family == "gencompositor":
        from gencomp_server.models import gencompositor

        return gencompositor.load(
            spec, files or {}, device=device, settings=chosen, cache=cache, log=log
        )
    if spec.is_tiny:
        from gencomp_server.models import tiny

        return tiny.make(spec, device=device, settings=chosen, cache=cache, log=log)
    if spec.family == "preview":
        from gencomp_server.models import preview

        return preview.load(spec, files or {}, device=device, log=log)
    if spec.family == "wan":
        from gencomp_server.models import wan

        return wan.load(spec, files or {}, device=device, settings=chosen, cache=cache, log=log)
    from gencomp_server.models import cogvideox

    return cogvideox.load(spec, files or {}, device=device, settings=chosen, cache=cache, log=log)
