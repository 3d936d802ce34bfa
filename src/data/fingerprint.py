"""A fingerprint of the contents of some clips, to notice when they have changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .manifest import Manifest
from .pieces import StreamedClip
from .shards import ShardMember

SAMPLE = 64
"""Number of clips to read, evenly spread over the manifest."""
_PIECE = 1 << 16
"""Bytes to read at the start, in the middle and at the end of each."""


def contents_fingerprint(manifest: Manifest) -> str:
    """SHA-256 over pieces of the files of up to 64 clips; a file that cannot be read counts as missing.

    Of a stream nothing is read: it takes what the parquet files say of the clips' row groups. `Manifest.fingerprint`
    covers only names and sizes, which stay the same if, say, all clips are filtered or scaled.
    """
    digest = hashlib.sha256()
    count = min(SAMPLE, len(manifest))
    for place in range(count):
        digest.update(content_hash(manifest.clips[place * len(manifest) // count].path))
    return digest.hexdigest()


def content_hash(path: Path | ShardMember) -> bytes:
    """SHA-256 over the pieces of one clip's file, which is all of it up to 192 KiB; `missing` if it cannot be read."""
    if isinstance(path, StreamedClip):
        return path.piece.digest.encode()
    shard, offset = (path.shard, path.offset) if isinstance(path, ShardMember) else (path, 0)
    try:
        size = path.size if isinstance(path, ShardMember) else os.stat(path).st_size
        with open(shard, "rb") as file:
            pieces = []
            for start in (0, size // 2, max(0, size - _PIECE)):
                file.seek(offset + start)
                pieces.append(file.read(min(_PIECE, size - start)))
    except OSError:
        return b"missing"
    return hashlib.sha256(b"".join(pieces)).digest()
