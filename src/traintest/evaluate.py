"""Evaluation of models at many patch sizes in one pass over the data: decode and features once per clip.

Clips longer than the model's window are scored as by `predict`: the mean over their windows.

Dimensions: n clips, B windows, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import product

import numpy as np
import torch

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.inputs import pieces_of
from ..data.dataset import LEAST_NEW, Failure
from ..data.manifest import Manifest
from ..data.suspicion import describe_suspicious
from ..data.windows import Ended, WindowBatch, WindowDataset, hop_in_frames, load_windows
from ..errors import ConfigError, DataError
from ..features import FeatureConfig, Length
from ..models.geometry import PatchSize
from ..models.resize import Resize
from ..runtime.arguments import Precision
from ..runtime.bars import tqdm
from ..runtime.device import autocast
from ..runtime.distributed import World
from ..runtime.interruption import Interrupted, never
from ..runtime.side_by_side import side_by_side, threads_for
from .evaluation_pass import Heard, Pass
from .metrics import Metrics, classification_metrics
from .regression import RegressionMetrics, regression_metrics

TREATED: dict[Length, str] = {"window": "padded", "native": "heard at their own length"}
"""What becomes of clips shorter than the window."""


@dataclasses.dataclass
class Result:
    """One model at one patch size, over all clips."""

    model: str
    resize: Resize
    patch_size: PatchSize
    tokens: int
    """Patch tokens of one window, prefix not counted."""
    gflops: float
    """10^9 floating-point operations of one window's forward pass."""
    clips_per_second: float
    """Forward passes alone, decoding and features not counted, at the batch size used; a clip that is cut into
    several windows counts once per window."""
    loss: float
    """Mean over the clips of the loss, cross-entropy, binary cross-entropy or squared error in units of the training's
    deviation, of a clip's scores."""
    metrics: Metrics | RegressionMetrics
    scores: np.ndarray = dataclasses.field(repr=False)
    """(n, C) float32 probabilities or values, the mean over a clip's windows."""
    excluded: tuple[Failure, ...] = dataclasses.field(default=(), repr=False)
    """Clips that could not be used; n does not count them."""
    longer: int = 0
    """Clips that are longer than the model's window and were cut into several."""
    shorter: int = 0
    """Clips that are shorter than the window by more than a tenth and were padded, or heard at native length."""
    suspicious: tuple[Failure, ...] = dataclasses.field(default=(), repr=False)
    """Clips that were used and look wrong, with what looks wrong."""


@dataclasses.dataclass
class _Outcome:
    """What became of the clips."""

    ended: list[Ended] = dataclasses.field(default_factory=list)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    suspicions: list[Failure] = dataclasses.field(default_factory=list)


def sweep(
    models: dict[str, AudioClassifier],
    data: Manifest,
    patch_sizes: Sequence[PatchSize],
    resizes: Sequence[Resize] = ("pi",),
    *,
    batch_size: int = 32,
    workers: int = 2,
    precision: Precision = "auto",
    progress: bool = True,
    world: World | None = None,
    timeout: float = 300,
    stopped: Callable[[], bool] = never,
    hop: float | None = None,
) -> list[Result]:
    """Every model at every patch size on the same batches; models of equal feature settings share one pass.

    The batches are shared out among the processes of `world`, each to one, and every process gets all results.
    Results come in the order models, resizes, patch sizes. An unusable clip is left out and named in the result.
    timeout: seconds that decoding may take for a batch. hop: seconds between the windows of a longer clip, whose scores
    are averaged (default: side by side). Raises ConfigError for a patch size or hop that does not fit or labels that
    differ, before any work; DataError if no clip is usable; Interrupted, in every process, soon after `stopped` is
    true in one.
    """
    for name, model in models.items():
        if len(model.labels) != len(data.labels):
            raise ConfigError(
                f"{data.source}: found {len(data.labels)} labels, expected the {len(model.labels)} of model {name}"
            )
        for patch in patch_sizes:
            model.config.grid(patch, model.feature_config.frames)
        hop_in_frames(hop, model.feature_config)
    results: dict[tuple[str, Resize, PatchSize], Result] = {}
    for features in dict.fromkeys(model.feature_config for model in models.values()):
        group = {name: model.eval() for name, model in models.items() if model.feature_config == features}
        passes = {
            (name, resize, patch): Pass.of(group[name], resize, patch)
            for name, resize, patch in product(group, resizes, patch_sizes)
        }
        dataset = _windows(data, features, batch_size, world or World(), hop)
        dataset.require_room(workers)
        outcome = _run_passes(
            list(passes.values()), dataset, data, workers, precision, progress, world or World(), timeout, stopped
        )
        if not outcome.ended:
            raise DataError(f"{data.source}: found no usable clip; the first: {outcome.failures[0].reason}")
        results |= {key: _result(key[0], one, outcome, data) for key, one in passes.items()}
    return [results[key] for key in product(models, resizes, patch_sizes)]


def _windows(
    data: Manifest, features: FeatureConfig, batch_size: int, world: World, hop: float | None
) -> WindowDataset:
    """This process's share of the clips, as windows."""
    read = partial(pieces_of, features=features)
    dataset = WindowDataset(data.clips.paths, read, features, batch_size, hop, data.source)
    dataset.groups = dataset.groups[world.rank :: world.size]
    return dataset


def _run_passes(
    passes: list[Pass],
    dataset: WindowDataset,
    data: Manifest,
    workers: int,
    precision: Precision,
    progress: bool,
    world: World,
    timeout: float,
    stopped: Callable[[], bool],
) -> _Outcome:
    """Fill the passes with the scores, losses and times of all clips."""
    device = passes[0].model.kernel.device
    outcome, clips = _Outcome(), sum(map(len, dataset.groups))
    bar = tqdm(total=clips, unit="clip", desc="evaluate", disable=not progress, leave=False)
    batches = _until_stopped(load_windows(dataset, workers, timeout, stopped), stopped)
    frames = passes[0].model.feature_config.frames
    gflops = max(one.model.config.flops(one.patch, frames) for one in passes) / 1e9
    threads = min(threads_for(device, gflops), max(1, len(dataset.groups)))
    heard = side_by_side(partial(_hear, passes, precision), batches, threads)
    # Around all batches and sizes too, so that a large model's weights are cast once.
    with bar, closing(batches), closing(heard), autocast(device, precision):
        for batch, of_passes in heard:
            _note(passes, batch, of_passes, data)
            outcome.ended += batch.ended
            outcome.failures += batch.failures
            outcome.suspicions += batch.suspicions
            bar.update(len(batch.ended) + len(batch.failures))
    if world.any(stopped()):
        raise Interrupted("stopped during an evaluation")
    for one in passes:
        one.seconds /= threads  # which were at work at once
    _exchange(passes, outcome, world)
    return outcome


def _until_stopped(
    batches: Generator[WindowBatch, None, None], stopped: Callable[[], bool]
) -> Generator[WindowBatch, None, None]:
    """The batches, as long as no stop is asked for; the other processes must hear of it before any of them leaves."""
    with closing(batches), suppress(Interrupted):
        for batch in batches:
            if stopped():
                return
            yield batch


@torch.no_grad()  # not inference mode, in which autocast casts every weight anew in every call
def _hear(passes: list[Pass], precision: Precision, batch: WindowBatch) -> list[Heard]:
    """Score a batch of windows at all sizes; nothing for a batch without windows."""
    if not batch.clips:
        return []
    model = passes[0].model
    device = model.kernel.device
    with autocast(device, precision):
        log_mel = model.front_end.as_trained(*batch.on(device))
        return [one.hear(log_mel) for one in passes]


def _note(passes: list[Pass], batch: WindowBatch, heard: list[Heard], data: Manifest) -> None:
    """Keep the scores of a batch of windows, and work out what it completes."""
    for one, of_one in zip(passes, heard, strict=bool(heard)):
        one.note(batch.clips, of_one)
    targets = torch.from_numpy(data.targets([one.clip for one in batch.ended]))
    for one in passes:
        for failure in batch.failures:
            one.drop(failure.clip)
        if batch.ended:
            one.complete(batch.ended, targets)


def targets_of(data: Manifest, excluded: Sequence[Failure] = ()) -> np.ndarray:
    """(n, C) float32, 1 at each class of the clips that were used, or their values, in the order of `Result.scores`."""
    left_out = {failure.clip for failure in excluded}
    return data.targets([clip for clip in range(len(data)) if clip not in left_out])


def _exchange(passes: list[Pass], outcome: _Outcome, world: World) -> None:
    """Put together what the processes have, in the order of the clips."""
    lists = [(outcome, "ended"), (outcome, "failures"), (outcome, "suspicions"), *((one, "losses") for one in passes)]
    for part, name in lists:
        setattr(part, name, [value for of_one in world.gather(getattr(part, name)) for value in of_one])
    order = np.argsort([one.clip for one in outcome.ended])
    for one in passes:
        mine = np.concatenate([*one.scores, np.zeros((0, len(one.model.labels)), dtype=np.float32)])
        one.scores = [np.concatenate(world.gather(mine))[order]]
        one.seconds = max(world.gather(one.seconds))
        one.losses.sort()
    outcome.ended.sort()
    outcome.failures.sort()
    outcome.suspicions.sort()


def metrics_of(scores: np.ndarray, targets: np.ndarray, model: AudioClassifier) -> Metrics | RegressionMetrics:
    """The metrics of scores and targets (n, C), of the kind that suits the model."""
    if model.loss == "mse":
        return regression_metrics(scores, targets, model.labels.names)
    return classification_metrics(scores, targets)


def _result(name: str, done: Pass, outcome: _Outcome, data: Manifest) -> Result:
    config, frames, scores = done.model.config, done.model.feature_config.frames, done.scores[0]
    few = (1 - LEAST_NEW) * frames
    if not np.isfinite(scores).all():
        raise ConfigError(
            f"model {name}: its scores at patch size {done.patch} are not finite, expected numbers: its weights have"
            " diverged; training it at a lower rate may help"
        )
    return Result(
        model=name,
        resize=done.resize,
        patch_size=done.patch,
        tokens=config.grid(done.patch, frames).tokens,
        gflops=config.flops(done.patch, frames) / 1e9,
        clips_per_second=sum(one.windows for one in outcome.ended) / done.seconds,
        loss=sum(loss for _, loss in done.losses) / len(scores),
        metrics=metrics_of(scores, data.targets([one.clip for one in outcome.ended]), done.model),
        scores=scores,
        excluded=tuple(outcome.failures),
        longer=sum(one.windows > 1 for one in outcome.ended),
        shorter=sum(one.windows == 1 and one.frames < few for one in outcome.ended),
        suspicious=tuple(outcome.suspicions),
    )


def describe_clips(result: Result, features: FeatureConfig) -> list[str]:
    """Lines that say how many clips are longer or shorter than the model's window, and which look wrong."""
    clips, window = len(result.scores), f"than the model's window of {features.seconds:g} s"
    lines = []
    if result.longer:
        lines.append(f"{result.longer} of {clips} clips are longer {window}: cut into several")
    if result.shorter:
        lines.append(f"{result.shorter} of {clips} clips are shorter {window}: {TREATED[features.length]}")
    if result.suspicious:
        lines.append(describe_suspicious([suspicion.reason for suspicion in result.suspicious]))
    return lines
