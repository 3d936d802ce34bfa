"""AST's JSON read part by part: the same entries, or the same error, as read at once."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexiast.data import ast_json
from flexiast.data.ast_json import read_entries
from flexiast.errors import DataError

# Texts that look like the end of an entry, or of the list.
TRAPS = st.sampled_from(["a", "ä", '"', "\\", "}, {", "}]", "]}", "{", "},", '{"wav"', "\n", '"}, {"'])
FIELDS = st.lists(TRAPS, min_size=1, max_size=3).map("".join)
ENTRIES = st.lists(
    st.fixed_dictionaries({"wav": FIELDS, "labels": FIELDS}, optional={"more": st.lists(st.just({"x": [{}, {}]}))}),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(entries=ENTRIES, indent=st.sampled_from([None, 0, 1]), ascii_only=st.booleans(), size=st.integers(0, 40))
def test_parts_hold_the_entries_of_the_whole(tmp_path_factory, entries, indent, ascii_only, size) -> None:
    path = tmp_path_factory.getbasetemp() / "parts.json"
    path.write_text(json.dumps({"data": entries}, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ast_json, "_AT_ONCE", size)
        rows = read_entries(path)
    found = [(row.line, row.name, row.label) for row in rows]
    assert found == [(number, one["wav"], one["labels"]) for number, one in enumerate(entries)]


def test_a_large_manifest_is_not_parsed_at_once(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"data": [{"wav": f"{n}.wav", "labels": f"{n % 7}"} for n in range(20_000)]}))
    longest, loads = [0], json.loads
    monkeypatch.setattr(json, "loads", lambda text: longest.append(len(text)) or loads(text))
    rows = read_entries(path)
    assert (len(rows), rows[19_999].name, rows.first_lines["6"]) == (20_000, "19999.wav", 6)
    assert max(longest) < path.stat().st_size / 10


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"more": 1, "data": [E, E]}', None),
        ('{"data": [E, E], "more": [{}]}', None),
        ('{"data": [], "data": [E, E]}', None),
        ('{"data": [E, E', "not readable"),
        ('{"data": [E, E]} x', "not readable"),
        ('{"data": [E E]}', "not readable"),
        ('{"data": [E, {"wav": "\\ud800", "labels": ""}]}', r"data[1]: found wav '\ud800'"),
        ('{"data": [E, {"wav": "\\u0000", "labels": ""}]}', r"data[1]: found wav '\x00'"),
        ('{"data": [E, {"wav": {"wav": "a", "labels": "b"}, "labels": ""}]}', "data[1]: found {'wav': {'wav'"),
        ('{"data": [E, E, null]}', "data[2]: found None"),
    ],
)
@pytest.mark.parametrize("size", [0, 1 << 15])
def test_what_is_unusual_is_read_at_once_or_refused_by_its_place(text, found, size, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ast_json, "_AT_ONCE", size)
    path = tmp_path / "m.json"
    path.write_text(text.replace("E", '{"wav": "a", "labels": "b"}'))
    if found is None:
        assert [*read_entries(path).names] == ["a", "a"]
        return
    with pytest.raises(DataError, match=re.escape(found)):
        read_entries(path)
