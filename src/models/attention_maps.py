"""Where a transformer looks: attention weights of its blocks, mapped back onto the spectrogram.

Dimensions: B batch, T frames, F mel bins, H x W token grid, N tokens, D width, d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, is_whole_number
from .geometry import Layout


def attention_weights(block: Any, x: Tensor) -> Tensor:
    """Softmax weights (B, heads, N, N), query by key, with which a timm Block mixes the tokens x (B, N, D)."""
    attention = block.attn
    qkv = attention.qkv(block.norm1(x)).unflatten(-1, (3, attention.num_heads, -1))  # (B, N, 3, heads, d)
    query, key, _ = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, d)
    query, key = attention.q_norm(query), attention.k_norm(key)
    return (query * attention.scale @ key.mT).softmax(dim=-1)


def layer_weights(blocks: Iterable[Any], x: Tensor, layer: int) -> Tensor:
    """Weights (B, heads, N, N) of block number `layer` for the embedded tokens x (B, N, D).

    Raises ConfigError for a layer that does not exist.
    """
    blocks = list(blocks)
    number = _layer_number(layer, len(blocks))
    for block in blocks[:number]:
        x = block(x)
    return attention_weights(blocks[number], x)


def rollout_weights(blocks: Iterable[Any], x: Tensor, layer: int) -> Tensor:
    """How much of each embedded token (keys) reaches each token after block `layer` (queries), (B, N, N).

    Attention rollout: the mean over heads, averaged with the identity for the residual connection, multiplied over
    the blocks from the first one on. Source: Abnar and Zuidema, ACL 2020. Raises ConfigError like `layer_weights`.
    """
    blocks = list(blocks)
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    reached = identity
    for block in blocks[: _layer_number(layer, len(blocks)) + 1]:
        reached = (0.5 * attention_weights(block, x).mean(dim=1) + 0.5 * identity) @ reached
        x = block(x)
    return reached


def _layer_number(layer: int, depth: int) -> int:
    if not is_whole_number(layer) or not -depth <= layer < depth:
        raise ConfigError(f"layer: found {layer!r}, expected {-depth} to {depth - 1}, the model has {depth} blocks")
    return layer % depth


def lay_back(tokens: Tensor, frames: int, bins: int, layout: Layout) -> Tensor:
    """Spread one value per token (B, H, W) over the spectrogram (B, T, F): each bin gets the value of its patch.

    Where patches overlap, it gets their mean; where there is no patch (`drop`), 0. Padding is cut off.
    """
    rows, cols = (
        _cover(*axis).to(tokens) for axis in zip((bins, frames), layout.grid, layout.patch, layout.stride, strict=True)
    )  # (F, H), (T, W)
    return cols @ tokens.mT @ rows.T


def _cover(extent: int, count: int, patch: int, stride: int) -> Tensor:
    """(extent, count): the share of each patch along an axis in each bin or frame; rows sum to one or are zero."""
    offset = torch.arange(extent)[:, None] - stride * torch.arange(count)
    inside = ((offset >= 0) & (offset < patch)).float()
    return inside / inside.sum(dim=1, keepdim=True).clamp(min=1)
