"""FlexiAST: an Audio Spectrogram Transformer whose patch size is an argument of the forward pass.

Sources: AST (Gong et al., INTERSPEECH 2021), FlexiAST (Feng et al., INTERSPEECH 2023).

Dimensions: B batch, T frames, F mel bins, h x w patch (bins x frames), H x W token grid,
P prefix tokens, N = P + H * W tokens, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .attention_maps import lay_back, layer_weights, rollout_weights
from .block import Block
from .block_attention import BlockAttention
from .config import FlexiASTConfig
from .geometry import Grid, Layout, PatchLike
from .resize import Resize, apply_to_grid, extent_matrices, resample_positions, resize_kernel


class FlexiAST(nn.Module):
    """The network: log-mel spectrograms (B, T, F), normalised, in; logits (B, C) out, at any patch size.

    Kernel and positions are stored once, at the base size; every call resizes them from there, so that
    gradients of every patch size flow into the same weights and resizes are never chained.
    """

    def __init__(self, config: FlexiASTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        norm = partial(nn.LayerNorm, eps=config.norm_eps)
        self.kernel = nn.Parameter(torch.empty(width, *config.patch_size))  # (D, h, w)
        self.kernel_bias = nn.Parameter(torch.zeros(width))
        self.prefix = nn.Parameter(torch.empty(config.prefix_tokens, width))  # (P, D), cls first
        self.prefix_pos_embed = nn.Parameter(torch.zeros(config.prefix_tokens, width))
        self.pos_embed = nn.Parameter(sin_cos_positions(config.base.grid, width))  # (H, W, D)
        blocks: list[Any] = [
            Block(
                width,
                config.heads,
                config.mlp_ratio,
                qkv_bias=True,
                norm_layer=cast(Any, norm),
                attn_layer=BlockAttention,
            )
            for _ in range(config.depth)
        ]
        self.patch_dropout: nn.Module = nn.Identity()
        """What training puts here, see `patch_dropout.PatchDropout`."""
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm(width)
        self.head_norm = nn.LayerNorm(width, eps=config.head_norm_eps)
        self.head = nn.Linear(width, config.classes)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.xavier_uniform_(self.kernel.view(self.config.width, -1))
        nn.init.normal_(self.prefix, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # Every block starts as the identity: short training from scratch leaves chance level much sooner.
        blocks: list[Any] = list(self.blocks)
        for block in blocks:
            nn.init.zeros_(block.attn.proj.weight)
            nn.init.zeros_(block.mlp.fc2.weight)

    def forward(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        """Logits (B, C) of normalised log-mel (B, T, F) cut into patches of `patch_size` (default: the base).

        Raises ConfigError if the input is not (B, T, F) with the model's F, or is smaller than one patch.
        """
        return self.head(self.head_norm(self.features(log_mel, patch_size, resize)))

    def features(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        """Pooled embeddings (B, D): what the classifier sees."""
        prefix = self.config.prefix_tokens
        if self.config.pool == "mean":
            return self.encode(log_mel, patch_size, resize)[:, prefix:].mean(dim=1)
        x = self.embed_patches(log_mel, patch_size, resize)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        return self.norm(last(x, first=prefix)).mean(dim=1)

    def columns(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        """Pooled embeddings of each time column of patches, (B, W, D): `features` localised in time.

        Every block but the last hears the whole input; the last one hears the prefix and one column at a time, so that
        a column is pooled as the classifier has learned to pool a clip. All but the last block costs as `features`.
        """
        grid = self.layout(log_mel, patch_size).grid
        x = self.embed_patches(log_mel, patch_size, resize)
        for block in self.blocks[:-1]:
            x = block(x)
        prefix = x[:, : self.config.prefix_tokens]  # (B, P, D)
        patches = x[:, self.config.prefix_tokens :].unflatten(1, grid).transpose(1, 2)  # (B, W, H, D)
        alone = torch.cat([prefix[:, None].expand(-1, grid.time, -1, -1), patches], dim=2)  # (B, W, P + H, D)
        x = self.norm(self.blocks[-1](alone.flatten(0, 1)))  # (B * W, P + H, D)
        pooled = x[:, : self.config.prefix_tokens] if self.config.pool == "cls" else x[:, self.config.prefix_tokens :]
        return pooled.mean(dim=1).unflatten(0, (len(log_mel), grid.time))

    def encode(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        """All tokens after the encoder, (B, N, D): prefix first, then the patches, frequency row by frequency row."""
        x = self.embed_patches(log_mel, patch_size, resize)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def layers(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Iterator[Tensor]:
        """All tokens after each block in turn, (B, N, D), as in `encode`; the last ones have been through the norm."""
        x = self.embed_patches(log_mel, patch_size, resize)
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            yield self.norm(x) if number == len(self.blocks) else x

    def embed_patches(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        """Tokens with their positions, (B, N, D), before the first block."""
        layout = self.layout(log_mel, patch_size)
        log_mel = log_mel.to(self.kernel.dtype)  # features are float32 even if the model is in half precision
        patches = patchify(log_mel, layout.patch, layout.stride, layout.padding, self.config.pad_value)
        kernel = resize_kernel(self.kernel, layout.patch, resize)  # (D, h, w)
        tokens = F.linear(patches, kernel.flatten(1), self.kernel_bias)  # (B, H*W, D)
        tokens = tokens + self.positions(layout, log_mel.shape[1]).flatten(0, 1)
        prefix = (self.prefix + self.prefix_pos_embed).expand(len(tokens), -1, -1)  # (B, P, D)
        return self.patch_dropout(torch.cat([prefix.to(tokens.dtype), tokens], dim=1))

    def positions(self, layout: Layout, frames: int) -> Tensor:
        """Position embeddings (H, W, D) of the patches for this layout on an input of `frames` frames.

        `drop` stretches the stored grid over the new one. `pad` samples it at each token's true place; inputs
        longer than the base are stretched along time, shorter ones use the first columns.
        """
        config, base = self.config, self.config.base
        if config.coverage == "drop":
            return resample_positions(self.pos_embed, layout.grid)
        stretches = (1.0, max(1.0, frames / config.frames))
        rows, cols = extent_matrices(base, layout, self.pos_embed, stretches)
        return apply_to_grid(self.pos_embed, rows, cols)

    def layout(self, log_mel: Tensor, patch_size: PatchLike | None = None) -> Layout:
        """Where the patches lie on this input. Raises ConfigError if it is not (B, T, F), or if no patch fits."""
        if log_mel.ndim != 3 or log_mel.shape[-1] != self.config.bins:
            raise ConfigError(
                f"input shape: found {tuple(log_mel.shape)}, expected (batch, frames, {self.config.bins})"
            )
        return self.config.layout(self.config.patch_size if patch_size is None else patch_size, log_mel.shape[1])

    @torch.no_grad()
    def attention(
        self,
        log_mel: Tensor,
        patch_size: PatchLike | None = None,
        layer: int = -1,
        rollout: bool = False,
        resize: Resize = "pi",
    ) -> Tensor:
        """What the classifier listens to: attention per patch, laid back on the spectrogram, (B, T, F).

        Each bin holds the weight, from 0 to 1, that the pooled tokens (see `Pool`) give its patch: the mean over heads
        in block `layer` or, with `rollout`, the accumulated weight from the first block on
        (`attention_maps.rollout_weights`). Attention to the prefix tokens is left out. Raises ConfigError for an
        unusable input, patch size or layer.
        """
        layout = self.layout(log_mel, patch_size)
        x = self.embed_patches(log_mel, layout.patch, resize)
        weights = rollout_weights(self.blocks, x, layer) if rollout else layer_weights(self.blocks, x, layer).mean(1)
        prefix = self.config.prefix_tokens
        queries = weights[:, :prefix] if self.config.pool == "cls" else weights[:, prefix:]  # (B, queries, N)
        per_token = queries.mean(dim=1)[:, prefix:].unflatten(1, layout.grid)  # (B, H, W)
        return lay_back(per_token, log_mel.shape[1], self.config.bins, layout)


def patchify(
    log_mel: Tensor, patch: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], pad_value: float
) -> Tensor:
    """Cut (B, T, F) into patches (B, H*W, h*w), row by row; the arguments are those of a `Layout` (freq, time).

    TorchScript can compile it.
    """
    if padding[0] > 0 or padding[1] > 0:
        log_mel = F.pad(log_mel, (0, padding[0], 0, padding[1]), value=pad_value)
    patches = log_mel.mT.unfold(1, patch[0], stride[0]).unfold(2, patch[1], stride[1])  # (B, H, W, h, w)
    return patches.reshape(log_mel.shape[0], patches.shape[1] * patches.shape[2], patch[0] * patch[1])


def sin_cos_positions(grid: Grid, width: int) -> Tensor:
    """Two-dimensional sine-cosine positions (H, W, D), the initial values of the learned ones.

    A quarter of the width each for sin and cos along frequency and along time, wavelengths from 2 pi to
    20,000 pi tokens (as in MoCo v3, Chen et al., ICCV 2021); a width not divisible by four leaves zeros.
    """
    quarter = width // 4
    omega = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / max(1, quarter))
    rows = torch.arange(grid.freq, dtype=torch.float64)[:, None, None] * omega  # (H, 1, D/4)
    cols = torch.arange(grid.time, dtype=torch.float64)[None, :, None] * omega  # (1, W, D/4)
    parts = [part.expand(*grid, quarter) for part in (rows.sin(), rows.cos(), cols.sin(), cols.cos())]
    rest = torch.zeros(*grid, width - 4 * quarter, dtype=torch.float64)
    return torch.cat([*parts, rest], dim=-1).float()
