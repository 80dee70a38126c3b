# SPDX-License-Identifier: Apache-2.0
"""What a DynVFX job would cost, from its header alone."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gencomp_protocol.errors import BadKnob, OutOfMemory, WeightsMissing
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.backbones import spec_named
from gencomp_server.contract import Machine
from gencomp_server.cost import estimate
from gencomp_server.footprint import working_bytes
from gencomp_server.systems.dynvfx import SYSTEM

ROOT = Path(__file__).resolve().parents[3]
BIG = Machine("cuda:0", "a GPU", 80_000_000_000, 80_000_000_000, 300.0, ("cogvideox-5b",))


def request(frames=49, **knobs):
    """Return a job of a plate whose shape is the model's own: 720x480 inside."""
    span = FrameRange(1001, 1000 + frames)
    plate = InputHeader("plate", tuple(span), format=Format(1440, 960))
    return Request("dynvfx", span, (plate,), {"prompt": "a whale", **knobs})


def test_forwards_are_those_of_the_inversion_and_of_six_rounds():
    # 250 steps but the first; 189 steps with and without the prompt; 28 beside the plate.
    assert SYSTEM.plan(request(), BIG).forwards == 249 + 2 * 189 + 28


def test_without_guidance_half_of_the_rounds_is_saved():
    assert SYSTEM.plan(request(guidance=1), BIG).forwards == 249 + 189 + 28


def test_more_frames_than_the_model_sees_go_through_it_in_windows():
    one, two = (SYSTEM.plan(request(frames), BIG) for frames in (49, 50))
    assert two.forwards == 2 * one.forwards


def test_a_plan_says_who_finds_the_new_content_and_what_the_next_edit_saves():
    notes = SYSTEM.plan(request(change_from="difference"), BIG).notes
    assert notes[0] == "Where the new content is: where the picture changed."
    assert notes[1].startswith("249 of the forwards turn the plate into noise;")


def test_a_plan_names_the_segmenter_where_the_server_has_one():
    asked = request(target_object="the whale")
    there = replace(BIG, segmenter=True)
    assert SYSTEM.plan(asked, there).notes[0].endswith("the segmenter, looking for the whale.")
    assert SYSTEM.plan(asked, BIG).notes[0].endswith("where the picture changed.")


def test_a_segmenter_that_the_server_lacks_is_refused_before_any_picture_travels():
    with pytest.raises(BadKnob, match="this server has none"):
        SYSTEM.plan(request(change_from="segmenter", target_object="the whale"), BIG)


def test_the_first_round_alone_is_planned_alone():
    # 45 steps with and without the prompt, 15 of them beside the plate.
    assert SYSTEM.plan(request(last_round=1), BIG).forwards == 249 + 2 * 45 + 15


def test_edit_and_plate_lie_in_memory_together():
    one = estimate(spec_named("cogvideox-5b"), (720, 480), 49, steps=50, machine=BIG)
    each = working_bytes(spec_named("cogvideox-5b"), (720, 480), 13, "cuda:0")
    planned = SYSTEM.plan(request(), BIG).stage_bytes
    assert planned["sample"] == one.stage_bytes["sample"] + each
    assert planned["decode"] == one.stage_bytes["decode"]


def test_on_a_card_with_room_for_one_of_them_the_model_makes_room():
    plain = SYSTEM.plan(request(), BIG).stage_bytes["sample"]
    small = replace(BIG, memory_bytes=plain, free_bytes=plain)
    placed = SYSTEM.plan(request(), small)
    assert placed.placement["offload"] != "none"
    assert max(placed.stage_bytes.values()) <= plain


def test_memory_for_keys_and_values_is_counted_in_whole_noise_levels():
    # 2 x 42 blocks x 17550 tokens x 3072 x 2 bytes are 9.06 GB.
    plain, kept, none = (SYSTEM.plan(request(cached_keys_gb=budget), BIG) for budget in (0, 20, 9))
    assert kept.stage_bytes["sample"] - plain.stage_bytes["sample"] == 2 * 9_057_484_800
    assert none.stage_bytes == plain.stage_bytes
    # The two noise levels that three rounds meet: two forwards fewer for each.
    assert plain.forwards - kept.forwards == 4
    assert none.notes[2].startswith("Knob 'cached_keys_gb' is less than one noise level")


def test_more_memory_for_keys_than_there_is_is_refused_by_its_knob():
    with pytest.raises(OutOfMemory, match="'cached_keys_gb' keeps 72 GB"):
        SYSTEM.plan(request(cached_keys_gb=80), BIG)


def test_a_processor_is_told_how_long_the_whole_job_would_take():
    slow = Machine("cpu", "2 cores", 200_000_000_000, 200_000_000_000, 0.1)
    slow = replace(slow, backbones=("cogvideox-5b",))
    plan = SYSTEM.plan(request(backbone="cogvideox-5b"), slow)
    assert plan.minutes > 10_000
    assert any("On this processor it would take about" in note for note in plan.notes)


def test_without_weights_it_is_refused_by_what_is_missing():
    with pytest.raises(WeightsMissing, match="CogVideoX 5B, text to video"):
        SYSTEM.plan(request(), Machine())


def test_a_plan_loads_neither_a_model_library_nor_a_picture_library():
    code = (
        "import sys; sys.path[:0] = {roots!r}; "
        "import test_dynvfx_plan as t; t.SYSTEM.plan(t.request(), t.BIG); "
        "t.SYSTEM.check(t.request()); "
        "print([n for n in ('torch', 'cv2', 'OpenImageIO', 'diffusers') if n in sys.modules])"
    )
    rooms = [str(ROOT / room) for room in ("protocol", "server")]
    roots = [*rooms, str(Path(__file__).parent)]
    command = [sys.executable, "-c", code.format(roots=roots)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
