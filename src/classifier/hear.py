"""HEAR's API (Holistic Evaluation of Audio Representations, Turian et al., 2022), for `hear-validator` and its tasks.

`hear-validator flexiast.classifier.hear --model CHECKPOINT`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from .load import load


def load_model(model_file_path: str = "") -> Any:
    """A model with the attributes that HEAR reads: `sample_rate` and the sizes of its embeddings.

    Raises ConfigError without a path: there are no default weights; CheckpointError as `load`.
    """
    if not model_file_path:
        raise ConfigError("model_file_path: found none, expected a checkpoint of any readable format")
    model: Any = load(model_file_path)
    model.sample_rate = model.feature_config.sample_rate
    model.scene_embedding_size = model.timestamp_embedding_size = model.config.width
    return model


def get_scene_embeddings(audio: Tensor, model: Any) -> Tensor:
    """One embedding (sounds, D) of each sound of (sounds, samples) in [-1, 1] at the model's rate: over all tokens."""
    return torch.stack(model.embed(list(audio), layer=-1)).to(audio.device)


def get_timestamp_embeddings(audio: Tensor, model: Any) -> tuple[Tensor, Tensor]:
    """Embeddings over time (sounds, times, D), a vector for each column of patches, and where their centres lie, in
    milliseconds (sounds, times)."""
    embedded = model.embed(list(audio), time=True)
    vectors = torch.stack([one.vectors for one in embedded])
    centres = torch.stack([500 * (one.starts + one.ends) for one in embedded])
    return vectors.to(audio.device), centres.to(audio.device)
