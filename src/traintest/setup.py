"""What a run is made of before it starts: data, model, teacher. Nothing is written here."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import torch

from ..classifier.adapt import adapt
from ..classifier.audio_classifier import AudioClassifier
from ..classifier.load import load
from ..data.manifest import Manifest, read_manifest
from ..data.sampler import BatchSchedule, balancing_weights
from ..data.shards import ShardMember, ShardSchedule
from ..data.statistics import Statistics, measure_statistics
from ..errors import ConfigError
from ..features import FeatureConfig
from ..models.config import FlexiASTConfig
from ..runtime.device import pick_device
from ..runtime.distributed import World
from .config import TrainConfig

STATISTICS = "statistics.json"


def setup_data(config: TrainConfig) -> tuple[Manifest, Manifest | None]:
    """Training and validation clips. Raises DataError if unusable, ConfigError if they do not suit the loss."""
    data = config.data
    train = read_manifest(data.train, data.labels, data.root)
    if config.loss == "ce" and (several := [c for c in train.clips if len(c.classes) != 1]):
        raise ConfigError(
            f"{data.train}: {several[0].path} has {len(several[0].classes)} labels, expected 1 with loss ce"
        )
    return train, read_manifest(data.val, train.labels, data.root) if data.val is not None else None


def setup_schedule(config: TrainConfig, data: Manifest) -> BatchSchedule:
    """Which clips make up which batch. Raises ConfigError if shards are asked for and there are none."""
    size, clips = config.data.batch_size, data.clips
    if config.data.sampling == "balanced":
        return BatchSchedule(len(clips), size, config.seed, balancing_weights([clip.classes for clip in clips]))
    if config.data.sampling == "local":
        shards = [clip.path.shard for clip in clips if isinstance(clip.path, ShardMember)]
        if len(shards) != len(clips):
            raise ConfigError(f"data.sampling: found local, expected {data.source} to be shards of `flexiast pack`")
        return ShardSchedule([len(list(group)) for _, group in groupby(shards)], size, config.seed)
    return BatchSchedule(len(clips), size, config.seed)


def setup_model(
    config: TrainConfig, data: Manifest, world: World, progress: bool
) -> tuple[AudioClassifier, Statistics | None]:
    """The model to train, on its device, the same in every process; and the statistics if they were measured."""
    torch.manual_seed(config.seed)
    device = world.own(pick_device(config.device))
    start = load(config.model.init, frames=config.features.frames) if config.model.init else None
    own = start.feature_config if start else None
    mean, std, statistics = config.data.mean, config.data.std, None
    if mean == "auto":
        statistics = _statistics(config, data, config.features.resolve(own, None, None), world, progress)
        mean, std = statistics.mean, statistics.std
    features = config.features.resolve(own, mean, std)
    if start is not None:
        model = adapt(start, features, data.labels, config.loss, config.model.coverage, config.model.patch_size)
    else:
        network = FlexiASTConfig(
            classes=len(data.labels),
            frames=features.frames,
            pad_value=features.pad_value,
            **config.model.architecture(),
        )
        model = AudioClassifier(network, features, data.labels, config.loss)
    return model.to(device), statistics


def _statistics(
    config: TrainConfig, data: Manifest, features: FeatureConfig, world: World, progress: bool
) -> Statistics:
    """Measured by the leading process, or read from where an earlier start of this run has left them."""
    found = None
    if world.leads:
        found = _saved_statistics(config.out / STATISTICS, data)
        max_bad = 0.0 if config.data.strict else config.data.max_bad
        found = found or measure_statistics(data, features, config.data.workers, progress, max_bad)
    return world.broadcast(found)


def _saved_statistics(path: Path, data: Manifest) -> Statistics | None:
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_text())
        return Statistics(**saved["statistics"]) if saved["data"] == data.fingerprint else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not readable as statistics ({error}); remove it to measure them again") from None


def setup_teacher(config: TrainConfig, model: AudioClassifier) -> AudioClassifier | None:
    """The frozen teacher, beside the model. Raises ConfigError if it hears or names things in another way."""
    distill = config.distill
    if distill.teacher is None:
        return None
    teacher = load(distill.teacher, model.kernel.device).requires_grad_(False)
    if teacher.feature_config != model.feature_config or teacher.labels != model.labels:
        raise ConfigError(
            f"distill.teacher: {distill.teacher} has other feature settings or labels than the student:"
            f" {teacher.feature_config}, expected {model.feature_config}"
        )
    teacher.config.grid(distill.patch_size or teacher.config.patch_size, model.feature_config.frames)
    return teacher
