"""HEAR's API (Holistic Evaluation of Audio Representations, Turian et al., 2022), for `hear-validator` and its tasks.

`hear-validator flexiast.classifier.hear --model CHECKPOINT`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..models.geometry import PatchLike, PatchSize, axis_tokens
from .embeddings import embeddings
from .listening import Hearing
from .load import load


def load_model(model_file_path: str = "", patch_size: PatchLike | None = None) -> Any:
    """A model with the attributes that HEAR reads: `sample_rate` and the sizes of its embeddings.

    patch_size: that of all embeddings (default: the model's base).
    Raises ConfigError without a path: there are no default weights; CheckpointError as `load`.
    """
    if not model_file_path:
        raise ConfigError("model_file_path: found none, expected a checkpoint of any readable format")
    model: Any = load(model_file_path)
    model.hear_patch_size = PatchSize.parse(model.config.patch_size if patch_size is None else patch_size)
    model.sample_rate = model.feature_config.sample_rate
    model.scene_embedding_size = model.timestamp_embedding_size = model.config.width
    return model


def get_scene_embeddings(audio: Tensor, model: Any) -> Tensor:
    """One embedding (sounds, D) of each sound of (sounds, samples) in [-1, 1] at the model's rate: over all tokens."""
    return torch.stack(model.embed(list(audio), model.hear_patch_size, layer=-1)).to(audio.device)


def get_timestamp_embeddings(audio: Tensor, model: Any) -> tuple[Tensor, Tensor]:
    """Embeddings over time (sounds, times, D), a vector for each column of patches, and where their centres lie, in
    milliseconds (sounds, times), evenly spaced.

    A column whose centre lies beyond the sound's end is left out, unless it is the only one. In a sound longer than
    the model's window, the windows are as far apart as their whole columns are long, so that the spacing goes on.
    """
    features, patch = model.feature_config, model.hear_patch_size
    stride = model.config.layout(patch, features.frames).stride.time
    spacing = stride * features.frame_seconds
    windows_apart = axis_tokens(features.frames, patch.time, stride, "drop") * spacing
    made = list(embeddings(model, list(audio), Hearing(patch, hop=windows_apart), time=True))
    if errors := [one.error for one in made if one.error is not None]:
        raise errors[0]
    columns = (made[0].embedding.starts / spacing).round().long()  # alike for all sounds, which are equally long
    # What a window's last, padded column and the next window's first both hear is taken from the latter.
    last_of_each = torch.cat([columns.diff() > 0, torch.tensor([True])])
    centres = (columns[last_of_each] * stride + patch.time / 2).double() * features.frame_seconds
    heard = max(1, int((centres <= audio.shape[1] / features.sample_rate).sum()))
    vectors = torch.stack([one.embedding.vectors[last_of_each][:heard] for one in made])
    milliseconds = (1000 * centres[:heard]).float().repeat(len(made), 1)
    return vectors.to(audio.device), milliseconds.to(audio.device)
