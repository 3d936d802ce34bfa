"""The baseline tells apart what simple statistics tell apart, and nothing else."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flexiast.data.manifest import read_manifest
from flexiast.data.survey import Survey, survey
from flexiast.features import FeatureConfig
from flexiast.traintest.baseline import baseline


@pytest.fixture(scope="module")
def seen(sounds: Path) -> dict[str, Survey]:
    return {s: survey(read_manifest(sounds / s), FeatureConfig(), progress=False) for s in ("train", "val")}


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_better_than_guessing_where_spectra_differ(loss: str, sounds: Path, seen: dict[str, Survey]) -> None:
    train, val = (read_manifest(sounds / split) for split in ("train", "val"))
    metrics = baseline(train, seen["train"], val, seen["val"], loss)
    assert metrics.accuracy > 0.4  # six sweeps: three bands of pitch, each up and down, which statistics cannot tell
    assert metrics.accuracy < 0.75


def test_at_chance_on_noise(sounds: Path, seen: dict[str, Survey]) -> None:
    train, val = (read_manifest(sounds / split) for split in ("train", "val"))
    rng = np.random.default_rng(0)
    noise = [dataclasses.replace(s, summary=rng.normal(size=s.summary.shape)) for s in (seen["train"], seen["val"])]
    assert baseline(train, noise[0], val, noise[1], "ce").accuracy < 0.45
