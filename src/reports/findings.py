"""What the page of a run says of a model's answers: the tables of `flexiast measure`, and the answers to each clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..data.manifest import Manifest
from ..data.shards import ShardMember
from ..models.geometry import PatchSize
from ..traintest.detail import classes_of, confusions_of, uncertainty
from ..traintest.evaluate import Result, targets_of
from .flexibility import as_row, patch_of
from .run_tables import Rows


@dataclasses.dataclass(frozen=True)
class ClipAnswers:
    """What the model said of each clip at one patch size."""

    paths: Sequence[Path | ShardMember]
    scores: np.ndarray = dataclasses.field(repr=False)
    """(n, C) probabilities, or numbers that a regression predicts, in the order of the model's labels."""
    targets: np.ndarray = dataclasses.field(repr=False)
    """(n, C), 1 at each class of a clip, or its numbers."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """One model's results on some clips, heard now or read from the files of a measurement."""

    patch: PatchSize
    """The size that classes and clips are shown at."""
    source: str
    """Where the clips are."""
    fingerprint: str
    clips: int
    """Those that could be used."""
    excluded: Sequence[str]
    """Why others could not."""
    curve: Rows
    """A row per patch size, as in flexibility.csv."""
    classes: Rows
    """As in classes.csv, at every size; none for numbers to predict."""
    confusions: Rows
    """As in confusions.csv, at every size."""
    comparisons: Rows = dataclasses.field(default_factory=list)
    """As in comparisons.csv: those of this model with others."""
    answers: ClipAnswers | None = None
    """At the size that is shown, where they are known."""
    measured: Path | None = None
    """The folder of the measurement that this is from."""

    def shown(self, rows: Rows) -> Rows:
        """The rows of the size that is shown."""
        return [row for row in rows if patch_of(row) == self.patch]


def findings_of(results: Sequence[Result], data: Manifest, model: AudioClassifier, patch: PatchSize) -> Findings:
    """Of a model that has just heard the clips at several sizes, `patch` among them."""
    chosen = next(result for result in results if result.patch_size == patch)
    excluded = {failure.clip for failure in chosen.excluded}
    targets = targets_of(data, chosen.excluded)
    names, numbers = model.labels.names, model.loss == "mse"
    return Findings(
        patch=patch,
        source=str(data.source),
        fingerprint=data.fingerprint,
        clips=len(targets),
        excluded=[failure.reason for failure in chosen.excluded],
        curve=[as_row(result) | uncertainty(result, targets, model.loss) for result in results],
        classes=[] if numbers else classes_of(results, targets, names),
        confusions=[] if numbers else confusions_of(results, targets, names),
        answers=ClipAnswers(
            [clip.path for place, clip in enumerate(data.clips) if place not in excluded], chosen.scores, targets
        ),
    )
