"""Patch sizes as users write them, token grids, and the count of operations."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flexiast.errors import ConfigError
from flexiast.models.config import FlexiASTConfig
from flexiast.models.flexiast import FlexiAST
from flexiast.models.geometry import USUAL_FRAMES, PatchSize, infer_layout, lay_out, scaled_stride
from flexiast.models.resize import resize_kernel


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (16, (16, 16)),
        ("16", (16, 16)),
        ("16x32", (16, 32)),
        (" 16 X 32 ", (16, 32)),
        ((16, 32), (16, 32)),
        ([16, 32], (16, 32)),
        (PatchSize(8, 12), (8, 12)),
    ],
)
def test_patch_size_is_read(value, expected):
    assert PatchSize.parse(value) == expected


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "16x", "x16", "ax3", "16x0", "-8", (1, 2, 3), (), "", None, "1.5"])
def test_what_is_no_patch_size_is_refused_by_name(value):
    with pytest.raises(ConfigError) as error:
        PatchSize.parse(value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(("patch", "text"), [(PatchSize(16, 16), "16"), (PatchSize(16, 32), "16x32")])
def test_patch_size_is_written_as_it_is_read(patch, text):
    assert str(patch) == text
    assert PatchSize.parse(text) == patch


@pytest.mark.parametrize(
    ("patch", "stride", "coverage", "expected"),
    [
        (16, None, "drop", (8, 64)),
        (16, None, "pad", (8, 64)),
        (48, None, "drop", (2, 21)),  # 96 of 128 bins, 1008 of 1024 frames
        (48, None, "pad", (3, 22)),
        (16, 10, "drop", (12, 101)),  # AST, section 2.1: 12 x 100 at 1,000 frames; its code has 1,024
        (16, 10, "pad", (13, 102)),  # 12 patches reach to bin 126 and 101 to frame 1016
        (128, None, "pad", (1, 8)),
    ],
)
def test_token_grid_of_ten_seconds(patch, stride, coverage, expected):
    size, hop = PatchSize.parse(patch), PatchSize.parse(stride) if stride else None
    assert lay_out(1024, 128, size, hop, coverage).grid == expected


@pytest.mark.parametrize("coverage", ["drop", "pad"])
@pytest.mark.parametrize("patch", [PatchSize(129, 16), PatchSize(16, 101)])
def test_patch_larger_than_the_input_is_refused(patch, coverage):
    with pytest.raises(ConfigError, match=f"{patch}.*128 x 100"):
        lay_out(100, 128, patch, coverage=coverage)


def test_unknown_coverage_is_refused():
    with pytest.raises(ConfigError, match="'wrap'"):
        lay_out(100, 128, PatchSize(16, 16), coverage="wrap")


@pytest.mark.parametrize(("patch", "stride"), [(16, 10), (32, 20), (8, 5), (1, 1)])
def test_stride_grows_with_the_patch(patch, stride):
    assert scaled_stride(PatchSize(patch, patch), PatchSize(16, 16), PatchSize(10, 10)) == (stride, stride)


@pytest.mark.parametrize("patch", ["8", "4", "16x8", "12"])
@pytest.mark.parametrize("prefix", [1, 2])
def test_flops_are_those_that_torch_counts(patch, prefix):
    config = FlexiASTConfig(
        classes=5, frames=64, bins=32, patch_size=8, width=24, depth=2, heads=3, mlp_ratio=3.0, prefix_tokens=prefix
    )
    model, size, clips = FlexiAST(config), PatchSize.parse(patch), 3
    # Of fused attention the counter sees nothing on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as whole:
        tokens = model.encode(torch.zeros(clips, 64, 32), size)  # all of them, as `flops` counts
        model.head(model.head_norm(tokens[:, 0]))
    with FlopCounterMode(display=False) as resizing:  # once for a batch, and not counted by `flops`
        resize_kernel(model.kernel, size)
        model.positions(config.layout(size, 64), 64)
    assert config.flops(size) * clips == whole.get_total_flops() - resizing.get_total_flops()


@pytest.mark.parametrize("frames", USUAL_FRAMES)
@pytest.mark.parametrize("patch", [8, 16])
def test_layout_is_told_by_the_number_of_positions(frames, patch):
    size = PatchSize(patch, patch)
    for stride in {patch, round(patch * 10 / 16), round(patch * 12 / 16), round(patch * 14 / 16)}:
        tokens = lay_out(frames, 128, size, PatchSize(stride, stride)).grid.tokens
        assert infer_layout(tokens, size, 128) == ((stride, stride), frames)


def test_layout_of_a_given_length_comes_first():
    # 144 positions: 12 x 12 at stride 10 on 128 frames, or 8 x 18 side by side on 300
    assert infer_layout(144, PatchSize(16, 16), 128) == ((10, 10), 128)
    assert infer_layout(144, PatchSize(16, 16), 128, frames=300) == ((16, 16), 300)
    assert infer_layout(144, PatchSize(16, 16), 128, frames=1024) == ((10, 10), 128)


@pytest.mark.parametrize(("tokens", "patch"), [(131, (16, 16)), (0, (16, 16)), (512, (200, 16)), (144, (16, 2000))])
def test_layout_that_fits_nothing_is_none(tokens, patch):
    assert infer_layout(tokens, PatchSize(*patch), 128) is None
