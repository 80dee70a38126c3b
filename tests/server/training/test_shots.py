# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_server.training.shots import (
    ProceduralShot,
    ShotSpec,
    load_spec,
    over,
    spec_as_toml,
    spec_from,
)

SHOTS = Path(__file__).parents[2] / "shots"
SMALL = ShotSpec(seed=11, width=320, height=192, frames=4)


@pytest.fixture(scope="module")
def shot():
    return ProceduralShot(SMALL)


@pytest.fixture(scope="module")
def pair():
    return ProceduralShot(ShotSpec(seed=5, width=320, height=192, frames=2, objects=2))


def test_plate_is_the_layers_over_the_clean_plate_bit_for_bit(pair):
    below = over(pair.layer("b", 1002), pair.clean_plate(1002))
    assert np.array_equal(over(pair.layer("a", 1002), below), pair.plate(1002))


def test_layer_is_the_object_over_its_effects(shot):
    below = np.zeros((192, 320, 4), np.float32)
    for effect in shot.effect_layers("a", 1002).values():
        below = over(effect, below)
    assert np.array_equal(shot.layer("a", 1002), over(shot.object_layer("a", 1002), below))


def test_the_same_spec_gives_the_same_bits_in_any_order_of_frames():
    first, second = ProceduralShot(SMALL), ProceduralShot(SMALL)
    second.plate(1004)
    second.plate(1001)
    assert np.array_equal(first.plate(1003), second.plate(1003))


def test_another_seed_gives_another_place_and_another_walk(shot):
    other = ProceduralShot(ShotSpec(seed=12, width=320, height=192, frames=4))
    assert np.abs(shot.clean_plate(1001) - other.clean_plate(1001)).mean() > 0.02
    assert not np.array_equal(shot.matte("a", 1001), other.matte("a", 1001))


def test_a_shadow_takes_light_and_adds_none(shot):
    shadow = shot.effect_layers("a", 1002)["shadow"]
    assert np.all(shadow[..., :3] == 0.0)
    assert 0.3 < shadow[..., 3].max() <= 0.62


def test_every_effect_is_there_and_alphas_stay_within_zero_and_one(shot):
    effects = shot.effect_layers("a", 1003)
    assert set(effects) == {"shadow", "reflection", "smoke"}
    for layer in [*effects.values(), shot.layer("a", 1003)]:
        assert layer[..., 3].min() >= 0.0
        assert layer[..., 3].max() <= 1.0
        assert (layer[..., 3] > 0.05).sum() > 200


def test_effects_that_are_not_asked_for_are_not_there():
    lone = ProceduralShot(ShotSpec(seed=11, width=320, height=192, frames=1, effects=()))
    assert lone.effect_layers("a", 1001) == {}
    assert np.array_equal(lone.layer("a", 1001), lone.object_layer("a", 1001))


def test_a_moving_edge_is_blurred_over_six_pixels_or_more():
    alpha = ProceduralShot(ShotSpec(frames=8)).object_layer("a", 1005)[..., 3]
    soft = (alpha > 0.02) & (alpha < 0.98)
    runs = np.diff(np.pad(soft, ((0, 0), (1, 1))).astype(int), axis=1)
    longest = (np.nonzero(runs == -1)[1] - np.nonzero(runs == 1)[1]).max()
    assert longest >= 6


def test_grain_has_the_sigma_that_was_asked_for():
    quiet = ProceduralShot(ShotSpec(seed=3, width=320, height=192, frames=1, grain=0.0))
    grainy = ProceduralShot(ShotSpec(seed=3, width=320, height=192, frames=1, grain=0.005))
    difference = grainy.clean_plate(1001) - quiet.clean_plate(1001)
    assert float(difference.std()) == pytest.approx(0.005, rel=0.03)


def test_grain_of_the_plate_is_not_the_clean_plates_where_the_object_is_opaque(shot):
    opaque = shot.object_layer("a", 1002)[..., 3] == 1.0
    quiet = ProceduralShot(ShotSpec(seed=11, width=320, height=192, frames=4, grain=0.0))
    ours = (shot.plate(1002) - quiet.plate(1002))[opaque].ravel()
    below = (shot.clean_plate(1002) - quiet.clean_plate(1002))[opaque].ravel()
    assert abs(float(np.corrcoef(ours, below)[0, 1])) < 0.1


def test_the_lamp_has_the_value_that_was_asked_for():
    lit = ProceduralShot(ShotSpec(width=320, height=192, frames=1, grain=0.0, highlight=8.0))
    assert lit.clean_plate(1001).max() == pytest.approx(8.0, abs=0.3)


def test_a_matte_is_the_objects_alpha_over_a_half_without_effects(shot):
    matte = shot.matte("a", 1002, 0, 0)
    inside = shot.object_layer("a", 1002)[..., 3:] > 0.5
    assert matte.shape == (192, 320, 1)
    assert np.array_equal(matte, inside.astype(np.float32))


def test_a_grown_matte_holds_the_true_one_and_an_eroded_one_lies_inside_it(shot):
    true = shot.matte("a", 1002, 0, 0)
    assert np.all(shot.matte("a", 1002, 2, 0) >= true)
    assert np.all(shot.matte("a", 1002, -2, 0) <= true)
    assert shot.matte("a", 1002, 2, 0).sum() > true.sum() > shot.matte("a", 1002, -2, 0).sum()


def test_shadows_of_two_figures_meet_only_when_they_are_to_cross():
    def shared(crossing):
        spec = ShotSpec(seed=7, objects=2, effects=("shadow",), crossing_shadows=crossing)
        made = ProceduralShot(spec)
        a, b = (made.effect_layers(name, 1020)["shadow"][..., 3] for name in ("a", "b"))
        return int(((a > 0.02) & (b > 0.02)).sum())

    assert shared(crossing=False) == 0
    assert shared(crossing=True) > 200


def test_a_panning_camera_moves_both_planes_alike_and_a_hand_held_one_does_not():
    panning = ProceduralShot(ShotSpec(seed=2, width=320, height=192, frames=2)).scenery
    swaying = ProceduralShot(ShotSpec(seed=2, width=320, height=192, frames=2, handheld=True))
    assert panning.parallax == 1.0
    assert swaying.scenery.parallax == 0.55


def test_a_frame_outside_the_shot_is_refused(shot):
    with pytest.raises(KeyError, match="frame 1005"):
        shot.plate(1005)


def test_every_spec_file_can_be_read():
    assert load_spec(SHOTS / "standard.toml") == ShotSpec()
    assert load_spec(SHOTS / "two_crossing.toml").crossing_shadows
    assert load_spec(SHOTS / "handheld.toml").handheld


def test_a_spec_survives_being_written_as_toml(tmp_path):
    spec = ShotSpec(seed=3, effects=("smoke",), pan=(-1.5, 0.0), handheld=True)
    (tmp_path / "shot.toml").write_text(spec_as_toml(spec))
    assert load_spec(tmp_path / "shot.toml") == spec


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sede": 1}, "Did you mean 'seed'"),
        ({"objects": 3}, "objects = 3"),
        ({"effects": ["rain"]}, "effects"),
        ({"width": "wide"}, "width = 'wide'"),
        ({"seed": True}, "seed = True"),
        ({"pan": [1.0]}, "pan"),
    ],
)
def test_a_wrong_spec_is_refused_and_the_key_is_named(values, said):
    with pytest.raises(BadKnob, match=said):
        spec_from(values)


def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path):
    (tmp_path / "bad.toml").write_text("seed = = 1")
    with pytest.raises(BadKnob, match=r"bad\.toml"):
        load_spec(tmp_path / "bad.toml")


def test_a_written_shot_reads_back_as_half_floats_under_its_frame_numbers(tmp_path):
    oiio = pytest.importorskip("OpenImageIO")
    from gencomp_server.training.shots import write_shot

    spec = ShotSpec(seed=11, width=64, height=48, frames=1)
    write_shot(spec, tmp_path)
    written = oiio.ImageInput.open(str(tmp_path / "plate" / "plate.1001.exr"))
    assert str(written.spec().format) == "half"
    pixels = written.read_image("half")
    written.close()
    expected = ProceduralShot(spec).plate(1001).astype(np.float16)
    assert np.array_equal(np.asarray(pixels), expected)
    assert (tmp_path / "matte_a" / "matte_a.1001.exr").is_file()
    assert (tmp_path / "truth" / "a" / "a.1001.exr").is_file()
