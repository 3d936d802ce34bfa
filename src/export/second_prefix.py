"""Turn a one-prefix AST into a two-prefix one with the same logits, for tools that only support two prefix tokens.

transformers' AST averages cls and a distillation token after the last norm, and every token attends to both. A
second token that changes nothing must be ignored as a key by every query of every head, and must end as a constant.
No such token exists within the D dimensions of the network, since its queries and norms are arbitrary; it does
with E = heads (at least 3) more dimensions, to which layer norms are kept blind:

- Everything written into the residual stream has its mean over D subtracted (layer norms do so anyway), so that
  more dimensions whose sum is zero leave the mean at zero; sqrt(D / (D + E)) in norm weights and D / (D + E) in
  epsilons correct the variance.
- The second token is LARGE * MARK in the new dimensions, MARK = (1, -1, 0, ...). A dimension added to each head's keys
  reads MARK and lowers the logit of that key by FAR, all other tokens having exactly nothing along MARK; the second
  token's own query flips the sign, so that it attends only to itself. Its final value does not depend on the input: it
  is computed here and subtracted from the final norm's bias.
- The classifier's norm needs the mean over D of y = w z + b, the final norm's output, in the new dimensions too, or
  its mean and variance would be wrong. So all tokens carry SMALL * (w . x) * TRACK there, TRACK = (1, 1, -t, ..., -t),
  t = 2 / (E - 2), which is orthogonal to MARK, sums to zero and is too small to matter to any variance; the final
  norm's weights make it large again.

All of this is exact except for rounding and the SMALL^2 of the tracked variance. All numbers fit float16.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.config import FlexiASTConfig

LARGE, FAR, SMALL = 4096.0, 1000.0, 1e-4
State = dict[str, Tensor]


def widened(config: FlexiASTConfig, hidden: int) -> FlexiASTConfig:
    """The configuration of the two-prefix network: E dimensions more, the MLP's `hidden` width kept."""
    width = config.width + config.heads * math.ceil(3 / config.heads)
    return dataclasses.replace(
        config,
        width=width,
        prefix_tokens=2,
        mlp_ratio=(hidden + 0.5) / width,  # the network rounds down
        norm_eps=config.norm_eps * config.width / width,
        head_norm_eps=config.norm_eps * config.width / width,
    )


def add_second_prefix(config: FlexiASTConfig, state: State) -> tuple[FlexiASTConfig, State]:
    """Configuration and state dict of a two-prefix network that gives the logits of this one-prefix network.

    The result has one epsilon for all its norms, as transformers requires.
    """
    wide = widened(config, state["blocks.0.mlp.fc1.bias"].shape[0])
    old, new = config.width, wide.width
    extra, shrink = new - old, math.sqrt(old / new)
    state = {name: tensor.double() for name, tensor in state.items()}
    mark = torch.tensor([1.0, -1.0] + [0.0] * (extra - 2)).double()
    track = torch.tensor([1.0, 1.0] + [-2 / (extra - 2)] * (extra - 2)).double()
    final = state["norm.weight"]

    def written(tensor: Tensor, dim: int) -> Tensor:
        """Residual-stream vectors along `dim`, D to D + E: centred, with their tracked mean appended."""
        centred = (tensor - tensor.mean(dim, keepdim=True)).movedim(dim, -1)
        tracked = SMALL * (centred @ final)[..., None] * track
        return torch.cat([centred, tracked], dim=-1).movedim(-1, dim)

    def read(tensor: Tensor) -> Tensor:
        """Weights over the residual stream (last axis), blind to the new dimensions."""
        return torch.cat([tensor, tensor.new_zeros(*tensor.shape[:-1], extra)], dim=-1)

    out: State = {
        "kernel": written(state["kernel"], 0),
        "kernel_bias": written(state["kernel_bias"], 0),
        "pos_embed": written(state["pos_embed"], 2),
        "prefix": torch.cat([written(state["prefix"], 1), LARGE * torch.cat([torch.zeros(old).double(), mark])[None]]),
        "prefix_pos_embed": read(state["prefix_pos_embed"].new_zeros(2, old)),
        "head.weight": read(state["head.weight"]),
        "head.bias": state["head.bias"],
        "head_norm.weight": read(shrink * state["head_norm.weight"]),
        "head_norm.bias": read(state["head_norm.bias"]),
    }
    out["prefix_pos_embed"][:1] = written(state["prefix_pos_embed"], 1)
    for block in (f"blocks.{i}." for i in range(config.depth)):
        out |= {f"{block}{norm}.bias": read(state[f"{block}{norm}.bias"]) for norm in ("norm1", "norm2")}
        out |= {f"{block}{norm}.weight": read(shrink * state[f"{block}{norm}.weight"]) for norm in ("norm1", "norm2")}
        out[f"{block}norm1.weight"][old:] = mark.abs()
        out |= _attention(config, wide, block, state, read, mark)
        mixed = _by_head(state[f"{block}attn.proj.weight"], config.heads, wide.width)
        out[f"{block}attn.proj.weight"] = written(mixed, 0)
        out[f"{block}mlp.fc1.weight"] = read(state[f"{block}mlp.fc1.weight"])
        out[f"{block}mlp.fc1.bias"] = state[f"{block}mlp.fc1.bias"]
        out[f"{block}mlp.fc2.weight"] = written(state[f"{block}mlp.fc2.weight"], 0)
        for bias in ("attn.proj.bias", "mlp.fc2.bias"):
            out[block + bias] = written(state[block + bias], 0)
    # The mean of y for cls and of the constant that the second token ends as must be gain * (w z + b): the gain gives
    # the classifier's norm its own epsilon.
    gain = math.sqrt(config.norm_eps / config.head_norm_eps)
    restored = 2 * gain * shrink / (SMALL * old * track)  # (E,)
    out["norm.weight"] = torch.cat([2 * gain * shrink * final, restored])
    wanted = gain * torch.cat([state["norm.bias"], state["norm.bias"].mean().expand(extra)])
    out["norm.bias"] = wanted - out["norm.weight"] * _ending(wide, out) / 2
    return wide, {name: tensor.float() for name, tensor in out.items()}


def _ending(config: FlexiASTConfig, state: State) -> Tensor:
    """The second token after the last block, normalised but for the final norm's weights: attending to itself alone."""
    eps, size = config.norm_eps, (config.width,)
    x = state["prefix"][1] + state["prefix_pos_embed"][1]
    for i in range(config.depth):
        block = {n.removeprefix(f"blocks.{i}."): t for n, t in state.items() if n.startswith(f"blocks.{i}.")}
        y = F.layer_norm(x, size, block["norm1.weight"], block["norm1.bias"], eps)
        value = F.linear(y, block["attn.qkv.weight"], block["attn.qkv.bias"])[2 * config.width :]
        x = x + F.linear(value, block["attn.proj.weight"], block["attn.proj.bias"])
        y = F.layer_norm(x, size, block["norm2.weight"], block["norm2.bias"], eps)
        hidden = F.gelu(F.linear(y, block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
        x = x + F.linear(hidden, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
    return F.layer_norm(x, size, eps=eps)


def _by_head(weight: Tensor, heads: int, width: int) -> Tensor:
    """(D, heads * d) with zeros after each head's d columns, (D, width)."""
    by_head = weight.unflatten(1, (heads, -1))
    return torch.nn.functional.pad(by_head, (0, width // heads - by_head.shape[2])).flatten(1)


def _attention(config: FlexiASTConfig, wide: FlexiASTConfig, block: str, state: State, read, mark: Tensor) -> State:
    """Query, key and value of a block with one extra dimension per head: 1 in queries, the MARK component in keys.

    The second token's own query has -1 there.
    """
    heads, old, new = config.heads, config.width // config.heads, wide.width // config.heads
    weight = read(state[f"{block}attn.qkv.weight"]).unflatten(0, (3, heads, old))  # (3, heads, d, D + E)
    bias = state[f"{block}attn.qkv.bias"].unflatten(0, (3, heads, old))
    weight = torch.nn.functional.pad(weight, (0, 0, 0, new - old))
    bias = torch.nn.functional.pad(bias, (0, new - old))
    weight[0] *= math.sqrt(new / old)  # the logits are divided by the root of the head's width
    bias[0] *= math.sqrt(new / old)
    bias[0, :, old] = 1.0
    weight[0, :, old, config.width :] = -2 / math.sqrt(2 * wide.width) * mark
    weight[1, :, old, config.width :] = -FAR * math.sqrt(new / (2 * wide.width)) * mark
    return {f"{block}attn.qkv.weight": weight.flatten(0, 2), f"{block}attn.qkv.bias": bias.flatten()}
