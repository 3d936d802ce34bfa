"""Clips of all lengths: the cuts, the positions beyond a model's window, resumption."""

import csv
import random
from pathlib import Path

import pytest
import soundfile
import torch

from tests.egs.test_tuning import write_table
from tests.scripts import script
from tests.sounds import tiny_model

lengths = script("egs/ablations/clip_lengths.py")


def test_cuts_are_as_long_as_drawn_and_the_same_for_a_seed(sounds: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "train.csv", sounds / "train")
    cuts = [
        lengths.cut(table, lengths.of_any_length, seed, tmp_path / name)
        for seed, name in ((0, "a.csv"), (0, "b.csv"), (1, "c.csv"))
    ]
    rows = [list(csv.DictReader(cut.open())) for cut in cuts]
    assert [row["class"] for row in rows[0]] == [row["class"] for row in csv.DictReader(table.open())]
    seconds = [[row["seconds"] for row in some] for some in rows]
    assert seconds[0] == seconds[1] != seconds[2]
    assert all(abs(soundfile.info(row["file"]).duration - float(row["seconds"])) < 1e-3 for row in rows[0])


def test_lengths_are_drawn_from_a_tenth_of_the_longest() -> None:
    draw = random.Random(0)
    drawn = [lengths.of_any_length(5.0, draw) for _ in range(1000)]
    assert 0.5 <= min(drawn) < 0.55
    assert 4.8 < max(drawn) <= 5.0


def test_positions_beyond_the_window_are_held_or_start_again() -> None:
    classifier = tiny_model("ab")
    config = classifier.config
    within, twice = config.layout(16), config.layout(16, 2 * config.frames)
    base = classifier.positions(within, config.frames)
    columns = within.grid.time
    for name in ("held", "again"):
        found = lengths.LONG[name](classifier, twice, 2 * config.frames)
        assert found.shape[1] == twice.grid.time == 2 * columns
        assert torch.equal(found[:, :columns], base)
    assert torch.equal(lengths.again(classifier, twice, 0)[:, columns:], base)
    assert torch.allclose(lengths.held(classifier, twice, 0)[:, columns:], base[:, -1:].expand(-1, columns, -1))
    assert torch.equal(
        lengths.stretched(classifier, twice, 2 * config.frames), classifier.positions(twice, 2 * config.frames)
    )


@pytest.mark.slow
def test_each_question_is_answered_once(sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table, val = (write_table(tmp_path / f"{name}.csv", sounds / name) for name in ("train", "val"))
    command = ["--train", str(table), "--val", str(val), "--out", str(tmp_path / "out"), "--epochs", "0.5"]
    assert lengths.main(command) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert len(rows) == 2 + len(lengths.LONG) + 2 * (1 + lengths.PARTS)
    assert all(0 <= float(row["accuracy"]) <= 100 for row in rows)
    shown = capsys.readouterr().out
    assert "| longer | one pass, held | " in shown
    assert lengths.main(command) == 0
    assert list(csv.DictReader((tmp_path / "out" / "results.csv").open())) == rows
