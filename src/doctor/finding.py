"""What the doctor finds: a fault, where it is, why it matters, and what mends it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault."""

    kind: str
    """Short name of the fault, the same in every version, such as `duplicates-between-splits`."""
    severity: Literal["serious", "warning"]
    """`serious`: results would be wrong, or the work would stop."""
    what: str
    where: str
    why: str
    """Why it matters."""
    mend: str
    """The command that mends it, or the option to train with, with real paths; after `; ` what else is to know."""


@dataclasses.dataclass(frozen=True)
class Examination:
    """What was looked at, what is so, and what is wrong."""

    subject: str
    facts: dict[str, str]
    """What was seen, by name."""
    findings: tuple[Finding, ...]

    def __repr__(self) -> str:
        kinds = ", ".join(f"{finding.kind} ({finding.severity})" for finding in self.findings)
        return f"Examination({self.subject}: {kinds or 'nothing found'})"

    @property
    def serious(self) -> bool:
        """Whether any finding is serious."""
        return any(finding.severity == "serious" for finding in self.findings)


def some(names: Sequence[object], most: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    text = ", ".join(map(str, names[:most]))
    return text + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 clip`, `2 clips`. many: default, `one` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def quoted(path: object) -> str:
    """A path as a word of a shell command."""
    return shlex.quote(str(path))


def beside(where: object, word: str) -> str:
    """A new name beside a file or folder, that ends in `word`, as a word of a shell command."""
    place = Path(str(where))
    if place.exists():
        place = place.resolve()
    return quoted(place.with_name(f"{place.name if place.is_dir() else place.stem}-{word}"))


def removing(paths: Sequence[object], most: int = 3) -> str:
    """The command that removes some files, the first few by name; of clips in tars, the one that lists their tar."""
    if tar := _tar_of(paths[0]):
        return f"tar tf {quoted(tar)}; write the tar again without them"
    there = [path for path in paths if Path(str(path)).exists()]
    if not there:
        return f"ls -l {quoted(Path(str(paths[0])).parent)}; put the files back, or take them out of the list"
    more = f"; and {len(there) - most} more" if len(there) > most else ""
    return " ".join(["rm", *map(quoted, there[:most])]) + more


def converting(paths: Sequence[object], how: str) -> str:
    """The command that writes the first of some sounds again beside itself, with ffmpeg. how: its options."""
    if tar := _tar_of(paths[0]):
        return f"tar xf {quoted(tar)}; mend them with ffmpeg {how}, and write the tar again"
    place = Path(str(paths[0]))
    others = "; and the others alike" if len(paths) > 1 else ""
    return f"ffmpeg -i {quoted(place)} {how} {quoted(place.with_name(f'{place.stem}-mended.wav'))}{others}"


def _tar_of(path: object) -> str | None:
    """The tar that a clip lies in, if it does."""
    tar, inside, _ = str(path).partition(".tar:")
    return f"{tar}.tar" if inside else None
