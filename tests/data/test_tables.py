"""Tables as people have them: columns, delimiters, encodings, and cells with several labels."""

import json
import unicodedata
from pathlib import Path

import pytest

from flexiast.data.labels import Labels
from flexiast.data.manifest import Manifest, distinct_labels, read_manifest, require_tables
from flexiast.data.table_options import TableOptions
from flexiast.data.tables import read_table
from flexiast.errors import ConfigError, DataError

FILES = ("a.wav", "b.wav", "c.wav", "d.wav")


def read(folder: Path, content: str, name: str = "t.csv", labels: Labels | None = None, **options: object) -> Manifest:
    """A table of a.wav, b.wav, c.wav and d.wav, read."""
    for file in FILES:
        (folder / file).touch()
    (folder / name).write_bytes(content.encode("utf-8"))
    return read_manifest(folder / name, labels, None, TableOptions(**options))


def labels_of(manifest: Manifest) -> list[tuple[str, ...]]:
    return [tuple(manifest.labels.names[c] for c in clip.classes) for clip in manifest.clips]


@pytest.mark.parametrize("path", ["path", "file", "filename", "fname", "audio", "slice_file_name", "wav", "File Name"])
@pytest.mark.parametrize(
    "label", ["label", "labels", "class", "class_name", "category", "target", "scene_label", "Class"]
)
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_usual_columns_and_delimiters(path, label, delimiter, tmp_path):
    rows = (("x", path, label), ("1", "a.wav", "cat"), ("2", "b.wav", "dog"))
    manifest = read(tmp_path, "\n".join(map(delimiter.join, rows)))
    assert [clip.path.name for clip in manifest.clips] == ["a.wav", "b.wav"]
    assert labels_of(manifest) == [("cat",), ("dog",)]


def test_columns_are_named_and_without_a_header_numbered(tmp_path):
    content = "which,what,label\na.wav,cat,x\nb.wav,dog,y\n"
    assert labels_of(read(tmp_path, content, path_column="which", label_column="what")) == [("cat",), ("dog",)]
    assert labels_of(read(tmp_path, "a.wav;x;cat\nb.wav;y;dog\n", label_column="3")) == [("cat",), ("dog",)]
    with pytest.raises(DataError, match=r"found columns \['which', 'what', 'label'\], expected .*--path-column where"):
        read(tmp_path, content, path_column="where")


def test_a_column_of_names_goes_before_one_of_numbers(tmp_path, caplog):
    caplog.set_level("INFO", "flexiast")
    assert labels_of(read(tmp_path, "path,label,category\na.wav,0,cat\nb.wav,1,dog\n")) == [("cat",), ("dog",)]
    assert "labels from column category (not from label)" in caplog.text


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson"])
def test_json_lines(name, tmp_path):
    rows = [{"audio": "a.wav", "label": ["cat", "dog, barking"]}, {"audio": "b.wav", "label": []}]
    manifest = read(tmp_path, "\n".join(map(json.dumps, rows)), name)
    assert labels_of(manifest) == [("cat", "dog, barking"), ()]
    numbers = read(tmp_path, '{"path": "a.wav", "label": 2}\n\n{"path": "b.wav", "label": 10}\n', name)
    assert labels_of(numbers) == [("2",), ("10",)]
    with pytest.raises(DataError, match="line 2: not readable as JSON"):
        read(tmp_path, '{"path": "a.wav", "label": 2}\n{"path"\n', name)
    with pytest.raises(DataError, match="line 1: found label NaN, expected text"):
        read(tmp_path, '{"path": "a.wav", "label": NaN}\n', name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_are_told_by_a_mark(encoding, tmp_path):
    read(tmp_path, "path,label\na.wav,x\nb.wav,y\n")
    (tmp_path / "t.csv").write_bytes("path,label\na.wav,Öwl\nb.wav,cat\n".encode(encoding))
    assert labels_of(read_manifest(tmp_path / "t.csv")) == [("Öwl",), ("cat",)]


def test_other_encodings_are_asked_for_with_a_hint(tmp_path):
    read(tmp_path, "path,label\na.wav,x\nb.wav,y\n")
    text = "path,label\na.wav,Öwl\nb.wav,cat\n"
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="--encoding cp1252 or --encoding latin-1"):
        read_manifest(tmp_path / "t.csv")
    assert ("Öwl",) in labels_of(read_manifest(tmp_path / "t.csv", options=TableOptions(encoding="latin-1")))
    (tmp_path / "t.csv").write_bytes(text.encode("utf-16-le"))
    with pytest.raises(DataError, match="--encoding utf-16-le"):
        read_manifest(tmp_path / "t.csv")
    assert ("Öwl",) in labels_of(read_manifest(tmp_path / "t.csv", options=TableOptions(encoding="utf-16-le")))
    with pytest.raises(ConfigError, match="--encoding: found latin-99, expected an encoding that Python knows"):
        TableOptions(encoding="latin-99")


# Several labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["cat|dog", "cat;dog", '"cat,dog"', "\"['cat', 'dog']\"", '"[""cat"", ""dog""]"'])
def test_cells_that_plainly_hold_two_labels(cell, tmp_path):
    assert labels_of(read(tmp_path, f"path,label\na.wav,{cell}\nb.wav,cow\n")) == [("cat", "dog"), ("cow",)]


def test_a_cell_that_may_be_one_label_or_two_is_asked_about(tmp_path):
    content = 'path,label\na.wav,"Male speech, man speaking"\nb.wav,Dog\n'
    with pytest.raises(
        DataError, match=r"line 2: found label 'Male speech, man speaking', which may.*--label-separator none"
    ):
        read(tmp_path, content)
    assert labels_of(read(tmp_path, content, label_separator="none"))[0] == ("Male speech, man speaking",)
    assert labels_of(read(tmp_path, content, label_separator=","))[0] == ("Male speech", "man speaking")
    known = Labels(("/m/1", "/m/2"), ("Male speech, man speaking", "Dog"))
    assert labels_of(read(tmp_path, content, labels=known))[0] == ("Male speech, man speaking",)
    with pytest.raises(DataError, match="which may be one label or several"):
        read(tmp_path, "path,label\na.wav,x|y\nb.wav,y;z\n".replace(",y;z", ",y;z|x"))


def test_separators_between_names_with_commas(tmp_path):
    content = 'path,label\na.wav,"Male speech, man speaking;Dog"\nb.wav,Dog\n'
    assert labels_of(read(tmp_path, content)) == [("Male speech, man speaking", "Dog"), ("Dog",)]
    known = Labels(("/m/1", "/m/2"), ("Male speech, man speaking", "Dog"))
    assert labels_of(read(tmp_path, content, labels=known))[0] == ("Male speech, man speaking", "Dog")


def test_a_printed_list_of_numpy_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"line 2: .*a list of NumPy"):
        read(tmp_path, "path,label\na.wav,['cat' 'dog']\nb.wav,cow\n")


def test_rows_of_one_clip_are_joined(tmp_path, caplog):
    caplog.set_level("INFO", "flexiast")
    manifest = read(tmp_path, "path,label\na.wav,dog\nb.wav,cat\na.wav,cat\na.wav,dog\n")
    assert [(clip.path.name, clip.classes) for clip in manifest.clips] == [("a.wav", (1, 0)), ("b.wav", (0,))]
    assert "4 rows belong to 2 clips" in caplog.text


def test_clips_without_any_label(tmp_path):
    assert labels_of(read(tmp_path, "path,label\na.wav,dog\nb.wav,\n")) == [("dog",), ()]
    with pytest.raises(DataError, match="found no labels"):
        read(tmp_path, "path,label\na.wav,\nb.wav,\n")


@pytest.mark.parametrize("label", ["nan", "NaN", "<NA>"])
def test_missing_values_of_pandas_are_refused(label, tmp_path):
    with pytest.raises(DataError, match=f"line 3: found label {label!r}, which pandas writes"):
        read(tmp_path, f"path,label\na.wav,dog\nb.wav,{label}\n")


# Classes -------------------------------------------------------------------------------------------------------


def test_numbers_are_sorted_as_numbers(tmp_path):
    manifest = read(tmp_path, "path,label\na.wav,10\nb.wav,2\nc.wav,0\nd.wav,11\n")
    assert manifest.labels.mids == ("0", "2", "10", "11")
    assert [clip.classes for clip in manifest.clips] == [(2,), (1,), (0,), (3,)]
    assert distinct_labels(tmp_path / "t.csv").mids == ("0", "2", "10", "11")
    assert Labels.of(["b", "10", "2"]).mids == ("10", "2", "b")


def test_two_spellings_of_unicode_are_one_class(tmp_path):
    content = f"path,label\na.wav,{unicodedata.normalize('NFD', 'Öwl')}\nb.wav,Öwl\nc.wav,cat\n"
    assert read(tmp_path, content).labels.mids == ("cat", "Öwl")
    known = Labels(("/m/1", "/m/2"), ("cat", unicodedata.normalize("NFD", "Öwl")))
    assert [clip.classes for clip in read(tmp_path, content, labels=known).clips] == [(1,), (1,), (0,)]


def test_likely_twins_are_told_once(tmp_path, caplog):
    assert len(read(tmp_path, "path,label\na.wav,Dog\nb.wav,dog\nc.wav,zoom in\nd.wav,zoom_in\n").labels) == 4
    assert [record.levelname for record in caplog.records if record.levelname != "INFO"] == ["WARNING"]
    assert "'Dog' and 'dog'; 'zoom in' and 'zoom_in' are different classes" in caplog.text


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([f"{0.5 + 0.25 * number}" for number in range(10)], "10 different ones, such as 1.75, and each is taken"),
        ([f"{number}" for number in range(10)], None),  # whole numbers are names of classes
        ([f"{number}.0" for number in range(10)], None),
        ([f"{0.5 * number}" for number in range(9)], None),
        ([*(f"{0.5 * number}" for number in range(10)), "other"], None),
    ],
    ids=["numbers", "whole", "whole with a point", "few", "a word among them"],
)
def test_labels_that_are_numbers_are_hinted_at(
    labels: list[str], told: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = "path,label\n" + "".join(f"{number}.wav,{label}\n" for number, label in enumerate(labels))
    for number in range(len(labels)):
        (tmp_path / f"{number}.wav").touch()
    assert len(read(tmp_path, table).labels) == len(labels)
    records = [record for record in caplog.records if record.levelname != "INFO"]
    if told is None:
        assert not records
    else:
        assert f"t.csv: its labels are numbers, {told}" in caplog.text
        assert "--loss mse predicts them as numbers" in caplog.text


def test_one_label_for_all_is_refused(tmp_path):
    with pytest.raises(DataError, match="found one label, 'dog', for every clip"):
        read(tmp_path, "path,label\na.wav,dog\nb.wav,dog\n")


def test_names_map_to_the_labels_of_a_model_by_name(tmp_path):
    content = "path,label\na.wav,down\nb.wav,up\n"
    model = Labels(("up", "down"), ("up", "down"))
    assert [clip.classes for clip in read(tmp_path, content, labels=model).clips] == [(1,), (0,)]
    with pytest.raises(DataError, match="line 2: unknown label 'down', expected one of the 12"):
        read(tmp_path, content, labels=Labels.numbers(12))


FOLDS = "path,label,fold\na.wav,x,1\nb.wav,y,2\nc.wav,x,10\nd.wav,y,10\n"


@pytest.mark.parametrize(
    ("where", "kept"),
    [(("fold=1,10",), "acd"), (("fold!=10",), "ab"), (("FOLD=10", "label=y"), "d"), ((), "abcd")],
)
def test_rows_are_chosen_by_what_a_column_holds(where, kept, tmp_path):
    labels = Labels(("x", "y"), ("x", "y"))
    manifest = read(tmp_path, FOLDS, labels=labels, where=where)
    assert [clip.path.stem for clip in manifest.clips] == list(kept)
    rows = [dict(zip(("path", "label", "fold"), line.split(","), strict=True)) for line in FOLDS.splitlines()[1:]]
    manifest = read(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl", labels, where=where)
    assert [clip.path.stem for clip in manifest.clips] == list(kept)
    assert labels_of(manifest) == [(dict(zip("abcd", "xyxy", strict=True))[name],) for name in kept]


def test_conditions_that_choose_nothing_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"found no row for --where fold=3, expected at least one \(fold is 1, 2, 10\)"):
        read(tmp_path, FOLDS, where=("fold=3",))
    with pytest.raises(DataError, match=r"found columns \['path', 'label', 'fold'\], expected one for --where set!=a"):
        read(tmp_path, FOLDS, where=("set!=a",))
    with pytest.raises(ConfigError, match="--where: found 'fold', expected COLUMN=VALUE or COLUMN=VALUE,VALUE"):
        TableOptions(where=("fold",))


def test_a_column_of_folds_is_told_once_with_the_remedy(tmp_path, caplog):
    caplog.set_level("INFO", "flexiast")
    read(tmp_path, FOLDS)
    assert caplog.text.count("rows of every fold (1, 2, 10) are read; --where fold=1 takes some of them") == 1
    caplog.clear()
    read(tmp_path, FOLDS, where=("fold!=2",))
    read(tmp_path, FOLDS.replace("10", "1").replace("2", "1"))
    assert "rows of every" not in caplog.text


@pytest.mark.parametrize(("written", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("table", ["t.csv", "t.json"])
def test_file_names_in_the_other_form_of_unicode_are_the_same(table, written, there, tmp_path):
    name = "M\u00f6we/\u00e9t\u00e9.wav"
    file = tmp_path / unicodedata.normalize(there, name)
    file.parent.mkdir()
    file.touch()
    path = unicodedata.normalize(written, name)
    entries = {"data": [{"wav": path, "labels": "y"}, {"wav": "a.wav", "labels": "x"}]}
    content = json.dumps(entries) if table == "t.json" else f"path,label\n{path},y\na.wav,x\n"
    manifest = read(tmp_path, content, table, Labels(("x", "y"), ("x", "y")))
    assert manifest.clips[0].path == file
    assert file.exists()


def test_where_names_are_looked_for_is_one_line(tmp_path, caplog):
    caplog.set_level("INFO", "flexiast")
    for number in range(3):
        (tmp_path / f"part{number}").mkdir()
        (tmp_path / f"part{number}" / f"clip{number}.wav").touch()
    manifest = read(tmp_path, "path,label\nclip0,x\nclip1,y\nclip2,x\n")
    assert [clip.path.parent.name for clip in manifest.clips] == ["part0", "part1", "part2"]
    lines = [record.getMessage() for record in caplog.records if "looked for" in record.getMessage()]
    first = f"{tmp_path}/t.csv: 3 files are looked for as 'clip0' in {tmp_path}/part0/clip0.wav"
    assert lines == [f"{first}, and in the same way in 2 other folders"]


@pytest.mark.parametrize("source", ["folder", "m.json"])
def test_options_for_tables_are_refused_beside_anything_else(source, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "m.json").touch()
    (tmp_path / "t.csv").touch()
    options = TableOptions(label_column="x", where=("a=b",))
    expected = (
        rf"--where, --label-column: found beside {tmp_path / source}, expected a table of clips \(CSV, TSV, JSONL\)"
    )
    with pytest.raises(ConfigError, match=expected):
        require_tables(options, tmp_path / source)
    require_tables(options, tmp_path / source, tmp_path / "t.csv")
    require_tables(TableOptions(), tmp_path / source)


# Long tables, which are taken in parts ----------------------------------------------------------------------------


def test_rows_of_a_long_table_keep_their_lines_cells_and_order(tmp_path):
    rows = [f'"{n}\n.wav",{"" if n % 5 else "cat;"}k{n % 7},fold{n % 2}\n' + "\n" * (n % 3) for n in range(1000)]
    lines = [2 + sum(row.count("\n") for row in rows[:n]) + 1 for n in range(1000)]  # in which each row ends
    (tmp_path / "t.csv").write_text("path,label,fold\n" + "".join(rows))
    table = read_table(tmp_path / "t.csv", TableOptions(path_suffix="x"))
    found = [(row.line, row.name, row.label, row.groups) for row in table.rows]
    expected = [(lines[n], f"{n}\n.wavx", f"{'' if n % 5 else 'cat;'}k{n % 7}", (f"fold{n % 2}",)) for n in range(1000)]
    assert found == expected
    assert table.rows.first_lines == {label: line for line, _, label, _ in reversed(expected)}


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        ("b.wav", "found 1 cells, expected 2"),
        ("b.wav,x,y", "found 3 cells, expected 2"),
        (" ,x", "found path '', expected the name of a file"),
        ("a\0.wav,x", r"found path 'a\\x00.wav', expected the name of a file"),
        ("b.wav,nan", "found label 'nan', which pandas writes"),
        ('b.wav,"x;,y"', "found label 'x;,y', which may be one label or several"),
    ],
    ids=["short", "long", "no name", "zero byte", "nan", "two separators"],
)
@pytest.mark.parametrize("place", [0, 255, 256, 999])
def test_a_bad_line_of_a_long_table_is_found(place, bad, found, tmp_path):
    rows = [f"{n}.wav,k{n % 7}" for n in range(1000)]
    rows[place] = bad
    with pytest.raises(DataError, match=f"t.csv, line {place + 2}: {found}"):
        read(tmp_path, "path,label\n" + "\n".join(rows))


def test_the_first_bad_line_of_several_is_named(tmp_path):
    rows = [f"{n}.wav,x" for n in range(600)]
    rows[300:310] = ["b.wav"] * 5 + [",x"] * 5
    with pytest.raises(DataError, match="line 302: found 1 cells"):
        read(tmp_path, "path,label\n" + "\n".join(rows))


def test_long_json_lines_hold_lists_and_texts_and_are_chosen_by_where(tmp_path):
    records = [{"audio": f"{n}.wav", "label": ["x", f"k{n % 7}"] if n % 2 else "x", "split": n % 3} for n in range(900)]
    content = "\n".join(map(json.dumps, [*records, {"audio": "a.wav", "label": "x", "split": 9}]))
    chosen = [one for one in records if one["split"] != 1]
    manifest = read(tmp_path, content, "t.jsonl", where=("split!=1",))
    assert [clip.path.name for clip in manifest.clips] == [*(one["audio"] for one in chosen), "a.wav"]
    assert labels_of(manifest) == [*(tuple(dict.fromkeys([*one["label"]])) for one in chosen), ("x",)]
