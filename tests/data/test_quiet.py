"""What libmpg123 writes to stderr is left out; what anybody else writes is not."""

import os
import threading

import pytest

from flexiast.data.quiet import without_library_warnings


def test_only_the_librarys_own_lines_are_left_out(capfd: pytest.CaptureFixture) -> None:
    with without_library_warnings():
        os.write(2, b"[src/libmpg123/parse.c:1] error: x\nWarning: Xing stream size off\nNote: resync\nours\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "ours\nafter\n"


def test_an_error_inside_gives_stderr_back(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="x"), without_library_warnings():
        raise ValueError("x")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_threads_take_turns(capfd: pytest.CaptureFixture) -> None:
    def work() -> None:
        for _ in range(50):
            with without_library_warnings():
                os.write(2, b"Note: x\n")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_in_the_meantime_has_its_own_stderr(capfd: pytest.CaptureFixture) -> None:
    with without_library_warnings():
        child = os.fork()
        if child == 0:
            with without_library_warnings():  # no lock is held in it
                pass
            os.write(2, b"child\n")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert capfd.readouterr().err == "child\n"
