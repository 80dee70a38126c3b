# SPDX-License-Identifier: Apache-2.0
"""The curve of the preview's training is the one that jobs see by."""

import numpy as np
import torch

from gencomp_server.colour import modelrange
from gencomp_server.training.preview_light import decode, encode, light_of

LIGHT = np.array([0, 0.001, 0.0031308, 0.01, 0.18, 0.5, 0.51, 1, 4, 16, 50], np.float32)
ROUNDING = 2e-6


def test_it_is_the_curve_of_the_model_range():
    found = encode(torch.from_numpy(LIGHT)).numpy()
    np.testing.assert_allclose(found, modelrange.encode(LIGHT), atol=ROUNDING)


def test_it_comes_back():
    found = decode(torch.from_numpy(modelrange.encode(LIGHT))).numpy()
    np.testing.assert_allclose(found, LIGHT, rtol=3e-5, atol=ROUNDING)


def test_a_picture_in_model_range_becomes_light():
    picture = 2 * modelrange.encode(np.float32([0.18])) - 1
    np.testing.assert_allclose(light_of(torch.from_numpy(picture)).numpy(), [0.18], rtol=1e-5)


def test_gradients_are_finite_everywhere():
    code = torch.tensor([-0.5, 0.0, 0.02, 0.5, 0.735, 1.0, 3.0], requires_grad=True)
    decode(code).sum().backward()
    assert torch.isfinite(code.grad).all()
