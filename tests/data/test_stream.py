"""Data sets that are streamed: the clips of the files, fetched in pieces as they are heard, in bounded room."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from flexiast.cli import main
from flexiast.data import pieces
from flexiast.data.audio import decode
from flexiast.data.dataset import ClipDataset, load_batches
from flexiast.data.fingerprint import contents_fingerprint
from flexiast.data.manifest import Manifest, read_manifest
from flexiast.data.pieces import Piece, require_room
from flexiast.data.remote_cache import cache_folder
from flexiast.data.sampler import Draw, StreamSchedule
from flexiast.data.split import split_off
from flexiast.data.survey import survey
from flexiast.data.table_options import TableOptions
from flexiast.errors import ConfigError, DataError, NotFetched
from flexiast.features import FeatureConfig
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.finished_run import FinishedRun
from flexiast.traintest.options import DataConfig
from flexiast.traintest.train import Trainer, train
from tests.data.test_hugging_face import NAMES, numbered, table
from tests.full_disk import full_disk
from tests.traintest.test_train import config, require_exact_resume

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")
ROWS = 10
"""Clips of a row group."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXIAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "copied")
    monkeypatch.setattr(pieces, "WAITS", ())


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each time that a piece is read, by any process."""
    file, read = tmp_path / "reads", Piece._read

    def noted(self: Piece, attempt: int = 0) -> list[bytes]:
        with open(file, "a") as out:
            out.write(f"{self}\n")
        return read(self, attempt)

    monkeypatch.setattr(Piece, "_read", noted)
    file.touch()
    return file


def parquet(sounds: Path, split: str, out: Path, rows: int = ROWS) -> Path:
    """The clips of a split in one parquet file, in an order without classes."""
    files = sorted((sounds / split).rglob("*.wav"))
    made: Any = table(sounds / split, datasets.ClassLabel(names=NAMES), [NAMES.index(f.parent.name) for f in files])
    out.parent.mkdir(exist_ok=True)
    made.shuffle(seed=1).to_parquet(out, batch_size=rows)
    return out


def kept() -> list[Path]:
    """The pieces in the cache."""
    return [path for path in (cache_folder() / "stream").glob("*") if path.is_file() and path.name != ".lock"]


def allow(monkeypatch: pytest.MonkeyPatch, data: Manifest, pieces_at_once: float) -> int:
    """Give room for so many pieces; returns the bytes."""
    largest = max(tar.size for tar in data.clips.paths.tars if isinstance(tar, Piece))
    gigabytes = pieces_at_once * (largest + 100) / 1e9
    monkeypatch.setenv("FLEXIAST_STREAM_GB", str(gigabytes))
    return int(gigabytes * 1e9)


# What is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder", "hf", "address"])
def test_the_clips_and_classes_are_those_of_the_files(kind: str, sounds: Path, tmp_path: Path, monkeypatch) -> None:
    file = parquet(sounds, "val", tmp_path / "set" / "validation-00000.parquet")
    parquet(sounds, "val", tmp_path / "set" / "train-00000.parquet")
    fsspec.filesystem("memory").pipe("/set/validation-00000.parquet", file.read_bytes())
    monkeypatch.chdir(tmp_path)
    source = {
        "file": file,
        "folder": tmp_path / "set",
        "hf": Path("hf:set:validation"),
        "address": Path("memory://set/*.parquet"),
    }[kind]
    here = read_manifest(tmp_path / "set" if kind == "folder" else file)
    there = read_manifest(source, streaming=True)
    assert not cache_folder().exists()  # no audio is read ahead
    assert (there.labels, list(there.clips.classes)) == (here.labels, list(here.clips.classes))
    assert str(there.source) == {"address": "memory://set/*.parquet"}.get(kind, str(source))
    assert len(there) == (60 if kind == "folder" else 30)
    for mine, theirs in list(zip(there.clips, here.clips, strict=True))[::7]:
        assert decode(mine.path).equal(decode(theirs.path))
    assert str(there.clips[12].path).endswith("00000.parquet: row 12")
    assert len(kept()) == len(there) // ROWS


def test_columns_of_numbers_are_targets(sounds: Path, tmp_path: Path) -> None:
    path = numbered(sounds, tmp_path / "n.parquet", [0.5, -1.0, 2.5, 4.0, 4.0])
    data, here = (read_manifest(path, numbers=True, streaming=streaming) for streaming in (True, False))
    assert (data.labels, data.clips.values.tolist()) == (here.labels, here.clips.values.tolist())
    assert decode(data.clips[3].path).equal(decode(here.clips[3].path))


def test_several_labels_of_a_clip(sounds: Path, tmp_path: Path) -> None:
    kind = datasets.Sequence(datasets.ClassLabel(names=["b", "a"]))
    made: Any = table(sounds / "val", kind, [[0, 1], [], [1]] * 10)
    made.to_parquet(tmp_path / "v.parquet", batch_size=ROWS)
    data, here = (read_manifest(tmp_path / "v.parquet", streaming=streaming) for streaming in (True, False))
    assert (data.labels, list(data.clips.classes)) == (here.labels, list(here.clips.classes))
    assert list(data.clips.classes)[:3] == [(1, 0), (), (0,)]


def test_a_run_is_known_by_what_the_files_say_of_its_clips(sounds: Path, tmp_path: Path) -> None:
    first, again = (parquet(sounds, "val", tmp_path / name / "v.parquet") for name in ("a", "b"))
    made = pq.read_table(first)
    rows = made.to_pylist()
    for row in rows:
        row["audio"]["bytes"] = row["audio"]["bytes"][:44] + bytes(len(row["audio"]["bytes"]) - 44)  # silence
    (tmp_path / "c").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, made.schema), tmp_path / "c" / "v.parquet", row_group_size=ROWS)
    data = [read_manifest(file, streaming=True) for file in (first, again, tmp_path / "c" / "v.parquet")]
    assert len({one.fingerprint for one in data}) == 1
    prints = list(map(contents_fingerprint, data))
    assert prints[0] == prints[1] != prints[2]
    assert not kept()


# What is kept ----------------------------------------------------------------------------------------------------


def test_no_more_than_the_room_is_taken_and_what_was_removed_is_fetched_again(
    sounds: Path, tmp_path: Path, reads: Path, monkeypatch
) -> None:
    data = read_manifest(parquet(sounds, "train", tmp_path / "t.parquet"), streaming=True)
    allowed = allow(monkeypatch, data, 3)
    firsts = [data.clips[row].path for row in range(0, 120, ROWS)]
    for path in firsts[:4]:
        decode(path)
        assert sum(file.stat().st_size for file in kept()) <= allowed
    assert [str(firsts[place].piece) for place in range(4)] == reads.read_text().splitlines()
    assert {file.name for file in kept()} == {path.piece.path.name for path in firsts[1:4]}
    decode(firsts[1])  # used last now
    decode(firsts[5])
    assert {file.name for file in kept()} == {firsts[place].piece.path.name for place in (1, 3, 5)}
    decode(firsts[0])
    assert reads.read_text().splitlines()[-1] == str(firsts[0].piece)
    assert len(kept()) == 3


def test_several_processes_fetch_a_piece_once_and_keep_within_the_room(
    sounds: Path, tmp_path: Path, reads: Path, monkeypatch
) -> None:
    data = read_manifest(parquet(sounds, "train", tmp_path / "t.parquet"), streaming=True)
    monkeypatch.setattr("flexiast.data.sampler.MOST_MIXED", 0)
    monkeypatch.setattr("flexiast.data.sampler.LEAST_MIXED", 2)
    schedule = StreamSchedule(data.clips.paths.pieces, 12, seed=0)
    allowed = allow(monkeypatch, data, 8)
    dataset = ClipDataset(data, FeatureConfig(frames=96))
    seen = Counter[int]()
    for batch in load_batches(dataset, schedule.batches(0, 10), workers=2):
        assert not batch.failures
        seen.update(batch.clips.tolist())
        assert sum(file.stat().st_size for file in kept()) <= allowed
    assert seen == Counter(range(120))
    assert Counter(reads.read_text().splitlines()).most_common(1)[0][1] == 1
    assert len(reads.read_text().splitlines()) == 12


def test_the_survey_fetches_few_pieces(sounds: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("flexiast.data.survey.MOST_PIECES", 3)
    data = read_manifest(parquet(sounds, "train", tmp_path / "t.parquet"), streaming=True)
    seen = survey(data, FeatureConfig(), progress=False)
    assert np.unique(seen.clips // ROWS).tolist() == [0, 6, 11]
    assert len(kept()) == 3


def test_an_unusable_clip_is_replaced_by_one_of_its_piece(sounds: Path, tmp_path: Path, reads: Path) -> None:
    made = pq.read_table(parquet(sounds, "val", tmp_path / "v.parquet"))
    rows = made.to_pylist()
    rows[3]["audio"]["bytes"], rows[4]["audio"]["bytes"] = None, b"no audio"
    pq.write_table(pa.Table.from_pylist(rows, made.schema), tmp_path / "holes.parquet", row_group_size=ROWS)
    data = read_manifest(tmp_path / "holes.parquet", streaming=True)
    batch = ClipDataset(data, FeatureConfig(frames=96), replace=True).__getitems__([Draw(0, 3), Draw(0, 4)])
    reasons = {failure.clip: failure.reason for failure in batch.failures}
    assert reasons.keys() == {3, 4}
    assert reasons[3] == f"{tmp_path}/holes.parquet: row 3 has no audio in it"
    assert reasons[4].startswith(f"{tmp_path}/holes.parquet: row 4: not readable as audio")
    assert (batch.clips // ROWS).tolist() == [0, 0]
    assert len(reads.read_text().splitlines()) == 1


def test_whole_pieces_are_held_out(sounds: Path, tmp_path: Path) -> None:
    data = read_manifest(parquet(sounds, "train", tmp_path / "t.parquet"), streaming=True)
    split = split_off(data, 0.2, seed=3)
    sides = [set(side.clips.paths.pieces.tolist()) for side in (split.train, split.val)]
    assert (len(split.train), len(split.val), split.grouped_by) == (90, 30, "pieces of the stream")
    assert sides[0].isdisjoint(sides[1])
    assert list(split_off(data, 0.2, seed=3).val.clips) == list(split.val.clips)
    assert list(split_off(data, 0.2, seed=4).val.clips) != list(split.val.clips)
    assert decode(split.val.clips[0].path).equal(decode(data.clips[min(sides[1]) * ROWS].path))
    whole = read_manifest(parquet(sounds, "val", tmp_path / "whole.parquet", rows=30), streaming=True)
    with pytest.raises(ConfigError, match=r"data\.val: found 1 piece to hold out of, expected 2 at least; name"):
        split_off(whole, 0.2)
    files = sorted((sounds / "val").rglob("*.wav"))  # sorted by class
    by_class: Any = table(sounds / "val", datasets.Value("string"), [file.parent.name for file in files])
    by_class.to_parquet(tmp_path / "sorted.parquet", batch_size=5)
    with pytest.raises(ConfigError, match=r"data\.val: class '\w+' is only in pieces that would be held out; name"):
        split_off(read_manifest(tmp_path / "sorted.parquet", streaming=True), 0.2)


# Runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_run_goes_on_exactly_where_it_died(workers: int, sounds: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("flexiast.data.sampler.MOST_MIXED", 0)
    monkeypatch.setattr("flexiast.data.sampler.LEAST_MIXED", 2)
    source = parquet(sounds, "train", tmp_path / "t.parquet")
    allowed = allow(monkeypatch, read_manifest(source, streaming=True), 4)

    def run(name: str) -> TrainConfig:
        for file in kept():  # another machine
            file.unlink()
        base = config(sounds, tmp_path / name, save_every=4)
        data = dataclasses.replace(base.data, train=source, streaming=True, workers=workers)
        return dataclasses.replace(base, data=data)

    require_exact_resume(run, dies_at=6, saved_at=4)
    assert sum(file.stat().st_size for file in kept()) <= allowed


def test_little_is_read_before_the_first_step(sounds: Path, tmp_path: Path, reads: Path, monkeypatch) -> None:
    monkeypatch.setattr("flexiast.data.survey.MOST_PIECES", 3)
    source = parquet(sounds, "train", tmp_path / "t.parquet")
    data = DataConfig(source, 0.0, streaming=True, batch_size=12, workers=0)
    prepared = Trainer(dataclasses.replace(config(sounds, tmp_path / "run"), data=data), progress=False).prepared
    assert len(reads.read_text().splitlines()) == 3
    reasons = {choice.setting: choice.reason for choice in prepared.choices}
    assert reasons["data.mean"] == "measured on 30 clips of 3 pieces of the stream"


@pytest.mark.slow
def test_a_streamed_set_is_learnt(sounds: Path, tmp_path: Path, monkeypatch) -> None:
    for split in ("train", "validation"):
        parquet(sounds, split[:5].removesuffix("id"), tmp_path / "set" / f"{split}-00000-of-00001.parquet")
    monkeypatch.chdir(tmp_path)
    given = ["--data.train", "hf:set", "--data.val", "hf:set:validation", "--data.streaming", "--out", "run"]
    how = ["--model.size", "micro", "--epochs", "20", "--eval-every", "20", "--log", "none", "--data.workers", "1"]
    assert main(["train", *given, *how, "--optim.lr", "1e-3"]) == 0
    last = json.loads((tmp_path / "run" / "train.jsonl").read_text().splitlines()[-1])
    assert last["validation"]["16"]["accuracy"] >= 0.7
    assert not (tmp_path / "copied" / "flexiast").exists()  # nothing was copied whole
    again = FinishedRun(tmp_path / "run").validation_data()
    assert again is not None
    assert again.clips.paths.pieces is not None


# What is wrong ---------------------------------------------------------------------------------------------------


def damaged(sounds: Path, out: Path) -> Path:
    """A file whose second row group cannot be read."""
    file = parquet(sounds, "train", out)
    content, group = bytearray(file.read_bytes()), pq.ParquetFile(file).metadata.row_group(1)
    start = group.column(0).data_page_offset
    content[start : start + 2000] = b"\xff" * 2000
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_piece_ends_the_run_in_one_line(workers: int, sounds: Path, tmp_path: Path, capsys) -> None:
    file = damaged(sounds, tmp_path / "t.parquet")
    base = config(sounds, tmp_path / "run")
    data = dataclasses.replace(base.data, train=file, streaming=True, workers=workers)
    with pytest.raises(DataError, match=r"t\.parquet, row group 1 \(rows 10 to 19\): not readable \(.*\)$") as caught:
        train(dataclasses.replace(base, data=data), progress=False)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_a_file_that_has_changed_is_noticed(sounds: Path, tmp_path: Path) -> None:
    data = read_manifest(parquet(sounds, "val", tmp_path / "v.parquet"), streaming=True)
    decode(data.clips[0].path)
    parquet(sounds, "train", tmp_path / "v.parquet")
    decode(data.clips[9].path)  # of the piece that is there
    with pytest.raises(NotFetched, match=r"row group 1 .*: not readable \(the file has changed since the run began"):
        decode(data.clips[10].path)
    (tmp_path / "v.parquet").unlink()
    with pytest.raises(NotFetched, match=r"row group 2 .*: not readable \(FileNotFoundError: "):
        decode(data.clips[20].path)


def test_a_failing_server_is_asked_again(sounds: Path, tmp_path: Path, monkeypatch) -> None:
    data = read_manifest(parquet(sounds, "val", tmp_path / "v.parquet"), streaming=True)
    clips, failing = Piece._clips, [TimeoutError("slow"), OSError("503")]

    def breaks(self: Piece, file: Any) -> list[bytes]:
        if failing:
            raise failing.pop()
        return clips(self, file)

    monkeypatch.setattr(Piece, "_clips", breaks)
    monkeypatch.setattr(pieces, "WAITS", (0.01, 0.01))
    assert len(decode(data.clips[0].path)) == 16_000
    failing += [TimeoutError("slow")] * 3
    with pytest.raises(NotFetched, match=r"rows 10 to 19\): not readable \(TimeoutError: slow\)"):
        decode(data.clips[10].path)


def test_too_little_room_is_told_before_the_run(sounds: Path, tmp_path: Path, monkeypatch) -> None:
    data = read_manifest(parquet(sounds, "train", tmp_path / "t.parquet"), streaming=True)
    every = [tar for tar in data.clips.paths.tars if isinstance(tar, Piece)]
    allow(monkeypatch, data, 5.5)
    require_room(every, 3)
    with pytest.raises(ConfigError, match=r"FLEXIAST_STREAM_GB: found .* GB for the pieces .* expected at least"):
        require_room(every, 4)
    allow(monkeypatch, data, 0.9)
    with pytest.raises(NotFetched, match=r"row group 0 .*: takes .* GB, expected at most .* FLEXIAST_STREAM_GB"):
        decode(data.clips[0].path)
    monkeypatch.setenv("FLEXIAST_STREAM_GB", "much")
    with pytest.raises(ConfigError, match=r"FLEXIAST_STREAM_GB: found 'much', expected a positive number"):
        read_manifest(tmp_path / "t.parquet", streaming=True)


def test_a_cache_that_cannot_be_written(sounds: Path, tmp_path: Path, monkeypatch) -> None:
    file = parquet(sounds, "val", tmp_path / "v.parquet")
    data = read_manifest(file, streaming=True)
    with full_disk(1000), pytest.raises(NotFetched, match=r"rows 0 to 9\): .*: File too large; FLEXIAST_CACHE says"):
        decode(data.clips[0].path)
    assert not kept()
    monkeypatch.setenv("FLEXIAST_CACHE", str(file))
    with pytest.raises(NotFetched, match=r"rows 0 to 9\): .*: Not a directory; FLEXIAST_CACHE says"):
        decode(read_manifest(file, streaming=True).clips[0].path)


def test_what_cannot_be_streamed_is_one_line(sounds: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    parquet(sounds, "val", tmp_path / "set" / "train-00000.parquet")
    (tmp_path / "wavs").symlink_to(sounds / "val")

    def told(*options: str) -> str:
        assert main(["train", "--data.streaming", "--out", str(tmp_path / "run"), *options]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "found no parquet files to stream" in told("--data.train", str(sounds / "train"), "--data.val", "0")
    assert "expected parquet files to stream; leave out" in told("--data.train", "hf:wavs", "--data.val", "0")
    assert "found splits train, expected test among them" in told("--data.train", "hf:set:test", "--data.val", "0")
    assert "found splits train, expected x among them" in told("--data.train", "hf:set", "--data.val", "hf:set:x")
    balanced = told("--data.train", "hf:set", "--data.val", "0", "--data.sampling", "balanced")
    assert "data.sampling: found balanced, expected shuffle with data.streaming" in balanced
    datasets.Dataset.from_dict({"audio": ["a.wav"], "label": ["x"]}).to_parquet(tmp_path / "names.parquet")
    with pytest.raises(DataError, match=r"found a column audio of string, expected the bytes of audio files"):
        read_manifest(tmp_path / "names.parquet", streaming=True)
    with pytest.raises(DataError, match=r"found columns audio, label, expected kind and audio"):
        read_manifest(Path("hf:set"), options=TableOptions(label_column="kind"), streaming=True)
