"""The network: golden logits of the original, token order, coverage, strides, gradients and refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import flexiast
from flexiast.errors import ConfigError
from flexiast.models.config import FlexiASTConfig
from flexiast.models.flexiast import FlexiAST
from flexiast.models.geometry import PatchSize
from flexiast.models.resize import resize_kernel

GOLDEN = Path(__file__).parents[1] / "golden"
PATCH_KEYS = [
    *("8x8", "10x10", "12x12", "16x16", "20x20", "24x24", "30x30", "32x32", "40x40", "48x48"),
    *("16x8", "16x12", "16x32", "8x16", "32x16"),
]
SMALL = {
    "classes": 3,
    "frames": 64,
    "bins": 32,
    "patch_size": 8,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "coverage": "drop",
}


def small(**changes) -> FlexiAST:
    """A small network, every parameter moved off its start: blocks start as the identity, biases at zero."""
    torch.manual_seed(0)
    model = FlexiAST(FlexiASTConfig(**SMALL | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "flexiast_vit_tiny.npz"))


@pytest.fixture(scope="module")
def released():
    return flexiast.load(GOLDEN / "flexiast_vit_tiny.pth", heads=2).requires_grad_(False)


def assert_golden(got: torch.Tensor, expected: np.ndarray) -> None:
    # Logits have a standard deviation of 1.1 to 1.8; the original resized its kernels in float32 (tests/golden).
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-5, rtol=0)


def test_every_golden_patch_size_is_tested(golden):
    assert sorted(PATCH_KEYS) == sorted(golden["patch_keys"])


@pytest.mark.parametrize("key", PATCH_KEYS)
def test_golden_logits_and_features(key, golden, released):
    x = torch.from_numpy(golden["input"])
    assert_golden(released(x, key), golden[f"logits_{key}"])
    assert_golden(released.features(x, key), golden[f"feat_{key}"])
    assert_golden(released(x, key, resize="bilinear"), golden[f"logits_BL_{key}"])


@pytest.mark.parametrize("key", PATCH_KEYS)
def test_golden_kernels_positions_and_grids(key, golden, released):
    patch = PatchSize.parse(key)
    positions = torch.cat(
        [released.prefix_pos_embed, released.positions(released.config.layout(patch, 256), 256).flatten(0, 1)]
    )
    assert_golden(resize_kernel(released.kernel, patch)[:2], golden[f"kernel_{key}"])
    assert_golden(positions[:, :4], golden[f"pos_{key}"])
    assert released.config.grid(patch, 256) == tuple(golden[f"grid_{key}"])


def test_without_a_patch_size_the_base_is_used(golden, released):
    assert_golden(released(torch.from_numpy(golden["input"])), golden["logits_16x16"])


@pytest.mark.parametrize("frames", [8, 9, 50, 64, 65, 200])
@pytest.mark.parametrize(("coverage", "columns"), [("drop", lambda t: t // 8), ("pad", lambda t: -(-t // 8))])
def test_any_number_of_frames(frames, coverage, columns):
    tokens = small(coverage=coverage).encode(torch.randn(2, frames, 32))
    assert tokens.shape == (2, 1 + 4 * columns(frames), 16)
    assert torch.isfinite(tokens).all()


@pytest.mark.parametrize(("coverage", "seen"), [("drop", False), ("pad", True)])
@pytest.mark.parametrize("rest", [(slice(60, 64), slice(None)), (slice(None), slice(24, 32))], ids=["frames", "bins"])
def test_what_fills_no_whole_patch_is_seen_only_when_padded(coverage, seen, rest):
    model, patch = small(coverage=coverage), 12  # 5 patches of 12 leave 4 of 64 frames, 2 leave 8 of 32 bins
    x = torch.randn(1, 64, 32)
    changed = x.clone()
    changed[0][rest] += 1
    assert torch.equal(model(x, patch), model(changed, patch)) != seen


def test_patches_past_the_border_are_filled_with_the_padding_value():
    model, x = small(coverage="pad", pad_value=0.5), torch.randn(1, 60, 32)
    longer = F.pad(x, (0, 0, 0, 4), value=0.5)
    torch.testing.assert_close(model(x), model(longer))


@pytest.mark.parametrize("patch", ["8", "16", "4x16", "32x64"])
def test_coverages_agree_where_patches_tile_exactly(patch):
    x = torch.randn(2, 64, 32)
    torch.testing.assert_close(small(coverage="pad")(x, patch), small(coverage="drop")(x, patch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_pooling(pool, prefix):
    model, x = small(pool=pool, prefix_tokens=prefix), torch.randn(2, 64, 32)
    tokens = model.encode(x)
    pooled = tokens[:, :prefix] if pool == "cls" else tokens[:, prefix:]
    assert tokens.shape[1] == prefix + 4 * 8
    torch.testing.assert_close(model.features(x), pooled.mean(dim=1))


@pytest.mark.parametrize(("patch", "stride"), [("8", 5), ("16", 10), ("8x16", (5, 10))])
def test_overlapping_patches_are_a_strided_convolution(patch, stride):
    model, x = small(stride=5), torch.randn(2, 64, 32)
    size = PatchSize.parse(patch)
    kernel = resize_kernel(model.kernel, size)[:, None]
    convolved = F.conv2d(x.mT[:, None], kernel, model.kernel_bias, PatchSize.parse(stride))  # (B, D, H, W)
    expected = convolved.flatten(2).mT + model.positions(model.config.layout(size, 64), 64).flatten(0, 1)
    torch.testing.assert_close(model.embed_patches(x, size)[:, 1:], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("place", [(0, 0), (0, 7), (2, 3), (3, 7)])
def test_tokens_run_frequency_row_by_frequency_row(place):
    model = small()
    for block in model.blocks:  # tokens must not mix: blocks that add nothing
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.requires_grad_(False).weight.zero_()
            layer.bias.zero_()
    row, column = place
    silence = torch.zeros(1, 64, 32)
    sound = silence.clone()
    sound[0, column * 8 : column * 8 + 8, row * 8 : row * 8 + 8] = 1.0
    differs = (model.encode(sound) != model.encode(silence)).any(dim=-1)[0]
    assert differs.nonzero().flatten().tolist() == [1 + row * 8 + column]  # after one prefix token, 8 columns


def test_blocks_start_as_the_identity():
    model, x = FlexiAST(FlexiASTConfig(**SMALL)), torch.randn(2, 64, 32)
    torch.testing.assert_close(model.encode(x), model.norm(model.embed_patches(x)))


@pytest.mark.parametrize("resize", ["pi", "bilinear"])
@pytest.mark.parametrize("coverage", ["drop", "pad"])
@pytest.mark.parametrize("patch", ["8", "4", "12", "16x32"])
def test_every_patch_size_trains_every_parameter(patch, coverage, resize):
    model = small(coverage=coverage, prefix_tokens=2)
    model(torch.randn(2, 64, 32), patch, resize).square().sum().backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []


@pytest.mark.parametrize("shape", [(64, 32), (2, 1, 64, 32), (2, 32, 64)])
def test_input_of_another_shape_is_refused(shape):
    with pytest.raises(ConfigError) as error:
        small()(torch.zeros(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("coverage", ["drop", "pad"])
@pytest.mark.parametrize("patch", ["33x8", "8x65"])
def test_patch_larger_than_the_clip_is_refused(patch, coverage):
    with pytest.raises(ConfigError, match=patch):
        small(coverage=coverage)(torch.zeros(1, 64, 32), patch)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", 0),
        ("width", 0),
        ("heads", 3),
        ("prefix_tokens", 3),
        ("pool", "max"),
        ("coverage", "wrap"),
        ("patch_size", 0),
        ("stride", -1),
    ],
)
def test_wrong_setting_is_refused_by_name(field, value):
    with pytest.raises(ConfigError) as error:
        FlexiASTConfig(**SMALL | {field: value})
    assert str(value) in str(error.value)
    assert field.replace("_size", "").replace("stride", "patch") in str(error.value)
