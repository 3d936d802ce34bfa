"""The state of a training run on disk: saved atomically, restored exactly; and the running average of weights.

What a state holds is listed in `state.RunState`.
"""

from __future__ import annotations

import hashlib
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.tensors import DAMAGE, load_pickle, reason
from ..classifier.audio_classifier import AudioClassifier
from ..errors import CheckpointError, FileError, FlexiASTError, is_whole_number
from ..runtime.files import replacing
from .tuning import merged

logger = logging.getLogger(__name__)


class SaveError(FlexiASTError):
    """A file of a run could not be written; its last good state is kept."""


class CheckpointStore:
    """The training states of a run: `step-00001000.pt` and so on, the newest few of them.

    Each is written whole or not at all, and only then is the oldest removed, so that a full disk or a killed process
    leaves the last good one.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory, self.keep = directory, keep

    def paths(self) -> list[Path]:
        """The states on disk, oldest first; copies under other names, such as step-best.pt, are not counted."""
        return sorted(path for path in self.directory.glob("step-*.pt") if re.fullmatch(r"step-\d{8,}\.pt", path.name))

    def advice(self) -> str:
        """Which state is the last good one, for the error that ends a run."""
        if kept := self.paths():
            return f"the last good checkpoint is {kept[-1]}, the same command goes on from there"
        if not self.directory.parent.exists():
            return "its checkpoints are where it is now"
        return "there is no checkpoint yet, the same command starts anew"

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a state (tensors, numbers, text and containers of them). Raises SaveError if it cannot be written."""
        path = self.directory / f"step-{step:08d}.pt"
        try:
            with replacing(path) as file:
                torch.save(state, file)
        except (FileError, OSError, RuntimeError) as error:  # RuntimeError: torch's zip writer on a full disk
            raise SaveError(f"{path}: not written ({reason(error)}); {self.advice()}") from None
        for old in self.paths()[: -self.keep]:
            old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """The newest readable state, none if none was ever saved. Raises CheckpointError if all are damaged."""
        damaged = []
        for path in reversed(self.paths()):
            try:
                state = load_state(path)
            except CheckpointError as error:
                damaged.append(str(error))
                logger.warning("%s; going back to the one before", error)
            else:
                return state
        if damaged:
            raise CheckpointError("; ".join(damaged) + "; remove them to start anew")
        return None


def load_state(path: Path) -> dict[str, Any]:
    """Read one state of a CheckpointStore, running no code. Raises CheckpointError if any byte of it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        state = load_pickle(path)
    except DAMAGE as error:
        raise CheckpointError(f"{path}: not readable as a training state ({reason(error)})") from None
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise CheckpointError(f"{path}: found no training state in it, expected one with a step")
    return state


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over the names and values of a model's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def rng_state() -> dict[str, Any]:
    """State of torch's global generators, on CPU and GPUs."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_rng(state: dict[str, Any]) -> None:
    """Set the generators back; GPU states only where there are as many GPUs."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


class WeightAverage:
    """The uniform running mean of a model's weights at the moments `add` is called, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    def add(self, model: AudioClassifier) -> None:
        """Add the model's present weights."""
        self.count += 1
        for name, tensor in merged(model).state_dict().items():
            value = tensor.detach().cpu().double()
            mean = self.mean.setdefault(name, torch.zeros_like(value))
            mean += (value - mean) / self.count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError if it is no average."""
        count, mean = state["count"], state["mean"]
        if not is_whole_number(count) or count < 0 or bool(count) != bool(mean):
            raise ValueError(f"average: found {len(mean)} tensors over {str(count)[:40]} models")
        if not all(isinstance(tensor, Tensor) and tensor.dtype == torch.float64 for tensor in mean.values()):
            raise ValueError("average: found other things among its tensors, expected float64 alone")
        self.count, self.mean = count, mean

    def model(self, like: AudioClassifier) -> AudioClassifier:
        """A model like this one, with the mean of the weights."""
        averaged = AudioClassifier(like.config, like.feature_config, like.labels, like.loss, like.metadata)
        averaged.load_state_dict(self.weights())
        return averaged.to(like.kernel.device)

    def weights(self) -> dict[str, Tensor]:
        """The mean so far, float32, as a state dict."""
        return {name: mean.float() for name, mean in self.mean.items()}
