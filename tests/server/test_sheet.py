# SPDX-License-Identifier: Apache-2.0
"""The contact sheet: what it shows and where."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from gencomp_protocol.errors import UnwritableOutput
from gencomp_protocol.frames import Box, FrameRange
from gencomp_protocol.layers import ORIGIN_CHANNELS
from gencomp_protocol.request import InputHeader
from gencomp_server.cli import _compared
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer
from gencomp_server.sheet import (
    OVER_CHECKERS,
    Files,
    Row,
    Shown,
    caution_of,
    compose_sheet,
    display,
    draw_delivery,
    pick_frames,
    read_ahead,
    show_alpha,
    show_on_grey,
    show_over_checkers,
    thumbnail,
    thumbnails,
    write_sheet,
)
from gencomp_server.sources import Gathered, Source

WINDOW = Box(0, 0, 63, 31)
# sRGB of mid grey 0.18, IEC 61966-2-1: 0.4613561; an 8-bit step is 0.0039.
GREY_SRGB = 0.4613561


def flat(value, channels=3, window=WINDOW, display_window=WINDOW):
    pixels = np.full((window.height, window.width, channels), value, np.float32)
    return Shown(pixels, display_window, window)


def test_five_columns_are_first_quarters_and_last():
    assert pick_frames(list(range(1001, 1026))) == [1001, 1007, 1013, 1019, 1025]


@pytest.mark.parametrize(("count", "picks"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3])])
def test_a_short_shot_shows_each_frame_once(count, picks):
    assert pick_frames(list(range(1, count + 1))) == picks


def test_grey_is_shown_as_srgb_shows_it():
    shown = display(np.full((1, 1, 3), 0.18, np.float32))
    np.testing.assert_allclose(shown, GREY_SRGB, atol=1e-6)


def test_highlights_roll_off_without_reaching_white_and_in_order():
    values = np.array([0.7, 0.9, 1.0, 2.0, 3.0], np.float32)
    shown = display(np.repeat(values[None, :, None], 3, axis=2))[0, :, 0]
    assert np.all(np.diff(shown) > 0)
    assert shown[-1] < 1.0


def test_a_coloured_light_keeps_its_proportions():
    # 8 : 4 : 2 stays 4 : 2 : 1 in scene-linear; the brightest is led to 1.
    shown = display(np.array([[[8.0, 4.0, 2.0]]], np.float32))[0, 0]
    linear = ((shown + 0.055) / 1.055) ** 2.4
    np.testing.assert_allclose(linear / linear[0], [1.0, 0.5, 0.25], atol=1e-5)


def test_light_below_zero_is_shown_black():
    assert display(np.full((1, 1, 3), -0.5, np.float32)).max() == 0.0


def test_a_thumbnail_is_the_mean_of_its_area():
    shown = flat(0.0)
    shown.pixels[:, ::2] = 1.0
    rgba, _ = thumbnail(shown, (16, 8))
    np.testing.assert_allclose(rgba[..., 0], 0.5, atol=1e-6)


def test_what_the_data_window_leaves_open_is_transparent():
    rgba, _ = thumbnail(flat(0.5, window=Box(32, 0, 63, 31)), (64, 32))
    assert rgba[:, :32, 3].max() == 0.0
    assert rgba[:, 32:, 3].min() == 1.0


def test_what_lies_outside_the_display_window_is_not_shown():
    rgba, _ = thumbnail(flat(0.5, window=Box(-16, -16, 79, 47)), (64, 32))
    assert rgba.shape == (32, 64, 4)
    np.testing.assert_allclose(rgba[..., :3], 0.5)


def test_nan_is_shown_in_magenta_and_spoils_nothing_else():
    shown = flat(0.18)
    shown.pixels[0, 0] = np.nan
    picture = show_over_checkers(*thumbnail(shown, (64, 32)))
    assert tuple(picture[0, 0]) == (255, 0, 255)
    assert tuple(picture[0, 1]) == (118, 118, 118)


def test_a_transparent_layer_shows_two_greys_of_checkers():
    picture = show_over_checkers(*thumbnail(flat(0.0, channels=4), (64, 32)))
    assert len(np.unique(picture)) == 2


def test_alpha_is_shown_as_it_is_without_a_curve():
    shown = flat(0.5, channels=4)
    assert np.unique(show_alpha(*thumbnail(shown, (64, 32)))).tolist() == [128]


def test_a_layer_row_has_its_alpha_below():
    rows = [Row("plate", lambda n: flat(0.18))]
    alone = compose_sheet("t", rows, [1])
    layered = compose_sheet(
        "t", [*rows, Row("ball", lambda n: flat(0.2, channels=4), OVER_CHECKERS)], [1]
    )
    # 336 x 168 for the layer, half of that for its alpha, and a gap of 10 each.
    assert layered.shape[0] - alone.shape[0] == 168 + 10 + 84 + 10
    assert layered.shape[1] == alone.shape[1]


def test_what_an_untrained_model_made_is_marked_in_the_heading():
    rows = [Row("plate", lambda n: flat(0.18))]
    marked = caution_of({"backbone": {"name": "tiny", "untrained": True}})
    assert marked == "untrained model: pictures mean nothing"
    assert caution_of({"backbone": {"name": "casper", "untrained": False}}) == ""
    assert caution_of({"backbone": None}) == caution_of({}) == ""
    plain, sheet = compose_sheet("t", rows, [1]), compose_sheet("t", rows, [1], marked)
    assert sheet.shape[0] - plain.shape[0] == 26
    line = sheet[42:62]
    assert (line.max(axis=2) > line.min(axis=2) + 100).any()  # in a colour of its own
    assert not (line[:, -28:] != 26).any()  # and not cut off at the right


def test_an_anamorphic_plate_is_shown_in_its_true_shape():
    squeezed = Shown(np.zeros((32, 32, 3), np.float32), Box(0, 0, 31, 31), Box(0, 0, 31, 31), 2.0)
    sheet = compose_sheet("t", [Row("plate", lambda n: squeezed)], [1])
    square = compose_sheet("t", [Row("plate", lambda n: flat(0.1))], [1])
    assert sheet.shape == square.shape


def test_pictures_are_read_one_at_a_time_and_once_a_column():
    asked = []

    def read(frame):
        asked.append(frame)
        return flat(0.1, channels=4)

    compose_sheet(
        "t", [Row("plate", lambda n: flat(0.1)), Row("a", read, OVER_CHECKERS)], [1, 2, 3]
    )
    assert asked == [1, 2, 3]


def test_pictures_are_read_ahead_in_their_order_and_three_at_most():
    asked = []

    def row(name):
        def read(frame):
            asked.append(f"{name}{frame}")
            return Shown(np.full((1, 1, 3), frame, np.float32), Box(0, 0, 0, 0), Box(0, 0, 0, 0))

        return Row(name, read)

    with ThreadPoolExecutor(1) as readers:
        first, second = read_ahead([row("a"), row("b")], [1, 2], readers)
        shown = [first.read(1).pixels[0, 0, 0]]
        readers.submit(int).result()
        assert asked == ["a1", "a2", "b1"]
        shown += [one.pixels[0, 0, 0] for one in (first.read(2), second.read(1), second.read(2))]
    assert shown == [1, 2, 1, 2]
    assert asked == ["a1", "a2", "b1", "b2"]


def test_a_picture_is_reduced_to_several_sizes_as_to_each_alone():
    pixels = np.random.default_rng(1).uniform(0, 1, (32, 64, 4)).astype(np.float16)
    pixels[3, 5, 1] = np.inf
    shown = Shown(pixels, WINDOW, WINDOW)
    for made, size in zip(thumbnails(shown, (16, 8), (8, 4)), [(16, 8), (8, 4)], strict=True):
        alone = thumbnail(shown, size)
        assert [one.tobytes() for one in made] == [one.tobytes() for one in alone]
        assert made[1].sum() == 1


def test_coverage_alone_stands_for_all_four_channels():
    half = Shown(np.full((32, 32, 1), 0.5, np.float16), WINDOW, Box(0, 0, 31, 31))
    rgba, _ = thumbnail(half, (64, 32))
    assert (rgba[:, :32] == 0.5).all()
    assert not rgba[:, 32:].any()


def test_a_sheet_is_written_whole(tmp_path):
    write_sheet(tmp_path / "sheet.png", np.zeros((4, 4, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert (tmp_path / "sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_sheet_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(UnwritableOutput, match=r"sheet\.png"):
        write_sheet(tmp_path / "missing" / "sheet.png", np.zeros((4, 4, 3), np.uint8))


def test_a_matte_is_shown_as_grey_beside_layers_and_a_result(tmp_path):
    window = {"display_window": WINDOW, "data_window": WINDOW}
    pictures = {
        "plate": (np.full((32, 64, 3), 0.18, np.float16), ("R", "G", "B")),
        "result": (np.full((32, 64, 4), 0.18, np.float16), ("R", "G", "B", "A")),
        "effect_matte": (np.full((32, 64, 1), 0.5, np.float16), ("A",)),
    }
    files = {}
    for name, (pixels, channels) in pictures.items():
        path = tmp_path / f"{name}.exr"
        write_layer(path, LayerFrame(name, 1001, pixels, channels, **window))
        files[name] = Files({1001: path}, is_matte=channels == ("A",))
    plate = files.pop("plate")
    draw_delivery(tmp_path / "sheet.png", "job", [1001], plate, files)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    middle = sheet[:, 28 + 170 + 168]
    assert (np.ptp(middle.astype(int), axis=1) == 0).all()  # a grey delivery has no colour
    assert np.isin([118, 128], middle[:, 0]).all()  # the plate's 0.18 as sRGB, the matte's half


def test_a_difference_that_takes_light_is_darker_than_grey_and_one_that_gives_is_brighter():
    taken, none, given = (
        int(show_on_grey(*thumbnail(flat(value), (64, 32)))[0, 0, 0]) for value in (-0.1, 0.0, 0.1)
    )
    assert taken < none == 118 < given


def test_a_plate_of_other_primaries_is_shown_in_those_of_a_monitor(tmp_path):
    path = tmp_path / "plate.exr"
    window = {"display_window": WINDOW, "data_window": WINDOW}
    pixels = np.tile(np.float16([0.18, 0.0, 0.0]), (32, 64, 1))
    write_layer(path, LayerFrame("plate", 1001, pixels, ("R", "G", "B"), **window))
    red_is_blue = (0, 0, 0, 0, 0, 0, 1, 0, 0)
    plate = Files({1001: path})
    draw_delivery(tmp_path / "sheet.png", "job", [1001], plate, {}, to_rec709=red_is_blue)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert tuple(sheet[74 + 80, 28 + 170 + 168]) == (118, 0, 0)  # blue, green, red


def written(folder, name, frame, pixels, channels):
    path = folder / f"{name}.{frame}.exr"
    picture = LayerFrame(name, frame, pixels, channels, WINDOW, WINDOW)
    write_layer(path, picture)
    return path


def drawn_sheet(folder, plate, layers, frames=(1001,), **more):
    draw_delivery(folder / "sheet.png", "job", list(frames), plate, layers, **more)
    return cv2.imread(str(folder / "sheet.png"))[..., ::-1]


def test_a_foreground_is_shown_over_its_background(tmp_path):
    fg = np.zeros((32, 64, 4), np.float16)
    fg[:, :32] = (0.18, 0.0, 0.0, 1.0)
    bg = np.full((32, 64, 3), 0.18, np.float16)
    front = written(tmp_path, "fg", 1001, fg, ("R", "G", "B", "A"))
    back = written(tmp_path, "bg", 1001, bg, ("R", "G", "B"))
    plate = Files({1001: front}, under=Files({1001: back}))
    sheet = drawn_sheet(tmp_path, plate, {}, label="fg over bg")
    assert tuple(sheet[74 + 80, 198 + 80]) == (118, 0, 0)
    assert tuple(sheet[74 + 80, 198 + 250]) == (118, 118, 118)


def test_what_was_drawn_is_a_small_row_and_says_of_which_frame_it_is(tmp_path):
    plate = written(tmp_path, "plate", 1001, np.zeros((32, 64, 3), np.float16), ("R", "G", "B"))
    roto = written(tmp_path, "roto", 1001, np.full((32, 64, 1), 0.5, np.float16), ("A",))
    still = {"effect_mask": Files({1001: roto}, is_matte=True)}
    painted = {"effect_mask": Files({1001: roto}, is_matte=True, is_still=False)}
    bare = drawn_sheet(tmp_path, Files({1001: plate}), {}, (1001, 1002))
    sheet = drawn_sheet(tmp_path, Files({1001: plate}), {}, (1001, 1002), drawn=still)
    assert sheet.shape[0] - bare.shape[0] == 84 + 10  # half of 168, and a gap
    top, second = 74 + 168 + 10, 198 + 346
    assert (sheet[top : top + 84, 198 : 198 + 168] == 128).all()
    assert (sheet[top : top + 84, second + 178 :] == 26).all()
    marked = drawn_sheet(tmp_path, Files({1001: plate}), {}, (1001, 1002), drawn=painted)
    assert (marked[top : top + 84, 198 + 178 : 198 + 336] == 26).all()  # its own frame
    assert (marked[top : top + 84, second + 178 :] > 100).any()


def test_an_origin_layer_is_shown_in_false_colour(tmp_path):
    plate = written(tmp_path, "plate", 1001, np.zeros((32, 64, 3), np.float16), ("R", "G", "B"))
    shares = np.zeros((32, 64, 5), np.float32)
    for column in range(4):  # plate, gain, other, generated
        shares[:, 16 * column : 16 * column + 16, column] = 1.0
    origin = written(tmp_path, "origin", 1001, shares, ORIGIN_CHANNELS)
    sheet = drawn_sheet(tmp_path, Files({1001: plate}), {"origin": Files({1001: origin})})
    line = sheet[74 + 168 + 10 + 84]
    seen = [tuple(map(int, line[198 + 84 * column + 42])) for column in range(4)]
    assert seen == [(0, 0, 0), (64, 112, 255), (64, 200, 64), (255, 48, 32)]


def test_a_result_is_compared_with_the_plate_or_with_the_foreground_over_the_background(tmp_path):
    def named(*names):
        headers = [InputHeader(name, (1001,)) for name in names]
        sources = [Source(one, {1001: tmp_path / f"{one.name}.exr"}, "exr") for one in headers]
        return Gathered(FrameRange(1001, 1001), tuple(sources), ())

    label, files = _compared(named("fg", "bg", "keep"))
    assert (label, files.paths[1001].name) == ("fg over bg", "fg.exr")
    assert files.under.paths[1001].name == "bg.exr"
    label, files = _compared(named("fg", "bg", "plate"))
    assert (label, files.paths[1001].name, files.under) == ("plate", "plate.exr", None)
    label, files = _compared(named("fg", "bg"), laid_over=False)
    assert (label, files.paths[1001].name, files.under) == ("bg", "bg.exr", None)


def test_whatever_was_named_first_a_result_is_compared_with_its_background(tmp_path):
    headers = [InputHeader(name, (1001,)) for name in ("fg.plane", "fg_matte.plane", "bg")]
    sources = [Source(one, {1001: tmp_path / f"{one.name}.exr"}, "exr") for one in headers]
    label, files = _compared(Gathered(FrameRange(1001, 1001), tuple(sources), ()))
    assert (label, files.paths[1001].name) == ("bg", "bg.exr")
