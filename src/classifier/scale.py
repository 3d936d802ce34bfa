"""The units of a regression: the network's outputs are standardised, and mean and deviation make values of them.

So training converges alike in any unit. Dimensions: n clips, C targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, is_finite_number


@dataclasses.dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each target over the training clips."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> Scale:
        """Of values (n, C)."""
        values = values.astype(np.float64)
        return cls(tuple(values.mean(axis=0).tolist()), tuple(values.std(axis=0).tolist()))

    @classmethod
    def none(cls, targets: int) -> Scale:
        """Outputs that are values already."""
        return cls((0.0,) * targets, (1.0,) * targets)

    @classmethod
    def from_json(cls, value: Any, targets: int) -> Scale:
        """What `to_json` wrote, of so many targets; without it `none`. Raises ConfigError if it is not valid."""
        if value is None:
            return cls.none(targets)
        mean, std = (tuple(value.get(name) or ()) if isinstance(value, dict) else () for name in ("mean", "std"))
        if not (len(mean) == len(std) == targets and all(map(is_finite_number, mean + std)) and min(std) > 0):
            raise ConfigError(
                f"targets: found {str(value)[:80]}, expected mean and std of {targets} targets, std above 0"
            )
        return cls(mean, std)

    @property
    def largest(self) -> float:
        """The largest mean or deviation, at least 1: what the precision of values goes by."""
        return max(1.0, *map(abs, self.mean), *self.std)

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint's description keeps it, under `targets`."""
        return {"mean": list(self.mean), "std": list(self.std)}

    def take(self, order: Sequence[int]) -> Scale:
        """Those of some targets."""
        return Scale(tuple(self.mean[c] for c in order), tuple(self.std[c] for c in order))

    def values(self, outputs: Tensor) -> Tensor:
        """Values (n, C) float32, in the targets' units, from the network's outputs."""
        return outputs.float() * self._tensor(self.std, outputs) + self._tensor(self.mean, outputs)

    def outputs(self, values: Tensor) -> Tensor:
        """What the network's outputs (n, C) are to be for these values."""
        return (values.float() - self._tensor(self.mean, values)) / self._tensor(self.std, values)

    def _tensor(self, numbers: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=like.device)
