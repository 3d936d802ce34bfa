"""What is typed for `predict`, as the audio files it stands for."""

import json
import logging
from pathlib import Path

import pytest

from flexiast.data.manifest import read_manifest
from flexiast.data.pack import pack
from flexiast.data.sources import audio_sources
from flexiast.errors import DataError
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
        sources = audio_sources([one, folder, Path("gone.wav")])
    assert sources[0] == one
    assert names(sources[1:3]) == ["high_down/0.wav", "high_down/1.wav"]
    assert len(sources) == 13  # twelve, and the one that is not there; none twice
    assert sources[-1] == Path("gone.wav")
    assert "1 files are left out, not audio by their names (1 .txt)" in caplog.text


def test_patterns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names(audio_sources([Path("*_up/1.wav")])) == ["high_up/1.wav", "low_up/1.wav", "mid_up/1.wav"]
    assert len(audio_sources([Path("**/1.wav")])) == 6
    assert names(audio_sources([Path("mid_*")])) == ["mid_down/0.wav", "mid_down/1.wav", "mid_up/0.wav", "mid_up/1.wav"]
    (folder / "a[1].wav").touch()
    assert audio_sources([Path("a[1].wav")]) == [Path("a[1].wav")]
    (folder / "a[1].wav").unlink()


def test_manifests_and_shards(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\nmid_up/1.wav,a\nlow_up/1.wav,b\n")
    entries = [{"wav": str(folder / "mid_up" / "0.wav"), "labels": "x"}]
    (tmp_path / "list.json").write_text(json.dumps({"data": entries}))
    assert audio_sources([tmp_path / "list.csv"], root=folder) == [folder / "mid_up/1.wav", folder / "low_up/1.wav"]
    assert audio_sources([tmp_path / "list.json"]) == [folder / "mid_up" / "0.wav"]
    pack(read_manifest(folder), tmp_path / "shards", progress=False)
    assert len(audio_sources([tmp_path / "shards"])) == 12


def test_what_holds_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match=f"{tmp_path}: found no audio files"):
        audio_sources([tmp_path])
    with pytest.raises(DataError, match="found no file that matches this pattern"):
        audio_sources([tmp_path / "*.wav"])
    with pytest.raises(DataError, match=r"list\.csv: not readable as a manifest"):
        audio_sources([tmp_path / "list.csv"])
