"""Freezing: equal logits at every kind of patch size, a plain module, and nothing left to resize."""

from unittest import mock

import pytest
import torch

import flexiast
from flexiast.errors import ConfigError
from flexiast.models import resize
from flexiast.models.frozen import FrozenAST, freeze
from tests.classifier.test_audio_classifier import classifier
from tests.classifier.test_budget import made_curve
from tests.models.test_flexiast import GOLDEN, small

X = torch.randn(3, 64, 32, generator=torch.Generator().manual_seed(1))
VARIANTS = [
    {"coverage": "drop"},
    {"coverage": "pad", "pad_value": 0.3},
    {"coverage": "drop", "stride": 5},
    {"coverage": "pad", "stride": (5, 7), "pad_value": -0.2},
    {"coverage": "pad", "prefix_tokens": 2},
    {"coverage": "drop", "pool": "mean"},
]


@torch.no_grad()
@pytest.mark.parametrize("patch", [None, 8, 4, 12, 24, "16x24", "5x32", "32x64"])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_frozen_logits_are_the_models(variant: dict, patch) -> None:
    model = small(**variant)
    torch.testing.assert_close(freeze(model, patch)(X), model(X, patch), atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("frames", [8, 50, 64, 130])
@pytest.mark.parametrize("coverage", ["drop", "pad"])
def test_other_numbers_of_frames(coverage: str, frames: int) -> None:
    model, x = small(coverage=coverage), torch.randn(2, frames, 32)
    torch.testing.assert_close(freeze(model, 8, frames)(x), model(x, 8), atol=1e-6, rtol=0)


@torch.no_grad()
def test_released_weights_and_bilinear_kernels() -> None:
    model, x = flexiast.load(GOLDEN / "flexiast_vit_tiny.pth", heads=2), torch.randn(2, 256, 128)
    for patch, method in (("24", "pi"), ("16x32", "bilinear")):
        frozen = freeze(model, patch, resize=method)
        torch.testing.assert_close(frozen(x), model(x, patch, method), atol=1e-6, rtol=0)


@torch.no_grad()
def test_nothing_is_resized_when_it_runs() -> None:
    frozen = freeze(small(coverage="pad"), 12)
    with mock.patch.object(resize, "cached_matrix", side_effect=AssertionError):
        frozen(X)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_in_another_precision_it_takes_float32_features_as_the_model_does(dtype: torch.dtype) -> None:
    model = small(coverage="pad").to(dtype)
    frozen = freeze(model, 12)(X)
    assert frozen.dtype == dtype
    torch.testing.assert_close(frozen, model(X, 12))


def test_it_is_a_module_of_its_own() -> None:
    model = small()
    frozen, before = freeze(model, 12), model(X, 12)
    tensors = dict(frozen.named_parameters())
    assert not frozen.training
    assert frozen.state_dict().keys() == tensors.keys()  # parameters alone, under plain names
    assert tensors["patch_embed.weight"].shape == (16, 144)
    assert tensors["pos_embed"].shape == (2 * 5, 16)
    frozen(X).square().sum().backward()
    assert all(parameter.grad is not None for parameter in tensors.values())
    torch.optim.SGD(frozen.parameters(), lr=1.0).step()
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(model(X, 12), before)


@torch.no_grad()
def test_a_curve_changes_nothing() -> None:
    model, other = classifier(), classifier()
    other.metadata["curve"] = made_curve(other).to_json()
    x = torch.randn(2, model.feature_config.frames, model.config.bins)
    assert torch.equal(other.freeze(12)(x), model.freeze(12)(x))
    assert torch.equal(other(x, 12), model(x, 12))


@torch.no_grad()
def test_state_dict_goes_into_another_frozen_module() -> None:
    frozen, other = freeze(small(coverage="pad"), 12), freeze(small(coverage="pad"), 12)
    for parameter in other.parameters():
        parameter.zero_()
    other.load_state_dict(frozen.state_dict())
    assert torch.equal(other(X), frozen(X))


@torch.no_grad()
def test_scripted_and_exported_it_gives_the_same() -> None:
    frozen: FrozenAST = freeze(small(coverage="pad"), 12)
    torch.testing.assert_close(torch.jit.script(frozen)(X), frozen(X), atol=1e-6, rtol=0)
    program = torch.export.export(frozen, (X,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(X[:1]), frozen(X[:1]), atol=1e-6, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_it_gives_the_same() -> None:
    frozen = freeze(small(coverage="pad"), 12)
    torch.testing.assert_close(torch.compile(frozen, fullgraph=True)(X), frozen(X), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(64, 32), (2, 63, 32), (2, 64, 31)])
def test_input_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"64, 32"):
        freeze(small(), 8)(torch.zeros(shape))


@pytest.mark.parametrize(("patch", "frames"), [("33x8", None), (16, 15), (0, None)])
def test_patch_that_does_not_fit_is_refused(patch, frames) -> None:
    with pytest.raises(ConfigError, match="patch size"):
        freeze(small(), patch, frames)
