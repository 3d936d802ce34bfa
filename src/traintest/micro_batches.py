"""Cut a batch into micro-batches that fit the memory, by clips and by tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..models.config import FlexiASTConfig
from ..models.geometry import PatchSize


def token_counts(config: FlexiASTConfig, patch: PatchSize, frames: Sequence[int]) -> list[int]:
    """Tokens, with the prefix, of clips of so many frames each; one shorter than a patch is padded to a whole one."""
    counts = {
        length: config.grid(patch, max(length, patch.time)).tokens + config.prefix_tokens for length in set(frames)
    }
    return [counts[length] for length in frames]


def cut(tokens: Sequence[int], most_clips: int, token_budget: int = 0) -> Iterator[slice]:
    """Consecutive parts of a batch whose clips have so many tokens each.

    A part has at most `most_clips` clips and `token_budget` tokens (0: no limit), but at least one clip.
    """
    start, held = 0, 0
    for clip, count in enumerate(tokens):
        full = clip - start == most_clips or (token_budget and held + count > token_budget)
        if full and clip > start:
            yield slice(start, clip)
            start, held = clip, 0
        held += count
    if start < len(tokens):
        yield slice(start, len(tokens))
