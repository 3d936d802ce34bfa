"""The two pictures of `flexiast demo` as SVG: quick to make while a slider moves, in the colours of their page.

Dimensions: T frames, F mel bins.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from html import escape

import numpy as np

from ..models.geometry import Layout
from .listening import Heard
from .sound import data_uri

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 46
"""Margins, which hold the ticks and their labels."""
ORANGE = (0xFF, 0x8C, 0x42)
MOST_TICKS = 7
_STEPS = [10.0**power * step for power in range(-3, 4) for step in (1, 2, 5)]


def grid_lines(layout: Layout, frames: int, bins: int) -> tuple[list[int], list[int]]:
    """Bins and frames at which a patch starts or the last one ends, within the spectrogram."""
    axes = zip(layout.grid, layout.stride, layout.patch, (bins, frames), strict=True)
    rows, columns = (
        sorted({*(step * number for number in range(count)), min(extent, step * (count - 1) + patch)})
        for count, step, patch, extent in axes
    )
    return rows, columns


def grid_picture(heard: Heard, frame_seconds: float) -> str:
    """The log-mel of the window, a line around each patch; padding and what no patch covers stays bare."""
    import matplotlib

    frames, bins = heard.log_mel.shape
    rows, columns = grid_lines(heard.layout, frames, bins)
    image = (255 * matplotlib.colormaps["magma"](_levels(heard))).astype(np.uint8)
    across, up = _places(frames, bins)
    lines = [(across(column), up(0), across(column), up(rows[-1])) for column in columns]
    lines += [(across(0), up(row), across(columns[-1]), up(row)) for row in rows]
    drawn = "".join(f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>' for a, b, c, d in lines)
    grid = heard.layout.grid
    label = f"Spectrogram of the sound, {grid.freq} rows of {grid.time} patches drawn on it"
    over = f'<g class="grid" stroke="#fff" stroke-width="1" stroke-opacity=".6">{drawn}</g>'
    return _svg(label, _image(image, heard.sounding) + over, heard, frame_seconds)


def attention_picture(heard: Heard, frame_seconds: float) -> str:
    """The log-mel in grey, and over it the attention in orange: the more, the more opaque."""
    grey = np.repeat((230 * _levels(heard)).astype(np.uint8)[..., None], 4, axis=-1)
    grey[..., 3] = 255
    weights = heard.attention.T.numpy()
    tint = np.empty((*weights.shape, 4), np.uint8)
    tint[..., :3], tint[..., 3] = ORANGE, 215 * weights / max(float(weights.max()), 1e-12)
    answer = "" if heard.numbers else f", for the answer {heard.best[0].label}"
    label = f"Where the network listens in the sound, by patch{answer}"
    return _svg(label, _image(grey, heard.sounding) + _image(tint, len(heard.log_mel)), heard, frame_seconds)


def _levels(heard: Heard) -> np.ndarray:
    """The log-mel (F, T) from 0 to 1 over the sounding frames."""
    log_mel = heard.log_mel.T.numpy()
    sounding = log_mel[:, : heard.sounding]
    low, high = float(sounding.min()), float(sounding.max())
    return np.clip((log_mel - low) / max(high - low, 1e-12), 0, 1)


def _image(pixels: np.ndarray, sounding: int) -> str:
    """Pixels (F, T, 4), the lowest bin first, over the whole plot; transparent from frame `sounding` on."""
    from matplotlib.image import imsave

    pixels = pixels[::-1].copy()
    pixels[:, sounding:, 3] = 0
    png = io.BytesIO()
    imsave(png, pixels, format="png")
    return (
        f'<image x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
        f' preserveAspectRatio="none" href="{data_uri("image/png", png.getvalue())}"/>'
    )


Place = Callable[[float], float]


def _places(across: float, up: float) -> tuple[Place, Place]:
    """Functions from 0 to `across`, and from 0 to `up`, to places in the picture."""
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return lambda value: LEFT + width * value / across, lambda value: TOP + height * (1 - value / up)


def _svg(label: str, inside: str, heard: Heard, frame_seconds: float) -> str:
    """A picture with its axes: seconds of the clip, and mel bins."""
    frames, bins = heard.log_mel.shape
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    across, up = _places(frames * frame_seconds, bins)
    texts = [
        f'<text x="{across(value - heard.start):.1f}" y="{bottom + 18}" text-anchor="middle">{value:.4g}</text>'
        for value in _ticks(heard.start, heard.start + frames * frame_seconds)
    ]
    texts += [
        f'<text x="{LEFT - 6}" y="{up(value) + 5:.1f}" text-anchor="end">{value:g}</text>' for value in _ticks(0, bins)
    ]
    middle = (TOP + bottom) / 2
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{inside}'
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="currentColor" stroke-opacity=".6"/>'
        f"{''.join(texts)}"
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">seconds</text>'
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">mel bin</text></svg>'
    )


def _ticks(low: float, high: float) -> Iterator[float]:
    """Round numbers from low to high, both included where they are round."""
    step = next(step for step in _STEPS if (high - low) / step <= MOST_TICKS)
    for number in range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1):
        yield number * step
