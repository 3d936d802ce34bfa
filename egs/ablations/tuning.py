#!/usr/bin/env python3
"""Which weights to train, of a trained model on few clips: learning curves of `flexiast train --tune`.

    python egs/ablations/tuning.py START --train TABLE --val VAL --out DIR [--clips 5 20 100] [--seeds 0 1 2]

START is a trained model, TABLE a CSV file with the columns file and class. For each seed, so many clips of every class
are drawn, the same for every way, and trained on with the product's defaults at the start's patch size; `scratch`
trains a micro network anew. Accuracy is that of the last weights on VAL. DIR gets results.csv, one row per training;
what it has is not trained again. RESULTS.md has what we found.
"""

from __future__ import annotations

import argparse
import csv
import logging
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from draws import cell, read_rows, write_rows

import flexiast
from flexiast.commands.guard import guarded
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import DataConfig, ModelOptions, OptimConfig
from flexiast.traintest.train import train

WAYS: dict[str, tuple[str, float]] = {
    "scratch": ("all", 1e-3),
    "head": ("head", 1e-2),
    "last:2": ("last:2", 1e-3),
    "lora": ("lora", 3e-3),
    "all": ("all", 1e-3),
}
"""Name -> --tune and learning rate."""
logger = logging.getLogger(__name__)


def draw_clips(table: Path, clips: int, seed: int, out: Path) -> Path:
    """A table of so many clips of every class, drawn at random; all of a class that has fewer."""
    by_class: dict[str, list[str]] = {}
    with open(table, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by_class.setdefault(row["class"], []).append(str(table.parent.absolute() / row["file"]))
    draw = random.Random(seed)
    rows: list[dict[str, object]] = [
        {"file": name, "class": label}
        for label, files in sorted(by_class.items())
        for name in draw.sample(files, min(clips, len(files)))
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_rows(out, rows)
    return out


def fine_tune(way: str, table: Path, seed: int, rate: float, out: Path, options: argparse.Namespace) -> float:
    """Train one model, or go on with it, and return its validation accuracy."""
    tune, start = WAYS[way][0], flexiast.load(options.start)
    model = ModelOptions(size="micro") if way == "scratch" else ModelOptions(init=str(options.start))
    epochs = round(max(3.0, 1000 / len(read_rows(table)) ** 0.5), 1)  # as by default
    train(
        TrainConfig(
            DataConfig(table, val=options.val),
            out=out,
            model=model,
            optim=OptimConfig(lr=rate),
            tune=tune,
            epochs=epochs,
            eval_every=epochs,
            eval_patch_sizes=(start.config.patch_size,),
            patience=0,
            seed=seed,
        )
    )
    (found,) = flexiast.load(out).metadata["validation"].values()
    return float(found["accuracy"])


def table_of(rows: Sequence[dict[str, object]]) -> str:
    """Mean and standard error over seeds: a row per way and rate, a column per number of clips."""
    counts = sorted({int(str(row["clips_per_class"])) for row in rows})
    lines = [
        "| weights trained | rate | " + " | ".join(f"{count} clips per class" for count in counts) + " |",
        "| --- " * (len(counts) + 2) + "|",
    ]
    for way, rate in dict.fromkeys((str(row["way"]), str(row["rate"])) for row in rows):
        cells = [
            cell(
                [
                    100 * float(str(row["accuracy"]))
                    for row in rows
                    if (str(row["way"]), str(row["rate"]), int(str(row["clips_per_class"]))) == (way, rate, count)
                ]
            )
            for count in counts
        ]
        lines.append(f"| {way} | {rate} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, metavar="START")
    for name in ("train", "val", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--clips", type=int, nargs="+", default=[5, 20, 100], help="of each class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rates", type=float, nargs="+", help="try these instead of each way's own")
    options = parser.parse_args(argv)

    def run() -> None:
        path = options.out / "results.csv"
        rows = read_rows(path)
        known = {tuple(str(row[name]) for name in ("way", "rate", "clips_per_class", "seed")) for row in rows}
        for seed in options.seeds:
            for clips in options.clips:
                table = draw_clips(options.train, clips, seed, options.out / f"{clips}-seed{seed}.csv")
                for way in options.ways:
                    for rate in options.rates or (WAYS[way][1],):
                        if (way, str(rate), str(clips), str(seed)) in known:
                            continue
                        out = options.out / f"{way.replace(':', '-')}-{rate}-{clips}-seed{seed}"
                        began = time.process_time()
                        accuracy = fine_tune(way, table, seed, rate, out, options)
                        rows.append(
                            {"way": way, "rate": rate, "clips_per_class": clips, "seed": seed,
                             "accuracy": f"{accuracy:.4f}", "cpu_seconds": round(time.process_time() - began)}
                        )  # fmt: skip
                        write_rows(path, rows)
                        logger.info("%s at %g, %d clips, seed %d: %.1f %%", way, rate, clips, seed, 100 * accuracy)
        print(table_of(rows))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
