"""Events of a recording as CSV, JSON, Audacity labels and RTTM, written as they are found."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..classifier.events import Event
from ..errors import require
from ..runtime.files import growing, require_new, to_json_text


class Format(NamedTuple):
    """How events become text."""

    head: Callable[[str], str]
    """Begins the file, given the recording's name."""
    row: Callable[[Event, str], str]
    """An event of that recording."""
    between: str = ""
    """Stands between two events."""
    tail: str = ""
    """Ends the file."""


def _nothing(_recording: str) -> str:
    return ""


def _csv(*cells: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def as_row(event: Event) -> dict[str, Any]:
    """An event as JSON-ready values; times in seconds."""
    label, start, end, score = event
    return {"label": label, "start": round(start, 3), "end": round(end, 3), "score": round(score, 4)}


def _csv_row(e: Event, _recording: str) -> str:
    return _csv(e.label, f"{e.start:.3f}", f"{e.end:.3f}", f"{e.score:.4f}")


def _json_row(e: Event, _recording: str) -> str:
    return f"\n  {to_json_text(as_row(e))}"


def _audacity_row(e: Event, _recording: str) -> str:
    return f"{e.start:.3f}\t{e.end:.3f}\t{' '.join(e.label.split())}\n"


def _rttm_row(e: Event, recording: str) -> str:
    """Recording, channel 1, start, duration, label, score; names without spaces."""
    name = _word(Path(recording).stem)
    return f"SPEAKER {name} 1 {e.start:.3f} {e.end - e.start:.3f} <NA> <NA> {_word(e.label)} {e.score:.4f} <NA>\n"


def _word(text: str) -> str:
    return re.sub(r"\s+", "_", text) or "_"


FORMATS = {
    ".csv": Format(lambda _recording: _csv("label", "start", "end", "score"), _csv_row),
    ".json": Format(
        lambda recording: f'{{"recording": {to_json_text(recording)}, "events": [', _json_row, ",", "\n]}\n"
    ),
    ".txt": Format(_nothing, _audacity_row),
    ".rttm": Format(_nothing, _rttm_row),
}
"""By the ending of the file's name; .txt is a label track for Audacity (File > Import > Labels), .rttm Rich
Transcription Time Marked."""


@contextmanager
def events_file(path: Path, recording: str, kept: Callable[[], bool]) -> Iterator[Callable[[Event], None]]:
    """Give a function that appends an event to a file, in the format of its ending; see `growing`, `kept` too."""
    form, added = FORMATS[path.suffix.lower()], 0
    with growing(path, kept, form.tail) as write:
        write(form.head(recording))

        def add(event: Event) -> None:
            nonlocal added
            write((form.between if added else "") + form.row(event, recording))
            added += 1

        yield add


def require_events_file(path: Path, overwrite: bool) -> None:
    """Raise ConfigError if events cannot go to this file: another ending, or there already."""
    known = ", ".join(FORMATS)
    require(path.suffix.lower() in FORMATS, "out", str(path), f"a file name that ends in one of {known}")
    require_new(path, overwrite)
