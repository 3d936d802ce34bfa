#!/usr/bin/env python3
"""How to spend a fixed training compute on patch sizes: each draw of sizes from the same start, at equal FLOPs.

    python egs/ablations/draws.py START --train TRAIN --val VAL --out DIR [--seeds 0 1 2] [--epochs 3] [--arms ARM ...]

START is a fixed-patch model; TRAIN and VAL are what `flexiast train` takes. --epochs is the length of the published
procedure (nine sizes drawn uniformly); every other arm trains for as many epochs as cost the same FLOPs.
`specialists` are models of one size each, with all of these FLOPs or a ninth. Only validation data are used. Each arm
and seed is a run directory below DIR, so the same command resumes. DIR gets results.csv (one row per arm, seed and
size; rows of other arms and seeds stay); a table with mean and standard error over seeds is printed. RESULTS.md has
what we found.
"""

import argparse
import csv
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import flexiast
from flexiast import PatchSize
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.commands.guard import guarded
from flexiast.errors import ConfigError
from flexiast.models.geometry import EVERY_SIZE
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import DataConfig, ModelOptions, PatchOptions
from flexiast.traintest.patch_plan import FLEXIBLE_DRAW, FLEXIBLE_DROPOUT, drawn_sizes, fitting, sampler_of
from flexiast.traintest.train import train

NINE = tuple(PatchSize(size, size) for size in (8, 10, 12, 16, 20, 24, 32, 40, 48))
UNSEEN = tuple(PatchSize(size, size) for size in (14, 18, 28, 36, 44))
"""Sizes that `published` is never trained at."""
ARMS = {
    "published": PatchOptions(NINE),
    "uniform": PatchOptions(EVERY_SIZE),
    "equal-cost": PatchOptions(EVERY_SIZE, draw="equal-cost"),
    "coarse": PatchOptions(EVERY_SIZE, draw="coarse"),
    "coarse, 2 parts": PatchOptions(EVERY_SIZE, draw="coarse", parts=2),
    "coarse, 4 parts": PatchOptions(EVERY_SIZE, draw="coarse", parts=4),
    "coarse-to-fine": PatchOptions(EVERY_SIZE, draw="coarse-to-fine"),
    "coarse, rectangles": PatchOptions(EVERY_SIZE, draw="coarse", rectangles="yes"),
    "coarse-to-fine, rectangles": PatchOptions(EVERY_SIZE, draw="coarse-to-fine", rectangles="yes"),
    "default": PatchOptions(EVERY_SIZE, draw=FLEXIBLE_DRAW, rectangles="yes", dropout=FLEXIBLE_DROPOUT),
    "coarse-to-fine, 2 parts": PatchOptions(EVERY_SIZE, draw="coarse-to-fine", parts=2),
}
SPECIALISTS = {"specialists": 1.0, "specialists, a ninth each": 1 / len(NINE)}
"""Models of one size each, and the share of the compute that each of them has."""


def cost(options: PatchOptions, model: AudioClassifier) -> float:
    """FLOPs of a clip, averaged over the sizes drawn in a run."""
    frames = model.feature_config.frames
    return sampler_of(options, drawn_sizes(options), model.config, frames, seed=0, steps=1001).mean_cost()


def run_arm(name: str, seed: int, options: argparse.Namespace, model: AudioClassifier) -> list[dict[str, object]]:
    """Train the models of one arm, or go on with them, and return their rows."""
    fit = set(fitting((*EVERY_SIZE, *NINE, *UNSEEN), model))
    published = fitted(ARMS["published"], fit)
    folder = options.out / name.replace(", ", "-").replace(" ", "-")
    if name in ARMS:
        models = [(fitted(ARMS[name], fit), fit & {*NINE, *UNSEEN}, folder)]
    else:
        models = [(PatchOptions((size,)), {size}, folder / str(size)) for size in sorted(fit & {*options.sizes})]
    rows = []
    for patches, measured, out in models:
        epochs = options.epochs * SPECIALISTS.get(name, 1.0) * cost(published, model) / cost(patches, model)
        curve = run_model(patches, measured, round(epochs, 3), seed, out / f"seed{seed}", options)
        rows += [
            {"arm": name, "seed": seed, "epochs": round(epochs, 3), "patch_size": size, "accuracy": accuracy}
            for size, accuracy in curve.items()
        ]
    return rows


def fitted(patches: PatchOptions, fit: set[PatchSize]) -> PatchOptions:
    """The same draw of those sizes that fit the input."""
    return dataclasses.replace(patches, sizes=tuple(size for size in patches.sizes if size in fit))


def run_model(
    patches: PatchOptions, measured: set[PatchSize], epochs: float, seed: int, out: Path, options: argparse.Namespace
) -> dict[str, float]:
    """Train one model, or go on with it, and return its validation accuracy at the measured sizes."""
    train(
        TrainConfig(
            DataConfig(options.train, val=options.val),
            out=out,
            model=ModelOptions(init=str(options.start)),
            patches=patches,
            epochs=epochs,
            eval_every=epochs,
            eval_patch_sizes=tuple(sorted(measured)),
            patience=0,
            seed=seed,
        )
    )
    return {size: one["accuracy"] for size, one in flexiast.load(out).metadata["validation"].items()}


def table(rows: Sequence[dict[str, object]]) -> str:
    """Mean and standard error over seeds: of the nine sizes, of those `published` never sees, and of single sizes."""
    lines = ["| arm | seeds | nine sizes | unseen sizes | 8 | 16 | 32 | 48 |", "| --- " * 8 + "|"]
    measured = {row["patch_size"] for row in rows}
    groups = [NINE, UNSEEN, *((PatchSize(size, size),) for size in (8, 16, 32, 48))]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        scores: dict[object, dict[str, float]] = {}
        for row in rows:
            if row["arm"] == arm:
                scores.setdefault(row["seed"], {})[str(row["patch_size"])] = 100 * float(str(row["accuracy"]))
        cells = [str(len(scores))]
        for group in groups:
            needed = {str(size) for size in group} & measured
            whole = [curve for curve in scores.values() if needed and needed <= set(curve)]
            cells.append(cell([statistics.mean(curve[size] for size in needed) for curve in whole]))
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """Mean, with its standard error where there are several values."""
    if not values:
        return ""
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{error}"


def read_rows(path: Path) -> list[dict[str, object]]:
    """The rows of an earlier call; none if there was none."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [dict(row) for row in csv.DictReader(file)]


def write_rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write the rows with a header, replacing the file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    known = [*ARMS, *SPECIALISTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, metavar="START")
    for name in ("train", "val", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), metavar="ARM", help=", ".join(known))
    parser.add_argument("--sizes", type=PatchSize.parse, nargs="+", default=NINE, help="of the specialists")
    options = parser.parse_args(argv)

    def run() -> None:
        if unknown := [arm for arm in options.arms if arm not in known]:
            raise ConfigError(f"--arms: found {unknown[0]!r}, expected some of {', '.join(map(repr, known))}")
        model = flexiast.load(options.start)
        rows = read_rows(options.out / "results.csv")
        for seed in options.seeds:
            for arm in options.arms:
                rows = [row for row in rows if (row["arm"], str(row["seed"])) != (arm, str(seed))]
                rows += run_arm(arm, seed, options, model)
                write_rows(options.out / "results.csv", rows)
        print(table(rows))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
