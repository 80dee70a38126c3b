# SPDX-License-Identifier: Apache-2.0
"""``gencomp train`` and ``gencomp captions``: their arguments and what they say."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob, UnwritableOutput

if TYPE_CHECKING:
    from gencomp_server.backbones import BackboneSpec
    from gencomp_server.models.backbone import Backbone
    from gencomp_server.training.data import Clips
    from gencomp_server.training.recipes import Recipe
    from gencomp_server.training.settings import TrainSettings

DONE, WRONG = 0, 2
_RECIPES = ("overplusplus", "casper", "gencompositor", "splitthenmerge")
_TRAINED = ("cogvideox", "gencompositor")
_TINY_FRAMES, _TINY_LR = 5, 4e-3
_EXAMPLE = """examples:
  gencomp train overplusplus --data clips --out training
  gencomp train splitthenmerge --data clips --out training --lora 64 --resume
  gencomp train casper --procedural 8 --tiny --steps 100 --out try
"""


def add_train(commands: Any) -> None:
    """Add ``train`` and ``captions`` to a parser's subcommands."""
    train = commands.add_parser(
        "train",
        help="train a model, or a LoRA, by a paper's recipe",
        description="Train by a paper's recipe on clips of your own. Settings that are not given "
        "are the recipe's. Ctrl-C writes a checkpoint first.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.set_defaults(command=_train)
    train.add_argument("recipe", choices=_RECIPES, metavar="RECIPE", help=", ".join(_RECIPES))
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to fill")
    source = train.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="DIR", help="clips, as decompose writes them")
    source.add_argument("--procedural", type=int, metavar="N", help="N clips made by the program")
    train.add_argument("--captions", type=Path, metavar="FILE.json", help="further captions")
    train.add_argument("--resume", action="store_true", help="go on from the latest checkpoint")
    _add_model(train)
    _add_settings(train)
    captions = commands.add_parser(
        "captions",
        help="let an assistant of your own vary the captions of training clips",
        description="Ask the endpoint of the settings for further captions. Captions leave this "
        "machine and nothing else; they are shown first. Off until allow_network is set.",
    )
    captions.set_defaults(command=_captions)
    captions.add_argument("--data", type=Path, required=True, metavar="DIR", help="the clips")
    captions.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="to write")
    captions.add_argument(
        "--kind",
        choices=("same", "effects"),
        default="same",
        help="same: other words for what is seen, for --captions; effects: other effects in the "
        "same scene, prompts for a text-to-video model",
    )
    captions.add_argument("--count", type=int, default=4, metavar="N", help="for each clip")
    captions.add_argument("--yes", action="store_true", help="do not ask; it is still shown")


def _add_model(train: Any) -> None:
    group = train.add_argument_group("model")
    group.add_argument("--backbone", metavar="NAME", help="where to start; default: the recipe's")
    group.add_argument("--tiny", action="store_true", help="the small untrained one, to try it out")
    group.add_argument("--lora", type=int, default=0, metavar="RANK", help="train a LoRA instead")
    group.add_argument("--whole", action="store_true", help="every weight, not the recipe's parts")
    group.add_argument("--device", help="cpu, cuda; default: as configured")
    group.add_argument("--weights", type=Path, metavar="DIR", help="folder of installed weights")
    group.add_argument("--allowed-licences", metavar="CLASS,CLASS", help="as gencomp serve has it")
    group.add_argument(
        "--recompute",
        action="store_true",
        help="keep no activations inside blocks: a third slower, far less memory",
    )
    group.add_argument("--fp32", action="store_true", help="compute in float32 on a GPU, too")


def _add_settings(train: Any) -> None:
    group = train.add_argument_group("settings")
    group.add_argument("--steps", type=int, metavar="N")
    group.add_argument("--lr", type=float, metavar="RATE", help="highest learning rate")
    group.add_argument("--warmup", type=int, metavar="N", help="steps over which it rises")
    group.add_argument("--schedule", choices=("constant", "cosine"))
    group.add_argument("--batch", type=int, default=1, metavar="N", help="clips of a forward")
    group.add_argument("--accumulate", type=int, metavar="N", help="forwards of a step")
    group.add_argument("--frames", type=int, metavar="N", help="of a clip; 4k + 1")
    group.add_argument("--size", metavar="WIDTHxHEIGHT", help="default: the model's own")
    group.add_argument("--average", type=float, default=0.999, metavar="DECAY", help="0: none")
    group.add_argument("--drop-text", type=float, metavar="SHARE", help="of clips told nothing")
    group.add_argument("--seed", type=int, default=0, metavar="N")
    group.add_argument("--save-every", type=int, default=500, metavar="N")
    group.add_argument("--keep", type=int, default=2, metavar="N", help="checkpoints left")
    group.add_argument("--grid-every", type=int, default=500, metavar="N", help="0: no grids")


# --- train ---------------------------------------------------------------------------------------


def _train(args: argparse.Namespace) -> int:
    from gencomp_server.training.loop import check_new, train
    from gencomp_server.training.recipes import recipe_named

    recipe = recipe_named(args.recipe)
    spec = _spec(args, recipe)
    settings = _settings(args, recipe, spec)
    settings.check(spec.even_latents)
    clips = _clips(args, recipe, settings)
    if not args.resume:
        check_new(args.out)
    backbone: Any = _backbone(args, spec)
    if backbone.device.type == "cpu" and not spec.is_tiny:
        _say("note: It trains on the processor; --device cuda takes the GPU.")
    with _asked_to_stop() as stopped:
        outcome = train(
            recipe,
            clips,
            backbone,
            settings,
            args.out,
            resume=args.resume,
            report=_narrator(settings.steps),
            stopped=stopped,
        )
    if not outcome.weights:  # one of several processes, not the first, which speaks for all
        return DONE
    _say(f"Loss on the fixed set: {outcome.first:.4f} at first, {outcome.last:.4f} now.")
    for path in outcome.weights:
        _say(f"Written: {path}")
    if not spec.is_tiny:
        _say(f"They belong to the set '{recipe.weights}': gencomp weights path {recipe.weights}.")
    return DONE


def _spec(args: argparse.Namespace, recipe: Recipe) -> BackboneSpec:
    """Return where the training starts, spelling its trimask as the recipe does."""
    from gencomp_server.backbones import TINY, spec_named

    if args.tiny and args.backbone not in (None, TINY):
        raise BadKnob("--tiny and --backbone name two models.", hint="Give one of them.")
    is_tiny = args.tiny or args.backbone == TINY
    spec = spec_named(recipe.tiny if is_tiny else args.backbone or recipe.backbone)
    own = spec_named(recipe.backbone)
    if own.family == "gencompositor" and spec.name == own.base:
        return replace(own, weights=own.base)  # Made of its base's weights, as the loader does it.
    if recipe.system not in spec.systems or spec.family not in _TRAINED:
        raise BadKnob(
            f"{recipe.title} cannot be trained from '{spec.name}'.",
            hint=f"Start from {recipe.backbone}.",
            knob="backbone",
        )
    if recipe.anew and not is_tiny and args.backbone is None:
        spec = replace(spec, weights=spec.base)  # the loader then starts it from its base
    return replace(spec, convention=recipe.convention) if recipe.convention else spec


def _settings(args: argparse.Namespace, recipe: Recipe, spec: BackboneSpec) -> TrainSettings:
    """Return the recipe's settings with what was given; a tiny model learns quickly."""
    from gencomp_server.training.settings import TrainSettings

    optimiser, frames = recipe.optimiser, min(recipe.frames, spec.window_frames)
    if spec.is_tiny:
        optimiser = replace(optimiser, lr=_TINY_LR, warmup=10, clip_norm=1.0)
        frames = _TINY_FRAMES
    given = {name: getattr(args, name) for name in ("lr", "warmup", "schedule")}
    optimiser = replace(optimiser, **{k: v for k, v in given.items() if v is not None})
    on_gpu = _config(args).device != "cpu"
    return TrainSettings(
        steps=_or(args.steps, recipe.steps),
        frames=_or(args.frames, frames),
        size=_size(args.size, spec),
        optimiser=optimiser,
        batch=args.batch,
        accumulate=_or(args.accumulate, 1 if spec.is_tiny else _forwards(args, recipe)),
        average=args.average,
        lora=args.lora,
        whole=args.whole or spec.is_tiny,
        seed=args.seed,
        drop_text=_or(args.drop_text, recipe.drop_text),
        save_every=args.save_every,
        grid_every=args.grid_every,
        keep=args.keep,
        recompute=args.recompute,
        precision="bf16" if on_gpu and not args.fp32 else "fp32",
    )


def _forwards(args: argparse.Namespace, recipe: Recipe) -> int:
    """Return how many forwards make a step of the recipe's clips, with all processes' together."""
    at_once: int = max(1, args.batch) * int(os.environ.get("WORLD_SIZE", "1"))
    return max(1, -(-recipe.batch // at_once))


def _or(given: Any, otherwise: Any) -> Any:
    return otherwise if given is None else given


def _size(text: str | None, spec: BackboneSpec) -> tuple[int, int]:
    from gencomp_protocol.frames import Format
    from gencomp_server.backbones import model_size

    if text is None:
        return spec.model_size
    return model_size(spec, Format(*spec.model_size, 1.0), text)


def _clips(args: argparse.Namespace, recipe: Recipe, settings: TrainSettings) -> Clips:
    """Find the clips.

    Raises:
        BadKnob: The recipe cannot learn from one of them, or there are no such captions.
        ArtistError: A clip on disk is not whole.
    """
    from gencomp_server.training.data import DiskClips, read_captions
    from gencomp_server.training.layout import read_clips
    from gencomp_server.training.procedural import ProceduralClips, ProceduralSet
    from gencomp_server.training.recipes import picture_alone

    if args.data is not None:
        found = read_clips(args.data)
        lone = [] if recipe.unpaired else [clip.name for clip in found if clip.unpaired]
        if lone:
            raise picture_alone(recipe.title, lone[0])
        return DiskClips(found, read_captions(args.captions) if args.captions else None)
    if args.captions:
        raise BadKnob("--captions are for clips of your own.", hint="Give --data, or leave it out.")
    count = int(args.procedural)
    made = ProceduralSet(
        count,
        settings.size,
        settings.frames,
        unpaired=count // 4 if recipe.unpaired else 0,
        pasted=count // 50 if recipe.name == "casper" else 0,
    )
    return ProceduralClips(made)


def _config(args: argparse.Namespace) -> Any:
    from gencomp_server.config import load_config

    names = ("device", "weights", "allowed_licences")
    config = load_config({name: getattr(args, name) for name in names}).config
    own = os.environ.get("LOCAL_RANK")  # of one of several processes that were launched
    if own is not None and config.device.startswith("cuda"):
        config = replace(config, device=f"cuda:{own}")
    return config


def _backbone(args: argparse.Namespace, spec: BackboneSpec) -> Backbone:
    """Load where the training starts from.

    Raises:
        BadKnob: There is no such device.
        WeightsMissing, WeightsRefused: It is not installed, or its licence is not allowed.
    """
    from gencomp_protocol.errors import WeightsMissing, WeightsRefused
    from gencomp_server import models
    from gencomp_server.training.loop import check_device

    config = _config(args)
    files = None
    if not spec.is_tiny:
        shelf = config.weights_place().shelf()
        source = spec.base if spec.weights == spec.base else spec.name
        why = shelf.available(config.allowed_licences)[1].get(source)
        if why is not None:
            kind = WeightsRefused if why.by_licence else WeightsMissing
            raise kind(why.sentence, hint=why.cure, backbone=spec.name)
        files = shelf.files(spec.weights)
    check_device(config.device)
    return models.load(spec, files, device=config.device, cache=args.out / "prompts")


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Have the first Ctrl-C end the training after its step; the second ends it at once."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _narrator(steps: int) -> Callable[[Mapping[str, Any]], None]:
    """Return what tells of a training's events, a line each; of steps every twentieth part."""
    every = max(1, steps // 20)

    def tell(event: Mapping[str, Any]) -> None:
        step = f"step {event['step']} of {steps}"
        if event["event"] == "step":
            if event["step"] % every == 0 or event["step"] == 1:
                _say(f"{step}: loss {event['loss']:.4f}, rate {event['lr']:.3g}")
        elif event["event"] == "validation":
            _say(f"{step}: loss on the fixed set {event['loss']:.4f}")
        else:
            _say(f"{step}: {event['event']} {event['path']}")

    return tell


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# --- captions ------------------------------------------------------------------------------------


def _captions(args: argparse.Namespace) -> int:
    from gencomp_server.assist_cli import agree, settings_endpoint
    from gencomp_server.caption_variants import ask
    from gencomp_server.config import load_config
    from gencomp_server.training.layout import read_clips

    endpoint = settings_endpoint(load_config().config)
    captions = {clip.name: clip.caption for clip in read_clips(args.data)}
    found = ask(
        endpoint, captions, args.count, args.kind, lambda letter: agree(letter, already=args.yes)
    )
    if found is None:
        sys.stderr.write("Nothing was sent.\n")
        return WRONG
    part = args.out.with_name(f".{args.out.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, args.out)
    except OSError as error:
        raise UnwritableOutput(
            f"The file {args.out} cannot be written: {error.strerror}.",
            hint="Choose another --out.",
        ) from error
    _say(f"Written: {args.out}, {args.count} captions for each of {len(found)} clips.")
    return DONE
