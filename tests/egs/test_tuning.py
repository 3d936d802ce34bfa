"""Learning curves of fine-tuning: the same clips for every way, resumption, the table."""

import csv
from pathlib import Path

import pytest

from flexiast.traintest.train import train
from tests.scripts import script
from tests.traintest.test_train import config

tuning = script("egs/ablations/tuning.py")


def write_table(path: Path, folder: Path) -> Path:
    files = sorted(folder.glob("*/*.wav"))
    path.write_text("\n".join(["file,class", *(f"{file},{file.parent.name}" for file in files)]) + "\n")
    return path


def test_as_many_clips_of_every_class_the_same_for_a_seed(sounds: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "train.csv", sounds / "train")
    drawn = [tuning.draw_clips(table, 3, seed, tmp_path / f"{seed}.csv").read_text() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    rows = list(csv.DictReader(drawn[0].splitlines()))
    counts = {row["class"]: sum(other["class"] == row["class"] for other in rows) for row in rows}
    assert set(counts.values()) == {3}
    assert len(counts) == 6
    assert all(Path(row["file"]).parent.name == row["class"] for row in rows)


def test_the_table_has_a_row_for_each_way_and_rate_and_a_column_for_each_number_of_clips() -> None:
    rows = [
        {"way": way, "rate": 0.01, "clips_per_class": clips, "seed": seed, "accuracy": accuracy}
        for way, clips, seed, accuracy in (
            ("head", 5, 0, 0.4),
            ("head", 5, 1, 0.5),
            ("head", 20, 0, 0.6),
            ("all", 5, 0, 0.7),
        )
    ]
    lines = tuning.table_of(rows).splitlines()
    assert lines[0] == "| weights trained | rate | 5 clips per class | 20 clips per class |"
    assert lines[2:] == ["| head | 0.01 | 45.0 ± 5.0 | 60.0 |", "| all | 0.01 | 70.0 |  |"]


@pytest.mark.slow
def test_each_way_is_trained_once(sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(config(sounds, tmp_path / "start", epochs=0.5), progress=False)
    table, val = (write_table(tmp_path / f"{name}.csv", sounds / name) for name in ("train", "val"))
    command = [str(tmp_path / "start"), "--train", str(table), "--val", str(val), "--out", str(tmp_path / "out")]
    command += ["--clips", "4", "--seeds", "0", "--ways", "scratch", "head"]
    assert tuning.main(command) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [row["way"] for row in rows] == ["scratch", "head"]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    shown = capsys.readouterr().out
    assert "| scratch | 0.001 | " in shown
    assert tuning.main(command) == 0
    assert list(csv.DictReader((tmp_path / "out" / "results.csv").open())) == rows
