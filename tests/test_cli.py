"""The real commands, as a user types them: what they write. Their mistakes are in test_bad_input.py."""

import csv
import dataclasses
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import flexiast
from flexiast.cli import COMMANDS, main, measure_main, usage
from flexiast.reports.flexibility import COLUMNS
from flexiast.runtime.device import resolve_precision

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {
    "torch",
    "timm",
    "torchaudio",
    "torchvision",
    "transformers",
    "matplotlib",
    "tyro",
    "numpy",
    "sklearn",
    "scipy",
}


def modules_after(code: str) -> tuple[str, set[str]]:
    """What a fresh Python prints that runs this code, and the packages that it has imported then."""
    report = "import sys; print('|', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", f"{code}; {report}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed, _, modules = done.stdout.rpartition("|")
    return printed, set(modules.split())


@pytest.mark.parametrize("option", ["--help", "-h", "--version", "-V"])
def test_help_and_version_import_nothing_heavy(option: str) -> None:
    printed, modules = modules_after(f"import flexiast.cli; flexiast.cli.main([{option!r}])")
    assert not modules & HEAVY
    assert "flexiast" in modules
    expected = "usage: flexiast COMMAND" if "h" in option else f"flexiast {flexiast.__version__}\n"
    assert printed.startswith(expected)


def test_an_unknown_command_costs_no_import_either() -> None:
    _, modules = modules_after("import flexiast.cli; flexiast.cli.main(['trian'])")
    assert not modules & HEAVY


@pytest.mark.slow
def test_importing_the_package_imports_what_is_used_when_it_is_used() -> None:
    _, modules = modules_after("import flexiast; flexiast.__version__")
    assert not modules & HEAVY
    _, modules = modules_after("import flexiast; flexiast.LogMel, flexiast.PatchSize")
    assert "torch" in modules
    assert not modules & {"timm", "transformers", "matplotlib", "tyro", "sklearn"}


def test_every_command_has_a_module_with_a_configuration_and_help() -> None:
    assert {path.stem for path in (ROOT / "src" / "commands").glob("*.py")} >= COMMANDS.keys()
    assert all(f"  {name} " in usage() and summary in usage() for name, summary in COMMANDS.items())
    for name in COMMANDS:
        command = import_module(f"flexiast.commands.{name}")
        assert dataclasses.is_dataclass(command.CONFIG)
        assert callable(command.run)


@pytest.fixture(scope="module")
def model_dir(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro model, trained for a moment by the real command."""
    out = tmp_path_factory.mktemp("cli") / "fixed"
    arguments = f"train --out {out} --data.train {sounds / 'train'} --data.val {sounds / 'val'} --data.workers 0"
    options = "--model.size micro --features.frames 96 --epochs 0.5 --patches.sizes 16 24x32 --optim.warmup-steps 2"
    command = [sys.executable, "-m", "flexiast.cli", *arguments.split(), *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^written +{out}\n(clips|best accuracy) ", done.stdout, re.MULTILINE)
    return out


def test_train_writes_model_log_and_configuration(model_dir: Path) -> None:
    written = {path.name for path in model_dir.iterdir()}
    model, log = {"model.safetensors", "config.json"}, {"train.jsonl", "choices.csv", "epochs.csv", "tensorboard"}
    assert written == model | log | {"train_config.json", "checkpoints"}
    saved = json.loads((model_dir / "train_config.json").read_text())
    assert saved["patches"]["sizes"] == ["16", "24x32"]
    metadata = flexiast.load(model_dir).metadata
    assert metadata["trained_patch_sizes"] == ["16", "24x32"]
    assert metadata["precision"] == resolve_precision(torch.device("cpu"), "auto")


def test_measure_flexibility_writes_table_provenance_and_picture(model_dir: Path, sounds: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "measure_flexibility.py"), str(model_dir)]
    options = (
        f"--data {sounds / 'val'} --patch-sizes 16 16x32 48 --resize pi bilinear --workers 0 --out {tmp_path / 'o'}"
    )
    done = subprocess.run([*script, *options.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "o" / "flexibility.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    intervals = ["ece", "accuracy_low", "accuracy_high", "mAP_low", "mAP_high"]
    assert list(rows[0]) == [*COLUMNS, *intervals]
    assert [(r["resize"], r["patch_freq"], r["patch_time"]) for r in rows] == [
        (resize, *patch) for resize in ("pi", "bilinear") for patch in (("16", "16"), ("16", "32"), ("48", "48"))
    ]
    assert {r["n_clips"] for r in rows} == {"30"}
    content = json.loads((tmp_path / "o" / "flexibility.json").read_text())
    assert [r["accuracy"] for r in content["results"]] == pytest.approx([float(r["accuracy"]) for r in rows], abs=1e-5)
    origin = content["provenance"]
    assert {"models", "data", "seeds", "commit", "versions", "hardware", "command"} <= origin.keys()
    assert origin["precision"] == resolve_precision(torch.device("cpu"), "auto")
    assert len(origin["models"]["fixed"]["sha256"]) == 64
    picture = (tmp_path / "o" / "flexibility.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert f"{100 * float(rows[0]['accuracy']):.1f}" in done.stdout


def test_predict_names_classes(model_dir: Path, sounds: Path, capsys: pytest.CaptureFixture) -> None:
    clips = sorted((sounds / "val" / "low_up").iterdir())[:2]
    assert main(["predict", str(model_dir), *map(str, clips), "--top-k", "2", "--patch-size", "32"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [str(c) for c in clips for _ in range(2)]
    assert all(line[1] in flexiast.load(model_dir).labels.names for line in lines)


def test_what_was_measured_before_survives_a_mistake(model_dir: Path, sounds: Path, tmp_path: Path) -> None:
    options = ["--data", str(sounds / "val"), "--out", str(tmp_path), "--workers", "0", "--patch-sizes"]
    assert measure_main([str(model_dir), *options, "16"]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert measure_main([str(model_dir), *options, "16", "200", "--overwrite"]) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
