"""Any readable checkpoint written in our own format."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from ..checkpoints.checkpoint import SIDECAR, WEIGHTS, save_checkpoint, save_single_file
from ..checkpoints.load_report import LoadReport
from ..classifier.load import load
from ..runtime.files import put_in_place, require_new


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """Convert a checkpoint of any readable format into ours, and say what became of every tensor."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """File, directory, Hub id (owner/name) or timm:NAME."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Directory to write, or file with --single-file."""
    single_file: bool = False
    """Write one safetensors file, its description in the header, instead of a directory."""
    heads: int | None = None
    """Attention heads, where the source does not tell (default: one per 64 of the width)."""
    frames: int | None = None
    """Frames of the input, where the source leaves them open."""
    overwrite: bool = False
    """Replace what is there already."""


def convert(config: ConvertConfig) -> LoadReport | None:
    """Read `source`, write `out`, whole or not at all.

    Raises ConfigError if `out` exists and is not to be overwritten, CheckpointError if the source is unusable.

    The new description says under `converted_from` what format it was and which settings had to be assumed.
    """
    require_new(config.out, config.overwrite, (SIDECAR, WEIGHTS))
    model = load(config.source, heads=config.heads, frames=config.frames)
    checkpoint, report = model.checkpoint(), model.load_report
    if report and "converted_from" not in checkpoint.metadata and report.format != "FlexiAST":
        checkpoint.metadata["converted_from"] = {"format": report.format, "notes": report.notes}
    with TemporaryDirectory(prefix=f"{config.out.name}.part-", dir=_parent(config.out)) as beside:
        new = Path(beside) / config.out.name
        (save_single_file if config.single_file else save_checkpoint)(new, checkpoint)
        put_in_place(new, config.out)
    return report


def _parent(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent


def run(config: ConvertConfig) -> None:
    """Print what became of every tensor, and where the model is."""
    print(convert(config))
    print(f"written: {config.out}")


CONFIG = ConvertConfig
