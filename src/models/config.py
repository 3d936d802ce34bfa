"""Settings of a network, checked on construction, and the standard sizes."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from ..errors import ConfigError, is_finite_number, is_whole_number
from .geometry import Coverage, Grid, Layout, PatchLike, PatchSize, forward_flops, lay_out, scaled_stride

Pool = Literal["cls", "mean"]
Loss = Literal["ce", "bce", "mse"]
"""Training loss. `ce`: one class per clip, softmax cross-entropy. `bce`: any number of classes, sigmoids. `mse`:
numbers to predict (targets), mean squared error over deviations; the network's outputs are standardised values."""

SIZES: dict[str, dict[str, Any]] = {
    "micro": {"width": 96, "depth": 4, "heads": 3},
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
}
"""Widths, depths and heads; tiny, small and base are those of ViT-Ti, ViT-S and ViT-B."""


@dataclasses.dataclass(frozen=True)
class FlexiASTConfig:
    """All settings needed to build the network, checked on construction."""

    classes: int
    """Number of output logits."""
    frames: int = 1024
    """Frames of the base input. With `patch_size` they set the base position grid."""
    bins: int = 128
    """Mel bins of the input."""
    patch_size: PatchSize = PatchSize(16, 16)
    """Base patch: the size of the stored kernel, and the default of `forward`."""
    stride: PatchSize | None = None
    """Hop between base patches; None for patches that do not overlap, (10, 10) for the released AST. Other patch
    sizes keep the same share of overlap."""
    width: int = 768
    """Embedding width D."""
    depth: int = 12
    """Number of transformer blocks."""
    heads: int = 12
    """Attention heads; must divide the width."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP, as a multiple of D."""
    prefix_tokens: int = 1
    """1: cls token. 2: cls and distillation tokens (DeiT)."""
    pool: Pool = "cls"
    """What the classifier sees: the mean of the prefix tokens (`cls`) or of the patch tokens (`mean`)."""
    coverage: Coverage = "pad"
    """How to treat bins and frames that do not fill a whole patch, see `geometry.Coverage`. Upstream uses `drop`;
    `pad` scored better in our measurements (egs/demo/RESULTS.md)."""
    pad_value: float = 0.0
    """Value that fills the last patches with `coverage="pad"`: the value of padding in the normalised input."""
    norm_eps: float = 1e-6
    """Epsilon of the encoder's layer norms (timm: 1e-6)."""
    head_norm_eps: float = 1e-5
    """Epsilon of the classifier's layer norm (AST: 1e-5)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", PatchSize.parse(self.patch_size))
        if self.stride is not None:
            object.__setattr__(self, "stride", PatchSize.parse(self.stride))
        for name in ("classes", "frames", "bins", "width", "depth", "heads"):
            value = getattr(self, name)
            if not is_whole_number(value) or not 1 <= value <= 1_000_000:
                raise ConfigError(f"model.{name}: found {value!r}, expected a whole number from 1 to 1,000,000")
        for name in ("mlp_ratio", "pad_value", "norm_eps", "head_norm_eps"):
            value = getattr(self, name)
            if not is_finite_number(value) or (value <= 0 and name != "pad_value"):
                above = "" if name == "pad_value" else " above 0"
                raise ConfigError(f"model.{name}: found {value!r}, expected a finite number{above}")
        if self.width % self.heads:
            raise ConfigError(f"model.heads: found {self.heads}, expected a divisor of the width {self.width}")
        if self.prefix_tokens not in (1, 2):
            raise ConfigError(
                f"model.prefix_tokens: found {self.prefix_tokens}, expected 1 (cls) or 2 (cls, distillation)"
            )
        if self.pool not in get_args(Pool):
            raise ConfigError(f"model.pool: found {self.pool!r}, expected one of {get_args(Pool)}")
        self.layout(self.patch_size)

    def layout(self, patch_size: PatchLike, frames: int | None = None) -> Layout:
        """Where the patches of this size lie on an input of `frames` frames (default: the base).

        Raises ConfigError if no patch fits.
        """
        patch = PatchSize.parse(patch_size)
        return lay_out(
            self.frames if frames is None else frames, self.bins, patch, self.stride_at(patch), self.coverage
        )

    def grid(self, patch_size: PatchLike, frames: int | None = None) -> Grid:
        """Token grid at a patch size for `frames` frames (default: the base). Raises ConfigError like `layout`."""
        return self.layout(patch_size, frames).grid

    @property
    def base(self) -> Layout:
        """Layout of the stored positions: whole patches of the base size, whatever the coverage."""
        return lay_out(self.frames, self.bins, self.patch_size, self.stride_at(self.patch_size))

    def stride_at(self, patch_size: PatchSize) -> PatchSize:
        """Hop between patches of this size: the size itself, or the base stride scaled with it."""
        return scaled_stride(patch_size, self.patch_size, self.stride) if self.stride else patch_size

    def flops(self, patch_size: PatchLike, frames: int | None = None, dropout: float = 0.0) -> int:
        """Floating-point operations of one clip's forward pass, see `geometry.forward_flops`."""
        patch = PatchSize.parse(patch_size)
        return forward_flops(
            self.grid(patch, frames), patch, self.width, self.depth, self.mlp_ratio, self.prefix_tokens, self.classes,
            dropout,
        )  # fmt: skip
