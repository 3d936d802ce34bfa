"""Runs of the real command in a process group of their own, under torchrun or not, to be signalled and killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

TIMEOUT = 120
"""Seconds that anything here may take on a busy machine."""


def command(sounds: Path, out: Path, *options: str, ranks: int = 1) -> list[str]:
    """A run of a hundred steps with two decoding processes per rank, under torchrun where there are several ranks."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    module = ["-m", "flexiast.cli", "train", "--out", str(out), "--log", "none", "--device", "cpu", "--threads", "1"]
    data = ["--data.train", str(sounds / "train"), "--data.val", str(sounds / "val"), "--data.workers", "2"]
    model = ["--model.size", "micro", "--features.frames", "96", "--epochs", "10", "--eval-every", "10"]
    # Without `--` torchrun would take --log for an option of its own.
    return [*(launcher if ranks > 1 else [sys.executable]), module[0], *(["--"] if ranks > 1 else []), *module[1:],
            *data, *model, "--log-every", "1", *options]  # fmt: skip


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    """Start a command as the leader of a process group."""
    return subprocess.Popen(
        arguments,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def wait_for_lines(out: Path, lines: int, process: subprocess.Popen) -> None:
    """Wait until the log of a run has so many lines."""
    log = out / "train.jsonl"
    deadline = time.monotonic() + TIMEOUT
    while not log.exists() or log.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, f"{log} has not {lines} lines"
        time.sleep(0.05)


def processes(out: Path) -> list[int]:
    """Those with this run directory in their command line: launcher, ranks and decoding processes."""
    there = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.fsencode(out) in (entry / "cmdline").read_bytes().split(b"\0"):
                there.append(int(entry.name))
        except OSError:
            continue  # it has just ended
    return there


def ranks(launcher: int, out: Path) -> list[int]:
    """The processes of a run that its launcher has started."""
    parent = {pid: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1] for pid in processes(out)}
    return [pid for pid, its_parent in parent.items() if int(its_parent) == launcher]


def assert_all_end(out: Path, seconds: float = 30) -> None:
    """All processes of a run end within that time."""
    deadline = time.monotonic() + seconds
    while left := processes(out):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)
