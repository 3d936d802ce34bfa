"""Pack the clips of a manifest into tar shards, which WebDataset and `read_manifest` can read."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import ConfigError, DataError
from ..runtime.bars import tqdm
from ..runtime.files import replacing, require_no_results, to_json_text, write_atomically
from .audio import check_audio
from .bad_clips import BadClips
from .clips import Clip, Clips
from .manifest import Manifest, read_manifest
from .shards import FORMAT, INDEX, ShardMember, read_shards

BAD_FILES = "bad_files.csv"


def pack(
    manifest: Manifest,
    out: Path,
    shard_size: float = 500.0,
    shuffle: int | None = None,
    progress: bool = True,
    max_bad: float = 0.0,
    overwrite: bool = False,
) -> Manifest:
    """Write the shards and, last, their index; returns the manifest of the shards.

    Every clip is decoded to its end. shard_size: megabytes (10^6 bytes). shuffle: seed to shuffle the clips with first.
    max_bad: share of the clips that may be unusable, with a floor; these are logged, left out, and listed in
    bad_files.csv beside the index. overwrite: replace the shards that are there. Raises DataError beyond that,
    ConfigError if `out` already holds an index and is not to be overwritten, or holds the clips themselves.
    """
    if manifest.clips.values is not None:
        raise ConfigError(f"{manifest.source}: found numbers to predict, expected classes, which are what shards hold")
    require_no_results(out, (INDEX,), overwrite)
    earlier = _withdraw(out, manifest)
    order = np.arange(len(manifest))
    if shuffle is not None:
        order = np.random.default_rng(shuffle).permutation(order)
    bad = BadClips(manifest.source, len(manifest), max_bad)
    clips = tqdm(manifest.clips.take(order), unit="clip", desc="pack", disable=not progress)
    packed, shards = _write_shards(out, _usable(clips, bad), shard_size * 1e6, manifest)
    for tar in earlier - {out / shard["file"] for shard in shards}:
        tar.unlink(missing_ok=True)
    if not packed:
        raise DataError(f"{manifest.source}: found no usable clip")
    index = {
        "format": FORMAT,
        "source": str(manifest.source),
        "clips": len(packed),
        "fingerprint": dataclasses.replace(manifest, clips=Clips.of(packed)).fingerprint,
        "labels": dataclasses.asdict(manifest.labels),
        "shards": shards,
    }
    if bad:
        bad.write(out / BAD_FILES)
    write_atomically(out / INDEX, to_json_text(index).encode())
    return read_manifest(out)


def _withdraw(out: Path, manifest: Manifest) -> set[Path]:
    """Take away the index of earlier shards, which would not fit new ones; returns these shards."""
    if not (out / INDEX).exists():
        return set()
    earlier = {member.shard for member in read_shards(out).members}
    own = {tar.resolve() for tar in manifest.clips.paths.tars if isinstance(tar, Path)}
    if any(shard.resolve() in own for shard in earlier):
        raise ConfigError(f"out: {out} holds the shards to be packed, expected another folder")
    (out / INDEX).unlink()
    return earlier


def _usable(clips: Iterable[Clip], bad: BadClips) -> Iterator[tuple[Clip, bytes]]:
    """The clips that can be decoded, with the bytes of their files."""
    for clip in clips:
        try:
            check_audio(clip.path, whole=True)
            yield clip, _content(clip)
        except DataError as error:
            bad.add(clip, error)


def _content(clip: Clip) -> bytes:
    if isinstance(clip.path, ShardMember):
        with clip.path.open() as file:
            return file.read()
    try:
        return clip.path.read_bytes()
    except OSError as error:
        raise DataError(f"{clip.path}: not readable ({error.strerror})") from None


def _write_shards(
    out: Path, usable: Iterator[tuple[Clip, bytes]], max_bytes: float, manifest: Manifest
) -> tuple[list[Clip], list[dict[str, Any]]]:
    """Write tars of at most `max_bytes`, or of a single clip; returns the clips and the index's list of shards."""
    packed: list[Clip] = []
    shards: list[dict[str, Any]] = []
    following = next(usable, None)
    while following:
        path, size = out / f"{len(shards):06d}.tar", 0
        columns: dict[str, list[Any]] = {"offsets": [], "sizes": [], "names": [], "classes": []}
        with replacing(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            while following and (size == 0 or size + len(following[1]) <= max_bytes):
                _add_clip(tar, file, columns, *following, len(packed), manifest)
                packed.append(following[0])
                size += len(following[1])
                following = next(usable, None)
        shards.append({"file": path.name, "bytes": path.stat().st_size, **columns})
    return packed, shards


def _add_clip(
    tar: tarfile.TarFile,
    file: BinaryIO,
    columns: dict[str, list[Any]],
    clip: Clip,
    content: bytes,
    number: int,
    manifest: Manifest,
) -> None:
    """Add a clip and its labels to a tar, and to the columns of its index entry."""
    name = "/".join(clip.path.parts[-2:])
    columns["offsets"].append(_add(tar, file, f"{number:09d}{Path(name).suffix.lower()}", content))
    columns["sizes"].append(len(content))
    columns["names"].append(name)
    columns["classes"].append(list(clip.classes))
    labels = {"name": name, "labels": [manifest.labels.mids[c] for c in clip.classes]}
    _add(tar, file, f"{number:09d}.json", to_json_text(labels).encode())


def _add(tar: tarfile.TarFile, file: BinaryIO, name: str, content: bytes) -> int:
    """Add a member, reproducibly (no time, no owner); returns the offset of its content."""
    start = file.tell() + tarfile.BLOCKSIZE  # one header block, because names are short
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    return start
