#!/usr/bin/env python3
"""Forward pass of a frozen AST against a static timm ViT with the same weights, and against the model it came from.

python benchmarks/freeze.py        writes benchmarks/results/freeze.json and prints the ratios
"""

from collections.abc import Sequence

import torch
from harness import Report, arguments, run
from networks import StaticViT, flexible

from flexiast import PatchSize
from flexiast.models.frozen import freeze

SIZES = ("8", "16", "16x32", "32")


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(
        __doc__,
        argv,
        model=(str, "tiny", "tiny, small or base"),
        frames=(int, 512, "frames of the input"),
        batch=(int, 1, "clips"),
    )
    if options.quick:
        options.frames = 128
    report = Report("freeze", options, rounds=30, threads=1)
    model = flexible(options.model, options.frames).to(report.device)
    log_mel = torch.randn(options.batch, options.frames, 128, device=report.device)
    for size in SIZES[-1:] if options.quick else SIZES:
        patch = PatchSize.parse(size)
        frozen, static = freeze(model, patch), StaticViT(model, patch).eval().to(report.device)
        report.agree(f"patch {size}: frozen and flexible", frozen(log_mel), model(log_mel, patch), within=1e-6)
        # timm embeds patches by a convolution, which adds in another order.
        report.agree(f"patch {size}: frozen and timm", frozen(log_mel), static(log_mel), within=1e-4)
        contenders = {
            "timm": lambda static=static: static(log_mel),
            "frozen": lambda frozen=frozen: frozen(log_mel),
            "flexible": lambda patch=patch: model(log_mel, patch),
        }
        report.race(f"patch {size}", contenders, against="timm")
    report.finish()


if __name__ == "__main__":
    run(main)
