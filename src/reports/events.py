"""Events of a recording as CSV, JSON, Audacity labels and RTTM."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..classifier.events import Event
from ..errors import require
from ..runtime.files import require_new, to_json_text


def as_csv(events: Sequence[Event], _recording: str) -> str:
    """Rows of label, start, end and score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "start", "end", "score"])
    writer.writerows([e.label, f"{e.start:.3f}", f"{e.end:.3f}", f"{e.score:.4f}"] for e in events)
    return text.getvalue()


def as_json(events: Sequence[Event], recording: str) -> str:
    """An object with the recording's name and its events."""
    return to_json_text({"recording": recording, "events": list(map(as_row, events))}, 1) + "\n"


def as_row(event: Event) -> dict[str, Any]:
    """An event as JSON-ready values; times in seconds."""
    label, start, end, score = event
    return {"label": label, "start": round(start, 3), "end": round(end, 3), "score": round(score, 4)}


def as_audacity(events: Sequence[Event], _recording: str) -> str:
    """A label track: start, end and label, tab-separated (File > Import > Labels)."""
    return "".join(f"{e.start:.3f}\t{e.end:.3f}\t{' '.join(e.label.split())}\n" for e in events)


def as_rttm(events: Sequence[Event], recording: str) -> str:
    """Rich Transcription Time Marked: recording, channel 1, start, duration, label, score; names without spaces."""
    name = _word(Path(recording).stem)
    return "".join(
        f"SPEAKER {name} 1 {e.start:.3f} {e.end - e.start:.3f} <NA> <NA> {_word(e.label)} {e.score:.4f} <NA>\n"
        for e in events
    )


def _word(text: str) -> str:
    return re.sub(r"\s+", "_", text) or "_"


FORMATS: dict[str, Callable[[Sequence[Event], str], str]] = {
    ".csv": as_csv,
    ".json": as_json,
    ".txt": as_audacity,
    ".rttm": as_rttm,
}
"""By the ending of the file's name; .txt is a label track for Audacity."""


def require_events_file(path: Path, overwrite: bool) -> None:
    """Raise ConfigError if events cannot go to this file: another ending, or there already."""
    known = ", ".join(FORMATS)
    require(path.suffix.lower() in FORMATS, "out", str(path), f"a file name that ends in one of {known}")
    require_new(path, overwrite)
