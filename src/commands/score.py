"""`flexiast score`: write the scores of every clip, to distil from them or to compare models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.listening import Answer, answers
from ..data.manifest import require_tables
from ..data.scores import base_of, clip_name, require_scores_file, write_scores
from ..runtime.files import require_new
from ..runtime.output import Outcome
from .over_files import OverFiles, Source, write_all


@dataclasses.dataclass(frozen=True)
class ScoreConfig(OverFiles):
    """Write the scores of every clip to a file that `flexiast train --distill.scores` learns from.

    A clip that cannot be used is reported, the rest goes on; exit code 2 then.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Checkpoint of any readable format."""
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder (with all folders below), manifest or table of the clips; their labels are not needed."""
    out: Path
    """File to write: *.npz (clip, labels, probabilities) or *.parquet (clip, and a column for each label)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_tables(self, self.data)
        require_scores_file(self.out)
        require_new(self.out, self.overwrite)


def run(config: ScoreConfig) -> Outcome:
    """Score and write. What was scored before Ctrl-C is written too. The outcome holds a DataError for bad clips."""
    base = base_of(config.data, config.root)

    def save(model: AudioClassifier, sources: list[Source], done: list[Answer]) -> None:
        names = [clip_name(source, base) for source in sources]
        scores = torch.stack([one.scores for one in done]).numpy()
        write_scores(config.out, names, model.labels.names, scores, numbers=model.loss == "mse")

    return write_all(config, config.checkpoint, [config.data], config.out, answers, save)


CONFIG = ScoreConfig
