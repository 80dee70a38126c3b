# SPDX-License-Identifier: Apache-2.0
"""The curve of ``colour/modelrange.py`` on tensors, with gradients."""

from __future__ import annotations

import torch
from torch import Tensor

KNEE, MOST = 0.5, 60.0
_FOOT_SLOPE, _FOOT_END = 12.92, 0.0031308
_GAMMA, _GAIN, _OFFSET = 2.4, 1.055, 0.055
_KNEE_VALUE = _GAIN * KNEE ** (1 / _GAMMA) - _OFFSET
_KNEE_SLOPE = _GAIN / _GAMMA * KNEE ** (1 / _GAMMA - 1)
_BEND = 0.04964215669088705


def encode(light: Tensor) -> Tensor:
    """Bring scene-linear light to codes. Any shape, >= 0; 0..16 becomes 0..1."""
    light = light.clamp_min(0)
    curve = _GAIN * light.clamp(_FOOT_END, KNEE) ** (1 / _GAMMA) - _OFFSET
    above = _BEND * torch.log1p(_KNEE_SLOPE / _BEND * (light - KNEE).clamp_min(0))
    return torch.where(light <= _FOOT_END, _FOOT_SLOPE * light, curve + above)


def decode(code: Tensor) -> Tensor:
    """Bring codes back to scene-linear light. Any shape; less than 0 is 0, at most 60 comes out."""
    code = code.clamp(0, float(encode(torch.tensor(MOST))))
    curve = ((code.clamp(_FOOT_SLOPE * _FOOT_END, _KNEE_VALUE) + _OFFSET) / _GAIN) ** _GAMMA
    above = _BEND / _KNEE_SLOPE * torch.expm1((code - _KNEE_VALUE).clamp_min(0) / _BEND)
    return torch.where(code <= _FOOT_SLOPE * _FOOT_END, code / _FOOT_SLOPE, curve + above)


def light_of(picture: Tensor) -> Tensor:
    """Return the scene-linear light of a picture in model range. Any shape, -1..1."""
    return decode(0.5 + 0.5 * picture)
