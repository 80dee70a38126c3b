# SPDX-License-Identifier: Apache-2.0
"""Published metrics that need a model or a tool: asked for by name, run where it is installed.

A judge sees the pictures one frame at a time, as sRGB codes over the display window, and says its
figures at the end. What is not installed, or fails, becomes a :class:`Refused` that names it and
the cure; the other figures are none the worse for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.errors import GencompError, MissingInput, WeightsMissing
from gencomp_server.metrics.figures import HUNDRED, PLAIN, Figure, mean_figure
from gencomp_server.metrics.frechet import frechet_distance
from gencomp_server.metrics.overlap import Bools
from gencomp_server.metrics.vmaf import RawVideo, run_vmaf

if TYPE_CHECKING:
    from gencomp_server.models.clip import Clip
    from gencomp_server.models.perceptual import Lpips, VideoFeatures

Codes = NDArray[np.float32]

CLIP_DIRECTION, CLIP_TEXT, CLIP_IMAGE = "clip-direction", "clip-text", "clip-image"
LPIPS, VMAF, FVD = "lpips", "vmaf", "fvd"
CLIP_NAMES = (CLIP_DIRECTION, CLIP_TEXT, CLIP_IMAGE)
NAMES = (*CLIP_NAMES, LPIPS, VMAF, FVD)
CLIP_FOLDER, I3D_FILE = Path("metrics") / "clip", Path("metrics") / "i3d.pt"

FVD_FRAMES, FVD_STEP = 16, 8
# Directions shorter than this are rounding, and have no direction.
_STILL = 1e-6


@dataclass(frozen=True)
class Refused:
    """A metric that was asked for and is not given: its name, why, and what to do."""

    metric: str
    sentence: str
    cure: str


@dataclass(frozen=True)
class Tools:
    """What judges are made with.

    Attributes:
        clip: Folder of a CLIP.
        i3d: TorchScript file of a video network.
        scratch: Folder for raw video.
        prompt: What the result should show; empty where none was given.
        has_over: True where the composite without effects was given.
        device: Where models compute.
        vmaf: The executable; None where there is none.
    """

    clip: Path
    i3d: Path
    scratch: Path
    prompt: str = ""
    has_over: bool = False
    device: str = "cpu"
    vmaf: str | None = None


@dataclass(frozen=True)
class Views:
    """One frame as judges see it.

    Attributes:
        frame: Its number.
        a: What it should be. [H,W,3] float32, sRGB 0..1.
        b: What is judged, as ``a``.
        over: The composite without effects, as ``a``; None where it is not given.
        mask: Where figures are taken, where a mask is given. [H,W] bool.
    """

    frame: int
    a: Codes
    b: Codes
    over: Codes | None = None
    mask: Bools | None = None


class Judge(Protocol):
    """A metric that looks at pictures."""

    names: tuple[str, ...]

    def see(self, views: Views) -> None:
        """Take one frame."""
        ...

    def say(self) -> list[Figure]:
        """Return the figures of all frames seen.

        Raises:
            GencompError: There is none; says why.
        """
        ...


def vmaf_tool() -> str | None:
    """Return the executable that computes VMAF, or None."""
    return shutil.which("vmaf")


def judges_for(names: Sequence[str], tools: Tools) -> tuple[list[Judge], list[Refused]]:
    """Return the judges of some metrics, and those that cannot be had here.

    Args:
        names: Of ``NAMES``.
        tools: What they are made with.
    """
    judges: list[Judge] = []
    refused: list[Refused] = []
    clips = []
    for name in (one for one in CLIP_NAMES if one in names):
        if name == CLIP_TEXT and not tools.prompt:
            refused.append(_lacking(name, "no prompt is given", "--prompt TEXT"))
        elif name == CLIP_DIRECTION and not tools.has_over:
            why = "the composite without effects is not given"
            refused.append(_lacking(name, why, "--over PATTERN"))
        else:
            clips.append(name)
    if clips:
        _try(tuple(clips), lambda: _clip_judge(tuple(clips), tools), judges, refused)
    makers: dict[str, Callable[[], Judge]] = {
        LPIPS: lambda: _lpips_judge(tools),
        VMAF: lambda: _vmaf_judge(tools),
        FVD: lambda: _fvd_judge(tools),
    }
    for name, make in makers.items():
        if name in names:
            _try((name,), make, judges, refused)
    return judges, refused


def _lacking(name: str, why: str, flag: str) -> Refused:
    return Refused(name, f"{name} is not measured: {why}.", f"Give it with {flag}.")


def _try(
    names: tuple[str, ...],
    make: Callable[[], Judge],
    judges: list[Judge],
    refused: list[Refused],
) -> None:
    try:
        judges.append(make())
    except GencompError as error:
        refused.extend(Refused(name, error.message, error.hint) for name in names)


def hear(judges: Sequence[Judge]) -> tuple[list[Figure], list[Refused]]:
    """Return what the judges say at the end, and who could not."""
    found: list[Figure] = []
    refused: list[Refused] = []
    for judge in judges:
        try:
            found += judge.say()
        except GencompError as error:
            refused += [Refused(name, error.message, error.hint) for name in judge.names]
    return found, refused


# --- CLIP ----------------------------------------------------------------------------------------


def _clip_judge(names: tuple[str, ...], tools: Tools) -> Judge:
    from gencomp_server.models.clip import load_clip

    clip = load_clip(tools.clip, tools.device)
    return ClipJudge(names, clip, tools.prompt)


class ClipJudge:
    """CLIP similarities of result and truth, result and prompt, and of the two changes.

    ``clip-image`` and ``clip-text`` are 100 times the cosine; ``clip-direction`` is 100 times the
    cosine between the way from the composite without effects to the truth and the way from it to
    the result. A frame that is as good as that composite has no way and is left out.

    Args:
        names: Which of the three.
        clip: The model.
        prompt: For ``clip-text``.

    Source: Over++ eq. 3 (arXiv 2512.19661).
    """

    def __init__(self, names: tuple[str, ...], clip: Clip, prompt: str) -> None:
        self.names = names
        self._clip = clip
        self._words = clip.prompt(prompt) if CLIP_TEXT in names else None
        self._found: dict[str, list[tuple[str, float, int]]] = {name: [] for name in names}

    def see(self, views: Views) -> None:
        """Embed the frame's pictures and keep their cosines."""
        made = self._clip.picture(views.b)
        truth = None if self.names == (CLIP_TEXT,) else self._clip.picture(views.a)
        for name in self.names:
            cosine: float | None = None
            if name == CLIP_TEXT and self._words is not None:
                cosine = float(made @ self._words)
            elif name == CLIP_IMAGE and truth is not None:
                cosine = float(made @ truth)
            elif truth is not None and views.over is not None:
                start = self._clip.picture(views.over)
                cosine = direction(truth - start, made - start)
            if cosine is not None:
                self._found[name].append((str(views.frame), 100.0 * cosine, 1))

    def say(self) -> list[Figure]:
        """Return a figure for each name."""
        labels = dict(zip(CLIP_NAMES, ("CLIP direction", "CLIP text", "CLIP image"), strict=True))
        made = [
            mean_figure(name.replace("-", "_"), labels[name], self._found[name], HUNDRED)
            for name in self.names
        ]
        found = [one for one in made if one is not None]
        if len(found) < len(self.names):
            lost = next(n for n, one in zip(self.names, made, strict=True) if one is None)
            raise MissingInput(
                f"{lost} is not measured: no frame differs from the composite without effects.",
                hint="Check that --over is the picture before the effects.",
            )
        return found


def direction(wanted: NDArray[np.float64], made: NDArray[np.float64]) -> float | None:
    """Return the cosine between two changes of an embedding; None where one is no change."""
    lengths = float(np.linalg.norm(wanted)), float(np.linalg.norm(made))
    if min(lengths) < _STILL:
        return None
    return float(wanted @ made) / (lengths[0] * lengths[1])


# --- LPIPS ---------------------------------------------------------------------------------------


def _lpips_judge(tools: Tools) -> Judge:
    from gencomp_server.models.perceptual import load_lpips

    return LpipsJudge(load_lpips(tools.device))


class LpipsJudge:
    """LPIPS over what the mask covers, else over the whole picture; 0 is the same."""

    names: tuple[str, ...] = (LPIPS,)

    def __init__(self, network: Lpips) -> None:
        self._network = network
        self._found: list[tuple[str, float, int]] = []

    def see(self, views: Views) -> None:
        """Keep the frame's mean distance."""
        apart = self._network.distances(views.a, views.b)
        chosen = apart if views.mask is None else apart[views.mask]
        if chosen.size:
            self._found.append((str(views.frame), float(chosen.mean(dtype=np.float64)), 1))

    def say(self) -> list[Figure]:
        """Return the mean over the frames."""
        made = mean_figure(LPIPS, "LPIPS", self._found, PLAIN, worst=max)
        return [] if made is None else [made]


# --- VMAF ----------------------------------------------------------------------------------------


def _vmaf_judge(tools: Tools) -> Judge:
    if tools.vmaf is None:
        raise WeightsMissing(
            "There is no executable vmaf on PATH.",
            hint="Install libvmaf's command line tool, or add its folder to PATH.",
        )
    return VmafJudge(tools.vmaf, tools.scratch)


class VmafJudge:
    """VMAF with the tool's own default model, over whole pictures."""

    names: tuple[str, ...] = (VMAF,)

    def __init__(self, tool: str, scratch: Path) -> None:
        self._tool, self._answer = tool, scratch / "vmaf.json"
        self._a, self._b = RawVideo(scratch / "vmaf_a.y4m"), RawVideo(scratch / "vmaf_b.y4m")
        self._frames: list[str] = []

    def see(self, views: Views) -> None:
        """Write the frame's pictures."""
        self._a.write(views.a)
        self._b.write(views.b)
        self._frames.append(str(views.frame))

    def say(self) -> list[Figure]:
        """Run the tool."""
        self._a.close()
        self._b.close()
        scores = run_vmaf(self._tool, self._a.path, self._b.path, self._answer)
        found = [(frame, score, 1) for frame, score in zip(self._frames, scores, strict=False)]
        made = mean_figure(VMAF, "VMAF", found, HUNDRED)
        return [] if made is None else [made]


# --- FVD -----------------------------------------------------------------------------------------


def _fvd_judge(tools: Tools) -> Judge:
    from gencomp_server.models.perceptual import load_video_features

    return FvdJudge(load_video_features(tools.i3d, tools.device))


class FvdJudge:
    """The Fréchet distance between the features of clips of A and of B.

    A shot is cut into clips of 16 frames, one every 8; each is brought to 224 x 224. Published
    figures are over hundreds of clips: between two shots this tells which of two results is nearer,
    and is no figure to set beside a paper's.
    """

    names: tuple[str, ...] = (FVD,)

    def __init__(self, network: VideoFeatures) -> None:
        self._network = network
        self._waiting: tuple[list[Codes], list[Codes]] = ([], [])
        self._features: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])

    def see(self, views: Views) -> None:
        """Keep the frame, small, until its clips are whole."""
        from gencomp_server.models.perceptual import VIDEO_SIDE

        sides = zip(self._waiting, self._features, (views.a, views.b), strict=True)
        for waiting, features, codes in sides:
            small = cv2.resize(codes, (VIDEO_SIDE, VIDEO_SIDE), interpolation=cv2.INTER_AREA)
            waiting.append(np.asarray(small, np.float32))
            if len(waiting) == FVD_FRAMES:
                features.append(self._network.features(np.stack(waiting)))
                del waiting[:FVD_STEP]

    def say(self) -> list[Figure]:
        """Return the distance."""
        clips = len(self._features[0])
        if clips < 2:
            raise MissingInput(
                f"fvd is not measured: {FVD_FRAMES + FVD_STEP} frames are the least.",
                hint="Measure a longer shot.",
            )
        apart = frechet_distance(*(np.stack(one) for one in self._features))
        return [Figure(FVD, f"FVD, {clips} clips", PLAIN, apart)]
