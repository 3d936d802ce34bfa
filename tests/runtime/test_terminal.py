"""Names that could break or steer a terminal do neither, on terminals of any encoding."""

import io
import logging

import pytest

from flexiast.runtime.terminal import OneLineFormatter, make_tolerant, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("dog", "dog"),
        ("كلب 狗 é 👩‍👩‍👧", "كلب 狗 é 👩‍👩‍👧"),
        ("a\tb\nc\r", r"a\tb\nc\r"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\u2028b", r"a\u2028b"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("caf\udce9 \udc9b", "caf\udce9 \\x9b"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", "é 狗 ".encode() + b"\xe9"),
        ("latin-1", b"\xe9 \\u72d7 \xe9"),
        ("ascii", b"\\xe9 \\u72d7 \xe9"),
        ("cp1252", b"\xe9 \\u72d7 \xe9"),
    ],
)
def test_a_stream_takes_any_text(encoding: str, written: bytes) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    make_tolerant(stream)
    stream.write("é 狗 \udce9")
    stream.flush()
    assert raw.getvalue() == written


def test_a_line_of_the_log_is_one_line() -> None:
    record = logging.LogRecord("flexiast", logging.WARNING, "", 0, "%s", ("a\nb\x1b[2J.wav",), None)
    assert OneLineFormatter("flexiast: %(message)s").format(record) == r"flexiast: a\nb\x1b[2J.wav"
