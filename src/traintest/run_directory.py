"""What a run directory holds, and whether the run in it may go on.

train_config.json               the settings
train.jsonl, epochs.csv, ...    the log, see `run_log`
bad_files.csv                   clips that could not be used
statistics.json                 mean and deviation of the training data, where they were measured
checkpoints/                    the newest states, to go on from
model.safetensors, config.json  the model to use
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.table_options import TableOptions
from ..errors import CheckpointError, ConfigError
from ..runtime.files import require_writable, write_atomically
from .checkpointing import CheckpointStore
from .config import Log
from .defaults import Choice
from .run_log import RunLog

# Settings that may differ between the two halves of an interrupted run: they do not change what is learnt. The data
# are compared by what is in them, not by where they are.
FREE_SETTINGS = frozenset(
    {"out", "data.train", "data.val", "data.labels", "data.root", "data.workers", "data.timeout", "data.strict"}
    | {"data.max_bad", "micro_batch", "token_budget", "device", "threads", "compile", "log", "log_every"}
    | {"save_every", "save_every_minutes", "keep_checkpoints", "override"}
    | {f"data.{field.name}" for field in dataclasses.fields(TableOptions)}
)


class RunDirectory:
    """The files of one run; nothing is written before `open`."""

    def __init__(self, path: Path, keep_checkpoints: int) -> None:
        self.path = path
        self.states = CheckpointStore(path / "checkpoints", keep_checkpoints)
        self.bad_files = path / "bad_files.csv"
        self._settings = path / "train_config.json"

    def resumable_state(
        self, settings: Mapping[str, Any], data: Sequence[str], override: bool
    ) -> dict[str, Any] | None:
        """The newest state, to go on from; none for a new run.

        settings: of this start, as JSON. data: fingerprints of its data. Raises ConfigError if the state belongs to a
        run with other settings or data, unless `override`; CheckpointError if it is damaged.
        """
        state = self.states.latest()
        if state is None:
            if (self.path / "model.safetensors").exists():
                raise ConfigError(
                    f"out: {self.path} already holds a model but no training state; choose another folder"
                )
            return None
        if missing := {"config", "data", "log_bytes", "model"} - state.keys():
            raise CheckpointError(f"{self.states.directory}: the newest state lacks {', '.join(sorted(missing))}")
        changed = differences(json.loads(state["config"]), settings)
        if state["data"] != list(data):
            changed.append(f"the data: {settings['data']['train']} or its validation data have changed")
        if changed and not override:
            raise ConfigError(
                f"{self.states.directory}: belongs to a run with other settings ({'; '.join(changed)}); repeat its"
                " settings to go on with it, choose another out, or go on all the same with --override"
            )
        return state

    def open(
        self, settings: Mapping[str, Any], choices: Sequence[Choice], log: Log, state: Mapping[str, Any] | None
    ) -> RunLog:
        """Start the files of the run, or, given the state it goes on from, take them up again. Returns its log."""
        require_writable(self.path)
        if state is None:
            text = json.dumps(settings, indent=1) + "\n"
            write_atomically(self._settings, text.encode())
            write_atomically(self.path / "choices.csv", _as_csv(choices).encode())
        step, size = (state["step"], state["log_bytes"]) if state else (0, 0)
        return RunLog(self.path, log, dict(settings), step, size)

    def saved_settings(self) -> dict[str, Any] | None:
        """The settings of the run that can be gone on with here, as JSON; none if there is none."""
        if not self.states.paths() or not self._settings.exists():
            return None
        try:
            settings = json.loads(self._settings.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._settings}: not readable as the settings of a run ({error})") from None
        return settings if isinstance(settings, dict) else None


def _as_csv(choices: Sequence[Choice]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["setting", "value", "reason"])
    writer.writerows([choice.setting, choice.value, choice.reason] for choice in choices)
    return text.getvalue()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings that two configurations (as JSON) disagree on, `name: old -> new`, those in FREE_SETTINGS left out."""
    changed = []
    for name in sorted(old.keys() | new.keys()):
        path, a, b = prefix + name, old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            changed += differences(a, b, path + ".")
        elif a != b and path not in FREE_SETTINGS:
            changed.append(f"{path}: {json.dumps(a)} -> {json.dumps(b)}")
    return changed
