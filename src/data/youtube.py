"""File names that downloaders give to segments of YouTube videos."""

from __future__ import annotations

from functools import lru_cache


def youtube_stems(video: str, start: float, end: float) -> list[str]:
    """Possible file names, without suffix, of a segment (in seconds) of a YouTube video, the most specific first."""
    return [prefix + video + span for span in _spans(start, end) for prefix in ("", "Y")]


@lru_cache
def _spans(start: float, end: float) -> tuple[str, ...]:
    return (
        f"_{start:.3f}_{end:.3f}",
        f"_{start:g}_{end:g}",
        f"_{round(start * 1000)}_{round(end * 1000)}",
        f"_{start:06.0f}_{end:06.0f}",
        f"_{start:06.0f}",
        f"_{start:.3f}",
        f"_{start:g}",
        f"_{round(start * 1000)}",
        "",
    )
