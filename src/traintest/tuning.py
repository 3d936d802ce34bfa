"""Which weights a fine-tuning changes: all, the classifier, the last blocks, or low-rank additions (LoRA)."""

from __future__ import annotations

import copy
import re
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..classifier.audio_classifier import AudioClassifier
from ..errors import ConfigError, is_whole_number

RANK = 8
"""Rank of LoRA's additions, unless one is given."""
FORMS = "all, head, last:N, lora or lora:RANK"


class LowRank(nn.Module):
    """A weight (out, in) plus 2 B A, B (out, r) and A (r, in) trained, the weight itself frozen.

    B starts at zero, so that training starts from the weight as it is. Source: LoRA, Hu et al., ICLR 2022, section 4.1,
    with alpha twice the rank.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.randn(rank, columns, device=weight.device) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 2 * self.up @ self.down


def parse_tune(text: str) -> tuple[str, int]:
    """`last:2` as ("last", 2); the rank for LoRA, 0 for `all` and `head`. Raises ConfigError for anything else."""
    match = re.fullmatch(r"(all|head)|(last):(\d{1,4})|(lora)(?::(\d{1,4}))?", text)
    if match is None or "0" in (match[3], match[5]):
        raise ConfigError(f"tune: found {text!r}, expected {FORMS}")
    return match[1] or match[2] or match[4], int(match[3] or match[5] or (RANK if match[4] else 0))


def select_trained(model: AudioClassifier, tune: str) -> None:
    """Freeze what is not to be trained, in place; `lora` adds low-rank matrices to every linear layer of the blocks.

    The classifier and its norm are always trained. Raises ConfigError for more blocks than there are.
    """
    kind, number = parse_tune(tune)
    if kind == "all":
        return
    blocks: list[Any] = list(model.blocks)
    if kind == "last" and number > len(blocks):
        raise ConfigError(f"tune: found last:{number}, the network has {len(blocks)} blocks")
    model.requires_grad_(False)
    trained: list[nn.Module] = [model.head_norm, model.head]
    if kind == "last":
        trained += [*blocks[-number:], model.norm]
    for module in trained:
        module.requires_grad_(True)
    for block in blocks if kind == "lora" else ():
        for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            parametrize.register_parametrization(linear, "weight", LowRank(linear.weight, number))


def merged(model: AudioClassifier) -> AudioClassifier:
    """The model with LoRA's additions inside its weights; a copy, or the model itself if it has none."""
    if not any(map(parametrize.is_parametrized, model.modules())):
        return model
    plain = AudioClassifier(model.config, model.feature_config, model.labels, model.loss, model.metadata)
    plain.load_state_dict({name: attrgetter(name)(model) for name in plain.state_dict()})
    return plain.to(model.kernel.device).train(model.training)


class MovingAverage:
    """The exponential moving average of the trained weights, float32.

    decay: of each step; early in a run it is lower, so that the average is not that of the start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.mean = {name: p.detach().float().clone() for name, p in model.named_parameters() if p.requires_grad}

    @classmethod
    def over(cls, model: nn.Module, share: float, total_steps: int) -> MovingAverage | None:
        """An average that looks back over this share of a run's steps; none for a share of 0."""
        return cls(model, 1 - 1 / max(1.0, share * total_steps)) if share else None

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Update the average with the weights after a step."""
        self.steps += 1
        new = 1 - min(self.decay, self.steps / (9 + self.steps))
        weights = dict(model.named_parameters())
        for name, mean in self.mean.items():
            mean.lerp_(weights[name].float(), new)

    @torch.no_grad()
    def model(self, like: AudioClassifier) -> AudioClassifier:
        """A model like this one, with the averaged weights."""
        averaged = copy.deepcopy(like)
        for name, parameter in averaged.named_parameters():
            if name in self.mean:
                parameter.copy_(self.mean[name])
        return averaged

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError or RuntimeError if it is of another model, ValueError for an impossible number of steps."""
        if not is_whole_number(state["steps"]) or state["steps"] < 0:
            raise ValueError(f"ema: found {str(state['steps'])[:40]} steps, expected a whole number of at least 0")
        self.steps = state["steps"]
        for name, mean in self.mean.items():
            mean.copy_(state["mean"][name])
