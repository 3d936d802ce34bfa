#!/usr/bin/env python3
"""Are time budgets kept? What `predict` takes within round budgets on this machine, with one CPU thread and with two.

    python benchmarks/budget.py [--quick] [--rounds N] [--threads N] [--model DIR]

The sizes' times are measured anew with each number of threads, on a curve on which more tokens are better; then all
budgets take turns. A budget is kept if 95 % of the passes keep within it. One that no size can keep is told as such.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from harness import Report, arguments, run

import flexiast
from flexiast.classifier.cascade import Rule
from flexiast.classifier.curve import Cascade, Curve, Point
from flexiast.classifier.latency import machine, measure_seconds
from flexiast.errors import ConfigError
from flexiast.models.geometry import PAPER_SIZES

MODEL = Path(__file__).resolve().parents[1] / "pretrained_models" / "demo_flexible"
BUDGETS = (2, 5, 10, 20, 50)
"""Milliseconds."""
THREADS = (1, 2)


def add_curve(model: flexiast.AudioClassifier, sizes: Sequence[flexiast.PatchSize]) -> None:
    """Give the model a curve on which more tokens are better, with times measured now."""
    costs = {size: model.config.flops(size) / 1e9 for size in sizes}
    most = max(costs.values())
    points = [
        Point(s, model.config.grid(s).tokens, cost, 0.5 + 0.4 * cost / most, 1.0, 0, 0) for s, cost in costs.items()
    ]
    seconds = measure_seconds(model, sizes).to_json()
    cascade = Cascade(Rule((sizes[0],)), (1.0,), costs[sizes[0]], 0.5)
    curve = Curve("accuracy", 0, tuple(points), (cascade,), {machine(model.kernel.device): seconds})
    model.metadata["curve"] = curve.to_json()


def within_budgets(report: Report, model: flexiast.AudioClassifier, finest: flexiast.PatchSize) -> None:
    """Time one clip within each budget; a fact for each says what was chosen and whether it was kept."""
    clip = torch.randn(model.feature_config.samples, generator=torch.Generator().manual_seed(0)) * 0.1
    group, choices, contenders = f"threads: {torch.get_num_threads()}", {}, {}
    within_a_minute, alone = (
        model.predict(clip, **how, top_k=1) for how in ({"budget": "60s"}, {"patch_size": finest})
    )
    report.agree(f"60 s, {group}", within_a_minute[0].score, alone[0].score, within=1e-6)
    for limit in BUDGETS:
        try:
            choices[limit] = str(model.predict(clip, budget=f"{limit}ms").patch_sizes[0])
        except ConfigError:  # no size is that fast
            continue
        contenders[f"{limit} ms"] = partial(model.predict, clip, budget=f"{limit}ms")
    if contenders:
        report.race(group, contenders, against=next(iter(contenders)))
    p95 = {row["contender"]: row["p95_ms"] for row in report.rows if row["group"] == group}
    for limit in BUDGETS:
        taken = p95.get(f"{limit} ms")
        kept = None if taken is None else taken <= limit
        report.facts[f"{limit} ms, {group}"] = {"patch_size": choices.get(limit), "p95_ms": taken, "kept": kept}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    options = arguments(__doc__, argv, model=(str, str(MODEL), "model directory"))
    report = Report("budget", options, rounds=100)
    model = flexiast.load(options.model, device=options.device)
    sizes = [size for size in PAPER_SIZES if size.time <= model.feature_config.frames][-2 if options.quick else 0 :]
    # Times of other days, which are kept in the user's cache, have no say.
    with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, XDG_CACHE_HOME=cache):
        for threads in [options.threads] if options.threads else THREADS:
            torch.set_num_threads(threads)
            add_curve(model, sizes)
            within_budgets(report, model, sizes[0])
    report.finish()


if __name__ == "__main__":
    run(main)
