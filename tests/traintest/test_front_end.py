"""Another front end from end to end: `stats` prints the options, `train` takes them, the model carries them."""

from pathlib import Path

import pytest

import flexiast
from flexiast.cli import main
from flexiast.errors import ConfigError
from flexiast.export.export import export
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import DataConfig, FeatureOptions, ModelOptions
from flexiast.traintest.summary import describe
from flexiast.traintest.train import Trainer

FRONT_END = {"sample_rate": 8000, "bins": 40, "window_ms": 32.0, "hop_ms": 16.0}


def test_stats_train_and_export_agree(sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    asked = [word for name, value in FRONT_END.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["stats", str(sounds / "val"), *asked, "--workers", "0"]) == 0
    options = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("--")).split()
    run = tmp_path / "run"
    size = ["--model.size", "micro", "--model.patch-size", "8", "--epochs", "0.1", "--data.workers", "0"]
    data = ["--data.train", str(sounds / "train"), "--data.val", str(sounds / "val"), "--out", str(run)]
    assert main(["train", *data, *size, *options]) == 0
    features = flexiast.load(run).feature_config
    assert {name: getattr(features, name) for name in FRONT_END} == FRONT_END
    assert features.mean == float(options[options.index("--data.mean") + 1])
    assert features.frames == 64  # 61 of 16 ms in a second, to the nearest multiple of 16
    capsys.readouterr()
    flexified = ["--out", str(tmp_path / "f"), "--epochs", "0.1", "--patches.sizes", "8", "16", "--data.workers", "0"]
    assert main(["flexify", str(run), *data[:4], *flexified]) == 0
    assert flexiast.load(tmp_path / "f").feature_config == features
    assert export(flexiast.load(run), tmp_path / "model.pt2", "torch").difference < 1e-3
    with pytest.raises(ConfigError, match=r"features\.window_ms, features\.hop_ms: found 32 and 16"):
        export(flexiast.load(run), tmp_path / "hf", "hf")


def test_a_run_says_what_it_starts_from_and_what_was_changed_to_fit(sounds: Path, tmp_path: Path) -> None:
    start = ModelOptions(init=str(Path(__file__).parents[2] / "pretrained_models" / "demo_flexible"))
    changed = TrainConfig(
        DataConfig(sounds / "train"), tmp_path, features=FeatureOptions(sample_rate=8000, bins=64), model=start
    )
    made = Trainer(changed, progress=False)
    (line,) = (one for one in describe(made.prepared, made.plan, made.model, 1) if one.startswith("starts from"))
    assert line.split("; ") == [
        f"starts from {start.init}",
        "kernel: PI-resize from patch 16 to 8x16",
        "pos_embed: grid 8x6 of patch 16, stride 16, 128 bins, fitted to 8x6 of patch 8x16, stride 8x16, 64 bins",
        "head: new, classifier of 6 classes",
        "other front end: 128 mel bins -> 64, 16000 Hz -> 8000",
    ]


def test_what_is_asked_for_wins_over_the_start_and_that_over_the_defaults() -> None:
    start = flexiast.FeatureConfig(sample_rate=32_000, bins=64)
    assert FeatureOptions(bins=80).resolve(start) == flexiast.FeatureConfig(sample_rate=32_000, bins=80)
    assert FeatureOptions().same_front_end(start)
    assert FeatureOptions(bins=64, frames=10).same_front_end(start)
    assert not FeatureOptions(hop_ms=5).same_front_end(start)
