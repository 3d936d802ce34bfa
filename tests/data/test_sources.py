"""What is typed for `predict`, as the audio files it stands for."""

import json
import logging
import unicodedata
from pathlib import Path

import pytest

from flexiast.data.manifest import read_manifest
from flexiast.data.pack import pack
from flexiast.data.sources import audio_sources
from flexiast.data.table_options import PathOptions
from tests.sounds import write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_folder(tmp_path_factory.mktemp("sources") / "sounds", 2, seed=0)
    (root / "low_up" / "0.wav").rename(root / "low_up" / "0.WAV")
    (root / "notes.txt").write_text("")
    (root / ".hidden.wav").write_text("")
    return root


def names(sources) -> list[str]:
    return ["/".join(source.parts[-2:]) for source in sources]


def test_files_and_folders_in_the_order_given(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = folder / "mid_up" / "1.wav"
    with caplog.at_level(logging.INFO):
        sources, refused = audio_sources([one, folder, Path("gone.wav")])
    assert not refused
    assert sources[0] == one
    assert names(sources[1:3]) == ["high_down/0.wav", "high_down/1.wav"]
    assert len(sources) == 13  # twelve, and the one that is not there; none twice
    assert sources[-1] == Path("gone.wav")
    assert "1 files are left out, not audio by their names (1 .txt)" in caplog.text


def test_patterns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names(audio_sources([Path("*_up/1.wav")]).files) == ["high_up/1.wav", "low_up/1.wav", "mid_up/1.wav"]
    assert len(audio_sources([Path("**/1.wav")]).files) == 6
    both = audio_sources([Path("mid_*")]).files
    assert names(both) == [
        "mid_down/0.wav",
        "mid_down/1.wav",
        "mid_up/0.wav",
        "mid_up/1.wav",
    ]
    (folder / "a[1].wav").touch()
    assert audio_sources([Path("a[1].wav")]).files == [Path("a[1].wav")]
    (folder / "a[1].wav").unlink()


def test_manifests_and_shards(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\nmid_up/1.wav,a\nlow_up/1.wav,b\n")
    entries = [{"wav": str(folder / "mid_up" / "0.wav"), "labels": "x"}]
    (tmp_path / "list.json").write_text(json.dumps({"data": entries}))
    listed = audio_sources([tmp_path / "list.csv"], root=folder).files
    assert listed == [
        folder / "mid_up/1.wav",
        folder / "low_up/1.wav",
    ]
    assert audio_sources([tmp_path / "list.json"]).files == [folder / "mid_up" / "0.wav"]
    pack(read_manifest(folder), tmp_path / "shards", progress=False)
    assert len(audio_sources([tmp_path / "shards"]).files) == 12


def test_what_holds_nothing_is_refused_and_the_rest_goes_on(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("Recorded in May.\n")
    (tmp_path / "list.json").write_text("{}")
    one = folder / "mid_up" / "1.wav"
    names = [tmp_path, tmp_path / "*.wav", tmp_path / "gone.csv", tmp_path / "readme.txt", tmp_path / "list.json"]
    files, refused = audio_sources([*names, one])
    assert files == [one]
    assert [name for name, _ in refused] == names
    reasons = [reason.removeprefix(f"{name}: ") for name, reason in refused]
    assert reasons[0].startswith("found no audio files")
    assert reasons[1] == "found no file that matches this pattern"
    assert reasons[2] == "not readable as a manifest (No such file or folder)"
    assert reasons[3] == (
        "found columns ['Recorded in May.'], expected one of files (path, file, fname, ...); name it with"
        " --path-column; it is no audio file either"
    )
    assert reasons[4].startswith("expected {")


def test_a_table_needs_no_labels_and_takes_its_options(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("take,split\n1,a\n0,b\n1,b\n")
    options = PathOptions(path_column="take", path_prefix="mid_up/", path_suffix=".wav", where=("split=b",))
    assert audio_sources([tmp_path / "list.csv"], folder, options).files == [
        folder / "mid_up/0.wav",
        folder / "mid_up/1.wav",
    ]
    (tmp_path / "plain.txt").write_text("mid_up/1.wav\nlow_up/1.wav\n")
    assert audio_sources([tmp_path / "plain.txt"], folder).files == [folder / "mid_up/1.wav", folder / "low_up/1.wav"]


@pytest.mark.parametrize(("typed", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_the_other_form_of_unicode(typed: str, there: str, tmp_path: Path) -> None:
    name = "M\u00f6we.wav"
    (tmp_path / unicodedata.normalize(there, name)).touch()
    (found,) = audio_sources([tmp_path / unicodedata.normalize(typed, name)]).files
    assert found.exists()
