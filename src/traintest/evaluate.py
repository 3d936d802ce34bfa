"""Evaluation of models at many patch sizes in one pass over the data: decode and features once per clip.

Dimensions: n clips, C classes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from itertools import product
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..classifier.audio_classifier import AudioClassifier
from ..data.dataset import Batch, ClipDataset, Failure, load_batches, sequential_batches
from ..data.manifest import Manifest
from ..errors import ConfigError, DataError
from ..models.frozen import FrozenAST, freeze
from ..models.geometry import PatchSize
from ..models.resize import Resize
from ..runtime.arguments import Precision
from ..runtime.device import autocast, synchronise
from ..runtime.distributed import World
from ..runtime.interruption import Interrupted, never
from .losses import classification_loss
from .metrics import Metrics, classification_metrics


@dataclasses.dataclass
class Result:
    """One model at one patch size, over all clips."""

    model: str
    resize: Resize
    patch_size: PatchSize
    tokens: int
    """Patch tokens of one clip, prefix not counted."""
    gflops: float
    """10^9 floating-point operations of one clip's forward pass."""
    clips_per_second: float
    """Forward passes alone, decoding and features not counted, at the batch size used."""
    loss: float
    """Mean training loss, cross-entropy or binary cross-entropy."""
    metrics: Metrics
    scores: np.ndarray
    """(n, C) float32 probabilities."""
    excluded: tuple[Failure, ...] = ()
    """Clips that could not be used; n does not count them."""


@dataclasses.dataclass
class _Pass:
    """What accumulates for one (model, resize, patch size) while the data goes by, an entry per batch."""

    model: AudioClassifier
    resize: Resize
    patch: PatchSize
    network: FrozenAST
    """The model with kernel and positions of this patch size in place, its transformer shared."""
    seconds: float = 0.0
    losses: list[float] = dataclasses.field(default_factory=list)
    scores: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Truth:
    """What the clips of all batches really are."""

    targets: list[np.ndarray] = dataclasses.field(default_factory=list)
    failures: list[list[Failure]] = dataclasses.field(default_factory=list)


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
) -> list[Result]:
    """Every model at every patch size on the same batches; models of equal feature settings share one pass.

    The batches are shared out among the processes of `world`, each to one, and every process gets all results.
    Results come in the order models, resizes, patch sizes. An unusable clip is left out and named in the result.
    timeout: seconds that decoding may take for a batch. Raises ConfigError for a patch size that does not fit or labels
    that differ, before any work; DataError if no clip is usable; Interrupted, in every process, soon after `stopped` is
    true in one.
    """
    for name, model in models.items():
        if len(model.labels) != len(data.labels):
            raise ConfigError(
                f"{data.source}: found {len(data.labels)} labels, expected the {len(model.labels)} of model {name}"
            )
        for patch in patch_sizes:
            model.config.grid(patch, model.feature_config.frames)
    results: dict[tuple[str, Resize, PatchSize], Result] = {}
    for features in dict.fromkeys(model.feature_config for model in models.values()):
        group = {name: model.eval() for name, model in models.items() if model.feature_config == features}
        passes = {
            (name, resize, patch): _Pass(
                group[name], resize, patch, freeze(group[name], patch, features.frames, resize, share=True)
            )
            for name, resize, patch in product(group, resizes, patch_sizes)
        }
        dataset = ClipDataset(data, features)
        dataset.require_room(batch_size, workers)
        truth = _run_passes(
            list(passes.values()), dataset, batch_size, workers, precision, progress, world or World(), timeout,
            stopped,
        )  # fmt: skip
        if not sum(map(len, truth.targets)):
            raise DataError(f"{data.source}: found no usable clip; the first: {truth.failures[0][0].reason}")
        results |= {key: _result(key[0], one, truth) for key, one in passes.items()}
    return [results[key] for key in product(models, resizes, patch_sizes)]


@torch.no_grad()  # not inference mode, in which autocast casts every weight anew in every call
def _run_passes(
    passes: list[_Pass],
    dataset: ClipDataset,
    batch_size: int,
    workers: int,
    precision: Precision,
    progress: bool,
    world: World,
    timeout: float,
    stopped: Callable[[], bool],
) -> _Truth:
    """Fill the passes with the scores, losses and times of all batches."""
    device = passes[0].model.kernel.device
    front_end = passes[0].model.front_end
    schedule = sequential_batches(len(dataset), batch_size)[world.rank :: world.size]
    truth, clips = _Truth(), sum(map(len, schedule))
    bar = tqdm(total=clips, unit="clip", desc="evaluate", disable=not progress, leave=False)
    batches = _until_stopped(load_batches(dataset, schedule, workers, timeout, stopped), stopped)
    with bar, closing(batches), autocast(device, precision):  # around all batches and sizes: the weights are cast once
        for batch in batches:
            truth.targets.append(batch.targets.numpy())
            truth.failures.append(batch.failures)
            bar.update(len(batch.targets) + len(batch.failures))
            if not len(batch.targets):
                for one in passes:  # every batch has its entry
                    one.losses.append(0.0)
                    one.scores.append(batch.targets.numpy())
                continue
            waveform, lengths, target = batch.on(device)
            log_mel = front_end(waveform, lengths)
            for one in passes:
                if stopped():
                    break
                synchronise(device)
                start = time.perf_counter()
                logits = one.network(log_mel).float()
                synchronise(device)
                one.seconds += time.perf_counter() - start
                one.losses.append(float(classification_loss(logits, target, one.model.loss)) * len(target))
                one.scores.append(one.model.probabilities(logits).cpu().numpy())
    if world.any(stopped()):
        raise Interrupted("stopped during an evaluation")
    _exchange(passes, truth, world)
    return truth


def _until_stopped(batches: Generator[Batch, None, None], stopped: Callable[[], bool]) -> Generator[Batch, None, None]:
    """The batches, as long as no stop is asked for; the other processes must hear of it before any of them leaves."""
    with closing(batches), suppress(Interrupted):
        for batch in batches:
            if stopped():
                return
            yield batch


def _exchange(passes: list[_Pass], truth: _Truth, world: World) -> None:
    """Put together what the processes have, in the order of the batches."""
    if world.size == 1:
        return
    parts: list[tuple[Any, tuple[str, str]]] = [(truth, ("targets", "failures"))]
    for part, names in parts + [(one, ("losses", "scores")) for one in passes]:
        for name in names:
            per_rank = world.gather(getattr(part, name))
            merged: list[Any] = [None] * sum(map(len, per_rank))
            for rank, values in enumerate(per_rank):
                merged[rank :: world.size] = values
            setattr(part, name, merged)
    for one in passes:
        one.seconds = max(world.gather(one.seconds))


def _result(name: str, done: _Pass, truth: _Truth) -> Result:
    config, frames, scores = done.model.config, done.model.feature_config.frames, np.concatenate(done.scores)
    targets = np.concatenate(truth.targets)
    if not np.isfinite(scores).all():
        raise ConfigError(
            f"model {name}: its scores at patch size {done.patch} are not finite, expected numbers: its weights have"
            " diverged; a lower --optim.lr may help"
        )
    return Result(
        model=name,
        resize=done.resize,
        patch_size=done.patch,
        tokens=config.grid(done.patch, frames).tokens,
        gflops=config.flops(done.patch, frames) / 1e9,
        clips_per_second=len(targets) / done.seconds,
        loss=sum(done.losses) / len(targets),
        metrics=classification_metrics(scores, targets),
        scores=scores,
        excluded=tuple(failure for failures in truth.failures for failure in failures),
    )
