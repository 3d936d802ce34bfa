"""`flexiast train`: train a fixed or a flexible model, or resume an interrupted run."""

from __future__ import annotations

from ..runtime.distributed import connected
from ..runtime.output import Outcome
from ..traintest.config import TrainConfig
from ..traintest.summary import RunResult, result, tell
from ..traintest.train import Trainer


def run(config: TrainConfig) -> Outcome | None:
    """Train, or resume; rank 0 tells the result and where the model is."""
    with connected(config.dist_timeout) as world:
        trainer = Trainer(config, not config.quiet, world)
        trainer.run()
        if not world.is_rank0:
            return None
        reached = result(trainer.prepared, trainer.model.feature_config, trainer.show_progress)
    tell(reached.warnings())
    return _outcome(trainer, reached)


def _outcome(trainer: Trainer, reached: RunResult) -> Outcome:
    train, val, metric = len(trainer.train_data), len(trainer.val_data or ()), reached.metric
    return Outcome(
        written=trainer.config.out,
        text="\n".join(reached.lines()),
        summary={
            "clips": f"{train:,} for training, {val:,} for validation",
            f"best {metric}": reached.best,
        },
        results={
            "clips": {"train": train, "val": val}, "metric": metric, "validation": reached.curve,
            reached.simple_name.replace(" ", "_"): reached.simple,
        },
    )  # fmt: skip


CONFIG = TrainConfig
