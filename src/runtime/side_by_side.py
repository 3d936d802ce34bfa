"""Work on several batches at once, a CPU thread for each, where operations are too small to be shared among threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import torch

from ..errors import require

LEAST_SHARED = 1.0
"""GFLOPs per clip above which threads are best spent inside the operations."""
MOST_THREADS = 16
"""Beyond these, threads mostly wait for Python, and their batches take memory."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def use_threads(threads: int) -> None:
    """Let torch use so many CPU threads; 0: its own choice. Raises ConfigError for a number out of range."""
    require(0 <= threads <= 1024, "threads", threads, "0 to 1024")
    if threads:
        torch.set_num_threads(threads)


def threads_for(device: torch.device, gflops: float) -> int:
    """How many batches of clips to work on at once: torch's threads for a small model on a CPU, else 1."""
    if device.type != "cpu" or gflops >= LEAST_SHARED:
        return 1
    return min(torch.get_num_threads(), MOST_THREADS)


def side_by_side(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[tuple[Item, Result], None, None]:
    """Each item with `work` of it, in order; several items at once, each with one thread of torch's.

    What is set for a thread, such as autocast and gradients, `work` must set itself. A single item is worked on in this
    thread, with all of torch's.
    """
    items = iter(items)
    first = list(islice(items, 2))
    if threads == 1 or len(first) < 2:
        for item in chain(first, items):
            yield item, work(item)
        return
    shared = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = deque[tuple[Item, Future[Result]]]()
        for item in chain(first, items):
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > threads:  # one more than are worked on, so that no thread waits for an item to be read
                yield _done(waiting.popleft())
        while waiting:
            yield _done(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(shared)  # the pool's setting would hold for threads that are started later


def _done(submitted: tuple[Item, Future[Result]]) -> tuple[Item, Result]:
    item, future = submitted
    return item, future.result()
