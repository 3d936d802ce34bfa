"""A fingerprint of the contents of some clips, to notice when they have changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .manifest import Manifest
from .shards import ShardMember

SAMPLE = 64
"""Number of clips to read, evenly spread over the manifest."""
_PIECE = 1 << 16
"""Bytes to read at the start, in the middle and at the end of each."""


def contents_fingerprint(manifest: Manifest) -> str:
    """SHA-256 over pieces of the files of up to 64 clips; a file that cannot be read counts as missing.

    `Manifest.fingerprint` covers only names and sizes, which stay the same if, say, all clips are filtered or scaled.
    """
    digest = hashlib.sha256()
    count = min(SAMPLE, len(manifest))
    for place in range(count):
        digest.update(_pieces(manifest.clips[place * len(manifest) // count].path))
    return digest.hexdigest()


def _pieces(path: Path | ShardMember) -> bytes:
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
