"""`flexiast bench`: honest costs of every patch size, the files it writes, and one line for a mistake."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

import flexiast
from flexiast import PatchSize
from flexiast.classifier import latency
from flexiast.cli import main
from flexiast.commands.bench import BenchConfig, bench
from flexiast.data.manifest import Labels
from flexiast.errors import ConfigError
from flexiast.reports.bench import format_bench, plot_bench
from flexiast.traintest.bench import Cost, compiled, growth, roofline

CURVE = {"16": {"accuracy": 0.75, "mAP": 0.5}, "48": {"accuracy": 0.25}, "32": "spoilt"}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of 96 frames with a validation curve at two sizes."""
    network = flexiast.FlexiASTConfig(classes=3, frames=96, width=32, depth=1, heads=2)
    features = flexiast.FeatureConfig(frames=96)
    model = flexiast.AudioClassifier(network, features, Labels.numbers(3), "ce", {"validation": CURVE})
    out = tmp_path_factory.mktemp("bench") / "model"
    model.save_pretrained(out)
    return out


def cost(tokens: int, seconds: float) -> Cost:
    return Cost("16", tokens, 1.0, 1 / seconds, 1.0, 2.0, None, 5.0, None)


@pytest.mark.slow
def test_compiled_it_gives_the_same_at_every_size_and_is_timed(model_dir: Path) -> None:
    model = flexiast.load(model_dir)
    log_mel = torch.randn(2, model.feature_config.frames, model.config.bins)
    with torch.no_grad():
        for patch in (PatchSize(16, 16), PatchSize(16, 32)):
            torch.testing.assert_close(compiled(model, patch)(log_mel), model(log_mel, patch), atol=1e-5, rtol=1e-4)
    patches = tuple(PatchSize(16, time) for time in (16, 32))
    found = bench(BenchConfig(model_dir, patch_sizes=patches, seconds=0.01, batch_size=2, compile=True))
    assert all(cost.clips_per_second > 0 for cost in found.costs)


@pytest.mark.slow
def test_command_writes_table_csv_json_and_picture(model_dir: Path, tmp_path: Path, capsys) -> None:
    options = f"--out {tmp_path} --patch-sizes 48 16 16x32 --seconds 0.01 --batch-size 3 --precision fp32"
    assert main(["bench", str(model_dir), *options.split()]) == 0
    printed = capsys.readouterr().out
    with open(tmp_path / "bench.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(Cost)]
    assert [row["patch_size"] for row in rows] == ["48", "16", "16x32"]  # as asked for
    assert [row["tokens"] for row in rows] == ["6", "48", "24"]
    assert [row["score"] for row in rows] == ["0.25", "0.75", ""]
    config = flexiast.load(model_dir).config
    gflops = [config.flops(p) / 1e9 for p in (48, 16, "16x32")]
    assert [float(row["gflops"]) for row in rows] == pytest.approx(gflops, rel=1e-5)
    for row in rows:
        assert 0 < float(row["latency_p50_ms"]) <= float(row["latency_p95_ms"])
        assert float(row["clips_per_second"]) > 0
        (line,) = (line for line in printed.splitlines() if line.split()[:1] == [row["patch_size"]])
        # Both are rounded, each in its own way.
        assert float(line.split()[3]) == pytest.approx(float(row["clips_per_second"]), rel=1e-3)
    content = json.loads((tmp_path / "bench.json").read_text())
    assert {"command", "precision", "commit", "versions", "hardware"} <= content["provenance"].keys()
    assert content["costs"][1]["tokens"] == 48
    assert min(content[k] for k in ("gflops_per_second", "gigabytes_per_second", "front_end_ms")) > 0
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_its_times_are_those_of_budgets(model_dir: Path, monkeypatch) -> None:
    config = BenchConfig(model_dir, patch_sizes=(PatchSize(24, 24),), seconds=0.0, batch_size=1, precision="fp32")
    bench(config)
    monkeypatch.setattr(latency, "measure_seconds", lambda *a: pytest.fail("measured again"))
    times = latency.seconds_of(flexiast.load(model_dir), [PatchSize(24, 24)], {})
    assert 0 < times.front_end < times.sizes[PatchSize(24, 24)]


@pytest.mark.slow
def test_onnx_runtime_is_timed_at_every_size_if_asked(model_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    patches = (PatchSize(48, 48), PatchSize(24, 24))
    found = bench(
        BenchConfig(model_dir, tmp_path, patch_sizes=patches, seconds=0.0, batch_size=2, device="cpu", onnx=True)
    )
    asked = [(weights, patch) for weights in ("float32", "int8") for patch in ("48", "24")]
    assert [(cost.weights, cost.patch_size) for cost in found.onnx] == asked
    assert [cost.tokens for cost in found.onnx] == 2 * [cost.tokens for cost in found.costs]
    assert all(cost.clips_per_second > 0 and cost.latency_p50_ms > 0 for cost in found.onnx)
    assert json.loads((tmp_path / "bench.json").read_text())["onnx"] == [dataclasses.asdict(c) for c in found.onnx]
    assert "ONNX Runtime int8, clips/s: 48: " in format_bench(found)


def test_without_onnx_runtime_one_line_says_so(model_dir: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("flexiast.commands.bench.measure_costs", lambda *_: pytest.fail("timed before the error"))
    assert main(["bench", str(model_dir), "--onnx", "--device", "cpu"]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert "onnxruntime: not installed" in line
    assert "pip install '.[export]'" in line


@pytest.mark.slow
def test_without_a_folder_nothing_is_written(model_dir: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = bench(BenchConfig(model_dir, patch_sizes=(PatchSize(24, 24),), seconds=0.0, batch_size=1))
    assert list(tmp_path.iterdir()) == []
    assert found.growth is None  # one size has no slope
    assert found.costs[0].score is None
    lines = format_bench(found).splitlines()
    assert lines[1].split()[:2] == ["24", "24"]
    assert lines[1].split()[-1] == "-"
    assert plot_bench(found).light.startswith(b"\x89PNG")


def test_peak_memory_grows_with_the_tokens(tmp_path: Path) -> None:
    network = flexiast.FlexiASTConfig(classes=3, width=64, depth=1, heads=2)
    model = flexiast.AudioClassifier(network, flexiast.FeatureConfig(), Labels.numbers(3))
    model.save_pretrained(tmp_path)
    sizes = (PatchSize(8, 8), PatchSize(64, 64))
    config = BenchConfig(tmp_path, patch_sizes=sizes, seconds=0.0, batch_size=8, precision="fp32", device="cpu")
    kept = [torch.ones(1 << 10) for _ in range(1 << 16)]  # 256 MB of small pieces: the heap keeps them when freed
    held = kept[-1]  # at the top of the heap
    del kept[:]
    many, few = (one.peak_memory_mb for one in bench(config).costs)
    del held
    if many is None:
        pytest.skip("this system does not tell the memory of a process")
    assert many > few
    # At the least the hidden layer of the MLP, in float32. Memory that lies free in the process counts all the same.
    assert many > 8 * 2049 * 4 * 64 * 4 / 1e6


def test_growth_is_the_exponent() -> None:
    assert growth([cost(n, 1e-3 * n**1.5) for n in (10, 100, 1000)]) == pytest.approx(1.5)
    assert growth([cost(10, 1.0), cost(10, 2.0)]) is None


def test_roofline_is_the_lower_of_arithmetic_and_traffic(model_dir: Path) -> None:
    model, patch = flexiast.load(model_dir), PatchSize(16, 16)
    flops = model.config.flops(patch)
    assert roofline(model, patch, 8, rate=1e9, bandwidth=1e30) == pytest.approx(1e9 / flops)
    one, many = (roofline(model, patch, batch, rate=1e30, bandwidth=1e9) for batch in (1, 1000))
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert 1 / one - 1 / many == pytest.approx(weights * (1 - 1 / 1000) / 1e9)  # weights are read once a batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert roofline(model, patch, 1000, rate=1e30, bandwidth=1e9) > 1.5 * many


MISTAKES = {
    "--patch-sizes 200": "patch size 200x200",
    "--batch-size 0": "batch_size: found 0",
    "--seconds -1": "seconds: found -1.0",
    "--threads -1": "threads: found -1",
    "--device abacus": "device: found 'abacus'",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_a_mistake_gets_one_line_that_names_it(options: str, model_dir: Path, capsys) -> None:
    assert main(["bench", str(model_dir), *options.split()]) == 2
    printed = capsys.readouterr().err.strip()
    assert MISTAKES[options] in printed
    assert len(printed.splitlines()) == 1


def test_no_patch_size_is_refused(model_dir: Path) -> None:
    with pytest.raises(ConfigError, match="patch_sizes: found none"):
        BenchConfig(model_dir, patch_sizes=())
