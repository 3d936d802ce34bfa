"""Shards hold the same clips as the files they were packed from, and a broken index is refused before any work."""

import csv
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from flexiast import FeatureConfig
from flexiast.cli import main
from flexiast.commands.pack import PackConfig
from flexiast.data.audio import decode
from flexiast.data.bad_clips import most_bad
from flexiast.data.dataset import ClipDataset, load_batches
from flexiast.data.manifest import Labels, read_manifest, write_manifest
from flexiast.data.pack import pack
from flexiast.data.sampler import BatchSchedule, balancing_weights
from flexiast.data.shards import INDEX, ShardMember, ShardSchedule
from flexiast.errors import ConfigError, DataError
from tests.full_disk import full_disk


@pytest.fixture(scope="module")
def files(sounds: Path):
    return read_manifest(sounds / "val")


@pytest.fixture(scope="module")
def packed(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 30 clips of `val`, 32 kB each, in shards of at most 0.2 MB: six to a shard."""
    out = tmp_path_factory.mktemp("shards") / "packed"
    assert main(["pack", str(sounds / "val"), str(out), "--shard-size", "0.2"]) == 0
    return out


def test_shards_are_the_manifest_again(files, packed: Path) -> None:
    shards = read_manifest(packed)
    assert (shards.labels, len(shards)) == (files.labels, len(files))
    assert [clip.classes for clip in shards.clips] == [clip.classes for clip in files.clips]
    assert shards.fingerprint == files.fingerprint == json.loads((packed / INDEX).read_text())["fingerprint"]
    for mine, file in zip(shards.clips, files.clips, strict=True):
        assert mine.path.open().read() == file.path.read_bytes()
        assert mine.path.parts == file.path.parts[-2:]
    assert sorted(p.name for p in packed.iterdir()) == [*(f"{i:06d}.tar" for i in range(5)), INDEX]


def test_a_full_disk_names_the_shard_and_the_retry_works(sounds: Path, tmp_path: Path, capsys) -> None:
    command = ["pack", str(sounds / "val"), str(tmp_path / "packed"), "--shard-size", "0.2"]
    with full_disk(100_000):
        assert main(command) == 2
    assert f"flexiast: error: {tmp_path}/packed/000000.tar: File too large\n" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.*"))
    assert main(command) == 0


def test_tars_are_in_the_convention_of_webdataset(files, packed: Path) -> None:
    numbers = iter(range(len(files)))
    for path in sorted(packed.glob("*.tar")):
        assert path.stat().st_size < 0.2e6 + 20_000  # and headers, labels, padding
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for audio, labels in zip(members[::2], members[1::2], strict=True):
                clip = files.clips[next(numbers)]
                assert Path(audio.name).stem == Path(labels.name).stem
                assert (Path(audio.name).suffix, Path(labels.name).suffix) == (".wav", ".json")
                assert tar.extractfile(audio).read() == clip.path.read_bytes()
                said = json.loads(tar.extractfile(labels).read())
                assert said == {"name": "/".join(clip.path.parts[-2:]), "labels": [clip.path.parent.name]}
    assert next(numbers, None) is None


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_the_files(files, packed: Path, workers: int) -> None:
    features = FeatureConfig(frames=50)
    weights = balancing_weights(files.clips.classes)
    schedule = BatchSchedule(len(files), 8, seed=3, weights=weights)
    manifests = (files, read_manifest(packed))
    ours, theirs = (load_batches(ClipDataset(m, features), schedule.batches(5, 8), workers) for m in manifests)
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine[:5], other[:5], strict=True):
            assert torch.equal(a, b)


def test_packing_shards_again_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    pack(read_manifest(packed), tmp_path / "again", shard_size=0.2, progress=False)
    for tar in packed.glob("*.tar"):
        assert (tmp_path / "again" / tar.name).read_bytes() == tar.read_bytes()


def test_shuffled_shards_hold_every_clip_once_in_another_order(files, packed: Path, tmp_path: Path) -> None:
    shuffled = pack(read_manifest(packed), tmp_path / "shuffled", shuffle=1, progress=False)
    names = [clip.path.name for clip in shuffled.clips]
    expected = ["/".join(clip.path.parts[-2:]) for clip in files.clips]
    assert names != expected
    assert sorted(names) == sorted(expected)
    assert {(c.path.parts[0], c.classes) for c in shuffled.clips} == {
        (c.path.parts[-2], c.classes) for c in files.clips
    }


def test_labels_of_another_table_are_found_by_their_ids(packed: Path) -> None:
    mids = ("extra", *reversed(read_manifest(packed).labels.mids))
    shards = read_manifest(packed, Labels(mids, mids))
    assert all(mids[clip.classes[0]] == clip.path.parts[0] for clip in shards.clips)
    with pytest.raises(DataError, match=r"index\.json: unknown label 'high_down'"):
        read_manifest(packed, Labels(("low_up",), ("low_up",)))


def test_several_labels_and_compressed_files_keep_to_their_clip(sounds: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(next((sounds / "val" / "low_up").iterdir()))
    soundfile.write(tmp_path / "a.flac", samples, rate)
    soundfile.write(tmp_path / "b.mp3", samples, rate)
    Labels(("x", "y"), ("X", "Y")).write(tmp_path / "labels.csv")
    write_manifest(tmp_path / "data.json", [("a.flac", "y,x"), ("b.mp3", "y")])
    shards = pack(read_manifest(tmp_path / "data.json", tmp_path / "labels.csv"), tmp_path / "out", progress=False)
    assert [clip.classes for clip in shards.clips] == [(1, 0), (1,)]
    for clip, name in zip(shards.clips, ("a.flac", "b.mp3"), strict=True):
        assert torch.equal(decode(clip.path), decode(tmp_path / name))


def test_a_clip_that_is_no_audio_stops_the_packing_without_an_index(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "c").mkdir(parents=True)
    (tmp_path / "in" / "d").mkdir()
    (tmp_path / "in" / "c" / "text.wav").write_text("no sound")
    (tmp_path / "in" / "d" / "text.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"text\.wav: not readable as audio"):
        pack(read_manifest(tmp_path / "in"), tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / INDEX).exists()


def spoilt_folder(sounds: Path, folder: Path) -> Path:
    """`val` with a clip that is no audio, and one whose header is that of a whole one."""
    shutil.copytree(sounds / "val", folder)
    (folder / "low_up" / "0.wav").write_text("no sound")
    samples, rate = soundfile.read(folder / "mid_up" / "1.wav")
    samples[-1] = np.nan
    soundfile.write(folder / "mid_up" / "1.wav", samples, rate, subtype="FLOAT")
    return folder


def test_packing_goes_past_bad_clips_and_lists_them(sounds: Path, tmp_path: Path, capsys) -> None:
    folder, out = spoilt_folder(sounds, tmp_path / "in"), tmp_path / "out"
    assert main(["pack", str(folder), str(out), "--shard-size", "0.2"]) == 0
    output = capsys.readouterr()
    assert f"left out  2 of 30 clips, which cannot be used; see {out / 'bad_files.csv'}" in output.out
    assert "left out: " in output.err
    with open(out / "bad_files.csv", newline="") as file:
        rows = {Path(row["path"]).relative_to(folder).as_posix(): row["reason"] for row in csv.DictReader(file)}
    assert rows.keys() == {"low_up/0.wav", "mid_up/1.wav"}
    assert rows["low_up/0.wav"].startswith("not readable as audio")
    assert rows["mid_up/1.wav"].startswith("found NaN")
    shards = read_manifest(out)
    files = [clip for clip in read_manifest(folder).clips if "/".join(clip.path.parts[-2:]) not in rows]
    assert [clip.classes for clip in shards.clips] == [clip.classes for clip in files]
    assert all(torch.equal(decode(s.path), decode(f.path)) for s, f in zip(shards.clips, files, strict=True))


def test_packing_stops_beyond_the_limit(sounds: Path, tmp_path: Path) -> None:
    folder = spoilt_folder(sounds, tmp_path / "in")
    for number in range(2):
        (folder / "low_down" / f"{number}.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"4 of its 30 clips are unusable, expected at most 3 \(--max-bad 0"):
        pack(read_manifest(folder), tmp_path / "out", progress=False, max_bad=0.01)
    with pytest.raises(DataError, match=r"0\.wav: not readable as audio"):
        pack(read_manifest(folder), tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / INDEX).exists()


@pytest.mark.parametrize(
    ("share", "clips", "most"),
    [(0, 1000, 0), (0.01, 1000, 10), (0.01, 61, 3), (0.01, 4, 1), (0.01, 3, 0), (0.5, 10, 5), (1, 7, 7)],
)
def test_the_limit_is_a_share_with_a_floor(share: float, clips: int, most: int) -> None:
    assert most_bad(share, clips) == most


def test_packing_twice_into_one_folder_is_refused(sounds: Path, packed: Path) -> None:
    with pytest.raises(ConfigError, match="exists already, expected another folder, or --overwrite"):
        pack(read_manifest(sounds / "val"), packed, progress=False)


@pytest.mark.parametrize(("field", "value"), [("shard_size", 0.0), ("shuffle", -1)])
def test_wrong_settings_are_refused_by_name(field: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{field}: found {value}"):
        PackConfig(tmp_path, tmp_path, **{field: value})


def spoilt(path: tuple, value) -> dict:
    return {"path": path, "value": value}


FAULTS = {
    "found format 'other'": spoilt(("format",), "other"),
    "no label table": spoilt(("labels", "mids"), [1]),
    "found 6 ids, 1 distinct": spoilt(("labels",), {"mids": ["a"] * 6, "names": ["a"] * 6}),
    "found no shards": spoilt(("shards",), []),
    "expected an object": spoilt(("shards", 1), "000001.tar"),
    r"shards\[0\]\.file: found '\.\./000000\.tar'": spoilt(("shards", 0, "file"), "../000000.tar"),
    r"shards\[0\]\.file: found '/etc/passwd'": spoilt(("shards", 0, "file"), "/etc/passwd"),
    r"nowhere\.tar: not readable": spoilt(("shards", 0, "file"), "nowhere.tar"),
    "expected the 7 of the index": spoilt(("shards", 0, "bytes"), 7),
    "of equal length": spoilt(("shards", 0, "sizes"), [1]),
    "found offset -1": spoilt(("shards", 0, "offsets", 2), -1),
    "found offset True": spoilt(("shards", 0, "offsets", 2), True),
    "and size 10000000": spoilt(("shards", 0, "sizes", 2), 10_000_000),
    r"clip 2: found classes \[6\]": spoilt(("shards", 0, "classes", 2), [6]),
    r"names: expected text": spoilt(("shards", 0, "names", 0), None),
}


@pytest.mark.parametrize("message", FAULTS)
def test_an_index_is_not_believed(message: str, packed: Path, tmp_path: Path) -> None:
    index = json.loads((packed / INDEX).read_text())
    for tar in packed.glob("*.tar"):
        (tmp_path / tar.name).symlink_to(tar)
    (*path, last), inside = FAULTS[message]["path"], index
    for key in path:
        inside = inside[key]
    inside[last] = FAULTS[message]["value"]
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match=message) as error:
        read_manifest(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_an_index_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(DataError, match=r"index\.json: not readable as an index of shards"):
        read_manifest(tmp_path)


def test_bytes_that_are_no_audio_or_are_gone_name_the_clip_and_the_shard(tmp_path: Path) -> None:
    tar = tmp_path / "0.tar"
    tar.write_bytes(b"no sound" * 100)
    for member, reason in (
        (ShardMember(tar, 10, 100, "c/x.wav"), "not readable as audio"),
        (ShardMember(tar, 700, 200, "c/x.wav"), "found 100 bytes in the shard, expected 200"),
        (ShardMember(tmp_path / "1.tar", 0, 8, "c/x.wav"), "not readable"),
    ):
        with pytest.raises(DataError) as error:
            decode(member)
        assert str(error.value).startswith(f"{member.shard}:c/x.wav: {reason}")
        assert "BytesIO" not in str(error.value)
    assert pickle.loads(pickle.dumps(member)) == member  # goes to decoding processes


def test_shard_schedule_shuffles_within_a_few_shards_and_leaves_no_clip_out() -> None:
    counts, size = [50, 30, 70, 10, 40], 200
    schedule = ShardSchedule(counts, 20, seed=0, at_once=2)
    shard_of = np.repeat(np.arange(5), counts)
    for epoch in range(3):
        clips = [draw.clip for step in range(10 * epoch, 10 * epoch + 10) for draw in schedule[step]]
        assert sorted(clips) == list(range(size))
        visited = shard_of[clips]
        last = {shard: np.flatnonzero(visited == shard).max() for shard in range(5)}
        first = {shard: np.flatnonzero(visited == shard).min() for shard in range(5)}
        open_at_once = [sum(first[s] <= i <= last[s] for s in range(5)) for i in range(size)]
        assert max(open_at_once) == 2
    assert schedule[3] != schedule[13]
    assert ShardSchedule(counts, 20, seed=0, at_once=2)[13] == schedule[13]  # nothing to save for a resume
