# SPDX-License-Identifier: Apache-2.0
"""Two networks that compare pictures as people do: LPIPS, and video features for FVD.

LPIPS is the package of its authors, where it is installed together with the AlexNet that it builds
on; that file is looked for before the package is asked, since it would fetch it. The video network
is a TorchScript file that somebody put on this machine.

Sources: Zhang et al.: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018;
Unterthiner et al.: Towards Accurate Generative Models of Video, 2018.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server.models.loading import stay_offline

Codes = NDArray[np.float32]

_ALEXNET = "alexnet-owt-*.pth"
VIDEO_SIDE = 224
"""Width and height of what the video network sees."""


class Lpips:
    """LPIPS with AlexNet, version 0.1.

    Args:
        network: ``lpips.LPIPS`` that answers with a map.
        device: Where it computes.
    """

    def __init__(self, network: Any, device: str) -> None:
        self._network, self._device = network, device

    def distances(self, a: Codes, b: Codes) -> NDArray[np.float32]:
        """Return how far apart two pictures are, pixel by pixel.

        Args:
            a: [H,W,3] float32, sRGB 0..1.
            b: As ``a``.

        Returns:
            [H,W] float32, 0 for equals; their mean is LPIPS.
        """
        with torch.no_grad():
            found = self._network(self._tensor(a), self._tensor(b))
        made: NDArray[np.float32] = found[0, 0].float().cpu().numpy()
        return made

    def _tensor(self, codes: Codes) -> torch.Tensor:
        picture = torch.from_numpy(np.ascontiguousarray(codes)).permute(2, 0, 1)[None]
        return picture.to(self._device) * 2.0 - 1.0


def load_lpips(device: str = "cpu") -> Lpips:
    """Load LPIPS.

    Raises:
        WeightsMissing: The package, or the network that it builds on, is not installed.
        WeightsRefused: It is there and cannot be loaded.
    """
    stay_offline()
    if importlib.util.find_spec("lpips") is None:
        raise WeightsMissing(
            "The Python package lpips is not installed.",
            hint="Install it beside gencomp: pip install lpips.",
        )
    place = Path(torch.hub.get_dir()) / "checkpoints"
    if not any(place.glob(_ALEXNET)):
        raise WeightsMissing(
            f"LPIPS needs torchvision's AlexNet and there is no {_ALEXNET} in {place}.",
            hint="Put torchvision's file there; gencomp fetches nothing.",
            file=str(place),
        )
    try:
        package = importlib.import_module("lpips")
        network = package.LPIPS(net="alex", spatial=True, verbose=False)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise WeightsRefused(
            f"LPIPS is installed and cannot be loaded ({error}).",
            hint="Install lpips and torchvision again, of versions that fit this torch.",
        ) from error
    return Lpips(network.to(device).eval(), device)


class VideoFeatures:
    """A video network: clips to features.

    Args:
        network: TorchScript module: [1,3,T,224,224] float32 in -1..1 to [1,D].
        device: Where it computes.
        extra: Arguments that the published I3D takes besides.
    """

    def __init__(self, network: Any, device: str, extra: dict[str, bool]) -> None:
        self._network, self._device, self._extra = network, device, extra

    def features(self, clip: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the features of a clip.

        Args:
            clip: [T,224,224,3] float32, sRGB 0..1.

        Returns:
            [D] float64.

        Raises:
            WeightsRefused: The network does not take such a clip, or answers something else.
        """
        video = torch.from_numpy(np.ascontiguousarray(clip)).permute(3, 0, 1, 2)[None]
        try:
            with torch.no_grad():
                found = self._network(video.to(self._device) * 2.0 - 1.0, **self._extra)
        except RuntimeError as error:
            raise _unfit(str(error).strip().splitlines()[-1]) from error
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != 1:
            raise _unfit("it does not answer with one row of features")
        made: NDArray[np.float64] = found[0].double().cpu().numpy()
        return made


def load_video_features(file: Path, device: str = "cpu") -> VideoFeatures:
    """Load a video network.

    The published TorchScript I3D also takes ``rescale``, ``resize`` and ``return_features``: where
    a file's arguments have these names, they are set so that it takes what is given and answers
    with features.

    Raises:
        WeightsMissing: There is no such file.
        WeightsRefused: It is no TorchScript.
    """
    if not file.is_file():
        raise WeightsMissing(
            f"There is no video network for FVD at {file}.",
            hint="Put an I3D there as TorchScript, or name another with --i3d FILE.",
            file=str(file),
        )
    try:
        with warnings.catch_warnings():
            # TorchScript is what the network is published as; that torch moves on is no news here.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(file), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise WeightsRefused(
            f"The file {file} is no TorchScript ({str(error).strip().splitlines()[0]}).",
            hint="Save the network with torch.jit.save.",
            file=str(file),
        ) from error
    names = {argument.name for argument in network.forward.schema.arguments}
    known = {"rescale": False, "resize": False, "return_features": True}
    return VideoFeatures(network, device, {k: v for k, v in known.items() if k in names})


def _unfit(why: str) -> WeightsRefused:
    return WeightsRefused(
        f"The video network for FVD does not take a clip of 3 x T x 224 x 224 ({why}).",
        hint="Give one that takes [1,3,T,224,224] in -1..1 and answers [1,D].",
    )
