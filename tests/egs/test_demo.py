"""The demo recipe, whole, in miniature: the real script, the real commands, every stage."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs" / "demo" / "run.sh"
MINIATURE = {
    "--speakers": "--train-speakers 2 --val-speakers 1 --test-speakers 1 --words yes,no,up",
    "--epochs": "1",
    "--control-epochs": "1",
    "--flex-epochs": "2",
    "--patch-sizes": "16 24 48",
    "--specialists": "24",
}
MODELS = ["fixed", "control", "supervised", "distilled"]


def run(*options: str) -> subprocess.CompletedProcess:
    """Run the recipe with this Python's commands on the PATH."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([str(RECIPE), *options], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def exp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    exp = tmp_path_factory.mktemp("demo") / "my exp"
    options = [text for pair in MINIATURE.items() for text in pair]
    done = run("--exp", str(exp), *options)
    assert done.returncode == 0, done.stderr
    assert "stage 7" in done.stdout
    return exp


@pytest.mark.slow
def test_every_stage_leaves_what_it_promises(exp: Path) -> None:
    for model in MODELS:
        assert (exp / model / "model.safetensors").stat().st_size > 1_000_000
    with open(exp / "flexibility" / "flexibility.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["model"], r["patch_freq"]) for r in rows] == [(m, p) for m in MODELS for p in ("16", "24", "48")]
    assert {r["n_clips"] for r in rows} == {"3"}
    text = (exp / "flexibility" / "RESULTS.md").read_text()
    for row in rows:
        assert f"{100 * float(row['accuracy']):.1f}" in text
    alone = next(line for line in text.splitlines() if line.startswith("| specialists"))
    at_16 = next(float(row["accuracy"]) for row in rows if (row["model"], row["patch_freq"]) == ("control", "16"))
    with open(exp / "specialists" / "patch24" / "flexibility" / "flexibility.csv", newline="") as file:
        at_24 = float(next(csv.DictReader(file))["accuracy"])
    assert alone == f"| specialists | {100 * at_16:.1f} | {100 * at_24:.1f} |  |  |  |"


@pytest.mark.slow
def test_control_and_flexible_models_have_the_same_start_and_optimizer(exp: Path) -> None:
    configs = {m: json.loads((exp / m / "train_config.json").read_text()) for m in MODELS[1:]}
    for field in ("optim", "model", "seed", "augment", "data"):
        control = configs["control"][field]
        assert all(config[field] == control for config in configs.values()), field
    assert configs["control"]["model"]["init"] == str(exp / "fixed")
    assert configs["control"]["patches"]["sizes"] == []
    assert configs["supervised"]["patches"] == configs["distilled"]["patches"]
    assert configs["distilled"]["distill"]["teacher"] == str(exp / "fixed")


@pytest.mark.slow
def test_stages_can_be_run_one_by_one_and_again(exp: Path) -> None:
    weights = {m: (exp / m / "model.safetensors").read_bytes() for m in MODELS}
    options = [text for pair in MINIATURE.items() for text in pair]
    done = run("--exp", str(exp), *options, "--stage", "3", "--stop-stage", "4")
    assert done.returncode == 0, done.stderr
    assert "stage 3" in done.stdout
    assert "stage 5" not in done.stdout
    assert {m: (exp / m / "model.safetensors").read_bytes() for m in MODELS} == weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stages", "1"], "unknown option --stages"),
        (["--stage", "one"], "--stage: found one, expected a number"),
        (["--stage"], "option --stage needs a value"),
        (["--data", "/nowhere/at/all"], "/nowhere/at/all: no such folder"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    done = run("--exp", str(tmp_path / "exp"), *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_is_the_header_of_the_script() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "--flex-epochs" in done.stdout
