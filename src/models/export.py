"""A FlexiAST at one patch size: kernel and positions resized once, a plain module that leaves nothing to compute.

Dimensions: B batch, T frames, F mel bins, h x w patch (bins x frames), H x W token grid, P prefix tokens,
N = P + H * W tokens, D width, C classes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .geometry import PatchLike, PatchSize, padded_extent
from .resize import Resize, resize_kernel

if TYPE_CHECKING:
    from .flexiast import FlexiAST


class FrozenAST(nn.Module):
    """A static AST: log-mel (B, T, F), normalised, in; logits (B, C) out; one patch size, one number of frames.

    Made by `FlexiAST.freeze`. Its state dict holds `patch_embed.{weight,bias}` (the kernel as (D, h * w)),
    `prefix` (P, D) and `pos_embed` (H * W, D) with the positions in place, `blocks.*`, `norm.*`, `head_norm.*`
    and `head.*`.
    """

    def __init__(self, model: FlexiAST, patch: PatchSize, frames: int, resize: Resize) -> None:
        super().__init__()
        config = model.config
        self.grid = config.grid(patch, frames)
        self.frames, self.bins = frames, config.bins
        self.patch, self.stride = patch, config.stride_at(patch)
        self.extra_bins = padded_extent(self.bins, patch.freq, self.stride.freq, config.coverage) - self.bins
        self.extra_frames = padded_extent(frames, patch.time, self.stride.time, config.coverage) - frames
        self.padded = self.extra_bins > 0 or self.extra_frames > 0
        self.pad_value = float(config.pad_value)
        self.prefix_tokens, self.mean_of_patches = config.prefix_tokens, config.pool == "mean"
        with torch.no_grad():
            kernel = resize_kernel(model.kernel, patch, resize).flatten(1)  # (D, h * w)
            self.patch_embed = nn.Linear(kernel.shape[1], kernel.shape[0], device=kernel.device, dtype=kernel.dtype)
            self.patch_embed.weight.copy_(kernel)
            self.patch_embed.bias.copy_(model.kernel_bias)
            self.pos_embed = nn.Parameter(model.positions(patch, frames).flatten(0, 1).clone())
            self.prefix = nn.Parameter(model.prefix + model.prefix_pos_embed)
        self.blocks, self.norm, self.head_norm, self.head = model.blocks, model.norm, model.head_norm, model.head
        self.training = model.training

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits (B, C). Raises ValueError if the input is not (B, T, F) with this module's own T and F."""
        if log_mel.dim() != 3 or log_mel.shape[1] != self.frames or log_mel.shape[2] != self.bins:
            raise ValueError(f"input shape: found {log_mel.shape}, expected (batch, {self.frames}, {self.bins})")
        if self.padded:
            log_mel = F.pad(log_mel, (0, max(0, self.extra_bins), 0, max(0, self.extra_frames)), value=self.pad_value)
        image = log_mel.mT  # (B, F, T)
        patches = image.unfold(1, self.patch[0], self.stride[0]).unfold(2, self.patch[1], self.stride[1])
        patches = patches.reshape(-1, self.grid[0] * self.grid[1], self.patch[0] * self.patch[1])  # (B, H*W, h*w)
        tokens = self.patch_embed(patches) + self.pos_embed
        x = torch.cat([self.prefix.expand(tokens.shape[0], -1, -1), tokens], dim=1)  # (B, N, D)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        pooled = x[:, self.prefix_tokens :] if self.mean_of_patches else x[:, : self.prefix_tokens]
        return self.head(self.head_norm(pooled.mean(dim=1)))


def freeze(
    model: FlexiAST,
    patch_size: PatchLike | None = None,
    frames: int | None = None,
    resize: Resize = "pi",
    share: bool = False,
) -> FrozenAST:
    """`model` at one patch size and number of frames (its base unless given), as a module of its own.

    The weights are copied: training either does not touch the other. With `share` the transformer is the model's own,
    so that many sizes take the memory of one. Raises ConfigError if no patch fits.
    """
    patch = model.config.patch_size if patch_size is None else PatchSize.parse(patch_size)
    frozen = FrozenAST(model, patch, model.config.frames if frames is None else frames, resize)
    return frozen if share else copy.deepcopy(frozen)
