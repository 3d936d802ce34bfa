"""Resizing patch kernels and position grids: one small matrix per axis, pure functions.

Bilinear interpolation is separable: on a grid it is one matrix per axis, and the pseudo-inverse of their
Kronecker product is the Kronecker product of their pseudo-inverses. So PI-resize (FlexiViT, Beyer et al.,
CVPR 2023, section 3.4) of an (h, w) kernel is two small matrix products and never needs the (h'w', hw)
matrix. All matrices are built in float64, returned in the dtype asked for, and cached.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .geometry import Grid, Layout, PatchLike, PatchSize

Resize = Literal["pi", "bilinear"]
"""`pi`: pseudo-inverse resize of FlexiViT. `bilinear`: plain interpolation with antialias, the weaker baseline."""


def triangle_matrix(centers: np.ndarray, support: float, old: int) -> np.ndarray:
    """Rows of triangle-filter weights over `old` samples that sit at 0.5, 1.5, ..., old - 0.5.

    centers: (new,) where each new sample sits, in old samples. support: half-width of the triangle, in old
    samples. Weights past the border are dropped and each row sums to one. Returns (new, old) float64.
    """
    distance = np.abs((np.arange(old) + 0.5)[None, :] - np.clip(centers, 0.5, old - 0.5)[:, None])
    weights = np.maximum(0.0, 1.0 - distance / support)
    return weights / weights.sum(axis=1, keepdims=True)


def interpolation_matrix(old: int, new: int, antialias: bool) -> np.ndarray:
    """The (new, old) float64 matrix of 1-D linear interpolation, align_corners=False, as F.interpolate does it.

    With `antialias` the triangle widens when shrinking, so that every old sample contributes.
    """
    scale = old / new
    return triangle_matrix((np.arange(new) + 0.5) * scale, max(1.0, scale) if antialias else 1.0, old)


def extent_matrix(
    old: int, new: int, base_patch: int, base_stride: int, patch: int, stride: int, stretch: float = 1.0
) -> np.ndarray:
    """The (new, old) float64 matrix that samples base positions at the true places of the new tokens.

    Along one axis, base token i covers [i * base_stride, i * base_stride + base_patch) and new token j covers
    [j * stride, j * stride + patch), in bins or frames; the filter is as wide as the new token when that is
    the larger one. `stretch` > 1 maps a longer axis onto the base's, for clips longer than the base grid.
    """
    centers = (np.arange(new) * stride + patch / 2) / stretch
    in_base_tokens = (centers - base_patch / 2) / base_stride + 0.5
    return triangle_matrix(in_base_tokens, max(1.0, stride / (base_stride * stretch)), old)


def pi_matrix(old: int, new: int) -> np.ndarray:
    """The (new, old) float64 one-axis factor of PI-resize, pinv(B^T) with B = interpolation_matrix(old, new).

    It minimises the expected change of <x, w> when x is resized by B (FlexiViT, equation 4); none when new >= old.
    """
    return np.linalg.pinv(interpolation_matrix(old, new, antialias=False).T)


_BUILDERS = {"interpolation": interpolation_matrix, "extent": extent_matrix, "pi": pi_matrix}


@lru_cache(maxsize=4096)
def cached_matrix(kind: str, *sizes: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix `kind` of these sizes as a tensor on `device`; built once per process."""
    with torch.inference_mode(False):  # built during evaluation, it must still work in training
        return torch.from_numpy(_BUILDERS[kind](*sizes)).to(device, dtype)  # type: ignore[operator]


def _kernel_resize(weight: Tensor, new_size: PatchLike, kind: str, *flags: bool) -> Tensor:
    old, new = PatchSize(*weight.shape[-2:]), PatchSize.parse(new_size)
    if old == new:
        return weight
    dtype = torch.promote_types(weight.dtype, torch.float32)  # the inverse matrices need it, even for half precision
    options = {"dtype": dtype, "device": weight.device}
    rows = cached_matrix(kind, old.freq, new.freq, *flags, **options)
    cols = cached_matrix(kind, old.time, new.time, *flags, **options)
    with torch.autocast(weight.device.type, enabled=False):  # bfloat16 is too coarse for the kernel
        return (rows @ weight.to(dtype) @ cols.mT).to(weight.dtype)  # (h', h) @ (..., h, w) @ (w, w')


def pi_resize(weight: Tensor, new_size: PatchLike) -> Tensor:
    """Resize patch kernels (..., h, w) to (..., h', w') so that their responses to resized patches are kept.

    Differentiable; identity at the same size. Source: FlexiViT, Beyer et al., CVPR 2023, section 3.4.
    """
    return _kernel_resize(weight, new_size, "pi")


def bilinear_resize(weight: Tensor, new_size: PatchLike) -> Tensor:
    """Resize patch kernels (..., h, w) to (..., h', w') as if they were images: bilinear with antialias."""
    return _kernel_resize(weight, new_size, "interpolation", True)


def resize_kernel(weight: Tensor, new_size: PatchLike, resize: Resize = "pi") -> Tensor:
    """Resize patch kernels (..., h, w) by the named method. Raises ConfigError for an unknown one."""
    if resize not in get_args(Resize):
        raise ConfigError(f"resize: found {resize!r}, expected one of {get_args(Resize)}")
    return pi_resize(weight, new_size) if resize == "pi" else bilinear_resize(weight, new_size)


def apply_to_grid(positions: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Resample a position grid (H, W, D) to (H', W', D) with matrices (H', H) and (W', W)."""
    with torch.autocast(positions.device.type, enabled=False):
        along_time = cols @ positions  # (W', W) @ (H, W, D) -> (H, W', D)
        return (rows @ along_time.flatten(1)).unflatten(1, along_time.shape[1:])  # (H', W', D)


def extent_matrices(
    base: Layout, new: Layout, like: Tensor, stretches: tuple[float, float] = (1.0, 1.0)
) -> tuple[Tensor, Tensor]:
    """`extent_matrix` along frequency and along time, from one layout to another, in dtype and device of `like`."""
    rows, cols = (
        cached_matrix("extent", *sizes, dtype=like.dtype, device=like.device)
        for sizes in zip(base.grid, new.grid, base.patch, base.stride, new.patch, new.stride, stretches, strict=True)
    )
    return rows, cols


def resample_positions(positions: Tensor, grid: Grid) -> Tensor:
    """Stretch a position grid (H, W, D) onto `grid`, bilinear with antialias (as upstream FlexiAST does)."""
    old = Grid(*positions.shape[:2])
    if old == grid:
        return positions
    options = {"dtype": positions.dtype, "device": positions.device}
    rows = cached_matrix("interpolation", old.freq, grid.freq, True, **options)
    cols = cached_matrix("interpolation", old.time, grid.time, True, **options)
    return apply_to_grid(positions, rows, cols)


def fit_positions(positions: Tensor, grid: Grid) -> Tensor:
    """Fit a position grid (H, W, D) to `grid` as AST does: an axis that shrinks is cut to its centre, one that
    grows is interpolated (Gong et al., INTERSPEECH 2021, section 2.2)."""
    for axis, new in enumerate(grid):
        old = positions.shape[axis]
        if new < old:
            positions = positions.narrow(axis, old // 2 - new // 2, new)
    return resample_positions(positions, grid)
