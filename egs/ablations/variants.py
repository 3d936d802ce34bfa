"""Networks that are told their patch size, or store more than one kernel: each the product's with one change.

Every variant starts as the model it is made from, or very near it; what it adds is learned.

Dimensions: B clips, T frames, F mel bins, D width, P prefix tokens, N tokens, (H, W) grid of patches, (h, w) patch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.models.flexiast import patchify
from flexiast.models.geometry import Layout, PatchLike, PatchSize, lay_out
from flexiast.models.resize import Resize, apply_to_grid, extent_matrices, resize_kernel

STORED = (8, 16, 48)
"""Sides of the kernels of a pyramid; 16 is the base, which every model has."""
FINE = PatchSize(8, 8)
"""Patch whose grid the fine positions are stored on."""


class Variant(AudioClassifier):
    """A model with one change, made from another one."""

    @classmethod
    def of(cls, start: AudioClassifier) -> Variant:
        """This variant with the weights of `start`; its own additions change little or nothing yet."""
        variant = cls(start.config, start.feature_config, start.labels, start.loss)
        variant.add(start)
        variant.load_state_dict(start.state_dict(), strict=False)
        return variant

    def add(self, start: AudioClassifier) -> None:
        """Register the additional parameters."""


def log_side(layout: Layout, base: PatchSize) -> float:
    """Natural logarithm of the patch's side, the geometric mean of the two, relative to the base patch."""
    return 0.5 * math.log(layout.patch.freq * layout.patch.time / (base.freq * base.time))


class SizeToken(Variant):
    """A learned vector times the log side is added to the prefix tokens: D parameters."""

    def add(self, start: AudioClassifier) -> None:
        self.by_size = nn.Parameter(torch.zeros(self.config.width))

    def embed_patches(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        tokens = super().embed_patches(log_mel, patch_size, resize)
        shift = self.by_size * log_side(self.layout(log_mel, patch_size), self.config.patch_size)
        prefix, patches = tokens[:, : self.config.prefix_tokens], tokens[:, self.config.prefix_tokens :]
        return torch.cat([prefix + shift.to(prefix.dtype), patches], dim=1)


class SizeNorms(Variant):
    """Gain and bias of every layer norm of the blocks are linear in the log side: 4 D parameters a block."""

    side = 0.0

    def add(self, start: AudioClassifier) -> None:
        norms = [module for block in self.blocks for module in block.modules() if isinstance(module, nn.LayerNorm)]
        self.by_size = nn.Parameter(torch.zeros(len(norms), 2, self.config.width))
        for number, norm in enumerate(norms):
            norm.register_forward_hook(self._hook(number))

    def _hook(self, number: int) -> Any:
        def modulate(norm: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            gain, bias = (self.side * self.by_size[number]).to(output.dtype)
            return output * (1 + gain) + bias

        return modulate

    def embed_patches(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        self.side = log_side(self.layout(log_mel, patch_size), self.config.patch_size)
        return super().embed_patches(log_mel, patch_size, resize)


class KernelPyramid(Variant):
    """Kernels stored at sides 8, 16 and 48; one in between is resized from its two neighbours and mixed by log side."""

    def add(self, start: AudioClassifier) -> None:
        for side in STORED:
            if side != 16:
                kernel = resize_kernel(start.kernel.detach(), PatchSize(side, side))
                self.register_parameter(f"kernel_{side}", nn.Parameter(kernel.clone()))

    def kernel_at(self, layout: Layout, resize: Resize) -> Tensor:
        """The mixed kernel (D, h, w)."""
        side = math.log(layout.patch.freq * layout.patch.time) / 2
        places = [math.log(stored) for stored in STORED]
        upper = next((n for n, place in enumerate(places) if place >= side), len(places) - 1)
        lower = max(0, upper - 1)
        share = 0.0 if upper == lower else min(1.0, (side - places[lower]) / (places[upper] - places[lower]))
        kernels = [self.kernel if stored == 16 else getattr(self, f"kernel_{stored}") for stored in STORED]
        low, high = (resize_kernel(kernels[n], layout.patch, resize) for n in (lower, upper))
        return torch.lerp(low, high, share)

    def embed_patches(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        layout = self.layout(log_mel, patch_size)
        patches = patchify(log_mel, layout.patch, layout.stride, layout.padding, self.config.pad_value)
        tokens = F.linear(patches, self.kernel_at(layout, resize).flatten(1), self.kernel_bias)
        tokens = tokens + self.positions(layout, log_mel.shape[1]).flatten(0, 1)
        prefix = (self.prefix + self.prefix_pos_embed).expand(len(tokens), -1, -1)
        return torch.cat([prefix.to(tokens.dtype), tokens], dim=1)


class FinePositions(Variant):
    """Positions stored on the grid of 8 x 8 patches, the kernel still at the base size."""

    def add(self, start: AudioClassifier) -> None:
        self.fine = lay_out(self.config.frames, self.config.bins, FINE, FINE)
        rows, cols = extent_matrices(self.config.base, self.fine, start.pos_embed)
        self.fine_positions = nn.Parameter(apply_to_grid(start.pos_embed.detach(), rows, cols))

    def positions(self, layout: Layout, frames: int) -> Tensor:
        rows, cols = extent_matrices(self.fine, layout, self.fine_positions)
        return apply_to_grid(self.fine_positions, rows, cols)


VARIANTS: dict[str, type[Variant]] = {
    "size token": SizeToken,
    "size in the norms": SizeNorms,
    "kernel pyramid": KernelPyramid,
    "finer positions": FinePositions,
}
