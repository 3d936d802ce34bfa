"""What is left open is chosen, what is given stays, and a run that cannot learn says so."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import flexiast
from flexiast.cli import main
from flexiast.data.manifest import Labels, read_manifest
from flexiast.data.table_options import TableOptions
from flexiast.errors import ConfigError, DataError
from flexiast.runtime.arguments import AUTO, to_json
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import DataConfig, FeatureOptions, ModelOptions, OptimConfig
from flexiast.traintest.summary import at_chance, describe, result
from flexiast.traintest.train import Trainer


def trainer(sounds: Path, out: Path, flexible: bool = False, **changes: object) -> Trainer:
    return Trainer(TrainConfig(DataConfig(sounds / "train"), out, **changes), progress=False, flexible=flexible)


def described(made: Trainer) -> Iterator[str]:
    return describe(made.prepared, made.plan, made.model, seconds=100)


def still_open(config: object, prefix: str = "") -> list[str]:
    """Settings that are AUTO though they must not be, in a configuration that a run has resolved."""
    optional = {f"data.{field.name}" for field in dataclasses.fields(TableOptions)} | {"features.resampler"}
    optional |= {f"features.{name}" for name in ("sample_rate", "bins", "window_ms", "hop_ms")}
    optional |= {"optim.head_lr", "augment.background", "distill.scores", "patches.draw", "patches.dropout"}
    optional |= {"data.labels", "data.root", "features.downmix", "model.init", "model.patch_size", "model.pool"}
    optional |= {"data.val_where", "model.prefix_tokens", "model.coverage", "distill.teacher", "distill.patch_size"}
    optional |= {"data.length"}
    names = []
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            names += still_open(value, f"{name}.")
        elif value is AUTO and name not in optional:
            names.append(name)
    return names


def test_everything_is_chosen_with_a_reason(sounds: Path, tmp_path: Path) -> None:
    made = trainer(sounds, tmp_path)
    assert still_open(made.config) == []
    chosen = {choice.setting: choice.value for choice in made.prepared.choices}
    assert all(choice.reason for choice in made.prepared.choices)
    assert chosen["loss"] == "ce"
    assert chosen["model.size"] == "micro"
    assert made.config.features.frames == 96  # one second has 98: the nearest multiple of 16
    assert (len(made.train_data), len(made.val_data)) == (96, 24)
    assert chosen["epochs"] == pytest.approx(1000 / 96**0.5, abs=0.1)
    assert chosen["optim.warmup_steps"] == made.plan.total_steps // 20


def test_what_is_given_stays(sounds: Path, tmp_path: Path) -> None:
    made = trainer(
        sounds,
        tmp_path,
        optim=OptimConfig(lr=3e-4, warmup_steps=7),
        augment=AugmentConfig(roll=2, mixup=0.5),
        features=FeatureOptions(frames=64),
        epochs=3,
        loss="bce",
    )
    config = made.config
    assert (config.optim.lr, config.optim.warmup_steps, config.epochs, config.loss) == (3e-4, 7, 3, "bce")
    assert (config.augment.roll, config.augment.mixup, config.features.frames) == (2, 0.5, 64)
    assert not {"optim.lr", "epochs", "loss", "augment.roll", "features.frames"} & {
        c.setting for c in made.prepared.choices
    }


def test_a_start_is_trained_at_a_lower_rate_and_keeps_its_features_on_its_own_classes(
    sounds: Path, tmp_path: Path
) -> None:
    features = flexiast.FeatureConfig(frames=48, mean=-5.5, std=3.0)
    same, other = read_manifest(sounds / "train").labels, Labels(("dog", "cat"), ("dog", "cat"))
    for name, labels in (("same", same), ("other", other)):
        network = flexiast.FlexiASTConfig(classes=len(labels), frames=48, width=192, depth=1, heads=3)
        flexiast.AudioClassifier(network, features, labels).save_pretrained(tmp_path / name)
    fine_tuned = trainer(sounds, tmp_path / "a", model=ModelOptions(init=str(tmp_path / "other")))
    assert fine_tuned.config.optim.lr < trainer(sounds, tmp_path / "b").config.optim.lr
    assert fine_tuned.config.features.frames == 96
    for flexible in (False, True):
        start = ModelOptions(init=str(tmp_path / "same"))
        assert trainer(sounds, tmp_path / "c", flexible, model=start).model.feature_config == features


def test_a_start_with_another_front_end_is_measured_anew(sounds: Path, tmp_path: Path) -> None:
    labels = read_manifest(sounds / "train").labels
    network = flexiast.FlexiASTConfig(classes=len(labels), frames=48, width=192, depth=1, heads=3)
    start = flexiast.AudioClassifier(network, flexiast.FeatureConfig(frames=48, mean=-5.5, std=3.0), labels)
    start.save_pretrained(tmp_path / "start")
    options = FeatureOptions(sample_rate=8000, bins=64)
    made = trainer(sounds, tmp_path / "a", features=options, model=ModelOptions(init=str(tmp_path / "start")))
    features = made.model.feature_config
    assert (features.sample_rate, features.bins, features.frames) == (8000, 64, 96)
    assert features.mean != -5.5
    assert made.model.config.patch_size == (8, 16)


@pytest.mark.parametrize(("share", "val"), [(0.5, 60), (0.0, None)])
def test_validation_can_be_a_share_or_none(share: float, val: int | None, sounds: Path, tmp_path: Path) -> None:
    made = Trainer(TrainConfig(DataConfig(sounds / "train", val=share), tmp_path), progress=False)
    assert (len(made.val_data) if made.val_data else None) == val


def test_mean_and_deviation_go_together(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.mean, data\.std: found -5, None, expected both, or none"):
        Trainer(TrainConfig(DataConfig(sounds / "train", mean=-5), tmp_path), progress=False)


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        (OptimConfig(warmup_steps=1000), "the warm-up takes 1,000 steps, the whole run"),
        (OptimConfig(schedule="step", step_from=1, step_every=0.5), "below a tenth of its peak in"),
        (OptimConfig(), None),
    ],
)
def test_a_plan_that_cannot_learn_is_told(
    optim: OptimConfig, expected: str | None, sounds: Path, tmp_path: Path
) -> None:
    lines = list(described(trainer(sounds, tmp_path, optim=optim, epochs=10)))
    warnings = [line for line in lines if line.startswith("warning")]
    assert len(warnings) == (expected is not None)
    assert expected is None or expected in warnings[0]


def test_a_loss_at_chance_is_told() -> None:
    assert at_chance(1.0, 10) is None
    assert "ended at 2.300, guessing among 10 classes gives 2.303" in (at_chance(2.3, 10) or "")


def test_a_run_without_validation_clips_says_why_it_has_no_accuracy(sounds: Path, tmp_path: Path) -> None:
    run = Trainer(TrainConfig(DataConfig(sounds / "train", val=0.0), tmp_path, epochs=1), progress=False)
    (line,) = result(run.prepared, run.model.feature_config, progress=False).lines()
    assert line.startswith("no accuracy to report, as no clips were validated on")
    assert "--data.val 0.2" in line


def test_the_command_learns_with_no_other_option_than_data_and_out(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    options = ["--data.train", str(sounds / "train"), "--out", str(run), "--data.workers", "0"]
    assert main(["train", *options, "--epochs", "40"]) == 0
    told = capsys.readouterr().out
    accuracy = float(told.split("16: ")[1].split()[0])
    assert accuracy > 80
    assert "logistic regression on mean and deviation of the log-mel:" in told
    with open(run / "choices.csv", newline="") as file:
        rows = {row["setting"]: row for row in csv.DictReader(file)}
    assert rows["features.frames"]["value"] == "96"
    saved = json.loads((run / "train_config.json").read_text())
    assert saved["data"]["batch_size"] == int(rows["data.batch_size"]["value"])
    again = Trainer(TrainConfig(DataConfig(sounds / "train", workers=0), run, epochs=40), progress=False)
    assert to_json(again.config) == saved  # a second start takes over what the first has chosen


@pytest.mark.slow
def test_a_run_without_progress_ends_early(sounds: Path, tmp_path: Path) -> None:
    made = trainer(sounds, tmp_path, epochs=30, eval_every=1, patience=2, optim=OptimConfig(lr=1e-9))
    made.run()
    assert made.progress.ended
    assert made.progress.step < made.plan.total_steps
    again = trainer(sounds, tmp_path, epochs=30, eval_every=1, patience=2, optim=OptimConfig(lr=1e-9))
    again.run()
    assert again.progress.step == 0  # nothing was trained: the run is over


def test_a_folder_of_splits_is_trained_and_validated_on_them(sounds: Path, tmp_path: Path) -> None:
    made = Trainer(TrainConfig(DataConfig(sounds), tmp_path), progress=False)  # it holds train and val
    assert (len(made.train_data), len(made.val_data)) == (120, 30)
    assert made.config.data.val == sounds / "val"


def test_a_run_goes_on_with_what_it_chose_and_not_with_what_it_was_given(sounds: Path, tmp_path: Path) -> None:
    options = {"epochs": 0.5, "log": "none"}
    trainer(sounds, tmp_path, **options, model=ModelOptions(patch_size=flexiast.PatchSize(32, 32))).run()
    again = trainer(sounds, tmp_path, **options, seed=0)
    assert again.config.model.patch_size is None
    with pytest.raises(ConfigError, match=r"belongs to a run with other settings \(model\.patch_size"):
        again.run()
    assert {choice.reason for choice in again.prepared.choices} == {"as the run began"}


@pytest.fixture
def table(sounds: Path, tmp_path: Path) -> Path:
    """A table of 120 clips in four folds of 30, all six classes in each."""
    clips = sorted((sounds / "train").rglob("*.wav"))
    rows = [f"{clip},{clip.parent.name},{int(clip.stem) % 4}" for clip in clips]
    (tmp_path / "all.csv").write_text("\n".join(["path,label,fold", *rows]))
    return tmp_path / "all.csv"


def test_a_fold_of_a_table_is_validated_on_and_the_others_trained_on(table: Path, tmp_path: Path) -> None:
    data = DataConfig(table, val_where="fold=3", workers=0)
    made = Trainer(TrainConfig(data, tmp_path / "run", log="none", epochs=0.1), progress=False)
    assert {int(Path(clip.path).stem) % 4 for clip in made.train_data.clips} == {0, 1, 2}
    assert {int(Path(clip.path).stem) % 4 for clip in made.val_data.clips} == {3}
    assert (len(made.train_data), len(made.val_data)) == (90, 30)
    made.run()
    again = Trainer(TrainConfig(data, tmp_path / "run", log="none", epochs=0.1), progress=False)
    assert to_json(again.config) == to_json(made.config)
    again.run()
    assert again.progress.step == 0  # it is the same run


def test_rows_to_train_on_can_be_named_beside_those_to_validate_on(table: Path, tmp_path: Path) -> None:
    data = DataConfig(table, where=("fold=0",), val_where="fold=1,2", workers=0)
    made = Trainer(TrainConfig(data, tmp_path / "run"), progress=False)
    assert (len(made.train_data), len(made.val_data)) == (30, 60)
    assert {int(Path(clip.path).stem) % 4 for clip in made.train_data.clips} == {0}


def test_rows_to_validate_on_need_a_table_and_no_share(table: Path, sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_where: found fold=3, expected nothing beside a share"):
        DataConfig(table, val=0.2, val_where="fold=3")
    with pytest.raises(ConfigError, match=r"--data\.val-where: found beside .*train, expected a table of clips"):
        Trainer(TrainConfig(DataConfig(sounds / "train", val_where="fold=3"), tmp_path / "run"), progress=False)


def test_a_folder_with_tables_of_splits_is_trained_and_validated_on_them(sounds: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        clips = sorted((sounds / split).rglob("*.wav"))
        rows = [f"{clip},{clip.parent.name}" for clip in clips]
        (tmp_path / f"{split}.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "audio").mkdir()
    made = Trainer(TrainConfig(DataConfig(tmp_path), tmp_path / "run"), progress=False)
    assert (len(made.train_data), len(made.val_data)) == (120, 30)
    assert made.config.data.val == tmp_path / "val.csv"


def test_a_validation_label_that_the_training_lacks_is_named_with_what_is_near(table: Path, tmp_path: Path) -> None:
    text = table.read_text().replace(",low_up,0", ",low_Upp,0", 1)
    table.write_text(text)
    with pytest.raises(
        DataError, match="'low_Upp', expected one of the 6 classes in the training data; the nearest: 'lo"
    ):
        Trainer(TrainConfig(DataConfig(table, val_where="fold=0"), tmp_path / "run"), progress=False)
