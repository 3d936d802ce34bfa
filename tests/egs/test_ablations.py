"""The ablation of draws: equal compute for every arm, resumable, and a table that is the mean of its rows."""

import csv
from pathlib import Path

import pytest

import flexiast
from flexiast.traintest.train import train
from tests.scripts import script
from tests.traintest.test_train import config

draws = script("egs/ablations/draws.py")


@pytest.fixture(scope="module")
def start(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("start")
    train(config(sounds, out, epochs=0.5), progress=False)
    return out


@pytest.mark.slow
def test_two_arms_share_the_compute_and_a_second_call_trains_nothing(sounds, start, tmp_path, capsys) -> None:
    command = [str(start), "--train", str(sounds / "train"), "--val", str(sounds / "val"), "--out", str(tmp_path)]
    command += ["--seeds", "0", "--epochs", "0.3", "--arms", "published", "coarse"]
    assert draws.main(command) == 0
    shown = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    model = flexiast.load(start)
    spent = {row["arm"]: float(row["epochs"]) * draws.cost(draws.ARMS[row["arm"]], model) for row in rows}
    assert spent["coarse"] == pytest.approx(spent["published"], rel=0.01)
    nine = [float(row["accuracy"]) for row in rows if row["arm"] == "coarse" and int(row["patch_size"]) in
            (8, 10, 12, 16, 20, 24, 32, 40, 48)]  # fmt: skip
    assert len(nine) == 9
    assert f"| coarse | 1 | {100 * sum(nine) / 9:.1f} |" in shown
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert draws.main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_an_unknown_arm_is_refused(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    where = ["--train", "x", "--val", "x", "--out", str(tmp_path)]
    assert draws.main([str(start), *where, "--arms", "fine"]) == 2
    assert "--arms: found 'fine'" in capsys.readouterr().err


def test_mean_and_error_are_over_seeds() -> None:
    assert draws.cell([80.0, 82.0]) == "81.0 ± 1.0"
    assert draws.cell([80.0]) == "80.0"
