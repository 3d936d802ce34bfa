"""The state of a run: what is saved with every checkpoint, listed once, and put back by a resume."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..classifier.audio_classifier import AudioClassifier
from .bad_files import BadFiles
from .checkpointing import WeightAverage, restore_rng, rng_state
from .progress import Progress
from .stepper import Stepper
from .tuning import MovingAverage

MISFIT = (AttributeError, KeyError, TypeError, ValueError, RuntimeError)
"""What putting back a state of another run, or a hostile one, raises."""


@dataclasses.dataclass(frozen=True)
class RunState:
    """Everything that changes while a run trains: with it, a resumed run equals one that was never interrupted."""

    model: AudioClassifier
    stepper: Stepper
    """Holds the optimizers, and the scale of the loss."""
    average: WeightAverage
    progress: Progress
    bad_files: BadFiles
    ema: MovingAverage | None = None

    def to_dict(self) -> dict[str, Any]:
        """Tensors, numbers, text and containers of them, for `CheckpointStore.save`."""
        return {
            **dataclasses.asdict(self.progress),
            **self.bad_files.state(),
            "model": self.model.state_dict(),
            "optimizers": self.stepper.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "average": self.average.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "rng": rng_state(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Put everything back. Raises what `MISFIT` lists if it does not fit this run."""
        self.model.load_state_dict(saved["model"])
        self.stepper.load_state_dict(saved["optimizers"])
        if saved.get("scaler"):  # older states lack it, and it is empty without fp16
            self._restore_scaler(saved["scaler"])
        self.average.load_state_dict(saved["average"])
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        restore_rng(saved["rng"])
        self.progress.restore(saved)
        self.bad_files.restore(saved)

    def _restore_scaler(self, saved: dict[str, Any]) -> None:
        """GradScaler itself takes anything, and fails at the next step."""
        scaler = self.stepper.scaler
        for name, own in scaler.state_dict().items():
            value = saved[name]
            if type(value) is not type(own) or not 0 <= value < math.inf or (name == "scale" and not value):
                raise ValueError(f"scaler: {name}")
        scaler.load_state_dict(saved)
