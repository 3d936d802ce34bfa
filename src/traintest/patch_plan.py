"""Which patch sizes a run trains at, how often each is drawn, and what a step costs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Literal

from ..classifier.adapt import base_patch
from ..classifier.audio_classifier import AudioClassifier
from ..errors import ConfigError
from ..features import FeatureConfig
from ..models.config import FlexiASTConfig
from ..models.geometry import EVERY_SIZE, PAPER_SIZES, PatchSize
from ..models.patch_dropout import PatchDropout
from .config import TrainConfig
from .options import Draw, PatchOptions
from .patch_draws import DRAWS
from .patch_sampler import PatchSampler

FLEXIBLE_DRAW: Draw = "coarse-to-fine"
"""How a model is made flexible unless told otherwise; measured in egs/ablations/RESULTS.md."""
FLEXIBLE_DROPOUT = 0.67
"""Share of the patches that are then left out in training; measured there too."""
SQUARE_SHARE = 0.5
"""Of the draws, where rectangles are drawn: they are so many that squares would be rare otherwise."""


def flexible_patches(config: TrainConfig, model: AudioClassifier, frames: int | None = None) -> TrainConfig:
    """The settings of a run that makes a model flexible: unless sizes are given, every size that fits is trained at,
    a third of the patches at a time, and the published ones are validated at.

    frames: length of the input (default: the model's). Rectangles are trained too, but not where each would have a
    compiled graph of its own. What is given stays.
    """
    if config.patches.sizes:
        return config
    given = config.patches
    rectangles: Literal["yes", "no"] = "no" if given.weights or config.compile else "yes"
    patches = dataclasses.replace(
        given,
        sizes=fitting(EVERY_SIZE, model, frames),
        rectangles=rectangles if given.rectangles == "auto" else given.rectangles,
        draw=given.draw or (None if given.weights else FLEXIBLE_DRAW),
        dropout=FLEXIBLE_DROPOUT if given.dropout is None else given.dropout,
    )
    measured = config.eval_patch_sizes or fitting(PAPER_SIZES, model, frames)
    return dataclasses.replace(config, patches=patches, eval_patch_sizes=measured)


def drawn_sizes(options: PatchOptions) -> tuple[PatchSize, ...]:
    """The sizes that are drawn from: those given, or with rectangles every height with every width of them."""
    if options.rectangles != "yes":
        return options.sizes
    rows, columns = sorted({size.freq for size in options.sizes}), sorted({size.time for size in options.sizes})
    return tuple(PatchSize(freq, time) for freq in rows for time in columns)


def setup_patches(config: TrainConfig, model: AudioClassifier, steps: int) -> PatchSampler:
    """The draw of patch sizes. Raises ConfigError for a size that does not fit the model's input."""
    sizes = drawn_sizes(config.patches) or (model.config.patch_size,)
    return sampler_of(config.patches, sizes, model.config, model.feature_config.frames, config.seed, steps)


def sampler_of(
    options: PatchOptions, sizes: Sequence[PatchSize], network: FlexiASTConfig, frames: int, seed: int, steps: int
) -> PatchSampler:
    """The draw of these sizes, `drawn_sizes` as they fit an input of so many frames."""
    draw, costs = DRAWS[options.draw or "uniform"], [network.flops(s, frames, options.dropout or 0.0) for s in sizes]
    share = SQUARE_SHARE if options.rectangles == "yes" and not options.weights else None
    return PatchSampler(sizes, options.weights, seed, options.parts, draw, costs, steps, share)


def relative_cost(config: TrainConfig, start: AudioClassifier, features: FeatureConfig, frames: int) -> float:
    """FLOPs of a step that makes this start flexible on so many frames of these features, averaged over the run,
    relative to one at the base patch."""
    options, bins = flexible_patches(config, start, frames).patches, features.bins
    patch = base_patch(start, features, config.model.patch_size)
    coverage = config.model.coverage or start.config.coverage
    try:
        network = dataclasses.replace(start.config, frames=frames, bins=bins, patch_size=patch, coverage=coverage)
        drawn = sampler_of(options, drawn_sizes(options), network, frames, seed=0, steps=1001)
        return drawn.mean_cost() / network.flops(patch, frames)
    except ConfigError:
        return 1.0  # a size does not fit; `setup_plan` says which


def drop_patches(config: TrainConfig, model: AudioClassifier) -> TrainConfig:
    """Let the model leave out patches in training, if the settings say so; returns them with nothing left open."""
    dropout = config.patches.dropout or 0.0
    if dropout:
        model.patch_dropout = PatchDropout(dropout, model.config.prefix_tokens)
    return dataclasses.replace(config, patches=dataclasses.replace(config.patches, dropout=dropout))


def fitting(sizes: Sequence[PatchSize], model: AudioClassifier, frames: int | None = None) -> tuple[PatchSize, ...]:
    """The sizes that fit an input of so many frames (default: the model's)."""
    fit = []
    for size in sizes:
        with contextlib.suppress(ConfigError):
            model.config.layout(size, model.feature_config.frames if frames is None else frames)
            fit.append(size)
    return tuple(fit)
