"""`flexiast curve`: what each patch size of a model gives and costs, kept in its checkpoint."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Annotated

import tyro

from ..checkpoints.checkpoint import SIDECAR
from ..checkpoints.formats.own import VERSION
from ..classifier.audio_classifier import AudioClassifier
from ..classifier.class_order import class_order, reordered
from ..classifier.curve import Curve
from ..classifier.listening import trained_at_rectangle, trained_sizes
from ..classifier.load import load
from ..data.manifest import read_manifest
from ..data.table_options import TableOptions
from ..errors import CheckpointError, ConfigError, require
from ..models.geometry import PAPER_SIZES, PatchSize
from ..reports.curve import format_curve
from ..reports.tables import spread
from ..runtime.arguments import PatchArg, Precision, require_distinct
from ..runtime.device import pick_device
from ..runtime.files import require_new, require_writable, to_json_text, write_atomically
from ..runtime.output import Outcome, OutputOptions
from ..runtime.side_by_side import use_threads
from ..traintest.curve import measure_curve
from ..traintest.evaluate import describe_clips
from ..traintest.metrics import figure
from ..traintest.patch_plan import fitting

MOST_SIZES = 13
"""Squares taken from a model's training; of more every few are left out."""
SQUARES = tuple(sorted((*PAPER_SIZES, *(PatchSize(side, side) for side in (28, 36, 44)))))
"""Measured where a model was trained at all of them and more: the paper's, and three that cost little beside them."""
RECTANGLES = tuple(PatchSize(*sides) for sides in ((16, 8), (8, 16), (16, 32), (32, 16)))
"""Mel bins x frames; measured too where a model was trained at rectangles."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CurveConfig(TableOptions, OutputOptions):
    """Measure accuracy, calibration and cost of a model at a ladder of patch sizes, and find its cascades."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Model directory, or any other readable checkpoint; the curve is written into a directory's config.json."""
    data: Path
    """Manifest JSON or table (CSV, TSV, JSONL) of validation clips, a folder with one sub-folder per class, or whatever
    `--data.train` takes."""
    out: Path | None = None
    """New directory for the model with its curve (default: the checkpoint's own, if it is in our format)."""
    labels: Path | None = None
    """Label CSV (default: the labels of the model)."""
    root: Path | None = None
    """Where relative paths of the manifest start (default: the manifest's own folder)."""
    patch_sizes: tuple[PatchArg, ...] | None = None
    """Patch sizes to measure, rectangles such as 16x8 too (default: those of the training, or 13 of many, and 16x8,
    8x16, 16x32 and 32x16 where it drew rectangles)."""
    hop: float | None = None
    """Seconds between the windows of a clip longer than the model's window, whose scores are averaged (default: side
    by side). Overlapping windows cost more, and often score higher."""
    batch_size: int = 32
    """Clips per forward pass."""
    workers: int = 2
    """Decoding processes; 0 decodes in this process."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the device has fast bfloat16; `fp16` for GPUs without it."""
    threads: int = 0
    """CPU threads, 0 for torch's own choice. A small model hears a batch in each, a larger one shares every batch
    among them."""
    device: str = "auto"
    """`auto`: the GPU where there is one, else the CPU."""
    overwrite: bool = False
    """Replace what is in `out` already."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_sizes is not None:
            require(bool(self.patch_sizes), "patch_sizes", "none", "at least one")
            require_distinct("patch_sizes", self.patch_sizes)
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        require(self.workers >= 0, "workers", self.workers, "at least 0")


def ladder(model: AudioClassifier) -> tuple[PatchSize, ...]:
    """The sizes that fit the input: the model's own, of more than 13 the `SQUARES` if they are among them, else every
    few; the paper's if the model does not say. Four rectangles more, if rectangles of their sides were drawn.
    """
    usual = fitting(SQUARES, model)
    sizes = fitting(trained_sizes(model), model) or fitting(PAPER_SIZES, model)
    if len(sizes) > MOST_SIZES and set(usual) <= set(sizes):
        sizes = usual
    chosen = tuple(sizes[place] for place in spread(len(sizes), MOST_SIZES))
    more = fitting([size for size in RECTANGLES if trained_at_rectangle(model, size)], model)
    return (*chosen, *(size for size in more if size not in chosen))


def curve(config: CurveConfig, progress: bool = True) -> tuple[Curve, Path]:
    """Measure, and keep the curve in the checkpoint; returns it and the file. Raises FlexiASTError for wrong input."""
    sidecar = _sidecar(config)
    use_threads(config.threads)
    model = load(config.checkpoint, pick_device(config.device))
    numbers = model.loss == "mse"
    data = read_manifest(config.data, config.labels or model.labels, config.root, config, numbers=numbers)
    order = class_order(model.labels, data.labels, table=config.labels is not None or None)
    if order is None:
        raise ConfigError(
            f"{config.data}: found other classes ({len(data.labels)}) than the model's ({len(model.labels)})"
        )
    sizes = config.patch_sizes or ladder(model)
    measured, results = measure_curve(
        reordered(model, data.labels, order), data, sizes,
        batch_size=config.batch_size, workers=config.workers, precision=config.precision, progress=progress,
        hop=config.hop,
    )  # fmt: skip
    for line in describe_clips(results[0], model.feature_config):
        logger.info("%s: %s", config.data, line)
    if config.out is not None:
        model.save_pretrained(config.out)
        return measured, config.out / SIDECAR
    content = json.loads(sidecar.read_text(encoding="utf-8")) | {"curve": model.metadata["curve"]}
    write_atomically(sidecar, (to_json_text(content, 1) + "\n").encode())
    return measured, sidecar


def _sidecar(config: CurveConfig) -> Path:
    """The config.json that takes the curve. Raises ConfigError, before any work, if it cannot be written."""
    if config.out is not None:
        require_new(config.out, config.overwrite, (SIDECAR, "model.safetensors"))
        require_writable(config.out)
        return config.out / SIDECAR
    sidecar = config.checkpoint / SIDECAR
    try:
        own = json.loads(sidecar.read_text(encoding="utf-8")).get("format") == VERSION
    except (OSError, ValueError, AttributeError):
        own = False
    if not own:
        raise CheckpointError(
            f"{config.checkpoint}: not a model directory in our own format, expected one; --out DIRECTORY writes a copy"
        )
    require_writable(config.checkpoint)
    return sidecar


def run(config: CurveConfig) -> Outcome:
    """Measure; the outcome has the table and the front."""
    measured, path = curve(config, not config.quiet)
    best = max(measured.points, key=lambda point: point.score)
    reached = f"{figure(measured.score_name, best.score)} at patch size {best.patch_size}"
    return Outcome(
        written=path,
        text=format_curve(measured),
        summary={"clips": f"{measured.clips:,}", f"best {measured.score_name}": reached},
        results=measured.to_json(),
    )


CONFIG = CurveConfig
