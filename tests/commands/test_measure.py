"""`flexiast measure`: models are compared class by class, whatever order their classes have."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import flexiast
from flexiast.cli import main
from flexiast.data.manifest import Labels, read_manifest
from flexiast.data.scores import scores_of
from flexiast.traintest.calibration import calibration_error


@pytest.fixture(scope="module")
def model(sounds: Path) -> flexiast.AudioClassifier:
    labels = read_manifest(sounds / "val").labels
    torch.manual_seed(0)
    config = flexiast.FlexiASTConfig(len(labels), frames=96, width=16, depth=1, heads=2)
    model = flexiast.AudioClassifier(config, flexiast.FeatureConfig(frames=96), labels).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.requires_grad_(False)


def measured(*arguments: object) -> list[dict]:
    out = Path(arguments[-1])
    options = ["--patch-sizes", "16", "--workers", "0", "--precision", "fp32", "--scores"]
    assert main(["measure", *map(str, arguments[:-1]), "--out", str(out), *options]) == 0
    return json.loads((out / "flexibility.json").read_text(), parse_constant=pytest.fail)["results"]


def test_the_same_classes_in_another_order_give_the_same_numbers(model, sounds, tmp_path) -> None:
    model.save_pretrained(tmp_path / "one")
    order = list(reversed(range(len(model.labels))))
    model.head.weight.copy_(model.head.weight[order])
    model.head.bias.copy_(model.head.bias[order])
    labels, model.labels = model.labels, Labels(model.labels.mids[::-1], model.labels.names[::-1])
    model.save_pretrained(tmp_path / "other")
    model.head.weight.copy_(model.head.weight[order])
    model.head.bias.copy_(model.head.bias[order])
    model.labels = labels
    one, other = measured(tmp_path / "one", tmp_path / "other", "--data", sounds / "val", tmp_path / "out")
    different = {name for name, value in one.items() if other[name] != value}
    assert different == {"model", "clips_per_second"}


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_classes_confusions_intervals_and_scores_add_up(model, sounds, tmp_path) -> None:
    model.save_pretrained(tmp_path / "one")
    data, out = read_manifest(sounds / "val"), tmp_path / "out"
    (row,) = measured(tmp_path / "one", "--data", sounds / "val", out)
    for name in ("accuracy", "mAP"):
        assert 0 <= row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] <= 1
        assert row[f"{name}_low"] < row[f"{name}_high"]
    classes, confusions = table(out / "classes.csv"), table(out / "confusions.csv")
    assert [one["class"] for one in classes] == list(data.labels.names)
    assert sum(int(one["support"]) for one in classes) == len(data)
    for column, name in (("AP", "mAP"), ("AUC", "mAUC")):
        assert np.mean([float(one[column]) for one in classes]) == pytest.approx(row[name], abs=1e-5)
    assert sum(int(one["clips"]) for one in confusions) == pytest.approx(len(data) * (1 - row["accuracy"]))
    assert not (out / "comparisons.csv").exists()
    kept = np.load(out / "scores" / "one_pi_16.npz")
    assert kept["clip"].tolist() == [str(clip.path.relative_to(sounds / "val")) for clip in data.clips]
    assert kept["targets"].argmax(axis=1).tolist() == [clip.classes[0] for clip in data.clips]
    assert (kept["targets"].argmax(1) == kept["probabilities"].argmax(1)).mean() == pytest.approx(row["accuracy"])
    assert calibration_error(kept["probabilities"], kept["targets"], "ce") == pytest.approx(row["ece"])
    torch.testing.assert_close(  # as --distill.scores reads it
        scores_of(out / "scores" / "one_pi_16.npz", data, single_label=True), torch.from_numpy(kept["probabilities"])
    )


@pytest.mark.slow
def test_models_are_compared_in_pairs_on_the_same_clips(model, sounds, tmp_path) -> None:
    for name in ("one", "same"):
        model.save_pretrained(tmp_path / name)
    bias = model.head.bias.clone()
    model.head.bias[0] += 1e4  # names the first class always: right for one clip in six
    model.save_pretrained(tmp_path / "blind")
    model.head.bias.copy_(bias)
    models = [tmp_path / name for name in ("one", "same", "blind")]
    one, _, blind = measured(*models, "--data", sounds / "val", tmp_path / "out")
    same, first, second = table(tmp_path / "out" / "comparisons.csv")
    assert (same["first"], same["second"]) == ("one (pi)", "same (pi)")
    assert [float(same[key]) for key in ("difference", "low", "high")] == [0, 0, 0]
    assert blind["accuracy"] == pytest.approx(1 / 6)
    for row in (first, second):
        assert float(row["difference"]) == pytest.approx(blind["accuracy"] - one["accuracy"], abs=1e-5)
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
    measured(models[0], "--data", sounds / "val", "--overwrite", tmp_path / "out")
    assert not (tmp_path / "out" / "comparisons.csv").exists()  # nothing of the earlier measurement stands beside it


def test_a_hop_averages_over_overlapping_windows_as_predict_does(model, sounds, tmp_path) -> None:
    """Clips of a second and a window of half a second."""
    features = dataclasses.replace(model.feature_config, frames=48)
    short = flexiast.AudioClassifier(model.config, features, model.labels)
    short.load_state_dict(model.state_dict())
    short.save_pretrained(tmp_path / "short")
    measured(tmp_path / "short", "--data", sounds / "val", "--hop", 0.2, tmp_path / "out")
    kept = np.load(tmp_path / "out" / "scores" / "short_pi_16.npz")
    first = short.eval().predict(sounds / "val" / str(kept["clip"][0]), 16, top_k=1, hop=0.2)[0]
    assert float(kept["probabilities"][0].max()) == pytest.approx(first.score, abs=1e-5)
    side_by_side = short.predict(sounds / "val" / str(kept["clip"][0]), 16, top_k=1)[0]
    assert abs(side_by_side.score - first.score) > 1e-4
    long = ["measure", tmp_path / "short", "--data", sounds / "val", "--out", tmp_path / "x", "--hop", 3]
    assert main([str(part) for part in long]) == 2


def test_numbers_sorted_as_text_are_the_models_numbers(model, sounds, tmp_path, capsys) -> None:
    """Classes of a model without names, measured on folders called 0, 1, ...; with other names it is refused."""
    labels, model.labels = model.labels, Labels.numbers(len(model.labels))
    model.save_pretrained(tmp_path / "numbers")
    model.labels = labels
    model.save_pretrained(tmp_path / "names")
    for number, name in enumerate(labels.mids):
        shutil.copytree(sounds / "val" / name, tmp_path / "data" / str(number))
    (by_name,) = measured(tmp_path / "names", "--data", sounds / "val", tmp_path / "a")
    (by_number,) = measured(tmp_path / "numbers", "--data", tmp_path / "data", tmp_path / "b")
    assert by_name["accuracy"] == by_number["accuracy"]
    command = ["measure", tmp_path / "names", tmp_path / "numbers", "--data", sounds / "val", "--out", tmp_path / "c"]
    assert main([str(part) for part in command]) == 2
    assert f"found a model of {len(labels)} classes that are only numbered" in capsys.readouterr().err
