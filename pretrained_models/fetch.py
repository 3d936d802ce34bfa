"""Fetch released checkpoints: `python pretrained_models/fetch.py ast_audioset_16_16 flexiast_vggsound`.

A file is downloaded whole or not at all, checked by size and SHA-256 where they are known, and then read, which runs
none of its code. `flexiast.load("ast_audioset_16_16")` finds it from then on. Sources are listed in README.md beside
this script and in `flexiast.checkpoints.released`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from flexiast.checkpoints.released import FOLDER, RELEASES, obtain
from flexiast.commands.guard import guarded
from flexiast.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""

    def run(names: tyro.conf.Positional[tuple[str, ...]], out: Path = FOLDER) -> None:
        """Fetch released checkpoints and read them.

        names: which ones, see README.md. out: directory for the files.
        """
        if unknown := set(names) - RELEASES.keys() or not names:
            raise ConfigError(f"names: found {unknown if names else 'none'}, expected some of {', '.join(RELEASES)}")
        for name in names:
            path, digest, checkpoint = obtain(name, out)
            print(f"{checkpoint.report}\n{path}: SHA-256 {digest}")

    return guarded(lambda: tyro.cli(run, args=argv, prog="fetch.py"))


if __name__ == "__main__":
    sys.exit(main())
