"""Pictures: no text lies on another, light and dark differ, the axes name their units."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexiast.reports import bench, flexibility, pictures
from flexiast.traintest.bench import Bench, Cost

SIZES = (8, 10, 12, 16, 20, 24, 32, 40, 48)


def found(score: float | None) -> Bench:
    """Costs of which those of 32 and 40 nearly coincide."""
    tokens = (2048, 1326, 945, 512, 366, 258, 128, 125, 64)
    costs = tuple(
        Cost(str(size), count, 0.1 * count, 2000 / count, 0.5 * count, 0.55 * count, None, 4000 / count, score)
        for size, count in zip(SIZES, tokens, strict=True)
    )
    return Bench(costs, 1.0, 900.0, 40.0, 1.0, "accuracy")


def rows(models: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "resize": "pi",
            "patch_freq": s,
            "patch_time": s,
            "gflops": 10 / s,
            "accuracy": 0.9 - 0.001 * n,
        }
        for n, model in enumerate(models)
        for s in SIZES
    ]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn from here on."""
    drawn: list[Any] = []

    def picture(draw: Any, width: float, height: float) -> pictures.Picture:
        image = pictures.picture(lambda figure: (draw(figure), drawn.append(figure))[0], width, height)
        for figure in drawn:
            figure.draw_without_rendering()
        return image

    for module in (bench, flexibility):
        monkeypatch.setattr(module, "picture", picture)
    return drawn


def texts(axes: Any) -> list[Any]:
    """Boxes of the labels of an axes, titles included, that are not empty."""
    renderer = axes.figure.canvas.get_renderer()
    shown = [*axes.texts, axes.title, axes._right_title, axes.xaxis.label, axes.yaxis.label]
    return [text.get_window_extent(renderer) for text in shown if text.get_text()]


@pytest.mark.parametrize("score", [None, 0.8])
def test_no_label_of_the_cost_lies_on_another(score: float | None, figures: list[Any]) -> None:
    image = bench.plot_bench(found(score))
    assert len(figures) == 2
    for axes in itertools.chain(*(figure.axes for figure in figures)):
        boxes = texts(axes)
        assert {str(size) for size in SIZES} <= {text.get_text() for text in axes.texts}
        assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert image.light.startswith(b"\x89PNG")
    assert image.light != image.dark


def test_lines_that_end_together_are_named_apart(figures: list[Any]) -> None:
    models = ("fixed", "control", "supervised", "distilled")
    flexibility.plot_flexibility(rows(models), 1234)
    by_size, by_cost = figures[0].axes
    assert {text.get_text() for text in by_cost.texts} == set(models)
    assert not [(a, b) for a, b in itertools.combinations(texts(by_cost), 2) if a.overlaps(b)]
    right = figures[0].bbox.x1
    assert all(box.x1 <= right for box in texts(by_cost))
    assert by_size.get_legend() is by_cost.get_legend() is None
    assert (by_size.get_ylabel(), by_cost.get_xlabel()) == ("accuracy, %", "cost, GFLOPs per clip")
    flexibility.plot_flexibility(rows([f"m{n}" for n in range(pictures.MOST_LABELLED + 1)]), 1234)
    assert len(figures[-1].axes[1].get_legend().get_texts()) == pictures.MOST_LABELLED + 1


def test_both_themes_are_written_and_their_lines_stand_out_from_the_paper(tmp_path: Path) -> None:
    image = pictures.picture(lambda figure: figure.subplots(), 1, 1)
    image.write(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == image.light
    assert (tmp_path / "a-dark.png").read_bytes() == image.dark
    assert image._repr_png_() == image.light
    assert repr(image) == "Picture()"
    for theme in pictures.THEMES.values():
        assert min(_contrast(colour, theme["paper"]) for colour in (*theme["lines"], theme["ink"])) >= 2.9


def _contrast(one: str, other: str) -> float:
    """Ratio of relative luminances, as WCAG defines it."""

    def luminance(colour: str) -> float:
        values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
