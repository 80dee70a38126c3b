# SPDX-License-Identifier: Apache-2.0
"""Small clips and small trainings: what the tests of the recipes stand on."""

from dataclasses import replace

import numpy as np
import pytest

from gencomp_server.training.data import Cut, Layers
from gencomp_server.training.procedural import ProceduralClips, ProceduralSet
from gencomp_server.training.recipes import RECIPES

SIZE, FRAMES = (48, 32), 5


@pytest.fixture(scope="session")
def tiny_of():
    """Return a function that makes a recipe's tiny backbone anew: training changes it."""
    from gencomp_server import models
    from gencomp_server.backbones import spec_named

    def make(name):
        recipe = RECIPES[name]
        spec = spec_named(recipe.tiny)
        if recipe.convention:
            spec = replace(spec, convention=recipe.convention)
        return models.load(spec, None)

    return make


@pytest.fixture(scope="session")
def clips():
    """Four procedural clips; the last is a picture and a caption alone."""
    return ProceduralClips(ProceduralSet(4, SIZE, FRAMES, unpaired=1))


@pytest.fixture(scope="session")
def paired():
    """Three procedural clips with every layer; the first has no effects, the third a pair."""
    return ProceduralClips(ProceduralSet(3, SIZE, FRAMES, pasted=1))


@pytest.fixture(scope="session")
def pair(paired):
    """Return the layers of a clip with two figures."""
    return paired.load(2, Cut(0, FRAMES, SIZE))


@pytest.fixture
def drawn():
    """Return a clip of flat colours with a square subject: [2,32,48,...]."""
    matte = np.zeros((2, 32, 48, 1), np.float32)
    matte[:, 8:16, 8:20] = 1
    original = np.full((2, 32, 48, 3), 0.25, np.float32)
    original[:, 8:16, 8:20] = (0.75, 0.5, 0.25)
    below = np.full_like(original, 0.25)
    return Layers("drawn", original, matte, below, original.copy(), captions=("one", "two"))
