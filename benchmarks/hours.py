#!/usr/bin/env python3
"""Seconds of computing per hour of audio at native length, against patch size and the clips' length, and a fit to them.

Each batch holds the same amount of audio, in clips of equal length that are packed without padding. The seconds per
clip are fitted as a + b n + c n^2 + d t in its n tokens and t seconds, by least squares of the relative errors: what a
clip costs by itself, a token, a pair of tokens in attention, and a second of audio at any patch size, as each of its
spectrogram's values is cut out and goes through the patch embedding.

In the picture stands a CNN of about the size of
MobileNetV3, EfficientAT's mn10_as, at its published cost; it is not measured here.

python benchmarks/hours.py        writes hours.{csv,json,png} into benchmarks/results and prints the table
"""

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from harness import RESULTS, Report, arguments, run
from networks import flexible

from flexiast import FlexiAST
from flexiast.models.packed import forward_packed
from flexiast.reports.pictures import Picture, picture, plain_ticks
from flexiast.runtime.device import autocast

WINDOW, AUDIO = 1024, 10
"""Frames of the model; seconds of audio in a batch."""
MN10 = 2 * 0.54 * 360
"""GFLOPs per hour of EfficientAT's mn10_as: 0.54 G multiply-accumulates for 10 s (Schmid et al., ICASSP 2023, arXiv
2211.04772, and the table of its repository)."""


class Hour(NamedTuple):
    """A row of the table."""

    patch: str
    clip_seconds: float
    tokens: int
    """Of a clip, the prefix included."""
    seconds_per_clip: float
    seconds_per_hour: float
    gflops_per_hour: float


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(
        __doc__,
        argv,
        model=(str, "base", "micro, tiny, small or base"),
        patches=(str, "8,16,32", "patch sizes, with commas between"),
        lengths=(str, "1,2,5,10", "seconds of a clip, with commas between"),
        precision=(str, "auto", "fp32, bf16, or auto: bf16 where it is fast"),
    )
    if options.quick:
        options.model, options.patches, options.lengths = "micro", "16,32", "1,2,5"
    report = Report("hours", options, rounds=3)
    model = flexible(options.model, WINDOW, pad_value=0.467).to(report.device)
    hours = [hour for patch in options.patches.split(",") for hour in measure(report, model, patch)]
    report.facts["seconds per clip"] = fit = fitted(hours)
    for hour in hours:
        print(f"patch {hour.patch:>4s}, clips of {hour.clip_seconds:4.1f} s: {hour.seconds_per_hour:8.2f} s per hour")
    report.finish()
    out = options.out or (None if options.quick else RESULTS)
    if out is not None:
        write(out, hours, fit)


@torch.no_grad()
def measure(report: Report, model: FlexiAST, patch: str) -> list[Hour]:
    """The rows of one patch size."""
    options, clips = report.options, {}
    for seconds in map(float, options.lengths.split(",")):
        count, frames = max(1, int(AUDIO / seconds)), int(100 * seconds)
        generator = torch.Generator().manual_seed(0)
        clips[seconds] = list(torch.randn(count, frames, 128, generator=generator).to(report.device))
        alone = model(clips[seconds][0][None], patch)
        packed = forward_packed(model, clips[seconds][:2], patch)[:1]
        report.agree(f"patch {patch}, {seconds} s: packed, and alone", packed, alone, within=1e-4)

    def forward(batch: list[torch.Tensor]) -> None:
        with autocast(report.device, options.precision):
            forward_packed(model, batch, patch)

    group = f"{options.model}, patch {patch}, {AUDIO} s of audio"
    contenders = {f"clips of {seconds} s": partial(forward, batch) for seconds, batch in clips.items()}
    report.race(group, contenders, against=list(contenders)[-1])
    rows = report.rows[-len(contenders) :]
    return [_hour(model, patch, s, len(clips[s]), row["median_ms"] / 1e3) for s, row in zip(clips, rows, strict=True)]


def _hour(model: FlexiAST, patch: str, clip_seconds: float, clips: int, seconds: float) -> Hour:
    config, frames, per_hour = model.config, int(100 * clip_seconds), 3600 / clip_seconds
    return Hour(
        patch,
        clip_seconds,
        config.grid(patch, frames).tokens + config.prefix_tokens,
        seconds / clips,
        per_hour * seconds / clips,
        per_hour * config.flops(patch, frames) / 1e9,
    )


def terms(hour: Hour) -> dict[str, float]:
    """What the coefficients are multiplied with."""
    return {"a": 1.0, "b": hour.tokens, "c": hour.tokens**2, "d": hour.clip_seconds}


def fitted(hours: Sequence[Hour]) -> dict[str, float]:
    """Coefficients of seconds per clip = a + b n + c n^2 + d t, and how far off the clips are, in per cent.

    Each error counts by its share of the clip's seconds, so that short clips count as much as long ones. Costs below
    zero make no sense: a term that would be is left out.
    """
    names = list(terms(hours[0]))
    while True:
        scaled = np.array([[terms(hour)[name] / hour.seconds_per_clip for name in names] for hour in hours])
        found = np.linalg.lstsq(scaled, np.ones(len(hours)), rcond=None)[0]
        if (found >= 0).all():
            break
        names.pop(int(found.argmin()))
    off = 100 * (scaled @ found - 1)
    coefficients = {name: float(value) for name, value in zip(names, found, strict=True)}
    return coefficients | {"rms error, %": float(np.sqrt((off**2).mean())), "largest error, %": float(abs(off).max())}


def write(out: Path, hours: Sequence[Hour], fit: dict[str, float]) -> None:
    """The table as CSV, and the picture."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "hours.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(Hour._fields)
        table.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in hour] for hour in hours)
    draw(hours, fit).write(out / "hours.png")


def draw(hours: Sequence[Hour], fit: dict[str, float]) -> Picture:
    """Seconds per hour against the length of the clips, with the fit; and against the operations."""

    def panels(figure: Any) -> None:
        by_length, by_cost = figure.subplots(1, 2)
        for number, patch in enumerate(dict.fromkeys(hour.patch for hour in hours)):
            rows, style = [hour for hour in hours if hour.patch == patch], f"C{number}"
            lengths, taken = [hour.clip_seconds for hour in rows], [hour.seconds_per_hour for hour in rows]
            by_length.plot(lengths, taken, "o", color=style, label=f"patch {patch}")
            told = [3600 / h.clip_seconds * sum(fit.get(x, 0) * by for x, by in terms(h).items()) for h in rows]
            by_length.plot(lengths, told, "--", color=style)
            by_cost.plot([hour.gflops_per_hour / 1e3 for hour in rows], taken, "o-", color=style)
        by_cost.axvline(MN10 / 1e3, color="C5", linestyle=":")
        by_cost.set_title("dotted: EfficientAT mn10_as (a CNN), published, not measured", color="C5", fontsize=9)
        by_length.set_title("dots: measured; dashes: fit in tokens, their square, and seconds", fontsize=9)
        by_length.set(xlabel="length of a clip, s", ylabel="seconds per hour of audio", xscale="log", yscale="log")
        by_cost.set(xlabel="TFLOPs per hour of audio", ylabel="seconds per hour of audio", xscale="log", yscale="log")
        by_length.legend()
        for axes in (by_length, by_cost):
            plain_ticks(axes.xaxis)
            plain_ticks(axes.yaxis)

    return picture(panels, 10.5, 4.4)


if __name__ == "__main__":
    run(main)
