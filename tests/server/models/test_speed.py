# SPDX-License-Identifier: Apache-2.0
"""The speed knobs on a tiny transformer, on the CPU.

What this cannot show: that anything is faster; that cuDNN, FlashAttention, SageAttention and
torchao compute what is expected; that blocks come to a GPU in time. ``tests/gpu`` and
``benchmarks/bench_backbone.py`` are for that.
"""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers import (  # noqa: E402
    AutoencoderKLCogVideoX,
    CogVideoXTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.models.attention_dispatch import (  # noqa: E402
    AttentionBackendName,
    _AttentionBackendRegistry,
)
from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0  # noqa: E402
from torch._dynamo.testing import CompileCounter  # noqa: E402

from gencomp_protocol.errors import BadKnob  # noqa: E402
from gencomp_server.models import attention as kernels  # noqa: E402
from gencomp_server.models import speed, vae  # noqa: E402
from gencomp_server.models.loading import LoadSettings  # noqa: E402

CPU = torch.device("cpu")
BLOCKS = 4
# The first block sees slices of the patch embedding, strided otherwise than what blocks give on.
GRAPHS_PER_SHAPE = 2
# Noise of another seed changes more than the knob allows at most; past that, all is reused.
WILLING, ANYTHING = 1.0, 1e9
# Float32 through four blocks of width 32, adding residuals in another order.
NEARLY = 1e-5


EXACT = LoadSettings()


def make_transformer(blocks=BLOCKS):
    torch.manual_seed(7)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=33,
        out_channels=16,
        time_embed_dim=8,
        text_embed_dim=16,
        num_layers=blocks,
        patch_size_t=2,
        max_text_seq_length=5,
        use_rotary_positional_embeddings=True,
    )
    return transformer.eval().requires_grad_(False)


@pytest.fixture
def transformer():
    return make_transformer()


@pytest.fixture
def counter():
    torch._dynamo.reset()
    yield CompileCounter()
    torch._dynamo.reset()


def forward(transformer, seed=1, width=4):
    """Run the transformer on noise of a seed. [1,2,16,4,width]."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    return transformer(
        hidden_states=noise(1, 2, 33, 4, width),
        encoder_hidden_states=noise(1, 5, 16),
        timestep=torch.tensor([500.0]),
        image_rotary_emb=(noise(2 * width // 2, 16), noise(2 * width // 2, 16)),
        return_dict=False,
    )[0]


def weights(transformer):
    return {name: value.clone() for name, value in transformer.state_dict().items()}


# --- defaults ------------------------------------------------------------------------------------


def test_with_every_knob_at_its_default_nothing_is_said_and_nothing_is_touched(transformer):
    before, processors = weights(transformer), dict(transformer.attn_processors)
    alone = forward(make_transformer())
    assert speed.apply(transformer, EXACT, CPU) == ()
    assert transformer.attn_processors == processors
    assert not any(
        "forward" in vars(module) or hasattr(module, "_diffusers_hook")
        for module in transformer.modules()
    )
    assert all(torch.equal(value, before[name]) for name, value in weights(transformer).items())
    assert torch.equal(forward(transformer), alone)


def test_a_scope_around_an_exact_transformer_changes_no_bit(transformer):
    alone = forward(transformer)
    with speed.cache_scope(transformer, "window 0", 0):
        assert torch.equal(forward(transformer), alone)
    assert not hasattr(transformer, "_diffusers_hook")
    assert speed.reused_forwards(transformer) == 0


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "knob", "words"),
    [
        (LoadSettings(attention="cudnn"), "attention", "needs an NVIDIA GPU"),
        (LoadSettings(attention="flash"), "attention", "needs an NVIDIA GPU"),
        (LoadSettings(attention="sage"), "attention", "needs an NVIDIA GPU"),
        (LoadSettings(attention="flash_hub"), "attention", "cannot be 'flash_hub'"),
        (LoadSettings(compiled=True), "compiled", "needs a GPU"),
        (LoadSettings(precision="int4"), "precision", "cannot be 'int4'"),
        (LoadSettings(cached_steps=1.5), "cached_steps", "is 1.5"),
        (LoadSettings(cached_steps=float("nan")), "cached_steps", "is nan"),
    ],
)
def test_what_a_cpu_cannot_do_is_refused_with_knob_and_cure(transformer, settings, knob, words):
    with pytest.raises(BadKnob) as refused:
        speed.apply(transformer, settings, CPU)
    assert refused.value.details["knob"] == knob
    assert words in refused.value.message
    assert refused.value.hint


def test_a_refused_knob_leaves_the_others_undone(transformer):
    before = weights(transformer)
    with pytest.raises(BadKnob):
        speed.apply(transformer, LoadSettings(precision="fp8", attention="sage"), CPU)
    assert all(torch.equal(value, before[name]) for name, value in weights(transformer).items())


@pytest.mark.parametrize(
    ("attention", "package"), [("flash", "flash-attn"), ("sage", "sageattention")]
)
def test_without_its_library_a_kernel_is_refused_and_not_fetched(
    transformer, monkeypatch, attention, package
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with pytest.raises(BadKnob) as refused:
        speed.apply(transformer, LoadSettings(attention=attention), torch.device("cuda"))
    assert refused.value.details["knob"] == "attention"
    assert package in refused.value.hint


@pytest.mark.parametrize("attention", ["cudnn", "flash", "sage"])
def test_a_gpu_that_is_too_old_for_a_kernel_is_refused(transformer, monkeypatch, attention):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(BadKnob, match="too old") as refused:
        speed.apply(transformer, LoadSettings(attention=attention), torch.device("cuda"))
    assert refused.value.details["knob"] == "attention"


def test_a_gpu_without_triton_is_refused_before_the_first_forward(transformer, monkeypatch):
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadKnob, match="needs Triton") as refused:
        speed.apply(transformer, LoadSettings(compiled=True), torch.device("cuda"))
    assert refused.value.details["knob"] == "compiled"


def test_a_model_of_one_block_has_no_step_to_reuse():
    with pytest.raises(BadKnob, match="single block"):
        speed.apply(make_transformer(blocks=1), LoadSettings(cached_steps=0.1), CPU)


# --- attention -----------------------------------------------------------------------------------


def test_the_dispatched_processor_computes_what_the_stock_one_does(transformer):
    stock = forward(transformer)
    kernels.set_attention_(transformer, AttentionBackendName.NATIVE)
    assert torch.equal(forward(transformer), stock)


def test_every_layer_takes_the_backend_and_no_other_model_does(transformer):
    active = _AttentionBackendRegistry._active_backend
    other = make_transformer()
    kernels.set_attention_(transformer, AttentionBackendName._NATIVE_MATH)
    chosen = [processor.backend.value for processor in transformer.attn_processors.values()]
    assert chosen == ["_native_math"] * BLOCKS
    assert {type(p) for p in other.attn_processors.values()} == {CogVideoXAttnProcessor2_0}
    assert _AttentionBackendRegistry._active_backend is active


def test_the_kernels_asked_for_are_the_kernels_that_run(transformer, monkeypatch):
    asked = []
    real = kernels.dispatch_attention_fn

    def seen(*tensors, backend):
        asked.append(backend.value)
        return real(*tensors, backend=AttentionBackendName.NATIVE)

    monkeypatch.setattr(kernels, "dispatch_attention_fn", seen)
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    said = speed.apply(transformer, LoadSettings(attention="cudnn"), torch.device("cuda"))
    forward(transformer)
    assert asked == ["_native_cudnn"] * BLOCKS
    assert said == (
        "Attention is computed by cudnn kernels (_native_cudnn), exact up to rounding.",
    )


def test_diffusers_own_setter_still_passes_over_this_class(transformer, monkeypatch):
    """When this fails, the processor of our own can go."""
    monkeypatch.setattr(
        _AttentionBackendRegistry, "_active_backend", _AttentionBackendRegistry._active_backend
    )
    transformer.set_attention_backend("_native_math")
    assert {type(p) for p in transformer.attn_processors.values()} == {CogVideoXAttnProcessor2_0}
    with pytest.raises(ValueError, match="_repeated_blocks"):
        transformer.compile_repeated_blocks()


def test_the_wan_class_takes_the_backend_by_its_own_processors():
    wan = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=8,
        ffn_dim=16,
        num_layers=2,
    )
    kernels.set_attention_(wan, AttentionBackendName._NATIVE_MATH)
    chosen = [processor._attention_backend.value for processor in wan.attn_processors.values()]
    assert chosen == ["_native_math"] * 4
    assert len(speed.blocks(wan)) == 2


def test_a_processor_that_would_not_follow_is_an_error(transformer):
    transformer.fuse_qkv_projections()
    with pytest.raises(TypeError, match="takes no backend"):
        kernels.set_attention_(transformer, AttentionBackendName._NATIVE_MATH)


def test_a_hopper_takes_flash_attention_3_only_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    cuda = torch.device("cuda")
    assert kernels._backend("flash", cuda).value == "flash"
    monkeypatch.setattr(kernels, "_check_attention_backend_requirements", lambda backend: None)
    assert kernels._backend("flash", cuda).value == "_flash_3"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert kernels._backend("flash", cuda).value == "flash"


# --- compiled blocks -----------------------------------------------------------------------------


def test_all_blocks_share_one_compilation_and_its_bits(transformer, counter):
    alone = forward(transformer)
    speed.compile_blocks_(transformer, counter)
    assert torch.equal(forward(transformer), alone)
    forward(transformer, seed=2)
    assert counter.frame_count == GRAPHS_PER_SHAPE


def test_a_block_whose_attention_kernels_are_named_is_captured_whole(transformer, counter):
    """With a kernel that a CPU has; cuDNN is named in the same way."""
    kernels.set_attention_(transformer, AttentionBackendName._NATIVE_MATH)
    alone = forward(transformer)
    speed.compile_blocks_(transformer, counter)
    assert torch.equal(forward(transformer), alone)
    assert counter.frame_count == GRAPHS_PER_SHAPE


@pytest.mark.slow
def test_more_picture_sizes_than_torch_keeps_by_default_are_compiled_too(transformer, counter):
    speed.compile_blocks_(transformer, counter)
    with torch._dynamo.config.patch(recompile_limit=GRAPHS_PER_SHAPE):
        for width in (4, 8):
            forward(transformer, width=width)
    assert counter.frame_count == 2 * GRAPHS_PER_SHAPE


def test_hooks_of_the_other_knobs_stand_outside_the_compiled_code(transformer, counter):
    speed.compile_blocks_(transformer, counter)
    speed.apply(transformer, LoadSettings(precision="fp8", cached_steps=WILLING), CPU)
    for step in (0, 1):
        with speed.cache_scope(transformer, "window 0", step):
            forward(transformer)
    assert counter.frame_count == GRAPHS_PER_SHAPE
    assert speed.reused_forwards(transformer) == 1


def test_compiled_code_is_kept_in_the_folder_given(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    speed.keep_compiled_in(tmp_path)
    assert speed.os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
    assert (tmp_path / "compiled").is_dir()


def test_a_folder_for_compiled_code_named_by_the_studio_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/the/studio/says")
    speed.keep_compiled_in(tmp_path)
    assert speed.os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/the/studio/says"


def test_a_compiled_vae_has_the_same_bits_and_is_compiled_once(counter):
    torch.manual_seed(7)
    made = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    made.eval().requires_grad_(False)
    latents = torch.randn(1, 2, 4, 2, 2)
    alone = vae.decode(made, latents)
    speed.compile_vae_(made, counter)
    assert (vae.decode(made, latents) == alone).all()
    first = counter.frame_count
    assert first > 0
    vae.decode(made, latents)
    assert counter.frame_count == first


# --- eight bits ----------------------------------------------------------------------------------


def test_fp8_computes_with_weights_rounded_to_8_bits_and_nothing_else(transformer):
    rounded = make_transformer()
    for block in rounded.transformer_blocks:
        for name, layer in block.named_modules():
            if isinstance(layer, torch.nn.Linear) and "norm" not in name:
                layer.to(torch.float8_e4m3fn).to(torch.float32)
    exact = forward(transformer)
    said = speed.apply(transformer, LoadSettings(precision="fp8"), CPU)
    assert "kept in 8 bits" in said[0]
    assert "not exact" in said[0]
    assert torch.equal(forward(transformer), forward(rounded))
    assert not torch.equal(forward(transformer), exact)


def test_fp8_matrices_are_narrow_between_forwards_and_norms_never_are(transformer):
    speed.apply(transformer, LoadSettings(precision="fp8"), CPU)
    forward(transformer)
    block = transformer.transformer_blocks[0]
    assert block.attn1.to_q.weight.dtype == torch.float8_e4m3fn
    assert block.ff.net[2].weight.dtype == torch.float8_e4m3fn
    assert block.norm1.linear.weight.dtype == torch.float32
    assert block.attn1.norm_q.weight.dtype == torch.float32
    assert transformer.patch_embed.proj.weight.dtype == torch.float32
    assert transformer.dtype == torch.float32


def test_a_model_of_8_bits_says_the_precision_it_computes_in():
    transformer = make_transformer().to(torch.bfloat16)
    speed.apply(transformer, LoadSettings(precision="fp8"), CPU)
    assert transformer.dtype == torch.bfloat16


def test_multiplying_in_8_bits_needs_torchao_and_the_right_gpu(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: None)
    assert not speed.multiplies_in_8_bits(cuda)
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: object())
    assert speed.multiplies_in_8_bits(cuda)
    assert not speed.multiplies_in_8_bits(CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert not speed.multiplies_in_8_bits(cuda)


def test_torchao_is_given_the_matrices_and_no_norm(transformer, monkeypatch):
    chosen = []

    def quantize_(block, config, filter_fn):
        assert config.asked == {"granularity": "row", "set_inductor_config": False}
        chosen.append({name for name, at in block.named_modules() if filter_fn(at, name)})

    torchao = ModuleType("torchao.quantization")
    torchao.quantize_ = quantize_
    torchao.PerRow = lambda: "row"
    torchao.Float8DynamicActivationFloat8WeightConfig = lambda **asked: SimpleNamespace(asked=asked)
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.quantization", torchao)
    speed._multiply_in_8_bits(transformer)
    layers = {"attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"}
    assert chosen == [layers | {"ff.net.0.proj", "ff.net.2"}] * BLOCKS


# --- steps reused --------------------------------------------------------------------------------


@pytest.fixture
def reusing(transformer):
    said = speed.apply(transformer, LoadSettings(cached_steps=WILLING), CPU)
    assert "not exact" in said[0]
    assert speed.reuses_steps(transformer)
    leader = transformer.transformer_blocks[0]._diffusers_hook.get_hook("fbc_leader_block_hook")
    assert leader.threshold == WILLING
    leader.threshold = ANYTHING
    return transformer


def scoped(transformer, key, step, seed):
    with speed.cache_scope(transformer, key, step):
        return forward(transformer, seed)


def test_a_step_that_changed_little_is_answered_from_the_one_before(reusing):
    computed = scoped(reusing, "a", 0, seed=1)
    assert speed.reused_forwards(reusing) == 0
    answered = scoped(reusing, "a", 1, seed=1)
    assert speed.reused_forwards(reusing) == 1
    assert torch.allclose(answered, computed, atol=NEARLY)


def test_the_first_step_is_computed_to_the_exact_bits(reusing):
    assert torch.equal(scoped(reusing, "a", 0, seed=1), forward(make_transformer(), seed=1))


def test_what_one_window_left_never_serves_another(reusing):
    exact = forward(make_transformer(), seed=2)
    scoped(reusing, "window 0", 0, seed=1)
    assert torch.equal(scoped(reusing, "window 1", 0, seed=2), exact)
    assert speed.reused_forwards(reusing) == 0


def test_the_same_forward_under_the_first_window_s_name_would_have_been_wrong(reusing):
    """What the test above is worth: with one name for both, the answer is another."""
    exact = forward(make_transformer(), seed=2)
    scoped(reusing, "window 0", 0, seed=1)
    assert not torch.allclose(scoped(reusing, "window 0", 1, seed=2), exact, atol=NEARLY)


def test_windows_that_take_turns_keep_what_is_their_own(reusing):
    first = {key: scoped(reusing, key, 0, seed) for key, seed in (("a", 1), ("b", 2))}
    again = {key: scoped(reusing, key, 1, seed) for key, seed in (("a", 1), ("b", 2))}
    assert speed.reused_forwards(reusing) == 2
    assert torch.allclose(again["a"], first["a"], atol=NEARLY)
    assert torch.allclose(again["b"], first["b"], atol=NEARLY)


@pytest.mark.parametrize("step", [0, 2, 7])
def test_a_gap_in_the_steps_or_a_new_job_computes_afresh(reusing, step):
    exact = forward(make_transformer(), seed=2)
    scoped(reusing, "a", 0, seed=1)
    assert torch.equal(scoped(reusing, "a", step, seed=2), exact)


def test_a_forward_that_failed_leaves_nothing_behind(transformer):
    speed.apply(transformer, LoadSettings(cached_steps=1e-6), CPU)
    exact = forward(make_transformer(), seed=2)
    scoped(transformer, "a", 0, seed=1)
    last = transformer.transformer_blocks[-1].ff
    real, last.forward = last.forward, lambda *given: (_ for _ in ()).throw(MemoryError())
    with pytest.raises(MemoryError):
        scoped(transformer, "a", 1, seed=2)
    last.forward = real
    assert torch.equal(scoped(transformer, "a", 1, seed=2), exact)


def test_a_forward_outside_any_scope_is_an_error_not_a_guess(reusing):
    with pytest.raises(ValueError, match="No cache context"):
        forward(reusing)


def test_forgetting_drops_what_all_steps_left(reusing):
    exact = forward(make_transformer(), seed=2)
    scoped(reusing, "a", 0, seed=1)
    speed.forget_steps(reusing)
    assert torch.equal(scoped(reusing, "a", 1, seed=2), exact)


def test_a_small_threshold_computes_every_step_that_changed(transformer):
    speed.apply(transformer, LoadSettings(cached_steps=1e-6), CPU)
    alone = make_transformer()
    for step in range(3):
        made = scoped(transformer, "a", step, seed=step)
        assert torch.equal(made, forward(alone, seed=step))
    assert speed.reused_forwards(transformer) == 0


def test_switched_off_again_the_model_is_the_exact_one(reusing):
    scoped(reusing, "a", 0, seed=1)
    reusing.disable_cache()
    assert not speed.reuses_steps(reusing)
    assert torch.equal(forward(reusing, seed=2), forward(make_transformer(), seed=2))


# --- where weights lie ---------------------------------------------------------------------------


def test_offloading_on_a_cpu_does_nothing_and_says_so(transformer):
    said = speed.apply(transformer, replace(EXACT, offload="group"), CPU)
    assert said == ("Nothing is offloaded: this job computes on the CPU.",)
    assert torch.equal(forward(transformer), forward(make_transformer()))


def test_on_a_gpu_blocks_come_one_at_a_time_on_a_stream_of_their_own():
    asked = {}
    stub = SimpleNamespace(enable_group_offload=lambda **given: asked.update(given))
    said = speed._offload_blocks(stub, torch.device("cuda"))
    assert asked["offload_type"] == "block_level"
    assert asked["num_blocks_per_group"] == 1
    assert asked["use_stream"] is True
    assert asked["onload_device"].type == "cuda"
    assert asked["offload_device"].type == "cpu"
    assert "exact" in said
