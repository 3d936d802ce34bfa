"""Where a model lies: a path, a repository of the Hugging Face Hub, or the one that timm names for an image model."""

from __future__ import annotations

import os
import re
from pathlib import Path

import timm
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from .errors import CheckpointError
from .models.checkpoint import PREPROCESSOR, SIDECAR, WEIGHT_FILES

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
TIMM = "timm:"


def locate(source: str | os.PathLike[str]) -> Path:
    """The file or directory of a source, downloaded from the Hub if it is not a path that exists.

    Raises CheckpointError if the Hub cannot be reached or has no such model. A source that is neither a path nor a
    Hub id comes back as it is.
    """
    text = os.fspath(source)
    if text.startswith(TIMM):
        return _download(_timm_repository(text.removeprefix(TIMM)), text)
    if not os.path.exists(text) and HUB_ID.fullmatch(text):
        return _download(text, text)
    return Path(text)


def _timm_repository(name: str) -> str:
    """The Hub repository with the weights of a timm model (its tag optional)."""
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not config.hf_hub_id:
        raise CheckpointError(f"{TIMM}{name}: timm knows no such model with weights on the Hub")
    return config.hf_hub_id


def _download(repository: str, source: str, revision: str | None = None) -> Path:
    """Descriptions and weights of a repository in the Hub's cache; safetensors where there are any."""
    try:
        for weights in WEIGHT_FILES:
            directory = Path(
                snapshot_download(repository, revision=revision, allow_patterns=[SIDECAR, PREPROCESSOR, weights])
            )
            if (directory / weights).exists():
                break
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{source}: no such path, and the Hub did not give {repository} ({type(error).__name__}: {reason})"
        ) from None
    return directory
