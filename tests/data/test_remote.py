"""Addresses: which files they stand for, fetched once, whole, in their version; what is wrong is one line."""

import dataclasses
import errno
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import flexiast
from flexiast.cli import main
from flexiast.data import remote, remote_cache
from flexiast.data.audio import decode
from flexiast.data.manifest import distinct_labels, read_manifest
from flexiast.data.pack import pack
from flexiast.data.prepare.download import Unreachable
from flexiast.data.remote import address_of, is_address, remote_files
from flexiast.data.remote_cache import as_local, cache_folder
from flexiast.data.sources import audio_sources
from flexiast.data.webdataset import expanded
from flexiast.errors import ConfigError, DataError, FileError
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.train import train
from tests.data.test_webdataset import write_tars
from tests.full_disk import full_disk
from tests.server import Behaviour, serving
from tests.traintest.test_train import config, require_exact_resume


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXIAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """The file system of memory://, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str, Behaviour]]:
    """A folder that is served, its address, and how."""
    folder = tmp_path / "www"
    folder.mkdir()
    with serving(folder) as (address, behaviour):
        yield folder, address, behaviour


def local(url: str) -> Path:
    with as_local(Path(url)) as path:
        return path


def a_new_process() -> None:
    remote_cache._local.cache_clear()


def upload(system: MemoryFileSystem, folder: Path, to: str) -> None:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        system.pipe(f"{to}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def fetched() -> list[str]:
    """Names of the files in the cache that are whole."""
    return sorted(path.name for path in cache_folder().glob("*/*") if path.is_file())


# What an address is, and stands for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{008..011}.tar", ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{x,y}/{0..1}", ["x/0", "x/1", "y/0", "y/1"]),
        ("{a,b{0..1}}", ["a", "b0", "a", "b1"]),
        ("{one}", ["{one}"]),
    ],
)
def test_braces_stand_for_texts(pattern: str, texts: list[str]) -> None:
    assert sorted(set(expanded(pattern))) == sorted(set(texts))
    if "b{" not in pattern:
        assert expanded(pattern) == texts


def test_an_address_is_told_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert address_of(Path("s3://bucket/a/b.tar")) == "s3://bucket/a/b.tar"  # Path keeps one slash
    assert address_of(Path("https://host:80/a.csv?x=1")) == "https://host:80/a.csv?x=1"
    assert not any(map(is_address, map(Path, ["hf:me/sounds", "C:/sounds", "timm:vit", "sounds", "/a/b.tar", "a:b"])))
    monkeypatch.chdir(tmp_path)
    Path("s3:/x").mkdir(parents=True)
    assert not is_address(Path("s3:/x"))  # a folder of that name


def test_a_file_address_is_the_file_itself(sounds: Path) -> None:
    assert local(f"file://{sounds}/val") == sounds / "val"
    assert not cache_folder().exists()


# The clips are those of the local files --------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["part-{0..2}.tar", "part-*.tar", "part-{0,1,2}.tar", ""])
def test_tars_are_those_they_are_copies_of(pattern: str, sounds: Path, tmp_path: Path, memory) -> None:
    order = write_tars(tmp_path / "tars", sounds / "val", "txt", shards=3)
    upload(memory, tmp_path / "tars", "/b/t")
    memory.pipe("/b/t/notes.txt", b"no tar")
    data = read_manifest(Path(f"memory://b/t/{pattern}"))
    here = read_manifest(tmp_path / "tars")
    assert (len(data), data.labels, data.fingerprint) == (30, here.labels, here.fingerprint)
    assert str(data.source) == f"memory://b/t/{pattern}".rstrip("/")
    for clip, file in list(zip(data.clips, order, strict=True))[::7]:
        assert decode(clip.path).equal(decode(file))
    assert distinct_labels(Path(f"memory://b/t/{pattern}")) == here.labels
    assert fetched() == sorted(["part-0.tar", "part-1.tar", "part-2.tar"] * 2)  # each, and its further name
    assert len({path.stat().st_ino for path in cache_folder().glob("*/*.tar")}) == 3  # nothing is there twice


@pytest.mark.parametrize("by", ["folder", "index", "web"])
def test_packed_shards_come_with_the_tars_of_their_index(by: str, sounds: Path, tmp_path: Path, memory, web) -> None:
    here = read_manifest(sounds / "val")
    packed = pack(here, tmp_path / "packed", progress=False)
    assert packed is not None
    upload(memory, tmp_path / "packed", "/b/packed")
    memory.pipe("/b/packed/other.tar", b"not of the index")
    for file in (tmp_path / "packed").iterdir():
        (web[0] / file.name).write_bytes(file.read_bytes())
    url = {"folder": "memory://b/packed", "index": "memory://b/packed/index.json", "web": f"{web[1]}/index.json"}[by]
    data = read_manifest(Path(url))
    assert (data.labels, data.fingerprint) == (here.labels, read_manifest(tmp_path / "packed").fingerprint)
    assert "other.tar" not in fetched()
    assert audio_sources([Path(url)]).files == list(data.clips.paths)


def test_tables_and_audio_files(sounds: Path, tmp_path: Path, memory) -> None:
    rows = "\n".join(f"{file.relative_to(sounds)},{file.parent.name}" for file in sorted(sounds.rglob("val/*/*.wav")))
    memory.pipe("/b/val.csv", f"path,label\n{rows}\n".encode())
    data = read_manifest(Path("memory://b/val.csv"), root=sounds)
    assert (len(data), data.labels) == (30, read_manifest(sounds / "val").labels)
    with pytest.raises(DataError, match=r"^memory://b/val\.csv: none of the 30 files in it is there .* --root which"):
        read_manifest(Path("memory://b/val.csv"))
    upload(memory, sounds / "val", "/b/val")
    files, refused = audio_sources([Path("memory://b/val/low_up/*.wav"), Path("memory://b/gone.wav")])
    assert [path.name for path in files] == ["0.wav", "1.wav", "2.wav", "3.wav", "4.wav"]
    assert [name.reason for name in refused] == ["memory://b/gone.wav: found no such file, or none that may be seen"]
    assert len(audio_sources([Path("memory://b/val/*_up/0.wav")]).files) == 3  # of one name, in three folders


def test_a_run_trains_on_addresses_and_goes_on_exactly_where_it_died(sounds: Path, tmp_path: Path, memory) -> None:
    for split in ("train", "val"):
        write_tars(tmp_path / "data" / split, sounds / split, "txt", shards=3)
    upload(memory, tmp_path / "data", "/b")

    def run(name: str) -> TrainConfig:
        a_new_process()
        os.environ["FLEXIAST_CACHE"] = str(tmp_path / f"cache of {name}")  # another machine
        base = config(tmp_path / "data", tmp_path / name, epochs=0.5, save_every=2)
        there = {"train": Path("memory://b/train/part-{0..2}.tar"), "val": Path("memory://b/val")}
        return dataclasses.replace(base, data=dataclasses.replace(base.data, workers=1, **there))

    require_exact_resume(run, dies_at=3, saved_at=2)


def test_a_run_begun_with_the_files_goes_on_with_their_address(sounds: Path, tmp_path: Path, memory) -> None:
    for split in ("train", "val"):
        write_tars(tmp_path / "data" / split, sounds / split, "txt", shards=2)
    upload(memory, tmp_path / "data", "/b")
    here = read_manifest(tmp_path / "data" / "train")
    there = read_manifest(Path("memory://b/train/*.tar"))
    assert here.fingerprint == there.fingerprint
    assert [clip.classes for clip in here.clips] == [clip.classes for clip in there.clips]


@pytest.mark.slow
def test_commands_take_addresses(sounds: Path, tmp_path: Path, memory, capsys: pytest.CaptureFixture) -> None:
    write_tars(tmp_path / "tars", sounds / "val", "txt", shards=1)
    upload(memory, tmp_path / "tars", "/b")
    made = config(sounds, tmp_path / "run", epochs=0.2)
    train(made, progress=False)
    for command in (
        ["measure", str(tmp_path / "run"), "--data", "memory://b/part-0.tar", "--out", str(tmp_path / "measured")],
        ["doctor", "memory://b/part-0.tar", "--workers", "0"],
        ["pack", "memory://b/part-0.tar", str(tmp_path / "packed")],
        ["predict", str(tmp_path / "run"), "memory://b/*.tar", "--json", "--workers", "0"],
    ):
        code = main(command)
        out, err = capsys.readouterr()
        assert code in (0, 1 if command[0] == "doctor" else 0), err
    assert out.count("part-0") == 30
    assert flexiast.load(tmp_path / "run").labels == read_manifest(tmp_path / "packed").labels


# Fetched once, and whole -----------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_anew_when_it_changes(memory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    memory.pipe("/b/x.bin", b"first")
    path = local("memory://b/x.bin")
    assert path.read_bytes() == b"first"
    a_new_process()
    with mock.patch.object(remote, "_chunks", side_effect=AssertionError("fetched again")):
        assert local("memory://b/x.bin") == path
    assert caplog.text.count("memory://b/x.bin: fetched once, 1 of 1 files (5.00B), to") == 1
    memory.pipe("/b/x.bin", b"other")
    assert local("memory://b/x.bin").read_bytes() == b"first"  # one process sees one version
    a_new_process()
    assert local("memory://b/x.bin").read_bytes() == b"other"
    assert path.read_bytes() == b"first"  # for a run that still reads it
    assert not list(cache_folder().rglob("*.part")) + list(cache_folder().rglob(".lock"))


@pytest.mark.parametrize("tells", ["ETag", "Last-Modified", "size"])
def test_a_web_server_tells_the_version(tells: str, web) -> None:
    folder, address, behaviour = web
    (folder / "x.bin").write_bytes(b"first")
    behaviour.headers = {} if tells == "size" else {tells: "one"}
    path = local(f"{address}/x.bin?signed=yes")
    assert (path.name, path.read_bytes()) == ("x.bin", b"first")
    behaviour.headers = {} if tells == "size" else {tells: "two"}
    (folder / "x.bin").write_bytes(b"longer" if tells == "size" else b"other")
    a_new_process()
    assert local(f"{address}/x.bin?signed=yes").read_bytes() == (folder / "x.bin").read_bytes()
    asked = len(behaviour.asked)
    a_new_process()
    local(f"{address}/x.bin?signed=yes")
    assert len(behaviour.asked) == asked + 1  # whether it has changed


def test_a_download_from_the_web_goes_on_after_a_break(web) -> None:
    folder, address, behaviour = web
    (folder / "x.bin").write_bytes(bytes(range(256)) * 400)
    behaviour.cut_after = [10, 10, 50_000]  # the answers to two questions, then the download
    assert local(f"{address}/x.bin").read_bytes() == bytes(range(256)) * 400
    assert behaviour.asked[-2:] == ["bytes=50000-", ""]


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes after which the next files that are opened break off, one number for each."""
    breaks: list[int] = []
    whole = MemoryFileSystem.open

    def open_(system: MemoryFileSystem, path: str, mode: str = "rb", **options: Any) -> Any:
        file = whole(system, path, mode, **options)
        return _Breaking(file, breaks.pop(0)) if mode == "rb" and breaks else file

    monkeypatch.setattr(MemoryFileSystem, "open", open_)
    return breaks


class _Breaking:
    def __init__(self, file: Any, left: int) -> None:
        self.file, self.seek, self.left = file, file.seek, left

    def __enter__(self) -> "_Breaking":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def read(self, count: int) -> bytes:
        if not self.left:
            raise ConnectionResetError("Connection reset by peer")
        chunk = self.file.read(min(count, self.left))
        self.left -= len(chunk)
        return chunk


def test_a_download_of_a_file_system_goes_on_after_a_break_and_in_a_later_call(memory, breaks) -> None:
    content = bytes(range(256)) * 40
    memory.pipe("/b/x.bin", content)
    breaks[:] = [1000, 1000]
    assert local("memory://b/x.bin").read_bytes() == content
    memory.pipe("/b/y.bin", content)
    breaks[:] = [1000, 0]
    told = r"^memory://b/y\.bin: not reachable \(ConnectionResetError: .*\); run this again to go on from byte 1000$"
    with pytest.raises(DataError, match=told):
        local("memory://b/y.bin")
    assert "y.bin" not in fetched()
    assert [path.stat().st_size for path in cache_folder().rglob("y.bin.part")] == [1000]
    assert local("memory://b/y.bin").read_bytes() == content
    assert not list(cache_folder().rglob("*.part"))


def test_what_changes_while_it_is_fetched_is_refused(memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/b/x.bin", b"first")
    chunks = remote._chunks

    def changing(url: str, start: int) -> Iterator[bytes]:
        yield from chunks(url, start)
        memory.pipe("/b/x.bin", b"other")

    monkeypatch.setattr(remote, "_chunks", changing)
    with pytest.raises(DataError, match=r"^memory://b/x\.bin: has changed while it was fetched; run this again$"):
        local("memory://b/x.bin")
    assert not fetched()
    assert not list(cache_folder().rglob("part"))


def _fetch_in_a_process(url: str, count) -> None:
    chunks = remote._chunks

    def slow(url: str, start: int) -> Iterator[bytes]:
        with count.get_lock():
            count.value += 1
        yield from chunks(url, start)

    with mock.patch.object(remote, "_chunks", slow):
        assert local(url).read_bytes() == b"x" * 100_000


def test_of_several_processes_one_fetches(memory) -> None:
    memory.pipe("/b/x.bin", b"x" * 100_000)
    context = multiprocessing.get_context("fork")
    count = context.Value("i", 0)
    processes = [context.Process(target=_fetch_in_a_process, args=("memory://b/x.bin", count)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert count.value == 1


def test_without_the_server_what_was_fetched_is_used(web, monkeypatch, caplog) -> None:
    folder, address, _ = web
    for name in ("a.tar", "b.tar"):
        (folder / name).write_bytes(name.encode())
    one, several = local(f"{address}/a.tar"), local(f"{address}/{{a,b}}.tar")
    assert sorted(path.name for path in several.iterdir()) == ["a.tar", "b.tar"]
    a_new_process()
    gone = Unreachable("not reachable (no network)")
    monkeypatch.setattr(remote_cache, "remote_files", mock.Mock(side_effect=gone))
    assert local(f"{address}/a.tar") == one
    assert local(f"{address}/{{a,b}}.tar") == several
    assert "no network); what was fetched on 20" in caplog.text
    with pytest.raises(DataError, match="no network"):
        local(f"{address}/c.tar")


# What is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("s3", r"s3://b/x\.tar: s3:// takes a package that is not installed: pip install s3fs"),
        ("gs", r"gs://b/x\.tar: gs:// takes a package that is not installed: pip install gcsfs"),
        ("smb", r"smb:// takes a package that is not installed: SMB requires \"smbprotocol\""),
        ("foo", r"foo://b/x\.tar: Protocol not known: foo, expected https, s3, gs, az, hf or another of fsspec"),
    ],
)
def test_a_missing_package_is_named(scheme: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("s3fs", "gcsfs", "smbprotocol"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=message):
        read_manifest(Path(f"{scheme}://b/x.tar"))


def test_what_is_not_there_is_one_line(memory, web, capsys: pytest.CaptureFixture) -> None:
    memory.pipe("/b/x.bin", b"")
    for url, message in (
        ("memory://b/gone.tar", "memory://b/gone.tar: found no such file, or none that may be seen"),
        ("memory://b/*.tar", "memory://b/*.tar: found no file that matches this pattern"),
        ("memory://b", "memory://b: found a folder with 1 files, expected tars or an index.json of `flexiast pack`"),
        (f"{web[1]}/gone.tar", f"{web[1]}/gone.tar: the server answers 404 Not Found"),
    ):
        assert main(["stats", url, "--workers", "0"]) == 2
        *_, last = capsys.readouterr().err.strip().splitlines()
        assert message in last
    with pytest.raises(DataError, match="found a folder of a web server, expected the address of a file"):
        remote_files(f"{web[1]}/")
    web[2].status = 403
    with pytest.raises(DataError, match="the server answers 403 Forbidden"):
        local(f"{web[1]}/x.tar")
    with pytest.raises(DataError, match=r"^http://127\.0\.0\.1:9/x\.tar: not reachable \("):
        local("http://127.0.0.1:9/x.tar")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError("Forbidden"), r"^memory://b/x\.tar: no permission to read it \(PermissionError: Forbidden\)$"),
        (RuntimeError("no\ncredentials"), r"^memory://b/x\.tar: not reachable \(RuntimeError: no credentials\)$"),
    ],
)
def test_errors_of_a_file_system_are_one_line(error: Exception, message: str, memory, monkeypatch) -> None:
    monkeypatch.setattr(type(memory), "info", mock.Mock(side_effect=error))
    with pytest.raises(DataError, match=message):
        local("memory://b/x.tar")


def test_a_broken_index_and_a_broken_tar_are_named_by_their_address(memory) -> None:
    memory.pipe("/b/index.json", b"{}")
    with pytest.raises(DataError, match=r"^memory:///b/index\.json: found format None, expected 'flexiast-shards-1'"):
        read_manifest(Path("memory://b"))
    memory.pipe("/c/x.tar", b"no tar at all" * 100)
    with pytest.raises(DataError, match=r"^memory://c/x\.tar: not readable as a WebDataset tar"):
        read_manifest(Path("memory://c/x.tar"))
    a_new_process()
    with pytest.raises(DataError, match=r"^memory://c/\*\.tar/x\.tar: not readable as a WebDataset tar"):
        read_manifest(Path("memory://c/*.tar"))


def test_an_index_names_nothing_outside_its_folder(memory) -> None:
    memory.pipe("/b/index.json", b'{"format": "flexiast-shards-1", "shards": [{"file": "../secret.tar"}, 3]}')
    memory.pipe("/secret.tar", b"")
    with pytest.raises(DataError, match="found no label table"):
        read_manifest(Path("memory://b"))
    assert "secret.tar" not in fetched()


def test_a_full_disk_and_a_folder_that_cannot_be_written(memory, web, monkeypatch, tmp_path: Path) -> None:
    memory.pipe("/b/x.bin", bytes(2_000_000))
    (web[0] / "x.bin").write_bytes(bytes(2_000_000))
    for url in ("memory://b/x.bin", f"{web[1]}/x.bin"):
        with (
            full_disk(1_000_000),
            pytest.raises((FileError, DataError), match=r"not writable \(File too large"),
        ):
            local(url)
        assert not fetched()
        assert local(url).stat().st_size == 2_000_000
        a_new_process()
        for path in cache_folder().glob("*/x.bin"):
            path.unlink()
    monkeypatch.setattr(remote_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    told = r"cache: found 1\.00MB free, expected 2\.00MB for memory://b/x\.bin; make room, or say with FLEXIAST_CACHE"
    with pytest.raises(FileError, match=told):
        local("memory://b/x.bin")
    monkeypatch.undo()
    monkeypatch.setenv("FLEXIAST_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as context:
        context.setattr(os, "access", lambda *_: False)  # root may write anywhere
        with pytest.raises(
            FileError, match=r"cache/\w+-\w+: not writable \(Permission denied\); say with FLEXIAST_CACHE"
        ):
            local("memory://b/x.bin")
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLEXIAST_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FileError, match=r"file/cache: not writable \(Not a directory\); say with FLEXIAST_CACHE where"):
        local("memory://b/x.bin")


def test_a_file_system_without_hard_links_gets_copies(memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=OSError(errno.EPERM, "Operation not permitted")))
    memory.pipe("/b/x.bin", b"x")
    memory.pipe("/b/y.bin", b"y")
    assert sorted(path.read_bytes() for path in local("memory://b/*.bin").iterdir()) == [b"x", b"y"]


def test_quiet_hides_the_bar(memory, capsys: pytest.CaptureFixture) -> None:
    memory.pipe("/b/x.tar", b"no tar")
    assert main(["stats", "memory://b/x.tar", "--workers", "0", "--quiet"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    memory.pipe("/b/y.tar", b"no tar")
    assert main(["stats", "memory://b/y.tar", "--workers", "0"]) == 2
    assert "y.tar:   0%" in capsys.readouterr().err
