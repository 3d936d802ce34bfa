"""A model as an audio encoder of MTEB (Massive Text Embedding Benchmark; MAEB is its audio), for `mteb.evaluate`.

Dimensions: n sounds, m other sounds, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import __version__
from ..errors import ConfigError, DataError
from ..models.geometry import PatchLike, PatchSize
from ..runtime.extras import optional
from .embeddings import Layer
from .load import load


class Encoder:
    """MTEB's `EncoderProtocol` for tasks of audio: `mteb.evaluate(Encoder("exp/flexible", patch_size=16), tasks)`."""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        patch_size: PatchLike | None = None,
        layer: Layer | None = None,
        **kwargs: Any,
    ) -> None:
        """model_name: a checkpoint of any readable format. revision: named in the results. patch_size: default: the
        model's base. layer: as of `AudioClassifier.embed`. Raises CheckpointError as `load`.
        """
        self.model = load(model_name, device or "cpu")
        self.patch = PatchSize.parse(self.model.config.patch_size if patch_size is None else patch_size)
        self.name, self.revision, self.layer = model_name, revision, layer

    def encode(self, inputs: Iterable[Mapping[str, Any]], *, task_metadata: Any, **kwargs: Any) -> np.ndarray:
        """Embeddings (n, D) float32 of the sounds under `audio` in batches, whatever their rates and lengths.

        Raises ConfigError for batches without sounds, DataError for an unusable sound.
        """
        vectors = list[Tensor]()
        for batch in inputs:
            if "audio" not in batch:
                name = getattr(task_metadata, "name", task_metadata)
                raise ConfigError(f"task {name}: found {', '.join(batch)}, expected audio: choose tasks of audio alone")
            made = self.model.embed(list(batch["audio"]), self.patch, self.layer)
            if any(not len(vector) for vector in made):
                raise DataError(f"sound {len(vectors) + [len(vector) for vector in made].index(0)}: not usable")
            vectors += made
        return torch.stack(vectors).numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines (n, m) of embeddings (n, D) and (m, D)."""
        return _unit(embeddings1) @ _unit(embeddings2).mT

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines (n,) of embeddings (n, D) and (n, D), row by row."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=1)

    @property
    def mteb_model_meta(self) -> Any:
        """How results name the model. Raises ConfigError where MTEB is not installed."""
        facts = {
            "name": f"flexiast/{self.name.strip('/').replace('/', '__')}-patch-{self.patch}",
            "revision": self.revision or __version__,
            "n_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "embed_dim": self.model.config.width,
            "modalities": ["audio"],
        }
        return optional("mteb.models", "mteb").ModelMeta.create_empty(overwrites=facts)


def _unit(embeddings: Any) -> Tensor:
    return F.normalize(torch.atleast_2d(torch.as_tensor(embeddings).float()), dim=1)
