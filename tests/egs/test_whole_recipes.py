"""Every recipe, whole, in miniature: real layout, real scripts, from the raw data set to the flexibility curve."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import layouts

EGS = Path(__file__).resolve().parents[2] / "egs"
WRITE = {
    "audioset": layouts.write_audioset,
    "vggsound": layouts.write_vggsound,
    "esc50": layouts.write_esc50,
    "speechcommands": layouts.write_speechcommands,
    "voxceleb": layouts.write_voxceleb,
    "arabic_speech_commands": layouts.write_arabic_speech_commands,
}
PATCHES = ("8", "16", "32")
TINY = (
    "--size micro --frames 96 --batch-size 6 --epochs 1 --workers 0 --lr 1e-3 --warmup-steps 2 --seed 0"
    " --patch-sizes {sizes} --eval-sizes {sizes} --extra --log=none"
)


def run(script: str, *options: str, sizes: str = " ".join(PATCHES), **variables: str) -> str:
    """Run a recipe with this Python's commands on the PATH; returns what it printed."""
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment = os.environ | path | variables
    tiny = [sizes if word == "{sizes}" else word for word in TINY.split()]
    done = subprocess.run([EGS / script, *tiny, *options], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def curve(path: Path) -> list[tuple[str, str]]:
    """Model and patch size of each row of a flexibility.csv."""
    with open(path, newline="") as file:
        return [(row["model"], f"{row['patch_freq']}x{row['patch_time']}") for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("dataset", WRITE)
def test_from_the_raw_data_set_to_the_flexibility_curve(dataset: str, tmp_path: Path) -> None:
    faults = WRITE[dataset](tmp_path / "my data", broken=True)
    exp, fold = tmp_path / "my exp", ["--folds", "2"] if dataset == "esc50" else []
    axis = ["--axes", "both"] if dataset == "voxceleb" else []
    common = ["--data", str(tmp_path / "my data"), "--exp", str(exp), *fold]
    run(f"{dataset}/run16.sh", "--init", "scratch", "--prepare", "--missing skip", *common)
    where = "fold2" if fold else ""
    assert layouts.read_missing(exp / "manifests").keys() == faults.keys()

    run(f"{dataset}/flexify.sh", "--stage", "2", *axis, *common)
    run(f"{dataset}/flexify.sh", "--stage", "2", "--method", "distill", "--temperature", "2", *axis, *common)
    for method in ("supervised", "distill"):
        out = exp / f"flexible_from16_{method}_both" / where
        settings = json.loads((out / "train_config.json").read_text())
        assert (settings["distill"]["teacher"] is not None) == (method == "distill")
        rows = curve(out / "flexibility" / "flexibility.csv")
        assert [patch for _, patch in rows] == [f"{p}x{p}" for p in PATCHES] * 2
        assert len({model for model, _ in rows}) == 2
        assert (out / "flexibility" / "flexibility.png").stat().st_size > 10_000
    said = run(f"{dataset}/specialists.sh", "--sizes", "16 32", "--stage", "2", *common)
    models = ["specialists", "patch16", "flexible_from16_distill_both", "flexible_from16_supervised_both"]
    assert [line.split()[0] for line in said.splitlines()[-4:]] == models
    assert (exp / "specialists" / "comparison.png").stat().st_size > 10_000

    run(f"{dataset}/run8.sh", "--stage", "2", "--init", str(exp / "patch16" / where), *common)
    assert json.loads((exp / "patch8" / where / "config.json").read_text())["model"]["patch_size"] == [8, 8]


@pytest.mark.slow
def test_the_voxceleb_recipe_of_the_paper_varies_time_alone(tmp_path: Path) -> None:
    layouts.write_voxceleb(tmp_path / "my data")
    common = ["--data", str(tmp_path / "my data"), "--exp", str(tmp_path / "my exp")]
    sizes = "8 10 12 16 20 24 30 32 40 48"
    run("voxceleb/run16.sh", "--init", "scratch", *common)
    run("voxceleb/flexify.sh", "--stage", "2", *common, sizes=sizes)
    out = tmp_path / "my exp" / "flexible_from16_supervised_time"
    measured = [patch for _, patch in curve(out / "flexibility" / "flexibility.csv")]
    assert measured == [f"16x{t}" for t in sizes.split()] * 2
    log = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert set(log[-1]["validation"]) == {"16" if t == "16" else f"16x{t}" for t in sizes.split()}


@pytest.mark.slow
def test_a_recipe_on_two_processes_of_torchrun(tmp_path: Path) -> None:
    layouts.write_vggsound(tmp_path / "my data")
    options = ["--data", str(tmp_path / "my data"), "--exp", str(tmp_path / "my exp"), "--init", "scratch"]
    said = run("vggsound/run16.sh", *options, sizes="16 32", NPROC="2")
    assert said.count("trained model") == said.count("accuracy, %") == 1  # one process speaks
    rows = curve(tmp_path / "my exp" / "patch16" / "flexibility" / "flexibility.csv")
    assert rows == [("patch16", "16x16"), ("patch16", "32x32")]


@pytest.mark.slow
def test_esc50_reports_the_average_over_the_folds(tmp_path: Path) -> None:
    layouts.write_esc50(tmp_path / "my data")
    options = ["--data", str(tmp_path / "my data"), "--exp", str(tmp_path / "my exp"), "--folds", "1 2"]
    said = run("esc50/run16.sh", "--init", "scratch", *options, sizes="16 32")
    with open(tmp_path / "my exp" / "patch16" / "average.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["patch"], row["folds"]) for row in rows] == [("16x16", "2"), ("32x32", "2")]
    found = []
    for fold in ("fold1", "fold2"):
        with open(tmp_path / "my exp" / "patch16" / fold / "flexibility" / "flexibility.csv", newline="") as file:
            found.append(float(next(csv.DictReader(file))["accuracy"]))
    assert float(rows[0]["accuracy_mean"]) == pytest.approx(sum(found) / 2)
    assert f"{50 * sum(found):8.1f}" in said
