"""Resize matrices: FlexiViT's definition, PyTorch's and timm's results, gradients, and where tokens lie."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed, resample_patch_embed

from flexiast.errors import ConfigError
from flexiast.models.geometry import Grid, PatchSize
from flexiast.models.resize import (
    bilinear_resize,
    extent_matrix,
    interpolation_matrix,
    pi_resize,
    resample_positions,
    resize_kernel,
)

SIDES = st.integers(1, 16)
SEEDS = st.integers(0, 2**32 - 1)
OLD_AND_NEW = [(16, 8), (16, 10), (16, 48), (8, 30), (7, 7), (5, 1), (1, 4)]


def normal(seed: int, *shape: int) -> torch.Tensor:
    """Normal numbers in float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@settings(max_examples=40, deadline=None)
@given(h=SIDES, w=SIDES, more_h=st.integers(0, 32), more_w=st.integers(0, 32), seed=SEEDS)
def test_pi_resize_keeps_the_response_to_a_patch_that_grows(h, w, more_h, more_w, seed):
    new = PatchSize(h + more_h, w + more_w)
    x, weight = normal(seed, h, w), normal(seed + 1, h, w)
    rows, cols = (torch.from_numpy(interpolation_matrix(old, new, False)) for old, new in zip((h, w), new, strict=True))
    grown = rows @ x @ cols.T
    # FlexiViT, section 3.4: <x, w> = <Bx, PI(w)>; the tolerance is float64 rounding over at most 2304 terms.
    torch.testing.assert_close((grown * pi_resize(weight, new)).sum(), (x * weight).sum(), atol=1e-10, rtol=0)


@settings(max_examples=20, deadline=None)
@given(h=SIDES, w=SIDES, new_h=SIDES, new_w=SIDES, seed=SEEDS)
def test_pi_resize_by_axis_is_the_full_pseudo_inverse(h, w, new_h, new_w, seed):
    weight = normal(seed, h, w)
    full = np.kron(interpolation_matrix(h, new_h, False), interpolation_matrix(w, new_w, False))
    expected = np.linalg.pinv(full.T) @ weight.numpy().ravel()
    np.testing.assert_allclose(pi_resize(weight, (new_h, new_w)).numpy().ravel(), expected, atol=1e-10)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW)
def test_interpolation_matrix_is_that_of_torch(old, new, antialias):
    unit_impulses = torch.eye(old, dtype=torch.float64)[None, None]  # (1, 1, old, old), resized along the height
    expected = F.interpolate(unit_impulses, (new, old), mode="bilinear", antialias=antialias)[0, 0]
    np.testing.assert_allclose(interpolation_matrix(old, new, antialias), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("new", [(8, 8), (48, 48), (10, 30), (16, 32)])
def test_pi_resize_equals_timm(new):
    weight = normal(0, 6, 1, 16, 16).float()
    expected = resample_patch_embed(weight, list(new), interpolation="bilinear", antialias=False)
    torch.testing.assert_close(pi_resize(weight, new), expected, atol=1e-4, rtol=0)  # timm works in float32


@pytest.mark.parametrize("new", [(16, 128), (4, 21), (8, 40), (2, 100)])
def test_resample_positions_equals_timm(new):
    positions = normal(0, 1, 8 * 64, 6).float()
    expected = resample_abs_pos_embed(
        positions, list(new), [8, 64], num_prefix_tokens=0, interpolation="bilinear", antialias=True
    )
    got = resample_positions(positions.view(8, 64, 6), Grid(*new)).view(1, -1, 6)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_resample_positions_looks_at_shapes_not_at_counts():
    positions = normal(0, 4, 16, 3)  # 64 tokens, and 64 again
    expected = F.interpolate(positions.permute(2, 0, 1)[None], (8, 8), mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(resample_positions(positions, Grid(8, 8)), expected.permute(1, 2, 0))


@pytest.mark.parametrize("resize", [pi_resize, bilinear_resize])
def test_kernel_of_the_same_size_is_returned_as_it_is(resize):
    weight = normal(0, 3, 8, 12)
    assert resize(weight, (8, 12)) is weight


def test_positions_of_the_same_grid_are_returned_as_they_are():
    positions = normal(0, 3, 8, 2)
    assert resample_positions(positions, Grid(3, 8)) is positions


@pytest.mark.parametrize(
    "function",
    [
        lambda x: pi_resize(x, (3, 7)),
        lambda x: bilinear_resize(x, (3, 7)),
        lambda x: resample_positions(x, Grid(3, 7)),
    ],
    ids=["pi", "bilinear", "positions"],
)
def test_gradients_flow_through(function):
    assert torch.autograd.gradcheck(function, normal(0, 4, 5, 2).requires_grad_())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: pi_resize(x, 24),
        lambda x: bilinear_resize(x, 24),
        lambda x: resample_positions(x, Grid(5, 9)),
    ],
    ids=["pi", "bilinear", "positions"],
)
def test_autocast_does_not_cost_precision(function):
    weight = normal(0, 8, 16, 16).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = function(weight)
    assert torch.equal(got, function(weight))


@pytest.mark.parametrize(
    "function",
    [lambda x: pi_resize(x, (3, 11)), lambda x: resample_positions(x, Grid(3, 11))],
    ids=["kernel", "positions"],
)
def test_sizes_first_met_in_evaluation_can_be_trained(function):
    weight = normal(0, 4, 4, 13).float().requires_grad_()
    with torch.inference_mode():
        function(weight)
    function(weight).sum().backward()
    assert weight.grad.abs().sum() > 0


def test_unknown_resize_is_refused():
    with pytest.raises(ConfigError, match="'nearest'"):
        resize_kernel(normal(0, 2, 4, 4), 8, "nearest")


@settings(max_examples=40, deadline=None)
@given(
    old=st.integers(1, 64),
    new=st.integers(1, 128),
    base=st.integers(1, 32),
    patch=st.integers(1, 64),
    stretch=st.floats(1, 4),
)
def test_extent_weights_of_each_token_sum_to_one(old, new, base, patch, stretch):
    matrix = extent_matrix(old, new, base, base, patch, patch, stretch)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("patch", [8, 16, 32, 64])
def test_extent_matrix_is_interpolation_where_patches_tile_exactly(patch):
    matrix = extent_matrix(8, 128 // patch, 16, 16, patch, patch)
    np.testing.assert_allclose(matrix, interpolation_matrix(8, 128 // patch, antialias=True), atol=1e-12)


# A triangle as wide as a whole number of base tokens keeps straight lines: sizes up to the base, and its multiples.
@pytest.mark.parametrize("patch", [7, 8, 10, 12, 16, 32, 48])
def test_extent_matrix_samples_positions_at_the_centres_of_tokens(patch):
    frames, base = 1024, 16
    tokens = -(-frames // patch)
    ramp = np.arange(frames // base) * base + base / 2  # position embedding = where the base token's centre lies
    centres = np.arange(tokens) * patch + patch / 2
    reach = max(patch, base) + base / 2  # the filter must not reach over the border
    inside = (centres > reach) & (centres < frames - reach)
    sampled = extent_matrix(len(ramp), tokens, base, base, patch, patch) @ ramp
    assert inside.sum() >= 15
    np.testing.assert_allclose(sampled[inside], centres[inside], atol=1e-9)
