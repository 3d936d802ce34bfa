"""The last block computes only what is pooled: the same numbers and gradients as computing everything."""

import pytest
import torch
from torch import Tensor

from flexiast import FlexiAST, FlexiASTConfig
from flexiast.models.block import Block
from flexiast.models.block_attention import BlockAttention
from flexiast.models.frozen import freeze


def block() -> Block:
    torch.manual_seed(0)
    made = Block(24, 3, qkv_bias=True, drop_path=0.5, attn_layer=BlockAttention)  # type: ignore[arg-type]
    return made.double().eval()


@pytest.mark.parametrize("first", [1, 2, 7])
def test_first_tokens_are_those_of_the_whole_block(first: int) -> None:
    made, x = block(), torch.randn(3, 7, 24, dtype=torch.float64)
    torch.testing.assert_close(made(x, first=first), made(x)[:, :first], rtol=0, atol=1e-14)


def test_first_tokens_skip_the_same_clips_in_training() -> None:
    made, x = block().train(), torch.randn(16, 5, 24, dtype=torch.float64)
    torch.manual_seed(1)
    whole = made(x)
    torch.manual_seed(1)
    torch.testing.assert_close(made(x, first=1), whole[:, :1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("prefix_tokens", [1, 2])
def test_features_and_their_gradients_are_those_of_all_tokens(prefix_tokens: int) -> None:
    torch.manual_seed(0)
    config = FlexiASTConfig(
        classes=4, frames=64, bins=32, width=24, depth=2, heads=3, prefix_tokens=prefix_tokens, pool="cls"
    )
    model, log_mel = FlexiAST(config).double(), torch.randn(2, 64, 32, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():  # a new network's blocks are the identity
            parameter.add_(0.1 * torch.randn_like(parameter))

    def gradients(pooled: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(model.head(model.head_norm(pooled)).square().sum(), list(model.parameters())))

    short, whole = model.features(log_mel, 8), model.encode(log_mel, 8)[:, :prefix_tokens].mean(dim=1)
    torch.testing.assert_close(short, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients(short), gradients(whole), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(freeze(model, 8)(log_mel), model.head(model.head_norm(whole)), rtol=0, atol=1e-12)
