"""Turn a user's mistake into one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import FlexiASTError
from ..runtime.interruption import Interrupted
from ..runtime.terminal import make_tolerant, printable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: running the same command again resumes
DEBUG = "FLEXIAST_DEBUG"
"""Environment variable: if it is 1, every error shows its traceback."""


def guarded(action: Callable[[], object]) -> int:
    """Run and return the exit code: the action's own if it returns one, else 0.

    A user's mistake becomes one line on stderr, unless FLEXIAST_DEBUG is 1; so does a standard output that takes no
    more, such as a file on a full disk.
    """
    make_tolerant(sys.stdout)  # file names are bytes, which need not be UTF-8; class names may be in any script
    if os.environ.get(DEBUG) == "1":
        return _code(action())
    code = _in_one_line(action)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        return _without_output(error, code)
    return code


def run_on_folder(work: Callable[[Path], str]) -> int:
    """Entry point of a script that takes one folder and prints what `work` makes of it; returns the exit code."""
    if len(sys.argv) != 2:
        print(f"usage: {Path(sys.argv[0]).name} EXP_DIR", file=sys.stderr)
        return EXIT_USER_ERROR
    return guarded(lambda: print(work(Path(sys.argv[1]))))


def _in_one_line(action: Callable[[], object]) -> int:
    try:
        return _code(action())
    except Interrupted as error:
        print(f"flexiast: {printable(error)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except FlexiASTError as error:
        return _complain(" ".join(str(error).splitlines()))
    except BrokenPipeError as error:
        return _without_output(error, 0)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if not _is_of_output(error):
            raise
        return _without_output(error, EXIT_USER_ERROR)
    except (MemoryError, RuntimeError) as error:
        from ..runtime.device import is_out_of_memory  # imports torch, so only when needed

        if not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0]
        return _complain(f"out of memory ({reason}); smaller batches or larger patches need less")


def _is_of_output(error: OSError) -> bool:
    """Whether this error, which names no file, comes from a standard output without room: it then takes nothing."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or error.filename is not None:
        return False
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except OSError:
        return True
    return False


def _without_output(error: OSError, code: int) -> int:
    """Give standard output up, or Python would try again at its end; returns the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # the reader of our output has closed it, such as `head`
        return code
    return _complain(f"standard output: not written ({error.strerror})")


def _code(result: object) -> int:
    return result if isinstance(result, int) else 0


def _complain(message: str) -> int:
    print(f"flexiast: error: {printable(message)}", file=sys.stderr)
    return EXIT_USER_ERROR
