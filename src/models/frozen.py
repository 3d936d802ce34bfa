"""A FlexiAST at one fixed patch size: a plain module with kernel and positions resized in advance.

Dimensions: B batch, T frames, F mel bins, h x w patch (bins x frames), H x W token grid, P prefix tokens,
N = P + H * W tokens, D width, C classes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .flexiast import FlexiAST, patchify
from .geometry import Layout, PatchLike
from .resize import Resize, resize_kernel


class FrozenAST(nn.Module):
    """A static AST: normalised log-mel (B, T, F) to logits (B, C), at one patch size and number of frames.

    Made by `freeze`. Its state dict holds `patch_embed.{weight,bias}` (the kernel as (D, h * w)),
    `prefix` (P, D, positions added), `pos_embed` (H * W, D, resized), `blocks.*`, `norm.*`, `head_norm.*`
    and `head.*`.
    """

    def __init__(self, model: FlexiAST, layout: Layout, frames: int, resize: Resize) -> None:
        super().__init__()
        config = model.config
        self.frames, self.bins = frames, config.bins
        # Plain tuples and numbers, which TorchScript supports.
        self.patch, self.stride = (layout.patch.freq, layout.patch.time), (layout.stride.freq, layout.stride.time)
        self.padding = layout.padding
        self.pad_value = float(config.pad_value)
        self.prefix_tokens, self.mean_of_patches = config.prefix_tokens, config.pool == "mean"
        with torch.no_grad():
            kernel = resize_kernel(model.kernel, layout.patch, resize).flatten(1)  # (D, h * w)
            self.patch_embed = nn.Linear(kernel.shape[1], kernel.shape[0], device=kernel.device, dtype=kernel.dtype)
            self.patch_embed.weight.copy_(kernel)
            self.patch_embed.bias.copy_(model.kernel_bias)
            self.pos_embed = nn.Parameter(model.positions(layout, frames).flatten(0, 1).clone())
            self.prefix = nn.Parameter(model.prefix + model.prefix_pos_embed)
        self.blocks, self.norm, self.head_norm, self.head = model.blocks, model.norm, model.head_norm, model.head
        self.training = model.training

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits (B, C). Raises ValueError if the input is not (B, T, F) with this module's own T and F."""
        if log_mel.dim() != 3 or log_mel.shape[1] != self.frames or log_mel.shape[2] != self.bins:
            raise ValueError(f"input shape: found {log_mel.shape}, expected (batch, {self.frames}, {self.bins})")
        # Features are float32 even if the model is in half precision.
        log_mel = log_mel.to(self.patch_embed.weight.dtype)
        patches = patchify(log_mel, self.patch, self.stride, self.padding, self.pad_value)  # (B, H*W, h*w)
        tokens = self.patch_embed(patches) + self.pos_embed
        x = torch.cat([self.prefix.expand(tokens.shape[0], -1, -1), tokens], dim=1)  # (B, N, D)
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            x = block(x, first=None if self.mean_of_patches or number < last else self.prefix_tokens)
        x = self.norm(x)
        pooled = x[:, self.prefix_tokens :] if self.mean_of_patches else x
        return self.head(self.head_norm(pooled.mean(dim=1)))


def freeze(
    model: FlexiAST,
    patch_size: PatchLike | None = None,
    frames: int | None = None,
    resize: Resize = "pi",
    share: bool = False,
) -> FrozenAST:
    """`model` at one patch size and number of frames (default: its base), as a separate module.

    The weights are copied, so that training one does not change the other. With `share`, the transformer is shared
    with the model, so that many sizes take little more memory than one. Raises ConfigError if no patch fits.
    """
    frames = model.config.frames if frames is None else frames
    layout = model.config.layout(model.config.patch_size if patch_size is None else patch_size, frames)
    frozen = FrozenAST(model, layout, frames, resize)
    return frozen if share else copy.deepcopy(frozen)
