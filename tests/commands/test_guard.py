"""What ends in one line, what in a traceback."""

import errno
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flexiast import cli
from flexiast.commands.guard import DEBUG, guarded, run_on_folder
from flexiast.errors import DataError, FileError
from flexiast.runtime.files import file_errors
from flexiast.runtime.terminal import OneLineFormatter


def fail_with(error: Exception):
    def action() -> None:
        raise error

    return action


def test_an_error_of_the_user_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert guarded(fail_with(DataError("a.wav: found\nnothing"))) == 2
    assert capsys.readouterr().err == "flexiast: error: a.wav: found nothing\n"


def test_memory_that_onednn_does_not_get_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert guarded(fail_with(RuntimeError("could not create a primitive\nat frame 1"))) == 2
    assert capsys.readouterr().err == (
        "flexiast: error: out of memory (could not create a primitive); smaller batches or larger patches need less\n"
    )


def test_an_error_of_ours_is_not_blamed_on_the_user() -> None:
    with pytest.raises(OSError, match="of our own"):
        guarded(fail_with(OSError(errno.EIO, "of our own")))


@pytest.mark.parametrize("text", ["short", "long" * 100_000])
def test_an_output_that_takes_no_more_is_one_line(text: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert guarded(lambda: print(text)) == 2
        assert capsys.readouterr().err == "flexiast: error: standard output: not written (No space left on device)\n"


def test_the_shell_is_told_of_an_output_that_takes_no_more() -> None:
    with open("/dev/full", "w") as full:
        for option in ("--version", "--help"):
            command = [sys.executable, "-m", "flexiast.cli", option]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
            line = "flexiast: error: standard output: not written (No space left on device)\n"
            assert (done.returncode, done.stderr) == (2, line)


def test_with_debug_every_error_ends_in_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(DataError, match="nothing"):
        guarded(fail_with(DataError("nothing")))


def test_what_the_system_refuses_names_the_file(tmp_path) -> None:
    with pytest.raises(FileError, match=f"{tmp_path}/none: No such file"), file_errors(tmp_path):
        (tmp_path / "none").read_bytes()


def test_control_characters_of_file_names_do_not_reach_the_terminal(capsys: pytest.CaptureFixture) -> None:
    assert guarded(fail_with(DataError("\x1b[2Ja\x07\x9b.wav: found nothing"))) == 2
    assert capsys.readouterr().err == "flexiast: error: \\x1b[2Ja\\x07\\x9b.wav: found nothing\n"
    record = logging.LogRecord("flexiast", logging.WARNING, "", 0, "replaced: %s\tx\n", ("\x1b]0;t\x07",), None)
    assert OneLineFormatter("flexiast: %(message)s").format(record) == "flexiast: replaced: \\x1b]0;t\\x07\\tx\\n"


def test_ctrl_c_while_torch_is_imported_ends_the_program_as_any_other() -> None:
    # A shell starts background jobs with SIGINT ignored.
    as_in_a_terminal = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    import_ = "with cli._ended_by_ctrl_c(): signal.raise_signal(signal.SIGINT)"
    done = subprocess.run(
        [sys.executable, "-c", f"{as_in_a_terminal}\nfrom flexiast import cli\n{import_}"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")
    before = signal.getsignal(signal.SIGINT)
    with cli._ended_by_ctrl_c():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_a_script_on_a_folder_takes_one_and_prints_what_it_makes_of_it(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["egs/average.py", "exp"])
    assert run_on_folder(lambda folder: f"made of {folder!r}") == 0
    assert capsys.readouterr().out == f"made of {Path('exp')!r}\n"
    monkeypatch.setattr(sys, "argv", ["egs/average.py"])
    assert run_on_folder(lambda folder: pytest.fail("ran")) == 2
    assert capsys.readouterr().err == "usage: average.py EXP_DIR\n"
