"""Files: written whole, by one process; JSON; nothing replaced unasked; leftovers go."""

import json
import os
from pathlib import Path

import pytest

from flexiast.errors import ConfigError, FileError
from flexiast.runtime.files import (
    growing,
    make_folder_once,
    put_in_place,
    remove_leftovers,
    replacing,
    require_new,
    to_json_text,
)
from tests.full_disk import full_disk


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


def test_infinity_and_nan_are_null() -> None:
    value = {"a": float("inf"), "b": [float("nan"), (-float("inf"), 1.5)], "c": {"d": True, "e": None, "f": "Infinity"}}
    text = to_json_text(value, 1)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": None,
        "b": [None, [None, 1.5]],
        "c": {"d": True, "e": None, "f": "Infinity"},
    }


def test_a_folder_of_ours_is_replaced_whole(tmp_path: Path) -> None:
    old, new = tmp_path / "out", tmp_path / "new"
    for folder, name in ((old, "a"), (new, "b")):
        folder.mkdir()
        (folder / name).write_text(name)
    with pytest.raises(ConfigError, match="exists already"):
        require_new(old, overwrite=False, ours="ab")
    with pytest.raises(ConfigError, match=r"holds other files too \(a\)"):
        require_new(old, overwrite=True, ours="b")
    require_new(old, overwrite=True, ours="ab")
    put_in_place(new, old)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "b"]


def test_an_empty_folder_is_nothing_to_lose(tmp_path: Path) -> None:
    require_new(tmp_path, overwrite=False)


def test_what_grew_before_the_disk_was_full_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    with pytest.raises(FileError, match=str(out)), full_disk(10), growing(out, lambda: True, tail="]") as add:
        list(map(add, ("[1, 2", ", 3, 4, 5, 6")))
    assert out.read_text().startswith("[1, 2")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_folder_is_made_once_and_whole(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "abc-1"

    def fill(part: Path) -> None:
        assert not list(tmp_path.glob("cache/abc*"))
        (part / "a").write_text("whole")

    def broken(part: Path) -> None:
        (part / "a").write_text("half")
        raise OSError(28, "No space left")

    with pytest.raises(OSError, match="No space left"):
        make_folder_once(folder, broken)
    assert list(tmp_path.glob("cache/*")) == []
    make_folder_once(folder, fill)
    make_folder_once(folder, broken)  # is there
    assert [path.name for path in tmp_path.glob("cache/*")] == ["abc-1"]
    assert (folder / "a").read_text() == "whole"


def test_of_two_that_make_a_folder_the_first_wins(tmp_path: Path) -> None:
    folder = tmp_path / "abc"

    def overtaken(part: Path) -> None:
        (part / "a").write_text("second")
        make_folder_once(folder, lambda other: (other / "a").write_text("first"))

    make_folder_once(folder, overtaken)
    assert [path.name for path in tmp_path.iterdir()] == ["abc"]
    assert (folder / "a").read_text() == "first"
