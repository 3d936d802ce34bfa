#!/usr/bin/env python3
"""How cost grows with the number of tokens: `flexiast bench` of a ViT-B, against what the machine allows at best.

Clips per second at sizes of 64 to 2,048 patch tokens (65 to 2,049 with the class token), the exponent fitted to them,
and the roofline of the model's FLOPs and bytes at the machine's own matrix and copy rates.

python benchmarks/growth.py        writes growth.{csv,json,png} into benchmarks/results and prints the table
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from harness import RESULTS, arguments
from networks import shake

from flexiast import AudioClassifier, FeatureConfig, FlexiASTConfig, PatchSize
from flexiast.commands.bench import BenchConfig, bench
from flexiast.data.manifest import Labels
from flexiast.models.config import SIZES
from flexiast.reports.bench import format_bench
from flexiast.runtime.device import pick_device

PATCHES = ("8", "10", "12", "16", "20", "24", "32", "40", "32x64")


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(
        __doc__,
        argv,
        model=(str, "base", "micro, tiny, small or base"),
        frames=(int, 1024, "frames of the input"),
        batch=(int, 4, "clips"),
        seconds=(float, 5.0, "time given to each patch size, twice"),
        precision=(str, "auto", "fp32, bf16, or auto: bf16 where it is fast"),
    )
    if options.quick:
        options.model, options.frames, options.seconds = "micro", 128, 0.0
    torch.manual_seed(0)
    config = FlexiASTConfig(classes=527, frames=options.frames, **SIZES[options.model])
    model = shake(AudioClassifier(config, FeatureConfig(frames=options.frames), Labels.numbers(527)))
    out = options.out or (None if options.quick else RESULTS)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model")
        found = bench(
            BenchConfig(
                Path(folder) / "model",
                out=Path(folder) / "bench" if out else None,
                patch_sizes=tuple(PatchSize.parse(patch) for patch in PATCHES),
                batch_size=options.batch,
                seconds=options.seconds,
                precision=options.precision,
                device=options.device,
                threads=options.threads or 0,
                onnx=not options.quick and pick_device(options.device).type == "cpu",
            )
        )
        if out:
            keep(Path(folder) / "bench", out)
    print(format_bench(found))


def keep(written: Path, out: Path) -> None:
    """Copy bench's files under this benchmark's name."""
    out.mkdir(parents=True, exist_ok=True)
    for file in written.glob("bench*"):
        (out / file.name.replace("bench", "growth")).write_bytes(file.read_bytes())


if __name__ == "__main__":
    main()
