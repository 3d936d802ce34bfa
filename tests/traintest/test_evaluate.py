"""One pass over the data for all sizes: the same scores as one pass per size, and honest costs."""

from pathlib import Path

import numpy as np
import pytest
import torch

import flexiast
from flexiast import PatchSize
from flexiast.data.manifest import read_manifest
from flexiast.errors import ConfigError
from flexiast.traintest.evaluate import sweep
from flexiast.traintest.metrics import classification_metrics


@pytest.fixture(scope="module")
def data(sounds: Path):
    return read_manifest(sounds / "val")


@pytest.fixture(scope="module")
def model(data) -> flexiast.AudioClassifier:
    torch.manual_seed(0)
    network = flexiast.FlexiASTConfig(classes=6, frames=96, width=32, depth=2, heads=2)
    features = flexiast.FeatureConfig(frames=96)
    return _randomised(flexiast.AudioClassifier(network, features, data.labels))


def _randomised(model: flexiast.AudioClassifier) -> flexiast.AudioClassifier:
    """Every block of a new network is the identity; shake all weights, so that each has its say."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_scores_are_those_of_predict_clip_by_clip(model, data) -> None:
    patches = [PatchSize(16, 16), PatchSize(48, 16)]
    results = sweep({"m": model}, data, patches, batch_size=7, workers=0, precision="fp32", progress=False)
    assert [r.patch_size for r in results] == patches
    for result in results:
        for clip in (0, 13, 29):
            named = dict(model.predict(data.clips[clip].path, result.patch_size, top_k=6))
            expected = [named[name] for name in data.labels.names]
            np.testing.assert_allclose(result.scores[clip], expected, atol=1e-6)


def test_one_pass_equals_a_pass_per_size_and_resize(model, data) -> None:
    patches = [PatchSize(s, s) for s in (8, 20)]
    together = sweep({"m": model}, data, patches, ("pi", "bilinear"), batch_size=8, workers=0, progress=False)
    assert [(r.resize, r.patch_size) for r in together] == [(z, p) for z in ("pi", "bilinear") for p in patches]
    for result in together:
        alone = sweep(
            {"m": model}, data, [result.patch_size], (result.resize,), batch_size=8, workers=0, progress=False
        )[0]
        assert np.array_equal(result.scores, alone.scores)
        assert result.loss == alone.loss
    assert not np.allclose(together[0].scores, together[2].scores)


def test_metrics_loss_and_cost_are_of_all_clips(model, data) -> None:
    result = sweep({"m": model}, data, [PatchSize(16, 16)], batch_size=8, workers=0, progress=False)[0]
    targets = np.eye(6)[[clip.classes[0] for clip in data.clips]]
    assert result.metrics == classification_metrics(result.scores, targets)
    assert result.loss == pytest.approx(-np.log(result.scores[targets > 0]).mean(), rel=1e-5)
    assert result.tokens == 48
    assert result.gflops == model.config.flops(16) / 1e9
    assert result.clips_per_second > 0


def test_models_of_different_feature_settings_are_measured_each_its_own_way(model, data) -> None:
    network = flexiast.FlexiASTConfig(classes=6, frames=64, width=32, depth=1, heads=2)
    features = flexiast.FeatureConfig(frames=64, mean=0.0, std=1.0)
    other = _randomised(flexiast.AudioClassifier(network, features, data.labels))
    patch = [PatchSize(16, 16)]
    both = sweep({"a": model, "b": other}, data, patch, workers=0, progress=False)
    assert [r.model for r in both] == ["a", "b"]
    assert np.array_equal(both[1].scores, sweep({"b": other}, data, patch, workers=0, progress=False)[0].scores)
    assert both[1].tokens == 32


def test_a_size_that_does_not_fit_is_refused_before_any_work(model, data) -> None:
    with pytest.raises(ConfigError, match="16x97"):
        sweep({"m": model}, data, [PatchSize(16, 16), PatchSize(16, 97)], workers=0, progress=False)
