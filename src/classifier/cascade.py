"""A cascade: a coarse patch size hears every clip, finer ones hear only those that are still in doubt.

Plain numpy, so that the same function routes in `predict`, replays stored scores, and runs exported members.

Dimensions: n clips, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import ConfigError, is_finite_number, require
from ..models.config import Loss
from ..models.geometry import PatchLike, PatchSize

ALWAYS = 2.0
"""A threshold above every confidence: every clip goes on to the next size."""
MOST_SIZES = 8


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which sizes hear a clip, and when to stop. A rule of one size is that size for every clip."""

    sizes: tuple[PatchSize, ...]
    """From coarse to fine."""
    thresholds: tuple[float, ...] = ()
    """One per size but the last: a clip goes on if its confidence, 0 to 1, is lower (see `confidence`)."""
    temperatures: tuple[float, ...] = ()
    """One per size: its logits are divided by it (default: 1)."""
    average: bool = False
    """Whether scores are averaged over the sizes that scored a clip; otherwise the last size alone counts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperatures", self.temperatures or (1.0,) * len(self.sizes))
        require(1 <= len(self.sizes) <= MOST_SIZES, "cascade", f"{len(self.sizes)} sizes", f"1 to {MOST_SIZES}")
        for name, values, count in (
            ("threshold", self.thresholds, len(self.sizes) - 1),
            ("temperature", self.temperatures, len(self.sizes)),
        ):
            if len(values) != count:
                raise ConfigError(
                    f"{name}: found {len(values)} for a cascade of {len(self.sizes)} sizes, expected {count}"
                )
        for threshold in self.thresholds:
            require(
                is_finite_number(threshold) and threshold >= 0, "threshold", repr(threshold), "a number from 0 to 1"
            )
        for temperature in self.temperatures:
            good = is_finite_number(temperature) and temperature > 0
            require(good, "temperature", repr(temperature), "a positive number")

    def __str__(self) -> str:
        return " > ".join(map(str, self.sizes)) + (" averaged" if self.average and len(self.sizes) > 1 else "")

    def to_json(self) -> dict[str, Any]:
        """The rule as JSON-ready values."""
        return dataclasses.asdict(self) | {"sizes": [str(size) for size in self.sizes]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Rule:
        """The rule that `to_json` wrote. Raises ConfigError, KeyError or TypeError if it is none."""
        sizes = tuple(map(PatchSize.parse, value["sizes"]))
        return cls(sizes, tuple(value["thresholds"]), tuple(value["temperatures"]), bool(value["average"]))


class Followed(NamedTuple):
    """What a rule made of clips."""

    scores: np.ndarray
    """(n, C) probabilities, temperature-scaled."""
    looks: np.ndarray
    """(n,) sizes that scored each clip, at least 1."""


def follow(rule: Rule, loss: Loss, clips: int, hear: Callable[[int, np.ndarray], np.ndarray]) -> Followed:
    """Route clips through a cascade. hear: probabilities (m, C) of clips (m,), by index, at the rule's size number."""
    going = np.arange(clips)
    looks = np.zeros(clips, dtype=np.int64)
    scores = np.zeros((clips, 0))
    for step, temperature in enumerate(rule.temperatures):
        if step and not len(going):
            break
        new = temper(hear(step, going), temperature, loss)
        if step == 0:
            scores = new
        else:
            scores[going] = averaged(scores[going], new, step) if rule.average else new
        looks[going] = step + 1
        if step < len(rule.thresholds):
            going = going[confidence(scores[going], loss) < rule.thresholds[step]]
    return Followed(scores, looks)


def averaged(before: np.ndarray, new: np.ndarray, looks: int) -> np.ndarray:
    """Mean scores after one more look, from the mean of `looks` before it."""
    return (before * looks + new) / (looks + 1)


def temper(scores: np.ndarray, temperature: float, loss: Loss) -> np.ndarray:
    """Probabilities (n, C), float64, whose logits are those of `scores` divided by the temperature."""
    scores = scores.astype(np.float64)
    if temperature == 1.0:
        return scores
    tiny = np.finfo(np.float32).tiny  # scores may have been rounded to 0 or 1
    if loss == "ce":
        logits = np.log(np.maximum(scores, tiny)) / temperature
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)
    bounded = np.clip(scores, 1e-7, 1 - 1e-7)
    return 1 / (1 + ((1 - bounded) / bounded) ** (1 / temperature))


def confidence(scores: np.ndarray, loss: Loss) -> np.ndarray:
    """How sure scores (n, C) are, (n,), 0 to 1.

    Single-label: the best class's lead over the second. Multi-label: 1 less the largest entropy of a class, in bits.
    """
    if not len(scores) or (loss == "ce" and scores.shape[1] == 1):
        return np.ones(len(scores))
    if loss == "ce":
        top = np.partition(scores, -2, axis=1)[:, -2:]
        return top[:, 1] - top[:, 0]
    nearest = 0.5 - np.abs(scores - 0.5).min(axis=1)  # the class nearest to one half has the largest entropy
    bounded = np.clip(nearest, 1e-12, 0.5)
    return 1 + bounded * np.log2(bounded) + (1 - bounded) * np.log2(1 - bounded)


def rule_of(sizes: Sequence[PatchLike], threshold: float | Sequence[float] | None, temperatures: Any = ()) -> Rule:
    """The rule that a user spells out: sizes from coarse to fine, one threshold for all or one per step.

    Scores are averaged along the way. Raises ConfigError for what does not fit.
    """
    if isinstance(sizes, (str, bytes)) or not isinstance(sizes, Sequence):
        raise ConfigError(f"cascade: found {sizes!r}, expected 'auto' or a list of patch sizes such as [48, 16, 12]")
    patches = tuple(map(PatchSize.parse, sizes))
    require(len(set(patches)) == len(patches), "cascade", ", ".join(map(str, patches)), "distinct sizes")
    if threshold is None:
        raise ConfigError("threshold: found none, expected one beside the sizes of a cascade, such as 0.5")
    steps = len(patches) - 1
    values: tuple[Any, ...] = tuple(threshold) if isinstance(threshold, (list, tuple)) else (threshold,) * steps
    return Rule(patches, values, tuple(temperatures), average=True)
