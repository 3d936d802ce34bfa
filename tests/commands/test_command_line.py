"""`--config FILE`: options from TOML and JSON, those given beside them, and what is said of a file that is wrong."""

import dataclasses
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from flexiast import PatchSize
from flexiast.cli import COMMANDS, main
from flexiast.commands.bench import BenchConfig
from flexiast.commands.command_line import read_arguments
from flexiast.commands.pack import PackConfig
from flexiast.commands.train import CONFIG as TrainConfig
from flexiast.errors import ConfigError
from flexiast.runtime.arguments import to_json
from flexiast.runtime.output import OutputOptions

TOML = """
out = "runs/a b"
epochs = 3
compile = true
eval_patch_sizes = [16, "16x32"]
[data]
train = "clips/train.csv"
mean = -4.25
strict = false
[optim]
betas = [0.9, 0.98]
warmup-steps = 10
[patches]
sizes = []
"""
SAME_IN_JSON = {
    "out": "runs/a b",
    "epochs": 3,
    "compile": True,
    "eval_patch_sizes": ["16", "16x32"],
    "data": {"train": "clips/train.csv", "mean": -4.25, "strict": False, "val": None},
    "optim": {"betas": [0.9, 0.98], "warmup-steps": 10},
    "patches": {"sizes": []},
}


def read(*arguments: str):
    return read_arguments(TrainConfig, arguments, "flexiast train")


@pytest.fixture
def toml(tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    return str(path)


def write_json(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_options_are_annotated_once_however_often_they_are_read() -> None:
    read_arguments(PackConfig, ["a", "b"], "flexiast pack")
    before = dict(PackConfig.__annotations__), dict(OutputOptions.__annotations__)
    read_arguments(PackConfig, ["a", "b"], "flexiast pack")
    assert (PackConfig.__annotations__, OutputOptions.__annotations__) == before


def test_toml_and_json_say_what_the_command_line_says(toml: str, tmp_path: Path) -> None:
    typed = read(
        *("--out", "runs/a b", "--epochs", "3", "--compile", "--eval-patch-sizes", "16", "16x32"),
        *("--data.train", "clips/train.csv", "--data.mean", "-4.25", "--data.no-strict"),
        *("--optim.betas", "0.9", "0.98", "--optim.warmup-steps", "10"),
    )
    assert (typed.out, typed.compile, typed.data.mean) == (Path("runs/a b"), True, -4.25)
    assert read("--config", toml) == typed
    assert read(f"--config={toml}") == typed
    assert read("--config", write_json(tmp_path / "run.json", SAME_IN_JSON)) == typed


def test_options_beside_the_file_win_wherever_they_stand(toml: str) -> None:
    plain = read("--config", toml)
    for arguments in (
        ["--config", toml, "--epochs", "5", "--no-compile", "--data.strict", "--optim.betas", "0.5", "0.6"],
        ["--epochs=5", "--no-compile", "--data.strict", "--optim.betas", "0.5", "0.6", "--config", toml],
    ):
        config = read(*arguments)
        assert (config.epochs, config.compile, config.data.strict, config.optim.betas) == (5, False, True, (0.5, 0.6))
        assert config.optim.warmup_steps == plain.optim.warmup_steps == 10
    assert read("--config", toml, "--eval_patch_sizes", "8").eval_patch_sizes == (PatchSize(8, 8),)


def test_a_list_in_the_file_takes_in_no_positional_argument(tmp_path: Path) -> None:
    path = write_json(tmp_path / "bench.json", {"patch_sizes": [8, 16], "heads": None})
    for arguments in (["model", "--config", path], ["--config", path, "model"]):
        config = read_arguments(BenchConfig, arguments, "flexiast bench")
        assert config == BenchConfig(Path("model"), patch_sizes=(PatchSize(8, 8), PatchSize(16, 16)))


def test_every_setting_survives_the_way_through_json(tmp_path: Path) -> None:
    """What train_config.json holds is `to_json` of the settings; a value other than the default in every field."""
    config = read(
        *("--out=-run", "--data.train=--odd", "--data.val", "v", "--data.root", "r=s", "--data.mean", "auto"),
        *("--data.sampling", "balanced", "--data.strict", "--features.frames", "96", "--model.size", "micro"),
        *("--model.patch-size", "16x32", "--patches.sizes", "8", "16x32", "--patches.weights", "1", "2.5"),
        *("--optim.name", "adamw", "--optim.lr", "3e-05", "--loss", "bce", "--metric", "mAP", "--log", "none"),
    )
    assert read("--config", write_json(tmp_path / "train_config.json", to_json(config))) == config


@pytest.mark.slow
def test_a_run_is_replayed_from_its_train_config(sounds: Path, tmp_path: Path) -> None:
    options = f"train --data.train {sounds / 'val'} --data.workers 0 --log none --seed 3"
    options += " --model.size micro --features.frames 96 --epochs 0.3 --patches.sizes 16 24x32 --optim.warmup-steps 2"
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*options.split(), "--out", str(first)]) == 0
    saved = first / "train_config.json"
    assert main(["train", "--config", str(saved), "--out", str(second)]) == 0
    assert (second / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    replayed = json.loads((second / "train_config.json").read_text())
    assert replayed == json.loads(saved.read_text()) | {"out": str(second)}
    read_back = read("--config", str(saved))
    assert dataclasses.replace(read_back, out=second) == read("--config", str(second / "train_config.json"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "a.json: not readable as options in TOML or JSON (Expecting property name"),
        ("a.toml", "epochs =", "a.toml: not readable as options in TOML or JSON (Invalid value"),
        ("a.json", b"\xff", "a.json: not readable as options in TOML or JSON ('utf-8' codec"),
        ("a.json", "[1]", "a.json: found list, expected a table of options"),
        ("a.json", "[" * 100_000, "a.json: not readable as options in TOML or JSON (maximum recursion"),
        ("a.json", '{"patches": {"sizes": [[8, 16]]}}', "a.json: patches.sizes: found [[8, 16]], expected numbers or"),
        ("a.json", '{"save_every": 1, "save-every": 2}', "a.json: found save-every twice, expected each option once"),
        ("a.json", '{"epochz": 3}', "a.json: Unrecognized options: --epochz, 3; Perhaps you meant: --epochs"),
        ("a.json", '{"optim": {"lr": "fast"}}', "a.json: Error parsing --optim.lr: could not convert"),
        ("a.json", '{"optim": {"lr": -1}}', "a.json: optim.lr: found -1.0, expected a positive number"),
        ("a.json", '{"label_smoothing": 2}', "a.json: label_smoothing: found 2.0, expected a share"),
        ("a.json", '{"loss": "l2"}', "a.json: invalid choice 'l2' for argument '--loss'"),
        ("a.json", '{"seed": null}', "a.json: Error parsing --seed"),
        ("a.toml", "seed = 1.5", "a.toml: Error parsing --seed: invalid literal for int() with base 10: '1.5'"),
    ],
)
def test_a_file_that_is_wrong_is_named(name: str, text: str | bytes, message: str, tmp_path: Path, capsys) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    out = tmp_path / "out"
    assert main(["train", "--data.train", "x", "--out", str(out), "--config", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"flexiast: error: {tmp_path}/{message}")
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_mistake_beside_the_file_is_not_laid_on_the_file(toml: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^Unrecognized options: --epochz, 3;.* \(beside the options in .*run\.toml\)$"
    ):
        read("--config", toml, "--epochz", "3")
    with pytest.raises(ConfigError, match=r"^epochs: found 0\.0, expected a positive number \(beside the options in "):
        read("--config", toml, "--epochs", "0")


@pytest.mark.parametrize(
    "arguments", [["--config"], ["--config="], ["--config", "--out"], ["--config", "a", "--config", "b"]]
)
def test_config_takes_one_file(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--config: found .*, expected one file of options"):
        read("--data.train", "x", *arguments)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: not readable as options .*\(No such file or directory\)"):
        read("--config", str(tmp_path / "none.toml"))


def test_help_names_it(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Train a fixed or a flexible model" in said
    assert "--config FILE reads options from a TOML or JSON file" in said


def test_a_missing_option_is_one_clean_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--out", "x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("flexiast: error: Missing from flexiast train: --data.train")
    assert "Warning" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_no_default_is_said_twice_and_positional_arguments_have_names(name: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # one option below the other
    with pytest.raises(SystemExit):
        read_arguments(import_module(f"flexiast.commands.{name}").CONFIG, ["--help"], f"flexiast {name}")
    lines = capsys.readouterr().out.splitlines()
    text = " ".join(" ".join(lines).replace("│", " ").split())
    assert re.findall(r"\(default: ?(?:None|'')?\)|\(default: [^()]*\)[. ]*\(default:[^)]*\)", text) == []
    usage = text[: text.index("--config FILE")]
    assert "PATH" not in usage
    expected = {"predict": "MODEL AUDIO [AUDIO ...]", "measure": "MODEL [MODEL ...]", "pack": "DATA OUT"}
    assert expected.get(name, "flexiast") in usage
    assert name != "train" or "(default: 0.01)" in text  # real ones stay
