"""Trainings that differ in one thing, in memory: the product's network, objective, draw and step, on log-mel that is
computed once.

Dimensions: n clips, T frames, F mel bins, C classes.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from timm.layers import DropPath
from torch import Tensor
from tqdm import tqdm
from tried import LossDriven, Twins, twice
from variants import VARIANTS

from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.data.dataset import ClipDataset, load_batches, sequential_batches
from flexiast.data.manifest import read_manifest
from flexiast.data.sampler import BatchSchedule
from flexiast.models.geometry import EVERY_SIZE, Coverage, PatchSize
from flexiast.models.patch_dropout import PatchDropout
from flexiast.runtime.device import autocast
from flexiast.runtime.distributed import World
from flexiast.traintest.augment import AugmentConfig, augment_features, clip_keys
from flexiast.traintest.objective import Inputs, Objective
from flexiast.traintest.optim import lr_factor
from flexiast.traintest.options import DistillConfig, MemoryLimits, OptimConfig
from flexiast.traintest.patch_draws import Weights, coarse
from flexiast.traintest.patch_sampler import PatchSampler
from flexiast.traintest.stepper import Stepper
from flexiast.traintest.tuning import MovingAverage

BATCH = 16
"""Clips per step, the product's choice for sets of this size."""

Ties = Literal["none", "twins", "self", "teacher"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train: the default, made flexible as `coarse` does, with a change."""

    sizes: tuple[PatchSize, ...] = EVERY_SIZE
    draw: Weights = coarse
    square_share: float | None = None
    """How much of the draws is squares, where rectangles are drawn too."""
    parts: int = 1
    sampler: type[PatchSampler] = PatchSampler
    ties: Ties = "none"
    """What sizes learn from each other. `twins`: the coarser of two sizes of a clip from the finer. `self`: from a
    moving average of the model at its base size; `teacher`: from the start at its base size."""
    free_teacher: bool = False
    """Do not count the teacher's FLOPs: its answers are on file."""
    lr: float = 1e-3
    optimizer: Literal["adamw", "muon"] = "adamw"
    average: float = 0.0
    """Share of the run that a moving average of the weights looks back over."""
    drop_path: float = 0.0
    dropout: float = 0.0
    """Share of the patches left out in training."""
    mask: float = 0.0
    """SpecAugment: widest band, in patches of the step."""
    variant: str = ""
    coverage: Coverage | None = None
    network: Mapping[str, int] | None = None
    """Train from scratch a network with these settings changed."""
    grows: bool = True
    """The compute of a changed network grows with its cost, so that the steps stay the same."""
    begin: PatchSize | None = None
    """Size that a network from scratch is trained at, alone, for the first third of the compute."""
    share: float = 1.0
    """Of the training compute."""


@dataclasses.dataclass
class Clips:
    """A data set in memory."""

    log_mel: Tensor
    """(n, T, F) float16, not normalised."""
    targets: Tensor
    """(n, C)."""

    @classmethod
    def read(cls, source: Path, model: AudioClassifier) -> Clips:
        """Decode every clip, and compute its log-mel as this model hears it."""
        data = read_manifest(source, model.labels)
        dataset = ClipDataset(data, model.feature_config)
        batches = load_batches(dataset, sequential_batches(len(data), 64), 0, 300)
        heard = [(model.front_end.raw(*batch.on(torch.device("cpu"))[:2]).half(), batch.targets) for batch in batches]
        return cls(torch.cat([one for one, _ in heard]), torch.cat([one for _, one in heard]))

    def batches(self, model: AudioClassifier, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
        """Log-mel (B, T, F), normalised as the model's, and targets (B, C) of all clips in order."""
        for some in torch.arange(len(self.targets)).split(size):
            yield model.feature_config.normalise(self.log_mel[some].float()), self.targets[some]


@dataclasses.dataclass
class Outcome:
    """What a training cost, and the model."""

    model: AudioClassifier
    steps: int
    tflops: float
    seconds: float


def train_arm(arm: Arm, start: AudioClassifier, clips: Clips, flops: float, seed: int) -> Outcome:
    """Train one arm from the start for so many FLOPs, forward and backward, a teacher's included."""
    torch.manual_seed(seed)
    model = begin(arm, start)
    base, frames = start.config.patch_size, start.feature_config.frames
    growth = model.config.flops(base, frames) / start.config.flops(base, frames) if arm.grows else 1.0
    flops *= arm.share * growth
    began, before = time.process_time(), 0.0
    if arm.begin is not None:
        _, before, _ = run(Arm(sizes=(arm.begin,)), model, start, clips, flops / 3, seed)
    trained, spent, steps = run(arm, model, start, clips, flops - before, seed)
    return Outcome(trained.eval(), steps, (before + spent) / 1e12, time.process_time() - began)


def begin(arm: Arm, start: AudioClassifier) -> AudioClassifier:
    """The network an arm starts from."""
    if arm.network is not None:
        changed: dict[str, Any] = dict(arm.network)
        config = dataclasses.replace(start.config, **changed)
        return AudioClassifier(config, start.feature_config, start.labels, start.loss)
    if arm.variant:
        return VARIANTS[arm.variant].of(start)
    model = copy.deepcopy(start)
    if arm.coverage:
        model.config = dataclasses.replace(model.config, coverage=arm.coverage)
    blocks: list[Any] = list(model.blocks) if arm.drop_path else []
    for number, block in enumerate(blocks, start=1):
        block.drop_path1 = block.drop_path2 = DropPath(arm.drop_path * number / len(blocks))
    return model


def run(
    arm: Arm, model: AudioClassifier, start: AudioClassifier, clips: Clips, flops: float, seed: int
) -> tuple[AudioClassifier, float, int]:
    """Train for so many FLOPs; returns the model, the FLOPs spent, and the steps."""
    frames, teacher = model.feature_config.frames, Teacher(arm, model, start)
    model.patch_dropout = PatchDropout(arm.dropout, model.config.prefix_tokens)
    costs = {size: float(model.config.flops(size, frames, arm.dropout)) for size in arm.sizes}
    how = ((), seed, arm.parts, arm.draw, [*costs.values()])
    drawn = arm.sampler(arm.sizes, *how, steps=1001, square_share=arm.square_share)
    steps = max(1, round(flops / (3 * BATCH * (drawn.mean_cost() + teacher.cost))))
    sampler = arm.sampler(arm.sizes, *how, steps, arm.square_share)
    optim = OptimConfig(name=arm.optimizer, lr=arm.lr, warmup_steps=min(1000, round(0.05 * steps)))
    augment = AugmentConfig(0, 0, round(frames / 10), 0.0, 0.0)
    stepper = Stepper(model, teacher.objective(augment, seed), World(), optim, MemoryLimits(BATCH))
    average = MovingAverage.over(model, arm.average, steps)
    schedule = BatchSchedule(len(clips.targets), BATCH, seed)
    spent = 0.0
    for step in tqdm(range(steps), unit="step", mininterval=10):
        patches: Sequence[PatchSize] = sampler[step]
        inputs = batch_of(schedule, step, clips, model, mask(augment, arm, patches[0]), seed, teacher.model is not None)
        if arm.ties == "twins":
            inputs, patches = twice(inputs, patches)
        loss, _ = stepper.step(inputs, patches, lr_factor(step, steps, 1.0, optim))
        spent += 3 * BATCH * (float(np.mean([costs[size] for size in patches])) + teacher.cost)
        if isinstance(sampler, LossDriven):
            sampler.heard(patches[0], loss)
        if average:
            average.add(model)
        teacher.follow()
    return (average.model(model) if average else model), spent, steps


class Teacher:
    """Who is learned from besides the labels: nobody, the start, or a moving average of the model itself."""

    def __init__(self, arm: Arm, student: AudioClassifier, start: AudioClassifier) -> None:
        self.arm, self.student = arm, student
        self.model = {"self": copy.deepcopy(student), "teacher": start}.get(arm.ties)
        self.cost = 0.0
        """Its FLOPs on a clip, at its base size, as a share of three forward passes."""
        if self.model and not arm.free_teacher:
            self.cost = self.model.config.flops(start.config.patch_size, start.feature_config.frames) / 3
        self.average = MovingAverage(student, 0.99) if arm.ties == "self" else None

    def objective(self, augment: AugmentConfig, seed: int) -> Any:
        """The loss of the arm: labels alone, or half labels and half what is learned from."""
        distill = DistillConfig(teacher="it", label_weight=0.5) if self.model else DistillConfig()
        loss = self.student.loss
        objective = Objective(self.student, self.model, loss, 0.0, augment, distill, "auto", seed)
        return Twins(objective, share=0.5) if self.arm.ties == "twins" else objective

    @torch.no_grad()
    def follow(self) -> None:
        """After a step: the average moves on."""
        if self.average and self.model:
            self.average.add(self.student)
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.average.mean[name])


def mask(augment: AugmentConfig, arm: Arm, patch: PatchSize) -> AugmentConfig:
    """SpecAugment that is as wide as so many patches."""
    if not arm.mask:
        return augment
    bins, frames = round(arm.mask * patch.freq), round(arm.mask * patch.time)
    return dataclasses.replace(augment, freq_mask=bins, time_mask=frames)


def batch_of(
    schedule: BatchSchedule, step: int, clips: Clips, model: AudioClassifier, augment: AugmentConfig, seed: int,
    taught: bool,
) -> Inputs:  # fmt: skip
    """The augmented batch of a step."""
    draws = schedule[step]
    index = torch.tensor([draw.clip for draw in draws])
    keys = clip_keys(seed, torch.tensor([draw.epoch for draw in draws]), index)
    student = augment_features(clips.log_mel[index].float(), model.feature_config, augment, keys)
    return Inputs(student, student if taught else None, clips.targets[index])


@torch.no_grad()
def accuracies(
    model: AudioClassifier, clips: Clips, sizes: Sequence[PatchSize], precision: Any = "auto"
) -> Iterator[tuple[PatchSize, float]]:
    """Share of the clips whose best class is right, at each size."""
    for size in sizes:
        yield size, score(clips, model, partial(_answer, model, size), precision)[0]


def _answer(model: AudioClassifier, size: PatchSize, log_mel: Tensor) -> tuple[Tensor]:
    return (model(log_mel, size),)


@torch.no_grad()
def score(
    clips: Clips, model: AudioClassifier, logits_of: Callable[[Tensor], tuple[Tensor, ...]], precision: Any = "auto"
) -> list[float]:
    """Accuracy of each of several answers (B, C) over the clips."""
    right: list[Tensor] = []
    with autocast(model.kernel.device, precision):
        for log_mel, targets in clips.batches(model):
            answers = torch.stack([one.float().argmax(1) for one in logits_of(log_mel)])
            right.append((answers == targets.argmax(1)).sum(dim=1))
    return (torch.stack(right).sum(dim=0) / len(clips.targets)).tolist()
