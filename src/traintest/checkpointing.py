"""The state of a training run on disk: saved atomically, restored exactly; and the running average of weights."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from ..models.checkpoint import write_atomically


def require_writable(directory: Path) -> None:
    """Make the directory; raise ConfigError now, not after the work, if nothing can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"out: {directory} is not writable ({error.strerror})") from None


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors, numbers, text and containers of them) whole, or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, running no code. Raises CheckpointError if it is damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, ValueError, EOFError, LookupError, AssertionError) as error:
        raise CheckpointError(
            f"{path}: not readable as a training state ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from None
    if not isinstance(state, dict) or "step" not in state:
        raise CheckpointError(f"{path}: found no training state in it, expected one with a step")
    return state


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

    def add(self, model: nn.Module) -> None:
        """Take in the model's weights as they are now."""
        self.count += 1
        for name, tensor in model.state_dict().items():
            value = tensor.detach().cpu().double()
            mean = self.mean.setdefault(name, torch.zeros_like(value))
            mean += (value - mean) / self.count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.mean = state["count"], state["mean"]

    def weights(self) -> dict[str, Tensor]:
        """The mean so far, float32, as a state dict."""
        return {name: mean.float() for name, mean in self.mean.items()}
