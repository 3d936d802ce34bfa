"""Patches left out in training: which, how many, at what cost."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flexiast.models.config import FlexiASTConfig
from flexiast.models.flexiast import FlexiAST
from flexiast.models.geometry import PatchSize, kept_patches
from flexiast.models.packed import features_packed
from flexiast.models.patch_dropout import PatchDropout
from flexiast.models.resize import resize_kernel


@pytest.mark.parametrize(
    ("patches", "dropout", "kept"),
    [(192, 0.5, 96), (192, 0.75, 48), (40, 0.5, 24), (24, 0.9, 24), (6, 0.9, 6), (90, 0, 90)],
)
def test_many_patches_are_halved_and_few_are_kept(patches: int, dropout: float, kept: int) -> None:
    assert kept_patches(patches, dropout) == kept


def test_each_clip_keeps_its_prefix_and_patches_of_its_own() -> None:
    tokens = (torch.arange(2 + 60.0).expand(50, -1) + 100 * torch.arange(50.0)[:, None])[:, :, None].repeat(1, 1, 4)
    dropout = PatchDropout(0.5, prefix=2)
    torch.manual_seed(0)
    kept = dropout(tokens)
    assert kept.shape == (50, 2 + 30, 4)
    assert torch.equal(kept[:, :2], tokens[:, :2])
    chosen = kept[:, 2:, 0] - 100 * torch.arange(50.0)[:, None]
    assert all(len(set(row)) == 30 and min(row) >= 2 and max(row) < 62 for row in chosen.tolist())
    counts = torch.bincount(chosen.flatten().long(), minlength=62)[2:]
    assert counts.float().mean() == 25
    assert 10 <= counts.min() < counts.max() <= 40  # every patch about as often
    assert dropout.eval()(tokens) is tokens


def small() -> FlexiAST:
    torch.manual_seed(0)
    config = FlexiASTConfig(classes=5, frames=64, bins=32, patch_size=8, width=24, depth=2, heads=3, pool="mean")
    model = FlexiAST(config)
    model.patch_dropout = PatchDropout(0.6, config.prefix_tokens)
    return model


def test_a_network_hears_the_rest_in_training_and_all_in_evaluation() -> None:
    model, log_mel = small(), torch.randn(3, 64, 32)
    patches = model.config.grid(4).tokens
    assert model.train().encode(log_mel, 4).shape[1] == 1 + kept_patches(patches, 0.6)
    assert model.encode(log_mel, 16).shape[1] == 1 + model.config.grid(16).tokens  # few
    whole = model.eval()(log_mel, 4)
    model.patch_dropout = torch.nn.Identity()
    assert torch.equal(model(log_mel, 4), whole)


def test_clips_of_native_length_lose_their_share_too() -> None:
    model = small()
    long, short = torch.randn(64, 32), torch.randn(12, 32)
    torch.manual_seed(1)
    first, second = features_packed(model.train(), [long, short], 4), features_packed(model, [long, short], 4)
    assert not torch.allclose(first[0], second[0], atol=1e-4)  # other patches
    torch.testing.assert_close(first[1], second[1])  # 24 patches: all are kept
    torch.testing.assert_close(
        features_packed(model.eval(), [long], 4), model.features(long[None], 4), atol=1e-5, rtol=0
    )


def test_flops_are_those_that_torch_counts() -> None:
    model, size = small().train(), PatchSize(4, 4)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as whole:
        model.head(model.head_norm(model.encode(torch.zeros(3, 64, 32), size)[:, 0]))
    with FlopCounterMode(display=False) as resizing:
        resize_kernel(model.kernel, size)
        model.positions(model.config.layout(size, 64), 64)
    counted = whole.get_total_flops() - resizing.get_total_flops()
    assert 3 * model.config.flops(size, dropout=0.6) == counted < 3 * 0.5 * model.config.flops(size)
