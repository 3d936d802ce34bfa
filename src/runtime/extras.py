"""Packages that only some features need: imported when they are used."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import ConfigError


def optional(module: str, extra: str) -> Any:
    """Import an optional package. Raises ConfigError, which names the extra to install, if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module}: not installed ({error}), expected the packages of the extra `{extra}`"
            f" (pip install '.[{extra}]')"
        ) from None
