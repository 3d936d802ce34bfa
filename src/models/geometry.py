"""Patch sizes, token grids and their cost: integer arithmetic only, no tensors.

T frames, F mel bins, H x W the token grid (frequency rows x time columns).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from ..errors import ConfigError

Coverage = Literal["drop", "pad"]
"""`drop`: only whole patches; the remainder is ignored. `pad`: the last patch is padded, so nothing is ignored."""


class PatchSize(NamedTuple):
    """Extent of one patch: `freq` mel bins by `time` frames. Written `16` or `16x32` (freq x time)."""

    freq: int
    time: int

    @classmethod
    def parse(cls, value: PatchLike) -> PatchSize:
        """Read an int (square), a (freq, time) pair, or text such as `16` or `16x32`.

        Raises ConfigError if the value is anything else, or not positive.
        """
        if isinstance(value, str):
            match = re.fullmatch(r"\s*(\d{1,9})\s*(?:[xX]\s*(\d{1,9}))?\s*", value)
            numbers: list[Any] = [int(g) for g in match.groups() if g] if match else []
        elif isinstance(value, Sequence) and not isinstance(value, bytes):
            numbers = list(value)
        else:
            numbers = [value]
        is_integer = [isinstance(n, Integral) and not isinstance(n, bool) and 0 < int(n) < 10**9 for n in numbers]
        if len(numbers) not in (1, 2) or not all(is_integer):
            raise ConfigError(
                f"patch size: found {value!r:.80}, expected positive whole numbers as 16, (16, 32) or '16x32'"
                " (freq x time)"
            )
        return cls(int(numbers[0]), int(numbers[-1]))

    def __str__(self) -> str:
        return str(self.freq) if self.freq == self.time else f"{self.freq}x{self.time}"


PatchLike: TypeAlias = int | str | Sequence[int]


TRAINED_SIZES = tuple(PatchSize(s, s) for s in (8, 10, 12, 15, 16, 20, 24, 30, 32, 40, 48))
"""Patch sizes that FlexiAST is trained at (Feng et al., 2023)."""
PAPER_SIZES = tuple(PatchSize(s, s) for s in (8, 10, 12, 16, 20, 24, 30, 32, 40, 48))
"""Patch sizes that FlexiAST is evaluated at (Feng et al., 2023)."""


EVERY_SIZE = tuple(PatchSize(s, s) for s in range(8, 49))
"""Every square size in the published range: the default sizes for making a model flexible."""


class Grid(NamedTuple):
    """Number of tokens along frequency (rows) and along time (columns)."""

    freq: int
    time: int

    @property
    def tokens(self) -> int:
        return self.freq * self.time


def axis_tokens(extent: int, patch: int, stride: int, coverage: Coverage) -> int:
    """Number of patches along an axis of `extent` bins or frames."""
    if coverage == "drop":
        return max(0, (extent - patch) // stride + 1)
    return max(0, -(-max(0, extent - patch) // stride) + 1) if extent > 0 else 0


class Layout(NamedTuple):
    """How patches lie on a (frames, bins) spectrogram: follows from patch size, stride and coverage, computed once."""

    patch: PatchSize
    stride: PatchSize
    grid: Grid
    padding: tuple[int, int]
    """Bins and frames that `pad` adds at the top and at the end, so that the last patches are whole."""

    @property
    def padded(self) -> bool:
        return self.padding != (0, 0)


def lay_out(
    frames: int, bins: int, patch: PatchSize, stride: PatchSize | None = None, coverage: Coverage = "drop"
) -> Layout:
    """The layout of patches on a (frames, bins) spectrogram; by default patches do not overlap.

    Raises ConfigError if not even one patch fits (also under `pad`: a patch larger than the input
    would be mostly padding, which no training has seen).
    """
    if coverage not in get_args(Coverage):
        raise ConfigError(f"coverage: found {coverage!r}, expected one of {get_args(Coverage)}")
    if patch.freq > bins or patch.time > frames:
        raise ConfigError(
            f"patch size {patch.freq}x{patch.time} (bins x frames) is larger than the input, {bins} x {frames}"
        )
    stride = stride or patch
    axes = list(zip((bins, frames), patch, stride, strict=True))
    tokens = [axis_tokens(*axis, coverage) for axis in axes]
    spans = [(count - 1) * hop + size for count, (_, size, hop) in zip(tokens, axes, strict=True)]
    padding = [max(0, span - extent) for span, (extent, _, _) in zip(spans, axes, strict=True)]
    return Layout(patch, stride, Grid(*tokens), (padding[0], padding[1]))


def scaled_stride(patch: PatchSize, base_patch: PatchSize, base_stride: PatchSize) -> PatchSize:
    """Stride at another patch size that keeps the base's share of overlap (16 at stride 10: 32 at stride 20)."""
    return PatchSize(
        max(1, round(patch.freq * base_stride.freq / base_patch.freq)),
        max(1, round(patch.time * base_stride.time / base_patch.time)),
    )


USUAL_FRAMES = (1024, 512, 256, 128)
"""Input lengths of trained AST and FlexiAST models."""


def infer_layout(tokens: int, patch: PatchSize, bins: int, frames: int | None = None) -> tuple[PatchSize, int] | None:
    """Stride and frames of an AST with `tokens` patch positions, or None if nothing fits.

    Square patches may overlap, with strides of 10 to 16 at patch 16 as in AST. `frames`, if given, is tried
    first, then the usual lengths. Where several strides fit, patches side by side come first, then AST's own 10, 12
    and 14 of 16.
    """
    strides = [patch]
    if patch.freq == patch.time:
        sixteenths = (10, 12, 14, 11, 13, 15)
        overlapping = [round(patch.freq * n / 16) for n in sixteenths]
        strides += [PatchSize(s, s) for s in dict.fromkeys(overlapping) if s != patch.freq]
    for length in (*((frames,) if frames else ()), *USUAL_FRAMES):
        for stride in strides:
            rows, columns = (
                axis_tokens(extent, size, hop, "drop")
                for extent, size, hop in zip((bins, length), patch, stride, strict=True)
            )
            if rows * columns == tokens:
                return stride, length
    return None


LEAST_KEPT = 24
"""Patch dropout leaves a clip so many patches, or all that it has: coarse sizes are cheap, and have none to spare."""


def kept_patches(patches: int, dropout: float) -> int:
    """How many of so many patches of a clip patch dropout keeps."""
    return min(patches, max(LEAST_KEPT, round((1 - dropout) * patches)))


def forward_flops(
    grid: Grid, patch: PatchSize, width: int, depth: int, mlp_ratio: float, prefix: int, classes: int,
    dropout: float = 0.0,
) -> int:  # fmt: skip
    """Floating-point operations of one clip's forward pass: two per multiply-accumulate of every matrix product.

    Patch embedding, then per block qkv and output projections (4 D^2 per token), attention scores and
    mixing (2 N D per token) and the MLP (2 r D^2 per token), then the classifier. Norms, softmax and
    GELU, below one percent, are not counted. dropout: of patches, once they are embedded
    (`PatchDropout`). All blocks count in full, as is usual, though of the last one only the
    pooled tokens are computed (`block.Block`).
    """
    tokens = kept_patches(grid.tokens, dropout) + prefix
    embed = grid.tokens * patch.freq * patch.time * width
    hidden = int(width * mlp_ratio)
    block = tokens * (4 * width * width + 2 * width * hidden) + 2 * tokens * tokens * width
    return 2 * (embed + depth * block + width * classes)
