"""Any readable checkpoint written in our own format."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import tyro

from ..checkpoints.checkpoint import save_checkpoint, save_single_file
from ..checkpoints.load_report import LoadReport
from ..classifier.load import load
from ..errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """Convert a checkpoint of any readable format into ours, and say what became of every tensor."""

    source: tyro.conf.Positional[str]
    """File, directory, Hub id (owner/name) or timm:NAME."""
    out: tyro.conf.Positional[Path]
    """Directory to write, or file with --single-file; must not exist yet."""
    single_file: bool = False
    """Write one safetensors file, its description in the header, instead of a directory."""
    heads: int | None = None
    """Attention heads, where the source does not tell (default: one per 64 of the width)."""
    frames: int | None = None
    """Frames of the input, where the source leaves them open."""


def convert(config: ConvertConfig) -> LoadReport | None:
    """Read `source`, write `out`. Raises ConfigError if `out` exists, CheckpointError if the source is unusable.

    The new description says under `converted_from` what format it was and which settings had to be assumed.
    """
    if config.out.exists():
        raise ConfigError(f"{config.out}: exists already; a conversion overwrites nothing")
    model = load(config.source, heads=config.heads, frames=config.frames)
    checkpoint, report = model.checkpoint(), model.load_report
    if report and "converted_from" not in checkpoint.metadata and report.format != "FlexiAST":
        checkpoint.metadata["converted_from"] = {"format": report.format, "notes": report.notes}
    try:
        (save_single_file if config.single_file else save_checkpoint)(config.out, checkpoint)
    except BaseException:  # what is left of it would refuse the same command
        shutil.rmtree(config.out, ignore_errors=True)
        raise
    return report


def run(config: ConvertConfig) -> None:
    """Print what became of every tensor, and where the model is."""
    print(convert(config))
    print(f"written: {config.out}")


CONFIG = ConvertConfig
