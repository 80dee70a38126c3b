# SPDX-License-Identifier: Apache-2.0
"""The four recipes: how a clip becomes what a model is shown, and with what settings it is trained.

A recipe is a row of facts and one function, which draws all that is random about a clip and returns
a :class:`Prepared`: pictures in model range [-1,1] and masks, still numpy. What becomes of it in
front of the transformer is the same for all (``conditions.py``), and so is the loop (``loop.py``).

==============  =================================  ==========================================
recipe          is shown                           learns to give
==============  =================================  ==========================================
overplusplus    subject over background, trimask   the original, with its effects
casper          the original, trimask              the picture without subject and effects
gencompositor   plate with a hole, mask, element   the original
splitthenmerge  changed foreground, background     the original
==============  =================================  ==========================================

Sources: Over++ §3.2-3.4; Generative Omnimatte §3.2, §3.4 and supplement B, and the training facts
of its public code; GenCompositor §4.1-4.3; Split-then-Merge §3.4, §4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.errors import BadKnob
from gencomp_server.parts import trimask
from gencomp_server.training import augment, masks
from gencomp_server.training.data import Cut, Layers
from gencomp_server.training.settings import Optimiser

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

MSE, IDENTITY = "mse", "identity"
TRIMASK, JOINED = "trimask", "joined"

# Noise of a condition in pixels: deviations exp(N(mean, 0.5)), one a clip.
_SPREAD = 0.5
_QUIET, _LOUD = -3.0, -1.0
# Of clips on which everything is to be made anew, so many are shown neither mask nor picture.
_BLANKED = 0.9
_CROP_LEAST = 0.8


@dataclass(frozen=True)
class Prepared:
    """What a recipe made of a clip.

    Attributes:
        target: What the model is to give. [T,H,W,3] in [-1,1].
        videos: What is encoded beside it, by name. [T,H,W,3] each, noise and all.
        trimask: Classes of ``parts.trimask``, for models with a mask channel. [T,H,W,1] uint8.
        inflated: True where GenCompositor may change the plate. [T,H,W] bool.
        subject: Where the subject is in ``target``, for the loss. [T,H,W,1] in 0..1.
        shown: Where the subject is in ``videos['fg']``. [T,H,W,1] in 0..1.
        caption: What the model is told.
        blank: True where it is shown nothing: every channel beside the noise is zero.
    """

    target: Floats
    videos: Mapping[str, Floats]
    trimask: NDArray[np.uint8] | None = None
    inflated: NDArray[np.bool_] | None = None
    subject: Floats | None = None
    shown: Floats | None = None
    caption: str = ""
    blank: bool = False


Prepare = Callable[[Layers, np.random.Generator, float], Prepared]


@dataclass(frozen=True)
class Recipe:
    """A row of facts about one paper's training.

    Attributes:
        name: As it is asked for.
        title: For people.
        system: Whose backbones it trains.
        backbone: Where it starts from, by name.
        tiny: The same, small and untrained.
        weights: Set of weights that the result belongs to.
        convention: How a trimask is spelt; empty for models without one.
        condition: ``trimask`` or ``joined``: what stands beside the noise.
        prepare: What makes a clip into :class:`Prepared`.
        loss: ``mse`` or ``identity``.
        trained: Beginnings of the names of the parameters that learn; empty for all.
        frames: Frames of a clip as published.
        steps: Steps as published, or as near as anything published comes.
        batch: Clips of one step.
        drop_text: Share of clips that are told nothing.
        optimiser: How it learns.
        crops: True to draw a cut of the picture.
        flips: True to mirror and to play backwards.
        unpaired: True where a picture and a caption alone teach it something, too.
        anew: True to start from the base of ``backbone``, whose own weights then are not needed.
    """

    name: str
    title: str
    system: str
    backbone: str
    tiny: str
    weights: str
    convention: str
    condition: str
    prepare: Prepare
    loss: str = MSE
    trained: tuple[str, ...] = ()
    frames: int = 85
    steps: int = 1000
    batch: int = 1
    drop_text: float = 0.1
    optimiser: Optimiser = field(default_factory=Optimiser)
    crops: bool = False
    flips: bool = False
    unpaired: bool = False
    anew: bool = False

    def cut(self, length: int, frames: int, size: tuple[int, int], rng: np.random.Generator) -> Cut:
        """Draw what of a clip is looked at.

        A model of one size is shown whole pictures squeezed to it, in a job as here.

        Args:
            length: Frames of the clip.
            frames: Frames wanted.
            size: Width and height wanted.
            rng: Draws.
        """
        first = int(rng.integers(0, max(0, length - frames) + 1))
        share, across, down = rng.random(3)
        if not self.crops:
            return Cut(first, frames, size, squeezed=self.condition == JOINED)
        share = _CROP_LEAST + (1 - _CROP_LEAST) * float(share)
        return Cut(first, frames, size, round(share, 3), float(across), float(down))


def prepare(recipe: Recipe, layers: Layers, rng: np.random.Generator, drop_text: float) -> Prepared:
    """Make a clip into what a recipe shows.

    Args:
        recipe: Which.
        layers: The clip.
        rng: Draws all that is random about it.
        drop_text: Share of clips that are told nothing.

    Raises:
        BadKnob: The recipe takes no unpaired clips and this is one.
    """
    if recipe.flips:
        layers = _flipped(layers, augment.draw_flip(rng))
    return recipe.prepare(layers, rng, drop_text)


# --- Over++ --------------------------------------------------------------------------------------


def prepare_overplusplus(layers: Layers, rng: np.random.Generator, drop_text: float) -> Prepared:
    """Show the subject over the background and where effects are; of an unpaired clip nothing."""
    caption = _caption(layers, rng, drop_text)
    if layers.over is None:
        return Prepared(_signed(layers.original), {}, caption=caption, blank=True)
    mask = masks.effect_mask(layers.original, layers.over)
    grey = masks.grey_frames(len(mask), rng)
    return Prepared(
        _signed(layers.original),
        {"known": _noisy(_signed(layers.over), rng, _QUIET)},
        trimask=masks.over_trimask(mask, grey),
        caption=caption,
    )


# --- Casper --------------------------------------------------------------------------------------


def prepare_casper(layers: Layers, rng: np.random.Generator, drop_text: float) -> Prepared:
    """Show the original, and what goes and what stays; with others in the picture, all may go."""
    matte, background = _paired(layers, "Casper")
    removed, kept, target = matte >= 0.5, np.zeros(matte.shape, bool), background
    all_go = rng.random() < 0.5
    if layers.others is not None and layers.clean is not None:
        others = layers.others >= 0.5
        if all_go:
            removed, target = removed | others, layers.clean
        else:
            kept = others & ~removed
    classes = masks.casper_trimask(removed, kept, effects=not layers.pasted)
    switched = masks.switch_labels(classes, rng)
    classes = switched if layers.synthetic else classes
    blank = bool((classes == trimask.EDIT).all()) and rng.random() < _BLANKED
    return Prepared(
        _signed(target),
        {"known": _noisy(_signed(layers.original), rng, _QUIET)},
        trimask=classes,
        caption=_caption(layers, rng, drop_text),
        blank=blank,
    )


# --- GenCompositor -------------------------------------------------------------------------------


def prepare_gencompositor(layers: Layers, rng: np.random.Generator, drop_text: float) -> Prepared:
    """Show the original with a hole, and the element of it, centred, in another light; no text."""
    from gencomp_server.parts.inflate import cleaned, inflated

    matte, _ = _paired(layers, "GenCompositor")
    lines = matte.shape[1]
    found = [frame[..., 0] >= 0.5 for frame in matte]
    if lines >= _LEAST_CLEANED:
        found = [cleaned(one) for one in found]
    px = _INFLATE * lines / _LINES
    grown = np.stack([inflated(one, px=px) for one in found]).astype(bool)
    element = augment.centred(augment.luminance(layers.original, augment.draw_gamma(rng)), matte)
    target = _signed(layers.original)
    return Prepared(
        target,
        {
            "masked": np.where(grown[..., None], np.float32(-1), target),
            "fg": _signed(element),
        },
        inflated=grown,
    )


# Pixels by which the hole grows, in so many lines, as released; and from how many on mattes are
# cleaned by a square of three pixels, which in fewer would eat limbs.
_INFLATE, _LINES, _LEAST_CLEANED = 25.0, 480, 240


# --- Split-then-Merge ----------------------------------------------------------------------------


def prepare_splitthenmerge(layers: Layers, rng: np.random.Generator, drop_text: float) -> Prepared:
    """Show the foreground, changed so that it cannot be copied, and the background.

    A stretch of a clip on which the subject is not there shows the background alone.
    """
    matte, background = _paired(layers, "Split-then-Merge")
    change = augment.draw_transformation(matte, rng)
    fg, shown = augment.transformed(layers.original, matte, change)
    return Prepared(
        _signed(layers.original),
        {
            "fg": _noisy(_signed(fg), rng, _LOUD),
            "bg": _noisy(_signed(background), rng, _QUIET),
        },
        subject=matte,
        shown=shown,
        caption=_caption(layers, rng, drop_text),
    )


# --- what they share -----------------------------------------------------------------------------


def _paired(layers: Layers, title: str) -> tuple[Floats, Floats]:
    if layers.matte is None or layers.background is None:
        raise picture_alone(title, layers.name)
    return layers.matte, layers.background


def picture_alone(title: str, clip: str) -> BadKnob:
    """Return the refusal of an unpaired clip by a recipe that needs layers."""
    return BadKnob(
        f"{title} cannot learn from clip '{clip}', which is a picture alone.",
        hint="Unpaired clips are for Over++; take it out of the folder.",
    )


def _caption(layers: Layers, rng: np.random.Generator, drop_text: float) -> str:
    """Draw one of the clip's captions, or none."""
    dropped, which = rng.random() < drop_text, int(rng.integers(len(layers.captions)))
    return "" if dropped else layers.captions[which]


def _signed(code: Floats) -> Floats:
    """Bring codes 0..1 to the model's range."""
    return np.asarray(code * np.float32(2) - np.float32(1), np.float32)


def _noisy(video: Floats, rng: np.random.Generator, mean: float) -> Floats:
    """Add noise of a drawn deviation; pixels of exactly -1 stay. [T,H,W,3] in [-1,1]."""
    from gencomp_server.parts.conditioning import with_pixel_noise

    deviation = float(np.exp(rng.normal(mean, _SPREAD)))
    noise = rng.standard_normal(video.shape, dtype=np.float32)
    return with_pixel_noise(video, noise, deviation)


def _flipped(layers: Layers, flip: augment.Flip) -> Layers:
    """Flip all pictures and mattes of a clip alike."""
    changed: dict[str, Any] = {
        name: np.ascontiguousarray(flip.of(value))
        for name, value in vars(layers).items()
        if isinstance(value, np.ndarray)
    }
    return replace(layers, **changed)


_CASPER = Optimiser(lr=2e-5, warmup=100, weight_decay=3e-2, clip_norm=0.05)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        one.name: one
        for one in (
            Recipe(
                "overplusplus",
                "Over++",
                "overplusplus",
                "cogvideox-fun-v1.5-5b-inp",
                "tiny",
                "overplusplus",
                "overplusplus",
                TRIMASK,
                prepare_overplusplus,
                trained=("transformer_blocks.",),
                steps=1000,
                batch=8,
                optimiser=_CASPER,
                unpaired=True,
            ),
            Recipe(
                "casper",
                "Casper",
                "omnimatte",
                "cogvideox-fun-v1.5-5b-inp",
                "tiny",
                "casper",
                "casper",
                TRIMASK,
                prepare_casper,
                steps=20_000,
                batch=32,
                optimiser=_CASPER,
                crops=True,
                flips=True,
            ),
            Recipe(
                "gencompositor",
                "GenCompositor",
                "gencomposite",
                "gencompositor",
                "tiny-gencompositor",
                "gencompositor",
                "",
                JOINED,
                prepare_gencompositor,
                frames=49,
                steps=20_000,
                batch=8,
                drop_text=1.0,
                anew=True,
                optimiser=Optimiser(lr=1e-5, warmup=500, betas=(0.9, 0.95), weight_decay=1e-4),
            ),
            Recipe(
                "splitthenmerge",
                "Split-then-Merge",
                "splitthenmerge",
                "cogvideox-5b-i2v",
                "tiny-splitthenmerge",
                "splitthenmerge",
                "",
                JOINED,
                prepare_splitthenmerge,
                loss=IDENTITY,
                frames=49,
                steps=20_000,
                batch=64,
                drop_text=0.1,
                optimiser=Optimiser(
                    lr=5e-6, schedule="cosine", warmup=1000, betas=(0.9, 0.95), weight_decay=1e-4
                ),
            ),
        )
    }
)
"""The recipes by name."""


def recipe_named(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        BadKnob: There is none of that name.
    """
    if name not in RECIPES:
        raise BadKnob(
            f"There is no recipe '{name}'.",
            hint=f"Recipes are: {', '.join(RECIPES)}.",
            knob="recipe",
        )
    return RECIPES[name]
