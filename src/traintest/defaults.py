"""Settings that are left to `auto`, chosen from the data, the start and the machine, each with its reason.

The rules come from short runs on 60 to 7,200 clips (docs/results.md); what is given is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..data.manifest import Manifest
from ..data.survey import Survey
from ..models.config import SIZES
from ..runtime.arguments import AUTO
from ..runtime.device import available_cores
from ..runtime.side_by_side import LEAST_SHARED
from .config import TrainConfig
from .options import FeatureOptions

MOST_FRAMES = 1024
"""Longest window that is chosen: ten seconds, as in AST. Longer clips are cut into windows."""
LARGEST_DATA = {"micro": 20_000, "tiny": 100_000, "small": 500_000}
"""A network from scratch has this size on fewer clips than this; `base` beyond all of them."""
MOST_LONGER = 3.0
"""Training on at other sizes has the compute of training on at the start's, but at most so many times the epochs."""
VALIDATIONS = 20
"""Validations of a run at one size, if its epochs are at least as many."""
VALIDATIONS_OF_MANY_SIZES = 6
"""The same of a run at every size, which measures ten sizes in each: they would cost more than the training."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A setting that was chosen, and why."""

    setting: str
    value: Any
    reason: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the choices depend on."""

    train: Manifest
    seen: Survey | None
    """None if no open setting depends on the audio."""
    start: AudioClassifier | None
    flexible: bool
    """Whether the run makes a trained model flexible."""
    gpu: bool
    keeps_features: bool
    """Whether the start keeps its frames and statistics, see `keeps_features`."""
    bins: int = 128
    """Mel bins of the network's input."""
    cost: Callable[[int], float] | None = None
    """FLOPs of a training step on so many frames, averaged over the run, relative to one at the start's patch size;
    None for a run at that size alone."""

    def architecture(self, size: str) -> tuple[int, int]:
        """Width and depth of the network: the start's, or those of a size from scratch."""
        if self.start is not None:
            return self.start.config.width, self.start.config.depth
        return SIZES[size]["width"], SIZES[size]["depth"]


def keeps_features(start: AudioClassifier | None, train: Manifest, flexible: bool, features: FeatureOptions) -> bool:
    """Whether a start keeps frames and statistics: it goes on with its own task (made flexible, or trained further on
    the same classes) and with its own front end."""
    if start is None or not features.same_front_end(start.feature_config):
        return False
    return flexible or set(start.labels.mids) == set(train.labels.mids)


class Chooser:
    """Fills open settings of a configuration and keeps count of them."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.choices: list[Choice] = []

    def get(self, setting: str) -> Any:
        """The value of `section.name`, or of `name`."""
        value: Any = self.config
        for name in setting.split("."):
            value = getattr(value, name)
        return value

    def choose(self, setting: str, value: Any, reason: str) -> None:
        """Fill a setting, if it is open."""
        if self.get(setting) is AUTO:
            self.put(setting, value)
            self.choices.append(Choice(setting, value, reason))

    def take_over(self, saved: Mapping[str, Any]) -> None:
        """Fill open settings with what an earlier start of the run chose, by `section.name`, as JSON."""
        for setting, value in saved.items():
            is_path = setting == "data.val" and isinstance(value, str)
            if value is not None:
                self.choose(setting, Path(value) if is_path else value, "as the run began")

    def put(self, setting: str, value: Any) -> None:
        section, _, name = setting.rpartition(".")
        if section:
            inner = dataclasses.replace(getattr(self.config, section), **{name: value})
            self.config = dataclasses.replace(self.config, **{section: inner})
        else:
            self.config = dataclasses.replace(self.config, **{name: value})


def choose_loss(chooser: Chooser, train: Manifest) -> None:
    """The loss, from the labels; numbers to predict are chosen before the data are read."""
    single = bool((train.clips.classes.sizes == 1).all())
    chooser.choose(
        "loss", "ce" if single else "bce", "one label per clip" if single else "several labels, or none, on some clips"
    )


def choose_all(chooser: Chooser, facts: Facts) -> None:
    """Fill every setting that is still open."""
    _choose_features(chooser, facts)
    _choose_model(chooser, facts)
    _choose_batches(chooser, facts)
    _choose_threads(chooser, facts)
    _choose_length(chooser, facts)
    _choose_rate(chooser, facts)
    _choose_augmentation(chooser, facts)


def _choose_features(chooser: Chooser, facts: Facts) -> None:
    if facts.keeps_features and facts.start is not None:
        features, reason = facts.start.feature_config, "as the model was trained"
        chooser.choose("features.frames", features.frames, reason)
        chooser.choose("data.mean", features.mean, reason)
        chooser.choose("data.std", features.std, reason)
    elif facts.seen is not None:
        longest = facts.seen.length(0.95)
        frames = min(MOST_FRAMES, max(16, 16 * round(longest / 16)))
        capped = f"; capped at {MOST_FRAMES}" if longest > MOST_FRAMES else ""
        chooser.choose("features.frames", frames, f"95 % of the clips have at most {longest} frames{capped}")
        pieces = facts.train.clips.paths.pieces
        part = "" if pieces is None else f" of {len(np.unique(pieces[facts.seen.clips]))} pieces of the stream"
        measured = f"measured on {len(facts.seen.clips):,} clips{part}"
        chooser.choose("data.mean", round(facts.seen.mean, 4), measured)
        chooser.choose("data.std", round(facts.seen.std, 4), measured)


def _choose_model(chooser: Chooser, facts: Facts) -> None:
    if facts.start is not None:
        return
    clips = len(facts.train)
    size = next((name for name, most in LARGEST_DATA.items() if clips < most), "base")
    reason = f"from scratch on {clips:,} clips"
    if not facts.gpu and size in ("small", "base"):
        size, reason = "tiny", f"{reason}, without a GPU"
    chooser.choose("model.size", size, reason)


def _choose_batches(chooser: Chooser, facts: Facts) -> None:
    clips, cores = len(facts.train), available_cores()
    batch = 16 if clips < 20_000 else 32 if clips < 100_000 else 64
    chooser.choose("data.batch_size", max(2, min(batch, clips // 4)), f"{clips:,} clips")
    workers = min(8, cores) if facts.gpu else min(4, cores // 2)
    chooser.choose("data.workers", workers, f"{cores} cores, {'a' if facts.gpu else 'no'} GPU")


def _choose_threads(chooser: Chooser, facts: Facts) -> None:
    width, depth = facts.architecture(chooser.get("model.size"))
    tokens = chooser.get("features.frames") * facts.bins / 16**2
    gflops = 24 * depth * tokens * width**2 / 1e9  # of a clip at patch 16, attention not counted
    if gflops < LEAST_SHARED:
        chooser.choose("threads", 1, f"{gflops:.2g} GFLOPs a clip: operations too small to share")
    else:
        chooser.choose("threads", 0, "torch's own choice")


def _choose_length(chooser: Chooser, facts: Facts) -> None:
    clips = len(facts.train)
    # In steps of 16 clips, 62.5 sqrt(clips): few clips are seen more often, many for longer.
    epochs, reason = round(max(3.0, 1000 / clips**0.5), 1), f"1,000 / sqrt({clips:,} clips)"
    if facts.cost and chooser.get("epochs") is AUTO:
        times = min(MOST_LONGER, max(1.0, 1 / facts.cost(chooser.get("features.frames"))))
        reason += f", times {times:.3g}: the sizes drawn cost less than the base patch" if times > 1 else ""
        epochs = round(times * epochs, 1)
    chooser.choose("epochs", epochs, reason)
    validations = VALIDATIONS_OF_MANY_SIZES if facts.flexible else VALIDATIONS
    every = max(1.0, chooser.get("epochs") / validations)
    chooser.choose("eval_every", every, f"at most {validations} validations")
    if chooser.get("average_from") or facts.flexible:
        chooser.choose("patience", 0, "off: averaged" if chooser.get("average_from") else "off: few validations")
    else:
        chooser.choose("patience", 8, "ends a run that no longer improves")


def _choose_rate(chooser: Chooser, facts: Facts) -> None:
    width, _ = facts.architecture(chooser.get("model.size"))
    if facts.start is None:
        chooser.choose("optim.lr", round(1e-3 * (96 / width) ** 0.5, 6), f"from scratch, width {width}")
    else:
        chooser.choose("optim.lr", round(1e-3 * (96 / width) ** 1.5, 6), f"from a trained model, width {width}")
    steps = -(-round(chooser.get("epochs") * len(facts.train)) // chooser.get("data.batch_size"))
    chooser.choose("optim.warmup_steps", min(1000, max(1, steps // 20)), f"5 % of {steps:,} steps, at most 1,000")


def _choose_augmentation(chooser: Chooser, facts: Facts) -> None:
    frames = chooser.get("features.frames")
    reason, short = f"a tenth of {frames} frames", "costs more than it brings in runs of this length"
    chooser.choose("augment.roll", max(1, frames // 10), reason)
    chooser.choose("augment.freq_mask", 0, short)
    chooser.choose("augment.time_mask", 0, short)
    chooser.choose("augment.noise", 0.0, short)
    chooser.choose("augment.mixup", 0.0, short)
