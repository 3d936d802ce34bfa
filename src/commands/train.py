"""`flexiast train`: train a fixed or a flexible model, or go on with an interrupted run."""

from __future__ import annotations

from ..runtime.distributed import print_once
from ..traintest.config import TrainConfig
from ..traintest.train import train


def run(config: TrainConfig) -> None:
    """Train, or resume, and say where the model is."""
    print_once(f"trained model: {train(config)}")


CONFIG = TrainConfig
