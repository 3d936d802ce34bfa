"""Match a model's classes to those of the data: by name, never by position alone."""

from __future__ import annotations

import torch

from ..data.manifest import Labels
from ..errors import ConfigError
from .audio_classifier import AudioClassifier


def class_order(
    model: Labels, data: Labels, table: bool | None = None, remedy: str = "a label table (--labels)"
) -> list[int] | None:
    """For each class of the data, the index of the same class in the model; None if the model has other classes.

    Classes are matched by id or name, in any order. A model whose classes are only numbered matches if the data's
    classes are those numbers, or if there are equally many and a label table (`table`) gives their order. table=None:
    infer it from the labels; those of folders and manifests are sorted and have no ids apart from their names. remedy:
    what gives the order, for the message. Raises ConfigError if a model with numbered classes has as many as the data,
    but nothing says which is which.
    """
    if model.mids == data.mids:
        return list(range(len(model)))
    if len(model) != len(data):
        return None
    index = {name: i for i, name in enumerate(model.names) if model.names.count(name) == 1}
    index |= {mid: i for i, mid in enumerate(model.mids)}
    order = [index.get(mid, index.get(name, -1)) for mid, name in zip(data.mids, data.names, strict=True)]
    if sorted(order) == list(range(len(model))):
        return order
    if not model.numbered:
        return None
    if table or (table is None and (data.mids != data.names or list(data.mids) != sorted(data.mids))):
        return list(range(len(model)))
    raise ConfigError(
        f"labels: found a model of {len(model)} classes that are only numbered, and data of {len(data)} classes"
        f" ({', '.join(data.names[:3])}, ...), expected {remedy} with the classes in the model's order, or the data's"
        f" labels to be 0 to {len(model) - 1}"
    )


@torch.no_grad()
def reordered(model: AudioClassifier, labels: Labels, order: list[int]) -> AudioClassifier:
    """Reorder the model's classes in place and name them by `labels`; `order` comes from `class_order`."""
    model.head.weight.copy_(model.head.weight[order])
    model.head.bias.copy_(model.head.bias[order])
    model.labels = labels
    return model
