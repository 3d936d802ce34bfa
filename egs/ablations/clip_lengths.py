#!/usr/bin/env python3
"""Clips of all lengths: heard at their own length or padded to a window; and recordings longer than any in training.

    python egs/ablations/clip_lengths.py --train TABLE --val VAL --out DIR [--seeds 0] [--epochs 25]

TABLE and VAL are CSV files with the columns file and class. For `mixed`, every clip is cut to a length drawn at random
(log-uniform, from a tenth of the longest), at a random place, and two models are trained on the same cuts for the same
steps: `window` pads them to the longest, `native` hears each at its own length. For `longer`, a native model is trained
on cuts of half the longest, and hears whole clips in windows as long as those, or in one pass with positions that go
on: stretched over the clip, the last ones held, or all of them again. Accuracy on VAL is that of the last weights.
DIR gets results.csv; what it has is not measured again. RESULTS.md has what we found.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import soundfile
import torch
from draws import cell, read_rows, write_rows
from torch import Tensor

import flexiast
from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.commands.guard import guarded
from flexiast.data.audio import decode
from flexiast.models.geometry import Layout
from flexiast.models.resize import apply_to_grid, extent_matrices
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import DataConfig, FeatureOptions, ModelOptions
from flexiast.traintest.train import train

RATE = 16_000
PARTS = 4
"""Groups of validation clips by length, for `mixed`: the shortest quarter to the longest."""
logger = logging.getLogger(__name__)
Positions = Callable[[AudioClassifier, Layout, int], Tensor]


def cut(table: Path, seconds: Callable[[float, random.Random], float], seed: int, out: Path) -> Path:
    """A table of cuts of the clips, `seconds` of a clip's length and a draw long, written as 16-bit WAV beside it."""
    if out.exists():
        return out
    (out.parent / out.stem).mkdir(parents=True, exist_ok=True)
    draw, rows = random.Random(seed), list[dict[str, object]]()
    with open(table, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            waveform = decode(table.parent.absolute() / row["file"], RATE)
            length = min(len(waveform), round(RATE * seconds(len(waveform) / RATE, draw)))
            start = draw.randrange(len(waveform) - length + 1)
            name = out.parent / out.stem / f"{number}.wav"
            soundfile.write(name, waveform[start : start + length].numpy(), RATE, "PCM_16")
            rows.append({"file": str(name), "class": row["class"], "seconds": round(length / RATE, 3)})
    write_rows(out, rows)
    return out


def of_any_length(longest: float, draw: random.Random) -> float:
    """Log-uniform from a tenth of the longest."""
    return longest * math.exp(draw.uniform(math.log(0.1), 0))


def trained(table: Path, val: Path, length: Any, frames: int, seed: int, out: Path, epochs: float) -> AudioClassifier:
    """A micro model trained at patch 16, or gone on with."""
    train(
        TrainConfig(
            DataConfig(table, val=val, length=length),
            out=out,
            features=FeatureOptions(frames=frames),
            model=ModelOptions(size="micro"),
            epochs=epochs,
            eval_every=epochs,
            patience=0,
            seed=seed,
        )
    )
    return flexiast.load(out)


def accuracy(model: AudioClassifier, rows: Sequence[dict[str, Any]]) -> float:
    """Percent of the clips whose best class is theirs."""
    answers = model.predict([row["file"] for row in rows], top_k=1)
    return 100 * mean(answer[0].label == row["class"] for answer, row in zip(answers, rows, strict=True))


def mixed(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Accuracy of both models, over all validation cuts and by quarter of length."""
    folder = options.out / "mixed"
    table = cut(options.train, of_any_length, 0, folder / "train.csv")
    val = cut(options.val, of_any_length, 1, folder / "val.csv")
    rows = sorted(read_rows(val), key=lambda row: float(str(row["seconds"])))
    frames = round(100 * float(str(rows[-1]["seconds"])))
    found = {}
    for length in ("window", "native"):
        model = trained(table, val, length, frames, seed, folder / f"{length}-seed{seed}", options.epochs)
        found[f"{length}, all"] = accuracy(model, rows)
        for part in range(PARTS):
            some = rows[part * len(rows) // PARTS : (part + 1) * len(rows) // PARTS]
            about = f"{some[0]['seconds']} to {some[-1]['seconds']} s"
            found[f"{length}, {about}"] = accuracy(model, some)
    return found


def held(model: AudioClassifier, layout: Layout, frames: int) -> Tensor:
    """Positions (H, W, D) at their true places; beyond the model's window, its last ones."""
    return apply_to_grid(model.pos_embed, *extent_matrices(model.config.base, layout, model.pos_embed))


def again(model: AudioClassifier, layout: Layout, frames: int) -> Tensor:
    """Positions (H, W, D) at their true places; beyond the model's window, from its start again."""
    within = model.config.layout(layout.patch)
    positions = held(model, within, model.config.frames)
    return positions[:, torch.arange(layout.grid.time) % within.grid.time]


def stretched(model: AudioClassifier, layout: Layout, frames: int) -> Tensor:
    """Positions (H, W, D) of the model's window, laid over all of a longer clip."""
    return AudioClassifier.positions(model, layout, frames)


LONG: dict[str, Positions] = {"stretched": stretched, "held": held, "again": again}


@torch.no_grad()
def in_one_pass(model: AudioClassifier, rows: Sequence[dict[str, Any]], positions: Positions) -> float:
    """Percent of the clips, heard whole, whose best class is theirs."""
    model.positions = lambda layout, frames: positions(model, layout, frames)  # type: ignore[method-assign]
    right = 0
    for row in rows:
        log_mel = model.front_end.log_mel(decode(row["file"], RATE)[None])[0]
        best = model([model.feature_config.normalise(log_mel)]).argmax()
        right += model.labels.names[int(best)] == row["class"]
    del model.positions
    return 100 * right / len(rows)


def longer(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Accuracy on whole clips of a model that was trained on halves."""
    folder = options.out / "longer"
    table = cut(options.train, lambda longest, _: longest / 2, 0, folder / "train.csv")
    halves = cut(options.val, lambda longest, _: longest / 2, 1, folder / "val.csv")
    whole = cut(options.val, lambda longest, _: longest, 1, folder / "whole.csv")
    rows = read_rows(whole)
    frames = round(50 * max(float(str(row["seconds"])) for row in rows))
    model = trained(table, halves, "native", frames, seed, folder / f"native-seed{seed}", options.epochs)
    found = {"one half": accuracy(model, read_rows(halves)), "windows, side by side": accuracy(model, rows)}
    return found | {f"one pass, {name}": in_one_pass(model, rows, positions) for name, positions in LONG.items()}


def table(rows: Sequence[dict[str, object]]) -> str:
    """Mean and standard error over seeds."""
    lines = ["| question | heard | accuracy, % |", "| --- | --- | ---: |"]
    for question, heard in dict.fromkeys((row["question"], row["heard"]) for row in rows):
        values = [float(str(row["accuracy"])) for row in rows if (row["question"], row["heard"]) == (question, heard)]
        lines.append(f"| {question} | {heard} | {cell(values)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "val", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=float, default=25)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def run() -> None:
        path = options.out / "results.csv"
        rows = read_rows(path)
        for seed in options.seeds:
            for question, answer in (("longer", longer), ("mixed", mixed)):
                if any((row["question"], str(row["seed"])) == (question, str(seed)) for row in rows):
                    continue
                for heard, value in answer(options, seed).items():
                    rows.append({"question": question, "seed": seed, "heard": heard, "accuracy": f"{value:.2f}"})
                    logger.info("%s, seed %d: %s: %.1f %%", question, seed, heard, value)
                write_rows(path, rows)
        print(table(rows))

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
