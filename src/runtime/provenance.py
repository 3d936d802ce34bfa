"""Where a result comes from: commit, versions, hardware."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "torchaudio", "timm", "numpy")


def commit() -> str:
    """Commit of the source tree this package runs from, with `+changes` if files differ; `unknown` outside git.

    Changed benchmark results do not count, or each new result would mark the next one as changed.
    """
    tree = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(tree)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno", "--", ".", ":(exclude)benchmarks/results"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changed.strip() else "")


def hardware(device: torch.device) -> dict[str, Any]:
    """The CPU, and the GPU if it was used."""
    cpu = torch.cpu.get_capabilities().get("cpu_name", platform.processor())
    facts = {"cpu": cpu, "instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    return facts | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def provenance(device: torch.device) -> dict[str, Any]:
    """Commit, package versions and hardware, ready for JSON."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    return {"commit": commit(), "versions": versions, "hardware": hardware(device)}


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
