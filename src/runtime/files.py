"""Write files atomically, and turn the system's errors into one line."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ConfigError, FileError, FlexiASTError


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn any OSError inside into a FileError that names the file (`path` if the system names none)."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(f"{error.filename or path}: {error.strerror or error}") from error


@contextmanager
def told_as(out: Path, part: Path) -> Iterator[None]:
    """Let an error about a file in `part`, a temporary place, name the place in `out` that it was made for."""
    try:
        yield
    except FlexiASTError as error:
        raise type(error)(str(error).replace(str(part), str(out))) from error


def unfinished(path: Path) -> Path:
    """A name for what will become `path`, beside it, that no other process and no other call uses."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which replaces `path` once it is complete and on the disk.

    A reader sees either the old content or the new, never a part of it. If anything fails, the old content stays and
    the new is removed. A killed process leaves a file *.part, which nothing reads; no two processes use the same
    name for it. Raises FileError if the file cannot be written.
    """
    part = unfinished(path)
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)


def make_folder_once(folder: Path, fill: Callable[[Path], object]) -> None:
    """Make a folder that appears only once it is whole: `fill` writes to a temporary one beside it.

    One that is there already, or that another process makes meanwhile, is left as it is. Raises OSError.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"part-{folder.name}-", dir=folder.parent))  # no pattern of `folder` finds it
    try:
        fill(part)
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def growing(path: Path, kept: Callable[[], bool], tail: str = "") -> Iterator[Callable[[str], None]]:
    """Give a function that appends text, and has it on its way to the disk when it returns.

    Text goes straight to a file *.part, see `unfinished`, which is renamed to `path` at the end. This also happens
    after an error or Ctrl-C, so the results so far are kept, if `kept` says so then; `tail` ends the file in any case.
    Raises FileError if the file cannot be written.
    """
    part = unfinished(path)
    with file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:

            def add(text: str) -> None:
                with file_errors(path):
                    file.write(text)
                    file.flush()

            try:
                yield add
            finally:
                try:
                    file.write(tail)
                    file.flush()
                    os.fsync(file.fileno())
                finally:  # the results so far are kept on a full disk too
                    if kept():
                        os.replace(part, path)
                    else:
                        part.unlink()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path` with `data`, see `replacing`."""
    with replacing(path) as file:
        file.write(data)


_ESCAPED = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that could steer a terminal, and halves of characters, which UTF-8 has not."""


def to_json_text(value: Any, indent: int | None = None) -> str:
    """JSON that every parser reads, names in their own letters: infinity and NaN, which JSON has not, become null."""
    text = json.dumps(_finite(value), indent=indent, allow_nan=False, ensure_ascii=False)
    return _ESCAPED.sub(lambda character: f"\\u{ord(character[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def require_new(out: Path, overwrite: bool, ours: Collection[str] = ()) -> None:
    """Raise ConfigError if writing to `out` would replace something, unless `overwrite`. An empty folder is fine.

    ours: names of the files in a folder of the kind to be written. A folder that holds anything else is never replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise ConfigError(f"{out}: exists already, expected a new name, or --overwrite to replace it")
    if out.is_dir() and (others := sorted(path.name for path in out.iterdir() if path.name not in ours)):
        raise ConfigError(f"{out}: holds other files too ({others[0]}), expected nothing but a model to overwrite")


def require_no_results(out: Path, names: Collection[str], overwrite: bool) -> None:
    """Raise ConfigError if a folder holds one of these files already, unless they may be overwritten."""
    if not overwrite and (there := next((out / name for name in names if (out / name).exists()), None)):
        raise ConfigError(f"{there}: exists already, expected another folder, or --overwrite to replace it")


def put_in_place(new: Path, out: Path) -> None:
    """Rename a finished file or folder to `out`, replacing what `require_new` allowed to be replaced."""
    if out.is_dir():
        old = out.with_name(out.name + ".old")
        os.replace(out, old)
        os.replace(new, out)
        shutil.rmtree(old)
    else:
        os.replace(new, out)


def remove_leftovers(directory: Path) -> None:
    """Remove unfinished files of killed processes. No other process may be writing here."""
    for part in directory.glob("*.part"):
        with contextlib.suppress(OSError):
            part.unlink()


def require_writable(directory: Path) -> None:
    """Make the directory. Raise ConfigError now, rather than after the work, if nothing can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"out: {directory} is not writable ({error.strerror})") from None


def _sync_directory(directory: Path) -> None:
    """Make sure that the renaming itself is on the disk (Windows has no way to do so)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
