# SPDX-License-Identifier: Apache-2.0
"""Prompts: tokens, padding, what is cut off, and embeddings that are kept."""

import importlib.metadata
import io
import json
import logging

import pytest
import sentencepiece
import torch
import transformers
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server.models import text, tiny
from gencomp_server.models.loading import build_on_meta

CPU = torch.device("cpu")
LENGTH = 12


def make(folder=None, *, identity="one", length=LENGTH):
    made = tiny.prompts(length, device=CPU, dtype=torch.float32, folder=folder)
    made._identity = identity
    return made


# --- tokens --------------------------------------------------------------------------------------


def test_an_empty_prompt_is_its_end_mark():
    assert make().count("") == 1


def test_a_prompt_is_counted_uncut():
    assert make().count("a " * 30) == 31


def test_nothing_is_cut_from_a_prompt_that_fits():
    # Eleven words and the end mark.
    assert make().cut_off("a a a a a a a a a a a") == ""


def test_what_is_cut_off_is_the_text_behind_the_last_place():
    assert make().cut_off("a a a a a a a a a a a smoke dust") == "smoke dust"


def test_letters_that_the_vocabulary_lacks_are_read_as_bytes():
    assert tiny.tokenizer().unk_token_id not in tiny.tokenizer()("水 wake")["input_ids"]
    assert make().cut_off("a a a a a a a a a a a 水") == "水"


# --- embeddings ----------------------------------------------------------------------------------


def test_an_embedding_has_the_full_length_whatever_the_prompt():
    for prompt in ("", "smoke", "dust " * 50):
        made = make().embed(prompt)
        assert made.shape == (1, LENGTH, 32)
        assert made.dtype == torch.float32


def test_padding_is_encoded_without_a_mask_and_so_counts():
    prompts = make()
    encoder = prompts._make_encoder()
    ids = torch.tensor([[*prompts._tokens("smoke"), *[0] * 10]])
    assert ids.shape == (1, LENGTH)
    with torch.no_grad():
        plain = encoder(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        masked = encoder(ids, attention_mask=(ids != 0).long()).last_hidden_state
    made = prompts.embed("smoke")
    assert torch.equal(made, plain)
    assert not torch.allclose(made[:, :2], masked[:, :2], atol=1e-3)


def test_a_prompt_that_is_too_long_is_that_of_what_is_left_of_it():
    long = "a a a a a a a a a a a smoke dust"
    assert torch.equal(make().embed(long), make().embed("a a a a a a a a a a a"))


def test_other_words_give_another_embedding():
    assert not torch.allclose(make().embed("soft shadow"), make().embed("harsh shadow"), atol=0.01)


def test_the_encoder_is_loaded_for_the_first_prompt_and_not_before():
    prompts = make()
    assert prompts.count("smoke") == 2
    assert prompts.loads == 0
    prompts.embed("smoke")
    prompts.embed("dust")
    assert prompts.loads == 1


def test_a_released_encoder_is_loaded_again_when_it_is_needed():
    prompts = make()
    before = prompts.embed("smoke")
    prompts.release()
    assert prompts._encoder is None
    assert torch.equal(prompts.embed("smoke"), before)
    assert prompts.loads == 2


# --- kept embeddings -----------------------------------------------------------------------------


def test_a_prompt_that_was_kept_needs_no_encoder(tmp_path):
    wanted = make(tmp_path).embed("smoke")
    again = make(tmp_path)
    assert again.has("smoke")
    assert torch.equal(again.embed("smoke"), wanted)
    assert again.loads == 0


def test_the_embedding_of_another_encoder_is_not_taken(tmp_path):
    make(tmp_path).embed("smoke")
    assert not make(tmp_path, identity="two").has("smoke")
    assert not make(tmp_path, length=LENGTH + 1).has("smoke")
    assert not make(tmp_path).has("smoke ")


def test_a_kept_embedding_that_is_damaged_is_made_again_and_said(tmp_path, caplog):
    wanted = make(tmp_path).embed("smoke")
    (kept,) = (tmp_path / "prompts").iterdir()
    kept.write_bytes(kept.read_bytes()[:50])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(make(tmp_path).embed("smoke"), wanted)
    assert "cannot be read" in caplog.text
    assert make(tmp_path).has("smoke")


def test_nothing_half_written_is_left(tmp_path):
    make(tmp_path).embed("smoke")
    (kept,) = (tmp_path / "prompts").iterdir()
    assert kept.suffix == ".safetensors"


def test_a_folder_that_cannot_be_written_costs_no_job(tmp_path, caplog):
    (tmp_path / "prompts").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert make(tmp_path).embed("smoke").shape == (1, LENGTH, 32)
    assert "could not be kept" in caplog.text


# --- folders -------------------------------------------------------------------------------------


def test_a_tokenizer_is_read_from_its_folder(tmp_path):
    tiny.tokenizer().save_pretrained(tmp_path)
    found = text.load_tokenizer(tmp_path)
    assert found("soft shadow")["input_ids"] == tiny.tokenizer()("soft shadow")["input_ids"]


def test_a_folder_with_a_sentencepiece_vocabulary_is_read(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a clean beach and soft smoke over it"] * 20),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    found = text.load_tokenizer(tmp_path)
    tokens = found("soft smoke")["input_ids"]
    assert tokens[-1] == 1
    assert found.decode(tokens, skip_special_tokens=True) == "soft smoke"


def test_a_tokenizer_that_knows_no_words_is_refused(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    with pytest.raises(WeightsRefused, match=str(tmp_path)):
        text.load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(WeightsRefused, match="holds no tokenizer that can be read"):
        text.load_tokenizer(tmp_path)


def test_an_encoder_from_a_folder_gives_the_same_embedding(tmp_path):
    prompts = make()
    made = prompts._make_encoder()
    made.config.save_pretrained(tmp_path)
    # As published: the tied weight is there once.
    state = {k: v for k, v in made.state_dict().items() if k != "encoder.embed_tokens.weight"}
    save_file(state, tmp_path / "model.safetensors")
    found = text.load_encoder(tmp_path, title="T5", device=CPU, dtype=torch.float32, width=32)
    ids = torch.tensor([[5, 6, 1, 0]])
    with torch.no_grad():
        assert torch.equal(found(ids).last_hidden_state, made(ids).last_hidden_state)


def test_the_full_size_encoder_has_the_published_number_of_parameters():
    config = T5Config(
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        vocab_size=32128,
        feed_forward_proj="gated-gelu",
    )
    made = build_on_meta(lambda: T5EncoderModel(config))
    assert sum(one.numel() for one in made.parameters()) == 4_762_310_656


def test_an_encoder_of_another_width_is_refused(tmp_path):
    make()._make_encoder().config.save_pretrained(tmp_path)
    with pytest.raises(WeightsRefused, match="32 wide and T5 takes 4096"):
        text.load_encoder(tmp_path, title="T5", device=CPU, dtype=torch.float32, width=4096)


def test_an_encoder_without_its_configuration_is_missing(tmp_path):
    with pytest.raises(WeightsMissing, match=r"config\.json"):
        text.load_encoder(tmp_path, title="T5", device=CPU, dtype=torch.float32, width=32)


def published(folder, **changes):
    """Write an encoder and its tokenizer, some files of them changed; return what tells them."""
    files = {"model": b"", "config": b"{}", "words": b"a b", "rules": b"{}", **changes}
    encoder, words = folder / "text_encoder", folder / "tokenizer"
    encoder.mkdir(parents=True)
    words.mkdir()
    save_file({"a": torch.zeros(1)}, encoder / "model.safetensors")
    (encoder / "config.json").write_bytes(files["config"])
    (words / "spiece.model").write_bytes(files["words"])
    (words / "tokenizer_config.json").write_bytes(files["rules"])
    return text.encoder_identity(encoder, words, "cpu")


@pytest.mark.parametrize("changed", ["config", "words", "rules"])
def test_another_configuration_or_tokenizer_is_another_encoder(tmp_path, changed):
    first = published(tmp_path / "first")
    assert published(tmp_path / "same") == first
    assert published(tmp_path / "other", **{changed: b"{ }"}) != first


def test_another_release_of_the_library_is_another_encoder(tmp_path, monkeypatch):
    first = published(tmp_path / "first")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0")
    assert published(tmp_path / "other") != first


@pytest.mark.fault("F18")
def test_a_tokenizer_never_runs_code_from_its_folder(tmp_path, monkeypatch):
    given = {}

    def refuse(folder, **words):
        given.update(words)
        raise OSError("nothing here")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(WeightsRefused):
        text.load_tokenizer(tmp_path)
    assert given["trust_remote_code"] is False
