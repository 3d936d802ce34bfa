"""Softmax attention for bfloat16 on a CPU, one block of the score matrix at a time.

On a CPU without AMX, PyTorch's fused attention (2.11) multiplies bfloat16 no faster than float32; its plain matrix
products use AVX-512 BF16. Each block of scores stays in the cache, and the full N x N matrix is never stored.

Dimensions: B batch, h heads, N tokens, d width of a head, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1 << 20
"""Scores computed at once: 2 MiB of bfloat16."""


def attend_in_blocks(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(d)) value, all (B, h, N, d), like F.scaled_dot_product_attention; differentiable once.

    The backward pass recomputes each block of scores (FlashAttention, Dao et al., NeurIPS 2022, section 3.1).
    """
    heads = query.shape[:2]
    scaled = query * query.shape[-1] ** -0.5
    mixed: Tensor = _BlockAttention.apply(*(x.flatten(0, 1) for x in (scaled, key, value)))
    return mixed.unflatten(0, heads)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(d)) value, key and value (B, h, N, d): in blocks where that is faster, else PyTorch's.

    query: (B, h, N, d), or of fewer tokens.
    """
    if query.shape == key.shape and _blocks_are_faster(query):
        return attend_in_blocks(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


class BlockAttention(Attention):
    """timm's attention without norms, gate or dropout; uses `attend_in_blocks` where that is faster."""

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, first: int | None = None
    ) -> Tensor:
        """Tokens (B, N, D) mixed, (B, N, D); if a number is given, only the `first` ones, (B, first, D)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))  # (B, N, 3, h, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        query = query[:, :, :first]
        if not torch.jit.is_scripting():  # TorchScript cannot compile this branch
            unmasked = attn_mask is None and not is_causal
            if unmasked:
                return self.proj(attend(query, key, value).transpose(1, 2).flatten(2))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask, is_causal=is_causal)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def _blocks_are_faster(query: Tensor) -> bool:
    """True for bfloat16 on a CPU, except with AMX (not measured) and in compiled graphs: there PyTorch's is used."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return False
    return not torch.cpu.get_capabilities().get("amx_bf16", False)


class _BlockAttention(torch.autograd.Function):
    """On (B * h, N, d), query already scaled."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        mixed = torch.empty_like(query)
        with torch.autocast("cpu", enabled=False):
            for heads, rows in _blocks(*query.shape[:2]):
                weights = (query[heads, rows] @ key[heads].mT).softmax(dim=-1)
                mixed[heads, rows] = weights @ value[heads]
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors
        grad_query = torch.empty_like(query)
        # Sums over blocks are accumulated in at least float32, as in a matrix product. They are kept transposed,
        # (B * h, d, N), so that no product needs a transposed copy of its large factor, the scores.
        exact = torch.promote_types(query.dtype, torch.float32)
        grad_key, grad_value = (torch.zeros_like(x.mT, dtype=exact) for x in (key, value))
        for heads, rows in _blocks(*query.shape[:2]):
            weights = (query[heads, rows] @ key[heads].mT).softmax(dim=-1)
            grad_value[heads] += grad[heads, rows].mT @ weights
            grad_weights = grad[heads, rows] @ value[heads].mT
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_query[heads, rows] = grad_scores @ key[heads]
            grad_key[heads] += query[heads, rows].mT @ grad_scores
        return grad_query, grad_key.mT.to(key.dtype), grad_value.mT.to(value.dtype)


def _blocks(heads: int, tokens: int) -> Iterator[tuple[slice, slice]]:
    """Heads and query rows of each block: whole heads where they fit, equal parts of one where they do not."""
    for head in _parts(heads, BLOCK // tokens**2):
        for rows in _parts(tokens, BLOCK // tokens):
            yield head, rows


def _parts(total: int, at_most: int) -> Iterator[slice]:
    size = math.ceil(total / math.ceil(total / max(1, at_most)))
    for start in range(0, total, size):
        yield slice(start, start + size)
