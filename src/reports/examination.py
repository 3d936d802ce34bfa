"""What the doctor found, as text and as JSON."""

from __future__ import annotations

from ..doctor.finding import Examination, counted
from ..runtime.terminal import printable


def format_examination(examination: Examination, quiet: bool = False) -> str:
    """Text for people, safe on a terminal. quiet: the findings alone."""
    lines = (
        []
        if quiet
        else [printable(examination.subject), *(f"  {printable(f'{n}: {v}')}" for n, v in examination.facts.items())]
    )
    for finding in examination.findings:
        lines += [
            f"{finding.severity}: {printable(finding.what)} [{finding.kind}]",
            *(f"  {name}: {printable(getattr(finding, name))}" for name in ("where", "why", "mend")),
        ]
    serious = sum(finding.severity == "serious" for finding in examination.findings)
    others = len(examination.findings) - serious
    if not quiet:
        lines.append(
            f"{counted(serious, 'serious finding')}, {counted(others, 'warning')}"
            if examination.findings
            else "nothing found"
        )
    return "\n".join(lines)
