"""Decoding processes: no signal reaches them, none outlives its parent, none blocks the program."""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from flexiast.data import workers
from flexiast.data.bad_clips import most_bad
from flexiast.data.workers import WorkerError, as_is, loaded, remedy, require_room, start_worker
from flexiast.errors import ConfigError
from flexiast.runtime.interruption import Interrupted, never
from tests.few_files import few_files


class Pids(Dataset):
    """Each item is its worker's process; `act` is done on the way."""

    def __init__(self, act=lambda item: None, length: int = 8) -> None:
        self.act, self.length = act, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> int:
        self.act(item)
        return os.getpid()


def loader(data: Dataset, count: int = 2) -> DataLoader:
    return DataLoader(data, batch_size=None, num_workers=count, collate_fn=as_is, worker_init_fn=start_worker)


def gone(pid: int, seconds: float = 5) -> bool:
    """Whether a process ends within that time; a zombie counts as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_signals_leave_workers_be_and_closing_ends_them() -> None:
    with closing(loaded(loader(Pids(lambda _: time.sleep(0.05), 40)))) as items:
        pids = {next(items) for _ in range(4)}
        assert len(pids) == 2
        for pid in pids:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                os.kill(pid, number)
        assert {next(items) for _ in range(8)} == pids
    assert all(gone(pid) for pid in pids)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    def parent() -> None:
        items = loaded(loader(Pids(lambda item: item > 3 and time.sleep(60))))
        (tmp_path / "pids.part").write_text(" ".join({str(next(items)) for _ in range(4)}))
        (tmp_path / "pids.part").rename(tmp_path / "pids")
        time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=parent)
    process.start()
    while not (tmp_path / "pids").exists():
        time.sleep(0.02)
    process.kill()
    process.join()
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


@pytest.mark.slow
def test_a_stopped_worker_blocks_neither_beyond_the_timeout_nor_through_a_stop() -> None:
    for stopped, error, text in (
        (never, WorkerError, "timed out after 1 seconds"),
        (lambda: True, Interrupted, "stopped while waiting"),
    ):
        items = loaded(loader(Pids(lambda _: os.kill(os.getpid(), signal.SIGSTOP)), 1), 1, stopped)
        start = time.monotonic()
        with pytest.raises(error, match=text):
            next(items)
        assert time.monotonic() - start < 10


class HandsOverHalf(Dataset):
    """Stops its worker when the reader has come for the tensor, whose handle then never comes."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, item: int) -> torch.Tensor:
        from multiprocessing import resource_sharer

        resource_sharer._resource_sharer.__class__._serve = lambda _self: os.kill(os.getpid(), signal.SIGSTOP)
        return torch.ones(1000)


@pytest.mark.slow
def test_a_worker_stopped_while_it_hands_over_does_not_block() -> None:
    start = time.monotonic()
    with pytest.raises(WorkerError, match="timed out after 1 seconds"):
        next(loaded(loader(HandsOverHalf(), 1), timeout=1))
    assert time.monotonic() - start < 10


def test_a_killed_worker_is_noticed_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(WorkerError, match="was killed by signal SIGKILL, as if memory had run out"):
        next(loaded(loader(Pids(lambda _: os.kill(os.getpid(), signal.SIGKILL)))))
    assert time.monotonic() - start < 10


def test_the_error_of_a_data_set_comes_through() -> None:
    def fail(_item: int) -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        list(loaded(loader(Pids(fail))))


def test_all_items_come_in_order_from_a_thread_too() -> None:
    class Numbers(Pids):
        def __getitem__(self, item: int) -> int:
            return item

    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(loaded(loader(Numbers(length=20)))))
    thread.start()
    thread.join()
    assert seen == list(range(20)) == list(loaded(loader(Numbers(length=20), 0)))


def test_shared_memory_that_cannot_suffice_is_named_at_the_start(monkeypatch, caplog) -> None:
    there = os.statvfs(workers.SHARED_MEMORY)
    free = there.f_bavail * there.f_frsize
    require_room(0, free)
    require_room(2, 1000)
    with pytest.raises(ConfigError, match=r"MB free in /dev/shm for 2 .*--shm-size 8g.* \(data.workers 0\)"):
        require_room(2, free // 4)
    require_room(2, free // 10)
    assert "twice that unless all clips are 16-bit" in caplog.text


def test_too_few_open_files_are_named_at_the_start() -> None:
    with (
        few_files(64),
        pytest.raises(ConfigError, match=r"limit of 64 open files for 8 .*ulimit -n 4096.*fewer data\.workers"),
    ):
        require_room(8, 1000)


def test_what_to_do_is_said_of_memory_and_open_files_alone() -> None:
    assert "--shm-size" in remedy("unable to allocate shared memory(shm) for file </torch_1>: No space left on device")
    assert "ulimit -n" in remedy(OSError(24, "Too many open files"))
    no_memory = "; memory has run out: fewer data.workers or smaller batches"
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 50)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 60)
    for error in (OSError(12, "Cannot allocate memory"), MemoryError(), of_numpy.value, of_torch.value):
        assert remedy(error) == no_memory
    assert remedy(f"Caught MemoryError in DataLoader worker process 0.\nMemoryError: {of_numpy.value}") == no_memory
    assert remedy("a.wav: found 0 samples") == ""


@pytest.mark.parametrize(
    ("share", "clips", "allowed"),
    [(0.01, 61, 3), (0.01, 1000, 10), (0.01, 8, 2), (0.01, 1, 0), (0.0, 1000, 0), (1.0, 10, 10)],
)
def test_a_few_clips_or_a_share_may_be_unusable(share: float, clips: int, allowed: int) -> None:
    assert most_bad(share, clips) == allowed
