# SPDX-License-Identifier: Apache-2.0
"""Small OpenColorIO configs, written by hand, that do what a built-in one never does."""

import pytest

_HEAD = """ocio_profile_version: 2
roles: {{default: flat, scene_linear: {scene}, data: raw{more}}}
displays:
  screen:
    - !<View> {{name: flat, colorspace: flat}}
colorspaces:
  - !<ColorSpace> {{name: flat, encoding: scene-linear}}
  - !<ColorSpace> {{name: raw, isdata: true}}
"""
# Twice as bright as the reference, and lifted: linear, but no matrix.
_LIFTED = """  - !<ColorSpace>
    name: lifted
    encoding: scene-linear
    to_scene_reference: !<MatrixTransform>
      {matrix: [0.5, 0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0.5, 0, 0, 0, 0, 1],
       offset: [0.125, 0.125, 0.125, 0]}
"""
# Said to be scene-linear, and bent all the same.
_BENT = """  - !<ColorSpace>
    name: bent
    encoding: scene-linear
    to_scene_reference: !<ExponentTransform> {value: 1.25, style: mirror}
"""
# Bent, and nothing is left of what is negative.
_CLIPPED = """  - !<ColorSpace>
    name: clipped
    encoding: scene-linear
    to_scene_reference: !<ExponentTransform> {value: 1.25}
"""
_GREEN_FIRST = """  - !<ColorSpace>
    name: green first
    aliases: [Linear GRB]
    encoding: scene-linear
    to_scene_reference: !<MatrixTransform>
      {matrix: [0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}
"""
_GREY = """  - !<ColorSpace>
    name: grey
    encoding: scene-linear
    to_scene_reference: !<MatrixTransform>
      {matrix: [0.25, 0.5, 0.25, 0, 0.25, 0.5, 0.25, 0, 0.25, 0.5, 0.25, 0, 0, 0, 0, 1]}
"""
_REC709 = "  - !<ColorSpace> {name: Linear Rec.709, encoding: scene-linear}\n"


def text_of(scene="flat", spaces="", more=""):
    """Return a config whose reference is nothing in particular."""
    return _HEAD.format(scene=scene, more=more) + spaces


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """Return a folder of configs.

    ``aces.ocio`` says by its role that its reference is ACES2065-1, ``named.ocio`` by a space's
    name that it is Linear Rec.709, ``silent.ocio`` says nothing. ``broken.ocio`` is no config.
    """
    folder = tmp_path_factory.mktemp("configs")
    spaces = _LIFTED + _BENT + _CLIPPED + _GREEN_FIRST + _GREY
    written = {
        "aces.ocio": text_of("green first", spaces, ", aces_interchange: flat"),
        "named.ocio": text_of("green first", spaces + _REC709),
        "silent.ocio": text_of("flat", spaces),
        "broken.ocio": "ocio_profile_version: 2\nroles: [",
        "empty.ocio": "",
    }
    for name, text in written.items():
        (folder / name).write_text(text)
    return folder
