"""FlexiAST: an Audio Spectrogram Transformer whose patch size is an argument of the forward pass.

Sources: AST (Gong et al., INTERSPEECH 2021), FlexiAST (Feng et al., INTERSPEECH 2023).

Dimensions: B batch, T frames, F mel bins, h x w patch (bins x frames), H x W token grid,
P prefix tokens, N = P + H * W tokens, D width, C classes.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ..errors import ConfigError
from .attention import lay_back, layer_weights, rollout_weights
from .block_attention import BlockAttention
from .export import FrozenAST, freeze
from .geometry import Coverage, Grid, PatchLike, PatchSize, forward_flops, padded_extent, scaled_stride, token_grid
from .resize import Resize, apply_to_grid, cached_matrix, resample_positions, resize_kernel

Pool = Literal["cls", "mean"]

SIZES: dict[str, dict[str, int]] = {
    "micro": {"width": 96, "depth": 4, "heads": 3},
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
}
"""Widths, depths and heads; tiny, small and base are those of ViT-Ti, ViT-S and ViT-B."""


@dataclasses.dataclass(frozen=True)
class FlexiASTConfig:
    """Everything needed to build the network, checked on construction."""

    classes: int
    """Number of output logits."""
    frames: int = 1024
    """Frames (10 ms) of the base input: with `patch_size` it sets the base position grid."""
    bins: int = 128
    """Mel bins of the input."""
    patch_size: PatchSize = PatchSize(16, 16)
    """Base patch: the size of the stored kernel, used where `forward` is given none."""
    stride: PatchSize | None = None
    """Hop between base patches; none for patches side by side, (10, 10) for the released AST. At other
    patch sizes the share of overlap is kept."""
    width: int = 768
    """Embedding width D."""
    depth: int = 12
    """Number of transformer blocks."""
    heads: int = 12
    """Attention heads; must divide the width."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over D."""
    prefix_tokens: int = 1
    """1: cls. 2: cls and distillation token (DeiT)."""
    pool: Pool = "cls"
    """What the classifier sees: the mean of the prefix tokens (`cls`) or of the patch tokens (`mean`)."""
    coverage: Coverage = "pad"
    """What becomes of bins and frames that fill no whole patch, see `geometry.Coverage`. `drop` is upstream's way;
    `pad` was better in measurement (egs/demo/RESULTS.md)."""
    pad_value: float = 0.0
    """Value that fills up the last patches under `coverage="pad"`: that of padding in the normalised input."""
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
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
                raise ConfigError(f"model.{name}: found {value!r}, expected a whole number from 1 to 1,000,000")
        for name in ("mlp_ratio", "pad_value", "norm_eps", "head_norm_eps"):
            value = getattr(self, name)
            usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not usable or (value <= 0 and name != "pad_value"):
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
        self.grid(self.patch_size)
        self.grid()

    def grid(self, patch_size: PatchSize | None = None, frames: int | None = None) -> Grid:
        """Token grid at a patch size (base unless given) for a number of frames (base unless given).

        Raises ConfigError if no patch fits.
        """
        patch = patch_size or self.patch_size
        # The stored position grid counts whole patches, whatever the coverage of later inputs.
        coverage: Coverage = "drop" if patch_size is None and frames is None else self.coverage
        return token_grid(self.frames if frames is None else frames, self.bins, patch, self.stride_at(patch), coverage)

    def stride_at(self, patch_size: PatchSize) -> PatchSize:
        """Hop between patches of this size: the size itself, or the base stride scaled with it."""
        return scaled_stride(patch_size, self.patch_size, self.stride) if self.stride else patch_size

    def flops(self, patch_size: PatchLike, frames: int | None = None) -> int:
        """Operations of one clip's forward pass, see `geometry.forward_flops`."""
        patch = PatchSize.parse(patch_size)
        grid = self.grid(patch, self.frames if frames is None else frames)
        return forward_flops(grid, patch, self.width, self.depth, self.mlp_ratio, self.prefix_tokens, self.classes)


class FlexiAST(nn.Module):
    """The network: log-mel spectrograms (B, T, F), normalised, in; logits (B, C) out, at any patch size.

    Kernel and positions are stored once, at the base size; every call resizes them anew from there, so that
    gradients of every patch size flow into the same weights and no resize is ever chained on another.
    """

    def __init__(self, config: FlexiASTConfig) -> None:
        super().__init__()
        self.config = config
        grid, width = config.grid(), config.width
        norm = partial(nn.LayerNorm, eps=config.norm_eps)
        self.kernel = nn.Parameter(torch.empty(width, *config.patch_size))  # (D, h, w)
        self.kernel_bias = nn.Parameter(torch.zeros(width))
        self.prefix = nn.Parameter(torch.empty(config.prefix_tokens, width))  # (P, D), cls first
        self.prefix_pos_embed = nn.Parameter(torch.zeros(config.prefix_tokens, width))
        self.pos_embed = nn.Parameter(sin_cos_positions(grid, width))  # (H, W, D)
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
        # Every block starts as the identity: a short training from scratch leaves the plateau of chance far sooner.
        blocks: list[Any] = list(self.blocks)
        for block in blocks:
            nn.init.zeros_(block.attn.proj.weight)
            nn.init.zeros_(block.mlp.fc2.weight)

    def forward(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        """Logits (B, C) of normalised log-mel (B, T, F) cut into patches of `patch_size` (base unless given).

        Raises ConfigError if the input is not (B, T, F) with the model's F, or smaller than one patch.
        """
        return self.head(self.head_norm(self.features(log_mel, patch_size, resize)))

    def features(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        """Pooled embeddings (B, D): what the classifier sees."""
        x = self.encode(log_mel, patch_size, resize)
        prefix, patches = x[:, : self.config.prefix_tokens], x[:, self.config.prefix_tokens :]
        return (prefix if self.config.pool == "cls" else patches).mean(dim=1)

    def encode(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        """All tokens after the encoder, (B, N, D): prefix first, then the patches, frequency row by frequency row."""
        x = self.embed(log_mel, patch_size, resize)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

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

        A bin holds the weight, from 0 to 1, that the pooled tokens (see `Pool`) give the patch it lies in, the
        mean over heads in block `layer`; or, with `rollout`, what reaches them of that patch from the first block
        on (`attention.rollout_weights`). What the prefix tokens keep for themselves is on no bin. Raises
        ConfigError for an unusable input, patch size or layer.
        """
        x = self.embed(log_mel, patch_size, resize)
        weights = rollout_weights(self.blocks, x, layer) if rollout else layer_weights(self.blocks, x, layer).mean(1)
        prefix = self.config.prefix_tokens
        queries = weights[:, :prefix] if self.config.pool == "cls" else weights[:, prefix:]  # (B, queries, N)
        patch = self.config.patch_size if patch_size is None else PatchSize.parse(patch_size)
        grid = self.config.grid(patch, log_mel.shape[1])
        per_token = queries.mean(dim=1)[:, prefix:].unflatten(1, grid)  # (B, H, W)
        return lay_back(per_token, log_mel.shape[1], self.config.bins, patch, self.config.stride_at(patch))

    def freeze(
        self, patch_size: PatchLike | None = None, frames: int | None = None, resize: Resize = "pi"
    ) -> FrozenAST:
        """This network at one patch size and number of frames, with nothing left to resize, see `export.freeze`."""
        return freeze(self, patch_size, frames, resize)

    def embed(self, log_mel: Tensor, patch_size: PatchLike | None = None, resize: Resize = "pi") -> Tensor:
        """Tokens with their positions, (B, N, D), before the first block."""
        if log_mel.ndim != 3 or log_mel.shape[-1] != self.config.bins:
            raise ConfigError(
                f"input shape: found {tuple(log_mel.shape)}, expected (batch, frames, {self.config.bins})"
            )
        patch = self.config.patch_size if patch_size is None else PatchSize.parse(patch_size)
        patches = self.patchify(log_mel, patch)  # (B, H*W, h*w)
        kernel = resize_kernel(self.kernel, patch, resize)  # (D, h, w)
        tokens = F.linear(patches, kernel.flatten(1), self.kernel_bias)  # (B, H*W, D)
        tokens = tokens + self.positions(patch, log_mel.shape[1]).flatten(0, 1)
        prefix = (self.prefix + self.prefix_pos_embed).expand(len(tokens), -1, -1)  # (B, P, D)
        return torch.cat([prefix.to(tokens.dtype), tokens], dim=1)

    def patchify(self, log_mel: Tensor, patch: PatchSize) -> Tensor:
        """Cut (B, T, F) into patches (B, H*W, h*w), overlapping where the model has a stride, padded under `pad`."""
        config, frames = self.config, log_mel.shape[1]
        grid, stride = config.grid(patch, frames), config.stride_at(patch)
        rest_f = padded_extent(config.bins, patch.freq, stride.freq, config.coverage) - config.bins
        rest_t = padded_extent(frames, patch.time, stride.time, config.coverage) - frames
        if rest_f > 0 or rest_t > 0:
            log_mel = F.pad(log_mel, (0, max(0, rest_f), 0, max(0, rest_t)), value=config.pad_value)
        image = log_mel.mT  # (B, F, T)
        patches = image.unfold(1, patch.freq, stride.freq).unfold(2, patch.time, stride.time)  # (B, H, W, h, w)
        return patches.reshape(len(log_mel), grid.tokens, patch.freq * patch.time)

    def positions(self, patch: PatchSize, frames: int) -> Tensor:
        """Position embeddings (H, W, D) of the patch tokens at this patch size and number of frames.

        `drop` stretches the stored grid over the new one. `pad` samples it where each token truly lies; inputs
        longer than the base are stretched along time, shorter ones use the first columns.
        """
        config, grid = self.config, self.config.grid(patch, frames)
        if config.coverage == "drop":
            return resample_positions(self.pos_embed, grid)
        base, old, stride = config.patch_size, Grid(*self.pos_embed.shape[:2]), config.stride_at(patch)
        base_stride = config.stride_at(base)
        options = {"dtype": self.pos_embed.dtype, "device": self.pos_embed.device}
        rows = cached_matrix(
            "extent", old.freq, grid.freq, base.freq, base_stride.freq, patch.freq, stride.freq, **options
        )
        stretch = max(1.0, frames / config.frames)
        cols = cached_matrix(
            "extent", old.time, grid.time, base.time, base_stride.time, patch.time, stride.time, stretch, **options
        )
        return apply_to_grid(self.pos_embed, rows, cols)


def sin_cos_positions(grid: Grid, width: int) -> Tensor:
    """Two-dimensional sine-cosine positions (H, W, D), the start of the learned ones.

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
