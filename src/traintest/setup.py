"""What a run is made of before it starts: data, model, teacher, and the plan of its steps. Nothing is written here."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from itertools import groupby

import torch

from ..classifier.adapt import adapt
from ..classifier.audio_classifier import AudioClassifier
from ..classifier.load import load
from ..data.manifest import Manifest, read_manifest
from ..data.sampler import BatchSchedule, balancing_weights
from ..data.shards import ShardMember, ShardSchedule
from ..data.statistics import Statistics
from ..errors import ConfigError
from ..features import FeatureConfig
from ..models.config import FlexiASTConfig, Loss
from ..models.geometry import TRAINED_SIZES, PatchSize
from ..runtime.distributed import World
from .config import DataConfig, DistillConfig, FeatureOptions, ModelOptions, TrainConfig
from .patch_sampler import PatchSampler


def setup_data(data: DataConfig, loss: Loss) -> tuple[Manifest, Manifest | None]:
    """Training and validation clips. Raises DataError if unusable, ConfigError if they do not suit the loss."""
    train = read_manifest(data.train, data.labels, data.root, data)
    if loss == "ce" and (several := [c for c in train.clips if len(c.classes) != 1]):
        raise ConfigError(
            f"{data.train}: {several[0].path} has {len(several[0].classes)} labels, expected 1 with loss ce"
        )
    return train, read_manifest(data.val, train.labels, data.root, data) if data.val is not None else None


def setup_start(model: ModelOptions, features: FeatureOptions) -> AudioClassifier | None:
    """The checkpoint to start from; none for a network from scratch."""
    return load(model.init, frames=features.frames) if model.init else None


def setup_features(
    data: DataConfig,
    features: FeatureOptions,
    start: AudioClassifier | None,
    measure: Callable[[FeatureConfig], Statistics],
) -> tuple[FeatureConfig, Statistics | None]:
    """The feature settings, and the statistics if `measure` had to measure them (`data.mean auto`)."""
    own = start.feature_config if start else None
    if data.mean != "auto":
        return features.resolve(own, data.mean, data.std), None
    statistics = measure(features.resolve(own, None, None))
    return features.resolve(own, statistics.mean, statistics.std), statistics


def setup_model(
    options: ModelOptions, features: FeatureConfig, data: Manifest, loss: Loss, start: AudioClassifier | None, seed: int
) -> AudioClassifier:
    """The model to train, on the CPU, the same in every process."""
    torch.manual_seed(seed)
    if start is not None:
        return adapt(start, features, data.labels, loss, options.coverage, options.patch_size)
    network = FlexiASTConfig(
        classes=len(data.labels),
        frames=features.frames,
        pad_value=features.pad_value,
        **options.architecture(),
    )
    return AudioClassifier(network, features, data.labels, loss)


def setup_teacher(distill: DistillConfig, model: AudioClassifier) -> AudioClassifier | None:
    """The frozen teacher, beside the model. Raises ConfigError if its features or labels differ from the model's."""
    if distill.teacher is None:
        return None
    teacher = load(distill.teacher, model.kernel.device).requires_grad_(False)
    if teacher.feature_config != model.feature_config or teacher.labels != model.labels:
        raise ConfigError(
            f"distill.teacher: {distill.teacher} has other feature settings or labels than the student:"
            f" {teacher.feature_config}, expected {model.feature_config}"
        )
    teacher.config.layout(distill.patch_size or teacher.config.patch_size, model.feature_config.frames)
    return teacher


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which clips and which patch size each step takes, and when the model is validated."""

    schedule: BatchSchedule
    patches: PatchSampler
    eval_patches: tuple[PatchSize, ...]
    total_steps: int
    steps_per_epoch: float
    eval_steps: frozenset[int]
    unit: int
    """Clips that one process must take together: mixup's pairs."""


def setup_plan(config: TrainConfig, data: Manifest, model: AudioClassifier, world: World, flexible: bool) -> Plan:
    """The plan of a run. flexible: with no patch sizes given, train at the published ones that fit the input.

    Raises ConfigError for a patch size that does not fit, or a batch too small for the processes.
    """
    unit = 2 if config.augment.mixup else 1
    if config.data.batch_size < world.size * unit:
        raise ConfigError(
            f"data.batch_size: found {config.data.batch_size} for {world.size} processes, expected at least"
            f" {world.size * unit}" + (" (mixup needs two clips in each)" if unit == 2 else "")
        )
    schedule = setup_schedule(config.data, config.seed, data)
    default = fitting(TRAINED_SIZES, model) if flexible else (model.config.patch_size,)
    patches = PatchSampler(config.patches.sizes or default, config.patches.weights, config.seed)
    eval_patches = config.eval_patch_sizes or patches.sizes
    for patch in {*patches.sizes, *eval_patches}:
        model.config.layout(patch, model.feature_config.frames)
    total_steps = schedule.steps(config.epochs)
    validations = range(1, int(config.epochs / config.eval_every) + 1)
    return Plan(
        schedule=schedule,
        patches=patches,
        eval_patches=eval_patches,
        total_steps=total_steps,
        steps_per_epoch=len(data) / config.data.batch_size,
        eval_steps=frozenset({schedule.steps(n * config.eval_every) for n in validations} | {total_steps}),
        unit=unit,
    )


def setup_schedule(config: DataConfig, seed: int, data: Manifest) -> BatchSchedule:
    """Which clips make up which batch. Raises ConfigError if shards are asked for and there are none."""
    size, clips = config.batch_size, data.clips
    if config.sampling == "balanced":
        return BatchSchedule(len(clips), size, seed, balancing_weights([clip.classes for clip in clips]))
    if config.sampling == "local":
        shards = [clip.path.shard for clip in clips if isinstance(clip.path, ShardMember)]
        if len(shards) != len(clips):
            raise ConfigError(f"data.sampling: found local, expected {data.source} to be shards of `flexiast pack`")
        return ShardSchedule([len(list(group)) for _, group in groupby(shards)], size, seed)
    return BatchSchedule(len(clips), size, seed)


def fitting(sizes: Sequence[PatchSize], model: AudioClassifier) -> tuple[PatchSize, ...]:
    """Those of the sizes that fit the model's input."""
    fit = []
    for size in sizes:
        with contextlib.suppress(ConfigError):
            model.config.layout(size, model.feature_config.frames)
            fit.append(size)
    return tuple(fit)
