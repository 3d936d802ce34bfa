"""A model's curve as a table for people."""

from __future__ import annotations

from ..classifier.curve import Cascade, Curve
from ..traintest.metrics import heading, number
from .tables import spread

MOST_LINES = 12
"""Cascades of a front that are printed, where it has more."""


def format_curve(curve: Curve) -> str:
    """The sizes, and the cascades on the Pareto front (every few of them, where there are many)."""
    seconds = next(iter(curve.seconds.values()), {})
    head = ["patch", "tokens", "GFLOPs", "p95 ms", heading(curve.score_name), "temperature", "ECE", "scaled"]
    lines = ["".join(f"{name:>13}" for name in head)]
    for p in curve.points:
        time = seconds.get(str(p.patch_size))
        cells = [str(p.patch_size), str(p.tokens), f"{p.gflops:.4g}", "-" if time is None else f"{1e3 * time:.3g}"]
        calibration = [f"{p.temperature:.2f}", f"{p.ece_before:.3f}", f"{p.ece_after:.3f}"]
        cells += [number(curve.score_name, p.score), *(["-"] * 3 if curve.score_name == "R2" else calibration)]
        lines.append("".join(f"{cell:>13}" for cell in cells))
    front = curve.cascades
    shown = spread(len(front), MOST_LINES)
    of = f", {len(shown)} of {len(front)}" if len(shown) < len(front) else ""
    lines.append(f"Pareto front on {curve.clips} clips{of}: mean GFLOPs, {curve.score_name}, sizes (share of clips)")
    for place in shown:
        c = front[place]
        lines.append(f"{c.gflops:13.4g}{number(curve.score_name, c.score):>13}  {sizes_of(c)}")
    return "\n".join(lines)


def sizes_of(cascade: Cascade) -> str:
    """The sizes of a cascade from coarse to fine, with the share of the clips that each scored."""
    looks = zip(cascade.rule.sizes, cascade.reach, strict=True)
    sizes = ", ".join(f"{size} ({100 * share:.0f} %)" for size, share in looks)
    return sizes + (", averaged" if cascade.rule.average and len(cascade.rule.sizes) > 1 else "")
