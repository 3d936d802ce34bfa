"""Downloads from a server on this machine: whole, broken off, taken up again, wrong; archives that mean harm."""

import hashlib
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexiast.data.prepare.download import Archive, data_root, fetch, obtain, unpack
from flexiast.errors import ConfigError, DataError, FileError
from tests.full_disk import full_disk
from tests.server import Behaviour, serving

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Behaviour]]:
    """A server of the file x.bin, its URL and behaviour."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "x.bin").write_bytes(CONTENT)
    with serving(tmp_path / "www") as (address, behaviour):
        yield f"{address}/x.bin", behaviour


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the file goes; its folder is still to be made."""
    return tmp_path / "data" / "x.bin"


def part_of(target: Path) -> Path:
    """Where bytes gather."""
    return target.with_name("x.bin.part")


@pytest.mark.parametrize("lengths", [True, False])
def test_whole_file_in_one_go(lengths, server, target):
    url, behaviour = server
    behaviour.lengths = lengths
    assert fetch(url, target, len(CONTENT), SHA256) == SHA256
    assert target.read_bytes() == CONTENT
    assert not part_of(target).exists()
    assert behaviour.asked == [""]


def test_file_that_is_there_is_not_fetched_again(server, target):
    url, behaviour = server
    fetch(url, target)
    assert fetch(url, target, len(CONTENT), SHA256) == SHA256
    assert len(behaviour.asked) == 1
    target.write_bytes(b"other")
    with pytest.raises(
        DataError, match=f"^{re.escape(str(target))}.*remove it.*found 5 bytes, expected {len(CONTENT)}"
    ):
        fetch(url, target, len(CONTENT), SHA256)
    assert target.read_bytes() == b"other"


@pytest.mark.parametrize("lengths", [True, False])
def test_broken_connection_is_taken_up_where_it_broke(lengths, server, target):
    url, behaviour = server
    behaviour.cut_after, behaviour.lengths = [1000, 2000], lengths
    fetch(url, target, len(CONTENT), SHA256)
    assert target.read_bytes() == CONTENT
    assert behaviour.asked == ["", "bytes=1000-", "bytes=3000-"]


def test_a_later_call_goes_on_where_an_earlier_one_was_killed(server, target):
    url, behaviour = server
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:5000])
    assert fetch(url, target, sha256=SHA256) == SHA256
    assert behaviour.asked == ["bytes=5000-"]


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_part_that_is_whole_already_is_used(size, server, target):
    url, behaviour = server
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    assert fetch(url, target, size, SHA256) == SHA256
    assert target.read_bytes() == CONTENT
    assert behaviour.asked == ([] if size else [f"bytes={len(CONTENT)}-"])


def test_part_that_is_longer_than_the_file_is_dropped(server, target):
    url, behaviour = server
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT * 2)
    assert fetch(url, target, sha256=SHA256) == SHA256
    assert behaviour.asked == [f"bytes={2 * len(CONTENT)}-", ""]


def test_server_without_ranges_starts_anew(server, target):
    url, behaviour = server
    behaviour.ranges, behaviour.cut_after = False, [1000]
    fetch(url, target, len(CONTENT), SHA256)
    assert target.read_bytes() == CONTENT
    assert behaviour.asked == ["", "bytes=1000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_connection_that_breaks_without_getting_further_is_reported(ranges, server, target):
    url, behaviour = server
    behaviour.ranges, behaviour.cut_after = ranges, [1000, 0, 0]
    with pytest.raises(DataError, match=f"^{url}: the connection broke at byte .* run this again to go on"):
        fetch(url, target, len(CONTENT), SHA256)
    assert not target.exists()
    behaviour.cut_after = []
    assert fetch(url, target, len(CONTENT), SHA256) == SHA256


@pytest.mark.parametrize(
    ("size", "sha256", "message"),
    [
        (None, "0" * 64, f"found SHA-256 {SHA256}, expected {'0' * 64}"),
        (len(CONTENT) - 1, None, f"found {len(CONTENT)} bytes, expected {len(CONTENT) - 1}"),
    ],
)
def test_wrong_content_is_refused_and_removed(size, sha256, message, server, target):
    with pytest.raises(DataError, match=f"^{server[0]}: {message}"):
        fetch(server[0], target, size, sha256)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(("status", "message"), [(0, "404 Not Found"), (503, "503 Service Unavailable")])
def test_what_the_server_refuses_is_told(status, message, server, target):
    url, behaviour = server
    behaviour.status = status
    with pytest.raises(DataError, match=f"y.bin: the server answers {message}"):
        fetch(url.replace("x.bin", "y.bin"), target)


def test_server_that_is_not_there_is_told(target):
    with serving(target.parent) as (address, _):
        pass
    with pytest.raises(DataError, match=f"{address}/x.bin: not reachable .*refused"):
        fetch(f"{address}/x.bin", target)


def test_folder_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"^{tmp_path / 'file'}: not writable"):
        fetch(server[0], tmp_path / "file" / "x.bin")


# Unpacking -----------------------------------------------------------------------------------------------------


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    """A zip with these files."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """A tar.gz with these files and symbolic links."""
    with tarfile.open(path, "w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for name, goal in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, goal
            file.addfile(member)
    return path


@pytest.mark.parametrize(("make", "name"), [(zipped, "a.zip"), (tarred, "a.tar.gz")])
@pytest.mark.parametrize("prefix", ["", "top/"])
def test_archive_is_unpacked_without_the_folder_at_its_top(make, name, prefix, tmp_path):
    archive = make(tmp_path / name, {f"{prefix}x.txt": b"x", f"{prefix}deep/y.txt": b"y"})
    unpack(archive, tmp_path / "root" / "out")
    assert (tmp_path / "root" / "out" / "x.txt").read_bytes() == b"x"
    assert (tmp_path / "root" / "out" / "deep" / "y.txt").read_bytes() == b"y"
    assert os.listdir(tmp_path / "root") == ["out"]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: zipped(p / "a.zip", {"ok.txt": b"", "../evil.txt": b""}),
        lambda p: zipped(p / "a.zip", {"ok.txt": b"", "/evil.txt": b""}),
        lambda p: zipped(p / "a.zip", {"ok.txt": b"", "..\\evil.txt": b""}),
        lambda p: zipped(p / "a.zip", {"ok.txt": b"", "C:\\evil.txt": b""}),
        lambda p: tarred(p / "a.tar.gz", {"ok.txt": b"", "x/../../evil.txt": b""}),
        lambda p: tarred(p / "a.tar.gz", {"ok.txt": b""}, {"link": "/etc/passwd"}),
        lambda p: tarred(p / "a.tar.gz", {"ok.txt": b""}, {"link": "../../evil.txt"}),
    ],
    ids=["zip up", "zip root", "zip backslash", "zip drive", "tar up", "tar link to root", "tar link up"],
)
def test_archive_that_leads_out_of_its_folder_is_refused(make, tmp_path):
    (tmp_path / "root").mkdir()
    archive = make(tmp_path)
    with pytest.raises(DataError, match=f"^{archive}: "):
        unpack(archive, tmp_path / "root" / "out")
    assert os.listdir(tmp_path / "root") == []
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.parametrize(("make", "name"), [(zipped, "a.zip"), (tarred, "a.tar.gz")])
@pytest.mark.parametrize("keep", [0, 20, -60])
def test_damaged_archive_is_refused(make, name, keep, tmp_path):
    archive = make(tmp_path / name, {f"{k}.bin": os.urandom(500) for k in range(10)})
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"^{archive}: not unpacked"):
        unpack(archive, tmp_path / "root" / "out")
    assert os.listdir(tmp_path / "root") == []


def test_damaged_content_of_a_zip_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"x.bin": b"abcdefgh" * 100})
    archive.write_bytes(archive.read_bytes().replace(b"abcdefgh", b"abcdefgX", 1))
    with pytest.raises(DataError, match=f"^{archive}: not unpacked .*CRC"):
        unpack(archive, tmp_path / "root" / "out")
    assert os.listdir(tmp_path / "root") == []


# Both together -------------------------------------------------------------------------------------------------


def test_obtain_fetches_unpacks_and_records_once(tmp_path):
    (tmp_path / "www").mkdir()
    file = zipped(tmp_path / "www" / "a.zip", {"top/x.txt": b"x"})
    with serving(tmp_path / "www") as (address, behaviour):
        archive = Archive(f"{address}/a.zip", "data.zip", "data")
        assert obtain(archive, tmp_path / "root") == tmp_path / "root" / "data"
        obtain(archive, tmp_path / "root")
    assert len(behaviour.asked) == 1
    assert (tmp_path / "root" / "data" / "x.txt").exists()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (tmp_path / "root" / "data.zip.sha256").read_text() == f"{digest}  data.zip\n"


def test_a_checksum_that_a_full_disk_does_not_take_is_named(tmp_path):
    zipped(tmp_path / "data.zip", {"top/x.txt": b"x"})
    with full_disk(10), pytest.raises(FileError, match=r"data\.zip\.sha256: File too large"):
        obtain(Archive("http://localhost/a.zip", "data.zip", "data"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data.zip"]


def test_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXIAST_DATA", str(tmp_path))
    assert data_root(None) == tmp_path
    assert data_root(Path("given")) == Path("given")
    monkeypatch.setenv("FLEXIAST_DATA", "")
    with pytest.raises(ConfigError, match="--data-root"):
        data_root(None)
