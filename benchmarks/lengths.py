#!/usr/bin/env python3
"""Forward passes of clips of 0.5 to 10 s: packed without padding, against padding them and sorting them into buckets.

All contenders take the same clips, `batch` of them at once. `padded to the longest` pads all to the longest clip of
all, `padded in each batch` to the longest of its batch, `buckets` the same after sorting the clips by length. Padding
is heard, so the outputs for padded clips are others; compared is that both ways compute the same of equal input.

The second group has batches of one size with long clips; with all of them half as long; with half of them half as long;
and with half as many.

python benchmarks/lengths.py        writes benchmarks/results/lengths.json and prints the ratios, in 2 to 3 minutes
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from harness import Report, arguments, run
from networks import flexible
from torch import Tensor

from flexiast import FlexiAST
from flexiast.models.packed import forward_packed
from flexiast.runtime.arguments import Precision
from flexiast.runtime.device import autocast

SHORTEST, LONGEST = 48, 998
"""Frames: 0.5 and 10 s."""
WINDOW = 1024


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(
        __doc__,
        argv,
        sizes=(str, "micro", "models, with commas between; tiny takes eight times as long"),
        clips=(int, 1000, "of 0.5 to 10 s"),
        batch=(int, 32, "clips of a forward pass"),
        patch=(int, 16, "side of the patches"),
        precision=(str, "auto", "fp32, bf16, or auto: bf16 where it is fast"),
    )
    if options.quick:
        options.sizes, options.clips, options.batch, options.patch = "micro", 12, 4, 32
    report = Report("lengths", options, rounds=2, threads=1)
    for size in options.sizes.split(","):
        model = flexible(size, WINDOW, pad_value=0.467).to(report.device)
        compare(report, model, size)
        race_lengths(report, model, size)
        race_halves(report, model, size)
    report.finish()


def clips_of(lengths: Sequence[int], device: torch.device) -> list[Tensor]:
    """A clip (T, F) of noise for each length."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, 128, generator=generator).to(device) for length in lengths]


def padded(clips: Sequence[Tensor], frames: int, model: FlexiAST) -> Tensor:
    """The clips as one batch (B, frames, F)."""
    return torch.stack([F.pad(one, (0, 0, 0, frames - len(one)), value=model.config.pad_value) for one in clips])


def batches(clips: Sequence[Tensor], size: int) -> list[Sequence[Tensor]]:
    return [clips[start : start + size] for start in range(0, len(clips), size)]


@torch.no_grad()
def compare(report: Report, model: FlexiAST, size: str) -> None:
    """Packed clips have the outputs of each alone, and of a batch where all are equally long."""
    patch, clips = report.options.patch, clips_of([SHORTEST, 300, LONGEST, 301], report.device)
    alone = torch.cat([model(clip[None], patch) for clip in clips])
    report.agree(f"{size}: packed, and one at a time", forward_packed(model, clips, patch), alone, within=1e-4)
    batch = padded(clips, LONGEST, model)
    report.agree(f"{size}: packed, and a batch", forward_packed(model, list(batch), patch), model(batch, patch), 1e-4)


def race_lengths(report: Report, model: FlexiAST, size: str) -> None:
    options = report.options
    lengths = torch.randint(
        SHORTEST, LONGEST + 1, (options.clips,), generator=torch.Generator().manual_seed(1)
    ).tolist()
    clips = clips_of(lengths, report.device)
    in_order, in_buckets = batches(clips, options.batch), batches(sorted(clips, key=len), options.batch)

    def each(parts: list[Sequence[Tensor]], one: Callable[[Sequence[Tensor]], Tensor]) -> Callable[[], None]:
        return forward(lambda: [one(part) for part in parts], report.device, options.precision)

    def pad(part: Sequence[Tensor]) -> Tensor:
        return model(padded(part, max(map(len, part)), model), options.patch)

    def pack(part: Sequence[Tensor]) -> Tensor:
        return forward_packed(model, part, options.patch)

    longest = max(lengths)
    contenders = {
        "padded to the longest": each(in_order, lambda part: model(padded(part, longest, model), options.patch)),
        "padded in each batch": each(in_order, pad),
        "buckets": each(in_buckets, pad),
        "packed": each(in_order, pack),
        "packed, buckets": each(in_buckets, pack),
    }
    group = f"{size}, {options.clips} clips of 0.5 to 10 s, patch {options.patch}"
    for warm_up in (each(in_order[:1], pad), each(in_buckets[-1:], pad), each(in_order[:1], pack)):
        warm_up()  # a round of all clips would double the time
    report.race(group, contenders, against="padded to the longest", warm_up=False)
    seconds = {row["contender"]: row["median_ms"] / 1e3 for row in report.rows if row["group"] == group}
    report.facts[f"{size}: clips per second"] = {name: round(options.clips / t, 1) for name, t in seconds.items()}
    others = ("padded to the longest", "padded in each batch", "buckets")
    report.facts[f"{size}: packed is so many times faster than"] = {
        name: round(seconds[name] / seconds["packed"], 2) for name in others
    }
    report.facts[f"{size}: share of padding, %"] = round(100 * (1 - sum(lengths) / longest / len(lengths)), 1)


def race_halves(report: Report, model: FlexiAST, size: str) -> None:
    count, patch, precision = report.options.batch, report.options.patch, report.options.precision
    whole, half = 992, 496  # frames: whole patches of 16
    lengths = {
        "whole clips": [whole] * count,
        "all half as long": [half] * count,
        "half of them half as long": [whole, half] * (count // 2),
        "half as many": [whole] * (count // 2),
    }
    batches = {name: clips_of(frames, report.device) for name, frames in lengths.items()}
    contenders = {
        name: forward(partial(forward_packed, model, clips, patch), report.device, precision)
        for name, clips in batches.items()
    }
    group = f"{size}, packed batches of {count}, patch {patch}"
    ratios = report.race(group, contenders, against="whole clips", rounds=5 * report.rounds)
    report.facts[f"{size}: cost against whole clips"] = {name: round(1 / ratio, 3) for name, ratio in ratios.items()}


def forward(work: Callable[[], object], device: torch.device, precision: Precision) -> Callable[[], None]:
    """The work, without gradients and in a precision."""

    def run_once() -> None:
        with torch.no_grad(), autocast(device, precision):
            work()

    return run_once


if __name__ == "__main__":
    run(main)
