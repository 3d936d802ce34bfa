"""One process at a time in a directory; what a killed one leaves is taken over."""

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import re
import socket
import time
from pathlib import Path

import pytest

from flexiast.errors import ConfigError
from flexiast.runtime import lock
from flexiast.runtime.lock import NAME, locked, require_unlocked


def hold(directory: Path, seconds: float = 60, children: int = 0) -> multiprocessing.Process:
    """A process that holds the lock, with children that outlive it for a moment."""

    def work() -> None:
        with locked(directory):
            for _ in range(children):
                if os.fork() == 0:
                    time.sleep(2)
                    os._exit(0)
            (directory / "held").touch()
            time.sleep(seconds)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    while not (directory / "held").exists():
        time.sleep(0.01)
    return process


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    process = hold(tmp_path)
    told = rf"out: {tmp_path} is in use by process {process.pid} on {re.escape(socket.gethostname())} since 20\d\d-"
    with pytest.raises(ConfigError, match=told), locked(tmp_path):
        pass
    with pytest.raises(ConfigError, match=told):
        require_unlocked(tmp_path)
    process.kill()
    process.join()


def test_a_second_process_may_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    process = hold(tmp_path, seconds=0.5)
    start = time.monotonic()
    with locked(tmp_path, wait=True):
        assert time.monotonic() - start > 0.3
    process.join()
    assert f"{tmp_path}: waiting for process {process.pid} on" in caplog.text
    assert process.exitcode == 0


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    process = hold(tmp_path, children=1)
    process.kill()
    process.join()
    start = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - start < 1  # the children do not hold it
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert f"taking over from process {process.pid}" in caplog.text


def test_one_thread_keeps_out_another_and_nothing_is_left(tmp_path: Path) -> None:
    with locked(tmp_path / "new"), pytest.raises(ConfigError, match=f"process {os.getpid()}"), locked(tmp_path / "new"):
        pass
    assert list((tmp_path / "new").iterdir()) == []
    require_unlocked(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_file_system_without_locks_is_told_once(tmp_path: Path, monkeypatch, caplog) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path):
        pass
    assert len(caplog.records) == 1
    assert "this file system has no locks (No locks available)" in caplog.text


def test_without_fcntl_there_is_no_lock(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    with locked(tmp_path), locked(tmp_path):
        pass


def test_a_lock_removed_by_its_holder_is_made_anew(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / NAME).unlink()
        with locked(tmp_path):
            assert (tmp_path / NAME).exists()
