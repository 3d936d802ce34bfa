"""The parts of the page of `flexiast demo` as HTML and pictures, for light and dark pages. Nothing here needs Gradio.

Dimensions: T frames, F mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..models.geometry import Layout
from ..runtime.terminal import printable
from .listening import Heard, Row, Sound
from .pictures import Picture, picture
from .sound import data_uri

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.4, 3.5
"""Inches of a picture: two stand side by side on a desk, and one is legible on a phone."""
STYLE = """
.fx { font-size: 1rem; line-height: 1.45; color: var(--body-text-color); }
.fx-error { border-left: 4px solid #d55e00; padding: .6rem .8rem; background: var(--background-fill-secondary);
  overflow-wrap: anywhere; }
.fx-hint, .fx-note { color: var(--body-text-color-subdued); margin: .35rem 0 0; overflow-wrap: anywhere; }
.fx-top { font-size: 1.9rem; font-weight: 650; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
.fx-facts { margin: .1rem 0 .7rem; }
.fx-bars { list-style: none; margin: 0; padding: 0; }
.fx-bars li { display: grid; grid-template-columns: minmax(5rem, 9rem) 1fr 3.4rem; gap: .6rem; align-items: center;
  margin: .25rem 0; }
.fx-bars .name { overflow-wrap: anywhere; }
.fx-bars .track { background: var(--border-color-primary); border-radius: 4px; height: .8rem; overflow: hidden; }
.fx-bars .bar { display: block; background: #0072b2; height: 100%; }
.dark .fx-bars .bar { background: #56b4e9; }
.fx-bars .score { text-align: right; font-variant-numeric: tabular-nums; }
.fx-pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
.fx-pictures figure { margin: 0; }
.fx-pictures img { width: 100%; height: auto; border-radius: 6px; }
.fx-pictures .for-dark, .dark .fx-pictures .for-light { display: none; }
.dark .fx-pictures .for-dark { display: block; }
.fx-scroll { overflow-x: auto; }
.fx table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.fx caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
.fx th, .fx td { padding: .35rem .7rem; text-align: right; border: 0; border-bottom: 1px solid
  var(--border-color-primary); white-space: nowrap; }
.fx td.class, .fx th.class { text-align: left; }
.fx tr[aria-current] > * { background: var(--background-fill-secondary); font-weight: 650; }
@media (max-width: 640px) { .fx th, .fx td { padding: .35rem .35rem; font-size: .9rem; } }
"""


def error_html(message: object) -> str:
    """A mistake as one line."""
    return f'<div class="fx fx-error" role="alert">{escape(printable(" ".join(str(message).splitlines())))}</div>'


def hint_html(text: str) -> str:
    """What there is to do."""
    return f'<div class="fx"><p class="fx-hint">{escape(text)}</p></div>'


def answer_html(sound: Sound, heard: Heard, rows: Sequence[Row]) -> str:
    """The best classes as bars, and what they cost. rows: with one for each size that heard the sound."""
    first = heard.best[0]
    bars = "".join(
        f'<li><span class="name">{_text(label)}</span>'
        f'<span class="track" aria-hidden="true"><span class="bar" style="width:{100 * score:.1f}%"></span></span>'
        f'<span class="score">{100 * score:.1f} %</span></li>'
        for label, score in heard.best
    )
    notes = "".join(f'<p class="fx-note">{_text(note)}</p>' for note in heard.notes)
    return (
        f'<section class="fx" role="status" aria-label="Answer"><p class="fx-top">{_text(first.label)}</p>'
        f'<p class="fx-facts">{_text(facts(heard, rows))}</p><ol class="fx-bars">{bars}</ol>'
        f'<p class="fx-note">{_text(sound.name)}: {_text(shown_window(heard))}</p>{notes}</section>'
    )


def facts(heard: Heard, rows: Sequence[Row]) -> str:
    """In words: the sizes that heard the sound, and their tokens, GFLOPs and milliseconds together."""
    sizes = heard.best.patch_sizes
    used = [row for row in rows if row.patch_size in sizes]
    tokens, gflops = sum(row.tokens for row in used), sum(row.gflops for row in used)
    milliseconds = sum(row.milliseconds for row in used)
    name = "patch size " + " > ".join(map(str, sizes))
    each = ", for each window" if heard.windows > 1 else ""
    up_to = "up to " if heard.windows > 1 and len(sizes) > 1 else ""
    return f"{name} · {up_to}{tokens:,} tokens · {gflops:.3g} GFLOPs · {milliseconds:.2g} ms{each}"


def shown_window(heard: Heard) -> str:
    """In words: which part of the clip the pictures show."""
    if heard.windows == 1:
        return f"{heard.end - heard.start:.2f} s, heard whole"
    return (
        f"the scores are means over {heard.windows} windows; the pictures show {heard.start:.2f} to {heard.end:.2f} s,"
        f" where {heard.best[0].label} scores highest"
    )


def table_html(rows: Sequence[Row], chosen: Sequence[object]) -> str:
    """The sizes as a table; `chosen` ones are marked."""
    heads = ("patch", "tokens", "GFLOPs", "ms", "class", "score")
    head = "".join(f'<th scope="col"{_kind(name)}>{name}</th>' for name in heads)
    body = "".join(
        f'<tr{_current(row.patch_size in chosen)}><th scope="row">{row.patch_size}</th>'
        f"<td>{row.tokens:,}</td><td>{row.gflops:.3g}</td><td>{row.milliseconds:.2g}</td>"
        f'<td class="class">{_text(row.best.label)}</td><td>{100 * row.best.score:.1f} %</td></tr>'
        for row in rows
    )
    return (
        '<section class="fx"><div class="fx-scroll"><table><caption>The same sound at other patch sizes</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        '<p class="fx-note">Tokens, GFLOPs and milliseconds are those of one window; the time is the median of five'
        " passes on this machine, from samples to scores.</p></section>"
    )


def _kind(name: str) -> str:
    return ' class="class"' if name == "class" else ""


def _current(chosen: bool) -> str:
    return ' aria-current="true"' if chosen else ""


def _text(value: object) -> str:
    return escape(printable(value))


def pictures_html(heard: Heard, frame_seconds: float) -> str:
    """The window under its patch grid, and the attention laid over it. frame_seconds: from one frame to the next."""
    size, label = heard.layout.patch, printable(heard.best[0].label)
    grid = heard.layout.grid
    figures = (
        (f"Spectrogram in patches of {size}: {grid.freq} rows of {grid.time}", grid_picture(heard, frame_seconds)),
        (f"Attention over the spectrogram, answer {label}", attention_picture(heard, frame_seconds)),
    )
    return '<div class="fx fx-pictures">' + "".join(_figure(text, image) for text, image in figures) + "</div>"


def _figure(text: str, image: Picture) -> str:
    one, other = (
        f'<img class="for-{name}" alt="{escape(text)}" src="{data_uri("image/png", content)}">'
        for name, content in (("light", image.light), ("dark", image.dark))
    )
    return f"<figure>{one}{other}</figure>"


def grid_lines(layout: Layout, frames: int, bins: int) -> tuple[list[int], list[int]]:
    """Bins and frames at which a patch starts or the last one ends, within the spectrogram."""
    axes = zip(layout.grid, layout.stride, layout.patch, (bins, frames), strict=True)
    rows, columns = (
        sorted({*(step * number for number in range(count)), min(extent, step * (count - 1) + patch)})
        for count, step, patch, extent in axes
    )
    return rows, columns


def grid_picture(heard: Heard, frame_seconds: float) -> Picture:
    """The log-mel of the window, a line around each patch."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        extent = _extent(heard, frame_seconds)
        axes.imshow(_sounding(heard), origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="none")
        rows, columns = grid_lines(heard.layout, *heard.log_mel.shape)
        colour = {"color": "#9fb3c8", "linewidth": 0.7, "alpha": 0.75}
        axes.hlines(rows, heard.start, heard.start + columns[-1] * frame_seconds, **colour)
        axes.vlines([heard.start + column * frame_seconds for column in columns], 0, rows[-1], **colour)
        count = heard.layout.grid
        tokens = f"{count.tokens:,} {'patch' if count.tokens == 1 else 'patches'}"
        _finish(axes, extent, f"log-mel, {tokens} of {heard.layout.patch.freq} bins x {heard.layout.patch.time} frames")

    return picture(draw, WIDTH, HEIGHT)


def attention_picture(heard: Heard, frame_seconds: float) -> Picture:
    """The log-mel in grey, and over it the attention: the more, the more opaque."""
    weights = heard.attention.T.numpy()
    share = weights / max(float(weights.max()), 1e-12)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        extent = _extent(heard, frame_seconds)
        where: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "none"}
        axes.imshow(_sounding(heard), cmap="gray", **where)
        axes.imshow(_tint(share), **where)
        _finish(axes, extent, f"attention of the last block (most: {100 * float(weights.max()):.1f} % a patch)")

    return picture(draw, WIDTH, HEIGHT)


def _tint(share: np.ndarray) -> np.ndarray:
    """Orange (F, T, 4) of so much opacity."""
    return np.concatenate([np.broadcast_to((1.0, 0.5, 0.05), (*share.shape, 3)), 0.8 * share[..., None]], axis=-1)


def _sounding(heard: Heard) -> np.ndarray:
    """The log-mel (F, T), padding masked."""
    masked: Tensor = heard.log_mel.T
    return np.ma.masked_array(
        masked.numpy(), np.broadcast_to(np.arange(masked.shape[1]) >= heard.sounding, masked.shape)
    )


def _extent(heard: Heard, frame_seconds: float) -> tuple[float, float, float, float]:
    frames, bins = heard.log_mel.shape
    return heard.start, heard.start + frames * frame_seconds, 0.0, float(bins)


def _finish(axes: Axes, extent: tuple[float, float, float, float], title: str) -> None:
    left, right, low, high = extent
    axes.grid(visible=False)
    axes.set(xlim=(left, right), ylim=(low, high), xlabel="seconds", ylabel="mel bin")
    axes.set_title(title, fontsize=10)
