"""Are time budgets kept? A ladder of budgets, and the 95th percentile of what clips then take on this machine."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

import flexiast
from flexiast.classifier.cascade import Rule
from flexiast.classifier.curve import Cascade, Curve, Point
from flexiast.classifier.latency import machine, measure_seconds
from flexiast.models.geometry import PAPER_SIZES

MODEL = Path(__file__).resolve().parents[1] / "pretrained_models" / "demo_flexible"


def with_times(model: flexiast.AudioClassifier) -> dict[str, float]:
    """Give the model a curve on which more tokens are better, with times measured now; returns the times."""
    sizes = [size for size in PAPER_SIZES if size.time <= model.feature_config.frames]
    costs = {size: model.config.flops(size) / 1e9 for size in sizes}
    points = [
        Point(s, model.config.grid(s).tokens, cost, min(0.99, 0.5 + cost), 1.0, 0, 0) for s, cost in costs.items()
    ]
    seconds = {str(size): t for size, t in measure_seconds(model, sizes).items()}
    cascade = Cascade(Rule((sizes[0],)), (1.0,), costs[sizes[0]], 0.5)
    curve = Curve("accuracy", 0, tuple(points), (cascade,), {machine(model.kernel.device): seconds})
    model.metadata["curve"] = curve.to_json()
    return seconds


def main() -> int:
    """Print a line for each budget; returns 1 if one is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--model", default=str(MODEL))
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = flexiast.load(options.model)
    seconds = with_times(model)
    clip = torch.randn(model.feature_config.samples) * 0.1
    limits = sorted({round(1.02e3 * t, 2) for t in seconds.values()})
    times: dict[float, list[float]] = {limit: [] for limit in limits}
    sizes = {limit: str(model.predict(clip, budget=f"{limit}ms").patch_sizes[0]) for limit in limits}
    for _ in range(options.clips):
        for limit, taken in times.items():  # in turn, so that what else the machine does falls on all of them
            start = time.perf_counter()
            model.predict(clip, budget=f"{limit}ms")
            taken.append(1e3 * (time.perf_counter() - start))
    kept = True
    for limit, taken in times.items():
        p50, p95 = np.percentile(taken, [50, 95])
        kept &= bool(p95 <= limit)
        print(f"budget {limit:8.2f} ms: patch {sizes[limit]:>3}, p50 {p50:7.2f} ms, p95 {p95:7.2f} ms")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
