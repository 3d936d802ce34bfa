"""Print untrusted text safely: names of files and classes may hold anything, and must not break or steer a terminal."""

from __future__ import annotations

import codecs
import io
import logging
import re
from typing import TextIO

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: newlines, tabs, the start of escape sequences
    "\u2028\u2029"  # line and paragraph separators
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that change the direction of the text after them
    "\udc80-\udc9f]"  # bytes of file names that are not UTF-8 and would be control characters in Latin-1
)


def printable(text: object) -> str:
    r"""The text in one line, with characters that could break or steer a terminal escaped: `\n`, `\x1b`, `\u202e`."""
    return _UNPRINTABLE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDC9F:
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")


def make_tolerant(stream: TextIO) -> None:
    """Let a stream accept any text: bytes of file names pass unchanged, characters outside its encoding escaped."""
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error("flexiast", _encoded)
        stream.reconfigure(errors="flexiast")


def _encoded(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    alone = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    handler = "surrogateescape" if "\udc80" <= character <= "\udcff" else "backslashreplace"
    return codecs.lookup_error(handler)(alone)


class OneLineFormatter(logging.Formatter):
    """Formats log lines so that nothing in them can break or steer a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without a traceback."""
        return printable(super().formatMessage(record))
