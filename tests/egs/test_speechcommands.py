"""Speech Commands in its public layout to manifests."""

import dataclasses
import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.layouts import WORDS, prepare_script, read_missing, read_splits, run_prepare, write_speechcommands
from tests.server import serving

SCRIPT = Path(__file__).resolve().parents[2] / "egs" / "speechcommands" / "prepare.py"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "SpeechCommands" / "speech_commands_v0.02"  # as torchaudio unpacks it
    root.mkdir(parents=True)
    write_speechcommands(root, train=2)
    return root


@pytest.mark.slow
def test_lists_make_the_splits_and_the_rest_is_training(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(data), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out'}: 6 classes; clips: train 12, val 6, test 6\n"
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"train.json", "val.json", "test.json", "labels.csv", "missing.csv"}
    found = {}
    for split, manifest in read_splits(tmp_path / "out").items():
        assert manifest.labels.names == WORDS
        for clip in manifest.clips:
            assert manifest.labels.names[clip.classes[0]] == clip.path.parent.name
        found[split] = {clip.path.relative_to(data).as_posix() for clip in manifest.clips}
    lists = {"val": "validation_list.txt", "test": "testing_list.txt"}
    for split, name in lists.items():
        assert found[split] == set((data / name).read_text().split())
    everything = {path.relative_to(data).as_posix() for word in WORDS for path in (data / word).iterdir()}
    assert found["train"] == everything - found["val"] - found["test"]


def test_folders_around_the_data_do(data: Path, tmp_path: Path) -> None:
    assert run_prepare("speechcommands", tmp_path, tmp_path / "out") == 0
    assert len(read_splits(tmp_path / "out")["train"]) == 12


def test_a_listed_file_that_is_missing_is_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    name = (data / "testing_list.txt").read_text().split()[0]
    (data / name).unlink()
    assert run_prepare("speechcommands", data, tmp_path / "out") == 2
    assert f"1 of 24 clips have no usable file: {data / name} (no file)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_faults_are_left_out_where_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "data").mkdir()
    faults = write_speechcommands(tmp_path / "data", test=2, broken=True)
    assert run_prepare("speechcommands", tmp_path / "data", tmp_path / "out", "--missing", "skip") == 0
    assert "clips: train 24, val 6, test 9; left out: test 3" in capsys.readouterr().out
    assert read_missing(tmp_path / "out").keys() == faults.keys()


@pytest.mark.parametrize("name", ["testing_list.txt", "validation_list.txt"])
def test_a_missing_list_is_named(name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (data / name).unlink()
    assert run_prepare("speechcommands", data, tmp_path / "out") == 2
    assert name in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_download(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "www").mkdir()
    archive = tmp_path / "www" / "speech_commands_v0.02.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for path in data.iterdir():  # the real one has no folder around its words
            file.add(path, f"./{path.name}")
    script = prepare_script("speechcommands")
    assert script.ARCHIVE.url.endswith("/speech_commands_v0.02.tar.gz")
    command = ["--download", "--data-root", str(tmp_path / "root"), str(tmp_path / "out")]
    with serving(tmp_path / "www") as (address, _):
        here = dataclasses.replace(script.ARCHIVE, url=f"{address}/{archive.name}")
        monkeypatch.setattr(script, "ARCHIVE", here)
        assert script.main(command) == 2  # not the size of the real one
        assert "bytes, expected 2428923189" in capsys.readouterr().err
        content = archive.read_bytes()
        right = dataclasses.replace(here, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(script, "ARCHIVE", right)
        assert script.main(command) == 0
    splits = read_splits(tmp_path / "out")
    assert [len(splits[split]) for split in ("train", "val", "test")] == [12, 6, 6]
    assert splits["test"].clips[0].path.is_relative_to(tmp_path / "root" / "speech_commands_v0.02")
