"""`flexiast flexify`: make any readable checkpoint flexible, and measure its curve before and after the training."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from ..classifier.load import load
from ..errors import ConfigError
from ..reports.flexibility import as_row, best_of, format_table, score_name
from ..runtime.distributed import connected
from ..runtime.output import Outcome
from ..traintest.config import TrainConfig
from ..traintest.evaluate import Result
from ..traintest.train import Trainer


@dataclasses.dataclass(frozen=True)
class FlexifyConfig:
    """Make a trained model flexible, and show its accuracy at every patch size before and after."""

    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Checkpoint of any readable format: a directory, a file, a Hub id, or `timm:NAME`."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")]
    """Training settings. Unless patch sizes are given, every height and width from 8 to 48 is drawn,
    from mostly coarse sizes at the start of the run to mostly fine ones at its end."""

    def __post_init__(self) -> None:
        if self.train.model.init is not None:
            raise ConfigError(f"model.init: found {self.train.model.init}, expected none beside the checkpoint")

    @property
    def quiet(self) -> bool:
        """As the training settings have it."""
        return self.train.quiet

    @property
    def json(self) -> bool:
        """As the training settings have it."""
        return self.train.json


def flexify(config: FlexifyConfig, progress: bool = True) -> list[Result]:
    """Train, or resume, and measure on the validation data: results for all sizes before, then for all sizes after.

    Raises FlexiASTError as `train` does.
    """
    settings = dataclasses.replace(config.train, model=dataclasses.replace(config.train.model, init=config.checkpoint))
    with connected(settings.dist_timeout) as world:
        trainer = Trainer(settings, progress, world, flexible=True)
        data = trainer.val_data
        if data is None:
            raise ConfigError("data.val: found none, expected data to measure the curves before and after on")
        before = trainer.validator.measure("before", trainer.model, data, trainer.show_progress)
        trainer.run()
        world.barrier()  # rank 0 has written the model
        after = load(settings.out, trainer.model.kernel.device)
        return before + trainer.validator.measure("after", after, data, trainer.show_progress)


def run(config: FlexifyConfig) -> Outcome:
    """Flexify; the outcome has the curves before and after."""
    results = flexify(config, not config.quiet)
    after = [result for result in results if result.model == "after"]
    return Outcome(
        written=config.train.out,
        text=format_table(results),
        summary={"clips": f"{len(after[0].scores):,} for validation", f"best {score_name(after)}": best_of(after)},
        results={"results": [as_row(result) for result in results]},
    )


CONFIG = FlexifyConfig
