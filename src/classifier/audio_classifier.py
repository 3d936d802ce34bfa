"""The FlexiAST network with its audio front end and class names, as returned by `flexiast.load`.

Dimensions: B clips, S samples, T frames, F mel bins, C classes.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast, get_args, overload

from torch import Tensor

from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.hub import HubMixin
from ..checkpoints.load_report import LoadReport
from ..data.manifest import Labels
from ..errors import CheckpointError, ConfigError, DataError, FlexiASTError, is_whole_number, require
from ..features import FeatureConfig, FrontEnd
from ..models.config import FlexiASTConfig, Loss
from ..models.flexiast import FlexiAST
from ..models.frozen import FrozenAST, freeze
from ..models.geometry import PatchLike, PatchSize
from ..models.packed import features_packed
from ..models.resize import Resize
from ..runtime.arguments import Precision
from .budget import choose
from .curve import Curve, curve_of
from .embeddings import Layer, embeddings
from .frames import Frames, frames
from .inputs import Audio, is_several
from .listening import Answer, Hearing, answers, trained_sizes
from .results import Choice, Prediction, Predictions, Results, Window, Windows
from .scale import Scale
from .tally import Aggregate

logger = logging.getLogger(__name__)
MOST_STRETCH = 4
"""Largest window in a description, relative to the network's input: cost grows with its square."""


class AudioClassifier(FlexiAST, HubMixin):
    """FlexiAST with feature settings and labels: waveforms and files in, named classes out."""

    load_report: LoadReport | None = None
    """What happened to every tensor of the source, for a loaded or adapted model; printable."""
    _curve: tuple[Any, Curve | None] | None = None
    """The metadata's curve, as written and as read."""

    def __init__(
        self,
        config: FlexiASTConfig,
        features: FeatureConfig,
        labels: Labels,
        loss: Loss = "ce",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """loss: training loss. metadata: anything else known about its training."""
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
        self.warned_sizes: set[PatchSize] = set()
        """Patch sizes outside training for which a warning was already logged."""

    @property
    def feature_config(self) -> FeatureConfig:
        """How a waveform becomes this model's input."""
        return self.front_end.config

    @property
    def scale(self) -> Scale:
        """The units of a regression's values, in the metadata under `targets`."""
        return Scale.from_json(self.metadata.get("targets"), len(self.labels))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Scores (B, C) from logits (B, C): softmax (`ce`), sigmoid (`bce`), values in their units (`mse`)."""
        if self.loss == "mse":
            return self.scale.values(logits)
        return logits.softmax(dim=-1) if self.loss == "ce" else logits.sigmoid()

    def features(
        self, log_mel: Tensor | Sequence[Tensor], patch_size: PatchLike | None = None, resize: Resize = "pi"
    ) -> Tensor:
        """Pooled embeddings (B, D) of log-mel (B, T, F), or of clips of any lengths, a list of (T, F).

        So `forward` takes either too; the answers for a list are those for each clip alone, see `forward_packed`.
        """
        if isinstance(log_mel, Tensor):
            return super().features(log_mel, patch_size, resize)
        return features_packed(self, log_mel, patch_size, resize)

    @overload
    def predict(self, audio: list[Any], *args: Any, **kwargs: Any) -> Results[Prediction]: ...

    @overload
    def predict(self, audio: Audio, *args: Any, **kwargs: Any) -> Predictions: ...

    def predict(
        self,
        audio: Audio | Sequence[Audio],
        patch_size: PatchLike | None = None,
        top_k: int = 5,
        sample_rate: int | None = None,
        hop: float | None = None,
        aggregate: Aggregate = "mean",
        batch_size: int = 16,
        workers: int = 0,
        precision: Precision = "fp32",
        budget: str | None = None,
        cascade: Literal["auto"] | Sequence[PatchLike] | None = None,
        threshold: float | Sequence[float] | None = None,
        window: float | None = None,
    ) -> Predictions | Results[Prediction]:
        """The `top_k` classes of a sound, best first; for a list of sounds, one such list each.

        audio: a file, samples, or anything else in `inputs.Audio`. sample_rate: of samples that come without one,
        in Hz (default: the model's). A clip longer than the model's window is split into windows, one every `hop`
        seconds (default: side by side), and the mean or the largest of their scores is returned; files are streamed,
        so they may be of any length. window: hear up to so many seconds in one pass, more than the model's window; its
        positions are stretched over them. batch_size: windows per forward pass, of several clips. workers: processes
        that decode files (0: this one). precision: `auto` is bfloat16 where the device has fast bfloat16.
        In place of `patch_size`: budget, such as "20ms", "5GFLOPs" and "256tokens" for each window of a clip, or
        "accuracy>=0.9", takes the size that the model's curve (`flexiast curve`) shows to be best within it. cascade:
        sizes from coarse to fine, such as [48, 16, 12], with a `threshold`, or one for each step: a window goes on to
        the next size if its confidence (`cascade.confidence`) is lower, and its scores are averaged; "auto" takes the
        curve's best cascade, or the best one that keeps the budget on average. The result's `choice` says what was
        chosen and why, its `patch_sizes` the sizes that scored the clip.
        In a list, an unusable clip has no classes in the result, and its DataError is in the result's
        `errors`. DataError is raised for a single unusable clip, and if no clip of a list is usable. Raises
        ConfigError for a patch size or setting that does not fit, a budget that no size keeps, or no curve.
        """
        self._check_top_k(top_k)
        choice = self.choose(budget, cascade, threshold, patch_size, precision)
        rule = choice.rule if choice else None
        how = Hearing(patch_size, sample_rate, hop, aggregate, batch_size, workers, precision, rule, window=window)

        def result(answer: Answer) -> Predictions:
            return Predictions(self.best(answer.scores, top_k), answer.patch_sizes, choice)

        return self._results(audio, how, result, choice=choice)

    def choose(
        self,
        budget: str | None = None,
        cascade: Literal["auto"] | Sequence[PatchLike] | None = None,
        threshold: float | Sequence[float] | None = None,
        patch_size: PatchLike | None = None,
        precision: Precision = "fp32",
    ) -> Choice | None:
        """What `predict` takes for these arguments; none without budget and cascade. Raises ConfigError as it does."""
        if budget is None and cascade is None and threshold is None:
            return None
        require(patch_size is None, "patch_size", f"{patch_size} beside a budget or cascade", "one of them")
        return choose(self, budget, cascade, threshold, precision)

    @property
    def curve(self) -> Curve | None:
        """What `flexiast curve` measured, if it did. Raises CheckpointError if the checkpoint's is not valid."""
        written = self.metadata.get("curve")
        if self._curve is None or self._curve[0] is not written:  # read once, as every budget asks for it
            self._curve = written, curve_of(self.metadata)
        return self._curve[1]

    def best(self, scores: Tensor, top_k: int = 5) -> list[Prediction]:
        """The `top_k` best classes of scores (C,), or every target (`mse`). Raises ConfigError for a number below 1."""
        self._check_top_k(top_k)
        if self.loss == "mse":
            return [Prediction(name, value) for name, value in zip(self.labels.names, scores.tolist(), strict=True)]
        values, places = scores.topk(min(top_k, len(self.labels)))
        return [Prediction(self.labels.names[c], v) for c, v in zip(places.tolist(), values.tolist(), strict=True)]

    def _check_top_k(self, top_k: int) -> None:
        require(is_whole_number(top_k) and top_k >= 1, "top_k", repr(top_k), "a whole number of at least 1")

    @overload
    def predict_windows(self, audio: list[Any], *args: Any, **kwargs: Any) -> Results[Window]: ...

    @overload
    def predict_windows(self, audio: Audio, *args: Any, **kwargs: Any) -> Windows: ...

    def predict_windows(
        self,
        audio: Audio | Sequence[Audio],
        patch_size: PatchLike | None = None,
        sample_rate: int | None = None,
        hop: float | None = None,
        batch_size: int = 16,
        workers: int = 0,
        precision: Precision = "fp32",
        top_k: int = 1,
        budget: str | None = None,
        cascade: Literal["auto"] | Sequence[PatchLike] | None = None,
        threshold: float | Sequence[float] | None = None,
        window: float | None = None,
    ) -> Windows | Results[Window]:
        """Predictions over time: the windows of a sound, with start and end in seconds, scores (C,) and best classes.

        Arguments, lists and errors are those of `predict`; a window's `patch_sizes` are those that scored it. The last
        window is padded; a remainder of less than a tenth of a window is dropped.
        """
        self._check_top_k(top_k)
        choice = self.choose(budget, cascade, threshold, patch_size, precision)
        rule = choice.rule if choice else None
        how = Hearing(patch_size, sample_rate, hop, "mean", batch_size, workers, precision, rule, top_k, window)

        def result(answer: Answer) -> Windows:
            return Windows(answer.windows, answer.patch_sizes, choice)

        return self._results(audio, how, result, by_window=True, choice=choice)

    def frames(
        self,
        audio: Audio,
        patch_size: PatchLike | None = None,
        sample_rate: int | None = None,
        batch_size: int = 16,
        precision: Precision = "fp32",
    ) -> Frames:
        """Scores (W, C) and embeddings (W, D) of a sound for each time column of patches, with their times.

        The resolution is the patch's: 16x8 patches give a column every 80 ms. Arguments and errors are those of
        `predict`; a clip longer than the model's window is cut into adjacent windows.
        """
        return frames(self, audio, Hearing(patch_size, sample_rate, None, "mean", batch_size, 0, precision))

    def embed(
        self,
        audio: Audio | Sequence[Audio],
        patch_size: PatchLike | None = None,
        layer: Layer | None = None,
        time: bool = False,
        sample_rate: int | None = None,
        batch_size: int = 16,
        workers: int = 0,
        precision: Precision = "fp32",
    ) -> Any:
        """The embedding (D,) of a sound; for a list of sounds, one each. With `time`, an `Embedding` over time.

        layer: None for what the classifier sees; the number of a block, counted from 0 or from the end, for the mean of
        its patch tokens; `mean` for that of all blocks. time: a vector for each column of patches, with start and end
        in seconds, instead of their mean (layer None: the last block's). Padding is left out, except with layer None
        and no `time`. A longer clip is cut into adjacent windows. In a list, an unusable clip has an empty tensor;
        other arguments and errors are those of `predict`.
        """
        how = Hearing(patch_size, sample_rate, None, "mean", batch_size, workers, precision)
        several = is_several(audio)
        clips: list[Any] = list(cast(Any, audio)) if several else [audio]
        made = list(embeddings(self, clips, how, layer, time))
        errors = [one.error for one in made if one.error is not None]
        if errors and len(errors) == len(clips):
            raise errors[0]
        if errors:
            logger.warning("%d of %d clips could not be used; the first: %s", len(errors), len(clips), errors[0])
        results = [one.embedding if time else one.embedding.vectors for one in made]
        return results if several else results[0]

    def _results(
        self,
        audio: Any,
        how: Hearing,
        result: Callable[[Answer], list[Any]],
        by_window: bool = False,
        choice: Choice | None = None,
    ) -> Any:
        """`result` of each answer, in a list if `audio` is a list."""
        several = is_several(audio)
        clips = list(audio) if several else [audio]
        if not clips:
            raise DataError("audio: found an empty list, expected at least one clip")
        results = Results[Any](len(clips))
        results.choice = choice
        for answer in answers(self, clips, how, by_window):
            if answer.error is None:
                results[answer.clip] = result(answer)
            elif several:
                results.errors[answer.clip] = answer.error
            else:
                raise answer.error
        results.report()
        return results if several else results[0]

    def __repr__(self) -> str:
        """One line: classes, window, patch sizes, weights."""
        config, features, names = self.config, self.feature_config, self.labels.names
        what = f"{len(names)} {'targets' if self.loss == 'mse' else 'classes'}"
        few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        trained = trained_sizes(self)
        several = f"{len(trained)} sizes, {trained[0]} to {trained[-1]}" if len(trained) > 12 else ""
        sizes = several or ", ".join(map(str, trained))
        weights = sum(parameter.numel() for parameter in self.parameters())
        return (
            f"AudioClassifier({what} ({few}), window {features.seconds:g} s at"
            f" {features.sample_rate} Hz, base patch {config.patch_size}"
            + (f", trained at {sizes}" if sizes else "")
            + f", {config.depth} blocks of width {config.width}, {weights / 1e6:.3g} M parameters)"
        )

    def freeze(
        self, patch_size: PatchLike | None = None, frames: int | None = None, resize: Resize = "pi"
    ) -> FrozenAST:
        """The network at one patch size and number of frames, nothing left to resize; see `models.frozen.freeze`."""
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
            model.scale  # noqa: B018 (raises if it is not valid)
        except (KeyError, TypeError, FlexiASTError) as error:
            raise CheckpointError(f"{source}: its description is not valid ({error})") from None
        model.load_state_dict(checkpoint.state)
        model.load_report = checkpoint.report
        return model.eval()

    def checkpoint(self) -> Checkpoint:
        """Weights, configuration and metadata, ready to be written."""
        features = dataclasses.asdict(self.feature_config)
        if features["length"] == "window":  # which versions without native lengths read too
            del features["length"]
        metadata = {
            **self.metadata,
            "features": features,
            "labels": dataclasses.asdict(self.labels),
            "loss": self.loss,
        }
        return Checkpoint(self.config, self.state_dict(), metadata)
