"""The one style of all pictures: colours, axes, labels beside the lines; each picture light and dark.

Colours: Okabe and Ito, which people with any kind of colour vision tell apart; dashes and markers say the same again.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THEMES = {
    "light": {
        "paper": "#ffffff",
        "ink": "#1f2328",
        "grid": "#d8dee4",
        "lines": ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b57f00", "#5e5e5e", "#3a9bd0", "#7a5cc0"),
    },
    "dark": {
        "paper": "#0d1117",
        "ink": "#e6edf3",
        "grid": "#30363d",
        "lines": ("#56b4e9", "#ff8c42", "#2fcf9f", "#e8a0cb", "#f0c030", "#b0b0b0", "#8ec7f2", "#b8a2f0"),
    },
}
MARKERS = "osD^vP*X"
MOST_LABELLED = 10
"""Lines up to which each has its name beside its end; more are named in a legend."""
_PLACES = (
    (4, 4),
    (-4, 4),
    (4, -4),
    (-4, -4),
    (0, 9),
    (0, -9),
    (12, 0),
    (-12, 0),
    (14, 12),
    (-14, -12),
    (0, 18),
    (0, -18),
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture as two PNG files, for light and for dark pages. A notebook shows the light one."""

    light: bytes = dataclasses.field(repr=False)
    dark: bytes = dataclasses.field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.light

    def write(self, path: Path) -> None:
        """Write NAME.png and NAME-dark.png. Raises FileError if the system refuses."""
        write_atomically(path, self.light)
        write_atomically(path.with_name(f"{path.stem}-dark{path.suffix}"), self.dark)


def picture(draw: Callable[[Figure], None], width: float, height: float) -> Picture:
    """Draw on an empty figure, width and height in inches, in both themes. Only this imports matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    images = {}
    for name, theme in THEMES.items():
        settings: Any = _settings(theme)
        with matplotlib.rc_context(settings):
            figure = Figure(figsize=(width, height), layout="constrained")
            FigureCanvasAgg(figure)
            draw(figure)
            image = io.BytesIO()
            figure.savefig(image, format="png", dpi=130)
            images[name] = image.getvalue()
    return Picture(**images)


def _settings(theme: dict[str, Any]) -> dict[str, Any]:
    from cycler import cycler

    ink, paper = theme["ink"], theme["paper"]
    return {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), paper),
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink),
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=theme["lines"]),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "grid.color": theme["grid"],
        "legend.edgecolor": theme["grid"],
        "legend.fontsize": 9,
        "lines.markersize": 5,
        "text.parse_math": False,  # names of classes and models may hold dollar signs
    }


def label_points(axes: Axes, points: Iterable[tuple[float, float, str]]) -> None:
    """Write a text beside each point (x, y, text): on no other text, nearest to its own point, on no line, and close.

    Where not all of that can be, the first counts most. Call it when everything else is drawn and all limits are set:
    places are found in pixels.
    """
    named = list(points)
    if not named:
        return
    figure: Any = axes.figure
    figure.draw_without_rendering()
    renderer, inside = figure.canvas.get_renderer(), axes.get_window_extent()
    drawn = np.concatenate([_dense(axes.transData.transform(line.get_xydata())) for line in axes.lines])
    pixels = axes.transData.transform([(x, y) for x, y, _ in named])
    taken: list[Any] = []
    for number, (x, y, text) in enumerate(named):
        label = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", fontsize=9)
        label.set_in_layout(False)
        costs = []
        for place in _PLACES:
            box = _moved(label, place, renderer)
            distances = _distances(box, pixels)
            astray = bool((distances < distances[number]).any())
            crossed, covered = _crossed(box, taken, drawn, inside)
            costs.append((crossed, astray, covered, float(distances[number])))
        taken.append(_moved(label, _PLACES[costs.index(min(costs))], renderer))


def _moved(label: Any, place: tuple[int, int], renderer: Any) -> Any:
    """Put a label at so many points from its point; returns the box it takes there."""
    dx, dy = place
    label.set(
        ha=("right", "center", "left")[1 + (dx > 0) - (dx < 0)], va=("top", "center", "bottom")[1 + (dy > 0) - (dy < 0)]
    )
    label.xyann = place
    return label.get_window_extent(renderer).padded(1)


def _distances(box: Any, pixels: np.ndarray) -> np.ndarray:
    """How far points (n, 2) are from a box, (n,); 0 inside it."""
    low, high = np.array((box.x0, box.y0)), np.array((box.x1, box.y1))
    return np.linalg.norm(np.maximum(0, np.maximum(low - pixels, pixels - high)), axis=1)


def _crossed(box: Any, taken: Sequence[Any], drawn: np.ndarray, inside: Any) -> tuple[int, int]:
    """How many texts, or edges of the axes, a box lies on, and how many of the drawn points (n, 2)."""
    out = not (inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1)
    covered = (drawn > (box.x0, box.y0)) & (drawn < (box.x1, box.y1))
    return sum(map(box.overlaps, taken)) + out, int(covered.all(axis=1).sum())


def _dense(line: np.ndarray) -> np.ndarray:
    """Points (n, 2) of a line in pixels, with 100 more on the way from each to the next."""
    steps = np.linspace(0, 1, 101)[:, None, None]
    return np.concatenate([line, (line[:-1] + steps * np.diff(line, axis=0)).reshape(-1, 2)])


def name_lines(axes: Axes, ends: Sequence[tuple[float, float, str, Any]]) -> None:
    """Write the name of each line beside its end (x, y, name, colour), moved up or down so that none lie on another.

    Many lines get a legend instead. Call it when all limits are set.
    """
    if len(ends) > MOST_LABELLED:
        axes.legend(loc="best")
        return
    figure: Any = axes.figure
    height = figure.get_size_inches()[1] * 72 * 0.75  # of the axes in points, about
    low, high = axes.get_ylim()
    gap = 12 * (high - low) / height
    ordered = sorted(ends, key=lambda end: end[1])
    places: list[float] = []
    for _, y, _, _ in ordered:
        places.append(max(y, places[-1] + gap) if places else y)
    beyond = max(0.0, places[-1] - high) if places else 0.0
    places = [place - beyond for place in places]
    for (*_, name, colour), place in zip(ordered, places, strict=True):
        label = axes.annotate(
            name, (1.0, place), xycoords=axes.get_yaxis_transform(), xytext=(6, 0), textcoords="offset points",
            color=colour, va="center", fontsize=9, annotation_clip=False,
        )  # fmt: skip
        label.set_in_layout(True)


def plain_ticks(axis: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten, written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())
