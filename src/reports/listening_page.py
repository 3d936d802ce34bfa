"""The parts of the page of `flexiast demo` as HTML. Nothing here needs Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..runtime.terminal import printable
from .listening import TOP, Heard, Row, Sound
from .listening_pictures import attention_picture, grid_picture

STYLE = """
.html-container:has(.fx) { padding-inline: 0 !important; }
.fx { font-size: 1rem; line-height: 1.45; color: var(--body-text-color); }
.fx-error { border-left: 4px solid #d55e00; padding: .6rem .8rem; background: var(--background-fill-secondary);
  overflow-wrap: anywhere; }
.fx-hint, .fx-note { opacity: .78; font-size: .92rem; margin: .35rem 0 0; overflow-wrap: anywhere; }
.fx-top { font-size: 1.9rem; font-weight: 650; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
.fx-facts { margin: .1rem 0 .7rem; }
.fx-bars { list-style: none; margin: 0; padding: 0; }
.fx-bars li { display: grid; grid-template-columns: minmax(5rem, 9rem) 1fr 4.2rem; gap: .6rem; align-items: center;
  margin: .25rem 0; }
.fx-bars .name { overflow-wrap: anywhere; }
.fx-bars .track { background: var(--border-color-primary); border-radius: 4px; height: .8rem; overflow: hidden; }
.fx-bars .bar { display: block; background: #0072b2; height: 100%; }
.dark .fx-bars .bar { background: #56b4e9; }
.fx-values { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; align-items: baseline;
  margin: 0 0 .5rem; }
.fx-values dt { overflow-wrap: anywhere; }
.fx-values dd { font-size: 1.5rem; font-weight: 650; margin: 0; font-variant-numeric: tabular-nums; }
.fx-bars .score { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.fx-pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
.fx-pictures figure { margin: 0; }
.fx-pictures figcaption { font-weight: 600; margin-bottom: .2rem; }
.fx-pictures svg { display: block; width: 100%; height: auto; }
.fx-pictures text { fill: var(--body-text-color); font-size: 15px; font-family: inherit; }
.fx-pictures image { image-rendering: pixelated; }
.fx-scroll { overflow-x: auto; }
.fx table { border-collapse: collapse; width: 100%; margin: 0; font-variant-numeric: tabular-nums; }
.fx table, .fx thead, .fx tbody, .fx tr { border: 0 !important; }
.fx caption { text-align: left; font-weight: 600; padding: .6rem 0 .4rem; }
.fx th, .fx td { padding: .25rem .6rem; text-align: right; white-space: nowrap; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; }
.fx td.class, .fx th.class { text-align: left; white-space: normal; overflow-wrap: break-word; }
.fx tr[aria-current] > * { background: var(--background-fill-secondary); font-weight: 650; }
@media (max-width: 640px) {
  .fx th, .fx td { padding: .3rem .22rem; font-size: .84rem; }
  .fx td.class span { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
}
"""


def error_html(message: object) -> str:
    """A mistake as one line."""
    return f'<div class="fx fx-error" role="alert">{escape(printable(" ".join(str(message).splitlines())))}</div>'


def hint_html(text: str) -> str:
    """What there is to do."""
    return f'<div class="fx"><p class="fx-hint">{escape(text)}</p></div>'


def answer_html(sound: Sound, heard: Heard, rows: Sequence[Row]) -> str:
    """The best classes or the values, and what they cost. rows: with one for each size that heard the sound."""
    notes = "".join(f'<p class="fx-note">{_text(note)}</p>' for note in heard.notes)
    costs = f'<p class="fx-facts">{_text(facts(heard, rows))}</p>'
    return (
        '<section class="fx" role="status" aria-label="Answer">'
        f"{_values(heard) + costs if heard.numbers else _classes(heard, costs)}"
        f'<p class="fx-note">{_text(sound.name)}: {_text(shown_window(heard))}</p>{notes}</section>'
    )


def _values(heard: Heard) -> str:
    """Every target with its value."""
    each = "".join(f"<dt>{_text(name)}</dt><dd>{_number(value)}</dd>" for name, value in heard.best)
    return f'<dl class="fx-values">{each}</dl>'


def _classes(heard: Heard, costs: str) -> str:
    """The best class, what it costs, and the best ones as bars."""
    bars = "".join(
        f'<li><span class="name">{_text(label)}</span>'
        f'<span class="track" aria-hidden="true"><span class="bar" style="width:{100 * score:.1f}%"></span></span>'
        f'<span class="score">{100 * score:.1f} %</span></li>'
        for label, score in heard.best
    )
    return f'<p class="fx-top">{_text(heard.best[0].label)}</p>{costs}<ol class="fx-bars">{bars}</ol>'


def facts(heard: Heard, rows: Sequence[Row]) -> str:
    """In words: the sizes that heard the sound, and their tokens, GFLOPs and milliseconds together."""
    sizes = heard.best.patch_sizes
    used = [row for row in rows if row.patch_size in sizes]
    tokens, gflops = sum(row.tokens for row in used), sum(row.gflops for row in used)
    milliseconds = sum(row.milliseconds for row in used)
    name = "patch size " + " > ".join(map(str, sizes))
    each = ", for each window" if heard.windows > 1 else ""
    up_to = "up to " if heard.windows > 1 and len(sizes) > 1 else ""
    return f"{name} · {up_to}{tokens:,} tokens · {_short(gflops)} GFLOPs · {_short(milliseconds)} ms{each}"


def shown_window(heard: Heard) -> str:
    """In words: which part of the clip the pictures show."""
    if heard.windows == 1:
        return f"{heard.end - heard.start:.2f} s, one window"
    why = "the loudest" if heard.numbers else f"where {heard.best[0].label} scores highest"
    return (
        f"the {'values' if heard.numbers else 'scores'} are means over {heard.windows} windows; the pictures show"
        f" {heard.start:.2f} to {heard.end:.2f} s, {why}"
    )


def table_html(rows: Sequence[Row], heard: Heard) -> str:
    """The sizes as a table, those that heard the sound marked: the best class of each, or the first values."""
    targets = [name for name, _ in heard.best[:TOP]] if heard.numbers else []
    heads = ("patch", "tokens", "GFLOPs", "ms", *(targets or ("class", "score")))
    left = () if targets else ("class",)
    head = "".join(f'<th scope="col"{" class=class" if name in left else ""}>{_text(name)}</th>' for name in heads)
    body = "".join(
        f'<tr{_current(row.patch_size in heard.best.patch_sizes)}><th scope="row">{row.patch_size}</th>'
        f"<td>{row.tokens:,}</td><td>{_short(row.gflops)}</td><td>{_short(row.milliseconds)}</td>"
        f"{_row_values(row) if targets else _row_class(row)}</tr>"
        for row in rows
    )
    return (
        '<section class="fx"><div class="fx-scroll"><table><caption>The same sound at other patch sizes</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        '<p class="fx-note">Tokens, GFLOPs and milliseconds are those of one window; the time is the median of several'
        " passes on this machine, from samples to the answer.</p></section>"
    )


def _row_class(row: Row) -> str:
    (label, score), *_ = row.best
    return f'<td class="class"><span title="{_text(label)}">{_text(label)}</span></td><td>{100 * score:.1f} %</td>'


def _row_values(row: Row) -> str:
    return "".join(f"<td>{_number(value)}</td>" for _, value in row.best[:TOP])


def _current(chosen: bool) -> str:
    return ' aria-current="true"' if chosen else ""


def _short(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:#.2g}"


def _number(value: float) -> str:
    """A value of a target: four digits, which is more than such a model knows."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:#.4g}"


def _text(value: object) -> str:
    return escape(printable(value))


def pictures_html(heard: Heard, frame_seconds: float) -> str:
    """The window under its patch grid, and the attention laid over it. frame_seconds: from one frame to the next."""
    grid, size = heard.layout.grid, heard.layout.patch
    most = 100 * float(heard.attention.max())
    figures = (
        (
            f"Log-mel in {grid.tokens:,} {'patch' if grid.tokens == 1 else 'patches'} of {size.freq} bins x"
            f" {size.time} frames",
            grid_picture(heard, frame_seconds),
        ),
        (f"Attention of the last block, at most {most:.1f} % a patch", attention_picture(heard, frame_seconds)),
    )
    inside = "".join(f"<figure><figcaption>{escape(text)}</figcaption>{image}</figure>" for text, image in figures)
    return f'<div class="fx fx-pictures">{inside}</div>'
