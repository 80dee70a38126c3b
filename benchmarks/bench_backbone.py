# SPDX-License-Identifier: Apache-2.0
"""How fast a full-size video transformer samples here: as it comes, and with the speed knobs.

    python benchmarks/bench_backbone.py

Builds CogVideoX-Fun V1.5 5B InP (Casper and Over++ are of the same build) with random weights
straight on the GPU, so it needs no file, and samples one window of 85 frames at 672x384 in 50 steps
through the sampler that jobs use: first eagerly, then, in the same process and with the same
weights and noise, compiled and with the attention kernels named. Figures go to a JSON file after
every part, so a run that is cut short leaves what it had.

Random weights cost what trained ones do, with two exceptions: how often ``--cached-steps`` can
reuse a step, and how far rounding carries over 50 steps, are properties of trained weights. The
text encoder is left out. ``--tiny`` runs the same script in seconds on a processor, to see that it
works; its figures mean nothing.

*FLOP utilisation* is operations (``footprint.forward_teraflops`` times forwards) over seconds,
over the device's published dense bf16 peak where it is known, and over what one large matrix
product reaches in the same run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName
from torch.nn.attention import SDPBackend, sdpa_kernel

from gencomp_server import footprint
from gencomp_server.backbones import spec_named
from gencomp_server.engine.residency import library_versions
from gencomp_server.models import attention, cogvideox, speed, tiny
from gencomp_server.models.loading import LoadSettings, build_on_meta, compute_dtype
from gencomp_server.parts import sampler, windows

ROOT = Path(__file__).resolve().parent.parent
FULL = "cogvideox-fun-v1.5-5b-inp"
# Dense bf16 peaks in TF/s as published, by how the driver names the device.
PEAKS = {"NVIDIA H200": 989, "NVIDIA H100 80GB HBM3": 989, "NVIDIA A100": 312}
KERNELS = {
    "native": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
WARM_UP = 2


class Run:
    """What a sampler wants of a job: nothing is kept, nobody cancels."""

    def progress(self, stage, step, total):
        pass

    def check_cancelled(self):
        pass

    def checkpoint(self, name, tensors=None):
        return None


class NoPrompts:
    """Stands where the text encoder would."""

    def has(self, prompt):
        return True

    def release(self):
        pass


class Record:
    """Figures, written out whenever a part is done."""

    def __init__(self, path, facts):
        self.path, self.facts = path, facts

    def add(self, part, **figures):
        self.facts[part] = figures
        print(f"{part}: {json.dumps(figures)}", flush=True)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.facts, indent=2) + "\n", encoding="utf-8")


def measured(device, work):
    """Run something; return what it made, its seconds and the most device memory it held in GB."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    made = work()
    if device.type != "cuda":
        return made, time.perf_counter() - started, None
    torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    return made, seconds, round(torch.cuda.max_memory_allocated(device) / 1e9, 2)


def fastest(device, work, times=5):
    """Return the least seconds that something takes, after a warm-up."""
    work()
    return min(measured(device, work)[1] for _ in range(times))


# --- the machine ---------------------------------------------------------------------------------


def machine(device):
    if device.type != "cuda":
        return {"device": platform.processor() or platform.machine(), "kind": "cpu"}
    facts = torch.cuda.get_device_properties(device)
    return {
        "device": facts.name,
        "kind": "cuda",
        "memory_gb": round(facts.total_memory / 1e9, 1),
        "capability": f"{facts.major}.{facts.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def published_peak(device):
    """Return the peak of a device in TF/s; None where it is not known."""
    return next((peak for start, peak in PEAKS.items() if device.startswith(start)), None)


def commit():
    """Return the commit that this is, with a plus where files differ from it."""
    try:
        words = ["git", "-C", str(ROOT)]
        name = subprocess.run(
            [*words, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*words, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+" if changed else "")


def matrix_rate(device, dtype, side):
    """Return the TF/s of a square matrix product."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / fastest(device, lambda: a @ b) / 1e12


def attention_rates(device, dtype, heads, tokens, width):
    """Return the TF/s of each attention kernel that is there, at the size of one block."""
    query, key, value = (
        torch.randn(1, heads, tokens, width, device=device, dtype=dtype) for _ in range(3)
    )

    def attend(kernel):
        if kernel is None:
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)
        with sdpa_kernel(kernel):
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)

    rates = {}
    for name, kernel in KERNELS.items():
        if kernel is not None and device.type != "cuda":
            continue
        try:
            seconds = fastest(device, lambda kernel=kernel: attend(kernel))
        except RuntimeError as error:
            rates[name] = f"not there: {str(error).splitlines()[0]}"
            continue
        rates[name] = round(4 * tokens**2 * heads * width / seconds / 1e12, 3)
    return rates


# --- the model -----------------------------------------------------------------------------------


def fill_(module, device, dtype, seed):
    """Give a model on the meta device random weights on the device, in place."""
    module.to(dtype)
    module.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.normal_(generator=generator)
            if weight.dim() > 1:
                weight.div_(math.sqrt(weight[0].numel()))
            elif name.endswith("bias"):
                weight.mul_(0.1)
            else:
                weight.mul_(0.1).add_(1)
    return module.eval().requires_grad_(False)


def build(given, device):
    """Return a backbone with random weights, and its transformer and VAE."""
    dtype = compute_dtype(device)
    spec = spec_named("tiny" if given.tiny else FULL)
    bodies = (
        (tiny.TRANSFORMER, tiny.VAE)
        if given.tiny
        else (cogvideox.CONFIGS[FULL], cogvideox.VAE_CONFIG)
    )
    transformer = build_on_meta(lambda: CogVideoXTransformer3DModel(**bodies[0]))
    vae = build_on_meta(lambda: AutoencoderKLCogVideoX(**full_vae(bodies[1])))
    fill_(transformer, device, dtype, given.seed)
    fill_(vae, device, dtype, given.seed + 1)
    backbone = cogvideox.CogVideoXBackbone(
        spec, transformer, vae, NoPrompts(), identity="bench", device=device
    )
    return backbone, transformer, vae


def full_vae(config):
    """Complete a VAE's configuration: as many levels as widths."""
    levels = len(config["block_out_channels"])
    return {
        "down_block_types": ("CogVideoXDownBlock3D",) * levels,
        "up_block_types": ("CogVideoXUpBlock3D",) * levels,
        **config,
    }


def accelerate(transformer, given, device):
    """Put the speed knobs in force, in place; return what is."""
    if device.type == "cuda":
        settings = LoadSettings(
            compiled=not given.no_compile,
            attention=given.attention,
            cached_steps=given.cached_steps,
            precision=given.precision,
        )
        return speed.apply(transformer, settings, device, cache=given.cache)
    # What a processor can show: the same graph is captured whole, and run as it was.
    attention.set_attention_(transformer, AttentionBackendName.NATIVE)
    speed.compile_blocks_(transformer, backend="eager")
    return ("Captured as for compiling, not compiled: no GPU.",)


# --- what is measured ----------------------------------------------------------------------------


def material(given, spec, device):
    """Return a plate in model range, noise, condition and text, all of them random."""
    width, height = given.size
    grain = np.random.default_rng(given.seed)
    plate = grain.random((given.frames, height, width, 3), np.float32) * 2 - 1
    generator = torch.Generator(device).manual_seed(given.seed)
    grid = (spec.latent_frames(given.frames), 16, height // 8, width // 8)

    def noise(*shape):
        return torch.randn(*shape, generator=generator, device=device)

    kind = spec.architecture
    text_width = tiny.TRANSFORMER["text_embed_dim"] if given.tiny else 4096
    condition = noise(1, grid[0], kind.condition_channels, *grid[2:])
    return plate, noise(1, *grid), condition, noise(1, kind.text_tokens, text_width)


def sample(backbone, noise, condition, text, steps):
    """Sample one window; return latents. [1,T',16,h,w]."""
    return sampler.denoise(
        backbone,
        noise,
        condition,
        text,
        schedule=backbone.schedule(steps),
        windows=(windows.Window(0, noise.shape[1]),),
        ctx=Run(),
    )


def sampling(backbone, inputs, given, device, forward_tf, rates):
    """Sample with a warm-up; return latents and figures."""
    noise, condition, text = inputs
    _, warm_s, _ = measured(device, lambda: sample(backbone, noise, condition, text, WARM_UP))
    before = backbone.forwards
    latents, seconds, peak_gb = measured(
        device, lambda: sample(backbone, noise, condition, text, given.steps)
    )
    forwards = backbone.forwards - before
    rate = forwards * forward_tf / seconds
    figures = {
        "warm_up_s": round(warm_s, 2),
        "seconds": round(seconds, 3),
        "forwards": forwards,
        "teraflops_per_s": round(rate, 3),
        "peak_memory_gb": peak_gb,
        **{f"utilisation_of_{name}": round(rate / peak, 4) for name, peak in rates.items() if peak},
    }
    return latents, figures


def pictures(backbone, vae_half, device, *args):
    made, seconds, peak_gb = measured(device, lambda: vae_half(*args))
    return made, {"seconds": round(seconds, 3), "peak_memory_gb": peak_gb}


def psnr(a, b, peak):
    """Return the PSNR of two arrays in dB; None where they are the same."""
    error = float(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))
    return None if error == 0 else round(10 * math.log10(peak**2 / error), 2)


def compare(eager, fast, frames_eager, frames_fast):
    a, b = (one.cpu().numpy() for one in (eager, fast))
    shown = [np.clip(one, -1, 1) for one in (frames_eager, frames_fast)]
    return {
        "same_bits": bool(np.array_equal(a, b)),
        "finite": bool(np.isfinite(a).all() and np.isfinite(b).all()),
        "latents_psnr_db": psnr(a, b, float(a.max() - a.min())),
        "frames_psnr_db": psnr(*shown, 2.0),
    }


def parsed(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the processor")
    parser.add_argument("--steps", type=int, help="default 50; tiny 3")
    parser.add_argument("--frames", type=int, help="default 85; tiny 13")
    parser.add_argument("--size", help="WIDTHxHEIGHT; default 672x384; tiny 80x48")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--attention", default="cudnn", help="of the accelerated run")
    parser.add_argument("--no-compile", action="store_true", help="attention kernels alone")
    parser.add_argument("--precision", default="exact", choices=("exact", "fp8"))
    parser.add_argument("--cached-steps", type=float, default=0.0)
    parser.add_argument("--compile-vae", action="store_true", help="measure a compiled VAE too")
    parser.add_argument("--cache", type=Path, help="folder that keeps compiled code")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args(words)
    given.steps = given.steps or (3 if given.tiny else 50)
    given.frames = given.frames or (13 if given.tiny else 85)
    wanted = given.size or ("80x48" if given.tiny else "672x384")
    given.size = tuple(int(side) for side in wanted.split("x"))
    if not given.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny shows that the script works")
    return given


def figures_file(given, facts):
    """Return where the figures go: named by date, machine and commit."""
    if given.json or given.tiny:
        return given.json
    device = facts["machine"]["device"].lower().replace("nvidia ", "").replace(" ", "-")
    name = f"{facts['date']}-backbone-{device}-{facts['commit'].rstrip('+')}.json"
    return ROOT / "docs" / "benchmarks" / name


def main(words=None):
    given = parsed(words)
    device = torch.device("cpu" if given.tiny else "cuda")
    spec = spec_named("tiny" if given.tiny else FULL)
    dtype, kind = compute_dtype(device), spec.architecture
    forward_tf = footprint.forward_teraflops(spec, given.size, spec.latent_frames(given.frames))
    tokens = footprint.tokens(spec, given.size, spec.latent_frames(given.frames))
    facts = {
        "what": "one window sampled with random weights; the text encoder is not in it",
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(device),
        "versions": {"python": platform.python_version(), **library_versions()},
        "case": {
            "backbone": spec.name,
            "frames": given.frames,
            "size": list(given.size),
            "steps": given.steps,
            "tokens": tokens,
            "teraflops_per_forward": round(forward_tf, 6),
            "dtype": str(dtype),
        },
    }
    record = Record(figures_file(given, facts), facts)
    measured_peak = matrix_rate(device, dtype, 256 if given.tiny else 8192)
    published = published_peak(facts["machine"]["device"])
    rates = {"published_peak": published, "matrix_product": measured_peak}
    record.add(
        "peaks",
        published_teraflops_per_s=published,
        matrix_product_teraflops_per_s=round(measured_peak, 3),
        attention_teraflops_per_s=attention_rates(
            device, dtype, kind.heads, tokens, kind.width // kind.heads
        ),
    )
    (backbone, transformer, vae), seconds, _ = measured(device, lambda: build(given, device))
    record.add("build", seconds=round(seconds, 2))
    plate, *inputs = material(given, spec, device)

    backbone.encode(plate)
    _, encoding = pictures(backbone, backbone.encode, device, plate)
    record.add("vae_encode", **encoding)
    eager, eager_figures = sampling(backbone, inputs, given, device, forward_tf, rates)
    record.add("eager", **eager_figures)
    backbone.decode(eager)
    frames_eager, decoding = pictures(backbone, backbone.decode, device, eager)
    record.add("vae_decode", **decoding)

    said = accelerate(transformer, given, device)
    fast, fast_figures = sampling(backbone, inputs, given, device, forward_tf, rates)
    answered = speed.reused_forwards(transformer)
    record.add("accelerated", in_force=list(said), answered=answered, **fast_figures)
    frames_fast = backbone.decode(fast)
    record.add("accelerated_against_eager", **compare(eager, fast, frames_eager, frames_fast))
    if given.compile_vae:
        encoding, decoding = compiled_vae(backbone, vae, device, plate, fast, frames_fast, record)
    record.add(
        "result",
        times_faster=round(eager_figures["seconds"] / fast_figures["seconds"], 3),
        encode_sample_decode_eager_s=round(
            facts["vae_encode"]["seconds"]
            + eager_figures["seconds"]
            + facts["vae_decode"]["seconds"],
            2,
        ),
        encode_sample_decode_s=round(
            encoding["seconds"] + fast_figures["seconds"] + decoding["seconds"], 2
        ),
    )
    return 0


def compiled_vae(backbone, vae, device, plate, latents, frames, record):
    """Measure the VAE with compiled blocks; return its figures."""
    speed.compile_vae_(vae, "inductor" if device.type == "cuda" else "eager")

    def warm_up():
        backbone.encode(plate)
        backbone.decode(latents)

    _, seconds, _ = measured(device, warm_up)
    _, encoding = pictures(backbone, backbone.encode, device, plate)
    made, decoding = pictures(backbone, backbone.decode, device, latents)
    shown = [np.clip(one, -1, 1) for one in (made, frames)]
    record.add(
        "compiled_vae",
        warm_up_s=round(seconds, 2),
        encode=encoding,
        decode=decoding,
        frames_psnr_db=psnr(*shown, 2.0),
    )
    return encoding, decoding


if __name__ == "__main__":
    raise SystemExit(main())
