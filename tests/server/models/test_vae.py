# SPDX-License-Identifier: Apache-2.0
"""Chunks of frames, and tiles, of the CogVideoX VAE."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from gencomp_server.models import tiny, vae
from gencomp_server.models.loading import build_on_meta
from gencomp_server.models.vae import Span, Tiles

# Share of the range of values by which tiles may differ from one piece: their group norms have
# statistics of their own. A network that hardly uses its norms is held to it.
TILE_BOUND = 0.08


def make_vae(calm=1.0):
    """The tiny VAE; below 1 its residual branches count less, so that it is smooth."""
    made = build_on_meta(lambda: AutoencoderKLCogVideoX(**tiny.VAE))
    tiny.fill(made, "vae", device=torch.device("cpu"), dtype=torch.float32)
    for name, weight in made.named_parameters():
        if calm < 1 and "resnets" in name and (".conv1." in name or ".conv2." in name):
            weight.mul_(calm)
        if calm < 1 and (".conv_y." in name or ".conv_b." in name):
            weight.mul_(calm).add_(float(name.endswith("conv_y.conv.bias")))
    return made


@pytest.fixture(scope="module")
def network():
    return make_vae()


@pytest.fixture(scope="module")
def video():
    return np.random.default_rng(1).uniform(-1, 1, (13, 16, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("frames", "chunks"),
    [
        (1, ((0, 1),)),
        (5, ((0, 5),)),
        (9, ((0, 9),)),
        (13, ((0, 13),)),
        (29, ((0, 13), (13, 21), (21, 29))),
    ],
)
def test_the_rest_of_a_division_by_eight_is_encoded_with_the_first_chunk(frames, chunks):
    assert vae.encode_chunks(frames) == chunks


def test_eighty_five_frames_are_encoded_in_ten_chunks():
    assert len(vae.encode_chunks(85)) == 10


@pytest.mark.parametrize("frames", [0, 4, 84, 86])
def test_a_length_that_is_not_4k_plus_1_is_refused(frames):
    with pytest.raises(ValueError, match=f"not {frames}"):
        vae.encode_chunks(frames)


@pytest.mark.parametrize(
    ("latent_frames", "chunks"),
    [
        (1, ((0, 1),)),
        (2, ((0, 1), (1, 2))),
        (3, ((0, 1), (1, 3))),
        (4, ((0, 1), (1, 3), (3, 4))),
    ],
)
def test_the_first_latent_frame_is_decoded_alone_and_the_others_in_pairs(latent_frames, chunks):
    assert vae.decode_chunks(latent_frames) == chunks


def test_latents_are_the_scaled_mode_that_diffusers_finds(network, video):
    plain = torch.from_numpy(video).permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        wanted = network.encode(plain).latent_dist.mode() * 0.7
    made = vae.encode(network, video)
    assert torch.equal(made, wanted.transpose(1, 2))


@pytest.mark.parametrize(("latent_frames", "frames"), [(1, 1), (2, 5), (3, 9), (4, 13), (22, 85)])
def test_so_many_latent_frames_give_so_many_frames(network, latent_frames, frames):
    made = vae.decode(network, torch.zeros(1, latent_frames, 16, 1, 2))
    assert made.shape == (frames, 8, 16, 3)
    assert made.dtype == np.float32


def test_a_frame_that_a_lone_last_latent_frame_makes_is_not_that_of_a_first_one(network):
    latents = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 4, 16, 2, 2)))
    made = vae.decode(network, latents.float())
    alone = vae.decode(network, latents[:, 3:].float())
    assert np.abs(made[9] - alone[0]).max() > 0.01


def test_decoding_leaves_no_hook_behind(network):
    vae.decode(network, torch.zeros(1, 4, 16, 1, 1))
    assert not any(module._forward_hooks for module in network.decoder.modules())


def test_progress_counts_every_chunk_of_every_tile(network, video):
    told = []
    vae.encode(network, video, tiles=Tiles(2, 2), progress=lambda *now: told.append(now))
    assert told == [(1, 3), (2, 3), (3, 3)]
    told.clear()
    vae.decode(network, torch.zeros(1, 4, 16, 2, 2), progress=lambda *now: told.append(now))
    assert told == [(1, 3), (2, 3), (3, 3)]


# --- tiles ---------------------------------------------------------------------------------------


def test_a_side_no_longer_than_a_tile_is_one_tile():
    assert vae.spans(12, 12) == (Span(0, 12),)


def test_tiles_are_whole_and_share_a_quarter_at_least():
    assert vae.spans(28, 12) == (Span(0, 12), Span(8, 20), Span(16, 28))


@pytest.mark.parametrize("side", [13, 20, 28, 47])
@pytest.mark.parametrize("factor", [1, 8])
def test_weights_of_tiles_sum_to_one_everywhere(side, factor):
    tiles = vae.spans(side, 12)
    total = np.zeros(side * factor)
    for one, weight in zip(tiles, vae.span_weights(tiles, factor), strict=True):
        total[one.first * factor : one.last * factor] += weight
    assert np.abs(total - 1).max() < 1e-6


def test_where_two_tiles_disagree_by_one_the_seam_is_a_ramp_and_no_step():
    tiles = vae.spans(20, 12)
    seam = np.zeros(160)
    seam[tiles[1].first * 8 :] = vae.span_weights(tiles, 8)[1]
    # Four latent pixels are shared; over the middle half of their 32 pixels it rises.
    assert np.abs(np.diff(seam)).max() == pytest.approx(1 / 16)


def test_tiles_agree_with_one_piece_on_a_smooth_picture():
    smooth = make_vae(calm=0.1)
    phases = np.arange(16)[:, None, None] * np.pi / 8
    rows, columns = np.mgrid[0:12, 0:20]
    waves = np.sin(columns * np.pi / 4 + phases) / 2 + np.cos(rows * np.pi / 4 + phases) / 2
    latents = torch.from_numpy(np.stack([waves, waves])[None].astype(np.float32))
    whole = vae.decode(smooth, latents)
    tiled = vae.decode(smooth, latents, tiles=Tiles(12, 12))
    assert 0 < np.abs(tiled - whole).max() <= TILE_BOUND * np.ptp(whole)


def test_one_tile_changes_no_bit(network, video):
    whole = vae.encode(network, video)
    assert torch.equal(whole, vae.encode(network, video, tiles=Tiles(64, 64)))
