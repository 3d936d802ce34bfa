"""Progress bars: on stderr, or as widgets in a notebook that can show them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm
else:
    with warnings.catch_warnings():  # that the choice is experimental, and that a notebook has no ipywidgets
        warnings.simplefilter("ignore")
        from tqdm.autonotebook import tqdm  # what tqdm.auto takes, without asyncio

__all__ = ["tqdm"]
