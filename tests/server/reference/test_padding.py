# SPDX-License-Identifier: Apache-2.0
"""Lengths and mirrored padding against the table made by the public code."""

import json

import pytest

from gencomp_server.parts.windows import padded_length, source_index


@pytest.fixture(scope="module")
def table(reference_folder):
    return json.loads((reference_folder / "f_temporal_padding.json").read_text(encoding="utf-8"))


def test_every_clip_has_the_length_of_the_public_code_up_to_where_that_cuts(table):
    for name, rows in table["length_table"].items():
        _, window, longest = name.split("_")
        for frames, length in rows:
            if frames <= int(longest):
                found = padded_length(frames, int(window), even_latents=True)
                assert found == length, (name, frames)


def test_a_clip_beyond_the_public_codes_longest_is_not_cut(table):
    for name, rows in table["length_table"].items():
        _, window, longest = name.split("_")
        for frames, _ in rows:
            if frames > int(longest):
                assert padded_length(frames, int(window), even_latents=True) >= frames


def test_every_padded_frame_shows_the_frame_that_the_public_code_shows(table):
    name = next(key for key in table if key.startswith("source_index"))
    window, longest = (int(part) for part in name.split("_")[-2:])
    for clip, indices in table[name].items():
        frames = int(clip)
        assert frames <= longest
        length = padded_length(frames, window, even_latents=True)
        assert list(source_index(frames, length)) == indices, frames
