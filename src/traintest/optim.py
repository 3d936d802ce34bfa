"""Optimizers, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from .options import OptimConfig


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a run; each group's peak rate stays in its `peak_lr`."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    fused = all(p.device.type in ("cpu", "cuda") for _, p in named)
    if config.name == "adam":
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(
                [p for _, p in named], config.lr, config.betas, weight_decay=config.weight_decay, fused=fused
            )
        ]
    else:
        in_muon = {n for n, p in named if config.name == "muon" and n.startswith("blocks.") and p.ndim == 2}
        rest = [(n, p) for n, p in named if n not in in_muon]
        groups = [
            {"params": [p for n, p in rest if _decays(n, p)], "weight_decay": config.weight_decay},
            {"params": [p for n, p in rest if not _decays(n, p)], "weight_decay": 0.0},
        ]
        optimizers = [torch.optim.AdamW(groups, config.lr, config.betas, fused=fused)]
        if in_muon:
            matrices = [p for n, p in named if n in in_muon]
            optimizers.append(torch.optim.Muon(matrices, config.muon_lr, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


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
