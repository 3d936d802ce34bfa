#!/usr/bin/env python3
"""How long the package and the command line take to start, against `import torch`, each in a fresh Python.

    python benchmarks/startup.py [--quick] [--rounds N]

`flexiast --help` and `--version` import nothing that only the commands need. `import flexiast` imports a name when it
is first used, so `flexiast.load` is timed too: it needs torch, timm, and what reads audio. From a cold start to the
classes of one file, with the same weights: `flexiast predict`; transformers' pipeline on our export; and the least that
either can do, `import torch` and reading the weights.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness import Report, arguments, run

import flexiast
from flexiast.export.export import export

PROGRAMS = {
    "import torch": "import torch",
    "import flexiast": "import flexiast",
    "flexiast --help": "import flexiast.cli; flexiast.cli.main(['--help'])",
    "flexiast --version": "import flexiast.cli; flexiast.cli.main(['--version'])",
    "import flexiast; flexiast.LogMel": "import flexiast; flexiast.LogMel",
    "import flexiast; flexiast.load": "import flexiast; flexiast.load",
}


ROOT = Path(__file__).resolve().parents[1]
MODEL, SOUND = ROOT / "pretrained_models" / "demo_flexible", ROOT / "notebooks" / "seven.wav"
LEAST = "import torch, read the weights"


def answering(exported: Path) -> dict[str, str]:
    """Programs that name the sound in a file, and the least that they all do."""
    predict = ["predict", str(MODEL), str(SOUND), "--patch-size", "16"]
    weights = str(MODEL / "model.safetensors")
    return {
        LEAST: f"import torch; from safetensors.torch import load_file; load_file({weights!r})",
        "flexiast predict": f"import flexiast.cli; flexiast.cli.main({predict!r})",
        "transformers' pipeline": (
            "import soundfile; from transformers import pipeline;"
            f"pipe = pipeline('audio-classification', {str(exported)!r}, device='cpu');"
            f"print(pipe(soundfile.read({str(SOUND)!r}, dtype='float32')[0]))"
        ),
    }


def start(program: str) -> int:
    """Run a program in a fresh Python; returns its exit code."""
    return subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    report = Report("startup", arguments(__doc__, argv), rounds=15)
    report.agree("exit codes", [start(program) for program in PROGRAMS.values()], [0] * len(PROGRAMS), within=0)
    contenders = {name: partial(start, program) for name, program in PROGRAMS.items()}
    report.race("a fresh Python until it ends", contenders, against="import torch")
    with tempfile.TemporaryDirectory() as folder:
        export(flexiast.load(MODEL), Path(folder) / "hf", "hf", 16)
        programs = answering(Path(folder) / "hf")
        report.agree("exit codes of answers", [start(program) for program in programs.values()], [0] * 3, within=0)
        contenders = {name: partial(start, program) for name, program in programs.items()}
        report.race("from a cold start to the classes of a file", contenders, against=LEAST)
    report.finish()


if __name__ == "__main__":
    run(main)
