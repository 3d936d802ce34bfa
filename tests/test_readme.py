"""README and the results it quotes agree."""

import re
from pathlib import Path

import flexiast
from flexiast.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_table_is_the_one_of_the_results() -> None:
    rows = [
        line for line in README.splitlines() if re.match(r"\| (test accuracy|fixed|control|supervised|distilled)", line)
    ]
    results = (ROOT / "egs" / "demo" / "RESULTS.md").read_text().split("## Seed 1")[0]
    assert len(rows) == 5
    assert all(row in results for row in rows)


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
