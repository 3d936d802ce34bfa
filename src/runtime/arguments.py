"""Types of command-line arguments that several commands share, the checks on them, and their form as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..errors import require
from ..models.geometry import PatchSize

PatchArg = Annotated[
    PatchSize,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT|FxT",
        instance_from_str=lambda args: PatchSize.parse(args[0]),
        is_instance=lambda value: isinstance(value, PatchSize),
        str_from_instance=lambda patch: [str(patch)],
    ),
]
"""A patch size on the command line: `16` or `16x32` (freq x time)."""

Precision = Literal["auto", "fp32", "bf16"]


def require_distinct(field: str, sizes: Sequence[PatchSize]) -> None:
    """Raise ConfigError if a patch size is given twice."""
    require(len(set(sizes)) == len(sizes), field, ", ".join(map(str, sizes)), "distinct sizes")


def to_json(value: Any) -> Any:
    """A configuration as JSON-ready values: patch sizes and paths as text."""
    if isinstance(value, PatchSize):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    return str(value) if isinstance(value, Path) else value
