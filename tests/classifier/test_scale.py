"""The units of a regression: outputs and values, reordered targets, folding into the head."""

import numpy as np
import pytest
import torch

from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.classifier.class_order import in_units, reordered, with_classes
from flexiast.classifier.scale import Scale
from flexiast.data.labels import Labels
from flexiast.errors import ConfigError
from flexiast.features import FeatureConfig
from flexiast.models.config import FlexiASTConfig

VALUES = np.array([[1.0, 100.0], [3.0, 500.0], [5.0, 300.0]])


def model() -> AudioClassifier:
    torch.manual_seed(0)
    network = FlexiASTConfig(2, frames=48, width=16, depth=1, heads=2)
    targets = {"targets": Scale.of(VALUES).to_json()}
    labels = Labels(("level", "pitch"), ("level", "pitch"))
    return AudioClassifier(network, FeatureConfig(frames=48), labels, "mse", targets).eval()


def test_mean_and_deviation_lead_from_outputs_to_values_and_back() -> None:
    scale = Scale.of(VALUES)
    assert scale.mean == (3.0, 300.0)
    np.testing.assert_allclose(scale.std, VALUES.std(axis=0))
    outputs = scale.outputs(torch.from_numpy(VALUES))
    np.testing.assert_allclose(outputs, (VALUES - VALUES.mean(axis=0)) / VALUES.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale.values(outputs), VALUES, rtol=1e-6)
    assert Scale.from_json(scale.to_json(), 2) == scale
    assert Scale.from_json(None, 2) == Scale((0.0, 0.0), (1.0, 1.0))
    with pytest.raises(ConfigError, match=r"targets: found .*, expected mean and std of 3 targets, std above 0"):
        Scale.from_json(scale.to_json(), 3)


@torch.no_grad()
def test_targets_in_another_order_or_fewer_keep_their_values() -> None:
    log_mel = torch.randn(2, 48, 128)
    values = model().probabilities(model()(log_mel))
    turned = reordered(model(), Labels(("pitch", "level"), ("pitch", "level")), [1, 0])
    torch.testing.assert_close(turned.probabilities(turned(log_mel)), values.flip(1))
    fewer = with_classes(model(), Labels(("pitch",), ("pitch",)), "teacher")
    torch.testing.assert_close(fewer.probabilities(fewer(log_mel)), values[:, 1:])
    folded = in_units(model())
    torch.testing.assert_close(folded(log_mel), values)
    torch.testing.assert_close(folded.probabilities(folded(log_mel)), values)


def test_every_target_is_told_in_order_whatever_top_k_says() -> None:
    best = model().best(torch.tensor([-2.5, 800.0]), top_k=1)
    assert [tuple(one) for one in best] == [("level", -2.5), ("pitch", 800.0)]
