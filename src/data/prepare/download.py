"""Fetch and unpack public archives: resumable, verified, and either complete or not there at all."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from ...errors import ConfigError, DataError
from ...runtime.bars import is_quiet, tqdm
from ...runtime.files import write_atomically

DATA_ROOT = "FLEXIAST_DATA"
"""Environment variable with the folder for downloads."""
TIMEOUT = 60.0
"""Seconds to wait for an answer before giving up a connection."""
_CHUNK = 1 << 20


class Unreachable(DataError):
    """A server cannot be asked now; later it may answer."""


@dataclasses.dataclass(frozen=True)
class Archive:
    """A public data set as one archive."""

    url: str
    file: str
    """Its file name in the data root."""
    folder: str
    """Folder in the data root to unpack it to."""
    size: int | None = None
    """Bytes, where published."""
    sha256: str | None = None
    """Checksum, where published."""


def data_root(option: Path | None) -> Path:
    """The folder for downloads: the option, else FLEXIAST_DATA. Raises ConfigError if neither is given."""
    if option is None and not os.environ.get(DATA_ROOT):
        raise ConfigError(f"data root: found none, expected --data-root DIR or the environment variable {DATA_ROOT}")
    return option or Path(os.environ[DATA_ROOT])


def obtain(archive: Archive, root: Path) -> Path:
    """The folder of the unpacked archive, which is fetched and unpacked first if needed.

    The archive itself is kept beside the folder, with its SHA-256 in `FILE.sha256` as sha256sum writes it. Raises
    DataError as `fetch` and `unpack` do, FileError if the checksum cannot be written.
    """
    folder = root / archive.folder
    if not folder.exists():
        path = root / archive.file
        digest = fetch(archive.url, path, size=archive.size, sha256=archive.sha256)
        write_atomically(path.with_name(path.name + ".sha256"), f"{digest}  {path.name}\n".encode())
        unpack(path, folder)
    return folder


# Fetching ------------------------------------------------------------------------------------------------------


def fetch(url: str, destination: Path, size: int | None = None, sha256: str | None = None) -> str:
    """Download to a file that appears only when it is complete and verified; returns its SHA-256.

    Until then the bytes are in `destination`.part. If the connection breaks, the download resumes where it broke, as
    long as each attempt gets further; a download that an earlier call left unfinished resumes as well. If the server
    cannot resume (HTTP Range), it starts again. Nothing is fetched if the file exists and is right. Raises DataError,
    naming the URL or the file, if it is not found, not reachable, cut off, not writable, or not of the expected size
    (in bytes) or checksum.
    """
    part = destination.with_name(destination.name + ".part")
    try:
        if destination.exists():
            return _verified(destination, size, sha256, f"{destination}, which is there already (remove it),")
        destination.parent.mkdir(parents=True, exist_ok=True)
        while not _fetch_rest(url, part, size):
            pass
        try:
            digest = _verified(part, size, sha256, url)
        except DataError:
            part.unlink()  # there is nothing to resume from
            raise
        os.replace(part, destination)
    except OSError as error:
        raise DataError(f"{error.filename or destination}: not writable ({error.strerror or error})") from None
    return digest


def _fetch_rest(url: str, part: Path, size: int | None) -> bool:
    """Append the missing bytes; False if the connection broke with some progress. Raises DataError without progress."""
    before = part.stat().st_size if part.exists() else 0
    if before and before == size:
        return True
    response = request(url, before)
    with response:
        sent = response.headers["Content-Range"] or ""
        if response.status == 416:  # no bytes from there on: the file is complete, or it is a different one
            if sent == f"bytes */{before}":
                return True
            part.unlink()
            return False
        if response.status == 206 and not sent.startswith(f"bytes {before}-"):
            raise DataError(f"{url}: the server sent {sent!r}, expected bytes from {before} on; remove {part}")
        start = before if response.status == 206 else 0
        length = response.headers["Content-Length"]
        total = start + int(length) if length else size
        with open(part, "ab" if start else "wb") as file:
            broken = _copy(response, file, start, total, part.name.removesuffix(".part"))
    after = part.stat().st_size
    if broken is None and (total is None or after >= total):
        return True
    if after <= before:
        raise DataError(f"{url}: the connection broke at byte {after} ({broken or 'closed'}); run this again to go on")
    return False


def request(url: str, start: int = 0) -> Any:
    """The server's answer to a request for the bytes from `start` on; 416 if it has none there.

    Raises DataError for any other status of 400 or more, Unreachable if there is no answer.
    """
    headers = {"User-Agent": "flexiast"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            return error
        raise DataError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url}: not reachable ({getattr(error, 'reason', error)})") from None


def _copy(response: Any, file: IO[bytes], start: int, total: int | None, name: str) -> str | None:
    """Write all received bytes to the file; returns the reason if the connection breaks."""
    with tqdm(desc=name, initial=start, total=total, unit="B", unit_scale=True, disable=is_quiet()) as bar:
        while True:
            try:
                chunk = response.read1(_CHUNK)  # `read` would lose bytes if the rest does not come
            except (OSError, http.client.HTTPException) as error:
                return str(error)
            if not chunk:
                return None
            file.write(chunk)
            bar.update(len(chunk))


def _verified(path: Path, size: int | None, sha256: str | None, what: str) -> str:
    """The file's SHA-256. Raises DataError if it, or the size, is not as expected."""
    actual = path.stat().st_size
    if size is not None and actual != size:
        raise DataError(f"{what}: found {actual} bytes, expected {size}")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and digest != sha256:
        raise DataError(f"{what}: found SHA-256 {digest}, expected {sha256}")
    return digest


# Unpacking -----------------------------------------------------------------------------------------------------


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar file to a folder that appears only when it is complete.

    If the archive holds a single top folder, that becomes the folder. Raises DataError that names the archive if it is
    damaged or holds names that lead out of the folder.
    """
    part = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for _ in tqdm(
            _unpack_zip(archive, part) if zipfile.is_zipfile(archive) else _unpack_tar(archive, part),
            f"unpack {archive.name}",
            unit="file",
        ):
            pass
        top = list(part.iterdir())
        os.rename(top[0] if len(top) == 1 and top[0].is_dir() else part, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise DataError(f"{archive}: not unpacked ({error})") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unpack_zip(archive: Path, folder: Path) -> Iterator[None]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            name = PureWindowsPath(member.filename)  # understands \\ and drives as well as /
            if name.anchor or ".." in name.parts:
                raise DataError(f"{archive}: found the name {member.filename!r}, expected names inside its folder")
            file.extract(member, folder)
            yield


def _unpack_tar(archive: Path, folder: Path) -> Iterator[None]:
    if not hasattr(tarfile, "data_filter"):
        raise DataError(f"{archive}: unpacking it safely takes Python 3.11.4 or newer")
    with tarfile.open(archive) as file:
        for member in file:
            file.extract(member, folder, filter="data")  # refuses links and names that lead out
            yield
