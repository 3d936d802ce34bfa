"""A network for export that keeps several patch sizes, and clips of their own lengths, in plain operations.

The transformer is there once. Kernels and positions of all sizes lie one after the other in two tables; the chosen size
says where its rows begin, and how the spectrogram is cut. So nothing branches, and every runtime can follow.

Dimensions: B clips, T frames, F mel bins, K patch sizes, h x w patch (bins x frames), H x W token grid, V stored
columns of positions, P prefix tokens, N = P + H * W tokens, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.flexiast import FlexiAST
from ..models.geometry import PatchSize
from ..models.resize import extent_matrices, interpolation_matrix, resize_kernel


class SizesAST(nn.Module):
    """Normalised log-mel (B, T, F) to logits (B, C) at one of K patch sizes, chosen by its number."""

    kernels: Tensor
    positions: Tensor
    table: Tensor

    def __init__(self, model: FlexiAST, sizes: Sequence[PatchSize], frames: int) -> None:
        """frames: to which clips are cut. The transformer is shared with the model."""
        super().__init__()
        config = self.config = model.config
        self.frames = frames
        kernels: list[Tensor] = []
        positions: list[Tensor] = []
        rows, padding = [], [0, 0]
        for layout in (config.layout(size, frames) for size in sizes):
            begin = sum(map(len, kernels)), sum(map(len, positions))
            rows.append([*layout.patch, *layout.stride, layout.grid.freq, *begin])
            kernels.append(resize_kernel(model.kernel, layout.patch).flatten(1).T)  # (h * w, D)
            along_freq, _ = extent_matrices(config.base, layout, model.pos_embed)
            if config.coverage == "drop":
                matrix = interpolation_matrix(config.base.grid.freq, layout.grid.freq, antialias=True)
                along_freq = torch.from_numpy(matrix).to(model.pos_embed)
            positions.append((along_freq @ model.pos_embed.flatten(1)).unflatten(1, model.pos_embed.shape[1:]))
            padding = [max(padding[0], layout.padding[0]), max(padding[1], layout.patch.time, layout.stride.time)]
        self.padding = (0, padding[0], 0, padding[1])
        self.register_buffer("kernels", torch.cat(kernels))  # (sum of h * w, D)
        self.register_buffer("positions", torch.cat(positions))  # (sum of H, V, D)
        self.register_buffer("table", torch.tensor(rows))  # (K, 7)
        self.bias, self.blocks, self.norm = model.kernel_bias, model.blocks, model.norm
        self.prefix = nn.Parameter((model.prefix + model.prefix_pos_embed).detach(), requires_grad=False)  # (P, D)
        self.head_norm, self.head = model.head_norm, model.head

    def forward(self, log_mel: Tensor, lengths: Tensor | None = None, number: Tensor | None = None) -> Tensor:
        """Logits (B, C). number: of the patch size, an int64 scalar (default: the first).

        lengths: frames of each clip, (B,) integers, the rest is padding that is left out: the logits are those of
        `forward_packed`. Without them every frame counts, as in the model's own `forward`.
        """
        row = self.table[0] if number is None else self.table.index_select(0, number[None])[0]
        h, w, hop_freq, hop_time, grid_freq, first_kernel, first_row = row.tolist()
        total = torch.full((1,), log_mel.shape[1]) if lengths is None else lengths  # (B,) or (1,)
        heard = total.clamp(min=1, max=self.frames)
        columns = self._columns(heard, w, hop_time)
        grid_time: Any = columns.max().item()  # `int` could not be traced
        for size in (h, w, grid_freq, grid_time):
            torch._check(size > 0)
        inside = torch.arange(self.frames) < heard[:, None]  # (B, T)
        fitted = F.pad(log_mel, (0, 0, 0, self.frames))[:, : self.frames]
        fitted = torch.where(inside[:, :, None], fitted, self.config.pad_value)
        padded = F.pad(fitted, self.padding, value=self.config.pad_value).mT  # (B, F, T)
        in_rows = (torch.arange(grid_freq) * hop_freq)[:, None] + torch.arange(h)  # (H, h)
        in_columns = (torch.arange(grid_time) * hop_time)[:, None] + torch.arange(w)  # (W, w)
        cut = padded.index_select(1, in_rows.flatten()).index_select(2, in_columns.flatten())
        patches = cut.reshape(cut.shape[0], grid_freq, h, grid_time, w).transpose(2, 3)  # (B, H, W, h, w)
        patches = patches.reshape(cut.shape[0], grid_freq * grid_time, h * w)
        along_time = self._along_time(heard, columns, torch.arange(grid_time), w, hop_time)[:, None]  # (B, 1, W, V)
        positions = along_time @ self.positions.narrow(0, first_row, grid_freq)  # (B, H, W, D)
        tokens = patches @ self.kernels.narrow(0, first_kernel, h * w) + self.bias + positions.flatten(1, 2)
        x = torch.cat([self.prefix.expand(tokens.shape[0], -1, -1), tokens], dim=1)  # (B, N, D)
        if lengths is None:
            return self._classify(x, None)
        there = (torch.arange(grid_time) < columns[:, None])[:, None].expand(-1, grid_freq, -1)  # (B, H, W)
        return self._classify(x, there.flatten(1))

    def _classify(self, x: Tensor, there: Tensor | None) -> Tensor:
        """Logits (B, C) of tokens (B, N, D). there: which patches are not padding, (B, H * W)."""
        prefix, mask = self.config.prefix_tokens, None
        if there is not None:
            mask = F.pad(there, (prefix, 0), value=True)[:, None, None]  # (B, 1, 1, N)
        for block in self.blocks:
            x = block(x, attn_mask=mask)
        x = self.norm(x)
        if self.config.pool == "cls":
            pooled = x[:, :prefix].mean(dim=1)
        elif there is None:
            pooled = x[:, prefix:].mean(dim=1)
        else:
            pooled = (x[:, prefix:] * there[:, :, None]).sum(dim=1) / there.sum(dim=1, keepdim=True)
        return self.head(self.head_norm(pooled))

    def _columns(self, frames: Tensor, patch: int, hop: int) -> Tensor:
        """Number of patches along time for clips of these frames (B,), as `geometry.axis_tokens`; at least one."""
        over = (frames - patch).clamp(min=0)
        return (over + (hop - 1 if self.config.coverage == "pad" else 0)).div(hop, rounding_mode="floor") + 1

    def _along_time(self, frames: Tensor, columns: Tensor, number: Tensor, patch: int, hop: int) -> Tensor:
        """Matrices (B, W, V) that resize positions along time, as `FlexiAST.positions` does for clips of these frames.

        columns: patches of each clip, (B,). number: 0 to W - 1.
        """
        base, stored = self.config.base, self.positions.shape[1]
        if self.config.coverage == "drop":
            scale = stored / columns[:, None].float()
            centres, support = (number + 0.5) * scale, scale.clamp(min=1.0)
        else:
            stretch = (frames[:, None] / self.config.frames).clamp(min=1.0)
            support = (hop / (base.stride.time * stretch)).clamp(min=1.0)
            centres = ((number * hop + patch / 2) / stretch - base.patch.time / 2) / base.stride.time + 0.5
        centres = centres.clamp(0.5, stored - 0.5)[:, :, None]  # (B, W, 1)
        distance = (torch.arange(stored) + 0.5 - centres).abs()  # (B, W, V)
        weights = (1.0 - distance / support[:, :, None]).clamp(min=0.0)
        return weights / weights.sum(dim=2, keepdim=True)
