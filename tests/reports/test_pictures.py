"""Pictures: no text lies on another, light and dark differ, the axes name their units."""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexiast
from flexiast.classifier.cascade import Rule
from flexiast.classifier.curve import Cascade
from flexiast.models.geometry import PatchSize
from flexiast.reports import bench, flexibility, pictures, run_pictures, run_report
from flexiast.reports.findings import ClipAnswers
from flexiast.traintest.bench import Bench, Cost, OnnxCost
from flexiast.traintest.cascade_report import Comparison
from flexiast.traintest.mistakes import Bin
from tests.scripts import script

ROOT = Path(__file__).resolve().parents[2]


specialists, how_it_works = script(ROOT / "egs" / "specialists.py"), script(ROOT / "docs" / "how_it_works.py")

SIZES = (8, 10, 12, 16, 20, 24, 32, 40, 48)


def found(score: float | None) -> Bench:
    """Costs of which those of 32 and 40 nearly coincide."""
    tokens = (2048, 1326, 945, 512, 366, 258, 128, 125, 64)
    costs = tuple(
        Cost(str(size), count, 0.1 * count, 2000 / count, 0.5 * count, 0.55 * count, None, 4000 / count, score)
        for size, count in zip(SIZES, tokens, strict=True)
    )
    onnx = tuple(
        OnnxCost(weights, cost.patch_size, cost.tokens, speed * cost.clips_per_second, cost.latency_p50_ms)
        for weights, speed in (("float32", 0.9), ("int8", 1.2))
        for cost in costs
    )
    return Bench(costs, 1.0, 900.0, 40.0, 1.0, "accuracy", onnx)


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

    for module in (bench, flexibility, run_pictures, specialists, how_it_works):
        monkeypatch.setattr(module, "picture", picture)
    return drawn


def texts(axes: Any) -> list[Any]:
    """Boxes of the labels of an axes, titles and ticks included, that are not empty."""
    renderer = axes.figure.canvas.get_renderer()
    shown = [*axes.texts, axes.title, axes._left_title, axes._right_title, axes.xaxis.label, axes.yaxis.label]
    shown += [tick.label1 for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks() if tick.label1]
    return [text.get_window_extent(renderer) for text in shown if text.get_text() and text.get_visible()]


def overlaps(figure: Any) -> list[tuple[Any, Any]]:
    """Texts of a figure that lie on one another, by their boxes."""
    boxes = [box for axes in figure.axes for box in texts(axes)]
    boxes += [text.get_window_extent(figure.canvas.get_renderer()) for text in figure.texts if text.get_text()]
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.slow
@pytest.mark.parametrize("score", [None, 0.8])
def test_no_label_of_the_cost_lies_on_another(score: float | None, figures: list[Any]) -> None:
    image = bench.plot_bench(found(score))
    assert len(figures) == 2
    for axes in itertools.chain(*(figure.axes for figure in figures)):
        assert {str(size) for size in SIZES} <= {text.get_text() for text in axes.texts}
    assert [overlaps(figure) for figure in figures] == [[], []]
    assert image.light.startswith(b"\x89PNG")
    assert image.light != image.dark


@pytest.mark.slow
def test_lines_that_end_together_are_named_apart(figures: list[Any]) -> None:
    models = ("fixed", "control", "supervised", "distilled")
    flexibility.plot_flexibility(rows(models), 1234)
    by_size, by_cost = figures[0].axes
    assert {text.get_text() for text in by_cost.texts} == set(models)
    assert overlaps(figures[0]) == []
    right = figures[0].bbox.x1
    assert all(box.x1 <= right for box in texts(by_cost))
    assert by_size.get_legend() is by_cost.get_legend() is None
    assert (by_size.get_ylabel(), by_cost.get_xlabel()) == ("accuracy, %", "cost, GFLOPs per clip")
    flexibility.plot_flexibility(rows([f"m{n}" for n in range(pictures.MOST_LABELLED + 1)]), 1234)
    assert len(figures[-1].axes[1].get_legend().get_texts()) == pictures.MOST_LABELLED + 1


def test_the_front_of_cascades_lies_over_the_cost_and_says_whose_it_is(figures: list[Any]) -> None:
    rule = Rule((PatchSize(32, 32), PatchSize(16, 16)), (0.8,))
    front = [Cascade(rule, (1.0, share), 0.3 + share, 0.9 + 0.05 * share) for share in (0.1, 0.5)]
    flexibility.plot_flexibility(rows(["flexible"]), 1234, front=front)
    by_size, by_cost = figures[0].axes
    assert len(by_size.lines) == 1
    assert by_cost.lines[1].get_xydata() == pytest.approx(np.array([(0.4, 90.5), (0.8, 92.5)]))
    assert by_cost.get_title(loc="right") == "dots: cascades, on validation clips"


def test_a_label_is_nearest_to_its_own_point(figures: list[Any]) -> None:
    kept = json.loads((ROOT / "benchmarks" / "results" / "growth.json").read_text())
    fields = {field.name for field in dataclasses.fields(Bench)} - {"costs", "onnx"}
    found = Bench(tuple(Cost(**cost) for cost in kept["costs"]), **{name: kept[name] for name in fields})
    bench.plot_bench(found)
    assert overlaps(figures[0]) == []
    for axes in figures[0].axes:
        at = axes.transData.transform([label.xy for label in axes.texts])
        for number, label in enumerate(axes.texts):
            box = label.get_window_extent(axes.figure.canvas.get_renderer())
            away = [math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1)) for x, y in at]
            assert away[number] == min(away), label.get_text()


@pytest.mark.slow
def test_no_text_of_a_report_lies_on_another(figures: list[Any]) -> None:
    sizes = ("8", "12", "16", "24", "32", "48", "16x32", "8x48")
    records = [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "validation": {size: {"accuracy": 0.9 - 0.001 * n, "loss": 1.0 / epoch} for n, size in enumerate(sizes)},
        }
        for epoch in range(1, 9)
    ]
    run_pictures.plot_training(records, "ce")
    bins = [Bin(0.1 * n, 0.1 * (n + 1), 10, 0.1 * n + 0.05, 0.1 * n) for n in range(10)]
    run_pictures.plot_calibration(bins)
    names = tuple(f"class of sounds {n}" for n in range(run_report.MOST_DRAWN_CLASSES))
    run_pictures.plot_confusion(np.eye(len(names), dtype=int), names)
    numbers = [f"number {n}" for n in range(run_pictures.MOST_TARGETS)]
    true = np.linspace(-1000, 1000, 50)[:, None] * np.ones(len(numbers))
    run_pictures.plot_predicted(ClipAnswers([], 0.9 * true, true), numbers, [123.4] * len(numbers))
    assert len(figures) == 8
    assert [overlaps(figure) for figure in figures] == [[]] * 8


@pytest.mark.slow
def test_no_text_of_the_other_pictures_lies_on_another(figures: list[Any]) -> None:
    measured = [row | {"n_clips": 100} for row in rows(("specialists", "fixed", "flexible"))]
    comparison = Comparison(
        "flexible", "48 > 8", "0.5", "1 0.2", 0.5, 1.0, "accuracy", 0.9, "gflops", "8", 0.8, 0.1, 0.0, 0.2
    )
    specialists.plot(measured, 100, [comparison])
    how_it_works.drawing(flexiast.load(ROOT / "pretrained_models" / "demo_flexible"), how_it_works.SOUND)
    assert len(figures) == 4
    assert [overlaps(figure) for figure in figures] == [[]] * 4


@pytest.mark.slow
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
