"""The loss of a batch: augmentation on the device, then labels, teacher, or a mix of both.

Dimensions: B clips, T frames, F mel bins, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..classifier.audio_classifier import AudioClassifier
from ..data.dataset import Batch
from ..data.resampling import resample
from ..models.config import Loss
from ..models.geometry import PatchSize
from ..runtime.arguments import Precision
from ..runtime.device import autocast, resolve_precision
from .augment import AugmentConfig, augment_clips, augment_features, change_gain, clip_keys, mixup
from .background import add_background, read_background
from .losses import EVEN, Emphasis, classification_loss, distillation_loss, logits_of
from .options import DistillConfig


class Inputs(NamedTuple):
    """A batch as the networks see it."""

    student: Tensor | list[Tensor]
    """(B, T, F) augmented, normalised log-mel; at native length a list of (T, F)."""
    teacher: Tensor | list[Tensor] | None
    """(B, T, F), or a list of (T, F): what the teacher is shown, if there is one, by its own front end if that
    differs."""
    targets: Tensor
    """(B, C), soft after mixup; of numbers to predict what the network's outputs are to be."""
    scores: Tensor | None = None
    """(B, C) stored probabilities of a teacher, mixed as the targets are."""

    @property
    def frames(self) -> list[int]:
        """Frames of each clip."""
        return [len(clip) for clip in self.student]

    def parts(self, size: int) -> Iterator[Inputs]:
        """Split into parts of at most `size` clips, in order."""
        return self.cut(slice(start, start + size) for start in range(0, len(self.targets), size))

    def cut(self, parts: Iterable[slice]) -> Iterator[Inputs]:
        """The clips of each part."""
        for part in parts:
            student, teacher, targets, scores = (None if x is None else x[part] for x in self)
            yield Inputs(student, teacher, targets, scores)  # type: ignore[arg-type]

    def by_length(self) -> Inputs:
        """The clips from short to long, if their lengths differ."""
        if isinstance(self.student, Tensor):
            return self
        frames = self.frames
        order = sorted(range(len(frames)), key=frames.__getitem__)
        student, teacher, targets, scores = (
            [x[clip] for clip in order] if isinstance(x, list) else None if x is None else x[order] for x in self
        )
        return Inputs(student, teacher, targets, scores)  # type: ignore[arg-type]


class Objective:
    """What training minimises, on one device."""

    def __init__(
        self,
        model: AudioClassifier,
        teacher: AudioClassifier | None,
        loss: Loss,
        label_smoothing: float,
        augment: AugmentConfig,
        distill: DistillConfig,
        precision: Precision,
        seed: int,
        emphasis: Emphasis = EVEN,
        scores: Tensor | None = None,
    ) -> None:
        """seed: of the augmentation. scores: (clips, C) of the data, in place of a teacher.

        Raises ConfigError or DataError for an unusable folder of background sounds.
        """
        self.front_end, self.teacher, self.device = model.front_end, teacher, model.kernel.device
        self.loss, self.label_smoothing = loss, label_smoothing
        self.scale = model.scale if loss == "mse" else None
        self.augment, self.distill, self.seed = augment, distill, seed
        self.emphasis, self.scores = emphasis, scores
        self.background = None
        if augment.background is not None:
            self.background = read_background(augment.background, model.feature_config).to(self.device)
        self.precision = resolve_precision(self.device, precision)

    def prepare(self, batch: Batch) -> Inputs:
        """Features and augmentation. A clip's augmentation depends on its own draw only, mixup on its pair's."""
        augment, features = self.augment, self.front_end.config
        keys = clip_keys(self.seed, batch.epochs, batch.clips).to(self.device)
        waveform, lengths, targets = batch.on(self.device)
        if self.scale is not None:
            targets = self.scale.outputs(targets)
        classes = targets.shape[1]
        if self.scores is not None:
            targets = torch.cat([targets, self.scores[batch.clips].to(self.device)], dim=1)
        if augment.gain:
            waveform = change_gain(waveform, augment.gain, keys)
        if self.background is not None:
            waveform = add_background(waveform, self.background, keys)
        if augment.mixup:
            waveform, lengths, targets = mixup(waveform, lengths, targets, augment.mixup, keys)
        scores = targets[:, classes:] if self.scores is not None else None
        student: Tensor | list[Tensor]
        shown: Tensor | list[Tensor] | None
        clean: Callable[[], Tensor | list[Tensor]]
        if features.length == "native":
            clips = self.front_end.raw_clips(waveform, lengths)
            student, clean = augment_clips(clips, features, augment, keys), lambda: list(map(features.normalise, clips))
        else:
            log_mel = self.front_end.raw(waveform, lengths)
            student, clean = augment_features(log_mel, features, augment, keys), lambda: features.normalise(log_mel)
        if self.teacher is None:
            shown = None
        elif self.teacher.feature_config != features:
            shown = heard_by(self.teacher, waveform, lengths, features.sample_rate)
        else:
            shown = clean() if self.distill.clean_teacher else student
        return Inputs(student, shown, targets[:, :classes], scores)

    def __call__(self, network: nn.Module, inputs: Inputs, patch: PatchSize) -> Tensor:
        """Mean loss over the clips of the inputs, of a network (the model, or its data-parallel wrapper)."""
        with autocast(self.device, self.precision):
            logits = network(inputs.student, patch)
            supervised = classification_loss(
                logits.float(), inputs.targets, self.loss, self.label_smoothing, self.emphasis
            )
            if inputs.scores is not None:
                taught = logits_of(inputs.scores, self.loss)
            elif self.teacher is None or inputs.teacher is None:
                return supervised
            else:
                with torch.no_grad():
                    taught = self.teacher(inputs.teacher, self.distill.patch_size)
                    if self.scale is not None:  # the teacher's units may be others
                        taught = self.scale.outputs(self.teacher.probabilities(taught))
        distilled = distillation_loss(logits, taught, self.loss, self.distill.temperature)
        share = self.distill.label_weight
        return share * supervised + (1 - share) * distilled


def heard_by(teacher: AudioClassifier, waveform: Tensor, lengths: Tensor, sample_rate: int) -> Tensor | list[Tensor]:
    """The log-mel of a teacher with a front end of its own, of clips (B, S) at the student's sample rate.

    (B, T, F), or for a teacher of native length a list of (T, F).
    """
    features = teacher.feature_config
    lengths = lengths * features.sample_rate // sample_rate
    return teacher.front_end.as_trained(resample(waveform, sample_rate, features.sample_rate), lengths)
