# SPDX-License-Identifier: Apache-2.0
"""CLIP as a judge: pictures and prompts to unit vectors that lie close where they mean alike.

The model comes from a folder on this machine, as published: ``config.json``, ``*.safetensors``,
the tokenizer's files and ``preprocessor_config.json``. Nothing is fetched and no pickle is opened.

Source: Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, 2021.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server.models.loading import read_config, stay_offline

Vector = NDArray[np.float64]

_COPY_AGAIN = "Copy the whole folder again from where the model was published."
_SAMPLE = "a clean beach"
_PREPARATION = "preprocessor_config.json"
# What the published models were trained with; a folder may say otherwise.
_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preparation:
    """How a picture is brought to what the model sees.

    Attributes:
        edge: The shorter edge is brought to this many pixels.
        crop: Of that the middle square of so many is taken.
        mean: Subtracted, by channel.
        deviation: Divided by, by channel.
    """

    edge: int
    crop: int
    mean: tuple[float, ...] = _MEAN
    deviation: tuple[float, ...] = _DEVIATION


class Clip:
    """A loaded CLIP.

    Args:
        model: ``transformers.CLIPModel``, on its device.
        tokenizer: Its tokenizer.
        preparation: How pictures are brought to it.
    """

    def __init__(self, model: Any, tokenizer: Any, preparation: Preparation) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._preparation = preparation
        self._device = next(model.parameters()).device

    def picture(self, codes: NDArray[np.float32]) -> Vector:
        """Return the embedding of a picture.

        Args:
            codes: [H,W,3] float32, sRGB 0..1.

        Returns:
            [D] float64 of length 1.
        """
        pixels = prepared(codes, self._preparation).to(self._device)
        with torch.no_grad():
            seen = self._model.vision_model(pixel_values=pixels).pooler_output
            return _unit(self._model.visual_projection(seen))

    def prompt(self, text: str) -> Vector:
        """Return the embedding of a prompt, cut to what the model reads. [D] float64, length 1."""
        length = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            read = self._model.text_model(
                input_ids=tokens["input_ids"].to(self._device),
                attention_mask=tokens["attention_mask"].to(self._device),
            ).pooler_output
            return _unit(self._model.text_projection(read))


def _unit(rows: Tensor) -> Vector:
    found = rows[0].double().cpu().numpy()
    made: Vector = found / np.linalg.norm(found)
    return made


def prepared(codes: NDArray[np.float32], how: Preparation) -> Tensor:
    """Return a picture as the model takes it: reduced with antialiasing, cropped, normalised.

    Args:
        codes: [H,W,3] float32, 0..1.
        how: Sizes and normalisation.

    Returns:
        [1,3,crop,crop] float32.
    """
    picture = torch.from_numpy(np.ascontiguousarray(codes)).permute(2, 0, 1)[None]
    height, width = codes.shape[:2]
    scale = how.edge / min(height, width)
    size = (max(how.crop, round(height * scale)), max(how.crop, round(width * scale)))
    small = functional.interpolate(picture, size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
    top, left = (size[0] - how.crop) // 2, (size[1] - how.crop) // 2
    square = small[:, :, top : top + how.crop, left : left + how.crop]
    mean, deviation = (torch.tensor(one).view(1, 3, 1, 1) for one in (how.mean, how.deviation))
    return (square - mean) / deviation


def load_clip(folder: Path, device: str = "cpu") -> Clip:
    """Load a CLIP from its folder.

    Raises:
        WeightsMissing: There is no model in it.
        WeightsRefused: What is there is no whole CLIP, or is a pickle.
    """
    stay_offline()
    if not (folder / "config.json").is_file():
        raise WeightsMissing(
            f"There is no CLIP model in {folder}: config.json is missing.",
            hint="Put a published CLIP folder there, safetensors and tokenizer included, "
            "or name another with --clip FOLDER.",
            file=str(folder),
        )
    if not any(folder.glob("*.safetensors")):
        raise WeightsMissing(
            f"There are no safetensors in {folder}.",
            hint="Get model.safetensors of the same model; a pickle is not opened "
            "(gencomp weights convert turns one into safetensors).",
            file=str(folder),
        )
    model = _model_in(folder)
    vision = model.config.vision_config
    return Clip(
        model.to(device).eval(), _tokenizer_in(folder), _preparation_in(folder, vision.image_size)
    )


def _model_in(folder: Path) -> Any:
    from transformers import CLIPModel

    read_config(folder / "config.json")
    try:
        model, report = CLIPModel.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        why = (str(error).splitlines() or ["no reason is given"])[0]
        raise WeightsRefused(
            f"The folder {folder} holds no CLIP model that can be read ({why}).", hint=_COPY_AGAIN
        ) from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise WeightsRefused(
            f"The CLIP model in {folder} lacks {len(lacking)} tensors, {lacking[0]} among them.",
            hint=_COPY_AGAIN,
        )
    return model


def _tokenizer_in(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        # CLIP's end mark stands for what is unknown too, so the words alone are looked at.
        words = tokenizer.tokenize(_SAMPLE)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        why = (str(error).splitlines() or ["no reason is given"])[0]
        raise WeightsRefused(
            f"The folder {folder} holds no tokenizer that can be read ({why}).", hint=_COPY_AGAIN
        ) from error
    if not words or tokenizer.unk_token in words:
        raise WeightsRefused(
            f"The tokenizer in {folder} knows no words: its vocabulary is missing or damaged.",
            hint=_COPY_AGAIN,
        )
    return tokenizer


def _preparation_in(folder: Path, size: int) -> Preparation:
    """Return how pictures are brought to the model, from its folder where that says it."""
    file = folder / _PREPARATION
    if not file.is_file():
        return Preparation(size, size)
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        edge, crop = said.get("size", size), said.get("crop_size", size)
        edge = edge.get("shortest_edge", size) if isinstance(edge, dict) else edge
        crop = crop.get("height", size) if isinstance(crop, dict) else crop
        made = Preparation(
            int(edge),
            int(crop),
            tuple(float(one) for one in said.get("image_mean", _MEAN)),
            tuple(float(one) for one in said.get("image_std", _DEVIATION)),
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsRefused(
            f"The file {file} makes no sense ({error}).", hint=_COPY_AGAIN, file=str(file)
        ) from error
    if made.crop != size or made.edge < 1 or 0.0 in made.deviation:
        raise WeightsRefused(
            f"The file {file} is of another model: {made.crop} pixels, the model takes {size}.",
            hint=_COPY_AGAIN,
            file=str(file),
        )
    return made
