"""What a user's mistake looks like: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from ..errors import FlexiASTError
from ..runtime.interruption import Interrupted
from ..traintest.stepper import is_out_of_memory

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command, run again, goes on


def guarded(action: Callable[[], object]) -> int:
    """Run and return the exit code; a user's mistake becomes one line on stderr, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names are bytes, which need not be UTF-8
    try:
        action()
    except Interrupted as error:
        print(f"flexiast: {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except FlexiASTError as error:
        print(f"flexiast: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"flexiast: error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 130
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0]
        print(
            f"flexiast: error: out of memory ({reason}); smaller batches or larger patches need less", file=sys.stderr
        )
        return EXIT_USER_ERROR
    return 0
