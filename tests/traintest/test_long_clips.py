"""Clips longer than the model's window in a training: cropped, validated in windows, and told of once."""

import dataclasses
import logging
from pathlib import Path

import pytest
import torch

from flexiast.data.dataset import load_batches
from flexiast.traintest.augment import AugmentConfig
from flexiast.traintest.options import FeatureOptions
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
    assert told[0].endswith("30 of 30 clips are longer than the model's window of 0.48 s: heard in several")
