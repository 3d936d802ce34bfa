"""Run any number of sounds through a model: read in worker processes, scored in batches that span clips.

Dimensions: B windows, S samples, C classes.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.manifest import Labels
from ..data.suspicion import describe_suspicious
from ..data.windows import WindowBatch, WindowDataset, hop_in_frames, load_windows
from ..data.workers import MAX_WORKERS
from ..errors import ConfigError, DataError, is_finite_number, is_whole_number, require
from ..features import MAXIMA, FeatureConfig, FrontEnd
from ..models.config import FlexiASTConfig, Loss
from ..models.geometry import Layout, PatchLike, PatchSize
from ..runtime.arguments import Precision
from ..runtime.device import autocast
from ..runtime.side_by_side import side_by_side, threads_for
from .cascade import Rule, follow
from .curve import Curve
from .inputs import as_rate, name_of, pieces_of
from .results import Prediction, Window
from .tally import Aggregate, Tally

logger = logging.getLogger(__name__)
R = TypeVar("R")


class Listener(Protocol):
    """The parts of an `AudioClassifier` that are needed here."""

    config: FlexiASTConfig
    kernel: nn.Parameter
    loss: Loss
    labels: Labels
    metadata: dict[str, Any]
    warned_sizes: set[PatchSize]

    @property
    def curve(self) -> Curve | None: ...
    @property
    def front_end(self) -> FrontEnd: ...
    @property
    def head(self) -> nn.Module: ...
    @property
    def head_norm(self) -> nn.Module: ...
    def columns(self, log_mel: Tensor, patch_size: PatchLike | None = None) -> Tensor: ...
    def layout(self, log_mel: Tensor, patch_size: PatchLike | None = None) -> Layout: ...
    @property
    def feature_config(self) -> FeatureConfig: ...
    def best(self, scores: Tensor, top_k: int = 5) -> list[Prediction]: ...
    def probabilities(self, logits: Tensor) -> Tensor: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Hearing:
    """How sounds are scored; see `AudioClassifier.predict` for what the fields mean."""

    patch_size: PatchLike | None = None
    sample_rate: int | None = None
    hop: float | None = None
    aggregate: Aggregate = "mean"
    batch_size: int = 16
    workers: int = 0
    precision: Precision = "fp32"
    rule: Rule | None = None
    """A cascade, in place of the patch size."""
    top_k: int = 1
    """Classes of each window."""
    window: float | None = None
    """Seconds heard in one pass, more than the model's window."""

    def rule_for(self, model: Listener) -> Rule:
        """The sizes that hear each window: the rule, or the patch size alone."""
        if self.rule is not None:
            return self.rule
        return Rule((PatchSize.parse(model.config.patch_size if self.patch_size is None else self.patch_size),))

    def features(self, model: Listener) -> FeatureConfig:
        """The features of a window. Raises ConfigError for a `window` shorter than the model's, or longer than any."""
        own = model.feature_config
        if self.window is None:
            return own
        longest = MAXIMA["frames"] * own.frame_seconds
        require(
            is_finite_number(self.window) and own.seconds <= self.window <= longest,
            "window", repr(self.window), f"seconds from the model's own {own.seconds:g} to {longest:g}",
        )  # fmt: skip
        return dataclasses.replace(own, frames=max(own.frames, round(self.window / own.frame_seconds)), length="native")

    def log_mel(self, model: Listener, batch: WindowBatch) -> Tensor | list[Tensor]:
        """What the network hears of a batch: (B, T, F), or (T, F) for each window."""
        heard = batch.on(model.kernel.device)
        if self.window is None:
            return model.front_end.as_trained(*heard)
        return model.front_end.longer(*heard, self.features(model))

    def check(self, model: Listener) -> None:
        """Raise ConfigError for a setting that does not fit the model; warn of a patch size outside its training."""
        require(
            is_whole_number(self.batch_size) and self.batch_size >= 1,
            "batch_size", repr(self.batch_size), "a whole number of at least 1",
        )  # fmt: skip
        require(
            is_whole_number(self.workers) and 0 <= self.workers <= MAX_WORKERS,
            "workers", repr(self.workers), f"a whole number from 0 to {MAX_WORKERS}",
        )  # fmt: skip
        Tally(self.aggregate)
        features = self.features(model)
        hop_in_frames(self.hop, features)
        if self.sample_rate is not None:
            as_rate(self.sample_rate)
        for patch in self.rule_for(model).sizes:
            model.config.layout(patch, features.frames)
            warn_outside_training(model, patch)


class Answer(NamedTuple):
    """A model's result for one clip, or what is wrong with the clip."""

    clip: int
    """Position in the list of clips."""
    scores: Tensor
    """(C,) for the whole clip; empty if it was scored window by window, or is unusable."""
    windows: list[Window]
    """Filled if the clip was scored window by window."""
    error: DataError | None
    patch_sizes: tuple[PatchSize, ...] = ()
    """The sizes that scored the clip, or any window of it, from coarse to fine."""


def heard_windows(
    model: Listener, clips: Sequence[Any], how: Hearing, hear: Callable[[WindowBatch], R]
) -> Generator[tuple[WindowBatch, R], None, None]:
    """The clips as batches of windows, each with `hear` of it; a small model on a CPU hears several at once.

    Raises ConfigError, at once, for a setting that does not fit the model or this machine.
    """
    batches = windows_of(model, clips, how)
    finest = max(model.config.flops(size, how.features(model).frames) for size in how.rule_for(model).sizes)
    return side_by_side(hear, batches, threads_for(model.kernel.device, finest / 1e9))


def windows_of(model: Listener, clips: Sequence[Any], how: Hearing) -> Iterator[WindowBatch]:
    """The clips as batches of windows. Raises ConfigError, at once, for a setting that does not fit this machine."""
    how.check(model)
    features = how.features(model)
    read = partial(pieces_of, features=features, sample_rate=how.sample_rate)
    dataset = WindowDataset(clips, read, features, how.batch_size, how.hop, name=name_of)
    dataset.require_room(how.workers)
    return _warning_of_suspicious(load_windows(dataset, how.workers))


def _warning_of_suspicious(batches: Generator[WindowBatch, None, None]) -> Iterator[WindowBatch]:
    """The batches; after the last one, a warning that sums up which clips look wrong."""
    reasons = list[str]()
    with closing(batches):
        for batch in batches:
            reasons += [suspicion.reason for suspicion in batch.suspicions]
            yield batch
    if reasons:
        logger.warning(describe_suspicious(reasons))


def in_precision(model: Listener, precision: Precision) -> AbstractContextManager[object]:
    """Autocast for a forward pass, unless the weights are half already: the caller chose that with `model.half()`."""
    return autocast(model.kernel.device, precision if model.kernel.dtype == torch.float32 else "fp32")


def answers(model: Listener, clips: Sequence[Any], how: Hearing, by_window: bool = False) -> Iterator[Answer]:
    """An answer for each clip, in order, as soon as it is known. by_window: return the windows, not their aggregate.

    Raises ConfigError for a setting that does not fit, DataError when a decoding process dies.
    """
    heard = heard_windows(model, clips, how, partial(_scores, model, how=how))
    sizes = how.rule_for(model).sizes
    tally, windows = Tally(how.aggregate), dict[int, list[Window]]()
    done, nothing, looks = dict[int, Answer](), torch.zeros(0), dict[int, int]()
    next_one = 0
    for batch, (scores, looks_of_windows) in heard:
        for clip, count in zip(batch.clips, looks_of_windows, strict=True):
            looks[clip] = max(count, looks.get(clip, 0))
        if by_window:
            for clip, time, of_one, count in zip(batch.clips, batch.times, scores, looks_of_windows, strict=True):
                window = Window(*time, of_one, model.best(of_one, how.top_k), sizes[:count])
                windows.setdefault(clip, []).append(window)
        else:
            tally.add(batch.clips, scores)
        for clip, _, _ in batch.ended:
            whole = nothing if by_window else tally.take(clip)
            done[clip] = Answer(clip, whole, windows.pop(clip, []), None, sizes[: looks.pop(clip)])
        for failure in batch.failures:
            tally.drop(failure.clip)
            windows.pop(failure.clip, None)
            looks.pop(failure.clip, None)
            done[failure.clip] = Answer(failure.clip, nothing, [], DataError(failure.reason))
        while next_one in done:
            yield done.pop(next_one)
            next_one += 1


def _scores(model: Listener, batch: WindowBatch, how: Hearing) -> tuple[Tensor, list[int]]:
    """Scores (B, C) of a batch of windows, float32, on the CPU, and how many sizes scored each (B)."""
    if not batch.clips:
        return torch.zeros(0, model.config.classes), []
    rule = how.rule_for(model)
    with torch.no_grad(), in_precision(model, how.precision):
        log_mel = how.log_mel(model, batch)

        def hear(step: int, going: np.ndarray) -> np.ndarray:
            heard = log_mel if len(going) == len(log_mel) else chosen(log_mel, going)
            return model.probabilities(model(heard, rule.sizes[step]).float()).cpu().numpy()

        followed = follow(rule, model.loss, len(log_mel), hear)
    return torch.from_numpy(followed.scores).float(), followed.looks.tolist()


def chosen(log_mel: Tensor | list[Tensor], going: np.ndarray) -> Tensor | list[Tensor]:
    """The clips with these numbers, of log-mel (B, T, F) or of a list."""
    if isinstance(log_mel, Tensor):
        return log_mel[torch.from_numpy(going).to(log_mel.device)]
    return [log_mel[number] for number in going]


def stacks(model: Listener, log_mel: Tensor | list[Tensor], patch: PatchSize) -> list[Tensor]:
    """Log-mel as stacks (n, T, F) for what takes no list: as it is, or, at native length, each clip alone.

    A clip shorter than a patch is padded to a whole one.
    """
    if isinstance(log_mel, Tensor):
        return [log_mel]
    value = model.config.pad_value
    return [F.pad(one, (0, 0, 0, max(0, patch.time - len(one))), value=value)[None] for one in log_mel]


def warn_outside_training(model: Listener, patch: PatchSize) -> None:
    """Warn, once per model and size, of a patch size outside those that the model was trained at."""
    if patch not in model.warned_sizes and (outside := trained_elsewhere(model, patch)):
        model.warned_sizes.add(patch)
        logger.warning(
            "patch size %s: the model was trained at %s; its scores are not to be trusted there", patch, outside
        )


def trained_elsewhere(model: Listener, patch: PatchSize) -> str | None:
    """In words, the sizes that a model was trained at, if a patch size lies outside their range; None otherwise."""
    sizes = trained_sizes(model)
    if not sizes:
        return None
    ranges = [(min(axis), max(axis)) for axis in zip(*sizes, strict=True)]
    if all(low <= side <= high for side, (low, high) in zip(patch, ranges, strict=True)):
        return None
    return ", ".join(map(str, sizes)) if len(sizes) <= 3 else f"{min(sizes)} to {max(sizes)}"


def trained_sizes(model: Listener) -> list[PatchSize]:
    """The patch sizes that a model was trained at; empty if its description does not say."""
    sizes = model.metadata.get("trained_patch_sizes")
    try:
        return sorted(map(PatchSize.parse, sizes)) if isinstance(sizes, (list, tuple)) else []
    except ConfigError:
        return []


def trained_at_rectangle(model: Listener, patch: PatchSize) -> bool:
    """Whether a training drew rectangles, this size among them: a height of one of its sizes, a width of another."""
    sizes = trained_sizes(model) if _drew_rectangles(model) else []
    return any(size.freq == patch.freq for size in sizes) and any(size.time == patch.time for size in sizes)


def _drew_rectangles(model: Listener) -> bool:
    """Whether the description says so; in models of earlier versions only the settings of the training do."""
    said = model.metadata.get("trained_rectangles")
    if said is None:
        training = model.metadata.get("training")
        patches = training.get("patches") if isinstance(training, dict) else None
        said = patches.get("rectangles") if isinstance(patches, dict) else None
    return said is True or said == "yes"
