"""What the doctor found, as text and as JSON."""

from __future__ import annotations

import dataclasses

from ..doctor.finding import Examination
from ..runtime.files import to_json_text
from ..runtime.terminal import printable


def format_examination(found: Examination, quiet: bool = False) -> str:
    """Text for people, safe on a terminal. quiet: the findings alone."""
    lines = (
        [] if quiet else [printable(found.subject), *(f"  {printable(f'{n}: {v}')}" for n, v in found.facts.items())]
    )
    for finding in found.findings:
        lines += [
            f"{finding.severity}: {printable(finding.what)} [{finding.kind}]",
            *(f"  {name}: {printable(getattr(finding, name))}" for name in ("where", "why", "mend")),
        ]
    serious = sum(finding.severity == "serious" for finding in found.findings)
    others = len(found.findings) - serious
    if not quiet:
        lines.append(f"{serious} serious findings, {others} warnings" if found.findings else "nothing found")
    return "\n".join(lines)


def examination_json(found: Examination) -> str:
    """One object: subject, facts, findings."""
    return to_json_text(dataclasses.asdict(found), 1)
