"""One model at one patch size in an evaluation: what it hears in each batch, and what accumulates.

Dimensions: n clips, B windows, C classes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.tally import Tally
from ..data.windows import Ended
from ..models.frozen import freeze
from ..models.geometry import PatchSize
from ..models.resize import Resize
from ..runtime.device import synchronise
from .losses import classification_loss, logits_of


class Heard(NamedTuple):
    """What a forward pass gave."""

    seconds: float
    logits: Tensor
    """(B, C)."""
    scores: Tensor
    """(B, C)."""


@dataclasses.dataclass
class Pass:
    """What accumulates for one (model, resize, patch size) while the data goes by."""

    model: AudioClassifier
    resize: Resize
    patch: PatchSize
    network: Callable[[Any], Tensor]
    """The model with kernel and positions of this patch size in place, its transformer shared; for clips of native
    length the model itself."""
    tally: Tally = dataclasses.field(default_factory=Tally)
    logits: dict[int, Tensor] = dataclasses.field(default_factory=dict)
    """Of the last window of each clip that is not complete."""
    seconds: float = 0.0
    losses: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    """Sum over the clips that a batch completes, and the first of them."""
    scores: list[np.ndarray] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, model: AudioClassifier, resize: Resize, patch: PatchSize) -> Pass:
        """A model at a patch size, nothing heard yet."""
        features = model.feature_config
        if features.length == "native":
            return cls(model, resize, patch, partial(model, patch_size=patch, resize=resize))
        return cls(model, resize, patch, freeze(model, patch, features.frames, resize, share=True))

    def hear(self, log_mel: Tensor | list[Tensor]) -> Heard:
        """Score windows."""
        if isinstance(log_mel, Tensor):
            log_mel = log_mel.to(self.model.kernel.dtype)
        device = self.model.kernel.device
        synchronise(device)
        start = time.perf_counter()
        logits = self.network(log_mel).float()
        synchronise(device)
        seconds = time.perf_counter() - start
        return Heard(seconds, logits.cpu(), self.model.probabilities(logits).cpu())

    def note(self, clips: Sequence[int], heard: Heard) -> None:
        """Keep what was heard in windows of these clips."""
        self.seconds += heard.seconds
        self.tally.add(clips, heard.scores)
        self.logits.update(zip(clips, heard.logits, strict=True))

    def complete(self, ended: Sequence[Ended], targets: Tensor) -> None:
        """Keep scores and loss of clips whose windows are all done; targets (n, C)."""
        scores = torch.stack([self.tally.take(clip) for clip, _, _ in ended])
        logits = torch.stack([self.logits.pop(clip) for clip, _, _ in ended])
        if self.model.loss == "mse":
            logits, targets = self.model.scale.outputs(scores), self.model.scale.outputs(targets)
        else:
            several = torch.tensor([windows > 1 for _, windows, _ in ended])
            logits[several] = logits_of(scores[several], self.model.loss)
        self.losses.append((ended[0].clip, float(classification_loss(logits, targets, self.model.loss)) * len(ended)))
        self.scores.append(scores.numpy())

    def drop(self, clip: int) -> None:
        """Drop a clip that cannot be decoded to its end."""
        self.tally.drop(clip)
        self.logits.pop(clip, None)
