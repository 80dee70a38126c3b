# SPDX-License-Identifier: Apache-2.0
"""What a job costs before it runs: tokens, operations, memory, minutes, and where weights lie."""

from dataclasses import replace

import pytest

from gencomp_protocol.errors import OutOfMemory
from gencomp_protocol.frames import Format
from gencomp_server import cost, footprint
from gencomp_server.backbones import SPECS, model_size, spec_named
from gencomp_server.contract import Machine, Plan
from gencomp_server.cost import Placement, estimate, place

GB = 10**9
CASPER = spec_named("casper")
PREVIEW = spec_named("preview")
V11 = spec_named("cogvideox-fun-v1.1-5b-inp")
WAN = spec_named("wan-casper-1.3b")
GENCOMPOSITOR = spec_named("gencompositor")
TINY = spec_named("tiny")
H200 = Machine("cuda:0", "NVIDIA H200", 150 * GB, 149 * GB, 295.0)


def gpu(giga):
    return Machine("cuda:0", "a card", giga * GB, giga * GB, 100.0)


def frames_85(spec, size, **more):
    return estimate(spec, size, 85, **{"steps": 50, "machine": Machine("cuda:0"), **more})


@pytest.mark.parametrize(
    ("spec", "size", "tokens", "tera", "peta"),
    [
        pytest.param(CASPER, (672, 384), 11314, 173.7, 8.68, id="patches of two frames"),
        pytest.param(V11, (672, 384), 22402, 472.1, None, id="patches of one frame"),
    ],
)
def test_tokens_and_operations_are_those_of_the_published_arithmetic(
    spec, size, tokens, tera, peta
):
    assert footprint.tokens(spec, size, 22) == tokens
    assert footprint.forward_teraflops(spec, size, 22) == pytest.approx(tera, abs=0.05)
    if peta is not None:
        assert frames_85(spec, size).teraflops / 1000 == pytest.approx(peta, abs=0.005)


def test_49_frames_of_720x480_have_the_tokens_and_operations_of_the_older_model():
    assert footprint.tokens(V11, (720, 480), 13) == 17776
    assert footprint.forward_teraflops(V11, (720, 480), 13) == pytest.approx(332.1, abs=0.1)


def test_an_element_beside_the_plate_doubles_the_tokens_and_a_branch_of_two_blocks_is_added():
    # 13 frames of 30x45 tokens twice, and 226 of text.
    assert footprint.tokens(GENCOMPOSITOR, (720, 480), 13) == 35326
    # d=3072; 42 blocks over 35 326 tokens, 2 over 17 776, and 2 projections of 17 550, by hand:
    main = 2 * 12 * 3072**2 * 42 * 35326 + 4 * 35326**2 * 3072 * 42
    branch = 2 * 12 * 3072**2 * 2 * 17776 + 4 * 17776**2 * 3072 * 2 + 2 * 2 * 3072**2 * 17550
    found = footprint.forward_teraflops(GENCOMPOSITOR, (720, 480), 13)
    assert found == pytest.approx((main + branch) / 1e12, rel=1e-9)


def test_an_element_beside_the_plate_takes_the_memory_of_its_tokens_and_of_what_the_branch_made():
    # 16 rows of 3072 numbers of two bytes alive for a token; two samples of the plate's.
    alone = footprint.working_bytes(V11, (720, 480), 13, "cuda:0")
    assert alone == 16 * 17776 * 3072 * 2
    both = footprint.working_bytes(GENCOMPOSITOR, (720, 480), 13, "cuda:0")
    assert both == (16 * 35326 + 2 * 17550) * 3072 * 2


def test_two_blocks_of_the_branch_lie_on_the_device_too_where_a_few_come_at_a_time():
    found = footprint.transformer_bytes(GENCOMPOSITOR, "cuda:0", Placement("group"))
    assert found == 2 * (5_570_679_360 + 301_568_576) * 4 // 44


def test_with_cross_attention_text_is_not_squared():
    # d=1536, 30 blocks, r=35/6, 32760 tokens of video, 512 of text, by hand:
    linear = 2 * (6 + 35 / 3) * 1536**2 * 30 * 32760 + 4 * 1536**2 * 30 * 512
    attention = 4 * 1536 * 30 * (32760**2 + 32760 * 512)
    found = footprint.forward_teraflops(WAN, (832, 480), 21)
    assert found == pytest.approx((linear + attention) / 1e12, rel=1e-9)
    assert footprint.tokens(WAN, (832, 480), 21) == 33272


@pytest.mark.parametrize(
    ("frames", "steps", "passes", "guidance", "forwards"),
    [
        pytest.param(48, 50, 1, 1.0, 50, id="one window"),
        pytest.param(85, 4, 1, 1.0, 4, id="exactly one"),
        pytest.param(100, 50, 1, 1.0, 100, id="two windows"),
        pytest.param(197, 50, 1, 1.0, 150, id="three windows"),
        pytest.param(100, 10, 3, 6.0, 120, id="passes, windows and guidance"),
        pytest.param(48, 1, 9, 1.0, 9, id="eight objects and the plate"),
    ],
)
def test_forwards_are_passes_times_windows_times_steps_times_guidance(
    frames, steps, passes, guidance, forwards
):
    found = estimate(
        CASPER,
        (672, 384),
        frames,
        steps=steps,
        passes=passes,
        guidance=guidance,
        machine=Machine("cuda:0"),
    )
    assert found.forwards == forwards


def test_minutes_are_operations_over_what_the_device_sustains():
    found = frames_85(CASPER, (672, 384), machine=H200)
    assert found.minutes * 60 == pytest.approx(8684.5 / 295, rel=1e-3)
    assert not any("not known" in note for note in found.notes)


def test_a_device_of_unknown_speed_has_no_minutes_and_says_so():
    found = frames_85(CASPER, (672, 384), machine=replace(H200, teraflops=0.0))
    assert found.minutes == 0
    assert any("no estimate of minutes" in note for note in found.notes)


@pytest.mark.parametrize(
    ("giga", "offload", "tiling"),
    [
        pytest.param(140, "none", False, id="everything fits"),
        pytest.param(24, "model", False, id="weights in turn"),
        pytest.param(14, "model", True, id="the VAE in tiles"),
        pytest.param(12, "group", True, id="a few blocks at a time"),
    ],
)
def test_a_smaller_device_gets_the_next_cheaper_placement_and_is_told(giga, offload, tiling):
    found = frames_85(CASPER, (672, 384), machine=gpu(giga))
    assert (found.placement.offload, found.placement.tiling) == (offload, tiling)
    assert max(found.stage_bytes.values()) <= giga * GB
    assert any("So that it fits a card" in note for note in found.notes) is (offload != "none")


@pytest.mark.parametrize("giga", [12, 14, 16, 20, 24, 32, 48, 80])
def test_weights_in_8_bits_are_never_taken_unless_the_knob_says_so(giga):
    assert frames_85(CASPER, (672, 384), machine=gpu(giga)).placement.precision == "exact"


def test_weights_in_8_bits_take_little_more_than_half_and_may_stay_where_exact_ones_may_not():
    exact, packed = Placement("model"), Placement("model", precision="fp8")
    assert footprint.transformer_bytes(CASPER, "cuda:0", exact) == 2 * 5_571_094_144
    # Counted on diffusers' class: 4 757 501 952 of its numbers are such matrices.
    assert footprint.transformer_bytes(CASPER, "cuda:0", packed) == 6_384_686_336
    small = gpu(13)
    assert frames_85(CASPER, (672, 384), machine=small).placement.offload == "group"
    found = frames_85(CASPER, (672, 384), machine=small, precision="fp8")
    assert found.placement.offload == "model"


def test_what_fits_in_no_way_is_refused_with_needed_free_and_the_knob():
    with pytest.raises(OutOfMemory) as refusal:
        frames_85(CASPER, (4096, 2160), machine=gpu(16))
    assert "needs" in refusal.value.message
    assert "a card has 15.7 GB" in refusal.value.message
    assert refusal.value.details["knob"] == "model_size"
    assert "'model_size'" in refusal.value.hint
    with pytest.raises(OutOfMemory) as refusal:
        frames_85(CASPER, (672, 384), machine=gpu(6))
    assert refusal.value.message.startswith("To read the prompt, Casper")
    assert refusal.value.details["knob"] == "backbone"


def test_the_vae_takes_what_was_reported_of_it_at_1360x720():
    assert footprint.vae_bytes(CASPER, (1360, 720), "cuda:0", tiling=False) == pytest.approx(
        68 * GB, rel=0.01
    )


def test_tiles_take_no_more_however_large_the_picture():
    small, large = (
        footprint.vae_bytes(CASPER, size, "cuda:0", tiling=True)
        for size in ((672, 384), (4096, 2160))
    )
    assert small == large
    assert 4 * small == footprint.vae_bytes(CASPER, (672, 384), "cuda:0", tiling=False)


def test_elements_go_together_where_there_is_room_and_apart_where_there_is_not():
    assert frames_85(CASPER, (672, 384), machine=H200, passes=9).placement.batch == 4
    assert frames_85(CASPER, (672, 384), machine=gpu(14), passes=9).placement.batch == 1
    assert frames_85(CASPER, (672, 384), machine=Machine(), passes=3).placement.batch == 1


def test_memory_is_that_of_the_elements_there_are_not_of_those_there_is_room_for():
    one, two, nine = (
        frames_85(CASPER, (672, 384), machine=H200, passes=n).stage_bytes["sample"]
        for n in (1, 2, 9)
    )
    each = footprint.working_bytes(CASPER, (672, 384), 22, "cuda:0")
    assert (two - one, nine - one) == (each, 3 * each)


@pytest.mark.parametrize("passes", [1, 2, 3, 9])
@pytest.mark.parametrize("free", [149, 120, 60])
def test_how_many_go_together_follows_from_the_card_not_from_what_is_free_or_from_the_job(
    passes, free
):
    card = replace(H200, free_bytes=free * GB)
    assert frames_85(CASPER, (672, 384), machine=card, passes=passes).placement.batch == 4


def test_where_so_many_fit_in_no_way_they_go_one_at_a_time():
    busy = replace(H200, free_bytes=14 * GB)
    wide = frames_85(CASPER, (1344, 768), machine=replace(H200, free_bytes=0), passes=9)
    assert wide.placement.batch == 4
    found = frames_85(CASPER, (1344, 768), machine=busy, passes=9).placement
    assert (found.batch, found.offload) == (1, "group")


def test_reused_steps_take_207_mb_for_each_half_and_window_since_passes_go_one_by_one():
    usual = {"machine": H200, "passes": 2, "guidance": 6.0}
    plain = estimate(CASPER, (672, 384), 100, steps=50, **{**usual, "passes": 1, "guidance": 1.0})
    found = estimate(CASPER, (672, 384), 100, steps=50, cached_steps=0.1, **usual)
    # 11314, 11088 and 11314 tokens of 3072 numbers of two bytes; 2 halves, 2 windows.
    kept = 4 * (11314 + 11088 + 11314) * 3072 * 2
    assert kept / 4 == pytest.approx(207e6, rel=1e-3)
    assert found.placement.batch == 1
    each = footprint.working_bytes(CASPER, (672, 384), 22, "cuda:0")
    assert plain.stage_bytes["sample"] + kept - each == found.stage_bytes["sample"]
    assert plain.stage_bytes["decode"] == found.stage_bytes["decode"]


def test_of_a_wan_model_only_the_videos_tokens_are_kept():
    found = footprint.kept_bytes(WAN, (832, 480), 21, "cuda:0")
    assert found == 3 * 32760 * 1536 * 2


def test_a_processor_reuses_no_step():
    machine = Machine("cpu", "64 cores", 512 * GB, 500 * GB, 2.0)
    one, other = (
        frames_85(CASPER, (672, 384), machine=machine, cached_steps=share) for share in (0.0, 0.2)
    )
    assert one.stage_bytes == other.stage_bytes


def test_of_an_unknown_device_everything_is_assumed_to_fit():
    placement, need = place(CASPER, (4096, 2160), 22, machine=Machine("cuda:0"))
    assert placement == Placement()
    assert need["decode"] > 500 * GB


@pytest.mark.parametrize(
    "spec", [one for one in SPECS if not (one.is_tiny or one is PREVIEW)], ids=lambda one: one.name
)
def test_on_a_processor_no_full_model_is_feasible_and_tiny_is(spec):
    processor = Machine("cpu", "64 cores", 512 * GB, 500 * GB, 2.0)
    assert "on this processor" in footprint.feasible(spec, processor)
    assert "on this processor" in footprint.feasible(spec, Machine())
    assert footprint.feasible(TINY, processor) is None
    assert footprint.feasible(PREVIEW, processor) is None
    assert footprint.feasible(PREVIEW, Machine("cpu", "a laptop", 8 * GB, 2 * GB, 0.05)) is None
    assert footprint.feasible(spec, H200) is None


def test_a_model_that_no_placement_gets_onto_a_card_is_not_feasible_there():
    assert footprint.feasible(CASPER, gpu(12)) is None
    assert "needs 10.5 GB of memory at least and a card has 8.0 GB" in footprint.feasible(
        CASPER, gpu(8)
    )


def test_a_full_model_that_is_named_on_a_processor_is_planned_with_a_warning():
    processor = Machine("cpu", "64 cores", 512 * GB, 500 * GB, 0.5)
    found = estimate(CASPER, (672, 384), 85, steps=50, machine=processor)
    assert found.minutes == pytest.approx(289.5, abs=0.1)
    assert any("it would take about 5 h; take a machine with a GPU" in n for n in found.notes)


def test_the_plan_carries_the_cost_and_what_the_system_adds():
    found = frames_85(CASPER, (672, 384), machine=H200)
    made = found.plan(bytes_in=7, minutes=1.0, notes=("First.",))
    assert isinstance(made, Plan)
    assert (made.backbone, made.tokens, made.forwards, made.bytes_in) == ("casper", 11314, 50, 7)
    assert made.minutes == pytest.approx(1.0 + found.minutes, abs=0.006)
    assert made.notes[0] == "First."
    assert Placement(**made.placement) == found.placement


@pytest.mark.parametrize(
    ("minutes", "words"), [(0.01, "1 s"), (0.5, "30 s"), (12.4, "12 min"), (150, "2 h")]
)
def test_times_are_spelt_as_people_say_them(minutes, words):
    assert footprint.spell_minutes(minutes) == words


def test_the_size_of_a_plate_and_its_cost_fit_together():
    size = model_size(CASPER, Format(1920, 1080))
    assert size == (672, 384)
    assert cost.tokens(CASPER, size, 22) == 11314


@pytest.mark.parametrize("giga", [140, 24])
def test_where_the_whole_card_has_room_to_encode_whole_a_busy_one_decodes_in_tiles_alone(giga):
    card = replace(gpu(giga), free_bytes=14 * GB)
    found = frames_85(CASPER, (672, 384), machine=card)
    assert (found.placement.tiling, found.placement.encode_tiling) == (True, False)
    assert max(found.stage_bytes.values()) <= 14 * GB


def test_a_card_that_is_too_small_to_encode_whole_encodes_in_tiles():
    found = frames_85(CASPER, (672, 384), machine=gpu(14)).placement
    assert (found.tiling, found.encode_tiling) == (True, True)
    whole = frames_85(CASPER, (672, 384), machine=gpu(24)).placement
    assert (whole.tiling, whole.encode_tiling) == (False, False)


def test_wans_vae_takes_float32_everywhere_and_the_clip_twice_on_the_device():
    # 34 tensors of 4 frames, 96 channels, four bytes each.
    chunk = 34 * 4 * 832 * 480 * 96 * 4
    assert footprint.vae_bytes(WAN, (832, 480), "cuda:0", tiling=False) == chunk
    clip = 2 * 81 * 832 * 480 * 3 * 4
    weights = WAN.architecture.vae_parameters * 4
    need = footprint.stage_bytes(WAN, (832, 480), 21, "cuda:0", Placement("model"), frames=81)
    assert need["encode"] == need["decode"] == 10**9 + chunk + clip + weights
    longer = footprint.stage_bytes(WAN, (832, 480), 21, "cuda:0", Placement("model"), frames=162)
    assert longer["decode"] - need["decode"] == clip


def test_a_longer_clip_of_a_wan_model_is_planned_with_more_and_one_of_cogvideox_is_not():
    def decode(spec, size, frames):
        found = estimate(spec, size, frames, steps=1, machine=H200)
        return found.stage_bytes["decode"]

    assert decode(WAN, (832, 480), 300) > decode(WAN, (832, 480), 81)
    assert decode(CASPER, (672, 384), 300) == decode(CASPER, (672, 384), 85)
