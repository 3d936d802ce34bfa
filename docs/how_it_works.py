#!/usr/bin/env python3
"""README's drawing of how FlexiAST works: python docs/how_it_works.py writes docs/how-it-works.png, light and dark.

One sound under three patch grids, the stored kernel resized to each, and what the one model answers at each.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import flexiast
from flexiast import PatchSize
from flexiast.data.audio import decode
from flexiast.models.geometry import lay_out
from flexiast.models.resize import pi_resize
from flexiast.reports.pictures import Picture, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
SOUND = ROOT / "notebooks" / "seven.wav"
SIZES = (PatchSize(48, 48), PatchSize(24, 24), PatchSize(12, 12))


def drawing(model: flexiast.AudioClassifier, sound: Path) -> Picture:
    """Three columns, one for each size: the log-mel under its grid, and the kernel at that size."""
    with torch.no_grad():
        log_mel = model.front_end(decode(sound, model.feature_config.sample_rate)[None])[0]
        kernel = model.kernel.detach()
        smooth = torch.nn.functional.avg_pool2d(kernel, 4).var((1, 2)) / kernel.var((1, 2))
        channel = int(smooth.argmax())  # the one of all that is easiest to look at
        kernels = {size: pi_resize(kernel, size)[channel] for size in SIZES}

    def draw(figure: Figure) -> None:
        rows: Any = figure.subplots(2, len(SIZES), height_ratios=(3, 1))
        for size, spectrum, patch in zip(SIZES, *rows, strict=True):
            draw_grid(spectrum, log_mel, size, model)
            draw_kernel(patch, kernels[size], size)
            best = model.predict(sound, size, top_k=1)[0]
            patch.set_xlabel(f"the same weights answer: {best.label}, {100 * best.score:.0f} %", fontsize=11)

    return picture(draw, 11, 5)


def draw_grid(axes: Axes, log_mel: torch.Tensor, size: PatchSize, model: flexiast.AudioClassifier) -> None:
    """The log-mel (T, F) with the borders of its patches."""
    frames, bins = log_mel.shape
    layout = lay_out(frames, bins, size, coverage="pad")
    axes.imshow(
        log_mel.T.numpy(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        interpolation="nearest",
        extent=(0, frames, 0, bins),
    )
    for number in range(layout.grid[0] + 1):
        axes.axhline(number * size.freq, color="white", linewidth=0.8)
    for number in range(layout.grid[1] + 1):
        axes.axvline(number * size.time, color="white", linewidth=0.8)
    axes.set(xticks=[], yticks=[], xlim=(0, frames), ylim=(0, bins))
    axes.grid(False)
    cost = 1e3 * model.config.flops(size, frames) / 1e9
    axes.set_title(f"patch {size}: {layout.grid[0] * layout.grid[1]} tokens, {cost:.0f} MFLOPs")


def draw_kernel(axes: Axes, kernel: torch.Tensor, size: PatchSize) -> None:
    """One channel of the kernel (freq, time), in proportion to its size."""
    largest = max(one.freq for one in SIZES)
    limit, left = float(kernel.abs().max()), (largest - size.time) / 2
    axes.imshow(kernel.numpy(), origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest",
                extent=(left, left + size.time, 0, size.freq))  # fmt: skip
    axes.set(xticks=[], yticks=[], xlim=(0, largest), ylim=(0, largest))
    axes.set_title(f"the stored kernel, resized to {size.freq} x {size.time}", fontsize=9, loc="center")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


if __name__ == "__main__":
    drawing(flexiast.load(ROOT / "pretrained_models" / "demo_flexible"), SOUND).write(
        ROOT / "docs" / "how-it-works.png"
    )
