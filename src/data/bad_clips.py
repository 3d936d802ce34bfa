"""How many unusable clips a job puts up with."""

from __future__ import annotations

FEW = 5
"""Unusable clips that are no reason to stop, however few clips there are: one broken file is not a broken data set."""


def allowed_bad(share: float, clips: int) -> int:
    """Unusable clips allowed among so many: that share, or a few if that is more, never over half; 0 allows none."""
    if share == 0:
        return 0
    return max(int(share * clips), min(FEW, clips // 2))
