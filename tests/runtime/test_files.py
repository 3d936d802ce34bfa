"""Temporary names belong to one process; leftovers go."""

import os
from pathlib import Path

import pytest

from flexiast.errors import FileError
from flexiast.runtime.files import remove_leftovers, replacing


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
        one.write(b"one")
        other.write(b"other")
        parts = list(tmp_path.glob("a.*.part"))
        assert len(parts) == 2
        assert all(str(os.getpid()) in part.name for part in parts)
    assert (tmp_path / "a").read_bytes() == b"one"  # the last to be complete
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("model.safetensors.123-abcdef.part", "model.safetensors.part", "model.safetensors", "parts"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "none")
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "parts"}


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(FileError, match=f"{tmp_path}/x/a: No space left"), replacing(tmp_path / "x" / "a") as file:
        raise OSError(28, os.strerror(28))
    assert file.closed
    assert list((tmp_path / "x").iterdir()) == []
