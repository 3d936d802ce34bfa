"""Texts and lists in arrays: they are sequences like those they were made of, under selection and pickling too."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexiast.data.arrays import Lists, Texts

TEXTS = st.lists(st.text("aö\ud83d\ude00\0", max_size=5), max_size=8)  # halves of characters too
LISTS = st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=8)
MADE = [(Texts, ["a", "", "Öl", "\ud800", "b\0c"]), (Lists, [(1,), (), (2, 0), (3,), (0, 0, 7)])]


@settings(max_examples=50, deadline=None)
@given(texts=TEXTS, prefix=st.text("xö", max_size=2))
def test_texts_are_those_they_were_made_of(texts: list[str], prefix: str) -> None:
    made = Texts.of(texts, prefix)
    assert [*made] == [prefix + text for text in texts] == [made[place] for place in range(len(made))]


@settings(max_examples=50, deadline=None)
@given(lists=LISTS)
def test_lists_are_those_they_were_made_of(lists: list[tuple[int, ...]]) -> None:
    made = Lists.of(lists)
    assert [*made] == lists == [made[place] for place in range(len(made))]
    assert made.sizes.tolist() == [len(one) for one in lists]
    assert made.owners.tolist() == [place for place, one in enumerate(lists) for _ in one]


@pytest.mark.parametrize(("kind", "items"), MADE)
@pytest.mark.parametrize("part", [slice(1, 4), slice(None, None, 2), slice(None, None, -1), slice(7, 9)])
def test_a_selection_is_that_of_the_items(kind, items, part) -> None:
    made = kind.of(items)
    assert [*made[part]] == items[part]
    places = np.arange(len(items))[part]
    assert [*made.take(places)] == items[part]
    assert [*made.take(np.isin(np.arange(len(items)), places))] == [items[place] for place in sorted(places)]
    assert [*made[part][::-1]] == items[part][::-1]


@pytest.mark.parametrize(("kind", "items"), MADE)
def test_places_are_those_of_a_list(kind, items) -> None:
    made = kind.of(items)
    assert (made[-1], made[np.int64(2)]) == (items[-1], items[2])
    for place in (5, -6):
        with pytest.raises(IndexError):
            made[place]


@pytest.mark.parametrize(("kind", "items"), MADE)
def test_a_pickle_holds_only_what_is_selected(kind, items) -> None:
    made = kind.of(items * 1000)
    assert [*pickle.loads(pickle.dumps(made))] == items * 1000
    part = pickle.dumps(made[1:4])
    assert [*pickle.loads(part)] == items[1:4]
    assert len(part) < len(pickle.dumps(made)) / 50


def test_long_ones_are_iterated_part_by_part() -> None:
    numbers = range(40_000)
    assert [*Texts.of([*map(str, numbers)])] == [*map(str, numbers)]
    assert [*Lists.of([(n,) * (n % 3) for n in numbers])] == [(n,) * (n % 3) for n in numbers]
