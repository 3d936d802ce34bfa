"""ESC-50 in its public layout to manifests: folds, recordings kept together, faults, download."""

import csv
import dataclasses
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.layouts import ESC50, prepare_script, read_missing, read_splits, run_prepare, write_esc50
from tests.server import serving


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("esc50") / "ESC-50-master"
    write_esc50(root, per_fold=4)
    return root


def fold_of(path: Path) -> int:
    """The fold in a file name."""
    return int(path.name.split("-")[0])


def recording(path: Path) -> str:
    """The recording in a file name."""
    return path.name.split("-")[1]


def test_each_fold_is_held_out_once_and_the_others_are_trained_on(data: Path, tmp_path: Path) -> None:
    # DATA_DIR may also be the folder around ESC-50-master.
    assert run_prepare("esc50", data.parent, tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(f"fold{k}" for k in range(1, 6)), "missing.csv"]
    for fold in range(1, 6):
        splits = read_splits(tmp_path / f"fold{fold}")
        assert list(splits) == ["train", "test"]  # the published protocol has no validation set
        assert {fold_of(clip.path) for clip in splits["test"].clips} == {fold}
        assert {fold_of(clip.path) for clip in splits["train"].clips} == set(range(1, 6)) - {fold}
        assert [len(splits[split]) for split in ("train", "test")] == [96, 24]
        assert splits["test"].labels.mids == ESC50
        for clip in splits["train"].clips:
            assert clip.path.is_absolute()
            assert clip.path.exists()
            assert clip.path.stem.split("-")[3] == str(clip.classes[0])
    assert read_missing(tmp_path) == {}


def test_validation_clips_are_whole_recordings_of_every_class_from_the_training_folds(data: Path, tmp_path: Path):
    assert run_prepare("esc50", data, tmp_path, "--fold", 2, "--fold", 4, "--val-share", 0.25) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold2", "fold4", "missing.csv"]
    splits = read_splits(tmp_path / "fold2")
    recordings = {split: {recording(clip.path) for clip in m.clips} for split, m in splits.items()}
    assert not recordings["train"] & recordings["val"]
    assert not recordings["val"] & recordings["test"]
    # 4 folds x 2 recordings of each class, a quarter of them, of two clips each.
    assert Counter(clip.classes for clip in splits["val"].clips) == {(target,): 4 for target in range(6)}
    assert {fold_of(clip.path) for clip in splits["train"].clips} == {1, 3, 4, 5}
    # Without the option all is as published again, and no old val.json is left.
    assert run_prepare("esc50", data, tmp_path, "--fold", 2) == 0
    assert {split: len(m) for split, m in read_splits(tmp_path / "fold2").items()} == {"train": 96, "test": 24}


def test_faults_are_refused_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    faults = write_esc50(tmp_path / "data", broken=True)
    assert run_prepare("esc50", tmp_path / "data", tmp_path / "out") == 2
    assert "3 of 60 clips have no usable file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run_prepare("esc50", tmp_path / "data", tmp_path / "out", "--missing", "skip") == 0
    assert "fold1: 6 classes; clips: train 48, test 9; left out: test 3" in capsys.readouterr().out
    assert read_missing(tmp_path / "out").keys() == faults.keys()
    assert len(read_splits(tmp_path / "out" / "fold3")["train"]) == 45


@pytest.mark.parametrize(
    ("column", "value"), [("fold", "6"), ("fold", "one"), ("target", ""), ("category", "rooster"), ("src_file", None)]
)
def test_a_wrong_row_is_named(
    column: str, value: str | None, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table = tmp_path / "meta" / "esc50.csv"
    table.parent.mkdir()
    with open(data / "meta" / "esc50.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[2][column] = value  # line 4; the two before it are of the same class
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if value is not None or name != column])
        writer.writeheader()
        writer.writerows({name: row[name] for name in writer.fieldnames} for row in rows)
    assert run_prepare("esc50", tmp_path, tmp_path / "out") == 2
    line = 2 if value is None else 4
    assert f"{table}, line {line}: found" in capsys.readouterr().err


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_prepare("esc50", tmp_path, tmp_path / "out") == 2
    assert run_prepare("esc50", tmp_path / "none", tmp_path / "out") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}: found no meta/esc50.csv" in first
    assert f"{tmp_path / 'none'}: no such folder" in second


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, its archive on a server here, as GitHub packs it: a zip with one folder at the top."""
    write_esc50(tmp_path / "packed" / "ESC-50-master", per_fold=1)
    shutil.make_archive(str(tmp_path / "www" / "master"), "zip", tmp_path / "packed")
    script = prepare_script("esc50")
    with serving(tmp_path / "www") as (address, _):
        monkeypatch.setattr(script, "ARCHIVE", dataclasses.replace(script.ARCHIVE, url=f"{address}/master.zip"))
        yield script


def test_download(published: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "CLIPS_PER_FOLD", 6)
    monkeypatch.setenv("FLEXIAST_DATA", str(tmp_path / "root"))
    assert published.main(["--download", str(tmp_path / "out"), "--fold", "1"]) == 0
    assert {split: len(m) for split, m in read_splits(tmp_path / "out" / "fold1").items()} == {"train": 24, "test": 6}
    assert (tmp_path / "root" / "ESC-50-master" / "meta" / "esc50.csv").exists()
    checksum, name = (tmp_path / "root" / "ESC-50-master.zip.sha256").read_text().split()
    assert checksum == hashlib.sha256((tmp_path / "www" / "master.zip").read_bytes()).hexdigest()
    assert name == "ESC-50-master.zip"


def test_download_of_other_data_is_refused(published: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert published.main(["--download", "--data-root", str(tmp_path / "root"), str(tmp_path / "out")]) == 2
    assert "expected 400 clips in each of five" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--download", "{tmp}/out"], "data root: found none, expected --data-root DIR or the environment variable"),
        (["--download", "{tmp}", "{tmp}/out"], "found 2 folders, expected OUT_DIR"),
        (["{tmp}"], "found 1 folders, expected DATA_DIR OUT_DIR"),
        (["--check", "size", "{tmp}", "{tmp}/out", "--fold", "6"], "invalid choice: 6"),
        (["{data}", "--val-share", "1", "{tmp}/out"], "val share: found 1.0"),
    ],
)
def test_a_mistake_gets_one_line(
    arguments: list[str],
    message: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.delenv("FLEXIAST_DATA", raising=False)
    try:
        code = run_prepare(
            "esc50", *(a.replace("{tmp}", str(tmp_path)).replace("{data}", str(data)) for a in arguments)
        )
    except SystemExit as exit_:  # from the option parser itself
        code = exit_.code
    assert code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
