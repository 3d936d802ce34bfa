"""From any readable checkpoint to a flexible model: its curve, training at random patch sizes, its curve again."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Annotated

import tyro

from ..classifier.load import load
from ..errors import ConfigError
from ..models.geometry import TRAINED_SIZES, PatchSize
from ..reports.flexibility import format_table
from ..runtime.distributed import connected, print_once
from ..traintest.config import PatchOptions, TrainConfig
from ..traintest.evaluate import Result
from ..traintest.train import Trainer


@dataclasses.dataclass(frozen=True)
class FlexifyConfig:
    """Make a trained model flexible, and show its accuracy at every patch size before and after."""

    checkpoint: tyro.conf.Positional[str]
    """Checkpoint of any readable format: a directory, a file, a Hub id, or `timm:NAME`."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")]
    """Settings of the training; patch sizes are the paper's unless given, as far as they fit the input."""

    def __post_init__(self) -> None:
        if self.train.model.init is not None:
            raise ConfigError(f"model.init: found {self.train.model.init}, expected none beside the checkpoint")
        if self.train.data.val is None:
            raise ConfigError("data.val: found none, expected data to measure the curves before and after on")


def flexify(config: FlexifyConfig, progress: bool = True) -> list[Result]:
    """Train, or go on with the training, and measure on the validation data: first all sizes before, then all after.

    Raises FlexiASTError as `train` does.
    """
    run = dataclasses.replace(config.train, model=dataclasses.replace(config.train.model, init=config.checkpoint))
    with connected() as world:
        if not run.patches.sizes:
            run = dataclasses.replace(run, patches=PatchOptions(_fitting(run)))
        trainer = Trainer(run, progress, world)
        data = trainer.val_data
        assert data is not None  # FlexifyConfig has seen to it
        before = trainer.measure("before", trainer.model, data, trainer.progress)
        trainer.run()
        world.any(False)  # the leading process has written the model
        after = load(run.out, trainer.model.kernel.device)
        return before + trainer.measure("after", after, data, trainer.progress)


def _fitting(run: TrainConfig) -> tuple[PatchSize, ...]:
    """The paper's sizes that fit the model's input."""
    start = load(run.model.init or "", frames=run.features.frames)
    frames, fitting = run.features.frames or start.feature_config.frames, []
    for size in TRAINED_SIZES:
        with contextlib.suppress(ConfigError):
            start.config.grid(size, frames)
            fitting.append(size)
    return tuple(fitting)


def run(config: FlexifyConfig) -> None:
    """Flexify, and print the curves before and after."""
    print_once(f"{format_table(flexify(config))}\nflexible model: {config.train.out}")


CONFIG = FlexifyConfig
