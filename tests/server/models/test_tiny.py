# SPDX-License-Identifier: Apache-2.0
"""The tiny backbone: the same everywhere, quick, and blind to nothing."""

import logging

import numpy as np
import pytest
import torch

from gencomp_protocol.errors import BadKnob
from gencomp_server import models
from gencomp_server.backbones import spec_named
from gencomp_server.models import tiny, vae
from gencomp_server.models.loading import LoadSettings
from gencomp_server.parts.trimask import EDIT, KEEP, UNKNOWN

SPEC = spec_named("tiny")
# Inputs that differ must show: this much of the output's own spread, at least.
VISIBLE = 0.01
EXPECTED = [-0.2244816, 0.5681953, 0.2672575, -0.9712244]


@pytest.fixture(scope="module")
def backbone():
    return models.load(SPEC, None)


def noise(*shape, seed=0):
    drawn = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return torch.from_numpy(drawn)


def classes(kind, frames=13):
    made = np.full((frames, 32, 48, 1), KEEP, np.uint8)
    made[:, 8:24, 16:32] = kind
    return made


def predicted(backbone, *, latents=None, text="smoke", plate=None, mask=EDIT, step=999):
    plate = noise(1, 4, 16, 4, 6, seed=2) if plate is None else plate
    latents = noise(1, 4, 16, 4, 6, seed=1) if latents is None else latents
    condition = backbone.condition(plate, classes(mask))
    return backbone.predict(latents, step, backbone.text(text), condition)


def test_it_is_named_untrained_in_its_title():
    assert "untrained" in SPEC.title


def test_a_picture_goes_through_at_the_size_it_says(backbone):
    width, height = SPEC.model_size
    video = np.zeros((5, height, width, 3), np.float32)
    latents = backbone.encode(video)
    assert latents.shape == (1, 2, 16, height // 8, width // 8)
    assert latents.dtype == torch.float32
    assert backbone.decode(latents).shape == video.shape


@pytest.mark.parametrize(
    "change",
    [
        {"text": "dust"},
        {"mask": UNKNOWN},
        {"mask": KEEP},
        {"plate": noise(1, 4, 16, 4, 6, seed=3)},
        {"latents": noise(1, 4, 16, 4, 6, seed=4)},
        {"step": 499},
    ],
    ids=["text", "unknown", "keep", "plate", "latents", "step"],
)
def test_what_it_predicts_depends_on(backbone, change):
    before = predicted(backbone)
    assert (predicted(backbone, **change) - before).std() > VISIBLE * before.std()


def test_it_predicts_values_of_the_size_of_noise(backbone):
    assert 0.3 < float(predicted(backbone).std()) < 3


def test_two_of_it_have_the_same_bits_whatever_the_global_seed(backbone):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    other = models.load(SPEC, None)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(predicted(other), predicted(backbone))
    assert other.identity == backbone.identity


def test_its_weights_are_the_ones_they_have_always_been():
    # Drawn once with numpy 2.4.6: a change of these changes what every test and pipeline sees.
    drawn = tiny._drawn("transformer/proj_out.weight", (2, 2))
    assert drawn.ravel().tolist() == pytest.approx(EXPECTED, abs=1e-6)


def test_other_settings_are_another_identity(backbone):
    other = models.load(SPEC, None, settings=LoadSettings(tiling=True))
    assert other.identity != backbone.identity


def test_forwards_are_counted_element_by_element():
    backbone = models.load(SPEC, None)
    both = noise(2, 2, 16, 2, 2)
    condition = torch.zeros(2, 2, 17, 2, 2)
    backbone.predict(both, 999, backbone.text("smoke").expand(2, -1, -1), condition)
    assert backbone.forwards == 2
    backbone.predict(both[:1], 979, backbone.text("smoke"), condition[:1])
    assert backbone.forwards == 3


def test_a_knob_that_needs_a_gpu_is_refused_on_a_processor():
    with pytest.raises(BadKnob, match="'compiled' needs a GPU"):
        models.load(SPEC, None, settings=LoadSettings(compiled=True))


def test_embeddings_are_kept_in_the_folder_that_is_named(tmp_path):
    models.load(SPEC, None, cache=tmp_path).text("smoke")
    assert len(list((tmp_path / "prompts").iterdir())) == 1


def test_making_it_is_said_in_the_log(caplog):
    with caplog.at_level(logging.INFO):
        models.load(SPEC, None, log=logging.getLogger("gencomp_server.test"))
    assert "untrained" in caplog.text


def test_latent_frames_are_taken_in_pairs_or_one_alone(backbone):
    text = backbone.text("smoke")
    alone = backbone.predict(noise(1, 1, 16, 2, 2), 999, text, torch.zeros(1, 1, 17, 2, 2))
    assert alone.shape == (1, 1, 16, 2, 2)
    with pytest.raises(ValueError, match="3 latent frames where the model takes pairs"):
        backbone.predict(noise(1, 3, 16, 2, 2), 999, text, torch.zeros(1, 3, 17, 2, 2))


def test_a_size_that_is_no_multiple_of_sixteen_is_refused(backbone):
    with pytest.raises(ValueError, match="multiples of 16"):
        backbone.encode(np.zeros((5, 24, 32, 3), np.float32))


@pytest.mark.parametrize("encodes", [False, True])
def test_frames_are_encoded_in_tiles_only_where_that_is_asked_for_by_itself(encodes, monkeypatch):
    seen = {}

    def spy(name):
        def done(_, given, *, tiles, progress):
            seen[name] = tiles is not None

        return done

    for name in ("encode", "decode"):
        monkeypatch.setattr(vae, name, spy(name))
    settings = LoadSettings(tiling=True, encode_tiling=encodes)
    made = models.load(SPEC, None, settings=settings)
    made.encode(np.zeros((1, 32, 32, 3), np.float32))
    made.decode(None)
    assert seen == {"encode": encodes, "decode": True}
