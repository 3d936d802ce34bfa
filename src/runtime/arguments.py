"""Argument types that several commands share, with their checks, and configurations as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""Of matrix products. `fp16` is for GPUs without fast bfloat16; training with it scales the loss."""

AUTO: Any = None
"""Value of a setting to be chosen from the data, the initial model and the machine: `auto` on the command line."""


def auto(parse: Callable[[str], Any], metavar: str, choices: tuple[str, ...] | None = None) -> Any:
    """How the command line reads a setting that may be `auto`."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda args: AUTO if args[0] in ("auto", "None") else parse(args[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: ["auto" if value is AUTO else str(value)],
        choices=("auto", *choices) if choices else None,
    )


AutoFloat = Annotated[float, auto(float, "FLOAT|auto")]
AutoInt = Annotated[int, auto(int, "INT|auto")]


def path_or_share(text: str) -> Path | float:
    """A number such as `0.2` is a share, anything else is a path."""
    try:
        return float(text)
    except ValueError:
        return Path(text)


PathOrShare = Annotated[Path | float, auto(path_or_share, "PATH|SHARE|auto")]


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
