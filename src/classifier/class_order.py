"""Which of a model's classes are the data's: by name, never by chance of order."""

from __future__ import annotations

import torch

from ..data.manifest import Labels
from ..errors import ConfigError
from .audio_classifier import AudioClassifier


def class_order(own: Labels, data: Labels, table: bool | None = None) -> list[int] | None:
    """The model's class for each class of the data, or None if the model's classes are others.

    Classes are matched by id or name, in whatever order. A model without names, only numbers, has the data's classes
    if these are its numbers, or if there are as many and a label table tells their order (`table`; None: taken from
    the labels, as those of folders and manifests are sorted and have no ids beside their names). Raises ConfigError
    where a model without names has as many classes, but nothing says which is which.
    """
    if own.mids == data.mids:
        return list(range(len(own)))
    if len(own) != len(data):
        return None
    index = {name: i for i, name in enumerate(own.names) if own.names.count(name) == 1}
    index |= {mid: i for i, mid in enumerate(own.mids)}
    found = [index.get(mid, index.get(name, -1)) for mid, name in zip(data.mids, data.names, strict=True)]
    if sorted(found) == list(range(len(own))):
        return found
    if not own.numbered:
        return None
    if table or (table is None and (data.mids != data.names or list(data.mids) != sorted(data.mids))):
        return list(range(len(own)))
    raise ConfigError(
        f"labels: found a model of {len(own)} classes that are only numbered, and data of {len(data)} classes"
        f" ({', '.join(data.names[:3])}, ...), expected a label table (--data.labels, --labels: index, mid,"
        f" display_name) with the classes in the model's order, or the data's labels to be 0 to {len(own) - 1}; another"
        " number of classes gets a new classifier"
    )


@torch.no_grad()
def reordered(model: AudioClassifier, labels: Labels, order: list[int]) -> AudioClassifier:
    """The model itself, its classes in the order of `labels` and called by them; `order` is that of `class_order`."""
    model.head.weight.copy_(model.head.weight[order])
    model.head.bias.copy_(model.head.bias[order])
    model.labels = labels
    return model
