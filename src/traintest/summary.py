"""The lines a user sees about a run: before it starts, at each validation, and at its end."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from ..checkpoints.load_report import LoadReport
from ..classifier.audio_classifier import AudioClassifier
from ..data.dataset import LEAST_NEW
from ..data.manifest import Manifest
from ..data.survey import Survey, survey
from ..features import FeatureConfig
from ..runtime.device import autocast, synchronise
from ..runtime.files import file_errors
from ..runtime.output import duration
from .baseline import baseline
from .config import TrainConfig
from .defaults import Choice
from .evaluate import TREATED
from .losses import classification_loss
from .metrics import figure, heading, number
from .optim import lr_factor
from .options import DistillConfig, OptimConfig
from .patch_sampler import PatchSampler
from .setup import Plan, Prepared
from .validation import Validation

logger = logging.getLogger(__name__)

AT_CHANCE = 0.95
"""Ratio to the loss of guessing above which a model has learnt nothing."""


def describe(prepared: Prepared, plan: Plan, model: AudioClassifier, seconds: float) -> Iterator[str]:
    """Lines about a run that is about to start: data, network, steps, expected time, what was chosen and why."""
    config, val = prepared.config, prepared.val
    yield f"{_clips(prepared.train)} for training, {_clips(val) if val else 'none'} for validation"
    weights = sum(p.numel() for p in model.parameters())
    tokens = model.config.grid(model.config.patch_size, model.feature_config.frames).tokens
    yield (
        f"AST of width {model.config.width} and {model.config.depth} blocks, {weights / 1e6:.2f} M parameters,"
        f" {tokens} tokens for {model.feature_config.seconds:g} s at patch {model.config.patch_size};"
        f" trained at {_sizes(plan.patches)}"
    )
    if prepared.start is not None and model.load_report is not None:
        yield of_start(model.load_report)
    yield (
        f"{plan.total_steps:,} steps of {config.data.batch_size} clips, {config.epochs:g} epochs;"
        f" {config.optim.name}, peak rate {config.optim.lr:g}, {config.optim.schedule};"
        f" {'at most' if model.feature_config.length == 'native' else 'about'} {duration(seconds)} on this machine,"
        f" {plan.flops(config.data.batch_size) / 1e12:.3g} TFLOPs"
    )
    if prepared.seen is not None and (lengths := describe_lengths(prepared.seen, config, model.feature_config)):
        yield lengths
    if prepared.choices:
        yield "chosen automatically, each can be set:"
        yield from table(prepared.choices)
    yield from warnings(config.optim, plan)


def of_start(report: LoadReport) -> str:
    """A line that says which model a run starts from, and what of it was changed to fit."""
    changed = [f"{name.partition('.')[0]}: {how}" for name, how in report.of("converted").items()]
    changed += [f"{name.partition('.')[0]}: new, {why}" for name, why in report.of("new").items()]
    return "; ".join(dict.fromkeys([f"starts from {report.source}", *changed, *report.notes]))


def describe_lengths(seen: Survey, config: TrainConfig, features: FeatureConfig) -> str | None:
    """A line that says how many clips are longer or shorter than the window, and what is done; none if all fit."""
    clips, window = len(seen.frames), f"than the window of {features.seconds:g} s"
    longer, shorter = (
        int((seen.frames > features.frames).sum()),
        int((seen.frames < (1 - LEAST_NEW) * features.frames).sum()),
    )
    part = "a random part is used, another in each epoch" if config.augment.crop else "only their start is used"
    parts = [f"{longer:,} of {clips:,} clips are longer {window}: {part}"] if longer else []
    parts += [f"{shorter:,} of {clips:,} clips are shorter {window}: {TREATED[features.length]}"] if shorter else []
    return "; ".join(parts) or None


def _sizes(patches: PatchSampler) -> str:
    """The sizes trained at in words."""
    sizes = patches.sizes
    if len(sizes) <= 16:
        return ", ".join(map(str, sizes))
    return f"{len(sizes)} sizes from {sizes[0]} to {sizes[-1]}"


def _clips(manifest: Manifest) -> str:
    labels = manifest.labels
    what = (
        f"{len(labels)} classes" if manifest.clips.values is None else f"numbers to predict, {', '.join(labels.names)}"
    )
    return f"{len(manifest):,} clips of {what} ({manifest.source})"


def table(choices: Sequence[Choice]) -> Iterator[str]:
    """The chosen settings in columns, with their reasons."""
    rows = [
        (f"--{c.setting.replace('_', '-')}", f"{c.value:g}" if isinstance(c.value, float) else str(c.value), c.reason)
        for c in choices
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    for option, value, reason in rows:
        yield f"  {option.ljust(first)}  {value.ljust(second)}  {reason}"


def warnings(optim: OptimConfig, plan: Plan) -> Iterator[str]:
    """Warnings about what in the plan keeps the run from learning."""
    steps = plan.total_steps
    if optim.warmup_steps >= steps:
        yield (
            f"warning: the warm-up takes {optim.warmup_steps:,} steps, the whole run {steps:,}: the learning rate never"
            " reaches its peak; use --optim.warmup-steps auto, or more epochs"
        )
        return
    sample = range(0, steps, max(1, steps // 1000))
    factors = [lr_factor(step, steps, plan.steps_per_epoch, optim) for step in sample]
    slow = sum(factor < 0.1 for factor in factors) / len(factors)
    if slow > 0.5:
        yield (
            f"warning: the learning rate is below a tenth of its peak in {slow:.0%} of the steps;"
            " use --optim.schedule cosine, or a later --optim.step-from"
        )


def at_chance(loss: float, classes: int) -> str | None:
    """A warning if a cross-entropy over so many classes is that of guessing."""
    guessing = math.log(classes)
    if loss < AT_CHANCE * guessing:
        return None
    return (
        f"warning: the training loss ended at {loss:.3f}, guessing among {classes} classes gives {guessing:.3f}:"
        " nothing was learnt; try more --epochs or another --optim.lr, and check the labels"
    )


def validation_lines(
    config: TrainConfig, epoch: float, train_loss: float | None, validation: Validation, last: bool
) -> Iterator[str]:
    """A line about a validation: losses, the score at each patch size; at the end a warning if nothing was learnt."""
    text = f"epoch {min(epoch, config.epochs):.3g} of {config.epochs:g}"
    if train_loss is not None:
        text += f", training loss {train_loss:.3f}"
    if curve := validation.curve:
        metric = config.selection_metric
        text += f"; validation {heading(metric)}: "
        text += "  ".join(f"{patch}: {number(metric, one[metric])}" for patch, one in curve.items())
        text += f"  mean: {number(metric, validation.score)}" if len(curve) > 1 else ""
    yield text
    supervised = config.loss == "ce" and config.distill == DistillConfig() and not config.augment.mixup
    if last and train_loss is not None and supervised and (warning := at_chance(train_loss, validation.classes)):
        yield warning


def estimate_seconds(config: TrainConfig, plan: Plan, model: AudioClassifier, processes: int) -> float:
    """Expected time of the steps, from a forward and backward pass at the base patch; decoding not counted."""
    network, device, frames = model.config, model.kernel.device, model.feature_config.frames
    clips = min(4, config.data.batch_size)
    log_mel = torch.zeros(clips, frames, network.bins, device=device)
    targets = torch.ones(clips, network.classes, device=device)

    def run() -> float:
        synchronise(device)
        start = time.perf_counter()
        with autocast(device, config.precision):
            loss = classification_loss(model(log_mel).float(), targets, config.loss)
        loss.backward()
        synchronise(device)
        return time.perf_counter() - start

    first = run()
    seconds = min(run(), run()) if first < 1 else first
    model.zero_grad(set_to_none=True)
    per_clip = seconds / clips * plan.patches.mean_cost() / network.flops(network.patch_size, frames)
    return plan.total_steps * config.data.batch_size / processes * per_clip


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a finished run has reached on its validation clips."""

    metric: str
    """What the best model was chosen by."""
    curve: Mapping[str, Mapping[str, float]]
    """Loss and all metrics of the kept model by patch size; empty without validation clips."""
    simple: float | None
    """The metric of logistic regression, or for numbers to predict of linear regression, on the same clips; of a stream
    none, as a few of its pieces may lack classes."""
    validated: bool = True
    """Whether there are validation clips."""

    @property
    def simple_name(self) -> str:
        """What `simple` is of, in words."""
        return "linear regression" if self.metric == "R2" else "logistic regression"

    @property
    def best(self) -> str:
        """The best size with its score, for people."""
        if not self.curve:
            return ""
        patch = max(self.curve, key=lambda one: self.curve[one][self.metric])
        return f"{figure(self.metric, self.curve[patch][self.metric])} at patch size {patch}"

    def lines(self) -> Iterator[str]:
        """The curve, beside the simple model; of several targets each."""
        if not self.validated:
            yield (
                f"no {self.metric} to report, as no clips were validated on; name some with --data.val, or split off a"
                " share of the training clips with --data.val 0.2"
            )
        if not self.curve:
            return
        kinds = dict.fromkeys(kind for one in self.curve.values() for kind in one)
        targets = [kind for kind in kinds if kind.startswith(("R2 ", "RMSE ", "pearson "))]
        for kind in (self.metric, *(("RMSE", "pearson") if self.metric == "R2" else ()), *targets):
            values = {patch: one.get(kind) for patch, one in self.curve.items()}  # a correlation may be unknown
            shown = {
                p: number(kind, v) if kind == self.metric else f"{v:.4g}" for p, v in values.items() if v is not None
            }
            title = heading(kind) if kind == self.metric else kind
            yield f"validation {title}:  " + "  ".join(f"{patch}: {value}" for patch, value in shown.items())
        if self.simple is None:  # of a stream
            return
        yield (
            f"for comparison: {self.simple_name} on mean and deviation of the log-mel:"
            f" {number(self.metric, self.simple)}"
        )

    def warnings(self) -> Iterator[str]:
        """A warning if the model is no better than the simple one."""
        if self.simple is not None and max(one[self.metric] for one in self.curve.values()) < self.simple:
            yield (
                f"warning: the model is no better than {self.simple_name} on mean and deviation of the log-mel; more"
                " --epochs, or a start (--model.init), may help"
            )


def result(prepared: Prepared, features: FeatureConfig, progress: bool) -> RunResult:
    """Of a finished run: the kept model's curve, and a simple model on the same clips."""
    config = prepared.config
    curve = _kept_curve(config.out / "config.json") if prepared.val else {}
    if prepared.val is None or not curve:
        return RunResult(config.selection_metric, {}, None, prepared.val is not None)
    if config.data.streaming:
        return RunResult(config.selection_metric, curve, None)
    workers, timeout = config.data.workers, config.data.timeout
    seen, val_seen = (survey(data, features, workers, progress, timeout) for data in (prepared.train, prepared.val))
    simple = baseline(prepared.train, seen, prepared.val, val_seen, config.loss)
    return RunResult(config.selection_metric, curve, getattr(simple, config.selection_metric))


def _kept_curve(description: Path) -> dict[str, dict[str, float]]:
    """The validation curve in the model that was kept."""
    with file_errors(description):
        return json.loads(description.read_text(encoding="utf-8")).get("validation") or {}


def tell(lines: Iterable[str]) -> None:
    """Log the lines; those that begin with `warning:` as warnings, which --quiet lets through."""
    for line in lines:
        logger.log(logging.WARNING if line.startswith("warning: ") else logging.INFO, "%s", line)
