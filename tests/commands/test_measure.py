"""`flexiast measure`: models are compared class by class, whatever order their classes have."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import flexiast
from flexiast.cli import main
from flexiast.data.manifest import Labels, read_manifest


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
