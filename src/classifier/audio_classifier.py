"""A FlexiAST that listens: the network with its audio front end and class names, as `flexiast.load` returns it.

Dimensions: B clips, S samples, T frames, F mel bins, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.hub import HubMixin
from ..checkpoints.load_report import LoadReport
from ..data.manifest import Labels
from ..errors import CheckpointError, ConfigError, DataError, FlexiASTError
from ..features import FeatureConfig, FrontEnd
from ..models.config import FlexiASTConfig, Loss
from ..models.flexiast import FlexiAST
from ..models.frozen import FrozenAST, freeze
from ..models.geometry import PatchLike
from ..models.resize import Resize
from .windows import Aggregate, Audio, Prediction, Window, batches, excerpts

MOST_STRETCH = 4
"""How much longer than the network's own input the window of a description may be: cost grows with its square."""


class AudioClassifier(FlexiAST, HubMixin):
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

    @torch.no_grad()
    def predict(
        self,
        audio: Audio | Sequence[Audio],
        patch_size: PatchLike | None = None,
        top_k: int = 5,
        sample_rate: int | None = None,
        hop: float | None = None,
        aggregate: Aggregate = "mean",
        batch_size: int = 16,
    ) -> list[Prediction] | list[list[Prediction]]:
        """The `top_k` classes of a file or of samples, (S,) or (channels, S), best first; of a list, a list for each.

        sample_rate: of the samples given, in Hz (default: the model's). A clip longer than the model's window is
        heard in windows, one every `hop` seconds (default: side by side), and the mean or the largest of their
        scores is returned; files are streamed, so they may be of any length. batch_size: windows per forward pass.
        Raises DataError for an unusable file or samples, ConfigError for a patch size or setting that does not fit.
        """
        if aggregate not in get_args(Aggregate):
            raise ConfigError(f"aggregate: found {aggregate!r}, expected one of {get_args(Aggregate)}")
        several = isinstance(audio, (list, tuple))
        clips = list(audio) if isinstance(audio, (list, tuple)) else [audio]
        if not clips:
            raise DataError("audio: found an empty list, expected at least one clip")
        scores: list[Tensor | None] = [None] * len(clips)
        windows = [0] * len(clips)
        for clip, window in self._score(clips, patch_size, sample_rate, hop, batch_size):
            so_far = scores[clip]
            if so_far is None:
                scores[clip] = window.scores
            else:
                scores[clip] = so_far + window.scores if aggregate == "mean" else so_far.maximum(window.scores)
            windows[clip] += 1
        totals = torch.stack([total for total in scores if total is not None])  # every clip has a window, or raised
        if aggregate == "mean":
            totals = totals / torch.tensor(windows)[:, None]
        predictions = [self.best(total, top_k) for total in totals]
        return predictions if several else predictions[0]

    def best(self, scores: Tensor, top_k: int = 5) -> list[Prediction]:
        """The `top_k` classes of scores (C,) by name, best first. Raises ConfigError for a number below 1."""
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise ConfigError(f"top_k: found {top_k!r}, expected a whole number of at least 1")
        top = scores.topk(min(top_k, len(self.labels)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [Prediction(self.labels.names[number], score) for number, score in pairs]

    @torch.no_grad()
    def predict_windows(
        self,
        audio: Audio,
        patch_size: PatchLike | None = None,
        sample_rate: int | None = None,
        hop: float | None = None,
        batch_size: int = 16,
    ) -> list[Window]:
        """What is heard when: the windows of a file or of samples, with start and end in seconds and scores (C,).

        Arguments and errors are those of `predict`. The last window is padded; a rest that would add less than a
        tenth of a window is left out.
        """
        return [window for _, window in self._score([audio], patch_size, sample_rate, hop, batch_size)]

    def _score(
        self,
        clips: Sequence[Audio],
        patch_size: PatchLike | None,
        sample_rate: int | None,
        hop: float | None,
        batch_size: int,
    ) -> Iterator[tuple[int, Window]]:
        """Every window of every clip in order, with the number of its clip; batches go across clips."""
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size: found {batch_size!r}, expected a whole number of at least 1")
        found = (
            excerpt._replace(clip=number)
            for number, clip in enumerate(clips)
            for excerpt in excerpts(clip, self.feature_config, sample_rate, hop)
        )
        for batch in batches(found, batch_size):
            lengths = torch.tensor([len(excerpt.waveform) for excerpt in batch])
            waveforms = torch.nn.utils.rnn.pad_sequence([e.waveform for e in batch], batch_first=True)
            device = self.kernel.device
            log_mel = self.front_end(waveforms.to(device), lengths.to(device)).to(self.kernel.dtype)
            logits = self(log_mel, patch_size)
            for excerpt, scores in zip(batch, self.probabilities(logits.float()).cpu(), strict=True):
                yield excerpt.clip, Window(excerpt.start, excerpt.end, scores)

    def freeze(
        self, patch_size: PatchLike | None = None, frames: int | None = None, resize: Resize = "pi"
    ) -> FrozenAST:
        """The network at one patch size and number of frames, nothing left to resize, see `models.frozen.freeze`."""
        return freeze(self, patch_size, frames, resize)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, source: str) -> AudioClassifier:
        """The classifier that a checkpoint describes, in eval mode.

        Raises CheckpointError, naming `source`, if the description is not valid.
        """
        metadata, config = dict(checkpoint.metadata), checkpoint.config
        try:
            features = FeatureConfig(**metadata.pop("features", {"frames": config.frames, "bins": config.bins}))
            if features.frames > MOST_STRETCH * config.frames:
                raise ConfigError(
                    f"features.frames: found {features.frames} for a network of {config.frames} frames, expected at"
                    f" most {MOST_STRETCH} times as many"
                )
            table = metadata.pop("labels", None)
            if table is None:
                labels = Labels.numbers(config.classes)
            else:
                labels = Labels(tuple(table["mids"]), tuple(table["names"]))
            model = cls(config, features, labels, metadata.pop("loss", "ce"), metadata)
        except (KeyError, TypeError, FlexiASTError) as error:
            raise CheckpointError(f"{source}: its description is not valid ({error})") from None
        model.load_state_dict(checkpoint.state)
        model.load_report = checkpoint.report
        return model.eval()

    def checkpoint(self) -> Checkpoint:
        """Weights, configuration and metadata, ready to be written."""
        metadata = {
            **self.metadata,
            "features": dataclasses.asdict(self.feature_config),
            "labels": dataclasses.asdict(self.labels),
            "loss": self.loss,
        }
        return Checkpoint(self.config, self.state_dict(), metadata)
