"""`flexiast convert`: rewrite any readable checkpoint in our own format."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from ..checkpoints.checkpoint import SIDECAR, WEIGHTS, save_checkpoint, save_single_file
from ..checkpoints.load_report import LoadReport
from ..classifier.load import load
from ..runtime.files import put_in_place, require_new
from ..runtime.output import Outcome, OutputOptions


@dataclasses.dataclass(frozen=True)
class ConvertConfig(OutputOptions):
    """Convert a checkpoint of any readable format to our own, and print what happened to every tensor."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """File, directory, Hub id (owner/name) or timm:NAME."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Directory to write, or file with --single-file."""
    single_file: bool = False
    """Write one safetensors file, with the description in its header, instead of a directory."""
    heads: int | None = None
    """Attention heads, if the source does not record them (default: width / 64)."""
    frames: int | None = None
    """Number of input frames, if the source does not record it."""
    overwrite: bool = False
    """Replace `out` if it exists."""


def convert(config: ConvertConfig) -> LoadReport | None:
    """Read `source` and write `out`, completely or not at all.

    The new description records, under `converted_from`, the old format and the settings that had to be assumed.
    Raises ConfigError if `out` exists and is not to be overwritten, CheckpointError if the source is unusable.
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


def run(config: ConvertConfig) -> Outcome:
    """Convert; the outcome says what happened to every tensor and where the model is."""
    report = convert(config)
    return Outcome(
        written=config.out,
        text=str(report) if report else "",
        summary={"format": report.format, "tensors": _counts(report)} if report else {},
        results=dataclasses.asdict(report) if report else {},
    )


def _counts(report: LoadReport) -> str:
    """How many steps of loading there were of each kind."""
    counts = Counter(entry.action for entry in report.entries)
    return ", ".join(f"{count} {action}" for action, count in counts.items())


CONFIG = ConvertConfig
