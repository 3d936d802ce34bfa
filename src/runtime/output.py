"""What a command prints: results to stdout, as text for people or as JSON; progress, notes and errors to stderr."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FlexiASTError
from .distributed import is_rank0
from .files import to_json_text
from .terminal import printable


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is printed, and how; options of every command."""

    quiet: bool = False
    """Print warnings and errors only; results too, where no file keeps them. No progress bar, notes or summary."""
    json: bool = False
    """Print the results as one JSON object (one a line, if they come one by one), and nothing else on stdout."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command has done."""

    written: Path | None = None
    """File or folder that keeps the results."""
    text: str = ""
    """The results for people."""
    summary: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """Rows of the short table at the end: what they are, and a value; `written` and `time` are added."""
    results: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The results in JSON; `written` and `seconds` are added."""
    streamed: bool = False
    """Whether the results were printed as they came: stdout is then left alone, and the table goes to stderr."""
    failure: FlexiASTError | None = None
    """What could not be done, to be raised after the rest is shown."""
    exit_code: int = 0


def show(outcome: Outcome, options: OutputOptions, seconds: float | None = None) -> None:
    """Print an outcome as the options say, on rank 0 only. seconds: how long the command took."""
    if not is_rank0():
        return
    if options.json and not outcome.streamed:
        where = {} if outcome.written is None else {"written": str(outcome.written)}
        took = {} if seconds is None else {"seconds": round(seconds, 3)}
        print(to_json_text({**where, **outcome.results, **took}), flush=True)
        return
    if outcome.text and not (options.quiet and outcome.written):
        print(outcome.text, flush=True)
    if not options.quiet:
        for line in summary_lines(outcome, seconds):
            print(line, file=sys.stderr if outcome.streamed else sys.stdout, flush=True)


def summary_lines(outcome: Outcome, seconds: float | None) -> list[str]:
    """The table at the end, one row a line, safe to print on a terminal; none if there is nothing to say."""
    rows = {"written": outcome.written, **outcome.summary}
    rows = {name: value for name, value in rows.items() if value not in (None, "")}
    if not rows:
        return []
    if seconds is not None:
        rows["time"] = duration(seconds)
    width = max(map(len, rows))
    return [f"{name.ljust(width)}  {printable(value)}" for name, value in rows.items()]


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 1.95:
        return f"{max(0.1, seconds):.1f} seconds"
    if seconds < 90:
        return f"{round(seconds)} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
