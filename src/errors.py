"""Errors that a user can cause, and the checks that raise them.

The command line prints them as one line, without a traceback.
"""

from __future__ import annotations

import math
from typing import Any


class FlexiASTError(Exception):
    """Invalid user input. The message names it and says what was found and what was expected."""


class DataError(FlexiASTError):
    """A manifest, a label table or an audio file is unusable."""


class CheckpointError(FlexiASTError):
    """A checkpoint is unreadable, or its content does not match its description."""


class ConfigError(FlexiASTError):
    """A setting is out of range, or contradicts another one."""


class FileError(FlexiASTError):
    """A file or folder cannot be read or written: no permission, disk full, missing."""


class NotFetched(FlexiASTError):
    """A part of a data set that is streamed cannot be fetched or kept; unlike one clip, it cannot be left out."""


def require(condition: bool, field: str, found: object, expected: str) -> None:
    """Raise ConfigError, `field: found ..., expected ...`, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{field}: found {found}, expected {expected}")


def is_whole_number(value: Any) -> bool:
    """Whether a value is an int. True and False do not count."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite_number(value: Any) -> bool:
    """Whether a value is an int or a finite float. True and False do not count."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
