# SPDX-License-Identifier: Apache-2.0
"""Prompts to embeddings, by a T5 that is in memory for no longer than it takes.

A prompt is tokenised, cut and padded to a fixed length, and encoded without an attention mask: the
padding counts, as it did in training. What the last layer gives is the embedding.

The encoder is the largest model after the transformer and is needed for seconds. Embeddings are
kept in a folder by prompt and encoder, so that most jobs never load it; where one does, it stays
until :meth:`Prompts.release`.

Nothing is fetched: tokenizer and encoder come from folders on this machine.

Source: public code and configurations of CogVideoX-Fun; T5 v1.1, Raffel et al. 2020.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gencomp_protocol.errors import WeightsRefused
from gencomp_server.models.loading import build_on_meta, fingerprint, load_into, read_config
from gencomp_server.weights_progress import TEXT_ENCODER

log = logging.getLogger(__name__)

# Part of every key: another way of making embeddings is another number.
_CACHE_VERSION = 1
_SAMPLE = "a clean beach"
_ENDING = ".safetensors"


class Prompts:
    """Embeddings of prompts, from a folder or from the encoder.

    Args:
        make_encoder: Loads the encoder, a T5 encoder of transformers, on its device.
        tokenizer: A tokenizer of transformers that ends a prompt with its end mark.
        length: Tokens that a prompt is padded and cut to.
        identity: Tells the encoder from others: its weights, type and kind of device.
        folder: Where embeddings are kept; None keeps none.

    Attributes:
        loads: How often the encoder was loaded.
    """

    def __init__(
        self,
        make_encoder: Callable[[], nn.Module],
        tokenizer: Any,
        length: int,
        *,
        identity: str,
        folder: Path | None = None,
    ) -> None:
        self._make_encoder = make_encoder
        self._tokenizer = tokenizer
        self._length = length
        self._identity = identity
        self._folder = folder
        self._encoder: nn.Module | None = None
        self.loads = 0

    def embed(self, prompt: str) -> Tensor:
        """Return the embedding of a prompt. [1,L,D] float32 on the CPU."""
        kept = self._kept(prompt)
        if kept is None:
            kept = self._encoded(prompt)
            self._keep(prompt, kept)
        return kept.float()

    def has(self, prompt: str) -> bool:
        """Tell whether a prompt's embedding is there without the encoder."""
        return self._kept(prompt) is not None

    def count(self, prompt: str) -> int:
        """Return how many tokens a prompt has, uncut, its end mark counted."""
        return len(self._tokens(prompt))

    def cut_off(self, prompt: str) -> str:
        """Return the end of a prompt that the model does not see; empty where it sees all."""
        tokens = self._tokens(prompt)
        if len(tokens) <= self._length:
            return ""
        # The end mark takes the last of the places.
        lost: str = self._tokenizer.decode(tokens[self._length - 1 :], skip_special_tokens=True)
        return lost.strip()

    def release(self) -> None:
        """Drop the encoder, if it is loaded, and give its memory back."""
        if self._encoder is None:
            return
        self._encoder = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _tokens(self, prompt: str) -> list[int]:
        # verbose off: transformers would warn of a length that is cut here on purpose.
        found: list[int] = self._tokenizer(prompt, verbose=False)["input_ids"]
        return found

    def _encoded(self, prompt: str) -> Tensor:
        if self._encoder is None:
            self._encoder = self._make_encoder()
            self.loads += 1
        tokens = self._tokenizer(
            prompt,
            padding="max_length",
            max_length=self._length,
            truncation=True,
            return_tensors="pt",
        )["input_ids"]
        with torch.no_grad():
            made = self._encoder(tokens.to(next(self._encoder.parameters()).device))
        return made.last_hidden_state.cpu()

    def _file(self, prompt: str) -> Path | None:
        if self._folder is None:
            return None
        key = f"{_CACHE_VERSION}\0{self._identity}\0{self._length}\0{prompt}"
        return self._folder / (hashlib.blake2b(key.encode(), digest_size=20).hexdigest() + _ENDING)

    def _kept(self, prompt: str) -> Tensor | None:
        file = self._file(prompt)
        if file is None or not file.is_file():
            return None
        try:
            found = load_file(file)["embedding"]
        except (SafetensorError, OSError, KeyError) as error:
            log.warning("The kept embedding %s cannot be read (%s): made again.", file, error)
            return None
        if found.ndim != 3 or found.shape[:2] != (1, self._length):
            log.warning("The kept embedding %s has another shape: made again.", file)
            return None
        return found

    def _keep(self, prompt: str, embedding: Tensor) -> None:
        """Keep an embedding; a folder that cannot be written costs time later, not the job."""
        file = self._file(prompt)
        if file is None:
            return
        waiting: Path | None = None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
            os.close(handle)
            waiting = Path(name)
            save_file({"embedding": embedding.contiguous()}, waiting)
            waiting.replace(file)
        except (OSError, SafetensorError) as error:
            log.warning("The embedding of a prompt could not be kept in %s: %s", file, error)
            if waiting is not None:
                waiting.unlink(missing_ok=True)


def encoder_identity(encoder: Path, tokenizer: Path, *more: object) -> str:
    """Return what tells embeddings of one encoder from those of another.

    The encoder's weights and configuration, every file of the tokenizer, and the version of the
    library that runs both: each of them changes what a prompt becomes.

    Args:
        encoder: Folder or file of the encoder's weights; a folder may hold a ``config.json``.
        tokenizer: Folder or file of the tokenizer.
        more: What else decides: type and kind of device.

    Raises:
        WeightsMissing: There are no weights.
        WeightsRefused: A file cannot be read.
    """
    facts = [fingerprint(encoder), importlib.metadata.version("transformers"), *map(str, more)]
    digest = hashlib.blake2b("\0".join(facts).encode(), digest_size=16)
    config = encoder / "config.json"
    words = sorted(tokenizer.rglob("*")) if tokenizer.is_dir() else [tokenizer]
    for file in [*([config] if config.is_file() else []), *words]:
        if file.is_file():
            digest.update(f"\0{file.name}\0{file.stat().st_size}\0".encode())
            try:
                digest.update(file.read_bytes())
            except OSError as error:
                raise WeightsRefused(
                    f"The file {file} cannot be read ({error}).", file=str(file)
                ) from error
    return digest.hexdigest()


def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer from its folder.

    Raises:
        WeightsRefused: What is there is no tokenizer, or one that knows no words.
    """
    from transformers import AutoTokenizer

    try:
        # Never by its vocabulary file alone: transformers 5 would then make, without a word, a
        # tokenizer to which everything is unknown.
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise WeightsRefused(
            f"The folder {folder} holds no tokenizer that can be read "
            f"({str(error).splitlines()[0]}).",
            hint="Copy the whole folder again from where the model was published.",
            file=str(folder),
        ) from error
    if tokenizer.unk_token_id in tokenizer(_SAMPLE)["input_ids"]:
        raise WeightsRefused(
            f"The tokenizer in {folder} knows no words: its vocabulary is missing or damaged.",
            hint="Copy the whole folder again from where the model was published.",
            file=str(folder),
        )
    return tokenizer


def load_encoder(
    folder: Path, *, title: str, device: torch.device | str, dtype: torch.dtype, width: int
) -> nn.Module:
    """Load a T5 encoder from its folder.

    Args:
        folder: ``config.json`` and safetensors.
        title: What it is called in a sentence.
        device: Where it is to lie.
        dtype: Type of its weights.
        width: Width of the embedding that the transformer takes.

    Raises:
        WeightsMissing: Something is not there.
        WeightsRefused: It does not fit.
    """
    from transformers import T5Config, T5EncoderModel

    file = folder / "config.json"
    config = T5Config(**read_config(file))
    if config.d_model != width:
        raise WeightsRefused(
            f"The text encoder in {folder} makes embeddings {config.d_model} wide and {title} "
            f"takes {width}.",
            hint="Copy the folder text_encoder again from the model itself.",
            file=str(file),
        )
    encoder: nn.Module = build_on_meta(lambda: T5EncoderModel(config))
    load_into(encoder, folder, title=title, device=device, dtype=dtype, stage=TEXT_ENCODER)
    return encoder
