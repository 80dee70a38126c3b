# SPDX-License-Identifier: Apache-2.0
"""The model that ships as a backbone: how it is read, what it is given, what it predicts."""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server.backbones import PREVIEW, spec_named
from gencomp_server.models import load
from gencomp_server.models.preview import PreviewBackbone
from gencomp_server.models.preview_network import (
    CHANNELS,
    PreviewConfig,
    make_network,
    picture,
    write_network,
)
from gencomp_server.parts.sampler import denoise
from gencomp_server.parts.windows import Window

SPEC = spec_named(PREVIEW)
SMALL = PreviewConfig(widths=(8, 8, 16), heads=1, layers=1, time=16, text=16)
FRAMES, HEIGHT, WIDTH = 3, 16, 24


class Context:
    """As much of a context as the sampler asks of one."""

    def checkpoint(self, name, tensors=None):
        return None

    def progress(self, *words):
        """Say nothing."""

    check_cancelled = progress


@pytest.fixture(scope="module")
def network():
    """Return a small network whose last layer is not zero."""
    made = make_network(3, SMALL)
    with torch.no_grad():
        made.end.weight.copy_(torch.randn(made.end.weight.shape, generator=seeded(1)) * 0.05)
    return made


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    """Return the network's file."""
    place = tmp_path_factory.mktemp("weights") / "preview.safetensors"
    write_network(network, place, {"trained": "no"})
    return place


@pytest.fixture
def backbone(written):
    return load(SPEC, {"transformer": written})


def layers():
    """Return something of every layer. [1,T,C,H,W] each."""
    return {
        name: torch.rand(1, FRAMES, count, HEIGHT, WIDTH, generator=seeded(i))
        for i, (name, count) in enumerate(CHANNELS.items())
    }


def sampled(backbone, steps, **more):
    noise = torch.randn(1, FRAMES, 3, HEIGHT, WIDTH, generator=seeded(9))
    return denoise(
        backbone,
        noise,
        backbone.join(layers()),
        backbone.text("add soft shadow"),
        schedule=backbone.schedule(steps),
        windows=(Window(0, FRAMES),),
        ctx=Context(),
        **more,
    )


def direct(network, words, noise_seed=9):
    """Return what the network itself predicts from pure noise. [1,T,3,H,W]."""
    from gencomp_server.models.preview_network import word_numbers

    noise = torch.randn(1, FRAMES, 3, HEIGHT, WIDTH, generator=seeded(noise_seed))
    given = torch.cat(list(layers().values()), dim=2)
    with torch.no_grad():
        made = network(
            noise.permute(0, 1, 3, 4, 2),
            given.permute(0, 1, 3, 4, 2),
            word_numbers([words]),
            torch.tensor([999]),
        )
    return made.permute(0, 1, 4, 2, 3)


def test_one_step_is_the_networks_own_picture(backbone):
    found = sampled(backbone, 1)
    assert torch.allclose(found, direct(backbone._network, ("add", "soft", "shadow")), atol=1e-5)
    assert backbone.forwards == 1


def test_the_same_noise_gives_the_same_bits_and_more_steps_another_picture(backbone):
    one, again, four = sampled(backbone, 1), sampled(backbone, 1), sampled(backbone, 4)
    assert torch.equal(one, again)
    assert torch.isfinite(four).all()
    assert not torch.equal(one, four)
    assert backbone.forwards == 6


def test_guidance_goes_beyond_the_prompt_along_what_it_changes(backbone):
    null = backbone.text("add")
    told, plain = sampled(backbone, 1), direct(backbone._network, ("add",))
    pulled = sampled(backbone, 1, null_text=null, guidance=2.0)
    assert torch.allclose(pulled, plain + 2 * (told - plain), atol=1e-4)


def test_an_untrained_network_gives_the_base(tmp_path):
    place = tmp_path / "preview.safetensors"
    write_network(make_network(5, SMALL), place, {})
    found = sampled(load(SPEC, {"transformer": place}), 1)
    base = picture(torch.cat(list(layers().values()), dim=2).permute(0, 1, 3, 4, 2), "base")
    assert torch.allclose(found.permute(0, 1, 3, 4, 2), base, atol=1e-6)


def test_pictures_pass_as_they_are(backbone):
    video = np.random.default_rng(1).uniform(-1, 1, (FRAMES, 8, 8, 3)).astype(np.float32)
    latents = backbone.encode(video)
    assert latents.shape == (1, FRAMES, 3, 8, 8)
    assert np.array_equal(backbone.decode(latents), video)


def test_layers_of_other_names_or_channels_are_refused(backbone):
    with pytest.raises(ValueError, match="for a model of"):
        backbone.join({name: one for name, one in layers().items() if name != "seen"})
    with pytest.raises(ValueError, match="for a model of"):
        backbone.join({**layers(), "seen": layers()["plate"]})
    with pytest.raises(ValueError, match="not a trimask"):
        backbone.condition(torch.zeros(1), np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match="vocabulary"):
        backbone.text("add baroque")


def test_a_network_of_other_layers_is_refused(network):
    other = spec_named("gencompositor")
    with pytest.raises(ValueError, match="for a model of"):
        PreviewBackbone(other, network, identity="x", device=torch.device("cpu"))


def test_the_identity_is_of_the_file(written, tmp_path, backbone):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(written.read_bytes())
    assert load(SPEC, {"transformer": copy}).identity == backbone.identity
    other = tmp_path / "other.safetensors"
    write_network(make_network(6, SMALL), other, {})
    assert load(SPEC, {"transformer": other}).identity != backbone.identity


def test_a_file_that_is_not_there_or_not_the_models_is_refused_by_name(written, tmp_path):
    with pytest.raises(WeightsMissing, match="no file is missing"):
        load(SPEC, {})
    with pytest.raises(WeightsMissing, match=r"gone\.safetensors is missing"):
        load(SPEC, {"transformer": tmp_path / "gone.safetensors"})
    spoilt = tmp_path / "spoilt.safetensors"
    spoilt.write_bytes(written.read_bytes()[:-3])
    strange = tmp_path / "strange.safetensors"
    save_file({"a": torch.zeros(2)}, strange)
    for place in (spoilt, strange):
        with pytest.raises(WeightsRefused, match=place.name):
            load(SPEC, {"transformer": place})


def test_a_file_that_lacks_a_tensor_is_refused(written, tmp_path):
    from safetensors import safe_open

    with safe_open(str(written), framework="pt") as file:
        header = file.metadata()
    tensors = load_file(str(written))
    tensors.pop(sorted(tensors)[0])
    place = tmp_path / "short.safetensors"
    save_file(tensors, place, metadata=header)
    with pytest.raises(WeightsRefused, match="does not fit"):
        load(SPEC, {"transformer": place})


def test_what_ships_is_read_and_paints_the_same_bits_each_time(tmp_path):
    from gencomp_server.weights import Shelf

    files = Shelf(tmp_path, tmp_path / "lock").files(PREVIEW)
    digests = set()
    for _ in range(2):
        found = sampled(load(SPEC, files), 1)
        digests.add(hashlib.sha256(found.numpy().tobytes()).hexdigest())
    assert len(digests) == 1
    assert torch.isfinite(found).all()
