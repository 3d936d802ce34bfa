"""Models into memory: load any readable checkpoint, and fit its weights to another task."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch

from .classifier import AudioClassifier, Loss
from .data.manifest import Labels
from .errors import CheckpointError, FlexiASTError
from .features import FeatureConfig
from .models.checkpoint import read_checkpoint
from .models.geometry import Coverage, Grid
from .models.resize import resample_positions


def load(
    source: str | os.PathLike[str], device: str | torch.device | None = None, heads: int | None = None
) -> AudioClassifier:
    """Load a trained model, in eval mode, with its feature settings and class names.

    source: a directory written by training or `save_pretrained`, or a released FlexiAST state dict (.pth), whose
    classes are then numbered and whose features are AudioSet's. heads: see `read_checkpoint`. Raises
    CheckpointError that names the file and what is wrong.
    """
    path = Path(source)
    checkpoint = read_checkpoint(path, heads)
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
        raise CheckpointError(f"{path}: its description is not valid ({error})") from None
    model.load_state_dict(checkpoint.state)
    return model.to(device or "cpu").eval()


def adapt(
    model: AudioClassifier, features: FeatureConfig, labels: Labels, loss: Loss, coverage: Coverage | None = None
) -> AudioClassifier:
    """The same weights for another task: other labels get a new classifier, another length other positions.

    Positions along time are cut for shorter inputs and stretched for longer ones, as AST does. A model without
    class names of its own keeps its classifier if the number of classes agrees.
    """
    config = dataclasses.replace(
        model.config,
        classes=len(labels),
        frames=features.frames,
        coverage=coverage or model.config.coverage,
        pad_value=features.pad_value,
    )
    adapted = AudioClassifier(config, features, labels, loss)
    state = model.state_dict()
    old, new = Grid(*state["pos_embed"].shape[:2]), config.grid()
    state["pos_embed"] = (
        state["pos_embed"][:, : new.time] if new.time <= old.time else resample_positions(state["pos_embed"], new)
    )
    if model.labels.mids != labels.mids and not (model.labels.numbered and len(model.labels) == len(labels)):
        state |= {name: tensor for name, tensor in adapted.state_dict().items() if name.startswith("head.")}
    adapted.load_state_dict(state)
    return adapted
