"""A model on the validation data at the run's patch sizes, and the score that models are compared by."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

from ..classifier.audio_classifier import AudioClassifier
from ..data.manifest import Manifest
from ..models.geometry import PatchSize
from ..runtime.distributed import World
from ..runtime.interruption import never
from .config import TrainConfig
from .evaluate import Result, describe_clips, sweep

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Validation:
    """The result of one validation."""

    score: float = 0.0
    """Mean over the patch sizes of the metric that models are compared by; 0 without validation data."""
    curve: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    """Loss and all metrics by patch size."""
    excluded: int = 0
    """Clips that could not be used."""
    classes: int = 0
    """Classes of the model."""


class Validator:
    """Measures models on the validation data of a run."""

    def __init__(
        self, data: Manifest | None, patch_sizes: Sequence[PatchSize], config: TrainConfig, world: World
    ) -> None:
        self.data, self.patch_sizes, self.world = data, patch_sizes, world
        self.metric = config.selection_metric
        self.described = False
        self.options: dict[str, Any] = {
            "batch_size": config.data.batch_size,
            "workers": config.data.workers,
            "precision": config.precision,
            "timeout": config.data.timeout,
        }

    def validate(self, model: AudioClassifier, stopped: Callable[[], bool] = never) -> Validation:
        """The model's curve and score. Clips that cannot be used are left out and logged.

        Raises Interrupted soon after `stopped`.
        """
        if self.data is None:
            return Validation(classes=len(model.labels))
        results = self.measure("model", model, self.data, progress=False, stopped=stopped)
        for failure in results[0].excluded:
            logger.warning("excluded from the validation: %s", failure.reason)
        for line in describe_clips(results[0], model.feature_config) if not self.described else ():
            logger.info("%s: %s", self.data.source, line)
        self.described = True
        curve = {str(r.patch_size): {"loss": r.loss, **r.metrics.as_dict()} for r in results}
        score = sum(one[self.metric] for one in curve.values()) / len(curve)
        return Validation(score, curve, len(results[0].excluded), len(model.labels))

    def measure(
        self, name: str, model: AudioClassifier, data: Manifest, progress: bool, stopped: Callable[[], bool] = never
    ) -> list[Result]:
        """A model on some clips, a result for each patch size."""
        return sweep(
            {name: model}, data, self.patch_sizes, progress=progress, world=self.world, stopped=stopped, **self.options
        )
