"""A process of a job whose launcher is gone ends at once, in one line."""

import socket
import time

import pytest

from flexiast.runtime import distributed
from flexiast.runtime.distributed import LostProcess, connected


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of torchrun's second process, whose launcher's store has a port that nobody listens at."""
    monkeypatch.setattr(distributed, "end_with_launcher", lambda: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    given |= {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("job")
def test_a_launcher_that_died_during_the_imports_is_noticed_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(LostProcess, match=r"launcher of this job is gone: its store at 127.0.0.1:\d+ does not answer"):
        connected().__enter__()
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("job")
def test_a_network_that_does_not_answer_is_asked_again_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def silent(address: tuple[str, int], timeout: float) -> None:
        asked.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(distributed.socket, "create_connection", silent)
    monkeypatch.setattr(distributed.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(distributed, "STORE_TIMEOUT", 0.2)
    with pytest.raises(LostProcess, match="timed out"):
        connected().__enter__()
    assert len(asked) > 1
