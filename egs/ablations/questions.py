#!/usr/bin/env python3
"""One question about flexible training at a time: a few ways to train, from the same start, at equal FLOPs.

    python egs/ablations/questions.py QUESTION START --train TRAIN --val VAL --out DIR [--seeds 0 1 2] [--epochs 3]

START is a fixed-patch model; TRAIN and VAL are what `flexiast train` takes. --epochs is the length of the published
procedure (nine sizes drawn uniformly, supervised); every arm trains for as many steps as cost the same FLOPs, or its
`share` of them. Log-mel is computed once and kept in memory, the rest is the product's own code; `draws.py` repeats the
draws with `flexiast train` itself. Only validation data are used. DIR gets results.csv, one row per arm, seed and size,
and QUESTION.png, light and dark; what is in results.csv is not trained again. A table with mean and standard error over
seeds is printed. RESULTS.md has what we found.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from draws import NINE, UNSEEN, cell, read_rows, write_rows
from quick import Arm, Clips, accuracies, train_arm
from tried import LossDriven, Sandwich, by_area, two_draws
from variants import VARIANTS

import flexiast
from flexiast import PatchSize
from flexiast.commands.guard import guarded
from flexiast.errors import ConfigError
from flexiast.reports.flexibility import draw_by_size
from flexiast.reports.pictures import Picture, picture
from flexiast.traintest.patch_draws import coarse_to_fine, equal_cost, uniform
from flexiast.traintest.patch_plan import FLEXIBLE_DROPOUT, fitting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG = tuple(PatchSize.parse(size) for size in ("8x48", "48x8", "16x48", "48x16"))
"""Rectangles, mel bins x frames, as far from a square as training goes."""
logger = logging.getLogger(__name__)
GROUPS = {"nine sizes": NINE, "unseen sizes": UNSEEN, "rectangles": LONG}
SINGLE = tuple(PatchSize(side, side) for side in (8, 12, 16, 24, 32, 48))
RECTANGLES, LARGER = (
    tuple(PatchSize(freq, time) for freq in range(8, most + 1) for time in range(8, most + 1)) for most in (48, 56)
)
WIDE = tuple(PatchSize(side, side) for side in (8, 16, 32, 48))
STRIPS = tuple(PatchSize(128, side) for side in range(1, 25))
"""Patches over all mel bins, as many frames wide."""

PUBLISHED = Arm(sizes=NINE, draw=uniform)
COARSE = Arm()
SQUARES_AND_RECTANGLES = Arm(sizes=RECTANGLES, draw=coarse_to_fine, square_share=0.5)
HALF = dataclasses.replace(SQUARES_AND_RECTANGLES, dropout=0.5)
DEFAULT = dataclasses.replace(SQUARES_AND_RECTANGLES, dropout=FLEXIBLE_DROPOUT)
QUESTIONS: dict[str, dict[str, Arm]] = {
    "compute": {
        "published": PUBLISHED,
        "uniform": Arm(draw=uniform),
        "equal cost": Arm(draw=equal_cost),
        "side^1.0": Arm(draw=by_area(1.0)),
        "coarse: side^1.6": COARSE,
        "side^2.4": Arm(draw=by_area(2.4)),
        "side^2 to side^0": Arm(draw=by_area(2.0, 0.0)),
        "coarse to fine: side^2.5 to side^-0.5": Arm(draw=coarse_to_fine),
        "side^3 to side^-1": Arm(draw=by_area(3.0, -1.0)),
        "loss-driven": Arm(sampler=LossDriven),
    },
    "sizes": {
        "nine, coarse": Arm(sizes=NINE),
        "every integer, log-uniform": Arm(draw=by_area(-1.0)),
        "rectangles, coarse": Arm(sizes=RECTANGLES),
        "rectangles, coarse to fine": Arm(sizes=RECTANGLES, draw=coarse_to_fine),
        "half squares, half rectangles, coarse": Arm(sizes=RECTANGLES, square_share=0.5),
        "half squares, half rectangles, coarse to fine": SQUARES_AND_RECTANGLES,
        "rectangles and strips, coarse": Arm(sizes=(*RECTANGLES, *STRIPS)),
    },
    "balance": {
        f"{name}, side^{begin} to side^{end}": Arm(sizes=RECTANGLES, draw=by_area(begin, end), square_share=share)
        for name, share in (("half squares", 0.5), ("three quarters squares", 0.75))
        for begin, end in ((2.5, -0.5), (2.5, 0.5), (2.0, 0.0))
        if (name, end) != ("half squares", -0.5)
    },
    "two draws": {
        f"{begin:.0%} to {end:.0%} coarse, the rest by side^{fine}": Arm(
            sizes=RECTANGLES, draw=two_draws(begin, end, fine), square_share=0.5
        )
        for begin, end, fine in ((1.0, 0.5, -0.5), (1.0, 0.5, -1.5), (0.8, 0.6, -1.5), (1.0, 0.7, -3.0))
    },
    "patches": {
        f"patch dropout {dropout:g}": dataclasses.replace(SQUARES_AND_RECTANGLES, dropout=dropout)
        for dropout in (0.3, 0.5, FLEXIBLE_DROPOUT)
    }
    | {"sizes from 8 to 56": dataclasses.replace(DEFAULT, sizes=LARGER)},
    "parts": {
        "2 sizes in a batch": Arm(parts=2),
        "4 sizes in a batch": Arm(parts=4),
        "sandwich": Arm(sampler=Sandwich),
        "coarser learns from finer": Arm(parts=2, ties="twins"),
        "learns from its average at 16": Arm(ties="self"),
        "learns from the start at 16": Arm(ties="teacher"),
        "learns from the start at 16, on file": Arm(ties="teacher", free_teacher=True),
    },
    "forgetting": {
        "learning rate 3e-4": Arm(lr=3e-4),
        "learning rate 2e-3": Arm(lr=2e-3),
        "Muon": Arm(optimizer="muon"),
        "moving average": Arm(average=0.1),
        "drop path 0.1": Arm(drop_path=0.1),
        "SpecAugment, one patch": Arm(mask=1.0),
        "SpecAugment, two patches": Arm(mask=2.0),
    },
    "start": {
        name: dataclasses.replace(DEFAULT, network={}, begin=begin, share=3.0)
        for name, begin in {
            "from scratch": None,
            "a third at 16 alone, then flexible": PatchSize(16, 16),
            "a third at 32 alone, then flexible": PatchSize(32, 32),
        }.items()
    },
    "conditioning": {name: Arm(variant=name) for name in VARIANTS},
    "coverage": {"drop, positions stretched": Arm(coverage="drop")},
    "frontier": {
        f"{name}, {times} x": dataclasses.replace(arm, share=times)
        for times in (1, 3, 9)
        for name, arm in {
            "published": PUBLISHED,
            "coarse to fine": SQUARES_AND_RECTANGLES,
            "default": DEFAULT,
            "patch dropout 0.5": HALF,
        }.items()
    },
    "width": {
        f"width {width}, {name}": dataclasses.replace(arm, network={"width": width, "heads": width // 32}, share=1.5)
        for width in (64, 96, 192)
        for name, arm in {"flexible": DEFAULT, **{str(size): Arm(sizes=(size,)) for size in WIDE}}.items()
    },
    "fixed widths": {
        f"width {width}, patch {side} alone": Arm(
            sizes=(PatchSize(side, side),), network={"width": width, "heads": width // 32}, grows=False, share=4.8
        )
        for side in (16, 32)
        for width in (64, 192)
    },
    "specialists": {str(size): Arm(sizes=(size,)) for size in NINE},
    "specialists, a ninth": {f"{size}, a ninth": Arm(sizes=(size,), share=1 / 9) for size in NINE},
}


def answer(arms: Mapping[str, Arm], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train what results.csv does not have yet, and return the rows of these arms and seeds."""
    start = flexiast.load(options.start)
    published = [size for size in NINE if size in fitting(NINE, start)]
    train, val = Clips.read(options.train, start), Clips.read(options.val, start)
    costs = [start.config.flops(size, start.feature_config.frames) for size in published]
    flops = 3 * options.epochs * len(train.targets) * mean(costs)
    rows = read_rows(options.out / "results.csv")
    for seed in options.seeds:
        for name, arm in arms.items():
            if any(
                (row["arm"], str(row["seed"]), float(row["epochs"])) == (name, str(seed), options.epochs)
                for row in rows
            ):
                continue
            arm = dataclasses.replace(arm, sizes=fitting(arm.sizes, start))
            outcome = train_arm(arm, start, train, flops, seed)
            measured = arm.sizes if len(arm.sizes) == 1 else fitting((*NINE, *UNSEEN, *LONG), start)
            about = {"arm": name, "seed": seed, "epochs": options.epochs, "steps": outcome.steps,
                     "tflops": f"{outcome.tflops:.3f}", "cpu_seconds": round(outcome.seconds)}  # fmt: skip
            scores = dict(accuracies(outcome.model, val, measured))
            rows += [about | {"patch_size": size, "accuracy": f"{one:.4f}"} for size, one in scores.items()]
            options.out.mkdir(parents=True, exist_ok=True)
            write_rows(options.out / "results.csv", rows)
            logger.info("%s, seed %d: mean %.1f %% in %.0f s", name, seed, 100 * mean(scores.values()), outcome.seconds)
    return [row for row in rows if row["arm"] in arms and float(str(row["epochs"])) == options.epochs]


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[PatchSize, float]]]:
    """Accuracy in percent: arm -> seed -> size -> accuracy."""
    found: dict[str, dict[str, dict[PatchSize, float]]] = {}
    for row in rows:
        curve = found.setdefault(row["arm"], {}).setdefault(str(row["seed"]), {})
        curve[PatchSize.parse(row["patch_size"])] = 100 * float(row["accuracy"])
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard error over seeds, of groups of sizes and of single sizes."""
    names = [*GROUPS, *map(str, SINGLE)]
    groups = [*GROUPS.values(), *((size,) for size in SINGLE)]
    lines = ["| arm | seeds | steps | TFLOPs | " + " | ".join(names) + " | CPU-s |", "| --- " * (len(names) + 5) + "|"]
    for arm, seeds in curves(rows).items():
        about = [row for row in rows if row["arm"] == arm]
        cells = []
        for group in groups:
            known = [size for size in group if all(size in curve for curve in seeds.values())]
            whole = len(known) == len(group) or (len(group) > 4 and len(known) >= len(group) - 1)
            cells.append(cell([mean(curve[size] for size in known) for curve in seeds.values()]) if whole else "")
        steps, tflops, seconds = (
            mean(float(row[name]) for row in about) for name in ("steps", "tflops", "cpu_seconds")
        )
        lines.append(
            f"| {arm} | {len(seeds)} | {steps:,.0f} | {tflops:.1f} | " + " | ".join(cells) + f" | {seconds:,.0f} |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[Mapping[str, Any]], title: str) -> Picture:
    """Accuracy of each arm against the patch size, mean over seeds."""
    points: list[dict[str, Any]] = [
        {"model": arm, "resize": "pi", "patch_freq": size.freq, "patch_time": size.time,
         "accuracy": mean(curve[size] for curve in seeds.values()) / 100}
        for arm, seeds in curves(rows).items()
        for size in sorted(next(iter(seeds.values())))
        if size.freq == size.time
    ]  # fmt: skip
    points.sort(key=lambda point: point["patch_freq"])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_by_size(axes, points)
        lowest = 100 * min(point["accuracy"] for point in points)
        axes.set(ylim=(max(0, lowest - 5), None), title=title)
        axes.legend(loc="best", fontsize=8)

    return picture(draw, 9, 5)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=QUESTIONS, metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("start", type=Path, metavar="START")
    for name in ("train", "val", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="only these of the question")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def run() -> None:
        arms = QUESTIONS[options.question]
        if unknown := [arm for arm in options.arms or () if arm not in arms]:
            raise ConfigError(f"--arms: found {unknown[0]!r}, expected some of {', '.join(map(repr, arms))}")
        rows = answer({name: arm for name, arm in arms.items() if name in (options.arms or arms)}, options)
        plot(rows, f"{options.question}, {options.val.stem}").write(options.out / f"{options.question}.png")
        print(table(rows))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
