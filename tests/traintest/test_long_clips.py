"""Clips longer than the model's window in a training: cropped, validated in windows, and reported once."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from flexiast.data.dataset import load_batches
from flexiast.data.survey import Survey
from flexiast.features import FeatureConfig
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import DataConfig, FeatureOptions
from flexiast.traintest.summary import describe_lengths
from flexiast.traintest.train import Trainer
from tests.traintest.test_train import config


@pytest.fixture
def half_heard(sounds: Path, tmp_path: Path):
    """Clips of one second, windows of half of one."""
    return dataclasses.replace(config(sounds, tmp_path / "run"), features=FeatureOptions(frames=48))


def first_batch(trainer: Trainer) -> torch.Tensor:
    return next(load_batches(trainer.dataset, trainer.plan.schedule.batches(0, 1), workers=0)).waveform


def test_crops_are_on_by_default_and_follow_the_seed(half_heard) -> None:
    cropped = first_batch(Trainer(half_heard))
    assert torch.equal(cropped, first_batch(Trainer(half_heard)))
    plain = dataclasses.replace(half_heard, augment=AugmentConfig(crop=False))
    assert not torch.equal(cropped, first_batch(Trainer(plain)))


def test_validation_says_once_that_clips_are_longer(half_heard, caplog: pytest.LogCaptureFixture) -> None:
    trainer = Trainer(half_heard)
    with caplog.at_level(logging.INFO, logger="flexiast"):
        first, second = (trainer.validator.validate(trainer.model) for _ in range(2))
    assert first == second
    told = [record.getMessage() for record in caplog.records if "longer" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("30 of 30 clips are longer than the model's window of 0.48 s: cut into several")


LONGER = "30 of 30 clips are longer than the window of 0.48 s"


@pytest.mark.parametrize(
    ("frames", "crop", "line"),
    [
        (48, True, f"{LONGER}: a random part is used, another in each epoch"),
        (48, False, f"{LONGER}: only their start is used"),
        (200, True, "30 of 30 clips are shorter than the window of 2 s: padded"),
        (98, True, None),
    ],
)
def test_a_start_says_how_long_its_clips_are(frames: int, crop: bool, line: str | None) -> None:
    seen = Survey(np.arange(30), np.full(30, 98), 0.0, 1.0, np.zeros((30, 2)))
    settings = TrainConfig(DataConfig(Path("x")), Path("run"), augment=AugmentConfig(crop=crop))
    assert describe_lengths(seen, settings, FeatureConfig(frames=frames)) == line
