"""Fixtures shared by all tests: generated sounds, and one thread, so that results do not depend on the machine."""

import logging
from pathlib import Path

import pytest
import torch

from tests.sounds import write_folder

LONG = ("test_faults", "test_readme", "test_demo", "test_train", "test_distributed", "test_defaults")
"""Files that take longest; started first, so that the processes of the test run end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _log_level_as_before():
    """`--quiet` sets the level of the package's logger for the whole process, in fixtures of a module too."""
    logger = logging.getLogger("flexiast")
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that budgets use are not kept in the tester's own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `train` (20 clips in each of 6 classes) and `val` (5 each)."""
    root = tmp_path_factory.mktemp("sounds")
    write_folder(root / "train", 20, seed=0)
    write_folder(root / "val", 5, seed=1)
    return root
