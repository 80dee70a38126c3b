# SPDX-License-Identifier: Apache-2.0
"""LPIPS where its package is there, and a video network from TorchScript."""

import sys
import warnings

import numpy as np
import pytest
import torch

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server.models.perceptual import load_lpips, load_video_features

PACKAGE = """
import torch
class LPIPS(torch.nn.Module):
    def __init__(self, net, spatial, verbose):
        super().__init__()
        assert (net, spatial, verbose) == ("alex", True, False)
    def forward(self, a, b):
        return (a - b).abs().mean(1, keepdim=True)
"""


class Means(torch.nn.Module):
    def forward(self, video):
        return video.mean(dim=(2, 3, 4))


class Published(torch.nn.Module):
    def forward(self, x, rescale: bool = True, resize: bool = True, return_features: bool = False):
        if rescale or resize or not return_features:
            return torch.zeros(1, 1)
        return x.mean(dim=(2, 3, 4))


class Wrong(torch.nn.Module):
    def forward(self, video):
        return video


def saved(tmp_path, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), str(tmp_path / "i3d.pt"))
    return tmp_path / "i3d.pt"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A torch hub folder of the test's own, with an AlexNet in it by name."""
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "alexnet-owt-0.pth").touch()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub"


def install_lpips(tmp_path, monkeypatch, text):
    (tmp_path / "lpips.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "lpips", None)  # What is undone when the test ends.
    del sys.modules["lpips"]


def test_lpips_sees_codes_from_minus_one_to_one(tmp_path, hub, monkeypatch):
    install_lpips(tmp_path, monkeypatch, PACKAGE)
    black, grey = np.zeros((3, 4, 3), np.float32), np.full((3, 4, 3), 0.25, np.float32)
    np.testing.assert_array_equal(load_lpips().distances(black, grey), np.full((3, 4), 0.5))


def test_without_the_package_lpips_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(WeightsMissing) as caught:
        load_lpips()
    assert "pip install lpips" in caught.value.hint


def test_lpips_never_fetches_the_network_it_builds_on(tmp_path, hub, monkeypatch):
    install_lpips(tmp_path, monkeypatch, "raise SystemExit('it was imported')")
    next((hub / "checkpoints").iterdir()).unlink()
    with pytest.raises(WeightsMissing, match="AlexNet"):
        load_lpips()


def test_an_lpips_that_does_not_load_is_refused(tmp_path, hub, monkeypatch):
    install_lpips(tmp_path, monkeypatch, "import a_package_that_is_not_there")
    with pytest.raises(WeightsRefused, match="a_package_that_is_not_there"):
        load_lpips()


@pytest.mark.parametrize("module", [Means, Published])
def test_a_video_network_sees_channels_then_time_from_minus_one_to_one(tmp_path, module):
    clip = np.zeros((2, 224, 224, 3), np.float32)
    clip[..., 1] = 0.5
    clip[..., 2] = 1.0
    found = load_video_features(saved(tmp_path, module())).features(clip)
    np.testing.assert_allclose(found, [-1.0, 0.0, 1.0], atol=1e-5)


def test_a_video_network_that_answers_otherwise_is_refused(tmp_path):
    network = load_video_features(saved(tmp_path, Wrong()))
    with pytest.raises(WeightsRefused, match="one row of features"):
        network.features(np.zeros((2, 224, 224, 3), np.float32))


def test_a_file_that_is_no_torchscript_is_refused(tmp_path):
    (tmp_path / "i3d.pt").write_bytes(b"no archive")
    with pytest.raises(WeightsRefused, match="no TorchScript"):
        load_video_features(tmp_path / "i3d.pt")


def test_a_missing_video_network_is_named_with_the_cure(tmp_path):
    with pytest.raises(WeightsMissing) as caught:
        load_video_features(tmp_path / "none.pt")
    assert "--i3d FILE" in caught.value.hint
