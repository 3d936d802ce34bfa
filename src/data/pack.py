"""The clips of a manifest into tar shards that WebDataset and `read_manifest` read."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from ..errors import ConfigError, DataError
from ..runtime.files import replacing, write_atomically
from .audio import check_audio
from .manifest import Clip, Manifest, read_manifest
from .shards import FORMAT, INDEX, ShardMember


def pack(
    manifest: Manifest, out: Path, shard_size: float = 500.0, shuffle: int | None = None, progress: bool = True
) -> Manifest:
    """Write the shards, and last their index; returns the manifest as read from there.

    shard_size: megabytes (10^6 bytes). shuffle: seed to shuffle the clips with first. Raises DataError at the first
    clip that is no audio, ConfigError if `out` already holds an index.
    """
    if (out / INDEX).exists():
        raise ConfigError(f"out: {out / INDEX} already exists; choose another folder")
    order = np.arange(len(manifest))
    if shuffle is not None:
        order = np.random.default_rng(shuffle).permutation(order)
    clips = [manifest.clips[i] for i in order]
    shards: list[dict[str, Any]] = []
    with tqdm(total=len(clips), unit="clip", desc="pack", disable=not progress) as bar:
        first = 0
        for taken in _split([_size(clip) for clip in clips], shard_size * 1e6):
            name = f"{len(shards):06d}.tar"
            shard = _write_shard(out / name, clips[first : first + taken], first, manifest)
            shards.append({"file": name, "bytes": (out / name).stat().st_size, **shard})
            first += taken
            bar.update(taken)
    index = {
        "format": FORMAT,
        "source": str(manifest.source),
        "clips": len(clips),
        "fingerprint": dataclasses.replace(manifest, clips=tuple(clips)).fingerprint,
        "labels": dataclasses.asdict(manifest.labels),
        "shards": shards,
    }
    write_atomically(out / INDEX, json.dumps(index).encode())
    return read_manifest(out)


def _split(sizes: Sequence[int], most: float) -> Iterator[int]:
    """How many clips go into each shard, in order."""
    taken, total = 0, 0
    for size in sizes:
        if taken and total + size > most:
            yield taken
            taken, total = 0, 0
        taken, total = taken + 1, total + size
    yield taken


def _size(clip: Clip) -> int:
    if isinstance(clip.path, ShardMember):
        return clip.path.size
    try:
        return os.stat(clip.path).st_size
    except OSError as error:
        raise DataError(f"{clip.path}: not readable ({error.strerror})") from None


def _write_shard(path: Path, clips: Sequence[Clip], first: int, manifest: Manifest) -> dict[str, list[Any]]:
    """Write one tar; returns the columns of the index. Members are numbered on from `first`."""
    columns: dict[str, list[Any]] = {"offsets": [], "sizes": [], "names": [], "classes": []}
    with replacing(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, clip in enumerate(clips, start=first):
            check_audio(clip.path)
            name = "/".join(clip.path.parts[-2:])
            content = clip.path.open().read() if isinstance(clip.path, ShardMember) else clip.path.read_bytes()
            columns["offsets"].append(_add(tar, file, f"{number:09d}{Path(name).suffix.lower()}", content))
            columns["sizes"].append(len(content))
            columns["names"].append(name)
            columns["classes"].append(list(clip.classes))
            labels = {"name": name, "labels": [manifest.labels.mids[c] for c in clip.classes]}
            _add(tar, file, f"{number:09d}.json", json.dumps(labels).encode())
    return columns


def _add(tar: tarfile.TarFile, file: BinaryIO, name: str, content: bytes) -> int:
    """Add a member, the same bytes for the same content; returns where its content starts."""
    start = file.tell() + tarfile.BLOCKSIZE  # one header block: names are short
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    return start
