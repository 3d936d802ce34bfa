"""A training on two ranks with decoding processes, disturbed for as long as you like: the end must be the same.

    python -m tests.soak --minutes 60

The run is done once in peace. Then it is done again, and every half a minute something happens to it: a rank, the
launcher or a decoding process is killed, all are told to stop, a decoding process is frozen, files may not grow (a full
disk), a clip is away when it is started, or it is started again beside ranks whose launcher is gone. Whatever ends it,
the same command is given again. Weights and losses must be those of the first run, bit for bit; the memory of ranks and
decoding processes must not grow by more than a tenth within a life; and the run must last as long as it is disturbed.
In the end a third run loses a clip while it trains: it must name it and go on to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import flexiast
from tests.sounds import write_folder

RANKS = 2
KINDS = (
    "kill rank",
    "kill launcher",
    "kill worker",
    "stop group",
    "freeze worker",
    "full disk",
    "start beside launcher",
)
MISSING = "missing clip"
EPOCHS_PER_MINUTE = 100
MOST_GROWTH = 1.1
"""Of the memory within a life."""


def command(data: Path, out: Path, epochs: int) -> list[str]:
    """The run: as many steps as take the time asked for, and states often enough to lose little."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    options = f"--out {out} --data.train {data / 'train'} --data.val {data / 'val'} --data.workers 2 --data.timeout 10"
    options += " --model.size micro --features.frames 96 --precision fp32 --device cpu --threads 1 --log none"
    options += f" --epochs {epochs} --eval-every {epochs / 4} --save-every 20 --log-every 1"
    return [*torchrun, "-m", "--", "flexiast.cli", "train", *options.split()]


def start(arguments: list[str], log: Path, largest_file: int | None = None) -> subprocess.Popen:
    """Start in a process group of its own; largest_file: bytes that files may have, as if the disk were full."""

    def limit() -> None:
        if largest_file is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    with open(log, "ab") as file:
        return subprocess.Popen(arguments, start_new_session=True, stdout=file, stderr=file, preexec_fn=limit)


def processes(out: Path) -> dict[str, list[int]]:
    """The launcher, ranks and decoding processes of a run, by parentage."""
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.fsencode(out) in (entry / "cmdline").read_bytes().split(b"\0"):
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has just ended
    depth = {pid: sum(1 for _ in ancestors(pid, parents)) for pid in parents}
    return {name: [p for p, d in depth.items() if d == n] for n, name in enumerate(("launcher", "rank", "worker"))}


def ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    """Those of a process that belong to the run."""
    while (pid := parents[pid]) in parents:
        yield pid


def memory(pid: int) -> float:
    """Resident memory of a process in MB, 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * resource.getpagesize() / 1e6


def disturb(kind: str, process: subprocess.Popen, out: Path, rng: random.Random) -> None:
    """Do it, as soon as there is a process to do it to."""
    if kind == "stop group":
        os.killpg(process.pid, signal.SIGTERM)
        return
    number = signal.SIGSTOP if kind == "freeze worker" else signal.SIGKILL  # of what the kind's last word names
    victims = list[int]()
    while not victims and process.poll() is None:
        time.sleep(0.1)
        victims = processes(out).get(kind.split()[-1], [])
    if victims:
        os.kill(rng.choice(victims), number)


def hide_a_clip(data: Path, rng: random.Random) -> tuple[Path, Path]:
    """Take a clip away; returns where it was and where it is. A start must refuse the data without it."""
    clip = rng.choice(sorted((data / "train").rglob("*.wav")))
    hidden = data / "hidden"
    clip.rename(hidden)
    return clip, hidden


def wait_until_gone(out: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while any(processes(out).values()):
        if time.monotonic() > deadline:
            raise SystemExit(f"processes left after {seconds:g} s: {processes(out)}")
        time.sleep(0.1)


def grown(life: list[float]) -> float:
    """Growth of a life's memory, from its second quarter to its last one; 1 for lives of less than 15 s."""
    quarter = len(life) // 4
    return max(life[-quarter:]) / max(life[quarter : 2 * quarter]) if len(life) > 30 else 1.0


def live(process: subprocess.Popen, out: Path, seconds: float, growth: dict[str, float]) -> None:
    """Let a run live for so long, and note in `growth` the largest growth of memory by kind of process."""
    end = time.monotonic() + seconds
    seen: dict[str, list[float]] = {"rank": [], "worker": []}
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.5)
        there = processes(out)
        for kind, sizes in seen.items() if there["worker"] else ():  # it trains
            sizes.append(max(map(memory, there[kind]), default=0.0))
    for kind, sizes in seen.items():
        growth[kind] = max(growth.get(kind, 1.0), grown(sizes))


def soak(data: Path, out: Path, arguments: list[str], minutes: float, rng: random.Random) -> dict[str, Any]:
    """Disturb the run for so many minutes, then let it end; returns what was done and seen."""
    done: Counter[str] = Counter()
    growth: dict[str, float] = {}
    log, end = out.with_suffix(".log"), time.monotonic() + 60 * minutes
    while True:
        kinds = (*KINDS, MISSING) if (out / "checkpoints").exists() else KINDS  # a clip that is missed must be known
        kind = rng.choice(kinds) if time.monotonic() < end else None
        clip = hide_a_clip(data, rng) if kind == MISSING else None
        process = start(arguments, log, 200_000 if kind == "full disk" else None)
        live(process, out, rng.uniform(10, 40) if kind else float("inf"), growth)
        if kind not in (None, "full disk", MISSING) and process.poll() is None:
            disturb(kind, process, out, rng)
        code = process.wait(None if kind is None else 600)
        if clip:
            clip[1].rename(clip[0])
        if kind != "start beside launcher":
            wait_until_gone(out)
        done[f"{kind or 'undisturbed'}: exit {code}"] += 1
        print(f"{kind or 'undisturbed'}: exit {code}", flush=True)
        if code == 0 and time.monotonic() < end:
            raise SystemExit(f"the run ended before {minutes:g} minutes were over; give it more --epochs")
        if code == 0:
            return {"lives": dict(done), "growth of memory": {kind: round(most, 3) for kind, most in growth.items()}}


def goes_on_without(data: Path, out: Path) -> bool:
    """Whether a run that loses a clip while it trains names it and comes to its end."""
    process = start(command(data, out, 20), out.with_suffix(".log"))
    while not ((out / "train.jsonl").exists() and losses(out)):
        if process.poll() is not None:
            return False
        time.sleep(0.1)
    clip = sorted((data / "train").rglob("*.wav"))[0]
    clip.unlink()
    return process.wait(600) == 0 and str(clip) in (out / "bad_files.csv").read_text()


def losses(out: Path) -> list[tuple[int, float]]:
    records = map(json.loads, (out / "train.jsonl").read_text().splitlines())
    return [(record["step"], record["loss"]) for record in records if "loss" in record]


def main() -> int:
    parser = argparse.ArgumentParser(description="Disturb a training, and compare it with one that is left in peace.")
    parser.add_argument("--minutes", type=float, default=60, help="how long the run is disturbed")
    parser.add_argument("--epochs", type=int, help="length of the run, 10 steps each (default: 100 for each minute)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--beside", action="store_true", help="do the undisturbed run beside the other, not before it")
    options = parser.parse_args()
    epochs = options.epochs or max(20, round(EPOCHS_PER_MINUTE * options.minutes))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        peaceful = data / "peaceful"  # with clips of its own, which nobody takes away
        for there in (data, peaceful):
            write_folder(there / "train", 20, seed=0)
            write_folder(there / "val", 5, seed=1)
        whole, out = data / "whole", data / "disturbed"
        peace = start(command(peaceful, whole, epochs), whole.with_suffix(".log"))
        if not options.beside and peace.wait():
            raise SystemExit(whole.with_suffix(".log").read_text()[-2000:])
        seen = soak(data, out, command(data, out, epochs), options.minutes, random.Random(options.seed))
        if peace.wait():
            raise SystemExit(whole.with_suffix(".log").read_text()[-2000:])
        expected = flexiast.load(whole).state_dict()
        same = all(torch.equal(tensor, expected[name]) for name, tensor in flexiast.load(out).state_dict().items())
        checks = {
            "equal weights": same,
            "equal losses": losses(whole) == losses(out),
            "flat memory": all(most <= MOST_GROWTH for most in seen["growth of memory"].values()),
            "goes on without a clip": goes_on_without(data, data / "lost"),
        }
        print(json.dumps(seen | checks, indent=1))
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
