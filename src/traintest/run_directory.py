"""What a run directory holds, and whether the run in it may go on.

train_config.json               the settings
train.jsonl, epochs.csv, ...    the log, see `run_log`
bad_files.csv                   clips that could not be used
statistics.json                 mean and deviation of the training data, where they were measured
checkpoints/                    the newest states, to go on from
model.safetensors, config.json  the model to use
.lock                           names the process that is at work here, while it is
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from torch import Tensor

from ..classifier.audio_classifier import AudioClassifier
from ..data.fingerprint import contents_fingerprint
from ..data.manifest import Manifest
from ..data.table_options import TableOptions
from ..errors import CheckpointError, ConfigError
from ..runtime.arguments import to_json
from ..runtime.files import remove_leftovers, require_writable, to_json_text, write_atomically
from ..runtime.lock import locked, require_unlocked
from ..runtime.output import OutputOptions
from .checkpointing import CheckpointStore, weights_hash
from .config import Log, TrainConfig
from .defaults import Choice
from .options import DataConfig, PatchOptions
from .run_log import RunLog

logger = logging.getLogger(__name__)

# Settings that may differ between the two halves of an interrupted run: they do not change what is learnt. The data
# are compared by what is in them, not by where they are.
FREE_SETTINGS = frozenset(
    {"out", "data.train", "data.val", "data.labels", "data.root", "data.workers", "data.timeout", "data.strict"}
    | {"data.max_bad", "data.val_where", "micro_batch", "token_budget", "device", "threads", "compile", "log"}
    | {"log_every", "save_every", "save_every_minutes", "keep_checkpoints", "override", "dist_timeout"}
    | {"distill.scores"}
    | {f"data.{field.name}" for field in dataclasses.fields(TableOptions)}
    | {field.name for field in dataclasses.fields(OutputOptions)}
)


@dataclasses.dataclass(frozen=True)
class Data:
    """Fingerprints of what a run learns from, compared when it is resumed."""

    fingerprints: Sequence[str]
    """Of names, sizes and classes of the training and validation clips."""
    contents: Sequence[str]
    """Of a sample of their contents. Older states have none, which then are not compared."""
    teacher: str | None
    """Of the teacher's weights or stored scores, likewise."""

    @classmethod
    def of(
        cls, train: Manifest, val: Manifest | None, teacher: AudioClassifier | None, scores: Tensor | None = None
    ) -> Data:
        """Read what these hold."""
        contents = [contents_fingerprint(data) for data in (train, val) if data is not None]
        taught = weights_hash(teacher) if teacher else None
        if scores is not None:
            taught = hashlib.sha256(scores.numpy().data).hexdigest()
        return cls([data.fingerprint for data in (train, val) if data is not None], contents, taught)

    def state(self) -> dict[str, Any]:
        """The part that a state stores."""
        return {"data": list(self.fingerprints), "contents": list(self.contents), "teacher": self.teacher}

    def differences(self, state: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """What has changed since the state was saved, in words."""
        changed, current = [], self.state()
        if state["data"] != current["data"]:
            changed.append(f"the data: {settings['data']['train']} or its validation data have changed")
        elif state.get("contents", current["contents"]) != current["contents"]:
            changed.append(f"the data: the contents of clips of {settings['data']['train']} or its validation data")
        if state.get("teacher", self.teacher) != self.teacher:
            teacher, scores = (settings["distill"].get(name) for name in ("teacher", "scores"))
            changed.append(f"the teacher: the {'weights' if scores is None else 'scores'} of {scores or teacher}")
        return changed


class RunDirectory:
    """The files of one run; nothing is written before `open`."""

    def __init__(self, path: Path, keep_checkpoints: int) -> None:
        self.path = path
        self.states = CheckpointStore(path / "checkpoints", keep_checkpoints)
        self.bad_files = path / "bad_files.csv"
        self._settings, self._choices = path / "train_config.json", path / "choices.csv"

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes out. Raises ConfigError, naming the process, if one is at work here."""
        return locked(self.path)

    def require_unlocked(self) -> None:
        """Raise ConfigError if a process is at work here now: early, before the data are read."""
        require_unlocked(self.path)

    def resumable_state(self, settings: Mapping[str, Any], data: Data, override: bool) -> dict[str, Any] | None:
        """The newest state, to go on from; none for a new run, or for one that has not trained a step.

        settings: of this start, as JSON. Raises ConfigError if the state belongs to a run with other settings or data,
        unless `override`; CheckpointError if it is damaged.
        """
        state = self.states.latest()
        if state is None:
            if self.has_model:
                raise ConfigError(
                    f"out: {self.path} already holds a model but no training state; choose another folder"
                )
            return None
        if missing := {"config", "data", "log_bytes", "model"} - state.keys():
            raise CheckpointError(f"{self.states.directory}: the newest state lacks {', '.join(sorted(missing))}")
        try:
            changed = differences(_saved_settings(state), settings, _usual()) + data.differences(state, settings)
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{self.states.directory}: the newest state is none of a run ({error!r})") from None
        if changed and state["step"] == 0:
            return None
        if changed and not override:
            raise ConfigError(
                f"{self.states.directory}: belongs to a run with other settings ({'; '.join(changed)}); repeat its"
                " settings to go on with it, choose another out, or go on all the same with --override"
            )
        return state

    @property
    def has_model(self) -> bool:
        """Whether there is a model to use."""
        return (self.path / "model.safetensors").exists()

    def require_model(self) -> None:
        """Raise ConfigError if a finished run has lost its model."""
        if not self.has_model:
            raise ConfigError(
                f"out: {self.path} is trained to its end, but its model.safetensors is gone; put it back, or remove"
                f" {self.states.directory} to train anew"
            )

    def open(
        self, settings: Mapping[str, Any], choices: Sequence[Choice], log: Log, state: Mapping[str, Any] | None
    ) -> RunLog:
        """Start the files of the run, or, given the state it goes on from, take them up again. Returns its log.

        What a failed start or a killed process has left is removed.
        """
        require_writable(self.path)
        for directory in (self.path, self.states.directory):
            remove_leftovers(directory)
        write_atomically(self._settings, (to_json_text(settings, indent=1) + "\n").encode())
        if state is None:
            write_atomically(self._choices, _as_csv(choices).encode())
            self.bad_files.unlink(missing_ok=True)
        step, size = (state["step"], state["log_bytes"]) if state else (0, 0)
        return RunLog(self.path, log, dict(settings), step, size)

    def saved_choices(self) -> dict[str, Any]:
        """What the run that can be gone on with here chose for settings left open, by `section.name`, as JSON."""
        if not (self.states.paths() and self._settings.exists() and self._choices.exists()):
            return {}
        try:
            settings = json.loads(self._settings.read_text(encoding="utf-8"))
            with open(self._choices, newline="", encoding="utf-8") as file:
                names = [row["setting"] for row in csv.DictReader(file)]
            return {name: reduce(getitem, name.split("."), settings) for name in names}
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise ConfigError(
                f"{self.path}: its train_config.json and choices.csv do not fit each other ({error}); choose another"
                " folder, or remove its checkpoints to train anew"
            ) from None


def _as_csv(choices: Sequence[Choice]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["setting", "value", "reason"])
    writer.writerows([choice.setting, choice.value, choice.reason] for choice in choices)
    return text.getvalue()


def _saved_settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a state, which may be malformed. Raises KeyError, ValueError, TypeError or RecursionError."""
    for name, kind in (("config", str), ("data", list), ("log_bytes", int), ("model", dict)):
        if not isinstance(state[name], kind):
            raise TypeError(f"{name}: {type(state[name]).__name__}")
    settings = json.loads(state["config"])
    if not isinstance(settings, dict) or state["log_bytes"] < 0:
        raise ValueError("config or log_bytes")
    patches = settings.get("patches")
    if isinstance(patches, dict) and patches.get("rectangles") is False:  # as written before `auto`
        uniform = patches.get("draw") == "uniform"
        settings["patches"] = patches | {"rectangles": "auto", "draw": None if uniform else patches.get("draw")}
    return settings


def _usual() -> dict[str, Any]:
    """The settings, as JSON, of a run that names nothing but its data: what versions without a setting did."""
    every_patch = PatchOptions(dropout=0.0)  # as a run has it when nothing is left open
    usual: dict[str, Any] = to_json(TrainConfig(DataConfig(Path()), Path(), patches=every_patch))
    return usual


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], usual: Mapping[str, Any] | None = None, prefix: str = ""
) -> list[str]:
    """Settings that two configurations (as JSON) disagree on, `name: old -> new`, those in FREE_SETTINGS left out.

    usual: settings that count where the old ones have none, being older than the setting.
    """
    usual, changed = usual or {}, []
    for name in sorted(old.keys() | new.keys()):
        path, b = prefix + name, new.get(name)
        a = old.get(name, usual.get(name) if name in new else None)
        if isinstance(a, dict) and isinstance(b, dict):
            changed += differences(a, b, usual.get(name), path + ".")
        elif a != b and path not in FREE_SETTINGS:
            changed.append(f"{path}: {json.dumps(a)} -> {json.dumps(b)}")
    return changed
