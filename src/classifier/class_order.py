"""Match a model's classes to those of the data: by name, never by position alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from ..data.manifest import Labels
from ..errors import ConfigError
from .audio_classifier import AudioClassifier
from .scale import Scale


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
    order = _places(model, data)
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


def _places(model: Labels, data: Labels) -> list[int]:
    """Of each class of the data among the model's, by id or by a name that no two have; -1 if it is not there."""
    index = {name: i for i, name in enumerate(model.names) if model.names.count(name) == 1}
    index |= {mid: i for i, mid in enumerate(model.mids)}
    return [index.get(mid, index.get(name, -1)) for mid, name in zip(data.mids, data.names, strict=True)]


@torch.no_grad()
def reordered(model: AudioClassifier, labels: Labels, order: list[int]) -> AudioClassifier:
    """Reorder the model's classes in place and name them by `labels`; `order` comes from `class_order`."""
    model.head.weight.copy_(model.head.weight[order])
    model.head.bias.copy_(model.head.bias[order])
    model.labels = labels
    model.metadata |= _targets(model, order)
    return model


@torch.no_grad()
def in_units(model: AudioClassifier) -> AudioClassifier:
    """A regression, in place, whose outputs themselves are values in the targets' units; other models as they are."""
    if model.loss == "mse":
        model.head.weight.copy_(model.head.weight * torch.tensor(model.scale.std)[:, None])
        model.head.bias.copy_(model.scale.values(model.head.bias))
        model.metadata = model.metadata | {"targets": Scale.none(len(model.labels)).to_json()}
    return model


def _targets(model: AudioClassifier, order: list[int]) -> dict[str, Any]:
    """The metadata of a regression's units, of these targets alone."""
    return {"targets": model.scale.take(order).to_json()} if model.loss == "mse" else {}


def with_classes(model: AudioClassifier, labels: Labels, called: str) -> AudioClassifier:
    """The model with these of its classes alone, found by id or name, in their order; a copy.

    Raises ConfigError, in which the model is `called` so, if it lacks one, or if two are the same.
    """
    order = _places(model.labels, labels)
    if lacking := [text for text, place in zip(labels.names, order, strict=True) if place < 0]:
        raise ConfigError(
            f"{called} has {len(model.labels)} classes, not among them {len(lacking)} of the {len(labels)} of the data,"
            f" such as {lacking[0]!r}; expected all, by id or name"
        )
    if len(set(order)) < len(order):
        first = next(text for text, place in zip(labels.names, order, strict=True) if order.count(place) > 1)
        raise ConfigError(
            f"{called}: two classes of the data, {first!r} one of them, are the same one of its own by id and by name;"
            " expected one each"
        )
    config = dataclasses.replace(model.config, classes=len(labels))
    metadata = model.metadata | _targets(model, order)
    fewer = AudioClassifier(config, model.feature_config, labels, model.loss, metadata).to(model.kernel.device)
    state = model.state_dict()
    fewer.load_state_dict(state | {name: state[name][order] for name in ("head.weight", "head.bias")})
    return fewer.train(model.training).requires_grad_(model.kernel.requires_grad)
