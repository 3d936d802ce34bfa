"""VGGSound in its public layout to manifests."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from tests.layouts import VGGSOUND, read_missing, read_splits, run_prepare, write_vggsound


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vggsound")
    write_vggsound(root)
    return root


def test_every_clip_is_found_with_its_label(data: Path, tmp_path: Path) -> None:
    assert run_prepare("vggsound", data, tmp_path, "--val-share", 0.3) == 0
    splits = read_splits(tmp_path)
    names = tuple(sorted(VGGSOUND))
    with open(data / "vggsound.csv", newline="") as file:
        rows = list(csv.reader(file))
    expected = {split: {row[0]: row[2] for row in rows if row[3] == split} for split in ("train", "test")}
    found: dict[str, dict[str, str]] = {}
    for split, manifest in splits.items():
        assert manifest.labels.names == names
        found[split] = {clip.path.stem[:11]: names[clip.classes[0]] for clip in manifest.clips}
    assert found["test"] == expected["test"]
    assert found["train"] | found["val"] == expected["train"]
    assert not found["train"].keys() & found["val"].keys()
    assert Counter(found["val"].values()) == dict.fromkeys(names, 2)  # 0.3 of 6 clips of each class


def test_mids_hold_no_comma(data: Path, tmp_path: Path) -> None:
    assert run_prepare("vggsound", data, tmp_path) == 0
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert lines[0] == "index,mid,display_name"
    assert lines[6] == '5,railroad_car_train_wagon,"railroad car, train wagon"'


def test_faults_are_left_out_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    faults = write_vggsound(tmp_path / "data", broken=True)
    assert run_prepare("vggsound", tmp_path / "data", tmp_path / "out", "--val-share", 0) == 0
    assert "clips: train 33, test 12; left out: train 3 (missing.csv)" in capsys.readouterr().out
    assert read_missing(tmp_path / "out").keys() == faults.keys()
    assert run_prepare("vggsound", tmp_path / "data", tmp_path / "out", "--missing", "refuse") == 2
    assert "3 of 48 clips have no usable file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["abcdefghijk,30,dog barking", "abcdefghijk,x,dog barking,train", "abcdefghijk,30,dog,val", "a,30,?,train"]
)
def test_a_wrong_line_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "vggsound.csv").write_text(f"abcdefghijk,30,dog barking,train\n{line}\n")
    assert run_prepare("vggsound", tmp_path, tmp_path / "out") == 2
    assert "vggsound.csv, line 2: found" in capsys.readouterr().err


def test_an_empty_list_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "vggsound.csv").write_text("\n")
    assert run_prepare("vggsound", tmp_path, tmp_path / "out") == 2
    assert "vggsound.csv: found no clips" in capsys.readouterr().err
