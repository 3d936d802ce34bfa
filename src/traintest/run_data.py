"""The clips that a run trains and validates on, read as its settings say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..classifier.audio_classifier import AudioClassifier
from ..data.folders import split_root
from ..data.manifest import Manifest, read_manifest
from ..data.split import split_off
from ..errors import ConfigError, DataError
from ..models.config import Loss
from ..runtime.arguments import AUTO
from .config import TrainConfig
from .defaults import Choice, Chooser

MOST_HELD_OUT = 2_000
"""Most clips in a validation split whose share is not given."""


def read_train(config: TrainConfig, start: AudioClassifier | None) -> Manifest:
    """The training clips. start: what is to be made flexible, whose numbers to predict are the data's too."""
    data, numbers = config.data, config.loss == "mse"
    labels = start.labels if numbers and start is not None and start.loss == "mse" else data.labels
    return read_manifest(data.train, labels, data.root, data.train_table(), numbers=numbers, streaming=data.streaming)


def take_splits(chooser: Chooser) -> None:
    """For a folder that holds the folders of the splits: the one to train on, and the one to validate on."""
    root = chooser.config.data.train
    splits = split_root(root) if os.path.isdir(root) else None
    if splits is None:
        return
    what = "folder" if splits["train"].is_dir() else "table"
    chooser.put("data.train", splits["train"])
    chooser.choices.append(Choice("data.train", splits["train"], f"{root} holds the {what}s of the splits"))
    if "val" in splits:
        chooser.choose("data.val", splits["val"], f"the {what} beside {splits['train'].name}")


def check_labels(train: Manifest, loss: Loss) -> None:
    if loss == "ce" and len(several := np.flatnonzero(train.clips.classes.sizes != 1)):
        clip = train.clips[int(several[0])]
        raise ConfigError(f"{train.source}: {clip.path} has {len(clip.classes)} labels, expected 1 with loss ce")
    if train.clips.values is not None and len(alike := np.flatnonzero(np.ptp(train.clips.values, axis=0) == 0)):
        name, value = train.labels.names[alike[0]], float(train.clips.values[0, alike[0]])
        raise DataError(f"{train.source}, column {name}: found {value:g} for every clip, expected numbers that differ")


def setup_validation(chooser: Chooser, train: Manifest, automatic: bool) -> tuple[Manifest, Manifest | None]:
    """The training and the validation clips: those given, or a share split off. automatic: nothing was given."""
    data = chooser.config.data
    if data.val is AUTO and data.val_where is not None:
        chooser.choose("data.val", data.train, f"its rows with {data.val_where}")
        data = chooser.config.data
    if isinstance(data.val, Path):
        numbers, whose = chooser.config.loss == "mse", "classes in the training data"
        streaming = data.streams(data.val)
        return train, read_manifest(data.val, train.labels, data.root, data.val_table(), whose, numbers, streaming)
    share = min(0.2, MOST_HELD_OUT / len(train)) if data.val is AUTO else data.val
    if share == 0:
        return train, None
    try:
        split = split_off(train, share, chooser.config.seed)
    except ConfigError as error:
        if not automatic:
            raise
        chooser.choose("data.val", 0.0, f"none split off: {error}")
        return train, None
    held, known = len(np.unique(split.val.clips.classes.flat)), len(train.labels)
    classes = ", every class in it" if held == known else f", {held} of {known} classes in it"
    classes = classes if train.clips.values is None else ""
    chooser.choose("data.val", round(share, 4), f"split off by {split.grouped_by}{classes}")
    return split.train, split.val
