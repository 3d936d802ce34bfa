"""Reading the command line: what tyro says of a mistyped command in a box, said in one line."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

from .errors import ConfigError

T = TypeVar("T")


def parsed(parse: Callable[[], T]) -> T:
    """What `parse` (a call of tyro) returns. Raises ConfigError with what it says of a command it cannot read."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse()
    except SystemExit as exit_:
        if not exit_.code:  # --help
            raise
        said.truncate(0)
    finally:
        sys.stderr.write(said.getvalue())
    # Once more, on a terminal so wide that no word of the message is parted.
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(said), _terminal_width(100_000):
        parse()
    raise ConfigError(in_one_line(said.getvalue()))


def in_one_line(box: str) -> str:
    """The text of a box, its sections with semicolons between them and its title left out.

    Where the terminal has no box-drawing characters, the title is the first section.
    """
    sections = [""]
    for line in re.findall(r"^[^╭╰\n]+$", box, re.MULTILINE):
        text = line.strip(" │")
        if text and set(text) <= set("─-"):
            sections.append("")
        else:
            sections[-1] += f" {text}"
    if "│" not in box:
        del sections[0]
    said = "; ".join(section.strip() for section in sections)
    said = said.replace("Argument helptext: ", "expected ")
    return said.replace("For full helptext, run: ", "run ").replace("For full helptext, ", "")


@contextlib.contextmanager
def _terminal_width(columns: int) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
