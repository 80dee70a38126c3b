# SPDX-License-Identifier: Apache-2.0
"""The speed benchmark runs whole on a processor with a tiny model.

Its figures mean nothing there; what this shows is that one command builds, samples twice in one
process, compares and leaves a complete file.
"""

import importlib.util
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "bench_backbone.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_backbone", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_tiny_run_leaves_every_figure_and_the_same_picture_twice(bench, tmp_path, capsys):
    torch._dynamo.reset()
    file = tmp_path / "figures.json"
    assert bench.main(["--tiny", "--json", str(file)]) == 0
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert figures["case"] == {
        "backbone": "tiny",
        "frames": 13,
        "size": [80, 48],
        "steps": 3,
        "tokens": 2 * 3 * 5 + 226,
        # 2 P L + 4 L^2 d n with P = 12 d^2 n, d = 32, n = 2, L = 256.
        "teraflops_per_forward": round((2 * 12 * 32**2 * 2 * 256 + 4 * 256**2 * 32 * 2) / 1e12, 6),
        "dtype": "torch.float32",
    }
    assert figures["eager"]["forwards"] == figures["accelerated"]["forwards"] == 3
    assert figures["accelerated_against_eager"]["same_bits"] is True
    assert figures["accelerated_against_eager"]["finite"] is True
    assert set(figures["versions"]) >= {"python", "torch", "diffusers"}
    assert figures["commit"]
    assert figures["machine"]["kind"] == "cpu"
    assert figures["vae_encode"]["seconds"] > 0
    assert figures["vae_decode"]["seconds"] > 0
    total = figures["result"]["encode_sample_decode_s"]
    assert total >= figures["accelerated"]["seconds"]
    assert "accelerated_against_eager" in capsys.readouterr().out


def test_the_full_case_is_the_one_the_published_figures_are_of(bench):
    """8.68 PF for 50 steps at 11 314 tokens: performance page, table of operations."""
    spec = bench.spec_named(bench.FULL)
    size, latent_frames = (672, 384), spec.latent_frames(85)
    assert bench.footprint.tokens(spec, size, latent_frames) == 11_314
    petaflops = 50 * bench.footprint.forward_teraflops(spec, size, latent_frames) / 1e3
    assert petaflops == pytest.approx(8.68, abs=0.01)


@pytest.mark.parametrize(
    ("device", "peak"),
    [("NVIDIA H200", 989), ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H100 PCIe", None)],
)
def test_a_peak_is_given_only_for_devices_whose_peak_is_known(bench, device, peak):
    assert bench.published_peak(device) == peak


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_full_run_is_refused_with_the_way_out(bench, capsys):
    with pytest.raises(SystemExit):
        bench.parsed([])
    assert "--tiny" in capsys.readouterr().err


def test_figures_are_filed_by_date_machine_and_commit(bench):
    given = bench.parsed(["--tiny"])
    given.tiny = False
    facts = {"machine": {"device": "NVIDIA H200"}, "date": "2026-11-21", "commit": "abc123+"}
    assert bench.figures_file(given, facts).name == "2026-11-21-backbone-h200-abc123.json"


def test_psnr_of_equal_pictures_is_none_and_of_a_tenth_off_is_26_db(bench):
    """Peak 2, error 0.1: 20 log10(2 / 0.1) = 26.02 dB."""
    assert bench.psnr([0.0, 0.5], [0.0, 0.5], 2.0) is None
    assert bench.psnr([0.0, 0.5], [0.1, 0.6], 2.0) == 26.02
