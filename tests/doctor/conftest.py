"""Every finding of every test here: what mends it is a command or an option that exists, with real paths."""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from flexiast.commands.command_line import read_arguments
from flexiast.commands.train import CONFIG
from flexiast.doctor.finding import Finding

PROGRAMS = {"rm", "mv", "cp", "ls", "tar", "ffmpeg", "pip", "export", "unset", "nvidia-smi"}
ON_FILES = {"rm": 1, "ls": -1, "tar": 2, "ffmpeg": 2}
"""Programs that take a file that is there, and its place among their words."""
TABLE_OPTIONS = {"--path-column", "--label-column"}
"""They stand in the table's own line, and name what only its owner knows."""


def require_mend(finding: Finding) -> None:
    command = shlex.split(finding.mend.split("; ")[0])
    first = command[0]
    assert not re.search(r"\b(DATA|OUT|IN|CHECKPOINT)\b", finding.mend), finding
    if first in TABLE_OPTIONS or command == ["flexiast", "doctor", "nowhere"]:  # the data of a made-up run
        return
    if first.startswith("--"):
        read_arguments(CONFIG, ["--data.train", "x", "--out", "y", *command], "flexiast train")
    elif first == "flexiast":
        read_arguments(import_module(f"flexiast.commands.{command[1]}").CONFIG, command[2:], "flexiast")
    else:
        assert first in PROGRAMS, finding
        assert first not in ON_FILES or Path(command[ON_FILES[first]]).exists(), finding


@pytest.fixture(autouse=True)
def _mends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the end of a test, the mends of all findings that it made."""
    made: list[Finding] = []
    make = Finding.__init__

    def noted(self: Finding, *values: str, **named: str) -> None:
        make(self, *values, **named)
        made.append(self)

    monkeypatch.setattr(Finding, "__init__", noted)
    yield
    for finding in made:
        require_mend(finding)
