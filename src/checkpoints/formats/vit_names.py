"""Shared by the formats: rules for timm's ViT names (released FlexiAST, AST, timm itself), and a new classifier.

Dimensions: D width, h x w patch, H x W token grid, P prefix tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...models.config import FlexiASTConfig
from .base import Rule, network_state, same

UNTRAINED = {"mids": ["untrained"], "names": ["untrained"]}
"""Labels of `new_head`."""


def new_head(width: int, why: str) -> dict[str, tuple[Tensor, str]]:
    """A classifier with one class, `untrained`, which training replaces. Its values are the same on every load."""
    values = {
        "head_norm.weight": torch.ones(width),
        "head_norm.bias": torch.zeros(width),
        "head.weight": torch.randn(1, width, generator=torch.Generator().manual_seed(0)) * width**-0.5,
        "head.bias": torch.zeros(1),
    }
    return {name: (value, why) for name, value in values.items()}


def encoder(config: FlexiASTConfig, start: str = "v.") -> list[Rule]:
    """Blocks and final norm; our network uses timm's names for them too."""
    names = [name for name in network_state(config) if name.startswith(("blocks.", "norm."))]
    return [same(start + name, name) for name in names]


def kernel(theirs: str) -> list[Rule]:
    """Patch embedding: a convolution (D, 1, h, w) and its bias."""
    weight = Rule(
        (f"{theirs}.weight",), ("kernel",), lambda w: (w.squeeze(1),), lambda w: (w.unsqueeze(1),), "axis removed"
    )
    return [weight, same(f"{theirs}.bias", "kernel_bias")]


def prefix_tokens(config: FlexiASTConfig, start: str = "v.", cls: str = "cls_token", dist: str = "dist_token") -> Rule:
    """Class token and, if present, distillation token, (1, 1, D) each."""
    names = (start + cls, start + dist)[: config.prefix_tokens]

    def write(prefix: Tensor) -> list[Tensor]:
        return [row[None, None] for row in prefix]

    return Rule(names, ("prefix",), lambda *rows: (torch.cat([row[0] for row in rows]),), write, "rows of one tensor")


def positions(theirs: str, config: FlexiASTConfig) -> Rule:
    """Positions (1, P + H * W, D): prefix rows first, then the grid row by row."""
    count, grid = config.prefix_tokens, config.base.grid

    def read(rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows[0, :count], rows[0, count:].unflatten(0, grid)

    def write(prefix: Tensor, patches: Tensor) -> tuple[Tensor]:
        return (torch.cat([prefix, patches.flatten(0, 1)])[None],)

    return Rule((theirs,), ("prefix_pos_embed", "pos_embed"), read, write, "prefix rows and grid")


def ast_head() -> list[Rule]:
    """AST's classifier: layer norm and one linear layer."""
    return [
        same(f"mlp_head.{i}.{part}", f"{name}.{part}")
        for i, name in enumerate(("head_norm", "head"))
        for part in ("weight", "bias")
    ]
