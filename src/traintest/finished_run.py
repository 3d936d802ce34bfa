"""A run on disk: its settings, its log, its model, and the clips it was validated on."""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.load import load
from ..data.manifest import Manifest, read_manifest
from ..data.split import split_off
from ..data.table_options import TableOptions
from ..errors import ConfigError, FlexiASTError
from .run_log import read_log

SETTINGS = "train_config.json"


def is_run(path: Path) -> bool:
    """Whether a folder is the `out` of a training."""
    return (path / SETTINGS).is_file()


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

    def model(self) -> AudioClassifier:
        """The model it kept. Raises CheckpointError if there is none."""
        return load(self.path)

    def validation_data(self) -> Manifest | None:
        """The clips it was validated on, split off again as then; None if it had none.

        Raises FlexiASTError if they are not where they were: paths may be relative to the folder it was started in.
        """
        data, seed = self.settings["data"], self.settings.get("seed", 0)
        val = data.get("val")
        if not val:
            return None
        names = {field.name for field in dataclasses.fields(TableOptions)}
        try:
            options = TableOptions(**{name: value for name, value in data.items() if name in names})
            labels, root = (Path(data[name]) if data.get(name) else None for name in ("labels", "root"))
            train = read_manifest(Path(data["train"]), labels, root, options)
            if isinstance(val, (int, float)):
                return split_off(train, val, seed).val
            return read_manifest(Path(val), train.labels, root, options)
        except FlexiASTError as error:
            raise ConfigError(f"{self.path}: its data are not where they were: {error}") from None
