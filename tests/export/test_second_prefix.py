"""A second prefix token that changes nothing: logits of the wider network against the one it was made from."""

import pytest
import torch

import flexiast
from flexiast.export.second_prefix import add_second_prefix
from flexiast.models.attention_maps import attention_weights
from flexiast.models.config import FlexiASTConfig
from flexiast.models.flexiast import FlexiAST
from tests.models.test_flexiast import GOLDEN


def randomised(**settings) -> FlexiAST:
    """No term hidden: weights of a trained network's size, all biases and norms off their start."""
    torch.manual_seed(0)
    model = FlexiAST(FlexiASTConfig(classes=10, frames=64, coverage="drop", **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def widened(model: FlexiAST) -> FlexiAST:
    config, state = add_second_prefix(model.config, model.state_dict())
    wide = FlexiAST(config).eval()
    wide.load_state_dict(state)
    return wide


@torch.no_grad()
@pytest.mark.parametrize("norm_eps", [1e-6, 1e-3])
@pytest.mark.parametrize(("width", "heads", "more"), [(16, 2, 4), (64, 1, 3), (96, 3, 3), (192, 6, 6)])
def test_logits_are_kept(width: int, heads: int, more: int, norm_eps: float) -> None:
    # Epsilons far apart, so that a wrong one would show.
    model = randomised(width=width, heads=heads, depth=3, norm_eps=norm_eps, head_norm_eps=1e-4)
    wide, x = widened(model), torch.randn(3, 64, 128)
    assert wide.config.width == width + more
    assert wide.config.prefix_tokens == 2
    assert wide.config.norm_eps == wide.config.head_norm_eps
    assert float(model(x).std()) > 0.5
    torch.testing.assert_close(wide(x), model(x), atol=5e-5, rtol=0)
    torch.testing.assert_close(wide(x, 24), model(x, 24), atol=5e-5, rtol=0)  # and it can still be resized


@torch.no_grad()
def test_released_and_trained_weights() -> None:
    for model in (
        flexiast.load(GOLDEN / "flexiast_vit_tiny.pth", heads=2),
        flexiast.load(GOLDEN.parents[1] / "pretrained_models" / "demo_flexible"),
    ):
        x = torch.randn(4, model.config.frames, 128)
        torch.testing.assert_close(widened(model)(x), model(x), atol=2e-5, rtol=0)


@torch.no_grad()
def test_no_token_listens_to_the_second_one_which_hears_itself_alone() -> None:
    model = randomised(width=64, heads=2, depth=3)
    wide = widened(model)
    ends = []
    for x in torch.randn(2, 1, 64, 128):
        x = wide.embed_patches(x)
        for block in wide.blocks:
            weights = attention_weights(block, x)  # (B, heads, queries, keys)
            assert weights[:, :, [0, *range(2, x.shape[1])], 1].max() == 0
            assert (weights[:, :, 1, 1] == 1).all()
            x = block(x)
        ends.append(x[0, 1])
    assert torch.equal(*ends)  # whatever is heard


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 3), (torch.bfloat16, 8)])
def test_half_precision(dtype: torch.dtype, most: int) -> None:
    """Finite, and not many times as far from the float32 logits as the model itself in half precision."""
    model = flexiast.load(GOLDEN.parents[1] / "pretrained_models" / "demo_flexible")
    x = torch.randn(4, model.config.frames, 128)
    expected, wide = model(x), widened(model)
    assert max(float(tensor.abs().max()) for tensor in wide.state_dict().values()) < 65504  # float16's largest
    own = float((model.to(dtype)(x.to(dtype)).float() - expected).abs().max())
    got = float((wide.to(dtype)(x.to(dtype)).float() - expected).abs().max())
    assert got < most * own + 0.01, (got, own)
