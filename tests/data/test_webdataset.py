"""Tars as others write them: labels in .cls, .txt and .json, read and trained on without an index; what is wrong."""

import dataclasses
import io
import json
import tarfile
from pathlib import Path

import pytest
import soundfile

import flexiast
from flexiast.data.audio import decode
from flexiast.data.manifest import Labels, distinct_labels, read_manifest
from flexiast.data.sources import audio_sources
from flexiast.errors import DataError
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.train import train
from tests.sounds import CLASSES
from tests.traintest.test_train import config, require_exact_resume


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def label(kind: str, name: str) -> bytes:
    if kind == "json":
        return json.dumps({"id": 7, "label": name}).encode()
    return str(list(CLASSES).index(name)).encode() if kind == "cls" else f"{name}\n".encode()


def write_tars(folder: Path, clips: Path, kind: str, shards: int = 2) -> list[Path]:
    """The clips of a folder of classes in turn to each tar; returns the clips in the order of the tars."""
    folder.mkdir(parents=True, exist_ok=True)
    files, order = sorted(clips.rglob("*.wav")), []
    for shard in range(shards):
        with tarfile.open(folder / f"part-{shard}.tar", "w") as archive:
            for number, file in enumerate(files[shard::shards]):
                add(archive, f"set/{number:04d}.wav", file.read_bytes())
                add(archive, f"set/{number:04d}.{kind}", label(kind, file.parent.name))
                order.append(file)
    return order


@pytest.mark.parametrize("kind", ["cls", "txt", "json"])
def test_clips_and_labels_are_those_that_went_in(kind: str, sounds: Path, tmp_path: Path) -> None:
    order = write_tars(tmp_path / "tars", sounds / "val", kind)
    table = Labels(tuple(CLASSES), tuple(CLASSES)) if kind == "cls" else None
    data = read_manifest(tmp_path / "tars", table)
    assert len(data) == len(order) == 30
    for clip, file in list(zip(data.clips, order, strict=True))[::7]:
        assert [data.labels.names[c] for c in clip.classes] == [file.parent.name]
        assert decode(clip.path).equal(decode(file))
    assert audio_sources([tmp_path / "tars"]).files == [clip.path for clip in data.clips]
    assert len(read_manifest(tmp_path / "tars" / "part-1.tar", table)) == 15
    numbers = tuple(map(str, range(6)))
    assert distinct_labels(tmp_path / "tars").names == (numbers if kind == "cls" else tuple(sorted(CLASSES)))


@pytest.mark.parametrize("pattern", ["part-{0..2}.tar", "part-*.tar", "part-[0-2].tar", "{part-0,part-1,part-2}.tar"])
def test_patterns_stand_for_tars(pattern: str, sounds: Path, tmp_path: Path) -> None:
    write_tars(tmp_path / "tars", sounds / "val", "txt", shards=3)
    data, whole = read_manifest(tmp_path / "tars" / pattern), read_manifest(tmp_path / "tars")
    assert data.clips == whole.clips
    assert audio_sources([tmp_path / "tars" / pattern]).files == list(whole.clips.paths)


def test_a_tar_that_braces_name_is_not_left_out(sounds: Path, tmp_path: Path) -> None:
    write_tars(tmp_path, sounds / "val", "txt", shards=2)
    with pytest.raises(DataError, match=r"part-2\.tar: not readable as a WebDataset tar \(No such file or directory\)"):
        read_manifest(tmp_path / "part-{0..2}.tar")
    with pytest.raises(DataError, match=r"other-\*\.tar: not readable as a manifest \(No such file or folder\)"):
        read_manifest(tmp_path / "other-*.tar")


def test_a_run_trains_on_tars_as_on_their_files_shard_by_shard(sounds: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_tars(tmp_path / "data" / split, sounds / split, "txt")
    made = config(tmp_path / "data", tmp_path / "run", epochs=0.2)
    train(made, progress=False)
    assert flexiast.load(tmp_path / "run").labels.names == tuple(sorted(CLASSES))


@pytest.mark.slow
def test_a_run_on_tars_goes_on_exactly_where_it_died(sounds: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_tars(tmp_path / "data" / split, sounds / split, "txt", shards=3)

    def run(name: str) -> TrainConfig:
        base = config(tmp_path / "data", tmp_path / name, epochs=0.5, save_every=2)
        return dataclasses.replace(base, data=dataclasses.replace(base.data, workers=1))

    require_exact_resume(run, dies_at=3, saved_at=2)


def test_several_labels_and_samples_without_audio(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wav = io.BytesIO()
    soundfile.write(wav, [0.0] * 800, 16_000, format="WAV")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "1.json", json.dumps(["dog", "cat"]).encode())
        add(archive, "1.wav", wav.getvalue())
        add(archive, "2.jpg", b"picture")
        add(archive, "3.FLAC", b"audio")
        add(archive, "3.cls", b"cat")
    data = read_manifest(tmp_path / "a.tar")
    assert data.labels.names == ("cat", "dog")
    assert [clip.classes for clip in data.clips] == [(1, 0), (0,)]
    assert "1 samples without audio are left out" in caplog.text


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.wav": b"x"}, r"a\.tar: 1 has no label, expected a member that ends in \.cls, \.txt, \.json"),
        ({"1.wav": b"x", "1.json": b'{"speaker": 3}'}, r"1\.json: found fields speaker, expected one of labels"),
        ({"1.wav": b"x", "1.json": b"{"}, r"1\.json: not readable as a label"),
        ({"1.wav": b"x", "1.cls": b""}, r"1\.cls: found '', expected text, a number"),
        ({"1.txt": b"dog"}, "found no clips in its tars"),
    ],
)
def test_what_is_wrong_is_named(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in members.items():
            add(archive, name, content)
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path)


def test_a_member_without_its_holes_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("1.wav")
    info.pax_headers, info.size = {"GNU.sparse.map": "0,512", "GNU.sparse.size": "2500000000"}, 512
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(bytes(512)))
        add(archive, "1.txt", b"dog")
    with pytest.raises(DataError, match=r"a\.tar: 1\.wav is stored without its holes.*without tar's --sparse"):
        read_manifest(tmp_path / "a.tar")


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match=r"a\.tar: not readable as a WebDataset tar"):
        read_manifest(tmp_path / "a.tar")


def test_a_tar_that_ends_early_is_named(sounds: Path, tmp_path: Path) -> None:
    write_tars(tmp_path, sounds / "val", "txt", shards=1)
    tar = tmp_path / "part-0.tar"
    tar.write_bytes(tar.read_bytes()[:50_000])
    with pytest.raises(DataError, match=r"part-0\.tar: (ends inside|not readable as a WebDataset tar)"):
        read_manifest(tar)
