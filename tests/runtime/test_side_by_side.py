"""Work on several batches at once: in order, bounded, on threads of one core each."""

import threading
from collections.abc import Iterator

import pytest
import torch

from flexiast.errors import ConfigError
from flexiast.runtime.side_by_side import MOST_THREADS, side_by_side, threads_for, use_threads


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_in_order_whichever_is_done_first() -> None:
    second_is_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second_is_done.wait(10)  # only another thread can set it
        if number == 1:
            second_is_done.set()
        return number**2

    assert list(side_by_side(work, range(5), threads=2)) == [(number, number**2) for number in range(5)]


def test_a_thread_has_one_of_torchs_and_afterwards_all_is_as_before() -> None:
    inside = {result for _, result in side_by_side(lambda _: torch.get_num_threads(), range(6), threads=3)}
    assert inside == {1}
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), later) == (3, [3])


@pytest.mark.parametrize(("items", "threads"), [(1, 3), (4, 1)])
def test_one_item_or_one_thread_is_worked_on_here_with_all_of_torchs(items: int, threads: int) -> None:
    def work(_: int) -> tuple[int, int]:
        return threading.get_ident(), torch.get_num_threads()

    assert {result for _, result in side_by_side(work, range(items), threads)} == {(threading.get_ident(), 3)}


def test_reads_no_further_ahead_than_it_has_threads() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    results = side_by_side(lambda number: number, items(), threads=2)
    assert next(results) == (0, 0)
    assert len(read) == 3
    results.close()
    assert len(read) == 3


def test_an_error_comes_at_its_place_and_the_rest_is_not_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ValueError("second")
        return number

    results = side_by_side(work, range(100), threads=2)
    assert next(results) == (0, 0)
    with pytest.raises(ValueError, match="second"):
        next(results)
    assert len(begun) <= 5


def test_threads_by_the_size_of_the_model() -> None:
    assert threads_for(torch.device("cpu"), 0.2) == 3
    assert threads_for(torch.device("cpu"), 20.0) == 1
    assert threads_for(torch.device("cuda"), 0.2) == 1
    torch.set_num_threads(64)
    assert threads_for(torch.device("cpu"), 0.2) == MOST_THREADS


def test_the_number_of_threads_is_torchs_own_or_the_one_asked_for() -> None:
    use_threads(0)
    assert torch.get_num_threads() == 3
    use_threads(2)
    assert torch.get_num_threads() == 2
    with pytest.raises(ConfigError, match="threads: found -1, expected 0 to 1024"):
        use_threads(-1)
