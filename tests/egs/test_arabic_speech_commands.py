"""Arabic Speech Commands in its public layout to manifests: the official split, re-encoded copies, the archive."""

from pathlib import Path

import pytest

from flexiast.data.manifest import read_manifest
from flexiast.errors import DataError
from tests.layouts import ARABIC, prepare_script, read_splits, run_prepare, write_arabic_speech_commands


@pytest.fixture
def data(tmp_path: Path) -> Path:
    home = tmp_path / "arabic-speech-commands-dataset-master"
    write_arabic_speech_commands(home, train=3)
    return home


def test_the_lists_make_the_splits(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_prepare("arabic_speech_commands", data.parent, tmp_path / "out") == 0
    assert "6 classes; clips: train 18, val 6, test 6\n" in capsys.readouterr().out
    for manifest in read_splits(tmp_path / "out").values():
        assert manifest.labels.names == ARABIC
        assert all(manifest.labels.names[clip.classes[0]] == clip.path.parent.name for clip in manifest.clips)


def test_a_re_encoded_copy_is_found_under_its_other_extension(data: Path, tmp_path: Path) -> None:
    for path in data.rglob("*.wav"):
        path.rename(path.with_suffix(".flac"))
    assert run_prepare("arabic_speech_commands", data, tmp_path / "out") == 0
    train = read_manifest(tmp_path / "out" / "train.json", tmp_path / "out" / "labels.csv")
    assert {clip.path.suffix for clip in train.clips} == {".flac"}


def test_a_clip_that_is_gone_is_refused_or_left_out_as_asked(data: Path, tmp_path: Path, capsys) -> None:
    gone = next(data.rglob("*.wav"))
    gone.unlink()
    assert run_prepare("arabic_speech_commands", data, tmp_path / "out") == 2
    assert f"1 of 30 clips have no usable file: {gone.relative_to(data)} (no file)" in capsys.readouterr().err
    assert run_prepare("arabic_speech_commands", data, tmp_path / "out", "--missing", "skip") == 0


def test_lists_of_other_columns_are_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (data / "val.csv").write_text("path,word\na.wav,cancel\n")
    assert run_prepare("arabic_speech_commands", data, tmp_path / "out") == 2
    assert "val.csv: found columns ['path', 'word'], expected file and class" in capsys.readouterr().err


def test_a_download_is_complete_or_refused(data: Path, tmp_path: Path) -> None:
    script = prepare_script("arabic_speech_commands")
    assert script.CLIPS == {"train": 7_200, "val": 2_400, "test": 2_400}
    checks = script.Checks("size")
    with pytest.raises(DataError, match=r"found \{'train': 18, 'val': 6, 'test': 6\} clips, expected .*7200"):
        script.prepare(data, tmp_path / "out", checks, script.CLIPS)
