# SPDX-License-Identifier: Apache-2.0
"""Clips for training on disk: what was written is read, and what is not whole is no clip."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gencomp_protocol.errors import BadName, BadPicture, MissingFrame, MissingInput
from gencomp_server.training.layout import (
    CLIP_FILE,
    PAIRED,
    _spelt,
    clip_at,
    read_clip,
    read_clips,
    read_picture,
    write_clip,
    write_picture,
)

FRAMES = (1001, 1002, 1004)


def written(folder, name="dog", **facts):
    """Write a clip whose picture of a layer and frame is one number of its own."""
    clip = clip_at(folder, name, FRAMES, **facts)
    for at, layer in enumerate(clip.layers):
        for i, path in enumerate(clip.files(layer)):
            channels = 1 if layer == "matte" else 3
            value = (at + 1) / 8 + i / 64
            write_picture(path, np.full((4, 6, channels), value, np.float16), pixel_aspect=2.0)
    write_clip(folder, clip)
    return clip


def test_a_clip_comes_back_as_it_was_written(tmp_path):
    clip = written(
        tmp_path,
        caption="A dog runs.",
        working_space="ACEScg",
        exposure=-1.5,
        made={"matte": "given", "background": "omnimatte, temporal"},
    )
    (found,) = read_clips(tmp_path)
    assert found == clip
    assert found.frames == FRAMES
    assert found.layers == PAIRED


def test_a_picture_comes_back_sample_for_sample(tmp_path):
    clip = written(tmp_path)
    assert read_picture(clip.original[2]).tolist() == np.full((4, 6, 3), 0.15625).tolist()
    assert read_picture(clip.matte[0]).tolist() == np.full((4, 6, 1), 0.375).tolist()
    assert read_picture(clip.background[1]).dtype == np.float32


def test_light_above_one_and_below_nothing_is_kept(tmp_path):
    clip = clip_at(tmp_path, "bright", (1,))
    light = np.array([[[-0.25, 0.0, 57.125]]], np.float32)
    write_picture(clip.original[0], light)
    assert read_picture(clip.original[0]).tobytes() == light.tobytes()


def test_files_lie_where_the_layout_says(tmp_path):
    written(tmp_path)
    found = sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*.exr"))
    assert len(found) == 12
    assert found[0] == "dog/background/background.1001.exr"
    assert (tmp_path / "dog" / "caption.txt").read_text() == "\n"


def test_an_unpaired_clip_has_a_plate_alone(tmp_path):
    written(tmp_path, unpaired=True, caption="Waves.")
    (found,) = read_clips(tmp_path)
    assert found.unpaired
    assert found.layers == ("original",)
    assert (found.fg, found.matte, found.background) == ((), (), ())
    assert len(found.original) == 3


def test_clips_come_by_name_and_what_is_not_whole_is_left_out(tmp_path):
    for name in ("b", "a", "c"):
        written(tmp_path, name)
    (tmp_path / "b" / CLIP_FILE).unlink()
    (tmp_path / "notes.txt").write_text("")
    assert [one.name for one in read_clips(tmp_path)] == ["a", "c"]


def test_a_clip_whose_picture_is_gone_is_refused_by_layer_and_frame(tmp_path):
    clip = written(tmp_path)
    clip.fg[1].unlink()
    with pytest.raises(MissingFrame, match="Clip 'dog' lacks fg on frames 1002"):
        read_clips(tmp_path)


def test_a_clip_is_not_said_to_be_whole_before_it_is(tmp_path):
    clip = clip_at(tmp_path, "dog", FRAMES)
    with pytest.raises(MissingFrame, match="lacks original on frames 1001-1002, 1004"):
        write_clip(tmp_path, clip)
    assert not (tmp_path / "dog").exists()


def test_a_folder_without_clips_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingInput, match="There is no clip for training in"):
            read_clips(folder)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('frames = "1001-1002, 1004"', 'frames = "soon"', "entry 'frames' is wrong"),
        ('frames = "1001-1002, 1004"', 'frames = ""', "entry 'frames' is empty"),
        ("version = 1", "version = 2", "is of version 2, not 1"),
        ("version = 1", "version = true", "entry 'version' is missing or wrong"),
        ("unpaired = false", "unpaired = 0", "entry 'unpaired' is missing or wrong"),
        ("exposure = 0.0", "", "entry 'exposure' is missing or wrong"),
        ("version = 1", "version = ", "cannot be read"),
    ],
)
def test_a_spoilt_clip_file_is_refused_by_its_entry(tmp_path, before, after, sentence):
    written(tmp_path)
    file = tmp_path / "dog" / CLIP_FILE
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(BadPicture, match=sentence):
        read_clip(tmp_path / "dog")


def test_a_picture_of_another_layer_is_refused(tmp_path):
    clip = written(tmp_path)
    clip.matte[0].replace(clip.original[0])
    with pytest.raises(BadPicture, match="is not a picture of the layer original"):
        read_picture(clip.original[0])


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a b", "a/b", "x" * 65])
def test_a_name_that_no_file_system_should_carry_is_refused(tmp_path, name):
    with pytest.raises(BadName, match="cannot be the name of a clip"):
        clip_at(tmp_path, name, FRAMES)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_any_text_comes_back_from_a_clip_file(text):
    from gencomp_server.training.layout import tomllib

    assert tomllib.loads(f"key = {_spelt(text)}")["key"] == text


def test_reading_the_list_of_clips_loads_no_library_of_pictures_or_models(tmp_path):
    written(tmp_path)
    code = (
        "import sys; from pathlib import Path; from gencomp_server.training.layout import"
        f" read_clips; read_clips(Path({str(tmp_path)!r}));"
        "print([one for one in ('torch', 'cv2', 'OpenImageIO', 'numpy') if one in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
