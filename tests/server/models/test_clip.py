# SPDX-License-Identifier: Apache-2.0
"""CLIP from a folder: a real one, tiny and untrained, as a judge sees it."""

import json

import cv2
import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server.cli import main
from gencomp_server.models.clip import Preparation, load_clip, prepared

START, END = "<|startoftext|>", "<|endoftext|>"


def write_clip(folder, seed=0):
    """Save a CLIP of 32-pixel pictures with a vocabulary of single letters."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "bos_token": START,
                "eos_token": END,
                "unk_token": END,
                "pad_token": END,
                "model_max_length": 16,
            }
        )
    )
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "projection_dim": 8}
    marks = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    words = CLIPTextConfig(vocab_size=54, max_position_embeddings=16, **layers, **heads, **marks)
    sight = CLIPVisionConfig(image_size=32, patch_size=8, **layers, **heads)
    config = CLIPConfig(
        text_config=words.to_dict(), vision_config=sight.to_dict(), projection_dim=8
    )
    torch.manual_seed(seed)
    CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


def picture(seed, height=40, width=60):
    return np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)


def test_embeddings_are_of_length_one_and_tell_pictures_apart(folder):
    clip = load_clip(folder)
    one, other = clip.picture(picture(1)), clip.picture(picture(2))
    assert np.linalg.norm(one) == pytest.approx(1.0)
    assert one.shape == clip.prompt("smoke").shape == (8,)
    assert abs(float(one @ other)) < 0.9999999


def test_an_embedding_is_what_the_model_computes_by_itself(folder):
    model = CLIPModel.from_pretrained(folder).eval()
    pixels = prepared(picture(3, 32, 32), Preparation(32, 32))
    with torch.no_grad():
        words = torch.tensor([[52, 18, 12, 53]])
        expected = model(input_ids=words, pixel_values=pixels)
    clip = load_clip(folder)
    np.testing.assert_allclose(
        clip.picture(picture(3, 32, 32)), expected.image_embeds[0].numpy(), atol=1e-6
    )


def test_a_prompt_is_its_words_between_its_marks(folder):
    model = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        # s, m, o, k and e</w> have the numbers 18, 12, 14, 10 and 30.
        words = torch.tensor([[52, 18, 12, 14, 10, 30, 53]])
        made = model(input_ids=words, pixel_values=torch.zeros(1, 3, 32, 32))
    expected = made.text_embeds[0].numpy()
    np.testing.assert_allclose(load_clip(folder).prompt("smoke"), expected, atol=1e-6)


def test_a_prompt_longer_than_the_model_reads_is_cut(folder):
    assert np.isfinite(load_clip(folder).prompt("dust " * 40)).all()


def test_a_picture_is_reduced_by_its_shorter_edge_cropped_and_normalised():
    codes = np.zeros((64, 128, 3), np.float32)
    codes[:, 32:96] = 1.0
    made = prepared(codes, Preparation(16, 16, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0)))
    assert made.shape == (1, 3, 16, 16)
    # The middle square is white but for the ring of the reduction at its edges.
    np.testing.assert_allclose(made[0, :, 8, 8].numpy(), [2.0, 1.0, 0.5], atol=1e-5)


def test_the_folders_own_preparation_is_used(tmp_path):
    write_clip(tmp_path)
    said = {"size": {"shortest_edge": 40}, "crop_size": 32, "image_mean": [0, 0, 0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    assert load_clip(tmp_path)._preparation.edge == 40
    assert load_clip(tmp_path)._preparation.mean == (0.0, 0.0, 0.0)


def test_a_preparation_of_another_model_is_refused(tmp_path):
    write_clip(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"crop_size": 224}))
    with pytest.raises(WeightsRefused, match="of another model"):
        load_clip(tmp_path)


def test_an_empty_folder_is_named_with_the_cure(tmp_path):
    with pytest.raises(WeightsMissing) as caught:
        load_clip(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "--clip FOLDER" in caught.value.hint


@pytest.mark.fault("F17")
def test_a_pickle_is_not_opened(tmp_path):
    write_clip(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsMissing, match="no safetensors"):
        load_clip(tmp_path)


def test_weights_that_lack_a_tensor_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    write_clip(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["visual_projection.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(WeightsRefused, match=r"visual_projection\.weight"):
        load_clip(tmp_path)


def test_a_folder_without_a_vocabulary_is_refused(tmp_path):
    write_clip(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(WeightsRefused, match="tokenizer"):
        load_clip(tmp_path)


def test_all_three_figures_are_measured_through_the_command(folder, tmp_path, capsys):
    for name, seed in (("truth", 1), ("result", 1), ("over", 2)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), (picture(seed) * 255).astype(np.uint8))
    words = ["measure", *(str(tmp_path / f"{name}.png") for name in ("truth", "result"))]
    words += ["--over", str(tmp_path / "over.png"), "--prompt", "smoke", "--clip", str(folder)]
    words += ["--metrics", "clip-direction,clip-text,clip-image", "--json", "-"]
    assert main(words) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    # The result is the truth: the same picture, in the same direction from anywhere else.
    assert figures["clip_image"]["value"] == pytest.approx(100.0)
    assert figures["clip_direction"]["value"] == pytest.approx(100.0)
    assert -100.0 < figures["clip_text"]["value"] < 100.0
