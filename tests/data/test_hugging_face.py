"""Parquet files and data sets of Hugging Face: the same clips and labels as the files they were made of."""

import dataclasses
import sys
from pathlib import Path

import fsspec
import pytest

import flexiast
from flexiast.cli import main
from flexiast.data.audio import decode
from flexiast.data.manifest import read_manifest, require_tables
from flexiast.data.table_options import TableOptions
from flexiast.errors import ConfigError, DataError
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import DataConfig
from flexiast.traintest.train import train
from tests.sounds import CLASSES
from tests.traintest.test_train import config, require_exact_resume

datasets = pytest.importorskip("datasets")
NAMES = sorted(CLASSES)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def table(clips: Path, label: object, values: list) -> object:
    """A data set of the files below a folder, its audio inside."""
    files = sorted(clips.rglob("*.wav"))
    rows = {"audio": [{"bytes": f.read_bytes(), "path": f.name} for f in files], "label": values}
    sound = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features({"audio": sound, "label": label}))
    return made.cast_column("audio", datasets.Audio(decode=False))


def parquet(clips: Path, out: Path) -> Path:
    values = [NAMES.index(file.parent.name) for file in sorted(clips.rglob("*.wav"))]
    table(clips, datasets.ClassLabel(names=NAMES), values).to_parquet(out)
    return out


def test_a_parquet_file_holds_the_clips_and_names_it_was_made_of(sounds: Path, tmp_path: Path) -> None:
    data = read_manifest(parquet(sounds / "val", tmp_path / "val.parquet"))
    files = sorted((sounds / "val").rglob("*.wav"))
    assert (len(data), data.labels.names) == (30, tuple(NAMES))
    for clip, file in list(zip(data.clips, files, strict=True))[::7]:
        assert [data.labels.names[c] for c in clip.classes] == [file.parent.name]
        assert decode(clip.path).equal(decode(file))
    again = read_manifest(tmp_path / "val.parquet")
    assert again.clips == data.clips  # from the cache
    assert again.source == tmp_path / "val.parquet"


def test_parquet_files_at_an_address_are_those_of_a_folder(sounds: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FLEXIAST_CACHE", str(tmp_path / "fetched"))
    folder = tmp_path / "parquet"
    folder.mkdir()
    for split in ("train", "val"):
        parquet(sounds / split, folder / f"{split}-00.parquet")
    here = read_manifest(folder)
    assert (len(here), here.labels.names) == (150, tuple(NAMES))
    system = fsspec.filesystem("memory")
    for file in folder.iterdir():
        system.pipe(f"/parquets/{file.name}", file.read_bytes())
    there = read_manifest(Path("memory://parquets/*.parquet"))
    assert (there.fingerprint, there.labels) == (here.fingerprint, here.labels)
    one = read_manifest(Path("memory://parquets/val-00.parquet"))
    assert one.fingerprint == read_manifest(folder / "val-00.parquet").fingerprint
    (folder / "README.md").touch()
    with pytest.raises(DataError, match="found no sub-folders, expected one per class"):
        read_manifest(folder)


@pytest.fixture
def asked(sounds: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Data sets that were asked for by name and split; all are our sounds."""
    asked = list[tuple[str, str]]()

    def load_dataset(name: str, split: str):
        asked.append((name, split))
        files = sorted((sounds / split).rglob("*.wav"))
        kind = datasets.Sequence(datasets.Value("string"))
        return table(sounds / split, kind, [[file.parent.name] for file in files])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_name_and_a_split_are_loaded_and_trained_on(sounds: Path, tmp_path: Path, asked) -> None:
    base = config(sounds, tmp_path / "run", epochs=0.2)
    data = DataConfig(Path("hf:us/sounds"), Path("hf:us/sounds:val"), batch_size=12, workers=0, mean=-6.0, std=3.5)
    train(dataclasses.replace(base, data=data), progress=False)
    assert set(asked) == {("us/sounds", "train"), ("us/sounds", "val")}
    assert flexiast.load(tmp_path / "run").labels.names == tuple(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_a_run_goes_on_exactly_where_it_died(kind: str, sounds: Path, tmp_path: Path, request) -> None:
    if kind == "hf":
        request.getfixturevalue("asked")
    source = Path("hf:us/sounds") if kind == "hf" else parquet(sounds / "train", tmp_path / "train.parquet")

    def run(name: str) -> TrainConfig:
        base = config(sounds, tmp_path / name, epochs=0.5, save_every=2)
        return dataclasses.replace(base, data=dataclasses.replace(base.data, train=source))

    require_exact_resume(run, dies_at=3, saved_at=2)


def test_what_is_wrong_is_one_line(sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    path = parquet(sounds / "val", tmp_path / "val.parquet")
    plain = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "c"))
    plain.remove_columns("label").to_parquet(tmp_path / "unlabelled.parquet")
    with pytest.raises(DataError, match=r"unlabelled\.parquet: found columns audio, expected label and audio"):
        read_manifest(tmp_path / "unlabelled.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"none")
    assert main(["stats", str(tmp_path / "bad.parquet"), "--workers", "0"]) == 2
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert "bad.parquet: not readable as a data set" in last
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"datasets: not installed .*the extra `data`"):
        read_manifest(path)


def numbered(sounds: Path, out: Path, pitch: list) -> Path:
    """A parquet file of five clips with a number, a whole number and a name beside each."""
    files = sorted((sounds / "val").rglob("*.wav"))[:5]
    rows = {
        "audio": [{"bytes": f.read_bytes(), "path": f.name} for f in files],
        "pitch": pitch,
        "level": [0, -1, 2, 3, 3],
        "who": list("abcde"),
    }
    datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False)).to_parquet(out)
    return out


def test_columns_of_numbers_in_a_parquet_file_are_targets(sounds: Path, tmp_path: Path) -> None:
    path = numbered(sounds, tmp_path / "n.parquet", [0.5, -1.0, 2.5, 4.0, 4.0])
    data = read_manifest(path, numbers=True)
    assert (data.labels.names, data.source) == (("pitch", "level"), path)
    assert data.clips.values.tolist() == [[0.5, 0], [-1, -1], [2.5, 2], [4, 3], [4, 3]]
    file = sorted((sounds / "val").rglob("*.wav"))[2]
    assert decode(data.clips[2].path).equal(decode(file))
    named = read_manifest(path, options=TableOptions(label_column="level,pitch"), numbers=True)
    assert (named.labels.names, named.clips.values[2].tolist()) == (("level", "pitch"), [2, 2.5])
    require_tables(TableOptions(label_column="level"), path)  # a data set has columns of labels too


def test_what_is_no_number_in_a_parquet_file_is_named(sounds: Path, tmp_path: Path) -> None:
    path = numbered(sounds, tmp_path / "n.parquet", [0.5, None, 2.5, 4.0, 4.0])
    with pytest.raises(DataError, match=r"n.parquet: row 1, column pitch: found an empty cell, expected a number"):
        read_manifest(path, numbers=True)
    with pytest.raises(DataError, match=r"expected audio, and numbers in who; --label-column a,b names them"):
        read_manifest(path, options=TableOptions(label_column="who"), numbers=True)
