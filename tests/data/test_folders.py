"""Folders of classes as people have them: nothing that could be a clip is left out without a word."""

import os
import unicodedata
from pathlib import Path

import pytest

from flexiast.data.folders import split_root
from flexiast.data.labels import Labels
from flexiast.data.manifest import distinct_labels, read_manifest
from flexiast.data.suffixes import AUDIO_SUFFIXES
from flexiast.errors import DataError


def lay(root: Path, *names: str) -> Path:
    """Empty files, and folders (names that end in /)."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).mkdir(exist_ok=True) if name.endswith("/") else (root / name).touch()
    return root


def clips(folder: Path) -> list[str]:
    return [Path(clip.path).relative_to(folder).as_posix() for clip in read_manifest(folder).clips]


def test_every_suffix_is_scanned_in_any_case(tmp_path):
    names = [f"a/{i}{s.upper() if i % 2 else s}" for i, s in enumerate(sorted(AUDIO_SUFFIXES))]
    lay(tmp_path, *names, "b/deep/deeper/x.Opus")
    assert set(clips(tmp_path)) == {*names, "b/deep/deeper/x.Opus"}
    assert {".opus", ".oga", ".aiff", ".au", ".caf", ".m4a", ".aac", ".webm", ".wma", ".amr"} <= AUDIO_SUFFIXES


def test_what_is_left_out_is_told(tmp_path, caplog):
    caplog.set_level("INFO", "flexiast")
    hidden = ("a/._x.wav", "a/.y.wav", ".git/z.wav", "a/.cache/z.wav")
    lay(
        tmp_path,
        "a/x.wav",
        "b/y.wav",
        "b/n.txt",
        "a/m.txt",
        "b/p.jpg",
        "_background_noise_/n.wav",
        "loose.wav",
        *hidden,
    )
    assert clips(tmp_path) == ["a/x.wav", "b/y.wav"]
    assert "_background_noise_: not taken for a class (1 audio files)" in caplog.text
    assert "3 files are left out, not audio by their names (2 .txt, 1 .jpg)" in caplog.text
    assert "1 audio files lie in no class and are left out (loose.wav)" in caplog.text
    assert len(caplog.records) == 3


def test_an_empty_class_is_refused_by_name(tmp_path, caplog):
    lay(tmp_path, "a/x.wav", "b/y.wav", "empty/notes.txt")
    with pytest.raises(DataError, match=r"empty: found no audio files in it, expected at least one in each class"):
        read_manifest(tmp_path)
    names = ("a", "b", "empty")
    assert len(read_manifest(tmp_path, Labels(names, names))) == 2  # a split need not have every class
    assert "empty: found no audio files in it" in caplog.text


def test_one_class_is_refused_unless_labels_are_given(tmp_path):
    lay(tmp_path, "set/up/x.wav", "set/down/y.wav")
    with pytest.raises(DataError, match=r"found one class, 'set' \(if it holds the classes, give .*set\)"):
        read_manifest(tmp_path)
    assert len(read_manifest(tmp_path, Labels(("set", "other"), ("set", "other")))) == 2
    assert distinct_labels(tmp_path).mids == ("set",)


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "validation", "testing"), ("train", "dev", "eval")]
)
def test_a_root_of_splits_is_recognised_and_refused_with_the_command(names, tmp_path):
    lay(tmp_path, *(f"{split}/{name}/1.wav" for split in names for name in ("up", "down")), "README.md")
    assert split_root(tmp_path) == dict(zip(("train", "val", "test"), (tmp_path / n for n in names), strict=True))
    with pytest.raises(DataError, match=f"give --data.train {tmp_path}/{names[0]} --data.val {tmp_path}/{names[1]}"):
        read_manifest(tmp_path)
    assert len(read_manifest(tmp_path / names[0])) == 2


def test_other_roots_are_none_of_splits(tmp_path):
    assert split_root(lay(tmp_path / "vehicles", "train/1.wav", "car/1.wav")) is None
    assert split_root(lay(tmp_path / "classes", "train/1.wav", "test/1.wav")) is None  # no classes below
    assert split_root(lay(tmp_path / "one", "train/up/1.wav")) is None
    lay(tmp_path / "twice", "train/up/1.wav", "val/up/1.wav", "dev/up/1.wav")
    with pytest.raises(DataError, match="found dev and val, expected one folder for val"):
        split_root(tmp_path / "twice")


def test_numbers_as_classes_are_in_their_order(tmp_path):
    lay(tmp_path, *(f"{number}/x.wav" for number in (0, 1, 10, 11, 2)))
    manifest = read_manifest(tmp_path)
    assert manifest.labels.mids == ("0", "1", "2", "10", "11")
    assert [(clip.path.parent.name, clip.classes[0]) for clip in manifest.clips] == [
        *(("0", 0), ("1", 1), ("2", 2), ("10", 3), ("11", 4))
    ]


def test_two_spellings_of_unicode_are_one_class(tmp_path):
    lay(tmp_path, "Öwl/1.wav", f"{unicodedata.normalize('NFD', 'Öwl')}/2.wav", "cat/3.wav")
    assert [clip.classes for clip in read_manifest(tmp_path).clips] == [(0,), (1,), (1,)]


def test_a_class_whose_name_is_no_text_is_refused_with_its_name(tmp_path):
    lay(tmp_path, "a/x.wav", "b/y.wav")
    os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(DataError, match=r"found the folder b'caf\\xe9', whose name is not UTF-8"):
        read_manifest(tmp_path)


def test_links_never_vanish(tmp_path):
    lay(tmp_path, "root/a/x.wav", "root/b/y.wav", "elsewhere/z.wav")
    (tmp_path / "root" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")  # decoding names it
    (tmp_path / "root" / "a" / "circle").symlink_to(tmp_path / "root" / "a")
    assert clips(tmp_path / "root") == ["a/gone.wav", "a/x.wav", "b/y.wav", "c/z.wav"]
    (tmp_path / "root" / "d").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"d: found a broken link"):
        read_manifest(tmp_path / "root")


def test_a_class_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    lay(tmp_path, "a/x.wav", "b/y.wav")

    def scandir(place: str, scan=os.scandir):
        if os.fspath(place) == str(tmp_path / "b"):
            raise PermissionError(13, "Permission denied", os.fspath(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"b: not readable as a folder of clips \(Permission denied\)"):
        read_manifest(tmp_path)
