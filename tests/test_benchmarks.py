"""The benchmarks run, compare outputs before they time anything, and write what readers need; times are not tested."""

import argparse
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from flexiast.classifier.latency import Times

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
# Scripts on the shared harness; a script with a harness of its own has a test of its own.
ON_THE_HARNESS = sorted(
    path.stem
    for path in BENCHMARKS.glob("*.py")
    if re.search(r"^from harness import .*\bReport\b", path.read_text(), re.M)
)
QUICKEST = "metrics"  # the others are slow


@pytest.fixture(autouse=True)
def _threads_as_before(monkeypatch: pytest.MonkeyPatch):
    """Benchmarks set the number of threads and import their neighbours by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_all_benchmarks_are_found() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text()}
    assert scripts - set(ON_THE_HARNESS) == {"growth"}


@pytest.mark.parametrize(
    "name", [name if name == QUICKEST else pytest.param(name, marks=pytest.mark.slow) for name in ON_THE_HARNESS]
)
def test_quick_run_compares_then_times_then_writes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    # The others compare with transformers, or share parts with it.
    without = {"resize", "metrics", "input", "startup", "budget", "large_data"}
    if name not in without and importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the export extra (transformers)")
    importlib.import_module(name).main(["--quick", "--out", str(tmp_path)])
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert {"commit", "versions", "hardware"} <= content.keys()
    assert content["benchmark"] == name
    assert content["options"]["quick"] is True
    assert content["checks"]
    assert all(check["difference"] <= check["limit"] for check in content["checks"])
    for row in content["rows"]:
        assert row["fastest_ms"] <= row["median_ms"] <= row["p95_ms"] <= row["slowest_ms"]
        assert (row["times_faster"] == 1.0) == (row["contender"] == row["against"])
    printed = capsys.readouterr().out
    assert all(row["contender"] in printed for row in content["rows"])


def test_without_a_gpu_its_benchmark_only_says_so(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    importlib.import_module("gpu").main(["--out", str(tmp_path)])
    assert capsys.readouterr().out.startswith("gpu: not measured")
    assert not list(tmp_path.iterdir())


def options(tmp_path: Path) -> argparse.Namespace:
    return importlib.import_module("harness").arguments(None, ["--quick", "--rounds", "3", "--out", str(tmp_path)])


def test_nothing_is_timed_before_it_is_compared(tmp_path: Path) -> None:
    harness = importlib.import_module("harness")
    report = harness.Report("x", options(tmp_path), rounds=1)
    with pytest.raises(harness.Disagreement, match="before its outputs are compared"):
        report.race("group", {"a": lambda: None}, against="a")


@pytest.mark.parametrize("other", [[1.0, 2.1], [1.0], [1.0, float("nan")]])
def test_outputs_that_differ_stop_the_benchmark(other: list[float], tmp_path: Path) -> None:
    harness = importlib.import_module("harness")
    report = harness.Report("x", options(tmp_path), rounds=1)
    with pytest.raises(harness.Disagreement, match=r"outputs differ by (1\.00e-01|inf|nan)"):
        report.agree("what", torch.tensor([1.0, 2.0]), other, within=1e-3)
    assert report.checks == []


def test_contenders_take_turns_and_ratios_are_of_the_same_round(tmp_path: Path, monkeypatch) -> None:
    harness = importlib.import_module("harness")
    report = harness.Report("x", options(tmp_path), rounds=1)
    report.agree("what", 1.0, 1.0, within=0)
    calls: list[str] = []
    # Seconds of a, b in the round to warm up and three more; the machine gets slower, the ratio stays.
    clock = iter([9.0, 9.0, 4.0, 2.0, 8.0, 4.0, 16.0, 8.0])
    monkeypatch.setattr(report, "_seconds", lambda run: (run(), next(clock))[1])
    ratios = report.race("group", {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, against="a")
    assert "".join(calls) == "ab" * 4
    assert ratios == {"a": 1.0, "b": 2.0}
    assert [row["median_ms"] for row in report.rows] == [8000.0, 4000.0]


def test_budgets_are_told_as_kept_missed_or_too_tight(tmp_path: Path, monkeypatch) -> None:
    """Times that are made up: at the coarse size 3 ms, at the finer one 15 ms; passes always take 4 ms."""
    budget, harness = importlib.import_module("budget"), importlib.import_module("harness")
    monkeypatch.setattr(
        budget, "measure_seconds", lambda model, sizes: Times(0.0, dict(zip(sizes, (0.015, 0.003), strict=True)))
    )
    monkeypatch.setattr(harness.Report, "_seconds", lambda report, run: (run(), 0.004)[1])
    budget.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    facts = json.loads((tmp_path / "budget.json").read_text())["facts"]
    assert {told: (row["patch_size"], row["kept"]) for told, row in facts.items()} == {
        "2 ms, threads: 1": (None, None),
        "5 ms, threads: 1": ("48", True),
        "10 ms, threads: 1": ("48", True),
        "20 ms, threads: 1": ("40", True),
        "50 ms, threads: 1": ("40", True),
    }
    monkeypatch.setattr(harness.Report, "_seconds", lambda report, run: 0.006)
    budget.main(["--quick", "--threads", "1", "--out", str(tmp_path)])
    facts = json.loads((tmp_path / "budget.json").read_text())["facts"]
    assert [row["kept"] for row in facts.values()] == [None, False, True, True, True]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_bench_runs_all_and_names_what_failed(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\ncase $1 in *budget.py) exit 1;; esac\n")
    python.chmod(0o755)
    command = ["make", "-o", ".venv/installed", "bench", f"BIN={tmp_path}"]
    done = subprocess.run(command, cwd=BENCHMARKS.parent, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if line.startswith("failed:")] == ["failed: benchmarks/budget.py"]
    assert f"{python} benchmarks/train_step.py" in done.stdout


@pytest.mark.slow
def test_the_fit_of_hours_finds_the_costs_that_times_were_made_of() -> None:
    pytest.importorskip("transformers")
    hours = importlib.import_module("hours")
    made = {"a": 2e-3, "b": 5e-4, "c": 6e-7, "d": 4e-3}
    rows = [hours.Hour("8", s, round(n * s), 1.0, 1.0, 1.0) for s in (1.0, 2.0, 5.0, 10.0) for n in (13, 50, 201)]
    cost = [sum(made[name] * by for name, by in hours.terms(row).items()) for row in rows]
    fit = hours.fitted([row._replace(seconds_per_clip=one) for row, one in zip(rows, cost, strict=True)])
    assert {name: fit[name] for name in made} == pytest.approx(made, rel=1e-6)
    assert fit["largest error, %"] < 1e-6
    # A cost below zero is left out, and what is left is off.
    fit = hours.fitted([row._replace(seconds_per_clip=1 / row.tokens) for row in rows])
    assert all(value >= 0 for value in fit.values())
    assert fit["largest error, %"] > 10


@pytest.mark.slow
def test_growth_of_cost_is_tabled_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("transformers")  # of which the networks compared elsewhere are made
    importlib.import_module("growth").main(["--quick", "--out", str(tmp_path)])
    content = json.loads((tmp_path / "growth.json").read_text())
    assert {cost["tokens"] for cost in content["costs"]} >= {8, 256}
    assert content["provenance"]["precision"] in ("fp32", "bf16")
    assert (tmp_path / "growth.csv").exists()
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert "tokens" in capsys.readouterr().out
