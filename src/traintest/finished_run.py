"""A run on disk: its settings, its log, its model, and the clips it was validated on."""

from __future__ import annotations

import dataclasses
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.load import load
from ..data.manifest import Manifest, read_manifest
from ..data.split import split_off
from ..errors import ConfigError, FlexiASTError
from .options import DataConfig
from .run_log import read_log

SETTINGS = "train_config.json"


def is_run(path: Path) -> bool:
    """Whether a folder is the `out` of a training."""
    return os.path.isfile(path / SETTINGS)


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """The run in a folder, finished or not. Nothing is read before it is asked for."""

    path: Path

    def __post_init__(self) -> None:
        if not is_run(self.path):
            raise ConfigError(f"{self.path}: found no {SETTINGS}, expected the folder of a run (--out of a training)")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """As `train_config.json` has them. Raises ConfigError if they cannot be read."""
        file = self.path / SETTINGS
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            return {"data": dict(content["data"]), "optim": dict(content["optim"])} | content
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}: not readable as the settings of a run ({error!r})") from None

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        """Lines of the log about steps: step, epoch, loss, lr, ... Raises FileError if there is no log."""
        return [record for record in self._log if "loss" in record]

    @cached_property
    def validations(self) -> list[dict[str, Any]]:
        """Lines of the log about validations; `validation` in them holds the metrics by patch size."""
        return [record for record in self._log if "validation" in record]

    @cached_property
    def _log(self) -> list[dict[str, Any]]:
        return list(read_log(self.path / "train.jsonl"))

    @cached_property
    def has_model(self) -> bool:
        """Whether a model has been kept yet."""
        return (self.path / "model.safetensors").exists()

    @cached_property
    def model(self) -> AudioClassifier:
        """The model it kept, read once. Raises CheckpointError if there is none."""
        return load(self.path)

    def validation_data(self) -> Manifest | None:
        """The clips it was validated on, split off again as then; None if it had none.

        Raises FlexiASTError if they are not where they were: paths may be relative to the folder it was started in.
        """
        try:
            data = DataConfig(**_fields(self.settings["data"]))
            if not data.val:
                return None
            numbers = self.settings.get("loss") == "mse"
            labels = self.model.labels if numbers else data.labels  # the targets, in the model's order
            train = read_manifest(
                data.train, labels, data.root, data.train_table(), numbers=numbers, streaming=data.streaming
            )
            if isinstance(data.val, float):
                return split_off(train, data.val, self.settings.get("seed", 0)).val
            streaming = data.streams(data.val)
            return read_manifest(
                data.val, train.labels, data.root, data.val_table(), numbers=numbers, streaming=streaming
            )
        except (FlexiASTError, TypeError) as error:
            raise ConfigError(f"{self.path}: its data are not where they were: {error}") from None


def _fields(saved: dict[str, Any]) -> dict[str, Any]:
    """Fields of `DataConfig` from JSON; those of other versions are left out."""
    kept: dict[str, Any] = {}
    for name in {field.name for field in dataclasses.fields(DataConfig)} & saved.keys():
        value = saved[name]
        is_path = name in ("train", "val", "labels", "root") and isinstance(value, str)
        kept[name] = Path(value) if is_path else tuple(value) if isinstance(value, list) else value
    return kept
