"""What ends in one line, what in a traceback."""

import errno

import pytest

from flexiast.commands.guard import DEBUG, guarded
from flexiast.errors import DataError, FileError
from flexiast.runtime.files import file_errors


def fail_with(error: Exception):
    def action() -> None:
        raise error

    return action


def test_an_error_of_the_user_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert guarded(fail_with(DataError("a.wav: found\nnothing"))) == 2
    assert capsys.readouterr().err == "flexiast: error: a.wav: found nothing\n"


def test_an_error_of_ours_is_not_blamed_on_the_user() -> None:
    with pytest.raises(OSError, match="of our own"):
        guarded(fail_with(OSError(errno.EIO, "of our own")))


def test_with_debug_every_error_ends_in_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(DataError, match="nothing"):
        guarded(fail_with(DataError("nothing")))


def test_what_the_system_refuses_names_the_file(tmp_path) -> None:
    with pytest.raises(FileError, match=f"{tmp_path}/none: No such file"), file_errors(tmp_path):
        (tmp_path / "none").read_bytes()
