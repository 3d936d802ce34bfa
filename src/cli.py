"""The entry point: lists the commands, and imports the one that was asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import import_module

from . import __version__

COMMANDS: dict[str, str] = {
    "train": "train a fixed or a flexible model, or resume an interrupted run",
    "flexify": "make a trained model flexible, and show its curve before and after",
    "measure": "measure models at many patch sizes in one pass over the data",
    "curve": "measure what each patch size gives and costs, for budgets and cascades",
    "predict": "name the sounds in audio files",
    "events": "find sounds in a long recording or a stream, with start and end",
    "embed": "write embeddings of audio files, per clip or over time",
    "score": "write the scores of every clip to a file, to distil from",
    "bench": "time a model at many patch sizes on this machine",
    "export": "write one patch size for ONNX Runtime, transformers or PyTorch",
    "convert": "convert any readable checkpoint into our own format",
    "demo": "serve a page on this machine that hears a sound at any patch size",
    "doctor": "find what is wrong with an installation, a data set, a checkpoint or a run",
    "report": "write a run and its results into one web page",
    "stats": "measure the mean and standard deviation of a data set, for normalisation",
    "pack": "pack the clips of a data set into tar shards",
}
"""What each `flexiast COMMAND` does; the code is in the module `flexiast.commands.COMMAND`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `flexiast`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        return _print(usage())
    if name in ("-V", "--version"):
        return _print(f"flexiast {__version__}")
    if name == "--install-completion":
        return _install_completion(arguments[1:])
    if name not in COMMANDS:
        given = f"found command {name!r}" if name else "found no command"
        print(f"flexiast: error: {given}, expected one of {', '.join(COMMANDS)}; see flexiast --help", file=sys.stderr)
        return 2
    return run_command(name, arguments[1:], f"flexiast {name}")


def usage() -> str:
    """The text of `flexiast --help`; needs no heavy import."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: flexiast COMMAND [OPTIONS]",
            "",
            "commands:",
            *lines,
            "",
            "flexiast COMMAND --help lists its options. --config FILE reads them from a TOML or JSON file.",
            "flexiast --install-completion [bash|zsh|fish] lets the tab key complete them in new terminals.",
        ]
    )


def _print(*lines: str) -> int:
    from .commands.guard import guarded

    return guarded(lambda: print(*lines, sep="\n"))


def _install_completion(arguments: Sequence[str]) -> int:
    from .commands.completion import install_completion
    from .commands.guard import guarded

    return guarded(lambda: print(*install_completion(list(COMMANDS), arguments), sep="\n"))


def run_command(name: str, arguments: Sequence[str], program: str) -> int:
    """Read a command's arguments and run it; returns the exit code. program: its name in messages."""
    with _ended_by_ctrl_c():
        from .commands.command_line import read_arguments
        from .commands.guard import guarded
        from .runtime.output import show

        command = import_module(f".commands.{name}", __package__)

    def run() -> object:
        config = read_arguments(command.CONFIG, arguments, program)
        _log_to_stderr(config.quiet)
        start = time.perf_counter()
        outcome = command.run(config)
        if outcome is None:
            return 0
        show(outcome, config, time.perf_counter() - start)
        if outcome.failure:
            raise outcome.failure
        return outcome.exit_code

    return guarded(run)


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """During the imports, let Ctrl-C end the program at once, without a traceback from inside torch."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _log_to_stderr(quiet: bool) -> None:
    """Send the package's log to stderr; if quiet, and on ranks other than 0, warnings only."""
    from .runtime.terminal import OneLineFormatter

    rank = os.environ.get("RANK", "0")
    handler = logging.StreamHandler(_BesideBars())
    handler.setFormatter(OneLineFormatter("flexiast: %(message)s" if rank == "0" else f"flexiast[{rank}]: %(message)s"))
    logger = logging.getLogger("flexiast")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if rank == "0" and not quiet else logging.WARNING)


class _BesideBars:
    """A stream to stderr that does not break progress bars."""

    def write(self, text: str) -> None:
        from .runtime.bars import tqdm

        if text := text.rstrip("\n"):
            tqdm.write(text, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


def measure_main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `measure_flexibility.py`; returns the exit code."""
    return run_command("measure", list(sys.argv[1:] if argv is None else argv), "measure_flexibility.py")


if __name__ == "__main__":
    sys.exit(main())
