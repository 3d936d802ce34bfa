"""What all benchmarks share: outputs compared first, contenders timed in turns, results as table and JSON."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from flexiast.runtime.provenance import provenance

RESULTS = Path(__file__).parent / "results"


class Disagreement(Exception):
    """Contenders whose outputs differ: their times must not be compared."""


def arguments(description: str | None, argv: Sequence[str] | None, **more: tuple[type, Any, str]) -> argparse.Namespace:
    """The options every benchmark has, and `more` of its own as name = (type, default, help)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes and two rounds, only to see that it works")
    parser.add_argument("--rounds", type=int, help="times each contender is timed")
    parser.add_argument("--threads", type=int, help="CPU threads (default: see each benchmark)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, help="folder of the results (default: benchmarks/results; quick: none)")
    for name, (kind, default, text) in more.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (default: {default})")
    return parser.parse_args(argv)


class Report:
    """The course of one benchmark: `agree`, then `race`, as often as needed, then `finish`."""

    def __init__(self, name: str, options: argparse.Namespace, rounds: int, threads: int | None = None) -> None:
        """rounds, threads: where the options do not say."""
        self.name, self.options = name, options
        self.rounds = options.rounds or (2 if options.quick else rounds)
        self.device = torch.device(options.device)
        if chosen := options.threads or threads:
            torch.set_num_threads(chosen)
        self.checks: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    def agree(self, what: str, first: Any, second: Any, within: float) -> None:
        """Note the largest difference of two outputs; raises Disagreement if it is above `within`."""
        first, second = (torch.as_tensor(x).detach().cpu().double() for x in (first, second))
        difference = float((first - second).abs().max()) if first.shape == second.shape else float("inf")
        if not difference <= within:
            raise Disagreement(f"{self.name}: {what}: outputs differ by {difference:.2e}, expected at most {within}")
        self.checks.append({"what": what, "difference": difference, "limit": within})

    def race(
        self,
        group: str,
        contenders: Mapping[str, Callable[[], Any]],
        against: str,
        rounds: int | None = None,
        warm_up: bool = True,
    ) -> dict[str, float]:
        """Time the contenders in turns and note a row for each; returns how many times faster each is than `against`.

        That ratio is the median over rounds of the two times of one round, which what else the machine does hits alike.
        warm_up: one more round before, which does not count. Only what a check of `agree` was made for can be timed.
        """
        if not self.checks:
            raise Disagreement(f"{self.name}: {group} is to be timed before its outputs are compared")
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(1 - warm_up, (rounds or self.rounds) + 1):
            for name, run in contenders.items():
                taken = self._seconds(run)
                if number:
                    seconds[name].append(taken)
        ratios = {}
        for name, times in seconds.items():
            ratios[name] = median(theirs / ours for theirs, ours in zip(seconds[against], times, strict=True))
            self.rows.append(
                {
                    "group": group,
                    "contender": name,
                    "median_ms": 1e3 * median(times),
                    "fastest_ms": 1e3 * min(times),
                    "p95_ms": 1e3 * sorted(times)[math.ceil(0.95 * len(times)) - 1],
                    "slowest_ms": 1e3 * max(times),
                    "against": against,
                    "times_faster": ratios[name],
                }
            )
        return ratios

    def _seconds(self, run: Callable[[], Any]) -> float:
        self._synchronise()
        start = time.perf_counter()
        run()
        self._synchronise()
        return time.perf_counter() - start

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def content(self) -> dict[str, Any]:
        """All that is known, ready for JSON."""
        source = provenance(self.device)
        source["versions"] |= {name: version(name) for name in ("scikit-learn", "soundfile")}
        options = {name: value for name, value in vars(self.options).items() if name != "out"}
        return {
            "benchmark": self.name,
            "options": options,
            "rounds": self.rounds,
            "checks": self.checks,
            "rows": self.rows,
            "facts": self.facts,
            **source,
        }

    def finish(self) -> None:
        """Print the table and write NAME.json."""
        print(f"\n{self.name}: median (fastest to slowest) in ms over {self.rounds} rounds")
        width = max((len(row["contender"]) for row in self.rows), default=0)
        for group in dict.fromkeys(row["group"] for row in self.rows):
            print(f"  {group}")
            for row in (row for row in self.rows if row["group"] == group):
                spread = f"({row['fastest_ms']:.2f} to {row['slowest_ms']:.2f})"
                ratio = f"{row['times_faster']:.2f} x {row['against']}"
                print(f"    {row['contender']:{width}s} {row['median_ms']:10.2f} {spread:24s} {ratio}")
        for name, value in self.facts.items():
            print(f"  {name}: {value}")
        out = self.options.out or (None if self.options.quick else RESULTS)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{self.name}.json").write_text(json.dumps(self.content(), indent=1) + "\n")


def run(main: Callable[[], None]) -> None:
    """Call a script's main; contenders that disagree are one line and exit code 1."""
    try:
        main()
    except Disagreement as error:
        sys.exit(f"error: {error}")
