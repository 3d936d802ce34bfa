#!/usr/bin/env python3
"""PI-resize of a ViT-B patch kernel to every size of FlexiAST: one matrix per axis against timm's full pseudo-inverse.

`cold` builds the matrices first, as the first steps of a training do; `warm` has them. `timm` is its
`resample_patch_embed`, which inverts in every call; `timm cached` its `PatchEmbedInterpolator`, which keeps them.
`result written` only fills tensors of the resized kernels' sizes: nothing that returns them can be faster. `matrices`:
a kernel of one channel, which leaves little but making the matrices.

python benchmarks/resize.py        writes benchmarks/results/resize.json and prints the ratios
"""

from collections.abc import Callable, Sequence

import torch
from harness import Report, arguments, run
from timm.layers import PatchEmbedInterpolator, resample_patch_embed

from flexiast.models.resize import cached_matrix, pi_resize

SIZES = (8, 10, 12, 15, 20, 24, 30, 32, 40, 48)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(__doc__, argv, width=(int, 768, "embedding width"))
    report = Report("resize", options, rounds=15)
    kernel = torch.randn(64 if options.quick else options.width, 16, 16, device=report.device)
    for threads in (options.threads,) if options.threads else (1, 2):
        torch.set_num_threads(threads)
        with_threads = f"{threads} thread{'s' * (threads > 1)}"
        race(report, kernel, f"{len(SIZES)} sizes, {with_threads}")
        race(report, kernel[:1].clone(), f"{len(SIZES)} sizes, matrices, {with_threads}")
    report.finish()


def race(report: Report, kernel: torch.Tensor, group: str) -> None:
    """All sizes one after the other, each result dropped before the next, as training steps do."""

    def ours(size: int) -> torch.Tensor:
        return pi_resize(kernel, size)

    def timms(size: int) -> torch.Tensor:
        return resample_patch_embed(kernel[:, None], [size, size], interpolation="bilinear", antialias=False)[:, 0]

    interpolator = PatchEmbedInterpolator((16, 16), 1, len(kernel), interpolation="bilinear", antialias=False)
    interpolator = interpolator.to(kernel.device)

    def timm_cached(size: int) -> torch.Tensor:
        return interpolator.resample_conv_weight(kernel[:, None], (size, size))[:, 0]

    def written(size: int) -> torch.Tensor:
        return torch.zeros(len(kernel), size, size, device=kernel.device)

    for size in SIZES:
        # timm inverts in float32: that is where the difference comes from.
        report.agree(f"{group}: size {size}", ours(size), timms(size), within=1e-4)
        report.agree(f"{group}: size {size}, timm cached", ours(size), timm_cached(size), within=1e-4)

    def cold(size: int) -> torch.Tensor:
        cached_matrix.cache_clear()
        return ours(size)

    def all_sizes(resize: Callable[[int], torch.Tensor]) -> Callable[[], None]:
        def one_after_the_other() -> None:
            for size in SIZES:
                resize(size)

        return one_after_the_other

    contenders = {"timm": timms, "timm cached": timm_cached, "cold": cold, "warm": ours, "result written": written}
    report.race(group, {name: all_sizes(resize) for name, resize in contenders.items()}, against="timm")


if __name__ == "__main__":
    run(main)
