"""Manifests, folders of classes and label tables: read, written, and refused with file and entry named."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from flexiast.data.manifest import Clip, Labels, Manifest, distinct_labels, read_manifest, write_manifest
from flexiast.errors import DataError
from flexiast.traintest.options import DataConfig

LABELS = Labels(("/m/cat", "/m/dog", "/m/owl"), ("Cat", "Dog, barking", "Öwl"))


def refused(where: str, found: str):
    """Expect a DataError that names the place and what was found there."""
    return pytest.raises(DataError, match=f"{re.escape(where)}.*{re.escape(found)}")


def touch(*files: Path) -> None:
    """Empty files, and their folders."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes, one of them with a sub-folder, and what belongs to no class."""
    for name in (
        "up/b.wav",
        "up/more/a.FLAC",
        "down/c.ogg",
        "_background_noise_/hum.wav",
        "up/notes.txt",
        ".git/x.wav",
    ):
        file = tmp_path / "clips" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345")
    return tmp_path / "clips"


# Label tables --------------------------------------------------------------------------------------------------


def test_labels_are_read_as_they_were_written(tmp_path):
    LABELS.write(tmp_path / "labels.csv")
    assert Labels.read(tmp_path / "labels.csv") == LABELS


def test_rows_and_columns_of_a_label_table_come_in_any_order(tmp_path):
    (tmp_path / "labels.csv").write_text(
        '\ufeffmid,index,display_name\nb,1,Bee\nc,2,\na,0,"A, first"\n', encoding="utf-8"
    )
    assert Labels.read(tmp_path / "labels.csv") == Labels(("a", "b", "c"), ("A, first", "Bee", "c"))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "None"),
        ("index,mid\n0,a\n", "['index', 'mid']"),
        ("index,mid,display_name\n", "[]"),
        ("index,mid,display_name\n0,a,A\n2,b,B\n", "[0, 2]"),
        ("index,mid,display_name\n0,a,A\n0,b,B\n", "line 3"),
        ("index,mid,display_name\n0,a,A\nx,b,B\n", "line 3"),
        ("index,mid,display_name\n0,a,A\n²,b,B\n", "line 3"),
        ("index,mid,display_name\n0,,A\n", "line 2"),
        ("index,mid,display_name\n0\n", "line 2"),
        ("index,mid,display_name\n0,a,A\n1,a,B\n", "2 ids, 1 distinct"),
    ],
    ids=[
        *("empty", "column missing", "no rows", "gap", "index twice", "no index", "superscript", "no mid", "short row"),
        "mid twice",
    ],
)
def test_wrong_label_table_is_refused(content, found, tmp_path):
    (tmp_path / "labels.csv").write_text(content, encoding="utf-8")
    with refused(str(tmp_path / "labels.csv"), found):
        Labels.read(tmp_path / "labels.csv")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["missing", "not UTF-8"])
def test_unreadable_label_table_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "labels.csv").write_bytes(content)
    with refused(str(tmp_path / "labels.csv"), "not readable"):
        Labels.read(tmp_path / "labels.csv")


def test_numbers_stand_for_unknown_names():
    assert Labels.numbers(3) == Labels(("0", "1", "2"), ("0", "1", "2"))
    assert Labels.numbers(3).numbered
    assert not LABELS.numbered


# Manifests -----------------------------------------------------------------------------------------------------


def test_manifest_is_read_as_it_was_written(tmp_path):
    write_manifest(tmp_path / "m.json", [("a.wav", "/m/dog"), ("/abs/b.wav", "/m/owl,/m/cat"), ("ä/c.wav", "/m/cat ")])
    touch(tmp_path / "a.wav")
    manifest = read_manifest(tmp_path / "m.json", LABELS)
    assert manifest.clips == (
        Clip(tmp_path / "a.wav", (1,)),
        Clip(Path("/abs/b.wav"), (2, 0)),
        Clip(tmp_path / "ä" / "c.wav", (0,)),
    )
    assert (len(manifest), manifest.labels, manifest.source) == (3, LABELS, tmp_path / "m.json")


def test_manifest_is_written_a_line_for_each_clip_and_holds_none_at_worst(tmp_path):
    write_manifest(tmp_path / "m.json", [("a.wav", "x"), ("b.wav", "y,x")])
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "data": [{"wav": "a.wav", "labels": "x"}, {"wav": "b.wav", "labels": "y,x"}]
    }
    assert len((tmp_path / "m.json").read_text().splitlines()) == 4
    write_manifest(tmp_path / "m.json", [])
    assert json.loads((tmp_path / "m.json").read_text()) == {"data": []}


def test_relative_paths_start_at_the_root(tmp_path):
    write_manifest(tmp_path / "m.json", [("a.wav", "/m/dog"), ("/abs/b.wav", "/m/cat")])
    touch(tmp_path / "corpus" / "a.wav")
    manifest = read_manifest(tmp_path / "m.json", LABELS, root=tmp_path / "corpus")
    assert [clip.path for clip in manifest.clips] == [tmp_path / "corpus" / "a.wav", Path("/abs/b.wav")]


def test_negatives_of_a_manifest_have_no_class(tmp_path):
    write_manifest(tmp_path / "m.json", [("a.wav", "/m/dog"), ("b.wav", "")])
    touch(tmp_path / "b.wav")
    assert [clip.classes for clip in read_manifest(tmp_path / "m.json", LABELS).clips] == [(1,), ()]


@pytest.mark.parametrize("name", ["m.json", "m.csv"])
def test_paths_that_are_all_missing_name_the_root(name, tmp_path):
    write_manifest(tmp_path / "m.json", [("a.wav", "/m/dog"), ("b.wav", "/m/cat")])
    (tmp_path / "m.csv").write_text("path,label\na.wav,/m/dog\nb.wav,/m/cat\n")
    with refused(str(tmp_path / name), f"none of the 2 files in it is there (the first would be {tmp_path}/a.wav)"):
        read_manifest(tmp_path / name, LABELS)
    with pytest.raises(DataError, match=r"--data\.root"):
        read_manifest(tmp_path / name, LABELS, None, DataConfig(train=tmp_path / name))
    touch(tmp_path / "b.wav")
    assert len(read_manifest(tmp_path / name, LABELS)) == 2


def test_manifest_as_ast_writes_it(tmp_path):
    LABELS.write(tmp_path / "labels.csv")
    touch(tmp_path / "x.flac")
    entry = {"wav": str(tmp_path / "x.flac"), "labels": "/m/cat", "video_id": "x"}
    (tmp_path / "m.json").write_text(json.dumps({"data": [entry]}))
    assert read_manifest(tmp_path / "m.json", tmp_path / "labels.csv").clips == (Clip(tmp_path / "x.flac", (0,)),)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "not readable"),
        ('{"data": [', "not readable"),
        ("[" * 100_000, "not readable"),
        ("[]", "at least one entry"),
        ('{"data": []}', "at least one entry"),
        ('{"clips": 1}', "at least one entry"),
        ('{"data": [{"wav": "a.wav", "labels": "/m/cat"}, {"wav": "b.wav"}]}', "data[1]"),
        ('{"data": [{"wav": "", "labels": "/m/cat"}]}', "data[0]"),
        ('{"data": [{"wav": "a.wav", "labels": 3}]}', "data[0]"),
        ('{"data": ["a.wav"]}', "data[0]"),
        ('{"data": [{"wav": "a.wav", "labels": "/m/cat,/m/cow"}]}', "data[0]: unknown label '/m/cow'"),
    ],
    ids=[
        *("empty", "cut", "deep", "list", "no entries", "no data", "no labels", "no path", "number", "text", "unknown"),
    ],
)
def test_wrong_manifest_is_refused(content, found, tmp_path):
    (tmp_path / "m.json").write_text(content)
    with refused(str(tmp_path / "m.json"), found):
        read_manifest(tmp_path / "m.json", LABELS)


def test_missing_manifest_is_refused(tmp_path):
    with refused(str(tmp_path / "none.json"), "No such file"):
        read_manifest(tmp_path / "none.json", LABELS)


def test_manifest_without_labels_is_refused(tmp_path):
    write_manifest(tmp_path / "m.json", [("a.wav", "/m/dog")])
    with refused(str(tmp_path / "m.json"), "label table"):
        read_manifest(tmp_path / "m.json")


# CSV -----------------------------------------------------------------------------------------------------------


def csv_manifest(folder: Path, content: str, encoding: str = "utf-8") -> Path:
    """A manifest m.csv with this content."""
    (folder / "m.csv").write_text(content, encoding=encoding)
    return folder / "m.csv"


def test_csv_brings_its_own_labels(tmp_path):
    content = 'path,label,fold\na.wav,owl,1\n"b, c.flac","cat, owl,cat",2\n\n/abs/d.wav,cat,\n'
    touch(tmp_path / "a.wav")
    manifest = read_manifest(csv_manifest(tmp_path, content))
    assert manifest.labels == Labels(("cat", "owl"), ("cat", "owl"))
    assert manifest.clips == (
        Clip(tmp_path / "a.wav", (1,)),
        Clip(tmp_path / "b, c.flac", (0, 1)),
        Clip(Path("/abs/d.wav"), (0,)),
    )


def test_csv_takes_mids_and_names_of_given_labels(tmp_path):
    content = '\ufefflabel,path\n"/m/owl, Cat",a.wav\n"Dog, barking",b.wav\n"Cat,/m/cat",c.wav\n'
    touch(tmp_path / "corpus" / "c.wav")
    manifest = read_manifest(csv_manifest(tmp_path, content), LABELS, root=tmp_path / "corpus")
    assert manifest.labels == LABELS
    assert manifest.clips == (
        Clip(tmp_path / "corpus" / "a.wav", (2, 0)),
        Clip(tmp_path / "corpus" / "b.wav", (1,)),
        Clip(tmp_path / "corpus" / "c.wav", (0,)),
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "found columns []"),
        ("voice,kind\na,cat\n", "found columns ['voice', 'kind']"),
        ("path,label\n", "no clips"),
        ("path,label\na.wav,/m/cat\nb.wav\n", "line 3"),
        ("path,label\n,/m/cat\n", "line 2"),
        ("path,label\na.wav,/m/cat,/m/dog\n", "line 2: found 3 cells"),
        ('path,label\na.wav,"/m/cat,/m/cow"\n', "line 2: unknown label '/m/cow', expected one of the 3"),
        ('path,label\na.wav,"/m/cat,"\n', "line 2: found label '/m/cat,' with an empty one"),
        ('path,label\na.wav,"/m/cat\n', "not readable"),
    ],
    ids=[
        *("empty", "other columns", "no rows", "short row", "no path", "no quotes"),
        *("unknown", "empty label", "open quote"),
    ],
)
def test_wrong_csv_is_refused(content, found, tmp_path):
    with refused(str(tmp_path / "m.csv"), found):
        read_manifest(csv_manifest(tmp_path, content), LABELS)


def test_csv_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "m.csv").write_bytes(bytes([255, 128, 200]))
    with refused(str(tmp_path / "m.csv"), "not readable"):
        read_manifest(tmp_path / "m.csv")


def test_distinct_labels_of_either_format(tmp_path):
    write_manifest(tmp_path / "m.json", [("a.wav", "/m/owl"), ("b.wav", "/m/cat, /m/owl")])
    csv_manifest(tmp_path, 'path,label\na.wav,"b,a"\n')
    assert distinct_labels(tmp_path / "m.json").mids == ("/m/cat", "/m/owl")
    assert distinct_labels(tmp_path / "m.csv").mids == ("a", "b")


# Folders -------------------------------------------------------------------------------------------------------


def test_folder_has_a_class_per_sub_folder(folder):
    manifest = read_manifest(folder)
    assert manifest.labels == Labels(("down", "up"), ("down", "up"))
    assert manifest.clips == (
        Clip(folder / "down" / "c.ogg", (0,)),
        Clip(folder / "up" / "b.wav", (1,)),
        Clip(folder / "up" / "more" / "a.FLAC", (1,)),
    )


@pytest.mark.parametrize(
    "labels", [Labels(("up", "no", "down"), ("U", "N", "D")), Labels(("1", "2", "3"), ("up", "no", "down"))]
)
def test_folder_takes_indices_from_given_labels(labels, folder):
    manifest = read_manifest(folder, labels)
    assert manifest.labels == labels
    assert [clip.classes for clip in manifest.clips] == [(2,), (0,), (0,)]


def test_folder_of_a_class_without_a_label_is_refused(folder):
    with refused(str(folder / "down"), "unknown label 'down'"):
        read_manifest(folder, Labels(("up",), ("up",)))


@pytest.mark.parametrize(("kept", "found"), [((), "no sub-folders"), (("empty",), "no audio files")])
def test_folder_without_clips_is_refused(kept, found, tmp_path):
    for name in kept:
        (tmp_path / name).mkdir()
    with refused(str(tmp_path), found):
        read_manifest(tmp_path)


# Fingerprints --------------------------------------------------------------------------------------------------


def test_fingerprint_is_the_same_wherever_the_data_lie(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere" / "deep")
    assert read_manifest(folder).fingerprint == read_manifest(tmp_path / "elsewhere" / "deep").fingerprint


def _longer(folder: Path) -> None:
    (folder / "up" / "b.wav").write_bytes(b"123456")


def _renamed(folder: Path) -> None:
    os.rename(folder / "up" / "b.wav", folder / "up" / "c.wav")


def _relabelled(folder: Path) -> None:
    os.rename(folder / "down" / "c.ogg", folder / "up" / "c.ogg")


def _one_less(folder: Path) -> None:
    (folder / "down" / "c.ogg").unlink()


@pytest.mark.parametrize("change", [_longer, _renamed, _relabelled, _one_less])
def test_fingerprint_changes_with_the_data(change, folder):
    before = read_manifest(folder).fingerprint
    change(folder)
    assert read_manifest(folder, Labels(("down", "up"), ("down", "up"))).fingerprint != before


def test_fingerprint_changes_with_the_classes_of_a_clip():
    one, other = (Manifest(Path("m"), (Clip(Path("a/b.wav"), (c,)),), LABELS) for c in (0, 1))
    assert one.fingerprint != other.fingerprint
