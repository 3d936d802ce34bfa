"""Models into memory: load any readable checkpoint, and fit its weights to another task."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch
from torch import Tensor

from .classifier import AudioClassifier, Loss
from .data.manifest import Labels
from .errors import CheckpointError, FlexiASTError
from .features import FeatureConfig
from .hub import locate
from .models.checkpoint import Checkpoint, read_checkpoint
from .models.flexiast import FlexiASTConfig
from .models.geometry import Coverage, Grid, PatchLike, PatchSize, token_grid
from .models.report import Entry, LoadReport
from .models.resize import apply_to_grid, cached_matrix, fit_positions, pi_resize, resample_positions


def load(
    source: str | os.PathLike[str],
    device: str | torch.device | None = None,
    heads: int | None = None,
    frames: int | None = None,
) -> AudioClassifier:
    """Load a trained model, in eval mode, with its feature settings and class names.

    source: a file or directory in any format of `flexiast.models.formats`; a Hub id, `owner/name`, if no such path
    exists; or `timm:NAME`, an image model (ViT, DeiT, FlexiViT) fitted to spectrograms as a start for training: its
    embeddings are ready, its one class is called `untrained`. heads, frames: what some sources leave open, see
    `read_checkpoint`. `print(model.load_report)` shows what became of every tensor. No code of the source is run.
    Raises CheckpointError that names the source and what is wrong.
    """
    return load_from(locate(source), os.fspath(source), device, heads, frames)


def load_from(
    path: Path,
    source: str,
    device: str | torch.device | None = None,
    heads: int | None = None,
    frames: int | None = None,
) -> AudioClassifier:
    """`load` for a file or directory that is there; source: how the user named it, for the report."""
    checkpoint = read_checkpoint(path, heads, frames)
    if checkpoint.report:
        checkpoint.report.source = source
    return _classifier(checkpoint, source).to(device or "cpu").eval()


def _classifier(checkpoint: Checkpoint, source: str) -> AudioClassifier:
    """A checkpoint's network with its features and labels. Raises CheckpointError if they are not valid."""
    metadata, config = dict(checkpoint.metadata), checkpoint.config
    try:
        features = FeatureConfig(**metadata.pop("features", {"frames": config.frames, "bins": config.bins}))
        table = metadata.pop("labels", None)
        if table is None:
            labels = Labels.numbers(config.classes)
        else:
            labels = Labels(tuple(table["mids"]), tuple(table["names"]))
        model = AudioClassifier(config, features, labels, metadata.pop("loss", "ce"), metadata)
    except (KeyError, TypeError, FlexiASTError) as error:
        raise CheckpointError(f"{source}: its description is not valid ({error})") from None
    model.load_state_dict(checkpoint.state)
    model.load_report = checkpoint.report
    return model


def adapt(
    model: AudioClassifier,
    features: FeatureConfig,
    labels: Labels,
    loss: Loss,
    coverage: Coverage | None = None,
    patch_size: PatchLike | None = None,
    overlap: bool = False,
) -> AudioClassifier:
    """The same weights for another task: other labels, another length, another base patch.

    - Other labels get a new classifier. A model without class names of its own keeps its classifier if the number
      of classes agrees.
    - Another `patch_size` resizes the kernel by PI-resize and the positions with it.
    - Overlapping patches, as AST has them, are laid side by side, with positions where the new ones lie; `overlap`
      keeps them.
    - Another number of frames cuts positions along time to their centre or interpolates them, as AST does.

    The adapted model's `load_report` says what was done. Raises ConfigError for a patch that does not fit.
    """
    old = model.config
    patch = PatchSize.parse(patch_size) if patch_size else old.patch_size
    config = dataclasses.replace(
        old,
        classes=len(labels),
        frames=features.frames,
        patch_size=patch,
        stride=old.stride_at(patch) if overlap and old.stride else None,
        coverage=coverage or old.coverage,
        pad_value=features.pad_value,
    )
    adapted = AudioClassifier(config, features, labels, loss)
    state = model.state_dict()
    state["kernel"] = pi_resize(state["kernel"], patch)
    state["pos_embed"] = fit_positions(_rebased(state["pos_embed"], old, config), config.grid())
    if new_head := model.labels.mids != labels.mids and not (
        model.labels.numbered and len(model.labels) == len(labels)
    ):
        state |= {name: tensor for name, tensor in adapted.state_dict().items() if name.startswith("head.")}
    adapted.load_state_dict(state)
    adapted.load_report = _adaptation(model, config, new_head)
    return adapted


def _rebased(positions: Tensor, old: FlexiASTConfig, new: FlexiASTConfig) -> Tensor:
    """Positions (H, W, D) over the old length, at the new base patch and stride."""
    patch, stride = new.patch_size, new.stride_at(new.patch_size)
    base, base_stride = old.patch_size, old.stride_at(old.patch_size)
    if (patch, stride) == (base, base_stride):
        return positions
    grid, rows_cols = token_grid(old.frames, old.bins, patch, stride), Grid(*positions.shape[:2])
    if old.stride is None and old.coverage == "drop":
        return resample_positions(positions, grid)  # upstream's import of a model at another patch size
    options = {"dtype": positions.dtype, "device": positions.device}
    rows, cols = (
        cached_matrix("extent", rows_cols[i], grid[i], base[i], base_stride[i], patch[i], stride[i], **options)
        for i in (0, 1)
    )
    return apply_to_grid(positions, rows, cols)


def _adaptation(model: AudioClassifier, config: FlexiASTConfig, new_head: bool) -> LoadReport:
    """What `adapt` did to every tensor."""
    old, before = model.config, model.load_report
    report = LoadReport(before.source if before else "model", "FlexiAST, adapted", notes=before.notes if before else [])
    changes = {}
    if old.patch_size != config.patch_size:
        changes["kernel"] = f"PI-resize from patch {old.patch_size} to {config.patch_size}"
    layouts = [(c.grid(), c.patch_size, c.stride_at(c.patch_size)) for c in (old, config)]
    if layouts[0] != layouts[1]:
        texts = [f"{g.freq}x{g.time} of patch {patch}, stride {stride}" for g, patch, stride in layouts]
        changes["pos_embed"] = f"grid {texts[0]}, fitted to {texts[1]}"
    for name in model.state_dict():
        if new_head and name.startswith("head."):
            report.entries.append(Entry("ignored", (name,), (), f"classifier of {old.classes} other classes"))
            report.entries.append(Entry("new", (), (name,), f"classifier of {config.classes} classes"))
        else:
            how = changes.get(name, "")
            report.entries.append(Entry("converted" if how else "used", (name,), (name,), how))
    return report
