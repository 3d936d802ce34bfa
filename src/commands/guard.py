"""Turn a user's mistake into one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..errors import FlexiASTError
from ..runtime.interruption import Interrupted
from ..runtime.terminal import make_tolerant, printable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: running the same command again resumes
DEBUG = "FLEXIAST_DEBUG"
"""Environment variable: if it is 1, every error shows its traceback."""


def guarded(action: Callable[[], object]) -> int:
    """Run the action and return the exit code; a user's mistake becomes one line on stderr, unless FLEXIAST_DEBUG=1."""
    make_tolerant(sys.stdout)  # file names may not be UTF-8, class names may be in any script
    if os.environ.get(DEBUG) == "1":
        action()
        return 0
    try:
        action()
    except Interrupted as error:
        print(f"flexiast: {printable(error)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except FlexiASTError as error:
        return _complain(" ".join(str(error).splitlines()))
    except BrokenPipeError:  # the reader of our output has closed it, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (MemoryError, RuntimeError) as error:
        from ..runtime.device import is_out_of_memory  # imports torch, so only when needed

        if not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0]
        return _complain(f"out of memory ({reason}); smaller batches or larger patches need less")
    return 0


def _complain(message: str) -> int:
    print(f"flexiast: error: {printable(message)}", file=sys.stderr)
    return EXIT_USER_ERROR
