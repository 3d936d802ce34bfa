"""A model's classes and the data's, matched by name."""

import pytest
import torch

from flexiast.classifier.class_order import class_order, with_classes
from flexiast.data.manifest import Labels
from flexiast.errors import ConfigError
from tests.classifier.test_audio_classifier import classifier, noise


def named(*names: str) -> Labels:
    return Labels(names, names)


def test_numbers_that_are_sorted_as_text_do_not_permute() -> None:
    """0 1 10 11 2 ...: as a folder lists them."""
    text = sorted(str(i) for i in range(12))
    assert class_order(Labels.numbers(12), named(*text)) == [int(name) for name in text]
    assert class_order(named(*text), Labels.numbers(12)) == [text.index(str(i)) for i in range(12)]
    assert class_order(Labels.numbers(12), Labels.numbers(12)) == list(range(12))


@pytest.mark.parametrize(
    ("own", "data"),
    [
        (named("a", "b"), named("a", "b", "c")),
        (named("a", "b"), named("a", "c")),
        (Labels.numbers(3), named("a", "b")),
        (Labels(("1", "2"), ("x", "x")), named("x", "y")),  # a name that two classes have says nothing
    ],
)
def test_other_classes(own: Labels, data: Labels) -> None:
    assert class_order(own, data) is None


def test_only_a_table_orders_the_classes_of_a_model_of_numbers() -> None:
    own = Labels.numbers(3)
    assert class_order(own, Labels(("/m/1", "/m/2", "/m/3"), ("a", "b", "c"))) == [0, 1, 2]
    assert class_order(own, named("a", "b", "c"), table=True) == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"expected a label table \(--labels\) with the classes in the model's order"):
        class_order(own, named("a", "b", "c"))
    with pytest.raises(ConfigError, match="only numbered"):
        class_order(own, named("1", "2", "3"))  # counted from 1: which is which is not said
    with pytest.raises(ConfigError, match="only numbered"):
        class_order(own, Labels(("/m/1", "/m/2", "/m/3"), ("a", "b", "c")), table=False)


def test_with_classes_keeps_the_scores_of_those_classes() -> None:
    model = classifier()  # classes 0 to 3
    log_mel = model.front_end(noise(0.3)[None])
    fewer = with_classes(model, named("3", "1"), "teacher")
    torch.testing.assert_close(fewer(log_mel), model(log_mel)[:, [3, 1]])
    assert fewer.labels.names == ("3", "1")
    assert len(model.labels) == 4
    with pytest.raises(ConfigError, match="has 4 classes, not among them 1 of the 2 of the data, such as 'dog'"):
        with_classes(model, named("1", "dog"), "teacher")


def test_two_classes_that_are_one_of_the_models_are_refused() -> None:
    model = classifier()
    model.labels = Labels(("/m/1", "/m/2", "/m/3", "/m/4"), ("dog", "cat", "cow", "hen"))
    data = Labels(("/m/1", "/x/9"), ("hound", "dog"))  # the first by id, the second by name
    with pytest.raises(ConfigError, match="teacher: two classes of the data, 'hound' one of them, are the same one"):
        with_classes(model, data, "teacher")
