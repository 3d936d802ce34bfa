"""Progress bars: on stderr, or as widgets in a notebook that can show them."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm
else:
    with warnings.catch_warnings():  # that the choice is experimental, and that a notebook has no ipywidgets
        warnings.simplefilter("ignore")
        from tqdm.autonotebook import tqdm  # what tqdm.auto takes, without asyncio

__all__ = ["is_quiet", "tqdm"]


def is_quiet() -> bool:
    """Whether only warnings are shown: by `--quiet`, and on ranks other than 0."""
    return logging.getLogger(__name__.partition(".")[0]).level > logging.INFO
