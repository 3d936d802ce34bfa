"""README and the results it quotes agree."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import flexiast
from flexiast.cli import COMMANDS, main
from flexiast.commands.command_line import read_arguments
from flexiast.commands.flexify import FlexifyConfig

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_table_is_the_one_of_the_results() -> None:
    rows = [
        line for line in README.splitlines() if re.match(r"\| (test accuracy|fixed|control|supervised|distilled)", line)
    ]
    results = (ROOT / "egs" / "demo" / "RESULTS.md").read_text().split("## Seed 1")[0]
    assert len(rows) == 5
    assert all(row in results for row in rows)


def test_its_sections_come_in_the_order_of_a_newcomers_questions() -> None:
    assert re.findall("^## (.*)$", README, re.MULTILINE) == [
        *("Classify a file", "Your folder of sounds", "Make a checkpoint flexible", "Choose a size"),
        *("Reproduce the paper", "Results", "How it works", "Links"),
    ]


def test_every_picture_has_a_dark_one() -> None:
    shown = set(re.findall(r'<img src="([^"]+)\.png"', README))
    assert len(shown) >= 4
    assert shown == set(re.findall(r'srcset="([^"]+)-dark\.png"', README))
    assert all((ROOT / f"{name}{theme}.png").exists() for name in shown for theme in ("", "-dark"))


def test_the_numbers_of_its_picture_are_those_of_the_results() -> None:
    with open(ROOT / "docs" / "flexibility.csv", newline="") as file:
        numbers = list(csv.DictReader(file))
    config = flexiast.load(ROOT / "pretrained_models" / "demo_flexible").config
    for name in ("fixed", "control", "supervised", "distilled"):
        rows = [row for row in numbers if row["model"] == name]
        shown = " | ".join(f"{100 * float(row['accuracy']):.1f}" for row in rows)
        assert f"| {name} | {shown} |" in README
        for row in rows:
            patch = flexiast.PatchSize(int(row["patch_freq"]), int(row["patch_time"]))
            assert int(row["tokens"]) == config.layout(patch).grid.tokens
            assert float(row["gflops"]) == pytest.approx(config.flops(patch) / 1e9, rel=1e-5)


def test_files_named_are_there() -> None:
    named = re.findall(r"`((?:src|egs|benchmarks|tests|pretrained_models|docs)[\w/.]*)`|\]\(([\w/.]+)\)", README)
    assert len(named) >= 8
    assert all((ROOT / (code or link)).exists() for code, link in named)


def test_commands_and_python_names_exist() -> None:
    assert set(re.findall(r"^ +flexiast (\w+)", README, re.MULTILINE)) <= COMMANDS.keys()
    model = flexiast.load(ROOT / "pretrained_models" / "demo_flexible")
    assert all(hasattr(model, name) for name in set(re.findall(r"model\.(\w+)\(", README)))
    assert callable(flexiast.models.resize.pi_resize)
    assert callable(flexiast.traintest.metrics.average_precision)


def commands(section: str) -> list[list[str]]:
    """The flexiast commands of a section, as words, in order."""
    text = README.split(f"## {section}")[1].split("\n## ")[0].replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in re.findall(r"^    (flexiast .*)$", text, re.MULTILINE)]


def write_tones(folder: Path) -> None:
    """Three classes of eight short tones."""
    rng = np.random.default_rng(0)
    for name, pitch in (("low", 300), ("mid", 900), ("high", 2700)):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            time = np.arange(int(16_000 * rng.uniform(0.3, 0.5))) / 16_000
            wave = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time) + rng.normal(0, 0.03, len(time))
            soundfile.write(folder / name / f"{number}.wav", wave, 16_000)


@pytest.mark.slow
def test_train_on_your_sounds_works_as_written_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_tones(tmp_path / "sounds")
    monkeypatch.chdir(tmp_path)
    fixed, flexible, report, doctor, predict, tuned = commands("Your folder of sounds")
    assert "--model.init" in tuned  # its model is of the Hub: it is run in tests/classifier/test_load.py, in miniature
    for command in (doctor, fixed, flexible, [*report, "--seconds", "0.05"], predict):
        assert main(command[1:]) == 0, command
    capsys.readouterr()
    with open("predictions.csv", newline="") as file:
        best: dict[str, str] = {}
        for row in csv.DictReader(file):  # the best class of a file comes first
            best.setdefault(row["path"], row["label"])
    right = [Path(path).parent.name == label for path, label in best.items()]
    assert len(right) == 24
    assert np.mean(right) > 0.9
    (distilled,) = commands("Make a checkpoint flexible")
    assert parsed(distilled).train.distill.teacher == "exp/fixed"


def environment_of(folder: Path) -> dict[str, str]:
    """A new virtual environment that has our dependencies but not us; in it pip fetches only what it builds with."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    (place,) = folder.glob("lib/python*/site-packages")
    (place / "dependencies.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return ours | {"PATH": path, "PIP_NO_DEPS": "1"}


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git repository to clone")
def test_from_git_clone_to_a_report_in_five_commands(tmp_path: Path) -> None:
    text = README.split("## Your folder of sounds")[1]
    block = re.search(r"(?:^    \S.*\n)+", text, re.MULTILINE)
    assert block is not None
    lines = [line.split("#")[0].strip() for line in block[0].splitlines()]
    assert [line.split()[:2] for line in lines] == [
        ["git", "clone"],
        ["pip", "install"],
        *(["flexiast", name] for name in ("train", "flexify", "report")),
    ]
    assert max(len(re.findall(r" --", line)) for line in lines) <= 3
    write_tones(tmp_path / "sounds")
    environment = environment_of(tmp_path / "venv")
    for line in lines:
        command = line.replace("ADDRESS", str(ROOT))
        done = subprocess.run(
            ["bash", "-ec", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    where = ["python", "-c", "import flexiast; print(flexiast.__file__)"]
    done = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "venv")
    assert '<h2 id="curve">' in (tmp_path / "exp" / "flexible" / "report.html").read_text()
    model = flexiast.load(tmp_path / "exp" / "flexible")
    files = sorted((tmp_path / "sounds").glob("*/*.wav"))
    right = [model.predict(file, 32)[0].label == file.parent.name for file in files]
    assert np.mean(right) > 0.8


def parsed(command: list[str]) -> FlexifyConfig:
    return read_arguments(FlexifyConfig, command[2:], "flexiast flexify")
