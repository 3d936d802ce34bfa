"""The Hugging Face Hub: find and download a model by name, and push a model to the Hub."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import ModelHubMixin, snapshot_download

from ..errors import CheckpointError
from .checkpoint import (
    INDEX,
    PREPROCESSOR,
    SIDECAR,
    WEIGHT_FILES,
    Checkpoint,
    no_such_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from .released import RELEASES, released_file

logger = logging.getLogger(__name__)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NO_HUB_ID = (".pth", ".pt", ".pt2", ".bin", ".ckpt", ".safetensors", ".json", ".onnx", ".csv")
"""Ends of names that are files, though a Hub id could be spelled so."""
TIMM = "timm:"
CARD = """---
{{ card_data }}
---

A FlexiAST: one Audio Spectrogram Transformer for every patch size. Settings, labels and training are in `config.json`.

    import flexiast
    model = flexiast.load("<this repository>")
    model.predict("clip.wav", patch_size=16)
"""


def is_model_name(text: str) -> bool:
    """Whether a text can name a model that is no path: a release, a Hub id or `timm:NAME`. Asks no server."""
    if text in RELEASES or text.startswith(TIMM):
        return True
    is_file = text.lower().endswith(NO_HUB_ID) or os.path.exists(os.path.dirname(text))
    return bool(HUB_ID.fullmatch(text)) and not is_file


def locate(source: str | os.PathLike[str], **options: Any) -> Path:
    """The local file or directory of a source: an existing path, a release by name, or a Hub model (downloaded).

    options: passed to `huggingface_hub.snapshot_download`. Raises CheckpointError if there is no such file, if the Hub
    cannot be reached or does not have the model, or if a release has not been fetched.
    """
    text = os.fspath(source)
    if text.startswith(TIMM):
        return _download(_timm_repository(text.removeprefix(TIMM)), text, options)
    if os.path.exists(text):
        return Path(text)
    if text in RELEASES:
        return released_file(text)
    if not is_model_name(text):
        raise no_such_checkpoint(Path(text), () if os.path.dirname(text) else RELEASES)
    logger.info("%s: no such file or folder; asking the Hugging Face Hub for a model of that name", text)
    return _download(text, text, options)


def read_located(
    source: str | os.PathLike[str], heads: int | None = None, frames: int | None = None, **options: Any
) -> Checkpoint:
    """Read a path, a Hub id or `timm:NAME`; for arguments and errors see `locate` and `read_checkpoint`."""
    checkpoint = read_checkpoint(locate(source, **options), heads, frames)
    if checkpoint.report:
        checkpoint.report.source = os.fspath(source)
    return checkpoint


def _timm_repository(name: str) -> str:
    """The Hub repository with a timm model's weights (tag optional), so that no timm download is ever unpickled."""
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not config.hf_hub_id:
        raise CheckpointError(f"{TIMM}{name}: timm knows no such model with weights on the Hub")
    return config.hf_hub_id


def _download(repository: str, source: str, options: dict[str, Any]) -> Path:
    """Download descriptions and weights into the Hub's cache, preferring safetensors; return the directory."""
    try:
        for weights in WEIGHT_FILES:
            stem, suffix = weights.rsplit(".", 1)
            files = [SIDECAR, PREPROCESSOR, weights, weights + INDEX, f"{stem}-*-of-*.{suffix}"]
            directory = Path(snapshot_download(repository, allow_patterns=files, **options))
            if (directory / weights).exists() or (directory / (weights + INDEX)).exists():
                break
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source}: no such file or directory, and no model that the Hugging Face Hub gives ({_reason(error)});"
            " expected a checkpoint here, or the name of one on the Hub"
        ) from None
    return directory


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"


class HubMixin(ModelHubMixin, library_name="flexiast", tags=["audio-classification"], model_card_template=CARD):
    """`save_pretrained`, `push_to_hub` and `from_pretrained` in our own format, for a model with `checkpoint()`."""

    checkpoint: Callable[[], Checkpoint]
    """Method of the inheriting class that returns weights, configuration and metadata."""
    from_checkpoint: Callable[[Checkpoint, str], Any]
    """Class method of the inheriting class that builds the model from a checkpoint."""

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_options: Any,
    ) -> str | None:
        """Write `model.safetensors` and `config.json`, which `flexiast.load(directory)` reads.

        push_to_hub: also push to `repo_id` (default: the directory's name), and return the commit's URL. A model card
        is written if `model_card_kwargs` is given; `push_to_hub` always gives them.
        """
        directory = Path(save_directory)
        save_checkpoint(directory, self.checkpoint())
        if model_card_kwargs is not None:
            self.generate_model_card(**model_card_kwargs).save(directory / "README.md")
        if not push_to_hub:
            return None
        push_options.pop("config", None)  # save_checkpoint has already written the full config.json
        return self.push_to_hub(repo_id or directory.name, **push_options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # type: ignore[override]
        """Push the model with a model card, and return the commit's URL; options: those of ModelHubMixin."""
        options.setdefault("model_card_kwargs", {})
        return super().push_to_hub(repo_id, **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **options: Any):  # type: ignore[override]
        """What `flexiast.load` returns, with the options of huggingface_hub (revision, token, cache_dir, ...).

        Raises CheckpointError if the model cannot be downloaded or is in an unknown format.
        """
        try:
            return super().from_pretrained(os.fspath(pretrained_model_name_or_path), **options)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{pretrained_model_name_or_path}: not on the Hub ({_reason(error)})") from None

    @classmethod
    def _from_pretrained(cls, *, model_id: str, device: Any = None, **options: Any):  # type: ignore[override]
        hub = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        checkpoint = read_located(model_id, **{name: options[name] for name in hub})
        return cls.from_checkpoint(checkpoint, model_id).to(device or "cpu")
