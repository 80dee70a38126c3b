# SPDX-License-Identifier: Apache-2.0
"""parts/cleanplate.py, background.py and gather.py: objects and effects go, the plate stays."""

import cv2
import numpy as np
import pytest

from gencomp_server.colour.modelrange import encode
from gencomp_server.parts import gather
from gencomp_server.parts.cleanplate import CleanPlateSettings, gather_frame, plan_clean_plate
from gencomp_server.parts.fit import from_model_frame
from gencomp_server.parts.gather import gather_sources

WIDTH, HEIGHT, GRAIN = 160, 96, 0.004
# Scene-linear error that grain and half a tenth of a pixel of miss explain at most, on average.
CLOSE = 0.006


def ground(width=WIDTH, height=HEIGHT, seed=3):
    """Return a scene-linear texture [H,W,3] around 0.3."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for size in (1.5, 4.0, 10.0):
        noise = rng.standard_normal((height, width, 3)).astype(np.float32)
        picture += cv2.GaussianBlur(noise, (0, 0), size) * size
    return (0.3 * np.exp(0.2 * picture)).astype(np.float32)


class Shot:
    """A block that walks right over still or panned ground, with a shadow below it."""

    def __init__(self, frames=10, pan=0.0, walk=12, shadow=0.6, start=8, gains=None):
        self.frames = tuple(range(1001, 1001 + frames))
        self.pan, self.walk, self.shadow, self.start = pan, walk, shadow, start
        self.gains = gains or [1.0] * frames
        self.scene = ground(WIDTH + 80)

    def clean(self, n):
        t = n - 1001
        move = np.array([[1.0, 0.0, -20.0 - self.pan * t], [0.0, 1.0, 0.0]])
        seen = cv2.warpAffine(self.scene, move, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
        return seen * np.float32(self.gains[t])

    def block(self, n):
        left = self.start + self.walk * (n - 1001)
        return np.s_[30:60, left : left + 16]

    def shade(self, n):
        left = self.start + self.walk * (n - 1001)
        return np.s_[60:70, left : left + 22]

    def plate(self, n):
        rng = np.random.default_rng(n)
        picture = self.clean(n)
        picture[self.shade(n)] *= self.shadow
        picture[self.block(n)] = (0.7, 0.1, 0.05)
        return picture + GRAIN * rng.standard_normal(picture.shape).astype(np.float32)

    def covered(self, n):
        matte = np.zeros((HEIGHT, WIDTH), np.bool_)
        matte[self.block(n)] = True
        return matte

    def rows(self, frame, y0, y1):
        return self.plate(frame)[y0:y1]

    def make(self, n, settings=None, painted=None):
        plan = plan_clean_plate(self.frames, self.plate, self.covered, settings, painted)
        rows = None if painted is None else lambda f, a, b: painted[f][a:b]
        return plan, gather_frame(plan, n, self.rows, (WIDTH, HEIGHT), rows)


def test_the_object_is_gone_and_the_ground_behind_it_is_there():
    shot = Shot()
    plan, made = shot.make(1004)

    assert np.abs(made - shot.clean(1004))[shot.block(1004)].mean() < CLOSE
    assert plan.never_seen_share.max() == 0.0


def test_the_shadow_that_walks_along_is_gone_too():
    shot = Shot()
    plan, made = shot.make(1004)

    assert np.abs(made - shot.clean(1004))[shot.shade(1004)].mean() < CLOSE
    # The matte's margin takes the rows next to the block.
    assert plan.suspected[3][64:70, 44:66].mean() > 0.9


def test_a_panned_camera_is_followed():
    shot = Shot(pan=1.7)
    _, made = shot.make(1006)

    off = np.abs(made - shot.clean(1006))
    assert off[shot.block(1006)].mean() < 1.5 * CLOSE
    assert off[4:-4, 4:-4].mean() < 1.5 * CLOSE


def test_an_exposure_that_drifts_is_met_in_every_frame():
    shot = Shot(gains=[1.0 + 0.03 * t for t in range(10)])
    plan, made = shot.make(1002)

    inside = shot.block(1002)
    assert (made[inside].mean() / shot.clean(1002)[inside].mean()) == pytest.approx(1.0, abs=0.01)
    ratios = plan.gains[:, 0] * np.array(shot.gains)
    assert ratios == pytest.approx(np.full(10, ratios[0]), rel=0.005)


def test_with_one_source_every_pixel_of_a_still_shot_is_some_frames_own():
    shot = Shot()
    _, made = shot.make(1005, CleanPlateSettings(samples=1, keep_unsteady=False))

    frames = np.stack([shot.plate(n) for n in shot.frames])
    found = (frames == made).all(axis=-1).any(axis=0)
    assert found[20:80, 20:140].mean() > 0.98


def test_averaging_five_frames_lowers_the_grain_to_below_six_tenths():
    shot = Shot()
    _, made = shot.make(1005)

    quiet = np.s_[4:24, 4:-4]
    assert (made - shot.clean(1005))[quiet].std() < 0.6 * GRAIN


def test_a_shot_of_one_frame_fills_what_it_never_saw_and_says_so():
    shot = Shot(frames=1, start=60)
    plan, made = shot.make(1001)

    assert plan.never_seen[0][shot.block(1001)].all()
    assert plan.never_seen_share[0] == pytest.approx(plan.never_seen[0].mean())
    assert np.isfinite(made).all()
    assert np.abs(made - (0.7, 0.1, 0.05)).sum(axis=-1)[shot.block(1001)].min() > 0.1


def test_a_shot_of_one_frame_is_its_own_clean_plate_away_from_the_object():
    shot = Shot(frames=1, start=60)
    _, made = shot.make(1001)

    assert np.array_equal(made[:, :50], shot.plate(1001)[:, :50])
    assert np.array_equal(made[:, 90:], shot.plate(1001)[:, 90:])


def test_a_shot_of_two_frames_takes_each_hole_from_the_other():
    shot = Shot(frames=2, walk=40, start=30)
    plan, made = shot.make(1001)

    assert plan.never_seen_share.max() == 0.0
    assert np.abs(made - shot.clean(1001))[shot.block(1001)].mean() < CLOSE


def test_what_stands_still_is_filled_alike_in_every_frame_so_that_it_cannot_flicker():
    shot = Shot(walk=0, start=60, shadow=1.0)
    plan = plan_clean_plate(shot.frames, shot.plate, shot.covered)

    first, last = (gather_frame(plan, n, shot.rows, (WIDTH, HEIGHT)) for n in (1001, 1010))

    assert plan.never_seen[:, 40, 66].all()
    assert np.array_equal(first[shot.block(1001)], last[shot.block(1001)])


def test_the_shadow_of_what_stands_still_is_filled_and_counted_as_never_seen():
    shot = Shot(walk=0, start=60, shadow=0.3)
    plan, made = shot.make(1005)

    assert plan.never_seen[4][shot.shade(1005)].mean() > 0.9
    assert made[shot.shade(1005)].mean() > 0.8 * shot.clean(1005)[shot.shade(1005)].mean()


@pytest.mark.fault("F08")
def test_nan_and_infinity_in_the_plate_reach_no_clean_plate():
    shot = Shot()
    clean_plate = shot.plate

    def broken(n):
        picture = clean_plate(n)
        picture[20, 100:104], picture[80, 30] = np.nan, np.inf
        return picture

    shot.plate = broken
    plan = plan_clean_plate(shot.frames, broken, shot.covered)
    made = gather_frame(plan, 1003, shot.rows, (WIDTH, HEIGHT))

    assert np.isfinite(made).all()
    assert np.abs(made - shot.clean(1003))[16:24, 96:108].mean() < 3 * CLOSE


def test_a_highlight_of_eight_stays_a_highlight_and_throws_no_negative_ring():
    shot = Shot(pan=1.3)
    shot.scene[12:18, 120:126] = 8.0
    ringing = shot.plate
    shot.plate = lambda n: np.maximum(ringing(n), 0.0)
    _, made = shot.make(1005)

    assert made.max() > 6.0
    assert made.min() >= 0.0


def test_a_painted_frame_beats_the_median():
    shot = Shot()
    painted = {1004: shot.clean(1004) * np.float32(0.5)}
    settings = CleanPlateSettings(register_painted=False, keep_unsteady=False)
    _, made = shot.make(1004, settings, painted)

    assert np.abs(made - painted[1004]).max() < 1e-5


def test_a_painted_frame_goes_along_with_the_camera():
    shot = Shot(pan=2.0)
    painted = shot.clean(1001)
    painted[20:26, 90:96] = (0.0, 0.9, 0.0)
    _, made = shot.make(1004, CleanPlateSettings(keep_unsteady=False), {1001: painted})

    green = made[..., 1] - made[..., 0] > 0.4
    ys, xs = np.nonzero(green)
    # Three frames of two pixels: the world goes left.
    assert (xs.mean(), ys.mean()) == pytest.approx((92.5 - 6.0, 22.5), abs=0.3)


def test_a_painted_frame_that_lies_askew_is_registered_to_the_plate():
    shot = Shot()
    askew = np.roll(shot.clean(1004), (2, -3), axis=(0, 1))
    plan, made = shot.make(1004, CleanPlateSettings(keep_unsteady=False), {1004: askew})

    assert plan.painted[0].motion[:2, 2] == pytest.approx([-3.0, 2.0], abs=0.1)
    assert np.abs(made - shot.clean(1004))[shot.block(1004)].mean() < 2 * CLOSE


def test_painted_frames_without_their_rows_are_a_mistake_of_the_caller():
    shot = Shot(frames=3)
    painted = {1002: shot.clean(1002)}
    plan = plan_clean_plate(shot.frames, shot.plate, shot.covered, None, painted)

    with pytest.raises(ValueError, match="no rows of them"):
        gather_frame(plan, 1002, shot.rows, (WIDTH, HEIGHT))


def test_background_that_moves_by_itself_is_the_frames_own_away_from_the_objects():
    shot = Shot(frames=12, walk=2, start=4)
    still = shot.plate

    def with_waves(n):
        picture = still(n)
        waves = cv2.GaussianBlur(
            np.random.default_rng(n + 500).standard_normal((40, 70, 3)).astype(np.float32),
            (0, 0),
            3,
        )
        picture[50:90, 85:155] += waves
        return picture

    shot.plate = with_waves
    plan = plan_clean_plate(shot.frames, with_waves, shot.covered)
    made = gather_frame(plan, 1006, shot.rows, (WIDTH, HEIGHT))

    assert (plan.own[5][60:80, 100:140] == 255).all()
    assert np.array_equal(made[60:80, 100:140], with_waves(1006)[60:80, 100:140])


def test_a_plate_larger_than_the_model_is_gathered_where_it_lies():
    shot = Shot(pan=1.5)

    def large(n):
        return cv2.resize(shot.plate(n), (WIDTH * 3, HEIGHT * 3), interpolation=cv2.INTER_CUBIC)

    plan = plan_clean_plate(shot.frames, shot.plate, shot.covered)
    made = gather_frame(plan, 1004, lambda f, a, b: large(f)[a:b], (WIDTH * 3, HEIGHT * 3))

    truth = cv2.resize(shot.clean(1004), (WIDTH * 3, HEIGHT * 3), interpolation=cv2.INTER_CUBIC)
    assert made.shape == (HEIGHT * 3, WIDTH * 3, 3)
    assert np.abs(made - truth)[90:210, 60:420].mean() < 1.5 * CLOSE


def test_rows_are_asked_for_in_strips_of_a_large_plate():
    shot = Shot(frames=2, walk=40, start=30)
    size = (4096, 1024)
    asked = []

    def rows(frame, y0, y1):
        asked.append((y0, y1))
        return np.full((y1 - y0, size[0], 3), 0.5, np.float16)

    plan = plan_clean_plate(shot.frames, shot.plate, shot.covered)
    made = gather_frame(plan, 1001, rows, size)

    assert max(y1 - y0 for y0, y1 in asked) < 400
    assert np.abs(made - 0.5).max() < 1e-3


def test_the_same_shot_is_planned_to_the_same_bits():
    shot = Shot(frames=5, walk=20, pan=0.7)
    one, two = (plan_clean_plate(shot.frames, shot.plate, shot.covered) for _ in range(2))

    assert np.array_equal(one.grounds[0].sources, two.grounds[0].sources)
    assert np.array_equal(one.grounds[0].picture, two.grounds[0].picture)
    assert np.array_equal(one.own, two.own)


def test_progress_is_reported_in_order_and_may_stop_the_work():
    shot = Shot(frames=3)
    steps = []

    def report(step, total):
        steps.append((step, total))
        if len(steps) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan_clean_plate(shot.frames, shot.plate, shot.covered, progress=report)
    assert [step for step, _ in steps] == sorted(step for step, _ in steps)
    assert all(step <= total for step, total in steps)


def test_enlarging_coordinates_with_a_margin_is_exact_up_to_the_rim():
    columns, rows = np.meshgrid(np.arange(-1, 11), np.arange(-1, 7))
    small = np.stack([columns, rows], axis=-1).astype(np.float32)

    big = gather.enlarge(small, (70, 42), (0, 42, 0, 70), 1)

    across, down = np.meshgrid((np.arange(70) + 0.5) / 7 - 0.5, (np.arange(42) + 0.5) / 7 - 0.5)
    assert big[..., 0] == pytest.approx(across, abs=1e-5)
    assert big[..., 1] == pytest.approx(down, abs=1e-5)


def test_enlarging_a_part_is_that_part_of_the_whole():
    small = np.random.default_rng(0).random((9, 14, 2), dtype=np.float32)

    whole = gather.enlarge(small, (100, 63), (0, 63, 0, 100), 0)
    part = gather.enlarge(small, (100, 63), (20, 41, 33, 80), 0)

    assert np.array_equal(part, whole[20:41, 33:80])
    assert whole == pytest.approx(from_model_frame(small, (100, 63)), abs=1e-5)


def test_the_noise_that_is_told_is_the_grain_in_encoded_units():
    shot = Shot(frames=10)
    plan, _ = shot.make(1001)

    level = shot.clean(1001).mean()
    slope = (encode(np.float32([level + 1e-3])) - encode(np.float32([level]))) / 1e-3
    assert plan.sigma == pytest.approx(GRAIN * float(slope[0]), rel=0.3)


def test_sources_name_the_frames_that_showed_what_the_block_hides():
    shot = Shot()
    plan, _ = shot.make(1004)
    found = gather_sources(plan, 1004, (WIDTH, HEIGHT))
    hidden = shot.block(1004)
    assert (found.own[hidden] == 0).all()
    assert (found.other[hidden] == 1).all()
    assert set(np.unique(found.frame[hidden])) <= set(shot.frames) - {1004}
    # A mean of k samples, none of them interpolated far, holds 1/sqrt(k) of the grain or less.
    assert found.grain[hidden].max() <= 1.0
    assert found.grain[hidden].mean() < 0.8


def test_sources_of_a_painted_frame_are_that_frame_and_keep_its_grain():
    shot = Shot(frames=4)
    plan, _ = shot.make(1003, painted={1003: shot.clean(1003)})
    found = gather_sources(plan, 1003, (WIDTH, HEIGHT))
    hidden = shot.block(1003)
    assert (found.frame[hidden] == 1003).all()
    assert found.other[hidden].min() > 0.99
    assert (found.grain[hidden] == 1).all()


def test_what_no_frame_shows_comes_from_no_frame():
    shot = Shot(frames=3, walk=0)
    plan, _ = shot.make(1002)
    found = gather_sources(plan, 1002, (WIDTH, HEIGHT))
    middle = found.other[shot.block(1002)][8:22, 4:12]
    assert (middle == 0).all()


@pytest.mark.parametrize(("phase", "left"), [(0.0, 1.0), (1.0, 1.0), (0.5, 0.72265625)])
def test_interpolating_between_pixels_takes_this_much_off_white_grain(phase, left):
    # cv2's bicubic taps half way: -3/32, 19/32, 19/32, -3/32.
    assert gather._cubic_variance(np.array([phase]))[0] == pytest.approx(left, abs=1e-6)
