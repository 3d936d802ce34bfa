"""WebDataset tars that someone else has written: for each key an audio file and its label in .cls, .txt or .json.

The tars are read through once for the places of their members; after that a clip is drawn as from our own shards.
"""

from __future__ import annotations

import glob
import json
import logging
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import DataError
from .labels import composed, reason_of
from .shards import ShardMember
from .suffixes import AUDIO_SUFFIXES

logger = logging.getLogger(__name__)
LABEL_SUFFIXES = (".cls", ".txt", ".json")
"""In the order in which they are looked for."""
FIELDS = ("labels", "label", "classes", "class", "class_name", "category", "cls", "tag", "tags")
"""Fields of a .json that may hold the labels, in the order in which they are looked for."""
LONGEST_LABEL = 1 << 20
"""Bytes of a label member; larger ones are no labels."""
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


class Sample(NamedTuple):
    """A clip in a tar, and its labels as texts."""

    member: ShardMember
    labels: tuple[str, ...]


def expanded(pattern: str) -> list[str]:
    """The texts that `{000..012}` and `{a,b}` stand for, in order."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last, words = match.groups()
    if words is None:
        step = 1 if int(first) <= int(last) else -1
        words = ",".join(str(number).zfill(len(first)) for number in range(int(first), int(last) + step, step))
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [text for word in words.split(",") for text in expanded(before + word + after)]


def tars_of(source: Path) -> list[Path]:
    """The tars that a data set consists of: a .tar file, those of a pattern (`part-{000..012}.tar`, `part-*.tar`), or
    those in a folder without sub-folders; else none.
    """
    if source.suffix.lower() == ".tar" and source.is_file():
        return [source]
    if source.suffix.lower() == ".tar" and not source.is_dir():
        names = expanded(str(source))
        if len(names) == 1 and not glob.has_magic(names[0]):
            return []
        return [Path(path) for name in names for path in (sorted(glob.glob(name)) if glob.has_magic(name) else [name])]
    if not source.is_dir() or any(path.is_dir() for path in source.iterdir() if not path.name.startswith(".")):
        return []
    return sorted(path for path in source.iterdir() if path.suffix.lower() == ".tar")


def read_webdataset(source: Path) -> list[Sample]:
    """Every clip of the tars, in order; samples without audio are left out and counted.

    Raises DataError that names the tar and the sample at fault: a damaged tar, a clip without a label, a label that
    cannot be read.
    """
    samples: list[Sample] = []
    without_audio = 0
    for tar in tars_of(source):
        keys = _members(tar)
        for key, members in keys.items():
            audio = [suffix for suffix in members if suffix in AUDIO_SUFFIXES]
            if not audio:
                without_audio += 1
                continue
            label_suffix = next((suffix for suffix in LABEL_SUFFIXES if suffix in members), None)
            if label_suffix is None:
                raise DataError(
                    f"{tar}: {key} has no label, expected a member that ends in {', '.join(LABEL_SUFFIXES)}"
                )
            with members[label_suffix].open() as file:
                labels = _labels(f"{tar}: {key}{label_suffix}", file.read(LONGEST_LABEL), label_suffix)
            samples.append(Sample(members[audio[0]], labels))
    if without_audio:
        logger.warning("%s: %d samples without audio are left out", source, without_audio)
    if not samples:
        raise DataError(f"{source}: found no clips in its tars, expected audio files with .cls, .txt or .json")
    return samples


def _members(tar: Path) -> dict[str, dict[str, ShardMember]]:
    """By key and by suffix, where the members lie. The key is the name up to its first dot, folders included."""
    keys: dict[str, dict[str, ShardMember]] = {}
    try:
        size = tar.stat().st_size
        with tarfile.open(tar, "r:") as archive:
            for info in archive:
                if info.sparse is not None:
                    raise DataError(
                        f"{tar}: {info.name} is stored without its holes, expected all of its bytes; pack it anew"
                        " without tar's --sparse"
                    )
                if not info.isfile():
                    continue
                path = PurePosixPath(info.name)
                stem, dot, suffix = path.name.partition(".")
                if not stem or not dot:
                    continue
                if info.offset_data + info.size > size:
                    raise DataError(f"{tar}: ends inside {info.name}, expected {info.size} bytes of it")
                name = "/".join(PurePosixPath(tar.stem, *path.parts).parts[-2:])
                member = ShardMember(tar, info.offset_data, info.size, name)
                keys.setdefault(str(path.with_name(stem)), {})[f".{suffix.lower()}"] = member
    except (OSError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{tar}: not readable as a WebDataset tar ({reason_of(error)})") from None
    return keys


def _labels(where: str, content: bytes, suffix: str) -> tuple[str, ...]:
    try:
        text = content.decode("utf-8-sig").strip()
        value: Any = json.loads(text) if suffix == ".json" else text
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not readable as a label ({error})") from None
    if isinstance(value, dict):
        field = next((name for name in FIELDS if name in value), None)
        if field is None:
            raise DataError(f"{where}: found fields {', '.join(value)[:200]}, expected one of {', '.join(FIELDS)}")
        value = value[field]
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, (str, int)) and not isinstance(item, bool) and str(item).strip() for item in items):
        raise DataError(f"{where}: found {str(value)[:80]!r}, expected text, a number, or a list of them")
    return tuple(dict.fromkeys(composed(str(item).strip()) for item in items))
