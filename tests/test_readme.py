"""README and the results it quotes agree."""

import csv
import re
import shlex
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


@pytest.mark.slow
def test_train_on_your_sounds_works_as_written_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    for name, pitch in (("low", 300), ("mid", 900), ("high", 2700)):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(8):
            time = np.arange(int(16_000 * rng.uniform(0.3, 0.5))) / 16_000
            wave = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time) + rng.normal(0, 0.03, len(time))
            soundfile.write(tmp_path / "sounds" / name / f"{number}.wav", wave, 16_000)
    monkeypatch.chdir(tmp_path)
    doctor, fixed, flexible, report, predict, tuned = commands("Your folder of sounds")
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


def parsed(command: list[str]) -> FlexifyConfig:
    return read_arguments(FlexifyConfig, command[2:], "flexiast flexify")
