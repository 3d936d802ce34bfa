"""Set up a run: data, model, teacher and the plan of its steps. Nothing is written here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers import DropPath
from torch import Tensor

from ..classifier.adapt import adapt
from ..classifier.audio_classifier import AudioClassifier
from ..classifier.class_order import with_classes
from ..classifier.load import load
from ..classifier.scale import Scale
from ..data.bad_clips import most_bad
from ..data.manifest import Manifest, require_tables
from ..data.pieces import Piece, require_room
from ..data.sampler import BatchSchedule, StreamSchedule, balancing_weights
from ..data.scores import scores_of
from ..data.shards import ShardSchedule
from ..data.survey import Survey, survey
from ..errors import ConfigError, DataError, require
from ..features import FeatureConfig
from ..models.config import FlexiASTConfig
from ..models.geometry import PatchSize
from ..runtime.arguments import AUTO
from ..runtime.device import pick_device
from ..runtime.distributed import World
from .config import TrainConfig
from .defaults import Choice, Chooser, Facts, choose_all, choose_loss, keeps_features
from .losses import Emphasis, class_weights
from .options import DataConfig, DistillConfig
from .patch_plan import relative_cost, setup_patches
from .patch_sampler import PatchSampler
from .run_data import check_labels, read_train, setup_validation, take_splits
from .tuning import parse_tune, select_trained


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Data and start of a run, and its settings with nothing left open."""

    config: TrainConfig
    choices: list[Choice]
    """Settings that were chosen, with the reasons."""
    train: Manifest
    val: Manifest | None
    start: AudioClassifier | None
    """The checkpoint to start from; none for a network from scratch."""
    seen: Survey | None = None
    """Of the training clips; none if nothing had to be chosen from them."""


def prepare(config: TrainConfig, world: World, saved: Mapping[str, Any], flexible: bool, progress: bool) -> Prepared:
    """Read the data and the start, and choose what the settings leave open.

    saved: what an earlier start of the run chose, see `RunDirectory.saved_choices`. flexible: the start is to be made
    flexible. Raises DataError if the data are unusable, ConfigError if they do not suit the settings.
    """
    mean, std = config.data.mean, config.data.std
    require((mean is AUTO) == (std is AUTO), "data.mean, data.std", f"{mean}, {std}", "both, or none")
    chooser = Chooser(config)
    take_splits(chooser)
    chooser.take_over(saved)
    data = chooser.config.data
    require_tables(data, *(source for source in (data.train, data.val) if isinstance(source, Path)))
    start = load(config.model.init, frames=config.features.frames) if config.model.init else None
    if flexible and start is not None and start.loss == "mse":
        chooser.choose("loss", "mse", "as the model was trained")
    train = read_train(chooser.config, start if flexible else None)
    choose_loss(chooser, train)
    check_labels(train, chooser.config.loss)
    train, val = setup_validation(chooser, train, automatic=config.data.val is AUTO)
    seen = None
    kept = keeps_features(start, train, flexible, config.features)
    if not kept and AUTO in (chooser.get("features.frames"), chooser.get("data.mean")):
        seen = world.on_rank0(lambda: _survey(chooser.config, train, start, progress))
    gpu = pick_device(config.device).type != "cpu"
    features = setup_features(chooser.config, start)
    cost = None
    if start is not None and (flexible or chooser.config.patches.sizes):
        cost = partial(relative_cost, chooser.config, start, features)
    choose_all(chooser, Facts(train, seen, start, flexible, gpu, kept, features.bins, cost))
    return Prepared(chooser.config, chooser.choices, train, val, start, seen)


def _survey(config: TrainConfig, train: Manifest, start: AudioClassifier | None, progress: bool) -> Survey:
    """Survey the clips. Raises DataError if more of them are unusable than `data.max_bad` allows."""
    features = config.features.resolve(start.feature_config if start else None)
    workers = 0 if config.data.workers is AUTO else config.data.workers
    data = config.data
    seen = survey(train, features, workers, progress, data.timeout)
    if seen.unusable and (data.strict or len(seen.unusable) > most_bad(data.max_bad, len(seen.clips))):
        raise DataError(f"{len(seen.unusable)} of the first clips are unusable: {seen.unusable[0]}")
    return seen


def setup_features(config: TrainConfig, start: AudioClassifier | None) -> FeatureConfig:
    """The feature settings: those given or chosen, over those of the start.

    Raises ConfigError for clips of native length in compiled blocks.
    """
    data = config.data
    features = config.features.resolve(start.feature_config if start else None, data.mean, data.std, data.length)
    compiles = config.compile and features.length == "native"
    require(not compiles, "compile", True, "False for clips of native length (data.length), whose shapes all differ")
    return features


def setup_model(
    config: TrainConfig, features: FeatureConfig, data: Manifest, start: AudioClassifier | None
) -> AudioClassifier:
    """The model to train, on the CPU, the same in every process."""
    torch.manual_seed(config.seed)
    model = _setup_network(config, features, data, start)
    if data.clips.values is not None:  # a start of the same targets keeps its units
        model.metadata.setdefault("targets", Scale.of(data.clips.values).to_json())
    if parse_tune(config.tune)[0] != "all" and start is None:
        raise ConfigError(f"tune: found {config.tune}, expected all without a model to start from (model.init)")
    select_trained(model, config.tune)
    blocks: list[Any] = list(model.blocks) if config.model.drop_path else []
    for number, block in enumerate(blocks, start=1):
        rate = config.model.drop_path * number / len(blocks)  # deeper blocks are skipped more often
        block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)
    return model


def _setup_network(
    config: TrainConfig, features: FeatureConfig, data: Manifest, start: AudioClassifier | None
) -> AudioClassifier:
    """The start, fitted to the task, or a network from scratch."""
    options = config.model
    if start is not None:
        table = config.data.labels is not None or None  # a label table orders the classes of a numbered model
        return adapt(
            start, features, data.labels, config.loss, options.coverage, options.patch_size, table=table,
            new_head=options.new_head,
        )  # fmt: skip
    require(not options.new_head, "model.new_head", True, "it beside a start (model.init) only")
    network = FlexiASTConfig(
        classes=len(data.labels),
        frames=features.frames,
        bins=features.bins,
        pad_value=features.pad_value,
        **options.architecture(),
    )
    return AudioClassifier(network, features, data.labels, config.loss)


def setup_emphasis(config: TrainConfig, data: Manifest, device: torch.device) -> Emphasis:
    """Class weights and focusing of the loss, from the settings and the clips of each class."""
    if config.class_weights == "none":
        return Emphasis(focal=config.focal)
    counts = torch.from_numpy(np.bincount(data.clips.classes.flat, minlength=len(data.labels)))
    return Emphasis(class_weights(counts, len(data), config.loss).to(device), config.focal)


def setup_teacher(distill: DistillConfig, model: AudioClassifier) -> AudioClassifier | None:
    """The frozen teacher, beside the model, with the model's classes in their order; its front end may be its own.

    Raises ConfigError if it lacks classes of the model.
    """
    if distill.teacher is None:
        return None
    teacher = load(distill.teacher, model.kernel.device).requires_grad_(False)
    kinds = ["numbers to predict" if one.loss == "mse" else "classes" for one in (teacher, model)]
    require(kinds[0] == kinds[1], "distill.teacher", f"{distill.teacher}, of {kinds[0]}", f"one of {kinds[1]}")
    if teacher.labels != model.labels:
        teacher = with_classes(teacher, model.labels, f"distill.teacher: {distill.teacher}")
    teacher.config.layout(distill.patch_size or teacher.config.patch_size, teacher.feature_config.frames)
    return teacher


def setup_scores(config: TrainConfig, data: Manifest) -> Tensor | None:
    """Stored scores (clips, classes) of the training clips, where they take the place of a teacher."""
    if config.distill.scores is None:
        return None
    return scores_of(config.distill.scores, data, single_label=config.loss == "ce")


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

    def flops(self, batch_size: int) -> float:
        """FLOPs of all steps: forward and backward (twice the forward), without a teacher's."""
        return 3 * self.total_steps * batch_size * self.patches.mean_cost()


def setup_plan(config: TrainConfig, data: Manifest, model: AudioClassifier, world: World) -> Plan:
    """The plan of a run.

    Raises ConfigError for a patch size that does not fit, or a batch too small for the processes.
    """
    unit = 2 if config.augment.mixup else 1
    if config.data.batch_size < world.size * unit:
        raise ConfigError(
            f"data.batch_size: found {config.data.batch_size} for {world.size} processes, expected at least"
            f" {world.size * unit}" + (" (mixup needs two clips in each)" if unit == 2 else "")
        )
    schedule = setup_schedule(config.data, config.seed, data)
    total_steps = schedule.steps(config.epochs)
    patches = setup_patches(config, model, total_steps)
    eval_patches = config.eval_patch_sizes or config.patches.sizes or (model.config.patch_size,)
    for patch in eval_patches:
        model.config.layout(patch, model.feature_config.frames)
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
    """Which clips make up which batch.

    Raises ConfigError if shards are asked for and there are none, or the pieces of a stream have too little room.
    """
    size, clips = config.batch_size, data.clips
    if (pieces := clips.paths.pieces) is not None:
        stream = StreamSchedule(pieces, size, seed)
        require_room([tar for tar in clips.paths.tars if isinstance(tar, Piece)], stream.mixed)
        return stream
    if config.sampling == "balanced":
        return BatchSchedule(len(clips), size, seed, balancing_weights(clips.classes))
    if config.sampling == "local":
        if (shards := clips.paths.shards) is None:
            raise ConfigError(f"data.sampling: found local, expected {data.source} to be shards of `flexiast pack`")
        starts = np.flatnonzero(np.diff(shards, prepend=-1))
        return ShardSchedule(np.diff(starts, append=len(shards)).tolist(), size, seed)
    return BatchSchedule(len(clips), size, seed)
