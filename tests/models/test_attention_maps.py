"""Attention maps: weights against a softmax by hand, rollout against a loop, and the way back to the spectrogram."""

import pytest
import torch
from torch import Tensor

from flexiast.errors import ConfigError
from flexiast.models.attention_maps import attention_weights, lay_back, layer_weights, rollout_weights
from flexiast.models.flexiast import FlexiAST
from flexiast.models.geometry import PatchSize, lay_out
from tests.models.test_flexiast import small

X = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(1))


def by_hand(model: FlexiAST, tokens: Tensor, number: int) -> Tensor:
    """Weights (heads, N, N) of one clip's tokens (N, D), head by head and query by query."""
    block = model.blocks[number]
    x = block.norm1(tokens)
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    width, heads = model.config.width, model.config.heads
    head = width // heads
    result = torch.empty(heads, len(x), len(x))
    for h in range(heads):
        rows_q, rows_k = slice(h * head, (h + 1) * head), slice(width + h * head, width + (h + 1) * head)
        query, key = x @ weight[rows_q].T + bias[rows_q], x @ weight[rows_k].T + bias[rows_k]
        for q in range(len(x)):
            exponents = torch.exp(key @ query[q] / head**0.5)
            result[h, q] = exponents / exponents.sum()
    return result


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1, -1, -2])
def test_weights_are_the_softmax_that_the_layer_mixes_with(layer: int) -> None:
    model = small()
    x = model.embed_patches(X, 16)
    got = layer_weights(model.blocks, x, layer)
    inner = x if layer % 2 == 0 else model.blocks[0](x)
    torch.testing.assert_close(got[1], by_hand(model, inner[1], layer % 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(got.sum(dim=-1), torch.ones(got.shape[:-1]))


@torch.no_grad()
def test_mixing_values_with_the_weights_is_what_the_block_does() -> None:
    block, x = small().blocks[0], small().embed_patches(X)
    values = block.attn.qkv(block.norm1(x))[..., 32:].unflatten(-1, (2, 8)).transpose(1, 2)  # (B, heads, N, d)
    mixed = (attention_weights(block, x) @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(block.attn.proj(mixed), block.attn(block.norm1(x)), atol=1e-6, rtol=0)


@torch.no_grad()
def test_rollout_multiplies_half_attention_half_identity() -> None:
    model = small()
    x = model.embed_patches(X, 16)
    first, second = (by_hand(model, t[0], i).mean(0) for i, t in enumerate((x, model.blocks[0](x))))
    itself = torch.eye(x.shape[1])
    expected = (second + itself) / 2 @ (first + itself) / 2
    got = rollout_weights(model.blocks, x, -1)
    torch.testing.assert_close(got[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(got.sum(dim=-1), torch.ones(got.shape[:-1]))
    torch.testing.assert_close(rollout_weights(model.blocks, x, 0)[0], (first + itself) / 2, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("prefix", [1, 2])
def test_map_holds_what_the_pooled_tokens_give_each_patch(prefix: int, pool: str) -> None:
    model = small(prefix_tokens=prefix, pool=pool)
    found = model.attention(X, "8x16", layer=0)
    weights = layer_weights(model.blocks, model.embed_patches(X, "8x16"), 0).mean(dim=1)
    rows = weights[:, :prefix] if pool == "cls" else weights[:, prefix:]
    assert found.shape == X.shape
    # 4 rows of 8 bins, 4 columns of 16 frames; a patch of 128 bins holds its weight everywhere
    per_patch = found.unflatten(1, (4, 16)).unflatten(3, (4, 8))[:, :, 0, :, 0]  # (B, columns, rows)
    torch.testing.assert_close(per_patch.mT.flatten(1), rows.mean(dim=1)[:, prefix:])
    torch.testing.assert_close(found.sum(dim=(1, 2)), 128 * rows.mean(dim=1)[:, prefix:].sum(dim=1))


@torch.no_grad()
@pytest.mark.parametrize("rollout", [False, True])
@pytest.mark.parametrize(("coverage", "stride"), [("drop", None), ("pad", None), ("pad", 5)])
def test_map_covers_what_the_model_sees(coverage: str, stride: int | None, rollout: bool) -> None:
    model = small(coverage=coverage, stride=stride)
    found = model.attention(X[:, :50], 12, rollout=rollout)
    seen = torch.zeros(50, 32, dtype=torch.bool)
    seen[:48, :24] = True  # whole patches of 12
    if coverage == "pad":
        seen[:] = True
    assert found.shape == (2, 50, 32)
    assert torch.equal((found > 0).all(dim=0), seen)


def test_overlapping_patches_share_a_bin_by_their_mean() -> None:
    tokens = torch.tensor([[[1.0, 2.0, 4.0]]])  # one row of bins, three columns
    found = lay_back(tokens, frames=9, bins=3, layout=lay_out(9, 3, PatchSize(2, 4), PatchSize(2, 2)))
    assert found[0, :, 0].tolist() == [1, 1, 1.5, 1.5, 3, 3, 4, 4, 0]
    assert torch.equal(found[0, :, 1], found[0, :, 0])
    assert not found[0, :, 2].any()


def test_attention_leaves_no_graph_and_no_trace() -> None:
    model = small()
    before = model(X)
    assert not model.attention(X).requires_grad
    assert torch.equal(model(X), before)


@pytest.mark.parametrize("layer", [2, -3, 1.0, True])
def test_layer_that_is_not_there_is_refused(layer) -> None:
    with pytest.raises(ConfigError, match="2 blocks"):
        small().attention(X, layer=layer)
