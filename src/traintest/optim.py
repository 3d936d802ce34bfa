"""Optimizers, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from .options import OptimConfig


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a run; each group's peak rate stays in its `peak_lr`."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    depth = 1 + max((_block(name) for name, _ in named), default=0)
    fused = all(p.device.type in ("cpu", "cuda") for _, p in named)
    if config.name == "adam":
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(
                _by_rate(named, config, depth, config.lr),
                config.lr,
                config.betas,
                weight_decay=config.weight_decay,
                fused=fused,
            )
        ]
    else:
        in_muon = {n for n, p in named if config.name == "muon" and n.startswith("blocks.") and p.ndim == 2}
        rest = [(n, p) for n, p in named if n not in in_muon]
        groups = [
            group | {"weight_decay": config.weight_decay if decays else 0.0}
            for decays in (True, False)
            for group in _by_rate([(n, p) for n, p in rest if _decays(n, p) == decays], config, depth, config.lr)
        ]
        groups.sort(key=lambda group: group["lr"] != config.lr)
        optimizers = [torch.optim.AdamW(groups, config.lr, config.betas, fused=fused)]
        if in_muon:
            matrices = _by_rate([(n, p) for n, p in named if n in in_muon], config, depth, config.muon_lr)
            optimizers.append(torch.optim.Muon(matrices, config.muon_lr, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def _block(name: str) -> int:
    """Number of the block that a parameter belongs to, -1 for what comes before the blocks or after them."""
    return int(name.split(".")[1]) if name.startswith("blocks.") else -1


def _rate(name: str, config: OptimConfig, depth: int, lr: float) -> float:
    """Peak rate of a parameter: `layer_decay` to the power of the layers above it, or the classifier's own."""
    if name.startswith("head") and config.head_lr is not None:
        return config.head_lr
    if name.startswith(("head", "norm")):
        return lr
    return lr * config.layer_decay ** (depth - _block(name))


def _by_rate(named: list[tuple[str, nn.Parameter]], config: OptimConfig, depth: int, lr: float) -> list[dict[str, Any]]:
    """Parameter groups of equal peak rates, the one with `lr` itself first: its rate is logged."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named:
        groups.setdefault(_rate(name, config, depth, lr), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda group: group[0] != lr)
    return [{"params": parameters, "lr": rate} for rate, parameters in ordered]


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Matrices and the patch kernel decay; biases, norms, prefix tokens and positions do not."""
    return parameter.ndim >= 2 and not name.startswith(("prefix", "pos_embed"))


def lr_factor(step: int, total_steps: int, steps_per_epoch: float, config: OptimConfig) -> float:
    """Share of the peak learning rate at a step, counted from 0: warm-up, then the schedule."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "step":
        drops = math.floor((step / steps_per_epoch - config.step_from) / config.step_every) + 1
        return warmup * config.step_factor ** max(0, drops)
    if config.schedule == "cosine":
        done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
        return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
    return warmup
