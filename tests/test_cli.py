"""The real commands, as a user types them: what they write, and one line for every mistake."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import flexiast
from flexiast.cli import main, measure_main
from flexiast.traintest.measure import COLUMNS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def model_dir(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro model, trained for a moment by the real command."""
    out = tmp_path_factory.mktemp("cli") / "fixed"
    arguments = f"train --out {out} --data.train {sounds / 'train'} --data.val {sounds / 'val'} --data.workers 0"
    options = "--model.size micro --features.frames 96 --epochs 0.5 --patches.sizes 16 24x32 --optim.warmup-steps 2"
    command = [sys.executable, "-m", "flexiast.cli", *arguments.split(), *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"trained model: {out}"
    return out


def test_train_writes_model_log_and_configuration(model_dir: Path) -> None:
    written = {path.name for path in model_dir.iterdir()}
    model, log = {"model.safetensors", "config.json"}, {"train.jsonl", "epochs.csv", "tensorboard"}
    assert written == model | log | {"train_config.json", "checkpoints"}
    saved = json.loads((model_dir / "train_config.json").read_text())
    assert saved["patches"]["sizes"] == ["16", "24x32"]
    assert flexiast.load(model_dir).metadata["trained_patch_sizes"] == ["16", "24x32"]


def test_measure_flexibility_writes_table_provenance_and_picture(model_dir: Path, sounds: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "measure_flexibility.py"), str(model_dir)]
    options = (
        f"--data {sounds / 'val'} --patch-sizes 16 16x32 48 --resize pi bilinear --workers 0 --out {tmp_path / 'o'}"
    )
    done = subprocess.run([*script, *options.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "o" / "flexibility.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [(r["resize"], r["patch_freq"], r["patch_time"]) for r in rows] == [
        (resize, *patch) for resize in ("pi", "bilinear") for patch in (("16", "16"), ("16", "32"), ("48", "48"))
    ]
    assert {r["n_clips"] for r in rows} == {"30"}
    content = json.loads((tmp_path / "o" / "flexibility.json").read_text())
    assert [r["accuracy"] for r in content["results"]] == pytest.approx([float(r["accuracy"]) for r in rows], abs=1e-5)
    assert {"models", "data", "seeds", "commit", "versions", "hardware", "command"} <= content["provenance"].keys()
    assert len(content["provenance"]["models"]["fixed"]["sha256"]) == 64
    picture = (tmp_path / "o" / "flexibility.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert f"{100 * float(rows[0]['accuracy']):.1f}" in done.stdout


def test_predict_names_classes(model_dir: Path, sounds: Path, capsys: pytest.CaptureFixture) -> None:
    clips = sorted((sounds / "val" / "low_up").iterdir())[:2]
    assert main(["predict", str(model_dir), *map(str, clips), "--top-k", "2", "--patch-size", "32"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [str(c) for c in clips for _ in range(2)]
    assert all(line[1] in flexiast.load(model_dir).labels.names for line in lines)


@pytest.fixture
def bad(tmp_path: Path, sounds: Path, model_dir: Path) -> dict[str, Path]:
    """Files with one thing wrong each, and a few good ones."""
    clip = next((sounds / "val" / "low_up").iterdir())
    files = {name: tmp_path / name for name in ("malformed.json", "unknown.json", "gone.json", "good.json")}
    files["malformed.json"].write_text('{"data": [')
    for name, wav, label in (
        ("unknown.json", clip, "purple"),
        ("gone.json", "gone.wav", "a"),
        ("good.json", clip, "a"),
    ):
        files[name].write_text(json.dumps({"data": [{"wav": str(wav), "labels": label}]}))
    files["labels.csv"] = tmp_path / "labels.csv"
    mids = ["a", *"bcdef"]
    files["labels.csv"].write_text("index,mid,display_name\n" + "".join(f"{i},{m},{m}\n" for i, m in enumerate(mids)))
    files["empty.wav"] = tmp_path / "empty.wav"
    soundfile.write(files["empty.wav"], np.zeros(0), 16_000)
    files["short.wav"] = tmp_path / "short.wav"
    soundfile.write(files["short.wav"], np.zeros(300), 16_000)
    files["text.wav"] = tmp_path / "text.wav"
    files["text.wav"].write_text("no sound")
    files["broken"] = tmp_path / "broken"
    files["broken"].mkdir()
    (files["broken"] / "config.json").write_bytes((model_dir / "config.json").read_bytes())
    (files["broken"] / "model.safetensors").write_bytes((model_dir / "model.safetensors").read_bytes()[:5000])
    files["other.pth"] = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(3)}, files["other.pth"])
    files["clip"], files["model"], files["train"], files["out"] = clip, model_dir, sounds / "train", tmp_path / "out"
    return files


TRAIN = "train --out {out} --data.workers 0 --model.size micro --features.frames 96"
MISTAKES = {
    f"{TRAIN} --data.train nowhere.json --data.labels {{labels.csv}}": "nowhere.json: not readable as a manifest",
    f"{TRAIN} --data.train {{malformed.json}} --data.labels {{labels.csv}}": "malformed.json: not readable",
    f"{TRAIN} --data.train {{unknown.json}} --data.labels {{labels.csv}}": "data[0]: unknown label 'purple'",
    f"{TRAIN} --data.train {{good.json}}": "good.json: a manifest needs a label table",
    f"{TRAIN} --data.train {{good.json}} --data.labels {{clip}}": "not readable as a label table",
    f"{TRAIN} --data.train {{train}} --patches.sizes 16 128": "patch size 128x128",
    f"{TRAIN} --data.train {{train}} --epochs 0": "epochs: found 0.0",
    f"{TRAIN} --data.train {{train}} --data.batch-size 0": "data.batch_size: found 0",
    f"{TRAIN} --data.train {{train}} --model.init {{broken}}": "model.size: found micro, expected nothing beside",
    "train --out {out} --data.train {train} --model.init {broken}": "model.safetensors: not readable as a checkpoint",
    f"{TRAIN.replace('{out}', '{clip}/run')} --data.train {{train}}": "run is not writable",
    "predict {model} gone.wav": "gone.wav: not readable as audio (no such file)",
    "predict {model} {text.wav}": "text.wav: not readable as audio",
    "predict {model} {empty.wav}": "empty.wav: found 0 samples",
    "predict {model} {short.wav}": "short.wav: found 300 samples",
    "predict {model} {clip} --patch-size 16x97": "patch size 16x97",
    "predict {model} {clip} --patch-size 0": "patch size: found '0'",
    "predict nowhere {clip}": "nowhere: no such checkpoint",
    "predict {broken} {clip}": "model.safetensors: not readable as a checkpoint",
    "predict {other.pth} {clip}": "other.pth: found 1 tensors (conv.weight)",
    "measure {model} --data {gone.json} --labels {labels.csv} --out {out}": "labels: model fixed has other classes",
    "measure {model} --data {train} --out {clip}/x": "is not writable",
    "measure {model} {model} --data {train} --out {out}": "found one given twice",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_gets_one_line_that_names_it(
    command: str, bad: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    message = MISTAKES[command]
    for name, path in bad.items():
        command = command.replace("{" + name + "}", str(path))
    try:
        code = main(command.split())
    except SystemExit as exit_:  # from the option parser itself
        code = exit_.code
    printed = capsys.readouterr().err.strip()
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed
    assert len(printed.splitlines()) == 1


def test_what_was_measured_before_survives_a_mistake(model_dir: Path, sounds: Path, tmp_path: Path) -> None:
    options = ["--data", str(sounds / "val"), "--out", str(tmp_path), "--workers", "0", "--patch-sizes"]
    assert measure_main([str(model_dir), *options, "16"]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert measure_main([str(model_dir), *options, "16", "200"]) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
