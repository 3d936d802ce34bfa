"""Fit a model's weights to another task: other labels, another length, another base patch."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from ..checkpoints.load_report import Entry, LoadReport
from ..data.manifest import Labels
from ..features import FeatureConfig
from ..models.config import FlexiASTConfig, Loss
from ..models.geometry import Coverage, PatchLike, PatchSize, lay_out
from ..models.resize import apply_to_grid, extent_matrices, fit_positions, pi_resize, resample_positions
from .audio_classifier import AudioClassifier
from .class_order import class_order

REMEDY = "--model.new-head if these are other classes, a label table (--data.labels)"


def adapt(
    model: AudioClassifier,
    features: FeatureConfig,
    labels: Labels,
    loss: Loss,
    coverage: Coverage | None = None,
    patch_size: PatchLike | None = None,
    overlap: bool = False,
    table: bool | None = None,
    new_head: bool = False,
) -> AudioClassifier:
    """Fit the weights to another task: other labels, another length, another base patch.

    - Other labels get a new classifier; the same labels in another order get its rows in that order. A model without
      class names keeps its classifier if the labels are its numbers, or come from a label table (`table`) in its
      order; see `class_order`. `new_head` gives a new classifier in any case. Between classes and numbers to predict
      (`mse`) it is always new; numbers of the same names keep the units of the model.
    - Another `patch_size` resizes the kernel by PI-resize and the positions with it.
    - Another number of mel bins, or another hop, changes the unit in which patches are measured. Without a `patch_size`
      the base patch keeps its extent in hertz and seconds (16x16 at 128 bins is 8x16 at 64), the kernel is resized to
      it and the positions stay where they are.
    - Overlapping patches, as in AST, are replaced by patches side by side, with positions resampled to match;
      `overlap` keeps the overlap.
    - Another number of frames cuts positions along time to their centre or interpolates them, as AST does.

    The adapted model's `load_report` says what was done. Raises ConfigError for a patch that does not fit, and
    if a model without class names has as many classes as the data, but nothing says which is which.
    """
    old = model.config
    scale = _scale(model.feature_config, features)
    patch = base_patch(model, features, patch_size)
    config = dataclasses.replace(
        old,
        classes=len(labels),
        frames=features.frames,
        bins=features.bins,
        patch_size=patch,
        stride=old.stride_at(patch) if overlap and old.stride else None,
        coverage=coverage or old.coverage,
        pad_value=features.pad_value,
    )
    other = new_head or (model.loss == "mse") != (loss == "mse")  # classes are no numbers to predict
    order = None if other else class_order(model.labels, labels, table, REMEDY)
    kept = {"targets": model.scale.take(order).to_json()} if loss == "mse" and order is not None else {}
    adapted = AudioClassifier(config, features, labels, loss, kept)
    state = model.state_dict()
    state["kernel"] = pi_resize(state["kernel"], patch)
    state["pos_embed"] = fit_positions(_rebased(state["pos_embed"], old, config, scale), config.base.grid)
    for name in ("head.weight", "head.bias"):
        state[name] = adapted.state_dict()[name] if order is None else state[name][order]
    adapted.load_state_dict(state)
    adapted.load_report = _adaptation(model, adapted, order)
    return adapted


def base_patch(model: AudioClassifier, features: FeatureConfig, patch_size: PatchLike | None = None) -> PatchSize:
    """Base patch of a model adapted to these features, see `adapt`."""
    if patch_size:
        return PatchSize.parse(patch_size)
    return _scaled(model.config.patch_size, _scale(model.feature_config, features))


def _scale(old: FeatureConfig, new: FeatureConfig) -> tuple[float, float]:
    """New mel bins for each old one, new frames for each old one."""
    return new.bins / old.bins, old.hop_ms / new.hop_ms


def _scaled(patch: PatchSize, scale: tuple[float, float]) -> PatchSize:
    """The patch of the same extent, in the new bins and frames."""
    return PatchSize(*(max(1, round(side * factor)) for side, factor in zip(patch, scale, strict=True)))


def _rebased(positions: Tensor, old: FlexiASTConfig, new: FlexiASTConfig, scale: tuple[float, float]) -> Tensor:
    """Positions (H, W, D) over the old length, at the new base patch and stride, in the new bins and frames."""
    frames = round(old.frames * scale[1])
    base, layout = old.base, lay_out(frames, new.bins, new.patch_size, new.stride_at(new.patch_size))
    if scale == (1, 1) and (base.patch, base.stride) == (layout.patch, layout.stride):
        return positions
    if old.stride is None and old.coverage == "drop":
        return resample_positions(positions, layout.grid)  # upstream's import of a model at another patch size
    return apply_to_grid(positions, *extent_matrices(base, layout, positions, scale))


def _adaptation(model: AudioClassifier, adapted: AudioClassifier, order: list[int] | None) -> LoadReport:
    """What `adapt` did to every tensor."""
    old, config, before = model.config, adapted.config, model.load_report
    notes = [*(before.notes if before else []), *_front_end_notes(model.feature_config, adapted.feature_config)]
    report = LoadReport(before.source if before else "model", "FlexiAST, adapted", notes=notes)
    changes = {}
    if old.patch_size != config.patch_size:
        changes["kernel"] = f"PI-resize from patch {old.patch_size} to {config.patch_size}"
    layouts = [c.base for c in (old, config)]
    if layouts[0] != layouts[1] or old.bins != config.bins:
        other_bins = old.bins != config.bins
        texts = [
            f"{c.base.grid.freq}x{c.base.grid.time} of patch {c.base.patch}, stride {c.base.stride}"
            + (f", {c.bins} bins" if other_bins else "")
            for c in (old, config)
        ]
        changes["pos_embed"] = f"grid {texts[0]}, fitted to {texts[1]}"
    if order is not None and order != sorted(order):
        changes |= dict.fromkeys(("head.weight", "head.bias"), "rows in the order of the data's classes, by name")
    for name in model.state_dict():
        if order is None and name.startswith("head."):
            report.entries.append(Entry("ignored", (name,), (), f"classifier of {old.classes} other classes"))
            report.entries.append(Entry("new", (), (name,), f"classifier of {config.classes} classes"))
        else:
            how = changes.get(name, "")
            report.entries.append(Entry("converted" if how else "used", (name,), (name,), how))
    return report


def _front_end_notes(old: FeatureConfig, new: FeatureConfig) -> list[str]:
    """What has changed in what the network hears, other than its length."""
    units = {"bins": "mel bins", "sample_rate": "Hz", "window_ms": "ms window", "hop_ms": "ms hop"}
    changed = [
        f"{getattr(old, name):g} {unit} -> {getattr(new, name):g}"
        for name, unit in units.items()
        if getattr(old, name) != getattr(new, name)
    ]
    return [f"other front end: {', '.join(changed)}"] if changed else []
