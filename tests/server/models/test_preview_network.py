# SPDX-License-Identifier: Apache-2.0
"""The preview's network: an untrained one is the base, and what it is given reaches it."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from gencomp_server.models.preview_network import (
    CHANNELS,
    CONDITIONS,
    PreviewConfig,
    changed,
    derived,
    make_network,
    picture,
    read_network,
    word_numbers,
    write_network,
)

SMALL = PreviewConfig(widths=(8, 8, 8), heads=1, layers=1, time=8, text=16)
LAST = torch.tensor([999])


def clip(frames=2, height=16, width=24):
    draws = torch.Generator().manual_seed(3)
    conditions = torch.rand(1, frames, height, width, CONDITIONS, generator=draws) * 2 - 1
    return conditions, torch.randn(1, frames, height, width, 3, generator=draws)


def trained():
    """A network whose last layer is no longer zero."""
    network = make_network(5, SMALL)
    with torch.no_grad():
        network.end.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    return network


def made(network, conditions, noisy, words=("add", "shadow"), timestep=LAST):
    with torch.no_grad():
        return network(noisy, conditions, word_numbers([words]), timestep)


def test_an_untrained_network_gives_the_base():
    conditions, noisy = clip()
    found = made(make_network(1), conditions, noisy)
    torch.testing.assert_close(found, picture(conditions, "base"), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((0, 0, 0, 0, 0, 0, 0), 0.2),  # the base
        ((1, 0, 0, 0, 0, 0, 0), -0.6),  # the gathered plate
        ((0, 0.5, 0.5, 0.5, 0, 0, 0), 0.8),  # 0.6 of 0..1, half as much again is 0.9
        ((0, 0, 0, 0, -0.25, -0.25, -0.25), -0.3),  # 0.6 - 0.25 = 0.35
    ],
)
def test_a_change_is_a_share_of_the_gathered_plate_a_gain_and_an_offset(change, expected):
    conditions = torch.zeros(CONDITIONS)
    conditions[3:6], conditions[6:9] = 0.2, -0.6
    found = changed(conditions, torch.tensor(change, dtype=torch.float32))
    torch.testing.assert_close(found, torch.full((3,), expected), rtol=0, atol=1e-6)


def test_what_is_kept_is_the_base():
    conditions = torch.rand(CONDITIONS, generator=torch.Generator().manual_seed(2))
    conditions[11] = 1
    found = changed(conditions, torch.full((7,), 0.5))
    torch.testing.assert_close(found, conditions[3:6], rtol=0, atol=1e-6)


def test_a_small_difference_from_the_gathered_plate_is_made_large():
    conditions = torch.zeros(1, 1, 1, 2, CONDITIONS)
    conditions[..., 1, 0] = 0.04
    found = derived(conditions)[0, 0, 0, :, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.24]).tanh(), rtol=0, atol=1e-6)


def test_a_mask_is_carried_to_frames_on_which_it_is_unknown_from_the_nearest_most():
    conditions = torch.zeros(1, 4, 1, 2, CONDITIONS)
    conditions[0, 0, 0, :, 10] = torch.tensor([1.0, 0.0])  # drawn on the first frame
    conditions[0, 0, 0, :, 11] = torch.tensor([0.0, 1.0])
    conditions[0, 3, 0, :, 10] = torch.tensor([0.0, 1.0])  # and on the last, elsewhere
    conditions[0, 3, 0, :, 11] = torch.tensor([1.0, 0.0])
    found = derived(conditions)[0, :, 0, :, 3]
    expected = torch.tensor([[1, 0], [2 / 3, 1 / 3], [1 / 3, 2 / 3], [0, 1]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_without_any_mask_nothing_is_carried():
    assert not derived(torch.zeros(1, 3, 2, 2, CONDITIONS))[..., 3].any()


def test_places_without_a_word_say_nothing_around_the_transformer():
    network = trained()
    with torch.no_grad():
        network.said.out.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
        words, text = torch.tensor([[1, 0, 0]]), torch.randn(1, 3, SMALL.text)
        other = text.clone()
        other[:, 1:] += 1
        features = torch.ones(2, 8, 1, 1)
        first, second = (network.said(one, words, 2)[0](features) for one in (text, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, features)


def test_channels_are_where_their_table_says():
    conditions = torch.arange(13.0)
    assert {name: picture(conditions, name).tolist() for name in CHANNELS} == {
        "plate": [0, 1, 2],
        "base": [3, 4, 5],
        "gathered": [6, 7, 8],
        "seen": [9],
        "remove": [10],
        "keep": [11],
        "subject": [12],
    }


def test_pure_noise_is_not_looked_at_and_less_noise_is():
    conditions, noisy = clip()
    network = trained()
    other = noisy + 1
    assert torch.equal(made(network, conditions, noisy), made(network, conditions, other))
    half = torch.tensor([500])
    moved = made(network, conditions, noisy, timestep=half)
    assert not torch.equal(moved, made(network, conditions, other, timestep=half))


@pytest.mark.parametrize("words", [("add",), ("add", "smoke"), ("shadow", "add")])
def test_other_words_give_another_picture(words):
    conditions, noisy = clip()
    network = trained()
    assert not torch.equal(
        made(network, conditions, noisy), made(network, conditions, noisy, words)
    )


def test_a_frame_hears_of_the_others():
    conditions, noisy = clip()
    network = trained()
    other = conditions.clone()
    other[:, 1, ..., :3] += 0.5
    assert not torch.equal(
        made(network, conditions, noisy)[:, 0], made(network, other, noisy)[:, 0]
    )


def test_equal_seeds_make_equal_networks_and_leave_the_global_seed_alone():
    state = torch.get_rng_state()
    first, second = make_network(7, SMALL), make_network(7, SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert not torch.equal(first.begin.weight, make_network(8, SMALL).begin.weight)


def test_a_file_gives_the_network_back_rounded_to_half(tmp_path):
    network, file = trained(), tmp_path / "one.safetensors"
    write_network(network, file, {"steps": "3"})
    found = read_network(file)
    assert found.config == SMALL
    for name, one in found.named_parameters():
        assert torch.equal(one, network.get_parameter(name).half().float())


def test_a_file_of_another_network_is_refused(tmp_path):
    file = tmp_path / "one.safetensors"
    write_network(trained(), file, {})
    tensors = load_file(file)
    save_file(tensors, tmp_path / "bare.safetensors", metadata={"steps": "1"})
    with pytest.raises(ValueError, match="vocabulary and channels and network differ"):
        read_network(tmp_path / "bare.safetensors")


def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(tmp_path):
    from safetensors import safe_open

    file = tmp_path / "one.safetensors"
    write_network(trained(), file, {})
    tensors = load_file(file)
    del tensors["end.bias"]
    with safe_open(file, framework="pt") as held:
        header = held.metadata()
    save_file(tensors, file, metadata=header)
    with pytest.raises(ValueError, match=r"end\.bias"):
        read_network(file)
