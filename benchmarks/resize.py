#!/usr/bin/env python3
"""PI-resize of a ViT-B patch kernel to every size of FlexiAST: one matrix per axis against timm's full pseudo-inverse.

python benchmarks/resize.py        writes benchmarks/results/resize.json and prints the ratios
"""

import json
import sys
import time
from pathlib import Path
from statistics import median

import torch
from timm.layers import resample_patch_embed

from flexiast.models.resize import cached_matrix, pi_resize
from flexiast.provenance import provenance

SIZES = (8, 10, 12, 20, 24, 30, 32, 40, 48)
ROUNDS = 5


def ours(kernel: torch.Tensor, cold: bool) -> list[torch.Tensor]:
    """All sizes; `cold` builds the matrices first, as the first step of a training does."""
    if cold:
        cached_matrix.cache_clear()
    return [pi_resize(kernel, size) for size in SIZES]


def timms(kernel: torch.Tensor) -> list[torch.Tensor]:
    """All sizes by timm at equal flags."""
    return [resample_patch_embed(kernel, [size, size], interpolation="bilinear", antialias=False) for size in SIZES]


def main() -> int:
    """Check that the results agree, then time the contenders in turns."""
    torch.set_num_threads(1)
    kernel = torch.randn(768, 1, 16, 16)
    worst = max(float((a - b).abs().max()) for a, b in zip(ours(kernel, True), timms(kernel), strict=True))
    if worst > 1e-3:
        print(f"resize.py: results differ by {worst:.2e}", file=sys.stderr)
        return 1
    contenders = {
        "one-axis, cold": lambda: ours(kernel, True),
        "one-axis, warm": lambda: ours(kernel, False),
        "timm": lambda: timms(kernel),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    rows = {
        name: {
            "median_ms": 1e3 * median(times),
            "fastest_ms": 1e3 * min(times),
            "slowest_ms": 1e3 * max(times),
            "times_faster_than_timm": median(seconds["timm"]) / median(times),
        }
        for name, times in seconds.items()
    }
    for name, row in rows.items():
        print(f"{name:16s} {row['median_ms']:8.2f} ms   {row['times_faster_than_timm']:7.1f} x timm")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    content = {"largest_difference": worst, "rows": rows, **provenance(torch.device("cpu"))}
    (results / "resize.json").write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
