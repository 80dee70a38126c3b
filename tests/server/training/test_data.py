# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_server.colour.modelrange import ModelRange, encode
from gencomp_server.training.data import (
    Cut,
    DiskClips,
    cut_of,
    read_captions,
)
from gencomp_server.training.layout import clip_at, read_clips, write_clip, write_picture
from gencomp_server.training.procedural import ProceduralClips, ProceduralSet

from .conftest import FRAMES, SIZE

WHOLE = Cut(0, FRAMES, SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips of three frames on disk, one of them unpaired."""
    place = tmp_path_factory.mktemp("clips")
    light = {"original": 0.4, "fg": 0.3, "background": 0.2}
    for name, unpaired in (("boat", False), ("dream", True)):
        clip = clip_at(place, name, (7, 8, 9), caption=f"A {name}.", unpaired=unpaired)
        for layer in clip.layers:
            for at, path in enumerate(clip.files(layer)):
                channels = 1 if layer == "matte" else 3
                value = 0.5 if layer == "matte" else light[layer] + at * 0.1
                write_picture(path, np.full((32, 48, channels), value, np.float32))
        write_clip(place, clip)
    return place


def test_clips_come_from_disk_as_codes(folder):
    layers = DiskClips(read_clips(folder)).load(0, Cut(0, 3, SIZE))
    assert layers.original.shape == (3, 32, 48, 3)
    light = np.array([0.4, 0.5, 0.6], np.float32)
    assert layers.original[:, 0, 0, 0] == pytest.approx(encode(light), abs=1e-4)
    assert layers.matte[1, 0, 0, 0] == 0.5
    assert layers.captions == ("A boat.",)


def test_the_subject_goes_over_the_background_in_light_not_in_codes(folder):
    layers = DiskClips(read_clips(folder)).load(0, Cut(0, 1, SIZE))
    light = np.float32(0.3 + 0.5 * 0.2)
    assert layers.over[0, 0, 0, 0] == pytest.approx(float(encode(light)), abs=1e-4)


def test_an_unpaired_clip_is_a_picture_and_a_caption(folder):
    layers = DiskClips(read_clips(folder)).load(1, Cut(0, 3, SIZE))
    assert layers.unpaired
    assert layers.background is None
    assert layers.captions == ("A dream.",)


def test_what_is_made_smaller_is_averaged_as_light_as_a_job_does():
    checks = np.zeros((4, 4, 3), np.float32)
    checks[::2, ::2] = checks[1::2, 1::2] = 0.8
    made = cut_of(checks, Cut(0, 1, (1, 1)), ModelRange())
    assert made.ravel() == pytest.approx(float(encode(np.float32(0.4))), abs=1e-4)


def test_a_clip_too_short_is_played_forwards_and_backwards(folder):
    original = DiskClips(read_clips(folder)).load(0, Cut(0, 5, SIZE)).original
    assert np.array_equal(original[3], original[2])
    assert np.array_equal(original[4], original[1])


def test_captions_of_a_file_stand_beside_the_clips_own(folder, tmp_path):
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"boat": ["Another boat.", "A third."]}))
    clips = DiskClips(read_clips(folder), read_captions(file))
    assert clips.captions(0) == ("A boat.", "Another boat.", "A third.")
    assert clips.identity != DiskClips(read_clips(folder)).identity


def test_captions_for_a_clip_that_is_not_there_are_refused(folder):
    with pytest.raises(BadKnob, match="'ship', which is not there"):
        DiskClips(read_clips(folder), {"ship": ("A ship.",)})


@pytest.mark.parametrize("text", ["[", "[]", '{"boat": []}', '{"boat": ["x", 3]}'])
def test_a_file_that_holds_no_captions_is_refused(text, tmp_path):
    file = tmp_path / "captions.json"
    file.write_text(text)
    with pytest.raises(BadKnob, match="captions"):
        read_captions(file)


def test_a_cut_has_the_shape_of_the_size_and_lies_where_it_says():
    assert Cut(0, 1, (48, 32)).box(300, 100) == (75, 0, 225, 100)
    assert Cut(0, 1, (48, 32), 0.5, 0, 1).box(300, 100) == (0, 50, 75, 100)
    assert Cut(0, 1, (48, 32), 1.0, 1, 0).box(300, 400) == (0, 0, 300, 200)


def test_procedural_clips_are_the_same_every_time_and_differ_from_each_other(clips):
    again = ProceduralClips(clips.made).load(0, WHOLE)
    assert np.array_equal(again.original, clips.load(0, WHOLE).original)
    assert not np.array_equal(again.original, clips.load(1, WHOLE).original)
    assert ProceduralClips(replace(clips.made, seed=2)).identity != clips.identity


def test_a_procedural_clip_has_its_layers_and_the_last_ones_are_unpaired(clips):
    assert [clips.load(i, WHOLE).unpaired for i in range(4)] == [False] * 3 + [True]


def test_with_two_figures_the_background_keeps_the_other_one(pair):
    assert pair.others is not None
    shows_other = np.abs(pair.background - pair.clean).max(axis=3, keepdims=True) > 0.02
    assert shows_other[pair.others > 0.9].mean() > 0.9


def test_without_effects_the_composite_is_the_original(paired):
    layers = paired.load(0, WHOLE)
    assert layers.pasted
    assert np.abs(layers.over - layers.original).max() < 2e-3
    assert not paired.load(1, WHOLE).pasted


def test_there_must_be_a_clip():
    with pytest.raises(BadKnob, match="0 procedural clips"):
        ProceduralClips(ProceduralSet(0, SIZE, FRAMES))
    with pytest.raises(BadKnob, match="no clip"):
        DiskClips([])
