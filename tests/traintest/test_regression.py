"""Numbers to predict (`--loss mse`): metrics by value, runs that learn and resume, every command, every refusal."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.preprocessing import StandardScaler

from flexiast.classifier.load import load
from flexiast.cli import main
from flexiast.data.manifest import read_manifest
from flexiast.data.survey import survey
from flexiast.errors import CheckpointError, ConfigError, DataError
from flexiast.features import FeatureConfig
from flexiast.runtime.arguments import AUTO
from flexiast.traintest.baseline import baseline
from flexiast.traintest.cascade_search import worth
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.curve import score_of
from flexiast.traintest.metrics import figure, heading, metric_of
from flexiast.traintest.objective import Objective
from flexiast.traintest.options import DataConfig, DistillConfig, FeatureOptions, ModelOptions, OptimConfig
from flexiast.traintest.regression import regression_metrics
from flexiast.traintest.summary import RunResult
from flexiast.traintest.train import Trainer, train
from tests.sounds import write_tones
from tests.traintest.test_train import records, require_exact_resume, weights

NAMES, STATISTICS = ("loudness", "pitch"), {"mean": -12.6, "std": 3.6}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.csv (96 tones) and val.csv (32)."""
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder, 96, seed=0, name="train.csv")
    write_tones(folder, 32, seed=1, name="val.csv")
    return folder


def config(tones: Path, out: Path, **changes: object) -> TrainConfig:
    """A run of a few seconds; `changes` replace whole fields."""
    base = TrainConfig(
        out=out,
        data=DataConfig(
            train=tones / "train.csv", val=tones / "val.csv", batch_size=12, workers=0, mean=-12.6, std=3.6
        ),
        features=FeatureOptions(frames=48),
        model=ModelOptions(size="micro", pool="mean"),
        optim=OptimConfig(lr=1e-3, warmup_steps=5),
        loss="mse",
        epochs=12,
        eval_every=6.0,
        log="none",
    )
    return dataclasses.replace(base, **changes)


@pytest.fixture(scope="module")
def run(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("regression") / "run"
    train(config(tones, out), progress=False)
    return out


# Metrics ---------------------------------------------------------------------------------------------------------


def test_targets_are_told_in_the_order_of_the_model() -> None:
    curve = {"16": {"R2": 0.5, "R2 pitch": 0.4, "R2 age": 0.6}}
    (*_, pitch, age, _) = RunResult("R2", curve, simple=0.1).lines()
    assert (pitch, age) == ("validation R2 pitch:  16: 0.4", "validation R2 age:  16: 0.6")


def test_metrics_are_those_of_scikit_learn_and_scipy() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal([1e4, -3.0], [500.0, 0.01], (40, 2))
    scores = targets + rng.normal(0, [300.0, 0.02], (40, 2))
    got = regression_metrics(scores.astype(np.float32), targets.astype(np.float32), NAMES)
    scores, targets = scores.astype(np.float32).astype(float), targets.astype(np.float32).astype(float)
    r2 = r2_score(targets, scores, multioutput="raw_values")
    rmse = root_mean_squared_error(targets, scores, multioutput="raw_values")
    pearson = [pearsonr(targets[:, c], scores[:, c])[0] for c in range(2)]
    assert list(got.targets) == list(NAMES)
    np.testing.assert_allclose(list(got.targets.values()), np.stack([r2, rmse, pearson], axis=1), rtol=1e-9)
    np.testing.assert_allclose([got.R2, got.RMSE, got.pearson], [r2.mean(), rmse.mean(), np.mean(pearson)], rtol=1e-9)
    assert got.as_dict() == {
        **{"R2": got.R2, "RMSE": got.RMSE, "pearson": got.pearson},
        **{"R2 loudness": got.targets["loudness"][0], "R2 pitch": got.targets["pitch"][0]},
        **{"RMSE loudness": got.targets["loudness"][1], "RMSE pitch": got.targets["pitch"][1]},
        **{"pearson loudness": got.targets["loudness"][2], "pearson pitch": got.targets["pitch"][2]},
    }
    assert score_of(scores, targets, "mse") == pytest.approx(got.R2)
    assert worth(scores, targets, "mse").mean() == pytest.approx(got.R2)


def test_targets_that_are_all_alike_count_as_in_scikit_learn() -> None:
    alike = np.full((3, 1), 2.0)
    met, missed = (regression_metrics(alike + shift, alike, ["x"]) for shift in (0.0, 1.0))
    expected = r2_score(alike, alike), r2_score(alike, alike + 1), 1.0
    assert expected == (met.R2, missed.R2, missed.RMSE)
    assert np.isnan(missed.pearson)
    with pytest.raises(
        ConfigError, match=r"found values \(3, 1\) and targets \(3, 1\), expected the same \(clips, 2\)"
    ):
        regression_metrics(alike, alike, NAMES)


def test_the_score_has_a_name_and_no_per_cents() -> None:
    assert (metric_of("mse"), heading("R2"), figure("R2", 0.93125)) == ("R2", "R2", "0.931")
    assert (metric_of("ce"), heading("accuracy"), figure("accuracy", 0.93125)) == ("accuracy", "accuracy, %", "93.1 %")


def test_the_simple_model_is_ridge_regression(tones: Path) -> None:
    data = {name: read_manifest(tones / f"{name}.csv", numbers=True) for name in ("train", "val")}
    seen = {name: survey(one, FeatureConfig(), progress=False) for name, one in data.items()}
    got = baseline(data["train"], seen["train"], data["val"], seen["val"], "mse")
    scaler = StandardScaler().fit(seen["train"].summary)
    alphas, predicted = np.logspace(-1, 5, 7), []
    for wanted in data["train"].clips.values.T.astype(float):
        model = RidgeCV(alphas).fit(scaler.transform(seen["train"].summary), wanted)
        predicted.append(model.predict(scaler.transform(seen["val"].summary)))
    expected = r2_score(data["val"].clips.values, np.stack(predicted, axis=1), multioutput="raw_values")
    np.testing.assert_allclose([one[0] for one in got.targets.values()], expected, atol=1e-4)


# Runs ------------------------------------------------------------------------------------------------------------


def test_a_small_run_learns_and_its_log_has_every_target(run: Path, tones: Path) -> None:
    last = [line for line in records(run) if "validation" in line][-1]
    (curve,) = last["validation"].values()
    assert curve["R2"] > 0.5, curve
    assert last["mean"] == curve["R2"]
    assert {"loss", "RMSE", "pearson", "R2 loudness", "R2 pitch", "RMSE pitch", "pearson loudness"} <= curve.keys()
    with open(run / "epochs.csv", newline="") as file:
        assert {"R2@16", "RMSE pitch@16"} <= next(csv.DictReader(file)).keys()
    model, data = load(run), read_manifest(tones / "train.csv", numbers=True)
    assert (model.loss, model.labels.names) == ("mse", NAMES)
    np.testing.assert_allclose(model.scale.mean, data.clips.values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(model.scale.std, data.clips.values.std(axis=0), rtol=1e-6)
    assert repr(model).startswith("AudioClassifier(2 targets (loudness, pitch)")
    # The loss is the squared error over the deviations of training.
    val = read_manifest(tones / "val.csv", numbers=True)
    values = np.array([[p.score for p in one] for one in model.predict([str(c.path) for c in val.clips], top_k=1)])
    shares = np.square((values - val.clips.values) / model.scale.std)
    assert curve["loss"] == pytest.approx(float(shares.mean()), rel=1e-3)
    expected = r2_score(val.clips.values, values, multioutput="raw_values")
    np.testing.assert_allclose([curve["R2 loudness"], curve["R2 pitch"]], expected, atol=1e-4)


def test_training_is_the_same_in_any_unit(tones: Path, tmp_path: Path) -> None:
    rows = list(csv.reader((tones / "train.csv").read_text().splitlines()))
    text = "file,loudness,pitch\n" + "".join(
        f"{file},{3e6 * float(loudness)!r},{1e-6 * float(pitch) + 1e-3!r}\n" for file, loudness, pitch, _ in rows[1:]
    )
    (tones / "units.csv").write_text(text)
    losses = []
    for name in ("train.csv", "units.csv"):
        data = DataConfig(train=tones / name, val=0.0, batch_size=12, workers=0, **STATISTICS)
        train(config(tones, tmp_path / name, data=data, epochs=1, log_every=1), progress=False)
        losses.append([line["loss"] for line in records(tmp_path / name) if "loss" in line])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)


@pytest.mark.slow
def test_a_resumed_run_equals_the_uninterrupted_one(tones: Path, tmp_path: Path) -> None:
    require_exact_resume(
        lambda name: config(tones, tmp_path / name, epochs=2, eval_every=1.0, save_every=3, log_every=2, ema=0.5), 10, 9
    )


def test_mixup_interpolates_the_numbers_and_does_not_normalise_them(tones: Path, tmp_path: Path) -> None:
    trainer = Trainer(config(tones, tmp_path / "run"), progress=False)
    batch = trainer.dataset.__getitems__(trainer._share(0))
    plain = trainer.objective.prepare(batch).targets
    np.testing.assert_allclose(trainer.model.scale.values(plain), batch.targets, rtol=1e-5)
    augment = dataclasses.replace(trainer.config.augment, mixup=1.0)
    mixing = Objective(trainer.model, None, "mse", 0.0, augment, DistillConfig(), "fp32", 0)
    mixed = mixing.prepare(batch).targets
    partner = plain[torch.arange(len(plain)) ^ 1]
    share = ((mixed - partner) / (plain - partner))[:, :1]
    torch.testing.assert_close(mixed, share * plain + (1 - share) * partner)
    assert ((share > 0) & (share < 1)).all()


def test_a_start_of_classes_gets_a_new_head_and_one_of_numbers_keeps_its_units(
    run: Path, sounds: Path, tones: Path, tmp_path: Path
) -> None:
    start = ModelOptions(init=str(run))
    other = DataConfig(train=tones / "val.csv", val=0.0, batch_size=12, workers=0, **STATISTICS)
    goes_on = Trainer(config(tones, tmp_path / "a", model=start, data=other), progress=False).model
    assert goes_on.scale == load(run).scale
    torch.testing.assert_close(goes_on.head.weight.detach(), weights(run)["head.weight"])
    column = dataclasses.replace(other, label_column="pitch")
    fresh = Trainer(config(tones, tmp_path / "b", model=start, data=column), progress=False).model
    assert fresh.labels.names == ("pitch",)
    assert fresh.scale.mean[0] == pytest.approx(
        read_manifest(tones / "val.csv", numbers=True).clips.values[:, 1].mean()
    )
    folder = DataConfig(train=sounds / "val", val=0.0, batch_size=12, workers=0, **STATISTICS)
    classes = Trainer(config(tones, tmp_path / "c", model=start, data=folder, loss=AUTO), progress=False).model
    assert (classes.loss, len(classes.labels), "targets" in classes.metadata) == ("ce", 6, False)


def test_a_teacher_of_numbers_is_heard_in_the_units_of_the_student(run: Path, tones: Path, tmp_path: Path) -> None:
    taught = config(tones, tmp_path / "taught", distill=DistillConfig(teacher=str(run)), epochs=1)
    trainer = Trainer(taught, progress=False)
    teacher = trainer.teacher
    teacher.metadata["targets"] = {"mean": [5.0, 1.0], "std": [2.0, 3.0]}  # other units than the student's
    inputs = trainer.objective.prepare(trainer.dataset.__getitems__(trainer._share(0)))
    patch = trainer.model.config.patch_size
    with torch.no_grad():
        loss = trainer.objective(trainer.model, inputs, patch)
        values = teacher(inputs.teacher, patch) * torch.tensor([2.0, 3.0]) + torch.tensor([5.0, 1.0])
        mean, std = (torch.tensor(one) for one in (trainer.model.scale.mean, trainer.model.scale.std))
        expected = (trainer.model(inputs.student, patch) - (values - mean) / std).square().mean()
    torch.testing.assert_close(loss, expected)


# Commands --------------------------------------------------------------------------------------------------------


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command prints when it succeeds."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 0
    return capsys.readouterr().out


def test_the_command_line_from_training_to_predictions(tones: Path, tmp_path: Path, capsys) -> None:
    out, clip = tmp_path / "cli", tones / "1-0.wav"
    printed = told(
        capsys, "train", "--out", out, "--data.train", tones, "--loss", "mse", "--epochs", 2, "--data.workers", 0,
        "--log", "none", "--quiet", "--data.label-column", "pitch",
    )  # fmt: skip
    assert printed == ""
    assert json.loads((out / "config.json").read_text())["labels"]["names"] == ["pitch"]
    line = told(capsys, "predict", out, clip).rstrip("\n")
    path, name, value = line.split("\t")
    assert (path, name) == (str(clip), "pitch")
    (exact,) = load(out).predict(str(clip))
    assert float(value) == pytest.approx(exact.score, rel=1e-6)
    printed = json.loads(told(capsys, "predict", out, clip, "--json").splitlines()[0])
    assert printed["predictions"] == [{"target": "pitch", "value": float(value)}]
    told(capsys, "predict", out, clip, "--out", tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["target"], row["value"]) == ("pitch", value)


@pytest.mark.slow
def test_a_training_tells_r2_beside_linear_regression(tones: Path, tmp_path: Path, capsys) -> None:
    printed = told(
        capsys, "train", "--out", tmp_path / "cli", "--data.train", tones, "--loss", "mse", "--epochs", 1,
        "--data.workers", 0, "--log", "none",
    )  # fmt: skip
    for text in ("validation R2:", "validation RMSE pitch:", "for comparison: linear regression on mean", "best R2"):
        assert text in printed
    assert "%" not in printed


@pytest.mark.slow
def test_measure_and_flexify_show_r2_by_size(run: Path, tones: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "measured"
    options = ("--patch-sizes", 16, 24, "--workers", 0, "--scores")
    printed = told(capsys, "measure", run, "--data", tones / "val.csv", "--out", out, *options)
    assert re.search(r"^R2 .*16 .*24", printed, re.MULTILINE)
    assert "  RMSE pitch" in printed
    with open(out / "flexibility.csv", newline="") as file:
        rows = {row["patch_freq"]: row for row in csv.DictReader(file)}
    assert {"R2", "RMSE", "pearson", "R2 pitch", "R2_low", "R2_high", "loss"} <= rows["16"].keys()
    assert float(rows["16"]["R2_low"]) < float(rows["16"]["R2"]) < float(rows["16"]["R2_high"])
    assert not (out / "classes.csv").exists()
    with np.load(out / "scores" / "run_pi_16.npz") as file:
        r2 = r2_score(file["targets"], file["values"])
    assert float(rows["16"]["R2"]) == pytest.approx(r2, abs=1e-4)
    flexible = told(
        capsys, "flexify", run, "--out", tmp_path / "flexible", "--data.train", tones / "train.csv", "--data.val",
        tones / "val.csv", "--epochs", 0.2, "--data.workers", 0, "--log", "none", "--eval-patch-sizes", 16, 24,
    )  # fmt: skip
    assert all(text in flexible for text in ("before (pi)", "after (pi)", "best R2"))
    assert load(tmp_path / "flexible").scale == load(run).scale


@pytest.mark.slow
def test_curve_score_doctor_and_bench_know_numbers(run: Path, tones: Path, tmp_path: Path, capsys) -> None:
    model = tmp_path / "model"
    load(run).save_pretrained(model)
    printed = told(capsys, "curve", model, "--data", tones / "val.csv", "--patch-sizes", 16, 24, "--workers", 0)
    assert "best R2" in printed
    curve = load(model).curve
    assert (curve.score_name, {len(one.rule.sizes) for one in curve.cascades}) == ("R2", {1})
    told(capsys, "predict", model, tones / "1-0.wav", "--budget", "R2>=0.01")
    options = ("--workers", 0, "--patch-sizes", 16)
    told(capsys, "measure", model, "--data", tones / "val.csv", "--out", tmp_path / "m", *options)
    told(capsys, "score", model, tones / "val.csv", "--out", tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as file:
        assert file["values"].shape == (32, 2)
    assert "nothing found" in told(capsys, "doctor", tones / "train.csv", "--numbers", "--workers", 0)
    assert "nothing found" in told(capsys, "doctor", tones / "train.csv", "--checkpoint", run, "--workers", 0)
    assert "validation clips: 32" in told(capsys, "doctor", run, "--workers", 0)
    told(capsys, "bench", run, "--patch-sizes", 16, "--seconds", 0.05)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["predict", "RUN", "CLIP", "--cascade", "24", "16", "--threshold", "0.5"],
            "cascade: found one for a model that",
        ),
        (["export", "RUN", "--out", "x", "--cascade", "24", "16", "--threshold", "0.5"], "no confidence to go by"),
        (["events", "RUN", "CLIP"], "checkpoint: found a model that predicts numbers, expected one of classes"),
        (["measure", "RUN", "DEMO", "--data", "VAL", "--out", "x"], "found models of classes beside models of numbers"),
    ],
)
def test_commands_about_classes_refuse_numbers(words, message, run: Path, tones: Path, tmp_path: Path, capsys) -> None:
    demo = Path(__file__).parents[2] / "pretrained_models" / "demo_flexible"
    places = {"RUN": run, "CLIP": tones / "1-0.wav", "VAL": tones / "val.csv", "DEMO": demo, "x": tmp_path / "x"}
    assert main([str(places.get(word, word)) for word in words]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "error" in one]
    assert message in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"label_smoothing": 0.1},
            "label_smoothing: found 0.1, expected 0 with loss mse: its numbers to predict have no",
        ),
        ({"class_weights": "balanced"}, "class_weights: found balanced, expected none with loss mse"),
        ({"focal": 2.0}, "focal: found 2.0, expected 0 with loss mse"),
        ({"metric": "accuracy"}, "metric: found accuracy, expected auto or R2 with loss mse"),
        ({"loss": "ce", "metric": "R2"}, "metric: found R2, expected auto or accuracy or mAP with loss ce"),
        (
            {"distill": DistillConfig(scores=Path("s.npz"))},
            "distill.scores: found s.npz, expected nothing with loss mse",
        ),
        ({"distill": DistillConfig("t", temperature=2)}, "distill.temperature: found 2, expected 1 with loss mse"),
        ({"data": {"sampling": "balanced"}}, "data.sampling: found balanced, expected shuffle with loss mse"),
        ({"data": {"labels": Path("l.csv")}}, "data.labels: found l.csv, expected nothing with loss mse"),
    ],
)
def test_settings_that_need_classes_are_refused(changes: dict, message: str, tones: Path, tmp_path: Path) -> None:
    base = config(tones, tmp_path / "run")
    if isinstance(changes.get("data"), dict):
        changes = {"data": dataclasses.replace(base.data, **changes["data"])}
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(base, **changes)


def test_teachers_and_tables_that_do_not_fit_are_refused(run: Path, sounds: Path, tones: Path, tmp_path: Path) -> None:
    demo = Path(__file__).parents[2] / "pretrained_models" / "demo_flexible"
    with pytest.raises(ConfigError, match=r"distill.teacher: found .*, of classes, expected one of numbers to predict"):
        Trainer(config(tones, tmp_path / "a", distill=DistillConfig(teacher=str(demo))), progress=False)
    folder = DataConfig(train=sounds / "train", val=sounds / "val", batch_size=12, workers=0, mean=-6.0, std=3.5)
    with pytest.raises(ConfigError, match=r"distill.teacher: found .*, of numbers to predict, expected one of classes"):
        Trainer(
            config(tones, tmp_path / "b", data=folder, loss="ce", distill=DistillConfig(teacher=str(run))),
            progress=False,
        )
    alike = tones / "alike.csv"
    alike.write_text("file,pitch\n0-0.wav,440\n0-1.wav,440\n0-2.wav,440\n0-3.wav,440\n")
    data = DataConfig(train=alike, val=0.0, batch_size=2, workers=0, **STATISTICS)
    with pytest.raises(
        DataError, match=r"alike.csv, column pitch: found 440 for every clip, expected numbers that differ"
    ):
        Trainer(config(tones, tmp_path / "c", data=data), progress=False)


@pytest.mark.parametrize(
    "targets", [[1], {"mean": [0, 0]}, {"mean": [0, 0], "std": [1, 0]}, {"mean": ["a", 0], "std": [1, 1]}]
)
def test_a_description_with_other_units_is_refused(targets, run: Path, tmp_path: Path) -> None:
    model = load(run)
    model.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"targets": targets}))
    with pytest.raises(CheckpointError, match=r"targets: found .*, expected mean and std of 2"):
        load(tmp_path / "model")
