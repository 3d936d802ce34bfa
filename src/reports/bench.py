"""The cost of every patch size, as a text table and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..traintest.bench import Bench
from ..traintest.metrics import heading
from .pictures import Picture, label_points, picture, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def format_bench(report: Bench) -> str:
    """The costs as a text table."""
    head = ["patch", "tokens", "GFLOPs", "clips/s", "roofline", "p50 ms", "p95 ms", "+ MB", report.score_name]
    lines = ["".join(f"{name:>10}" for name in head)]
    for c in report.costs:
        cells = [c.patch_size, c.tokens, c.gflops, c.clips_per_second, c.roofline_clips_per_second]
        cells += [c.latency_p50_ms, c.latency_p95_ms, c.peak_memory_mb, c.score]
        lines.append("".join(f"{_cell(cell):>10}" for cell in cells))
    if report.growth is not None:
        lines.append(f"seconds per clip grow as tokens^{report.growth:.2f}")
    for weights in dict.fromkeys(cost.weights for cost in report.onnx):
        rates = (f"{c.patch_size}: {c.clips_per_second:.4g}" for c in report.onnx if c.weights == weights)
        lines.append(f"ONNX Runtime {weights}, clips/s: {', '.join(rates)}")
    lines.append(
        f"machine: {report.gflops_per_second:.0f} GFLOP/s, {report.gigabytes_per_second:.1f} GB/s;"
        f" log-mel of a clip: {report.front_end_ms:.2f} ms"
    )
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plot_bench(report: Bench) -> Picture:
    """Clips per second against tokens with fit, roofline and ONNX Runtime, latency, and the score against speed."""
    scored = any(cost.score is not None for cost in report.costs)

    def draw(figure: Figure) -> None:
        speed, latency, *more = figure.subplots(1, 3 if scored else 2)
        points = {speed: _draw_speed(speed, report), latency: _draw_latency(latency, report)}
        points |= {axes: _draw_score(axes, report) for axes in more}
        for axes, names in points.items():  # last: until then the axes still change their widths
            label_points(axes, names)

    return picture(draw, 15 if scored else 10.5, 4.4)


Points = list[tuple[float, float, str]]
"""Places of the patch sizes and their names."""


def _draw_speed(axes: Axes, report: Bench) -> Points:
    costs = sorted(report.costs, key=lambda cost: cost.tokens)
    tokens = [cost.tokens for cost in costs]
    rates = [cost.clips_per_second for cost in costs]
    bounds = [cost.roofline_clips_per_second for cost in costs]
    axes.plot(tokens, rates, "o-")
    axes.plot(tokens, bounds, "--")
    for weights, marker in (("float32", "^:"), ("int8", "v:")):
        if line := sorted((c.tokens, c.clips_per_second) for c in report.onnx if c.weights == weights):
            axes.plot(*zip(*line, strict=True), marker, markersize=4, label=f"ONNX Runtime {weights}")
    if report.onnx:
        axes.legend(loc="lower left")
    growth = "" if report.growth is None else f", ~ tokens^{-report.growth:.2f}"
    axes.set_title(f"measured{growth}", color="C0", fontsize=9)
    bound = f"roofline: {report.gflops_per_second:.0f} GFLOP/s, {report.gigabytes_per_second:.0f} GB/s"
    axes.set_title(bound, color="C1", fontsize=9, loc="right")
    axes.set(xscale="log", yscale="log", xlabel="patch tokens of a clip", ylabel="clips per second")
    _finish(axes, plain_y=True)
    return [(c.tokens, c.clips_per_second, c.patch_size) for c in costs]


def _draw_latency(axes: Axes, report: Bench) -> Points:
    costs = sorted(report.costs, key=lambda cost: cost.tokens)
    tokens = [cost.tokens for cost in costs]
    axes.plot(tokens, [cost.latency_p50_ms for cost in costs], "o-")
    axes.plot(tokens, [cost.latency_p95_ms for cost in costs], "^:")
    axes.set_title("median", color="C0", fontsize=9)
    axes.set_title("95 % of clips are faster", color="C1", fontsize=9, loc="right")
    axes.set(xscale="log", xlabel="patch tokens of a clip", ylabel="latency of one clip, ms")
    axes.set_ylim(bottom=0)
    _finish(axes)
    return [(c.tokens, c.latency_p50_ms, c.patch_size) for c in costs]


def _draw_score(axes: Axes, report: Bench) -> Points:
    points = [
        (cost.clips_per_second, cost.score * (1 if report.score_name == "R2" else 100), cost.patch_size)
        for cost in sorted(report.costs, key=lambda cost: cost.tokens)
        if cost.score is not None
    ]
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o-")
    axes.set(xscale="log", xlabel="clips per second", ylabel=f"validation {heading(report.score_name)}")
    _finish(axes)
    return points


def _finish(axes: Axes, plain_y: bool = False) -> None:
    """Room at the sides, and plain numbers on the axes."""
    axes.margins(x=0.1, y=0.1)
    plain_ticks(axes.xaxis)
    if plain_y:
        plain_ticks(axes.yaxis)
