"""Files: what is written is JSON, and nothing is replaced unasked."""

import json
from pathlib import Path

import pytest

from flexiast.errors import ConfigError
from flexiast.runtime.files import put_in_place, require_new, to_json_text


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
