"""The classes of a data set or a model: their ids, their names, their order."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import logging
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import DataError

logger = logging.getLogger(__name__)

IN_TABLE = "in the label table"
"""Where the classes are from that labels are looked up in, unless said otherwise."""

MANY_NUMBERS = 10
"""Labels from which on numbers that are not whole are hardly names of classes."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?")


@dataclasses.dataclass(frozen=True)
class Labels:
    """Classes in the order of the model's outputs: machine ids (`mids`) and human-readable names."""

    mids: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) and is_unicode(text) for text in (*self.mids, *self.names)):
            raise DataError("labels: found ids or names that are not text, or cannot be encoded")
        if len(set(self.mids)) != len(self.mids) or len(self.mids) != len(self.names) or not self.mids:
            raise DataError(
                f"labels: found {len(self.mids)} ids, {len(set(self.mids))} distinct, and {len(self.names)} names"
            )

    def __len__(self) -> int:
        return len(self.mids)

    @classmethod
    def numbers(cls, count: int) -> Labels:
        """Labels 0, 1, 2, ... for a model whose class names are unknown."""
        mids = tuple(str(i) for i in range(count))
        return cls(mids, mids)

    @property
    def numbered(self) -> bool:
        """Whether these are only numbers."""
        return self == Labels.numbers(len(self))

    @classmethod
    def of(cls, names: Iterable[str]) -> Labels:
        """Labels with these names, which are also their ids. Numbers are sorted by value, names alphabetically."""
        distinct = {composed(name) for name in names}
        numbers = all(_NUMBER.fullmatch(name) for name in distinct)
        ordered = tuple(sorted(distinct, key=lambda name: (float(name) if numbers else 0.0, name)))
        return cls(ordered, ordered)

    def index(self, with_names: bool = True) -> dict[str, int]:
        """Index of each class by its id and, `with_names`, also by its name; an id wins over another class's name."""
        index = {composed(mid): i for i, mid in enumerate(self.mids)}
        return {composed(name): i for i, name in enumerate(self.names)} | index if with_names else index

    @classmethod
    def read(cls, path: Path) -> Labels:
        """Read a CSV with the columns index, mid, display_name; the indices are 0, 1, 2, ... in any order."""
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                missing = {"index", "mid", "display_name"} - set(reader.fieldnames or ())
                if missing:
                    raise DataError(f"{path}: found columns {reader.fieldnames}, expected index, mid, display_name")
                rows = list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: not readable as a label table ({reason_of(error)})") from None
        by_index: dict[int, dict[str, str]] = {}
        for line, row in enumerate(rows, start=2):
            index = row["index"] or ""
            if not index.isdecimal() or len(index) > 9 or not row["mid"] or int(index) in by_index:
                raise DataError(f"{path}, line {line}: found {str(row)[:200]}, expected a new index and a mid")
            by_index[int(index)] = row
        if not rows:
            raise DataError(f"{path}: found indices [], expected at least one line below the header")
        if sorted(by_index) != list(range(len(rows))):
            raise DataError(f"{path}: found indices {sorted(by_index)[:5]}..., expected 0 to {len(rows) - 1} once each")
        ordered = [by_index[i] for i in range(len(rows))]
        try:
            return cls(tuple(r["mid"] for r in ordered), tuple(r["display_name"] or r["mid"] for r in ordered))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def write(self, path: Path) -> None:
        """Write the CSV that `read` reads."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["index", "mid", "display_name"])
            writer.writerows([i, mid, name] for i, (mid, name) in enumerate(zip(self.mids, self.names, strict=True)))


def unknown_label(where: object, label: str, known: Mapping[str, int], whose: str) -> DataError:
    """The error for a label that is in no list of classes. known: their ids and names. whose: where they are from."""
    near = difflib.get_close_matches(label.casefold(), {name.casefold() for name in known}, 3, 0.6)
    names = [name for name in known if name.casefold() in near]
    hint = f"; the nearest: {', '.join(map(repr, names[:3]))}" if names else ""
    return DataError(f"{where}: unknown label {label!r}, expected one of the {len(set(known.values()))} {whose}{hint}")


def is_number(text: str) -> bool:
    """Whether a label is a number, such as `7` or `7.0`."""
    return _NUMBER.fullmatch(text) is not None


def is_finite(text: str) -> bool:
    """Whether text is a number to predict, as Python reads it: `7`, `-0.5`, `1e-3`; NaN and infinity are none."""
    try:
        return "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False


def composed(text: str) -> str:
    """Text in Unicode's composed form (NFC), so that two encodings of a name are the same class."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_path(text: str) -> bool:
    """Whether a file can be called so."""
    return "\0" not in text and is_unicode(text)


def is_unicode(text: str) -> bool:
    """Whether text can be encoded: JSON may also hold lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def spelling_twins(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in upper case, spaces, hyphens or underscores only, together."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"[\s_-]+", " ", name).strip().casefold(), []).append(name)
    return [twins for twins in alike.values() if len(twins) > 1]


def report_numbers(source: Path, labels: Labels) -> None:
    """Log it if the labels are all numbers, many of them, and not whole: they are hardly classes."""
    names = labels.names
    if (
        len(names) >= MANY_NUMBERS
        and all(map(is_finite, names))
        and not all(float(name).is_integer() for name in names)
    ):
        logger.warning(
            "%s: its labels are numbers, %d different ones, such as %s, and each is taken for a class of its own;"
            " --loss mse predicts them as numbers",
            source, len(names), names[len(names) // 2],
        )  # fmt: skip


def report_twins(source: Path, labels: Labels) -> None:
    """Log the names that differ in upper case, spaces, hyphens or underscores only."""
    twins = [" and ".join(map(repr, names)) for names in spelling_twins(labels.names)]
    if twins:
        logger.warning(
            "%s: %s are different classes; if they are meant to be one, spell them alike", source, "; ".join(twins[:5])
        )


def reason_of(error: Exception) -> str:
    """Why reading failed, without the file name."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
