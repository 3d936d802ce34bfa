"""Tables whose labels are numbers to predict: their columns, their cells, and what is wrong with them."""

import json
from pathlib import Path

import numpy as np
import pytest

from flexiast.data.clips import Clips
from flexiast.data.labels import Labels
from flexiast.data.manifest import Manifest, read_manifest
from flexiast.data.pack import pack
from flexiast.data.table_options import TableOptions
from flexiast.errors import ConfigError, DataError

TABLE = "file,loudness,pitch\na.wav,-20.5,440\nb.wav,-3,1e3\n"
WANTED = [[-20.5, 440.0], [-3.0, 1000.0]]


def read(folder: Path, content: str, name: str = "t.csv", labels: Labels | None = None, **options: object) -> Manifest:
    """A table of a.wav, b.wav and c.wav, read."""
    for file in ("a.wav", "b.wav", "c.wav"):
        (folder / file).touch()
    (folder / name).write_text(content)
    return read_manifest(folder / name, labels, None, TableOptions(**options), numbers=True)


@pytest.mark.parametrize("mark", [",", "\t", ";"])
def test_every_column_of_numbers_is_a_target(mark: str, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", "flexiast")
    content = "id,file,loudness,pitch,speaker,fold\n1,a.wav,-20.5,440,anna,1\n2,b.wav,-3,1e3,7,2\n"
    data = read(tmp_path, content.replace(",", mark))
    assert data.labels.names == ("loudness", "pitch")
    assert data.clips.values.tolist() == WANTED
    assert data.clips.values.dtype == np.float32
    assert [clip.classes for clip in data.clips] == [(), ()]
    assert "numbers to predict from loudness, pitch (not from id, speaker, fold)" in caplog.text


def test_json_lines_and_tables_without_a_header(tmp_path: Path) -> None:
    rows = [{"file": "a.wav", "loudness": -20.5, "pitch": 440}, {"file": "b.wav", "loudness": "-3", "pitch": 1e3}]
    assert read(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl").clips.values.tolist() == WANTED
    bare = read(tmp_path, "a.wav;-20.5;440\nb.wav;-3;1000\n")
    assert (bare.labels.names, bare.clips.values.tolist()) == (("2", "3"), WANTED)
    assert read(tmp_path, "a.wav;-20.5;440\nb.wav;-3;1000\n", label_column="3").clips.values.tolist() == [[440], [1000]]


def test_columns_are_named_and_a_usual_name_goes_first(tmp_path: Path) -> None:
    data = read(tmp_path, TABLE, label_column="pitch, loudness")
    assert (data.labels.names, data.clips.values.tolist()) == (("pitch", "loudness"), [row[::-1] for row in WANTED])
    assert read(tmp_path, TABLE.replace("pitch", "label")).labels.names == ("label",)
    assert read(tmp_path, TABLE.replace("pitch", "fold"), label_column="fold").labels.names == ("fold",)


def test_a_models_targets_are_found_by_name_in_its_order(tmp_path: Path) -> None:
    labels = Labels(("pitch", "loudness"), ("pitch", "loudness"))
    assert read(tmp_path, TABLE, labels=labels).clips.values.tolist() == [row[::-1] for row in WANTED]
    assert read(tmp_path, TABLE, labels=labels, label_column="loudness,pitch").labels == labels
    with pytest.raises(ConfigError, match="--label-column: found loudness, expected the targets of the model or run, "):
        read(tmp_path, TABLE, labels=labels, label_column="loudness")
    with pytest.raises(DataError, match=r"expected one of files .* and those of the targets pitch, loudness"):
        read(tmp_path, TABLE.replace("pitch", "height"), labels=labels)


@pytest.mark.parametrize("cell", ["loud", "", "nan", "inf", "1_000", "1,5", "1e39", "0x10"])
def test_a_cell_without_a_number_is_named(cell: str, tmp_path: Path) -> None:
    found = repr(cell) if cell else "an empty cell"
    message = f"t.csv, line 3, column pitch: found {found}, expected a number such as -20.5"
    with pytest.raises(DataError) as raised:
        read(tmp_path, f"file;loudness;pitch\na.wav;1;440\nb.wav;2;{cell}\nc.wav;2;330\n")
    assert message in str(raised.value)


def test_json_that_is_no_number_is_named(tmp_path: Path) -> None:
    for value in (None, True, [1.0], "loud"):
        rows = [{"file": name, "pitch": pitch} for name, pitch in zip("abc", (1.5, value, 2), strict=True)]
        with pytest.raises(DataError, match=r"t.jsonl, line 2, column pitch: found .*, expected a number"):
            read(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl")


@pytest.mark.parametrize(
    ("content", "options", "error", "message"),
    [
        ("file,who\na.wav,anna\nb.wav,bert\n", {}, DataError, "found no numbers in columns .*'who'.*one or several of"),
        (
            TABLE,
            {"label_column": "pitch,height"},
            DataError,
            "those of the targets pitch, height; name them with --path",
        ),
        (TABLE, {"label_column": "pitch,pitch"}, ConfigError, "--label-column: found pitch,pitch, expected distinct"),
        (TABLE, {"label_column": "pitch,"}, ConfigError, "--label-column: found pitch,, expected distinct names"),
        (TABLE, {"label_separator": ";"}, ConfigError, "--label-separator: found ;, expected none beside numbers"),
        (TABLE + "a.wav,-20.5\n", {}, DataError, "line 4: found 2 cells, expected 3"),
        (
            TABLE + "a.wav,-20.5,441\n",
            {},
            DataError,
            r"two rows of .*a.wav with the numbers \[-20.5, 440.0\] and \[-20",
        ),
    ],
)
def test_what_does_not_fit_is_refused(content: str, options: dict, error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        read(tmp_path, content, **options)


def test_rows_of_a_file_with_equal_numbers_are_one_clip(tmp_path: Path) -> None:
    data = read(tmp_path, TABLE + "a.wav,-20.5,440\n")
    assert ([clip.path.name for clip in data.clips], data.clips.values.tolist()) == (["a.wav", "b.wav"], WANTED)


def test_numbers_come_from_tables_alone(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="val: found no table, expected a CSV, TSV, JSONL or parquet file"):
        read_manifest(sounds / "val", numbers=True)
    with pytest.raises(DataError, match="not readable as a manifest"):
        read_manifest(tmp_path / "none.csv", numbers=True)
    data = read(tmp_path, TABLE)
    with pytest.raises(ConfigError, match=r"labels: found .*labels.csv beside numbers to predict, expected none"):
        read_manifest(data.source, tmp_path / "labels.csv", numbers=True)
    with pytest.raises(ConfigError, match=r"t.csv: found numbers to predict, expected classes, which are what shards"):
        pack(data, tmp_path / "shards", progress=False)


def test_a_selection_keeps_its_numbers_and_the_fingerprint_holds_them(tmp_path: Path) -> None:
    data = read(tmp_path, TABLE)
    assert data.clips[1:].values.tolist() == WANTED[1:]
    assert isinstance(data.clips.take(np.array([1, 0])), Clips)
    assert data.targets([1, 0]).tolist() == WANTED[::-1]
    before = data.fingerprint
    assert read(tmp_path, TABLE).fingerprint == before
    assert read(tmp_path, TABLE.replace("440", "441")).fingerprint != before
