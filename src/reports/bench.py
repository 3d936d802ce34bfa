"""The cost of every patch size, as a text table and as a picture."""

from __future__ import annotations

from ..traintest.bench import Bench
from .pictures import new_figure, to_png


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
    lines.append(
        f"machine: {report.gflops_per_second:.0f} GFLOP/s, {report.gigabytes_per_second:.1f} GB/s;"
        f" log-mel of a clip: {report.front_end_ms:.2f} ms"
    )
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plot_bench(report: Bench) -> bytes:
    """PNG: clips per second against tokens with fit and roofline, latency, and score against speed."""
    costs = sorted(report.costs, key=lambda cost: cost.tokens)
    scored = [cost for cost in costs if cost.score is not None]
    figure = new_figure(15 if scored else 10.5, 4.4)
    speed, latency, *score_axes = figure.subplots(1, 3 if scored else 2)
    tokens = [cost.tokens for cost in costs]
    bound = f"roofline: {report.gflops_per_second:.0f} GFLOP/s, {report.gigabytes_per_second:.0f} GB/s"
    speed.plot(tokens, [c.roofline_clips_per_second for c in costs], "--", color="gray", label=bound)
    label = "measured" if report.growth is None else f"measured, ~ tokens^{-report.growth:.2f}"
    speed.plot(tokens, [c.clips_per_second for c in costs], "o-", label=label)
    for cost in costs:
        speed.annotate(cost.patch_size, (cost.tokens, cost.clips_per_second), xytext=(3, 5), textcoords="offset points")
    speed.set(xscale="log", yscale="log", xlabel="patch tokens of a clip", ylabel="clips per second")
    speed.legend(fontsize=9)
    latency.plot(tokens, [c.latency_p50_ms for c in costs], "o-", label="median")
    latency.plot(tokens, [c.latency_p95_ms for c in costs], "^:", label="95 %")
    latency.set(xscale="log", xlabel="patch tokens of a clip", ylabel="latency of one clip, ms")
    latency.set_ylim(bottom=0)
    latency.legend(fontsize=9)
    for axes in score_axes:
        axes.plot([c.clips_per_second for c in scored], [100 * (c.score or 0.0) for c in scored], "o-")
        for cost in scored:
            point = (cost.clips_per_second, 100 * (cost.score or 0.0))
            axes.annotate(cost.patch_size, point, xytext=(3, 5), textcoords="offset points")
        axes.set(xscale="log", xlabel="clips per second", ylabel=f"validation {report.score_name}, %")
    for axes in (speed, latency, *score_axes):
        axes.margins(x=0.1)
        axes.grid(alpha=0.3, which="both")
    return to_png(figure)
