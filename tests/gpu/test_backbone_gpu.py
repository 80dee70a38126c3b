# SPDX-License-Identifier: Apache-2.0
"""The speed knobs where they are meant for: full-width blocks, few of them, random weights.

    pytest tests/gpu -m gpu

Two blocks of CogVideoX-Fun V1.5 take under 1 GB; two sizes are compiled, which takes a minute or
two. Results are compared by metric: kernels differ in their last bits.
"""

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel  # noqa: E402

from gencomp_protocol.errors import OutOfMemory  # noqa: E402
from gencomp_server.backbones import spec_named  # noqa: E402
from gencomp_server.engine.residency import Residency, Wanted  # noqa: E402
from gencomp_server.models import cogvideox, gencompositor, speed, tiny  # noqa: E402
from gencomp_server.models.loading import LoadSettings, build_on_meta  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # Compiling imports parts of torch that use parts of torch that torch has deprecated.
    pytest.mark.filterwarnings("default"),
]

GPU = torch.device("cuda")
BLOCKS = 2
# bf16 keeps 8 bits: a last bit is 48 dB below a value. Two blocks of sums in another order stay
# well above this; a wrong layout, scale or rotation is far below.
SAME_DB = 40.0
# Unscaled e4m3 keeps 4 bits of a weight.
EIGHT_BIT_DB = 15.0


def make_transformer(device=GPU, blocks=BLOCKS):
    """Return a transformer of full width with weights of seed 1, in bf16."""
    config = {**cogvideox.CONFIGS["cogvideox-fun-v1.5-5b-inp"], "num_layers": blocks}
    made = build_on_meta(lambda: CogVideoXTransformer3DModel(**config))
    made.to(torch.bfloat16).to_empty(device=GPU)
    generator = torch.Generator(GPU).manual_seed(1)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.normal_(generator=generator)
            if weight.dim() > 1:
                weight.div_(weight[0].numel() ** 0.5)
            elif name.endswith("bias"):
                weight.mul_(0.1)
            else:
                weight.mul_(0.1).add_(1)
    return made.eval().requires_grad_(False).to(device)


def inputs(seed=1, latent_frames=4, height=48, width=84, dtype=torch.bfloat16):
    generator = torch.Generator(GPU).manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=generator, device=GPU).to(dtype)

    config = cogvideox.CONFIGS["cogvideox-fun-v1.5-5b-inp"]
    tokens = latent_frames // 2 * (height // 2) * (width // 2)
    angles = noise(tokens, config["attention_head_dim"]).float()
    return {
        "hidden_states": noise(1, latent_frames, 33, height, width),
        "encoder_hidden_states": noise(1, 226, 4096),
        "timestep": torch.full((1,), 500.0, device=GPU),
        "image_rotary_emb": (angles.cos(), angles.sin()),
        "return_dict": False,
    }


def run(transformer, **more):
    with torch.no_grad():
        return transformer(**inputs(**more))[0].float()


def decibels(made, wanted):
    """Return how far the error lies below what is wanted, in dB."""
    error = (made - wanted).square().mean()
    return float(10 * torch.log10(wanted.square().mean() / error.clamp_min(1e-30)))


@pytest.fixture(scope="module")
def exact():
    return run(make_transformer())


@pytest.fixture(autouse=True)
def _start_clean():
    torch._dynamo.reset()
    speed.release(GPU)


def test_the_same_numbers_on_the_same_device_give_the_same_bits(exact):
    assert torch.equal(run(make_transformer()), exact)


def test_cudnn_attention_computes_what_the_default_does(exact):
    transformer = make_transformer()
    said = speed.apply(transformer, LoadSettings(attention="cudnn"), GPU)
    assert "_native_cudnn" in said[0]
    assert decibels(run(transformer), exact) > SAME_DB


def test_compiled_blocks_with_cudnn_attention_compute_what_eager_ones_do(exact, tmp_path):
    transformer = make_transformer()
    settings = LoadSettings(compiled=True, attention="cudnn")
    speed.apply(transformer, settings, GPU, cache=tmp_path)
    assert decibels(run(transformer), exact) > SAME_DB
    assert any((tmp_path / "compiled").rglob("*"))


def test_a_second_picture_size_is_compiled_as_well(tmp_path):
    transformer = make_transformer()
    speed.apply(transformer, LoadSettings(compiled=True), GPU, cache=tmp_path)
    run(transformer)
    assert decibels(run(transformer, width=64), run(make_transformer(), width=64)) > SAME_DB


@pytest.mark.parametrize("attention", ["flash", "sage"])
def test_an_installed_attention_library_is_close_to_the_default(exact, attention):
    package = {"flash": "flash_attn", "sage": "sageattention"}[attention]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    transformer = make_transformer()
    speed.apply(transformer, LoadSettings(attention=attention), GPU)
    assert decibels(run(transformer), exact) > 25.0


def test_blocks_that_come_from_main_memory_give_the_same_bits_and_hold_less(exact):
    transformer = make_transformer(torch.device("cpu"), blocks=8)
    resident = run(make_transformer(blocks=8))
    speed.release(GPU)
    speed.apply(transformer, LoadSettings(offload="group"), GPU)
    weights = sum(one.numel() * one.element_size() for one in transformer.parameters())
    run(transformer)
    before = torch.cuda.memory_allocated(GPU)
    torch.cuda.reset_peak_memory_stats(GPU)
    assert torch.equal(run(transformer), resident)
    assert before < weights / 4
    assert torch.cuda.max_memory_allocated(GPU) - before < 3 * weights / 4 + 2e9


@pytest.mark.parametrize("compiled", [False, True])
def test_weights_in_8_bits_take_less_and_stay_close(exact, monkeypatch, compiled):
    monkeypatch.setattr(speed, "multiplies_in_8_bits", lambda device: False)
    transformer = make_transformer()
    before = sum(one.numel() * one.element_size() for one in transformer.parameters())
    speed.apply(transformer, LoadSettings(precision="fp8", compiled=compiled), GPU)
    close = decibels(run(transformer), exact)
    after = sum(one.numel() * one.element_size() for one in transformer.parameters())
    matrices = sum(
        layer.weight.numel() + layer.bias.numel()
        for block in speed.blocks(transformer)
        for _, layer in speed.matrices(block)
    )
    assert close > EIGHT_BIT_DB
    assert before - after == matrices


def test_torchao_multiplies_in_8_bits_close_to_the_default(exact):
    if not speed.multiplies_in_8_bits(GPU):
        pytest.skip("torchao is not installed, or the GPU has no cores for 8-bit floats")
    transformer = make_transformer()
    said = speed.apply(transformer, LoadSettings(precision="fp8", compiled=True), GPU)
    assert "multiplied in 8 bits" in said[0]
    assert decibels(run(transformer), exact) > EIGHT_BIT_DB


def test_what_one_window_left_never_serves_another_on_a_gpu_either():
    transformer = make_transformer(blocks=3)
    alone = run(transformer, seed=2)
    speed.apply(transformer, LoadSettings(cached_steps=1.0), GPU)
    with speed.cache_scope(transformer, "window 0", 0):
        run(transformer, seed=1)
    with speed.cache_scope(transformer, "window 1", 0):
        assert torch.equal(run(transformer, seed=2), alone)
    with speed.cache_scope(transformer, "window 1", 1):
        run(transformer, seed=2)
    assert speed.reused_forwards(transformer) == 1


def test_transformer_and_vae_that_take_turns_compute_the_same_and_make_room():
    latents = torch.randn(1, 2, 16, 6, 10, generator=torch.Generator(GPU), device=GPU)
    text, condition = torch.ones(1, 226, 32, device=GPU), torch.ones(1, 2, 17, 6, 10, device=GPU)
    made = []
    for offload in ("none", "model"):
        settings = LoadSettings(offload=offload)
        backbone = tiny.make(spec_named("tiny"), device="cuda", settings=settings)
        predicted = backbone.predict(latents, 500.0, text, condition)
        made.append((predicted, torch.from_numpy(backbone.decode(predicted))))
    assert torch.equal(made[0][0], made[1][0])
    assert torch.equal(made[0][1], made[1][1])
    assert next(backbone._transformer.parameters()).device.type == "cpu"


def test_a_full_size_vae_compiled_decodes_what_it_decoded_before():
    from gencomp_server.models import vae

    config = {"block_out_channels": (128, 256, 256, 512), "layers_per_block": 1}
    levels = {
        "down_block_types": ("CogVideoXDownBlock3D",) * 4,
        "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    }
    torch.manual_seed(1)
    made = AutoencoderKLCogVideoX(**config, **levels).to(GPU, torch.bfloat16)
    made.eval().requires_grad_(False)
    latents = torch.randn(1, 4, 16, 12, 20, device=GPU)
    before = torch.from_numpy(vae.decode(made, latents))
    speed.compile_vae_(made)
    assert decibels(torch.from_numpy(vae.decode(made, latents)), before) > 30.0


class Greedy:
    """The tiny backbone, whose first step asks for a pebibyte."""

    def __init__(self, device):
        self.real, self.asked = tiny.make(spec_named("tiny"), device=device), False

    def predict(self, latents, timestep, text, condition):
        if not self.asked:
            self.asked = True
            torch.empty(2**50, dtype=torch.uint8, device=latents.device)
        return self.real.predict(latents, timestep, text, condition)


def test_a_step_without_memory_is_a_sentence_with_a_cure_and_the_next_job_runs(tmp_path):
    residency = Residency(Path(tmp_path), loader=lambda want, files, cache: greedy)
    greedy = Greedy("cuda")
    leased = residency.lease(Wanted(spec_named("tiny"), "cuda"), "")
    latents = torch.zeros(1, 2, 16, 6, 10, device=GPU)
    text = torch.zeros(1, 226, 32, device=GPU)
    condition = torch.zeros(1, 2, 17, 6, 10, device=GPU)
    with pytest.raises(OutOfMemory, match="GPU memory") as refused:
        leased.predict(latents, 500.0, text, condition)
    assert refused.value.hint
    assert leased.predict(latents, 500.0, text, condition).shape == latents.shape


@pytest.mark.parametrize("settings", [LoadSettings(), LoadSettings(compiled=True)])
def test_the_tiny_backbone_runs_whole_on_a_gpu(tmp_path, settings):
    backbone = tiny.make(spec_named("tiny"), device="cuda", settings=settings, cache=tmp_path)
    latents = torch.zeros(1, 2, 16, 6, 10, device=GPU)
    condition = torch.zeros(1, 2, 17, 6, 10, device=GPU)
    made = backbone.predict(latents, 500.0, backbone.text("clean beach"), condition)
    assert made.device.type == "cuda"
    assert torch.isfinite(made).all()
    assert backbone.decode(made).shape == (5, 48, 80, 3)


@pytest.mark.parametrize(
    "settings",
    [LoadSettings(), LoadSettings(offload="group"), LoadSettings(compiled=True, precision="fp8")],
)
def test_both_networks_of_gencompositor_run_on_a_gpu_wherever_their_weights_wait(
    tmp_path, settings
):
    spec = spec_named("tiny-gencompositor")
    backbone = gencompositor.make_tiny(spec, device="cuda", settings=settings, cache=tmp_path)
    zeros = torch.zeros(1, 13, 16, 4, 6, device=GPU)
    joined = backbone.join({"masked": zeros, "mask": zeros[:, :, :1], "fg": zeros})
    for _ in range(2):
        made = backbone.predict(zeros, 500.0, backbone.text(""), joined)
        assert made.device.type == "cuda"
        assert torch.isfinite(made).all()
