#!/usr/bin/env python3
"""How to spend a fixed training compute on patch sizes: each draw of sizes from the same start, at equal FLOPs.

    python egs/ablations/draws.py START --train TRAIN --val VAL --out DIR [--seeds 0 1 2] [--epochs 3] [--arms ARM ...]

START is a fixed-patch model; TRAIN and VAL are what `flexiast train` takes. --epochs is the length of the published
procedure (nine sizes drawn uniformly); every other arm trains for as many epochs as cost the same FLOPs. Only
validation data are used. Each arm and seed is a run directory below DIR, so the same command resumes. DIR gets
results.csv (one row per arm, seed and size); a table with mean and standard error over seeds is printed. RESULTS.md has
what we found.
"""

import argparse
import csv
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
from flexiast.traintest.patch_draws import DRAWS
from flexiast.traintest.patch_sampler import PatchSampler
from flexiast.traintest.setup import fitting
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
    "coarse-to-fine": PatchOptions(EVERY_SIZE, draw="coarse-to-fine"),
    "coarse-to-fine, 2 parts": PatchOptions(EVERY_SIZE, draw="coarse-to-fine", parts=2),
}


def cost(options: PatchOptions, model: AudioClassifier) -> float:
    """FLOPs of a clip, averaged over the sizes drawn in a run."""
    frames = model.feature_config.frames
    costs = [model.config.flops(size, frames) for size in options.sizes]
    return PatchSampler(options.sizes, (), 0, options.parts, DRAWS[options.draw], costs, steps=1001).mean_cost()


def run_arm(name: str, seed: int, options: argparse.Namespace, model: AudioClassifier) -> list[dict[str, object]]:
    """Train one arm, or go on with it, and return its rows."""
    fit = set(fitting((*EVERY_SIZE, *NINE, *UNSEEN), model))
    patches, published = (
        PatchOptions(tuple(s for s in arm.sizes if s in fit), draw=arm.draw, parts=arm.parts)
        for arm in (ARMS[name], ARMS["published"])
    )
    epochs = round(options.epochs * cost(published, model) / cost(patches, model), 3)
    out = options.out / name.replace(", ", "-").replace(" ", "-") / f"seed{seed}"
    train(
        TrainConfig(
            DataConfig(options.train, val=options.val),
            out=out,
            model=ModelOptions(init=str(options.start)),
            patches=patches,
            epochs=epochs,
            eval_every=epochs,
            eval_patch_sizes=tuple(sorted(fit & {*NINE, *UNSEEN})),
            patience=0,
            seed=seed,
        )
    )
    curve = flexiast.load(out).metadata["validation"]
    return [
        {"arm": name, "seed": seed, "epochs": epochs, "patch_size": size, "accuracy": one["accuracy"]}
        for size, one in curve.items()
    ]


def table(rows: Sequence[dict[str, object]]) -> str:
    """Mean and standard error over seeds: of the nine sizes, of those `published` never sees, and of single sizes."""
    lines = ["| arm | seeds | nine sizes | unseen sizes | 8 | 16 | 32 | 48 |", "| --- " * 8 + "|"]
    groups = [NINE, UNSEEN, *((PatchSize(size, size),) for size in (8, 16, 32, 48))]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        scores: dict[object, dict[str, float]] = {}
        for row in rows:
            if row["arm"] == arm:
                scores.setdefault(row["seed"], {})[str(row["patch_size"])] = 100 * float(str(row["accuracy"]))
        cells = [str(len(scores))]
        for group in groups:
            of_seeds = ([curve[str(size)] for size in group if str(size) in curve] for curve in scores.values())
            cells.append(cell([statistics.mean(values) for values in of_seeds if values]))
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """Mean, with its standard error where there are several values."""
    if not values:
        return ""
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{error}"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, metavar="START")
    for name in ("train", "val", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    options = parser.parse_args(argv)

    def run() -> None:
        if unknown := [arm for arm in options.arms if arm not in ARMS]:
            raise ConfigError(f"--arms: found {unknown[0]!r}, expected some of {', '.join(map(repr, ARMS))}")
        model = flexiast.load(options.start)
        rows = []
        for seed in options.seeds:
            for arm in options.arms:
                rows += run_arm(arm, seed, options, model)
                with open(options.out / "results.csv", "w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, list(rows[0]))
                    writer.writeheader()
                    writer.writerows(rows)
        print(table(rows))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
