# SPDX-License-Identifier: Apache-2.0
"""The whole removal pipeline, pictures in and pictures out, against the public code's."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import save_file

from gencomp_server.backbones import Architecture, spec_named
from gencomp_server.models import tiny
from gencomp_server.models.cogvideox import CogVideoXBackbone
from gencomp_server.models.loading import build_on_meta, load_into
from gencomp_server.parts import conditioning, trimask, windows
from gencomp_server.parts.sampler import denoise

# What the vectors' README states for float32.
TOLERANCE = 1e-5
FILE = "b_casper_pipeline"
# The public code's numbers for a trimask are 0, 127/255 and 1: here are the middles between them.
KEEP_BELOW, EDIT_ABOVE = 0.25, 0.75
# Of the public code: the noise on the conditioning sequence.
NOISE = 0.0563
NOT_A_SETTING = "add_noise_in_inpaint_model"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def vector(read_vector):
    return read_vector(FILE)


@pytest.fixture(scope="module")
def backbone(vector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    config = {k: v for k, v in vector.metadata["transformer"].items() if k != NOT_A_SETTING}
    transformer = build_on_meta(lambda: CogVideoXTransformer3DModel(**config))
    autoencoder = build_on_meta(lambda: AutoencoderKLCogVideoX(**vector.metadata["vae"]))
    for module, prefix in ((transformer, "transformer."), (autoencoder, "vae.")):
        file = folder / f"{prefix}safetensors"
        save_file(vector.under(prefix), file)
        load_into(module, file, title="the vector", device="cpu", dtype=torch.float32)
    width = config["num_attention_heads"] * config["attention_head_dim"]
    kind = Architecture(width, config["num_layers"], config["num_attention_heads"], 0)
    prompts = tiny.prompts(1, device=torch.device("cpu"), dtype=torch.float32)
    spec = dataclasses.replace(spec_named("casper"), architecture=kind)
    return CogVideoXBackbone(spec, transformer, autoencoder, prompts, identity="vector")


class Recorder:
    """A backbone, and what its transformer was given."""

    def __init__(self, backbone):
        self._backbone = backbone
        self.calls = []

    def __getattr__(self, name):
        return getattr(self._backbone, name)

    def predict(self, latents, timestep, text, condition):
        self.calls.append((latents.clone(), condition.clone()))
        return self._backbone.predict(latents, timestep, text, condition)


class Keeper:
    """A context that keeps every checkpoint."""

    def __init__(self):
        self.latents = []

    def checkpoint(self, _name, tensors=None):
        if tensors is not None:
            self.latents.append(torch.from_numpy(np.array(tensors["latents"])))

    def progress(self, *_):
        pass

    def check_cancelled(self):
        pass


class Run:
    """One case of the vector through our own parts."""

    def __init__(self, vector, backbone, case):
        self.settings = vector.metadata["cases"][case]
        self.tensors = vector.under(f"{case}.")
        self.schedule = backbone.schedule(self.settings["steps"])
        classes = self._classes()
        plate = backbone.encode(self._conditioning_video(classes))
        self.condition = backbone.condition(plate, classes)
        pairs = vector.metadata["transformer"]["patch_size_t"] is not None
        self.windows = self._windows(backbone, even=pairs)
        self.recorder, self.keeper = Recorder(backbone), Keeper()
        latents = denoise(
            self.recorder,
            self.tensors["in.init_latents"],
            self.condition,
            self.tensors["in.prompt_embeds"],
            null_text=self.tensors["in.negative_prompt_embeds"],
            guidance=self.settings["guidance_scale"],
            schedule=self.schedule,
            windows=self.windows,
            ctx=self.keeper,
        )
        self.video = backbone.decode(latents)

    def _classes(self):
        values = in_house(self.tensors["in.trimask01"])
        unknown = (values >= KEEP_BELOW) & (values <= EDIT_ABOVE)
        return trimask.build(values > EDIT_ABOVE, unknown=unknown)

    def _conditioning_video(self, classes):
        video = in_house(self.tensors["in.video01"]) * 2 - 1
        if self.settings["zero_out_mask_region"]:
            video = conditioning.zero_edit(video, classes)
        noise = in_house(self.tensors["in.reference_video_noise"])
        return conditioning.with_pixel_noise(video, noise, NOISE)

    def _windows(self, backbone, *, even):
        window, overlap = windows.latent_window(
            self.settings["window"], self.settings["overlap_frames"]
        )
        frames = backbone.spec.latent_frames(self.settings["frames"])
        return windows.plan(frames, window, overlap, even=even, last=windows.SHORT)

    def given_at_first(self, at):
        """What the transformer was given in the first step for a window: one entry per half."""
        halves = 1 if self.settings["guidance_scale"] == 1 else 2
        return self.recorder.calls[at * halves : (at + 1) * halves]


def in_house(tensor):
    """[1,C,T,H,W] as [T,H,W,C] numpy."""
    return np.ascontiguousarray(tensor[0].permute(1, 2, 3, 0).numpy())


@pytest.fixture(scope="module", params=["single", "multi", "cfg_zero"])
def run(request, vector, backbone):
    return Run(vector, backbone, request.param)


def worst(a, b):
    assert a.shape == b.shape
    return float((a - b).abs().max())


def test_timesteps_are_the_references(run):
    assert list(run.schedule.timesteps) == run.tensors["in.timesteps"].tolist()


def test_there_are_as_many_windows_as_in_the_reference(run):
    named = [name for name in run.tensors if name.endswith(".step0_hidden")]
    assert len(run.windows) == len(named) > 0


def test_each_window_is_given_the_references_condition(run):
    for at in range(len(run.windows)):
        wanted = run.tensors[f"mid.window{at}.inpaint_latents"]
        given = torch.cat([condition for _, condition in run.given_at_first(at)])
        assert worst(given, wanted) <= TOLERANCE


def test_each_window_is_given_the_references_latents_at_first(run):
    for at in range(len(run.windows)):
        wanted = run.tensors[f"mid.window{at}.step0_hidden"]
        given = torch.cat([latents for latents, _ in run.given_at_first(at)])
        assert worst(given, wanted) <= TOLERANCE


def test_latents_after_every_step_are_the_references(run):
    assert len(run.keeper.latents) == run.settings["steps"]
    for step, latents in enumerate(run.keeper.latents):
        assert worst(latents, run.tensors[f"mid.latents_after_step{step}"]) <= TOLERANCE


def test_the_pictures_are_the_references(run):
    wanted = torch.from_numpy(in_house(run.tensors["out.video01"]))
    assert len(run.video) == run.settings["frames"]
    made = torch.from_numpy(run.video / 2 + 0.5).clamp(0, 1)
    assert worst(made[: len(wanted)], wanted) <= TOLERANCE
