#!/usr/bin/env python3
"""How long the package and the command line take to start, against `import torch`, each in a fresh Python.

    python benchmarks/startup.py [--quick] [--rounds N]

`flexiast --help` and `--version` import nothing that only the commands need. `import flexiast` imports a name when it
is first used, so `flexiast.load` is timed too: it needs torch, timm, and what reads audio.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from harness import Report, arguments, run

PROGRAMS = {
    "import torch": "import torch",
    "import flexiast": "import flexiast",
    "flexiast --help": "import flexiast.cli; flexiast.cli.main(['--help'])",
    "flexiast --version": "import flexiast.cli; flexiast.cli.main(['--version'])",
    "import flexiast; flexiast.LogMel": "import flexiast; flexiast.LogMel",
    "import flexiast; flexiast.load": "import flexiast; flexiast.load",
}


def start(program: str) -> int:
    """Run a program in a fresh Python; returns its exit code."""
    return subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=False).returncode


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    report = Report("startup", arguments(__doc__, argv), rounds=15)
    report.agree("exit codes", [start(program) for program in PROGRAMS.values()], [0] * len(PROGRAMS), within=0)
    contenders = {name: lambda program=program: start(program) for name, program in PROGRAMS.items()}
    report.race("a fresh Python until it ends", contenders, against="import torch")
    report.finish()


if __name__ == "__main__":
    run(main)
