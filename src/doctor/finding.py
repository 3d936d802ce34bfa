"""What the doctor finds: a fault, where it is, why it matters, and what mends it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
    """The command that mends it, or what to change."""


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
