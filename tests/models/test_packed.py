"""Clips of different lengths in one pass have the logits, and the gradients, that each has alone."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor

from flexiast.errors import ConfigError
from flexiast.models.flexiast import FlexiAST
from flexiast.models.geometry import PAPER_SIZES, PatchSize
from flexiast.models.packed import Group, features_packed, forward_packed, mix_by_group, mix_jagged
from tests.models.test_flexiast import small

LENGTHS = (64, 17, 50, 64, 9, 49, 100, 33, 3)
"""The base has 64 frames: two are as long, one is longer; some share a grid and differ; 3 is less than any patch."""


def clips(lengths: tuple[int, ...] = LENGTHS, bins: int = 32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, bins, generator=generator) for length in lengths]


def alone(model: FlexiAST, log_mels: list[Tensor], patch: PatchSize) -> Tensor:
    """Logits (B, C) of one clip at a time, a clip shorter than a patch padded to a whole one."""
    padded = [F.pad(one, (0, 0, 0, max(0, patch.time - len(one))), value=model.config.pad_value) for one in log_mels]
    return torch.cat([model(one[None], patch) for one in padded])


RECTANGLES = [PatchSize(16, 8), PatchSize(8, 16), PatchSize(12, 30), PatchSize(32, 2)]


@pytest.mark.parametrize("coverage", ["pad", "drop"])
@pytest.mark.parametrize("patch", [s for s in PAPER_SIZES if s.freq <= 32] + RECTANGLES, ids=str)
def test_logits_are_those_of_each_clip_alone(patch: PatchSize, coverage: str) -> None:
    model, log_mels = small(coverage=coverage, pad_value=0.7), clips()
    with torch.no_grad():
        found, expected = forward_packed(model, log_mels, patch), alone(model, log_mels, patch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [
    {"pool": pool, "prefix_tokens": prefix} for pool in ("cls", "mean") for prefix in (1, 2)
] + [{"stride": (5, 5)}, {"bins": 36}], ids=str)  # fmt: skip
def test_whatever_the_network_is(changes: dict) -> None:
    model = small(**{"coverage": "pad"} | changes)
    log_mels = clips(bins=model.config.bins)
    for patch in (PatchSize(8, 8), PatchSize(16, 12)):
        torch.testing.assert_close(
            forward_packed(model, log_mels, patch), alone(model, log_mels, patch), atol=1e-5, rtol=0
        )


def test_bilinear_kernels_and_the_base_patch_are_passed_on() -> None:
    model, log_mels = small(coverage="pad"), clips((20, 64))
    torch.testing.assert_close(forward_packed(model, log_mels), alone(model, log_mels, PatchSize(8, 8)))
    bilinear = torch.cat([model(one[None], 16, "bilinear") for one in log_mels])
    torch.testing.assert_close(forward_packed(model, log_mels, 16, "bilinear"), bilinear)
    assert (forward_packed(model, log_mels, 16) - bilinear).abs().max() > 1e-3


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_gradients_are_those_of_the_clips_one_at_a_time(pool: str) -> None:
    found, expected = small(coverage="pad", pool=pool).double(), small(coverage="pad", pool=pool).double()
    log_mels, patch = [one.double() for one in clips()], PatchSize(12, 12)
    weights = torch.randn(len(LENGTHS), 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (forward_packed(found, log_mels, patch) * weights).sum().backward()
    (alone(expected, log_mels, patch) * weights).sum().backward()
    wanted = dict(expected.named_parameters())
    for name, parameter in found.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, wanted[name].grad, atol=1e-10, rtol=1e-8, msg=name)


@pytest.mark.parametrize("changed", [0, 4, 6])
def test_a_clip_hears_no_other(changed: int) -> None:
    model, before = small(coverage="pad"), clips()
    after = [one + (number == changed) for number, one in enumerate(before)]
    with torch.no_grad():
        first, second = forward_packed(model, before, 8), forward_packed(model, after, 8)
    same = [number for number in range(len(before)) if number != changed]
    assert torch.equal(first[same], second[same])
    assert (first[changed] - second[changed]).abs().max() > 1e-3


def test_the_order_of_the_clips_is_kept() -> None:
    model, log_mels = small(coverage="pad"), clips()
    order = torch.randperm(len(log_mels), generator=torch.Generator().manual_seed(3)).tolist()
    pooled = features_packed(model, log_mels, 16)
    torch.testing.assert_close(features_packed(model, [log_mels[clip] for clip in order], 16), pooled[order])


def test_bfloat16_stays_near_float32() -> None:
    model = small(coverage="pad")
    expected = forward_packed(model, clips(), 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = forward_packed(model, clips(), 8)
    assert got.dtype == torch.bfloat16
    assert (got - expected).abs().max() < 0.05 * expected.abs().max()


def test_nested_tensors_mix_as_groups_do() -> None:
    """The way of GPUs, here on a CPU: values and gradients."""
    groups = [Group(2, 3), Group(1, 7), Group(3, 8)]
    total = sum(clips * tokens for clips, tokens in groups)
    generator = torch.Generator().manual_seed(0)
    qkv, grad = torch.randn(total, 3, 2, 8, generator=generator), torch.randn(total, 2, 8, generator=generator)
    mixed, gradients = [], []
    for mix in (mix_by_group, mix_jagged):
        given = qkv.clone().requires_grad_()
        mixed.append(mix(given, groups))
        mixed[-1].backward(grad)
        gradients.append(given.grad)
    torch.testing.assert_close(mixed[1], mixed[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=0)


def test_stochastic_depth_skips_whole_clips() -> None:
    model = small(coverage="pad", depth=1)
    log_mels = clips((40,) * 60)
    log_mels = [log_mels[0]] * 60
    alike = features_packed(model.train(), log_mels, 8)
    block = model.blocks[0]
    block.drop_path1 = block.drop_path2 = DropPath(0.5)  # type: ignore[union-attr]
    torch.manual_seed(0)
    drawn = features_packed(model, log_mels, 8)
    assert len(alike.unique(dim=0)) == 1
    assert len((1e4 * drawn).round().unique(dim=0)) == 4  # attention kept or not, MLP kept or not
    model.eval()
    torch.testing.assert_close(features_packed(model, log_mels, 8), alike)


@pytest.mark.parametrize(
    ("log_mels", "message"),
    [
        ([], "input: found an empty list, expected at least one clip"),
        ([torch.zeros(20, 32), torch.zeros(20, 16)], r"found a clip of \(20, 16\), expected \(frames, 32\)"),
        ([torch.zeros(1, 20, 32)], r"found a clip of \(1, 20, 32\)"),
        ([torch.zeros(0, 32)], r"found a clip of \(0, 32\)"),
    ],
)
def test_what_is_no_clip_is_refused(log_mels: list[Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        forward_packed(small(), log_mels)


def test_a_patch_with_too_many_bins_is_refused() -> None:
    with pytest.raises(ConfigError, match="patch size 48x8"):
        forward_packed(small(), clips(), PatchSize(48, 8))
