"""Every new home that CHANGELOG.md names is there."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import flexiast

TEXT = (Path(__file__).resolve().parent.parent / "CHANGELOG.md").read_text()
MOVED = TEXT.partition("### Moved")[2].partition("\n## ")[0]
ROWS = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in MOVED.splitlines() if line.startswith("| `")]


def parse(cell: str) -> tuple[str, list[str]]:
    """A module and the names in it."""
    module, *names = re.findall(r"`([^`]+)`", cell)
    return module, names


def test_this_version_has_a_section() -> None:
    assert f"\n## {flexiast.__version__} (" in TEXT or f"\n## {flexiast.__version__}\n" in TEXT


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_moved_is_where_it_says(row: tuple[str, str]) -> None:
    (_, before), (module, now) = map(parse, row)
    value = import_module(f"flexiast.{module}")
    for name in now or [name for name in before if name != "T"]:
        target = value
        for part in name.split("."):
            target = getattr(target, part)


def test_the_modules_that_went_are_gone_or_named_for_some_of_their_names() -> None:
    assert len(ROWS) > 50
    whole = [parse(before)[0] for before, _ in ROWS if not parse(before)[1] and "(the module)" not in before]
    for name in whole:
        if name != "models.formats":  # an empty folder of byte code may be left behind
            with pytest.raises(ModuleNotFoundError):
                import_module(f"flexiast.{name}")
