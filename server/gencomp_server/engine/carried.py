# SPDX-License-Identifier: Apache-2.0
"""Which layers carry other channels of an input's files along, and whether those can be read."""

from collections.abc import Mapping
from typing import Any

from gencomp_protocol.request import Request
from gencomp_server.contract import System
from gencomp_server.engine.context import JobContext
from gencomp_server.engine.shot import SpoolShot
from gencomp_server.exr.rest import Rest, left_out_sentences
from gencomp_server.finishing import FinishParams


def carried_inputs(system: System, request: Request, params: Any) -> dict[str, str]:
    """Return, by layer, the input whose other channels go along; none where it is not asked for."""
    if not (isinstance(params, FinishParams) and params.other_channels):
        return {}
    return {
        spec.name: spec.carries
        for spec in system.layers(request)
        if spec.carries and request.input(spec.carries) is not None
    }


def check_carried(shot: SpoolShot, carried: Mapping[str, str], ctx: JobContext) -> None:
    """Decode everything that will be carried along, so that a damaged part is found at once.

    What is found goes into the manifest; what cannot be carried is said.

    Raises:
        BadPicture: A channel or part of a picture is damaged.
        Cancelled: The artist has cancelled.
    """
    for name in sorted(set(carried.values())):
        found: dict[int, Rest] = {}
        frames = shot.frames_of(name)
        for step, n in enumerate(frames):
            ctx.check_cancelled()
            mapped = shot.rest(name, n)
            if mapped is not None:
                found[n] = mapped.rest
            ctx.progress(f"other channels of {name}", step + 1, len(frames))
        for sentence in left_out_sentences(name, found):
            ctx.warn(sentence)
        names = sorted({channel for rest in found.values() for channel in rest.names})
        ctx.report(f"other_channels_of_{name}", names)
