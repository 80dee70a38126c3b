# SPDX-License-Identifier: Apache-2.0
"""What the source's keys and values take, and which are kept."""

from gencomp_server.backbones import spec_named
from gencomp_server.parts.rounds import anchored_timesteps
from gencomp_server.parts.sourcekeys import kept_timesteps, key_bytes, spared

# 2 of keys and values, 42 blocks, 13 x 30 x 45 tokens, width 3072, 2 bytes.
ONE_STEP_OF_5B = 2 * 42 * 13 * 30 * 45 * 3072 * 2
WANTED = anchored_timesteps("shipped", 50)


def test_one_timestep_of_49_frames_in_cogvideox_5b_takes_nine_gigabytes():
    assert key_bytes(spec_named("cogvideox-5b"), 13, 60, 90, 2) == ONE_STEP_OF_5B == 9057484800


def test_timesteps_that_three_rounds_ask_for_are_kept_first():
    assert kept_timesteps(WANTED, 10, 25) == {619.0, 639.0}


def test_what_one_round_alone_asks_for_is_never_kept():
    assert kept_timesteps(WANTED, 1, 1000) == {float(t) for t in range(619, 780, 20)}


def test_without_room_for_one_nothing_is_kept():
    assert kept_timesteps(WANTED, 10, 9) == frozenset()


def test_with_room_for_all_an_edit_is_spared_the_source_of_every_later_round():
    assert len(WANTED) == 15 + 9 + 4
    assert spared(WANTED, kept_timesteps(WANTED, 1, 1000)) == 9 + 4


def test_without_room_it_is_spared_nothing():
    assert spared(WANTED, frozenset()) == 0
