"""Data at an address, fetched once to a cache and then used as the local files they are.

A file lies in the cache in a folder of its own, named by its address and its version (ETag or date, and size). One that
has changed is therefore fetched anew, and a run that still reads the old one is not disturbed. Several files of an
address are a folder of further names (hard links) of them.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..errors import DataError, FileError
from ..runtime.bars import is_quiet, tqdm
from ..runtime.files import make_folder_once
from ..runtime.lock import locked
from .prepare.download import Unreachable
from .remote import RemoteFile, address_of, copy, is_address, name_of, remote_files, scheme_of
from .shards import INDEX, read_index

logger = logging.getLogger(__name__)

CACHE = "FLEXIAST_CACHE"
"""Environment variable with the folder of the cache."""


@contextmanager
def as_local(source: Path) -> Iterator[Path]:
    """The local file or folder of a source, fetched first if it is at an address; a DataError inside names the address.

    A server is asked once in a process, which so sees one version; if it cannot be reached, what was fetched earlier is
    used, with a warning. Raises DataError, naming the address, for what is not there, not allowed, broken off (run
    again, it goes on) or changed meanwhile; ConfigError if the package for the scheme is missing; FileError if the
    cache has no room or is not writable.
    """
    if not is_address(source):
        yield source
        return
    url = address_of(source)
    if scheme_of(url) in ("file", "local"):
        yield Path("/", url.partition("://")[2])
        return
    path = _local(url, cache_folder())
    try:
        yield path
    except DataError as error:
        raise type(error)(str(error).replace(str(path), url)) from None


def cache_folder() -> Path:
    """The folder named by FLEXIAST_CACHE, else `flexiast/data` in the user's cache."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flexiast" / "data"
    return Path(os.environ.get(CACHE) or usual).absolute()


@functools.lru_cache
def _local(url: str, cache: Path) -> Path:
    """The file or folder in the cache."""
    try:
        files = [file for one in remote_files(url) for file in [one, *_shards_beside(one, cache)]]
    except Unreachable as error:
        earlier = _fetched_earlier(url, cache)
        if earlier is None:
            raise
        day = time.strftime("%Y-%m-%d", time.localtime(earlier.stat().st_mtime))
        logger.warning("%s; what was fetched on %s is used: %s", error, day, earlier)
        return earlier
    _require_room(url, files, cache)
    paths = [_in_cache(file, cache) for file in files]
    return paths[0] if [file.url for file in files] == [url] else _linked(url, files, paths, cache)


def _shards_beside(index: RemoteFile, cache: Path) -> list[RemoteFile]:
    """The tars that an index of shards names, if this is one. What is wrong in it, `read_shards` says."""
    if index.name != INDEX:
        return []
    _require_room(index.url, [index], cache)
    path = _in_cache(index, cache)
    try:
        shards = read_index(path).get("shards")
    except DataError as error:
        raise DataError(str(error).replace(str(path), index.url)) from None
    names = [shard.get("file") for shard in shards if isinstance(shard, dict)] if isinstance(shards, list) else []
    beside = [name for name in names if isinstance(name, str) and PurePosixPath(name).name == name]
    return [file for name in beside for file in remote_files(f"{index.url.rpartition('/')[0]}/{name}")]


def _fetched_earlier(url: str, cache: Path) -> Path | None:
    """What was fetched last from this address, whole."""
    found = []
    for folder in cache.glob(f"{_short(url)}-*"):
        inside = [path.name for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
        if inside and inside != [INDEX]:
            found.append(folder / inside[0] if inside == [name_of(url)] else folder)
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _require_room(url: str, files: Sequence[RemoteFile], cache: Path) -> None:
    """Make the cache, and tell what is still to be fetched. Raises FileError if it cannot be made, or has no room."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
    except OSError as error:
        raise _unwritable(cache, error) from None
    missing = [file.size or 0 for file in files if not _place(file, cache).exists()]
    needed, there = (tqdm.format_sizeof(size, "B") for size in (sum(missing), free))
    if sum(missing) > free:
        raise FileError(
            f"{cache}: found {there} free, expected {needed} for {url}; make room, or say"
            f" with {CACHE} where there is some"
        )
    if missing:
        logger.info("%s: fetched once, %d of %d files (%s), to %s", url, len(missing), len(files), needed, cache)


def _place(file: RemoteFile, cache: Path) -> Path:
    return cache / f"{_short(file.url)}-{_short(f'{file.size} {file.version}')}" / file.name


def _in_cache(file: RemoteFile, cache: Path) -> Path:
    """The file's copy, which appears only when it is whole. Of several processes one fetches, the others wait."""
    path = _place(file, cache)
    if path.exists():
        return path
    try:
        path.parent.mkdir(exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "Permission denied", str(path.parent))
        with locked(path.parent, wait=True):
            if not path.exists():
                _fetch(file, path)
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    return path


def _fetch(file: RemoteFile, path: Path) -> None:
    """Fetch to `part/`, taking up what was broken off there; rename what is whole and still the same version."""
    whole = path.parent / "part" / path.name
    whole.parent.mkdir(exist_ok=True)
    bar = functools.partial(tqdm, unit="B", unit_scale=True, leave=False, disable=is_quiet())
    before = remote_files(file.url)  # a listing may spell the version otherwise
    copy(file, whole, bar)
    if remote_files(file.url) != before:
        shutil.rmtree(whole.parent)
        raise DataError(f"{file.url}: has changed while it was fetched; run this again")
    os.replace(whole, path)
    whole.parent.rmdir()


def _linked(url: str, files: Sequence[RemoteFile], paths: Sequence[Path], cache: Path) -> Path:
    """A folder with these files."""
    names = [file.name for file in files]
    if len(set(names)) < len(names):  # from several folders
        shared = os.path.commonpath([file.url for file in files])
        names = [os.path.relpath(file.url, shared).replace("/", "-") for file in files]
    versions = "\n".join(f"{name} {path.parent.name}" for name, path in zip(names, paths, strict=True))
    folder = cache / f"{_short(url)}-{_short(versions)}"

    def fill(part: Path) -> None:
        for name, path in zip(names, paths, strict=True):
            _link(path, part / name)

    try:
        make_folder_once(folder, fill)
    except OSError as error:
        raise _unwritable(cache, error) from None
    return folder


def _link(path: Path, link: Path) -> None:
    """A second name of a file, or a copy where the file system has none."""
    try:
        os.link(path, link)
    except OSError:
        shutil.copyfile(path, link)


def _unwritable(folder: Path, error: OSError) -> FileError:
    reason = error.strerror or error
    return FileError(f"{error.filename or folder}: not writable ({reason}); say with {CACHE} where there is room")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
