"""`flexiast train`: train a fixed or a flexible model, or resume an interrupted run."""

from __future__ import annotations

from ..runtime.distributed import connected
from ..traintest.config import TrainConfig
from ..traintest.summary import result
from ..traintest.train import Trainer


def run(config: TrainConfig) -> None:
    """Train, or resume, then print the result and where the model is."""
    with connected(config.dist_timeout) as world:
        trainer = Trainer(config, world=world)
        trainer.run()
        if world.is_rank0:
            for line in result(trainer.prepared, trainer.model.feature_config, trainer.show_progress):
                print(line)
            print(f"trained model: {config.out}")


CONFIG = TrainConfig
