"""What is at an address (https://, s3://, gs://, hf://, ...): which files, in which version, and their bytes.

An address stands for one file, for a folder of tars, or for several files: `train-{000..012}.tar`, `train-*.tar`. Web
servers are asked by `prepare.download`, everything else by fsspec, which has credentials and settings of its own.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import ConfigError, DataError, FlexiASTError
from .labels import reason_of
from .prepare.download import Unreachable, fetch, request
from .shards import INDEX
from .webdataset import expanded

WEB = ("http", "https")
VERSIONS = (
    *("ETag", "etag", "md5Hash", "blob_id", "content_md5", "LastModified", "last_modified", "updated"),
    *("mtime", "modificationTime", "created"),
)
"""Fields in which file systems tell the version of a file, the surest first."""
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/+(.*)", re.DOTALL)  # a drive of Windows has one letter
_CHUNK = 16 << 20


class RemoteFile(NamedTuple):
    """A file at an address."""

    url: str
    name: str
    size: int | None
    """Bytes, where the server tells."""
    version: str
    """Changes with the file; empty where the server tells nothing."""


class Address(type(Path())):  # type: ignore[misc]
    """A path that is written as the address it stands for."""

    def __str__(self) -> str:
        return _ADDRESS.sub(r"\1://\2", super().__str__())


def is_address(source: Path) -> bool:
    """Whether this is `SCHEME://...`, of which `Path` keeps one slash, and no local file."""
    return bool(_ADDRESS.fullmatch(str(source))) and not os.path.exists(source)


def address_of(source: Path) -> str:
    """The address, with the slashes that `Path` has dropped."""
    return str(Address(source))


def scheme_of(url: str) -> str:
    """What is before the colon, in lower case."""
    return url.partition(":")[0].lower()


def name_of(url: str) -> str:
    """The file's name, without the query of a web address."""
    path = unquote(urlsplit(url).path) if scheme_of(url) in WEB else url
    return path.rpartition("/")[2]


def remote_files(url: str) -> list[RemoteFile]:
    """The files that an address stands for, at least one; of a folder its index of shards, else its tars.

    Raises DataError, naming the address, if there is none or it may not be read, Unreachable if the server cannot be
    asked, ConfigError if the package for the scheme is missing.
    """
    return [file for one in expanded(url) for file in (_asked(one) if scheme_of(one) in WEB else _listed(one))]


def copy(file: RemoteFile, destination: Path, progress: Any) -> None:
    """Fetch to a file that appears only when it is complete; until then the bytes are in `destination`.part.

    As `fetch`, it goes on after a break, of an earlier call too, as long as each attempt gets further. progress: makes
    a bar, with the arguments of tqdm. Raises DataError, naming the address; OSError if it cannot be written.
    """
    if scheme_of(file.url) in WEB:
        fetch(file.url, destination, file.size)
        return
    part = destination.with_name(destination.name + ".part")
    broken = _copy_rest(file, part, progress)
    while broken is not None:
        before = part.stat().st_size
        again = _copy_rest(file, part, progress)
        if again is not None and part.stat().st_size <= before:
            raise Unreachable(f"{again}; run this again to go on from byte {before}")
        broken = again
    found = part.stat().st_size
    if file.size is not None and found != file.size:
        part.unlink()  # there is nothing to go on from
        raise DataError(f"{file.url}: found {found} bytes, expected {file.size}; run this again")
    os.replace(part, destination)


def _copy_rest(file: RemoteFile, part: Path, progress: Any) -> Unreachable | None:
    """Append the missing bytes; returns the error if the connection breaks."""
    with open(part, "ab") as out, progress(desc=file.name, initial=out.tell(), total=file.size) as bar:
        try:
            for chunk in _chunks(file.url, out.tell()):
                out.write(chunk)
                bar.update(len(chunk))
        except Unreachable as error:
            return error
    return None


def _chunks(url: str, start: int) -> Iterator[bytes]:
    """The bytes from `start` on. Raises DataError."""
    system, path = _file_system(url)
    with _told(url), system.open(path, "rb") as source:
        source.seek(start)
        while chunk := source.read(_CHUNK):
            yield chunk


@contextmanager
def opened_at(url: str) -> Iterator[BinaryIO]:
    """The file at an address or on this machine, to read any part of it; raises what its file system does.

    Each read is one request of just these bytes.
    """
    system, path = _file_system(url)
    with system.open(path, "rb", cache_type="none") as file:
        yield file


# Web servers -----------------------------------------------------------------------------------------------------


def _asked(url: str) -> list[RemoteFile]:
    """A file of a web server. It is asked for all of it, and not listened to: signed addresses allow nothing else."""
    if not name_of(url):
        raise DataError(f"{url}: found a folder of a web server, expected the address of a file")
    with request(url) as response:
        size, headers = response.headers["Content-Length"], response.headers
        return [RemoteFile(url, name_of(url), size and int(size), headers["ETag"] or headers["Last-Modified"] or "")]


# File systems of fsspec ------------------------------------------------------------------------------------------


def _listed(url: str) -> list[RemoteFile]:
    """A file, those that fit a pattern, or the index or the tars in a folder."""
    import fsspec.core

    system, path = _file_system(url)
    with _told(url):
        system.invalidate_cache()
        if fsspec.core.has_magic(path):
            found = [info for info in system.glob(path, detail=True).values() if info["type"] == "file"]
            if not found:
                raise DataError(f"{url}: found no file that matches this pattern")
        elif (info := system.info(path))["type"] == "directory":
            found = _in_folder(url, system.ls(path, detail=True))
        else:
            return [RemoteFile(url, name_of(url), info.get("size"), _version(info))]
        named = {system.unstrip_protocol(info["name"]): info for info in found}
    return [RemoteFile(one, name_of(one), named[one].get("size"), _version(named[one])) for one in sorted(named)]


def _in_folder(url: str, infos: Sequence[Any]) -> list[Any]:
    files = {PurePosixPath(info["name"]).name: info for info in infos if info["type"] == "file"}
    chosen = [files[INDEX]] if INDEX in files else [info for name, info in files.items() if name[-4:].lower() == ".tar"]
    if not chosen:
        raise DataError(
            f"{url}: found a folder with {len(files)} files, expected tars or an {INDEX} of `flexiast pack` in it;"
            " other files by a pattern, such as *.wav"
        )
    return chosen


def _version(info: Any) -> str:
    value = next((info[field] for field in VERSIONS if info.get(field)), "")
    return str(value.timestamp() if isinstance(value, datetime.datetime) else value).strip('"')


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Raises ConfigError if there is none for its scheme."""
    import fsspec
    from fsspec.registry import known_implementations

    with _told(url):
        try:
            return fsspec.url_to_fs(url)
        except ImportError as error:
            package = known_implementations[scheme_of(url)]["class"].partition(".")[0]
            install = str(error) if package == "fsspec" else f"pip install {package}"
            raise ConfigError(f"{url}: {scheme_of(url)}:// takes a package that is not installed: {install}") from None
        except ValueError as error:
            raise ConfigError(
                f"{url}: {reason_of(error)}, expected https, s3, gs, az, hf or another of fsspec"
            ) from None


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Whatever a file system raises, in one line. Each has errors of its own, so that every kind is taken."""
    try:
        yield
    except FlexiASTError:
        raise
    except FileNotFoundError:
        raise DataError(f"{url}: found no such file, or none that may be seen") from None
    except PermissionError as error:
        raise DataError(f"{url}: no permission to read it ({_reason(error)})") from None
    except Exception as error:
        raise Unreachable(f"{url}: not reachable ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
