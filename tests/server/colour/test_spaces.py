# SPDX-License-Identifier: Apache-2.0
"""Which space a name is: spellings, configs, and what is refused with its cure."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.colour.spaces import REC709, check_space, processors, resolve

SERVER = Path(__file__).parents[3] / "server"
CG = "ocio://cg-config-v2.1.0_aces-v1.3_ocio-v2.3"
STUDIO = "ocio://studio-config-v2.1.0_aces-v1.3_ocio-v2.3"
# To Linear Rec.709, as published to five decimals: AP1 and AP0 adapted by Bradford, P3 at D65.
PUBLISHED = {
    "ACEScg": (
        *(1.70505, -0.62179, -0.08326),
        *(-0.13026, 1.14080, -0.01055),
        *(-0.02400, -0.12897, 1.15297),
    ),
    "ACES2065-1": (
        *(2.52169, -1.13413, -0.38756),
        *(-0.27648, 1.37272, -0.09624),
        *(-0.01538, -0.15298, 1.16835),
    ),
    "linear p3": (
        *(1.22494, -0.22494, 0.0),
        *(-0.04206, 1.04206, 0.0),
        *(-0.01964, -0.07864, 1.09827),
    ),
}
REQUEST = Request("x", FrameRange(1, 1), (InputHeader("plate", (1,)),))


def refusal(working_space, ocio=""):
    with pytest.raises(BadKnob) as raised:
        resolve(working_space, str(ocio))
    return raised.value


@pytest.mark.parametrize(
    "name", ["scene_linear", "", "linear", "Linear Rec.709 (sRGB)", "linear rec.709", "lin_rec709"]
)
def test_without_a_config_the_usual_names_are_linear_rec709(name):
    assert resolve(name) == REC709
    assert resolve(name).is_rec709


@pytest.mark.parametrize("name", ["scene_linear", "linear"])
def test_for_linear_rec709_neither_opencolorio_nor_numpy_is_loaded(name):
    code = (
        f"import sys; sys.path[:0] = [{str(SERVER)!r}, {str(SERVER.parent / 'protocol')!r}]; "
        f"from gencomp_server.colour.spaces import resolve; resolve({name!r}); "
        "print(*sys.modules.keys() & {'PyOpenColorIO', 'numpy'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("ACEScg", "ACEScg"),
        ("acescg", "ACEScg"),
        ("ACES - ACEScg", "ACEScg"),
        ("scene_linear (ACES - ACEScg)", "ACEScg"),
        ("ACES/ACES - ACEScg", "ACEScg"),
        ("ACES2065-1", "ACES2065-1"),
        ("aces 2065-1", "ACES2065-1"),
        ("AP0", "ACES2065-1"),
        ("linear p3", "Linear P3-D65"),
        ("Linear P3-D65", "Linear P3-D65"),
        ("Utility - Linear - Rec.709", "Linear Rec.709 (sRGB)"),
        ("linear rec.2020", "Linear Rec.2020"),
    ],
)
def test_a_space_is_found_however_it_is_spelt(name, own):
    assert resolve(name).name == own
    assert resolve(name, STUDIO).name == own


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("config", ["", STUDIO])
def test_the_matrix_to_rec709_is_the_published_one(name, config):
    assert resolve(name, config).matrix == pytest.approx(PUBLISHED[name], abs=6e-6)


def test_with_a_config_scene_linear_is_its_role(shelf):
    assert resolve("scene_linear", CG).name == "ACEScg"
    assert resolve("scene_linear", str(shelf / "named.ocio")).name == "green first"


def test_a_config_that_names_linear_rec709_is_understood_without_roles(shelf):
    found = resolve("Linear GRB", str(shelf / "named.ocio"))
    assert found.matrix == (0, 1, 0, 1, 0, 0, 0, 0, 1)


def test_a_config_with_the_interchange_role_is_understood(shelf):
    assert resolve("flat", str(shelf / "aces.ocio")).matrix == pytest.approx(
        PUBLISHED["ACES2065-1"], abs=6e-6
    )


@pytest.mark.parametrize("name", ["lifted", "bent"])
def test_what_is_no_matrix_is_left_to_opencolorio(shelf, name):
    assert resolve(name, str(shelf / "named.ocio")).matrix is None


def test_opencolorio_takes_a_lifted_space_to_its_reference_and_back(shelf):
    there, back = processors(resolve("lifted", str(shelf / "named.ocio")))
    assert there.applyRGB([1.0, 3.0, -1.0]) == pytest.approx([0.625, 1.625, -0.375])
    assert back.applyRGB([0.625, 1.625, -0.375]) == pytest.approx([1.0, 3.0, -1.0])


def test_another_config_is_another_identity_even_for_the_same_space():
    identities = {resolve("ACEScg", config).identity for config in ("", CG, STUDIO)}
    assert len(identities) == 2
    assert REC709.identity not in {resolve("linear rec.709", CG).identity, *identities}


def test_a_config_is_read_again_when_its_file_changed(tmp_path, shelf):
    file = tmp_path / "config.ocio"
    file.write_text((shelf / "named.ocio").read_text())
    before = resolve("scene_linear", str(file))
    file.write_text(file.read_text().replace("scene_linear: green first", "scene_linear: flat"))
    after = resolve("scene_linear", str(file))
    assert (before.name, after.name) == ("green first", "flat")
    assert before.identity != after.identity


def test_a_manifest_names_the_config_without_its_folder(shelf):
    said = resolve("scene_linear", str(shelf / "named.ocio")).describe()
    assert said["config"] == "named.ocio"
    assert (said["asked"], said["working_space"]) == ("scene_linear", "green first")
    assert len(said["config_id"]) > 16
    assert str(shelf) not in str(said)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ACEScq", "ACEScg"),
        ("ACES 2065", "ACES2065-1"),
        ("linear rec709 srgb x", "Linear Rec.709 (sRGB)"),
        ("lin p3", "Linear P3-D65"),
    ],
)
def test_an_unknown_space_names_the_near_ones(name, near):
    error = refusal(name)
    assert f"'{name}' is not in the built-in config" in error.message
    assert error.hint.startswith("Near are: ")
    assert near in error.hint


def test_an_unknown_space_with_none_near_names_what_there_is(shelf):
    error = refusal("zzzzzz", shelf / "named.ocio")
    assert (
        error.hint == "There are: flat, lifted, bent, clipped, green first, grey, Linear Rec.709."
    )
    assert str(shelf / "named.ocio") in error.message


def test_linear_is_no_name_where_a_config_has_none_of_it():
    assert "Linear Rec.709 (sRGB)" in refusal("linear", CG).hint


@pytest.mark.parametrize(
    ("name", "kind"), [("ACEScct", "log"), ("Raw", "data"), ("sRGB - Display", "sdr-video")]
)
def test_a_space_that_is_not_light_is_refused_by_its_kind(name, kind):
    error = refusal(name)
    assert f"'{name}'" in error.message
    assert f"is not scene-linear ({kind})" in error.message


def test_a_config_that_does_not_parse_is_named_with_the_line(shelf):
    error = refusal("scene_linear", shelf / "broken.ocio")
    assert str(shelf / "broken.ocio") in error.message
    assert "line 2" in error.message
    assert error.details["knob"] == "ocio"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("missing.ocio", "cannot be opened (No such file or directory)"),
        ("empty.ocio", "is no file, is empty or is too large"),
        (".", "is no file, is empty or is too large"),
    ],
)
def test_what_is_no_config_is_named(shelf, config, said):
    error = refusal("scene_linear", shelf / config)
    assert said in error.message
    assert "--ocio" in error.hint


def test_a_config_is_a_whole_path():
    assert "is not a whole path" in refusal("scene_linear", "config.ocio").message


@pytest.mark.parametrize("name", ["default", "cg-config-latest", "cg-config-v2.1.0"])
def test_a_built_in_config_is_named_in_full(name):
    error = refusal("ACEScg", f"ocio://{name}")
    assert f"no built-in OCIO config '{name}'" in error.message
    assert CG in error.hint


def test_a_config_that_does_not_say_what_its_colours_are_is_refused(shelf):
    error = refusal("scene_linear", shelf / "silent.ocio")
    assert "no way to Linear Rec.709" in error.message
    assert "aces_interchange" in error.hint


def test_a_space_without_a_way_back_is_refused(shelf):
    assert "and back" in refusal("grey", shelf / "named.ocio").message


def test_srgb_codes_are_refused_in_another_space_than_rec709():
    coded = InputHeader("plate", (1,), colourspace="srgb")
    request = replace(REQUEST, inputs=(coded,))
    assert check_space(request) == REC709
    with pytest.raises(BadKnob, match="'plate' holds sRGB codes, but the working space is ACEScg"):
        check_space(replace(request, working_space="ACEScg"))
