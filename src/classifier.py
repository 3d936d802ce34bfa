"""A FlexiAST that listens: the network with its audio front end and class names, as `flexiast.load` returns it.

Dimensions: B clips, S samples, T frames, F mel bins, C classes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .data.audio import decode, resample
from .data.manifest import Labels
from .errors import ConfigError, DataError
from .features import FeatureConfig, FrontEnd, frame_count
from .models.checkpoint import Checkpoint, save_checkpoint
from .models.flexiast import FlexiAST, FlexiASTConfig
from .models.geometry import PatchLike
from .models.report import LoadReport

Loss = Literal["ce", "bce"]
"""What a model is trained with. `ce`: one class per clip, softmax cross-entropy. `bce`: any number, sigmoids."""
Audio = str | os.PathLike[str] | Tensor | Any
"""A file, or samples (S,) as a tensor or array."""


class Prediction(NamedTuple):
    """One class and its score: a softmax probability (`ce`) or the class's own probability (`bce`)."""

    label: str
    score: float


class AudioClassifier(FlexiAST):
    """FlexiAST with feature settings and labels: waveforms and files in, named classes out."""

    load_report: LoadReport | None = None
    """What became of every tensor of the source, for a model that was loaded or adapted; printable."""

    def __init__(
        self,
        config: FlexiASTConfig,
        features: FeatureConfig,
        labels: Labels,
        loss: Loss = "ce",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """loss: what it was trained with, `ce` or `bce`. metadata: whatever else is known of its training."""
        super().__init__(config)
        if loss not in get_args(Loss):
            raise ConfigError(f"loss: found {loss!r}, expected one of {get_args(Loss)}")
        if len(labels) != config.classes or features.bins != config.bins:
            raise ConfigError(
                f"classifier: found {len(labels)} labels and {features.bins} mel bins,"
                f" expected the network's {config.classes} and {config.bins}"
            )
        self.front_end = FrontEnd(features)
        self.labels, self.loss, self.metadata = labels, loss, metadata or {}

    @property
    def feature_config(self) -> FeatureConfig:
        """How a waveform becomes this model's input."""
        return self.front_end.config

    def probabilities(self, logits: Tensor) -> Tensor:
        """Scores (B, C) of logits (B, C): softmax for single-label models, sigmoid for multi-label ones."""
        return logits.softmax(dim=-1) if self.loss == "ce" else logits.sigmoid()

    @torch.inference_mode()
    def predict(
        self,
        audio: Audio | Sequence[Audio],
        patch_size: PatchLike | None = None,
        top_k: int = 5,
        sample_rate: int | None = None,
    ) -> list[Prediction] | list[list[Prediction]]:
        """The `top_k` classes of a file or of samples (S,), best first; of a list of them, a list for each.

        sample_rate: of the samples given, in Hz (default: the model's). Clips are cut or padded to the model's
        length. Raises DataError for an unusable file, ConfigError for a patch size that does not fit.
        """
        several = isinstance(audio, (list, tuple))
        clips: Sequence[Audio] = audio if isinstance(audio, (list, tuple)) else [audio]
        waveforms = [self._listen(clip, sample_rate) for clip in clips]
        if not waveforms:
            return []
        lengths = torch.tensor([len(w) for w in waveforms])
        batch = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        device = self.kernel.device
        logits = self(self.front_end(batch.to(device), lengths.to(device)), patch_size)
        top = self.probabilities(logits.float()).topk(min(top_k, len(self.labels)), dim=-1)
        predictions = [
            [Prediction(self.labels.names[i], score) for score, i in zip(scores, classes, strict=True)]
            for scores, classes in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
        return predictions if several else predictions[0]

    def _listen(self, audio: Audio, sample_rate: int | None) -> Tensor:
        features = self.feature_config
        if isinstance(audio, (str, os.PathLike)):
            waveform = decode(audio, features.sample_rate, features.downmix, features.samples)
        else:
            waveform = torch.as_tensor(audio).detach().cpu()
            if waveform.ndim != 1 or not waveform.is_floating_point() or not torch.isfinite(waveform).all():
                raise DataError(
                    f"audio: found {waveform.dtype} samples of shape {tuple(waveform.shape)},"
                    " expected finite floating-point samples (S,) in [-1, 1], or a file name"
                )
            waveform = resample(waveform.float(), sample_rate or features.sample_rate, features.sample_rate)
        if frame_count(len(waveform), features.sample_rate) == 0:
            name = audio if isinstance(audio, (str, os.PathLike)) else "audio"
            raise DataError(f"{name}: found {len(waveform)} samples, expected at least one 25 ms window")
        return waveform[: features.samples]

    def checkpoint(self) -> Checkpoint:
        """Weights, configuration and metadata, ready to be written."""
        metadata = {
            **self.metadata,
            "features": dataclasses.asdict(self.feature_config),
            "labels": dataclasses.asdict(self.labels),
            "loss": self.loss,
        }
        return Checkpoint(self.config, self.state_dict(), metadata)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `model.safetensors` and `config.json`, which `flexiast.load(directory)` reads."""
        save_checkpoint(Path(directory), self.checkpoint())
