"""Clips of different lengths in one forward pass: their tokens in one sequence, attention within each clip, no padding.

Sources: NaViT (Dehghani et al., NeurIPS 2023), ElasticAST (Feng et al., INTERSPEECH 2024, arXiv 2407.08691).

Dimensions: B clips, T frames of a clip, F mel bins, n clips of equal layout, N tokens of one of them, S tokens of all
clips, P prefix tokens, D width, h heads, d width of a head, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from ..errors import ConfigError
from .block_attention import BlockAttention, attend
from .flexiast import FlexiAST, patchify
from .geometry import Layout, PatchLike, PatchSize
from .resize import Resize, resize_kernel


class Group(NamedTuple):
    """Clips whose patches have the same layout and positions; they lie next to each other in the sequence."""

    clips: int
    """n"""
    tokens: int
    """N, the prefix included."""


def forward_packed(
    model: FlexiAST, log_mels: Sequence[Tensor], patch_size: PatchLike | None = None, resize: Resize = "pi"
) -> Tensor:
    """Logits (B, C) of clips of any lengths, normalised log-mel (T, F) each: those of `model` for each clip alone.

    A clip shorter than a patch is padded to a whole one. Raises ConfigError for an empty list, a clip that is not
    (T, F) with the model's F, or a patch with more bins than that.
    """
    return model.head(model.head_norm(features_packed(model, log_mels, patch_size, resize)))


def features_packed(
    model: FlexiAST, log_mels: Sequence[Tensor], patch_size: PatchLike | None = None, resize: Resize = "pi"
) -> Tensor:
    """Pooled embeddings (B, D) of clips of any lengths, see `forward_packed`."""
    config = model.config
    _require_clips(log_mels, config.bins)
    patch = config.patch_size if patch_size is None else PatchSize.parse(patch_size)
    kernel = resize_kernel(model.kernel, patch, resize).flatten(1)  # (D, h * w)
    frames = [max(len(log_mel), patch.time) for log_mel in log_mels]
    layouts = [config.layout(patch, length) for length in frames]
    order = sorted(range(len(log_mels)), key=lambda clip: frames[clip])
    embedded, groups = [], []
    # Longer than the base, clips have positions of their own, see `FlexiAST.positions`.
    for _, alike in groupby(order, key=lambda clip: (layouts[clip].grid, max(frames[clip], config.frames))):
        clips = list(alike)
        layout, longest = layouts[clips[0]], frames[clips[-1]]
        tokens = _embed(model, [log_mels[clip] for clip in clips], layout, longest, kernel)  # (n, N, D)
        groups.append(Group(*tokens.shape[:2]))
        embedded.append(tokens.flatten(0, 1))
    x = torch.cat(embedded)  # (S, D)
    for block in model.blocks:
        x = _through(block, x, groups)
    pooled = _pool(model, model.norm(x), groups)
    return pooled[torch.tensor(order, device=x.device).argsort()]


def _require_clips(log_mels: Sequence[Tensor], bins: int) -> None:
    if not log_mels:
        raise ConfigError("input: found an empty list, expected at least one clip")
    for log_mel in log_mels:
        if log_mel.ndim != 2 or log_mel.shape[-1] != bins or not len(log_mel):
            raise ConfigError(f"input shape: found a clip of {tuple(log_mel.shape)}, expected (frames, {bins})")


def _embed(model: FlexiAST, log_mels: Sequence[Tensor], layout: Layout, frames: int, kernel: Tensor) -> Tensor:
    """Tokens with their positions (n, N, D) of clips (T, F) that share a layout, as `FlexiAST.embed_patches`."""
    span = (layout.grid.time - 1) * layout.stride.time + layout.patch.time
    fitted = torch.stack(  # (n, span, F); F.pad cuts off what `drop` leaves over
        [F.pad(one, (0, layout.padding[0], 0, span - len(one)), value=model.config.pad_value) for one in log_mels]
    ).to(kernel.dtype)
    patches = patchify(fitted, layout.patch, layout.stride, (0, 0), model.config.pad_value)  # (n, H*W, h*w)
    tokens = F.linear(patches, kernel, model.kernel_bias)
    tokens = tokens + model.positions(layout, frames).flatten(0, 1)
    prefix = (model.prefix + model.prefix_pos_embed).expand(len(tokens), -1, -1)  # (n, P, D)
    return model.patch_dropout(torch.cat([prefix.to(tokens.dtype), tokens], dim=1))


def _through(block: Any, x: Tensor, groups: Sequence[Group]) -> Tensor:
    """The tokens x (S, D) through a timm Block: all at once, except that a clip attends to itself only."""
    x = x + _drop_path(block.drop_path1, block.ls1(_attend_within(block.attn, block.norm1(x), groups)), groups)
    return x + _drop_path(block.drop_path2, block.ls2(block.mlp(block.norm2(x))), groups)


def _drop_path(drop_path: nn.Module, x: Tensor, groups: Sequence[Group]) -> Tensor:
    """Stochastic depth of tokens (S, D), drawn for each clip."""
    if not (isinstance(drop_path, DropPath) and drop_path.training):
        return x
    kept = drop_path(x.new_ones(sum(group.clips for group in groups), 1))  # 0, or what makes up for it
    tokens = [group.tokens for group in groups for _ in range(group.clips)]
    return x * kept.repeat_interleave(torch.tensor(tokens, device=x.device), dim=0)


def _attend_within(attention: BlockAttention, x: Tensor, groups: Sequence[Group]) -> Tensor:
    """Tokens (S, D) mixed within each clip, (S, D)."""
    qkv = attention.qkv(x).unflatten(-1, (3, attention.num_heads, attention.head_dim))  # (S, 3, h, d)
    mixed = mix_jagged(qkv, groups) if qkv.is_cuda else mix_by_group(qkv, groups)
    return attention.proj(mixed.flatten(1))


def mix_by_group(qkv: Tensor, groups: Sequence[Group]) -> Tensor:
    """Values mixed within each clip, (S, h, d), of query, key and value (S, 3, h, d): clips of a group as a batch."""
    mixed = []
    for part, group in zip(qkv.split([clips * tokens for clips, tokens in groups]), groups, strict=True):
        query, key, value = part.unflatten(0, group).permute(2, 0, 3, 1, 4).unbind(0)  # (n, h, N, d) each
        mixed.append(attend(query, key, value).transpose(1, 2).flatten(0, 1))
    return torch.cat(mixed)


def mix_jagged(qkv: Tensor, groups: Sequence[Group]) -> Tensor:
    """As `mix_by_group`, on nested tensors: one kernel for all lengths, for devices where launching them costs."""
    lengths = [group.tokens for group in groups for _ in range(group.clips)]
    offsets = torch.tensor([0, *lengths], device=qkv.device).cumsum(0)
    query, key, value = (
        torch.nested.nested_tensor_from_jagged(
            part.contiguous(), offsets, min_seqlen=min(lengths), max_seqlen=max(lengths)
        ).transpose(1, 2)  # (B, h, N of each clip, d)
        for part in qkv.unbind(1)
    )
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).values()


def _pool(model: FlexiAST, x: Tensor, groups: Sequence[Group]) -> Tensor:
    """Pooled embeddings (B, D) of encoded tokens (S, D), in the order of the groups."""
    prefix, pooled = model.config.prefix_tokens, []
    for part, group in zip(x.split([clips * tokens for clips, tokens in groups]), groups, strict=True):
        tokens = part.unflatten(0, group)  # (n, N, D)
        pooled.append((tokens[:, :prefix] if model.config.pool == "cls" else tokens[:, prefix:]).mean(dim=1))
    return torch.cat(pooled)
