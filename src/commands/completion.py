"""`flexiast --install-completion`: the tab key completes commands and options, in bash, zsh and fish."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from ..errors import ConfigError
from ..runtime.files import write_atomically

SHELLS = ("bash", "zsh", "fish")


def completion_script(commands: Sequence[str], shell: str) -> str:
    """The script that tyro writes for all these commands together. It imports them all, which takes seconds."""
    types: list[Any] = [
        Annotated[import_module(f".{name}", __package__).CONFIG, tyro.conf.subcommand(name)] for name in commands
    ]
    any_of_them: Any = Union[tuple(types)]  # noqa: UP007 (known only now)
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="tyro")  # AUTO stands in for numbers
        tyro.cli(any_of_them, prog="flexiast", args=["--tyro-print-completion", shell])
    return text.getvalue()


def install_completion(commands: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Write the script to where the shell looks for it; returns lines for people. arguments: the shell, or nothing.

    Raises ConfigError for a shell that is not known.
    """
    shell = arguments[0] if arguments else Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS or len(arguments) > 1:
        raise ConfigError(
            f"--install-completion: found {' '.join(arguments) or shell or 'no shell'}, expected one of"
            f" {', '.join(SHELLS)}"
        )
    home = Path.home()
    place = {
        "bash": home / ".local/share/bash-completion/completions/flexiast",
        "zsh": home / ".zfunc/_flexiast",
        "fish": home / ".config/fish/completions/flexiast.fish",
    }[shell]
    write_atomically(place, completion_script(commands, shell).encode())
    lines = [f"written: {place}; it works in new terminals"]
    if shell == "zsh":
        lines.append("if it does not, add to ~/.zshrc: fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit")
    return lines
