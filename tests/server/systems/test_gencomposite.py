# SPDX-License-Identifier: Apache-2.0
"""GenComposite: what of an element and of a painted plate is delivered, and what is not computed.

The model is one that remembers what it was shown: its VAE keeps means of 8x8 pixels, and what it
makes is the composite as it came back, with something done to it that a test knows.
"""

import numpy as np
import pytest

from gencomp_protocol.errors import BadMatte, MissingInput
from gencomp_protocol.frames import Box, FrameRange
from gencomp_server.backbones import TINY
from gencomp_server.contract import Machine, check_request
from gencomp_server.parts.stack import over, ulp_distance
from gencomp_server.systems.gencomposite import SYSTEM

WIDTH, HEIGHT = 96, 64
CHEAP_STAGES = {"bounds", "gate", "body", "grain"}


def grey(light, alpha=None, *, size=(WIDTH, HEIGHT)):
    """Return a picture of one light; premultiplied where it has an alpha."""
    channels = [light] * 3 if alpha is None else [light * alpha] * 3 + [alpha]
    return np.full((size[1], size[0], len(channels)), channels, np.float16)


def textured(seed=0):
    """Return a plate with detail that a model of 48x32 cannot hold."""
    rng = np.random.default_rng(seed)
    return (0.3 + 0.05 * rng.standard_normal((HEIGHT, WIDTH, 3))).astype(np.float16)


def square(side=24, light=0.5, detail=0.0):
    """Return an element: an opaque square in a picture with four empty pixels around."""
    picture = np.zeros((side + 8, side + 8, 4), np.float32)
    rng = np.random.default_rng(1)
    picture[4:-4, 4:-4, :3] = light * (1 + detail * rng.standard_normal((side, side, 3)))
    picture[4:-4, 4:-4, 3] = 1
    return picture.astype(np.float16)


def centre(picture):
    """Return the centroid of an alpha, in pixels from the upper left corner: x, y."""
    alpha = picture[..., 3].astype(np.float64)
    ys, xs = np.mgrid[: alpha.shape[0], : alpha.shape[1]] + 0.5
    return (alpha * xs).sum() / alpha.sum(), (alpha * ys).sum() / alpha.sum()


@pytest.fixture
def remembers(painter):
    """Return a maker of models that make the composite as they saw it, changed by ``act``."""
    import torch

    def make(act=lambda composite, layers: composite):
        model = painter(of="tiny-gencompositor", window=49)
        encode, seen = model.encode, []

        def encoding(video, progress=None):
            seen.append(encode(video, progress))
            return seen[-1]

        def painting(layers):
            # Of every span the composite is encoded, and right after it what is masked of it.
            at = max(i for i, one in enumerate(seen) if torch.equal(one, layers["masked"]))
            return act(seen[at - 1].clone(), layers)

        model.encode, model.paint = encoding, painting
        return model

    return make


@pytest.fixture
def job_of(new_job, remembers):
    """Return a maker of jobs: a textured still as bg, a square of some frames as fg."""

    def make(frames=2, act=None, *, fg=None, fg_frames=None, bg=None):
        job, _ = new_job(system="gencomposite", frames=1)
        job.remove("bg")
        job.remove("fg")
        job.frames = FrameRange(1001, 1000 + frames)
        job.add("bg", 1001, textured() if bg is None else bg, cover="still")
        for n in fg_frames or range(1, frames + 1):
            job.add("fg", n, square() if fg is None else fg)
        job.backbone = remembers() if act is None else remembers(act)
        return job

    return make


def darker_where_asked(composite, layers):
    """Take half of every code away where the model may change the picture."""
    return composite - 0.5 * (composite + 1) * layers["mask"]


def blue_where_asked(composite, layers):
    """Make one blue of all that the model may change."""
    blue = composite.new_tensor([-0.6, -0.2, 0.8])[:, None, None]
    return composite * (1 - layers["mask"]) + blue * layers["mask"]


def darker_everywhere(composite, layers):
    """Take half of every code away."""
    return composite - 0.5 * (composite + 1)


# --- an element ----------------------------------------------------------------------------------


def test_when_the_model_gives_the_composite_back_then_the_element_is_the_artists_to_the_bit(job_of):
    job = job_of()
    made = job.run(steps=1)
    fg, bg = job.sent["fg", 1], job.sent["bg", 1001]
    for n in job.frames:
        element = made.layer("element")[n]
        assert element[16:48, 32:64].tobytes() == fg.tobytes()
        assert not made.layer("interaction")[n].any()
        result = made.layer("result")[n]
        outside = element[..., 3] == 0
        assert result[..., :3][outside].tobytes() == bg[outside].tobytes()
        assert (result[element[..., 3] == 1] == [0.5, 0.5, 0.5, 1]).all()


@pytest.mark.parametrize("half", [True, False], ids=["half", "float"])
def test_when_the_model_darkens_the_ground_then_it_is_a_layer_beneath_the_element(job_of, half):
    bg = textured() if half else textured().astype(np.float32)
    job = job_of(1, darker_where_asked, bg=bg)
    made = job.run(steps=1, harmonise=0.0, inflate=16.0, mask_grow=0)
    element, beneath = made.layer("element")[1001], made.layer("interaction")[1001]
    assert element[16:48, 32:64].tobytes() == job.sent["fg", 1].astype(bg.dtype).tobytes()
    ring = np.s_[24:40, 33:36]
    assert (beneath[ring][..., 3] > 0.2).all()
    assert not made.layer("effect")[1001][:2].any()
    result = made.layer("result")[1001]
    assert (result[ring][..., :3].astype(np.float32).mean()) < 0.7 * bg[ring].mean()


def test_when_layers_are_stacked_then_they_are_the_result_and_so_is_the_effect_alone(job_of):
    job = job_of(2, darker_where_asked)
    made = job.run(steps=1, alpha_style="natural", grain="match")
    bg = job.sent["bg", 1001]
    for n in job.frames:
        result = made.layer("result")[n][..., :3]
        alone = over(made.layer("effect")[n], bg).astype(np.float16)
        assert alone.tobytes() == result.tobytes()
        both = over(made.layer("element")[n], over(made.layer("interaction")[n], bg))
        assert int(ulp_distance(both.astype(np.float16), result).max()) <= 1
        untouched = made.layer("effect_matte")[n][..., 0] == 0
        assert result[untouched].tobytes() == bg[untouched].tobytes()


def test_when_grain_is_matched_then_what_is_generated_around_has_it_and_the_plate_its_own(job_of):
    rng = np.random.default_rng(1)
    grainy = (0.2 * (1 + rng.normal(0, 0.05, (192, 320, 3)))).astype(np.float16)
    job = job_of(1, blue_where_asked, bg=grainy, fg=square(64))
    knobs = {"steps": 1, "harmonise": 0.0, "inflate": 48.0, "mask_grow": 0}
    kept, matched = job.run(**knobs), job.run(**knobs, grain="match")
    assert matched.forwards == 0
    own = matched.layer("effect_matte")[1001][..., 0] == 0
    assert 0.3 < own.mean() < 0.9
    assert matched.layer("result")[1001][..., :3][own].tobytes() == grainy[own].tobytes()
    beside = np.s_[88:136, 210:234, 0]
    red = [made.layer("result")[1001][beside].astype(np.float32) for made in (kept, matched)]
    assert red[0].std() < 0.003
    assert red[1].std() == pytest.approx(0.01, rel=0.1)  # the plate's: a twentieth of 0.2


def test_gencompositor_figure_19_the_element_takes_the_light_of_the_scene(job_of):
    fg = square(detail=0.1)
    job = job_of(1, darker_everywhere, fg=fg)
    lit = job.run(steps=1).layer("element")[1001][22:42, 38:58]
    half = job.run(steps=1, harmonise=0.5)
    own = job.run(steps=1, harmonise=0.0)
    assert half.forwards == own.forwards == 0
    raw = own.layer("element")[1001][22:42, 38:58]
    assert raw.tobytes() == fg[6:26, 6:26].tobytes()
    gain = lit[..., :3].astype(np.float32) / raw[..., :3]
    # Half of the code of 0.5 is 0.104 of light; detail is multiplied, and stays.
    assert abs(float(gain.mean()) - 0.104 / 0.5) < 0.03
    assert gain.std() < 0.03
    assert (lit[..., 3] == 1).all()
    between = half.layer("element")[1001][22:42, 38:58, :3].astype(np.float32).mean()
    assert lit[..., :3].mean() < between < raw[..., :3].mean()


def test_when_the_element_is_generated_then_its_alpha_is_at_least_the_artists(job_of):
    job = job_of(1, darker_everywhere)
    made = job.run(steps=1, element_source="generated")
    mine = job.run(steps=1, element_source="mine")
    assert mine.forwards == 0
    alpha = made.layer("element")[1001][..., 3]
    assert (alpha >= mine.layer("element")[1001][..., 3]).all()
    inside = made.layer("result")[1001][24:40, 40:56, :3].astype(np.float32)
    assert abs(float(inside.mean()) - 0.104) < 0.03


# --- placement, told by the figures of the paper -------------------------------------------------


def test_gencompositor_figure_16_two_trajectories_lead_one_element_two_ways(job_of):
    job = job_of(5)
    down = job.run(steps=1, trajectory="30,20@1001; 30,44@1005")
    across = job.run(steps=1, trajectory="30,20@1001; 66,20@1005")
    for i, n in enumerate(job.frames):
        for made, path in ((down, (30, 20 + 6 * i)), (across, (30 + 9 * i, 20))):
            assert np.abs(np.subtract(centre(made.layer("element")[n]), path)).max() <= 0.25
            result, bg = made.layer("result")[n][..., :3], job.sent["bg", 1001]
            assert (result != bg).any(axis=2).sum() == 24 * 24


def test_gencompositor_figure_17_three_scales_make_three_sizes(job_of):
    job = job_of(1)
    for scale in ("0.5", "1", "1.5"):
        made = job.run(steps=1, trajectory="48,32@1001", scale=scale)
        area = made.layer("element")[1001][..., 3].astype(np.float64).sum()
        assert area == pytest.approx((24 * float(scale)) ** 2, rel=0.03)


def test_gencompositor_figure_20_two_elements_are_layers_of_their_own_and_hide_each_other(job_of):
    job = two_elements(job_of)
    made = job.run(steps=1, trajectory="plane: 40,32@1001 | bird: 50,32@1001")
    names = [layer for layer, n in made.pictures if n == 1001]
    own = ["element_plane", "interaction_plane", "element_bird", "interaction_bird"]
    assert names == ["result", "effect", "difference", "effect_matte", *own]
    result = made.layer("result")[1001]
    assert (result[30, 50, :3] == 0.125).all()  # the bird, in front
    assert (result[30, 31, :3] == 0.5).all()  # the plane, beside it
    bg = job.sent["bg", 1001]
    alone = over(made.layer("effect")[1001], bg).astype(np.float16)
    assert alone.tobytes() == result[..., :3].tobytes()
    stacked = bg.astype(np.float32)
    for name in ("interaction_plane", "element_plane", "interaction_bird", "element_bird"):
        stacked = over(made.layer(name)[1001], stacked)
    assert int(ulp_distance(stacked.astype(np.float16), result[..., :3]).max()) <= 1


def two_elements(job_of):
    """Return a job with a plane behind and a bird in front."""
    job = job_of(1)
    job.remove("fg")
    job.add("fg.plane", 1, square(24, 0.5))
    job.add("fg.bird", 1, square(12, 0.125))
    return job


def test_when_the_front_element_changes_then_only_it_is_painted_again(job_of):
    job = two_elements(job_of)
    first = job.run(steps=2, trajectory="plane: 40,32@1001 | bird: 50,32@1001")
    assert first.forwards == 4
    front = job.run(steps=2, trajectory="plane: 40,32@1001 | bird: 60,20@1001")
    assert front.forwards == 2
    plane = [one.layer("element_plane")[1001].tobytes() for one in (first, front)]
    assert plane[0] == plane[1]
    back = job.run(steps=2, trajectory="plane: 30,32@1001 | bird: 60,20@1001")
    assert back.forwards == 4


# --- what is not computed ------------------------------------------------------------------------


def test_when_an_element_bursts_in_a_long_plate_then_the_rest_is_untouched_and_costs_nothing(
    job_of,
):
    job = job_of(120, darker_where_asked, fg_frames=range(1, 37))
    made = job.run(steps=2, fg_start="1040")
    bg = job.sent["bg", 1001]
    result = made.layer("result")
    for n in job.frames:
        is_plate = result[n][..., :3].tobytes() == bg.tobytes()
        assert is_plate == (not 1040 <= n <= 1075)
        assert made.layer("effect")[n].any() == (1040 <= n <= 1075)
    assert made.ctx.figures["windows"] == 1
    assert made.forwards == made.ctx.figures["forwards"] == 2
    assert made.ctx.figures["elements"][0]["frames"] == "1040-1075"


def test_when_only_the_seed_changes_then_nothing_is_prepared_or_encoded_again(job_of):
    job = job_of(2)
    first = job.run(steps=1, seed=1)
    encoded = job.backbone.encoded
    other = job.run(steps=1, seed=2)
    assert (first.forwards, other.forwards) == (1, 1)
    assert job.backbone.encoded == encoded > 0


def test_when_an_element_is_empty_on_some_frames_then_the_plate_is_delivered_there(job_of):
    job = job_of(3)
    job.add("fg", 2, np.zeros((32, 32, 4), np.float16))
    made = job.run(steps=1)
    assert made.layer("element")[1001].any()
    assert made.layer("element")[1003].any()
    assert not made.layer("element")[1002].any()
    result = made.layer("result")[1002][..., :3]
    assert result.tobytes() == job.sent["bg", 1001].tobytes()


def test_when_an_element_is_hidden_on_every_frame_then_no_model_runs_and_it_is_said(job_of):
    job = job_of(2)
    job.add("holdout", 1001, np.ones((HEIGHT, WIDTH, 1), np.float16), cover="still")
    made = job.run(steps=1)
    assert made.forwards == job.backbone.encoded == 0
    assert "Element 'element' is seen on no frame, so nothing is done for it." in made.ctx.warnings
    for n in job.frames:
        assert made.layer("result")[n][..., :3].tobytes() == job.sent["bg", 1001].tobytes()


def test_when_a_clip_is_longer_than_49_frames_then_windows_cover_it(job_of):
    job = job_of(60, fg_frames=range(1, 61))
    made = job.run(steps=1)
    assert made.ctx.figures["windows"] == made.forwards == 2
    assert all(made.layer("element")[n].any() for n in job.frames)


def test_when_there_is_no_prompt_then_guidance_costs_nothing(job_of):
    job = job_of(1)
    assert job.run(steps=2, guidance=6.0).forwards == 2
    assert job.run(steps=2, guidance=6.0, prompt="a ship").forwards == 4
    assert job.run(steps=2, guidance=1.0, prompt="a boat").forwards == 2


def test_when_two_elements_are_painted_then_the_front_one_is_painted_into_what_the_back_one_made(
    job_of,
):
    import torch

    shown = []

    def white_where_asked(composite, layers):
        shown.append(layers["masked"].clone())
        return torch.where(layers["mask"] > 0, torch.ones_like(composite), composite)

    job = two_elements(lambda frames: job_of(frames, white_where_asked))
    job.run(steps=1, region="whole frame", trajectory="plane: 24,32@1001 | bird: 80,32@1001")
    back, front = (one[0, 0, 0].numpy() for one in shown)
    assert back[1, 1] == -1  # nothing is behind the plane, and its place is blanked
    assert front[1, 1] > 0.9  # the plane as it was painted, where the bird is not
    assert front[1, 3] == back[1, 3]


# --- what holds out ------------------------------------------------------------------------------


def test_when_something_stands_in_front_then_it_stays_the_plate_to_the_bit(job_of):
    job = job_of(1, darker_where_asked)
    tree = np.zeros((HEIGHT, WIDTH, 1), np.float16)
    tree[:, 40:56] = 1
    job.add("holdout", 1001, tree, cover="still")
    made = job.run(steps=1)
    bg, result = job.sent["bg", 1001], made.layer("result")[1001][..., :3]
    assert result[:, 40:56].tobytes() == bg[:, 40:56].tobytes()
    assert made.layer("element")[1001][30, 37, 3] == 1
    assert not (job.backbone.layers["mask"][0, 0, 0] == 1).all()


def test_when_limit_and_protect_are_drawn_then_nothing_gets_past_them_and_no_model_runs(job_of):
    job = job_of(1, darker_everywhere)
    job.run(steps=1)
    limit = np.zeros((HEIGHT, WIDTH, 1), np.float16)
    limit[:32] = 1
    job.add("limit", 1001, limit, cover="still")
    made = job.run(steps=1)
    assert made.forwards == 0
    assert {row.name for row in made.ctx.rows if not row.reused} <= CHEAP_STAGES
    for layer in ("element", "interaction", "effect", "difference"):
        assert made.layer(layer)[1001][:32].any()
        assert not made.layer(layer)[1001][32:].any()
    bg = job.sent["bg", 1001][32:]
    assert made.layer("result")[1001][32:, :, :3].tobytes() == bg.tobytes()


def test_when_protect_leaves_no_place_then_it_is_refused_before_a_model_runs(job_of):
    job = job_of(1)
    job.add("protect", 1001, np.ones((HEIGHT, WIDTH, 1), np.float16), cover="still")
    with pytest.raises(BadMatte, match="protect leaves no place around any element"):
        job.run(steps=1)
    assert job.backbone.encoded == 0


def test_when_origin_is_asked_for_then_an_elements_pixels_are_of_its_own_clip(job_of):
    job = job_of(1, darker_where_asked, fg_frames=[7])
    made = job.run(steps=1, origin=True, inflate=16.0)
    origin = made.layer("origin")[1001]
    assert (origin[..., :4].sum(axis=2) == 1).all()
    assert (origin[24:40, 40:56, 2] == 1).all()
    assert (origin[24:40, 40:56, 4] == 7).all()
    assert origin[24:40, 33:35, 1].mean() > 0.5  # a shadow is the plate under a gain
    result, bg = made.layer("result")[1001][..., :3], job.sent["bg", 1001]
    same = (result == bg).all(axis=2)
    assert ((origin[..., 0] == 1) == same).all()


def test_when_depth_is_nearer_than_the_element_then_that_stays_in_front(job_of):
    job = job_of(2)
    depth = np.full((HEIGHT, WIDTH, 1), 10.0, np.float32)
    depth[:, 40:56] = 4.0
    job.add("depth", 1001, depth, cover="still")
    made = job.run(steps=1, element_depth="20@1001; 5@1002", harmonise=0.0)
    for n, share in ((1001, 0), (1002, 24 * 6)):  # at 20 all is nearer, at 5 sixteen columns are
        whole = (made.layer("element")[n][..., 3] == 1).sum()
        assert whole == share
    again = job.run(steps=1, element_depth="2")
    assert (again.layer("element")[1001][..., 3] == 1).sum() == 24 * 24


# --- plates as they come -------------------------------------------------------------------------


def test_when_the_plate_has_bad_samples_then_they_stay_and_spoil_nothing(job_of):
    bg = textured()
    bg[30, 33] = np.nan
    bg[5, 5] = np.inf
    job = job_of(1, darker_where_asked, bg=bg)
    made = job.run(steps=1, inflate=16.0)
    result = made.layer("result")[1001]
    assert np.isnan(result[30, 33, :3].astype(np.float32)).all()
    assert np.isinf(result[5, 5, :3].astype(np.float32)).all()
    assert np.isfinite(result.astype(np.float32)).sum() == result.size - 6
    for layer in ("element", "interaction", "effect", "difference"):
        assert np.isfinite(made.layer(layer)[1001].astype(np.float32)).all()


def test_when_the_plate_is_cropped_then_the_element_is_whole_and_the_window_grows_to_hold_it(
    job_of,
):
    job = job_of(1, darker_where_asked)
    whole = Box(0, 0, WIDTH - 1, HEIGHT - 1)
    data = Box(0, 0, WIDTH - 1, 29)
    job.add("bg", 1001, textured()[:30], cover="still", display_window=whole, data_window=data)
    made = job.run(steps=1)
    element = made.pictures["element", 1001]
    assert element.data_window == Box(0, 0, WIDTH - 1, 43)
    assert (element.pixels[..., 3] == 1).sum() == 24 * 24
    assert not made.layer("interaction")[1001][30:, :34].any()


def test_when_the_plate_has_overscan_then_it_is_the_plates_own(job_of):
    job = job_of(1, darker_where_asked)
    rng = np.random.default_rng(3)
    wide = rng.random((HEIGHT + 8, WIDTH + 8, 3)).astype(np.float16)
    whole = Box(0, 0, WIDTH - 1, HEIGHT - 1)
    data = Box(-4, -4, WIDTH + 3, HEIGHT + 3)
    job.add("bg", 1001, wide, cover="still", display_window=whole, data_window=data)
    made = job.run(steps=1)
    result = made.pictures["result", 1001]
    assert result.data_window == data
    for rim in (np.s_[:4], np.s_[-4:], np.s_[:, :4], np.s_[:, -4:]):
        assert result.pixels[rim][..., :3].tobytes() == wide[rim].tobytes()


def test_when_alpha_is_natural_then_what_hides_the_plate_around_the_element_has_a_body(job_of):
    def fog(composite, layers):
        return composite + 0.7 * (0.5 - composite) * layers["mask"]

    job = job_of(1, fog, bg=stripes())
    least = job.run(steps=1, inflate=24.0)
    natural = job.run(steps=1, inflate=24.0, alpha_style="natural")
    assert natural.forwards == 0
    low, high = (one.layer("interaction")[1001][..., 3].mean() for one in (least, natural))
    assert high > low
    alone = over(natural.layer("effect")[1001], job.sent["bg", 1001]).astype(np.float16)
    assert alone.tobytes() == natural.layer("result")[1001][..., :3].tobytes()


def stripes():
    """Return a plate whose detail is as coarse as a VAE of 8x8 means can hold."""
    rows = np.where(np.arange(HEIGHT) // 16 % 2, 0.05, 0.3)
    return np.broadcast_to(rows[:, None, None], (HEIGHT, WIDTH, 3)).astype(np.float16)


# --- other tasks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["box", "two", "stripe"])
def test_gencompositor_figure_11_removal_takes_any_mask_and_leaves_the_rest(job_of, shape):
    import torch

    bg = textured()
    bg[24:40, 40:56] = 4.0
    remove = np.zeros((HEIGHT, WIDTH, 1), np.float16)
    remove[24:40, 40:56] = 1
    if shape == "two":
        remove[8:20, 8:20] = 1
    elif shape == "stripe":
        remove[30:34] = 1
    job = job_of(1, lambda composite, layers: torch.full_like(composite, 0.1), bg=bg)
    job.remove("fg")
    job.add("remove", 1001, remove, cover="still")
    made = job.run(steps=1, mask_grow=0)
    result = made.layer("result")[1001]
    assert {layer for layer, _ in made.pictures} == {
        "result",
        "effect",
        "difference",
        "effect_matte",
    }
    inside = result[26:38, 42:54, :3].astype(np.float32)
    assert abs(float(inside.mean()) - 0.262) < 0.03  # code 0.55
    assert made.ctx.figures["task"] == "removal"
    assert made.layer("effect")[1001][26:38, 42:54, 3].min() == 1
    if shape == "box":
        assert result[:12, :, :3].tobytes() == bg[:12].tobytes()


def test_when_the_element_stands_in_bg_then_only_its_colour_changes(job_of):
    bg = textured()
    bg[20:44, 36:60] = 0.5
    matte = np.zeros((HEIGHT, WIDTH, 1), np.float16)
    matte[20:44, 36:60] = 1
    job = job_of(2, darker_everywhere, bg=bg)
    job.remove("fg")
    job.add("fg_matte", 1001, matte, cover="still")
    made = job.run(steps=1)
    assert made.ctx.figures["task"] == "harmonise only"
    covered = matte[..., 0] == 1
    for n in job.frames:
        result = made.layer("result")[n]
        assert result[..., :3][~covered].tobytes() == bg[~covered].tobytes()
        assert abs(float(result[28:36, 44:52, :3].astype(np.float32).mean()) - 0.104) < 0.03
    assert ("interaction", 1001) not in made.pictures
    own = job.run(steps=1, harmonise=0.0)
    assert own.layer("result")[1001][..., :3].tobytes() == bg.tobytes()


def test_when_fg_is_in_place_then_harmonise_only_moves_nothing_and_touches_nothing_else(job_of):
    whole = np.zeros((HEIGHT, WIDTH, 4), np.float16)
    whole[20:44, 36:60] = [0.5, 0.5, 0.5, 1]
    job = job_of(1, darker_everywhere, fg=whole)
    made = job.run(steps=1, task="harmonise only")
    element = made.layer("element")[1001]
    assert ((element[..., 3] == 1) == (whole[..., 3] == 1)).all()
    bg, outside = job.sent["bg", 1001], whole[..., 3] == 0
    assert made.layer("result")[1001][..., :3][outside].tobytes() == bg[outside].tobytes()


def test_when_nothing_is_placed_then_what_would_place_it_is_said_to_be_idle(job_of):
    job = job_of(1)
    job.remove("fg")
    whole = np.ones((HEIGHT, WIDTH, 1), np.float16)
    for name in ("remove", "holdout", "depth"):
        job.add(name, 1001, whole, cover="still")
    said = job.run(steps=1, trajectory="3,4; 5,6", inflate=3.0).ctx.warnings
    assert "Input 'holdout' is not used in a removal; protect keeps what must stay." in said
    assert "Input 'depth' is not used, because no fg is placed." in said
    assert [one for one in said if one.startswith("Knob")] == [
        "Knob 'trajectory' has no effect, because no fg is placed."
    ]


# --- from the header alone -----------------------------------------------------------------------


def test_when_there_is_nothing_to_do_then_it_is_refused_by_name(job_of):
    job = job_of(1)
    job.remove("fg")
    with pytest.raises(MissingInput, match="needs fg or remove beside bg"):
        check_request(SYSTEM, job.request())
    for task, lacks in (("composite", "no fg"), ("removal", "remove is not connected")):
        with pytest.raises(MissingInput, match=lacks):
            check_request(SYSTEM, job.request(task=task))


def test_when_an_element_lives_for_a_second_then_a_plan_counts_that_alone(job_of):
    job = job_of(120, fg_frames=range(1, 37))
    knobs = {"backbone": TINY, "steps": 10}
    request = job.request(**knobs, fg_start="1040")
    assert SYSTEM.plan(with_format(request), Machine()).forwards == 10
    looped = job.request(**knobs, fg_after="loop")
    assert SYSTEM.plan(with_format(looped), Machine()).forwards == 30


def with_format(request):
    """Return a request whose inputs say how large they are."""
    from dataclasses import replace

    from gencomp_protocol.frames import Format

    sizes = {"bg": Format(WIDTH, HEIGHT), "fg": Format(32, 32)}
    entries = tuple(replace(one, format=sizes[one.name]) for one in request.inputs)
    return replace(request, inputs=entries)
