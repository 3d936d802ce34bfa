"""`flexiast score`: write down what a model says of every clip, to distil from it or to compare it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tqdm import tqdm

from ..classifier.listening import Answer, Hearing, answers
from ..classifier.load import load
from ..data.scores import require_scores_file, write_scores
from ..data.sources import every_source
from ..errors import DataError
from ..runtime.arguments import PatchArg, Precision
from ..runtime.files import require_new


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """Write the scores of every clip to a file that `flexiast train --distill.scores` learns from.

    A clip that cannot be used is reported, the rest goes on; exit code 2 then.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Checkpoint of any readable format."""
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder (with all folders below), manifest or table of the clips; their labels are not needed."""
    out: Path
    """File to write: *.npz (clip, labels, probabilities) or *.parquet (clip, and a column for each label)."""
    patch_size: PatchArg | None = None
    """Patch size to use (default: the model's base patch)."""
    overwrite: bool = False
    """Replace the file if it is there."""
    root: Path | None = None
    """Where relative paths of a manifest start (default: the manifest's own folder)."""
    batch_size: int = 32
    """Windows per forward pass; batches go across clips."""
    workers: int = 2
    """Decoding processes; 0 decodes in this process."""
    device: str = "auto"
    """`auto`: the GPU where there is one, else the CPU."""
    precision: Precision = "auto"
    """`auto`: bfloat16 where the device has fast bfloat16."""

    def __post_init__(self) -> None:
        require_scores_file(self.out)
        require_new(self.out, self.overwrite)


def run(config: ScoreConfig) -> None:
    """Score and write. What was scored before Ctrl-C is written too. Raises DataError, in the end, for bad clips."""
    sources = every_source([config.data], config.root)
    base = config.root or (config.data if config.data.is_dir() else config.data.parent)
    model = load(config.checkpoint, config.device)
    how = Hearing(config.patch_size, batch_size=config.batch_size, workers=config.workers, precision=config.precision)
    done: list[Answer] = []
    try:
        scored = answers(model, sources, how)
        for answer in tqdm(scored, "score", len(sources), unit="clip", disable=not sys.stderr.isatty(), leave=False):
            done.append(answer)
    finally:
        used = [answer for answer in done if answer.error is None]
        if used:
            names = [_relative(sources[answer.clip], base) for answer in used]
            write_scores(config.out, names, model.labels.names, torch.stack([one.scores for one in used]).numpy())
    failed = [str(answer.error) for answer in done if answer.error is not None]
    print(f"written: {config.out}, {len(used)} clips" if used else "nothing written")
    if failed:
        raise DataError(f"{len(failed)} of {len(sources)} clips could not be used; the first: {failed[0]}")


def _relative(source: object, base: Path) -> str:
    """A clip as the file calls it: below the data's folder, where it lies there."""
    if isinstance(source, Path) and source.is_relative_to(base):
        return str(source.relative_to(base))
    return str(source)


CONFIG = ScoreConfig
